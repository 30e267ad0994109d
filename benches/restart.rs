//! How long a crashed actor takes until it serves again, as a caller sees it whose message waited meanwhile: from the
//! crash, through its supervisor on another thread, to the reply of the next incarnation. Real threads, no back-off.
//!
//!     cargo bench -p nexus-supervisors --bench restart

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nexus_actors::{
    Behaviour, CallError, Cx, Env, ExitReason, Handle, HostConfig, Inject, LocalBoxFuture, MailboxBounds,
    Message, Moment, Ref, Reply, Start, block_on,
};
use nexus_supervisors::{ChildSpec, Kill, Strategy, SupSpec, Tree};

/// Crashes of each kind.
const CRASHES: u64 = 500;
/// How long a call may take; all of it is waiting for a restart.
const DEADLINE: Duration = Duration::from_secs(5);
/// What the issue asks for, at the median.
const AIM: Duration = Duration::from_millis(5);

/// Counts, and starts at zero each time.
struct Counter(u64);

/// When the last crash was, as the one that crashed saw it.
type Crashed = Arc<Mutex<Option<Instant>>>;

struct Add;

impl Message for Add {
    type Reply = (u64, u64);
    const NAME: &'static str = "counter.add";
}

struct Crash(Crashed);

impl Message for Crash {
    type Reply = ();
    const NAME: &'static str = "counter.crash";
}

impl Behaviour for Counter {
    type Args = ();
    const NAME: &'static str = "counter";

    fn init((): (), _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async { Ok(Self(0)) })
    }
}

impl Handle<Add> for Counter {
    fn handle(&mut self, _: Add, cx: &mut Cx<'_, Self>) -> Reply<Self, (u64, u64)> {
        self.0 += 1;
        Reply::Now((cx.generation(), self.0))
    }
}

impl Handle<Crash> for Counter {
    fn handle(&mut self, Crash(when): Crash, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        *when.lock().expect("nobody panics with it") = Some(Instant::now());
        panic!("as asked")
    }
}

fn actor(env: &Env, name: &'static str) -> (Ref<Counter>, ChildSpec) {
    let actor = Ref::new(env, name, MailboxBounds { messages: 64 });
    (actor.clone(), ChildSpec::new(name, actor, ()))
}

/// Crashes `actor` again and again. `crash` says when it did; the call that is checked was sent by then, or is sent at once.
fn measure(what: &str, actor: &Ref<Counter>, crash: impl Fn() -> Instant) {
    let mut took = Vec::new();
    for _ in 0..CRASHES {
        let (before, _) = block_on(actor.call(Add, DEADLINE)).expect("it serves");
        let began = crash();
        let reply = loop {
            match block_on(actor.call(Add, DEADLINE)) {
                // A kill that waits for a pause lets the old one finish.
                Ok((generation, _)) if generation == before => {}
                Err(CallError::Crashed { generation }) if generation == before => {}
                other => break other,
            }
        };
        took.push(began.elapsed());
        let (generation, count) = reply.expect("the next incarnation serves");
        assert!(generation > before && count == 1, "a new incarnation with a new state");
    }
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{what:<44} median {:>9.1?}   p90 {:>9.1?}   p99 {:>9.1?}   longest {:>9.1?}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
    assert!(at(50) < AIM, "{what}: over {AIM:?} at the median");
}

fn main() {
    let env = Env::host(HostConfig { quiet: true, ..HostConfig::default() }).expect("threads can be started");
    let (alone, spec) = actor(&env, "alone");
    let (group, grouped) = actor(&env, "group");
    let (_first, before) = actor(&env, "before");
    let (_last, behind) = actor(&env, "behind");
    let (busy, neighbour) = actor(&env, "busy");
    let all = SupSpec::new("all", Strategy::OneForAll)
        .restarts(u32::MAX, DEADLINE)
        .child(before)
        .child(grouped)
        .child(behind);
    let root = SupSpec::new("root", Strategy::OneForOne)
        .restarts(u32::MAX, DEADLINE)
        .child(spec)
        .child(neighbour)
        .supervisor(all);
    let tree = block_on(Tree::start(&env, root)).expect("it starts");

    let panics = |actor: &Ref<Counter>| {
        let crashed = Crashed::default();
        let unknown = block_on(actor.call(Crash(crashed.clone()), DEADLINE));
        assert!(matches!(unknown, Err(CallError::Crashed { .. })), "it panicked");
        let when = crashed.lock().expect("nobody panics with it").take();
        when.expect("it said when")
    };
    let kills = |path: &'static str, how| {
        let tree = &tree;
        move || {
            let began = Instant::now();
            assert!(tree.kill(path, how), "it is there");
            began
        }
    };
    measure("a panic in a handler", &alone, || panics(&alone));
    measure("an error", &alone, kills("root/alone", Kill::Error));
    measure("a brutal kill", &alone, kills("root/alone", Kill::Brutal));
    let struck = Kill::Handling(Inject::Kill, Moment::After);
    measure("a brutal kill while it handles a message", &alone, kills("root/alone", struck));
    measure("a panic, restarted with two others", &group, || panics(&group));
    measure("a kill of its supervisor", &group, kills("root/all", Kill::Brutal));

    // The same beside an actor that is never idle, on the same thread.
    let done = Arc::new(AtomicBool::new(false));
    let until = done.clone();
    let clients = std::thread::spawn(move || {
        let mut served = 0;
        while !until.load(Ordering::Relaxed) {
            let batch = futures_util::future::join_all((0..32).map(|_| busy.call(Add, DEADLINE)));
            served += block_on(batch).iter().filter(|reply| reply.is_ok()).count();
        }
        served
    });
    measure("a panic, beside a busy neighbour", &alone, || panics(&alone));
    done.store(true, Ordering::Relaxed);
    let served = clients.join().expect("the clients end");
    assert!(served > 0, "the neighbour served");

    let status = tree.find("root/alone").expect("it is there").actor;
    assert_eq!(status.generation, status.restarts + 1);
    block_on(tree.stop());
    env.stop();
}
