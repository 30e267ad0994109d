//! What a mount serves, as a tree: the operations of syscalls on one mount, with the paths' locks held.
//!
//! Two kinds: on content-addressed mounts names and metadata are rows of the metastore and content is found by its hash; on
//! path-addressed mounts the backend is the truth about all of it. Beside them stands what the kernel shows of itself. Paths here are
//! resolved: no link is left in them but at the end.

mod as_files;
mod emptying;
mod history;
mod large;
mod paths;
mod remove;
mod rename;
mod rewrite;
mod rows;
mod stream;
mod tx;
mod whole;
mod write;

use std::future::{Future, ready};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::Either;
use nexus_messages::syscall::{
    Copied, Create, Extent, Precondition, Renamed, SetattrDone, SysCopy, SysRename, SysSetattr, SysUnlink,
    SysWrite, Unlinked, Written,
};
use nexus_messages::{
    Caller, Conflict, Consistency, ContentId, Durability, Effect, EntryType, Error, ErrorKind, Event,
    EventKind, FileId, FileMetadata, Found, Lsn, Op, OpId, Receipt, Timestamp, VPath,
};

pub(crate) use as_files::RowFiles;
pub(crate) use paths::PathVolume;
pub(crate) use remove::taken_for;
pub(crate) use rows::{Memory, RowVolume};
pub(crate) use stream::{Intake, Source, Staged};
pub(crate) use tx::{Transaction, logged};
pub(crate) use write::{kind_of_removal, kind_of_set};

use crate::hal::{Entry, StoreError, Told, TreeId};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::Node;
use crate::store::{CommitError, Publication, Show, Store};
use crate::sys::{self, SysVolume};
use crate::watcher::{Held, told, told_event, told_nobody};

/// A resolved path and the mount that serves it.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) mount: Arc<Mount>,
    pub(crate) path: VPath,
}

impl Site {
    /// The path below the mount point, without leading slash.
    pub(crate) fn relative(&self) -> &str {
        self.path.relative_to(&self.mount.point).unwrap_or_default()
    }

    /// Whether this is the mount point itself.
    pub(crate) fn is_root(&self) -> bool {
        self.path == self.mount.point
    }
}

/// Who mutates, what for, and when: assigned before anything happens.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) caller: Arc<Caller>,
    pub(crate) op: Op,
    pub(crate) op_id: OpId,
    pub(crate) repeatable: bool,
    /// When it is acknowledged; none: as the mount does.
    pub(crate) consistency: Option<Consistency>,
    pub(crate) at: Timestamp,
    /// Who weighs what the mutation does before it is committed.
    pub(crate) scales: Option<Arc<dyn Scales>>,
    /// The content that a write commits, when it came before the write as a stream.
    pub(crate) staged: Option<Staged>,
    /// The transaction that it is an operation of: then nothing is committed before all are drawn up.
    pub(crate) within: Option<Arc<Transaction>>,
    /// Whether it is given up, as if it had not begun, where it would have to wait for somebody.
    pub(crate) at_once: bool,
    /// Whether the locks that it is made under are there still. None while nobody watches, and before there are any.
    pub(crate) held: Option<Held>,
    /// Whether nobody is told of it who watches: what it changes is not to be seen yet.
    pub(crate) is_untold: bool,
}

/// Who weighs mutations.
pub(crate) trait Scales: std::fmt::Debug + Send + Sync {
    /// Whether the mutation may do this.
    fn weigh(&self, effect: Effect) -> Result<(), Error>;

    /// It has done it.
    fn committed(&self, lsn: Lsn);
}

impl Intent {
    pub(crate) fn fail(&self, path: &VPath, kind: ErrorKind) -> Stop {
        Stop::Failed(Error::new(self.op, path, kind))
    }

    /// The entry in the log of `tree`, in which things change, without changes yet.
    pub(crate) fn entry(&self, tree: TreeId, path: &VPath, other: Option<&VPath>) -> Entry {
        Entry {
            tree,
            op_id: self.op_id,
            repeatable: self.repeatable,
            caller: self.caller.agent.clone(),
            op: self.op,
            path: path.clone(),
            other: other.cloned(),
            items: Vec::new(),
            told: None,
            at: self.at,
            preconditions: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// What the log keeps for those who watch: `kind` happened to what `metadata` describes.
    pub(crate) fn told(&self, kind: EventKind, metadata: &FileMetadata, is_new: bool) -> Arc<Told> {
        match self.is_untold {
            true => told_nobody(),
            false => told(&self.caller, told_event(kind, metadata, is_new)),
        }
    }

    /// What observers are told: `kind` happened at `path`, and `metadata` is what is there, or was.
    pub(crate) fn event(
        &self,
        kind: EventKind,
        path: &VPath,
        metadata: &FileMetadata,
        receipt: Receipt,
    ) -> Event {
        let mut event = Event::new(kind, path.clone(), metadata.entry_type, self.caller.clone(), self.op_id);
        event.size = metadata.size;
        event.content_id.clone_from(&metadata.content_id);
        event.version = metadata.version;
        event.generation = metadata.generation;
        event.lsn = receipt.lsn;
        event.at = self.at;
        event
    }

    /// What the acknowledgement of a change on `mount` promises.
    pub(crate) fn durability(&self, mount: &Mount) -> Durability {
        mount.durability(self.consistency)
    }

    /// The receipt of the commit at `lsn`, on `mount`.
    pub(crate) fn receipt(&self, mount: &Mount, lsn: Lsn) -> Receipt {
        Receipt::new(self.op_id, lsn, self.durability(mount))
    }

    /// The receipt for having found nothing to change on `mount`: what it found is as durable as a change would be.
    pub(crate) async fn unchanged(
        &self,
        store: &Store,
        mount: &Mount,
        path: &VPath,
    ) -> Result<Receipt, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(self.op, path, &error));
        let (lsn, durability) = (store.last_lsn(mount.tree).map_err(failed)?, self.durability(mount));
        if durability == Durability::Strong {
            let durable = store.make_durable(mount.tree, lsn).await;
            durable.map_err(|error| commit_error(self.op, path, &error))?;
        }
        Ok(Receipt::unchanged(self.op_id, lsn, durability))
    }
}

/// Why an operation under the lock came to an end without doing what was asked.
#[derive(Debug)]
pub(crate) enum Stop {
    /// What was resolved is no longer so: release the locks, resolve again.
    Again,
    /// For good.
    Failed(Error),
}

impl Stop {
    /// The error, when it is for good.
    pub(crate) fn failed(self) -> Option<Error> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Again => None,
        }
    }

    /// Whether it may come of a link that stands where none was when the path was resolved.
    pub(crate) fn may_be_of_a_link(&self) -> bool {
        match self {
            Self::Again => true,
            Self::Failed(error) => error.kind() == ErrorKind::NotFound,
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The error of a store, as the caller of `op` on `path` sees it.
pub(crate) fn store_error(op: Op, path: &VPath, error: &StoreError) -> Error {
    let told = Error::new(op, path, error.kind());
    match error {
        StoreError::Full => told,
        error if error.is_unknown() => told.because(error).outcome_unknown(),
        _ => told.because(error),
    }
}

/// As [`store_error`], of content that goes to its store before the row that names it: what no row names is nothing, however far it came.
pub(crate) fn blob_error(op: Op, path: &VPath, error: &StoreError) -> Error {
    Error::new(op, path, error.kind()).because(error)
}

/// The error of a commit, as the caller of `op` on `path` sees it.
pub(crate) fn commit_error(op: Op, path: &VPath, error: &CommitError) -> Stop {
    Stop::Failed(match error {
        CommitError::Refused => return Stop::Again,
        CommitError::Failed(store) | CommitError::Unknown(store) => store_error(op, path, store),
        CommitError::Crashed => Error::new(op, path, ErrorKind::Crashed).because(error).outcome_unknown(),
        CommitError::Down => Error::new(op, path, ErrorKind::Down).because(error),
        CommitError::NotBegun(_) => Error::new(op, path, ErrorKind::TimedOut).because(error),
        CommitError::Hangs(_) => Error::new(op, path, ErrorKind::TimedOut).because(error).outcome_unknown(),
    })
}

/// A path that leads to a mount point is a directory, whatever the mount that serves it says.
fn no_mount_below(kernel: &Kernel, site: &Site, intent: &Intent) -> Result<(), Stop> {
    if kernel.has_mounts_below(&intent.caller.zone, &site.path) {
        return Err(intent.fail(&site.path, ErrorKind::IsADirectory));
    }
    Ok(())
}

/// The state of an entry's content, as far as preconditions look at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State<'a> {
    file_id: FileId,
    version: u64,
    generation: u64,
    content_id: Option<&'a ContentId>,
}

/// Whether what was found is what the caller expects, and may be made when it is missing.
fn expect(
    intent: &Intent,
    path: &VPath,
    found: Option<State<'_>>,
    create: Create,
    expected: &Precondition,
) -> Result<(), Stop> {
    let holds = match (expected, found) {
        (Precondition::None, _) => true,
        (Precondition::Version(version), Some(found)) => *version == found.version,
        (Precondition::Generation(generation), Some(found)) => *generation == found.generation,
        (Precondition::Content(id), Some(found)) => Some(id) == found.content_id,
        (Precondition::Unchanged { file_id, version }, Some(found)) => {
            (*file_id, *version) == (found.file_id, found.version)
        }
        (Precondition::Absent, found) => found.is_none(),
        (_, _) => false,
    };
    if !holds {
        let there = found.map_or(Found::Nothing, |found| Found::Entry {
            file_id: found.file_id,
            version: found.version,
            generation: found.generation,
            content_id: found.content_id.cloned(),
        });
        let error = Error::new(intent.op, path, ErrorKind::PreconditionFailed);
        return Err(error.with_conflict(Conflict::new(expected.clone(), there)).into());
    }
    match (found, create) {
        (None, Create::Never) => Err(intent.fail(path, ErrorKind::NotFound)),
        (Some(_), Create::Exclusive) => Err(intent.fail(path, ErrorKind::AlreadyExists)),
        _ => Ok(()),
    }
}

/// One child of a directory.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: String,
    pub(crate) entry_type: EntryType,
    pub(crate) file_id: FileId,
    pub(crate) metadata: Option<Arc<FileMetadata>>,
}

/// Some children of a directory.
#[derive(Debug, Default)]
pub(crate) struct Children {
    /// In the order of their names.
    pub(crate) page: Vec<Child>,
    /// Whether there may be more behind them.
    pub(crate) more: bool,
    /// How many names are left out among them.
    pub(crate) hidden: u64,
}

impl From<(Vec<Child>, bool)> for Children {
    fn from((page, more): (Vec<Child>, bool)) -> Self {
        Self { page, more, hidden: 0 }
    }
}

/// The runs of bytes that a read asked for: the first one apart.
pub(crate) type Runs = (Bytes, Vec<Bytes>);

/// Commits an entry so that its acknowledgement promises `durability`, and makes it visible. One that is to be at once and cannot be is refused.
pub(crate) fn commit(
    kernel: &Kernel,
    intent: &Intent,
    durability: Durability,
    entry: Entry,
    show: Show,
) -> impl Future<Output = Result<(Lsn, bool), CommitError>> + Send {
    let store = kernel.store();
    let publish = Publication::new(show, intent.held.clone());
    match durability {
        Durability::Strong if intent.at_once => Either::Left(ready(Err(CommitError::Refused))),
        Durability::Strong => Either::Right(Either::Left(store.commit_held(entry, publish))),
        // What ends with the process is in the rows until then.
        _ if intent.at_once => Either::Left(ready(store.commit_now(entry, publish))),
        _ => Either::Right(Either::Right(store.commit_soon(entry, publish))),
    }
}

/// What serves a path, with the kernel around it.
pub(crate) enum Volume<'a> {
    /// Names are rows.
    Rows(RowVolume<'a>),
    /// Names are the backend's.
    Paths(PathVolume<'a>),
    /// Names are the kernel's own.
    Sys(SysVolume<'a>),
}

macro_rules! on {
    ($self:ident, $volume:ident => $call:expr) => {
        match $self {
            Volume::Rows($volume) => $call,
            Volume::Paths($volume) => $call,
            Volume::Sys($volume) => $call,
        }
    };
}

impl<'a> Volume<'a> {
    pub(crate) fn of(kernel: &'a Arc<Kernel>, site: &'a Site) -> Self {
        if sys::serves(&site.path) {
            Self::Sys(SysVolume { kernel })
        } else if site.mount.is_path_addressed() {
            Self::Paths(PathVolume { kernel, mount: &site.mount })
        } else {
            Self::Rows(RowVolume { kernel, mount: &site.mount, within: None, as_of: None })
        }
    }

    /// The same as of `as_of`, a place in the log.
    pub(crate) fn as_of(kernel: &'a Arc<Kernel>, site: &'a Site, as_of: Option<Lsn>) -> Self {
        match Self::of(kernel, site) {
            Self::Rows(volume) => Self::Rows(RowVolume { as_of, ..volume }),
            other => other,
        }
    }

    /// The same for a change, which may be one of a transaction.
    pub(crate) fn to_change(kernel: &'a Arc<Kernel>, site: &'a Site, intent: &'a Intent) -> Self {
        match Self::of(kernel, site) {
            Self::Rows(volume) => Self::Rows(RowVolume { within: intent.within.as_deref(), ..volume }),
            other => other,
        }
    }

    /// The children of the directory `site`, which `node` describes, after the name `after`, at most `limit`. A child whose path would be too long has no metadata.
    pub(crate) async fn list(
        &self,
        site: &Site,
        node: &Node,
        after: Option<&str>,
        limit: usize,
        metadata: bool,
    ) -> Result<Children, StoreError> {
        match self {
            Self::Rows(volume) => volume.list(site, node, after, limit, metadata).map(Children::from),
            Self::Paths(volume) => volume.list(site, node, after, limit, metadata).await,
            Self::Sys(volume) => volume.list(site, node, after, limit, metadata).map(Children::from),
        }
    }

    /// Content of the file at `site`, which `node` describes, and the metadata that belongs to just this content.
    pub(crate) async fn read(
        &self,
        site: &Site,
        node: &Node,
        extent: &Extent,
    ) -> Result<(Runs, Arc<FileMetadata>), StoreError> {
        on!(self, volume => volume.read(site, node, extent).await)
    }

    pub(crate) async fn write(&self, site: &Site, intent: &Intent, call: &SysWrite) -> Result<Written, Stop> {
        on!(self, volume => volume.write(site, intent, call).await)
    }

    pub(crate) async fn set(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysSetattr,
    ) -> Result<SetattrDone, Stop> {
        on!(self, volume => volume.set(site, intent, call).await)
    }

    /// Moves `from` to `to`, both of this mount. `subtrees` says that all below them is locked too.
    pub(crate) async fn rename(
        &self,
        from: &Site,
        to: &Site,
        intent: &Intent,
        call: &SysRename,
        subtrees: bool,
    ) -> Result<Renamed, Stop> {
        on!(self, volume => volume.rename(from, to, intent, call, subtrees).await)
    }

    pub(crate) async fn unlink(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysUnlink,
    ) -> Result<Unlinked, Stop> {
        on!(self, volume => volume.unlink(site, intent, call).await)
    }

    /// Makes the file `to`, of this mount, a copy of the file `from`, which `source` describes.
    pub(crate) async fn copy(
        &self,
        from: &Site,
        source: &Node,
        to: &Site,
        intent: &Intent,
        call: &SysCopy,
    ) -> Result<Copied, Stop> {
        on!(self, volume => volume.copy(from, source, to, intent, call).await)
    }
}
