//! From files by their paths to content by its hash, and back: names become rows of the metastore, or cease to be, all in one commit.
//!
//! A mount keeps to its root, and a root to the way in which files below it are found. So the new driver gets a mount of its own, with a new root, to which nobody
//! is led: its *successor*. Where the new names are rows, it is filled beside the old mount (`volume/as_files.rs` has it look like a store of files), and remembered as
//! one that is not attached, so that nobody collects its rows. The switch is a commit that forgets the old mount and attaches the successor, and then the router binds
//! the mount point to it. Rows of the old root are those of a mount that is gone: the next collection of garbage removes them.
//!
//! The gate is the lock of all of the mount, shared with those who read: who changes something has a lock below it. Who waited for one meanwhile finds that
//! another mount serves the path, and is led there.

use std::sync::Arc;

use nexus_messages::syscall::MountSpec;
use nexus_messages::{
    Durability, EntryType, Error, ErrorKind, EventKind, Executed, FileId, Op, Receipt, Timestamp,
};

use super::failed::{Attempts, Side, tried};
use super::files::files;
use super::journal::{Journal, StateRow};
use super::recorded::Recorded;
use super::{BETWEEN, CLOSED_MAX, Failed, MigrationState, Run};
use crate::hal::{Change, PathCapabilities, PathStore, StoreError};
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, PathGuard, Scope};
use crate::mounts::attach::{commit, mount_entry, rebind, start, stop, told};
use crate::mounts::driver::Opened;
use crate::mounts::guarded::{Guarded, Places, Watch};
use crate::mounts::history;
use crate::mounts::mount::Mount;
use crate::mounts::options::{Class, MountOptions};
use crate::mounts::passage::{Closed, Era};
use crate::mounts::swap::adopt;
use crate::namespace::{InodeRow, MountRow, addressing_key, encode, inode_key, mount_key};
use crate::volume::RowFiles;
use crate::watcher::{Held, told as told_of, told_mount};

/// The options that say where a store is, but for the place in it.
const PLACES: [&str; 4] = ["account", "bucket", "container", "endpoint"];

/// What becomes of names.
#[derive(Debug)]
pub(super) enum Crossing {
    /// They stay what they are.
    Not,
    /// They become rows, of the successor.
    ToRows { successor: Arc<Mount>, files: RowFiles, store: Arc<Recorded> },
    /// They are rows, and cease to be.
    FromRows(RowFiles),
}

/// The store that the files leave, for one call.
pub(super) enum Source<'a> {
    Door(nexus_actors::Lease<Arc<Guarded>>),
    Rows(&'a RowFiles),
}

impl Source<'_> {
    pub(super) fn files(&self) -> Result<&dyn PathStore, StoreError> {
        match self {
            Self::Door(door) => files(&***door),
            Self::Rows(rows) => Ok(*rows),
        }
    }
}

/// The mount is kept from being changed for as long as this is there.
pub(super) enum Shut {
    /// By the gate of its driver.
    Gate(Closed),
    /// By the lock of all its paths.
    Locked(PathGuard),
}

impl Crossing {
    /// What becomes of the names of `mount` when `opened` takes its place. `root` is that of the successor.
    pub(super) fn of(
        kernel: &Arc<Kernel>,
        mount: &Arc<Mount>,
        opened: &Opened,
        root: Option<FileId>,
        journal: &Arc<Journal>,
    ) -> Self {
        match (mount.is_path_addressed(), opened.path_addressed, root) {
            (true, false, Some(root)) => {
                let store = Recorded::new(kernel.env(), opened.driver.clone(), journal.clone());
                let store = Arc::new(store);
                let successor = Arc::new(successor(kernel, mount, opened, root, store.clone()));
                let files = RowFiles::new(kernel, &successor);
                Self::ToRows { successor, files, store }
            }
            (false, true, _) => Self::FromRows(RowFiles::new(kernel, mount)),
            _ => Self::Not,
        }
    }
}

/// A mount for the new driver, to which nobody is led: behind its door is `store`.
fn successor(kernel: &Kernel, mount: &Mount, opened: &Opened, root: FileId, store: Arc<Recorded>) -> Mount {
    let mut spec = (*opened.spec).clone();
    // What is written there again supersedes nothing that ever was a file of the mount.
    spec.options.insert("history_count".into(), "0".into());
    let generation = kernel.caches().metadata.new_mount();
    let successor = Mount::new(root, mount.zone.clone(), mount.tree, mount.point.clone(), spec, generation);
    let watch = Watch {
        env: kernel.env().clone(),
        point: mount.point.clone(),
        options: opened.options,
        health: successor.health().clone(),
        actor: None,
        passage: successor.passage().clone(),
        era: Era::default(),
        opener: None,
        places: opened.options.concurrency.map(Places::new),
    };
    let door = Guarded::new(store, false, watch);
    // Before its actor is there, nobody has its pen.
    let put = successor.put(kernel.env(), 0, door, false);
    drop(put.expect("nobody has published there"));
    successor
}

/// What the metastore has of a successor before it is attached.
pub(super) fn remembered_as(kernel: &Kernel, mount: &Mount, row: &StateRow) -> Vec<Change> {
    let Some(root) = row.successor else { return Vec::new() };
    let attached = false;
    let (at, spec) = (Timestamp(kernel.env().wall()), row.spec.clone());
    vec![
        Change::Put(mount_key(root), encode(&mount_row(mount, spec, attached))),
        Change::PutIfAbsent(inode_key(mount.tree, root), root_row(mount, at)),
    ]
}

fn mount_row(mount: &Mount, spec: MountSpec, attached: bool) -> MountRow {
    let (zone, point) = (mount.zone.clone(), mount.point.clone());
    MountRow { zone, tree: mount.tree, point, spec, attached }
}

fn root_row(mount: &Mount, at: Timestamp) -> bytes::Bytes {
    let mut row = InodeRow::new(EntryType::Mount, nexus_messages::Caller::KERNEL.into(), at);
    row.mode = mount.first_mode(EntryType::Mount);
    encode(&row)
}

/// Whether names of `mount` may become rows, or cease to be, when `opened` takes its place.
pub(super) fn can_cross(mount: &Mount, opened: &Opened) -> Result<(), Failed> {
    if opened.path_addressed == mount.is_path_addressed() {
        return Ok(());
    }
    let old = mount.spec();
    if lie_together(&old, &opened.spec) {
        return Err(together(mount));
    }
    for spec in [&old, &opened.spec] {
        if MountOptions::of(spec).unwrap_or_default().class() == Class::Scratch {
            let why = "what a mount of the class scratch has is gone with the process, and no migration that makes rows of its names, or files of them, outlives it";
            return Err(Failed::refused(why.into()));
        }
    }
    let is_given_up = opened.spec.options.get("history_count").is_some_and(|count| count == "0");
    if opened.path_addressed && mount.history().is_some() && !is_given_up {
        let why = format!(
            "{} keeps the history of its files, and {}, which finds files by their paths, keeps none: --opt history_count=0 gives it up",
            mount.point, opened.spec.driver
        );
        return Err(Failed::refused(why));
    }
    Ok(())
}

/// Whether `spec` names what does not lie in the files of `mount`, as far as can be told before it is opened: a driver may keep something for itself there.
pub(super) fn lies_elsewhere(mount: &Mount, spec: &MountSpec) -> Result<(), Failed> {
    match mount.is_path_addressed() && lie_together(&mount.spec(), spec) {
        true => Err(together(mount)),
        false => Ok(()),
    }
}

fn together(mount: &Mount) -> Failed {
    let why = format!("what is to be mounted lies in the store of {} itself, or that in it", mount.point);
    Failed { kind: ErrorKind::InvalidArgument, why }
}

/// Whether what both specs name is one place, or one in the other, as far as their options say. A store of contents shows none of its files, so none can be looked for.
fn lie_together(one: &MountSpec, other: &MountSpec) -> bool {
    let said = |spec: &MountSpec, key: &str| spec.options.get(key).cloned();
    let within = |one: &str, other: &str| {
        let parts = |text: &str| text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let (one, other): (Vec<_>, Vec<_>) = (parts(one), parts(other));
        let both = one.len().min(other.len());
        one[..both] == other[..both]
    };
    if let (Some(one), Some(other)) = (said(one, "folder"), said(other, "folder")) {
        return within(&one, &other);
    }
    let names_one = ["bucket", "container"].iter().any(|key| one.options.contains_key(*key));
    let is_same = PLACES.iter().all(|key| said(one, key) == said(other, key));
    let prefix = |spec| said(spec, "prefix").unwrap_or_default();
    names_one && is_same && within(&prefix(one), &prefix(other))
}

impl Run {
    /// The store that the files leave.
    pub(super) async fn old(&self) -> Source<'_> {
        match &self.crossing {
            Crossing::FromRows(rows) => Source::Rows(rows),
            _ => Source::Door(self.mount.lease().await),
        }
    }

    /// The store that they come to, as one of files.
    pub(super) fn new_files(&self) -> Result<&dyn PathStore, StoreError> {
        match &self.crossing {
            Crossing::ToRows { files, .. } => Ok(files),
            _ => files(&*self.target),
        }
    }

    /// What both can do, where files are copied.
    pub(super) async fn look_at_both(&mut self) {
        let can = |store: Result<&dyn PathStore, StoreError>| {
            store.map(|store| store.capabilities()).unwrap_or_default()
        };
        let had: PathCapabilities = can(self.old().await.files());
        (self.had, self.can) = (had, can(self.new_files()));
    }

    /// Whether files are copied, and not contents.
    pub(super) fn is_of_files(&self) -> bool {
        self.opened.path_addressed || self.mount.is_path_addressed()
    }

    /// Keeps the mount from being changed; none when those who change it do not end in time.
    pub(super) async fn shut(&self) -> Option<Shut> {
        let env = self.kernel.env();
        if matches!(self.crossing, Crossing::Not) {
            return self.mount.passage().close(env, CLOSED_MAX).await.map(Shut::Gate);
        }
        let owner = LockOwner { agent: nexus_messages::Caller::KERNEL.into(), since: Timestamp(env.wall()) };
        // Reads go on: they share it.
        let lock = self.kernel.locks().lock(&self.mount.point, Mode::Read, Scope::Subtree, owner);
        env.timeout(CLOSED_MAX, lock).await.ok().map(Shut::Locked)
    }

    /// How much content is on its way that cannot go on in the new store.
    pub(super) fn coming(&self) -> usize {
        let passage = self.mount.passage();
        match self.crossing {
            Crossing::Not => passage.uploads(),
            _ => passage.uploads() + passage.streams(),
        }
    }

    /// Why the new store cannot hold what rows say of the entry at `path`, which is `shown` so.
    pub(super) fn lost_with_rows(&self, path: &str, shown: &str) -> Option<String> {
        let Crossing::FromRows(rows) = &self.crossing else { return None };
        if self.without_modes {
            return None;
        }
        // Whose a file is counts where somebody says who may do what.
        match rows.beyond_files(path, self.kernel.gate().is_guarded()) {
            Ok(None) => None,
            Ok(Some(what)) => Some(format!(
                "{shown} {what}, and {} keeps no such thing, which --without-modes gives up",
                self.spec.driver
            )),
            Err(error) => Some(format!("{shown}: {error}")),
        }
    }

    /// Lets no row speak for a copy in rows of which some content is not in the new store any more: what became of it between two processes nobody knows.
    pub(super) async fn check_contents(&self) -> Result<(), Failed> {
        let Crossing::ToRows { .. } = self.crossing else { return Ok(()) };
        let mut after: Option<String> = None;
        loop {
            let page = self.journal.contents(after.as_deref())?;
            for (name, _) in page.iter().filter(|(_, stored)| *stored) {
                let id = super::contents::id_of(name).ok_or_else(|| bad_name(name))?;
                let there = tried!(self, Side::New, async {
                    super::contents::contents(&*self.target)?.contains(&id).await
                })?;
                if !there {
                    return self.journal.doubt_all().await;
                }
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Removes the contents that were announced from the new store. Nobody writes there any more.
    pub(super) async fn remove_contents(&self) -> Result<(), Failed> {
        let mut after: Option<String> = None;
        loop {
            let page = self.journal.contents(after.as_deref())?;
            for (name, _) in &page {
                self.remove_content(name).await?;
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// From the successor on: it takes the place of the old mount. What changes the mount waits until `lock` is dropped.
    pub(super) async fn cross(self, lock: PathGuard) {
        let (kernel, old) = (self.kernel.clone(), self.mount.clone());
        let row = self.row(true);
        let Self { crossing, journal, progress, opened, turn, .. } = self;
        let new = match crossing {
            Crossing::ToRows { successor, .. } => successor,
            _ => Arc::new(Mount::new(
                kernel.store().new_file_id(),
                old.zone.clone(),
                old.tree,
                old.point.clone(),
                (*opened.spec).clone(),
                kernel.caches().metadata.new_mount(),
            )),
        };
        new.set_spec(opened.spec.clone());
        // Nobody changes it before all of this is over. It is nobody's yet, so nobody has it.
        let turn_of_new = new.changing().clone().lock_owned().await;
        let done = attached(&kernel, &journal, (&old, &new), opened, (row, lock)).await;
        old.passage().end_notes();
        if done.is_ok() {
            kernel.migrations().moved(old.root, new.root);
        }
        let lsn = match done {
            Ok(receipt) => receipt,
            Err(error) => {
                tracing::warn!(point = %old.point, %error, "a migration was not brought to its end");
                return progress.fail(&Failed { kind: error.kind(), why: error.to_string() });
            }
        };
        let order = journal.order();
        told(&kernel, EventKind::MetadataChanged, &old.point, &order.caller, lsn).await;
        // A look that is under way finds the new mount after that, and a stream has to begin anew.
        old.health().ended(StoreError::Moved { what: old.point.to_string() });
        stop(&kernel, &old).await;
        kernel.pipes().close_mount(kernel.env(), old.root);
        kernel.close_streams(old.root);
        let left = Journal::left_by(&kernel, &new, order, old.root);
        if let Err(failed) = left.clear().await {
            tracing::warn!(point = %new.point, why = %failed.why, "rows of a migration are left");
        }
        progress.end(MigrationState::Done);
        drop((turn, turn_of_new));
    }
}

fn bad_name(name: &str) -> StoreError {
    let found = format!("a content called {name:?}");
    StoreError::Corrupt { what: "the journal of a migration".into(), found }
}

/// Has `new` attached in the place of `old`: its driver served, one commit, the route. Then `lock` goes.
async fn attached(
    kernel: &Arc<Kernel>,
    journal: &Journal,
    (old, new): (&Arc<Mount>, &Arc<Mount>),
    opened: Opened,
    (row, lock): (StateRow, PathGuard),
) -> Result<Receipt, Error> {
    let fail = |kind: ErrorKind, why: String| Error::new(Op::Mount, &old.point, kind).because(why);
    let served = async {
        start(kernel, new).await.map_err(|(kind, why)| fail(kind, why))?;
        let adopted = adopt(new, opened).await;
        adopted.map(drop).map_err(|error| fail(ErrorKind::Crashed, error.to_string()))
    };
    // Dropped at the end: watchers are told when the new mount serves.
    let holding = kernel.watches().hold();
    let committed = async {
        served.await?;
        committed(kernel, journal, (old, new), row, holding.held()).await
    };
    let receipt = match committed.await {
        Ok(receipt) => receipt,
        Err(error) => {
            stop(kernel, new).await;
            return Err(error);
        }
    };
    // Before it is routed, so that a router which starts from this list has it.
    kernel.mounts().unlist(old);
    kernel.mounts().list(new);
    if let Err((kind, why)) = rebind(kernel, new).await {
        stop(kernel, old).await;
        // Nobody is to write to what was put away: until the new one has the route, or the kernel ends, all who change something wait.
        let (again, new) = (kernel.clone(), new.clone());
        kernel.env().spawn("migration.route", async move {
            while rebind(&again, &new).await.is_err() {
                again.env().sleep(BETWEEN).await;
            }
            drop(lock);
        });
        return Err(fail(kind, why).outcome_unknown());
    }
    drop(lock);
    Ok(receipt)
}

/// The switch.
async fn committed(
    kernel: &Arc<Kernel>,
    journal: &Journal,
    (old, new): (&Arc<Mount>, &Arc<Mount>),
    row: StateRow,
    held: Option<Held>,
) -> Result<Receipt, Error> {
    let (order, op_id, at) = (journal.order(), kernel.new_op_id(), Timestamp(kernel.env().wall()));
    let stored = |error: StoreError| Error::new(Op::Mount, &old.point, error.kind()).because(error);
    let mut entry = mount_entry(&order, new.tree, op_id, at);
    entry.told = Some(told_of(&order.caller, told_mount(EventKind::MetadataChanged)));
    let attached = true;
    let now = mount_row(new, row.spec.clone(), attached);
    entry.changes.extend([
        Change::Delete(mount_key(old.root)),
        Change::Delete(addressing_key(old.root)),
        Change::Put(mount_key(new.root), encode(&now)),
        Change::PutIfAbsent(inode_key(new.tree, new.root), root_row(new, at)),
        Change::Put(addressing_key(new.root), encode(&new.is_path_addressed())),
    ]);
    entry.changes.extend(journal.moves_to(new.root, row));
    {
        let rows = kernel.store().rows(new.tree).map_err(stored)?;
        let policy = history::policy(new, &now.spec);
        entry.changes.extend(history::begin(&rows, new, policy).map_err(stored)?);
        entry.changes.extend(history::end(&rows, old, None).map_err(stored)?);
    }
    let receipt = |lsn| Receipt::new(op_id, lsn, Durability::Strong);
    match commit(kernel, entry, held).await {
        Ok(lsn) => Ok(receipt(lsn)),
        Err(error) if error.executed() == Executed::Unknown => {
            // What the row says is what the next boot goes by.
            let rows = kernel.store().rows(new.tree).map_err(stored)?;
            let there = rows.reader.get(&mount_key(new.root)).map_err(stored)?;
            drop(rows);
            match there.is_some_and(|there| there == encode(&now)) {
                true => kernel.store().last_lsn(new.tree).map(receipt).map_err(stored),
                false => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_that_lie_in_one_another_are_known_by_what_says_where_they_are() {
        let check = |one: &[(&str, &str)], other: &[(&str, &str)], expected: bool| {
            let spec = |options: &[(&str, &str)]| {
                options.iter().fold(MountSpec::new("d"), |spec, (key, value)| spec.option(*key, *value))
            };
            assert_eq!(lie_together(&spec(one), &spec(other)), expected, "{one:?} {other:?}");
            assert_eq!(lie_together(&spec(other), &spec(one)), expected, "{other:?} {one:?}");
        };
        check(&[("folder", "/a")], &[("folder", "/a/b")], true);
        check(&[("folder", "/a/")], &[("folder", "/a")], true);
        check(&[("folder", "/a/b")], &[("folder", "/a/bc")], false);
        check(&[("folder", "/a")], &[("bucket", "a")], false);
        check(&[("bucket", "a")], &[("bucket", "a"), ("prefix", "p/q")], true);
        check(&[("bucket", "a"), ("prefix", "p")], &[("bucket", "a"), ("prefix", "p/q")], true);
        check(&[("bucket", "a"), ("prefix", "p")], &[("bucket", "a"), ("prefix", "q")], false);
        check(&[("bucket", "a")], &[("bucket", "b")], false);
        check(&[("bucket", "a"), ("endpoint", "e")], &[("bucket", "a")], false);
        check(&[], &[], false);
    }
}
