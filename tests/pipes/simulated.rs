//! Readers that come and are cancelled, while others read and write, under seeded schedules: whatever the order, nothing is lost or doubled.
//!
//! `NEXUS_SEEDS` says how many seeds are run, `NEXUS_FIRST_SEED` which is the first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nexus::{Config, Env, ErrorKind, Kill, SysRead, SysSetattr, SysUnlink, SysWrite};
use parking_lot::Mutex;

use crate::bench::path;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 40;

const WRITERS: usize = 3;
const READERS: usize = 4;
const EACH: usize = 30;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("NEXUS_FIRST_SEED").unwrap_or(1);
    first..first + number("NEXUS_SEEDS").unwrap_or(SEEDS)
}

/// A number that differs from call to call and is the same in each run of a seed.
fn drawn(env: &Env, below: u64) -> u64 {
    env.random() % below
}

/// What became of a seed: what was read, and how many reads were given up.
fn run(seed: u64, kills: bool) -> (Vec<usize>, usize) {
    let (env, _simulation) = Env::seeded(seed);
    let read: Arc<Mutex<Vec<usize>>> = Arc::default();
    let cancelled = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let ended = env.clone();
    ended.blocking_wait(async {
        let nx = nexus::connect(Config::in_memory().env(env.clone())).await.expect("it boots");
        let at = path("/p");
        nx.send(SysSetattr::pipe(&at, 40)).await.expect("it is made");
        for writer in 0..WRITERS {
            let (nx, at, env, done) = (nx.clone(), at.clone(), env.clone(), done.clone());
            env.clone().spawn("writer", async move {
                for n in 0..EACH {
                    let message = (writer * EACH + n).to_le_bytes().to_vec();
                    // Writers are given up, too, and try again: what was given up was not written.
                    loop {
                        let wait = Duration::from_micros(drawn(&env, 300));
                        match nx.send(SysWrite::at(&at, message.clone()).wait(wait)).await {
                            Ok(_) => break,
                            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}"),
                        }
                    }
                    if drawn(&env, 3) == 0 {
                        env.sleep(Duration::from_micros(drawn(&env, 200))).await;
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        for _ in 0..READERS {
            let (nx, at, env) = (nx.clone(), at.clone(), env.clone());
            let (read, cancelled, done) = (read.clone(), cancelled.clone(), done.clone());
            env.clone().spawn("reader", async move {
                loop {
                    let call = nx.send(SysRead::at(&at).wait(Duration::from_secs(1)));
                    // Dropped in the middle, by whoever waits no longer: at the very moment of a wake, under some seeds.
                    match env.timeout(Duration::from_micros(drawn(&env, 250)), call).await {
                        Ok(Ok(message)) => {
                            let number = message.data[..].try_into().expect("a number");
                            read.lock().push(usize::from_le_bytes(number));
                        }
                        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => break,
                        Ok(Err(error)) => panic!("{error}"),
                        Err(_) => {
                            cancelled.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        let all = WRITERS * EACH;
        while read.lock().len() < all || done.load(Ordering::Relaxed) < WRITERS {
            if kills && drawn(&env, 20) == 0 {
                nx.kill("nexus/kernel/pipes", Kill::Panic).await.expect("it may");
            }
            env.sleep(Duration::from_micros(500)).await;
        }
        nx.send(SysUnlink::at(&at)).await.expect("it is there");
        while done.load(Ordering::Relaxed) < WRITERS + READERS {
            env.sleep(Duration::from_millis(1)).await;
        }
        nx.shutdown().await.expect("it stops");
    });
    let read = std::mem::take(&mut *read.lock());
    (read, cancelled.load(Ordering::Relaxed))
}

#[test]
fn nothing_is_lost_or_doubled_when_readers_and_writers_are_cancelled() {
    let mut cancelled = 0;
    for seed in seeds() {
        let (mut read, given_up) = run(seed, seed % 2 == 0);
        cancelled += given_up;
        read.sort_unstable();
        assert!(read == (0..WRITERS * EACH).collect::<Vec<_>>(), "seed {seed}: {read:?}");
    }
    assert!(cancelled > 0, "readers were cancelled");
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    assert_eq!(run(7, true), run(7, true));
}
