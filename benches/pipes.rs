//! What pipes cost: through the syscalls, through ends, and across threads, beside what others are used for that.
//!
//!     cargo bench --bench pipes
//!
//! Each figure is the best of several rounds, which are taken in turns. All check what they read.

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time, on threads of its own")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod machine;

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nexus::actors::{Ring, block_on};
use nexus::{Bytes, Config, SysRead, SysSetattr, SysWrite, VPath, blocking};

/// Bytes of a message.
const SIZE: usize = machine::MESSAGE;

/// Messages that a pipe has room for, as the channels beside it.
const ROOM: usize = 1_024;

const ROUNDS: usize = 7;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(60);

fn message() -> Bytes {
    Bytes::from(vec![7; SIZE])
}

/// As [`best`], of what is done `count` times on one task.
async fn best_of(count: u64, exchange: impl AsyncFn()) -> f64 {
    let mut took = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..count {
            exchange().await;
        }
        took = took.min(began.elapsed());
    }
    took.as_nanos() as f64 / count as f64
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

fn piped() -> (blocking::Nexus, VPath) {
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    let at = VPath::parse("/agents/tasks").expect("written as one");
    nx.send(SysSetattr::pipe(&at, 1 << 20)).expect("it is made");
    (nx, at)
}

/// A message written and read on one thread.
fn one_thread() {
    let (nx, at) = piped();
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

    // A pipe of its own: of one whose ends are gone, the other end is told.
    let opened = VPath::parse("/agents/opened").expect("written as one");
    nx.send(SysSetattr::pipe(&opened, 1 << 20)).expect("it is made");
    let took = block_on(async {
        let (reader, writer) = (
            nx.as_async().pipe_reader(&opened).await.expect("it opens"),
            nx.as_async().pipe_writer(&opened).await.expect("it opens"),
        );
        let exchange = async || {
            writer.write(black_box(sent.clone()), None).await.expect("there is room");
            let read = reader.read(None).await.expect("it is there").expect("it is no end");
            assert!(read.len() == SIZE && read[SIZE - 1] == 7);
        };
        best_of(count, exchange).await
    });
    println!("  {took:7.1} ns  ends of a pipe");

    let took = block_on(async {
        let nx = nx.as_async();
        let exchange = async || {
            nx.send(SysWrite::at(&at, black_box(sent.clone()))).await.expect("there is room");
            let read = nx.send(SysRead::at(&at)).await.expect("it is there");
            assert!(read.data.len() == SIZE && read.data[SIZE - 1] == 7);
        };
        best_of(count, exchange).await
    });
    println!("  {took:7.1} ns  SysWrite and SysRead by the path");

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
    let (nx, at) = piped();
    for writers in [1, 2] {
        println!("across threads, {writers} writing and {writers} reading, a message of {SIZE} bytes:");
        let count = 200_000;
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

fn wakes() {
    let (nx, at) = piped();
    let answers = VPath::parse("/agents/answers").expect("written as one");
    nx.send(SysSetattr::pipe(&answers, 1 << 20)).expect("it is made");
    let count = 20_000;
    println!("waking a thread that waits, median of half of there and back:");
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
    let turn = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let theirs = {
        let turn = turn.clone();
        thread::spawn(move || {
            for n in 0..count {
                while turn.load(std::sync::atomic::Ordering::Acquire) != 2 * n + 1 {
                    thread::park();
                }
                turn.store(2 * n + 2, std::sync::atomic::Ordering::Release);
                mine.unpark();
            }
        })
    };
    let mut took: Vec<Duration> = (0..count)
        .map(|n| {
            let began = Instant::now();
            turn.store(2 * n + 1, std::sync::atomic::Ordering::Release);
            theirs.thread().unpark();
            while turn.load(std::sync::atomic::Ordering::Acquire) != 2 * n + 2 {
                thread::park();
            }
            began.elapsed()
        })
        .collect();
    theirs.join().expect("it ends");
    took.sort_unstable();
    println!("  {:7.1} ns  park and unpark alone: a raw futex wake", took[count / 2].as_nanos() as f64 / 2.0);
}

fn main() {
    one_thread();
    throughput();
    wakes();
}
