//! An actor that writes down its starts and stops, and fails on demand.
#![allow(missing_docs, unreachable_pub, reason = "it is of the tests alone")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nexus_actors::{
    ActorState, Behaviour, Cx, Env, ExitReason, Handle, HostConfig, LocalBoxFuture, MailboxBounds, Message,
    Ref, Reply, Start,
};
use nexus_supervisors::{ChildSpec, Tree};

pub const SOON: Duration = Duration::from_secs(5);

/// What happened, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn push(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    pub fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join(", ")
    }
}

#[derive(Clone, Default)]
pub struct Args {
    pub id: &'static str,
    pub log: Log,
    /// Starts that fail before one succeeds.
    pub bad_starts: Arc<AtomicU32>,
    pub panics_in: Option<&'static str>,
    pub warm: Arc<Mutex<Vec<bool>>>,
    /// `init` blocks its thread until the other end is dropped.
    pub init_blocks: Option<Arc<Mutex<std::sync::mpsc::Receiver<()>>>>,
}

pub struct Worker {
    args: Args,
    n: u64,
}

impl Args {
    fn strike(&self, place: &'static str) {
        assert_ne!(self.panics_in, Some(place), "in {place}");
    }
}

impl Behaviour for Worker {
    type Args = Args;
    const NAME: &'static str = "worker";

    fn init(args: Args, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            args.warm.lock().unwrap().push(start.warm());
            if args.panics_in == Some("init never ends") {
                std::future::pending::<()>().await;
            }
            if let Some(until) = &args.init_blocks {
                let _ = until.lock().unwrap().recv();
            }
            let bad = args
                .bad_starts
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
            if bad {
                args.strike("init");
                return Err(ExitReason::error("a bad start"));
            }
            args.log.push(format!("start {}", args.id));
            Ok(Worker { args, n: 0 })
        })
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        self.args.log.push(format!("stop {}", self.args.id));
        let args = self.args.clone();
        Box::pin(async move {
            args.strike("terminate");
            if args.panics_in == Some("never stops") {
                std::future::pending::<()>().await;
            }
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.args.strike("drop");
        }
    }
}

pub struct Add(pub u64);
impl Message for Add {
    type Reply = u64;
    const NAME: &'static str = "worker.add";
}
pub struct Boom;
impl Message for Boom {
    type Reply = ();
    const NAME: &'static str = "worker.boom";
}
pub struct Quit(pub ExitReason);
impl Message for Quit {
    type Reply = ();
    const NAME: &'static str = "worker.quit";
}
/// Writes `did it` down, and answers in this way.
pub struct Do(pub Answers);
#[derive(Clone, Copy, Debug)]
pub enum Answers {
    Now,
    Waiting,
    Later,
    Never,
}
impl Message for Do {
    type Reply = ();
    const NAME: &'static str = "worker.do";
}
/// Blocks the thread until the other end is dropped.
pub struct Block(pub std::sync::mpsc::Receiver<()>);
impl Message for Block {
    type Reply = u64;
    const NAME: &'static str = "worker.block";
}
pub struct Thread;
impl Message for Thread {
    type Reply = std::thread::ThreadId;
    const NAME: &'static str = "worker.thread";
}

impl Handle<Add> for Worker {
    fn handle(&mut self, Add(n): Add, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        self.n += n;
        Reply::Now(self.n)
    }
}
impl Handle<Boom> for Worker {
    fn handle(&mut self, _: Boom, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        panic!("boom")
    }
}
impl Handle<Quit> for Worker {
    fn handle(&mut self, Quit(why): Quit, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        cx.exit(why);
        Reply::Now(())
    }
}
impl Handle<Do> for Worker {
    fn handle(&mut self, Do(answers): Do, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.args.log.push("did it".into());
        let pause = cx.env().sleep(Duration::from_millis(1));
        match answers {
            Answers::Now => Reply::Now(()),
            Answers::Waiting => Reply::wait(pause),
            Answers::Later => Reply::later(pause),
            Answers::Never => Reply::later(std::future::pending()),
        }
    }
}
impl Handle<Block> for Worker {
    fn handle(&mut self, Block(until): Block, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        let _ = until.recv();
        self.args.log.push(format!("{} awoke", self.args.id));
        Reply::Now(666)
    }
}
impl Handle<Thread> for Worker {
    fn handle(&mut self, _: Thread, _: &mut Cx<'_, Self>) -> Reply<Self, std::thread::ThreadId> {
        Reply::Now(std::thread::current().id())
    }
}

pub fn quiet_host() -> Env {
    Env::host(HostConfig { quiet: true, ..HostConfig::default() }).unwrap()
}

pub fn actor(env: &Env, id: &'static str) -> Ref<Worker> {
    Ref::new(env, id, MailboxBounds { messages: 64 })
}

/// A child that writes into `log`.
pub fn worker(env: &Env, id: &'static str, log: &Log) -> (Ref<Worker>, ChildSpec) {
    worker_with(env, Args { id, log: log.clone(), ..Args::default() })
}

pub fn worker_with(env: &Env, args: Args) -> (Ref<Worker>, ChildSpec) {
    let worker = actor(env, args.id);
    (worker.clone(), ChildSpec::new(args.id, worker, args))
}

/// Waits until a part of the tree is as wanted.
pub async fn until(
    env: &Env,
    tree: &Tree,
    path: &str,
    wanted: impl Fn(&nexus_supervisors::TreeStatus) -> bool,
) {
    let looking = async {
        while !tree.find(path).is_some_and(|status| wanted(&status)) {
            env.sleep(Duration::from_millis(1)).await;
        }
    };
    if env.timeout(SOON, looking).await.is_err() {
        panic!("{path} is {:?}", tree.find(path));
    }
}

pub async fn until_running(env: &Env, tree: &Tree, path: &str, generation: u64) {
    until(env, tree, path, |s| s.actor.state == ActorState::Running && s.actor.generation >= generation)
        .await;
}
