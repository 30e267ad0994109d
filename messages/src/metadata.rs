//! What the kernel knows of an entry.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::content::ContentId;
use crate::ident::{FileId, ZoneId};
use crate::path::VPath;
use crate::syscall::{IoProfile, LockState, PipeSpec};
use crate::time::Timestamp;

/// What an entry is. It never changes once the entry is made. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
#[repr(u8)]
pub enum EntryType {
    /// A regular file.
    Reg = 0,
    /// A directory.
    Dir = 1,
    /// A mount point: the root of another driver's tree.
    Mount = 2,
    /// A pipe.
    Pipe = 3,
    /// A stream.
    Stream = 4,
    /// A mount point of a connector: the root of what lies behind an API or a program.
    ExternalStorage = 5,
    /// A symbolic link.
    Link = 6,
}

impl EntryType {
    /// The number of the type in the interface, `DT_REG` = 0 to `DT_LINK` = 6.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The type with that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Reg,
            1 => Self::Dir,
            2 => Self::Mount,
            3 => Self::Pipe,
            4 => Self::Stream,
            5 => Self::ExternalStorage,
            6 => Self::Link,
            _ => return None,
        })
    }

    /// Whether entries of this type have children: directories and mount points.
    pub fn is_directory(self) -> bool {
        matches!(self, Self::Dir | Self::Mount | Self::ExternalStorage)
    }

    /// Whether it is a mount point, of any driver.
    pub fn is_mount_point(self) -> bool {
        matches!(self, Self::Mount | Self::ExternalStorage)
    }

    /// The name in the interface, such as `DT_REG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reg => "DT_REG",
            Self::Dir => "DT_DIR",
            Self::Mount => "DT_MOUNT",
            Self::Pipe => "DT_PIPE",
            Self::Stream => "DT_STREAM",
            Self::ExternalStorage => "DT_EXTERNAL_STORAGE",
            Self::Link => "DT_LINK",
        }
    }

    /// The permission bits that a new entry of this type has when none are asked for.
    pub fn default_mode(self) -> u32 {
        match self {
            Self::Dir | Self::Mount | Self::ExternalStorage => 0o755,
            Self::Link => 0o777,
            _ => 0o644,
        }
    }

    /// What a copy of an entry of this type takes over of its `mode`. Of a file not the set-user-ID and the set-group-ID bit: the copy is
    /// another owner's, who did not give them.
    pub fn copied_mode(self, mode: u32) -> u32 {
        if self == Self::Reg { mode & !0o6000 } else { mode }
    }

    /// The mime type that an entry of this type has when none is known.
    pub fn default_mime(self) -> &'static str {
        match self {
            Self::Dir | Self::Mount | Self::ExternalStorage => "inode/directory",
            Self::Link => "inode/symlink",
            Self::Pipe => "inode/fifo",
            _ => "application/octet-stream",
        }
    }
}

impl fmt::Display for EntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the kernel knows of an entry: the answer to a stat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileMetadata {
    /// Where the entry is, in its zone.
    pub path: VPath,
    /// The zone.
    pub zone: ZoneId,
    /// The identity, kept over renames.
    pub file_id: FileId,
    /// What it is.
    pub entry_type: EntryType,
    /// The content's length in bytes; 0 for directories; the target's length for links; of a pipe how many bytes it holds.
    pub size: u64,
    /// What identifies the content; none before the first write and for what has no content.
    pub content_id: Option<ContentId>,
    /// Which version of the content this is: 1 after the first write, 0 before it and for what has no content.
    pub version: u64,
    /// How often the content was changed. It only grows; a restored old version does not turn it back.
    pub generation: u64,
    /// The agent that owns it.
    pub owner: Arc<str>,
    /// The permission bits.
    pub mode: u32,
    /// When it was made.
    pub created: Timestamp,
    /// When its content (a directory's list of children) last changed; 0 where nobody keeps that.
    pub modified: Timestamp,
    /// When anything about it last changed.
    pub changed: Timestamp,
    /// The media type, when one was given or guessed from the name; see [`mime`](Self::mime).
    pub mime_type: Option<Arc<str>>,
    /// Where a link points, verbatim; none for what is not a link.
    pub link_target: Option<Arc<str>>,
    /// Whether it exists only because something lies below it: a directory that nobody made.
    pub implicit: bool,
    /// Who holds and who waits for the advisory lock on it, when it was asked for and anybody does.
    pub lock: Option<Arc<LockState>>,
    /// Of a pipe or a stream the kind that it is of; none for what is neither.
    pub io_profile: Option<IoProfile>,
}

impl FileMetadata {
    /// The metadata of a new, empty entry that belongs to nobody. The rest is filled in field by field.
    pub fn new(path: VPath, zone: ZoneId, file_id: FileId, entry_type: EntryType, at: Timestamp) -> Self {
        Self::owned_by(Arc::from(""), path, zone, file_id, entry_type, at)
    }

    /// As [`new`](Self::new), of one that belongs to `owner`.
    pub fn owned_by(
        owner: Arc<str>,
        path: VPath,
        zone: ZoneId,
        file_id: FileId,
        entry_type: EntryType,
        at: Timestamp,
    ) -> Self {
        Self {
            path,
            zone,
            file_id,
            entry_type,
            size: 0,
            content_id: None,
            version: 0,
            generation: 0,
            owner,
            mode: entry_type.default_mode(),
            created: at,
            modified: at,
            changed: at,
            mime_type: None,
            link_target: None,
            implicit: false,
            lock: None,
            io_profile: None,
        }
    }

    /// Whether it has children: a directory or a mount point.
    pub fn is_directory(&self) -> bool {
        self.entry_type.is_directory()
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.entry_type == EntryType::Reg
    }

    /// How much a pipe holds, and where; none for what is no pipe.
    pub fn pipe(&self) -> Option<PipeSpec> {
        let capacity = u32::try_from(self.size).unwrap_or(u32::MAX);
        let io_profile = self.io_profile.unwrap_or_default();
        (self.entry_type == EntryType::Pipe).then(|| PipeSpec::new(capacity).io_profile(io_profile))
    }

    /// The media type, or the default of its entry type.
    pub fn mime(&self) -> &str {
        self.mime_type.as_deref().unwrap_or(self.entry_type.default_mime())
    }
}

/// Attributes to give to an entry. What is `None` stays as it is, or is the default for a new entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attributes {
    /// The permission bits, at most `0o7777`.
    pub mode: Option<u32>,
    /// The agent that owns it. Giving an entry to somebody else needs the administrator's handle.
    pub owner: Option<Arc<str>>,
    /// The media type.
    pub mime_type: Option<Arc<str>>,
    /// When the content last changed.
    pub modified: Option<Timestamp>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

impl Attributes {
    /// No attribute given.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Gives the permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Gives the time of the last change of content.
    #[must_use]
    pub fn modified(mut self, at: Timestamp) -> Self {
        self.modified = Some(at);
        self
    }

    /// Gives the time of creation.
    #[must_use]
    pub fn created(mut self, at: Timestamp) -> Self {
        self.created = Some(at);
        self
    }

    /// Gives the media type.
    #[must_use]
    pub fn mime_type(mut self, mime: impl Into<Arc<str>>) -> Self {
        self.mime_type = Some(mime.into());
        self
    }

    /// Gives the owner.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<Arc<str>>) -> Self {
        self.owner = Some(owner.into());
        self
    }
}
