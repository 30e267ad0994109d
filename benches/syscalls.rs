//! What syscalls cost through the front door: warm reads, durable writes beside the disk's own fdatasync, listings.
//!
//!     cargo bench --bench syscalls

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod disk;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nexus::{Bytes, Config, ErrorKind, Nexus, SysRead, SysReaddir, SysStat, SysWrite, VPath};

/// Writers that commit at once.
const WRITERS: u64 = 64;

const KIB: usize = 1_024;

/// A kernel on a folder of the disk that the project is built on: a file system in memory would make fsync free.
struct Bench {
    runtime: tokio::runtime::Runtime,
    nx: Nexus,
    folder: tempfile::TempDir,
}

fn start() -> Bench {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir_in(target).expect("the target folder can be written");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("it starts");
    let nx = runtime.block_on(nexus::connect(Config::new(folder.path()))).expect("it boots");
    Bench { runtime, nx, folder }
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn warm(c: &mut Criterion) {
    let bench = start();
    let (nx, runtime) = (&bench.nx, &bench.runtime);
    let file = path("/project/file");
    runtime.block_on(nx.write(&file, vec![7u8; 4 * KIB])).expect("it writes");

    c.bench_function("stat, hot", |b| {
        b.iter_custom(|count| {
            runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..count {
                    let stat = nx.send(SysStat::at(&file)).await.expect("it is there");
                    assert_eq!(stat.size, 4 * KIB as u64);
                }
                began.elapsed()
            })
        });
    });

    let missing = path("/project/nothing");
    c.bench_function("stat of what is not there, known", |b| {
        b.iter_custom(|count| {
            runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..count {
                    let error = nx.send(SysStat::at(&missing)).await.expect_err("nothing is there");
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                }
                began.elapsed()
            })
        });
    });

    let mut group = c.benchmark_group("read, hot");
    for size in [KIB, 4 * KIB, 64 * KIB, KIB * KIB] {
        let file = path(&format!("/project/{size}"));
        runtime.block_on(nx.write(&file, vec![7u8; size])).expect("it writes");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_custom(|count| {
                runtime.block_on(async {
                    let began = Instant::now();
                    for _ in 0..count {
                        let read = nx.send(SysRead::at(&file)).await.expect("it is there");
                        assert!(read.data.len() == size && read.data[size - 1] == 7);
                    }
                    began.elapsed()
                })
            });
        });
    }
    group.finish();
    runtime.block_on(nx.shutdown()).expect("it stops in order");
}

/// Appends and syncs `count` times 1 KiB, with nothing of ours in between.
fn raw_fdatasync(folder: &Path, count: u64) -> Duration {
    let mut file = File::create(folder.join("raw")).expect("the folder can be written");
    let buffer = [7u8; KIB];
    let began = Instant::now();
    for _ in 0..count {
        file.write_all(&buffer).and_then(|()| file.sync_data()).expect("the disk takes it");
    }
    began.elapsed()
}

fn write(c: &mut Criterion) {
    let bench = start();
    let (nx, runtime) = (&bench.nx, &bench.runtime);
    let name = AtomicU64::new(0);
    let next = || path(&format!("/writes/{}", name.fetch_add(1, Ordering::Relaxed)));
    let content = Bytes::from(vec![7u8; KIB]);
    println!("file system: {}", disk::file_system(bench.folder.path()).as_deref().unwrap_or("unknown"));

    let mut group = c.benchmark_group("durable write of 1 KiB");
    group.sample_size(20);
    group.throughput(Throughput::Elements(1));
    group.bench_function("raw append and fdatasync", |b| {
        b.iter_custom(|count| raw_fdatasync(bench.folder.path(), count));
    });
    group.bench_function("alone", |b| {
        b.iter_custom(|count| {
            let files: Vec<VPath> = (0..count).map(|_| next()).collect();
            let began = Instant::now();
            runtime.block_on(async {
                for file in &files {
                    nx.send(SysWrite::at(file, content.clone()).create()).await.expect("it writes");
                }
            });
            let took = began.elapsed();
            let last = files.last().expect("criterion asks for one at least");
            let stat = runtime.block_on(nx.send(SysStat::at(last))).expect("what was acknowledged is there");
            assert_eq!((stat.size, stat.version), (KIB as u64, 1));
            took
        });
    });
    group.bench_function("64 at once", |b| {
        b.iter_custom(|count| {
            let files: Arc<Vec<VPath>> = Arc::new((0..count).map(|_| next()).collect());
            let began = Instant::now();
            runtime.block_on(async {
                let writers = (0..WRITERS).map(|writer| {
                    let (nx, files, content) = (nx.clone(), files.clone(), content.clone());
                    tokio::spawn(async move {
                        let mine = files.iter().skip(usize::try_from(writer).expect("there are 64"));
                        for file in mine.step_by(usize::try_from(WRITERS).expect("there are 64")) {
                            nx.send(SysWrite::at(file, content.clone()).create()).await.expect("it writes");
                        }
                    })
                });
                for writer in writers.collect::<Vec<_>>() {
                    writer.await.expect("no writer panics");
                }
            });
            let took = began.elapsed();
            for file in files.iter() {
                assert_eq!(
                    runtime.block_on(nx.send(SysStat::at(file))).expect("it is there").size,
                    KIB as u64
                );
            }
            took
        });
    });
    group.finish();
    runtime.block_on(nx.shutdown()).expect("it stops in order");
}

/// Makes `count` files in `folder`, many at a time so that they share their commits.
async fn fill(nx: &Nexus, folder: &str, count: usize) {
    let mut waiting = Vec::new();
    for n in 0..count {
        let (nx, file) = (nx.clone(), path(&format!("{folder}/{n:06}")));
        waiting.push(tokio::spawn(async move { nx.send(SysWrite::at(file, "x").create()).await }));
        if waiting.len() == 512 || n + 1 == count {
            for write in waiting.drain(..) {
                write.await.expect("no writer panics").expect("it writes");
            }
        }
    }
}

fn readdir(c: &mut Criterion) {
    let bench = start();
    let (nx, runtime) = (&bench.nx, &bench.runtime);
    let mut group = c.benchmark_group("readdir");
    let mut listing = |name: &str, folder: VPath, entries: usize| {
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                runtime.block_on(async {
                    let began = Instant::now();
                    for _ in 0..count {
                        let listing = nx.send(SysReaddir::at(&folder)).await.expect("it is there");
                        assert_eq!(listing.entries.len(), entries);
                    }
                    began.elapsed()
                })
            });
        });
    };
    for entries in [10usize, 1_000, 10_000] {
        let folder = format!("/flat-{entries}");
        runtime.block_on(fill(nx, &folder, entries));
        listing(&entries.to_string(), path(&folder), entries);
    }
    runtime.block_on(async {
        for n in 0..10 {
            fill(nx, &format!("/deep/{n}"), 10_000).await;
        }
    });
    listing("10 above 100,000", path("/deep"), 10);
    group.finish();
    runtime.block_on(nx.shutdown()).expect("it stops in order");
}

criterion_group!(benches, warm, write, readdir);
criterion_main!(benches);
