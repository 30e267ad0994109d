//! `pipes/`: the pipes that are open, by the identity of their entries, and what was counted of all.

use nexus_messages::FileId;

use super::{ALL, Entry, Provider};
use crate::kernel::Kernel;
use crate::pipes::LIST_MAX;

pub(super) struct Pipes;

/// What was counted.
const STATISTICS: &str = "statistics";

impl Provider for Pipes {
    fn name(&self) -> &'static str {
        "pipes"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => {
                let ids = kernel.pipes().list(LIST_MAX).into_iter().map(|pipe| pipe.id.to_string());
                Some(Entry::directory(ids.chain([ALL, STATISTICS].map(Into::into)).map(|name| (name, false))))
            }
            [ALL] => Some(Entry::json(&kernel.pipes().list(LIST_MAX))),
            [STATISTICS] => Some(Entry::json(&kernel.pipes().statistics())),
            [id] => kernel.pipes().entry(FileId(id.parse().ok()?)).map(|pipe| Entry::json(&pipe)),
            _ => None,
        }
    }
}
