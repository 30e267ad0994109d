//! What a caller expected to find, and what was there instead.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::content::ContentId;
use crate::ident::FileId;
use crate::syscall::Precondition;

/// A precondition that did not hold: what [`Error::conflict`](crate::Error::conflict) gives of an error of the kind
/// [`PreconditionFailed`](crate::ErrorKind::PreconditionFailed). The error itself says at which path, and at which item of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Conflict {
    /// What the caller expected.
    pub expected: Precondition,
    /// What was there.
    pub found: Found,
}

/// What was there, as far as preconditions look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Found {
    /// No entry.
    Nothing,
    /// An entry in this state.
    Entry {
        /// Its identity.
        file_id: FileId,
        /// Its content's version.
        version: u64,
        /// How often its content was changed.
        generation: u64,
        /// Its content; none for an entry that has none.
        content_id: Option<ContentId>,
    },
}

impl Conflict {
    /// `found` is not what was `expected`.
    pub fn new(expected: Precondition, found: Found) -> Self {
        Self { expected, found }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found ", self.expected)?;
        match (&self.found, &self.expected) {
            (Found::Nothing, _) => f.write_str("nothing"),
            (Found::Entry { generation, .. }, Precondition::Generation(_)) => {
                write!(f, "generation {generation}")
            }
            (Found::Entry { content_id: Some(id), .. }, Precondition::Content(_)) => {
                write!(f, "content {id}")
            }
            (Found::Entry { content_id: None, .. }, Precondition::Content(_)) => f.write_str("no content"),
            (Found::Entry { file_id, version, .. }, Precondition::Unchanged { .. }) => {
                write!(f, "version {version} of entry {file_id}")
            }
            (Found::Entry { version, .. }, _) => write!(f, "version {version}"),
        }
    }
}
