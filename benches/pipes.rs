//! What pipes cost: through the syscalls, through ends, across threads, and to wake who reads one, or a stream in memory, beside what others are used for that.
//!
//!     cargo bench --bench pipes
//!
//! Each figure is the best of several rounds, which are taken in turns. All check what they read.

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time, on threads of its own")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod machine;
mod waking;

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use nexus::actors::{Ring, block_on};
use nexus::{Bytes, Config, StreamSpec, SysRead, SysSetattr, SysWrite, VPath, blocking};

use waking::{Way, compare, wakes};

/// Bytes of a message.
const SIZE: usize = machine::MESSAGE;

/// Messages that a pipe has room for, as the channels beside it.
const ROOM: usize = 1_024;

const ROUNDS: usize = 7;

/// Threads that do the same at once.
const THREADS: [usize; 3] = [1, 2, 4];

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(60);

fn message() -> Bytes {
    Bytes::from(vec![7; SIZE])
}

/// The shortest that one of `count` took in one of the rounds, in nanoseconds.
fn best(count: u64, mut round: impl FnMut(u64)) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        round(count);
        best = best.min(began.elapsed());
    }
    best.as_nanos() as f64 / count as f64
}

fn booted() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

/// A path where nothing is.
fn unused() -> VPath {
    static USED: AtomicUsize = AtomicUsize::new(0);
    VPath::parse(&format!("/agents/{}", USED.fetch_add(1, Ordering::Relaxed))).expect("it is a path")
}

/// A stream that keeps the latest records, and none yet.
fn stream(nx: &blocking::Nexus) -> VPath {
    let at = unused();
    nx.make_stream(&at, StreamSpec::new().bytes_max(1 << 20)).expect("it is made");
    at
}

/// A pipe that nobody has used.
fn pipe(nx: &blocking::Nexus) -> VPath {
    let at = unused();
    nx.send(SysSetattr::pipe(&at, 1 << 20)).expect("it is made");
    at
}

/// What each of `count` exchanges takes that a thread does one after the other, and of more such threads, which share nothing but the kernel.
fn by_threads(what: &str, count: u64, rounds: impl Fn(&Barrier) -> Vec<Duration> + Sync) {
    let mut alone = 0.0;
    for threads in THREADS {
        let begin = Barrier::new(threads);
        let took: Vec<Vec<Duration>> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| rounds(&begin))).collect();
            running.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        // A round takes as long as the slowest of them.
        let slowest = (0..ROUNDS).filter_map(|round| took.iter().map(|of_one| of_one[round]).max());
        let best = slowest.min().expect("there are rounds").as_nanos() as f64 / count as f64;
        if threads == 1 {
            alone = best;
            println!("  {best:7.1} ns  {what}");
        } else {
            let rate = alone * threads as f64 / best;
            println!("  {best:7.1} ns    by each of {threads} threads: {rate:.2} times the rate of one");
        }
    }
}

/// Rounds of so many exchanges on one task, each of which begins when all threads do.
async fn rounds(begin: &Barrier, count: u64, exchange: impl AsyncFn()) -> Vec<Duration> {
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        begin.wait();
        let began = Instant::now();
        for _ in 0..count {
            exchange().await;
        }
        took.push(began.elapsed());
    }
    took
}

/// A message written and read on one thread.
fn one_thread() {
    let nx = booted();
    let count = 400_000;
    let sent = message();
    println!("one thread, a message of {SIZE} bytes written and read:");

    let ring: Ring<Bytes> = Ring::new(ROOM, 1 << 20);
    let took = best(count, |count| {
        for _ in 0..count {
            assert!(ring.try_push(black_box(sent.clone()), 80).is_ok());
            assert!(ring.try_pop().is_some_and(|read| read.len() == SIZE));
        }
    });
    println!("  {took:7.1} ns  ring");

    by_threads("ends of a pipe", count, |begin| {
        // Of a pipe of its own: of one whose ends are gone, the other end is told.
        let (nx, at, sent) = (nx.as_async(), pipe(&nx), message());
        block_on(async {
            let (reader, writer) =
                (nx.pipe_reader(&at).await.expect("it opens"), nx.pipe_writer(&at).await.expect("it opens"));
            let exchange = async || {
                writer.write(black_box(sent.clone()), None).await.expect("there is room");
                let read = reader.read(None).await.expect("it is there").expect("it is no end");
                assert!(read.len() == SIZE && read[SIZE - 1] == 7);
            };
            rounds(begin, count, exchange).await
        })
    });
    by_threads("SysWrite and SysRead by the path", count, |begin| {
        let (nx, at, sent) = (nx.as_async(), pipe(&nx), message());
        let exchange = async || {
            nx.send(SysWrite::at(&at, black_box(sent.clone()))).await.expect("there is room");
            let read = nx.send(SysRead::at(&at)).await.expect("it is there");
            assert!(read.data.len() == SIZE && read.data[SIZE - 1] == 7);
        };
        block_on(rounds(begin, count, exchange))
    });

    let fewer = count / 20;
    by_threads("append and read of a stream in memory", fewer, |begin| {
        let (nx, at, sent) = (nx.as_async(), stream(&nx), message());
        let next = Cell::new(0);
        let exchange = async || {
            nx.send(SysWrite::at(&at, black_box(sent.clone())).append()).await.expect("it is appended");
            let read = nx.send(SysRead::at(&at).records_from(next.get())).await.expect("it is there");
            let read = read.records.expect("it is a stream").records;
            assert!(read.len() == 1 && read[0].offset == next.get() && read[0].data.len() == SIZE);
            next.set(next.get() + 1);
        };
        block_on(rounds(begin, fewer, exchange))
    });

    let (send, receive) = flume::bounded(ROOM);
    let took = best(count, |count| {
        for _ in 0..count {
            send.try_send(black_box(sent.clone())).expect("there is room");
            assert!(receive.try_recv().is_ok_and(|read: Bytes| read.len() == SIZE));
        }
    });
    println!("  {took:7.1} ns  flume, bounded");

    let (send, receive) = crossbeam_channel::bounded(ROOM);
    let took = best(count, |count| {
        for _ in 0..count {
            send.try_send(black_box(sent.clone())).expect("there is room");
            assert!(receive.try_recv().is_ok_and(|read: Bytes| read.len() == SIZE));
        }
    });
    println!("  {took:7.1} ns  crossbeam-channel, bounded");
    println!("  {:7.1} ns  pipe(2)", best(count, machine::piped()));
}

/// `count` messages from `writers` threads to as many: nanoseconds a message.
fn across(writers: usize, count: u64, write: impl Fn(Bytes) + Sync, read: impl Fn() -> usize + Sync) -> f64 {
    let each = count / writers as u64;
    best(each * writers as u64, |_| {
        thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    let sent = message();
                    for _ in 0..each {
                        write(sent.clone());
                    }
                });
                scope.spawn(|| {
                    for _ in 0..each {
                        assert_eq!(read(), SIZE);
                    }
                });
            }
        });
    })
}

fn throughput() {
    let nx = booted();
    let (at, opened) = (pipe(&nx), pipe(&nx));
    let reader = nx.pipe_reader(&opened).expect("it opens");
    let writer = nx.pipe_writer(&opened).expect("it opens");
    for writers in [1, 2] {
        println!("across threads, {writers} writing and {writers} reading, a message of {SIZE} bytes:");
        let count = 200_000;
        let took = across(
            writers,
            count,
            |sent| writer.write(sent, Some(LONG)).expect("there comes room"),
            || reader.read(Some(LONG)).expect("it comes").map_or(0, |read| read.len()),
        );
        println!("  {took:7.1} ns  ends of a pipe");
        let took = across(
            writers,
            count,
            |sent| drop(nx.send(SysWrite::at(&at, sent).wait(LONG)).expect("there comes room")),
            || nx.send(SysRead::at(&at).wait(LONG)).expect("it comes").data.len(),
        );
        println!("  {took:7.1} ns  SysWrite and SysRead by the path");
        let (send, receive) = flume::bounded(ROOM);
        let took = across(
            writers,
            count,
            |sent| send.send(sent).expect("it is read"),
            || receive.recv().map_or(0, |read: Bytes| read.len()),
        );
        println!("  {took:7.1} ns  flume, bounded");
        let (send, receive) = crossbeam_channel::bounded(ROOM);
        let took = across(
            writers,
            count,
            |sent| send.send(sent).expect("it is read"),
            || receive.recv().map_or(0, |read: Bytes| read.len()),
        );
        println!("  {took:7.1} ns  crossbeam-channel, bounded");
    }
}

/// One there and one back, to a thread that waits: the median of half of that, which is one message and one wake.
fn round_trip(
    count: usize,
    there: impl Fn() + Sync,
    back: impl Fn() + Sync,
    come: impl Fn() + Sync,
    answered: impl Fn() + Sync,
) -> f64 {
    let mut took: Vec<Duration> = thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                come();
                back();
            }
        });
        (0..count)
            .map(|_| {
                let began = Instant::now();
                there();
                answered();
                began.elapsed()
            })
            .collect()
    });
    took.sort_unstable();
    took[count / 2].as_nanos() as f64 / 2.0
}

fn there_and_back() {
    let nx = booted();
    let (at, answers) = (pipe(&nx), pipe(&nx));
    let count = 20_000;
    println!(
        "to a thread that waits, where it may look again before it sleeps, median of half of there and back:"
    );
    let write = |at: &VPath| drop(nx.send(SysWrite::at(at, message())).expect("there is room"));
    let read =
        |at: &VPath| assert_eq!(nx.send(SysRead::at(at).wait(LONG)).expect("it comes").data.len(), SIZE);
    let took = round_trip(count, || write(&at), || write(&answers), || read(&at), || read(&answers));
    println!("  {took:7.1} ns  SysWrite and SysRead by the path");
    let [(there, come), (back, answered)] = [(); 2].map(|()| flume::bounded::<Bytes>(ROOM));
    let took = round_trip(
        count,
        || there.send(message()).expect("it is read"),
        || back.send(message()).expect("it is read"),
        || assert_eq!(come.recv().map_or(0, |read| read.len()), SIZE),
        || assert_eq!(answered.recv().map_or(0, |read| read.len()), SIZE),
    );
    println!("  {took:7.1} ns  flume, bounded");
    let [(there, come), (back, answered)] = [(); 2].map(|()| crossbeam_channel::bounded::<Bytes>(ROOM));
    let took = round_trip(
        count,
        || there.send(message()).expect("it is read"),
        || back.send(message()).expect("it is read"),
        || assert_eq!(come.recv().map_or(0, |read| read.len()), SIZE),
        || assert_eq!(answered.recv().map_or(0, |read| read.len()), SIZE),
    );
    println!("  {took:7.1} ns  crossbeam-channel, bounded, which spins before it sleeps");
    // Two threads that only park and unpark each other: what the machine takes for a wake.
    let mine = thread::current();
    let turn = Arc::new(AtomicUsize::new(0));
    let theirs = {
        let turn = turn.clone();
        thread::spawn(move || {
            for n in 0..count {
                while turn.load(Ordering::Acquire) != 2 * n + 1 {
                    thread::park();
                }
                turn.store(2 * n + 2, Ordering::Release);
                mine.unpark();
            }
        })
    };
    let mut took: Vec<Duration> = (0..count)
        .map(|n| {
            let began = Instant::now();
            turn.store(2 * n + 1, Ordering::Release);
            theirs.thread().unpark();
            while turn.load(Ordering::Acquire) != 2 * n + 2 {
                thread::park();
            }
            began.elapsed()
        })
        .collect();
    theirs.join().expect("it ends");
    took.sort_unstable();
    println!(
        "  {:7.1} ns  park and unpark alone, which sleep at once",
        took[count / 2].as_nanos() as f64 / 2.0
    );
}

/// Those who are woken sleep, all of them.
fn woken() {
    let nx = booted();
    compare(vec![
        Way::asked("reader of a pipe, by its opened end", |_| {
            let at = pipe(&nx);
            let reader = nx.pipe_reader(&at).expect("it opens");
            let writer = nx.pipe_writer(&at).expect("it opens");
            let write = move || writer.write(message(), None).expect("there is room");
            let read = move || reader.read(Some(LONG)).expect("it comes").map_or(0, |read| read.len());
            wakes(write, coming(read), || ())
        }),
        Way::asked("reader of a pipe, by the path", |_| {
            let (at, nx) = (pipe(&nx), nx.clone());
            let (from, reads) = (at.clone(), nx.clone());
            let write = move || drop(nx.send(SysWrite::at(&at, message())).expect("there is room"));
            let read = move || reads.send(SysRead::at(&from).wait(LONG)).expect("it comes").data.len();
            wakes(write, coming(read), || ())
        }),
        Way::asked("reader of a stream in memory", |_| {
            let at = stream(&nx);
            let (mut reader, writer) = (nx.stream_reader(&at, 0).expect("a path"), nx.clone());
            let append = move || {
                let call = SysWrite::at(&at, message()).append();
                drop(writer.send(call).expect("it is appended"));
            };
            let read =
                move || reader.next(Some(LONG)).expect("it is there").map_or(0, |read| read.data.len());
            wakes(append, coming(read), || ())
        }),
        Way::shown("flume, bounded", |_| {
            let (send, receive) = flume::bounded(ROOM);
            let write = move || send.send(message()).expect("it is read");
            wakes(write, coming(move || receive.recv().map_or(0, |read: Bytes| read.len())), || ())
        }),
        Way::shown("crossbeam-channel, bounded", |_| {
            let (send, receive) = crossbeam_channel::bounded(ROOM);
            let write = move || send.send(message()).expect("it is read");
            wakes(write, coming(move || receive.recv().map_or(0, |read: Bytes| read.len())), || ())
        }),
    ]);
}

/// Waits for a message, and tells when it was there.
fn coming(mut read: impl FnMut() -> usize) -> impl FnMut() -> Instant {
    move || {
        let size = read();
        let now = Instant::now();
        assert_eq!(size, SIZE);
        now
    }
}

fn main() {
    one_thread();
    throughput();
    there_and_back();
    woken();
}
