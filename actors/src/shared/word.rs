//! Bare words in a mapped file: what a raw futex across processes costs, for those who compare.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::lives::Lives;
use super::mapped::Mapped;
use super::memory::Memory;

/// Words in a file that processes map, the first ones of a page, and nothing else: no lock, no check.
#[derive(Debug)]
pub struct SharedWords(Mapped);

/// How many there are.
const WORDS: usize = 512;

impl SharedWords {
    /// Maps the file; makes it when it is not there. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(file: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file)?;
        file.set_len(WORDS as u64 * 8)?;
        let lives = Lives::of(file.try_clone()?)?;
        Mapped::new(&file, WORDS, lives).map(Self)
    }

    /// What a word is.
    ///
    /// # Panics
    /// For a word beyond the page.
    pub fn load(&self, at: usize) -> u64 {
        self.0.load(at)
    }

    /// Changes a word.
    ///
    /// # Panics
    /// For a word beyond the page.
    pub fn store(&self, at: usize, value: u64) {
        self.0.store(at, value);
    }

    /// Sleeps at a word while its lower half is `expected`, for so long; may return early.
    ///
    /// # Panics
    /// For a word beyond the page.
    pub fn sleep(&self, at: usize, expected: u32, most: Duration) {
        self.0.sleep(at, expected, most);
    }

    /// Wakes all who sleep at a word.
    ///
    /// # Panics
    /// For a word beyond the page.
    pub fn wake(&self, at: usize) {
        self.0.wake(at);
    }
}
