//! What is read, and how that is looked at and measured: the same for all who do it.

use std::time::{Duration, Instant};

pub(crate) const READ: usize = 64 << 10;

/// Files, or parts of one, that are read in a round.
pub(crate) const READS: usize = 500;

pub(crate) fn content(number: usize) -> Vec<u8> {
    let mut content = vec![number.to_le_bytes()[0]; READ];
    content[..8].copy_from_slice(&number.to_le_bytes());
    content
}

/// The time of one read.
pub(crate) async fn round<B: AsRef<[u8]>>(read: impl AsyncFn(usize) -> B) -> Duration {
    let began = Instant::now();
    for number in 0..READS {
        // Not in their order.
        let number = number * 7 % READS;
        let read = read(number).await;
        let bytes = read.as_ref();
        assert!(bytes.len() == READ && bytes[..8] == number.to_le_bytes(), "what was written");
    }
    began.elapsed() / u32::try_from(READS).expect("they are few")
}
