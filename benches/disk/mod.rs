//! What benchmarks say of the disk that they run on.

use std::path::Path;

/// The type of the file system that `folder` is on, as Linux names it: in memory, fsync is free and the figures mean nothing.
pub(crate) fn file_system(folder: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let folder = folder.canonicalize().ok()?;
    let parts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let serving = parts.filter(|parts| parts.len() > 2 && folder.starts_with(parts[1]));
    serving.max_by_key(|parts| parts[1].len()).map(|parts| parts[2].to_owned())
}
