//! The settings of the log.

use crate::redb::RedbConfig;

/// From how many bytes in memory on the rows are folded into the database.
const FOLD_FROM_BYTES: u64 = 16 << 20;

/// How many bytes of rows wait in memory for the database at most; then a batch waits for the fold.
const PENDING_MAX_BYTES: u64 = 64 << 20;

/// How far ahead of what it holds the log's file has blocks: then a flush need not write down where they are.
const AHEAD_BYTES: u64 = 1 << 20;

/// The settings of a [`WalMetastore`](super::WalMetastore).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalConfig {
    /// From how many bytes of rows in memory on it asks for a fold. About as many bytes of log are read again after a crash.
    pub fold_from_bytes: u64,
    /// How many bytes of rows wait in memory at most. A batch that comes then folds them first.
    pub pending_max_bytes: u64,
    /// The log's file grows in steps of so many bytes.
    pub ahead_bytes: u64,
    /// The database below.
    pub database: RedbConfig,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            fold_from_bytes: FOLD_FROM_BYTES,
            pending_max_bytes: PENDING_MAX_BYTES,
            ahead_bytes: AHEAD_BYTES,
            database: RedbConfig::default(),
        }
    }
}

impl WalConfig {
    /// Sets from how many bytes of rows in memory on a fold is asked for.
    #[must_use]
    pub fn fold_from_bytes(mut self, bytes: u64) -> Self {
        self.fold_from_bytes = bytes;
        self
    }

    /// Sets how many bytes of rows wait in memory at most.
    #[must_use]
    pub fn pending_max_bytes(mut self, bytes: u64) -> Self {
        self.pending_max_bytes = bytes;
        self
    }

    /// Sets the steps in which the log's file grows.
    #[must_use]
    pub fn ahead_bytes(mut self, bytes: u64) -> Self {
        self.ahead_bytes = bytes;
        self
    }

    /// Sets the database below.
    #[must_use]
    pub fn database(mut self, config: RedbConfig) -> Self {
        self.database = config;
        self
    }
}
