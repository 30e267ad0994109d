//! What is pending of one store: when it goes, how its attempts went, and what of it the store refuses.
//!
//! A store *refuses* a file when it is well, and says no to this one: nobody may write that key, it is too long, a file is where its folder would be. Such a file is tried
//! again as any other, since somebody may allow it yet. But nobody waits for it: who would have to is told what the store said. A new state of it, and its
//! deletion, put an end to it.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{PendingFile, Precondition, StoreError};
use nexus_messages::{Attributes, ContentId, Timestamp};

use super::rows::file_key;
use super::table::{Table, below};

/// How many files are told one by one that do not get to their store.
const TOLD_MAX: usize = 8;

/// How much is kept of what a store said, in characters.
const SAID_MAX: usize = 200;

/// What the store has yet to be told of a file.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) attributes: Attributes,
    pub(super) failures: u32,
    pub(super) due: (u64, u64),
    /// When the store was last known to have room for it at its path, by this process.
    pub(super) looked: Option<u64>,
    /// Since when the store lacks what is here, in nanoseconds of the wall's clock.
    pub(super) since: u64,
    /// What the last attempt said.
    pub(super) failure: Option<Failure>,
}

/// Why a file is not at its store.
#[derive(Debug)]
pub(super) struct Failure {
    said: String,
    /// Of what kind that was, when the store refuses it.
    refused: Option<io::ErrorKind>,
}

impl Failure {
    pub(super) fn of(error: &StoreError) -> Self {
        let said = error.to_string().chars().take(SAID_MAX).collect();
        Self { said, refused: refusal(error) }
    }
}

/// Of what kind the refusal of a store is that is well, and will say the same again; none of what time may mend.
pub(super) fn refusal(error: &StoreError) -> Option<io::ErrorKind> {
    match error {
        StoreError::Full
        | StoreError::ReadOnly { .. }
        | StoreError::Moved { .. }
        | StoreError::Locked { .. }
        | StoreError::Unavailable { .. }
        // What is damaged lies here: the store was not asked.
        | StoreError::Corrupt { .. } => None,
        error if error.is_backend_failure() || error.is_unknown() => None,
        StoreError::Io { source, .. } => match source.kind() {
            io::ErrorKind::ResourceBusy | io::ErrorKind::ExecutableFileBusy => None,
            kind => Some(kind),
        },
        _ => Some(io::ErrorKind::InvalidInput),
    }
}

impl Table {
    /// Has what could not be brought to the store wait until `at`, which depends on how often that was, unless it is another state by now.
    pub(super) fn put_off(
        &mut self,
        path: &str,
        tag: &ContentId,
        failure: Failure,
        at: impl FnOnce(u32) -> u64,
    ) -> u32 {
        self.number += 1;
        let number = self.number;
        let Some(file) = self.files.get_mut(path).filter(|file| file.info.tag == *tag) else { return 0 };
        let Some(pending) = &mut file.pending else { return 0 };
        pending.failures += 1;
        self.due.remove(&pending.due);
        pending.due = (at(pending.failures), number);
        self.due.insert(pending.due, path.to_owned());
        match failure.refused {
            Some(_) => self.refused.insert(path.to_owned()),
            None => self.refused.remove(path),
        };
        pending.failure = Some(failure);
        pending.failures
    }

    /// What is pending at `path` and below, and was refused, is to go to the store now: nobody is told of that refusal any more.
    pub(super) fn try_again(&mut self, path: &str) {
        let prefix = below(path);
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let within = self.refused.range::<str, _>(from).take_while(|path| path.starts_with(&prefix));
        let within: Vec<String> = within.cloned().chain(self.refused.get(path).cloned()).collect();
        for path in within {
            self.refused.remove(&path);
            self.number += 1;
            let number = self.number;
            let Some(pending) = self.files.get_mut(&path).and_then(|file| file.pending.as_mut()) else {
                continue;
            };
            self.due.remove(&pending.due);
            pending.due = (0, number);
            self.due.insert(pending.due, path);
        }
    }

    /// Why what is pending at `path` or below does not get to the store, if that refuses something of it.
    pub(super) fn refused_within(&self, path: &str) -> Option<StoreError> {
        let prefix = below(path);
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let mut within = self.refused.range::<str, _>(from).take_while(|path| path.starts_with(&prefix));
        let first = self.refused.get(path).or_else(|| within.next())?;
        let failure = self.files.get(first)?.pending.as_ref()?.failure.as_ref()?;
        let kind = failure.refused.unwrap_or(io::ErrorKind::InvalidInput);
        let what = format!(
            "{first} was written back, and the store refuses it; a new state or its deletion ends that"
        );
        Some(StoreError::Io { what, source: Arc::new(io::Error::new(kind, failure.said.clone())) })
    }

    /// The row of what is pending at `path`, if that is the state `tag` and the store does not refuse it.
    pub(super) fn pending_as(&self, path: &str, tag: &ContentId) -> Option<Bytes> {
        let is_it = self.files.get(path).is_some_and(|file| file.info.tag == *tag);
        if is_it && !self.is_refused(path) { self.pending_row(path) } else { None }
    }

    /// That `path` has this row still.
    pub(super) fn still(&self, path: &str, row: Bytes) -> Precondition {
        Precondition::Equals(file_key(&self.id(), path), row)
    }

    /// Whether the last attempt to bring what is pending at `path` to the store was refused.
    pub(super) fn is_refused(&self, path: &str) -> bool {
        let pending = self.files.get(path).and_then(|file| file.pending.as_ref());
        pending.and_then(|pending| pending.failure.as_ref()).is_some_and(|failure| failure.refused.is_some())
    }

    /// How many files the store refuses.
    pub(super) fn refused_files(&self) -> usize {
        self.refused.len()
    }

    /// Since when the store lacks what is pending at `path`.
    pub(super) fn pending_since(&self, path: &str) -> Option<u64> {
        Some(self.files.get(path)?.pending.as_ref()?.since)
    }

    /// Some of the files whose last attempt failed: those that the store refuses first, and of these those that have waited longest.
    pub(super) fn stuck(&self) -> Vec<PendingFile> {
        let failed = self.pending.iter().filter_map(|path| {
            let pending = self.files.get(path)?.pending.as_ref()?;
            Some((path, pending, pending.failure.as_ref()?))
        });
        let mut failed: Vec<_> = failed.collect();
        failed.sort_by_key(|(path, pending, failure)| (failure.refused.is_none(), pending.since, *path));
        let told = failed.into_iter().take(TOLD_MAX).map(|(path, pending, failure)| {
            let mut told = PendingFile::new(path.clone(), Timestamp(pending.since));
            (told.attempts, told.refused) = (u64::from(pending.failures), failure.refused.is_some());
            told.error.clone_from(&failure.said);
            told
        });
        told.collect()
    }
}
