//! A version on trial in shadow: it is given copies of real calls, and its answers reach nobody.

use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus::service::{Declaration, Service, Setup};
use nexus::{Config, ErrorKind, ExitReason, SwapMode, SwapOptions};
use tokio::sync::Semaphore;

use crate::counter::{self, Counter, Counter2, Fault, Next, SOON};
use crate::policy::{Policy, Rule};

#[tokio::test]
async fn a_version_that_agrees_is_promoted() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap();
    for sum in 1..=5 {
        assert_eq!(counter.call(Next, SOON).await.unwrap(), sum);
    }
    let options = SwapOptions::new().shadow(20);
    let swap = nx.swap_with::<Counter2>("counter", counter::Config::exclusive(), options);
    let calls = async {
        for sum in 6.. {
            if nx.services().unwrap()[0].swaps == 1 {
                return sum;
            }
            assert_eq!(counter.call(Next, SOON).await.unwrap(), sum, "callers are answered by the old one");
        }
        unreachable!("the loop has no end")
    };
    let (report, sum) = tokio::join!(swap, calls);
    let report = report.unwrap();
    assert!(report.agreed.is_some_and(|agreed| agreed >= 20), "{report:?}");
    assert_eq!(report.to.version, "2.0.0");
    assert_eq!(counter.call(Next, SOON).await.unwrap(), sum, "with the state of the old one at the end");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_waited_for_the_copy_of_a_trial_is_in_the_report_of_an_overlapping_swap_too() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    // The state cannot be copied while somebody is inside.
    let inside = counter.lease().await.unwrap();
    let swap = nx.swap_with::<Counter2>("counter", counter::Config::default(), SwapOptions::new().shadow(2));
    let calls = async {
        while counter.with(|_| ()).is_ok() {
            tokio::task::yield_now().await;
        }
        let mut waits = std::pin::pin!(counter.call(Next, SOON));
        assert!(futures_util::poll!(waits.as_mut()).is_pending(), "the gate is shut");
        drop(inside);
        assert_eq!(waits.await.unwrap(), 1);
        while nx.services().unwrap()[0].swaps == 0 {
            counter.call(Next, SOON).await.unwrap();
        }
    };
    let (report, ()) = tokio::join!(swap, calls);
    let report = report.unwrap();
    assert_eq!((report.mode, report.waited), (SwapMode::Overlap, 1), "{report:?}");
    assert!(!report.pause.is_zero(), "{report:?}");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_version_that_answers_otherwise_never_serves() {
    for (fault, says) in
        [(Fault::Wrong, "its answer to counter.next was another"), (Fault::Serving, "it ended: panicked")]
    {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
        let options = SwapOptions::new().shadow(10);
        let swap = nx.swap_with::<Counter2>("counter", counter::Config::fault(fault), options);
        let calls = async {
            for sum in 1.. {
                if nx.services().unwrap()[0].failed_swaps == 1 {
                    return;
                }
                assert_eq!(counter.call(Next, SOON).await.unwrap(), sum, "its answers reach nobody");
            }
        };
        let (refused, ()) = tokio::join!(swap, calls);
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PreconditionFailed, "{refused}");
        let told = refused.to_string();
        assert!(told.contains(says) || told.contains("gave no answer"), "{told}");
        let status = nx.services().unwrap().remove(0);
        assert_eq!((status.serving.unwrap().number, status.swaps), (1, 0));
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_policy_that_allows_more_is_found_on_trial() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    nx.register::<Policy>("policy", Rule::Forbid).await.unwrap();
    for (rule, promoted) in [(Rule::AllowAll, false), (Rule::Panics, false), (Rule::Forbid, true)] {
        let options = SwapOptions::new().shadow(10);
        let swap = nx.swap_with::<Policy>("policy", rule, options);
        let mut swap = std::pin::pin!(swap);
        let swapped = loop {
            nx.write("/a", "x").await.expect("it is allowed");
            nx.write("/forbidden/a", "x").await.expect_err("it is forbidden");
            if let std::task::Poll::Ready(swapped) = futures_util::poll!(swap.as_mut()) {
                break swapped;
            }
        };
        assert_eq!(swapped.is_ok(), promoted, "{rule:?}: {swapped:?}");
    }
    nx.shutdown().await.unwrap();
}

/// Answers at once.
#[derive(Debug, Clone)]
struct Ask;

/// Answers when it is let go.
#[derive(Debug, Clone)]
struct Held;

/// Asks the service itself.
#[derive(Debug, Clone)]
struct AskItself;

macro_rules! messages {
    ($($message:ident, $name:literal;)*) => {$(
        impl Message for $message {
            type Reply = bool;
            const NAME: &'static str = $name;
        }
    )*};
}

messages! { Ask, "slow.ask"; Held, "slow.held"; AskItself, "slow.ask_itself"; }

/// What lets [`Held`] go, in each version once.
static GO: Semaphore = Semaphore::const_new(0);

/// A service that takes its time. Its configuration says whether its answers can be compared.
struct Slow(Setup<Self>);

impl Behaviour for Slow {
    type Args = Setup<Self>;
    const NAME: &'static str = "slow";

    fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Self(setup)) })
    }
}

impl Service for Slow {
    const VERSION: &'static str = "1.0.0";
    type Config = bool;
    type View = ();

    fn declare(compared: &bool) -> Declaration<Self> {
        if *compared {
            Declaration::new()
                .exports_compared::<Ask>()
                .exports_compared::<Held>()
                .exports_compared::<AskItself>()
        } else {
            Declaration::new().exports::<Ask>()
        }
    }
}

impl Handle<Ask> for Slow {
    fn handle(&mut self, _: Ask, _: &mut Cx<'_, Self>) -> Reply<Self, bool> {
        Reply::Now(true)
    }
}

impl Handle<Held> for Slow {
    fn handle(&mut self, _: Held, _: &mut Cx<'_, Self>) -> Reply<Self, bool> {
        Reply::later(async {
            GO.acquire().await.is_ok_and(|go| {
                go.forget();
                true
            })
        })
    }
}

impl Handle<AskItself> for Slow {
    fn handle(&mut self, _: AskItself, _: &mut Cx<'_, Self>) -> Reply<Self, bool> {
        let itself = self.0.service::<Self>(self.0.name());
        Reply::later(async move { matches!(itself, Ok(itself) if itself.call(Ask, SOON).await.is_ok()) })
    }
}

/// Waits for the beginning of a trial.
async fn on_trial(nx: &nexus::Nexus) {
    let begun = async {
        while nx.services().expect("it is the administrator's handle")[0].trial_agreed.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, begun).await.expect("the trial begins");
}

#[tokio::test]
async fn no_call_is_late_because_another_one_has_the_turn_to_be_copied() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let slow = nx.register::<Slow>("slow", true).await.unwrap();
    let swap = nx.swap_with::<Slow>("slow", true, SwapOptions::new().shadow(2));
    let calls = async {
        on_trial(&nx).await;
        let mut held = std::pin::pin!(slow.call(Held, SOON));
        assert!(futures_util::poll!(held.as_mut()).is_pending(), "it has the turn, and is not answered");
        let asked = tokio::time::timeout(SOON, slow.call(Ask, SOON)).await;
        assert!(asked.expect("it waits for no turn").expect("within its deadline"));
        GO.add_permits(2);
        assert!(held.await.unwrap());
        assert!(slow.call(Ask, SOON).await.unwrap());
    };
    let (report, ()) = tokio::join!(swap, calls);
    assert_eq!(report.unwrap().agreed, Some(2), "the one that had no turn was not copied");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_version_asks_itself_is_not_copied() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let slow = nx.register::<Slow>("slow", true).await.unwrap();
    let swap = nx.swap_with::<Slow>("slow", true, SwapOptions::new().shadow(2));
    let calls = async {
        on_trial(&nx).await;
        for _ in 0..2 {
            let asked = tokio::time::timeout(SOON / 2, slow.call(AskItself, SOON)).await;
            assert!(asked.expect("it waits for no turn of its own").unwrap());
        }
    };
    let (report, ()) = tokio::join!(swap, calls);
    assert_eq!(report.unwrap().agreed, Some(2));
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_trial_with_nothing_to_compare_is_refused_at_once() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    nx.register::<Slow>("slow", false).await.unwrap();
    let swap = nx.swap_with::<Slow>("slow", false, SwapOptions::new().shadow(1));
    let refused = tokio::time::timeout(SOON, swap).await.expect("it waits for no call").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("nothing to try"), "{refused}");
    nx.swap::<Slow>("slow", false).await.expect("without a trial it is swapped");
    nx.shutdown().await.unwrap();
}

/// Asks another service, tells it, and writes.
#[derive(Debug, Clone)]
struct Act;

messages! { Act, "actor.act"; }

/// What was answered to a version on trial that wanted to change something.
static REFUSED: parking_lot::Mutex<Vec<ErrorKind>> = parking_lot::Mutex::new(Vec::new());

struct Actor(Setup<Self>);

impl Behaviour for Actor {
    type Args = Setup<Self>;
    const NAME: &'static str = "actor";

    fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Self(setup)) })
    }
}

impl Service for Actor {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = ();

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new().needs("counter").exports_compared::<Act>()
    }
}

impl Handle<Act> for Actor {
    fn handle(&mut self, _: Act, _: &mut Cx<'_, Self>) -> Reply<Self, bool> {
        let setup = self.0.clone();
        Reply::later(async move {
            let counter = setup.service::<Counter>("counter").expect("the kernel runs");
            let write = nexus::SysWrite::at("/acted".parse::<nexus::VPath>().expect("a path"), "x").create();
            let done = [
                counter.call(Next, SOON).await.map(drop),
                counter.tell(Next).await,
                setup.calls().send(write).await.map(drop),
            ];
            let refused = done.iter().filter_map(|done| done.as_ref().err().map(nexus::Error::kind));
            REFUSED.lock().extend(refused);
            true
        })
    }
}

#[tokio::test]
async fn a_version_on_trial_changes_nothing_by_itself_nor_by_other_services() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    let actor = nx.register::<Actor>("actor", ()).await.unwrap();
    let swap = nx.swap_with::<Actor>("actor", (), SwapOptions::new().shadow(3));
    let calls = async {
        let begun = async {
            while nx.services().unwrap().iter().all(|service| service.trial_agreed.is_none()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, begun).await.expect("the trial begins");
        for _ in 0..3 {
            assert!(actor.call(Act, SOON).await.unwrap());
        }
    };
    let (swapped, ()) = tokio::join!(swap, calls);
    assert_eq!(swapped.unwrap().agreed, Some(3));
    assert_eq!(*REFUSED.lock(), [ErrorKind::ReadOnly; 9], "of three copies each was refused three times");
    assert_eq!(counter.call(counter::Sum, SOON).await.unwrap(), 6, "of three calls each counted twice");
    assert_eq!(nx.stat("/acted").await.unwrap().version, 3, "of three calls each wrote once");
    nx.shutdown().await.unwrap();
}
