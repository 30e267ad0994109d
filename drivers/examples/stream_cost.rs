//! What a durable append to a stream costs on this disk, by one writer and by 64 at once, beside a raw append with one flush:
//! `cargo run --release -p nexus-drivers --example stream_cost [FOLDER]`.
//!
//! Records have 1 KiB. Every figure is a median, all are taken by turns, and what was appended is read again and compared. What is over its budget is told and fails nothing; an
//! answer that is wrong ends the run.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures, and tells")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use nexus_actors::{Env, HostConfig, block_on};
use nexus_drivers::streams::wal::{WalStreams, WalStreamsConfig};
use nexus_kernel::hal::{Append, ReadBounds, StreamError, StreamLimits, StreamStore};
use nexus_messages::{FileId, Timestamp};

const RECORD_BYTES: usize = 1_024;

/// Turns that everybody takes, with so many appends of one writer, and so many of each of 64.
const TURNS: usize = 30;
const ALONE: usize = 30;
const WRITERS: u64 = 64;
const EACH: u64 = 16;

/// The budgets: one append alone beside a flush of the disk; and 64 writers beside 64 flushes, and what is aimed at.
const ALONE_MAX: f64 = 2.0;
const SHARED_MAX: f64 = 4.0;
const SHARED_AIM: f64 = 2.0;

fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args().nth(1).map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = place.join("nexus-stream-cost");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    println!("in {}, records of {RECORD_BYTES} bytes", folder.display());

    let env = Env::host(HostConfig::default())?;
    let config = WalStreamsConfig::default();
    let streams = block_on(WalStreams::open(folder.join("streams"), &env, env.pool("read", 2, 64), config))?;
    let streams = Arc::new(streams);
    for stream in 0..=WRITERS {
        block_on(streams.create(FileId(stream), StreamLimits::NONE))?;
    }
    let mut raw = File::create(folder.join("raw"))?;
    let content = vec![7; RECORD_BYTES];

    let mut took: [Vec<Duration>; 4] = Default::default();
    for turn in 0..=TURNS {
        let (mut flushes, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..ALONE {
            flushes.push(time(|| raw.write_all(&content).and_then(|()| raw.sync_data()))?);
        }
        for number in 0..ALONE {
            let number = turn * ALONE + number;
            alone.push(time(|| block_on(streams.append(FileId(0), record(number as u64))).map(drop))?);
        }
        // All to one stream, and each to one of its own.
        let together = time(|| block_on(by_many(&*streams, |_| FileId(1), turn as u64)))?;
        let apart =
            time(|| block_on(by_many(&*streams, |writer| FileId(2 + writer % (WRITERS - 1)), turn as u64)))?;
        if turn > 0 {
            // The first turn warms up.
            took[0].extend(flushes);
            took[1].extend(alone);
            let each = u32::try_from(EACH)?;
            took[2].push(together / each);
            took[3].push(apart / each);
        }
    }
    check(&*streams)?;
    let [flush, alone, together, apart] = took.map(median);
    println!("  a raw append and fdatasync                {flush:>10.1?}");
    tell("one writer, an append", alone, flush, ALONE_MAX, 1.3);
    tell("64 writers, an append of each, one stream", together, flush, SHARED_MAX, SHARED_AIM);
    tell("64 writers, an append of each, 63 streams", apart, flush, SHARED_MAX, SHARED_AIM);
    let (reads, bytes) = read_all(&*streams)?;
    println!("  reading all again from disk               {:>10.1?} for {bytes} bytes", reads);
    drop(streams);
    env.stop();
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A round of all writers costs so many flushes, of which so many are allowed.
fn tell(what: &str, took: Duration, flush: Duration, most: f64, aim: f64) {
    let times = took.as_secs_f64() / flush.as_secs_f64();
    let verdict = if times <= most { "kept" } else { "OVER" };
    println!("  {what:<41} {took:>10.1?}   {times:.2} flushes; {most} asked, {aim} aimed at: {verdict}");
}

fn record(number: u64) -> Append {
    let mut content = vec![0; RECORD_BYTES];
    content[..8].copy_from_slice(&number.to_le_bytes());
    Append::new([Bytes::from(content)], Timestamp(number))
}

/// Each writer appends one record after the other.
async fn by_many(
    streams: &dyn StreamStore,
    stream: impl Fn(u64) -> FileId,
    turn: u64,
) -> Result<(), StreamError> {
    let writer = |writer: u64| {
        let stream = stream(writer);
        async move {
            for number in 0..EACH {
                streams.append(stream, record((turn * EACH + number) * WRITERS + writer)).await?;
            }
            Ok::<_, StreamError>(())
        }
    };
    try_join_all((0..WRITERS).map(writer)).await.map(drop)
}

/// Everything that was acknowledged is there, each record once, and those of a writer in order.
fn check(streams: &dyn StreamStore) -> Result<(), Box<dyn Error>> {
    let turns = TURNS as u64 + 1;
    let states = block_on(join_all((0..=WRITERS).map(|stream| streams.state(FileId(stream)))));
    let mut all = 0;
    for state in states {
        all += state?.tail;
    }
    assert_eq!(all, turns * (ALONE as u64 + 2 * EACH * WRITERS), "each was appended once");
    let (mut next, mut last) = (0, vec![None; usize::try_from(WRITERS)?]);
    loop {
        let read = block_on(streams.read(FileId(1), next, ReadBounds::ALL))?;
        for record in &read.records {
            let number = record.data.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
            let before = last[usize::try_from(number % WRITERS)?].replace(number);
            assert_eq!(before.map_or(number % WRITERS, |before| before + WRITERS), number, "in order");
        }
        next = read.next;
        if next == read.tail {
            assert_eq!(next, turns * EACH * WRITERS);
            return Ok(());
        }
    }
}

fn read_all(streams: &dyn StreamStore) -> Result<(Duration, u64), StreamError> {
    let (began, mut bytes, mut next) = (Instant::now(), 0, 0);
    loop {
        let read = block_on(streams.read(FileId(1), next, ReadBounds::new(256, 1 << 20)))?;
        bytes += read.records.iter().map(|record| record.data.len() as u64).sum::<u64>();
        next = read.next;
        if next == read.tail {
            return Ok((began.elapsed(), bytes));
        }
    }
}

fn time<E>(job: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let began = Instant::now();
    job()?;
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
