//! The suite of [`StreamStore`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use nexus_actors::block_on;
use nexus_messages::{FileId, OpId, Timestamp};

use super::{Claim, Report, Verdict, check_claims, claims, done, ensure, same};
use crate::hal::{
    APPEND_RECORDS_MAX, Append, Appended, RECORD_BYTES_MAX, RECORD_COST, ReadBounds, STREAM_OPS_KEPT,
    StreamError, StreamFuture, StreamLimits, StreamRead, StreamState, StreamStore, WhenFull,
};

/// A store to be checked.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Subject {
    /// A new store, without streams.
    pub store: Arc<dyn StreamStore>,
    /// Closes the store, as a crash would at the latest, and opens it again; none for a store that is gone with its value.
    pub reopen: Option<Reopen>,
}

/// Closes a store and opens it again.
pub type Reopen = Box<dyn Fn(Arc<dyn StreamStore>) -> Arc<dyn StreamStore>>;

impl Subject {
    /// A store that is gone with its value.
    pub fn new(store: impl StreamStore) -> Self {
        Self { store: Arc::new(store), reopen: None }
    }

    /// Says how the store is closed and opened again. A store that says that it is durable must have this.
    #[must_use]
    pub fn reopen(mut self, reopen: impl Fn(Arc<dyn StreamStore>) -> Arc<dyn StreamStore> + 'static) -> Self {
        self.reopen = Some(Box::new(reopen));
        self
    }
}

/// Checks every claim on a store of its own.
pub fn check(make: &dyn Fn() -> Subject) -> Report {
    check_claims("stream store", CLAIMS, make)
}

const CLAIMS: &[Claim<Subject>] = claims![
    a_new_stream_is_empty_and_open,
    what_was_appended_is_read_as_often_as_one_likes,
    offsets_are_dense_and_each_is_given_once,
    records_keep_their_borders,
    streams_are_apart,
    a_read_begins_at_any_offset_and_stops_at_its_bounds,
    at_the_tail_there_is_nothing_and_behind_it_no_offset,
    many_writers_lose_and_double_nothing,
    an_append_stands_side_by_side,
    an_append_tells_the_tail,
    what_is_too_large_is_refused_and_changes_nothing,
    nothing_is_no_append,
    a_repeat_is_executed_once,
    as_many_operations_are_known_as_were_promised,
    an_operation_is_of_its_stream,
    a_repeat_is_told_although_the_stream_was_closed_or_trimmed,
    a_closed_stream_is_read_to_its_end_and_takes_nothing,
    a_full_stream_refuses_or_drops_the_oldest,
    what_fits_exactly_fits,
    retention_never_keeps_more_than_was_set,
    records_go_when_they_are_too_old,
    idle_streams_let_go_when_they_are_told_the_time,
    a_trim_lets_go_of_whole_appends,
    below_the_head_the_oldest_is_told,
    making_a_stream_again_changes_its_limits_alone,
    a_stream_that_is_not_there_is_told,
    a_removed_stream_is_gone,
    streams_are_listed_in_pages,
    readers_and_writers_go_on_beside_each_other,
    what_was_acknowledged_survives_reopening,
    offsets_go_on_after_reopening,
    operations_are_known_after_reopening,
];

const STREAM: FileId = FileId(7);
const ALL: ReadBounds = ReadBounds::ALL;

fn wait<T>(what: &str, call: StreamFuture<'_, T>) -> Result<T, String> {
    done(what, block_on(call))
}

fn create(store: &dyn StreamStore, stream: FileId, limits: StreamLimits) -> Result<StreamState, String> {
    wait("create", store.create(stream, limits))
}

/// A stream without limits.
fn fresh(store: &dyn StreamStore) -> Verdict {
    create(store, STREAM, StreamLimits::NONE).map(drop)
}

fn record(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn texts(texts: &[&str]) -> Append {
    Append::new(texts.iter().map(|text| record(text)), Timestamp(1))
}

fn append(store: &dyn StreamStore, append: Append) -> Result<Appended, String> {
    wait("append", store.append(STREAM, append))
}

/// One record at a time of seconds.
fn append_at(store: &dyn StreamStore, text: &str, secs: u64) -> Result<Appended, String> {
    append(store, Append::new([record(text)], time(secs)))
}

fn time(secs: u64) -> Timestamp {
    Timestamp(secs * 1_000_000_000)
}

fn read(store: &dyn StreamStore, from: u64, most: ReadBounds) -> Result<StreamRead, String> {
    wait("read", store.read(STREAM, from, most))
}

/// All records from an offset on, as texts, read until there are no more; they have the offsets that they should.
fn rest(store: &dyn StreamStore, from: u64) -> Result<Vec<String>, String> {
    let (mut next, mut all) = (from, Vec::new());
    loop {
        let read = read(store, next, ALL)?;
        for (record, offset) in read.records.iter().zip(next..) {
            same("an offset", record.offset, offset)?;
            all.push(String::from_utf8_lossy(&record.data).into_owned());
        }
        same("where to go on", read.next, next + read.records.len() as u64)?;
        if read.next == read.tail {
            return Ok(all);
        }
        ensure(!read.records.is_empty(), || format!("nothing at {next} of {}", read.tail))?;
        next = read.next;
    }
}

fn state(store: &dyn StreamStore) -> Result<StreamState, String> {
    wait("state", store.state(STREAM))
}

/// The error of a call that has every reason to fail.
fn refused<T: std::fmt::Debug>(what: &str, call: StreamFuture<'_, T>) -> Result<StreamError, String> {
    match block_on(call) {
        Err(error) => {
            ensure(!error.is_unknown(), || format!("{what}: {error} is told as unknown"))?;
            Ok(error)
        }
        Ok(done) => Err(format!("{what}: it was done: {done:?}")),
    }
}

fn a_new_stream_is_empty_and_open(Subject { store, .. }: Subject) -> Verdict {
    let limits = StreamLimits::NONE.bytes_max(100).age_max(Duration::from_secs(9));
    let want = StreamState::new(limits);
    same("create", create(&*store, STREAM, limits)?, want)?;
    same("state", state(&*store)?, want)?;
    let none = read(&*store, 0, ALL)?;
    same("read", (none.records.len(), none.next, none.tail, none.closed), (0, 0, 0, false))
}

fn what_was_appended_is_read_as_often_as_one_likes(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    same("append", append(&*store, texts(&["one", "", "three"]))?, Appended::new(0, 3, 3, false))?;
    same("append", append_at(&*store, "four", 5)?, Appended::new(3, 1, 4, false))?;
    for _ in 0..2 {
        same("all", rest(&*store, 0)?, ["one", "", "three", "four"].map(String::from).to_vec())?;
        same("the rest", rest(&*store, 2)?, ["three", "four"].map(String::from).to_vec())?;
    }
    let times: Vec<Timestamp> = read(&*store, 0, ALL)?.records.iter().map(|record| record.at).collect();
    let early = times.iter().take(times.len().min(3)).all(|at| *at == Timestamp(1));
    ensure(early && times.last() == Some(&time(5)), || format!("the times are {times:?}"))
}

fn offsets_are_dense_and_each_is_given_once(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    let mut next = 0;
    for count in [1, 3, 2, 5, 1] {
        let records: Vec<String> = (0..count).map(|n| format!("{next}+{n}")).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        same("first", append(&*store, texts(&records))?.first, next)?;
        next += count;
    }
    same("tail", state(&*store)?.tail, next)
}

fn records_keep_their_borders(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    let large = Bytes::from((0..RECORD_BYTES_MAX).map(|at| (at % 251).to_le_bytes()[0]).collect::<Vec<_>>());
    let records = [Bytes::new(), large, Bytes::from_static(b"\0\n"), Bytes::new()];
    append(&*store, Append::new(records.clone(), Timestamp(1)))?;
    let mut next = 0;
    while next < 4 {
        let part = read(&*store, next, ALL)?;
        for record in &part.records {
            let at = usize::try_from(record.offset).unwrap_or(usize::MAX);
            ensure(records.get(at) == Some(&record.data), || format!("record {at} is another one"))?;
        }
        ensure(part.next > next, || format!("nothing at {next}"))?;
        next = part.next;
    }
    Ok(())
}

fn streams_are_apart(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    create(&*store, FileId(8), StreamLimits::NONE)?;
    append(&*store, texts(&["here"]))?;
    wait("append", store.append(FileId(8), texts(&["there", "too"])))?;
    append(&*store, texts(&["again"]))?;
    same("here", rest(&*store, 0)?, ["here", "again"].map(String::from).to_vec())?;
    wait("close", store.close(FileId(8)))?;
    wait("remove", store.remove(FileId(8)))?;
    append(&*store, texts(&["still"]))?;
    same("and on", rest(&*store, 2)?, vec!["still".into()])
}

fn a_read_begins_at_any_offset_and_stops_at_its_bounds(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["0", "1", "2"]))?;
    append(&*store, texts(&["3"]))?;
    append(&*store, texts(&["4", "5"]))?;
    for from in 0..6 {
        for count in 1..8 {
            let got = read(&*store, from, ReadBounds::new(count, u64::MAX))?;
            ensure(!got.records.is_empty() && got.records.len() <= count, || {
                format!("{} records from {from} on, when {count} were asked for", got.records.len())
            })?;
            same("the first", &got.records[0].data[..], from.to_string().as_bytes())?;
        }
    }
    let one = 1 + RECORD_COST;
    let bounded = |bytes| read(&*store, 1, ReadBounds::new(9, bytes)).map(|read| read.records.len());
    ensure(bounded(2 * one + 1)? <= 2, || "more bytes than were asked for".into())?;
    same("one always may", bounded(0)?, 1)?;
    same("none asked for counts as one", read(&*store, 0, ReadBounds::new(0, 0))?.records.len(), 1)
}

fn at_the_tail_there_is_nothing_and_behind_it_no_offset(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["0", "1"]))?;
    let tail = read(&*store, 2, ALL)?;
    same("at the tail", (tail.records.len(), tail.next, tail.tail, tail.is_end()), (0, 2, 2, false))?;
    for from in [3, u64::MAX] {
        let error = refused("a read behind the tail", store.read(STREAM, from, ALL))?;
        ensure(matches!(error, StreamError::BeyondTail { tail: 2, .. }), || format!("{error:?}"))?;
    }
    Ok(())
}

fn many_writers_lose_and_double_nothing(Subject { store, .. }: Subject) -> Verdict {
    const WRITERS: usize = 8;
    const EACH: usize = 40;
    fresh(&*store)?;
    let mut next = [0_usize; WRITERS];
    for round in 0..EACH {
        let appends = (0..WRITERS).map(|writer| store.append(STREAM, texts(&[&format!("{writer}:{round}")])));
        for appended in block_on(join_all(appends)) {
            done("append", appended)?;
        }
    }
    let all = rest(&*store, 0)?;
    same("how many", all.len(), WRITERS * EACH)?;
    for text in all {
        let parts = text.split_once(':').and_then(|(w, n)| Some((w.parse::<usize>().ok()?, n.parse().ok()?)));
        let Some((writer, number)) = parts.filter(|(writer, _)| *writer < WRITERS) else {
            return Err(format!("{text:?} was never written"));
        };
        same("the next one of its writer", number, next[writer])?;
        next[writer] += 1;
    }
    Ok(())
}

fn an_append_stands_side_by_side(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    let three = |writer: usize| texts(&[&format!("{writer}a"), &format!("{writer}b"), &format!("{writer}c")]);
    let appends = (0..20).map(|writer| store.append(STREAM, three(writer)));
    let mut firsts = Vec::new();
    for appended in block_on(join_all(appends)) {
        firsts.push(done("append", appended)?.first);
    }
    let all = rest(&*store, 0)?;
    for (writer, first) in firsts.into_iter().enumerate() {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let want = ["a", "b", "c"].map(|part| format!("{writer}{part}"));
        same("an append", all.get(first..first + 3), Some(&want[..]))?;
    }
    Ok(())
}

fn an_append_tells_the_tail(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    for number in 1..5 {
        let appended = append(&*store, texts(&["x"]))?;
        same("tail", appended.tail, number)?;
        // Who waits for less is told that there is something, and there is.
        same("what is there then", read(&*store, number - 1, ALL)?.records.len(), 1)?;
    }
    Ok(())
}

fn what_is_too_large_is_refused_and_changes_nothing(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["0"]))?;
    let large = Bytes::from(vec![7; RECORD_BYTES_MAX + 1]);
    let fits = Bytes::from(vec![7; RECORD_BYTES_MAX]);
    let many = vec![Bytes::new(); APPEND_RECORDS_MAX + 1];
    for records in [vec![record("1"), large], many, vec![fits; 5]] {
        let error = refused("an append", store.append(STREAM, Append::new(records, Timestamp(1))))?;
        ensure(matches!(error, StreamError::TooLarge { .. }), || format!("{error:?}"))?;
    }
    same("tail", state(&*store)?.tail, 1)?;
    append(&*store, Append::new(vec![Bytes::new(); APPEND_RECORDS_MAX], Timestamp(1)))?;
    same("tail", state(&*store)?.tail, 1 + APPEND_RECORDS_MAX as u64)
}

fn nothing_is_no_append(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    let error = refused("an append of nothing", store.append(STREAM, texts(&[])))?;
    ensure(matches!(error, StreamError::Empty), || format!("{error:?}"))?;
    same("tail", state(&*store)?.tail, 0)
}

fn a_repeat_is_executed_once(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["before"]))?;
    let call = || texts(&["one", "two"]).op(OpId(5));
    same("first", append(&*store, call())?, Appended::new(1, 2, 3, false))?;
    append(&*store, texts(&["after"]))?;
    same("again", append(&*store, call())?, Appended::new(1, 2, 4, true))?;
    // And of those that are on their way at once, one is executed.
    let both =
        [store.append(STREAM, texts(&["x"]).op(OpId(6))), store.append(STREAM, texts(&["x"]).op(OpId(6)))];
    let mut repeated = 0;
    for appended in block_on(join_all(both)) {
        let appended = done("append", appended)?;
        same("where", appended.first, 4)?;
        repeated += usize::from(appended.repeated);
    }
    same("repeats", repeated, 1)?;
    same("all", rest(&*store, 0)?, ["before", "one", "two", "after", "x"].map(String::from).to_vec())
}

fn as_many_operations_are_known_as_were_promised(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    let op = |number: usize| texts(&[&number.to_string()]).op(OpId(1 + number as u128));
    for number in 0..STREAM_OPS_KEPT {
        append(&*store, op(number))?;
        append(&*store, texts(&["without one"]))?;
    }
    for number in [0, 1, STREAM_OPS_KEPT - 1] {
        let again = append(&*store, op(number))?;
        same("where", (again.first, again.repeated), (2 * number as u64, true))?;
    }
    append(&*store, op(STREAM_OPS_KEPT))?;
    same("the second is still known", append(&*store, op(1))?.repeated, true)?;
    same("the first is not", append(&*store, op(0))?.repeated, false)
}

fn an_operation_is_of_its_stream(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    create(&*store, FileId(8), StreamLimits::NONE)?;
    append(&*store, texts(&["x"]).op(OpId(5)))?;
    let other = wait("append", store.append(FileId(8), texts(&["x"]).op(OpId(5))))?;
    same("another stream", other, Appended::new(0, 1, 1, false))
}

fn a_repeat_is_told_although_the_stream_was_closed_or_trimmed(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["x"]).op(OpId(5)))?;
    append(&*store, texts(&["y"]))?;
    wait("trim", store.trim(STREAM, 2))?;
    same("trimmed", append(&*store, texts(&["x"]).op(OpId(5)))?, Appended::new(0, 1, 2, true))?;
    wait("close", store.close(STREAM))?;
    same("closed", append(&*store, texts(&["x"]).op(OpId(5)))?, Appended::new(0, 1, 2, true))
}

fn a_closed_stream_is_read_to_its_end_and_takes_nothing(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["0", "1"]))?;
    for _ in 0..2 {
        same("close", wait("close", store.close(STREAM))?.closed, true)?;
    }
    let error = refused("an append", store.append(STREAM, texts(&["2"])))?;
    ensure(matches!(error, StreamError::Closed { tail: 2 }), || format!("{error:?}"))?;
    same("what was before", rest(&*store, 0)?, ["0", "1"].map(String::from).to_vec())?;
    let first = read(&*store, 0, ReadBounds::new(1, 99))?;
    same("in the middle", (first.closed, first.is_end()), (true, false))?;
    same("at the end", read(&*store, 2, ALL)?.is_end(), true)?;
    same("made again, it stays closed", create(&*store, STREAM, StreamLimits::NONE)?.closed, true)
}

fn a_full_stream_refuses_or_drops_the_oldest(Subject { store, .. }: Subject) -> Verdict {
    let limits = StreamLimits::NONE.bytes_max(3 * (1 + RECORD_COST));
    create(&*store, STREAM, limits.when_full(WhenFull::Refuse))?;
    for text in ["0", "1", "2"] {
        append(&*store, texts(&[text]))?;
    }
    let error = refused("an append", store.append(STREAM, texts(&["3"])))?;
    ensure(matches!(error, StreamError::Full { held: 15, most: 15, wanted: 5 }), || format!("{error:?}"))?;
    same("it changed nothing", rest(&*store, 0)?, ["0", "1", "2"].map(String::from).to_vec())?;
    create(&*store, STREAM, limits)?;
    same("where", append(&*store, texts(&["3"]))?.first, 3)?;
    same("head", state(&*store)?.head, 1)?;
    same("all", rest(&*store, 1)?, ["1", "2", "3"].map(String::from).to_vec())?;
    // What can never fit is refused in any case, and drives nothing out.
    let error = refused("an append", store.append(STREAM, texts(&["01234567890123456789"])))?;
    ensure(matches!(error, StreamError::TooLarge { .. }), || format!("{error:?}"))?;
    same("head after it", state(&*store)?.head, 1)
}

fn what_fits_exactly_fits(Subject { store, .. }: Subject) -> Verdict {
    let limits = StreamLimits::NONE.bytes_max(100).when_full(WhenFull::Refuse);
    create(&*store, STREAM, limits)?;
    let length = usize::try_from(100 - RECORD_COST).unwrap_or_default();
    append(&*store, Append::new([Bytes::from(vec![1; length])], Timestamp(1)))?;
    same("bytes", state(&*store)?.bytes, 100)?;
    let error = refused("one more", store.append(STREAM, texts(&[""])))?;
    ensure(matches!(error, StreamError::Full { .. }), || format!("{error:?}"))
}

fn retention_never_keeps_more_than_was_set(Subject { store, .. }: Subject) -> Verdict {
    const MAX: u64 = 1_000;
    create(&*store, STREAM, StreamLimits::NONE.bytes_max(MAX))?;
    let mut appended = 0;
    for round in 0..60_usize {
        let records = (0..1 + round % 3).map(|n| Bytes::from(vec![1; (round * 37 + n * 11) % 90]));
        appended += append(&*store, Append::new(records, Timestamp(1)))?.count;
        let StreamState { head, tail, bytes, .. } = state(&*store)?;
        same("tail", tail, appended)?;
        ensure(bytes <= MAX, || format!("it holds {bytes} bytes"))?;
        let held = read(&*store, head, ALL)?;
        let cost: u64 = held.records.iter().map(|record| record.data.len() as u64 + RECORD_COST).sum();
        same("what is there", (cost, held.records.len() as u64), (bytes, tail - head))?;
        // Of three records, that is.
        ensure(head == 0 || bytes > MAX - 300, || format!("only {bytes} bytes were kept"))?;
    }
    Ok(())
}

fn records_go_when_they_are_too_old(Subject { store, .. }: Subject) -> Verdict {
    create(&*store, STREAM, StreamLimits::NONE.age_max(Duration::from_secs(10)))?;
    for secs in [100, 105, 109] {
        append_at(&*store, "x", secs)?;
    }
    same("none is too old", state(&*store)?.head, 0)?;
    append_at(&*store, "x", 110)?;
    same("one is", state(&*store)?.head, 1)?;
    append_at(&*store, "x", 500)?;
    same("all but the last", state(&*store)?.head, 4)
}

fn idle_streams_let_go_when_they_are_told_the_time(Subject { store, .. }: Subject) -> Verdict {
    create(&*store, STREAM, StreamLimits::NONE.age_max(Duration::from_secs(10)))?;
    append_at(&*store, "0", 100)?;
    append_at(&*store, "1", 105)?;
    for (now, head, bytes) in [(109, 0, 10), (110, 1, 5), (110, 1, 5), (115, 2, 0), (900, 2, 0)] {
        let kept = wait("retain", store.retain(STREAM, time(now)))?;
        same("kept", (kept.head, kept.tail, kept.bytes), (head, 2, bytes))?;
    }
    same("where it goes on", append_at(&*store, "2", 900)?.first, 2)
}

fn a_trim_lets_go_of_whole_appends(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["0", "1", "2"]))?;
    append(&*store, texts(&["3"]))?;
    append(&*store, texts(&["4", "5"]))?;
    for (before, head) in [(0, 0), (2, 0), (3, 3), (3, 3), (1, 3), (5, 4)] {
        same("head", wait("trim", store.trim(STREAM, before))?.head, head)?;
    }
    same("what is left", rest(&*store, 4)?, ["4", "5"].map(String::from).to_vec())?;
    same("bytes", state(&*store)?.bytes, 2 * (1 + RECORD_COST))?;
    let all = wait("trim", store.trim(STREAM, u64::MAX))?;
    same("all of it", (all.head, all.tail, all.bytes), (6, 6, 0))?;
    same("where it goes on", append(&*store, texts(&["6"]))?.first, 6)
}

fn below_the_head_the_oldest_is_told(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    for text in ["0", "1", "2"] {
        append(&*store, texts(&[text]))?;
    }
    wait("trim", store.trim(STREAM, 2))?;
    for from in [0, 1] {
        let error = refused("a read below the head", store.read(STREAM, from, ALL))?;
        ensure(matches!(error, StreamError::Trimmed { head: 2, .. }), || format!("{error:?}"))?;
    }
    same("at the head", rest(&*store, 2)?, vec!["2".into()])
}

fn making_a_stream_again_changes_its_limits_alone(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["0", "1"]))?;
    let limits = StreamLimits::NONE.bytes_max(50);
    let again = create(&*store, STREAM, limits)?;
    same("again", (again.head, again.tail, again.limits), (0, 2, limits))?;
    same("the records", rest(&*store, 0)?, ["0", "1"].map(String::from).to_vec())
}

fn a_stream_that_is_not_there_is_told(Subject { store, .. }: Subject) -> Verdict {
    fresh(&*store)?;
    let other = FileId(8);
    let errors = [
        refused("append", store.append(other, texts(&["x"])))?,
        refused("read", store.read(other, 0, ALL))?,
        refused("state", store.state(other))?,
        refused("trim", store.trim(other, 1))?,
        refused("retain", store.retain(other, Timestamp(1)))?,
        refused("close", store.close(other))?,
    ];
    let named = |error: &StreamError| matches!(error, StreamError::NoStream { stream: FileId(8) });
    ensure(errors.iter().all(named), || format!("{errors:?}"))
}

fn a_removed_stream_is_gone(Subject { store, reopen }: Subject) -> Verdict {
    fresh(&*store)?;
    append(&*store, texts(&["0"]))?;
    same("remove", wait("remove", store.remove(STREAM))?, true)?;
    same("remove again", wait("remove", store.remove(STREAM))?, false)?;
    let gone = |store: &dyn StreamStore| -> Verdict {
        let error = refused("read", store.read(STREAM, 0, ALL))?;
        ensure(matches!(error, StreamError::NoStream { .. }), || format!("{error:?}"))?;
        same("the list", wait("list", store.list(None, 9))?, vec![])
    };
    gone(&*store)?;
    match reopen {
        Some(reopen) => gone(&*reopen(store)),
        None => Ok(()),
    }
}

fn streams_are_listed_in_pages(Subject { store, .. }: Subject) -> Verdict {
    for stream in [9, 3, 7, 1] {
        create(&*store, FileId(stream), StreamLimits::NONE)?;
    }
    let page = |after: Option<u64>, limit| wait("list", store.list(after.map(FileId), limit));
    same("all", page(None, 9)?, [1, 3, 7, 9].map(FileId).to_vec())?;
    same("first", page(None, 2)?, [1, 3].map(FileId).to_vec())?;
    same("next", page(Some(3), 2)?, [7, 9].map(FileId).to_vec())?;
    same("from one that is not there", page(Some(4), 1)?, vec![FileId(7)])?;
    same("behind the last", page(Some(9), 9)?, vec![])
}

/// What is read while others write is always the records from an offset on, whole.
fn readers_and_writers_go_on_beside_each_other(Subject { store, .. }: Subject) -> Verdict {
    create(&*store, STREAM, StreamLimits::NONE.bytes_max(2_000))?;
    let mut next = 0;
    for round in 0..50_u64 {
        let write = store.append(STREAM, texts(&[&format!("{}", 2 * round), &format!("{}", 2 * round + 1)]));
        let read = store.read(STREAM, next, ALL);
        let (written, read) = block_on(futures_util::future::join(write, read));
        done("append", written)?;
        match read {
            Ok(read) => {
                for (record, offset) in read.records.iter().zip(next..) {
                    same("offset", record.offset, offset)?;
                    same("record", &record.data[..], offset.to_string().as_bytes())?;
                }
                next = read.next;
            }
            Err(StreamError::Trimmed { head, .. }) if head > next => next = head,
            Err(error) => return Err(format!("read: {error}")),
        }
    }
    Ok(())
}

fn what_was_acknowledged_survives_reopening(Subject { store, reopen }: Subject) -> Verdict {
    let Some(reopen) = reopen else {
        return ensure(!store.is_durable(), || {
            "it says that it is durable, and is gone with its value".into()
        });
    };
    ensure(store.is_durable(), || "it can be opened again, and does not say that it is durable".into())?;
    let limits = StreamLimits::NONE.bytes_max(1 << 20).age_max(Duration::from_secs(1_000_000));
    create(&*store, STREAM, limits)?;
    for number in 0..30 {
        append(&*store, texts(&[&format!("{number}a"), &format!("{number}b")]))?;
    }
    wait("trim", store.trim(STREAM, 10))?;
    let before = (state(&*store)?, rest(&*store, 10)?);
    let mut store = store;
    for _ in 0..3 {
        store = reopen(store);
        same("after reopening", (state(&*store)?, rest(&*store, 10)?), before.clone())?;
        let error = refused("a read below the head", store.read(STREAM, 9, ALL))?;
        ensure(matches!(error, StreamError::Trimmed { head: 10, .. }), || format!("{error:?}"))?;
    }
    wait("close", store.close(STREAM))?;
    let store = reopen(store);
    let error = refused("an append", store.append(STREAM, texts(&["x"])))?;
    ensure(matches!(error, StreamError::Closed { tail: 60 }), || format!("{error:?}"))
}

fn offsets_go_on_after_reopening(Subject { store, reopen }: Subject) -> Verdict {
    let Some(reopen) = reopen else { return Ok(()) };
    fresh(&*store)?;
    let mut store = store;
    for round in 0..6 {
        same("first", append(&*store, texts(&["x", "y"]))?.first, 2 * round)?;
        if round == 3 {
            wait("trim", store.trim(STREAM, u64::MAX))?;
        }
        store = reopen(store);
    }
    same("tail", state(&*store)?.tail, 12)
}

fn operations_are_known_after_reopening(Subject { store, reopen }: Subject) -> Verdict {
    let Some(reopen) = reopen else { return Ok(()) };
    fresh(&*store)?;
    append(&*store, texts(&["x"]).op(OpId(5)))?;
    append(&*store, texts(&["y", "z"]).op(OpId(6)))?;
    wait("trim", store.trim(STREAM, u64::MAX))?;
    let store = reopen(reopen(store));
    same("one", append(&*store, texts(&["x"]).op(OpId(5)))?, Appended::new(0, 1, 3, true))?;
    same("the other", append(&*store, texts(&["y", "z"]).op(OpId(6)))?, Appended::new(1, 2, 3, true))
}
