//! The faults of the older system's swap (unhook, drain, replace, rehook), one test each: ours has none of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexus::actors::{Behaviour, LocalBoxFuture, Start};
use nexus::dispatch::OpSet;
use nexus::service::{Declaration, Service, ServiceHook, Setup};
use nexus::{Config, ErrorKind, Executed, ExitReason, ServiceState, SwapMode, SwapOptions, Syscall, Verdict};

use crate::counter::{self, Counter, Counter2, Fault, Next, SOON, Sum};

/// Refuses writes below the path that it is configured with.
struct Guard(#[expect(dead_code, reason = "what it publishes lives as long as it does")] Setup<Self>);

impl Behaviour for Guard {
    type Args = Setup<Self>;
    const NAME: &'static str = "guard";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            let below = setup.config().clone();
            setup.publish(start.generation(), below).map_err(ExitReason::error)?;
            Ok(Self(setup))
        })
    }
}

impl Service for Guard {
    const VERSION: &'static str = "1.0.0";
    type Config = String;
    type View = String;

    fn declare(_: &String) -> Declaration<Self> {
        Declaration::new().hook(ServiceHook::before("gate", OpSet::MUTATIONS, |below: &String, context| {
            match &context.call {
                Syscall::Write(call) if call.path.as_str().starts_with(below.as_str()) => {
                    Verdict::refuse("nobody writes there")
                }
                _ => Verdict::Continue,
            }
        }))
    }
}

/// Swaps of the policy, and forbidden operations that are tried from one to the next, at least.
const SWAPS: u64 = 200;
const TRIES_A_SWAP: u64 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_are_not_absent_while_a_service_is_swapped() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    nx.register::<Guard>("guard", "/forbidden".into()).await.unwrap();
    let (stop, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers = (0..4).map(|caller| {
        let (nx, stop, tried) = (nx.clone(), stop.clone(), tried.clone());
        tokio::task::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let refused = nx.write(format!("/forbidden/{caller}"), "x").await;
                assert_eq!(refused.expect_err("it is forbidden").kind(), ErrorKind::Refused);
                nx.write(format!("/allowed/{caller}"), "x").await.expect("it is allowed");
                tried.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for _ in 0..SWAPS {
        let goal = TRIES_A_SWAP + tried.load(Ordering::Relaxed);
        let options = SwapOptions::new().probation(Duration::ZERO);
        nx.swap_with::<Guard>("guard", "/forbidden".into(), options).await.unwrap();
        while tried.load(Ordering::Relaxed) < goal && !callers.iter().any(|caller| caller.is_finished()) {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("nothing forbidden passed, and nothing allowed failed");
    }
    assert!(tried.load(Ordering::Relaxed) >= SWAPS * TRIES_A_SWAP);
    assert!(!nx.exists("/forbidden").await.unwrap());
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_drain_that_is_late_is_not_ignored_but_given_up_and_said() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap();
    let inside = counter.lease().await.unwrap();
    let options = SwapOptions::new().limit(Duration::from_millis(50));
    let late = nx.swap_with::<Counter2>("counter", counter::Config::exclusive(), options).await.unwrap_err();
    assert_eq!((late.kind(), late.executed()), (ErrorKind::TimedOut, Executed::No), "{late}");
    assert!(late.to_string().contains("1 calls were still inside"), "{late}");
    // The one inside was left in peace, and the old version takes calls again.
    assert_eq!(*inside, 0);
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
    let status = nx.services().unwrap().remove(0);
    assert_eq!((&*status.serving.unwrap().version, status.failed_swaps), ("1.0.0", 1));
    drop(inside);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_new_call_enters_the_old_version_while_it_drains() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap();
    let inside = counter.lease().await.unwrap();
    // The new version answers one too much, which tells who answered.
    let new = counter::Config { fault: Fault::Wrong, ..counter::Config::exclusive() };
    let swapping = nx.swap::<Counter2>("counter", new);
    let calling = async {
        while counter.with(|_| ()).is_ok() {
            tokio::task::yield_now().await;
        }
        // The gate is shut: who comes now waits, though the old version still runs.
        let mut calls: Vec<_> = (0..10).map(|_| Box::pin(counter.call(Next, SOON))).collect();
        for call in &mut calls {
            assert!(futures_util::poll!(call.as_mut()).is_pending());
        }
        assert_eq!(nx.services().unwrap()[0].serving.as_ref().unwrap().number, 1);
        drop(inside);
        futures_util::future::join_all(calls).await
    };
    let (swapped, answers) = tokio::join!(swapping, calling);
    assert_eq!(swapped.unwrap().waited, 10);
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("no call fails")).collect();
    assert_eq!(answers, (2..12).collect::<Vec<_>>(), "all by the new version");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_version_is_probed_before_it_serves() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    for fault in [Fault::Probe, Fault::ProbePanics] {
        let error = nx.swap::<Counter2>("counter", counter::Config::fault(fault)).await.unwrap_err();
        assert_eq!(error.executed(), Executed::No);
        assert!(error.to_string().contains("its probe"), "{error}");
        let status = nx.services().unwrap().remove(0);
        assert_eq!((status.serving.unwrap().number, status.state), (1, ServiceState::Serving));
    }
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn state_is_handed_over() {
    for mode in [SwapMode::Overlap, SwapMode::Exclusive] {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
        for n in 1..=100 {
            assert_eq!(counter.call(Next, SOON).await.unwrap(), n);
        }
        let options = SwapOptions::new().mode(mode);
        let done = nx.swap_with::<Counter2>("counter", counter::Config::default(), options).await.unwrap();
        assert_eq!((&*done.from.version, &*done.to.version), ("1.0.0", "2.0.0"));
        assert_eq!(counter.call(Sum, SOON).await.unwrap(), 100);
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_version_that_turns_out_to_be_bad_is_rolled_back() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
    nx.swap::<Counter2>("counter", counter::Config::fault(Fault::Serving)).await.unwrap();
    let broke = counter.call(Next, SOON).await.unwrap_err();
    assert_eq!(broke.executed(), Executed::Unknown, "{broke}");
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 2, "the version before, with its state");
    let status = nx.services().unwrap().remove(0);
    assert_eq!((&*status.serving.unwrap().version, status.swap_backs), ("1.0.0", 1));
    nx.shutdown().await.unwrap();
}
