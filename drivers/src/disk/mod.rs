//! What drivers that keep files of their own stand on: a folder whose files can be read, written and flushed.
//!
//! On a host it is a folder of the file system. In tests it is one that loses, tears and reorders what was not flushed, and that fails on
//! demand (`sim`, with the feature `faults`): so every rule below is what a driver may rely on, and nothing else.
//!
//! 1. What was written is on disk when `sync` of its file returned after it. Until then any part of it may be lost, or be there
//!    without what was written before it.
//! 2. The name of a new, moved or removed file is durable when `sync` of its folder returned after it.
//! 3. After a failed `sync` nothing is known of what was written to that file since the `sync` before. It is never repeated on the same file.

#[cfg(unix)]
mod local;
#[cfg(all(unix, feature = "local"))]
mod lock;
#[cfg(any(test, feature = "faults"))]
pub mod sim;

use std::fmt;
use std::io;
use std::sync::Arc;

#[cfg(unix)]
pub use local::LocalFolder;
#[cfg(all(unix, feature = "local"))]
pub(crate) use local::make_durable;
#[cfg(all(unix, feature = "local"))]
pub(crate) use lock::FileLock;

/// A folder of files that belongs to one driver. Everything blocks.
pub trait Folder: fmt::Debug + Send + Sync + 'static {
    /// Opens the file `name` for reading and writing. With `make` it is made when it is missing.
    fn open(&self, name: &str, make: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// The names of the files in the folder, in no order. Folders are left out.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Moves a file to a name in the same folder, over what is there. A crash sees the old or the new.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Who has it open goes on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names of the folder durable: those that were made, moved and removed before.
    fn sync(&self) -> io::Result<()>;

    /// The folder `name` within this one; made, durably, when it is missing.
    fn folder(&self, name: &str) -> io::Result<Arc<dyn Folder>>;

    /// How many bytes may still be taken; none when nobody knows.
    fn free_bytes(&self) -> io::Result<Option<u64>>;
}

/// An open file. Everything blocks, unless it says that it does not.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` with the bytes from `offset` on; an error when the file ends before.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// As [`read_at`](Self::read_at), but never waits for the disk: what is not in memory is told as [`WouldBlock`](io::ErrorKind::WouldBlock).
    fn read_at_hand(&self, _offset: u64, _out: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Writes all of `data` from `offset` on. A gap reads as zeros.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the file this long: cut, or filled with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes what was written, and the length, durable.
    fn sync(&self) -> io::Result<()>;
}
