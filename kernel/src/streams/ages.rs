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
    /// The one that is being looked at. Who looks may die meanwhile: its successor looks at it later.
    begun: Option<FileId>,
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

    /// Has the stream looked at again at `later` that was begun with by somebody who died at it: he may have died of it.
    fn take_up(&self, later: Timestamp) {
        let begun = self.due.lock().begun.take();
        if let Some(stream) = begun {
            self.note(stream, later);
        }
    }

    /// Begins with the next stream that is due at `now`. It can be noted anew from now on.
    fn begin(&self, now: Timestamp) -> Option<FileId> {
        let due = &mut *self.due.lock();
        let (_, stream) = due.by_time.first().copied().filter(|(at, _)| *at <= now)?;
        due.by_time.pop_first();
        due.by_stream.remove(&stream);
        due.begun = Some(stream);
        due.begun
    }

    /// Has the stream that was begun with looked at again at this time, if there is one.
    fn end(&self, stream: FileId, next: Option<Timestamp>) {
        if let Some(next) = next {
            self.note(stream, next);
        }
        // Who was too slow, and was written off, does not end what his successor has begun with.
        let begun = &mut self.due.lock().begun;
        *begun = begun.filter(|begun| *begun != stream);
    }

    fn next(&self) -> Option<Timestamp> {
        self.due.lock().by_time.first().map(|(at, _)| *at)
    }
}

/// Lets go of what is too old, and says after how long there is more.
pub(super) async fn age(kernel: &Kernel, table: &StreamTable) -> Option<Duration> {
    let now = Timestamp(kernel.env().wall());
    // Once each: what is due again by then is looked at with what comes due meanwhile.
    let next_look = now.after(AGE_EVERY);
    table.ages().take_up(now.after(AGAIN_AFTER));
    while let Some(stream) = table.ages().begin(now) {
        if let Some(open) = table.get(stream) {
            // Before the look: an append after it has the stream looked at anew.
            open.is_looked_at_no_more();
        }
        let next = match age_one(table, stream, now).await {
            Ok(next) => next.map(|next| next.max(next_look)),
            Err(StreamError::NoStream { .. }) => None,
            Err(error) => {
                tracing::warn!(%stream, %error, "records that are too old stay for now");
                Some(now.after(AGAIN_AFTER))
            }
        };
        table.ages().end(stream, next);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_dies_while_it_looks_at_a_stream_leaves_all_that_are_due_to_its_successor() {
        let ages = Ages::default();
        let (one, two, three, at) = (FileId(1), FileId(2), FileId(3), Timestamp);
        ages.note(one, at(10));
        ages.note(two, at(20));
        ages.note(three, at(30));
        assert_eq!(ages.begin(at(5)), None);
        assert_eq!(ages.begin(at(25)), Some(one));
        // Nobody ended with it.
        ages.take_up(at(40));
        assert_eq!(ages.begin(at(25)), Some(two));
        ages.end(one, None);
        ages.end(two, Some(at(50)));
        ages.take_up(at(35));
        assert_eq!(ages.begin(at(25)), None);
        let mut left = Vec::new();
        while let Some(stream) = ages.begin(at(60)) {
            left.push(stream);
            ages.end(stream, None);
        }
        assert_eq!(left, [three, one, two], "the one that was not ended with, too");
    }
}
