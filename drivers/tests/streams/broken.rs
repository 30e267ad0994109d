//! The suite rejects stores that are wrong in one way each.

use std::sync::Arc;

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_drivers::streams::MemoryStreams;
use nexus_kernel::hal::conformance::stream_store::{Subject, check};
use nexus_kernel::hal::{
    Append, Appended, ReadBounds, StreamError, StreamFuture, StreamLimits, StreamRead, StreamState,
    StreamStore, WhenFull,
};
use nexus_messages::{FileId, Timestamp};

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A read takes what it gives.
    ReadsConsume,
    /// Records of an append are joined.
    BordersLost,
    /// A repeat is executed again.
    RepeatExecuted,
    /// Below the head, what is there is given at once.
    SkipsWhatIsGone,
    /// Behind the tail there is nothing, and no error.
    SilentBehindTheTail,
    /// A closed stream takes appends.
    ClosedTakesMore,
    /// What was before the end is gone with the close.
    CloseForgets,
    /// A full stream drops the oldest, whatever it was told.
    DropsAlways,
    /// The limits are not kept.
    KeepsAll,
    /// Only appends look at the time.
    DeafToTime,
    /// Bounds of reads count for nothing.
    ReadsTooMuch,
    /// The tail that an append tells is the one before it.
    OldTail,
    /// Appends of several streams go to one.
    StreamsMixed,
    /// All is forgotten on reopening, although it says that it is durable.
    ForgetsAll,
    /// Offsets begin anew after everything was let go of.
    OffsetsReused,
    /// Operations are forgotten with the process.
    OpsForgotten,
}

#[derive(Debug, Clone)]
struct Broken {
    store: Arc<MemoryStreams>,
    fault: Fault,
}

fn reject(fault: Fault, claim: &str) {
    let make = move || {
        let store = move || Broken { store: Arc::default(), fault };
        let broken = store();
        let kept = broken.clone();
        match fault {
            Fault::ForgetsAll => Subject::new(broken).reopen(move |_| Arc::new(store())),
            Fault::OpsForgotten | Fault::OffsetsReused => {
                Subject::new(broken).reopen(move |_| Arc::new(kept.reopened()))
            }
            _ => Subject::new(broken),
        }
    };
    check(&make).assert_rejected_by(claim);
}

impl Broken {
    /// The same streams in another store: with the records, and what was not forgotten.
    fn reopened(&self) -> Self {
        let store = MemoryStreams::default();
        for stream in block_on(self.store.list(None, 9)).unwrap() {
            let state = block_on(self.store.state(stream)).unwrap();
            block_on(store.create(stream, state.limits)).unwrap();
            if self.fault == Fault::OpsForgotten {
                (0..state.head).for_each(|_| drop(block_on(store.append(stream, one(Bytes::new(), 1)))));
                block_on(store.trim(stream, state.head)).unwrap();
            }
            for record in block_on(self.store.read(stream, state.head, ReadBounds::ALL)).unwrap().records {
                block_on(store.append(stream, one(record.data, record.at.0))).unwrap();
            }
        }
        Self { store: Arc::new(store), ..self.clone() }
    }

    fn stream(&self, stream: FileId) -> FileId {
        if self.fault == Fault::StreamsMixed { FileId(7) } else { stream }
    }
}

fn one(data: Bytes, at: u64) -> Append {
    Append::new([data], Timestamp(at))
}

impl StreamStore for Broken {
    fn is_durable(&self) -> bool {
        matches!(self.fault, Fault::ForgetsAll | Fault::OpsForgotten | Fault::OffsetsReused)
    }

    fn create(&self, stream: FileId, limits: StreamLimits) -> StreamFuture<'_, StreamState> {
        let limits = match self.fault {
            Fault::DropsAlways => limits.when_full(WhenFull::DropOldest),
            Fault::KeepsAll => StreamLimits::NONE,
            _ => limits,
        };
        self.store.create(stream, limits)
    }

    fn append(&self, stream: FileId, mut append: Append) -> StreamFuture<'_, Appended> {
        let stream = self.stream(stream);
        Box::pin(async move {
            append.check()?;
            match self.fault {
                Fault::BordersLost => append.records = vec![append.records.concat().into()],
                Fault::RepeatExecuted => append.op = None,
                Fault::ClosedTakesMore => {
                    let state = self.store.state(stream).await?;
                    if state.closed {
                        return Ok(Appended::new(state.tail, 1, state.tail + 1, false));
                    }
                }
                _ => {}
            }
            let appended = self.store.append(stream, append).await?;
            if self.fault == Fault::OldTail {
                return Ok(Appended::new(appended.first, appended.count, appended.first, appended.repeated));
            }
            Ok(appended)
        })
    }

    fn read(&self, stream: FileId, from: u64, most: ReadBounds) -> StreamFuture<'_, StreamRead> {
        let stream = self.stream(stream);
        Box::pin(async move {
            let most = if self.fault == Fault::ReadsTooMuch { ReadBounds::ALL } else { most };
            let read = self.store.read(stream, from, most).await;
            match (self.fault, read) {
                (Fault::SkipsWhatIsGone, Err(StreamError::Trimmed { head, .. })) => {
                    self.store.read(stream, head, most).await
                }
                (Fault::SilentBehindTheTail, Err(StreamError::BeyondTail { tail, .. })) => {
                    Ok(StreamRead::new(from, vec![], tail, false))
                }
                (Fault::ReadsConsume, Ok(read)) => {
                    self.store.trim(stream, read.next).await?;
                    Ok(read)
                }
                (_, read) => read,
            }
        })
    }

    fn state(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        self.store.state(self.stream(stream))
    }

    fn trim(&self, stream: FileId, before: u64) -> StreamFuture<'_, StreamState> {
        self.store.trim(stream, before)
    }

    fn retain(&self, stream: FileId, now: Timestamp) -> StreamFuture<'_, StreamState> {
        if self.fault == Fault::DeafToTime {
            self.store.state(stream)
        } else {
            self.store.retain(stream, now)
        }
    }

    fn close(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        Box::pin(async move {
            if self.fault == Fault::CloseForgets {
                self.store.trim(stream, u64::MAX).await?;
            }
            self.store.close(stream).await
        })
    }

    fn remove(&self, stream: FileId) -> StreamFuture<'_, bool> {
        self.store.remove(stream)
    }

    fn list(&self, after: Option<FileId>, limit: usize) -> StreamFuture<'_, Vec<FileId>> {
        self.store.list(after, limit)
    }
}

#[test]
fn a_store_whose_reads_take_is_rejected() {
    reject(Fault::ReadsConsume, "what_was_appended_is_read_as_often_as_one_likes");
}

#[test]
fn a_store_that_joins_records_is_rejected() {
    reject(Fault::BordersLost, "records_keep_their_borders");
}

#[test]
fn a_store_that_executes_repeats_is_rejected() {
    reject(Fault::RepeatExecuted, "a_repeat_is_executed_once");
}

#[test]
fn a_store_that_skips_what_is_gone_is_rejected() {
    reject(Fault::SkipsWhatIsGone, "below_the_head_the_oldest_is_told");
}

#[test]
fn a_store_that_is_silent_behind_its_tail_is_rejected() {
    reject(Fault::SilentBehindTheTail, "at_the_tail_there_is_nothing_and_behind_it_no_offset");
}

#[test]
fn a_store_that_acknowledges_what_a_closed_stream_does_not_keep_is_rejected() {
    reject(Fault::ClosedTakesMore, "a_closed_stream_is_read_to_its_end_and_takes_nothing");
}

#[test]
fn a_store_that_forgets_with_the_close_is_rejected() {
    reject(Fault::CloseForgets, "a_closed_stream_is_read_to_its_end_and_takes_nothing");
}

#[test]
fn a_store_that_drops_where_it_is_to_refuse_is_rejected() {
    reject(Fault::DropsAlways, "a_full_stream_refuses_or_drops_the_oldest");
}

#[test]
fn a_store_that_keeps_all_is_rejected() {
    reject(Fault::KeepsAll, "retention_never_keeps_more_than_was_set");
}

#[test]
fn a_store_that_does_not_hear_the_time_is_rejected() {
    reject(Fault::DeafToTime, "idle_streams_let_go_when_they_are_told_the_time");
}

#[test]
fn a_store_that_reads_too_much_is_rejected() {
    reject(Fault::ReadsTooMuch, "a_read_begins_at_any_offset_and_stops_at_its_bounds");
}

#[test]
fn a_store_that_tells_an_old_tail_is_rejected() {
    reject(Fault::OldTail, "an_append_tells_the_tail");
}

#[test]
fn a_store_that_mixes_streams_is_rejected() {
    reject(Fault::StreamsMixed, "streams_are_apart");
}

#[test]
fn a_store_that_forgets_is_rejected() {
    reject(Fault::ForgetsAll, "what_was_acknowledged_survives_reopening");
}

#[test]
fn a_store_that_gives_offsets_twice_is_rejected() {
    reject(Fault::OffsetsReused, "offsets_go_on_after_reopening");
}

#[test]
fn a_store_that_forgets_operations_is_rejected() {
    reject(Fault::OpsForgotten, "operations_are_known_after_reopening");
}
