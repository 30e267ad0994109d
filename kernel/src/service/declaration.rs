//! What a service declares of itself.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{Env, Handle, MailboxBounds, Message, Place, Ref};
use nexus_messages::EventMask;
use nexus_messages::syscall::SwapMode;
use nexus_supervisors::{Backoff, ChildSpec, Restart, Shutdown, Strategy, SupSpec};

use super::generation::{Export, Made};
use super::hooks::{HookKey, ServiceHook, Shape};
use super::{Making, Service, Setup};
use crate::dispatch::OpSet;

/// Messages that may wait for a service, unless it declares otherwise.
const MAILBOX_MAX: usize = 1_024;
/// How long the start of a service may take, unless it declares otherwise.
const START_MAX: Duration = Duration::from_secs(30);
/// How long the end of a service may take, unless it declares otherwise.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long one message may hold a service, unless it declares otherwise.
const WATCHDOG: Duration = Duration::from_secs(10);
/// How long a swap may wait for the calls inside the old version, unless something else is said.
const SWAP_LIMIT: Duration = Duration::from_secs(10);
/// How long a new version is on probation, unless something else is said.
const PROBATION: Duration = Duration::from_secs(10);

/// Restarts within a subtree, unless something else is said.
const RESTARTS: (u32, Duration) = (3, Duration::from_secs(60));

/// When a service is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Startup {
    /// When it is registered, and at each boot: after what it needs, and stopped before it.
    #[default]
    Persistent,
    /// With its first call.
    OnDemand,
}

/// What a service is, needs and offers. A builder; what is not said has the default given with each method.
pub struct Declaration<S: Service> {
    startup: Startup,
    needs: Vec<Need>,
    exports: Vec<Export<S>>,
    hooks: Vec<ServiceHook<S>>,
    restart: Restart,
    backoff: Backoff,
    mailbox: usize,
    watchdog: Duration,
    start_max: Duration,
    stop_max: Duration,
    place: Place,
    swap: SwapPolicy,
    beside: Option<(Strategy, Arc<Beside<S>>)>,
    restarts: (u32, Duration),
}

type Beside<S> = dyn Fn(&Setup<S>, &Env) -> Vec<ChildSpec> + Send + Sync;

/// Another service that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) service: Arc<str>,
    /// A message that it must answer; none when the service itself is enough.
    pub(crate) export: Option<&'static str>,
}

/// How a version takes the place of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SwapPolicy {
    pub(crate) mode: SwapMode,
    pub(crate) limit: Duration,
    pub(crate) probation: Duration,
}

/// What the registry knows of a service without knowing its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) startup: Startup,
    pub(crate) needs: Vec<Need>,
    pub(crate) exports: Vec<&'static str>,
    pub(crate) hooks: Vec<HookKey>,
    /// Whether a hook runs on callers' tasks, which cannot wait for a swap.
    pub(crate) inline: bool,
    pub(crate) swap: SwapPolicy,
}

/// A declaration whose type is forgotten.
pub(crate) struct Declared {
    pub(crate) facts: Facts,
    /// Makes a version, not yet started.
    pub(crate) make: Box<dyn FnOnce(Making) -> Made + Send>,
}

impl<S: Service> Declaration<S> {
    /// A persistent service without needs, exports and hooks.
    pub fn new() -> Self {
        Self {
            startup: Startup::default(),
            needs: Vec::new(),
            exports: Vec::new(),
            hooks: Vec::new(),
            restart: Restart::Permanent,
            backoff: Backoff::default(),
            mailbox: MAILBOX_MAX,
            watchdog: WATCHDOG,
            start_max: START_MAX,
            stop_max: STOP_MAX,
            place: Place::Users,
            swap: SwapPolicy { mode: SwapMode::Overlap, limit: SWAP_LIMIT, probation: PROBATION },
            beside: None,
            restarts: RESTARTS,
        }
    }

    /// Started with its first call rather than at boot. Not for a service with inline hooks, which look at what it publishes.
    #[must_use]
    pub fn on_demand(mut self) -> Self {
        self.startup = Startup::OnDemand;
        self
    }

    /// The service called `name` must be registered before this one, and cannot be removed while this one is. It is started before this one, also
    /// when it is on demand.
    #[must_use]
    pub fn needs(mut self, name: impl Into<Arc<str>>) -> Self {
        self.needs.push(Need { service: name.into(), export: None });
        self
    }

    /// As [`needs`](Self::needs), and it must answer `M`, in every version that takes its place.
    #[must_use]
    pub fn needs_export<M: Message>(mut self, name: impl Into<Arc<str>>) -> Self {
        self.needs.push(Need { service: name.into(), export: Some(M::NAME) });
        self
    }

    /// Answers `M` to whoever has a handle, also when a later version is another type.
    #[must_use]
    pub fn exports<M: Message>(mut self) -> Self
    where
        S: Handle<M>,
    {
        self.exports.push(Export::of::<M>());
        self
    }

    /// As [`exports`](Self::exports), and copies of such calls can be tried on a version in shadow, whose answers must be equal.
    #[must_use]
    pub fn exports_compared<M: Message + Clone>(mut self) -> Self
    where
        S: Handle<M>,
        M::Reply: PartialEq + Clone,
    {
        self.exports.push(Export::compared::<M>());
        self
    }

    /// Stands in the way of calls with this hook. Their names are unique within the service.
    #[must_use]
    pub fn hook(mut self, hook: ServiceHook<S>) -> Self {
        self.hooks.push(hook);
        self
    }

    /// After which exits it is restarted. Default: all.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Waits before restarts, from the second one on. Default: 50 ms, doubling, up to 5 s.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Messages that may wait, and be in progress. Default: 1,024.
    #[must_use]
    pub fn mailbox(mut self, messages: usize) -> Self {
        self.mailbox = messages;
        self
    }

    /// How long one message may hold it before it is written off and restarted. Default: 10 s.
    #[must_use]
    pub fn watchdog(mut self, limit: Duration) -> Self {
        self.watchdog = limit;
        self
    }

    /// How long its start may take, its probes included. Default: 30 s.
    #[must_use]
    pub fn start_within(mut self, limit: Duration) -> Self {
        self.start_max = limit;
        self
    }

    /// How long its ordered end may take. Default: 5 s.
    #[must_use]
    pub fn stop_within(mut self, limit: Duration) -> Self {
        self.stop_max = limit;
        self
    }

    /// The kind of thread it runs on. Default: one for users' services.
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// Whether it and the version before may be called at once. Default: they may, by [`Overlap`](SwapMode::Overlap).
    ///
    /// With overlap the version before answers on while its state is copied, and what it acknowledges after the copy is not in this one. Declare
    /// [`Exclusive`](SwapMode::Exclusive) where that would be a loss: callers wait for a moment, and nothing is.
    #[must_use]
    pub fn swap_mode(mut self, mode: SwapMode) -> Self {
        self.swap.mode = mode;
        self
    }

    /// How long a swap may wait for the calls inside the version before, and for the state to be handed over. Default: 10 s.
    #[must_use]
    pub fn swap_within(mut self, limit: Duration) -> Self {
        self.swap.limit = limit;
        self
    }

    /// For how long after a swap its crash brings the version before back. Default: 10 s.
    ///
    /// That one comes back as it was when it was replaced, in either mode: what this one acknowledged meanwhile is undone where it is kept in the
    /// actor's state, and stays where it is kept in files or shared (see [`Setup::predecessor`]). Zero where an undone answer is worse than a
    /// restart.
    #[must_use]
    pub fn probation(mut self, probation: Duration) -> Self {
        self.swap.probation = probation;
        self
    }

    /// Makes it a subtree: the actors of `children` run beside it, started after it and stopped before it, under a supervisor of their own
    /// with this strategy.
    ///
    /// One that crashes is restarted as the strategy says. When there are more [`restarts`](Self::restarts) than are allowed the subtree fails as one,
    /// and is restarted as one; on [probation](Self::probation) the version before comes back then, as when the service itself crashes.
    #[must_use]
    pub fn beside(
        mut self,
        strategy: Strategy,
        children: impl Fn(&Setup<S>, &Env) -> Vec<ChildSpec> + Send + Sync + 'static,
    ) -> Self {
        self.beside = Some((strategy, Arc::new(children)));
        self
    }

    /// How many restarts within its subtree are allowed in any period of this length, its own included; one more, and the subtree fails as one. Default:
    /// 3 in a minute. Only for a service with others [beside](Self::beside) it.
    #[must_use]
    pub fn restarts(mut self, max: u32, within: Duration) -> Self {
        self.restarts = (max, within);
        self
    }

    /// Checks what can be checked of it alone, and forgets the type.
    pub(super) fn forget(self, config: S::Config) -> Result<Declared, String> {
        let inline = self.hooks.iter().any(|hook| hook.inline);
        if inline && self.startup == Startup::OnDemand {
            return Err("a service with inline hooks cannot be started on demand".into());
        }
        if inline && self.swap.mode == SwapMode::Exclusive {
            return Err("a service with inline hooks swaps by overlap: its callers cannot wait".into());
        }
        let mut keys: Vec<HookKey> = Vec::new();
        for hook in &self.hooks {
            let shape = hook.check()?;
            if keys.iter().any(|key| key.name == hook.name) {
                return Err(format!("two hooks are called {:?}", hook.name));
            }
            keys.push(HookKey { name: hook.name, shape });
        }
        let mut seen: Vec<TypeId> = Vec::new();
        for export in &self.exports {
            if seen.contains(&export.message) {
                return Err(format!("{} is exported twice", export.name));
            }
            seen.push(export.message);
        }
        let facts = Facts {
            startup: self.startup,
            needs: self.needs.clone(),
            exports: self.exports.iter().map(|export| export.name).collect(),
            hooks: keys,
            inline,
            swap: self.swap,
        };
        let told = facts.clone();
        Ok(Declared { facts, make: Box::new(move |making| self.make(config, told, making)) })
    }

    fn make(self, config: S::Config, facts: Facts, making: Making) -> Made {
        let bounds = MailboxBounds { messages: self.mailbox };
        let actor = Ref::<S>::new(&making.env, making.name.clone(), bounds);
        let setup = Setup::new(config, &making);
        let id: Arc<str> = making.child_id().into();
        let main = |id: Arc<str>| {
            ChildSpec::new(id, actor.clone(), setup.clone())
                .restart(self.restart)
                .backoff(self.backoff)
                .watchdog(self.watchdog)
                .place(self.place)
                .start_within(self.start_max)
                .shutdown(Shutdown::Timeout(self.stop_max))
                .monitor(making.monitor.clone())
        };
        let child = match &self.beside {
            None => main(id),
            Some((strategy, children)) => {
                let (max, within) = self.restarts;
                let tree = SupSpec::new(id, *strategy).restarts(max, within).child(main("main".into()));
                let tree =
                    children(&setup, &making.env).into_iter().fold(tree, |tree, child| tree.child(child));
                // The whole may give up because of the others alone.
                let whole = tree.into_child().monitor(making.monitor.clone());
                whole.place(Place::Supervisors).restart(self.restart).backoff(self.backoff)
            }
        };
        let hooks = self.hooks.iter().map(|hook| hook.run(&actor, setup.view())).collect();
        Made::new(making, facts, actor, setup, self.exports, hooks, self.start_max, child)
    }
}

impl<S: Service> Default for Declaration<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl Facts {
    /// The operations that its interceptors want to see, the events that its observers do, and whether it resolves paths.
    pub(crate) fn interest(&self) -> (OpSet, EventMask, bool) {
        let mut interest = (OpSet::NONE, EventMask::NONE, false);
        for key in &self.hooks {
            match &key.shape {
                Shape::Interceptor { ops, .. } => interest.0 = interest.0.union(*ops),
                Shape::Observer { mask } => interest.1 |= *mask,
                Shape::Resolver { .. } => interest.2 = true,
            }
        }
        interest
    }
}
