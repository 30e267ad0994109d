//! The kernel as a child in somebody else's supervision tree.
//!
//! Owns:       the kernel of its incarnation, whose whole life is a task beside it, `Life`.
//! Asks:       nobody.
//! On restart: has the kernel of the incarnation before end, and boots another from the same settings.
//! Bounds:     `WAITING_MAX` callers that wait for a kernel; `PREDECESSOR_MAX` for the end of the one before.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_actors::{
    Behaviour, CallError, Child, Cx, Env, ExitReason, Handle, Latch, LocalBoxFuture, MailboxBounds, Message,
    Ref, Reply, Start, child as controlled,
};
use nexus_kernel::sys::ActorEntry;
use nexus_messages::{Error, ErrorKind, Op, Result};
use nexus_supervisors::{ChildSpec, Shutdown};
use parking_lot::Mutex;

use crate::config::Config;
use crate::handle::{Nexus, connect};

/// What the child is called unless its spec is given another name.
const ID: &str = "nexus";

/// Callers of [`Embedded::ready`] that a mailbox holds; more wait for room.
const WAITING_MAX: usize = 1_024;

/// How long a kernel may take to end, after the child that it belonged to has, before the next one gives up on the data folder.
const PREDECESSOR_MAX: Duration = Duration::from_secs(60);

/// A kernel as a child of your own supervisor, and a handle to whichever kernel the child runs.
///
/// The child boots a kernel from `config` when it is started, and stops it in order when it is stopped: what was acknowledged is on disk, and the data
/// folder is free. When the kernel's own root gives up, the child exits with its reason, and your supervisor decides. However an
/// incarnation ended (also by a panic, a kill, or a thread that hangs), the next one first waits for the kernel of the one before to end, so there
/// are never two.
///
/// The spec's id is `nexus`; it is permanent, and may take as long to start and to stop as the parts of the kernel, which have their own limits. All
/// of this can be set on the spec as for any child. One spec is for one tree.
///
/// The kernel runs on threads of its own, so that nothing else in your tree can hold it up; in a [simulation](Env::seeded) it runs in that. To
/// have it share your threads, say so: [`Config::env`].
///
/// ```
/// # smol::block_on(async {
/// use nexus::Env;
/// use nexus::supervisors::{Strategy, SupSpec, Tree};
///
/// let (kernel, nexus) = nexus::child(nexus::Config::in_memory());
/// let env = Env::host(Default::default())?;
/// let app = SupSpec::new("app", Strategy::OneForOne).child(kernel);
/// let tree = Tree::start(&env, app).await?;
///
/// let nx = nexus.ready().await?;
/// nx.write("/a", "one").await?;
///
/// tree.stop().await;
/// assert!(nexus.current().is_none());
/// assert_eq!(nx.read("/a").await.unwrap_err().errno(), nexus::Errno::ESHUTDOWN);
/// env.stop();
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub fn child(config: impl Into<Config>) -> (ChildSpec, Embedded) {
    child_as(ID, config)
}

/// As [`child`], under another id than `nexus`: for a supervisor with several kernels.
pub fn child_as(id: impl Into<Arc<str>>, config: impl Into<Config>) -> (ChildSpec, Embedded) {
    let id = id.into();
    let home = Arc::new(Home { config: config.into(), tenancy: Mutex::default() });
    let actor = Latch::new();
    let maker = Maker { id: id.clone(), home: home.clone(), actor: actor.clone() };
    let spec = ChildSpec::lazy(id, Arc::new(move |env: &Env| maker.make(env)))
        .start_within(Duration::MAX)
        .shutdown(Shutdown::Infinity);
    (spec, Embedded { home, actor })
}

/// A handle to the kernel that a [`child`] runs, valid over its restarts. Cheap to clone.
#[derive(Clone)]
pub struct Embedded {
    home: Arc<Home>,
    /// None when the spec was dropped before there was a tree.
    actor: Latch<Option<Ref<KernelChild>>>,
}

impl Embedded {
    /// Waits for the kernel that serves, over failed starts and restarts of the child, and gives the administrator's handle to it. Asks no
    /// actor when there is one. A handle answers `ESHUTDOWN` once its kernel has ended: ask again.
    ///
    /// # Errors
    /// `ESHUTDOWN` when there will be no kernel: the child was stopped for good, it was not started and its supervisor gave up, or its
    /// spec was dropped. The cause has the reason.
    pub async fn ready(&self) -> Result<Nexus> {
        let down = |why: &dyn fmt::Display| Err(Error::global(Op::Connect, ErrorKind::Down).because(why));
        let Some(actor) = self.actor.wait().await else {
            return down(&"the kernel's child was dropped before it was started");
        };
        loop {
            if let Some(nx) = self.current() {
                return Ok(nx);
            }
            match actor.call(Await, Duration::MAX).await {
                Ok(()) => {}
                Err(CallError::Down) => {
                    return match actor.status().last_exit {
                        Some(why) => down(&format!("the kernel's child has ended: {why}")),
                        None => down(&"the kernel's child was not started"),
                    };
                }
                // It ended over this; the next incarnation is asked.
                Err(_) => {}
            }
        }
    }

    /// The kernel that serves now, if there is one. Waits for nothing and asks no actor.
    pub fn current(&self) -> Option<Nexus> {
        let tenancy = self.home.tenancy.lock();
        let nx = tenancy.life.as_ref()?.serving.lock().clone()?;
        nx.is_serving().then_some(nx)
    }

    /// The kernel's own supervision tree as it is now; none while there is no kernel. Asks no actor.
    pub fn tree(&self) -> Option<ActorEntry> {
        let nx = self.current()?;
        Some(ActorEntry::tree(&nx.machine(Op::Access).ok()?.tree.snapshot(), ""))
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("current", &self.current()).finish_non_exhaustive()
    }
}

/// Makes the actor when the tree is made.
struct Maker {
    id: Arc<str>,
    home: Arc<Home>,
    actor: Latch<Option<Ref<KernelChild>>>,
}

impl Maker {
    fn make(&self, env: &Env) -> Arc<dyn Child> {
        let actor = Ref::new(env, self.id.clone(), MailboxBounds { messages: WAITING_MAX });
        self.actor.set(Some(actor.clone()));
        controlled(&actor, self.home.clone())
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.actor.set(None);
    }
}

/// Where kernels live, one after the other.
pub(crate) struct Home {
    config: Config,
    tenancy: Mutex<Tenancy>,
}

#[derive(Default)]
struct Tenancy {
    /// The newest incarnation of the child that has begun.
    generation: u64,
    /// The kernel that it boots, runs, or has ended.
    life: Option<Arc<Life>>,
}

impl Home {
    /// Has the kernel that is here end, waits for that, and moves another in. Refused when a newer incarnation has come meanwhile: then this one
    /// was given up, and wakes late.
    async fn move_in(&self, generation: u64, env: &Env) -> std::result::Result<Arc<Life>, ExitReason> {
        let before = {
            let mut tenancy = self.tenancy.lock();
            if tenancy.generation > generation {
                return Err(ExitReason::Replaced);
            }
            tenancy.generation = generation;
            tenancy.life.clone()
        };
        if let Some(before) = before {
            before.leave.set(());
            env.timeout(PREDECESSOR_MAX, before.over.wait()).await.map_err(|_| self.held())?;
        }
        let mut tenancy = self.tenancy.lock();
        if tenancy.generation > generation {
            return Err(ExitReason::Replaced);
        }
        let life = Arc::new(Life::default());
        tenancy.life = Some(life.clone());
        Ok(life)
    }

    fn held(&self) -> ExitReason {
        let kernel = match self.config.folder() {
            Some(folder) => format!("the kernel on {}", folder.display()),
            None => "the kernel".to_owned(),
        };
        let limit = PREDECESSOR_MAX.as_secs();
        ExitReason::error(format!("{kernel} of the incarnation before has not ended within {limit} s"))
    }
}

/// The life of one kernel, from its boot to the end of it. It is a task that does not hang on the child's actor: whatever becomes of
/// that, the kernel ends in order, and the next incarnation can wait for it.
#[derive(Default)]
struct Life {
    /// Set when the kernel is to end.
    leave: Latch<()>,
    serving: Mutex<Option<Nexus>>,
    /// Set when it serves, or why it does not.
    booted: Latch<std::result::Result<(), Error>>,
    /// Set when it has ended, and all that it held is free.
    over: Latch<()>,
}

impl Life {
    async fn live(self: Arc<Self>, config: Config, child: Ref<KernelChild>, generation: u64) {
        let over = Over(self.clone());
        match Box::pin(connect(config)).await {
            Err(error) => self.booted.set(Err(error)),
            Ok(nx) => {
                *self.serving.lock() = Some(nx.clone());
                self.booted.set(Ok(()));
                let ended = Box::pin(nx.ended());
                let left = Box::pin(self.leave.wait());
                if let Either::Left((Ok(why), _)) = select(ended, left).await {
                    // It has ended by itself: by a supervisor that gave up, or by a handle that shut it down.
                    drop(over);
                    child.fail(generation, why);
                    return;
                }
                // Cannot be refused to an administrator.
                let _ = nx.shutdown().await;
            }
        }
        drop(over);
    }
}

/// Says that a life is over; also when its task is dropped, with the environment that it ran in.
struct Over(Arc<Life>);

impl Drop for Over {
    fn drop(&mut self) {
        // Not under the lock: the last handle of a kernel waits a moment for its end.
        let last = self.0.serving.lock().take();
        drop(last);
        let unsaid = Error::global(Op::Connect, ErrorKind::Crashed).because("the boot broke off");
        self.0.booted.set(Err(unsaid));
        self.0.over.set(());
    }
}

/// The child: an actor that holds a kernel.
pub(crate) struct KernelChild(Arc<Life>);

/// Is answered when a kernel serves.
struct Await;

impl Message for Await {
    type Reply = ();
    const NAME: &'static str = "nexus.await";
}

impl Behaviour for KernelChild {
    type Args = Arc<Home>;
    const NAME: &'static str = "kernel-child";

    fn init(
        home: Arc<Home>,
        start: Start<Self>,
    ) -> LocalBoxFuture<'static, std::result::Result<Self, ExitReason>> {
        Box::pin(async move {
            // Made before the boot, so that a start that is broken off ends the kernel.
            let me = KernelChild(home.move_in(start.generation(), start.env()).await?);
            let mut config = home.config.clone();
            if start.env().is_simulated() && config.env.is_none() {
                config = config.env(start.env().clone());
            }
            let life = me.0.clone().live(config, start.me().clone(), start.generation());
            start.env().spawn("kernel", life);
            me.0.booted.wait().await.map_err(ExitReason::error)?;
            Ok(me)
        })
    }

    fn terminate(&mut self, _: &ExitReason) -> LocalBoxFuture<'static, ()> {
        self.0.leave.set(());
        let life = self.0.clone();
        Box::pin(async move { life.over.wait().await })
    }
}

impl Drop for KernelChild {
    fn drop(&mut self) {
        self.0.leave.set(());
    }
}

impl Handle<Await> for KernelChild {
    fn handle(&mut self, _: Await, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if self.0.serving.lock().as_ref().is_some_and(Nexus::is_serving) {
            return Reply::Now(());
        }
        // The kernel ends, and this incarnation with it: that is the answer.
        Reply::later(std::future::pending())
    }
}

#[cfg(test)]
mod tests {
    use nexus_supervisors::{Strategy, SupSpec, Tree};

    use super::*;

    #[test]
    fn a_kernel_that_does_not_end_keeps_the_next_one_out_with_a_clear_word() {
        let (env, simulation) = Env::seeded(7);
        simulation.block_on(async {
            let (spec, kernel) = child(Config::new("some/folder"));
            let stuck = Arc::new(Life::default());
            kernel.home.tenancy.lock().life = Some(stuck.clone());
            let began = env.now();
            let app = SupSpec::new("app", Strategy::OneForOne).child(spec);
            let failed = Tree::start(&env, app).await.unwrap_err();
            assert!(env.now() - began >= PREDECESSOR_MAX, "it was waited for");
            let text = "error: the kernel on some/folder of the incarnation before has not ended within 60 s";
            assert_eq!(failed.to_string(), text);
            assert_eq!(stuck.leave.get(), Some(()), "it was told to end");
        });
    }

    #[test]
    fn an_incarnation_that_wakes_late_boots_nothing() {
        let (env, simulation) = Env::seeded(7);
        simulation.block_on(async {
            let (_spec, kernel) = child(Config::in_memory());
            let newer = kernel.home.move_in(2, &env).await.unwrap();
            assert_eq!(kernel.home.move_in(1, &env).await.map(drop), Err(ExitReason::Replaced));
            assert!(newer.leave.get().is_none(), "the newer one is left alone");
        });
    }
}
