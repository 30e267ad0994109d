//! One mount, as the calls that it serves see it.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use nexus_actors::{Env, Lease, Ref, Retired, Slot, Snap, Superseded, Timer};
use nexus_messages::syscall::{IoProfile, MountSpec};
use nexus_messages::{Consistency, Durability, EntryType, FileId, VPath, ZoneId};
use parking_lot::Mutex;

use super::driver::{Driver, Threads};
use super::guarded::Guarded;
use super::health::Health;
use super::options::{Class, HistoryPolicy, MountOptions, Nature, stores_the_same};
use super::passage::{Closed, Era, Passage, UnderWay};
use super::placeholder::Placeholder;
use crate::hal::{
    CacheFigures, ConnectorCategory, ObjectStore, PathCapabilities, PathStore, StoreError, TreeId,
};
use crate::kernel::Kernel;
use crate::router::{AsMount, MountId};

/// Whose pen nobody takes any more: a mount that was detached gets no driver again.
const DETACHED: u64 = u64::MAX;

/// What is mounted, and how the kernel treats the driver by that.
#[derive(Clone)]
struct Said {
    spec: Arc<MountSpec>,
    options: MountOptions,
    /// Of the store that it names.
    era: Era,
}

impl Said {
    fn by(spec: Arc<MountSpec>, era: Era) -> Self {
        // What is mounted was checked before.
        let options = MountOptions::of(&spec).unwrap_or_default();
        Self { spec, options, era }
    }
}

/// A mount: where it is, what it serves, and the driver behind it.
pub struct Mount {
    /// The identity of its root, which is the mount's own.
    pub(crate) root: FileId,
    pub(crate) zone: ZoneId,
    pub(crate) tree: TreeId,
    pub(crate) point: VPath,
    said: Snap<Said>,
    driver: Slot<Arc<Guarded>>,
    /// The newest incarnation of the driver's actor. Invariant: `driver` is changed under this lock alone, and by no older one.
    pen: Mutex<u64>,
    health: Arc<Health>,
    passage: Arc<Passage>,
    threads: Arc<Threads>,
    actor: OnceLock<Ref<Driver>>,
    /// Held while the mount's spec is changed, or the mount is detached.
    changing: Arc<tokio::sync::Mutex<()>>,
    // Invariant: set by the first driver, or by what is remembered of it; drivers are replaced by such of the same kind only.
    path_addressed: OnceLock<bool>,
    /// Whether the driver's content would be gone with it. Set by the first driver, after `path_addressed`.
    volatile: OnceLock<bool>,
    /// Whether the backend keeps permission bits of its own. Set by each driver that is published; looked at by itself.
    keeps_modes: AtomicBool,
    // Raised when paths below some directory begin to mean something else. Only compared, and always read before what it guards.
    // Shared with those who note what a path led to, and must not keep the mount for that.
    generation: Arc<AtomicU64>,
}

impl Mount {
    /// A mount whose driver is not opened yet. Its metadata is filed under `generation` at first, under which none was of a mount with this root before.
    pub(crate) fn new(
        root: FileId,
        zone: ZoneId,
        tree: TreeId,
        point: VPath,
        spec: MountSpec,
        generation: u64,
    ) -> Self {
        let health = Arc::new(Health::new());
        let placeholder = Placeholder { point: point.clone(), path_addressed: false, health: health.clone() };
        Self {
            root,
            zone,
            tree,
            point,
            said: Snap::new(Said::by(Arc::new(spec), Era::default())),
            driver: Slot::new(Box::new(Arc::new(Guarded::unwatched(Arc::new(placeholder), false)))),
            pen: Mutex::new(0),
            health,
            passage: Arc::new(Passage::new()),
            threads: Arc::default(),
            actor: OnceLock::new(),
            changing: Arc::default(),
            path_addressed: OnceLock::new(),
            volatile: OnceLock::new(),
            keeps_modes: AtomicBool::new(false),
            generation: Arc::new(AtomicU64::new(generation)),
        }
    }

    /// The same mount, of which is known how it finds its files before a driver is opened.
    pub(super) fn known(mut self, path_addressed: bool) -> Self {
        self.driver = Slot::new(Box::new(Arc::new(self.placeholder(path_addressed))));
        self.path_addressed = OnceLock::from(path_addressed);
        self
    }

    fn placeholder(&self, path_addressed: bool) -> Guarded {
        let (point, health) = (self.point.clone(), self.health.clone());
        Guarded::unwatched(Arc::new(Placeholder { point, path_addressed, health }), path_addressed)
    }

    /// What is mounted.
    pub(crate) fn spec(&self) -> Arc<MountSpec> {
        self.said.read(|said| said.spec.clone())
    }

    /// Lets something else be mounted, from the next opening of the driver on. The caller is the one that changes the mount.
    pub(super) fn set_spec(&self, spec: Arc<MountSpec>) {
        self.say(Said::by(spec, self.said.read(|said| said.era.clone())));
    }

    fn say(&self, said: Said) {
        // Any writer may: who holds `changing` is the only one.
        let _ = self.said.publish(0, said);
    }

    /// As [`set_spec`](Self::set_spec), where the new driver finds the files in another store. The gate stays closed until that driver is published;
    /// who holds the door to the old one is led on to it then.
    pub(super) fn hand_over(&self, spec: Arc<MountSpec>, closed: Closed) {
        self.passage.hand_over(self.said.read(|said| said.era.clone()), closed);
        self.say(Said::by(spec, Era::default()));
    }

    /// The era of the store that `spec` names, while that is what is mounted.
    pub(super) fn era_of(&self, spec: &Arc<MountSpec>) -> Option<Era> {
        self.said.read(|said| Arc::ptr_eq(&said.spec, spec).then(|| said.era.clone()))
    }

    /// What changes of the driver pass.
    pub(super) fn passage(&self) -> &Arc<Passage> {
        &self.passage
    }

    /// Content comes here as a stream for as long as what this gives is there.
    pub(crate) fn stream(&self) -> UnderWay {
        self.passage.stream()
    }

    /// How the kernel treats the driver.
    pub(super) fn options(&self) -> MountOptions {
        self.said.read(|said| said.options)
    }

    /// What is kept of what is superseded here, if anything is.
    pub(crate) fn history(&self) -> Option<HistoryPolicy> {
        self.options().history(self.outlives_its_actor())
    }

    /// Whether all that is here ends with the process.
    pub(crate) fn forgets(&self) -> bool {
        self.durability(None) == Durability::Volatile
    }

    /// What the acknowledgement of a change promises that asks for `wanted`.
    pub(crate) fn durability(&self, wanted: Option<Consistency>) -> Durability {
        let options = self.options();
        if self.outlives_its_actor() || options.class() == Class::Scratch {
            return Durability::Volatile;
        }
        match wanted.unwrap_or_else(|| options.consistency()) {
            Consistency::Eventual => Durability::Eventual,
            _ => Durability::Strong,
        }
    }

    pub(super) fn changing(&self) -> &Arc<tokio::sync::Mutex<()>> {
        &self.changing
    }

    pub(super) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    pub(super) fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    /// The actor of the driver; none before it was started for the first time.
    pub(super) fn actor(&self) -> Option<&Ref<Driver>> {
        self.actor.get()
    }

    pub(super) fn set_actor(&self, actor: Ref<Driver>) {
        // A mount is started once.
        let _ = self.actor.set(actor);
    }

    /// Whether a driver of this kind may stand here.
    pub(super) fn fits(&self, path_addressed: bool) -> Result<(), StoreError> {
        let way = |path: bool| if path { "by its path" } else { "by its hash" };
        match self.path_addressed.get() {
            Some(&here) if here != path_addressed => Err(StoreError::BadOption {
                why: format!(
                    "the driver finds content {}, and the mount's files are found {}",
                    way(path_addressed),
                    way(here)
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a driver was ever there.
    pub(crate) fn has_driver(&self) -> bool {
        self.volatile.get().is_some()
    }

    /// Whether what is on it ends with the process.
    pub(crate) fn ends_with_process(&self) -> bool {
        self.volatile.get().copied().unwrap_or(true)
            || self.said.read(|said| said.options.class() == Class::Scratch)
    }

    /// Whether the driver stays when its actor is restarted.
    pub(super) fn outlives_its_actor(&self) -> bool {
        self.volatile.get().copied().unwrap_or(false)
    }

    /// Why no call is to be routed here: there never was a driver, and not even the way in which files are found is known.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.path_addressed.get().is_none().then(|| self.health.cause())
    }

    /// Whether its driver is in trouble, so that asking it is no way to find something out.
    pub(crate) fn is_in_trouble(&self) -> bool {
        !self.has_driver() || !self.health.is_closed()
    }

    /// The incarnation `writer` of the driver's actor has begun: what an older one opens is not published any more.
    pub(super) fn claim(&self, writer: u64) -> Result<(), Superseded> {
        take(&mut self.pen.lock(), writer)
    }

    /// Publishes a driver, opened by the incarnation `writer`, in the place of the one that is there.
    pub(super) fn put(
        &self,
        env: &Env,
        writer: u64,
        driver: Guarded,
        volatile: bool,
    ) -> Result<Retired<Arc<Guarded>>, Superseded> {
        let path_addressed = driver.is_path_addressed();
        let door = Arc::new(driver);
        let mut pen = self.pen.lock();
        take(&mut pen, writer)?;
        let retired = self.replace(env, door.clone());
        if let Some(era) = door.era() {
            self.passage.opened(era, &door);
        }
        // After it: who finds these set finds the driver.
        let _ = self.path_addressed.set(path_addressed);
        let _ = self.volatile.set(volatile);
        Ok(retired)
    }

    /// Takes the driver out for good: who has the mount still, as a read that is under way does, is told that it has gone.
    pub(super) fn vacate(&self, env: &Env) -> Retired<Arc<Guarded>> {
        self.health.ended(StoreError::Unmounted { mount: self.point.to_string() });
        let mut pen = self.pen.lock();
        *pen = DETACHED;
        self.replace(env, Arc::new(self.placeholder(self.is_path_addressed())))
    }

    /// As [`vacate`](Self::vacate) when the kernel has stopped, and leaves the driver to its last caller.
    pub(crate) fn release(&self, env: &Env) {
        self.health.ended(StoreError::Closed);
        drop(self.vacate(env));
    }

    /// Has the driver bring to its backend what lies here alone, for at most `limit`.
    pub(crate) async fn flush(&self, kernel: &Kernel, limit: Duration) -> Result<(), StoreError> {
        if !self.has_driver() {
            return Ok(());
        }
        let driver = self.lease().await;
        let flushed = kernel.env().timeout(limit, driver.flush()).await;
        flushed
            .unwrap_or_else(|_| Err(StoreError::TimedOut { what: "flushing".into(), limit, changing: false }))
    }

    /// What was acknowledged and is not at its backend, in words; none when nothing is.
    pub(crate) fn left_here(&self) -> Option<String> {
        let cache = self.cache().filter(|cache| cache.pending_files > 0)?;
        let refused = match cache.refused_files {
            0 => String::new(),
            refused => format!(", {refused} of them refused by the store"),
        };
        let named = cache.stuck.iter().map(|file| format!("; {}: {}", file.path, file.error));
        let left = format!("{} files, {} bytes{refused}", cache.pending_files, cache.pending_bytes);
        Some(std::iter::once(left).chain(named).collect())
    }

    /// With the pen in hand.
    fn replace(&self, env: &Env, driver: Arc<Guarded>) -> Retired<Arc<Guarded>> {
        let prepared = ready(Ok::<_, Infallible>(Box::new(driver)));
        // The old one is waited for elsewhere, or not at all.
        let at_once = AtOnce(env);
        match self.driver.swap_overlap(&at_once, Duration::ZERO, prepared).now_or_never() {
            Some(Ok(swapped)) => swapped.retired,
            _ => unreachable!("only who has the pen swaps, and this swap waits for nothing"),
        }
    }

    /// The namespace generation under which metadata of this mount is filed.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The namespace generation, to be compared later, and which it is now.
    pub(crate) fn counted_generation(&self) -> (Arc<AtomicU64>, u64) {
        (self.generation.clone(), self.generation())
    }

    /// Begins a new namespace generation and gives it.
    pub(crate) fn raise_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The driver behind its door, kept alive for as long as the lease is. Waits for nothing: a new one takes the place of an old one in one step.
    pub(crate) async fn lease(&self) -> Lease<Arc<Guarded>> {
        self.driver.lease().await
    }

    /// How often the driver was replaced, by a restart or a swap; counted from 1.
    pub(super) fn driver_generation(&self) -> u64 {
        self.driver.generation()
    }

    /// How many calls hold the driver.
    pub(super) fn in_flight(&self) -> usize {
        self.driver.in_flight()
    }

    /// The driver itself, and how long it may take to say whether its backend answers.
    pub(super) fn for_probing(&self) -> (Arc<dyn ObjectStore>, Duration) {
        let door = self.driver.try_lease().map(|door| door.driver().clone());
        // Swaps of this slot leave it open.
        let driver = door.unwrap_or_else(|| self.placeholder(self.is_path_addressed()).driver().clone());
        (driver, self.options().open)
    }

    /// Whether the backend, and not the metastore, says what exists.
    pub(crate) fn is_path_addressed(&self) -> bool {
        self.path_addressed.get().copied().unwrap_or(false)
    }

    /// Whether both find the same content behind their drivers.
    pub(crate) fn shares_store_with(&self, other: &Self) -> bool {
        !self.outlives_its_actor() && stores_the_same(&self.spec(), &other.spec())
    }

    /// Of a connector that serves what kind of one it is.
    pub(super) fn connector(&self) -> Option<ConnectorCategory> {
        self.driver.with(|driver| driver.connector()).flatten()
    }

    /// Whether changes are refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.options().read_only || self.driver.with(|driver| driver.read_only()).unwrap_or(false)
    }

    /// What the driver turned out to be.
    pub(super) fn nature(&self) -> Nature {
        Nature {
            path_addressed: self.is_path_addressed(),
            volatile: self.outlives_its_actor(),
            read_only: self.driver.with(|driver| driver.read_only()).unwrap_or(false),
        }
    }

    /// How what is kept of the store on this machine is doing, if anything is.
    pub(super) fn cache(&self) -> Option<CacheFigures> {
        self.driver.with(|driver| driver.cache()).flatten()
    }

    /// What keeps the driver from some of what it is for, if anything is known to.
    pub(super) fn trouble(&self) -> Option<String> {
        self.driver.with(|driver| driver.trouble()).flatten()
    }

    /// What the driver can do, of one that says what exists; none while there is no driver.
    pub(super) fn capabilities(&self) -> Option<PathCapabilities> {
        if !self.has_driver() {
            return None;
        }
        let of =
            |driver: &Arc<Guarded>| driver.is_path_addressed().then(|| PathStore::capabilities(&**driver));
        self.driver.with(of).flatten()
    }

    /// The permission bits that an entry of this kind begins with that is made without saying.
    pub(crate) fn first_mode(&self, entry_type: EntryType) -> u32 {
        self.options().mode(entry_type).unwrap_or_else(|| entry_type.default_mode())
    }

    /// Where the records of a stream are that is made without saying, when the mount says something of it.
    pub(crate) fn given_streams(&self) -> Option<IoProfile> {
        self.options().streams()
    }

    /// As [`first_mode`](Self::first_mode), when the mount says something of it.
    pub(crate) fn given_mode(&self, entry_type: EntryType) -> Option<u32> {
        self.options().mode(entry_type)
    }

    /// The permission bits of an entry of this kind of which the driver says `mode`: a backend that keeps none has those that the mount gives.
    pub(crate) fn shown_mode(&self, entry_type: EntryType, mode: u32) -> u32 {
        match self.options().mode(entry_type) {
            Some(given) if !self.keeps_modes.load(Ordering::Relaxed) => given,
            _ => mode,
        }
    }

    pub(super) fn set_keeps_modes(&self, keeps: bool) {
        self.keeps_modes.store(keeps, Ordering::Relaxed);
    }
}

fn take(pen: &mut u64, writer: u64) -> Result<(), Superseded> {
    if writer < *pen {
        return Err(Superseded { writer, newest: *pen });
    }
    *pen = writer;
    Ok(())
}

/// Lets a swap wait for nobody.
struct AtOnce<'a>(&'a Env);

impl Timer for AtOnce<'_> {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

impl AsMount for Arc<Mount> {
    fn id(&self) -> MountId {
        MountId(self.root.0)
    }

    fn zone(&self) -> &ZoneId {
        &self.zone
    }

    fn point(&self) -> &VPath {
        &self.point
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("point", &self.point).field("zone", &self.zone).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount() -> Mount {
        let point = VPath::parse("/m").unwrap();
        Mount::new(FileId(7), ZoneId::root(), TreeId::ROOT, point, MountSpec::new("d"), 0)
    }

    #[test]
    fn no_ghost_of_a_drivers_actor_publishes() {
        let (env, _simulation) = Env::seeded(1);
        let mount = mount();
        let driver = || mount.placeholder(true);
        mount.claim(1).unwrap();
        assert_eq!(mount.put(&env, 1, driver(), false).unwrap().generation(), 1);
        mount.claim(2).unwrap();
        let late = mount.put(&env, 1, driver(), false).unwrap_err();
        assert_eq!(late, Superseded { writer: 1, newest: 2 });
        assert_eq!(mount.driver_generation(), 2, "what the ghost had is not there");
        drop(mount.put(&env, 2, driver(), false).unwrap());
        drop(mount.vacate(&env));
        assert!(mount.put(&env, 3, driver(), false).is_err(), "it was detached");
    }

    #[test]
    fn a_mount_keeps_to_the_way_in_which_its_files_are_found() {
        let (env, _simulation) = Env::seeded(1);
        let mount = mount();
        assert!(mount.failure().is_some() && mount.fits(true).is_ok() && mount.fits(false).is_ok());
        drop(mount.put(&env, 1, mount.placeholder(true), false).unwrap());
        assert!(mount.fits(true).is_ok() && mount.fits(false).is_err());
        assert!(mount.failure().is_none() && mount.is_path_addressed());
    }
}
