//! One version in the place of another, again and again, under a hundred thousand calls: none fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexus::service::ServiceRef;
use nexus::{Config, ErrorKind, Result, SwapMode, SwapOptions};

use crate::counter::{self, Counter, Counter2, Next, SOON, Sum};

const SWAPS: u64 = 200;
/// Direct calls and messages from one swap to the next, at least.
const DIRECT_A_SWAP: u64 = 500;
const MESSAGES_A_SWAP: u64 = 10;
/// Direct calls in a row before others have their turn.
const IN_A_ROW: u64 = 50;

const _: () = assert!(SWAPS * DIRECT_A_SWAP >= 100_000);

/// What is called, and how often it was.
struct Load {
    counter: ServiceRef<Counter>,
    mode: SwapMode,
    direct: AtomicU64,
    messages: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// Looks at what is published until it is told to stop. The sum never falls where nothing is lost.
    async fn look(&self) -> Result<()> {
        let mut last = 0;
        while !self.stop.load(Ordering::Relaxed) {
            for _ in 0..IN_A_ROW {
                let sum = match self.counter.with(|sum| *sum) {
                    // Only this cannot wait before a gate, and says so. What can is never refused.
                    Err(error) if self.mode == SwapMode::Exclusive && error.kind() == ErrorKind::Busy => {
                        *self.counter.lease().await?
                    }
                    sum => sum?,
                };
                assert!(self.mode == SwapMode::Overlap || sum >= last, "{sum} after {last}");
                last = sum;
            }
            self.direct.fetch_add(IN_A_ROW, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn call(&self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            self.counter.call(Next, SOON).await?;
            self.messages.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn so_far(&self) -> (u64, u64) {
        (self.direct.load(Ordering::Relaxed), self.messages.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_thousand_calls_over_two_hundred_swaps_none_fails_in_either_mode() {
    for mode in [SwapMode::Overlap, SwapMode::Exclusive] {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
        let (direct, messages, stop) = Default::default();
        let load = Arc::new(Load { counter: counter.clone(), mode, direct, messages, stop });
        let callers: Vec<_> = (0..6)
            .map(|caller| {
                let load = load.clone();
                tokio::spawn(async move { if caller < 2 { load.look().await } else { load.call().await } })
            })
            .collect();
        for swap in 0..SWAPS {
            let before = load.so_far();
            loop {
                let now = load.so_far();
                if now.0 >= before.0 + DIRECT_A_SWAP && now.1 >= before.1 + MESSAGES_A_SWAP {
                    break;
                }
                assert!(
                    !callers.iter().any(|caller| caller.is_finished()),
                    "a call failed before swap {swap}"
                );
                tokio::task::yield_now().await;
            }
            let options = SwapOptions::new().mode(mode).probation(Duration::ZERO);
            let config = counter::Config::default();
            let report = match swap % 2 {
                0 => nx.swap_with::<Counter2>("counter", config, options).await,
                _ => nx.swap_with::<Counter>("counter", config, options).await,
            };
            assert_eq!(report.expect("it swaps").to.number, swap + 2);
        }
        load.stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.expect("no claim is broken").expect("no call fails");
        }
        let (direct, messages) = load.so_far();
        assert!(direct >= SWAPS * DIRECT_A_SWAP && messages >= SWAPS * MESSAGES_A_SWAP);
        if mode == SwapMode::Exclusive {
            assert_eq!(counter.call(Sum, SOON).await.unwrap(), messages, "each message was counted once");
        }
        nx.shutdown().await.unwrap();
    }
}
