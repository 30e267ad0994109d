//! How long a kernel takes from nothing to ready, and what it holds while idle.
//!
//!     cargo bench --bench boot

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use nexus::{Config, Nexus, SysStat, SysWrite, VPath};

/// Files in the larger folder.
const FILES: usize = 100_000;

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the target folder can be written")
}

/// Boots on `folder` and stops again; the time is that of the boot alone.
fn boot(runtime: &tokio::runtime::Runtime, folder: &Path, check: impl AsyncFn(&Nexus)) -> Duration {
    runtime.block_on(async {
        let began = Instant::now();
        let nx = nexus::connect(Config::new(folder)).await.expect("it boots");
        let took = began.elapsed();
        check(&nx).await;
        nx.shutdown().await.expect("it stops in order");
        took
    })
}

/// The memory that this process has in use, in MiB, as Linux counts it.
fn resident_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1_024.0)
}

fn boots(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");

    // First, before anything else has touched memory.
    let idle = folder();
    let before = resident_mib();
    let nx = runtime.block_on(nexus::connect(Config::new(idle.path()))).expect("it boots");
    if let (Some(before), Some(after)) = (before, resident_mib()) {
        println!("idle memory: {after:.1} MiB resident, {before:.1} MiB of it before the boot");
        assert!(after < 32.0, "an idle kernel holds less than 32 MiB");
    }
    runtime.block_on(nx.shutdown()).expect("it stops in order");

    let mut group = c.benchmark_group("boot to ready");
    group.sample_size(20);
    group.bench_function("empty folder", |b| {
        b.iter_custom(|count| {
            (0..count).map(|_| boot(&runtime, folder().path(), async |nx| assert!(nx.is_admin()))).sum()
        });
    });

    let full = folder();
    let last = path(&format!("/{:03}/{:06}", (FILES - 1) % 1_000, FILES - 1));
    boot(&runtime, full.path(), async |nx| {
        let write =
            |n: usize| nx.send(SysWrite::at(path(&format!("/{:03}/{n:06}", n % 1_000)), "x").create());
        for first in (0..FILES).step_by(1_000) {
            for done in futures_util::future::join_all((first..first + 1_000).map(write)).await {
                done.expect("it writes");
            }
        }
    });
    group.bench_function("100,000 files", |b| {
        b.iter_custom(|count| {
            let check = async |nx: &Nexus| {
                assert_eq!(nx.send(SysStat::at(&last)).await.expect("it is there").size, 1);
            };
            (0..count).map(|_| boot(&runtime, full.path(), check)).sum()
        });
    });
    group.finish();
}

criterion_group!(benches, boots);
criterion_main!(benches);
