//! Who is told of a commit when it is on disk: in the order of the log, and not before.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use nexus_messages::Lsn;

use crate::hal::TreeId;

/// Tells the observers of one commit.
pub(crate) type Tell = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// What is to be told. As long as what is put off, at most: each has an entry that is not on disk, or was a moment ago.
#[derive(Default)]
pub(super) struct Untold {
    trees: BTreeMap<TreeId, BTreeMap<Lsn, Tell>>,
    /// Whether somebody is telling: one at a time, so that the order is kept.
    pub(super) telling: bool,
}

impl Untold {
    pub(super) fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    pub(super) fn add(&mut self, tree: TreeId, lsn: Lsn, tell: Tell) {
        self.trees.entry(tree).or_default().insert(lsn, tell);
    }

    /// Takes out the next one that is on disk.
    pub(super) fn next(&mut self, durable: impl Fn(TreeId) -> Lsn) -> Option<Tell> {
        let (&tree, waiting) = self.trees.iter_mut().find(|(tree, waiting)| {
            waiting.first_key_value().is_some_and(|(lsn, _)| *lsn <= durable(**tree))
        })?;
        let (_, tell) = waiting.pop_first()?;
        if waiting.is_empty() {
            self.trees.remove(&tree);
        }
        Some(tell)
    }
}
