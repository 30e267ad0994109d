//! Records and messages through memory that two processes share: how long one takes to the other process, while that looks for it and while it sleeps, beside a raw
//! wake of a futex in shared memory in the same run.
//!
//! This program is its own other process. Clocks are one for the machine, so each record carries when it was sent.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it says what it measured, in real time"
)]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use nexus::{Config, IoProfile, MappedStream, Nexus, PipeSpec, RecordRange, Serving, StreamSpec};
use nexus_actors::{SHARED_LOOKS, SharedWords, block_on};

/// What a wake may cost of a raw one.
const RATIO_MAX: f64 = 1.5;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(30);

/// Looks before who waits here sleeps: it never does.
const LOOKS_ALWAYS: u32 = u32::MAX;

/// Records while the other looks for them.
const SPUN: u64 = 20_000;

/// Rounds of wakes, of each kind by turns, and wakes in each.
const ROUNDS: usize = 7;
const WAKES: usize = 150;

/// How long the one who is to be woken is left alone, so that it sleeps.
const ASLEEP_AFTER: Duration = Duration::from_micros(150);

/// What one way may cost while the other looks, in nanoseconds.
const SPINNING_MAX_NS: u64 = 1_000;

/// Appends by each of those who append beside each other, in each of the rounds.
const APPENDED: u64 = 20_000;

/// What a record is: when it was sent, and bytes up to eighty.
const LENGTH: usize = 80;

/// Word by word: the futex, when it was woken, what it took.
const FUTEX: usize = 0;
const SENT: usize = 8;
const TOOK: usize = 16;

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("it began before") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("it is small")
}

fn record(n: u64) -> Bytes {
    let mut record = [now().to_le_bytes(), n.to_le_bytes()].concat();
    record.resize(LENGTH, 7);
    record.into()
}

/// When it was sent, of the record that must be the `n`th.
fn sent(record: &[u8], n: u64) -> u64 {
    let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("it is long enough"));
    assert!(record.len() == LENGTH && word(8) == n, "it is another record");
    word(0)
}

fn median(mut of: Vec<u64>) -> u64 {
    of.sort_unstable();
    of[of.len() / 2]
}

/// What both processes share.
struct Both {
    there: MappedStream,
    back: MappedStream,
    words: SharedWords,
}

impl Both {
    fn open(nx: &Nexus, folder: &Path) -> Self {
        let map = |path| block_on(nx.map_stream(path)).expect("it is there");
        let words = SharedWords::open(&folder.join("words")).expect("there is room");
        Self { there: map("/there"), back: map("/back"), words }
    }
}

/// Reads the `n`th record of a stream after so many looks.
fn take(stream: &MappedStream, n: u64, looks: u32) -> Bytes {
    loop {
        let read = stream.read_after(RecordRange::from(n).records_max(1), LONG, looks).expect("it comes");
        if let Some(record) = read.records.into_iter().next() {
            return record.data;
        }
    }
}

/// The other process: takes what comes, and tells how long it was on its way.
fn peer(folder: &Path) {
    let nx = block_on(nexus::attach(folder)).expect("it is served");
    let both = Both::open(&nx, folder);
    let reader = block_on(nx.pipe_reader("/pipe")).expect("it is there");
    assert!(reader.is_mapped());
    let tell = |took: u64| both.back.append(vec![took.to_le_bytes().to_vec().into()]).expect("there is room");
    tell(0);
    let mut n = 0;
    while n < SPUN {
        let record = take(&both.there, n, LOOKS_ALWAYS);
        tell(now() - sent(&record, n));
        n += 1;
    }
    for m in 0..SPUN {
        let message = reader.read_here(LONG).expect("it comes").expect("its writer is there");
        tell(now() - sent(&message, m));
    }
    for _ in 0..ROUNDS {
        for _ in 0..WAKES {
            while both.words.load(FUTEX) == 0 {
                both.words.sleep(FUTEX, 0, LONG);
            }
            let took = now() - both.words.load(SENT);
            both.words.store(FUTEX, 0);
            both.words.store(TOOK, took);
        }
        for _ in 0..WAKES {
            let record = take(&both.there, n, 0);
            tell(now() - sent(&record, n));
            n += 1;
        }
    }
    // Until the one that asked has heard all.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// What an append takes in nanoseconds, of each of so many threads that append to streams of their own.
fn appended(owner: &Nexus, threads: usize) -> u64 {
    let streams: Vec<_> = ["/there", "/back"][..threads]
        .iter()
        .map(|path| block_on(owner.map_stream(*path)).expect("it is there"))
        .collect();
    let append = |stream: &MappedStream| {
        let (data, began) = (Bytes::from_static(&[7; LENGTH]), now());
        let first = stream.append(vec![data.clone()]).expect("there is room");
        for n in 1..APPENDED {
            assert_eq!(stream.append(vec![data.clone()]).expect("there is room"), first + n);
        }
        (now() - began) / APPENDED
    };
    thread::scope(|scope| {
        let all: Vec<_> = streams.iter().map(|stream| scope.spawn(|| append(stream))).collect();
        all.into_iter().map(|one| one.join().expect("it ends")).max().expect("there is one")
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "peer") {
        return peer(Path::new(&arguments[at + 1]));
    }
    let folder = tempfile::tempdir().expect("there is room");
    let folder = folder.path();
    let owner =
        block_on(nexus::connect(Config::new(folder).serve(Serving::administrator()))).expect("it boots");
    for path in ["/there", "/back"] {
        let spec = StreamSpec::new().io_profile(IoProfile::Shared);
        block_on(owner.make_stream(path, spec)).expect("it is made");
    }
    block_on(owner.make_pipe_with("/pipe", PipeSpec::shared(65_536))).expect("it is made");
    let both = Both::open(&owner, folder);
    let writer = block_on(owner.pipe_writer("/pipe")).expect("it is there");
    let mut child = Command::new(std::env::current_exe().expect("it is known"));
    let mut child = child.arg("peer").arg(folder).stdin(Stdio::piped()).spawn().expect("it starts");

    let mut heard = 0;
    let mut hear = || {
        let told = take(&both.back, heard, LOOKS_ALWAYS);
        heard += 1;
        u64::from_le_bytes(told[..].try_into().expect("it is a number"))
    };
    hear();
    let mut n = 0;
    let mut send = || {
        let first = both.there.append(vec![record(n)]).expect("there is room");
        assert_eq!(first, n);
        n += 1;
    };

    let mut took = Vec::new();
    for _ in 0..SPUN {
        send();
        took.push(hear());
    }
    let spun = median(took);
    println!("a record of {LENGTH} bytes, to a process that looks for it: {spun} ns, median of {SPUN}");
    let mut took = Vec::new();
    for m in 0..SPUN {
        block_on(writer.write(record(m), None)).expect("there is room");
        took.push(hear());
    }
    println!(
        "a message, written by its path's owner, read by a process that looks: {} ns, median of {SPUN}",
        median(took)
    );

    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut took = Vec::new();
        for _ in 0..WAKES {
            thread::sleep(ASLEEP_AFTER);
            both.words.store(TOOK, 0);
            both.words.store(SENT, now());
            both.words.store(FUTEX, 1);
            both.words.wake(FUTEX);
            while both.words.load(TOOK) == 0 {
                std::hint::spin_loop();
            }
            took.push(both.words.load(TOOK));
        }
        raw.push(median(took));
        let mut took = Vec::new();
        for _ in 0..WAKES {
            thread::sleep(ASLEEP_AFTER);
            send();
            took.push(hear());
        }
        ours.push(median(took));
    }
    let (raw, ours) = (median(raw), median(ours));
    #[expect(clippy::cast_precision_loss, reason = "times are small")]
    let ratio = ours as f64 / raw as f64;
    println!(
        "to a process that sleeps: {ours} ns; a raw wake of a futex in shared memory: {raw} ns; {ratio:.2} times that, of {:.1}",
        RATIO_MAX
    );
    println!(
        "medians of {ROUNDS} rounds of {WAKES}; {SHARED_LOOKS} looks come before sleep unless asked otherwise"
    );
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
    let one = median((0..ROUNDS).map(|_| appended(&owner, 1)).collect());
    let two = median((0..ROUNDS).map(|_| appended(&owner, 2)).collect());
    println!(
        "appended by one thread: {one} ns; by two, to two streams: {two} ns each, {} % of the rate of one",
        200 * one / two
    );
    drop(block_on(owner.shutdown()));
    if spun > SPINNING_MAX_NS || ratio > RATIO_MAX {
        println!("NOT REACHED: {SPINNING_MAX_NS} ns, and {:.1} times a raw wake", RATIO_MAX);
    }
}
