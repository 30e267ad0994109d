//! A service that is a subtree: what is beside it starts after it, ends before it, and can bring the version before back.

use std::time::Duration;

use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, MailboxBounds, Message, Ref, Reply, Start};
use nexus::service::{Declaration, Service, Setup};
use nexus::supervisors::{ChildSpec, Strategy};
use nexus::{Config, ExitReason, Kill, Nexus, SwapOptions};
use parking_lot::Mutex;

use crate::counter::SOON;

/// Which version answers.
struct Who;

impl Message for Who {
    type Reply = u64;
    const NAME: &'static str = "flock.who";
}

/// What began and ended, in its order.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn see(number: u64, name: &str, what: &str) {
    SEEN.lock().push(format!("{number} {name} {what}"));
}

/// What was seen since it was looked at last.
fn seen() -> Vec<String> {
    std::mem::take(&mut SEEN.lock())
}

struct Flock(Setup<Self>);

impl Behaviour for Flock {
    type Args = Setup<Self>;
    const NAME: &'static str = "flock";

    fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        see(setup.number(), "main", "begins");
        Box::pin(async move { Ok(Self(setup)) })
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        see(self.0.number(), "main", "ends");
        Box::pin(async {})
    }
}

/// One beside it.
struct Helper(u64, &'static str);

impl Behaviour for Helper {
    type Args = (u64, &'static str);
    const NAME: &'static str = "helper";

    fn init((number, name): Self::Args, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        see(number, name, "begins");
        Box::pin(async move { Ok(Self(number, name)) })
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        see(self.0, self.1, "ends");
        Box::pin(async {})
    }
}

impl Service for Flock {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = ();

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new()
            .exports::<Who>()
            .restarts(1, Duration::from_secs(600))
            .probation(Duration::from_secs(600))
            .beside(Strategy::OneForOne, |setup, env| {
                let helper = |name: &'static str| {
                    let actor = Ref::<Helper>::new(env, name, MailboxBounds::default());
                    ChildSpec::new(name, actor, (setup.number(), name))
                };
                vec![helper("first"), helper("second")]
            })
    }
}

impl Handle<Who> for Flock {
    fn handle(&mut self, _: Who, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        Reply::Now(self.0.number())
    }
}

async fn until(what: &str, come: impl Fn() -> bool) {
    let waiting = async {
        while !come() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("never {what}: {SEEN:?}"));
}

async fn break_helper(nx: &Nexus) {
    let killed = nx.kill("nexus/services/flock@3/second", Kill::Panic).await;
    assert!(killed.expect("it is there"));
}

// One test, since what is seen is one list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subtree_starts_and_ends_in_order_and_one_whose_helper_keeps_breaking_is_swapped_back() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let flock = nx.register::<Flock>("flock", ()).await.unwrap();
    assert_eq!(seen(), ["1 main begins", "1 first begins", "1 second begins"]);

    nx.swap_with::<Flock>("flock", (), SwapOptions::new().probation(Duration::ZERO)).await.unwrap();
    until("the first one ends", || SEEN.lock().len() == 6).await;
    let (begun, ended) = (
        ["2 main begins", "2 first begins", "2 second begins"],
        ["1 second ends", "1 first ends", "1 main ends"],
    );
    assert_eq!(seen(), [begun, ended].concat());
    assert_eq!(flock.call(Who, SOON).await.unwrap(), 2);

    nx.swap::<Flock>("flock", ()).await.unwrap();
    assert_eq!(seen(), ["3 main begins", "3 first begins", "3 second begins"]);
    let swap_backs = || nx.services().unwrap()[0].swap_backs;
    break_helper(&nx).await;
    until("the helper is restarted", || SEEN.lock().len() == 1).await;
    assert_eq!((seen(), swap_backs()), (vec!["3 second begins".into()], 0), "that much is allowed");
    assert_eq!(flock.call(Who, SOON).await.unwrap(), 3);

    break_helper(&nx).await;
    until("it is swapped back", || swap_backs() == 1).await;
    assert_eq!(flock.call(Who, SOON).await.unwrap(), 2);
    let status = nx.services().unwrap().remove(0);
    assert_eq!(status.serving.unwrap().number, 2);
    assert!(status.last_failure.unwrap().contains("on probation"), "it is said why");
    nx.shutdown().await.unwrap();
    let seen: Vec<_> = seen().into_iter().filter(|seen| seen.starts_with('2')).collect();
    assert_eq!(seen, ["2 second ends", "2 first ends", "2 main ends"]);
}
