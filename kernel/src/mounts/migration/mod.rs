//! Moving the files of a mount to another driver while it is used.
//!
//! ```text
//! open the new driver → check → announce, copy, verify, confirm → again what changed meanwhile → close the gate
//!   → the rest → row → spec → publish, which opens the gate → forget
//! ```
//!
//! All changes of a mount's driver go through its gate, `passage.rs`, and while there is a migration each leaves a note when it has ended: of a path, or of
//! a content. What was noted is copied again, round by round, until little is left. Then the gate is closed, which waits for the changes that are inside;
//! those that come wait. The rest is copied, and the row of the mount is committed: that is the switch. A kernel that ends before it boots with the old
//! driver, and after it with the new one. The gate opens in the same step in which the new driver is published, and whoever holds the door to the old one
//! until then is led on to the new one. If the rest takes longer than [`CLOSED_MAX`], the gate opens again, and another round follows. Looks wait for nothing.
//!
//! What was given of an upload is with the old driver, and cannot be led on. So the gate is not closed while uploads are under way, for up to [`UPLOADS_MAX`]; those that
//! take longer are refused when they go on. A driver that acknowledges changes early is flushed before the gate is closed and again when it is, so that the old store
//! has all that was acknowledged; a new one that does so is refused.
//!
//! What was read is compared with what the new store gives back, by BLAKE3. A copy is announced in the metastore before it is begun, and confirmed with the
//! state that it is of when it is verified (`journal.rs`). So the same order, given again after whatever end, looks at all of the old store, and copies only
//! what is not confirmed or has changed since. An abort removes what was announced, and nothing else; who gives up leaves it, and asks nothing of the new
//! store. Files that others change beside the kernel are found by a second look at all of the old store, and not after that.
//!
//! Content by its hash (`contents.rs`) and files by their paths (`files.rs`) each go to a store of their own kind, and from one kind to the other as files
//! (`crossing.rs`): the names become rows of a mount that takes the place of this one, or cease to be rows. What the new store cannot hold
//! is refused before anything is written; what it cannot hold of what comes later ends the migration, and the old driver serves on. The old store is left as it was.
//!
//! Owns:       the gate of one mount while it is closed; the rows of its journal.
//! Asks:       the committer, and both drivers; the mount's driver actor, to publish the new one.
//! Bounds:     one migration of a mount, some copies at once, `NOTED_MAX` notes; more than that, and all is looked at again.

mod aims;
mod contents;
mod copying;
mod crossing;
mod failed;
mod files;
mod journal;
mod opening;
mod recorded;
mod twins;
mod undo;
mod view;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_actors::guard;
use nexus_messages::syscall::{Create, MountSpec};
use nexus_messages::{Caller, Error, ErrorKind, FileId, Op, VPath, ZoneId};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, oneshot};

pub(super) use aims::not_aimed_at;
use aims::{aimed_at, not_taken};
use crossing::{Crossing, Shut, can_cross, lies_elsewhere, remembered_as};
pub(super) use failed::Failed;
use failed::{Attempts, Side, named, tried};
use journal::{Journal, StateRow};
use twins::Twins;
use undo::end;
pub(crate) use view::Migrations;
use view::Progress;
pub use view::{MigrateOrder, MigrationState, MigrationStatus};

use super::attach::{LOCK_WAIT_MAX, not_opened, warn_of_secrets};
use super::driver::{DriverArgs, Opened, open};
use super::guarded::{Guarded, Places, Watch};
use super::health::Health;
use super::messages::Attach;
use super::mount::Mount;
use super::options::{MountOptions, check_honoured, going_on};
use super::passage::{Closed, Era, Notes, Passage};
use super::{outside, swap};
use crate::hal::{ObjectStore, PathCapabilities, StoreError};
use crate::kernel::Kernel;

/// How long the gate may be closed for the last round, at most.
const CLOSED_MAX: Duration = Duration::from_secs(5);

/// With no more than so many notes left the gate is closed.
const FEW: usize = 64;

/// How often changes are copied that were made meanwhile, before it is given up: they come faster than they are copied.
const ROUNDS_MAX: u64 = 1_000;

/// How long it is from a gate that was closed in vain to the next attempt.
const BETWEEN: Duration = Duration::from_millis(200);

/// How long it is waited for uploads that are under way, which could not go on in the new store.
const UPLOADS_MAX: Duration = Duration::from_secs(60);

const _: () = assert!(UPLOADS_MAX.as_millis() < BETWEEN.as_millis() * ROUNDS_MAX as u128 / 2);

/// How long a driver that acknowledges changes early may take to bring them to its store, before changes have to wait for that.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// How often it may fail to do so while the gate is closed, before it is given up.
const FLUSHES_MAX: u32 = 8;

/// Looks at all of a store of files; what others changed during the first is found by the second.
const LOOKS: usize = 2;

/// Executes an order of `caller`. A migration that it begins goes on when this has returned.
pub(crate) async fn ordered(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    order: MigrateOrder,
) -> Result<(), Error> {
    match order {
        MigrateOrder::Begin { path, to, without_modes } => {
            let spec = kernel.catalogue().settled(to);
            let row = StateRow { spec, without_modes, over: false, successor: None, left_by: None };
            begin(kernel, caller, &path, row).await
        }
        MigrateOrder::Abort { path } => end(kernel, caller, &path, false).await,
        MigrateOrder::GiveUp { path } => end(kernel, caller, &path, true).await,
    }
}

/// Lists what the last process left of migrations of `mount`, which is about to serve.
pub(super) fn found(kernel: &Arc<Kernel>, mount: &Arc<Mount>) -> Result<(), StoreError> {
    let Some(row) = Journal::state(kernel, mount)? else { return Ok(()) };
    let caller = Arc::new(Caller::agent(Caller::KERNEL, mount.zone.clone()));
    let order = order_of(mount, &caller, &row.spec);
    let journal = match row.left_by {
        Some(root) => Journal::left_by(kernel, mount, order, root),
        None => Journal::new(kernel, mount, order),
    };
    if !row.over {
        let state = MigrationState::Interrupted;
        let progress = Arc::new(Progress::new(kernel.env(), kernel.catalogue(), mount, &row.spec, state));
        kernel.migrations().list(mount, progress.clone());
        kernel.env().spawn("migration.count", async move {
            if let Err(failed) = journal.count(&progress).await {
                tracing::warn!(why = %failed.why, "how much was migrated is not known");
            }
        });
        return Ok(());
    }
    // It is over, but for the rows that nobody needs any more.
    let (point, changing) = (mount.point.clone(), mount.changing().clone());
    kernel.env().spawn("migration.clear", async move {
        // Another one does not begin meanwhile.
        let _turn = changing.lock().await;
        if let Err(failed) = journal.clear().await {
            tracing::warn!(%point, why = %failed.why, "rows of a migration are left");
        }
    });
    Ok(())
}

/// Whether files of `mount` are on their way to another driver: then it is neither detached nor changed, and nobody waits for that.
pub(super) fn not_migrating(kernel: &Kernel, op: Op, mount: &Mount) -> Result<(), Error> {
    match kernel.migrations().of(mount).filter(|progress| !progress.state().is_over()) {
        None => Ok(()),
        Some(running) => {
            let why = format!("it is being migrated to {}", running.to.driver);
            Err(Error::new(op, &mount.point, ErrorKind::Busy).because(why))
        }
    }
}

fn order_of(mount: &Mount, caller: &Arc<Caller>, spec: &MountSpec) -> Attach {
    Attach {
        zone: mount.zone.clone(),
        point: mount.point.clone(),
        spec: spec.clone(),
        create: Create::Never,
        replace: true,
        caller: caller.clone(),
    }
}

fn mount_at(kernel: &Kernel, zone: &ZoneId, point: &VPath) -> Result<Arc<Mount>, Error> {
    let none = || {
        let within =
            kernel.routes().route(zone, point, |routed| routed.map(|routed| routed.mount.point.clone()));
        let why = match within {
            Some(mount) => format!(
                "nothing is mounted there: all of a mount moves, and this is a part of {mount}, which `nexus sync {point} ELSEWHERE` copies to another mount"
            ),
            None => "nothing is mounted there".into(),
        };
        Error::new(Op::Mount, point, ErrorKind::NotFound).because(why)
    };
    kernel.mount_at(zone, point).ok_or_else(none)
}

async fn begin(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    point: &VPath,
    mut row: StateRow,
) -> Result<(), Error> {
    let fail = |kind| Error::new(Op::Mount, point, kind);
    let failed = |error: Failed| fail(error.kind).because(error.why);
    let stored = |error: StoreError| fail(error.kind()).because(error);
    let checked = kernel.catalogue().check(&row.spec).and_then(|()| MountOptions::of(&row.spec).map(drop));
    checked.map_err(|error| fail(ErrorKind::InvalidArgument).because(error))?;
    let mount = mount_at(kernel, &caller.zone, point)?;
    row.spec = going_on(&mount.spec(), row.spec);
    let spec = Arc::new(row.spec.clone());
    warn_of_secrets(kernel, point, &spec);
    if let Some(running) = kernel.migrations().of(&mount).filter(|progress| !progress.state().is_over()) {
        if running.to == row.spec {
            return Ok(());
        }
        let why = format!("it is being migrated to {}", running.to.driver);
        return Err(fail(ErrorKind::Busy).because(why));
    }
    let waited = kernel.env().timeout(LOCK_WAIT_MAX, mount.changing().clone().lock_owned()).await;
    let turn = waited.map_err(|_| fail(ErrorKind::Busy).because("the mount is being changed"))?;
    if !kernel.mount_at(&mount.zone, point).is_some_and(|there| Arc::ptr_eq(&there, &mount)) {
        return Err(fail(ErrorKind::NotFound).because("it was detached meanwhile"));
    }
    let old = mount.spec();
    for spec in [&old, &spec] {
        if kernel.catalogue().get(&spec.driver).is_some_and(|factory| factory.volatile()) {
            let why =
                format!("what {} stores is gone with the process, and no migration outlives it", spec.driver);
            return Err(fail(ErrorKind::NotSupported).because(why));
        }
    }
    let known = Journal::state(kernel, &mount).map_err(stored)?;
    let journal = Journal::new(kernel, &mount, order_of(&mount, caller, &spec));
    let known = match known {
        Some(left) if left.over => {
            // The rest of one that is over.
            let rest = match left.left_by {
                Some(root) => Journal::left_by(kernel, &mount, journal.order(), root).clear().await,
                None => journal.clear().await,
            };
            rest.map_err(failed)?;
            None
        }
        known => known,
    };
    if let Some(other) = known.as_ref().filter(|known| known.spec != row.spec) {
        let store = named(&other.spec.driver, &kernel.catalogue().shown(&other.spec));
        let why = format!("a migration to {store} was begun: go on with that one, or abort it");
        return Err(fail(ErrorKind::Busy).because(why));
    }
    not_taken(kernel, &mount, &spec).and_then(|()| lies_elsewhere(&mount, &spec)).map_err(failed)?;
    let opened = open_new(kernel, &mount, &spec).await.map_err(failed)?;
    let allowed = can_cross(&mount, &opened).and_then(|()| can_be_handed_over(&spec, &opened));
    if let Err(refused) = allowed {
        mount.threads().end(kernel.env(), opened).await;
        return Err(failed(refused));
    }
    row.successor = match &known {
        Some(known) => known.successor,
        None if mount.is_path_addressed() && !opened.path_addressed => Some(kernel.store().new_file_id()),
        None => None,
    };
    let journal = journal.with_successor(row.successor);
    let progress = Progress::new(kernel.env(), kernel.catalogue(), &mount, &spec, MigrationState::Checking);
    let progress = Arc::new(progress);
    let run =
        Run::new(kernel, &mount, opened, journal, progress.clone(), (&row, known.is_some()), turn).await;
    // From here on no other one begins that goes there.
    if let Err(other) = kernel.migrations().begin(&mount, progress) {
        mount.threads().end(kernel.env(), (run.target, run.opened, run.crossing)).await;
        return Err(failed(aimed_at(&other)));
    }
    start(kernel, "migration.run", &run.progress.clone(), run.migrate());
    Ok(())
}

/// Whether the new driver is what the order asks for, and says only what its store says.
fn can_be_handed_over(spec: &MountSpec, opened: &Opened) -> Result<(), Failed> {
    check_honoured(spec, opened.nature())?;
    let early = guard(|| opened.driver.acknowledges_early()).unwrap_or(false);
    if early {
        let why = format!(
            "write_back has {} acknowledge what is not at its store yet, and a migration verifies what the store gives back: leave it out, and \
             ask for it by `mount --replace` when the migration is done",
            spec.driver
        );
        return Err(Failed::refused(why));
    }
    Ok(())
}

/// Runs it beside the call that asked for it; what panics is told as such.
fn start(
    kernel: &Arc<Kernel>,
    name: &'static str,
    progress: &Arc<Progress>,
    working: impl Future<Output = ()> + Send + 'static,
) {
    let (progress, (done, over)) = (progress.clone(), oneshot::channel());
    kernel.env().spawn(name, async move {
        working.await;
        // Who waits may have ended with the kernel.
        let _ = done.send(());
    });
    kernel.env().spawn("migration.watch", async move {
        if over.await.is_err() {
            progress.mount().passage().end_notes();
            progress
                .fail(&Failed { kind: ErrorKind::Crashed, why: "it panicked, or the kernel ended".into() });
        }
    });
}

async fn open_new(kernel: &Arc<Kernel>, mount: &Arc<Mount>, spec: &Arc<MountSpec>) -> Result<Opened, Failed> {
    let args = DriverArgs {
        mount: Arc::downgrade(mount),
        catalogue: kernel.catalogue().clone(),
        data_folder: kernel.data_folder().map(Into::into),
        announce: outside::announce(kernel),
    };
    // A driver that was told to refuse changes would refuse the copies; who calls is refused by the mount.
    let mut writable = (**spec).clone();
    writable.read_only = false;
    writable.options.remove("read_only");
    let opened = open(kernel.env().clone(), mount.threads().clone(), args, Arc::new(writable), false).await;
    let mut opened = opened.map_err(|error| {
        let (kind, why) = not_opened(&error);
        let store = named(&spec.driver, &kernel.catalogue().shown(spec));
        Failed { kind, why: format!("the new store {store}: {why}") }
    })?;
    (opened.spec, opened.options) = (spec.clone(), MountOptions::of(spec)?);
    Ok(opened)
}

/// What came of a last round.
enum Last {
    /// It was the last, and the gate is closed.
    Done(Shut),
    /// There was not the time for it.
    Late,
    /// The old driver has something yet to bring to its store.
    Unflushed,
}

/// A migration at work.
struct Run {
    kernel: Arc<Kernel>,
    mount: Arc<Mount>,
    spec: Arc<MountSpec>,
    opened: Opened,
    /// The new driver, behind a door of its own.
    target: Arc<Guarded>,
    /// What becomes of names.
    crossing: Crossing,
    journal: Arc<Journal>,
    progress: Arc<Progress>,
    without_modes: bool,
    /// The root of the successor, where there is one.
    successor: Option<FileId>,
    /// Whether something may have been copied before.
    resumed: bool,
    /// What the old driver can do, and the new one; of those that find files by their paths.
    had: PathCapabilities,
    can: PathCapabilities,
    twins: Mutex<Twins>,
    turn: OwnedMutexGuard<()>,
}

impl Run {
    async fn new(
        kernel: &Arc<Kernel>,
        mount: &Arc<Mount>,
        opened: Opened,
        journal: Journal,
        progress: Arc<Progress>,
        (row, resumed): (&StateRow, bool),
        turn: OwnedMutexGuard<()>,
    ) -> Self {
        let watch = Watch {
            env: kernel.env().clone(),
            point: mount.point.clone(),
            options: opened.options,
            health: Arc::new(Health::new()),
            // What goes wrong there is no trouble of the driver that serves.
            actor: None,
            passage: Arc::new(Passage::new()),
            era: Era::default(),
            opener: None,
            places: opened.options.concurrency.map(Places::new),
        };
        let target = Arc::new(Guarded::new(opened.driver.clone(), opened.path_addressed, watch));
        let journal = Arc::new(journal);
        let mut run = Self {
            kernel: kernel.clone(),
            mount: mount.clone(),
            spec: opened.spec.clone(),
            had: PathCapabilities::default(),
            can: PathCapabilities::default(),
            crossing: Crossing::of(kernel, mount, &opened, row.successor, &journal),
            opened,
            target,
            journal,
            progress,
            without_modes: row.without_modes,
            successor: row.successor,
            resumed,
            twins: Mutex::default(),
            turn,
        };
        run.look_at_both().await;
        run
    }

    /// What is known of it as a whole.
    fn row(&self, over: bool) -> StateRow {
        let (spec, without_modes) = ((*self.spec).clone(), self.without_modes);
        StateRow { spec, without_modes, over, successor: self.successor, left_by: None }
    }

    /// All of it, to whichever end.
    async fn migrate(self) {
        let (stop, passage) = (self.progress.stop.clone(), self.mount.passage().clone());
        let outcome = {
            let (work, stopped) = (Box::pin(self.work()), Box::pin(stop.wait()));
            match select(work, stopped).await {
                Either::Left((done, _)) => Some(done),
                Either::Right(_) => None,
            }
        };
        match outcome {
            Some(Ok(Shut::Gate(closed))) => self.switch(closed).await,
            Some(Ok(Shut::Locked(lock))) => Box::pin(self.cross(lock)).await,
            Some(Err(failed)) => {
                passage.end_notes();
                if self.progress.state() == MigrationState::Aborting {
                    return self.undo().await;
                }
                tracing::warn!(point = %self.mount.point, why = %failed.why, "a migration came to an end");
                // What was confirmed need not be copied again.
                if let Err(error) = self.journal.flush(true).await {
                    tracing::warn!(point = %self.mount.point, why = %error.why, "some copies will be made again");
                }
                self.progress.fail(&failed);
                if let Crossing::ToRows { store, .. } = &self.crossing {
                    // Nothing more is begun of what nobody waits for any more.
                    store.give_up();
                }
                let store = (self.target, self.opened, self.crossing);
                self.mount.threads().end(self.kernel.env(), store).await;
            }
            None => {
                passage.end_notes();
                self.undo().await;
            }
        }
    }

    /// Copies all there is, and gives the closed gate: the new store has what the old one has, and nothing changes.
    async fn work(&self) -> Result<Shut, Failed> {
        self.check().await?;
        if self.resumed {
            self.check_contents().await?;
        } else {
            let row = self.row(false);
            let mut begun = vec![self.journal.says(&row)];
            begun.extend(remembered_as(&self.kernel, &self.mount, &row));
            self.journal.write(begun).await?;
        }
        // Who comes to that store from now on sees the row; who came before it was written is seen now.
        if let Err(taken) = not_taken(&self.kernel, &self.mount, &self.spec) {
            if !self.resumed {
                self.journal.clear().await?;
            }
            return Err(taken);
        }
        if !self.progress.goes_on(MigrationState::Copying) {
            return Err(Failed { kind: ErrorKind::Busy, why: "it is aborted".into() });
        }
        let passage = self.mount.passage();
        passage.begin_notes(matches!(self.crossing, Crossing::FromRows(_)));
        // Rows are changed by nobody beside the kernel.
        let looks = if self.mount.is_path_addressed() { LOOKS } else { 1 };
        for look in 0..looks {
            self.look_at_all(look == 0, self.resumed || look > 0).await?;
        }
        let (env, mut awaited, mut unflushed) = (self.kernel.env(), None, 0);
        for _ in 0..ROUNDS_MAX {
            let notes = passage.take_notes();
            if notes.all || notes.len() > FEW {
                Progress::count(&self.progress.rounds, 1);
                self.catch_up(&notes).await?;
                continue;
            }
            passage.give_back(notes);
            if self.coming() > 0 {
                let since = *awaited.get_or_insert_with(|| env.now());
                if env.now().saturating_duration_since(since) < UPLOADS_MAX {
                    env.sleep(BETWEEN).await;
                    continue;
                }
            }
            match self.last_round().await? {
                Last::Done(closed) => return Ok(closed),
                Last::Late => {}
                Last::Unflushed if unflushed < FLUSHES_MAX => unflushed += 1,
                Last::Unflushed => return Err(self.not_flushed().await),
            }
            env.sleep(BETWEEN).await;
            Progress::count(&self.progress.rounds, 1);
            // More than can be told may have come while the gate was being closed.
            let notes = passage.take_notes();
            self.catch_up(&notes).await?;
        }
        let why = format!(
            "after {ROUNDS_MAX} rounds there is more that changed than can be copied in {CLOSED_MAX:?}"
        );
        Err(Failed { kind: ErrorKind::TimedOut, why })
    }

    /// With the gate closed: what is left. It is open again when that takes too long.
    async fn last_round(&self) -> Result<Last, Failed> {
        let (env, passage) = (self.kernel.env(), self.mount.passage());
        // What cannot be done by then, or comes meanwhile, is left for when nothing comes.
        self.flush_old(FLUSH_MAX).await?;
        let began = env.now();
        Progress::count(&self.progress.closings, 1);
        let closed = self.shut().await;
        let notes = passage.take_notes();
        let left = CLOSED_MAX.saturating_sub(env.now().saturating_duration_since(began));
        let Some(closed) = closed.filter(|_| !notes.all) else {
            passage.give_back(notes);
            self.progress.closed_for(env.now().saturating_duration_since(began));
            return Ok(Last::Late);
        };
        let rest = async {
            // Half of it: what else is left is to be done, too.
            if !self.flush_old(left / 2).await? {
                return Ok(Some(Last::Unflushed));
            }
            self.settle(&notes, true).await?;
            self.describe_root().await?;
            Ok::<_, Failed>((!passage.is_clear()).then_some(Last::Late))
        };
        let settled = env.timeout(left, rest).await.unwrap_or(Ok(Some(Last::Late)));
        self.progress.closed_for(env.now().saturating_duration_since(began));
        let is_over = match settled {
            Ok(None) if self.progress.goes_on(MigrationState::Switching) => return Ok(Last::Done(closed)),
            Ok(None) => Err(Failed { kind: ErrorKind::Busy, why: "it is aborted".into() }),
            Ok(Some(last)) => Ok(last),
            Err(failed) => Err(failed),
        };
        passage.give_back(notes);
        drop(closed);
        is_over
    }

    /// Has the old driver bring to its store what it has acknowledged early; says whether all of it is there.
    async fn flush_old(&self, within: Duration) -> Result<bool, Failed> {
        let flushing = async {
            tried!(self, Side::Old, async {
                let driver = self.mount.lease().await;
                driver.flush().await
            })
        };
        match self.kernel.env().timeout(within, flushing).await {
            Ok(flushed) => flushed.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    async fn not_flushed(&self) -> Failed {
        let figures = self.mount.lease().await.cache().unwrap_or_default();
        let said = figures.last_failure.map_or_else(String::new, |said| format!(": {said}"));
        let why = format!("what is written back does not come to the store that is to be left{said}");
        Failed { kind: ErrorKind::TimedOut, why }
    }

    /// Whether it can be done, as far as can be told before. Nothing is left in the new store.
    async fn check(&self) -> Result<(), Failed> {
        if self.target.read_only() {
            return Err(Failed {
                kind: ErrorKind::ReadOnly,
                why: "what is to be mounted takes no changes".into(),
            });
        }
        if !self.is_of_files() {
            return Ok(());
        }
        let has_names = !matches!(self.crossing, Crossing::ToRows { .. });
        if has_names && !self.resumed && !self.is_empty().await? {
            let why = "the new store is not empty: what is there would be files of the mount".into();
            return Err(Failed { kind: ErrorKind::NotEmpty, why });
        }
        self.check_with_marker().await
    }

    async fn look_at_all(&self, first: bool, compare: bool) -> Result<(), Failed> {
        if self.is_of_files() {
            self.copy_tree("", compare, false).await?;
        } else {
            self.copy_contents(first).await?;
        }
        Progress::count(&self.progress.looks, 1);
        Ok(())
    }

    /// Sees to what was noted, while changes go on.
    async fn catch_up(&self, notes: &Notes) -> Result<(), Failed> {
        if notes.all {
            self.look_at_all(false, true).await?;
        }
        self.settle(notes, false).await
    }

    /// Sees to what was noted by itself.
    async fn settle(&self, notes: &Notes, closed: bool) -> Result<(), Failed> {
        if self.is_of_files() {
            return self.settle_files(notes, closed).await;
        }
        let ids: Vec<_> = notes.contents.iter().cloned().collect();
        for ids in ids.chunks(journal::PAGE) {
            self.copy_these(ids).await?;
        }
        self.journal.flush(true).await
    }

    /// From the row on: the new driver takes the place of the old one.
    async fn switch(self, closed: Closed) {
        let row = self.row(true);
        let (kernel, mount, journal) = (self.kernel, self.mount, self.journal);
        let order = journal.order();
        let done = swap::hand_over(&kernel, order, &mount, self.opened, journal.says(&row), closed).await;
        mount.passage().end_notes();
        match done {
            Ok(()) => {
                if let Err(failed) = journal.clear().await {
                    tracing::warn!(point = %mount.point, why = %failed.why, "rows of a migration are left");
                }
                self.progress.end(MigrationState::Done);
            }
            Err(error) => {
                tracing::warn!(point = %mount.point, %error, "a migration was not brought to its end");
                self.progress.fail(&Failed { kind: error.kind(), why: error.to_string() });
            }
        }
        drop(self.turn);
    }
}
