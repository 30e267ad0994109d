//! Words that several processes see, and what else a process needs to share them: to sleep until one is changed, and to know who is dead.
//!
//! What stands on this is written over the trait, so that it runs on mapped memory, in models of loom, and in a process that dies after each of its steps.

use std::time::Duration;

/// Words of memory that others see and change at the same time, and may fill with anything. A word is found by its index; one beyond the end is an error of
/// the program, so indexes are made of what was checked, and never of what was read.
pub(super) trait Memory {
    /// What is at `at`, in the one order of all such loads, stores and exchanges.
    fn load(&self, at: usize) -> u64;

    /// Puts `value` there, in that order.
    fn store(&self, at: usize, value: u64);

    /// Puts `new` there if `old` is there, in that order; the error is what is there instead.
    fn exchange(&self, at: usize, old: u64, new: u64) -> Result<(), u64>;

    /// What is at `at`, in no order.
    fn peek(&self, at: usize) -> u64;

    /// Puts `value` there, in no order.
    fn poke(&self, at: usize, value: u64);

    /// No peek before it sees what is later than any load after it, and no poke after it is seen before any store before it.
    fn fence(&self);

    /// Who this process is: no two processes are the same, whether they run at the same time or not. Never 0.
    fn me(&self) -> u64;

    /// Whether the process that this is, or was, is gone, with all of its threads. Blocks: briefly, it asks the system.
    fn is_dead(&self, process: u64) -> bool;

    /// Sleeps until the word is woken, but for no longer than this, and not at all when its lower half is no longer `expected`. May return early.
    fn sleep(&self, at: usize, expected: u32, most: Duration);

    /// Wakes all who sleep at the word, in all processes.
    fn wake(&self, at: usize);

    /// Lets others go on, after so many looks in vain.
    fn pause(&self, looks: u32);

    /// Nothing, but in models: loom takes loads and stores in one order for weaker ones, and orders fences alone, as in `gate.rs`.
    #[inline]
    fn model_fence(&self) {}
}

/// Why nothing was done, but for there being nothing or no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SharedTrouble {
    /// A process that lives has kept others out for longer than any of its steps takes: it is stopped, or starved.
    #[error("the process {pid}, which does not go on, keeps others out")]
    Held {
        /// Its number, as it knows it itself.
        pid: u32,
    },
    /// Others change what is there faster than it can be read.
    #[error("other processes change it faster than it can be read")]
    Overtaken,
    /// What is there makes no sense: it was overwritten by something that does not keep to the layout.
    #[error("what is in the shared memory is damaged")]
    Damaged,
}

impl SharedTrouble {
    /// Whether it may be otherwise later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::Overtaken)
    }
}
