//! Large content: read again beside `cat`, and a gigabyte in and out with the memory that it takes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::stream;
use nexus::{Bytes, Config, Nexus};

use crate::child::{Working, told};
use crate::report::{median, time, verdict};
use crate::{boot, runtime};

const MIB: usize = 1 << 20;

/// Sizes that are read again: one that the cache of content holds, and one that it does not.
const SIZES: [usize; 2] = [32 * MIB, 256 * MIB];

const TURNS: usize = 7;

/// The budget: the rate of `cat` from the page cache, times this.
const RATE_MIN: f64 = 0.8;

/// What goes in and out, in pieces, and the memory that it may take above that of an idle kernel.
const STREAMED: usize = 1_024 * MIB;
const PIECE: usize = MIB;
const MEMORY_MAX_MIB: f64 = 64.0;

pub(crate) fn run(folder: &Path) {
    let runtime = runtime();
    let data = folder.join("again");
    let nx = boot(&runtime, Config::new(&data));
    for size in SIZES {
        let plain = folder.join("plain");
        let mut noise = Noise(size as u64);
        let content = noise.bytes(size);
        std::fs::write(&plain, &content).expect("the folder can be written");
        runtime.block_on(nx.write("/large", content.clone())).expect("it writes");
        // Verified, and in the page cache, from here on.
        assert_eq!(runtime.block_on(drain(&nx, "/large", Some(&content))), size);
        let (mut ours, mut cats) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            cats.push(time(|| cat(&plain)));
            ours.push(time(|| assert_eq!(runtime.block_on(drain(&nx, "/large", None)), size)));
        }
        let rate = median(cats).as_secs_f64() / median(ours).as_secs_f64();
        println!(
            "  {:<52} {:>10}   of the rate of cat; at least {:.0} % asked: {}",
            format!("{} MiB, read again", size / MIB),
            format!("{:.0} %", rate * 100.0),
            RATE_MIN * 100.0,
            verdict(rate >= RATE_MIN)
        );
    }
    runtime.block_on(nx.shutdown()).expect("it stops in order");

    let data = folder.join("streamed");
    let mut child = Working::start(&["stream", data.to_str().expect("it is text")]);
    println!("{}", child.hear());
    child.go_on();
    child.end();
}

/// Reads all of it; gives how many bytes there were.
async fn drain(nx: &Nexus, path: &str, expected: Option<&[u8]>) -> usize {
    let mut content = nx.stream(path).await.expect("it is there");
    let mut size = 0;
    while let Some(piece) = content.next().await {
        let piece = piece.expect("it reads right");
        if let Some(expected) = expected {
            assert_eq!(&expected[size..size + piece.len()], &piece[..]);
        }
        size += piece.len();
    }
    size
}

fn cat(file: &Path) {
    // Through a pipe nobody would count fairly: into nothing, as fast as it reads.
    let done = Command::new("cat").arg(file).stdout(Stdio::null()).status();
    assert!(done.expect("the command is there").success());
}

/// In a process of its own: a gigabyte in and out again.
pub(crate) fn stream_in_and_out(folder: &Path) {
    let runtime = runtime();
    let nx = boot(&runtime, Config::new(folder));
    let idle = resident_mib("VmRSS:");
    // From here on the highest is counted.
    std::fs::write("/proc/self/clear_refs", "5").expect("the system counts the memory of a process");
    let hashed = |hasher: &blake3::Hasher| *hasher.finalize().as_bytes();

    let began = Instant::now();
    let mut noise = Noise(1);
    let mut written = blake3::Hasher::new();
    let pieces = (0..STREAMED / PIECE).map(|_| {
        let piece = Bytes::from(noise.bytes(PIECE));
        written.update(&piece);
        Ok(piece)
    });
    runtime.block_on(nx.write_stream("/streamed", stream::iter(pieces))).expect("it writes");
    let went_in = began.elapsed();

    let began = Instant::now();
    let mut read = blake3::Hasher::new();
    runtime.block_on(async {
        let mut content = nx.stream("/streamed").await.expect("it is there");
        while let Some(piece) = content.next().await {
            read.update(&piece.expect("it reads right"));
        }
    });
    let came_out = began.elapsed();
    assert_eq!(hashed(&written), hashed(&read), "what came out is what went in");

    let above = resident_mib("VmHWM:") - idle;
    let rate = |took: Duration| STREAMED as f64 / MIB as f64 / took.as_secs_f64();
    told(&format!(
        "  {:<52} {:>10}   above idle ({idle:.1} MiB); at most {MEMORY_MAX_MIB} MiB asked: {}; in at {:.0} MiB/s, out at {:.0} MiB/s",
        "1 GiB in and out",
        format!("{above:.1} MiB"),
        verdict(above <= MEMORY_MAX_MIB),
        rate(went_in),
        rate(came_out)
    ));
    runtime.block_on(nx.shutdown()).expect("it stops in order");
}

/// A line of what Linux tells of this process's memory, in MiB.
fn resident_mib(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the system tells");
    let value = status.lines().find_map(|told| told.strip_prefix(line)).expect("it tells this, too");
    let kib: f64 = value.trim().trim_end_matches("kB").trim().parse().expect("it is a number");
    kib / 1_024.0
}

/// Bytes that no two chunks have in common: xorshift.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend_from_slice(&self.0.to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
