//! What calls look at: the hooks, ready to run, and one word that says which kinds there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexus_actors::{Snap, Superseded};
use nexus_messages::{
    Caller, ErrorKind, Event, EventKind, EventMask, HookContext, MountContext, Op, Outcome, VPath, Verdict,
};
use parking_lot::Mutex;

use super::hook::{
    Hook, HookId, Interceptor, MountHook, OPS_MAX, Observer, OpSet, Registration, Resolution, Resolver,
};
use super::pattern::PatternTrie;
use crate::caught::{catch, catch_async};

/// A hook refused the call, or broke, which is the same to the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HookRefusal {
    /// It said no.
    #[error("{hook}: {reason}")]
    Refused {
        /// The hook's name.
        hook: Arc<str>,
        /// What kind of error the call ends with.
        kind: ErrorKind,
        /// Why.
        reason: String,
    },
    /// It panicked.
    #[error("the hook {hook} panicked: {message}")]
    Panicked {
        /// The hook's name.
        hook: Arc<str>,
        /// What the panic said.
        message: String,
    },
}

impl HookRefusal {
    /// The kind of error that the call ends with.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { kind, .. } => *kind,
            Self::Panicked { .. } => ErrorKind::Refused,
        }
    }
}

/// Which kinds of hooks there are, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HookSummary(u64);

const EVENTS_FROM: u32 = OPS_MAX;
const RESOLVERS: u64 = 1 << 62;
const MOUNTS: u64 = 1 << 63;

const _: () = assert!(EVENTS_FROM as usize + EventKind::ALL.len() <= 62);

impl HookSummary {
    /// Whether there is no hook at all.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether some path is resolved by a hook.
    #[inline]
    pub fn has_resolvers(self) -> bool {
        self.0 & RESOLVERS != 0
    }

    /// Whether some interceptor wants to see `op`.
    #[inline]
    pub fn has_interceptors(self, op: Op) -> bool {
        OpSet::from(op).bits() & self.0 != 0
    }

    /// Whether some observer wants to see events of this kind.
    #[inline]
    pub fn has_observers(self, kind: EventKind) -> bool {
        self.0 >> EVENTS_FROM & u64::from(kind.bit()) != 0
    }

    /// Whether somebody wants to hear of mounts.
    #[inline]
    pub fn has_mount_hooks(self) -> bool {
        self.0 & MOUNTS != 0
    }
}

/// The hooks as calls see them: immutable. One call uses one view from beginning to end, so it sees a swap whole or not at all.
#[derive(Default)]
pub struct DispatchView {
    /// Everything that the table knows, so that the next incarnation can start from it.
    registered: Vec<(HookId, Registration)>,
    next: u64,
    summary: HookSummary,
    patterns: PatternTrie,
    resolvers: Vec<Ready<dyn Resolver>>,
    /// Invariant: by order, then by registration.
    interceptors: Vec<Placed>,
    observers: Vec<(EventMask, Ready<dyn Observer>)>,
    mount_hooks: Vec<Ready<dyn MountHook>>,
}

struct Ready<H: ?Sized> {
    name: Arc<str>,
    owner: Option<Arc<str>>,
    hook: Arc<H>,
}

struct Placed {
    order: i32,
    ops: OpSet,
    below: Option<VPath>,
    interceptor: Ready<dyn Interceptor>,
}

impl DispatchView {
    pub(super) fn build(registered: Vec<(HookId, Registration)>, next: u64) -> Self {
        let mut view = Self { next, ..Self::default() };
        for (_, Registration { name, owner, hook }) in &registered {
            let (name, owner) = (name.clone(), owner.clone());
            match hook.clone() {
                Hook::Resolver { pattern, resolver } => {
                    view.patterns.insert(&pattern, view.resolvers.len());
                    view.resolvers.push(Ready { name, owner, hook: resolver });
                    view.summary.0 |= RESOLVERS;
                }
                Hook::Interceptor { ops, order, below, interceptor } => {
                    let interceptor = Ready { name, owner, hook: interceptor };
                    view.interceptors.push(Placed { order, ops, below, interceptor });
                    view.summary.0 |= ops.bits();
                }
                Hook::Observer { mask, observer } => {
                    view.observers.push((mask, Ready { name, owner, hook: observer }));
                    view.summary.0 |= u64::from(mask.bits()) << EVENTS_FROM;
                }
                Hook::Mount(hook) => {
                    view.mount_hooks.push(Ready { name, owner, hook });
                    view.summary.0 |= MOUNTS;
                }
            }
        }
        view.interceptors.sort_by_key(|placed| placed.order); // Stable: registration decides among equals.
        view.registered = registered;
        view
    }

    pub(super) fn registered(&self) -> (&[(HookId, Registration)], u64) {
        (&self.registered, self.next.max(1))
    }

    /// Which kinds of hooks there are.
    pub fn summary(&self) -> HookSummary {
        self.summary
    }

    /// Where `path` really is, when a resolver says that it is elsewhere. The resolver with the best pattern decides alone.
    pub fn resolve(&self, caller: &Caller, path: &VPath) -> Result<Option<VPath>, HookRefusal> {
        let Some(best) = self.patterns.find(path, |number| !self.resolvers[number].is_own(caller)) else {
            return Ok(None);
        };
        let resolver = &self.resolvers[best];
        match catch(|| resolver.hook.resolve(caller, path)) {
            Ok(Resolution::Unchanged) => Ok(None),
            Ok(Resolution::Rewrite(to)) => Ok((to != *path).then_some(to)),
            Ok(Resolution::Refuse(reason)) => Err(resolver.refused(ErrorKind::Refused, reason)),
            Err(message) => Err(resolver.panicked(message)),
        }
    }

    /// Runs the interceptors before the call, in their order, until one refuses. Each sees the call as the one before it left it.
    pub async fn before(&self, cx: &mut HookContext) -> Result<(), HookRefusal> {
        for placed in &self.interceptors {
            if !placed.wants(cx) {
                continue;
            }
            let hook = &placed.interceptor;
            match catch_async(|| hook.hook.before(cx)).await {
                Ok(Verdict::Refuse { kind, reason }) => return Err(hook.refused(kind, reason)),
                Ok(_) => {}
                Err(message) => return Err(hook.panicked(message)),
            }
        }
        Ok(())
    }

    /// Runs the interceptors after the call, in the opposite order. None of them can change what came of it.
    pub async fn after(&self, cx: &HookContext, outcome: &Outcome) {
        for placed in self.interceptors.iter().rev().filter(|placed| placed.wants(cx)) {
            let hook = &placed.interceptor;
            hook.log(catch_async(|| hook.hook.after(cx, outcome)).await);
        }
    }

    /// Tells the observers of `event`.
    pub fn observe(&self, event: &Event) {
        for (mask, observer) in &self.observers {
            if mask.contains(event.kind) && !observer.is_own(&event.caller) {
                observer.log(catch(|| observer.hook.observe(event)));
            }
        }
    }

    /// Tells the mount hooks of a mount that serves now.
    pub async fn mounted(&self, cx: &MountContext) {
        for hook in self.mount_hooks_for(cx) {
            hook.log(catch_async(|| hook.hook.on_mount(cx)).await);
        }
    }

    /// Tells the mount hooks of a mount that has served its last call.
    pub async fn unmounted(&self, cx: &MountContext) {
        for hook in self.mount_hooks_for(cx) {
            hook.log(catch_async(|| hook.hook.on_unmount(cx)).await);
        }
    }

    fn mount_hooks_for<'a>(&'a self, cx: &'a MountContext) -> impl Iterator<Item = &'a Ready<dyn MountHook>> {
        let own = |hook: &Ready<dyn MountHook>| cx.caller.as_ref().is_some_and(|caller| hook.is_own(caller));
        self.mount_hooks.iter().filter(move |hook| !own(hook))
    }
}

impl Placed {
    fn wants(&self, cx: &HookContext) -> bool {
        self.ops.contains(cx.call.op())
            && !self.interceptor.is_own(&cx.caller)
            && self.below.as_ref().is_none_or(|base| {
                cx.call.path().is_within(base)
                    || cx.call.other_path().is_some_and(|path| path.is_within(base))
            })
    }
}

impl<H: ?Sized> Ready<H> {
    fn is_own(&self, caller: &Caller) -> bool {
        self.owner.as_deref() == Some(&*caller.agent)
    }

    fn refused(&self, kind: ErrorKind, reason: String) -> HookRefusal {
        HookRefusal::Refused { hook: self.name.clone(), kind, reason }
    }

    fn panicked(&self, message: String) -> HookRefusal {
        tracing::error!(hook = &*self.name, %message, "a hook panicked, and its call is refused");
        HookRefusal::Panicked { hook: self.name.clone(), message }
    }

    fn log(&self, ran: Result<(), String>) {
        if let Err(message) = ran {
            tracing::error!(hook = &*self.name, %message, "a hook panicked after the call");
        }
    }
}

/// The hooks as they are published: by the dispatch actor, to everybody.
#[derive(Default)]
pub struct PublishedHooks {
    /// Invariant: the summary of `view`, or for a moment that of the one before it.
    summary: AtomicU64,
    view: Snap<DispatchView>,
    /// Held while both change, so that of two writers the newer one has the last word in both.
    publishing: Mutex<()>,
}

impl PublishedHooks {
    /// No hook.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which kinds of hooks there are: one load. When a kind is there, [`view`](Self::view) has it.
    #[inline]
    pub fn summary(&self) -> HookSummary {
        HookSummary(self.summary.load(Ordering::Acquire)) // Pairs with the release in `publish`.
    }

    /// The newest view, to be kept for the length of a call. Costs a shared reference count: look at the
    /// [`summary`](Self::summary) first.
    pub fn view(&self) -> Arc<DispatchView> {
        self.view.get()
    }

    /// The newest view, unless there is no hook at all: then one load.
    #[inline]
    pub fn get(&self) -> Option<Arc<DispatchView>> {
        if self.summary().is_empty() { None } else { Some(self.view()) }
    }

    /// Makes `view` the one that later calls see. `writer` is the generation of the actor that publishes.
    pub(super) fn publish(&self, writer: u64, view: DispatchView) -> Result<(), Superseded> {
        let summary = view.summary;
        let _both = self.publishing.lock();
        self.view.publish(writer, view)?;
        self.summary.store(summary.0, Ordering::Release);
        Ok(())
    }

    /// Takes the pen for `writer`, and gives what to go on from.
    pub(super) fn claim(&self, writer: u64) -> Result<Arc<DispatchView>, Superseded> {
        self.view.claim(writer)
    }
}
