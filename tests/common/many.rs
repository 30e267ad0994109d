//! More commits than a log keeps.

use nexus::hal::{Batch, Entry, Metastore, TreeId};
use nexus::{Op, OpId, Timestamp, VPath};
use nexus_drivers::memory::MemoryMetastore;

/// More than a log keeps.
pub(crate) const FORGOTTEN: u64 = 70_000;

/// How many are made at once.
const AT_ONCE: usize = 1_000;

/// Commits [`FORGOTTEN`] operations without a kernel; those of each round are others.
pub(crate) fn commit_many(store: &MemoryMetastore, round: u64) {
    let entry = |n: u64| Entry {
        tree: TreeId::ROOT,
        op_id: OpId((round * FORGOTTEN + n).into()),
        repeatable: false,
        caller: "writer".into(),
        op: Op::Write,
        path: VPath::parse("/x").expect("written as one"),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(0),
        preconditions: Vec::new(),
        changes: Vec::new(),
    };
    let next_file_id = store.next_file_id().expect("it knows");
    for first in (0..FORGOTTEN).step_by(AT_ONCE) {
        let entries = (first..FORGOTTEN).take(AT_ONCE).map(entry).collect();
        store.apply(&Batch { entries, next_file_id }).expect("there is room");
    }
}
