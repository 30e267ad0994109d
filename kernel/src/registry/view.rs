//! What the service registry publishes: from a name to the slot in which a version serves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nexus_actors::{Env, Latch, Ref, Retired, Slot, Snap, Superseded};
use nexus_messages::syscall::{ServiceSpec, ServiceSwapped};
use nexus_messages::{Error, ErrorKind, Op, Result, VPath};
use nexus_supervisors::ChildSpec;
use parking_lot::Mutex;

use super::Registry;
use super::messages::StartOnDemand;
use crate::service::{Generation, SwapPolicy, Trial};

/// Where services are in the namespace.
const FOLDER: &str = "/__sys__/services";

/// The registered services. Looking sends no mail.
pub(crate) struct Services {
    env: Env,
    registry: Ref<Registry>,
    listed: Snap<Listed>,
    /// Names of which something is still being cleared away, and by how many.
    clearing: Mutex<BTreeMap<Arc<str>, usize>>,
}

/// Something of a service of this name is begun and not listed, or listed and not ended, until this is dropped: nobody registers another one of the
/// name. It outlives the registry that began it, as what is cleared away does, by the number of a version that another service would have too.
pub(super) struct Clearing {
    services: Arc<Services>,
    name: Arc<str>,
}

impl Drop for Clearing {
    fn drop(&mut self) {
        let mut clearing = self.services.clearing.lock();
        if let Some(by) = clearing.get_mut(&self.name) {
            *by -= 1;
            if *by == 0 {
                clearing.remove(&self.name);
            }
        }
    }
}

/// The services of one moment.
#[derive(Clone, Default)]
pub(crate) struct Listed {
    /// By name: whoever goes through them does so in one order, so that a simulated run is one run.
    pub(crate) enlisted: BTreeMap<Arc<str>, Arc<Enlisted>>,
    /// Those that are registered and could not be started, with the cause.
    pub(crate) absent: BTreeMap<Arc<str>, (ServiceSpec, String)>,
}

/// What the slot of a service holds. One publish of it changes instance, hooks and exports.
pub(crate) struct Active {
    pub(crate) generation: Arc<Generation>,
}

/// A registered service.
pub(crate) struct Enlisted {
    pub(crate) name: Arc<str>,
    pub(crate) env: Env,
    /// What starts it at its first use. Weak: it is listed there.
    services: Weak<Services>,
    /// Whether it is being started because of a message that nobody waits for.
    waking: AtomicBool,
    pub(crate) slot: Slot<Active>,
    /// Whether a trial is under way: one load for calls when none is.
    on_trial: AtomicBool,
    changes: Mutex<Changes>,
    /// Whether it is removed, and only those who are inside still use it.
    leaving: AtomicBool,
    pub(super) standing: Mutex<Standing>,
    /// Held while it is started at its first call.
    pub(super) starting: tokio::sync::Mutex<()>,
    /// Held while it is brought in order after a crash of the registry: when one crash follows another, one after the other.
    pub(super) settling: tokio::sync::Mutex<()>,
    /// Held while versions that served are ended: when the service is removed, nobody ends one any more.
    pub(super) retiring: tokio::sync::Mutex<()>,
    /// The highest number that was given to a version.
    numbers: AtomicU64,
    pub(super) swaps: AtomicU64,
    pub(super) failed_swaps: AtomicU64,
    pub(super) swap_backs: AtomicU64,
    /// Mails that did not reach the version that served, or were not served by it before it ended.
    missed: AtomicU64,
}

/// The changes of a service that are under way.
#[derive(Default)]
struct Changes {
    /// Raised when the registry was restarted: what was under way before does not count any more.
    era: u64,
    under_way: usize,
    /// Told at the end of the last one.
    ended: Latch<()>,
}

/// A change of a service that is under way, until this is dropped.
pub(super) struct Changing {
    enlisted: Arc<Enlisted>,
    era: u64,
}

impl Drop for Changing {
    fn drop(&mut self) {
        let mut changes = self.enlisted.changes.lock();
        if changes.era == self.era {
            changes.under_way -= 1;
            if changes.under_way == 0 {
                changes.ended.set(());
            }
        }
    }
}

/// What is known of a service beside the version that serves.
pub(super) struct Standing {
    /// The version that was published last, as far as was noted.
    serving: Arc<Generation>,
    /// Versions that are being started, or are on trial.
    coming: Vec<Arc<Generation>>,
    /// Versions that served, and end when their last caller has left.
    going: Vec<Arc<Generation>>,
    pub(super) trial: Option<Arc<Trial>>,
    /// The version before, for as long as the one that serves is on probation.
    pub(super) reserve: Option<Reserve>,
    pub(super) last_swap: Option<ServiceSwapped>,
    pub(super) last_failure: Option<String>,
    /// What starts it, for one that waits for its first call.
    dormant: Option<ChildSpec>,
    row: Row,
}

/// What is known of the row by which a service is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// It is as it was found.
    Untouched,
    /// A change of it was handed to the committer, and its outcome was not heard of: the row that is read may be another one in a moment.
    Uncertain,
    /// It was changed, and is as it is read.
    Changed,
}

/// A version that waits for the one after it to prove itself.
pub(super) struct Reserve {
    pub(super) generation: Arc<Generation>,
    /// The version that is on probation.
    pub(super) of: u64,
    /// Its place in the slot, once it was replaced.
    pub(super) retired: Option<Retired<Active>>,
    /// Since when it is in reserve, and for how long: that may be longer than there are times.
    pub(super) since: Instant,
    pub(super) probation: Duration,
    /// How long it may take to do what it was told, once it is needed no more.
    pub(super) limit: Duration,
    /// Whether it is on its way back.
    returns: bool,
}

/// The version in reserve is on its way back, because the one that serves broke.
#[derive(Debug, Clone, Copy)]
pub(super) struct Returns;

impl Services {
    pub(crate) fn new(env: &Env, registry: Ref<Registry>) -> Arc<Self> {
        Arc::new(Self { env: env.clone(), registry, listed: Snap::default(), clearing: Mutex::default() })
    }

    /// Keeps the name from others until what is returned is dropped.
    pub(super) fn clear(self: &Arc<Self>, name: &Arc<str>) -> Clearing {
        *self.clearing.lock().entry(name.clone()).or_default() += 1;
        Clearing { services: self.clone(), name: name.clone() }
    }

    /// Whether something of a service of this name is still being cleared away.
    pub(super) fn is_clearing(&self, name: &str) -> bool {
        self.clearing.lock().contains_key(name)
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Enlisted>> {
        let found = self.listed.read(|listed| listed.enlisted.get(name).cloned());
        found.filter(|enlisted| !enlisted.is_leaving())
    }

    pub(crate) fn listed(&self) -> Arc<Listed> {
        self.listed.get()
    }

    pub(super) fn publish(&self, writer: u64, listed: Listed) -> Result<(), Superseded> {
        self.listed.publish(writer, listed)
    }

    pub(super) fn claim(&self, writer: u64) -> Result<Arc<Listed>, Superseded> {
        self.listed.claim(writer)
    }

    /// Starts a service that waits for its first call. Repeating it does nothing.
    pub(crate) async fn start(&self, name: &Arc<str>) -> Result<()> {
        let started = self.registry.call(StartOnDemand { name: name.clone() }, Duration::MAX).await;
        started.unwrap_or_else(|error| Err(super::lost(name, error)))
    }
}

impl Enlisted {
    pub(super) fn new(services: &Arc<Services>, generation: Arc<Generation>) -> Arc<Self> {
        Arc::new(Self {
            name: generation.service.clone(),
            env: services.env.clone(),
            services: Arc::downgrade(services),
            waking: AtomicBool::new(false),
            slot: Slot::new(Box::new(Active { generation: generation.clone() })),
            on_trial: AtomicBool::new(false),
            changes: Mutex::default(),
            leaving: AtomicBool::new(false),
            standing: Mutex::new(Standing {
                serving: generation,
                coming: Vec::new(),
                going: Vec::new(),
                trial: None,
                reserve: None,
                last_swap: None,
                last_failure: None,
                dormant: None,
                row: Row::Untouched,
            }),
            starting: tokio::sync::Mutex::new(()),
            settling: tokio::sync::Mutex::new(()),
            retiring: tokio::sync::Mutex::new(()),
            numbers: AtomicU64::new(1),
            swaps: AtomicU64::new(0),
            failed_swaps: AtomicU64::new(0),
            swap_backs: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        })
    }

    /// The version that serves, also while an exclusive swap holds its gate shut. Who calls it enters the slot instead.
    pub(crate) fn serving(&self) -> Arc<Generation> {
        let published = self.slot.with(|active| active.generation.clone());
        published.unwrap_or_else(|| self.standing.lock().serving.clone())
    }

    /// Takes note of what was published.
    pub(super) fn note_published(&self) {
        let serving = self.serving();
        self.standing.lock().serving = serving;
    }

    /// The version of this number, while it serves or waits in reserve or is on trial.
    pub(crate) fn version(&self, number: u64) -> Option<Arc<Generation>> {
        let serving = self.serving();
        if serving.number == number {
            return Some(serving);
        }
        let standing = self.standing.lock();
        let trial = standing.trial.as_ref().map(|trial| &trial.generation);
        let reserve = standing.reserve.as_ref().map(|reserve| &reserve.generation);
        trial.into_iter().chain(reserve).find(|generation| generation.number == number).cloned()
    }

    /// What is known of its row.
    pub(super) fn row(&self) -> Row {
        self.standing.lock().row
    }

    pub(super) fn set_row(&self, row: Row) {
        self.standing.lock().row = row;
    }

    /// Keeps what starts it until its first call.
    pub(super) fn keep_dormant(&self, child: ChildSpec) {
        self.standing.lock().dormant = Some(child);
    }

    /// What starts it, when it waits for its first call.
    pub(super) fn dormant(&self) -> Option<ChildSpec> {
        self.standing.lock().dormant.clone()
    }

    /// Starts it, when it waits for its first use. Repeating it does nothing.
    pub(crate) async fn start(&self) -> Result<()> {
        match self.services.upgrade() {
            Some(services) => services.start(&self.name).await,
            None => Err(error(&self.name, ErrorKind::Down)),
        }
    }

    /// As [`start`](Self::start), without waiting for it: for a use that is a message in its mailbox, which is handled when it runs.
    pub(crate) fn wake(self: &Arc<Self>) {
        // Orders nothing: who comes a moment too late asks the registry once more, which is harmless.
        if self.waking.swap(true, Ordering::Relaxed) {
            return;
        }
        let enlisted = self.clone();
        self.env.spawn("service.wake", async move {
            if let Err(why) = enlisted.start().await {
                tracing::warn!(service = %enlisted.name, %why, "a service that is to hear of something does not start");
            }
            enlisted.waking.store(false, Ordering::Relaxed);
        });
    }

    /// The number of the version that serves, while the one before is kept in reserve for it.
    pub(super) fn has_reserve(&self) -> Option<u64> {
        let serving = self.serving().number;
        self.standing.lock().reserve.as_ref().map(|reserve| reserve.of).filter(|of| *of == serving)
    }

    /// The number of a new version. What never came to serve keeps its own, so that nothing that is done about it hits another one.
    pub(super) fn new_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// After a crash of the registry: forgets what was kept in reserve for a version that was not published.
    pub(super) fn forget_unused_reserve(&self) {
        let serving = self.serving().number;
        let mut standing = self.standing.lock();
        if standing.reserve.as_ref().is_some_and(|reserve| reserve.of != serving) {
            standing.reserve = None;
        }
    }

    /// Keeps `old` in reserve for version `of`, which is about to take its place: from the publish on, a crash brings `old` back.
    pub(super) fn reserve(&self, old: &Arc<Generation>, of: u64, since: Instant, policy: &SwapPolicy) {
        let (probation, limit) = (policy.probation, policy.limit);
        let generation = old.clone();
        let reserve = Reserve { generation, of, retired: None, since, probation, limit, returns: false };
        self.standing.lock().reserve = Some(reserve);
    }

    /// Version `of` did not take its place.
    pub(super) fn forget_reserve(&self, of: u64) {
        let mut standing = self.standing.lock();
        if standing.reserve.as_ref().is_some_and(|reserve| reserve.of == of) {
            standing.reserve = None;
        }
    }

    /// Version `of` took its place; false when it has broken since, and the one before is back.
    pub(super) fn keep_retired(&self, of: u64, retired: Retired<Active>) -> bool {
        self.note_published();
        let mut standing = self.standing.lock();
        match standing.reserve.as_mut().filter(|reserve| reserve.of == of) {
            Some(reserve) => {
                reserve.retired = Some(retired);
                true
            }
            None => false,
        }
    }

    /// Takes what waits in reserve, which is needed no more; with `of`, only what waits behind that version.
    ///
    /// # Errors
    /// It is on its way back.
    pub(super) fn take_reserve(&self, of: Option<u64>) -> std::result::Result<Option<Reserve>, Returns> {
        let mut standing = self.standing.lock();
        if of.is_some_and(|of| standing.reserve.as_ref().is_none_or(|reserve| reserve.of != of)) {
            return Ok(None);
        }
        if standing.reserve.as_ref().is_some_and(|reserve| reserve.returns) {
            return Err(Returns);
        }
        let reserve = standing.reserve.take();
        standing.going.extend(reserve.as_ref().map(|reserve| reserve.generation.clone()));
        Ok(reserve)
    }

    /// The version in reserve, which is to come back, and the one that it is to come back from. Repeating it gives the same.
    pub(super) fn call_back(&self) -> Option<(Arc<Generation>, Arc<Generation>)> {
        let serving = self.serving();
        let mut standing = self.standing.lock();
        let reserve = standing.reserve.as_mut().filter(|reserve| reserve.of == serving.number)?;
        reserve.returns = true;
        Some((reserve.generation.clone(), serving))
    }

    /// What was called back is there, or could not come: it waits in reserve as before.
    pub(super) fn called_back(&self, came: bool) -> Option<Reserve> {
        self.note_published();
        let mut standing = self.standing.lock();
        if let Some(reserve) = &mut standing.reserve {
            reserve.returns = false;
        }
        if came { standing.reserve.take() } else { None }
    }

    /// A version is about to be started.
    pub(super) fn comes(&self, version: &Arc<Generation>) {
        self.standing.lock().coming.push(version.clone());
    }

    /// It serves, or has ended before it did.
    pub(super) fn has_come(&self, number: u64) {
        self.standing.lock().coming.retain(|version| version.number != number);
    }

    /// The versions that served, and of which some caller may be inside.
    pub(super) fn going(&self) -> Vec<Arc<Generation>> {
        self.standing.lock().going.clone()
    }

    /// Whether this version served, and nobody has ended it yet.
    pub(super) fn is_going(&self, number: u64) -> bool {
        self.standing.lock().going.iter().any(|version| version.number == number)
    }

    /// It has ended after it served.
    pub(super) fn has_gone(&self, number: u64) {
        self.standing.lock().going.retain(|version| version.number != number);
    }

    /// Whether its actor is to run.
    pub(super) fn is_needed(&self, child_id: &str) -> bool {
        let going = self.going();
        self.versions().iter().chain(&going).any(|version| *version.child_id == *child_id)
    }

    /// The versions that may serve: the one that does, the one in reserve, and those to come. What is published is among them before, and stays
    /// until another one was.
    pub(crate) fn versions(&self) -> Vec<Arc<Generation>> {
        // Before and after: one may be published meanwhile.
        let before = self.serving();
        let standing = self.standing.lock();
        let mut others = standing.coming.clone();
        others.extend(standing.reserve.as_ref().map(|reserve| reserve.generation.clone()));
        drop(standing);
        let mut versions = vec![self.serving()];
        for version in others.into_iter().chain([before]) {
            if versions.iter().all(|other| other.number != version.number) {
                versions.push(version);
            }
        }
        versions
    }

    /// So many more mails did not reach it.
    pub(crate) fn count_missed(&self, mails: u64) {
        self.missed.fetch_add(mails, Ordering::Relaxed);
    }

    /// How many mails did not reach it, in all its versions.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// The trial that is under way.
    #[inline]
    pub(crate) fn trial(&self) -> Option<Arc<Trial>> {
        // Orders nothing: who misses its beginning gives it one copy less.
        if !self.on_trial.load(Ordering::Relaxed) {
            return None;
        }
        self.standing.lock().trial.clone()
    }

    pub(super) fn set_trial(&self, trial: Option<Arc<Trial>>) {
        let mut standing = self.standing.lock();
        self.on_trial.store(trial.is_some(), Ordering::Relaxed);
        standing.trial = trial;
    }

    /// Ends the trial of version `number`, if that is under way.
    pub(super) fn end_trial(&self, number: u64) {
        let mut standing = self.standing.lock();
        if standing.trial.as_ref().is_some_and(|trial| trial.generation.number == number) {
            self.on_trial.store(false, Ordering::Relaxed);
            standing.trial = None;
        }
    }

    /// From now on nobody finds it. Who is inside stays until it leaves.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Whether it is removed.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Whether a change of it is under way.
    pub(crate) fn is_changing(&self) -> bool {
        self.changes.lock().under_way > 0
    }

    /// Waits for the end of the changes that are under way.
    pub(super) async fn settled(&self) {
        let ended = {
            let changes = self.changes.lock();
            (changes.under_way > 0).then(|| changes.ended.clone())
        };
        if let Some(ended) = ended {
            ended.wait().await;
        }
    }

    /// A change of it begins.
    pub(super) fn begin_change(self: &Arc<Self>) -> Changing {
        let mut changes = self.changes.lock();
        if changes.under_way == 0 {
            changes.ended = Latch::new();
        }
        changes.under_way += 1;
        Changing { enlisted: self.clone(), era: changes.era }
    }

    /// After a crash of the registry: what it was doing is not done by anybody, but for one change, which brings things in order.
    pub(super) fn only_change(self: &Arc<Self>) -> Changing {
        let mut changes = self.changes.lock();
        changes.ended.set(());
        *changes = Changes { era: changes.era + 1, under_way: 1, ended: Latch::new() };
        Changing { enlisted: self.clone(), era: changes.era }
    }

    pub(super) fn swapped(&self, report: &ServiceSwapped) {
        self.swaps.fetch_add(1, Ordering::Relaxed);
        self.standing.lock().last_swap = Some(report.clone());
    }

    pub(super) fn swap_failed(&self, why: String) {
        self.failed_swaps.fetch_add(1, Ordering::Relaxed);
        self.standing.lock().last_failure = Some(why);
    }

    pub(super) fn swapped_back(&self, why: String) {
        self.swap_backs.fetch_add(1, Ordering::Relaxed);
        self.standing.lock().last_failure = Some(why);
    }
}

impl fmt::Debug for Enlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enlisted").field("name", &self.name).field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// The path of the service called `name`, when that can be one.
pub(crate) fn path_of(name: &str) -> Option<VPath> {
    VPath::parse(FOLDER).ok()?.join(name).ok()
}

/// Whether a service can be at `path`.
pub(crate) fn is_service_path(path: &VPath) -> bool {
    let below = path.as_str().strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/'));
    below.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// A failure that concerns the service called `name`.
pub(crate) fn error(name: &str, kind: ErrorKind) -> Error {
    match path_of(name) {
        Some(path) => Error::new(Op::Service, &path, kind),
        None => Error::global(Op::Service, kind),
    }
}
