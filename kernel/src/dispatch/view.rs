//! What calls look at: the hooks, ready to run, and one word that says which kinds there are.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use nexus_actors::{Panicked, Snap, Superseded};
use nexus_messages::{
    CONFLICT_BITS, Caller, EVENT_BITS, ErrorKind, EventKind, EventMask, HookContext, MountContext, Op, VPath,
};
use parking_lot::Mutex;

use super::counts::{Count, Manner, Running};
use super::hook::{Hook, HookId, Interceptor, MountHook, OPS_MAX, Observer, OpSet, Registration, Resolver};
use super::pattern::{Pattern, PatternTrie};
use super::services::Covered;
use crate::caught::catch_async;
use crate::service::Shape;

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

const _: () = assert!(EVENTS_FROM + EVENT_BITS <= 62);
// Also with the kinds that there is room for.
const _: () = assert!(EVENTS_FROM + CONFLICT_BITS.end <= 62);

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

    /// Those of the operations that some interceptor wants to see.
    #[inline]
    pub(crate) fn intercepted(self, ops: OpSet) -> OpSet {
        ops.among(self.0)
    }

    /// Whether some observer wants to see events of this kind.
    #[inline]
    pub fn has_observers(self, kind: EventKind) -> bool {
        self.0 >> EVENTS_FROM & u64::from(kind.bit()) != 0
    }

    /// Whether some observer wants to see any event.
    #[inline]
    pub fn has_any_observers(self) -> bool {
        self.0 >> EVENTS_FROM & u64::from(EventMask::ALL.bits()) != 0
    }

    /// Whether somebody wants to hear of mounts.
    #[inline]
    pub fn has_mount_hooks(self) -> bool {
        self.0 & MOUNTS != 0
    }
}

/// The hooks as calls see them: immutable. One call uses one view from beginning to end, so it sees a change whole or not at all.
#[derive(Default)]
pub struct DispatchView {
    /// Everything that the table knows, so that the next incarnation can start from it.
    registered: Vec<(HookId, Registration)>,
    covered: Vec<(HookId, Covered)>,
    next: u64,
    summary: HookSummary,
    pub(super) patterns: PatternTrie,
    pub(super) resolvers: Vec<Ready<dyn Resolver>>,
    /// Invariant: by order, then by registration.
    pub(super) interceptors: Vec<Placed>,
    pub(super) observers: Vec<(EventMask, Ready<dyn Observer>)>,
    mount_hooks: Vec<Ready<dyn MountHook>>,
}

pub(super) struct Ready<H: ?Sized> {
    pub(super) name: Arc<str>,
    pub(super) owner: Option<Arc<str>>,
    pub(super) hook: Of<H>,
    /// None in a table that nobody runs.
    pub(super) running: Option<Arc<Running>>,
}

/// Whose hook it is.
pub(super) enum Of<H: ?Sized> {
    /// A trusted module's, which registered it as it is.
    Module(Arc<H>),
    /// A service's: found in the version that serves.
    Service(Place),
}

/// Where the hook of a service is.
#[derive(Clone)]
pub(super) struct Place {
    /// The service, by its place in the view.
    pub(super) service: usize,
    /// Its place in each version that has it.
    indices: Vec<(u64, usize)>,
}

pub(super) struct Placed {
    order: i32,
    ops: OpSet,
    below: Option<VPath>,
    pub(super) interceptor: Ready<dyn Interceptor>,
    /// Of a module's.
    pub(super) manner: Option<Manner>,
}

impl DispatchView {
    pub(super) fn build(
        registered: Vec<(HookId, Registration)>,
        covered: Vec<(HookId, Covered)>,
        next: u64,
    ) -> Self {
        let mut view = Self { next, ..Self::default() };
        let mut services = covered.iter().enumerate().peekable();
        for (id, Registration { name, owner, hook, running }) in &registered {
            while let Some((number, (_, service))) = services.next_if(|(_, (place, _))| place < id) {
                view.add_service(number, service);
            }
            let (name, owner, running) = (name.clone(), owner.clone(), running.clone());
            match hook.clone() {
                Hook::Resolver { pattern, resolver } => {
                    let hook = Of::Module(resolver);
                    view.add_resolver(&pattern, Ready { name, owner, hook, running });
                }
                Hook::Interceptor { ops, order, below, interceptor, manner } => {
                    let interceptor = Ready { name, owner, hook: Of::Module(interceptor), running };
                    let manner = Some(manner);
                    view.add_interceptor(Placed { order, ops, below, interceptor, manner });
                }
                Hook::Observer { mask, observer, .. } => {
                    view.add_observer(mask, Ready { name, owner, hook: Of::Module(observer), running });
                }
                Hook::Mount(hook) => {
                    view.mount_hooks.push(Ready { name, owner, hook: Of::Module(hook), running });
                    view.summary.0 |= MOUNTS;
                }
            }
        }
        for (number, (_, service)) in services {
            view.add_service(number, service);
        }
        view.interceptors.sort_by_key(|placed| placed.order); // Stable: registration decides among equals.
        (view.registered, view.covered) = (registered, covered);
        view
    }

    fn add_service(&mut self, service: usize, covered: &Covered) {
        let hooks = covered.keys.iter().zip(&covered.indices).zip(&covered.running);
        for ((key, indices), running) in hooks {
            let running = Some(running.clone());
            let (name, owner) = (Arc::from(key.name), Some(covered.owner.clone()));
            let place = Place { service, indices: indices.clone() };
            match &key.shape {
                Shape::Resolver { pattern } => {
                    self.add_resolver(pattern, Ready { name, owner, hook: Of::Service(place), running });
                }
                Shape::Interceptor { ops, order, below } => {
                    let interceptor = Ready { name, owner, hook: Of::Service(place), running };
                    let (order, ops, below) = (*order, *ops, below.clone());
                    self.add_interceptor(Placed { order, ops, below, interceptor, manner: None });
                }
                Shape::Observer { mask } => {
                    self.add_observer(*mask, Ready { name, owner, hook: Of::Service(place), running });
                }
            }
        }
    }

    fn add_resolver(&mut self, pattern: &Pattern, resolver: Ready<dyn Resolver>) {
        self.patterns.insert(pattern, self.resolvers.len());
        self.resolvers.push(resolver);
        self.summary.0 |= RESOLVERS;
    }

    fn add_interceptor(&mut self, placed: Placed) {
        self.summary.0 |= placed.ops.bits();
        self.interceptors.push(placed);
    }

    fn add_observer(&mut self, mask: EventMask, observer: Ready<dyn Observer>) {
        self.summary.0 |= u64::from(mask.bits()) << EVENTS_FROM;
        self.observers.push((mask, observer));
    }

    pub(super) fn registered(&self) -> &[(HookId, Registration)] {
        &self.registered
    }

    pub(super) fn covered_at(&self) -> &[(HookId, Covered)] {
        &self.covered
    }

    /// The next identity to be given.
    pub(super) fn next(&self) -> u64 {
        self.next.max(1)
    }

    /// The services with hooks.
    pub(super) fn covered(&self) -> impl ExactSizeIterator<Item = &Covered> {
        self.covered.iter().map(|(_, covered)| covered)
    }

    /// The service at this place.
    pub(super) fn service(&self, number: usize) -> &Covered {
        &self.covered[number].1
    }

    /// Which kinds of hooks there are.
    pub fn summary(&self) -> HookSummary {
        self.summary
    }

    /// Tells the mount hooks of a mount that serves now.
    pub async fn mounted(&self, cx: &MountContext) {
        for (hook, mount_hook) in self.mount_hooks_for(cx) {
            hook.counted(catch_async(|| mount_hook.on_mount(cx))).await;
        }
    }

    /// Tells the mount hooks of a mount that has served its last call.
    pub async fn unmounted(&self, cx: &MountContext) {
        for (hook, mount_hook) in self.mount_hooks_for(cx) {
            hook.counted(catch_async(|| mount_hook.on_unmount(cx))).await;
        }
    }

    fn mount_hooks_for<'a>(
        &'a self,
        cx: &'a MountContext,
    ) -> impl Iterator<Item = (&'a Ready<dyn MountHook>, &'a Arc<dyn MountHook>)> {
        let own = |hook: &Ready<dyn MountHook>| cx.caller.as_ref().is_some_and(|caller| hook.is_own(caller));
        self.mount_hooks.iter().filter(move |hook| !own(hook)).filter_map(|hook| match &hook.hook {
            Of::Module(mount_hook) => Some((hook, mount_hook)),
            Of::Service(_) => None,
        })
    }
}

impl Placed {
    pub(super) fn wants(&self, cx: &HookContext) -> bool {
        self.ops.contains(cx.call.op())
            && !self.interceptor.is_own(&cx.caller)
            && self.below.as_ref().is_none_or(|base| {
                cx.call.path().is_within(base)
                    || cx.call.other_path().is_some_and(|path| path.is_within(base))
            })
    }
}

impl Place {
    /// Its place in the version of this number; none when that version has no such hook.
    pub(super) fn within(&self, version: u64) -> Option<usize> {
        self.indices.iter().find(|(number, _)| *number == version).map(|(_, index)| *index)
    }
}

impl<H: ?Sized> Ready<H> {
    pub(super) fn is_own(&self, caller: &Caller) -> bool {
        self.owner.as_deref() == Some(&*caller.agent)
    }

    pub(super) fn refused(&self, kind: ErrorKind, reason: String) -> HookRefusal {
        HookRefusal::Refused { hook: self.name.clone(), kind, reason }
    }

    pub(super) fn panicked(&self, panicked: &Panicked) -> HookRefusal {
        tracing::error!(hook = &*self.name, %panicked, "a hook panicked before the call");
        HookRefusal::Panicked { hook: self.name.clone(), message: panicked.message.to_string() }
    }

    /// Counts how long it takes, and a panic, which is logged.
    async fn counted(&self, run: impl Future<Output = Result<(), Panicked>>) {
        let began = self.begin();
        let ran = run.await;
        self.ended(began);
        self.log(ran);
    }

    /// When the hook is called; none when nobody counts.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.running.as_ref().map(|running| running.begin())
    }

    /// Counts a call that began then.
    pub(super) fn ended(&self, began: Option<Instant>) {
        if let (Some(running), Some(began)) = (&self.running, began) {
            running.ended(began);
        }
    }

    pub(super) fn count(&self, what: Count) {
        if let Some(running) = &self.running {
            running.count(what);
        }
    }

    pub(super) fn log(&self, ran: Result<(), Panicked>) {
        if let Err(panicked) = ran {
            self.count(Count::Error);
            tracing::error!(hook = &*self.name, %panicked, "a hook panicked after the call");
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
    /// When observers are to have ended, once the kernel ends.
    pub(super) ends_by: OnceLock<Instant>,
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
