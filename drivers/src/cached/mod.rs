//! A cache on the local disk in front of a slow store, and writes that reach it later.
//!
//! [`Cached`] wraps the factory of a driver, whose mounts take a few options more. A mount that gives none of them is the driver itself.
//!
//! - **Reading.** Content that was read is kept in pieces, by its hash, in the data folder: bounded, verified, there after a restart, and shared by all mounts
//!   of the folder. Before it is given, the store is asked whether the file has still the same tag, unless it was asked less than `cache_age_ms` ago.
//!   Within that age the listing of a folder that fits a page answers for all names in it, also for those that are not there.
//! - **Writing back.** With `write_back`, a whole file of at most [`WRITTEN_BACK_MAX`] bytes is acknowledged when it is on the local disk, as one durable entry
//!   of an index with its content, and goes to the store afterwards, several at once, the latest state of each path alone. What fails is tried again, with
//!   growing waits, for as long as it takes; a restart goes on with what is left. So is a whole file that is made of what is pending, as an append to it. All other
//!   changes wait for what is pending at their paths, and go through.
//!
//! A file that the store refuses, although it is well, holds up nobody: it is told in the figures, tried again, and given up by its deletion.
//!
//! A connector takes no `write_back`: what becomes of a write is known when it has answered.
//!
//! Who comes through this mount sees what was acknowledged. Others see it when it is at the store, and different paths in any order. Who writes last by the time
//! it reaches the store wins, as with plain writes, so a mount that writes back does not declare `exclusive`: two kernels that make one file at the same moment
//! may both be told that they made it.
//!
//! A store that is addressed by content has the same in front of it: its contents are files of one folder, which never change.
//!
//! `vault` is the folder: an index, which is a log as that of the metastore, and packed blobs; `marks` and `damage` are for when it cannot be opened. `mounted` says whose room is whose. `table`, `pending` and `folders` are what is known of one store, and decide;
//! `calls` is about what may arrive late; `paths` is the store in front, `contents` the one by hashes; `upload` brings what is pending to the store behind it, as fast as `pace` says. Rows and table change in the same order: an entry is put in the queue under the table's lock,
//! and the table is changed when the entry is applied. An entry about what is clean holds only while the row is what it was, so it never takes away what is pending.

mod calls;
mod contents;
mod damage;
mod factory;
mod folders;
mod later;
mod marks;
mod mounted;
mod options;
mod pace;
mod paths;
mod pending;
mod place;
mod reading;
mod rows;
mod table;
mod upload;
mod vault;
mod writing;

pub use contents::CachedContents;
pub use factory::Cached;
pub use options::Caching;
pub use paths::CachedPaths;
pub use vault::Vault;

/// Larger files are written to the store itself before they are acknowledged.
pub const WRITTEN_BACK_MAX: u64 = 4 << 20;

/// How large the pieces are in which content is kept.
const PIECE_BYTES: u64 = 1 << 20;

/// Up to this length a piece is part of its row in the index, so that one flush covers both, and in memory with it.
const INLINE_MAX: usize = 16 << 10;

/// When so many bytes of one store are in memory, further pieces are blobs, however small.
const IN_MEMORY_MAX: u64 = 64 << 20;

/// A longer path, or one with a control character, is not written back: no key of a store has more than 1,024 bytes or one of those, and what is acknowledged
/// must be one that the store takes. A mount's prefix comes before it.
const PATH_MAX: usize = 512;

/// How many files are pending at most, and how many are known beside them.
const FILES_MAX: usize = 65_536;

/// How many folders are known at most.
const FOLDERS_MAX: usize = 512;

/// A folder with more names is not known as a whole.
const NAMES_MAX: usize = 1_000;

/// How many pieces that were read are being kept at once. One that comes then is read again another time.
const KEEPING_MAX: usize = 8;

/// How many bytes of several files are on their way to one store at once, and with that in memory.
const UPLOADING_MAX: u64 = 32 << 20;

const _: () = assert!(WRITTEN_BACK_MAX <= UPLOADING_MAX);
