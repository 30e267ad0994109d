//! How a store's local cache is doing.

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
