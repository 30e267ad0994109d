//! The settings of streams on disk.

/// The settings of [`WalStreams`](super::WalStreams).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalStreamsConfig {
    /// How long a segment grows before the next one is begun, in bytes. Space is given back by segments.
    pub segment_bytes: u64,
    /// How far ahead of what is appended a segment is written with zeros, in bytes: then a flush need not write down a new length.
    pub ahead_bytes: u64,
    /// How many bytes of what came last are in memory, for readers that follow.
    pub recent_bytes: u64,
    /// How many bytes of the segments' indexes are in memory.
    pub index_bytes: u64,
    /// How many bytes share a flush at most; one append always may.
    pub batch_bytes: u64,
    /// How many appends share a flush at most.
    pub batch_max: usize,
    /// How many bytes of appends wait at most; who comes later waits for room.
    pub queue_bytes: u32,
    /// How many operations wait at most; who comes later waits for room.
    pub queue_max: usize,
    /// How many streams there can be.
    pub streams_max: usize,
}

impl Default for WalStreamsConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            ahead_bytes: 1 << 20,
            recent_bytes: 8 << 20,
            index_bytes: 8 << 20,
            batch_bytes: 8 << 20,
            batch_max: 1_024,
            queue_bytes: 64 << 20,
            queue_max: 4_096,
            streams_max: 65_536,
        }
    }
}

impl WalStreamsConfig {
    /// Sets how long a segment grows.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets how far ahead of what is appended a segment is written with zeros.
    #[must_use]
    pub fn ahead_bytes(mut self, bytes: u64) -> Self {
        self.ahead_bytes = bytes.max(1);
        self
    }

    /// Sets how many bytes of what came last are in memory.
    #[must_use]
    pub fn recent_bytes(mut self, bytes: u64) -> Self {
        self.recent_bytes = bytes;
        self
    }

    /// Sets how many bytes of the segments' indexes are in memory.
    #[must_use]
    pub fn index_bytes(mut self, bytes: u64) -> Self {
        self.index_bytes = bytes;
        self
    }

    /// Sets how many streams there can be.
    #[must_use]
    pub fn streams_max(mut self, streams: usize) -> Self {
        self.streams_max = streams;
        self
    }
}
