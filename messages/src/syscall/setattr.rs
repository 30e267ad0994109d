//! Makes and manages entries of every type.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Fence, PipeSpec, Precondition, ServiceSpec, StreamSpec, SwapMode};
use crate::ident::OpId;
use crate::metadata::{Attributes, EntryType, FileMetadata};
use crate::path::VPath;
use crate::receipt::{Consistency, Receipt};

/// Makes an entry, or changes the attributes of one. The type of an entry never changes.
///
/// Making a file that exists changes its attributes (an upsert); making a directory, a pipe, a stream, or a link with the same target, that exists
/// changes nothing. May be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysSetattr {
    /// The entry.
    pub path: VPath,
    /// What it is, or becomes; none when only attributes change.
    pub entry_type: Option<EntryType>,
    /// Whether it must exist, may exist, or must not exist.
    pub create: Create,
    /// What happens to missing parents.
    pub parents: Parents,
    /// The attributes to set.
    pub attributes: Attributes,
    /// Where a link points: an absolute path, or one relative to the link's folder. Stored verbatim.
    pub link_target: Option<Arc<str>>,
    /// What is mounted, for a mount point.
    pub mount: Option<MountSpec>,
    /// What a new pipe holds; none for the default. One that is there stays as it is, and the reply tells how it is.
    pub pipe: Option<PipeSpec>,
    /// How a new stream keeps its records; none for the default. One that is there stays as it is.
    pub stream: Option<StreamSpec>,
    /// Whether it takes the place of what is mounted there.
    pub replace: bool,
    /// What serves, for a service at `/__sys__/services/NAME`.
    pub service: Option<ServiceSpec>,
    /// What the caller expects to find.
    pub precondition: Precondition,
    /// The operation's identity; made by the kernel when none is given.
    pub op_id: Option<OpId>,
    /// When it is acknowledged; none: as the mount does.
    pub consistency: Option<Consistency>,
    /// The lock under which it is made; none: no lock is asked for.
    pub fence: Option<Fence>,
}

/// Whether an entry may be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Create {
    /// It must exist.
    #[default]
    Never,
    /// It is made when it is missing.
    IfMissing,
    /// It must be missing.
    Exclusive,
}

/// What happens to missing parents of a new entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Parents {
    /// They exist by implication, for as long as they have children.
    #[default]
    Implied,
    /// They are made as directories of their own, and stay.
    Made,
    /// They must exist.
    Required,
}

/// What is mounted: a driver of the catalogue and its options.
///
/// Options may be secret, and only their driver knows which: `Debug` prints their keys alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MountSpec {
    /// The driver's name in the process's catalogue.
    pub driver: String,
    /// The driver's options, and those that every mount takes.
    pub options: BTreeMap<String, String>,
    /// Whether the mount refuses changes.
    pub read_only: bool,
}

impl fmt::Debug for MountSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.options.keys().collect();
        f.debug_struct("MountSpec")
            .field("driver", &self.driver)
            .field("options", &keys)
            .field("read_only", &self.read_only)
            .finish()
    }
}

impl MountSpec {
    /// A mount of `driver` without options.
    pub fn new(driver: impl Into<String>) -> Self {
        Self { driver: driver.into(), options: BTreeMap::new(), read_only: false }
    }

    /// Sets one option of the driver.
    #[must_use]
    pub fn option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(key.into(), value.into());
        self
    }

    /// Makes the mount refuse changes.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// One attribute, as [`SetattrDone::changed`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named after the field of the metadata")]
pub enum Attribute {
    Mode,
    Owner,
    MimeType,
    Modified,
    Created,
}

/// What [`SysSetattr`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetattrDone {
    /// Whether the entry was made.
    pub created: bool,
    /// The attributes of an existing entry that are now different.
    pub changed: Vec<Attribute>,
    /// The entry as it is now.
    pub metadata: Arc<FileMetadata>,
    /// Proof of the commit.
    pub receipt: Receipt,
    /// How the driver of a mount was replaced, if it was.
    pub swapped: Option<DriverSwapped>,
    /// How a service was swapped, if it was.
    pub service_swapped: Option<Box<ServiceSwapped>>,
}

/// A version of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceVersion {
    /// Its number: 1 for the first, and one more with each.
    pub number: u64,
    /// The factory that made it.
    pub factory: Arc<str>,
    /// The version of its code.
    pub version: String,
}

impl ServiceVersion {
    /// Version `number`, made by `factory`.
    pub fn new(number: u64, factory: Arc<str>, version: impl Into<String>) -> Self {
        Self { number, factory, version: version.into() }
    }
}

/// What a swap of a service did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceSwapped {
    /// The service.
    pub service: Arc<str>,
    /// The version that served before.
    pub from: ServiceVersion,
    /// The version that serves now.
    pub to: ServiceVersion,
    /// Whether both were called at once.
    pub mode: SwapMode,
    /// How many calls were inside the old version when its end began, and ended there.
    pub drained: usize,
    /// How many were still inside it when the limit of the swap ended: it ends with the last of them.
    pub left: usize,
    /// How many calls waited for the swap, and for the copy of the state for a trial in shadow before it.
    pub waited: usize,
    /// For how long a call had to wait at most: for the swap or for that copy, whichever took longer. Zero with overlap, unless there was a trial of a
    /// service without inline hooks.
    pub pause: Duration,
    /// How long all of it took, the start of the new version included.
    pub took: Duration,
    /// How many answers to copies of real calls agreed in the trial, if there was one.
    pub agreed: Option<u64>,
}

impl ServiceSwapped {
    /// The version `to` in the place of `from`, at once and with nobody inside.
    pub fn new(service: Arc<str>, from: ServiceVersion, to: ServiceVersion, mode: SwapMode) -> Self {
        let (drained, left, waited, pause, took) = (0, 0, 0, Duration::ZERO, Duration::ZERO);
        Self { service, from, to, mode, drained, left, waited, pause, took, agreed: None }
    }
}

/// How the driver of a mount was replaced. No caller waits for it: what begins before is served by the old one, what begins after by the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DriverSwapped {
    /// The generation that served before.
    pub from: u64,
    /// The generation that serves now.
    pub to: u64,
    /// The calls that were inside the old driver when the new one took its place.
    pub calls: usize,
    /// Those of them that had not ended when the report was made. The old driver ends with the last of them.
    pub left: usize,
    /// How long they took to end.
    pub drain: Duration,
    /// The longest time that a call was kept waiting.
    pub pause: Duration,
}

impl DriverSwapped {
    /// The generation `to` in the place of `from`, which nobody was inside.
    pub fn new(from: u64, to: u64) -> Self {
        Self { from, to, calls: 0, left: 0, drain: Duration::ZERO, pause: Duration::ZERO }
    }
}

impl SetattrDone {
    /// The reply for an entry as it is now.
    pub fn new(
        created: bool,
        changed: Vec<Attribute>,
        metadata: Arc<FileMetadata>,
        receipt: Receipt,
    ) -> Self {
        Self { created, changed, metadata, receipt, swapped: None, service_swapped: None }
    }
}

impl SysSetattr {
    fn new(path: VPath, entry_type: Option<EntryType>, create: Create) -> Self {
        Self {
            path,
            entry_type,
            create,
            parents: Parents::default(),
            attributes: Attributes::none(),
            link_target: None,
            mount: None,
            pipe: None,
            stream: None,
            replace: false,
            service: None,
            precondition: Precondition::None,
            op_id: None,
            consistency: None,
            fence: None,
        }
    }

    /// Changes the attributes of an existing entry.
    pub fn at(path: impl Into<VPath>) -> Self {
        Self::new(path.into(), None, Create::Never)
    }

    /// Makes an empty file, or changes the attributes of the one that is there.
    pub fn file(path: impl Into<VPath>) -> Self {
        Self::new(path.into(), Some(EntryType::Reg), Create::IfMissing)
    }

    /// Makes a directory; nothing happens when there is one.
    pub fn directory(path: impl Into<VPath>) -> Self {
        Self::new(path.into(), Some(EntryType::Dir), Create::IfMissing)
    }

    /// Makes a symbolic link to `target`; nothing happens when there is one with this target.
    pub fn link(path: impl Into<VPath>, target: impl Into<Arc<str>>) -> Self {
        let link_target = Some(target.into());
        Self { link_target, ..Self::new(path.into(), Some(EntryType::Link), Create::IfMissing) }
    }

    /// Makes a pipe in memory that holds `capacity` bytes, 1 to [`PIPE_CAPACITY_MAX`](super::PIPE_CAPACITY_MAX); nothing happens when there is a pipe, of whatever
    /// capacity. Its entry is kept as others are; what is in it ends with the process, and with [`SysUnlink`](super::SysUnlink) of the path.
    pub fn pipe(path: impl Into<VPath>, capacity: u32) -> Self {
        Self::pipe_with(path, PipeSpec::new(capacity))
    }

    /// As [`pipe`](Self::pipe), made so.
    pub fn pipe_with(path: impl Into<VPath>, spec: PipeSpec) -> Self {
        Self { pipe: Some(spec), ..Self::new(path.into(), Some(EntryType::Pipe), Create::IfMissing) }
    }

    /// Makes a stream without limits; nothing happens when there is a stream, however it was made. Its records are on disk where those of files are that outlive
    /// the process, and in memory elsewhere. They end with [`SysUnlink`](super::SysUnlink) of the path; those in memory also with the process, and with the detaching of their mount.
    pub fn stream(path: impl Into<VPath>) -> Self {
        Self::stream_with(path, StreamSpec::new())
    }

    /// As [`stream`](Self::stream), kept so.
    pub fn stream_with(path: impl Into<VPath>, spec: StreamSpec) -> Self {
        Self { stream: Some(spec), ..Self::new(path.into(), Some(EntryType::Stream), Create::IfMissing) }
    }

    /// Attaches a mount. Needs the administrator's handle; nothing happens when the same mount is there.
    pub fn mount(path: impl Into<VPath>, spec: MountSpec) -> Self {
        Self { mount: Some(spec), ..Self::new(path.into(), Some(EntryType::Mount), Create::IfMissing) }
    }

    /// Registers the service at `path`, which is `/__sys__/services/NAME`, made by the factory of this name with this configuration as JSON; or
    /// swaps the one that is there. Needs the administrator's handle; nothing happens when the same one is there.
    pub fn service(path: impl Into<VPath>, factory: impl Into<String>, config: impl Into<String>) -> Self {
        let spec = ServiceSpec::new(factory, config);
        Self { service: Some(spec), ..Self::new(path.into(), None, Create::IfMissing) }
    }

    /// Replaces the driver of the mount that is there, while calls go on: the new one is opened and probed beside the old one, takes its place in one step,
    /// and the old one ends with its last call. No call fails of it, and when something goes wrong the old one serves on. ENOENT when nothing is mounted there.
    ///
    /// Nothing is copied: the new driver must find what the old one stored, and a call that is inside the old one when the new one takes its place
    /// still ends there. A driver that finds content by its hash is replaced by such a one only, and one in memory not at all.
    #[must_use]
    pub fn replace(mut self) -> Self {
        (self.replace, self.create) = (true, Create::Never);
        self
    }

    /// Refuses with EEXIST when there is an entry.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.create = Create::Exclusive;
        self
    }

    /// Says what happens to missing parents.
    #[must_use]
    pub fn parents(mut self, parents: Parents) -> Self {
        self.parents = parents;
        self
    }

    /// Sets these attributes.
    #[must_use]
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.attributes = attributes;
        self
    }

    /// Sets the permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.attributes.mode = Some(mode);
        self
    }
}
