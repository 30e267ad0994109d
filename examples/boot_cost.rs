//! What a kernel costs: the time to boot and to end, its threads and its memory when idle.
//!
//!     cargo run --release --example boot_cost [FILES]

#![allow(clippy::print_stdout, reason = "it is there to be read")]

use std::time::{Duration, Instant};

use nexus::{Nexus, Profile, connect};
use nexus_actors::block_on;

/// How often each boot is timed; the median counts.
const ROUNDS: usize = 15;

/// How many files are written at once.
const BATCH: usize = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    block_on(async {
        let before = status("VmRSS:");
        let (mut boots, mut ends) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let empty = folder.path().join(round.to_string());
            let (nx, booted) = timed(connect(empty)).await;
            let nx = nx?;
            if round == 0 {
                println!("idle: {} kB more than the bare process's {before} kB", status("VmRSS:") - before);
                println!("threads: {}", status("Threads:"));
            }
            boots.push(booted);
            let (ended, took) = timed(nx.shutdown()).await;
            ended?;
            ends.push(took);
        }
        println!("boot on an empty folder: {:?}, longest {:?}", median(&mut boots), boots[ROUNDS - 1]);
        println!("end: {:?}, longest {:?}", median(&mut ends), ends[ROUNDS - 1]);

        let full = folder.path().join("full");
        fill(&connect(&*full).await?, files).await?;
        let mut boots = Vec::new();
        for _ in 0..ROUNDS {
            let (nx, booted) = timed(connect(&*full)).await;
            boots.push(booted);
            nx?.shutdown().await?;
        }
        println!("boot on {files} files: {:?}, longest {:?}", median(&mut boots), boots[ROUNDS - 1]);
        for profile in Profile::ALL {
            let config = nexus::Config::new(folder.path().join(profile.name())).profile(profile);
            if let Ok(nx) = connect(config).await {
                println!("{profile}: {} kB, {} threads", status("VmRSS:"), status("Threads:"));
                nx.shutdown().await?;
            }
        }
        Ok(())
    })
}

async fn fill(nx: &Nexus, files: usize) -> nexus::Result<()> {
    let paths: Vec<_> = (0..files).map(|n| format!("/d{}/e{}/f{n}", n % 100, n % 1_000)).collect();
    for batch in paths.chunks(BATCH) {
        nx.write_batch(batch.iter().map(|path| (path, path.clone())))
            .await
            .into_iter()
            .collect::<nexus::Result<Vec<_>>>()?;
    }
    nx.shutdown().await
}

#[expect(clippy::disallowed_methods, reason = "it measures from outside of any kernel")]
async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let out = future.await;
    (out, start.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A number of `/proc/self/status`; 0 where there is none.
fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
