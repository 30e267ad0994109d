//! Memory for large content on its way.
//!
//! It is mapped, so the system has it back as soon as nothing is on its way any more: an allocator would keep it, for each thread by itself, and what went up and what
//! came down later would count twice. As long as something is on its way it is used again.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;
use parking_lot::Mutex;

/// How much waits to be used again, at most.
const FREE_MAX: usize = 32 << 20;

/// The memory of one mount.
#[derive(Default)]
pub(super) struct Buffers(Mutex<State>);

#[derive(Default)]
struct State {
    free: Vec<MmapMut>,
    // Invariant: what `free` has, together; 0 when no buffer is in use.
    free_size: usize,
    in_use: usize,
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Buffers").field("free_size", &state.free_size).field("in_use", &state.in_use).finish()
    }
}

impl Buffers {
    /// An empty buffer for so many bytes.
    ///
    /// # Errors
    /// When the system has no such memory.
    pub(super) fn take(self: &Arc<Self>, size: usize) -> io::Result<Buffer> {
        let mut state = self.0.lock();
        let found = state.free.iter().position(|map| map.len() == size);
        let map = match found {
            Some(at) => {
                state.free_size -= size;
                state.free.swap_remove(at)
            }
            None => {
                // Others are of a size that is not asked for now.
                state.free_size = 0;
                state.free.clear();
                MmapMut::map_anon(size)?
            }
        };
        state.in_use += 1;
        Ok(Buffer { map: Some(map), filled: 0, home: self.clone() })
    }

    fn give_back(&self, map: Option<MmapMut>) {
        let mut state = self.0.lock();
        state.in_use -= 1;
        let (mut gone, size) = (Vec::new(), map.as_ref().map_or(0, |map| map.len()));
        if state.in_use == 0 {
            state.free_size = 0;
            gone = std::mem::take(&mut state.free);
            gone.extend(map);
        } else if state.free_size + size <= FREE_MAX {
            state.free_size += size;
            state.free.extend(map);
        } else {
            gone.extend(map);
        }
        drop(state);
        drop(gone);
    }
}

/// Memory that is being filled.
pub(super) struct Buffer {
    /// There until it is dropped.
    map: Option<MmapMut>,
    // Invariant: not more than there is.
    filled: usize,
    home: Arc<Buffers>,
}

impl Buffer {
    /// Takes as much of `bytes` as there is room for, and gives the rest.
    pub(super) fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let room: &mut [u8] = match self.map.as_deref_mut() {
            Some(map) => &mut map[self.filled..],
            None => &mut [],
        };
        let (now, rest) = bytes.split_at(bytes.len().min(room.len()));
        room[..now.len()].copy_from_slice(now);
        self.filled += now.len();
        rest
    }

    /// What it was filled with. The memory comes back with the last of its bytes.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        match self.map.as_deref() {
            Some(map) => &map[..self.filled],
            None => &[],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.give_back(self.map.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_while_some_is_in_use_and_gone_then() {
        let buffers = Arc::new(Buffers::default());
        let counts = || {
            let state = buffers.0.lock();
            (state.free_size, state.in_use)
        };
        let mut one = buffers.take(8).unwrap();
        assert_eq!(one.fill(b"0123456789"), b"89");
        let one = one.freeze();
        assert_eq!(one[..], b"01234567"[..]);
        let mut other = buffers.take(8).unwrap();
        assert!(other.fill(b"abc").is_empty());
        let part = one.slice(2..4);
        drop(one);
        assert_eq!((counts(), &part[..]), ((0, 2), &b"23"[..]));
        drop(part);
        assert_eq!(counts(), (8, 1));
        let again = buffers.take(8).unwrap();
        assert_eq!((again.as_ref(), counts()), (&b""[..], (0, 2)));
        drop(again);
        assert_eq!(other.freeze()[..], b"abc"[..]);
        assert_eq!(counts(), (0, 0));
    }

    #[test]
    fn what_waits_is_bounded() {
        let buffers = Arc::new(Buffers::default());
        let all: Vec<_> = (0..FREE_MAX / (8 << 20) + 3).map(|_| buffers.take(8 << 20).unwrap()).collect();
        let mut all = all.into_iter();
        let last = all.next();
        all.for_each(drop);
        assert_eq!(buffers.0.lock().free_size, FREE_MAX);
        drop(last);
        assert_eq!(buffers.0.lock().free_size, 0);
    }
}
