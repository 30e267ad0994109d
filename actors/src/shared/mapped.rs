//! Memory that is a file, mapped by each process that uses it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
#[cfg(target_os = "linux")]
use rustix::thread::futex::Flags;

use super::lives::Lives;
use super::memory::Memory;
#[cfg(target_os = "linux")]
use crate::futex;

/// Looks after which who waits gives its turn away, and no longer only a few instructions.
const LOOKS_AT_FULL_SPEED: u32 = 100;

/// A mapped file.
#[derive(Debug)]
pub(super) struct Mapped {
    map: MmapRaw,
    /// The same as that of `lives`, where it is found at once.
    me: u64,
    lives: Arc<Lives>,
}

/// The mapping is touched here alone.
#[expect(unsafe_code, reason = "a mapping is a pointer and a length")]
mod words {
    #[cfg(target_os = "linux")]
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::AtomicU64;

    use memmap2::MmapRaw;

    /// All words of the mapping.
    #[inline]
    pub(super) fn all(map: &MmapRaw) -> &[AtomicU64] {
        // SAFETY: the mapping is readable and writable, as long as `map` and so the result, begins at a page and so is aligned for words, and has at least this
        // many bytes. Any bits are a word. It is touched as atomics alone, in this process, so what others change meanwhile is no data race. Who makes the
        // file shorter has the system end this process with a signal, as who may write to the file could in other ways.
        unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<AtomicU64>(), map.len() / 8) }
    }

    /// The lower half of a word, for the system, which looks there whether it has changed.
    #[cfg(target_os = "linux")]
    #[inline]
    pub(super) fn lower(word: &AtomicU64) -> &AtomicU32 {
        let half = usize::from(cfg!(target_endian = "big"));
        // SAFETY: both halves are within the word, which lives as long as the result, and are aligned; no code of this process reads or writes it.
        unsafe { &*word.as_ptr().cast::<AtomicU32>().add(half) }
    }
}

impl Mapped {
    /// Maps the first `words` of the file, which has as many: a file that is shorter is refused. Who shares it is among `lives`.
    pub(super) fn new(file: &File, words: usize, lives: Arc<Lives>) -> io::Result<Self> {
        let bytes = words.checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it says"));
        }
        Ok(Self { map: MmapOptions::new().len(bytes).map_raw(file)?, me: lives.me(), lives })
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        &words::all(&self.map)[at]
    }
}

impl Memory for Mapped {
    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::SeqCst)
    }

    #[inline]
    fn store(&self, at: usize, value: u64) {
        self.word(at).swap(value, Ordering::SeqCst);
    }

    #[inline]
    fn exchange(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        self.word(at).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    #[inline]
    fn peek(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    #[inline]
    fn poke(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Relaxed);
    }

    #[inline]
    fn fence(&self) {
        fence(Ordering::AcqRel);
    }

    fn me(&self) -> u64 {
        self.me
    }

    fn is_dead(&self, process: u64) -> bool {
        self.lives.is_dead(process)
    }

    #[cfg(target_os = "linux")]
    fn sleep(&self, at: usize, expected: u32, most: Duration) {
        // Whoever sleeps looks by itself.
        futex::sleep(words::lower(self.word(at)), Flags::empty(), expected, Some(most));
    }

    #[cfg(target_os = "linux")]
    fn wake(&self, at: usize) {
        futex::wake(words::lower(self.word(at)), Flags::empty(), i32::MAX.unsigned_abs());
    }

    // Elsewhere there is no identity of a process, and so no mapping.
    #[cfg(not(target_os = "linux"))]
    fn sleep(&self, _: usize, _: u32, _: Duration) {}

    #[cfg(not(target_os = "linux"))]
    fn wake(&self, _: usize) {}

    fn pause(&self, looks: u32) {
        if looks < LOOKS_AT_FULL_SPEED { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}
