//! Waking who sleeps, in this process or another, and never sleeping beside what one waits for.
//!
//! The lower half of a word counts how often the bell rang for somebody, and its lowest bit says whether somebody listens:
//!
//! ```text
//! who waits:   set the bit, keep the word   then look   then sleep while the word is the one that was kept
//! who brings:  publish                      then look at the bit: set, count on with the bit cleared, and wake all
//! ```
//!
//! Both look after they wrote, in one order (a store-buffer, or Dekker, pair), so one of them sees the other. Nobody who listens is counted, so nothing is left
//! of one that died. One that dies between publishing and waking leaves sleepers behind, so nobody sleeps for longer than [`PATROL`] at once.

use std::time::Duration;

use super::memory::Memory;

/// For how long nobody sleeps without a look: a wake that died with its process is made up for within this time.
pub const PATROL: Duration = Duration::from_millis(50);

/// The bit that says that somebody listens.
const LISTENS: u64 = 1;

/// The half of the word that counts.
const HALF: u64 = 0xffff_ffff;

/// The bell at a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bell(pub(super) usize);

/// What the word was when somebody began to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard(u32);

impl Bell {
    /// To be called before the last look, and then [`sleep`](Self::sleep).
    pub(super) fn listen(self, memory: &impl Memory) -> Heard {
        let mut word = memory.load(self.0);
        while word & LISTENS == 0 {
            match memory.exchange(self.0, word, word | LISTENS) {
                Ok(()) => word |= LISTENS,
                Err(now) => word = now,
            }
        }
        memory.model_fence();
        #[expect(clippy::cast_possible_truncation, reason = "it is the half that counts")]
        Heard(word as u32)
    }

    /// To be called after what is waited for was published. One load when nobody listens.
    #[inline]
    pub(super) fn ring(self, memory: &impl Memory) {
        memory.model_fence();
        let word = memory.load(self.0);
        if word & LISTENS != 0 {
            self.ring_for(memory, word);
        }
    }

    #[cold]
    fn ring_for(self, memory: &impl Memory, mut word: u64) {
        while word & LISTENS != 0 {
            // Clears the bit and counts on in one: the bit is the lowest one.
            match memory.exchange(self.0, word, (word + 1) & HALF) {
                Ok(()) => return memory.wake(self.0),
                Err(now) => word = now,
            }
        }
    }

    /// Sleeps until the bell has rung since `heard`, for no longer than `most` or [`PATROL`].
    pub(super) fn sleep(self, memory: &impl Memory, heard: Heard, most: Duration) {
        memory.sleep(self.0, heard.0, most.min(PATROL));
    }
}
