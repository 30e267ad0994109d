//! What advisory locks cost: taken and given back without contention, by one thread and by more, beside a message through pipe(2); handed over to a thread that sleeps,
//! beside a raw futex wake in the same run; and handed on through a thousand who wait.
//!
//!     cargo bench --bench locks

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod machine;
mod waking;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use nexus::{Config, Locked, SysLock, SysUnlock, VPath, blocking};
use nexus_actors::block_on;
use parking_lot::Mutex;

use waking::{Way, compare, median, wakes};

/// What a lock may cost that is taken and given back, on a machine where a message of 80 bytes through pipe(2) takes so long.
const PAIR_MAX: Duration = Duration::from_nanos(300);
const PIPED_THERE: Duration = Duration::from_nanos(603);

/// Pairs in one measurement, and measurements.
const PAIRS: u32 = 200_000;
const ROUNDS: usize = 9;

/// Who waits for one lock.
const WAITERS: usize = 1_000;

const LONG: Duration = Duration::from_secs(60);

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn verdict(good: bool) -> &'static str {
    if good { "kept" } else { "OVER" }
}

/// The time of one pair, on a path that is there.
fn pair(nx: &blocking::Nexus, at: &VPath) -> Duration {
    let nx = nx.as_async();
    block_on(async {
        let began = Instant::now();
        for _ in 0..PAIRS {
            let lock = nx.send(SysLock::exclusive(at)).await.expect("it is free");
            let done = nx.send(SysUnlock::new(at, lock.id)).await.expect("it is held");
            assert_eq!(done.released, 1);
        }
        began.elapsed() / PAIRS
    })
}

fn without_contention(nx: &blocking::Nexus) {
    let places: Vec<VPath> = ["/a/b/file", "/c/d/file"].map(path).into();
    for at in &places {
        nx.write(at, "x").expect("it writes");
    }
    let agents: Vec<_> = ["one", "two"].map(|name| nx.agent(name).expect("a name")).into();
    pair(&agents[0], &places[0]);
    let mut pipe = machine::piped();
    let mut piped = || {
        let began = Instant::now();
        pipe(u64::from(PAIRS));
        began.elapsed() / PAIRS
    };
    // By turns, on the same machine in the same mood.
    let (pairs, pipes) = (0..ROUNDS).map(|_| (pair(&agents[0], &places[0]), piped())).unzip();
    let (alone, piped) = (median(pairs), median(pipes));
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    println!(
        "lock and unlock, without contention:  {alone:>10.0?}  asked {PAIR_MAX:?}: {}",
        verdict(alone < PAIR_MAX)
    );
    let (found, asked) = (ratio(alone, piped), ratio(PAIR_MAX, PIPED_THERE));
    println!(
        "  80 bytes through pipe(2):           {piped:>10.0?}  the pair takes {found:.2} times that, asked {asked:.2} ({PAIR_MAX:?} where it takes {PIPED_THERE:?}): {}",
        verdict(found < asked)
    );
    // The same beside a thousand others that are held in the same directory.
    let others: Vec<Locked> = (0..1_000)
        .map(|n| {
            let call = SysLock::exclusive(path(&format!("/a/b/other-{n}"))).ttl(SysLock::TTL_MAX);
            nx.send(call).expect("it is free")
        })
        .collect();
    let beside = median((0..ROUNDS).map(|_| pair(&agents[0], &places[0])).collect());
    println!("  beside a thousand that are held:    {beside:>10.0?}");
    for lock in others {
        nx.unlock(&lock.path, lock.id).expect("it is held");
    }
    let both = median(
        (0..ROUNDS)
            .map(|_| {
                thread::scope(|scope| {
                    let pairs = agents.iter().zip(&places);
                    let running: Vec<_> =
                        pairs.map(|(agent, at)| scope.spawn(move || pair(agent, at))).collect();
                    let took = running.into_iter().map(|one| one.join().expect("it ends"));
                    took.max().expect("there are two")
                })
            })
            .collect(),
    );
    let rate = 2.0 * alone.as_secs_f64() / both.as_secs_f64();
    println!("  by two threads, on two paths:       {both:>10.0?} each, {rate:.2} times the rate of one");
}

fn handed_over(nx: &blocking::Nexus) {
    compare(vec![Way::asked("unlock, to who waits for the lock", |pair| {
        let at = path(&format!("/a/b/file-{pair}"));
        nx.write(&at, "x").expect("it writes");
        let agent = |name: &str| nx.agent(format!("{name}-{pair}")).expect("a name");
        let (waker, sleeper) = (agent("waker"), agent("sleeper"));
        let take = {
            let (waker, at) = (waker.clone(), at.clone());
            move || waker.send(SysLock::exclusive(&at).wait(LONG)).expect("it comes")
        };
        let held = Arc::new(Mutex::new(take()));
        let (releases, path_of) = (held.clone(), at.clone());
        wakes(
            move || {
                let id = releases.lock().id;
                waker.unlock(&path_of, id).expect("it is held");
            },
            move || {
                let lock = sleeper.send(SysLock::exclusive(&at).wait(LONG)).expect("it comes");
                let now = Instant::now();
                sleeper.unlock(&at, lock.id).expect("it is held");
                now
            },
            // The sleeper has released it, or is about to.
            move || *held.lock() = take(),
        )
    })]);
}

/// A thousand wait for one lock, on so many threads: those who come one after the other are on different ones.
fn handed_on(nx: &blocking::Nexus, threads: usize) {
    let (at, nx) = (path("/a/b/file"), nx.as_async());
    let statistics = || nx.kernel().expect("it is here").advisory().statistics();
    let before = statistics();
    let next = &AtomicUsize::new(0);
    let first = block_on(nx.send(SysLock::exclusive(&at))).expect("it is free");
    let mut waiting: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for n in 0..WAITERS {
        let at = &at;
        let mut waiter = Box::pin(async move {
            let lock = nx.send(SysLock::exclusive(at).wait(LONG)).await.expect("it comes");
            assert_eq!(next.fetch_add(1, Ordering::Relaxed), n, "in the order in which they came");
            nx.send(SysUnlock::new(at, lock.id)).await.expect("it is held");
        });
        assert!(block_on(async { futures_util::poll!(&mut waiter) }).is_pending());
        waiting[n % threads].push(waiter);
    }
    let began = Barrier::new(threads + 1);
    let took = thread::scope(|scope| {
        let began = &began;
        for mut waiting in waiting {
            scope.spawn(move || {
                block_on(async {
                    for waiter in &mut waiting {
                        assert!(futures_util::poll!(waiter).is_pending());
                    }
                    began.wait();
                    futures_util::future::join_all(waiting).await;
                });
                began.wait();
            });
        }
        began.wait();
        let start = Instant::now();
        block_on(nx.send(SysUnlock::new(&at, first.id))).expect("it is held");
        began.wait();
        start.elapsed()
    });
    let woken = statistics().woken - before.woken;
    assert_eq!(woken, WAITERS as u64, "each was woken once");
    println!(
        "{WAITERS} who wait for one lock, threads: {threads} {:>10.2?} each, in their order, {woken} wakes",
        took / u32::try_from(WAITERS).expect("a few")
    );
}

fn main() {
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    without_contention(&nx);
    handed_over(&nx);
    for threads in [1, 2, 4] {
        handed_on(&nx, threads);
    }
    nx.shutdown().expect("it ends");
}
