//! Lets history go that no policy keeps: a few rows now and then, paced by the commits that bring new ones.
//!
//! One step looks at `PAGE` rows after every `EVERY` commits of a tree, and commits what goes as one entry. So a walk through a history of N rows
//! takes N / `PAGE` × `EVERY` commits, and the history is longer than its policies by about that share at most. Nothing runs where nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::{Caller, FileId, Op, Timestamp, VPath};
use parking_lot::Mutex;

use crate::hal::{Change, Entry, Precondition, StoreError, TreeId};
use crate::kernel::Kernel;
use crate::mounts::{HISTORY_COUNT_MAX, kept_of};
use crate::namespace::{Kept, Sweep, encode, history_key, horizon_key};
use crate::store::CommitError;

/// A step is made after so many commits.
const EVERY: u32 = 256;

/// How many rows one step looks at.
const PAGE: usize = 2_048;

// What is kept of one row must fit into a page, with as much again that goes.
const _: () = assert!(HISTORY_COUNT_MAX as usize * 2 < PAGE);

/// Where the walks through the histories are.
#[derive(Debug, Default)]
pub(crate) struct Pruning(Mutex<BTreeMap<TreeId, Walk>>);

#[derive(Debug, Default)]
struct Walk {
    commits: u32,
    /// None while a step is made.
    sweep: Option<Sweep>,
    begun: bool,
}

impl Pruning {
    /// Says that a commit has superseded something; gives the walk when it is time for a step.
    fn committed(&self, tree: TreeId) -> Option<Sweep> {
        let mut walks = self.0.lock();
        let walk = walks.entry(tree).or_default();
        walk.commits += 1;
        if walk.commits < EVERY {
            return None;
        }
        walk.commits = 0;
        if !walk.begun {
            walk.begun = true;
            return Some(Sweep::default());
        }
        walk.sweep.take()
    }

    fn give_back(&self, tree: TreeId, sweep: Sweep) {
        if let Some(walk) = self.0.lock().get_mut(&tree) {
            walk.sweep = Some(sweep);
        }
    }
}

/// A walk that is given back whatever becomes of the step; from the beginning when the step breaks.
struct Step {
    kernel: Arc<Kernel>,
    tree: TreeId,
    sweep: Sweep,
}

impl Step {
    fn goes_on(&mut self, sweep: Sweep) {
        self.sweep = sweep;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.kernel.pruning().give_back(self.tree, std::mem::take(&mut self.sweep));
    }
}

/// Says that a commit of `tree` has superseded something.
pub(crate) fn committed(kernel: &Arc<Kernel>, tree: TreeId) {
    if let Some(sweep) = kernel.pruning().committed(tree) {
        let mut step = Step { kernel: kernel.clone(), tree, sweep: Sweep::default() };
        kernel.env().spawn("history.prune", async move {
            match prune(&step.kernel, tree, sweep).await {
                Ok(sweep) => step.goes_on(sweep),
                Err(why) => tracing::warn!(tree = tree.0, %why, "history is not pruned for now"),
            }
        });
    }
}

/// Looks at the next rows, and lets go of what is not to be kept.
async fn prune(kernel: &Arc<Kernel>, tree: TreeId, mut sweep: Sweep) -> Result<Sweep, String> {
    let told = |error: StoreError| error.to_string();
    let now = Timestamp(kernel.env().wall());
    let (kept, mut changes, preconditions) = {
        let rows = kernel.store().rows(tree).map_err(told)?;
        let kept: BTreeMap<FileId, Kept> = kept_of(kernel, &rows).map_err(told)?;
        let page = rows.reader.scan(&history_key(tree), sweep.after.as_ref(), PAGE).map_err(told)?;
        let more = page.len() == PAGE;
        let mut changes = sweep.prune(page, more, &kept, now).map_err(told)?;
        let mut preconditions = Vec::new();
        if !more {
            for (mount, key, from) in sweep.horizons(tree, &kept) {
                // Unless the history has ended meanwhile, and begun anew.
                preconditions.push(Precondition::Present(horizon_key(tree, mount).at(from)));
                changes.push(Change::Put(key, encode(&())));
            }
        }
        (kept, changes, preconditions)
    };
    if changes.is_empty() {
        return Ok(sweep);
    }
    tracing::debug!(tree = tree.0, mounts = kept.len(), changes = changes.len(), "history goes");
    let entry = Entry {
        tree,
        op_id: kernel.new_op_id(),
        repeatable: false,
        caller: Caller::KERNEL.into(),
        op: Op::Versions,
        path: VPath::root(),
        other: None,
        items: Vec::new(),
        at: now,
        preconditions,
        changes: std::mem::take(&mut changes),
    };
    match kernel.store().commit(entry, Box::new(|_| ())).await {
        // Refused: looked at again with the next walk.
        Ok(_) | Err(CommitError::Refused) => Ok(sweep),
        Err(error) => Err(error.to_string()),
    }
}
