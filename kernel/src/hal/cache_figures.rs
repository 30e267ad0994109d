//! How a store's local cache is doing.

use nexus_messages::Timestamp;
use serde::{Deserialize, Serialize};

/// What is kept on this machine of a store that is slow or elsewhere, and how much it helped.
///
/// Pending is what was acknowledged here and is written to the backend later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheFigures {
    /// Reads that were answered from what is kept, without its bytes being asked of the backend.
    pub hits: u64,
    /// Reads that had to ask the backend for bytes.
    pub misses: u64,
    /// How many bytes are kept, pending ones included.
    pub bytes: u64,
    /// How many may be.
    pub bytes_max: u64,
    /// Files that are yet to be written to the backend.
    pub pending_files: u64,
    /// How many bytes those have.
    pub pending_bytes: u64,
    /// Attempts to write one of them to the backend that failed, since the driver was opened.
    pub failed: u64,
    /// What the latest of these said, without secrets. It stays when all is well again.
    pub last_failure: Option<String>,
    /// How many of the pending files the backend refuses, although it is well: each is tried again, and nobody waits for it. A new state, or the deletion of such a
    /// file, puts an end to it.
    #[serde(default)]
    pub refused_files: u64,
    /// Some few of the pending files whose last attempt failed: first those that are refused, and of these those that have waited longest.
    #[serde(default)]
    pub stuck: Vec<PendingFile>,
}

/// A file that does not get to its backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PendingFile {
    /// Its path below the mount; of content that is found by its hash, that.
    pub path: String,
    /// Since when the backend lacks what is here.
    pub since: Timestamp,
    /// How often it was tried, since the driver was opened or the file was last written.
    pub attempts: u64,
    /// Whether the backend is well, and refuses this file.
    pub refused: bool,
    /// What the last attempt said, without secrets.
    pub error: String,
}

impl PendingFile {
    /// Of the file at `path`, of which nothing was said yet.
    pub fn new(path: impl Into<String>, since: Timestamp) -> Self {
        Self { path: path.into(), since, attempts: 0, refused: false, error: String::new() }
    }
}

impl CacheFigures {
    /// The share of reads that the cache answered, between 0 and 1; none before the first read.
    pub fn hit_rate(&self) -> Option<f64> {
        let reads = self.hits.saturating_add(self.misses);
        // A rate needs no more digits than this has.
        #[expect(clippy::cast_precision_loss)]
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }
}
