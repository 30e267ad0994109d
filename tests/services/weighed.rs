//! A hook that weighs what calls do, and fails open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus::actors::{Behaviour, LocalBoxFuture, Start};
use nexus::dispatch::OpSet;
use nexus::service::{Declaration, OnLate, Service, ServiceHook, Setup};
use nexus::{Config, Effect, ExitReason, HookContext, Outcome, SysTx, SysWrite, VPath, Verdict};

/// What its hook reserved, and what of that it heard the end of.
#[derive(Default)]
struct View {
    weighed: AtomicU64,
    settled: AtomicU64,
}

/// Weighs each change, and panics over `/breaks`.
struct Weighs;

impl Behaviour for Weighs {
    type Args = Setup<Self>;
    const NAME: &'static str = "weighs";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            if setup.view().get().is_none() {
                setup.publish(start.generation(), View::default()).map_err(ExitReason::error)?;
            }
            Ok(Self)
        })
    }
}

impl Service for Weighs {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = View;

    fn declare((): &()) -> Declaration<Self> {
        let decide = |_: &View, cx: &mut HookContext| {
            assert!(cx.call.path() != "/breaks", "a hook that breaks");
            Verdict::Continue
        };
        let weigh = |view: &View, _: &HookContext, _: Option<&Effect>, _: &Effect| {
            view.weighed.fetch_add(1, Ordering::Relaxed);
            Verdict::Continue
        };
        let hear = |view: &View, _: &HookContext, outcome: &Outcome| {
            view.settled.fetch_add(u64::from(outcome.weighed.is_some()), Ordering::Relaxed);
        };
        let hook = ServiceHook::weighing("weighs", OpSet::MUTATIONS, decide, weigh, hear);
        Declaration::new().hook(hook.fails(OnLate::Pass))
    }
}

/// Less than a version that is to end waits for the calls that are inside.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_write_that_waits_for_room_in_a_pipe_does_not_hold_up_the_end_of_a_service_that_weighs() {
    let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
    nx.register::<Weighs>("weighs", ()).await.expect("it starts");
    nx.make_pipe("/p", 1).await.expect("it is made");
    nx.write("/p", "x").await.expect("there is room");
    let at = VPath::parse("/p").expect("it is a path");
    let mut waits = Box::pin(nx.send(SysWrite::at(at, "y").wait(2 * SOON)));
    assert!(futures_util::poll!(waits.as_mut()).is_pending());
    tokio::time::timeout(SOON, nx.unregister("weighs")).await.expect("in time").expect("it ends");
    assert_eq!(nx.read("/p").await.expect("it is there"), "x");
    waits.await.expect("there is room by now");
    nx.shutdown().await.expect("it stops");
}

#[tokio::test]
async fn what_a_hook_that_fails_open_weighs_it_hears_the_end_of() {
    let config = Config::in_memory().restarts(1_000, Duration::from_secs(1));
    let nx = nexus::connect(config).await.expect("it boots");
    let service = nx.register::<Weighs>("weighs", ()).await.expect("it starts");
    let counted = || {
        let count =
            |view: &View| (view.weighed.load(Ordering::Relaxed), view.settled.load(Ordering::Relaxed));
        service.with(count).expect("it serves")
    };
    nx.write("/breaks", "x").await.expect("it goes on without the hook");
    assert_eq!(counted(), (0, 0));
    let write = |at: &str| SysWrite::at(at.parse::<VPath>().expect("it is a path"), "y").create();
    nx.send(SysTx::new().with(write("/breaks")).with(write("/fine"))).await.expect("it goes on");
    assert_eq!(counted(), (1, 1), "the hook let the second one pass");
    nx.send(SysTx::new().with(write("/fine")).with(write("/breaks"))).await.expect("it goes on");
    assert_eq!(counted(), (2, 2), "the hook let the first one pass");
    nx.shutdown().await.expect("it stops");
}
