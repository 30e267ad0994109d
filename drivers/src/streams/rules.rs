//! What a stream does with an append, whatever keeps its records. Pure.

use std::collections::VecDeque;

use nexus_kernel::hal::{
    Append, Appended, STREAM_OPS_KEPT, StreamError, StreamLimits, StreamState, WhenFull,
};
use nexus_messages::{OpId, Timestamp};
use serde::{Deserialize, Serialize};

/// An append as far as its stream's limits are about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    /// The offset behind its last record.
    pub(super) end: u64,
    /// What its records cost.
    pub(super) bytes: u64,
    /// Its time.
    pub(super) at: Timestamp,
}

/// An append with an identity, that was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Executed {
    pub(super) op: OpId,
    pub(super) first: u64,
    pub(super) count: u32,
}

impl Executed {
    /// What its repeat is told of a stream that ends at `tail`.
    pub(super) fn again(&self, tail: u64) -> Appended {
        Appended::new(self.first, u64::from(self.count), tail, true)
    }
}

/// The last appends with an identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ops(VecDeque<Executed>);

impl Ops {
    pub(super) fn find(&self, op: OpId) -> Option<&Executed> {
        // A repeat mostly comes soon.
        self.0.iter().rev().find(|executed| executed.op == op)
    }

    pub(super) fn push(&mut self, executed: Executed) {
        if self.0.len() >= STREAM_OPS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(executed);
    }

    #[cfg(all(feature = "local", unix))]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Executed> {
        self.0.iter()
    }
}

/// Checks an append, which costs `wanted`, against a stream in this state, and gives the state after it. `oldest` gives the append that
/// holds the record at an offset.
pub(super) fn admit(
    state: &StreamState,
    append: &Append,
    wanted: u64,
    oldest: impl FnMut(u64) -> Result<Option<Kept>, StreamError>,
) -> Result<StreamState, StreamError> {
    if state.closed {
        return Err(StreamError::Closed { tail: state.tail });
    }
    let most = state.limits.bytes_max.unwrap_or(u64::MAX);
    if wanted > most {
        return Err(StreamError::TooLarge { what: "bytes in an append to this stream", found: wanted, most });
    }
    let mut after = let_go(state, append.at, wanted, oldest)?;
    if after.bytes.saturating_add(wanted) > most {
        return Err(StreamError::Full { held: after.bytes, most, wanted });
    }
    after.bytes += wanted;
    after.tail += append.records.len() as u64;
    Ok(after)
}

/// The state of a stream of which at `now` is gone what its limits do not keep, when there is to be room for `wanted` bytes more.
pub(super) fn let_go(
    state: &StreamState,
    now: Timestamp,
    wanted: u64,
    mut oldest: impl FnMut(u64) -> Result<Option<Kept>, StreamError>,
) -> Result<StreamState, StreamError> {
    let StreamLimits { bytes_max, age_max, when_full, .. } = state.limits;
    let most = match when_full {
        WhenFull::DropOldest => bytes_max.unwrap_or(u64::MAX),
        WhenFull::Refuse => u64::MAX,
    };
    let mut after = *state;
    while after.head < after.tail {
        let is_full = after.bytes.saturating_add(wanted) > most;
        if !is_full && age_max.is_none() {
            break;
        }
        let Some(kept) = oldest(after.head)? else { break };
        let is_old = age_max.is_some_and(|age| kept.at.after(age) <= now);
        if !is_full && !is_old {
            break;
        }
        after.head = kept.end.min(after.tail);
        after.bytes = after.bytes.saturating_sub(kept.bytes);
    }
    if after.head == after.tail {
        after.bytes = 0;
    }
    Ok(after)
}

/// The state of a stream that was trimmed: without the appends that end at `before` or earlier.
pub(super) fn trim(
    state: &StreamState,
    before: u64,
    mut oldest: impl FnMut(u64) -> Result<Option<Kept>, StreamError>,
) -> Result<StreamState, StreamError> {
    let mut after = *state;
    while after.head < before.min(after.tail) {
        let Some(kept) = oldest(after.head)?.filter(|kept| kept.end <= before) else { break };
        after.head = kept.end;
        after.bytes = after.bytes.saturating_sub(kept.bytes);
    }
    if after.head == after.tail {
        after.bytes = 0;
    }
    Ok(after)
}
