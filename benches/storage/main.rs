//! What storage costs, beside what the disk costs, `cp`, `cat`, SQLite and redb, in one run; and whether it stays within its budgets.
//!
//!     cargo bench --bench storage                                 # everything, with up to a million files
//!     cargo bench --bench storage -- writes import                # some parts only: reads, writes, streams, import, large, growth
//!     cargo bench --bench storage -- growth --files 10000000      # costs with ten million files; takes its time and some 10 GB
//!
//! Every figure is a median, and every ratio is of figures that were taken by turns. What is over its budget is told and fails nothing: a machine that does
//! something else is not a defect. An answer that is wrong is one, and ends the run.

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod baseline;
mod child;
#[path = "../disk/mod.rs"]
mod disk;
mod growth;
mod large;
mod reads;
mod report;
mod streams;
mod trees;
mod writes;

use std::path::Path;

use nexus::{Config, Nexus};

/// Files of the last step of `growth`, unless something else is asked for.
const FILES: u64 = 1_000_000;

/// The parts, in their order.
const PARTS: [&str; 6] = ["reads", "writes", "streams", "import", "large", "growth"];

fn main() {
    let mut arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == child::ARGUMENT) {
        return child::main(&arguments[1..]);
    }
    let mut files = FILES;
    if let Some(at) = arguments.iter().position(|argument| argument == "--files") {
        let number = arguments.get(at + 1).and_then(|number| number.parse().ok());
        files = number.expect("a number of files stands after --files");
        arguments.drain(at..=at + 1);
    }
    let unknown = arguments.iter().find(|part| !PARTS.contains(&part.as_str()));
    assert!(unknown.is_none(), "there is no part {unknown:?}, but {PARTS:?}");

    let folder =
        tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the folder can be written");
    println!("file system: {}", disk::file_system(folder.path()).as_deref().unwrap_or("unknown"));
    for part in
        PARTS.iter().filter(|part| arguments.is_empty() || arguments.iter().any(|asked| asked == *part))
    {
        println!("\n{part}");
        let folder = folder.path().join(part);
        std::fs::create_dir(&folder).expect("the folder can be written");
        match *part {
            "reads" => reads::run(&folder),
            "writes" => writes::run(&folder),
            "streams" => streams::run(&folder),
            "import" => trees::run(&folder),
            "large" => large::run(&folder),
            _ => growth::run(&folder, files),
        }
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    }
}

/// A runtime as programs have it.
fn runtime() -> tokio::runtime::Runtime {
    on_threads(2)
}

/// One whose tasks share so many threads.
fn on_threads(threads: usize) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().build().expect("it starts")
}

/// A kernel on `config`.
fn boot(runtime: &tokio::runtime::Runtime, config: Config) -> Nexus {
    runtime.block_on(nexus::connect(config)).expect("it boots")
}
