//! Records and messages through memory that two processes share: how long one takes to the other process, while that looks for it and while it sleeps, beside a raw
//! wake of a futex in shared memory in the same run; by one pair of threads, one in each process, and by more at once.
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

/// Pairs at once, of a thread in each process, and wakes of each of them in the one round of each kind.
const PAIRS: [usize; 3] = [1, 2, 4];
const PAIRS_MAX: usize = PAIRS[PAIRS.len() - 1];
const WAKES_AT_ONCE: usize = 300;

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

#[expect(clippy::cast_precision_loss, reason = "times are small")]
fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to as f64
}

/// What the two threads of a pair share.
struct Pair {
    there: MappedStream,
    back: MappedStream,
    words: SharedWords,
    /// Records that went there, and back.
    sent: u64,
    told: u64,
}

/// The thread that sends, and hears how long what it sent was on its way.
impl Pair {
    fn make(owner: &Nexus, pair: usize) {
        for path in ["there", "back"] {
            let spec = StreamSpec::new().io_profile(IoProfile::Shared);
            block_on(owner.make_stream(format!("/{path}-{pair}"), spec)).expect("it is made");
        }
    }

    fn open(nx: &Nexus, folder: &Path, pair: usize) -> Self {
        let map = |path| block_on(nx.map_stream(format!("/{path}-{pair}"))).expect("it is there");
        let words = SharedWords::open(&folder.join(format!("words-{pair}"))).expect("there is room");
        Self { there: map("there"), back: map("back"), words, sent: 0, told: 0 }
    }

    fn send(&mut self) {
        let first = self.there.append(vec![record(self.sent)]).expect("there is room");
        assert_eq!(first, self.sent);
        self.sent += 1;
    }

    fn hear(&mut self, looks: u32) -> u64 {
        let told = take(&self.back, self.told, looks);
        self.told += 1;
        u64::from_le_bytes(told[..].try_into().expect("it is a number"))
    }

    /// What records take to one who looks for them.
    fn looked_for(&mut self) -> Vec<u64> {
        let mut exchange = |_| {
            self.send();
            self.hear(LOOKS_ALWAYS)
        };
        (0..SPUN).map(&mut exchange).collect()
    }

    /// What records take to one who sleeps.
    fn woken(&mut self, wakes: usize) -> Vec<u64> {
        let mut exchange = |_| {
            thread::sleep(ASLEEP_AFTER);
            self.send();
            self.hear(0)
        };
        (0..wakes).map(&mut exchange).collect()
    }

    /// What raw wakes take.
    fn woken_raw(&self, wakes: usize) -> Vec<u64> {
        let exchange = |_| {
            thread::sleep(ASLEEP_AFTER);
            self.words.store(TOOK, 0);
            self.words.store(SENT, now());
            self.words.store(FUTEX, 1);
            self.words.wake(FUTEX);
            while self.words.load(TOOK) == 0 {
                thread::yield_now();
            }
            self.words.load(TOOK)
        };
        (0..wakes).map(exchange).collect()
    }
}

/// The thread that takes, and tells.
impl Pair {
    fn tell(&mut self, took: u64) {
        self.back.append(vec![took.to_le_bytes().to_vec().into()]).expect("there is room");
    }

    fn answer(&mut self, records: u64, looks: u32) {
        for _ in 0..records {
            let record = take(&self.there, self.sent, looks);
            let took = now() - sent(&record, self.sent);
            self.sent += 1;
            self.tell(took);
        }
    }

    fn answer_raw(&self, wakes: usize) {
        for _ in 0..wakes {
            while self.words.load(FUTEX) == 0 {
                self.words.sleep(FUTEX, 0, LONG);
            }
            let took = now() - self.words.load(SENT);
            self.words.store(FUTEX, 0);
            self.words.store(TOOK, took);
        }
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

/// Has all these pairs do something at once.
fn at_once<T: Send>(pairs: &mut [Pair], run: impl Fn(&mut Pair) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = pairs.iter_mut().map(|pair| scope.spawn(move || run(pair))).collect();
        running.into_iter().map(|one| one.join().expect("it ends")).collect()
    })
}

/// Whether so many pairs can look at once: each thread needs a core for itself.
fn can_look(pairs: usize) -> bool {
    thread::available_parallelism().is_ok_and(|cores| cores.get() >= 2 * pairs)
}

/// The other process: takes what comes, and tells how long it was on its way.
fn peer(folder: &Path) {
    let nx = block_on(nexus::attach(folder)).expect("it is served");
    let mut pairs: Vec<Pair> = (0..PAIRS_MAX).map(|pair| Pair::open(&nx, folder, pair)).collect();
    let reader = block_on(nx.pipe_reader("/pipe")).expect("it is there");
    assert!(reader.is_mapped());
    let pair = &mut pairs[0];
    pair.tell(0);
    pair.answer(SPUN, LOOKS_ALWAYS);
    for n in 0..SPUN {
        let message = reader.read_here(LONG).expect("it comes").expect("its writer is there");
        pair.tell(now() - sent(&message, n));
    }
    for _ in 0..ROUNDS {
        pair.answer_raw(WAKES);
        pair.answer(WAKES as u64, 0);
    }
    for count in PAIRS {
        let pairs = &mut pairs[..count];
        if can_look(count) {
            at_once(pairs, |pair| pair.answer(SPUN, LOOKS_ALWAYS));
        }
        at_once(pairs, |pair| pair.answer_raw(WAKES_AT_ONCE));
        at_once(pairs, |pair| pair.answer(WAKES_AT_ONCE as u64, 0));
    }
    // Until the one that asked has heard all.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// What each way takes by more and more pairs at once.
fn by_pairs(pairs: &mut [Pair]) {
    for count in PAIRS {
        let pairs = &mut pairs[..count];
        let looked = match can_look(count) {
            true => format!("{} ns", median(at_once(pairs, Pair::looked_for).concat())),
            false => format!("(it needs {} cores)", 2 * count),
        };
        let raw = median(at_once(pairs, |pair| pair.woken_raw(WAKES_AT_ONCE)).concat());
        let woken = median(at_once(pairs, |pair| pair.woken(WAKES_AT_ONCE)).concat());
        println!(
            "pairs of threads at once: {count}: to who looks {looked}; to who sleeps {woken} ns, a raw wake {raw} ns: {:.2} times that",
            ratio(woken, raw)
        );
    }
}

/// What an append takes in nanoseconds, of each of so many threads that append to streams of their own.
fn appended(owner: &Nexus, threads: usize) -> u64 {
    let streams: Vec<_> = (0..threads)
        .map(|pair| block_on(owner.map_stream(format!("/there-{pair}"))).expect("it is there"))
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
    (0..PAIRS_MAX).for_each(|pair| Pair::make(&owner, pair));
    block_on(owner.make_pipe_with("/pipe", PipeSpec::shared(65_536))).expect("it is made");
    let mut pairs: Vec<Pair> = (0..PAIRS_MAX).map(|pair| Pair::open(&owner, folder, pair)).collect();
    let writer = block_on(owner.pipe_writer("/pipe")).expect("it is there");
    let mut child = Command::new(std::env::current_exe().expect("it is known"));
    let mut child = child.arg("peer").arg(folder).stdin(Stdio::piped()).spawn().expect("it starts");

    let pair = &mut pairs[0];
    pair.hear(LOOKS_ALWAYS);
    let spun = median(pair.looked_for());
    println!("a record of {LENGTH} bytes, to a process that looks for it: {spun} ns, median of {SPUN}");
    let mut took = Vec::new();
    for n in 0..SPUN {
        block_on(writer.write(record(n), None)).expect("there is room");
        took.push(pair.hear(LOOKS_ALWAYS));
    }
    println!(
        "a message, written by its path's owner, read by a process that looks: {} ns, median of {SPUN}",
        median(took)
    );
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(median(pair.woken_raw(WAKES)));
        ours.push(median(pair.woken(WAKES)));
    }
    let (raw, ours) = (median(raw), median(ours));
    let times = ratio(ours, raw);
    println!(
        "to a process that sleeps: {ours} ns; a raw wake of a futex in shared memory: {raw} ns; {times:.2} times that, of {RATIO_MAX:.1}"
    );
    println!(
        "medians of {ROUNDS} rounds of {WAKES}; {SHARED_LOOKS} looks come before sleep unless asked otherwise"
    );
    by_pairs(&mut pairs);
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
    let one = median((0..ROUNDS).map(|_| appended(&owner, 1)).collect());
    println!("appended by one thread: {one} ns");
    for threads in [2, 4] {
        let each = median((0..ROUNDS).map(|_| appended(&owner, threads)).collect());
        let rate = 100 * one * threads as u64 / each;
        println!("  by each of {threads}, to a stream each: {each} ns, {rate} % of the rate of one");
    }
    drop(block_on(owner.shutdown()));
    if spun > SPINNING_MAX_NS || times > RATIO_MAX {
        println!("OVER: {SPINNING_MAX_NS} ns, and {RATIO_MAX:.1} times a raw wake are asked");
    }
}
