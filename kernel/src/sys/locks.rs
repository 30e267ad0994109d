//! `locks/`: the paths that calls hold locked now, and what the lock table counted.

use serde::Serialize;

use super::{Entry, Provider};
use crate::kernel::Kernel;
use crate::locks::{HeldLock, LIST_MAX};

pub(super) struct Locks;

#[derive(Serialize)]
struct Held {
    /// How many are held, those that are not listed too.
    held: usize,
    locks: Vec<HeldLock>,
}

impl Provider for Locks {
    fn name(&self) -> &'static str {
        "locks"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => Some(Entry::directory(["held", "statistics"].map(|name| (name, false)))),
            ["held"] => {
                let locks = kernel.locks().held(LIST_MAX, |_| true);
                Some(Entry::json(&Held { held: kernel.locks().statistics().held, locks }))
            }
            ["statistics"] => Some(Entry::json(&kernel.locks().statistics())),
            _ => None,
        }
    }
}
