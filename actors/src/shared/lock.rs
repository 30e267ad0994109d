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

/// How long it sleeps between two looks.
const NAP: Duration = Duration::from_millis(1);

/// How often it sleeps before it gives up.
const NAPS: u32 = if cfg!(nexus_loom) { 2 } else { 40 };

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
    /// Takes the lock. Blocks: for as long as others hold it, which is a copy of a message, and some tens of milliseconds at most.
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
        for looks in 0..LOOKS {
            if memory.load(self.holder) == 0 && take(0).is_ok() {
                return Ok(Locked { memory, lock: self });
            }
            memory.pause(looks);
        }
        let mut last = 0;
        for _ in 0..NAPS {
            let heard = self.bell.listen(memory);
            last = memory.load(self.holder);
            if last == 0 || memory.is_dead(last) {
                // Who it was is never there again, so nobody else is taken for it.
                if take(last).is_ok() {
                    return Ok(Locked { memory, lock: self });
                }
                continue;
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
