//! Removing all that a directory of a path-addressed mount holds.

use nexus_messages::EntryType;

use super::Stop;
use crate::hal::{PathStore, StoreError};

/// How many children are looked at in one step.
const PAGE: usize = 1_024;

/// Something was removed before this happened.
pub(super) fn part_of(removed: u64, stop: Stop) -> Stop {
    match stop {
        Stop::Failed(error) if removed > 0 => Stop::Failed(error.outcome_unknown()),
        stop => stop,
    }
}

/// Removes all below the directory `root`, deepest first, and counts how many objects they were.
///
/// # Errors
/// The first failure; what is removed until then is counted.
pub(super) async fn remove_below(
    store: &dyn PathStore,
    root: &str,
    removed: &mut u64,
) -> Result<(), StoreError> {
    // Pages of the same length: each takes one call then.
    let at_once = usize::from(store.capabilities().deletes_at_once).clamp(1, PAGE);
    let page_max = if at_once > 1 { at_once } else { PAGE };
    // A directory is left on the stack until it is empty: what is removed is gone from its next listing.
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.last().cloned() {
        let page = gone_with_its_children(store, store.list(&directory, None, page_max).await)?;
        let (more, before) = (page.more, directories.len());
        let mut files = Vec::new();
        for (name, info) in page.entries {
            let path = format!("{directory}/{name}");
            if info.entry_type == EntryType::Dir { directories.push(path) } else { files.push(path) }
        }
        if at_once > 1 {
            for some in files.chunks(at_once) {
                remove_all(store, some, removed).await?;
            }
        } else {
            for path in &files {
                store.delete(path).await?;
                *removed += 1;
            }
        }
        if directories.len() == before && !more {
            directories.pop();
            if directory != root {
                gone_with_its_children(store, store.delete(&directory).await)?;
                *removed += 1;
            }
        }
    }
    Ok(())
}

/// Removes files in one call, and counts those that are gone, also beside one that is not.
async fn remove_all(store: &dyn PathStore, paths: &[String], removed: &mut u64) -> Result<(), StoreError> {
    let mut failed = Ok(());
    for deleted in store.delete_many(paths).await? {
        match deleted {
            Ok(()) => *removed += 1,
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed
}

/// Where directories are only implied, one that was emptied is not there any more: that is no error.
pub(super) fn gone_with_its_children<T: Default>(
    store: &dyn PathStore,
    done: Result<T, StoreError>,
) -> Result<T, StoreError> {
    match done {
        Err(StoreError::NotFound { .. }) if !store.capabilities().directories => Ok(T::default()),
        done => done,
    }
}
