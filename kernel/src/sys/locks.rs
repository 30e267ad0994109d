//! `locks/`: the advisory locks, the paths that calls hold locked now, and what the tables counted.

use serde::Serialize;

use super::{Entry, Provider};
use crate::advisory::{self, AdvisoryLock};
use crate::kernel::Kernel;
use crate::locks::{HeldLock, LIST_MAX, LockStatistics};

pub(super) struct Locks;

#[derive(Serialize)]
struct Held {
    /// How many are held, those that are not listed too.
    held: usize,
    locks: Vec<HeldLock>,
}

#[derive(Serialize)]
struct Advisory {
    /// How many are held and waited for, those that are not listed too.
    held: usize,
    waiting: usize,
    locks: Vec<AdvisoryLock>,
}

#[derive(Serialize)]
struct Statistics {
    #[serde(flatten)]
    paths: LockStatistics,
    advisory: advisory::AdvisoryStatistics,
}

impl Provider for Locks {
    fn name(&self) -> &'static str {
        "locks"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => Some(Entry::directory(["advisory", "held", "statistics"].map(|name| (name, false)))),
            ["advisory"] => {
                let statistics = kernel.advisory().statistics();
                let locks = kernel.advisory().list(LIST_MAX);
                Some(Entry::json(&Advisory { held: statistics.held, waiting: statistics.waiting, locks }))
            }
            ["held"] => {
                let locks = kernel.locks().held(LIST_MAX, |_| true);
                Some(Entry::json(&Held { held: kernel.locks().statistics().held, locks }))
            }
            ["statistics"] => Some(Entry::json(&Statistics {
                paths: kernel.locks().statistics(),
                advisory: kernel.advisory().statistics(),
            })),
            _ => None,
        }
    }
}
