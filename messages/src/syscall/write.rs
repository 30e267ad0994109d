//! Writes content.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Create, Fence, Precondition, WhichPipe};
use crate::ident::OpId;
use crate::metadata::{Attributes, FileMetadata};
use crate::path::VPath;
use crate::receipt::{Consistency, Receipt};

/// Writes to the file at `path`: one locked change, one commit, all of it or nothing.
///
/// By default it replaces the whole content of a file that exists. Links are followed. Missing parents of a new file exist by
/// implication. Repeating it is safe for [`Place::Whole`] and [`Place::At`], and for all places with the same `op_id`.
///
/// To a pipe it is one message, which is read once, whole; with no bytes it does nothing. Nothing is committed: the receipt is that of no place in the
/// log. Repeating it writes another message, unless it has an `op_id`: then it is executed once, as long as that is among the last 128 of the pipe and the kernel has not ended
/// since; while the first one waits for room, so does the repeat, or is [`Busy`](crate::ErrorKind::Busy). Without room for the message it is [`WouldBlock`](crate::ErrorKind::WouldBlock), or
/// [`TimedOut`](crate::ErrorKind::TimedOut) when it has waited; nothing was written then. `EMSGSIZE` for a message larger than the pipe, `EPIPE` when readers had opened it
/// and the last of them is gone, `ENOENT` when the pipe is removed meanwhile; `EINVAL` for an offset, an edit, attributes or a precondition.
///
/// To a stream it is an [`append`](Self::append) of its buffers, a record each: all of them side by side, or none; the reply tells the
/// [offset](Written::first_record) of the first. They are on disk when it returns, if the stream is. It is in no commit, and the receipt is that of no place in the log; with an
/// `op_id` it is executed once, as long as that is among the last 128 of the stream. `EFBIG` for more than 1,024 records, one of more than a MiB, or more than 4 MiB together;
/// `ENOENT` when the stream is removed meanwhile; `EINVAL` for any other place, attributes, a precondition, and without a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SysWrite {
    /// The file.
    pub path: VPath,
    /// The bytes, in one or several buffers that are written one after the other.
    pub data: Vec<Bytes>,
    /// Where they go.
    pub place: Place,
    /// Whether the content ends after the written bytes; for [`Place::At`].
    pub truncate: bool,
    /// Whether the file may be made.
    pub create: Create,
    /// Attributes to set in the same commit.
    pub attributes: Attributes,
    /// What the caller expects to find.
    pub precondition: Precondition,
    /// The operation's identity; made by the kernel when none is given.
    pub op_id: Option<OpId>,
    /// When it is acknowledged; none: as the mount does.
    pub consistency: Option<Consistency>,
    /// The lock under which it is made, or placed in a pipe or a stream; none: no lock is asked for. A write that waits for room looks before each attempt whether the lock is
    /// held, and keeps it from nobody while there is none.
    pub fence: Option<Fence>,
    /// For how long to wait for room in a pipe; none for not at all. Of no matter for a file.
    pub wait: Option<Duration>,
    /// The pipe that must be there; none for whatever is.
    pub pipe: Option<WhichPipe>,
}

/// Where written bytes go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Place {
    /// They become the whole content.
    #[default]
    Whole,
    /// They go to this offset, as with `pwrite`: over what is there, and beyond the end. A gap is filled with zeros.
    At(u64),
    /// They go to the end.
    End,
    /// They replace a text that is there. Not found: `InvalidArgument`; found more than once, unless `all`: `InvalidArgument`.
    Instead {
        /// The text to replace. Not empty.
        of: Bytes,
        /// Whether each occurrence is replaced.
        all: bool,
    },
}

/// What [`SysWrite`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Written {
    /// How many bytes were written.
    pub written: u64,
    /// Whether the file was made.
    pub created: bool,
    /// The content's length before; none for a new file.
    pub old_size: Option<u64>,
    /// How many places were changed: 1, or for [`Place::Instead`] the number of occurrences.
    pub places: u64,
    /// The offset of the first record that was appended to a stream; none for what is no stream.
    pub first_record: Option<u64>,
    /// The file as it is now.
    pub metadata: Arc<FileMetadata>,
    /// Proof of the commit; of a message in a pipe, which is none, it has the place 0.
    pub receipt: Receipt,
}

impl Written {
    /// The reply for `written` bytes.
    pub fn new(written: u64, old_size: Option<u64>, metadata: Arc<FileMetadata>, receipt: Receipt) -> Self {
        Self {
            written,
            created: old_size.is_none(),
            old_size,
            places: 1,
            first_record: None,
            metadata,
            receipt,
        }
    }
}

impl SysWrite {
    fn new(path: VPath, data: Vec<Bytes>, place: Place) -> Self {
        Self {
            path,
            data,
            place,
            truncate: false,
            create: Create::Never,
            attributes: Attributes::none(),
            precondition: Precondition::None,
            op_id: None,
            consistency: None,
            fence: None,
            wait: None,
            pipe: None,
        }
    }

    /// Makes `data` the whole content of an existing file.
    pub fn at(path: impl Into<VPath>, data: impl Into<Bytes>) -> Self {
        Self::new(path.into(), vec![data.into()], Place::Whole)
    }

    /// Makes the buffers, one after the other, the whole content of an existing file.
    pub fn vectored(path: impl Into<VPath>, data: Vec<Bytes>) -> Self {
        Self::new(path.into(), data, Place::Whole)
    }

    /// Replaces `old` by `new` in the content of an existing file. `old` must be there once, unless [`all`](Self::all) is said.
    pub fn edit(path: impl Into<VPath>, old: impl Into<Bytes>, new: impl Into<Bytes>) -> Self {
        Self::new(path.into(), vec![new.into()], Place::Instead { of: old.into(), all: false })
    }

    /// Makes the file when it is missing.
    #[must_use]
    pub fn create(mut self) -> Self {
        self.create = Create::IfMissing;
        self
    }

    /// Makes the file; refuses with `EEXIST` when there is an entry.
    #[must_use]
    pub fn create_exclusive(mut self) -> Self {
        self.create = Create::Exclusive;
        self
    }

    /// Writes at `offset`, over what is there.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        self.place = Place::At(offset);
        self
    }

    /// Writes at the end.
    #[must_use]
    pub fn append(mut self) -> Self {
        self.place = Place::End;
        self
    }

    /// Ends the content after the written bytes.
    #[must_use]
    pub fn truncate(mut self) -> Self {
        self.truncate = true;
        self
    }

    /// Replaces each occurrence; for [`edit`](Self::edit).
    #[must_use]
    pub fn all(mut self) -> Self {
        if let Place::Instead { all, .. } = &mut self.place {
            *all = true;
        }
        self
    }

    /// Waits for room in a pipe, for so long at most.
    #[must_use]
    pub fn wait(mut self, at_most: Duration) -> Self {
        self.wait = Some(at_most);
        self
    }

    /// Writes a message to this pipe, and to nothing else that is there.
    #[must_use]
    pub fn to_pipe(mut self, pipe: WhichPipe) -> Self {
        self.pipe = Some(pipe);
        self
    }

    /// Sets these attributes in the same commit.
    #[must_use]
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.attributes = attributes;
        self
    }
}
