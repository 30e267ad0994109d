//! Removing a service while the registry dies, and stopping services in the order of their needs.

use std::time::Duration;

use nexus::actors::{Behaviour, LocalBoxFuture, Start};
use nexus::service::{Declaration, Service, Setup};
use nexus::{Config, ErrorKind, ExitReason, Kill, Nexus};
use parking_lot::Mutex;

use crate::counter::{self, Counter, SOON, Sum};

async fn booted() -> Nexus {
    nexus::connect(Config::in_memory().restarts(1_000, Duration::from_secs(1))).await.expect("it boots")
}

/// Whether a service called `counter` is listed, and whether an actor of it runs.
async fn is_there(nx: &Nexus) -> (bool, bool) {
    let listed = nx.services().expect("it is the administrator's handle");
    let tree = nx.tree().await.expect("it is the administrator's handle");
    let services = tree.children.into_iter().find(|child| &*child.id == "services");
    let runs = services.is_some_and(|all| all.children.iter().any(|child| child.id.starts_with("counter@")));
    (listed.iter().any(|service| &*service.name == "counter"), runs)
}

/// Waits until the service is there as a whole, or gone as a whole; says which.
async fn settled(nx: &Nexus) -> bool {
    let counter = nx.service::<Counter>("counter").expect("it is the administrator's handle");
    let looking = async {
        loop {
            let answers = counter.call(Sum, SOON).await.is_ok();
            if is_there(nx).await == (answers, answers) {
                return answers;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(SOON, looking).await {
        Ok(answers) => answers,
        Err(_) => {
            let (listed, runs) = is_there(nx).await;
            let status = nx.services();
            panic!("it is neither there nor gone as a whole: listed {listed}, runs {runs}: {status:?}")
        }
    }
}

#[tokio::test]
async fn a_registry_that_dies_in_the_middle_of_a_removal_leaves_nothing_of_the_service() {
    let nx = booted().await;
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    let inside = counter.lease().await.unwrap();
    let removing = nx.unregister("counter");
    let killing = async {
        // It is forgotten and nobody finds it any more, and it is not ended before who is inside has left.
        while counter.call(Sum, SOON).await.is_ok() {
            tokio::task::yield_now().await;
        }
        nx.kill("nexus/registry/services", Kill::Panic).await.unwrap();
    };
    let (removed, ()) = tokio::join!(removing, killing);
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::Crashed);
    let taken = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Busy, "{taken}");
    drop(inside);
    assert!(!settled(&nx).await);
    // And the name is free.
    let again = async {
        while let Err(error) = nx.register::<Counter>("counter", counter::Config::default()).await {
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, again).await.expect("the name comes free");
    assert!(settled(&nx).await);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_registry_can_be_killed_at_any_moment_of_a_registration_and_of_a_removal() {
    let nx = booted().await;
    let kill_after = async |yields: u32| {
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        nx.kill("nexus/registry/services", Kill::Panic).await.unwrap();
    };
    for round in 0..12_u32 {
        let registering = nx.register::<Counter>("counter", counter::Config::default());
        let (registered, ()) = tokio::join!(registering, kill_after(round * 16));
        let there = settled(&nx).await;
        match registered {
            Ok(_) => assert!(there, "round {round}: it was acknowledged"),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Crashed | ErrorKind::Busy), "{error}"),
        }
        if !there {
            let again = async {
                while nx.register::<Counter>("counter", counter::Config::default()).await.is_err() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(SOON, again).await.expect("it can be registered again");
        }
        let (removed, ()) = tokio::join!(nx.unregister("counter"), kill_after(round * 16));
        let there = settled(&nx).await;
        match removed {
            Ok(_) => assert!(!there, "round {round}: it was acknowledged"),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Crashed | ErrorKind::Busy), "{error}"),
        }
        let gone = async {
            while is_there(&nx).await.0 {
                let _ = nx.unregister("counter").await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, gone).await.expect("it can be removed again");
    }
    nx.shutdown().await.unwrap();
}

/// Which services have ended, in their order.
static ENDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes its end. Configured with what it needs.
struct Ends(Setup<Self>);

impl Behaviour for Ends {
    type Args = Setup<Self>;
    const NAME: &'static str = "ends";

    fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Self(setup)) })
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        ENDED.lock().push(format!("{}@{}", self.0.name(), self.0.number()));
        Box::pin(std::future::ready(()))
    }
}

impl Service for Ends {
    const VERSION: &'static str = "1.0.0";
    type Config = Vec<String>;
    type View = ();

    fn declare(needs: &Vec<String>) -> Declaration<Self> {
        let declared = Declaration::new().probation(Duration::ZERO);
        needs.iter().fold(declared, |declared, need| declared.needs(need.as_str()))
    }
}

#[tokio::test]
async fn services_are_stopped_each_before_what_it_needs() {
    let nx = booted().await;
    nx.register::<Ends>("m", vec![]).await.unwrap();
    nx.register::<Ends>("z", vec!["m".into()]).await.unwrap();
    nx.register::<Ends>("a", vec!["z".into()]).await.unwrap();
    // Started last of all, so that neither the order of the starts nor that of the names is the order of the needs.
    nx.swap::<Ends>("m", vec![]).await.unwrap();
    while !ENDED.lock().iter().any(|ended| ended == "m@1") {
        tokio::task::yield_now().await;
    }
    nx.shutdown().await.unwrap();
    assert_eq!(*ENDED.lock(), ["m@1", "a@1", "z@1", "m@2"]);
}
