//! What a service is told, by whom nobody hears of it again: done once, also when the version that was told is replaced before it came to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus::service::{Declaration, Observed, Service, ServiceHook, Setup};
use nexus::{Config, ErrorKind, EventKind, EventMask, ExitReason, Nexus, SwapMode, SwapOptions};
use tokio::sync::Semaphore;

use crate::counter::SOON;

/// Told and not done yet, at most: fewer than the mailbox holds.
const BEHIND_MAX: u64 = 400;
const TELLERS: usize = 4;

/// Is counted.
struct Note;

/// Is counted after a while, beside others.
struct Later;

/// Holds the service until it may go on, and breaks it then.
struct Hold;

macro_rules! told {
    ($($message:ident, $name:literal;)*) => {$(
        impl Message for $message {
            type Reply = ();
            const NAME: &'static str = $name;
        }
    )*};
}

told! { Note, "tally.note"; Later, "tally.later"; Hold, "tally.hold"; }

/// What was done, by all versions together.
#[derive(Default)]
struct Done {
    noted: AtomicU64,
    later: AtomicU64,
    observed: AtomicU64,
}

/// What lets [`Hold`] go.
static GO: Semaphore = Semaphore::const_new(0);

struct Tally(Arc<Done>);

impl Behaviour for Tally {
    type Args = Setup<Self>;
    const NAME: &'static str = "tally";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            let before = setup.view().get().or_else(|| setup.predecessor::<Done>());
            let done = before.unwrap_or_default();
            setup.publish(start.generation(), done.clone()).map_err(ExitReason::error)?;
            Ok(Self(done))
        })
    }
}

impl Service for Tally {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = Done;

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new()
            .hook(ServiceHook::mailed_observer("hears", EventMask::from(EventKind::FileWritten)))
            .probation(Duration::from_secs(600))
    }
}

/// Has others go first, some times.
async fn takes_its_time() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

impl Handle<Note> for Tally {
    fn handle(&mut self, _: Note, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let done = self.0.clone();
        Reply::wait(async move {
            takes_its_time().await;
            done.noted.fetch_add(1, Ordering::Relaxed);
        })
    }
}

impl Handle<Later> for Tally {
    fn handle(&mut self, _: Later, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let done = self.0.clone();
        Reply::later(async move {
            takes_its_time().await;
            done.later.fetch_add(1, Ordering::Relaxed);
        })
    }
}

impl Handle<Observed> for Tally {
    fn handle(&mut self, _: Observed, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let done = self.0.clone();
        Reply::wait(async move {
            takes_its_time().await;
            done.observed.fetch_add(1, Ordering::Relaxed);
        })
    }
}

impl Handle<Hold> for Tally {
    fn handle(&mut self, _: Hold, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        Reply::wait(async {
            GO.acquire().await.expect("it is never closed").forget();
            panic!("it breaks when it goes on");
        })
    }
}

/// What was told, and is yet to be done.
#[derive(Default)]
struct Told {
    notes: AtomicU64,
    later: AtomicU64,
    writes: AtomicU64,
    stop: AtomicBool,
}

impl Told {
    fn all(&self) -> [u64; 3] {
        [&self.notes, &self.later, &self.writes].map(|told| told.load(Ordering::Relaxed))
    }
}

async fn done(nx: &Nexus) -> [u64; 3] {
    let tally = nx.service::<Tally>("tally").expect("it is the administrator's handle");
    let done = tally.lease().await.expect("it publishes");
    [&done.noted, &done.later, &done.observed].map(|done| done.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_version_was_told_is_done_once_though_it_is_replaced() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let tally = nx.register::<Tally>("tally", ()).await.unwrap();
    let told = Arc::new(Told::default());
    let tellers: Vec<_> = (0..TELLERS)
        .map(|number| {
            let (nx, tally, told) = (nx.clone(), tally.clone(), told.clone());
            tokio::spawn(async move {
                while !told.stop.load(Ordering::Relaxed) {
                    if told.all().iter().sum::<u64>() > done(&nx).await.iter().sum::<u64>() + BEHIND_MAX {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    for _ in 0..10 {
                        tally.tell(Note).await.expect("it is told");
                        told.notes.fetch_add(1, Ordering::Relaxed);
                    }
                    tally.tell(Later).await.expect("it is told");
                    told.later.fetch_add(1, Ordering::Relaxed);
                    nx.write(format!("/{number}"), "x").await.expect("it writes");
                    told.writes.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..20 {
        let goal = told.all()[0] + 400;
        while told.all()[0] < goal {
            assert!(!tellers.iter().any(|teller| teller.is_finished()), "a teller found a claim broken");
            tokio::task::yield_now().await;
        }
        let mode = if round % 2 == 0 { SwapMode::Overlap } else { SwapMode::Exclusive };
        let options = SwapOptions::new().mode(mode).probation(Duration::ZERO);
        nx.swap_with::<Tally>("tally", (), options).await.unwrap();
    }
    told.stop.store(true, Ordering::Relaxed);
    for teller in tellers {
        teller.await.expect("nothing that is told is refused");
    }
    let all = async {
        while done(&nx).await != told.all() {
            tokio::task::yield_now().await;
        }
    };
    let all = tokio::time::timeout(SOON, all).await;
    assert!(all.is_ok(), "told {:?}, done {:?}", told.all(), done(&nx).await);
    // No more is done than was told, when all has ended that could do any.
    let only_one = async {
        while nx
            .tree()
            .await
            .unwrap()
            .children
            .iter()
            .any(|child| &*child.id == "services" && child.children.len() > 1)
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, only_one).await.expect("the versions before end");
    assert_eq!(done(&nx).await, told.all());
    assert_eq!(nx.services().unwrap()[0].missed, 0);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_version_that_breaks_on_probation_had_not_begun_is_lost_and_counted() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let tally = nx.register::<Tally>("tally", ()).await.unwrap();
    nx.swap::<Tally>("tally", ()).await.unwrap();
    let mut holds = std::pin::pin!(tally.call(Hold, SOON));
    while nx.services().unwrap()[0]
        .actor
        .as_ref()
        .unwrap()
        .running
        .is_none_or(|busy| busy.message != Hold::NAME)
    {
        assert!(futures_util::poll!(holds.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        tally.tell(Note).await.unwrap();
    }
    let mut waits = std::pin::pin!(tally.call(Note, SOON));
    assert!(futures_util::poll!(waits.as_mut()).is_pending());
    GO.add_permits(1);
    assert_eq!(holds.await.unwrap_err().kind(), ErrorKind::Crashed);
    waits.await.expect("a call goes to the version that comes back");
    let status = nx.services().unwrap().remove(0);
    assert_eq!((status.serving.unwrap().number, status.swap_backs), (1, 1));
    let counted = async {
        while nx.services().unwrap()[0].missed == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, counted).await.expect("they are counted");
    assert_eq!(nx.services().unwrap()[0].missed, 5);
    assert_eq!(done(&nx).await, [1, 0, 0]);
    nx.shutdown().await.unwrap();
}
