//! The settings of the cache.

/// The settings of a [`MemoryCache`](super::MemoryCache).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheConfig {
    /// How many bytes of keys and values are kept, at most; what was put longest ago goes first.
    pub bytes_max: usize,
    /// How many messages may wait for one listener, at most, whatever it asks for.
    pub queue_max: usize,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { bytes_max: 8 << 20, queue_max: 4_096 }
    }
}

impl CacheConfig {
    /// Sets how many bytes of keys and values are kept, at most.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Sets how many messages may wait for one listener, at most.
    #[must_use]
    pub fn queue_max(mut self, messages: usize) -> Self {
        self.queue_max = messages;
        self
    }
}
