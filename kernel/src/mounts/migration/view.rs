//! How migrations are, as administrators see it, and where they are told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_actors::{Env, Latch};
use nexus_messages::syscall::MountSpec;
use nexus_messages::{FileId, Timestamp, VPath, ZoneId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::failed::{Failed, named};
use crate::hal::Catalogue;
use crate::mounts::mount::Mount;
use crate::mounts::options::stores_the_same;

/// What is written to `/__sys__/migrations`. It is no secret-free text: the options of a driver may be credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum MigrateOrder {
    /// Begins a migration, or goes on with one that was interrupted. The same one that runs: nothing happens.
    Begin {
        /// The mount point.
        path: VPath,
        /// What is to be mounted there in the end.
        to: MountSpec,
        /// Whether permission bits are given up, where the new driver keeps none.
        #[serde(default)]
        without_modes: bool,
    },
    /// Ends a migration and removes what it wrote.
    Abort {
        /// The mount point.
        path: VPath,
    },
    /// Ends a migration and leaves what it wrote where it is. Nothing is asked of the new store: it may be gone.
    GiveUp {
        /// The mount point.
        path: VPath,
    },
}

/// A migration, as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// The zone.
    pub zone: ZoneId,
    /// The mount point.
    pub path: VPath,
    /// The driver that it leaves.
    pub from: String,
    /// The driver that it comes to.
    pub to: String,
    /// The options of the mount as it will be, without what is secret.
    pub options: BTreeMap<String, String>,
    /// How it is.
    pub state: MigrationState,
    /// When it began, or went on.
    pub began: Timestamp,
    /// When it ended, however it did.
    pub ended: Option<Timestamp>,
    /// Entries, or contents, that the first look found.
    pub found: u64,
    /// How many were copied and verified.
    pub copied: u64,
    /// How many had been copied and verified before, and are the same still.
    pub kept: u64,
    /// How many copies were taken back, because what they are of is gone.
    pub removed: u64,
    /// How many files, or contents, may be left in the new store by one that was given up.
    #[serde(default)]
    pub left: u64,
    /// How many bytes were copied.
    pub bytes: u64,
    /// How many changes are noted and not copied yet.
    pub noted: u64,
    /// How often changes were copied that had been made meanwhile.
    pub rounds: u64,
    /// How often the gate was closed.
    pub closings: u64,
    /// How long changes had to wait the last time, in microseconds.
    pub closed_us: u64,
}

/// How a migration is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MigrationState {
    /// It looks whether the new driver can hold all that is there. Nothing was written.
    Checking,
    /// It copies.
    Copying,
    /// All is copied, and the new driver takes the place of the old one.
    Switching,
    /// The new driver serves.
    Done,
    /// It came to an end; the old driver serves. What was copied stays, and the same order goes on with it.
    Failed {
        /// Why.
        cause: String,
        /// The symbolic name of the error.
        error: String,
    },
    /// What was copied is removed.
    Aborting,
    /// It is as if it had not begun.
    Aborted,
    /// It is over, and the old driver serves. What was copied stays in the new store, and nobody here knows of it any more.
    GivenUp,
    /// It was cut short by the end of a process. The same order goes on with it.
    Interrupted,
}

impl MigrationState {
    /// Whether nobody works on it.
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Checking | Self::Copying | Self::Switching | Self::Aborting)
    }
}

impl MigrationStatus {
    /// Whether nobody works on it.
    pub fn is_over(&self) -> bool {
        self.state.is_over()
    }

    /// The new store in words: its driver, and what was said of where and how it is.
    pub fn new_store(&self) -> String {
        named(&self.to, &self.options)
    }
}

/// The migrations that run, ran, or were found interrupted, by the roots of their mounts: one of each.
#[derive(Debug, Default)]
pub(crate) struct Migrations(Mutex<BTreeMap<FileId, Arc<Progress>>>);

impl Migrations {
    /// How they are, in the order of their mount points.
    pub(crate) fn statuses(&self) -> Vec<MigrationStatus> {
        let mut statuses: Vec<_> = self.0.lock().values().map(|progress| progress.status()).collect();
        statuses.sort_by(|a: &MigrationStatus, b| (&a.zone, &a.path).cmp(&(&b.zone, &b.path)));
        statuses
    }

    pub(super) fn of(&self, mount: &Mount) -> Option<Arc<Progress>> {
        self.0.lock().get(&mount.root).cloned()
    }

    /// Lists one that begins, unless one of another mount runs that goes to the same store: gives that one's mount point then.
    pub(super) fn begin(&self, mount: &Mount, progress: Arc<Progress>) -> Result<(), VPath> {
        let mut all = self.0.lock();
        match running_to(&all, mount.root, &progress.to) {
            Some(other) => Err(other),
            None => {
                all.insert(mount.root, progress);
                Ok(())
            }
        }
    }

    /// The mount point of one that runs and goes to the store of `spec`, of another mount than the one with `root`.
    pub(super) fn going_to(&self, root: FileId, spec: &MountSpec) -> Option<VPath> {
        running_to(&self.0.lock(), root, spec)
    }

    /// The mount with the root `new` has taken the place of the one with `old`: what is known of that one's is of this one's.
    pub(super) fn moved(&self, old: FileId, new: FileId) {
        let mut all = self.0.lock();
        if let Some(progress) = all.remove(&old) {
            all.insert(new, progress);
        }
    }

    pub(super) fn list(&self, mount: &Mount, progress: Arc<Progress>) {
        self.0.lock().insert(mount.root, progress);
    }
}

fn running_to(all: &BTreeMap<FileId, Arc<Progress>>, root: FileId, spec: &MountSpec) -> Option<VPath> {
    let others = all.iter().filter(|(other, _)| **other != root).map(|(_, progress)| progress);
    let mut there = others.filter(|other| !other.state().is_over() && stores_the_same(&other.to, spec));
    there.next().map(|other| other.mount.point.clone())
}

/// How far a migration is.
#[derive(Debug)]
pub(crate) struct Progress {
    env: Env,
    mount: Arc<Mount>,
    from: String,
    pub(super) to: MountSpec,
    options: BTreeMap<String, String>,
    state: Mutex<(MigrationState, Timestamp, Option<Timestamp>)>,
    /// Set when it is to stop and to be undone.
    pub(super) stop: Latch<()>,
    /// Set when what was copied is to stay where it is.
    pub(super) leave: Latch<()>,
    pub(super) found: AtomicU64,
    pub(super) copied: AtomicU64,
    pub(super) kept: AtomicU64,
    /// Looks at all of the old store that are over.
    pub(super) looks: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) left: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) rounds: AtomicU64,
    pub(super) closings: AtomicU64,
    closed_us: AtomicU64,
}

impl Progress {
    pub(super) fn new(
        env: &Env,
        catalogue: &Catalogue,
        mount: &Arc<Mount>,
        to: &MountSpec,
        state: MigrationState,
    ) -> Self {
        let zero = AtomicU64::default;
        Self {
            env: env.clone(),
            mount: mount.clone(),
            from: mount.spec().driver.clone(),
            to: to.clone(),
            options: catalogue.shown(to),
            state: Mutex::new((state, Timestamp(env.wall()), None)),
            stop: Latch::new(),
            leave: Latch::new(),
            found: zero(),
            copied: zero(),
            kept: zero(),
            looks: zero(),
            removed: zero(),
            left: zero(),
            bytes: zero(),
            rounds: zero(),
            closings: zero(),
            closed_us: zero(),
        }
    }

    pub(super) fn mount(&self) -> &Mount {
        &self.mount
    }

    pub(super) fn state(&self) -> MigrationState {
        self.state.lock().0.clone()
    }

    /// Goes on to `state`, unless it was told to stop; says whether it did.
    pub(super) fn goes_on(&self, state: MigrationState) -> bool {
        let mut now = self.state.lock();
        if now.0 == MigrationState::Aborting {
            return false;
        }
        now.0 = state;
        true
    }

    /// Tells it to stop, and with `leave` to remove nothing more; says whether it can.
    pub(super) fn abort(&self, leave: bool) -> bool {
        let mut now = self.state.lock();
        match now.0 {
            MigrationState::Checking | MigrationState::Copying => now.0 = MigrationState::Aborting,
            MigrationState::Aborting => {}
            _ => return false,
        }
        drop(now);
        if leave {
            self.leave.set(());
        }
        self.stop.set(());
        true
    }

    pub(super) fn end(&self, state: MigrationState) {
        let mut now = self.state.lock();
        now.0 = state;
        now.2 = Some(Timestamp(self.env.wall()));
    }

    /// It is given up; up to so many copies are left.
    pub(super) fn give_up(&self, left: u64) {
        self.left.store(left, Ordering::Relaxed);
        self.end(MigrationState::GivenUp);
    }

    pub(super) fn fail(&self, failed: &Failed) {
        let (cause, error) = (failed.why.clone(), failed.kind.errno().name().to_owned());
        self.end(MigrationState::Failed { cause, error });
    }

    pub(super) fn closed_for(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.closed_us.store(micros, Ordering::Relaxed);
    }

    pub(super) fn count(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    fn status(&self) -> MigrationStatus {
        let (state, began, ended) = self.state.lock().clone();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MigrationStatus {
            zone: self.mount.zone.clone(),
            path: self.mount.point.clone(),
            from: self.from.clone(),
            to: self.to.driver.clone(),
            options: self.options.clone(),
            noted: if state.is_over() { 0 } else { self.mount.passage().noted() as u64 },
            state,
            began,
            ended,
            found: get(&self.found),
            copied: get(&self.copied),
            kept: get(&self.kept),
            removed: get(&self.removed),
            left: get(&self.left),
            bytes: get(&self.bytes),
            rounds: get(&self.rounds),
            closings: get(&self.closings),
            closed_us: get(&self.closed_us),
        }
    }
}
