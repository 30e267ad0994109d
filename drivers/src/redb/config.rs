//! The settings of the store.

/// How much of the file is cached in memory unless said otherwise: most of the 32 MiB that an idle kernel may take are left to others.
const CACHE_BYTES: usize = 16 << 20;

/// From this size of the file on, each commit also saves what a repair would have to find out.
///
/// Opening a file after a crash takes about 2 ms a MiB without it, and a commit of one entry takes a quarter of a millisecond more with it
/// (`cargo run --release -p nexus-drivers --example metastore_cost`). So a crash costs half a second at most, or a tenth of it for a large
/// store, and small stores keep their fast commits.
const QUICK_REPAIR_FROM_BYTES: u64 = 256 << 20;

/// How much room a disk must have, beside what a batch needs, for the batch to be begun.
const RESERVE_BYTES: u64 = 1 << 20;

/// The settings of a [`RedbMetastore`](super::RedbMetastore).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedbConfig {
    /// How many bytes of the file are cached in memory, at most.
    pub cache_bytes: usize,
    /// From which size of the file on, in bytes, a commit also saves what makes opening after a crash quick. It then needs a second flush.
    pub quick_repair_from_bytes: u64,
    /// How many bytes of the disk stay free: a batch that would take them is refused as full.
    pub reserve_bytes: u64,
    /// A number that nobody can guess, for a database that is made: the checksums of a log in front of it begin with it.
    pub salt: u64,
}

impl Default for RedbConfig {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES,
            quick_repair_from_bytes: QUICK_REPAIR_FROM_BYTES,
            reserve_bytes: RESERVE_BYTES,
            salt: 0,
        }
    }
}

impl RedbConfig {
    /// Sets how many bytes of the file are cached in memory, at most.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets from which size of the file on a commit saves what makes opening after a crash quick.
    #[must_use]
    pub fn quick_repair_from_bytes(mut self, bytes: u64) -> Self {
        self.quick_repair_from_bytes = bytes;
        self
    }

    /// Sets the number that nobody can guess.
    #[must_use]
    pub fn salt(mut self, salt: u64) -> Self {
        self.salt = salt;
        self
    }

    /// Sets how many bytes of the disk stay free.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }
}
