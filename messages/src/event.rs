//! What is told after a change: to observers in the process and to watchers anywhere.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{BitOr, BitOrAssign, Range};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::content::ContentId;
use crate::ident::{Caller, Lsn, OpId};
use crate::metadata::EntryType;
use crate::path::VPath;
use crate::syscall::LockKind;
use crate::time::Timestamp;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum EventKind { $($(#[$doc])* $name),* }

        impl EventKind {
            /// Every kind, in the order of their bits.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The bits of all of them.
            const BITS: u32 = 0 $(| (1 << $bit))*;

            /// The kind's bit in an [`EventMask`].
            pub fn bit(self) -> u32 {
                match self { $(Self::$name => 1 << $bit),* }
            }

            /// The name in the interface, such as `file_write`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

kinds! {
    /// Content was written: replaced, appended, edited.
    FileWritten = 0, "file_write";
    /// A file, link, pipe or stream was removed.
    FileDeleted = 1, "file_delete";
    /// An entry, with all below it, was renamed.
    Renamed = 2, "file_rename";
    /// A file was made or replaced by a copy.
    FileCopied = 3, "file_copy";
    /// A directory was made.
    DirCreated = 4, "dir_create";
    /// A directory was removed.
    DirDeleted = 5, "dir_delete";
    /// Attributes changed.
    MetadataChanged = 6, "metadata_change";
    /// A file without content, a link, a pipe or a stream was made.
    Created = 7, "create";
    /// A mount was attached.
    Mounted = 8, "mount";
    /// A mount was detached.
    Unmounted = 9, "unmount";
    /// An advisory lock was given. The version that is told is its token, of this kind and of the next.
    Locked = 10, "lock";
    /// An advisory lock was released, or taken away.
    Unlocked = 11, "unlock";
    /// Somebody beside the kernel made, changed or moved what is here: with an editor, in a folder that is mounted by its paths. At a mount point: more was changed than
    /// could be told.
    ChangedOutside = 20, "outside_change";
    /// Somebody beside the kernel removed what was here, or moved it away.
    GoneOutside = 21, "outside_delete";
}

/// The bits that are kept for kinds about the synchronisation of replicas, `SYNC_*`.
pub const SYNC_BITS: Range<u32> = 12..16;

/// The bits that are kept for kinds about conflicts between replicas, `CONFLICT_*`.
pub const CONFLICT_BITS: Range<u32> = 16..20;

// A kind that comes gets a bit of its own: those that are kept are taken by whom they are kept for.
const _: () = assert!(EventKind::BITS & ((1 << CONFLICT_BITS.end) - (1 << SYNC_BITS.start)) == 0);

/// The bit of no kind, and above that of each.
pub const EVENT_BITS: u32 = EventKind::BITS.next_power_of_two().trailing_zeros();

impl EventKind {
    /// Whether what happens so stands in the log of its zone. What does not is told when it happens, and never again.
    pub fn is_logged(self) -> bool {
        !matches!(self, Self::Locked | Self::Unlocked | Self::ChangedOutside | Self::GoneOutside)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EventKind {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        let found = Self::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| UnknownEvent { name: name.into() })
    }
}

/// No kind of event has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no event is called {name:?}")]
pub struct UnknownEvent {
    /// The name as given.
    pub name: String,
}

/// A set of kinds of events: one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventMask(u32);

impl EventMask {
    /// No event.
    pub const NONE: Self = Self(0);
    /// Every event.
    pub const ALL: Self = Self(EventKind::BITS);

    /// The set with these bits; bits that no event has are dropped.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether `kind` is in the set.
    #[inline]
    pub fn contains(self, kind: EventKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether the set is empty.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl From<EventKind> for EventMask {
    fn from(kind: EventKind) -> Self {
        Self(kind.bit())
    }
}

impl<M: Into<Self>> BitOr<M> for EventMask {
    type Output = Self;

    fn bitor(self, other: M) -> Self {
        Self(self.0 | other.into().0)
    }
}

impl BitOr for EventKind {
    type Output = EventMask;

    fn bitor(self, other: Self) -> EventMask {
        EventMask::from(self) | other
    }
}

impl<M: Into<Self>> BitOrAssign<M> for EventMask {
    fn bitor_assign(&mut self, other: M) {
        self.0 |= other.into().0;
    }
}

/// How many changes of each replica had been seen when something happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorClock(pub BTreeMap<Arc<str>, u64>);

/// One change, told after it is committed and every lock is gone.
///
/// New fields come last and are optional. Where fields have names, as in JSON, a reader that does not know one leaves it out, and takes one that is missing
/// for none. Where they have not, as between processes, both ends have the same fields or no connection: the number of the protocol says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Where. For a rename, the old path.
    pub path: VPath,
    /// Where to, for a rename; where from, for a copy.
    pub other: Option<VPath>,
    /// What the entry is. Of a lock, what was there when it was asked for, and a regular file where nothing was.
    pub entry_type: EntryType,
    /// The content's length in bytes, after the change.
    pub size: u64,
    /// The content, after the change.
    pub content_id: Option<ContentId>,
    /// The content's version, after the change; of a lock its token.
    pub version: u64,
    /// The content's generation, after the change.
    pub generation: u64,
    /// Whether the entry was made by this change.
    pub is_new: bool,
    /// Who did it, in which zone, and for whom; of a lock, who has it or had it.
    pub caller: Arc<Caller>,
    /// The operation.
    pub op_id: OpId,
    /// The commit. Of what is not committed, as locks are not, the last commit before it that was told.
    pub lsn: Lsn,
    /// When the operation was assigned its time.
    pub at: Timestamp,
    /// What replicas had seen of each other. None as long as there are none.
    pub clock: Option<Box<VectorClock>>,
    /// How it is locked, or was; none of what is no lock.
    pub lock: Option<LockKind>,
}

impl Event {
    /// An event of `kind` at `path`. The rest is filled in field by field.
    pub fn new(
        kind: EventKind,
        path: VPath,
        entry_type: EntryType,
        caller: Arc<Caller>,
        op_id: OpId,
    ) -> Self {
        Self {
            kind,
            path,
            other: None,
            entry_type,
            size: 0,
            content_id: None,
            version: 0,
            generation: 0,
            is_new: false,
            caller,
            op_id,
            lsn: Lsn::default(),
            at: Timestamp::default(),
            clock: None,
            lock: None,
        }
    }

    /// Whether the event concerns `path` or something below it, with either of its paths.
    pub fn touches(&self, path: &VPath) -> bool {
        self.path.is_within(path) || self.other.as_ref().is_some_and(|other| other.is_within(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_and_names_are_those_of_the_interface() {
        assert_eq!(EventMask::ALL.bits(), 0x30_0fff);
        assert_eq!(EventKind::FileWritten.bit(), 1);
        assert_eq!(EventKind::Unmounted.bit(), 1 << 9);
        assert_eq!((EventKind::Locked | EventKind::Unlocked).bits(), 0xc00);
        for kind in EventKind::ALL {
            assert_eq!(kind.name().parse::<EventKind>().unwrap(), *kind);
        }
        assert!("file_writ".parse::<EventKind>().is_err());
    }

    #[test]
    fn a_mask_is_a_set() {
        let mask = EventKind::FileWritten | EventKind::Renamed;
        assert!(mask.contains(EventKind::Renamed) && !mask.contains(EventKind::Mounted));
        assert_eq!(EventMask::from_bits(u32::MAX), EventMask::ALL);
        assert!(EventMask::NONE.is_empty());
    }
}
