//! The kernel: what the primitives publish, put together. `tree.rs` is the supervision tree that owns them, `config.rs` the settings, `mounting.rs` what is asked about
//! mounts.

mod config;
mod mounting;
mod tree;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use futures_util::future::join_all;
use nexus_actors::{CallError, Env, MailboxBounds, Pool, Ref};
use nexus_messages::{
    Caller, ContentId, EntryType, Error, ErrorKind, Event, LifeId, Op, OpId, Result, Timestamp, VPath, ZoneId,
};
use nexus_supervisors::{Strategy, SupSpec, SupervisorRef, Tree};
use parking_lot::Mutex;

pub use config::{CacheStats, KernelConfig};

use crate::advisory::{Advisory, AdvisoryLocks, Hearing, OtherTables};
use crate::cache::KernelCache;
use crate::children::{ChildTable, Children, Claims, Hosting};
use crate::content::{self, ContentCache, HASH_HERE_MAX};
use crate::dispatch::{Dispatch, PublishedHooks};
use crate::garbage::{Collector, Garbage};
use crate::gate::PermissionGate;
use crate::hal::{Catalogue, Metastore, StoreError};
use crate::lives::{Life, Lives};
use crate::locks::PathLocks;
use crate::metrics::Syscalls;
use crate::mounts::{Lifecycle, Migrations, Mount, MountStatus, MountTimes, Mounts, Zones};
use crate::namespace::{MetadataCache, Node};
use crate::pipes::{PipeTable, Pipes};
use crate::pruning::Pruning;
use crate::registry::{Registry, Services};
use crate::router::{Router, RouterView};
use crate::scrub::{Scrubber, Scrubbing};
use crate::service::ServiceCatalogue;
use crate::store::{PutOff, Store, StoreStats};
use crate::streams::{StreamTable, Streams};
use crate::sys;
use crate::syscalls::{Serve, span};
use crate::underway::Underway;
use crate::watcher::{Wakers, Watcher, Watches};

/// Messages that may wait for one primitive.
const MAILBOX_MAX: usize = 1_024;

/// Threads that hash large content.
const HASH_THREADS: usize = 2;

/// Large contents that may wait to be hashed.
const HASH_QUEUE: usize = 64;

/// How long the end of the kernel waits until observers are told what was committed.
const TELL_MAX: Duration = Duration::from_secs(5);

/// What is remembered of content and metadata.
#[derive(Debug)]
pub(crate) struct Caches {
    pub(crate) metadata: MetadataCache,
    pub(crate) content: ContentCache,
}

/// A kernel. Shared by everything that calls it.
pub struct Kernel {
    env: Env,
    config: KernelConfig,
    store: Arc<Store>,
    caches: Caches,
    cache: Arc<KernelCache>,
    routes: RouterView<Arc<Mount>>,
    router: Ref<Router<Arc<Mount>>>,
    locks: PathLocks,
    lives: Lives,
    advisory: Arc<AdvisoryLocks>,
    advisory_actor: Ref<Advisory>,
    other_locks: OtherTables,
    pipes: PipeTable,
    pipes_actor: Ref<Pipes>,
    streams: StreamTable,
    streams_actor: Ref<Streams>,
    hosting: Hosting,
    children: ChildTable,
    claims: Claims,
    children_actor: Ref<Children>,
    hooks: Arc<PublishedHooks>,
    dispatch: Ref<Dispatch>,
    watcher: Ref<Watcher>,
    gate: PermissionGate,
    catalogue: Arc<Catalogue>,
    mounts: Mounts,
    migrations: Migrations,
    zones: Zones,
    lifecycle: Ref<Lifecycle>,
    drivers: SupervisorRef,
    registry: Ref<Registry>,
    services: Arc<Services>,
    service_catalogue: ServiceCatalogue,
    service_children: SupervisorRef,
    hashing: Pool,
    garbage: Arc<Garbage>,
    collector: Ref<Collector>,
    scrubbing: Scrubbing,
    scrubber: Ref<Scrubber>,
    syscalls: Syscalls,
    underway: Arc<Underway>,
    pruning: Pruning,
    /// What paths below `/__sys__/` are resolved to.
    sys: Arc<Mount>,
    /// The running tree, once it runs.
    tree: Mutex<Weak<Tree>>,
}

impl Kernel {
    /// A kernel over `metastore`, and the supervision tree that brings it to life. Nothing is mounted until the tree runs and
    /// [`remount`](Self::remount) was called.
    ///
    /// # Errors
    /// What the metastore says when it is asked for its numbers.
    pub fn new(
        env: &Env,
        config: KernelConfig,
        metastore: Arc<dyn Metastore>,
        catalogue: Arc<Catalogue>,
    ) -> std::result::Result<(Arc<Self>, SupSpec), StoreError> {
        let put_off = PutOff { within: config.flush_within, bytes_max: config.unflushed_max_bytes };
        let store = Arc::new(Store::new(env.clone(), metastore, put_off)?);
        let restarts = |spec: SupSpec| spec.restarts(config.restarts_max, config.restarts_within);
        // A driver harms only its mount: however often its actor ends, its supervisor goes on, and waits longer from one restart to the next.
        let drivers = SupSpec::new("drivers", Strategy::OneForOne).restarts(u32::MAX, config.restarts_within);
        let services = restarts(SupSpec::new("services", Strategy::OneForOne));
        let clock = env.clone();
        let registry: Ref<Registry> = mailbox(env, "registry");
        let advisory_actor: Ref<Advisory> = mailbox(env, "advisory");
        let hooks = Arc::new(PublishedHooks::new());
        let hearing = Arc::new(Hearing::new(store.watches().clone(), hooks.clone()));
        let kernel = Arc::new(Self {
            caches: Caches {
                metadata: MetadataCache::new(config.metadata_cache_bytes),
                content: ContentCache::new(config.content_cache_bytes),
            },
            cache: Arc::new(KernelCache::new(env)),
            routes: RouterView::new(),
            router: mailbox(env, "router"),
            locks: PathLocks::new(move || Timestamp(clock.wall())),
            lives: Lives::default(),
            advisory: Arc::new(AdvisoryLocks::new(
                env,
                advisory_actor.clone(),
                hearing.clone(),
                config.locks_per_agent,
            )),
            advisory_actor,
            other_locks: OtherTables::default(),
            pipes: PipeTable::new(),
            pipes_actor: mailbox(env, "pipes"),
            streams: StreamTable::default(),
            streams_actor: mailbox(env, "streams"),
            hosting: Hosting::default(),
            children: ChildTable::since(env.wall()),
            claims: Claims::default(),
            children_actor: mailbox(env, "children"),
            hooks,
            dispatch: mailbox(env, "dispatch"),
            watcher: mailbox(env, "watcher"),
            gate: PermissionGate::new(),
            catalogue,
            mounts: Mounts::default(),
            migrations: Migrations::default(),
            zones: Zones::default(),
            lifecycle: mailbox(env, "lifecycle"),
            drivers: drivers.handle(env),
            services: Services::new(env, registry.clone()),
            registry,
            service_catalogue: ServiceCatalogue::default(),
            service_children: services.handle(env),
            hashing: env.pool("hash", HASH_THREADS, HASH_QUEUE),
            garbage: Arc::new(Garbage::new(env)),
            collector: mailbox(env, "garbage"),
            scrubbing: Scrubbing::new(env),
            scrubber: mailbox(env, "scrub"),
            syscalls: Syscalls::new(),
            underway: Arc::default(),
            pruning: Pruning::default(),
            sys: sys::mount(),
            tree: Mutex::default(),
            store,
            config: config.clone(),
            env: env.clone(),
        });
        hearing.open(&kernel);
        let tree = kernel.tree(restarts, drivers, services);
        Ok((kernel, tree))
    }

    /// Executes a syscall for `caller`, on the task that polls.
    ///
    /// # Errors
    /// What the syscall's documentation says.
    #[expect(clippy::manual_async_fn, reason = "an async function would copy the call before it looks at it")]
    pub fn send<S: Serve>(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        mut call: S,
    ) -> impl Future<Output = Result<S::Done>> + Send {
        async move {
            match self.at_hand(caller, &mut call) {
                Some(done) => Ok(done),
                None => self.ask(caller, call).await,
            }
        }
    }

    /// The answer to a call, when it is at hand, and the call was executed then; none, and nothing is done, when [`send`](Self::send) is to be asked. Does not wait.
    #[inline]
    pub fn at_hand<S: Serve>(&self, caller: &Caller, call: &mut S) -> Option<S::Done> {
        if span::is_wanted() { None } else { self.warm_answer(caller, call) }
    }

    /// As [`at_hand`](Self::at_hand), whoever wants to trace it.
    #[inline]
    pub(crate) fn warm_answer<S: Serve>(&self, caller: &Caller, call: &mut S) -> Option<S::Done> {
        let done = call.warm(self, caller)?;
        self.syscalls.warm(S::OP);
        Some(done)
    }

    /// As [`send`](Self::send), of a call whose answer is not at hand.
    pub async fn ask<S: Serve>(self: &Arc<Self>, caller: &Arc<Caller>, call: S) -> Result<S::Done> {
        if span::is_wanted() {
            return Box::pin(span::around(self, caller, call)).await;
        }
        self.execute(caller, call).await
    }

    /// Executes a syscall and counts it.
    pub(crate) async fn execute<S: Serve>(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        call: S,
    ) -> Result<S::Done> {
        let counted = self.syscalls.begin(S::OP, &self.env);
        let done = call.serve(self, caller).await;
        counted.with(done.as_ref().err().map(Error::errno));
        done
    }

    /// A new life, for somebody who will call. Does not wait.
    pub fn begin_life(self: &Arc<Self>) -> Life {
        Life::begin(self)
    }

    /// Lets go of what is tied to a life that has ended, or begins anew. Does not wait; may be repeated.
    pub(crate) fn end_life(&self, life: LifeId) {
        debug_assert_ne!(life, LifeId::KERNEL, "the kernel's own life ends with the kernel");
        self.advisory.end(life);
        self.other_locks.end(life);
        self.pipes.end_life(life);
        self.streams.end_life(life);
        self.children.end_life(life);
    }

    /// Tells the kernel which tree its actors run in, for [`sys`](crate::sys) to show. To be called when the tree runs; may be repeated.
    pub fn set_tree(&self, tree: &Arc<Tree>) {
        *self.tree.lock() = Arc::downgrade(tree);
    }

    /// Tells observers, and queues for them, what was committed so far; what was acknowledged before it was on disk is flushed for that. Waits no longer than some seconds for calls whose
    /// changes come first, and for the disk. Of what is acknowledged later nothing is said. To be called before the tree is stopped; may be repeated.
    pub async fn tell_observers(&self) {
        if self.env.timeout(TELL_MAX, self.store.all_told()).await.is_err() {
            tracing::warn!("observers were not told all that was committed");
        }
    }

    /// Has observers, who are told one after the other when the tree stops, be done with what was queued for them within some seconds in all. To be called before the tree is
    /// stopped. Does not wait; may be repeated.
    pub fn end_observers(&self) {
        self.hooks.end_observers(&self.env);
    }

    /// Has all drivers bring to their backends what lies on this machine alone, for at most `limit`. What does not get there stays, and goes there when it is
    /// mounted again. To be called before the tree is stopped; may be repeated.
    pub async fn flush_drivers(&self, limit: Duration) {
        let mounts = self.routes.read(|routes| routes.iter().cloned().collect::<Vec<_>>());
        let flushes = mounts.iter().map(async |mount| {
            if let Err(why) = mount.flush(self, limit).await {
                let left = mount.left_here().unwrap_or_default();
                tracing::warn!(point = %mount.point, %why, left, "what was written back is not at its store: it stays in the data folder");
            }
        });
        join_all(flushes).await;
    }

    /// Takes the drivers out of their mounts: each ends with the last call in it, and with it what it holds. To be called when the tree has stopped,
    /// which leaves them where they are. Does not wait; may be repeated.
    pub fn release_drivers(&self) {
        let mounts = self.routes.read(|routes| routes.iter().cloned().collect::<Vec<_>>());
        for mount in mounts {
            mount.release(&self.env);
        }
    }

    /// Commits nothing any more: a call that waits for the committer's restart, for changes, for a pipe or a stream, is told at once that the kernel has ended. To be called when the tree
    /// has stopped; may be repeated.
    pub fn close_store(&self) {
        self.store.close();
        self.watches().close();
        self.pipes.end();
        self.streams.end();
        self.end_children();
    }

    /// The mounts and how they are. Sends no mail.
    pub fn mount_statuses(&self) -> Vec<MountStatus> {
        self.mounts.statuses(&self.env, &self.catalogue)
    }

    /// How long the calls of the mounts' drivers took.
    pub(crate) fn mount_times(&self) -> Vec<MountTimes> {
        self.mounts.measured()
    }

    /// What the committer has done so far.
    pub fn store_stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// What the caches hold.
    pub fn cache_stats(&self) -> CacheStats {
        CacheStats {
            metadata_entries: self.caches.metadata.len(),
            metadata_bytes: self.caches.metadata.bytes(),
            content_bytes: self.caches.content.bytes(),
        }
    }

    /// How often the metadata cache and the content cache had what was looked for, and how often not.
    pub(crate) fn cache_hits_and_misses(&self) -> [(u64, u64); 2] {
        // Calls that are answered from memory count themselves once, and not what they find: a stat finds metadata, a read both.
        let (stats, reads) = (self.syscalls.warm_of(Op::Stat), self.syscalls.warm_of(Op::Read));
        let (metadata, content) =
            (self.caches.metadata.hits_and_misses(), self.caches.content.hits_and_misses());
        [(metadata.0 + stats + reads, metadata.1), (content.0 + reads, content.1)]
    }

    /// The locks that are held and were taken. Sends no mail.
    pub fn path_locks(&self) -> &PathLocks {
        &self.locks
    }

    /// The hooks, as they are published.
    pub fn hooks(&self) -> &PublishedHooks {
        &self.hooks
    }

    /// Where hooks are registered.
    pub fn dispatch_actor(&self) -> &Ref<Dispatch> {
        &self.dispatch
    }

    /// The kinds of services that this process knows.
    pub fn service_catalogue(&self) -> &ServiceCatalogue {
        &self.service_catalogue
    }

    /// Tells observers and watchers of something that happened and is committed nowhere, as when an advisory lock is given. Whoever calls this holds no lock
    /// that an observer may want.
    ///
    /// Neither blocks nor waits: observers are told on a task of their own. What is told so is in no log, so a watch that resumes does not hear of it.
    pub fn announce(self: &Arc<Self>, event: Event) {
        let zone = event.caller.zone.clone();
        self.announced(&zone, event).into_iter().for_each(Waker::wake);
    }

    /// As [`announce`](Self::announce), of what is at its path as `zone` sees it, with those given who are to be woken: for who holds a lock, and lets go of it first.
    pub(crate) fn announced(self: &Arc<Self>, zone: &ZoneId, mut event: Event) -> Wakers {
        let watches = self.watches();
        // Whose paths lead nowhere nobody can watch.
        let tree = self.routes.read(|routes| routes.route(zone, &event.path).map(|route| route.mount.tree));
        if self.hooks.summary().has_observers(event.kind) {
            event.lsn = tree.map_or(event.lsn, |tree| watches.place(tree));
            let (kernel, event) = (self.clone(), event.clone());
            self.env.spawn("kernel.announce", async move { kernel.hooks.tell(&event).await });
        }
        tree.map_or_else(Wakers::new, |tree| watches.announced(tree, event))
    }

    /// The permission gate.
    pub fn permission_gate(&self) -> &PermissionGate {
        &self.gate
    }

    /// Clock, randomness, tasks.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The running tree; none before it runs and after it is gone.
    pub fn supervised(&self) -> Option<Arc<Tree>> {
        self.tree.lock().upgrade()
    }

    pub(crate) fn config(&self) -> &KernelConfig {
        &self.config
    }

    pub(crate) fn syscalls(&self) -> &Syscalls {
        &self.syscalls
    }

    /// The operations whose calls are under way, and those that are in doubt.
    pub(crate) fn underway(&self) -> &Arc<Underway> {
        &self.underway
    }

    pub(crate) fn sys_mount(&self) -> &Arc<Mount> {
        &self.sys
    }

    /// Where the walks through the histories are.
    pub(crate) fn pruning(&self) -> &Pruning {
        &self.pruning
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What is held against collections, and how they went.
    pub(crate) fn garbage(&self) -> &Arc<Garbage> {
        &self.garbage
    }

    pub(crate) fn collector(&self) -> &Ref<Collector> {
        &self.collector
    }

    /// What is being checked, and what was found.
    pub(crate) fn scrubbing(&self) -> &Scrubbing {
        &self.scrubbing
    }

    pub(crate) fn scrubber(&self) -> &Ref<Scrubber> {
        &self.scrubber
    }

    pub(crate) fn caches(&self) -> &Caches {
        &self.caches
    }

    pub(crate) fn routes(&self) -> &RouterView<Arc<Mount>> {
        &self.routes
    }

    pub(crate) fn router(&self) -> &Ref<Router<Arc<Mount>>> {
        &self.router
    }

    /// The advisory locks that are held and waited for, and the semaphores. Sends no mail.
    pub fn advisory(&self) -> &Arc<AdvisoryLocks> {
        &self.advisory
    }

    pub(crate) fn other_locks(&self) -> &OtherTables {
        &self.other_locks
    }

    pub(crate) fn lives(&self) -> &Lives {
        &self.lives
    }

    /// The pipes that are open.
    pub(crate) fn pipes(&self) -> &PipeTable {
        &self.pipes
    }

    pub(crate) fn pipes_actor(&self) -> &Ref<Pipes> {
        &self.pipes_actor
    }

    /// The streams that are open.
    pub(crate) fn streams(&self) -> &StreamTable {
        &self.streams
    }

    pub(crate) fn streams_actor(&self) -> &Ref<Streams> {
        &self.streams_actor
    }

    /// What starts programs.
    pub(crate) fn kernel_cache(&self) -> &Arc<KernelCache> {
        &self.cache
    }

    pub(crate) fn hosting(&self) -> &Hosting {
        &self.hosting
    }

    /// The child processes.
    pub(crate) fn children_table(&self) -> &ChildTable {
        &self.children
    }

    /// The paths of children that are being started.
    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(crate) fn children_actor(&self) -> &Ref<Children> {
        &self.children_actor
    }

    pub(crate) fn locks(&self) -> &PathLocks {
        &self.locks
    }

    pub(crate) fn dispatch(&self) -> &PublishedHooks {
        &self.hooks
    }

    /// Where watches begin and end.
    pub(crate) fn watcher(&self) -> &Ref<Watcher> {
        &self.watcher
    }

    /// Who watches what.
    pub(crate) fn watches(&self) -> &Arc<Watches> {
        self.store.watches()
    }

    pub(crate) fn gate(&self) -> &PermissionGate {
        &self.gate
    }

    pub(crate) fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    pub(crate) fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    pub(crate) fn migrations(&self) -> &Migrations {
        &self.migrations
    }

    pub(crate) fn zones(&self) -> &Zones {
        &self.zones
    }

    pub(crate) fn drivers(&self) -> &SupervisorRef {
        &self.drivers
    }

    pub(crate) fn registry(&self) -> &Ref<Registry> {
        &self.registry
    }

    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The supervisor of the services.
    pub(crate) fn service_children(&self) -> &SupervisorRef {
        &self.service_children
    }

    /// How long one message may hold an actor of the kernel.
    pub(crate) fn watchdog(&self) -> Duration {
        self.config.watchdog
    }

    pub(crate) fn data_folder(&self) -> Option<&Path> {
        self.config.data_folder.as_deref()
    }

    pub(crate) fn new_op_id(&self) -> OpId {
        OpId((u128::from(self.env.random()) << 64) | u128::from(self.env.random()))
    }

    /// Whether a hook or a permission provider stands before calls.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        !self.hooks.summary().is_empty() || self.gate.is_guarded()
    }

    /// Whether a call that no observer hears of meets anybody on its way: a resolver, an interceptor, a permission provider.
    #[inline]
    pub(crate) fn is_watched(&self, op: Op) -> bool {
        let hooks = self.hooks.summary();
        hooks.has_resolvers() || hooks.has_interceptors(op) || self.gate.is_guarded()
    }

    /// What `take` makes of what is known of `path` without asking anybody, when no hook and no gate stands before it. It is handed over where it is found: each time
    /// that it were moved on its way would cost as much as finding it.
    #[inline]
    pub(crate) fn warm<R>(
        &self,
        caller: &Caller,
        path: &VPath,
        follow: bool,
        take: impl FnOnce(Node) -> Option<R>,
    ) -> Option<R> {
        if self.is_asked() {
            return None;
        }
        self.known(caller, path, |node| {
            if follow && node.metadata.entry_type == EntryType::Link { None } else { take(node) }
        })
    }

    /// As [`warm`](Self::warm), for who has looked at who is to be asked, and of what is at this very path.
    #[inline]
    pub(crate) fn known<R>(
        &self,
        caller: &Caller,
        path: &VPath,
        take: impl FnOnce(Node) -> Option<R>,
    ) -> Option<R> {
        self.routes.read(|routes| {
            let mount = routes.route(&caller.zone, path)?.mount;
            self.caches.metadata.get(mount.root, mount.generation(), path, take)
        })
    }

    /// The address of content; hashed elsewhere when it is large.
    pub(crate) async fn address(&self, data: &[bytes::Bytes]) -> std::result::Result<ContentId, StoreError> {
        if content::length(data) <= HASH_HERE_MAX {
            return Ok(content::address(data));
        }
        let data = data.to_vec();
        self.crunch(move || content::address(&data)).await
    }

    /// Runs what takes the processor for long: cutting and hashing content.
    pub(crate) async fn crunch<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        let done = self.hashing.run(job).await;
        done.map_err(|error| StoreError::Backend { what: "hashing".into(), cause: error.to_string() })
    }
}

fn mailbox<B: nexus_actors::Behaviour>(env: &Env, name: &'static str) -> Ref<B> {
    Ref::new(env, name, MailboxBounds { messages: MAILBOX_MAX })
}

/// What a caller is told of a primitive that did not answer.
pub(crate) fn call_kind(error: CallError) -> ErrorKind {
    match error {
        CallError::Busy => ErrorKind::Busy,
        CallError::Timeout => ErrorKind::TimedOut,
        CallError::Crashed { .. } => ErrorKind::Crashed,
        _ => ErrorKind::Down,
    }
}

pub(crate) fn down(told: Error, error: CallError) -> Error {
    let told = told.because(error);
    match error {
        CallError::Timeout | CallError::Crashed { .. } => told.outcome_unknown(),
        _ => told,
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("config", &self.config).finish_non_exhaustive()
    }
}
