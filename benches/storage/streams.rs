//! Records of 1 KiB appended to streams on disk: by one writer alone, and by 64 at once on one thread and on more, to one stream and to one each.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus::{Bytes, Config, Nexus, RecordRange, StreamSpec, SysRead, SysWrite, VPath};
use tokio::runtime::Runtime;

use crate::baseline::Raw;
use crate::report::{beside, compare, median, time};
use crate::writes::{ALONE_MAX, CONTENT, SHARED_MAX};
use crate::{boot, on_threads, runtime};

/// Turns that everybody takes, with so many appends of one writer, and so many of each of those who append at once.
const TURNS: usize = 20;
const ALONE: usize = 50;
const WRITERS: usize = 64;
const EACH: usize = 16;

/// Threads that the writers share.
const THREADS: [usize; 3] = [1, 2, 4];

pub(crate) fn run(folder: &Path) {
    let (runtime, data) = (runtime(), folder.join("nexus"));
    let mut streams = Streams::make(&runtime, boot(&runtime, Config::new(&data)));
    let mut raw = Raw::new(folder);
    let threads = THREADS.map(on_threads);

    let [mut flush, mut batch, mut alone] = <[Vec<Duration>; 3]>::default();
    let [mut together, mut apart] = <[[Vec<Duration>; THREADS.len()]; 2]>::default();
    for turn in 0..=TURNS {
        let flushes: Vec<Duration> = (0..ALONE).map(|_| time(|| raw.write(1))).collect();
        let batches = time(|| (0..EACH).for_each(|_| raw.write(WRITERS)));
        let by_one = runtime.block_on(streams.append_alone());
        let all_to_one = threads.each_ref().map(|threads| streams.append_together(threads, |_| TOGETHER));
        let one_each =
            threads.each_ref().map(|threads| streams.append_together(threads, |writer| APART + writer));
        // The first turn warms up.
        if turn > 0 {
            flush.extend(flushes);
            batch.push(batches);
            alone.extend(by_one);
            together.iter_mut().zip(all_to_one).for_each(|(all, took)| all.push(took));
            apart.iter_mut().zip(one_each).for_each(|(all, took)| all.push(took));
        }
    }
    // By another kernel, which has them from disk.
    runtime.block_on(streams.nx.shutdown()).expect("it stops in order");
    streams.nx = boot(&runtime, Config::new(&data));
    runtime.block_on(streams.check());

    let flush = median(flush);
    beside("a record of 1 KiB, alone", median(alone), "an append and fdatasync", flush, ALONE_MAX);
    let each = u32::try_from(WRITERS * EACH).expect("there are few");
    for (what, took) in [("one stream", together), ("a stream each", apart)] {
        for (threads, took) in THREADS.iter().zip(took) {
            let plural = if *threads == 1 { "" } else { "s" };
            let what = format!("{WRITERS} at once on {threads} thread{plural}, {what}, each");
            beside(&what, median(took) / each, "an append and fdatasync", flush, SHARED_MAX);
        }
    }
    compare("64 in one append and fdatasync, each", median(batch) / each, "alone", flush);
    runtime.block_on(streams.nx.shutdown()).expect("it stops in order");
}

/// The streams: of who is alone, of all together, and from there on of each by himself.
const BY_ONE: usize = 0;
const TOGETHER: usize = 1;
const APART: usize = 2;

struct Streams {
    nx: Nexus,
    paths: Arc<[VPath]>,
    /// The number that the next record carries.
    next: u64,
    /// Of each stream the offsets that were acknowledged, and what was appended there.
    acknowledged: Vec<Vec<(u64, u64)>>,
}

impl Streams {
    fn make(runtime: &Runtime, nx: Nexus) -> Self {
        let paths: Arc<[VPath]> = (0..APART + WRITERS).map(path).collect();
        for path in &*paths {
            runtime.block_on(nx.make_stream(path, StreamSpec::new())).expect("it is made");
        }
        let acknowledged = vec![Vec::new(); paths.len()];
        Self { nx, paths, next: 0, acknowledged }
    }

    fn numbers(&mut self, count: usize) -> impl Iterator<Item = u64> + use<> {
        let from = self.next;
        self.next += count as u64;
        from..self.next
    }

    async fn append_alone(&mut self) -> Vec<Duration> {
        let mut took = Vec::with_capacity(ALONE);
        for number in self.numbers(ALONE) {
            let began = Instant::now();
            let offset = append(&self.nx, &self.paths[BY_ONE], number).await;
            took.push(began.elapsed());
            self.acknowledged[BY_ONE].push((offset, number));
        }
        took
    }

    /// The time until each writer has appended his records, one after the other, to the stream that is his.
    fn append_together(&mut self, threads: &Runtime, stream: impl Fn(usize) -> usize) -> Duration {
        let numbers: Vec<Vec<u64>> = (0..WRITERS).map(|_| self.numbers(EACH).collect()).collect();
        let began = Instant::now();
        let writers: Vec<_> = numbers
            .into_iter()
            .enumerate()
            .map(|(writer, numbers)| {
                let (nx, paths, stream) = (self.nx.clone(), self.paths.clone(), stream(writer));
                let appends = async move {
                    let mut done = Vec::with_capacity(EACH);
                    for number in numbers {
                        done.push((append(&nx, &paths[stream], number).await, number));
                    }
                    assert!(done.is_sorted(), "in the order in which the writer appended");
                    done
                };
                (stream, threads.spawn(appends))
            })
            .collect();
        let done: Vec<_> = writers
            .into_iter()
            .map(|(stream, writer)| (stream, threads.block_on(writer).expect("no writer fails")))
            .collect();
        let took = began.elapsed();
        done.into_iter().for_each(|(stream, done)| self.acknowledged[stream].extend(done));
        took
    }

    /// What was acknowledged is there, at the offset that was told, and nothing else.
    async fn check(&mut self) {
        for (path, acknowledged) in self.paths.iter().zip(&mut self.acknowledged) {
            acknowledged.sort_unstable();
            let mut found = Vec::with_capacity(acknowledged.len());
            loop {
                let call = SysRead::at(path).records(RecordRange::from(found.len() as u64));
                let read = self.nx.send(call).await.expect("it is there").records.expect("it is a stream");
                for one in &read.records {
                    let number =
                        u64::from_le_bytes(*one.data.first_chunk().expect("it begins with a number"));
                    assert_eq!(one.data, record(number), "what was appended");
                    found.push((one.offset, number));
                }
                if read.next == read.tail {
                    break;
                }
            }
            assert!(found == *acknowledged, "each once, where it was acknowledged");
        }
    }
}

/// Appends, and tells where.
async fn append(nx: &Nexus, to: &VPath, number: u64) -> u64 {
    let call = SysWrite::at(to, record(number)).append();
    let written = nx.send(call).await.expect("it is appended");
    written.first_record.expect("it is a stream")
}

fn record(number: u64) -> Bytes {
    let mut record = CONTENT.to_vec();
    record[..8].copy_from_slice(&number.to_le_bytes());
    record.into()
}

fn path(number: usize) -> VPath {
    VPath::parse(&format!("/streams/{number}")).expect("it is a path")
}
