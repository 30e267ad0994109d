//! What streams should be: the trait's words, as plainly as they can be written. And that any sequence of operations does to a store what it does to this.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_kernel::hal::{
    Append, Appended, STREAM_OPS_KEPT, StreamError, StreamLimits, StreamState, StreamStore, WhenFull, cost_of,
};
use nexus_messages::{FileId, OpId, Timestamp};
use proptest::prelude::*;

use super::MemoryStreams;
use super::rules::Executed;

/// What is asked of a stream.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Create(StreamLimits),
    Append(Append),
    Trim(u64),
    Retain(Timestamp),
    Close,
    Remove,
}

/// What became of it; an error by its name and numbers.
pub(super) type Answer = Result<Reply, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    State(StreamState),
    Appended(Appended),
    Removed(bool),
}

/// An error as it is compared.
pub(super) fn named(error: &StreamError) -> String {
    format!("{error:?}")
}

/// A record: its offset, its time and what it holds.
pub(super) type Record = (u64, Timestamp, Bytes);

/// All that can be seen of a stream.
pub(super) type Seen = BTreeMap<FileId, (StreamState, Vec<Record>)>;

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) streams: BTreeMap<FileId, One>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct One {
    state: StreamState,
    appends: Vec<(u64, Timestamp, Vec<Bytes>)>,
    ops: Vec<Executed>,
}

fn cost(records: &[Bytes]) -> u64 {
    cost_of(records.iter().map(Bytes::len))
}

impl One {
    fn drop_first(&mut self) {
        let (first, _, records) = self.appends.remove(0);
        self.state.head = first + records.len() as u64;
        self.state.bytes -= cost(&records);
    }

    fn let_go(&mut self, now: Timestamp, wanted: u64) {
        let limits = self.state.limits;
        while let Some((_, at, _)) = self.appends.first() {
            let over = limits.bytes_max.is_some_and(|most| self.state.bytes + wanted > most);
            let is_full = over && limits.when_full == WhenFull::DropOldest;
            let is_old = limits.age_max.is_some_and(|age| at.after(age) <= now);
            if !is_full && !is_old {
                return;
            }
            self.drop_first();
        }
    }

    fn append(&mut self, append: &Append) -> Result<Appended, StreamError> {
        let wanted = cost(&append.records);
        if let Some(op) = append.op
            && let Some(done) = self.ops.iter().find(|done| done.op == op)
        {
            return Ok(Appended::new(done.first, u64::from(done.count), self.state.tail, true));
        }
        if self.state.closed {
            return Err(StreamError::Closed { tail: self.state.tail });
        }
        let most = self.state.limits.bytes_max.unwrap_or(u64::MAX);
        if wanted > most {
            return Err(StreamError::TooLarge {
                what: "bytes in an append to this stream",
                found: wanted,
                most,
            });
        }
        let mut after = self.clone();
        after.let_go(append.at, wanted);
        if after.state.bytes + wanted > most {
            return Err(StreamError::Full { held: after.state.bytes, most, wanted });
        }
        let first = after.state.tail;
        after.state.tail += append.records.len() as u64;
        after.state.bytes += wanted;
        after.appends.push((first, append.at, append.records.clone()));
        let count = u32::try_from(append.records.len()).unwrap();
        after.ops.extend(append.op.map(|op| Executed { op, first, count }));
        if after.ops.len() > STREAM_OPS_KEPT {
            after.ops.remove(0);
        }
        *self = after;
        Ok(Appended::new(first, u64::from(count), self.state.tail, false))
    }
}

impl Model {
    pub(super) fn ask(&mut self, stream: FileId, asked: &Asked) -> Answer {
        if let Asked::Create(limits) = asked {
            let one = self.streams.entry(stream).or_default();
            one.state.limits = *limits;
            return Ok(Reply::State(one.state));
        }
        if let Asked::Remove = asked {
            return Ok(Reply::Removed(self.streams.remove(&stream).is_some()));
        }
        let Some(one) = self.streams.get_mut(&stream) else {
            return Err(named(&StreamError::NoStream { stream }));
        };
        match asked {
            Asked::Append(append) => return one.append(append).map(Reply::Appended).map_err(|e| named(&e)),
            Asked::Trim(before) => {
                let whole = |one: &One| {
                    one.appends
                        .first()
                        .is_some_and(|(first, _, records)| first + records.len() as u64 <= *before)
                };
                while whole(one) {
                    one.drop_first();
                }
            }
            Asked::Retain(now) => one.let_go(*now, 0),
            Asked::Close => one.state.closed = true,
            Asked::Create(_) | Asked::Remove => unreachable!("they were answered"),
        }
        Ok(Reply::State(one.state))
    }

    pub(super) fn seen(&self) -> Seen {
        let seen = |(stream, one): (&FileId, &One)| {
            let records = one.appends.iter().flat_map(|(first, at, records)| {
                (*first..).zip(records).map(|(offset, data)| (offset, *at, data.clone()))
            });
            (*stream, (one.state, records.collect()))
        };
        self.streams.iter().map(seen).collect()
    }

    pub(super) fn ops(&self, stream: FileId) -> &[Executed] {
        self.streams.get(&stream).map_or(&[], |one| &one.ops)
    }
}

/// Few streams, small records, and times that do not go back.
pub(super) fn operations(most: usize) -> impl Strategy<Value = Vec<(FileId, Asked)>> {
    let limits = (
        prop::option::of(20..400_u64),
        prop::option::of(1..60_u64),
        prop::sample::select(vec![WhenFull::DropOldest, WhenFull::Refuse]),
    )
        .prop_map(|(bytes, age, when_full)| {
            let limits = StreamLimits::NONE.when_full(when_full);
            let limits = bytes.map_or(limits, |bytes| limits.bytes_max(bytes));
            age.map_or(limits, |age| limits.age_max(std::time::Duration::from_nanos(age)))
        });
    let append = (prop::collection::vec(0..90_usize, 1..4), prop::option::of(0..6_u128));
    let asked = prop_oneof![
        2 => limits.prop_map(Asked::Create),
        12 => append.prop_map(|(lengths, op)| {
            let records = lengths.iter().map(|length| Bytes::from(vec![u8::try_from(length % 250).unwrap(); *length]));
            let append = Append::new(records, Timestamp(0));
            Asked::Append(op.map_or(append.clone(), |op| append.op(OpId(op))))
        }),
        2 => (0..40_u64).prop_map(Asked::Trim),
        1 => (0..300_u64).prop_map(|at| Asked::Retain(Timestamp(at))),
        1 => Just(Asked::Close),
        1 => Just(Asked::Remove),
    ];
    let one = (prop::sample::select(vec![FileId(1), FileId(2), FileId(9)]), asked, 0..5_u64);
    prop::collection::vec(one, 1..most).prop_map(|operations| {
        let mut now = 0;
        let mut operations: Vec<(FileId, Asked)> = operations
            .into_iter()
            .map(|(stream, mut asked, passed)| {
                now += passed;
                if let Asked::Append(append) = &mut asked {
                    append.at = Timestamp(now);
                }
                (stream, asked)
            })
            .collect();
        // Else most of it goes to streams that are not there.
        for stream in [9, 2, 1] {
            operations.insert(0, (FileId(stream), Asked::Create(StreamLimits::NONE)));
        }
        operations
    })
}

/// Asks a store for it.
pub(super) fn ask(store: &dyn StreamStore, stream: FileId, asked: &Asked) -> Answer {
    let got = match asked {
        Asked::Create(limits) => block_on(store.create(stream, *limits)).map(Reply::State),
        Asked::Append(append) => block_on(store.append(stream, append.clone())).map(Reply::Appended),
        Asked::Trim(before) => block_on(store.trim(stream, *before)).map(Reply::State),
        Asked::Retain(now) => block_on(store.retain(stream, *now)).map(Reply::State),
        Asked::Close => block_on(store.close(stream)).map(Reply::State),
        Asked::Remove => block_on(store.remove(stream)).map(Reply::Removed),
    };
    got.map_err(|error| named(&error))
}

/// What the streams of a store are.
pub(super) fn seen_in(store: &dyn StreamStore) -> Result<Seen, StreamError> {
    let mut seen = Seen::new();
    for stream in block_on(store.list(None, usize::MAX))? {
        let state = block_on(store.state(stream))?;
        let (mut next, mut records) = (state.head, Vec::new());
        while next < state.tail {
            let read = block_on(store.read(stream, next, nexus_kernel::hal::ReadBounds::new(3, 150)))?;
            assert!(read.next > next, "a read gives at least one");
            next = read.next;
            records.extend(read.records.into_iter().map(|record| (record.offset, record.at, record.data)));
        }
        seen.insert(stream, (state, records));
    }
    Ok(seen)
}

proptest! {
    #[test]
    fn streams_in_memory_are_what_they_should_be(operations in operations(120)) {
        let (store, mut model) = (MemoryStreams::default(), Model::default());
        for (stream, asked) in operations {
            let want = model.ask(stream, &asked);
            prop_assert_eq!(ask(&store, stream, &asked), want);
            prop_assert_eq!(seen_in(&store).unwrap(), model.seen());
            let held: u64 = model.seen().values().map(|(state, _)| state.bytes).sum();
            prop_assert_eq!(store.held_bytes(), held);
        }
    }
}
