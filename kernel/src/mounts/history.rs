//! From where on a mount keeps its history: written when it begins to, taken away when it ends.

use std::collections::BTreeMap;

use nexus_messages::FileId;
use nexus_messages::syscall::MountSpec;

use super::attach::remembered;
use super::mount::Mount;
use super::options::{HistoryPolicy, MountOptions};
use crate::hal::{Change, StoreError};
use crate::kernel::Kernel;
use crate::namespace::{Kept, Rows, encode, horizon, horizon_key};

/// How many marks of one mount are read at once; there is one, or a few where one took the place of another.
const PAGE: usize = 64;

/// What `spec` says of the history of `mount`.
pub(super) fn policy(mount: &Mount, spec: &MountSpec) -> Option<HistoryPolicy> {
    let options = MountOptions::of(spec).unwrap_or_default();
    if mount.is_path_addressed() { None } else { options.history(mount.outlives_its_actor()) }
}

/// What makes the history of `mount` begin with the entry that these are changes of, if it is to and has not. Nothing may be changed on the mount
/// meanwhile by who does not keep what it supersedes.
pub(super) fn begin(
    rows: &Rows,
    mount: &Mount,
    policy: Option<HistoryPolicy>,
) -> Result<Option<Change>, StoreError> {
    let prefix = horizon_key(rows.tree, mount.root);
    let has_begun = !rows.reader.scan(&prefix, None, 1)?.is_empty();
    let begins = policy.is_some() && !has_begun;
    Ok(begins.then(|| Change::PutAtLsn { prefix, value: encode(&()) }))
}

/// What ends the history of `mount`, if it is to end and has not: what is superseded from here on may not be kept.
pub(super) fn end(
    rows: &Rows,
    mount: &Mount,
    policy: Option<HistoryPolicy>,
) -> Result<Vec<Change>, StoreError> {
    if policy.is_some() {
        return Ok(Vec::new());
    }
    let prefix = horizon_key(rows.tree, mount.root);
    let marks = rows.reader.scan(&prefix, None, PAGE)?;
    Ok(marks.into_iter().map(|(key, _)| Change::Delete(key)).collect())
}

/// How much of the history of each mount is kept, by their roots: of those that `rows` know of, attached or not. A mount that keeps none is not among
/// them.
pub(crate) fn kept_of(kernel: &Kernel, rows: &Rows) -> Result<BTreeMap<FileId, Kept>, StoreError> {
    let mut all = BTreeMap::new();
    for (root, row) in remembered(rows)?.into_iter().filter(|(_, row)| row.tree == rows.tree) {
        let volatile = kernel.catalogue().get(&row.spec.driver).is_some_and(|factory| factory.volatile());
        let Some(policy) = MountOptions::of(&row.spec).unwrap_or_default().history(volatile) else {
            continue;
        };
        if let Some(horizon) = horizon(&*rows.reader, rows.tree, root)? {
            all.insert(root, Kept { count: policy.count as usize, age: policy.age, horizon });
        }
    }
    Ok(all)
}
