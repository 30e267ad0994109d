//! A caller goes away in the middle of a mutation: it is committed or not, never half, its lock is given back, and when it is
//! committed, the hooks and observers that come after it run all the same.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus::actors::{Behaviour, Cx, Handle, Reply, Start};
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration};
use nexus::hal::{Applied, Batch, LogRecord, Metastore, Reader, StoreError, TreeId};
use nexus::service::{Carry, Completed, Declaration, Service, ServiceHook, Setup};
use nexus::{
    Config, Event, EventMask, HookContext, Lsn, MountSpec, Nexus, OpId, Outcome, SwapMode, SwapOptions,
    SysCopy, SysRename, SysSetattr, SysTx, SysUnlink, SysWrite, VPath, Verdict,
};
use nexus_actors::block_on;
use nexus_drivers::memory::MemoryMetastore;
use parking_lot::{Condvar, Mutex};

/// Whether a task was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Polls `future` up to `times` times, each time when it was woken, then drops it; whether it came to its end.
fn poll_and_drop<T>(mut future: Pin<Box<dyn Future<Output = T> + '_>>, times: usize) -> bool {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    for time in 0..times {
        if time > 0 {
            while !woken.0.swap(false, Ordering::Acquire) {
                thread::yield_now();
            }
        }
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return true;
        }
    }
    false
}

/// Is not ready the first time.
#[derive(Default)]
struct Once(bool);

impl Future for Once {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Makes calls wait before and after, and counts those that it sees end, and what observers hear.
#[derive(Default)]
struct Counts {
    succeeded: AtomicUsize,
    heard: AtomicUsize,
}

/// Sees the calls on paths that begin with `/drop`.
struct Waits(Arc<Counts>);

fn is_watched(path: &VPath) -> bool {
    path.as_str().starts_with("/drop")
}

impl Interceptor for Waits {
    fn ops(&self) -> OpSet {
        OpSet::MUTATIONS
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(async {
            Once::default().await;
            Verdict::Continue
        })
    }

    fn after<'a>(&'a self, cx: &'a HookContext, outcome: &'a Outcome) -> BoxFuture<'a, ()> {
        Box::pin(async {
            Once::default().await;
            if is_watched(cx.call.path()) && outcome.error.is_none() {
                self.0.succeeded.fetch_add(1, Ordering::Release);
            }
        })
    }
}

impl Observer for Waits {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, event: &Event) {
        if is_watched(&event.path) || event.other.as_ref().is_some_and(is_watched) {
            self.0.heard.fetch_add(1, Ordering::Release);
        }
    }
}

async fn boot(config: Config) -> (Nexus, Arc<Counts>) {
    let nx = nexus::connect(config).await.expect("it boots");
    let counts = Arc::new(Counts::default());
    let hook = Registration::interceptor("waits", Arc::new(Waits(counts.clone())));
    nx.register_hook(hook).await.expect("there is room");
    let observer = Registration::observer("hears", Arc::new(Waits(counts.clone()))).inline();
    nx.register_hook(observer).await.expect("there is room");
    (nx, counts)
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("it is one")
}

/// Starts the mutation.
type Begin = for<'a> fn(&'a Nexus) -> BoxFuture<'a, nexus::Result<()>>;

/// Whether it is done; fails when it is half done.
type IsDone = fn(&Nexus) -> bool;

/// Waits for what must come, on its own time.
#[track_caller]
fn until(nx: &Nexus, what: &str, come: impl Fn() -> bool) {
    let env = nx.kernel().expect("it is the administrator").env();
    let latest = env.now() + Duration::from_secs(20);
    while !come() {
        assert!(env.now() < latest, "{what} does not come");
        thread::yield_now();
    }
}

fn exists(nx: &Nexus, at: &str) -> bool {
    block_on(nx.exists(at)).expect("it looks")
}

/// What begins with `/drop/a` there, and how to tell whether it was done.
const MUTATIONS: [(&str, Begin, IsDone); 7] = [
    (
        "write",
        |nx| Box::pin(async { nx.send(SysWrite::at(path("/drop/a"), "new content")).await.map(drop) }),
        |nx| match &block_on(nx.read("/drop/a")).expect("it is there")[..] {
            b"new content" => true,
            b"old" => false,
            other => panic!("half a write: {other:?}"),
        },
    ),
    (
        "rename",
        |nx| Box::pin(async { nx.send(SysRename::new(path("/drop/a"), path("/drop/b"))).await.map(drop) }),
        |nx| {
            assert_ne!(exists(nx, "/drop/a"), exists(nx, "/drop/b"));
            exists(nx, "/drop/b")
        },
    ),
    (
        "unlink",
        |nx| Box::pin(async { nx.send(SysUnlink::at(path("/drop/d")).recursive()).await.map(drop) }),
        |nx| {
            assert_eq!(exists(nx, "/drop/d/e/f"), exists(nx, "/drop/d"));
            !exists(nx, "/drop/d")
        },
    ),
    (
        "mkdir",
        |nx| Box::pin(async { nx.send(SysSetattr::directory(path("/drop/new/deep"))).await.map(drop) }),
        |nx| {
            assert_eq!(exists(nx, "/drop/new"), exists(nx, "/drop/new/deep"));
            exists(nx, "/drop/new/deep")
        },
    ),
    (
        "copy",
        |nx| Box::pin(async { nx.send(SysCopy::new(path("/drop/a"), path("/drop/c"))).await.map(drop) }),
        |nx| exists(nx, "/drop/c"),
    ),
    (
        "tx",
        |nx| {
            let write = SysWrite::at(path("/drop/t"), "new").create();
            let tx = SysTx::new().with(write).with(SysRename::new(path("/drop/a"), path("/drop/u")));
            Box::pin(async { nx.send(tx).await.map(drop) })
        },
        |nx| {
            assert_eq!(exists(nx, "/drop/t"), exists(nx, "/drop/u"));
            assert_ne!(exists(nx, "/drop/a"), exists(nx, "/drop/u"));
            exists(nx, "/drop/t")
        },
    ),
    (
        "mount",
        |nx| Box::pin(async { nx.mount("/drop/m", MountSpec::new("memory")).await.map(drop) }),
        |nx| exists(nx, "/drop/m"),
    ),
];

fn check(root: &str, (name, begin, is_done): (&str, Begin, IsDone)) {
    for times in 0.. {
        let (nx, counts) = block_on(async {
            let (nx, counts) = boot(Config::in_memory().root(MountSpec::new(root))).await;
            nx.write("/drop/a", "old").await.expect("it writes");
            nx.write("/drop/d/e/f", "old").await.expect("it writes");
            (nx, counts)
        });
        let before = counts.succeeded.load(Ordering::Acquire);
        let ended = poll_and_drop(begin(&nx), times);
        let locks = nx.kernel().expect("it is the administrator").path_locks();
        // To hooks, each operation of a transaction is a call.
        let calls = if name == "tx" { 2 } else { 1 };
        let expected_of = |done: bool| before + usize::from(done) * calls;
        let all_told = || {
            counts.succeeded.load(Ordering::Acquire) >= expected_of(true)
                && counts.heard.load(Ordering::Acquire) >= expected_of(true)
        };
        if name == "mount" && times > 1 {
            // It is the lifecycle that has its lock, once it gets to it.
            until(&nx, "the mount", all_told);
        }
        // Whoever comes next waits until the lock is given back.
        block_on(nx.unlink("/drop")).expect_err("it is a directory");
        let done = is_done(&nx);
        assert!(done || !ended, "{name} on {root}: acknowledged, and not done");
        if done {
            until(&nx, "what follows", all_told);
        }
        let expected = expected_of(done);
        let told = (counts.succeeded.load(Ordering::Acquire), counts.heard.load(Ordering::Acquire));
        assert_eq!(told, (expected, expected), "{name} on {root} after {times}");
        let statistics = locks.statistics();
        assert_eq!((statistics.held, statistics.waiting), (0, 0), "{name} on {root} after {times}");
        assert!(times > 1 || !done, "{name} on {root}: done before anything could be done");
        block_on(nx.shutdown()).expect("it stops");
        if ended {
            assert!(times > 2, "{name} on {root}: it waited before and after");
            return;
        }
    }
}

#[test]
fn a_mutation_whose_caller_went_away_is_done_with_all_that_follows_or_not_at_all() {
    for mutation in MUTATIONS {
        check("memory", mutation);
        // What a backend keeps is not changed by transactions.
        if mutation.0 != "tx" {
            check("memory-path", mutation);
        }
    }
}

/// A metastore whose commits wait while it is closed.
#[derive(Debug)]
struct Gated {
    rows: MemoryMetastore,
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gated {
    fn close(&self, closed: bool) {
        *self.closed.lock() = closed;
        self.changed.notify_all();
    }
}

impl Metastore for Gated {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        self.changed.wait_while(&mut self.closed.lock(), |closed| *closed);
        self.rows.apply(batch)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.rows.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.rows.last_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.rows.changes(tree, since, limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.rows.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.rows.next_file_id()
    }

    fn wants_upkeep(&self) -> bool {
        self.rows.wants_upkeep()
    }

    fn upkeep(&self) -> Result<(), StoreError> {
        self.rows.upkeep()
    }
}

#[test]
fn who_waits_for_a_lock_and_goes_away_did_nothing_and_who_has_it_is_finished() {
    let store =
        Arc::new(Gated { rows: MemoryMetastore::new(), closed: Mutex::new(false), changed: Condvar::new() });
    let nx = block_on(nexus::connect(Config::in_memory().metastore(store.clone()))).expect("it boots");
    block_on(nx.write("/f", "old")).expect("it writes");
    store.close(true);
    let waker = Waker::noop();
    let mut holds = Box::pin(nx.write("/f", "first"));
    assert!(holds.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    let mut waits = Box::pin(nx.write("/f", "second"));
    assert!(waits.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    let locks = nx.kernel().expect("it is the administrator").path_locks();
    assert_eq!((locks.statistics().held, locks.statistics().waiting), (1, 1));
    drop(holds);
    assert_eq!((locks.statistics().held, locks.statistics().waiting), (1, 1), "the kernel goes on with it");
    drop(waits);
    assert_eq!((locks.statistics().held, locks.statistics().waiting), (1, 0), "nobody waits any more");
    assert_eq!(block_on(nx.read("/f")).expect("it is there"), "old", "nothing is committed yet");
    store.close(false);
    block_on(nx.append("/f", "!")).expect("it gets the lock");
    assert_eq!(block_on(nx.read("/f")).expect("it is there"), "first!");
    assert_eq!(locks.statistics().held, 0);
    block_on(nx.shutdown()).expect("it stops");
}

/// A service that hands over how often it was swapped.
struct Plain {
    swaps: u64,
}

impl Behaviour for Plain {
    type Args = Setup<Self>;
    const NAME: &'static str = "plain";

    fn init(_: Setup<Self>, _: Start<Self>) -> BoxedInit<Self> {
        Box::pin(async { Ok(Self { swaps: 0 }) })
    }
}

type BoxedInit<B> = nexus::actors::LocalBoxFuture<'static, Result<B, nexus::ExitReason>>;

/// How often the state was handed over.
#[derive(Debug, Clone)]
struct Swaps;

impl nexus::actors::Message for Swaps {
    type Reply = u64;
    const NAME: &'static str = "plain.swaps";
}

impl Service for Plain {
    const VERSION: &'static str = "1.0.0";
    type Config = u64;
    type View = ();

    fn declare(_: &u64) -> Declaration<Self> {
        let limit = Duration::from_secs(20);
        let hook = ServiceHook::mailed_after("hears", OpSet::from(nexus::Op::Copy));
        Declaration::new().exports::<Swaps>().hook(hook).probation(Duration::ZERO).swap_within(limit)
    }

    fn export(&mut self) -> Result<Carry, nexus::ExitReason> {
        Carry::of(1, &(self.swaps + 1))
    }

    fn import(&mut self, carry: Carry) -> Result<(), nexus::ExitReason> {
        self.swaps = carry.take()?;
        Ok(())
    }
}

impl Handle<Swaps> for Plain {
    fn handle(&mut self, _: Swaps, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        Reply::Now(self.swaps)
    }
}

impl Handle<Completed> for Plain {
    fn handle(&mut self, _: Completed, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        Reply::Now(())
    }
}

/// A change of the service `plain`: whether it is registered before, and after.
const SERVICE_CHANGES: [(&str, Begin, bool, bool); 4] = [
    ("register", |nx| Box::pin(async { nx.register::<Plain>("plain", 1).await.map(drop) }), false, true),
    ("overlap", |nx| Box::pin(swap_plain(nx, SwapMode::Overlap)), true, true),
    ("exclusive", |nx| Box::pin(swap_plain(nx, SwapMode::Exclusive)), true, true),
    ("unregister", |nx| Box::pin(async { nx.unregister("plain").await.map(drop) }), true, false),
];

async fn swap_plain(nx: &Nexus, mode: SwapMode) -> nexus::Result<()> {
    nx.swap_with::<Plain>("plain", 2, SwapOptions::new().mode(mode)).await.map(drop)
}

#[test]
fn a_change_of_a_service_whose_caller_went_away_is_done_or_not_and_leaves_nothing_else() {
    const SOON: Duration = Duration::from_secs(20);
    for (name, begin, before, after) in SERVICE_CHANGES {
        let is_swap = before && after;
        for times in 0.. {
            let nx = block_on(nexus::connect(Config::in_memory())).expect("it boots");
            if before {
                block_on(nx.register::<Plain>("plain", 1)).expect("it starts");
            }
            let ended = poll_and_drop(begin(&nx), times);
            let status = || nx.services().expect("it is the administrator's").into_iter().next();
            if ended {
                let swaps = status().map(|status| status.swaps);
                let expected = after.then_some(u64::from(is_swap));
                assert_eq!(swaps, expected, "{name} after {times}: acknowledged, and not done");
            }
            // What is under way comes to its end: then another change is no longer refused for it.
            let next = || match is_swap {
                true => block_on(swap_plain(&nx, SwapMode::Overlap)),
                false => block_on(nx.register::<Plain>("plain", 1)).map(drop),
            };
            until(&nx, "the end of the change", || match next() {
                Ok(()) => true,
                Err(busy) => {
                    assert_eq!(busy.kind(), nexus::ErrorKind::Busy, "{name} after {times}: {busy}");
                    false
                }
            });
            let status = status().expect("it is registered");
            let plain = nx.service::<Plain>("plain").expect("it is the administrator's");
            let swaps = block_on(plain.call(Swaps, SOON)).expect("it answers");
            assert_eq!(
                swaps, status.swaps,
                "{name} after {times}: each that was published handed the state over"
            );
            assert!(swaps <= 2 && swaps >= u64::from(is_swap), "{name} after {times}: {swaps}");
            let expected = [format!("plain@{}", status.serving.expect("it serves").number)];
            until(&nx, "the end of what does not serve", || {
                let tree = block_on(nx.tree()).expect("it is the administrator's").children;
                let services = tree.into_iter().find(|child| &*child.id == "services");
                let children = services.expect("it is there").children;
                children.iter().map(|child| child.id.to_string()).eq(expected.iter().cloned())
            });
            let hooks = block_on(nx.hooks()).expect("it is the administrator's").len();
            assert_eq!(hooks, 1, "{name} after {times}: its hooks are its own");
            let locks = nx.kernel().expect("it is the administrator's").path_locks().statistics();
            assert_eq!((locks.held, locks.waiting), (0, 0), "{name} after {times}");
            block_on(nx.shutdown()).expect("it stops");
            if ended {
                break;
            }
        }
    }
}
