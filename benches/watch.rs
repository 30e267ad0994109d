//! What watches cost: waking who waits, beside a raw futex wake in the same run, and a write while 10,000 others watch other paths.
//!
//!     cargo bench --bench watch

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod waking;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nexus::{
    Config, EntryType, Event, EventKind, EventMask, MountSpec, OpId, SysWrite, VPath, WatchItem, blocking,
};

use waking::{Way, compare, median, wakes};

/// Events in one measurement of what telling of one takes, and measurements.
const TOLD: u32 = 10_000;
const ROUNDS: usize = 9;

/// Who watches other paths.
const WATCHES: usize = 10_000;

/// Batches with and without them, in pairs, and writes in a batch. Of the differences of the pairs the median counts.
const PAIRS: usize = 400;
const WRITES: u32 = 200;

/// What they may add to a write.
const ADDED_MAX: Duration = Duration::from_micros(1);

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn waking() {
    let nx = blocking::connect(Config::in_memory().root(MountSpec::new("memory"))).expect("it boots");
    let kernel = nx.kernel().expect("it is here").clone();
    let caller = Arc::new(nx.caller().clone());
    // Each pair has a folder of its own.
    let folder = |pair: usize| format!("/w{pair}");
    let at = |pair: usize| path(&format!("{}/a", folder(pair)));
    let locked = |pair| Event::new(EventKind::Locked, at(pair), EntryType::Reg, caller.clone(), OpId(1));
    let watch = |pair, kind| nx.watch(folder(pair)).mask(kind).stream().expect("it begins");
    let next = |pair, kind| {
        let (mut stream, at) = (watch(pair, kind), at(pair));
        move || {
            let told = stream.next().expect("it goes on").expect("it is told");
            let now = Instant::now();
            assert!(matches!(told, WatchItem::Event(event) if event.kind == kind && event.path == at));
            now
        }
    };
    let mut stream = watch(0, EventKind::Locked);
    let mut awake = || {
        let began = Instant::now();
        for _ in 0..TOLD {
            kernel.announce(locked(0));
            assert!(matches!(stream.next(), Some(Ok(WatchItem::Event(_)))), "it is told");
        }
        began.elapsed() / TOLD
    };
    let awake = median((0..ROUNDS).map(|_| awake()).collect());
    drop(stream);
    compare(vec![
        Way::asked("watcher, by an event without disk", |pair| {
            let (kernel, locked) = (kernel.clone(), locked(pair));
            wakes(move || kernel.announce(locked.clone()), next(pair, EventKind::Locked), || ())
        }),
        Way::shown("watcher, by a write, that included", |pair| {
            let (nx, at) = (nx.clone(), at(pair));
            let write = move || drop(nx.write(&at, "x").expect("it writes"));
            wakes(write, next(pair, EventKind::FileWritten), || ())
        }),
    ]);
    println!("  an event told and taken by one thread:     {awake:>10.2?}");
}

/// What a write of one file takes, the receipt of each of which is looked at.
fn writes(nx: &blocking::Nexus) -> Duration {
    writes_at(nx, "/project/module/file")
}

fn writes_at(nx: &blocking::Nexus, at: &str) -> Duration {
    let call = SysWrite::at(path(at), vec![7u8; 1_024]).create();
    let mut last = nx.send(call.clone()).expect("it writes").receipt.lsn;
    let began = Instant::now();
    for _ in 0..WRITES {
        let lsn = nx.send(call.clone()).expect("it writes").receipt.lsn;
        assert!(lsn > last);
        last = lsn;
    }
    began.elapsed() / WRITES
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
    let kernels = [(); 2].map(|()| {
        let nx = blocking::connect(Config::in_memory().root(MountSpec::new("memory"))).expect("it boots");
        writes(&nx);
        nx
    });
    // What two kernels differ in by themselves counts for the one in the first half, and for the other in the second.
    let (mut alone, mut added, mut begun) = (Vec::new(), Vec::new(), Vec::new());
    for watched in [0, 1] {
        let began = Instant::now();
        let mut streams = others(&kernels[watched]);
        begun.push(began.elapsed() / u32::try_from(WATCHES).expect("it is small"));
        let mut differences = Vec::with_capacity(PAIRS);
        for _ in 0..PAIRS {
            let (with, without) = (writes(&kernels[watched]), writes(&kernels[1 - watched]));
            differences.push(with.as_nanos().cast_signed() - without.as_nanos().cast_signed());
            alone.push(without);
        }
        added.push(median(differences));
        kernels[watched].write("/agents/0/x", "x").expect("it writes");
        let told = streams[0].next().expect("it goes on").expect("it is told");
        assert!(matches!(told, WatchItem::Event(event) if event.path == "/agents/0/x"), "nothing before it");
        for stream in streams.iter_mut().skip(2).step_by(1_000) {
            assert!(stream.next_for(Duration::ZERO).is_none(), "and nothing to the others");
        }
    }
    let (alone, begun, added) = (median(alone), median(begun), added.iter().sum::<i128>() / 2);
    println!("a write of 1 KiB in memory, in {} pairs of {WRITES} writes:", 2 * PAIRS);
    println!("  nobody watches                    {alone:>10.2?}");
    let limit = ADDED_MAX.as_nanos().cast_signed();
    let verdict = if added < limit { "kept" } else { "OVER" };
    println!(
        "  {WATCHES} watch other paths         {added:>8} ns more, asked under {ADDED_MAX:?}: {verdict}"
    );
    println!("  to begin one of these watches     {begun:>10.2?}");
    let nx = &kernels[1];
    let mut rates = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let one = writes(nx);
        let two = thread::scope(|scope| {
            let both =
                ["/project/module/file", "/area/part/file"].map(|at| scope.spawn(move || writes_at(nx, at)));
            both.map(|writer| writer.join().expect("it ends")).into_iter().max().expect("there are two")
        });
        rates.push(200 * one.as_nanos() / two.as_nanos());
    }
    println!("  two threads, {WATCHES} watches     {:>9} % of the rate of one", median(rates));
}

fn main() {
    waking();
    writing();
}
