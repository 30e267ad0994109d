//! What a hook is shown and what it may answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::effect::Weighed;
use crate::error::{Error, ErrorKind, Result};
use crate::ident::{Caller, Lsn, OpId, ZoneId};
use crate::path::VPath;
use crate::syscall::Syscall;

/// A call on its way through the interceptors.
///
/// A hook that runs before the call may change `call`, also its paths; a rewritten path is resolved, routed and checked
/// once more, after the hooks. What else it changes is ignored. Hooks that run after it see the outcome and cannot change it.
///
/// Of a write whose content comes as a stream the hooks hear when all of it has come, and is safe, and before anything is changed. They see `stream` in the place of
/// its bytes; they may refuse it and send it to another path of the same mount, and the call fails when they give it bytes.
///
/// A transaction is no call of its own here: hooks see each of its operations as the syscall that it is, one after the other and all with the same `op_id`. Refusing one refuses
/// all, and the outcome of each is that of the whole. Who weighs is asked once, with the first operation that it wants, about all of them together; observers hear
/// of each operation, with the same LSN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HookContext {
    /// Who makes the call.
    pub caller: Arc<Caller>,
    /// The operation's identity; none for calls that change nothing.
    pub op_id: Option<OpId>,
    /// The call, with its arguments.
    pub call: Syscall,
    /// Where the call's paths led when it was admitted, with links followed as the call follows them; none for a call that was refused before,
    /// and for one that has nowhere to lead, such as a mount.
    pub resolved: Option<Resolved>,
    /// How many bytes came as a stream for a write, which has none of its own then; none for every other call.
    pub stream: Option<u64>,
}

/// Where the paths of a call lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The call's path; the source, where there are two.
    pub path: VPath,
    /// The zone in whose namespace that is: where a zone mounts nothing of its own, its callers see the root zone.
    pub zone: ZoneId,
    /// The second path of rename and copy.
    pub other: Option<VPath>,
    /// The zone of that one.
    pub other_zone: Option<ZoneId>,
}

impl HookContext {
    /// The context of `call`, made by `caller`.
    pub fn new(caller: Arc<Caller>, op_id: Option<OpId>, call: Syscall) -> Self {
        Self { caller, op_id, call, resolved: None, stream: None }
    }

    /// The same, of a write for which so many bytes came as a stream.
    #[must_use]
    pub fn streamed(mut self, bytes: Option<u64>) -> Self {
        self.stream = bytes;
        self
    }
}

/// What a hook that runs before the call decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Verdict {
    /// Go on, with the context as the hook left it.
    Continue,
    /// Do not execute the call; the caller sees the reason.
    Refuse {
        /// The kind of error that the caller sees: [`ErrorKind::Refused`] unless the hook says otherwise.
        kind: ErrorKind,
        /// Why, in words for the caller.
        reason: String,
    },
}

impl Verdict {
    /// Refuses the call for `reason`.
    pub fn refuse(reason: impl Into<String>) -> Self {
        Self::refuse_as(ErrorKind::Refused, reason)
    }

    /// Refuses the call for `reason`, with an error of this kind.
    pub fn refuse_as(kind: ErrorKind, reason: impl Into<String>) -> Self {
        Self::Refuse { kind, reason: reason.into() }
    }
}

/// What came of the call, as hooks that run after it see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The error, when the call failed.
    pub error: Option<Error>,
    /// What the hook that is told has let pass when it weighed the call; for hooks that weigh.
    pub weighed: Option<Weighed>,
    /// Where it was committed, of a call that changed something: in the log of this zone, at this place.
    pub committed: Option<(ZoneId, Lsn)>,
}

impl Outcome {
    /// The outcome of a call that gave `result`.
    pub fn of<T>(result: &Result<T>) -> Self {
        Self { error: result.as_ref().err().cloned(), weighed: None, committed: None }
    }

    /// The same, of a call that was committed there.
    #[must_use]
    pub fn committed(mut self, at: Option<(ZoneId, Lsn)>) -> Self {
        self.committed = at;
        self
    }

    /// The same, as the hook is told it that let this pass when it weighed the call.
    #[must_use]
    pub fn with(mut self, weighed: Weighed) -> Self {
        self.weighed = Some(weighed);
        self
    }

    /// Whether the call did what was asked.
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }
}

/// What a mount hook is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MountContext {
    /// Where.
    pub point: VPath,
    /// The driver's name in the catalogue.
    pub driver: String,
    /// Who asked for it; none at boot.
    pub caller: Option<Arc<Caller>>,
}

impl MountContext {
    /// The mount of `driver` at `point`.
    pub fn new(point: VPath, driver: impl Into<String>, caller: Option<Arc<Caller>>) -> Self {
        Self { point, driver: driver.into(), caller }
    }
}
