//! `/__sys__/`: all that the kernel knows of itself, as files that are read and managed with the ordinary syscalls.
//!
//! It is there in every zone, as `/proc` is: reached by its name, and not listed in `/`, so that what goes through a namespace does not
//! copy, search or pack the kernel. Nothing can be mounted, linked or made at the name, and links may lead into it. Content is made of published state at
//! the time of the look: no mail is sent, so it can be read while every actor is down. Each reply is consistent in itself; two reads
//! may differ.
//!
//! Only the administrator's handle may look below it and change what can be changed. Everybody may see that it is there, and read
//! `version`. The permission provider and interceptors apply as to other paths; observers hear nothing, because nothing is committed.
//!
//! Two names are the same everywhere: `.all` is a directory with all below it as one object, and `.self` is what a directory stands for.
//!
//! | path | what it is |
//! |---|---|
//! | `actors/PATH` | an actor of the tree: its state, incarnation, restarts, mailbox, last exit; for a supervisor `actors/PATH/.self`. Takes writes: the words of a [`Kill`](nexus_supervisors::Kill) hurt it |
//! | `children/ID`, `children/statistics` | a child process that runs, or one of the last that ended: its program, how it ended, what it said; what was counted of all. Takes writes: the name of a signal, such as TERM |
//! | `config/kernel` | the settings that the kernel runs with |
//! | `hooks/ID`, `hooks/ID.N` | a registered hook, and what it did so far; the N-th hook of a service |
//! | `locks/advisory`, `locks/held`, `locks/statistics` | the advisory locks with who holds them and who waits, the paths that calls hold locked, and what was counted of both |
//! | `metrics` | all that is counted, as Prometheus reads it |
//! | `migrations` | the migrations of mounts to other drivers. Takes writes: a [`MigrateOrder`](crate::MigrateOrder) as JSON begins one, aborts it or gives it up |
//! | `mounts/ZONE/POINT/.self` | a mount and how it is |
//! | `streams/ID`, `streams/groups`, `streams/statistics` | a stream that was used since the start, by the identity of its entry: its path, what it keeps, who waits; how far its consumer groups are; what was counted of all |
//! | `pipes/ID`, `pipes/statistics` | a pipe that is open, by the identity of its entry: its path, what is in it, who waits, who has opened it; what was counted of all |
//! | `services/NAME` | a service and how it is. Setting it with a [`ServiceSpec`](nexus_messages::syscall::ServiceSpec) registers or swaps it, unlinking it unregisters it |
//! | `store/cache` | the cache that services are handed: whether it serves, how often it helped, failed or was late, and how long it took |
//! | `store/caches`, `store/committer`, `store/log` | what is kept in memory and how often that helped; the commits; how far the log of each zone is |
//! | `store/garbage` | the collections of what nothing names any more. Takes writes: an order as JSON begins one |
//! | `store/fsck` | the checks of all that is stored: what is wrong, and what was done about it. Takes writes: an order as JSON begins one |
//! | `store/scrub` | the reading of all content in the background: how far it is, and what it found. Takes writes: `{}` begins one |
//! | `syscalls/OP` | the calls of one operation: what came of them, and how long they took |
//! | `version` | what runs here |
//! | `watches/ID` | a watch: who waits for which changes, what is queued, and how often something did not fit |
//!
//! A directory is one `Provider`, and they stand in one list.

mod actors;
mod children;
mod config;
mod hooks;
mod locks;
mod metrics;
mod migrations;
mod mounts;
mod pipes;
mod services;
mod store;
mod streams;
mod syscalls;
mod version;
mod volume;
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use nexus_messages::syscall::{SetattrDone, SysSetattr, SysUnlink, SysWrite, Unlinked};
use nexus_messages::{Caller, Durability, EntryType, Error, ErrorKind, Lsn, Receipt, Result, VPath};
use serde::Serialize;

pub use crate::cache::ServiceCacheEntry;
pub use crate::metrics::{Bucket, SyscallEntry};
pub use actors::{ActorEntry, LastExit, Running};
pub use store::{
    CacheEntry, CachesEntry, CheckOrder, CollectOrder, CommitterEntry, FsckEntry, GarbageEntry, ScrubEntry,
};
pub(crate) use volume::{SysVolume, mount, not_to_be_covered};

use crate::gate::Right;
use crate::hal::TreeId;
use crate::kernel::Kernel;
use crate::volume::{Intent, store_error};

/// Where the kernel shows itself.
pub const ROOT: &str = "/__sys__";

/// What everybody may read.
const VERSION: &str = "/__sys__/version";

/// A directory with all below it, as one file in it.
pub const ALL: &str = ".all";

/// What a directory stands for, as a file in it.
pub const SELF: &str = ".self";

/// What there is, in the order of the names.
const PROVIDERS: &[&dyn Provider] = &[
    &actors::Actors,
    &children::Children,
    &config::Config,
    &hooks::Hooks,
    &locks::Locks,
    &metrics::Metrics,
    &migrations::MigrationsFile,
    &mounts::Mounts,
    &pipes::Pipes,
    &services::Services,
    &store::Store,
    &streams::Streams,
    &syscalls::Syscalls,
    &version::Version,
    &watches::Watches,
];

/// Serves one name of `/__sys__/`. Paths are handed over as the components below that name.
pub(crate) trait Provider: Sync {
    /// The name in `/__sys__/`.
    fn name(&self) -> &'static str;

    /// Whether the name is a directory's.
    fn is_directory(&self) -> bool {
        true
    }

    /// What is at `at`, none when nothing is. Made of published state: neither sends mail nor blocks.
    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry>;

    /// Whether the file at `at` takes writes.
    fn is_writable(&self, at: &[&str]) -> bool {
        let _ = at;
        false
    }

    /// Writes to a file that [is writable](Self::is_writable) and is there. Called with the path locked, for an administrator.
    fn write<'a>(&'a self, change: Change<'a>, call: &'a SysWrite) -> BoxFuture<'a, Result<()>> {
        let _ = call;
        refused(change)
    }

    /// Makes an entry, or changes what is there. Called with the path locked, for an administrator.
    fn set<'a>(&'a self, change: Change<'a>, call: &'a SysSetattr) -> BoxFuture<'a, Result<SetattrDone>> {
        let _ = call;
        refused(change)
    }

    /// Removes an entry. Called with the path locked, for an administrator.
    fn unlink<'a>(&'a self, change: Change<'a>, call: &'a SysUnlink) -> BoxFuture<'a, Result<Unlinked>> {
        let _ = call;
        refused(change)
    }
}

/// A change that a provider is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Change<'a> {
    pub(crate) kernel: &'a Arc<Kernel>,
    /// Who asks, for which operation.
    pub(crate) intent: &'a Intent,
    /// The resolved path, links followed.
    pub(crate) path: &'a VPath,
    /// The components below the provider's name.
    pub(crate) at: Vec<&'a str>,
}

impl Change<'_> {
    /// The failure of this change.
    pub(crate) fn fail(&self, kind: ErrorKind) -> Error {
        Error::new(self.intent.op, self.path, kind)
    }

    /// Proof of a change that left nothing in the log: the place up to which it looked.
    pub(crate) fn receipt(&self) -> Result<Receipt> {
        let lsn: Lsn = self
            .kernel
            .store()
            .last_lsn(TreeId::ROOT)
            .map_err(|error| store_error(self.intent.op, self.path, &error))?;
        Ok(Receipt::unchanged(self.intent.op_id, lsn, Durability::Strong))
    }
}

/// What is at a path.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A directory: the names of its children, and what they are.
    Directory(BTreeMap<String, EntryType>),
    /// A file.
    File {
        /// What a read gives.
        content: Bytes,
        /// The media type.
        mime: &'static str,
    },
}

impl Entry {
    /// A directory of these children: a directory for each `true`.
    pub(crate) fn directory<N: Into<String>>(children: impl IntoIterator<Item = (N, bool)>) -> Self {
        let typed = |is_directory| if is_directory { EntryType::Dir } else { EntryType::Reg };
        Self::Directory(
            children.into_iter().map(|(name, is_directory)| (name.into(), typed(is_directory))).collect(),
        )
    }

    /// A file with `value` as indented JSON and a line end.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|error| {
            // What is shown is made of plain structs; a map with odd keys would be a defect, and is told where it is looked for.
            tracing::error!(%error, "an entry of {ROOT} cannot be shown");
            serde_json::json!({ "error": error.to_string() }).to_string()
        });
        text.push('\n');
        Self::File { content: text.into(), mime: "application/json" }
    }
}

/// Whether `path` is the kernel's own and no mount's.
#[inline]
pub(crate) fn serves(path: &VPath) -> bool {
    path.as_str().strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether `caller` may do this at `path`, as far as the kernel itself is concerned.
pub(crate) fn permits(caller: &Caller, right: Right, path: &VPath) -> bool {
    if caller.admin || !serves(path) {
        return true;
    }
    match right {
        Right::Read => matches!(path.as_str(), ROOT | VERSION),
        Right::List => path.as_str() == ROOT,
        _ => false,
    }
}

/// As [`permits`], with the error.
pub(crate) fn permit(caller: &Caller, op: nexus_messages::Op, right: Right, path: &VPath) -> Result<()> {
    if permits(caller, right, path) {
        return Ok(());
    }
    let error = Error::new(op, path, ErrorKind::PermissionDenied);
    Err(error.because(format!("what is below {ROOT} needs the administrator's handle")))
}

fn refused<'a, T: Send + 'a>(change: Change<'a>) -> BoxFuture<'a, Result<T>> {
    let error = change.fail(ErrorKind::ReadOnly).because("it shows what the kernel does");
    Box::pin(std::future::ready(Err(error)))
}

#[cfg(test)]
mod tests;
