//! Which streams keep records for a time only, and when the oldest of each is too old: so that this goes by itself, also from streams that nobody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_messages::syscall::IoProfile;
use nexus_messages::{FileId, Timestamp};
use parking_lot::Mutex;

use super::stream::OLDEST_ATTEMPTS_MAX;
use super::table::StreamTable;
use crate::hal::{ReadBounds, StreamError};
use crate::kernel::Kernel;

/// How often records that are too old are let go of, at most: what comes due meanwhile goes together.
const AGE_EVERY: Duration = Duration::from_secs(1);

/// When a stream is looked at again that could not be changed.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// When which stream is looked at next. No more than there are streams.
#[derive(Debug, Default)]
pub(super) struct Ages {
    due: Mutex<Due>,
    /// Records that went.
    gone: AtomicU64,
}

#[derive(Debug, Default)]
struct Due {
    by_time: BTreeSet<(Timestamp, FileId)>,
    by_stream: BTreeMap<FileId, Timestamp>,
}

impl Ages {
    /// Has the stream looked at, at this time or the one that was said before, if that is earlier.
    pub(super) fn note(&self, stream: FileId, at: Timestamp) {
        let due = &mut *self.due.lock();
        match due.by_stream.get(&stream) {
            Some(before) if *before <= at => return,
            Some(before) => drop(due.by_time.remove(&(*before, stream))),
            None => {}
        }
        due.by_stream.insert(stream, at);
        due.by_time.insert((at, stream));
    }

    /// How many records went.
    pub(super) fn gone(&self) -> u64 {
        self.gone.load(Ordering::Relaxed)
    }

    /// Forgets the streams that are due at `now`, and gives them.
    fn take(&self, now: Timestamp) -> Vec<FileId> {
        let due = &mut *self.due.lock();
        let mut taken = Vec::new();
        while due.by_time.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, stream)) = due.by_time.pop_first() else { break };
            due.by_stream.remove(&stream);
            taken.push(stream);
        }
        taken
    }

    fn next(&self) -> Option<Timestamp> {
        self.due.lock().by_time.first().map(|(at, _)| *at)
    }
}

/// Lets go of what is too old, and says after how long there is more.
pub(super) async fn age(kernel: &Kernel, table: &StreamTable) -> Option<Duration> {
    let now = Timestamp(kernel.env().wall());
    for stream in table.ages().take(now) {
        if let Some(open) = table.get(stream) {
            // Before the look: an append after it has the stream looked at anew.
            open.is_looked_at_no_more();
        }
        match age_one(table, stream, now).await {
            Ok(Some(next)) => table.ages().note(stream, next),
            Ok(None) | Err(StreamError::NoStream { .. }) => {}
            Err(error) => {
                tracing::warn!(%stream, %error, "records that are too old stay for now");
                table.ages().note(stream, now.after(AGAIN_AFTER));
            }
        }
    }
    let next = table.ages().next()?;
    Some(Duration::from_nanos(next.nanos().saturating_sub(kernel.env().wall())).max(AGE_EVERY))
}

/// Lets go of what is too old in one stream, and says when its oldest record is; none when it has none, or keeps them for ever.
async fn age_one(
    table: &StreamTable,
    stream: FileId,
    now: Timestamp,
) -> Result<Option<Timestamp>, StreamError> {
    for io_profile in [IoProfile::Memory, IoProfile::Shared, IoProfile::Durable] {
        let Some(store) = table.store(io_profile) else { continue };
        let mut state = match store.state(stream).await {
            Err(StreamError::NoStream { .. }) => continue,
            state => state?,
        };
        let Some(age_max) = state.limits.age_max else { return Ok(None) };
        let (mut has_let_go, mut attempts) = (false, 0..OLDEST_ATTEMPTS_MAX);
        while state.head < state.tail {
            let read = match store.read(stream, state.head, ReadBounds::new(1, 0)).await {
                // An append let go of it meanwhile.
                Err(StreamError::Trimmed { .. }) if attempts.next().is_some() => {
                    state = store.state(stream).await?;
                    continue;
                }
                read => read?,
            };
            let Some(oldest) = read.records.first() else { return Ok(None) };
            let due = oldest.at.after(age_max);
            if due > now || has_let_go {
                return Ok(Some(due));
            }
            let head = state.head;
            state = store.retain(stream, now).await?;
            table.ages().gone.fetch_add(state.head.saturating_sub(head), Ordering::Relaxed);
            has_let_go = true;
        }
        return Ok(None);
    }
    Err(StreamError::NoStream { stream })
}
