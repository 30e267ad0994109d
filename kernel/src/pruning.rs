//! Lets history go that no policy keeps: a few rows now and then, paced by the rows that come.
//!
//! One step looks at `PAGE` rows for every `EVERY` that are added to the history of a tree, and commits what goes as one entry; after a walk that found
//! little to go, for every `IDLE_EVERY`. So while a walk goes through a history of N rows, N / `PAGE` × `EVERY` are added at most, and the history is
//! longer than its policies by about that share: an eighth. Where little is to go, N / `PAGE` × `IDLE_EVERY` are, of which little is to go. Nothing runs where
//! nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::{Caller, FileId, Op, Timestamp, VPath};
use parking_lot::Mutex;

use crate::hal::{Change, Entry, Precondition, StoreError, TreeId};
use crate::kernel::Kernel;
use crate::mounts::{HISTORY_COUNT_MAX, kept_of};
use crate::namespace::{Kept, Sweep, encode, history_key, horizon_key};
use crate::store::CommitError;

/// A step is made for so many rows that are added.
const EVERY: usize = 256;

/// As long as there is little to go, a step is made for so many.
const IDLE_EVERY: usize = 4_096;

/// How many rows are remembered for which no step was made yet: one commit may add more than a step is for.
const OWED_MAX: usize = 16 * IDLE_EVERY;

/// There is little to go when it is less than one of so many rows that were looked at.
const IDLE_SHARE: usize = 16;

/// How many rows one step looks at.
const PAGE: usize = 2_048;

// What is kept of one row must fit into a page, with as much again that goes.
const _: () = assert!(HISTORY_COUNT_MAX as usize * 2 < PAGE);

/// Where the walks through the histories are.
#[derive(Debug, Default)]
pub(crate) struct Pruning(Mutex<BTreeMap<TreeId, Walk>>);

#[derive(Debug, Default)]
struct Walk {
    /// How many rows were added since the last step.
    added: usize,
    /// None while a step is made.
    sweep: Option<Sweep>,
    begun: bool,
    /// How the walk before this one went, and how this one does.
    pace: Pace,
}

/// How much of what was looked at went.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Whether little went in the walk before.
    idles: bool,
    looked: usize,
    went: usize,
}

impl Pace {
    /// For how many rows the next step is made. What goes is noticed at once, what does not when the walk has ended.
    fn every(self) -> usize {
        if self.idles && self.is_idle() { IDLE_EVERY } else { EVERY }
    }

    fn is_idle(self) -> bool {
        self.went * IDLE_SHARE <= self.looked
    }

    /// After a step that looked at so many rows, of which so many went; it may have been the last one of its walk.
    fn after(self, looked: usize, went: usize, ended: bool) -> Self {
        let all = Self { looked: self.looked + looked, went: self.went + went, ..self };
        if ended { Self { idles: all.is_idle(), ..Self::default() } } else { all }
    }
}

impl Pruning {
    /// Says that a commit has added so many rows; gives the walk when it is time for a step.
    fn added(&self, tree: TreeId, rows: usize) -> Option<(Sweep, Pace)> {
        let mut walks = self.0.lock();
        let walk = walks.entry(tree).or_default();
        walk.added = (walk.added + rows).min(OWED_MAX);
        let every = walk.pace.every();
        if walk.added < every {
            return None;
        }
        let sweep = match walk.begun {
            true => walk.sweep.take()?,
            false => Sweep::default(),
        };
        (walk.added, walk.begun) = (walk.added - every, true);
        Some((sweep, walk.pace))
    }

    fn give_back(&self, tree: TreeId, sweep: Sweep, pace: Pace) {
        if let Some(walk) = self.0.lock().get_mut(&tree) {
            (walk.sweep, walk.pace) = (Some(sweep), pace);
        }
    }
}

/// A walk that is given back whatever becomes of the step; from the beginning when the step breaks.
struct Step {
    kernel: Arc<Kernel>,
    tree: TreeId,
    sweep: Sweep,
    pace: Pace,
}

impl Step {
    fn goes_on(&mut self, Looked { sweep, rows, went }: Looked, pace: Pace) {
        self.pace = pace.after(rows, went, sweep.after.is_none());
        self.sweep = sweep;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.kernel.pruning().give_back(self.tree, std::mem::take(&mut self.sweep), self.pace);
    }
}

/// How many rows these changes add to a history.
pub(crate) fn added_by(changes: &[Change]) -> usize {
    let of = |change: &Change| match change {
        Change::PutAtLsn { .. } => 1,
        Change::DeleteIfVacant { kept, .. } => kept.len(),
        _ => 0,
    };
    changes.iter().map(of).sum()
}

/// Says that a commit has added so many rows to the history of `tree`.
pub(crate) fn added(kernel: &Arc<Kernel>, tree: TreeId, rows: usize) {
    if let Some((sweep, pace)) = kernel.pruning().added(tree, rows) {
        let mut step = Step { kernel: kernel.clone(), tree, sweep: Sweep::default(), pace: Pace::default() };
        kernel.env().spawn("history.prune", async move {
            match prune(&step.kernel, tree, sweep).await {
                Ok(looked) => step.goes_on(looked, pace),
                Err(why) => tracing::warn!(tree = tree.0, %why, "history is not pruned for now"),
            }
        });
    }
}

/// A step that was made.
struct Looked {
    /// Where the walk goes on.
    sweep: Sweep,
    /// How many rows it looked at, and how many of them went.
    rows: usize,
    went: usize,
}

/// Looks at the next rows, and lets go of what is not to be kept.
async fn prune(kernel: &Arc<Kernel>, tree: TreeId, mut sweep: Sweep) -> Result<Looked, String> {
    let told = |error: StoreError| error.to_string();
    let now = Timestamp(kernel.env().wall());
    let (kept, looked, changes, preconditions) = {
        let rows = kernel.store().rows(tree).map_err(told)?;
        let kept: BTreeMap<FileId, Kept> = kept_of(kernel, &rows).map_err(told)?;
        let page = rows.reader.scan(&history_key(tree), sweep.after.as_ref(), PAGE).map_err(told)?;
        let (looked, more) = (page.len(), page.len() == PAGE);
        let mut changes = sweep.prune(page, more, &kept, now).map_err(told)?;
        let mut preconditions = Vec::new();
        if !more {
            for (mount, key, from) in sweep.horizons(tree, &kept) {
                // Unless the history has ended meanwhile, and begun anew.
                preconditions.push(Precondition::Present(horizon_key(tree, mount).at(from)));
                changes.push(Change::Put(key, encode(&())));
            }
        }
        (kept, looked, changes, preconditions)
    };
    let went = changes.len();
    let made = Looked { sweep, rows: looked, went };
    if went == 0 {
        return Ok(made);
    }
    tracing::debug!(tree = tree.0, mounts = kept.len(), changes = went, "history goes");
    let entry = Entry {
        tree,
        op_id: kernel.new_op_id(),
        repeatable: false,
        caller: Caller::KERNEL.into(),
        op: Op::Versions,
        path: VPath::root(),
        other: None,
        items: Vec::new(),
        told: None,
        at: now,
        preconditions,
        changes,
    };
    match kernel.store().commit(entry, Box::new(|_| ())).await {
        // Refused: looked at again with the next walk.
        Ok(_) | Err(CommitError::Refused) => Ok(made),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::hal::{RowKey, Table};

    /// How many rows are added until the next step is made.
    fn until_a_step(pruning: &Pruning) -> (usize, Sweep, Pace) {
        (1..=OWED_MAX)
            .find_map(|rows| pruning.added(TreeId::ROOT, 1).map(|(sweep, pace)| (rows, sweep, pace)))
            .expect("a step is made some time")
    }

    #[test]
    fn steps_are_rare_while_there_is_little_to_go_and_frequent_at_once_when_there_is() {
        let pruning = Pruning::default();
        let step = |looked: usize, went: usize, ended: bool| {
            let (rows, sweep, pace) = until_a_step(&pruning);
            pruning.give_back(TreeId::ROOT, sweep, pace.after(looked, went, ended));
            rows
        };
        assert_eq!(step(PAGE, 0, false), EVERY, "nothing is known");
        assert_eq!(step(9, 0, true), EVERY, "the first walk goes on");
        assert_eq!(step(PAGE, PAGE / IDLE_SHARE, false), IDLE_EVERY, "little went");
        assert_eq!(step(PAGE, PAGE / IDLE_SHARE, false), IDLE_EVERY, "little goes");
        assert_eq!(step(PAGE, PAGE / IDLE_SHARE + 1, false), IDLE_EVERY);
        assert_eq!(step(9, 0, true), EVERY, "more goes");
        assert_eq!(step(PAGE, 0, true), EVERY, "more went");
        assert_eq!(step(PAGE, 0, true), IDLE_EVERY, "and now there is little");
    }

    #[test]
    fn what_one_commit_adds_is_looked_at_by_as_many_steps() {
        let pruning = Pruning::default();
        let (sweep, pace) = pruning.added(TreeId::ROOT, 3 * EVERY).expect("it is time");
        assert!(pruning.added(TreeId::ROOT, EVERY).is_none(), "a step is being made");
        pruning.give_back(TreeId::ROOT, sweep, pace);
        for _ in 0..3 {
            let (sweep, pace) = pruning.added(TreeId::ROOT, 0).expect("more steps are owed");
            pruning.give_back(TreeId::ROOT, sweep, pace);
        }
        assert!(pruning.added(TreeId::ROOT, EVERY - 1).is_none());
    }

    #[test]
    fn what_changes_add_to_a_history_is_counted() {
        let row = || (RowKey::new(Table::History, [1]), Bytes::new());
        let (prefix, value) = row();
        let changes = [
            Change::Put(prefix.clone(), value.clone()),
            Change::PutAtLsn { prefix: prefix.clone(), value },
            Change::DeleteIfVacant { prefix, rows: Vec::new(), kept: vec![row(), row()] },
        ];
        assert_eq!(added_by(&changes), 3);
    }
}
