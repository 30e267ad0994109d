//! What a test asks of the disk, and what it hears of it.

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Any operation: EIO. Of a write a part may have been done; of a flush, too.
    Error,
    /// What takes room, flushes of files among it: ENOSPC.
    Full,
    /// What takes more room: bytes beyond the end of a file, and new folders: ENOSPC. What stands there already is written over, and a file that is made has no bytes yet.
    Growth,
    /// A flush, of a file or of a folder: EIO, and what was to be flushed is forgotten.
    Sync,
}

/// What a driver is made to do wrong, without a change to its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Omission {
    /// It never flushes a file.
    FileSyncs,
    /// It never flushes a folder.
    FolderSyncs,
    /// It goes on before a file is flushed: the flush is made when it changes something the next time.
    PromptFileSyncs,
}

/// Something that was not flushed, for who chooses what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsynced {
    /// The file or the folder, by the path that it has on disk or else was seen under; empty when it has neither.
    pub path: String,
    /// What was done.
    pub what: UnsyncedChange,
}

/// What was done and not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsyncedChange {
    /// Bytes were written.
    Data {
        /// The first one's place.
        offset: u64,
        /// How many.
        count: usize,
    },
    /// The length was set, or grew by a write, whose bytes are another change.
    Length {
        /// To how many bytes.
        len: u64,
    },
    /// A name in the folder was made, moved or removed.
    Name,
}

/// How often the disk was asked for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Everything, looks included.
    pub operations: u64,
    /// What changes something, flushes included.
    pub changes: u64,
    /// Writes to files.
    pub writes: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Flushes of files.
    pub file_syncs: u64,
    /// Flushes of folders.
    pub folder_syncs: u64,
    /// Faults that struck.
    pub faults: u64,
}
