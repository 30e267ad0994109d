//! What a check finds, in the words in which it is told.

use std::fmt;

use nexus_messages::{EntryType, FileId, Lsn, ZoneId};
use serde::{Deserialize, Serialize};

/// What is wrong. Each kind says what it was told by; where it is stands in the [`Finding`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// A row cannot be read.
    UndecodableRow {
        /// Its table and key.
        row: String,
    },
    /// A name leads to an identity that has no metadata.
    NameWithoutInode,
    /// Metadata to which no name leads.
    InodeWithoutName,
    /// Names in a directory that is not there.
    NamesInNothing,
    /// Names in something that is no directory.
    NamesInAFile,
    /// A second name leads to the same identity.
    SecondName {
        /// One of the others.
        other: String,
    },
    /// The name says another type than the metadata.
    WrongType {
        /// What the name says.
        named: EntryType,
        /// What the metadata says.
        is: EntryType,
    },
    /// Directories that lie in each other, so that no path leads to them.
    Circle {
        /// How many they are.
        directories: u64,
    },
    /// An identity that will be given to another entry.
    IdentityAhead {
        /// The one that is given next.
        next: u64,
    },
    /// A mount without a root.
    MountWithoutRoot,
    /// The content has another length than the metadata says.
    WrongSize {
        /// What the metadata says, in bytes.
        told: u64,
        /// What there is, in bytes.
        found: u64,
    },
    /// The metadata says where content is, and not which, or contradicts itself.
    NoAddress,
    /// Content that is named is not there.
    MissingContent {
        /// The content, the chunk or the chunk list.
        content: String,
    },
    /// Content that is named is not what was written.
    DamagedContent {
        /// The content, the chunk or the chunk list.
        content: String,
    },
    /// The content of a version that is kept is not there, or not what was written.
    LostVersion {
        /// Up to which place in the log this was the version.
        until: Lsn,
        /// The content, the chunk or the chunk list.
        content: String,
    },
    /// Places of a log that are not there although later ones are, or were on disk.
    LogGap {
        /// The last one that is there before them.
        after: Lsn,
        /// The first one that is there, or was, behind them.
        next: Lsn,
    },
    /// The log tells places out of their order.
    LogDisorder {
        /// The one that was told.
        after: Lsn,
        /// The one that was told behind it.
        next: Lsn,
    },
    /// A row of the history tells of a place that the log has not come to.
    AheadOfLog {
        /// The place.
        lsn: Lsn,
        /// The last one of the log.
        last: Lsn,
    },
    /// What the rows are kept in is not as it was written. Whatever they say may be wrong, or missing.
    DamagedRows,
    /// A file of a store is damaged. What was in it is told by itself when it is named.
    DamagedStore {
        /// The part, as the store knows it.
        part: String,
    },
}

/// What was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Remedy {
    /// Nothing, as nothing was asked for.
    Untried,
    /// It is right again.
    Repaired {
        /// By what.
        how: String,
    },
    /// Nothing can be done that loses nothing, or it failed.
    Left {
        /// Why.
        why: String,
    },
}

/// Something that is wrong: what, where, how it was seen, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// The zone, as far as it is known.
    pub zone: Option<ZoneId>,
    /// The path, where one leads to it.
    pub path: Option<String>,
    /// The identity of the entry; none when it is of no matter.
    pub file_id: Option<FileId>,
    /// What is wrong.
    pub fault: Fault,
    /// What was found instead.
    pub cause: String,
    /// What was done about it.
    pub remedy: Remedy,
}

impl Finding {
    /// Whether it is still wrong.
    pub fn is_left(&self) -> bool {
        !matches!(self.remedy, Remedy::Repaired { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UndecodableRow { row } => write!(f, "the row {row} cannot be read"),
            Self::NameWithoutInode => f.write_str("the name leads to nothing"),
            Self::InodeWithoutName => f.write_str("no name leads to it"),
            Self::NamesInNothing => f.write_str("names lie in a directory that is not there"),
            Self::NamesInAFile => f.write_str("names lie in something that is no directory"),
            Self::SecondName { other } => write!(f, "it has a second name, {other}"),
            Self::WrongType { named, is } => {
                write!(f, "its name says {}, and it is {}", named.name(), is.name())
            }
            Self::Circle { directories } => write!(f, "{directories} directories lie in each other"),
            Self::IdentityAhead { next } => write!(f, "its identity will be given again: {next} is the next"),
            Self::MountWithoutRoot => f.write_str("the mount has no root"),
            Self::WrongSize { told, found } => {
                write!(f, "its size is told as {told}, and there are {found} bytes")
            }
            Self::NoAddress => f.write_str("it does not say which content it has"),
            Self::MissingContent { content } => write!(f, "content {content} is missing"),
            Self::DamagedContent { content } => write!(f, "content {content} is damaged"),
            Self::LostVersion { until, content } => {
                write!(f, "the version up to {until} is lost with content {content}")
            }
            Self::LogGap { after, next } => write!(f, "the log has a gap from {after} to {next}"),
            Self::LogDisorder { after, next } => write!(f, "the log tells {next} behind {after}"),
            Self::AheadOfLog { lsn, last } => {
                write!(f, "the history tells of {lsn}, and the log ends at {last}")
            }
            Self::DamagedRows => f.write_str("what names and metadata are kept in is damaged"),
            Self::DamagedStore { part } => write!(f, "the store is damaged: {part}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.file_id) {
            (Some(path), _) => f.write_str(path)?,
            (None, Some(id)) => write!(f, "entry {id}")?,
            (None, None) => f.write_str("store")?,
        }
        write!(f, ": {}", self.fault)?;
        if !self.cause.is_empty() {
            write!(f, " ({})", self.cause)?;
        }
        match &self.remedy {
            Remedy::Untried => Ok(()),
            Remedy::Repaired { how } => write!(f, "; repaired: {how}"),
            Remedy::Left { why } => write!(f, "; left: {why}"),
        }
    }
}
