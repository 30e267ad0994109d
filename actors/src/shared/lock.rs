//! One process at a time, and none for ever: what a dead process holds is taken over.
//!
//! A word holds who has it. Whoever finds another one there looks whether that one lives, after it has waited for longer than any holder needs. What the lock
//! guards is changed by one store, so a holder may die at any instruction: what it had begun is as if it had not.

use std::time::Duration;

use super::bell::Bell;
use super::lives::pid_of;
use super::memory::{Memory, SharedTrouble};

/// Looks before anybody sleeps, or asks whether the holder lives. In a model each is one more branch of all that may happen.
const LOOKS: u32 = if cfg!(nexus_loom) { 1 } else { 200 };

/// Who was woken so often, and found the lock taken again each time, looks for longer.
const PATIENCE: u32 = 8;

/// So often, and lets others run between two looks.
const LONG_LOOKS: u32 = 2_000;

/// How long it sleeps between two looks.
const NAP: Duration = Duration::from_millis(1);

/// How often it sleeps beside a holder that does not let go before it gives up.
const NAPS: u32 = if cfg!(nexus_loom) { 2 } else { 40 };

/// How often it sleeps or is woken in all: more often than others are quicker, and not for ever, whatever another process writes.
const ROUNDS_MAX: u32 = if cfg!(nexus_loom) { 2 } else { 2_000 };

/// A lock: the word of its holder, and the bell of those who wait for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lock {
    pub(super) holder: usize,
    pub(super) bell: Bell,
}

/// The lock, held. It is given back when this is dropped.
pub(super) struct Locked<'a, M: Memory> {
    memory: &'a M,
    lock: Lock,
}

impl Lock {
    /// Takes the lock. Blocks: while others hold it one after the other, each for a copy of a message. An error only when one of them holds it for some tens of
    /// milliseconds and does not go on, or when the bell is rung for nothing.
    #[inline]
    pub(super) fn lock<M: Memory>(self, memory: &M) -> Result<Locked<'_, M>, SharedTrouble> {
        match memory.exchange(self.holder, 0, memory.me()) {
            Ok(()) => Ok(Locked { memory, lock: self }),
            Err(_) => self.lock_behind(memory),
        }
    }

    #[cold]
    fn lock_behind<M: Memory>(self, memory: &M) -> Result<Locked<'_, M>, SharedTrouble> {
        let me = memory.me();
        let take = |from| memory.exchange(self.holder, from, me);
        let look = |most| {
            (0..most).any(|looks| {
                let is_taken = memory.load(self.holder) == 0 && take(0).is_ok();
                if !is_taken {
                    memory.pause(looks);
                }
                is_taken
            })
        };
        let (mut last, mut before, mut naps) = (0, None, 0);
        for round in 0..ROUNDS_MAX {
            let looks = match round {
                0 => LOOKS,
                // Whoever is woken comes too late when others take it again at once.
                _ if round % PATIENCE == 0 => LONG_LOOKS,
                _ => 0,
            };
            if look(looks) {
                return Ok(Locked { memory, lock: self });
            }
            let heard = self.bell.listen(memory);
            last = memory.load(self.holder);
            if last == 0 || memory.is_dead(last) {
                // Who it was is never there again, so nobody else is taken for it.
                if take(last).is_ok() {
                    return Ok(Locked { memory, lock: self });
                }
                continue;
            }
            // Only while nobody lets go.
            naps = if before.replace(heard) == Some(heard) { naps + 1 } else { 1 };
            if naps > NAPS {
                break;
            }
            self.bell.sleep(memory, heard, NAP);
        }
        Err(SharedTrouble::Held { pid: pid_of(last) })
    }
}

impl<M: Memory> Drop for Locked<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.memory.store(self.lock.holder, 0);
        self.lock.bell.ring(self.memory);
    }
}
