//! Settings of a kernel, and what its caches hold.

use std::path::PathBuf;
use std::time::Duration;

use crate::garbage::GarbageConfig;
use crate::scrub::ScrubConfig;

/// How long one message may hold a primitive before it is written off, unless something else is said.
const WATCHDOG: Duration = Duration::from_secs(5);

/// How many advisory locks one agent may hold and wait for, unless something else is said.
const LOCKS_PER_AGENT: usize = 10_000;

/// Settings of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelConfig {
    /// The folder that drivers put their data into when their options name none.
    pub data_folder: Option<PathBuf>,
    /// How many bytes the metadata cache holds, with what it costs to keep them; 0 for none. About two entries in a KiB.
    pub metadata_cache_bytes: u64,
    /// How many bytes the content cache holds.
    pub content_cache_bytes: u64,
    /// How many restarts each supervisor allows within [`restarts_within`](Self::restarts_within).
    pub restarts_max: u32,
    /// The period in which restarts are counted.
    pub restarts_within: Duration,
    /// How long one message may hold an actor of the kernel, or its thread, before it is written off. Services declare their own.
    pub watchdog: Duration,
    /// How and when content goes that nothing names any more.
    pub garbage: GarbageConfig,
    /// How long after a change that is acknowledged before it is on disk a flush is begun at the latest.
    pub flush_within: Duration,
    /// With how many bytes of such changes in memory alone the next one waits for a flush.
    pub unflushed_max_bytes: u64,
    /// How many advisory locks one agent may hold and wait for.
    pub locks_per_agent: usize,
    /// How and when content is read that nobody asks for.
    pub scrub: ScrubConfig,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            data_folder: None,
            metadata_cache_bytes: 64 << 20,
            content_cache_bytes: 64 << 20,
            restarts_max: 10,
            restarts_within: Duration::from_secs(30),
            watchdog: WATCHDOG,
            garbage: GarbageConfig::default(),
            flush_within: Duration::from_millis(50),
            unflushed_max_bytes: 8 << 20,
            locks_per_agent: LOCKS_PER_AGENT,
            scrub: ScrubConfig::default(),
        }
    }
}

/// What the caches hold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct CacheStats {
    /// Paths whose metadata is at hand.
    pub metadata_entries: usize,
    /// Bytes of such metadata and its paths, with what it costs to keep them.
    pub metadata_bytes: u64,
    /// Bytes of content, with what it costs to keep them.
    pub content_bytes: u64,
}
