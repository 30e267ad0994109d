//! Memory that blobs are read into, again and again: to have the system hand out fresh memory takes about as long as to fill it.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// How long a buffer is.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// What is shorter than this is read into memory of its own: who keeps it would keep a whole buffer.
const LENT_MIN: usize = BUFFER_BYTES / 16;

/// How many buffers wait to be used again.
const WAITING_MAX: usize = 4;

/// Buffers that nobody uses just now.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// Memory of `len` bytes, with what `fill` puts there.
    pub(super) fn filled<E>(
        self: &Arc<Self>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        if !(LENT_MIN..=BUFFER_BYTES).contains(&len) {
            let mut own = vec![0; len];
            fill(&mut own)?;
            return Ok(own.into());
        }
        let waiting = self.0.lock().pop();
        let mut lent = Lent {
            buffer: waiting.unwrap_or_else(|| vec![0; BUFFER_BYTES]),
            len,
            home: Arc::downgrade(self),
        };
        fill(&mut lent.buffer[..len])?;
        Ok(Bytes::from_owner(lent))
    }
}

/// A buffer on its way, until the last of those who read in it is done.
struct Lent {
    buffer: Vec<u8>,
    len: usize,
    home: Weak<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut waiting = home.0.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffers: &Arc<Buffers>, len: usize, with: u8) -> Bytes {
        let fill = |memory: &mut [u8]| -> Result<(), ()> {
            memory.fill(with);
            Ok(())
        };
        buffers.filled(len, fill).unwrap()
    }

    #[test]
    fn a_buffer_is_used_again_when_the_last_part_of_it_is_gone() {
        let buffers = Arc::new(Buffers::default());
        let first = filled(&buffers, BUFFER_BYTES, 1);
        let part = first.slice(10..20);
        drop(first);
        let second = filled(&buffers, LENT_MIN, 2);
        assert_eq!((second.len(), &part[..]), (LENT_MIN, &[1; 10][..]));
        let at = part.as_ptr() as usize - 10;
        drop(part);
        let third = filled(&buffers, LENT_MIN + 1, 3);
        assert_eq!(third.as_ptr() as usize, at);
        assert!(third.iter().all(|byte| *byte == 3) && third.len() == LENT_MIN + 1);
    }

    #[test]
    fn few_buffers_wait_and_what_is_small_or_large_takes_none() {
        let buffers = Arc::new(Buffers::default());
        let all: Vec<_> = (0..=WAITING_MAX).map(|_| filled(&buffers, BUFFER_BYTES, 1)).collect();
        drop(all);
        assert_eq!(buffers.0.lock().len(), WAITING_MAX);
        let others = [filled(&buffers, LENT_MIN - 1, 1), filled(&buffers, BUFFER_BYTES + 1, 1)];
        assert_eq!(buffers.0.lock().len(), WAITING_MAX);
        drop(others);
        assert_eq!(buffers.0.lock().len(), WAITING_MAX);
        buffers.filled(BUFFER_BYTES, |_| Err("no")).unwrap_err();
        assert_eq!(buffers.0.lock().len(), WAITING_MAX);
        let late = filled(&buffers, BUFFER_BYTES, 1);
        drop(buffers);
        assert_eq!(late.len(), BUFFER_BYTES);
    }
}
