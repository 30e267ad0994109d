//! What watches cost: waking who waits, beside a raw futex wake in the same run, and a write while 10,000 others watch other paths.
//!
//!     cargo bench --bench watch

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod waking;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus::{
    Config, EntryType, Event, EventKind, EventMask, MountSpec, OpId, SysWrite, VPath, WatchItem, blocking,
};

use waking::{RATIO_MAX, median, raw, wakes};

/// Who watches other paths.
const WATCHES: usize = 10_000;

/// Rounds with and without them, alternately; batches in a round, and writes in a batch. Of the batches the median counts: beside some of them what is in memory is folded.
const ROUNDS: usize = 7;
const BATCHES: usize = 100;
const WRITES: u32 = 200;

/// What they may add to a write.
const ADDED_MAX: Duration = Duration::from_micros(1);

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn waking() {
    let nx = blocking::connect(Config::in_memory().root(MountSpec::new("memory"))).expect("it boots");
    let kernel = nx.kernel().expect("it is here").clone();
    let mut raw = raw();
    let next = |mut stream: blocking::EventStream, kind: EventKind| {
        move || {
            let told = stream.next().expect("it goes on").expect("it is told");
            let now = Instant::now();
            assert!(matches!(told, WatchItem::Event(event) if event.kind == kind && event.path == "/w/a"));
            now
        }
    };
    let caller = Arc::new(nx.caller().clone());
    let locked = Event::new(EventKind::Locked, path("/w/a"), EntryType::Reg, caller, OpId(1));
    let stream = nx.watch("/w").mask(EventKind::Locked).stream().expect("it begins");
    let mut announced =
        wakes(move || kernel.announce(locked.clone()), next(stream, EventKind::Locked), || ());
    let stream = nx.watch("/w").mask(EventKind::FileWritten).stream().expect("it begins");
    let mut written = wakes(
        {
            let nx = nx.clone();
            move || drop(nx.write("/w/a", "x").expect("it writes"))
        },
        next(stream, EventKind::FileWritten),
        || (),
    );
    let (mut of_raw, mut of_announced, mut of_written) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        of_raw.extend(raw());
        of_announced.extend(announced());
        of_written.extend(written());
    }
    let count = of_raw.len();
    let (raw, announced, written) = (median(of_raw), median(of_announced), median(of_written));
    let ratio = |of: Duration| of.as_secs_f64() / raw.as_secs_f64();
    println!("median of {count} wakes of a thread that sleeps, from before the wake until it is back:");
    println!("  raw futex                         {raw:>10.2?}");
    println!(
        "  watcher, by an event without disk {announced:>10.2?}  {:.2} x, asked {RATIO_MAX}",
        ratio(announced)
    );
    println!(
        "  watcher, by a write in memory     {written:>10.2?}  {:.2} x, the write included",
        ratio(written)
    );
}

/// What eventual writes of one file take in each batch, the receipt of each of which is looked at.
fn writes(nx: &blocking::Nexus) -> Vec<Duration> {
    let file = path("/project/module/file");
    let call = SysWrite::at(&file, vec![7u8; 1_024]).create().eventual();
    let mut last = nx.send(call.clone()).expect("it writes").receipt.lsn;
    let mut took = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..WRITES {
            let lsn = nx.send(call.clone()).expect("it writes").receipt.lsn;
            assert!(lsn > last);
            last = lsn;
        }
        took.push(began.elapsed() / WRITES);
    }
    nx.sync("/").expect("it is on disk");
    took
}

/// Watches of all shapes, none of which a write of the file concerns.
fn others(nx: &blocking::Nexus) -> Vec<blocking::EventStream> {
    let watch = |n: usize| match n % 10 {
        0 => nx.watch(format!("/agents/{n}")),
        1 => nx.watch_glob(format!("/logs/{n}/**/*.txt")),
        2 => nx.watch(format!("/project/module/other-{n}")),
        3 => nx.watch(format!("/project/{n}")).mask(EventMask::from(EventKind::Renamed)),
        _ => nx.watch(format!("/agents/{n}/inbox")).alone(),
    };
    (0..WATCHES).map(|n| watch(n).stream().expect("it begins")).collect()
}

fn writing() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir_in(target).expect("the target folder can be written");
    let nx = blocking::connect(folder.path()).expect("it boots");
    writes(&nx);
    let (mut alone, mut watched, mut begun) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.extend(writes(&nx));
        let began = Instant::now();
        let mut streams = others(&nx);
        begun.push(began.elapsed() / u32::try_from(WATCHES).expect("it is small"));
        watched.extend(writes(&nx));
        nx.write("/agents/0/x", "x").expect("it writes");
        let told = streams[0].next().expect("it goes on").expect("it is told");
        assert!(matches!(told, WatchItem::Event(event) if event.path == "/agents/0/x"), "nothing before it");
        for stream in streams.iter_mut().skip(2).step_by(1_000) {
            assert!(stream.next_for(Duration::ZERO).is_none(), "and nothing to the others");
        }
    }
    let (alone, watched, begun) = (median(alone), median(watched), median(begun));
    println!(
        "an eventual write of 1 KiB on disk, median of {} batches of {WRITES} each, alternately:",
        ROUNDS * BATCHES
    );
    println!("  nobody watches                    {alone:>10.2?}");
    let added = watched.saturating_sub(alone);
    println!(
        "  {WATCHES} watch other paths         {watched:>10.2?}  {added:.2?} more, asked under {ADDED_MAX:?}"
    );
    println!("  to begin one of these watches     {begun:>10.2?}");
}

fn main() {
    waking();
    writing();
}
