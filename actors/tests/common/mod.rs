//! An actor that counts, and can be told to misbehave in every way.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared by test files that each use a part of it"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nexus_actors::{
    Behaviour, ChildExit, Cx, Env, ExitPort, ExitReason, Handle, HostConfig, LocalBoxFuture, MailboxBounds,
    Message, Ref, Reply, Start, Swap,
};
use tokio::sync::mpsc;

pub const SOON: Duration = Duration::from_secs(5);

pub struct Counter {
    n: u64,
    vsn: u32,
    faults: Faults,
}

/// What goes wrong, and where.
#[derive(Clone, Default)]
pub struct Faults {
    pub vsn: u32,
    pub init: Fault,
    pub terminate: Fault,
    pub dropped: Fault,
    pub export: Fault,
    pub import: Fault,
    /// Starts that go wrong before one succeeds.
    pub bad_starts: Arc<AtomicU32>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    Error,
    Panic,
    Hang,
}

impl Fault {
    pub fn strike(self, place: &str) -> Result<(), ExitReason> {
        match self {
            Fault::None | Fault::Hang => Ok(()),
            Fault::Error => Err(ExitReason::error(place)),
            Fault::Panic => panic!("{place}"),
        }
    }

    pub async fn strike_async(self, place: &str) -> Result<(), ExitReason> {
        if self == Fault::Hang {
            std::future::pending::<()>().await;
        }
        self.strike(place)
    }
}

impl Behaviour for Counter {
    type Args = Faults;
    const NAME: &'static str = "counter";

    fn init(args: Faults, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            args.init.strike_async("in init").await?;
            if args.bad_starts.load(Ordering::SeqCst) > 0 {
                args.bad_starts.fetch_sub(1, Ordering::SeqCst);
                return Err(ExitReason::error("a bad start"));
            }
            Ok(Counter { n: 0, vsn: args.vsn, faults: args })
        })
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        let fault = self.faults.terminate;
        Box::pin(async move { fault.strike_async("in terminate").await.unwrap() })
    }
}

impl Counter {
    pub fn total(&self) -> u64 {
        self.n
    }

    pub fn total_mut(&mut self) -> &mut u64 {
        &mut self.n
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.faults.dropped.strike("in drop").unwrap();
        }
    }
}

impl Swap for Counter {
    const VSN: u32 = 1;
    type Carry = u64;

    fn export(&mut self) -> Result<u64, ExitReason> {
        self.faults.export.strike("in export")?;
        Ok(self.n)
    }

    fn import(
        n: u64,
        _: u32,
        args: Faults,
        _: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            args.import.strike_async("in import").await?;
            Ok(Counter { n, vsn: args.vsn, faults: args })
        })
    }
}

#[derive(PartialEq)]
pub struct Add(pub u64);
impl Message for Add {
    type Reply = u64;
    const NAME: &'static str = "counter.add";
}
pub struct Boom;
impl Message for Boom {
    type Reply = ();
    const NAME: &'static str = "counter.boom";
}
/// Its destructor panics.
pub struct Bomb;
impl Message for Bomb {
    type Reply = ();
    const NAME: &'static str = "counter.bomb";
}
impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb was dropped");
    }
}
pub struct Quit(pub ExitReason);
impl Message for Quit {
    type Reply = ();
    const NAME: &'static str = "counter.quit";
}
/// Held: the mailbox waits.
pub struct Hold(pub Duration);
impl Message for Hold {
    type Reply = u64;
    const NAME: &'static str = "counter.hold";
}
/// Interleaved: answered later.
pub struct Later(pub Duration);
impl Message for Later {
    type Reply = u64;
    const NAME: &'static str = "counter.later";
}
/// Blocks the thread until the sender of the channel is dropped.
pub struct Block(pub std::sync::mpsc::Receiver<()>);
impl Message for Block {
    type Reply = u64;
    const NAME: &'static str = "counter.block";
}
/// Where the actor runs, and which version it is.
pub struct Where;
impl Message for Where {
    type Reply = (std::thread::ThreadId, u32);
    const NAME: &'static str = "counter.where";
}
/// Sends itself on, for ever.
pub struct Spin(pub Arc<AtomicU64>);
impl Message for Spin {
    type Reply = ();
    const NAME: &'static str = "counter.spin";
}

impl Handle<Add> for Counter {
    fn handle(&mut self, Add(n): Add, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        self.n += n;
        Reply::Now(self.n)
    }
}
impl Handle<Boom> for Counter {
    fn handle(&mut self, _: Boom, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        panic!("boom at {}", self.n)
    }
}
impl Handle<Bomb> for Counter {
    fn handle(&mut self, bomb: Bomb, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        std::mem::forget(bomb);
        Reply::Now(())
    }
}
impl Handle<Quit> for Counter {
    fn handle(&mut self, Quit(why): Quit, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        cx.exit(why);
        Reply::Now(())
    }
}
impl Handle<Hold> for Counter {
    fn handle(&mut self, Hold(d): Hold, cx: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        Reply::wait_then(cx.env().sleep(d), |me: &mut Self, _, ()| me.n)
    }
}
impl Handle<Later> for Counter {
    fn handle(&mut self, Later(d): Later, cx: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        Reply::later_then(cx.env().sleep(d), |me: &mut Self, _, ()| {
            me.n += 1;
            me.n
        })
    }
}
impl Handle<Block> for Counter {
    fn handle(&mut self, Block(until): Block, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        let _ = until.recv();
        self.n += 1000;
        Reply::Now(self.n)
    }
}
impl Handle<Where> for Counter {
    fn handle(&mut self, _: Where, _: &mut Cx<'_, Self>) -> Reply<Self, (std::thread::ThreadId, u32)> {
        Reply::Now((std::thread::current().id(), self.vsn))
    }
}
impl Handle<Spin> for Counter {
    fn handle(&mut self, Spin(turns): Spin, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        turns.fetch_add(1, Ordering::SeqCst);
        let _ = cx.me().tell(Spin(turns));
        Reply::Now(())
    }
}

pub fn quiet_host() -> Env {
    Env::host(HostConfig { quiet: true, ..HostConfig::default() }).unwrap()
}

pub fn counter(env: &Env, bound: usize) -> Ref<Counter> {
    Ref::new(env, "counter", MailboxBounds { messages: bound })
}

pub fn exits() -> (ExitPort, mpsc::UnboundedReceiver<ChildExit>) {
    let (tx, rx) = mpsc::unbounded_channel();
    (Arc::new(move |exit| drop(tx.send(exit))), rx)
}
