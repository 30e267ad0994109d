//! What a change does to what files hold: for those that count.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ident::{Lsn, ZoneId};
use crate::path::VPath;

/// What a change does, or all of a transaction together: known exactly under the locks of its paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The zone in whose namespace the paths are.
    pub zone: ZoneId,
    /// What was held and no longer is.
    pub before: Vec<Holding>,
    /// What is held instead.
    pub after: Vec<Holding>,
    /// The directories that move with all below them, which is not among the holdings: from where, and to where.
    pub moved: Vec<(VPath, VPath)>,
    /// The directories that are removed with all below them. What was held there is among the holdings, one for each owner, at the directory's path.
    pub cleared: Vec<VPath>,
}

impl Default for Effect {
    /// Nothing, in the root zone.
    fn default() -> Self {
        Self::within(ZoneId::root())
    }
}

impl Effect {
    /// Nothing, in this zone.
    pub fn within(zone: ZoneId) -> Self {
        Self { zone, before: Vec::new(), after: Vec::new(), moved: Vec::new(), cleared: Vec::new() }
    }

    /// Adds what another change does, after this one and in the same zone.
    pub fn add(&mut self, later: Self) {
        self.before.extend(later.before);
        self.after.extend(later.after);
        self.moved.extend(later.moved);
        self.cleared.extend(later.cleared);
    }
}

/// What an entry holds, or several of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Where.
    pub path: VPath,
    /// Whose.
    pub owner: Arc<str>,
    /// How many entries that are no directories.
    pub files: u64,
    /// The lengths of regular files.
    pub bytes: u64,
}

/// An effect that a hook let pass, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weighed {
    /// The effect.
    pub effect: Arc<Effect>,
    /// Where it was committed; none when it was not, or when that is not known.
    pub lsn: Option<Lsn>,
}
