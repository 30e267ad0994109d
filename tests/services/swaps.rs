//! One version in the place of another, under callers, in both modes; and every way in which that can fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexus::actors::{Inject, Moment};
use nexus::service::ServiceRef;
use nexus::{Config, ErrorKind, Executed, Kill, ServiceState, SwapMode, SwapOptions};

use crate::counter::{self, Break, Counter, Counter2, Fault, Next, NextByItself, SOON, Sum};

/// Callers that count in a service until they are told to stop.
struct Load {
    calls: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Result<(), nexus::Error>>>,
}

impl Load {
    fn on(counter: &ServiceRef<Counter>, callers: usize) -> Self {
        let (calls, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let tasks = (0..callers).map(|_| {
            let (counter, calls, stop) = (counter.clone(), calls.clone(), stop.clone());
            tokio::task::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    counter.call(Next, SOON).await?;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Self { tasks: tasks.collect(), calls, stop }
    }

    /// Waits for so many further calls.
    async fn more(&self, calls: u64) {
        let goal = self.calls.load(Ordering::Relaxed) + calls;
        while self.calls.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
    }

    /// Ends the calls, all of which must have succeeded, and says how many there were.
    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("it does not panic").expect("no call fails");
        }
        self.calls.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exclusive_swap_hands_every_count_over_and_fails_no_call() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap();
    let load = Load::on(&counter, 8);
    for round in 1..=20 {
        load.more(20).await;
        let options = SwapOptions::new().mode(SwapMode::Exclusive).probation(Duration::ZERO);
        let report = if round % 2 == 1 {
            nx.swap_with::<Counter2>("counter", counter::Config::exclusive(), options).await.unwrap()
        } else {
            nx.swap_with::<Counter>("counter", counter::Config::exclusive(), options).await.unwrap()
        };
        assert_eq!((report.from.number, report.to.number), (round, round + 1));
        assert_eq!(report.to.version, if round % 2 == 1 { "2.0.0" } else { "1.0.0" });
    }
    let calls = load.end().await;
    assert_eq!(counter.call(Sum, SOON).await.unwrap(), calls, "each call was counted once");
    assert_eq!(counter.with(|sum| *sum).unwrap(), calls, "the view too");
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlapping_swap_fails_no_call_and_makes_none_wait() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    let load = Load::on(&counter, 8);
    for _ in 0..20 {
        load.more(20).await;
        let options = SwapOptions::new().probation(Duration::ZERO);
        let report = nx.swap_with::<Counter2>("counter", counter::Config::default(), options).await.unwrap();
        assert_eq!((report.mode, report.pause, report.waited), (SwapMode::Overlap, Duration::ZERO, 0));
    }
    load.end().await;
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_before_the_publish_leaves_the_old_version_serving() {
    for mode in [counter::Mode::Overlap, counter::Mode::Exclusive] {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let config = counter::Config { mode, ..Default::default() };
        let counter = nx.register::<Counter>("counter", config).await.unwrap();
        let load = Load::on(&counter, 4);
        let check = async |fault, kind, says: &str| {
            load.more(10).await;
            let error =
                nx.swap::<Counter2>("counter", counter::Config { fault, ..config }).await.unwrap_err();
            assert_eq!((error.kind(), error.executed()), (kind, Executed::No), "{error}");
            assert!(error.to_string().contains(says), "{error}");
            let status = nx.services().unwrap().remove(0);
            assert_eq!((status.serving.unwrap().number, status.state), (1, ServiceState::Serving));
            // What makes no sense is refused before a swap begins.
            let begun = fault != Fault::Declared;
            assert_eq!(status.last_failure.is_some_and(|why| why.contains(says)), begun);
        };
        check(Fault::Declared, ErrorKind::InvalidArgument, "makes no sense").await;
        check(Fault::Start, ErrorKind::InvalidArgument, "its start: error: it does not like it here").await;
        check(Fault::StartPanics, ErrorKind::Crashed, "its start: panicked: it breaks in its start").await;
        check(Fault::Probe, ErrorKind::InvalidArgument, "its probe: error: it is not fit").await;
        check(Fault::ProbePanics, ErrorKind::Crashed, "its probe: panicked: it breaks in its probe").await;
        check(Fault::Import, ErrorKind::InvalidArgument, "its import: error: it does not understand").await;
        check(Fault::ImportPanics, ErrorKind::Crashed, "its import: panicked: it breaks in its import").await;
        let calls = load.end().await;
        assert_eq!(counter.call(Sum, SOON).await.unwrap(), calls, "its state is as the calls left it");
        let left =
            nx.tree().await.unwrap().children.into_iter().find(|child| &*child.id == "services").unwrap();
        let left: Vec<_> = left.children.iter().map(|child| child.id.to_string()).collect();
        assert_eq!(left, ["counter@1"], "what did not come to serve is gone");
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_version_that_cannot_export_goes_on() {
    for (fault, kind) in
        [(Fault::Export, ErrorKind::InvalidArgument), (Fault::ExportPanics, ErrorKind::Crashed)]
    {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let counter = nx.register::<Counter>("counter", counter::Config::fault(fault)).await.unwrap();
        counter.call(Next, SOON).await.unwrap();
        let error = nx.swap::<Counter2>("counter", counter::Config::default()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("its export"), "{error}");
        assert_eq!(counter.call(Sum, SOON).await.unwrap(), 1, "not even restarted");
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_on_probation_brings_the_version_before_back() {
    for mode in [counter::Mode::Overlap, counter::Mode::Exclusive] {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let config = counter::Config { mode, ..Default::default() };
        let counter = nx.register::<Counter>("counter", config).await.unwrap();
        assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
        nx.swap::<Counter2>("counter", counter::Config { fault: Fault::Serving, ..config }).await.unwrap();
        assert_eq!(nx.services().unwrap()[0].state, ServiceState::OnProbation);

        let broke = counter.call(Next, SOON).await.unwrap_err();
        assert_eq!((broke.kind(), broke.executed()), (ErrorKind::Crashed, Executed::Unknown));
        assert_eq!(counter.call(Next, SOON).await.unwrap(), 2, "the version before is back, with its state");
        let status = nx.services().unwrap().remove(0);
        assert_eq!((status.serving.unwrap().number, status.state), (1, ServiceState::Serving));
        assert_eq!((status.swaps, status.swap_backs), (1, 1));
        assert!(status.last_failure.unwrap().contains("it breaks while it serves"));
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_dies_of_the_news_brings_the_version_before_back_all_the_same() {
    for moment in [Moment::Before, Moment::After] {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
        assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
        nx.swap::<Counter2>("counter", counter::Config::fault(Fault::Serving)).await.unwrap();

        assert!(nx.kill("nexus/registry/services", Kill::Handling(Inject::Kill, moment)).await.unwrap());
        counter.call(Next, SOON).await.unwrap_err();
        assert_eq!(counter.call(Next, SOON).await.unwrap(), 2, "{moment:?}: the version before is back");
        let status = nx.services().unwrap().remove(0);
        assert_eq!((status.serving.unwrap().number, status.swap_backs), (1, 1), "{moment:?}");
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_calls_only_the_one_that_broke_a_version_fails() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    for round in 1..=10 {
        let options = SwapOptions::new().probation(SOON);
        while let Err(error) =
            nx.swap_with::<Counter2>("counter", counter::Config::fault(Fault::Serving), options.clone()).await
        {
            // The swap back of the round before is being tidied up.
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            tokio::task::yield_now().await;
        }
        let calls = (0..32).map(|_| {
            let counter = counter.clone();
            tokio::spawn(async move { counter.call(Next, SOON).await })
        });
        let mut failed = 0;
        for call in calls.collect::<Vec<_>>() {
            if let Err(error) = call.await.unwrap() {
                assert_eq!((error.kind(), error.executed()), (ErrorKind::Crashed, Executed::Unknown));
                failed += 1;
            }
        }
        assert_eq!(failed, 1, "what waited behind it is answered by the version that came back");
        assert_eq!(counter.call(Sum, SOON).await.unwrap(), round * 31);
    }
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_swap_back_outlives_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config::new(folder.path()).service::<Counter>().service::<Counter2>();
    let nx = nexus::connect(config()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    nx.swap::<Counter2>("counter", counter::Config::fault(Fault::Serving)).await.unwrap();
    counter.call(Next, SOON).await.unwrap_err();
    counter.call(Next, SOON).await.unwrap();
    nx.shutdown().await.unwrap();
    let nx = nexus::connect(config()).await.unwrap();
    assert_eq!(nx.services().unwrap()[0].serving.as_ref().unwrap().version, "1.0.0");
    nx.swap::<Counter2>("counter", counter::Config::default()).await.unwrap();
    nx.shutdown().await.unwrap();
    let nx = nexus::connect(config()).await.unwrap();
    assert_eq!(nx.services().unwrap()[0].serving.as_ref().unwrap().version, "2.0.0");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn after_probation_a_crash_is_a_restart() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    let options = SwapOptions::new().probation(Duration::ZERO);
    nx.swap_with::<Counter2>("counter", counter::Config::default(), options.clone()).await.unwrap();
    while nx.services().unwrap()[0].state == ServiceState::OnProbation {
        tokio::task::yield_now().await;
    }
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
    nx.kill("nexus/services/counter@2", Kill::Panic).await.unwrap();
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 2, "from what it had published");
    let status = nx.services().unwrap().remove(0);
    assert_eq!((status.serving.unwrap().number, status.swap_backs), (2, 0));
    assert_eq!(status.actor.unwrap().restarts, 1);
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_probation_not_even_the_first_call_brings_the_version_before_back() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    counter.call(Next, SOON).await.unwrap();
    // The swap has not ended before it is dropped, and the new version serves meanwhile.
    let inside = counter.lease().await.unwrap();
    let (swapping, broken) = (nx.clone(), counter::Config::fault(Fault::Serving));
    let swap = tokio::spawn(async move {
        swapping.swap_with::<Counter2>("counter", broken, SwapOptions::new().probation(Duration::ZERO)).await
    });
    let serving = || nx.services().unwrap().remove(0).serving.unwrap().number;
    while serving() != 2 {
        tokio::task::yield_now().await;
    }
    counter.call(Next, SOON).await.unwrap_err();
    counter.call(Sum, SOON).await.unwrap();
    drop(inside);
    swap.await.unwrap().unwrap();
    assert_eq!((serving(), nx.services().unwrap()[0].swap_backs), (2, 0));
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_service_that_calls_itself_during_an_exclusive_swap_does_not_deadlock() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap();
    let by_itself = counter.call(NextByItself, SOON);
    let swap =
        nx.swap::<Counter>("counter", counter::Config { fault: Fault::None, ..counter::Config::exclusive() });
    let calls: Vec<_> = (0..50).map(|_| counter.call(NextByItself, SOON)).collect();
    let (first, swapped, rest) = tokio::join!(by_itself, swap, futures_util::future::join_all(calls));
    first.unwrap().unwrap();
    assert!(swapped.unwrap().pause < SOON);
    for done in rest {
        done.unwrap().unwrap();
    }
    assert_eq!(counter.call(Sum, SOON).await.unwrap(), 51);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_swap_of_a_service_at_a_time() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap();
    let inside = counter.lease().await.unwrap();
    let options = || SwapOptions::new().mode(SwapMode::Exclusive).limit(Duration::from_millis(300));
    let late = nx.swap_with::<Counter>("counter", counter::Config::fault(Fault::Wrong), options());
    let other = async {
        while !nx
            .tree()
            .await
            .unwrap()
            .children
            .iter()
            .any(|child| child.children.iter().any(|c| &*c.id == "counter@2"))
        {
            tokio::task::yield_now().await;
        }
        nx.swap_with::<Counter>("counter", counter::Config::default(), options()).await
    };
    let (late, other) = tokio::join!(late, other);
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Busy);
    let late = late.unwrap_err();
    assert_eq!((late.kind(), late.executed()), (ErrorKind::TimedOut, Executed::No), "{late}");
    assert!(late.to_string().contains("1 calls were still inside"), "{late}");
    drop(inside);
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_swap_whose_caller_goes_away_leaves_the_old_version_serving() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    {
        let options = SwapOptions::new().shadow(1_000_000);
        let swap = nx.swap_with::<Counter2>("counter", counter::Config::default(), options);
        let mut swap = std::pin::pin!(swap);
        while nx.services().unwrap()[0].trial_agreed.is_none() {
            assert!(futures_util::poll!(swap.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    loop {
        let status = nx.services().unwrap().remove(0);
        if status.failed_swaps == 1 {
            assert_eq!((status.serving.unwrap().number, status.trial_agreed), (1, None));
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
    nx.swap::<Counter2>("counter", counter::Config::default()).await.unwrap();
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_registry_can_be_killed_at_any_moment_of_a_swap() {
    let nx = nexus::connect(Config::in_memory().restarts(1_000, Duration::from_secs(1))).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap();
    let mut calls = 0;
    for round in 0..40_u32 {
        let options = SwapOptions::new().probation(Duration::ZERO);
        let swap = nx.swap_with::<Counter2>("counter", counter::Config::exclusive(), options);
        let killing = async {
            // Another moment in each round.
            for _ in 0..round * 5 {
                tokio::task::yield_now().await;
            }
            nx.kill("nexus/registry/services", Kill::Panic).await.unwrap();
        };
        let (swapped, ()) = tokio::join!(swap, killing);
        if let Err(error) = swapped {
            assert!(matches!(error.kind(), ErrorKind::Crashed | ErrorKind::Busy), "{error}");
        }
        calls += 1;
        assert_eq!(
            counter.call(Next, SOON).await.unwrap(),
            calls,
            "round {round}: it serves, with its state"
        );
    }
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_begun_by_a_version_that_crashes_says_so() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    let (broke, next) = tokio::join!(counter.call(Break, SOON), counter.call(Next, SOON));
    let broke = broke.unwrap_err();
    assert_eq!((broke.kind(), broke.executed()), (ErrorKind::Crashed, Executed::Unknown));
    assert_eq!(next.unwrap(), 1, "what waited behind it is served after the restart");
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_call_of_a_service_that_is_swapped_before_it_is_started_is_answered() {
    for round in 0..60_u32 {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let on_demand = counter::Config { on_demand: true, ..Default::default() };
        let counter = nx.register::<Counter>("counter", on_demand).await.unwrap();
        let swap = nx.swap::<Counter2>("counter", on_demand);
        let call = async {
            // Another moment in each round.
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            counter.call(Next, SOON).await
        };
        let (swapped, called) = tokio::join!(swap, call);
        swapped.unwrap();
        assert_eq!(called.unwrap_or_else(|error| panic!("round {round}: {error}")), 1);
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_swap_by_syscall_makes_nobody_wait_for_it_and_is_told_what_it_did() {
    let nx = nexus::connect(Config::in_memory().service::<Counter2>()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    let path = nexus::VPath::parse("/__sys__/services/counter").unwrap();
    let call = |options| {
        let mut call = nexus::SysSetattr::at(&path);
        call.service = Some(nexus::syscall::ServiceSpec::new("counter-2", "").swap(options));
        call
    };
    let trial = nx.send(call(SwapOptions::new().shadow(5)));
    let meanwhile = async {
        while nx.services().unwrap()[0].trial_agreed.is_none() {
            tokio::task::yield_now().await;
        }
        // It would wait for the lock of the path until others are let go of.
        let other = tokio::time::timeout(SOON, nx.send(call(SwapOptions::new()))).await;
        let other = other.expect("it waits for nothing").unwrap_err();
        assert_eq!((other.kind(), other.executed()), (ErrorKind::Busy, Executed::No), "{other}");
        let removed = tokio::time::timeout(SOON, nx.unregister("counter")).await;
        assert_eq!(removed.expect("it waits for nothing").unwrap_err().kind(), ErrorKind::Busy);
        for _ in 0..5 {
            counter.call(Next, SOON).await.unwrap();
        }
    };
    let (done, ()) = tokio::join!(trial, meanwhile);
    let report = done.unwrap().service_swapped.expect("it swapped");
    assert_eq!((report.from.number, &*report.to.version, report.agreed), (1, "2.0.0", Some(5)));
    let last = nx.services().unwrap().remove(0).last_swap.expect("it is the only one");
    assert_eq!(last, *report);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_swap_passes_the_gate_and_the_hooks_and_is_counted() {
    use nexus::dispatch::{Interceptor, OpSet, Registration};

    struct No;
    impl Interceptor for No {
        fn ops(&self) -> OpSet {
            OpSet::from(nexus::Op::Setattr)
        }

        fn before<'a>(
            &'a self,
            cx: &'a mut nexus::HookContext,
        ) -> futures_util::future::BoxFuture<'a, nexus::Verdict> {
            let is_swap = cx.call.path().as_str() == "/__sys__/services/counter";
            let verdict = if is_swap { nexus::Verdict::refuse("not now") } else { nexus::Verdict::Continue };
            Box::pin(std::future::ready(verdict))
        }
    }

    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    let hook = nx.register_hook(Registration::interceptor("no", Arc::new(No))).await.unwrap();
    let refused = nx.swap::<Counter2>("counter", counter::Config::default()).await.unwrap_err();
    assert!(refused.to_string().contains("not now"), "{refused}");
    assert_eq!(nx.services().unwrap()[0].serving.as_ref().unwrap().number, 1);
    nx.unregister_hook(hook).await.unwrap();
    let calls = async || {
        let shown = nx.read("/__sys__/syscalls/setattr").await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&shown).unwrap()
    };
    let before = calls().await;
    nx.swap::<Counter2>("counter", counter::Config::default()).await.unwrap();
    assert_ne!(calls().await, before, "it is counted as what it is");
    counter.call(Next, SOON).await.unwrap();
    nx.shutdown().await.unwrap();
}
