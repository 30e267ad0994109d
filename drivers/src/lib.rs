//! Storage drivers for the Nexus kernel.
//!
//! | module | what it drives | feature |
//! |---|---|---|
//! | `wal` | the metastore, on disk: a log, and a database that it is folded into | `redb` |
//! | `redb` | that database, and a metastore without a log | `redb` |
//! | [`memory`] | a metastore, blobs, and a small file system, in memory | |
//! | [`cas`] | content by its hash, over any transport | |
//! | `packs` | blobs on disk, many to a file and to a flush | `local` |
//! | `local` | blobs on disk, a file each, and an existing folder by its paths | `local` |
//! | [`streams`] | streams of records: in memory, and as a log on disk | the latter `local` |
//! | [`cache`] | ephemeral keys and topics: in memory, and in a server that speaks the Redis protocol | the latter `redis` |
//! | [`records`] | tables in SQL, for services: SQLite built in, and PostgreSQL | `sqlite`, `postgres` |
//! | `cached` | a cache on the local disk in front of a slow store, and writes that reach it later | `cached` |
//! | `remote` | object stores elsewhere | `s3`, `azure`, `gcs`, `http` |
//! | `external` | what lies behind an API or a program: connectors | `connectors` |
//! | `processes` | child processes, on Linux | `processes` |
//! | `disk` | what drivers with files of their own stand on | `redb` or `local` |
//! | `faults` | any other, with faults: for tests | `faults` |
//!
//! [`catalogue`] has those that can be mounted, by name.

pub mod cache;
#[cfg(all(feature = "cached", unix))]
pub mod cached;
pub mod cas;
mod catalogue;
#[cfg(any(feature = "redb", feature = "local"))]
pub mod disk;
mod entries;
#[cfg(feature = "connectors")]
pub mod external;
#[cfg(feature = "faults")]
pub mod faults;
#[cfg(any(feature = "redb", feature = "local"))]
mod frames;
#[cfg(all(any(test, feature = "fuzzing"), feature = "redb", feature = "local", unix))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(feature = "remote", feature = "connectors"))]
mod here;
#[cfg(feature = "cached")]
#[cfg_attr(
    not(all(feature = "remote", unix)),
    allow(dead_code, reason = "the cache asks, and stores elsewhere note")
)]
mod late;
#[cfg(all(feature = "local", unix))]
pub mod local;
pub mod memory;
#[cfg(all(feature = "local", unix))]
pub mod packs;
mod path;
#[cfg(all(feature = "local", unix))]
mod pooled;
#[cfg(all(feature = "processes", target_os = "linux"))]
pub mod processes;
pub mod records;
#[cfg(feature = "redb")]
pub mod redb;
#[cfg(feature = "remote")]
pub mod remote;
#[cfg(any(feature = "remote", feature = "redis", feature = "connectors"))]
mod secret;
pub mod streams;
#[cfg(any(feature = "remote", feature = "connectors"))]
mod times;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod tls;
#[cfg(any(feature = "remote", feature = "connectors"))]
mod turn;
#[cfg(all(feature = "redb", unix))]
pub mod wal;

pub use catalogue::catalogue;
#[cfg(any(feature = "remote", feature = "redis", feature = "connectors"))]
pub use secret::Secret;
