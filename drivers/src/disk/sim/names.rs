//! The names of a simulated folder: those on disk, and those that are seen.

use std::collections::BTreeMap;

use super::content::Kept;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Folder(u64),
}

/// What was done to the names and not flushed.
#[derive(Debug, Clone)]
pub(super) enum PendingName {
    Made { name: String, node: Node },
    // The file itself, not its name: where it lay may be forgotten while where it went to is kept.
    Moved { from: String, to: String, node: Node },
    Removed { name: String },
}

/// A folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub(super) seen: BTreeMap<String, Node>,
    pub(super) durable: BTreeMap<String, Node>,
    pub(super) pending: Vec<PendingName>,
}

impl Names {
    pub(super) fn change(&mut self, change: PendingName) {
        apply(&mut self.seen, &change);
        self.pending.push(change);
    }

    /// Brings to the disk what `keep` says, in order. A change is never torn.
    pub(super) fn settle(&mut self, mut keep: impl FnMut(&PendingName) -> Kept) {
        for change in std::mem::take(&mut self.pending) {
            if keep(&change) != Kept::Nothing {
                apply(&mut self.durable, &change);
            }
        }
    }
}

fn apply(names: &mut BTreeMap<String, Node>, change: &PendingName) {
    match change {
        PendingName::Made { name, node } => {
            names.insert(name.clone(), *node);
        }
        PendingName::Moved { from, to, node } => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
        PendingName::Removed { name } => {
            names.remove(name);
        }
    }
}
