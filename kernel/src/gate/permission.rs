//! What a permission provider implements.

use std::fmt;

use futures_util::future::BoxFuture;
use nexus_messages::{Caller, FileMetadata, VPath, ZoneId};
use serde::{Deserialize, Serialize};

/// What a caller wants to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Right {
    /// See content or metadata.
    Read,
    /// Change content or attributes.
    Write,
    /// Make an entry here.
    Create,
    /// Remove the entry; also at the old path of a rename.
    Delete,
    /// See the names of the children.
    List,
    /// Manage: mounts, owners, services.
    Admin,
}

/// Decides who may do what. The kernel has at most one provider; without one everything is allowed.
pub trait Permission: Send + Sync + 'static {
    /// Whether `caller` may do this at `path`, which is resolved and routed. Asked unless the caller owns the entry.
    ///
    /// Runs on the caller's task and in listings for each entry: it must not block. What it does not know at hand it answers
    /// with [`Decision::Slow`]. A panic, here or in the future, denies.
    fn check(&self, caller: &Caller, right: Right, path: &VPath) -> Decision;
}

/// A provider's answer.
#[must_use = "a decision that is not looked at allows everything"]
pub enum Decision {
    /// Go on.
    Allow,
    /// Do not, for this reason.
    Deny(String),
    /// It takes a while.
    Slow(BoxFuture<'static, Result<(), String>>),
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("Allow"),
            Self::Deny(reason) => f.debug_tuple("Deny").field(reason).finish(),
            Self::Slow(_) => f.write_str("Slow"),
        }
    }
}

/// Who owns an entry: an agent of a zone. Agents of different zones may have the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The zone that the entry is in.
    pub zone: &'a ZoneId,
    /// The agent's name; empty when nobody owns the entry.
    pub agent: &'a str,
}

impl Owner<'_> {
    /// Whether it is this caller.
    #[inline]
    pub fn is(self, caller: &Caller) -> bool {
        !self.agent.is_empty() && *self.agent == *caller.agent && *self.zone == caller.zone
    }
}

impl<'a> From<&'a FileMetadata> for Owner<'a> {
    fn from(entry: &'a FileMetadata) -> Self {
        Self { zone: &entry.zone, agent: &entry.owner }
    }
}
