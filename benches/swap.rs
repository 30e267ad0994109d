//! What callers of a service notice of swaps: none fails, and how much longer they wait at worst; against a control run without swaps in the same process.
//!
//!     cargo bench --bench swap

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nexus::actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus::service::{Carry, Declaration, Service, ServiceRef, Setup};
use nexus::{Config, Nexus, SwapMode, SwapOptions};

/// Callers at once; swaps of a run; calls of a run at least.
const CALLERS: usize = 8;
const SWAPS: usize = 200;
const CALLS_MIN: u64 = 100_000;

/// What the slowest call in a thousand may take longer, with overlap.
const ADDED_MAX: Duration = Duration::from_millis(1);

/// The time from one swap to the next, at least.
const SWAP_EVERY: Duration = Duration::from_millis(20);

const SOON: Duration = Duration::from_secs(30);

/// Counts.
struct Counter {
    setup: Setup<Self>,
    incarnation: u64,
    sum: u64,
}

/// Adds one and gives the sum.
struct Next;

impl Message for Next {
    type Reply = u64;
    const NAME: &'static str = "counter.next";
}

impl Behaviour for Counter {
    type Args = Setup<Self>;
    const NAME: &'static str = "bench.counter";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Self { setup, incarnation: start.generation(), sum: 0 }) })
    }
}

impl Service for Counter {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = u64;

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new().exports::<Next>()
    }

    fn export(&mut self) -> Result<Carry, ExitReason> {
        Carry::of(1, &self.sum)
    }

    fn import(&mut self, carry: Carry) -> Result<(), ExitReason> {
        self.sum = carry.take()?;
        self.setup.publish(self.incarnation, self.sum).map_err(ExitReason::error)
    }
}

impl Handle<Next> for Counter {
    fn handle(&mut self, _: Next, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        self.sum += 1;
        Reply::Now(self.sum)
    }
}

/// What the callers of one run saw.
struct Run {
    calls: u64,
    took: Duration,
    latencies: Vec<Duration>,
    swaps: usize,
    pause: Duration,
    waited: usize,
}

impl Run {
    fn at(&self, per_mille: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * per_mille / 1_000]
    }

    fn show(&self, name: &str) {
        let a_second = self.calls as f64 / self.took.as_secs_f64();
        println!(
            "{name:<24} {:>8} calls, 0 failed, {:>3} swaps, {a_second:>9.0} calls/s, p50 {:>9.1?}, p99.9 {:>9.1?}, longest {:>9.1?}",
            self.calls,
            self.swaps,
            self.at(500),
            self.at(999),
            self.at(1_000)
        );
    }
}

async fn call(counter: ServiceRef<Counter>, stop: Arc<AtomicBool>, calls: Arc<AtomicU64>) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        counter.call(Next, SOON).await.expect("no call fails");
        latencies.push(began.elapsed());
        calls.fetch_add(1, Ordering::Relaxed);
    }
    latencies
}

/// Lets callers call for at least `swaps` times the time between two swaps, and swaps meanwhile unless `mode` is none.
async fn run(nx: &Nexus, counter: &ServiceRef<Counter>, mode: Option<SwapMode>) -> Run {
    let before = counter.call(Next, SOON).await.expect("it answers");
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> =
        (0..CALLERS).map(|_| tokio::spawn(call(counter.clone(), stop.clone(), calls.clone()))).collect();
    let began = Instant::now();
    let (mut swaps, mut pause, mut waited) = (0, Duration::ZERO, 0);
    for _ in 0..SWAPS {
        tokio::time::sleep(SWAP_EVERY).await;
        if let Some(mode) = mode {
            let options = SwapOptions::new().mode(mode).probation(Duration::ZERO);
            let done = nx.swap_with::<Counter>("counter", (), options).await.expect("it is swapped");
            swaps += 1;
            pause = pause.max(done.pause);
            waited += done.waited;
        }
    }
    while calls.load(Ordering::Relaxed) < CALLS_MIN {
        tokio::time::sleep(SWAP_EVERY).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await.expect("no caller fails"));
    }
    let took = began.elapsed();
    latencies.sort_unstable();
    let calls = calls.load(Ordering::Relaxed);
    assert_eq!(latencies.len() as u64, calls);
    let after = counter.call(Next, SOON).await.expect("it answers");
    if mode != Some(SwapMode::Overlap) {
        // With overlap both versions count for a moment, each for itself.
        assert_eq!(after, before + calls + 1, "each call was counted once");
    }
    Run { calls, took, latencies, swaps, pause, waited }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("it starts").block_on(async {
        let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
        let counter = nx.register::<Counter>("counter", ()).await.expect("it starts");
        // The first calls warm everything up.
        run(&nx, &counter, None).await;
        let control = run(&nx, &counter, None).await;
        let overlap = run(&nx, &counter, Some(SwapMode::Overlap)).await;
        let exclusive = run(&nx, &counter, Some(SwapMode::Exclusive)).await;
        let again = run(&nx, &counter, None).await;
        control.show("without swaps");
        overlap.show("overlap");
        exclusive.show("exclusive");
        again.show("without swaps, again");
        for (name, run) in [("overlap", &overlap), ("exclusive", &exclusive)] {
            assert!(run.calls >= CALLS_MIN && run.swaps == SWAPS);
            // The slower of the two control runs: what the machine does by itself is not the swaps'.
            let added = run.at(999).saturating_sub(control.at(999).max(again.at(999)));
            println!(
                "{name}: p99.9 is {added:.1?} above the control; longest pause {:.1?}, in all {} calls waited",
                run.pause, run.waited
            );
            assert!(name != "overlap" || added < ADDED_MAX, "{added:?} at p99.9, of less than {ADDED_MAX:?}");
        }
        assert_eq!(overlap.pause, Duration::ZERO, "with overlap nobody waits");
        nx.shutdown().await.expect("it stops in order");
    });
}
