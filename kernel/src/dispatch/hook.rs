//! What hooks are: the traits that users and services implement, and how one is registered.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus_actors::Env;
use nexus_messages::{
    Caller, Event, EventMask, HookContext, Lsn, MountContext, Op, Outcome, VPath, Verdict, ZoneId,
};
use serde::{Deserialize, Serialize};

use super::counts::{Manner, Running};
use super::observing::{Line, QUEUE, QUEUE_LIMIT};
use super::pattern::{Pattern, PatternError};
use crate::service::OnLate;

/// How long an interceptor may take, before a call and after it, unless its registration says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Answers where a path really is, before it is routed.
pub trait Resolver: Send + Sync + 'static {
    /// Decides on `path`, which matches the pattern that the resolver was registered with.
    ///
    /// Runs on the caller's task, in every call that names such a path: it must neither block nor wait. A panic refuses the call.
    fn resolve(&self, caller: &Caller, path: &VPath) -> Resolution;

    /// Whether `caller` may name `path` at all in a call of `op`: the resolver's own permission for the paths that it answers for. An error is the reason
    /// why not, and the call ends as one that the gate denies. Asked before [`resolve`](Self::resolve), of the path as it was written, and before the gate, which
    /// is asked all the same: it can only take away. Everything is allowed unless a resolver says otherwise.
    ///
    /// Runs as `resolve` does. A panic denies.
    fn permits(&self, caller: &Caller, op: Op, path: &VPath) -> Result<(), String> {
        let _ = (caller, op, path);
        Ok(())
    }
}

/// What a [`Resolver`] decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The path is what it says.
    Unchanged,
    /// The call goes to this path.
    Rewrite(VPath),
    /// There is no call, for this reason.
    Refuse(String),
}

/// Sees calls before and after they are executed.
pub trait Interceptor: Send + Sync + 'static {
    /// The operations that it wants to see. Asked once, at registration. An append and an edit are writes here.
    fn ops(&self) -> OpSet;

    /// May change the call (its paths, its content, and its limits, as far as it makes them narrower) or refuse it, with any kind of error.
    /// Runs on the caller's task before any lock is taken; may wait, up to the deadline of its registration. A panic and a missed deadline are what
    /// [`Registration::fails`] says.
    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict>;

    /// Is told what came of the call. Runs after every lock is gone, and the caller waits for it unless it runs [aside](Registration::aside); may wait, up to
    /// the deadline of its registration. Cannot change the outcome; a panic and a missed deadline are logged and counted.
    fn after<'a>(&'a self, cx: &'a HookContext, outcome: &'a Outcome) -> BoxFuture<'a, ()> {
        let _ = (cx, outcome);
        Box::pin(std::future::ready(()))
    }

    /// Calls were not told, since as many runs [aside](Registration::aside) were under way as may be. Told aside, when the next of those runs is over, whether another call
    /// comes or not: so it is known that something is missing, and from where on it can be read. A panic is logged and counted.
    fn overflowed(&self, missed: &MissedCalls) {
        let _ = missed;
    }
}

/// Is told of changes that were committed.
///
/// Of two changes of one path the one that was committed first is told first, whoever made them; and so is a removal or a renaming of a directory and a change below it. The changes
/// of one caller in one zone are told in their order, those that wait for the disk and those that end with the process each among themselves. A change waits for that no longer
/// than for five seconds: one whose hooks take longer after the call is told when they are done, and out of its order. Of a directory that was made, or whose attributes were
/// set, and of what another caller changes below it the later may be told first. Mounts that come and go, and what becomes of advisory locks, are told as they come: in no
/// order with changes, nor among each other. [`Event::lsn`] says where in the log of its zone each change is.
///
/// At an ordered end of the kernel what was acknowledged before is told, for some seconds at most.
pub trait Observer: Send + Sync + 'static {
    /// The events that it wants to see. Asked once, at registration.
    fn mask(&self) -> EventMask;

    /// Is told of `event`. Runs in a supervised child of its own, one event after the other: what it takes, and a panic, is
    /// nobody else's. After a panic, and when one event holds it for too long, which writes it off, it goes on with the next event.
    ///
    /// [Inline](Registration::inline) it runs on the task that made the change instead, after every lock is gone; or on another, when the change was acknowledged before it
    /// was on disk, or comes after one that was not told yet. Then it must neither block nor wait, and a panic is logged.
    fn observe(&self, event: &Event);

    /// Its queue was full. Runs as `observe` does, after all that was queued before and before all that comes later: so it is known where something is missing.
    fn overflowed(&self, missed: &Missed) {
        let _ = missed;
    }
}

/// What an observer could not be told, since its queue was full.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Missed {
    /// How many events.
    pub events: u64,
    /// The first of them: its place in the log is where to read on.
    pub first: Event,
}

/// What an interceptor could not be told [aside](Registration::aside), since there was no room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissedCalls {
    /// How many calls.
    pub calls: u64,
    /// For each zone in whose log some of them were committed the first place of those: there is where to read on.
    pub first: BTreeMap<ZoneId, Lsn>,
}

impl MissedCalls {
    /// One more, which was committed there, if it was.
    pub(super) fn add(&mut self, committed: Option<&(ZoneId, Lsn)>) {
        self.calls += 1;
        if let Some((zone, lsn)) = committed {
            let first = self.first.entry(zone.clone()).or_insert(*lsn);
            *first = (*first).min(*lsn);
        }
    }
}

/// Is told of mounts that come and go.
pub trait MountHook: Send + Sync + 'static {
    /// A mount was attached and serves. A panic is logged.
    fn on_mount<'a>(&'a self, cx: &'a MountContext) -> BoxFuture<'a, ()> {
        let _ = cx;
        Box::pin(std::future::ready(()))
    }

    /// A mount was detached and has served its last call. A panic is logged.
    fn on_unmount<'a>(&'a self, cx: &'a MountContext) -> BoxFuture<'a, ()> {
        let _ = cx;
        Box::pin(std::future::ready(()))
    }
}

/// A set of operations: one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct OpSet(u64);

/// How many operations an [`OpSet`] has room for.
pub(super) const OPS_MAX: u32 = 40;

const _: () = assert!((Op::Spawn as u32) < OPS_MAX);

impl OpSet {
    /// No operation.
    pub const NONE: Self = Self(0);
    /// Every operation.
    pub const ALL: Self = Self((1 << OPS_MAX) - 1);
    /// The syscalls that change something. Of a transaction hooks see the operations, each as the syscall that it is, and never the whole.
    pub const MUTATIONS: Self =
        Self::NONE.and(Op::Setattr).and(Op::Rename).and(Op::Unlink).and(Op::Write).and(Op::Copy).and(Op::Tx);

    /// The set with `op` in it.
    #[must_use]
    pub const fn and(self, op: Op) -> Self {
        Self(self.0 | 1 << op as u32)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `op` is in the set.
    #[inline]
    pub const fn contains(self, op: Op) -> bool {
        self.0 & 1 << op as u32 != 0
    }

    /// Those in the set that are among these bits, too.
    pub(super) const fn among(self, bits: u64) -> Self {
        Self(self.0 & bits)
    }

    /// Whether an operation is in both sets.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }
}

impl From<Op> for OpSet {
    fn from(op: Op) -> Self {
        Self::NONE.and(op)
    }
}

impl FromIterator<Op> for OpSet {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        ops.into_iter().fold(Self::NONE, Self::and)
    }
}

impl fmt::Debug for OpSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpSet({:#x})", self.0)
    }
}

/// A hook's identity: given at registration, never reused by this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HookId(pub u64);

/// The kinds of hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HookKind {
    /// A [`Resolver`].
    Resolver,
    /// An [`Interceptor`].
    Interceptor,
    /// An [`Observer`].
    Observer,
    /// A [`MountHook`].
    Mount,
}

/// A hook to be registered, with its name and where it applies.
#[derive(Clone)]
pub struct Registration {
    pub(super) name: Arc<str>,
    pub(super) owner: Option<Arc<str>>,
    pub(super) hook: Hook,
    /// What it has beside itself once it is registered.
    pub(super) running: Option<Arc<Running>>,
}

#[derive(Clone)]
pub(super) enum Hook {
    Resolver {
        pattern: Pattern,
        resolver: Arc<dyn Resolver>,
    },
    Interceptor {
        ops: OpSet,
        order: i32,
        below: Option<VPath>,
        interceptor: Arc<dyn Interceptor>,
        manner: Manner,
    },
    /// With room for so many events in its queue; without, it is told inline.
    Observer {
        mask: EventMask,
        observer: Arc<dyn Observer>,
        queue: Option<usize>,
    },
    Mount(Arc<dyn MountHook>),
}

impl Registration {
    /// A resolver for the paths that match `pattern`: a path whose components are literal or `{}`, which stands for any one
    /// component, and which may end in `/**`, for any number of further ones.
    pub fn resolver(
        name: impl Into<Arc<str>>,
        pattern: &str,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, PatternError> {
        Ok(Self::new(name, Hook::Resolver { pattern: Pattern::parse(pattern)?, resolver }))
    }

    /// An interceptor of order 0 for all paths, that has [`DEADLINE`] and fails closed.
    pub fn interceptor(name: impl Into<Arc<str>>, interceptor: Arc<dyn Interceptor>) -> Self {
        // Asked here, so that a panic is the one's who registers, and not the actor's.
        let ops = interceptor.ops();
        let manner = Manner { deadline: DEADLINE, on_late: OnLate::Refuse, aside: false };
        Self::new(name, Hook::Interceptor { ops, order: 0, below: None, interceptor, manner })
    }

    /// An observer with a queue of [`QUEUE`] events and a supervised child of its own.
    pub fn observer(name: impl Into<Arc<str>>, observer: Arc<dyn Observer>) -> Self {
        let mask = observer.mask();
        Self::new(name, Hook::Observer { mask, observer, queue: Some(QUEUE) })
    }

    /// A hook for mounts.
    pub fn mount_hook(name: impl Into<Arc<str>>, hook: Arc<dyn MountHook>) -> Self {
        Self::new(name, Hook::Mount(hook))
    }

    fn new(name: impl Into<Arc<str>>, hook: Hook) -> Self {
        Self { name: name.into(), owner: None, hook, running: None }
    }

    /// An interceptor's place among the others: smaller ones run earlier before a call, and later after it. Those of the same order
    /// run as they were registered. Other hooks have no order.
    #[must_use]
    pub fn order(mut self, place: i32) -> Self {
        if let Hook::Interceptor { order, .. } = &mut self.hook {
            *order = place;
        }
        self
    }

    /// Limits an interceptor to calls with a path at `base` or below it. Other hooks are not limited.
    #[must_use]
    pub fn below(mut self, base: VPath) -> Self {
        if let Hook::Interceptor { below, .. } = &mut self.hook {
            *below = Some(base);
        }
        self
    }

    /// How long an interceptor may take, before a call and after it. Other hooks have no deadline.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        if let Hook::Interceptor { manner, .. } = &mut self.hook {
            manner.deadline = limit;
        }
        self
    }

    /// What becomes of a call before which an interceptor panics or misses its deadline. When the call goes on, it does as if the hook were not there: what it
    /// changed is undone, and it is not told what came of the call. Other hooks are not asked whether a call goes on, but resolvers, which fail closed.
    #[must_use]
    pub fn fails(mut self, how: OnLate) -> Self {
        if let Hook::Interceptor { manner, .. } = &mut self.hook {
            manner.on_late = how;
        }
        self
    }

    /// Has an interceptor told what came of a call on a task of the kernel: the caller does not wait for it, and the order of what it is told is nobody's promise.
    /// At most [`ASIDE_MAX`](super::ASIDE_MAX) such runs are under way for one hook; it is not told of a call that finds no room, which is counted as
    /// overflow, and told by [`overflowed`](Interceptor::overflowed).
    #[must_use]
    pub fn aside(mut self) -> Self {
        if let Hook::Interceptor { manner, .. } = &mut self.hook {
            manner.aside = true;
        }
        self
    }

    /// How many events may wait for an observer: from 1 to [`QUEUE_LIMIT`], and what is beyond is taken for the bound. Other hooks have no queue.
    #[must_use]
    pub fn queue(mut self, events: usize) -> Self {
        if let Hook::Observer { queue, .. } = &mut self.hook {
            *queue = Some(events.clamp(1, QUEUE_LIMIT));
        }
        self
    }

    /// Tells an observer without a queue, so it never misses anything, and everybody waits for it: its caller, who is not answered before; or, where the change is told
    /// later than its caller is answered (see [`Observer::observe`]), whoever else is to be told something. So who reads what it cached right after a change may find it as
    /// it was.
    #[must_use]
    pub fn inline(mut self) -> Self {
        if let Hook::Observer { queue, .. } = &mut self.hook {
            *queue = None;
        }
        self
    }

    /// Gives it what a registered hook has beside itself. A registration that is used twice is two hooks, each with its own.
    pub(super) fn run_in(mut self, env: &Env) -> Self {
        let line = match self.hook {
            Hook::Observer { queue: Some(queue), .. } => Some(Arc::new(Line::new(env, queue))),
            _ => None,
        };
        self.running = Some(Arc::new(Running::new(env, line)));
        self
    }

    /// The observer, when it is told in a child of its own.
    pub(super) fn listens(&self) -> Option<(&Arc<dyn Observer>, &Arc<Running>)> {
        let Hook::Observer { observer, .. } = &self.hook else { return None };
        let running = self.running.as_ref().filter(|running| running.line.is_some())?;
        Some((observer, running))
    }

    /// Says whose hook it is: calls made by this agent pass it by.
    #[must_use]
    pub fn owned_by(mut self, agent: impl Into<Arc<str>>) -> Self {
        self.owner = Some(agent.into());
        self
    }

    pub(super) fn kind(&self) -> HookKind {
        match self.hook {
            Hook::Resolver { .. } => HookKind::Resolver,
            Hook::Interceptor { .. } => HookKind::Interceptor,
            Hook::Observer { .. } => HookKind::Observer,
            Hook::Mount(_) => HookKind::Mount,
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("name", &self.name)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}
