//! Registering, removing, and what is remembered.

use std::time::Duration;

use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, Reply, Start};
use nexus::service::{Declaration, Service, Setup};
use nexus::{Config, ErrorKind, Executed, ExitReason, ServiceState, SysSetattr, VPath};

use crate::counter::{self, Break, Counter, Counter2, Fault, Next, SOON, Sum};

fn state(nx: &nexus::Nexus, name: &str) -> Option<ServiceState> {
    let services = nx.services().expect("it is the administrator's handle");
    services.into_iter().find(|service| &*service.name == name).map(|service| service.state)
}

#[tokio::test]
async fn a_service_is_registered_called_and_removed() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
    assert_eq!(counter.with(|sum| *sum).unwrap(), 1, "a direct call");
    assert_eq!(*counter.lease().await.unwrap(), 1);
    assert_eq!(nx.service::<Counter>("counter").unwrap().call(Next, SOON).await.unwrap(), 2);
    assert_eq!(state(&nx, "counter"), Some(ServiceState::Serving));

    nx.unregister("counter").await.unwrap();
    let gone = counter.call(Next, SOON).await.unwrap_err();
    assert_eq!((gone.kind(), gone.executed()), (ErrorKind::NotFound, Executed::No));
    assert_eq!(state(&nx, "counter"), None);

    nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1, "the handle is valid again");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn registering_the_same_again_is_no_matter_and_another_is_refused() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let config = counter::Config::default();
    let counter = nx.register::<Counter>("counter", config).await.unwrap();
    counter.call(Next, SOON).await.unwrap();
    nx.register::<Counter>("counter", config).await.unwrap();
    assert_eq!(counter.call(Sum, SOON).await.unwrap(), 1, "it was not started anew");

    let other = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::AlreadyExists);
    let other = nx.register::<Counter2>("counter", config).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::AlreadyExists);
    assert!(other.to_string().contains("/__sys__/services/counter"), "{other}");
    assert_eq!(counter.call(Sum, SOON).await.unwrap(), 1, "nothing changed");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_does_not_start_is_not_registered() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let check = async |fault, kind, says: &str| {
        let error = nx.register::<Counter>("counter", counter::Config::fault(fault)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(state(&nx, "counter"), None);
        let children = nx
            .tree()
            .await
            .unwrap()
            .children
            .into_iter()
            .find(|child| &*child.id == "services")
            .unwrap()
            .children;
        assert!(children.is_empty(), "nothing is left running: {children:?}");
    };
    check(Fault::Start, ErrorKind::InvalidArgument, "its start: error: it does not like it here").await;
    check(Fault::StartPanics, ErrorKind::Crashed, "it breaks in its start").await;
    check(Fault::Probe, ErrorKind::InvalidArgument, "its probe: error: it is not fit").await;
    check(Fault::ProbePanics, ErrorKind::Crashed, "it breaks in its probe").await;
    check(Fault::Declared, ErrorKind::InvalidArgument, "what it declares makes no sense").await;
    nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn managing_services_needs_the_administrators_handle() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    let agent = nx.agent("coder-7").unwrap();
    let denied = |error: nexus::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    denied(agent.register::<Counter>("other", counter::Config::default()).await.map(drop).unwrap_err());
    denied(agent.swap::<Counter>("counter", counter::Config::default()).await.map(drop).unwrap_err());
    denied(agent.unregister("counter").await.map(drop).unwrap_err());
    denied(agent.service::<Counter>("counter").map(drop).unwrap_err());
    let path = VPath::parse("/__sys__/services/counter").unwrap();
    denied(agent.send(SysSetattr::service(&path, "counter", "")).await.map(drop).unwrap_err());
    for name in ["nexus", "service:counter"] {
        assert_eq!(
            nx.agent(name).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{name} can be nobody's name"
        );
    }
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_service_is_managed_as_a_file() {
    let nx = nexus::connect(Config::in_memory().service::<Counter>()).await.unwrap();
    let path = VPath::parse("/__sys__/services/sums").unwrap();
    let made = nx.send(SysSetattr::service(&path, "counter", "")).await.unwrap();
    assert!(made.created && made.receipt.lsn.0 > 0);
    let again = nx.send(SysSetattr::service(&path, "counter", "  {} ")).await.unwrap();
    assert!(!again.created);
    assert_eq!(nx.service::<Counter>("sums").unwrap().call(Next, SOON).await.unwrap(), 1);
    let shown: serde_json::Value = serde_json::from_slice(&nx.read(&path).await.unwrap()).unwrap();
    assert_eq!((&shown["state"], &shown["serving"]["version"]), (&"serving".into(), &"1.0.0".into()));

    let unknown = nx.send(SysSetattr::service(&path, "count", "")).await.unwrap_err();
    assert!(unknown.to_string().contains("there is no factory \"count\", but counter"), "{unknown}");
    let odd = nx.send(SysSetattr::service(&path, "counter", "[7")).await.unwrap_err();
    assert!(odd.to_string().contains("its configuration"), "{odd}");
    let elsewhere = VPath::parse("/sums").unwrap();
    let elsewhere = nx.send(SysSetattr::service(elsewhere, "counter", "")).await.unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::InvalidArgument);

    nx.unlink(&path).await.unwrap();
    assert!(!nx.exists(&path).await.unwrap());
    nx.shutdown().await.unwrap();
}

/// Needs a counter.
struct Reader;

impl Behaviour for Reader {
    type Args = Setup<Self>;
    const NAME: &'static str = "reader";

    fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            // What it needs serves before it is started.
            let counter = setup.service::<Counter>("counter").map_err(ExitReason::error)?;
            counter.call(Sum, SOON).await.map_err(ExitReason::error)?;
            Ok(Reader)
        })
    }
}

impl Service for Reader {
    const VERSION: &'static str = "1.0.0";
    type Config = Vec<String>;
    type View = ();

    fn declare(needs: &Vec<String>) -> Declaration<Self> {
        let declared = Declaration::new().needs_export::<Sum>("counter").exports::<Sum>();
        needs.iter().fold(declared, |declared, need| declared.needs(need.as_str()))
    }
}

impl Handle<Sum> for Reader {
    fn handle(&mut self, _: Sum, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        Reply::Now(0)
    }
}

/// Takes its time to start, and uses a service that is started at its first call.
struct Late;

impl Behaviour for Late {
    type Args = Setup<Self>;
    const NAME: &'static str = "late";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            start.env().sleep(WATCHDOG * 5).await;
            let counter = setup.service::<Counter>("counter").map_err(ExitReason::error)?;
            counter.call(Next, SOON).await.map_err(ExitReason::error)?;
            Ok(Late)
        })
    }
}

impl Service for Late {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = ();

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new().needs_export::<Next>("counter")
    }
}

/// How long one message may hold an actor of the kernel in which it starts.
const WATCHDOG: Duration = Duration::from_millis(100);

#[tokio::test]
async fn at_boot_a_service_may_take_longer_than_a_message_may_hold_the_registry_and_need_one_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config::new(folder.path()).watchdog(WATCHDOG).service::<Counter>().service::<Late>();
    let nx = nexus::connect(config()).await.unwrap();
    let on_demand = counter::Config { on_demand: true, ..counter::Config::default() };
    nx.register::<Counter>("counter", on_demand).await.unwrap();
    nx.register::<Late>("late", ()).await.unwrap();
    nx.shutdown().await.unwrap();

    let nx = nexus::connect(config()).await.unwrap();
    assert_eq!(state(&nx, "late"), Some(ServiceState::Serving));
    assert_eq!(nx.service::<Counter>("counter").unwrap().call(Sum, SOON).await.unwrap(), 1);
    nx.shutdown().await.unwrap();
}

/// A counter that gives no sums.
struct Mute;

impl Behaviour for Mute {
    type Args = Setup<Self>;
    const NAME: &'static str = "mute";

    fn init(_: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async { Ok(Mute) })
    }
}

impl Service for Mute {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = ();

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new().exports::<Next>()
    }
}

impl Handle<Next> for Mute {
    fn handle(&mut self, _: Next, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        Reply::Now(0)
    }
}

#[tokio::test]
async fn needs_are_kept() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let missing = nx.register::<Reader>("reader", vec![]).await.unwrap_err();
    assert!(missing.to_string().contains("it needs the service \"counter\""), "{missing}");
    nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    nx.register::<Reader>("reader", vec![]).await.unwrap();

    let needed = nx.unregister("counter").await.unwrap_err();
    assert_eq!(needed.kind(), ErrorKind::Busy);
    assert!(needed.to_string().contains("\"reader\" needs it"), "{needed}");
    let dropped = nx.swap::<Mute>("counter", ()).await.unwrap_err();
    assert!(
        dropped.to_string().contains("no longer answer counter.sum, which the service \"reader\" needs"),
        "{dropped}"
    );
    let circle = nx.swap::<Reader>("counter", vec!["reader".into()]).await.unwrap_err();
    assert_eq!(circle.kind(), ErrorKind::InvalidArgument, "{circle}");
    assert_eq!(nx.service::<Counter>("counter").unwrap().call(Next, SOON).await.unwrap(), 1, "it serves on");

    nx.unregister("reader").await.unwrap();
    nx.unregister("counter").await.unwrap();
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn services_come_back_at_boot_after_what_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let nx = nexus::connect(folder.path()).await.unwrap();
    nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    nx.register::<Reader>("a-reader", vec![]).await.unwrap();
    nx.register::<Counter2>("last", counter::Config::default()).await.unwrap();
    nx.unregister("last").await.unwrap();
    nx.shutdown().await.unwrap();

    let config = Config::new(folder.path()).service::<Counter>().service::<Reader>();
    let nx = nexus::connect(config).await.unwrap();
    let serving: Vec<_> =
        nx.services().unwrap().into_iter().map(|service| (service.name.to_string(), service.state)).collect();
    let serving_now = |name: &str| (name.to_owned(), ServiceState::Serving);
    assert_eq!(serving, [serving_now("a-reader"), serving_now("counter")]);
    nx.shutdown().await.unwrap();

    // A process that does not know the types is refused, when it is to have all of them.
    let all = Config::new(folder.path()).services_must_start(true);
    let refused = nexus::connect(all).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Down);
    assert!(refused.to_string().contains("a-reader cannot be started: there is no factory"), "{refused}");

    // Else they are listed with the cause, and taken up when they are registered.
    let nx = nexus::connect(folder.path()).await.unwrap();
    let failed = state(&nx, "counter").unwrap();
    assert!(
        matches!(&failed, ServiceState::Failed { cause } if cause.contains("there is no factory")),
        "{failed:?}"
    );
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    assert_eq!(counter.call(Next, SOON).await.unwrap(), 1);
    nx.register::<Reader>("a-reader", vec![]).await.unwrap();
    assert_eq!(state(&nx, "a-reader"), Some(ServiceState::Serving));
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_service_on_demand_is_started_by_its_first_call() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let config = counter::Config { on_demand: true, ..Default::default() };
    let counter = nx.register::<Counter>("counter", config).await.unwrap();
    assert_eq!(state(&nx, "counter"), Some(ServiceState::Dormant));
    let calls = (0..20).map(|_| counter.call(Next, SOON));
    let mut sums: Vec<u64> =
        futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=20).collect::<Vec<_>>(), "started once, and nothing was lost meanwhile");
    assert_eq!(state(&nx, "counter"), Some(ServiceState::Serving));
    nx.shutdown().await.unwrap();
}

/// What lets a [`Reborn`] start again.
static REBIRTH: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);

/// A service that starts at once, and again when it is let.
struct Reborn;

impl Behaviour for Reborn {
    type Args = Setup<Self>;
    const NAME: &'static str = "reborn";

    fn init(_: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            if start.generation() > 1 {
                let _ = REBIRTH.acquire().await;
            }
            Ok(Self)
        })
    }
}

impl Service for Reborn {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = ();

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new().exports::<Break>()
    }
}

impl Handle<Break> for Reborn {
    fn handle(&mut self, _: Break, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        panic!("it was told to break")
    }
}

#[tokio::test]
async fn a_service_whose_actor_is_down_is_not_said_to_serve() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let reborn = nx.register::<Reborn>("reborn", ()).await.unwrap();
    assert_eq!(state(&nx, "reborn"), Some(ServiceState::Serving));
    reborn.call(Break, SOON).await.unwrap_err();
    let is = async |wanted: fn(&ServiceState) -> bool| {
        let until = async {
            while !state(&nx, "reborn").is_some_and(|state| wanted(&state)) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, until).await.expect("it is shown");
    };
    is(|state| matches!(state, ServiceState::Restarting { cause } if cause.contains("told to break"))).await;
    let shown = nx.read("/__sys__/services/reborn").await.unwrap();
    assert!(String::from_utf8_lossy(&shown).contains(r#""restarting""#), "{shown:?}");
    REBIRTH.add_permits(1);
    is(|state| *state == ServiceState::Serving).await;
    nx.shutdown().await.unwrap();
}
