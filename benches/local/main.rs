//! What a mounted local folder costs beside `tokio::fs`: reads of 64 KiB of whole files, and of parts of a large one, from the page cache.
//!
//!     cargo bench --bench local
//!
//! Both are asked by the same thread, by turns, and what they give is looked at. OpenDAL does the same beside them when it is built:
//!
//!     cargo build --release --manifest-path benches/opendal/Cargo.toml

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../beside/mod.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod beside;
mod content;
#[path = "../storage/report.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod report;

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use nexus::{Bytes, Config, MountSpec, Nexus};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use beside::{NOT_BUILT, Part, opendal};
use content::{READ, READS, content, round};
use report::median;

const ROUNDS: usize = 15;

/// The budget: the time of `tokio::fs`, times this.
const TIMES_MAX: f64 = 1.2;

fn main() {
    let folder =
        tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the folder can be written");
    let mut large = Vec::new();
    for number in 0..READS {
        std::fs::write(folder.path().join(number.to_string()), content(number)).expect("it is written");
        large.extend(content(number));
    }
    std::fs::write(folder.path().join("large"), large).expect("it is written");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("it starts").block_on(compare(folder.path()));
}

async fn compare(folder: &Path) {
    let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
    let spec = MountSpec::new("local").option("folder", folder.display().to_string());
    nx.mount("/files", spec).await.expect("it is mounted");
    println!("reads of {} KiB, the median of {ROUNDS} rounds of {READS}, each read", READ >> 10);
    let mut opendal = opendal().map(|command| Part::of(command, &["folder", &folder.display().to_string()]));
    for (what, whole) in [("a whole file", true), ("a part of a file", false)] {
        let (mut ours, mut theirs, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            theirs.push(round(async |number| plain(folder, number, whole).await).await);
            ours.push(round(async |number| mounted(&nx, number, whole).await).await);
            others.extend(opendal.as_mut().map(|part| part.round(if whole { "whole" } else { "part" })));
        }
        let theirs = median(theirs);
        report::beside(what, median(ours), "tokio::fs", theirs, TIMES_MAX);
        if !others.is_empty() {
            report::compare("  OpenDAL", median(others), "tokio::fs", theirs);
        }
    }
    if opendal.is_none() {
        println!("  {NOT_BUILT}");
    }
    nx.shutdown().await.expect("it stops in order");
}

async fn plain(folder: &Path, number: usize, whole: bool) -> Bytes {
    if whole {
        let file: PathBuf = folder.join(number.to_string());
        return tokio::fs::read(file).await.expect("it is there").into();
    }
    let mut file = tokio::fs::File::open(folder.join("large")).await.expect("it is there");
    file.set_max_buf_size(READ);
    file.seek(SeekFrom::Start((number * READ) as u64)).await.expect("it is as long");
    let mut bytes = vec![0; READ];
    file.read_exact(&mut bytes).await.expect("it is as long");
    bytes.into()
}

async fn mounted(nx: &Nexus, number: usize, whole: bool) -> Bytes {
    match whole {
        true => nx.read(format!("/files/{number}")).await.expect("it is there"),
        false => {
            nx.read_range("/files/large", (number * READ) as u64, READ as u64).await.expect("it is as long")
        }
    }
}
