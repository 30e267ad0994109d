//! The registry dies at a moment of a change that is the same in each run, and what it leaves is brought in order.

use std::sync::Arc;
use std::time::Duration;

use nexus::{Config, ErrorKind, Kill, Nexus, ServiceState, SwapOptions};

use crate::counter::{self, Counter, Counter2, Fault, SOON, Sum};
use crate::gate::{ENDING, Gated, Held, Kind, MAY_END, MAY_START, STARTING};

/// How often it is looked whether something happens that must not.
const LOOKS: u32 = 300;

const REGISTRY: &str = "nexus/registry/services";

async fn booted(config: Config) -> Nexus {
    nexus::connect(config.restarts(1_000, Duration::from_secs(1))).await.expect("it boots")
}

async fn kill_registry(nx: &Nexus) {
    nx.kill(REGISTRY, Kill::Panic).await.expect("it is there");
}

/// Waits for something that comes at some time, and not never.
async fn until(what: &str, come: impl AsyncFnMut() -> bool) {
    let mut come = come;
    let waiting = async {
        while !come().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// The ids of the services' children.
async fn children(nx: &Nexus) -> Vec<String> {
    let tree = nx.tree().await.expect("it is the administrator's handle");
    let services = tree.children.into_iter().find(|child| &*child.id == "services").expect("it is there");
    services.children.iter().map(|child| child.id.to_string()).collect()
}

/// Whether it is said at once that something of the name is being changed.
async fn is_busy(nx: &Nexus, config: counter::Config) -> bool {
    let asked = tokio::time::timeout(SOON, nx.register::<Counter>("counter", config)).await;
    asked.expect("it waits for nothing").is_err_and(|error| error.kind() == ErrorKind::Busy)
}

/// Registers a service as soon as nothing of its name is being changed any more.
async fn register_when_free(nx: &Nexus, config: counter::Config) {
    until("the name comes free", async || match nx.register::<Counter>("counter", config).await {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Busy => false,
        Err(error) => panic!("{error}"),
    })
    .await;
}

// One test, since the gate of the starts is one.
#[tokio::test]
async fn a_start_that_was_under_way_when_the_registry_died_hits_no_other_service_and_is_not_in_the_way() {
    let nx = booted(Config::in_memory()).await;
    let kill_in_start = async || {
        STARTING.acquire().await.unwrap().forget();
        kill_registry(&nx).await;
    };

    let (registered, ()) = tokio::join!(nx.register::<Held>("held", Kind::Persistent), kill_in_start());
    assert_eq!(registered.unwrap_err().kind(), ErrorKind::Crashed);
    // What was begun is still to be ended, by a name and number that the next one of the name would have as well.
    let again = tokio::time::timeout(SOON, nx.register::<Held>("held", Kind::Persistent)).await;
    assert_eq!(again.expect("it does not wait for the start").unwrap_err().kind(), ErrorKind::Busy);
    MAY_START.add_permits(1);
    until("the name comes free", async || {
        MAY_START.add_permits(1);
        match nx.register::<Held>("held", Kind::Persistent).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                MAY_START.forget_permits(1);
                false
            }
        }
    })
    .await;
    assert_eq!(children(&nx).await, ["held@1"]);
    nx.unregister("held").await.unwrap();

    // At the first call.
    STARTING.forget_permits(usize::MAX);
    MAY_START.forget_permits(usize::MAX);
    let held = nx.register::<Held>("held", Kind::OnDemand).await.unwrap();
    let (called, ()) = tokio::join!(held.lease(), kill_in_start());
    assert_eq!(called.map(|number| *number).unwrap_err().kind(), ErrorKind::Crashed);
    MAY_START.add_permits(1);
    assert_eq!(*held.lease().await.unwrap(), 1, "what was started for the registry that died is taken over");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_being_undone_when_the_registry_dies_is_undone_all_the_same() {
    let nx = booted(Config::in_memory()).await;
    let killing = async {
        // What was refused is being ended, and is still to be forgotten.
        ENDING.acquire().await.unwrap().forget();
        kill_registry(&nx).await;
    };
    let (registered, ()) = tokio::join!(nx.register::<Held>("unfit", Kind::Unfit), killing);
    assert_eq!(registered.unwrap_err().kind(), ErrorKind::Crashed);
    MAY_END.add_permits(1);
    until("nothing of it is left", async || children(&nx).await.is_empty()).await;
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_row_that_was_on_its_way_when_the_registry_died_is_not_what_the_next_boot_goes_by() {
    let rows = Arc::new(Gated::new());
    let config = || Config::in_memory().metastore(rows.clone()).service::<Counter>();
    let kill_before_the_row = async |nx: &Nexus| {
        until("the row comes to the store", async || rows.is_reached()).await;
        kill_registry(nx).await;
    };

    let nx = booted(config()).await;
    rows.shut();
    let registering = nx.register::<Counter>("counter", counter::Config::default());
    let (registered, ()) = tokio::join!(registering, kill_before_the_row(&nx));
    assert_eq!(registered.unwrap_err().kind(), ErrorKind::Crashed);
    for _ in 0..LOOKS {
        assert!(is_busy(&nx, counter::Config::exclusive()).await, "what was begun is not undone yet");
    }
    rows.open();
    register_when_free(&nx, counter::Config::exclusive()).await;
    nx.shutdown().await.unwrap();

    let nx = booted(config()).await;
    assert!(nx.services().unwrap()[0].config.contains("Exclusive"), "{:?}", nx.services());
    rows.shut();
    let (removed, ()) = tokio::join!(nx.unregister("counter"), kill_before_the_row(&nx));
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::Crashed);
    for _ in 0..LOOKS {
        // The same again is no matter, once it is known whether there is one.
        assert!(is_busy(&nx, counter::Config::exclusive()).await);
    }
    rows.open();
    register_when_free(&nx, counter::Config::exclusive()).await;
    nx.service::<Counter>("counter").unwrap().call(Sum, SOON).await.unwrap();
    nx.shutdown().await.unwrap();

    let nx = booted(config()).await;
    assert_eq!(nx.services().unwrap().len(), 1, "it stayed, and is there after a boot");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_registration_that_fails_leaves_remembered_what_was_remembered() {
    let rows = Arc::new(Gated::new());
    let config = || Config::in_memory().metastore(rows.clone());
    let nx = booted(config()).await;
    nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
    nx.shutdown().await.unwrap();

    // Its factory is not known, so that it cannot be started. It stays registered.
    let nx = booted(config()).await;
    let is_absent = || matches!(nx.services().unwrap()[..], [ref one] if matches!(one.state, ServiceState::Failed { .. }));
    assert!(is_absent());
    nx.register::<Counter2>("counter", counter::Config::fault(Fault::Probe)).await.unwrap_err();
    assert!(is_absent());
    // And when it fails after the row has been written.
    rows.shut();
    let registering = nx.register::<Counter2>("counter", counter::Config::default());
    let killing = async {
        until("the row comes to the store", async || rows.is_reached()).await;
        kill_registry(&nx).await;
        rows.open();
    };
    let (registered, ()) = tokio::join!(registering, killing);
    assert_eq!(registered.unwrap_err().kind(), ErrorKind::Crashed);
    until("it is undone", async || {
        let refused = nx.register::<Counter2>("counter", counter::Config::fault(Fault::Probe)).await;
        refused.unwrap_err().kind() == ErrorKind::InvalidArgument
    })
    .await;
    nx.shutdown().await.unwrap();

    let nx = booted(config().service::<Counter>().service::<Counter2>()).await;
    let counter = nx.services().unwrap().remove(0);
    assert_eq!((&*counter.factory, counter.state), ("counter", ServiceState::Serving));
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_is_inside_is_waited_for_however_often_the_registry_dies() {
    let nx = booted(Config::in_memory()).await;
    let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();

    // In a version that is replaced.
    let inside = counter.lease().await.unwrap();
    let options = SwapOptions::new().probation(Duration::ZERO);
    let killing = async {
        until("the next version serves", async || {
            nx.services().unwrap()[0].serving.as_ref().unwrap().number == 2
        })
        .await;
        kill_registry(&nx).await;
    };
    let swapping = nx.swap_with::<Counter2>("counter", counter::Config::default(), options);
    let (swapped, ()) = tokio::join!(swapping, killing);
    assert_eq!(swapped.unwrap_err().kind(), ErrorKind::Crashed);
    for _ in 0..LOOKS {
        assert!(children(&nx).await.contains(&"counter@1".to_owned()), "somebody is inside");
    }
    drop(inside);
    until("it ends after its last caller", async || children(&nx).await == ["counter@2"]).await;

    // In one that is removed.
    let inside = counter.lease().await.unwrap();
    let killing = async {
        for _ in 0..2 {
            // Once in the removal, and once while that is brought to its end.
            until("nobody finds it", async || counter.call(Sum, SOON).await.is_err()).await;
            kill_registry(&nx).await;
        }
    };
    let (removed, ()) = tokio::join!(nx.unregister("counter"), killing);
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::Crashed);
    for _ in 0..LOOKS {
        assert!(is_busy(&nx, counter::Config::default()).await);
        assert_eq!(children(&nx).await, ["counter@2"], "somebody is inside");
    }
    drop(inside);
    register_when_free(&nx, counter::Config::default()).await;
    assert_eq!(children(&nx).await, ["counter@1"]);
    nx.shutdown().await.unwrap();
}
