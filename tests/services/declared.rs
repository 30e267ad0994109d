//! What hooks of services declare of themselves when they are loaded: what their failure is, how long they have, and who waits for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, Reply, Start};
use nexus::dispatch::{ASIDE_MAX, Interceptor, MissedCalls, OpSet, Registration};
use nexus::service::{Completed, Declaration, Intercept, Intercepted, OnLate, Service, ServiceHook, Setup};
use nexus::{
    Config, ErrorKind, Event, EventKind, ExitReason, HookContext, Lsn, Nexus, Op, Outcome, SwapOptions,
    SysRead, Syscall, VPath, Verdict, ZoneId,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::policy::BRIEF;

/// Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(30);

async fn booted() -> Nexus {
    let config = Config::in_memory().restarts(1_000, Duration::from_secs(1));
    nexus::connect(config).await.expect("it boots")
}

async fn count(nx: &Nexus, hook: &str, what: &str) -> u64 {
    let all = nx.read("/__sys__/hooks/.all").await.expect("it is shown");
    let all: Vec<serde_json::Value> = serde_json::from_slice(&all).expect("it is JSON");
    let one = all.iter().find(|one| one["name"] == hook).expect("it is listed");
    one[what].as_u64().expect("it is a number")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Way {
    Closed,
    Open,
    Aside,
    /// As it hears nothing aside, it misses nothing.
    Missing,
    /// With a deadline that nothing could keep.
    Timed,
}

/// What its hooks see and say.
#[derive(Default)]
struct View {
    heard: AtomicU64,
    is_let_go: AtomicBool,
    missed: Mutex<Vec<MissedCalls>>,
}

/// Changes what is written, panics over `/breaks`, and hears of `/slow` when it is let go.
struct Inline;

impl Behaviour for Inline {
    type Args = Setup<Self>;
    const NAME: &'static str = "inline";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            if setup.view().get().is_none() {
                setup.publish(start.generation(), View::default()).map_err(ExitReason::error)?;
            }
            Ok(Self)
        })
    }
}

impl Service for Inline {
    const VERSION: &'static str = "1.0.0";
    type Config = Way;
    type View = View;

    fn declare(way: &Way) -> Declaration<Self> {
        let decide = |_: &View, cx: &mut HookContext| {
            if let Syscall::Write(call) = &mut cx.call {
                call.data = vec!["changed".into()];
            }
            assert!(cx.call.path() != "/breaks", "a hook that breaks");
            Verdict::Continue
        };
        let hear = |view: &View, cx: &HookContext, _: &Outcome| {
            let began = Instant::now();
            while cx.call.path().as_str().starts_with("/slow") && !view.is_let_go.load(Ordering::Relaxed) {
                assert!(began.elapsed() < PATIENCE, "its caller waits for it");
                std::thread::yield_now();
            }
            view.heard.fetch_add(1, Ordering::Relaxed);
        };
        let lose = |view: &View, missed: &MissedCalls| view.missed.lock().push(missed.clone());
        let hook = ServiceHook::around("inline", OpSet::MUTATIONS, decide, hear);
        Declaration::new().hook(match way {
            Way::Closed => hook,
            Way::Open => hook.fails(OnLate::Pass),
            Way::Aside => hook.aside().overflowed(lose),
            Way::Missing => hook.overflowed(lose),
            Way::Timed => hook.deadline(BRIEF),
        })
    }
}

#[tokio::test]
async fn an_inline_hook_that_panics_fails_as_it_declares() {
    for way in [Way::Closed, Way::Open] {
        let nx = booted().await;
        let service = nx.register::<Inline>("inline", way).await.expect("it starts");
        let written = nx.write("/breaks", "as it was").await;
        let is_open = way == Way::Open;
        match written {
            Ok(_) if is_open => assert_eq!(nx.read("/breaks").await.expect("it is there"), "as it was"),
            Err(error) if !is_open => assert_eq!(error.kind(), ErrorKind::Refused, "{error}"),
            other => panic!("{way:?}: {other:?}"),
        }
        let heard = service.with(|view: &View| view.heard.load(Ordering::Relaxed));
        assert_eq!(heard.expect("it serves"), 0, "it did not let it pass");
        nx.write("/fine", "x").await.expect("it passes");
        assert_eq!(nx.read("/fine").await.expect("it is there"), "changed");
        let counted = (count(&nx, "inline", "errors").await, count(&nx, "inline", "passed_by").await);
        assert_eq!(counted, (1, u64::from(is_open)));
        nx.shutdown().await.expect("it stops");
    }
}

/// Counts the calls that it let pass and has not heard of since.
struct Counts;

/// What it counts, and what it heard last.
#[derive(Default)]
struct Counted {
    inside: AtomicU64,
    heard: Mutex<Vec<Option<ErrorKind>>>,
}

impl Behaviour for Counts {
    type Args = Setup<Self>;
    const NAME: &'static str = "counts";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            setup.publish(start.generation(), Counted::default()).map_err(ExitReason::error)?;
            Ok(Self)
        })
    }
}

impl Service for Counts {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = Counted;

    fn declare((): &()) -> Declaration<Self> {
        let decide = |view: &Counted, _: &mut HookContext| {
            view.inside.fetch_add(1, Ordering::Relaxed);
            Verdict::Continue
        };
        let hear = |view: &Counted, _: &HookContext, outcome: &Outcome| {
            view.inside.fetch_sub(1, Ordering::Relaxed);
            view.heard.lock().push(outcome.error.as_ref().map(nexus::Error::kind));
        };
        let ops = [Op::Lock, Op::Read].into_iter().collect();
        Declaration::new().hook(ServiceHook::around("counts", ops, decide, hear))
    }
}

#[tokio::test]
async fn a_hook_is_told_that_the_caller_of_a_call_that_waits_went_away() {
    let nx = booted().await;
    let service = nx.register::<Counts>("counts", ()).await.expect("it starts");
    let counted = |view: &Counted| (view.inside.load(Ordering::Relaxed), view.heard.lock().clone());
    nx.make_pipe("/p", 100).await.expect("it is made");
    let (a, b) = (nx.agent("a").expect("it is one"), nx.agent("b").expect("it is one"));
    let held = a.lock("/held", Duration::ZERO).await.expect("it is free");
    assert_eq!(service.with(counted).expect("it serves"), (0, vec![None]));
    let mut locks = Box::pin(b.lock("/held", PATIENCE));
    let at = VPath::parse("/p").expect("it is one");
    let mut reads = Box::pin(b.send(SysRead::at(at).wait(PATIENCE)));
    assert!(futures_util::poll!(locks.as_mut()).is_pending());
    assert!(futures_util::poll!(reads.as_mut()).is_pending());
    assert_eq!(service.with(counted).expect("it serves").0, 2);
    drop((locks, reads));
    let timed_out = Some(ErrorKind::TimedOut);
    assert_eq!(service.with(counted).expect("it serves"), (0, vec![None, timed_out, timed_out]));
    a.unlock("/held", held.id).await.expect("it is held");
    nx.shutdown().await.expect("it stops");
}

/// Takes for ever to hear what came of a call.
struct Hangs;

impl Interceptor for Hangs {
    fn ops(&self) -> OpSet {
        OpSet::from(Op::Read)
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::ready(Verdict::Continue))
    }

    fn after<'a>(&'a self, _: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
        Box::pin(std::future::pending())
    }
}

/// Tells on what it hears came of a call.
struct Hears(tokio::sync::mpsc::UnboundedSender<Op>);

impl Interceptor for Hears {
    fn ops(&self) -> OpSet {
        OpSet::from(Op::Read)
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::ready(Verdict::Continue))
    }

    fn after<'a>(&'a self, cx: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
        // Who listens may have heard enough.
        let _ = self.0.send(cx.call.op());
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test]
async fn who_goes_away_while_hooks_are_told_has_the_others_told() {
    let nx = booted().await;
    let service = nx.register::<Counts>("counts", ()).await.expect("it starts");
    let (tells, mut told) = tokio::sync::mpsc::unbounded_channel();
    let aside = Registration::interceptor("hears aside", Arc::new(Hears(tells))).aside();
    nx.register_hook(aside).await.expect("it is registered");
    nx.write("/f", "x").await.expect("it writes");
    let hangs = Registration::interceptor("hangs", Arc::new(Hangs)).order(100);
    nx.register_hook(hangs).await.expect("it is registered");
    let mut reads = Box::pin(nx.read("/f"));
    assert!(futures_util::poll!(reads.as_mut()).is_pending());
    let counted = |view: &Counted| (view.inside.load(Ordering::Relaxed), view.heard.lock().clone());
    assert_eq!(service.with(counted).expect("it serves"), (1, Vec::new()), "the other one is told first");
    drop(reads);
    assert_eq!(service.with(counted).expect("it serves"), (0, vec![None]));
    let heard = tokio::time::timeout(PATIENCE, told.recv()).await;
    assert_eq!(heard.expect("it is told, although nobody waits for that"), Some(Op::Read));
    nx.shutdown().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_what_an_inline_hook_hears_aside() {
    let nx = booted().await;
    let service = nx.register::<Inline>("inline", Way::Aside).await.expect("it starts");
    nx.write("/slow", "x").await.expect("it does not wait for what is heard");
    service.with(|view: &View| view.is_let_go.store(true, Ordering::Relaxed)).expect("it serves");
    let began = Instant::now();
    while service.with(|view: &View| view.heard.load(Ordering::Relaxed)).expect("it serves") == 0 {
        assert!(began.elapsed() < PATIENCE, "waited in vain for what is heard aside");
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&nx, "inline", "errors").await, 0);
    nx.shutdown().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_inline_hook_finds_no_room_for_aside_is_told_with_where_to_read_on() {
    const BEYOND: usize = 3;
    let nx = booted().await;
    let service = nx.register::<Inline>("inline", Way::Aside).await.expect("it starts");
    let mut lsns = Vec::new();
    for number in 0..ASIDE_MAX + BEYOND {
        let written = nx.write(format!("/slow-{number}"), "x").await;
        lsns.push(written.expect("it does not wait for what is heard").receipt.lsn);
    }
    assert_eq!(count(&nx, "inline", "overflow").await, BEYOND as u64);
    service.with(|view: &View| view.is_let_go.store(true, Ordering::Relaxed)).expect("it serves");
    let began = Instant::now();
    while count(&nx, "inline", "queued").await > 0 {
        assert!(began.elapsed() < PATIENCE, "waited in vain for what is heard aside");
        tokio::task::yield_now().await;
    }
    let (heard, missed) = service
        .with(|view: &View| (view.heard.load(Ordering::Relaxed), view.missed.lock().clone()))
        .expect("it serves");
    assert_eq!(heard, ASIDE_MAX as u64);
    let [missed] = &*missed else { panic!("told once: {missed:?}") };
    assert_eq!(missed.calls, BEYOND as u64);
    // Of which commits it missed, it reads itself.
    assert_eq!(missed.first, [(ZoneId::root(), lsns[ASIDE_MAX])].into());
    nx.shutdown().await.expect("it stops");
}

#[tokio::test]
async fn what_nothing_can_keep_is_refused_when_it_is_declared() {
    let nx = booted().await;
    let missing =
        nx.register::<Inline>("inline", Way::Missing).await.map(drop).expect_err("it misses nothing");
    assert_eq!(missing.kind(), ErrorKind::InvalidArgument, "{missing}");
    assert!(missing.to_string().contains("told nothing aside"), "{missing}");
    let inline = nx.register::<Inline>("inline", Way::Timed).await.map(drop);
    let mailed = nx.register::<Silent>("silent", Asked::Afterwards).await.map(drop);
    for (refused, name) in [(inline, "inline"), (mailed, "silent")] {
        let refused = refused.expect_err("nothing ends it");
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
        assert!(refused.to_string().contains(&format!("the hook {name:?} has a deadline")), "{refused}");
    }
    nx.shutdown().await.expect("it stops");
}

/// Is mailed what it decides, and never answers.
struct Silent;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Asked {
    /// And fails closed.
    Closed,
    Open,
    /// It decides nothing.
    Afterwards,
}

impl Behaviour for Silent {
    type Args = Setup<Self>;
    const NAME: &'static str = "silent";

    fn init(_: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(std::future::ready(Ok(Self)))
    }
}

impl Handle<Intercept> for Silent {
    fn handle(&mut self, _: Intercept, _: &mut Cx<'_, Self>) -> Reply<Self, Intercepted> {
        Reply::later(std::future::pending())
    }
}

impl Handle<Completed> for Silent {
    fn handle(&mut self, _: Completed, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        Reply::Now(())
    }
}

impl Service for Silent {
    const VERSION: &'static str = "1.0.0";
    type Config = Asked;
    type View = ();

    fn declare(asked: &Asked) -> Declaration<Self> {
        let before = || ServiceHook::mailed_before("silent", Op::Write.into(), 10 * PATIENCE, OnLate::Refuse);
        let hook = match asked {
            Asked::Closed => before(),
            Asked::Open => before().fails(OnLate::Pass),
            Asked::Afterwards => ServiceHook::mailed_after("silent", Op::Write.into()),
        };
        Declaration::new().hook(hook.deadline(BRIEF))
    }
}

#[tokio::test]
async fn a_mailed_hook_has_the_deadline_and_the_failure_that_it_declares() {
    for (asked, kind) in [(Asked::Closed, Some(ErrorKind::TimedOut)), (Asked::Open, None)] {
        let nx = booted().await;
        nx.register::<Silent>("silent", asked).await.expect("it starts");
        let began = Instant::now();
        let written = nx.write("/a", "x").await;
        assert_eq!(written.err().map(|error| error.kind()), kind);
        assert!(began.elapsed() < PATIENCE, "it waited for {:?}", began.elapsed());
        assert_eq!(count(&nx, "silent", "timeouts").await, 1);
        nx.shutdown().await.expect("it stops");
    }
}

/// What was observed, by whichever version.
type Seen = Mutex<Vec<(VPath, Lsn)>>;

/// Observes writes, over a view that all of its versions share.
struct Observes;

impl Behaviour for Observes {
    type Args = Setup<Self>;
    const NAME: &'static str = "observes";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            if setup.view().get().is_none() {
                let shared: Arc<Seen> = setup.predecessor().unwrap_or_default();
                setup.publish(start.generation(), shared).map_err(ExitReason::error)?;
            }
            Ok(Self)
        })
    }
}

impl Service for Observes {
    const VERSION: &'static str = "1.0.0";
    type Config = u64;
    type View = Seen;

    fn declare(_: &u64) -> Declaration<Self> {
        let observe = |seen: &Seen, event: &Event| seen.lock().push((event.path.clone(), event.lsn));
        Declaration::new().hook(ServiceHook::observer("observes", EventKind::FileWritten, observe))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_swapped_observes_each_change_once_and_those_of_a_path_in_their_order() {
    let nx = booted().await;
    let service = nx.register::<Observes>("observes", 0).await.expect("it starts");
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let (nx, stop, written) = (nx.clone(), stop.clone(), written.clone());
            tokio::spawn(async move {
                let mut lsns = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    // Two write to each path.
                    let done = nx.write(format!("/{}", number % 2), "x").await.expect("no call fails");
                    lsns.push(done.receipt.lsn);
                    written.fetch_add(1, Ordering::Relaxed);
                }
                lsns
            })
        })
        .collect();
    for round in 1..=20 {
        let goal = written.load(Ordering::Relaxed) + 20;
        let began = Instant::now();
        while written.load(Ordering::Relaxed) < goal {
            assert!(began.elapsed() < PATIENCE, "waited in vain for writes");
            tokio::task::yield_now().await;
        }
        let options = SwapOptions::new().probation(Duration::ZERO);
        nx.swap_with::<Observes>("observes", round, options).await.expect("it takes its place");
    }
    stop.store(true, Ordering::Relaxed);
    let mut expected = Vec::new();
    for task in tasks {
        expected.extend(task.await.expect("no call fails"));
    }
    expected.sort_unstable();
    let began = Instant::now();
    let seen = loop {
        let seen = service.with(|seen: &Seen| seen.lock().clone()).expect("it serves");
        if seen.len() >= expected.len() || began.elapsed() > PATIENCE {
            break seen;
        }
        tokio::task::yield_now().await;
    };
    let mut last: HashMap<&VPath, Lsn> = HashMap::new();
    for (path, lsn) in &seen {
        let before = last.insert(path, *lsn);
        assert!(before < Some(*lsn), "{path}: {lsn} after {before:?}");
    }
    let mut seen: Vec<Lsn> = seen.iter().map(|(_, lsn)| *lsn).collect();
    seen.sort_unstable();
    assert!(seen == expected, "{} changes, of which {} were observed", expected.len(), seen.len());
    nx.shutdown().await.expect("it stops");
}
