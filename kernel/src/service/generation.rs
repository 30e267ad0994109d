//! One version of a service, running or about to, for those who do not know its type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus_actors::{
    ActorStatus, CallError, Child, Env, ExitReason, Handle, Message, Panicked, Ref, Reply, Undone, guard,
};
use nexus_messages::LifeId;
use nexus_messages::syscall::ServiceSpec;
use nexus_supervisors::ChildSpec;
use parking_lot::Mutex;

use super::hooks::{Before, HookKey, Intercepting, Run, Shape};
use super::{Carry, Facts, Making, Published, Service, Setup};
use crate::caught::catch_async;
use crate::dispatch::Wants;

/// How long a call waits before a shut gate only to tell a service of itself.
const TELLING_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether a version has done what it answers later.
const SETTLE_LOOK: Duration = Duration::from_millis(5);

/// One version of a service: what the slot holds. Its actor may be restarted under it; it stays the same version.
pub(crate) struct Generation {
    env: Env,
    pub(crate) service: Arc<str>,
    pub(crate) number: u64,
    /// As what it is registered.
    pub(crate) spec: ServiceSpec,
    pub(crate) factory: Arc<str>,
    pub(crate) version: &'static str,
    pub(crate) child_id: String,
    /// What is tied to it goes when it is stopped.
    pub(crate) life: LifeId,
    pub(crate) facts: Facts,
    pub(crate) start_max: Duration,
    pub(crate) view: Arc<dyn Any + Send + Sync>,
    actor: Box<dyn Actor>,
    control: Arc<dyn Child>,
    exports: HashMap<TypeId, Exported>,
    hooks: Vec<Run>,
    /// Whether its actor was started: one that is started on demand was not, before the first call.
    started: AtomicBool,
    /// Whether a crash of it brings the version before back. Changed under the lock of `broke`.
    probation: AtomicBool,
    /// How it broke on probation. Invariant: while this is there, what comes to its mailbox waits.
    broke: Mutex<Option<ExitReason>>,
    /// How many lost messages of its actor have been counted elsewhere.
    told_lost: AtomicU64,
}

/// A version that is not started yet, and what starts it.
pub(crate) struct Made {
    pub(crate) generation: Arc<Generation>,
    pub(crate) child: ChildSpec,
}

impl Made {
    #[expect(clippy::too_many_arguments, reason = "the parts of one value, made in one place")]
    pub(super) fn new<S: Service>(
        making: Making,
        facts: Facts,
        actor: Ref<S>,
        setup: Setup<S>,
        exports: Vec<Export<S>>,
        hooks: Vec<Run>,
        start_max: Duration,
        child: ChildSpec,
    ) -> Self {
        let child_id = making.child_id();
        let exports = exports.iter().map(|export| (export.message, (export.make)(&actor))).collect();
        let generation = Generation {
            env: making.env,
            service: making.name,
            number: making.number,
            spec: making.spec,
            factory: making.factory,
            version: making.version,
            child_id,
            life: making.life,
            facts,
            start_max,
            view: setup.view().clone(),
            control: nexus_actors::child(&actor, setup.clone()),
            actor: Box::new(Typed { actor, setup }),
            exports,
            hooks,
            started: AtomicBool::new(false),
            probation: AtomicBool::new(false),
            broke: Mutex::default(),
            told_lost: AtomicU64::new(0),
        };
        Self { generation: Arc::new(generation), child }
    }
}

impl Generation {
    /// Clock and tasks.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// The typed reference to its actor, when it is of this type.
    pub(crate) fn actor<S: Service>(&self) -> Option<&Ref<S>> {
        self.actor.as_any().downcast_ref::<Ref<S>>()
    }

    /// What it publishes, when that is of this type.
    pub(crate) fn view<V: Send + Sync + 'static>(&self) -> Option<Arc<V>> {
        self.view.clone().downcast::<Published<V>>().ok()?.get()
    }

    /// Whether it has published anything.
    pub(crate) fn has_published(&self) -> bool {
        self.actor.has_published()
    }

    /// Where messages of this type go, when it exports them.
    pub(crate) fn exported<M: Message>(&self) -> Option<&Recipient<M>> {
        self.exports.get(&TypeId::of::<M>())?.recipient.downcast_ref()
    }

    /// How answers to messages of this type are compared, when they are.
    pub(crate) fn comparison<M: Message>(&self) -> Option<&Comparison<M>> {
        self.exports.get(&TypeId::of::<M>())?.comparison.as_ref()?.downcast_ref()
    }

    /// Whether anything that it does can be compared with what another version does.
    pub(crate) fn is_compared(&self) -> bool {
        let decides = |run: &Run| matches!(run, Run::Intercept(hook) if hook.before.is_some());
        self.exports.values().any(|export| export.comparison.is_some()) || self.hooks.iter().any(decides)
    }

    /// How long a call that may meet these hooks waits before the shut gate, at most: as long as the slowest that decides may take.
    pub(crate) fn patience(&self, wants: Wants) -> Duration {
        let deadline = |(key, run): (&HookKey, &Run)| match (&key.shape, run) {
            (
                Shape::Interceptor { ops, .. },
                Run::Intercept(Intercepting { before: Some(Before::Mailed { deadline, .. }), .. }),
            ) if ops.meets(wants.ops) => Some(*deadline),
            _ => None,
        };
        self.facts.hooks.iter().zip(&self.hooks).filter_map(deadline).max().unwrap_or(TELLING_MAX)
    }

    pub(crate) fn hook(&self, index: usize) -> Option<&Run> {
        self.hooks.get(index)
    }

    /// The hook of this key, if it has one.
    pub(crate) fn find_hook(&self, key: &HookKey) -> Option<usize> {
        self.facts.hooks.iter().position(|own| own.is(key))
    }

    /// A copy of its state, given in its turn among the messages.
    pub(crate) fn export(&self, limit: Duration) -> BoxFuture<'static, Result<Carry, ExitReason>> {
        self.actor.export(limit)
    }

    /// Hands it the state of the version before.
    pub(crate) fn import(&self, carry: Carry, limit: Duration) -> BoxFuture<'static, Result<(), ExitReason>> {
        self.actor.import(carry, limit)
    }

    /// Asks it whether it is fit to serve.
    pub(crate) fn probe(&self, limit: Duration) -> BoxFuture<'static, Result<(), ExitReason>> {
        self.actor.probe(limit)
    }

    /// Tells its supervisor of a panic in its code on a caller's task.
    pub(crate) fn report(&self, panicked: &Panicked, doing: &'static str) {
        let status = self.actor.status();
        tracing::error!(service = &*self.service, %panicked, doing, "a service's code broke on a caller's task");
        self.actor.fail(status.generation, panicked.clone().into_exit(Some(doing)));
    }

    /// It ended so. On probation, what comes to its mailbox waits from now on: another version is to answer.
    pub(crate) fn breaks(&self, why: &ExitReason) {
        let mut broke = self.broke.lock();
        if self.is_on_probation() {
            self.control.suspend();
            *broke = Some(why.clone());
        }
    }

    /// How it broke on probation, if it did.
    pub(crate) fn broke(&self) -> Option<ExitReason> {
        self.broke.lock().clone()
    }

    pub(crate) fn status(&self) -> ActorStatus {
        self.actor.status()
    }

    pub(crate) fn is_started(&self) -> bool {
        // Acquire: who sees it started finds what its start has published.
        self.started.load(Ordering::Acquire)
    }

    pub(crate) fn set_started(&self, started: bool) {
        self.started.store(started, Ordering::Release);
    }

    pub(crate) fn is_on_probation(&self) -> bool {
        // Acquire: who sees that it has failed sees that another version serves. Who misses its end waits in vain for a moment.
        self.probation.load(Ordering::Acquire)
    }

    pub(crate) fn begin_probation(&self) {
        let _broke = self.broke.lock();
        self.probation.store(true, Ordering::Relaxed);
    }

    /// From now on a crash of it is a restart. Should it have broken, it answers what waits all the same.
    pub(crate) fn pass_probation(&self) {
        let mut broke = self.broke.lock();
        self.probation.store(false, Ordering::Relaxed);
        if broke.take().is_some() {
            self.control.resume();
        }
    }

    /// The version before is back. What waits in the mailbox of this one goes there when it is stopped.
    pub(crate) fn fail_probation(&self) {
        let _broke = self.broke.lock();
        // Release: the version before was published before.
        self.probation.store(false, Ordering::Release);
    }

    /// Waits until it has done what it was told before this, which nobody else waits for: at most for `limit`. Who told it must have left.
    pub(crate) async fn settle(&self, limit: Duration) -> Result<(), ExitReason> {
        let began = self.env.now();
        // Behind all that waits.
        self.actor.visit(limit).await?;
        // What it answers later would be dropped with it.
        while self.status().in_flight > 0 {
            if self.env.now().saturating_duration_since(began) >= limit {
                return Err(ExitReason::TimedOut { doing: "what it was told" });
            }
            self.env.sleep(SETTLE_LOOK).await;
        }
        Ok(())
    }

    /// Closes its mailbox, after it was ended. Says how many messages were in it that nobody waits for: each once.
    pub(crate) fn close(&self) -> u64 {
        self.control.close();
        let lost = self.status().lost;
        lost.saturating_sub(self.told_lost.swap(lost, Ordering::Relaxed))
    }

    /// How many messages that nobody waits for its actor lost when it ended by itself, and that `close` has not said.
    pub(crate) fn lost(&self) -> u64 {
        self.status().lost.saturating_sub(self.told_lost.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} {})", self.service, self.number, self.factory, self.version)
    }
}

/// A message that a service answers, before there is a version of it.
pub(crate) struct Export<S: Service> {
    pub(super) name: &'static str,
    pub(super) message: TypeId,
    make: fn(&Ref<S>) -> Exported,
}

/// A message that one version answers.
struct Exported {
    /// A `Recipient` of the message.
    recipient: Box<dyn Any + Send + Sync>,
    /// A `Comparison` of its answers.
    comparison: Option<Box<dyn Any + Send + Sync>>,
}

/// Where messages of one type go, whatever type answers them.
pub(crate) struct Recipient<M: Message>(Box<dyn Receive<M>>);

/// How calls are copied and answers compared.
pub(crate) struct Comparison<M: Message> {
    pub(crate) copy: fn(&M) -> M,
    pub(crate) copy_reply: fn(&M::Reply) -> M::Reply,
    pub(crate) equal: fn(&M::Reply, &M::Reply) -> bool,
}

trait Receive<M: Message>: Send + Sync {
    fn offer(&self, message: M, deadline: Duration) -> BoxFuture<'static, Result<M::Reply, Undone<M>>>;
    fn tell(&self, message: M) -> Result<(), CallError>;
}

struct To<S: Service>(Ref<S>);

impl<S: Handle<M> + Service, M: Message> Receive<M> for To<S> {
    fn offer(&self, message: M, deadline: Duration) -> BoxFuture<'static, Result<M::Reply, Undone<M>>> {
        let actor = self.0.clone();
        Box::pin(async move { actor.offer(message, deadline).await })
    }

    fn tell(&self, message: M) -> Result<(), CallError> {
        self.0.tell(message)
    }
}

impl<M: Message> Recipient<M> {
    pub(crate) fn offer(
        &self,
        message: M,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<M::Reply, Undone<M>>> {
        self.0.offer(message, deadline)
    }

    pub(crate) fn tell(&self, message: M) -> Result<(), CallError> {
        self.0.tell(message)
    }
}

impl<S: Service> Export<S> {
    pub(super) fn of<M: Message>() -> Self
    where
        S: Handle<M>,
    {
        Self {
            name: M::NAME,
            message: TypeId::of::<M>(),
            make: |actor| Exported { recipient: recipient::<S, M>(actor), comparison: None },
        }
    }

    pub(super) fn compared<M: Message + Clone>() -> Self
    where
        S: Handle<M>,
        M::Reply: PartialEq + Clone,
    {
        Self {
            name: M::NAME,
            message: TypeId::of::<M>(),
            make: |actor| Exported {
                recipient: recipient::<S, M>(actor),
                comparison: Some(Box::new(Comparison::<M> {
                    copy: M::clone,
                    copy_reply: M::Reply::clone,
                    equal: M::Reply::eq,
                })),
            },
        }
    }
}

fn recipient<S: Service + Handle<M>, M: Message>(actor: &Ref<S>) -> Box<dyn Any + Send + Sync> {
    Box::new(Recipient::<M>(Box::new(To(actor.clone()))))
}

/// What is done with an actor whose type only this object knows.
trait Actor: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn status(&self) -> ActorStatus;
    fn has_published(&self) -> bool;
    fn fail(&self, incarnation: u64, why: ExitReason);
    fn export(&self, limit: Duration) -> BoxFuture<'static, Result<Carry, ExitReason>>;
    fn import(&self, carry: Carry, limit: Duration) -> BoxFuture<'static, Result<(), ExitReason>>;
    fn probe(&self, limit: Duration) -> BoxFuture<'static, Result<(), ExitReason>>;
    /// Has its turn among the messages, and does nothing with it.
    fn visit(&self, limit: Duration) -> BoxFuture<'static, Result<(), ExitReason>>;
}

struct Typed<S: Service> {
    actor: Ref<S>,
    setup: Setup<S>,
}

impl<S: Service> Actor for Typed<S> {
    fn as_any(&self) -> &dyn Any {
        &self.actor
    }

    fn status(&self) -> ActorStatus {
        self.actor.status()
    }

    fn has_published(&self) -> bool {
        self.setup.view().get().is_some()
    }

    fn fail(&self, incarnation: u64, why: ExitReason) {
        self.actor.fail(incarnation, why);
    }

    fn export(&self, limit: Duration) -> BoxFuture<'static, Result<Carry, ExitReason>> {
        // A panic is caught here: it must fail the swap, and not the version that serves.
        let done = self.visited("export", limit, |service| Reply::Now(guard(|| service.export())));
        Box::pin(async move { done.await?.map_err(|panicked| panicked.into_exit(Some("service.export")))? })
    }

    fn import(&self, carry: Carry, limit: Duration) -> BoxFuture<'static, Result<(), ExitReason>> {
        let done = self.visited("import", limit, |service| Reply::Now(guard(|| service.import(carry))));
        Box::pin(async move { done.await?.map_err(|panicked| panicked.into_exit(Some("service.import")))? })
    }

    fn probe(&self, limit: Duration) -> BoxFuture<'static, Result<(), ExitReason>> {
        let done = self.visited("probe", limit, |service| match guard(|| service.probe()) {
            Ok(probing) => Reply::wait(catch_async(|| probing)),
            Err(panicked) => Reply::Now(Err(panicked)),
        });
        Box::pin(async move { done.await?.map_err(|panicked| panicked.into_exit(Some("service.probe")))? })
    }

    fn visit(&self, limit: Duration) -> BoxFuture<'static, Result<(), ExitReason>> {
        Box::pin(self.visited("what it was told", limit, |_| Reply::Now(())))
    }
}

impl<S: Service> Typed<S> {
    /// Runs `f` on the service, in its turn.
    fn visited<R: Send + 'static>(
        &self,
        doing: &'static str,
        limit: Duration,
        f: impl FnOnce(&mut S) -> Reply<S, R> + Send + 'static,
    ) -> impl Future<Output = Result<R, ExitReason>> + Send + 'static {
        let actor = self.actor.clone();
        async move {
            let visited = actor.visit(move |service, _| f(service), limit).await;
            visited.map_err(|error| match error {
                CallError::Timeout | CallError::Busy => ExitReason::TimedOut { doing },
                // How it ended may not be told yet: it was nothing that the version refused.
                _ => actor.status().last_exit.unwrap_or(ExitReason::Killed),
            })
        }
    }
}

/// The beginning of a version's service: what the registry waits for before anything reaches it.
pub(crate) struct Begin;

impl Begin {
    /// Waits until a started version is fit to serve: it has published what its hooks look at, and its probe agrees.
    pub(crate) async fn of(generation: &Generation) -> Result<(), ExitReason> {
        if generation.facts.inline && !generation.has_published() {
            return Err(ExitReason::error("it has inline hooks and published nothing for them in its init"));
        }
        generation.probe(generation.start_max).await
    }
}
