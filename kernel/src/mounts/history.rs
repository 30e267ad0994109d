//! From where on a mount keeps its history: written when it begins to, taken away when it ends.

use super::mount::Mount;
use super::options::{HistoryPolicy, MountOptions};
use crate::hal::{Change, StoreError};
use crate::namespace::{Rows, encode, horizon_key};
use nexus_messages::syscall::MountSpec;

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
