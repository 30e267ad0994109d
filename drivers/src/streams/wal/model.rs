//! The store against the naive model: any operations, in batches, with reopening and moving in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_kernel::hal::{ReadBounds, StoreError, StreamError};
use nexus_messages::FileId;
use proptest::prelude::*;

use super::config::WalStreamsConfig;
use super::store::{Ask, Store, Told};
use crate::disk::Folder;
use crate::disk::sim::SimDisk;
use crate::streams::model::{Answer, Asked, Model, Reply, Seen, named, operations};
use crate::streams::rules::Executed;

/// What binds the frames of the stores in tests.
pub(super) const SALT: u64 = 9;

/// Segments so short that a test has many of them.
pub(super) fn config() -> WalStreamsConfig {
    WalStreamsConfig::default().segment_bytes(700).ahead_bytes(512).recent_bytes(0)
}

pub(super) fn open(folder: Arc<dyn Folder>) -> Result<Store, StoreError> {
    Store::open(folder, SALT, config())
}

pub(super) fn ask_of(asked: Asked) -> Ask {
    match asked {
        Asked::Create(limits) => Ask::Create(limits),
        Asked::Append(append) => Ask::Append(append),
        Asked::Trim(before) => Ask::Trim(before),
        Asked::Retain(now) => Ask::Retain(now),
        Asked::Close => Ask::Close,
        Asked::Remove => Ask::Remove,
    }
}

pub(super) fn answer_of(told: Result<Told, StreamError>) -> Answer {
    told.map_err(|error| named(&error)).map(|told| match told {
        Told::State(state) => Reply::State(state),
        Told::Appended(appended) => Reply::Appended(appended),
        Told::Removed(was_there) => Reply::Removed(was_there),
    })
}

/// All that can be seen of the streams, and of which operations they know.
pub(super) fn seen_in(store: &Store) -> Result<(Seen, BTreeMap<FileId, Vec<Executed>>), StreamError> {
    let mut seen = Seen::new();
    for stream in store.list(None, usize::MAX) {
        let state = store.state(stream)?;
        let (mut next, mut records) = (state.head, Vec::new());
        while next < state.tail {
            let read = store.read(stream, next, ReadBounds::new(5, 300))?;
            assert!(read.next > next, "a read gives at least one");
            next = read.next;
            records.extend(read.records.into_iter().map(|record| (record.offset, record.at, record.data)));
        }
        seen.insert(stream, (state, records));
    }
    Ok((seen, store.ops()))
}

/// The same of the model.
pub(super) fn seen_of(model: &Model) -> (Seen, BTreeMap<FileId, Vec<Executed>>) {
    let ops = model.streams.keys().map(|stream| (*stream, model.ops(*stream).to_vec()));
    (model.seen(), ops.collect())
}

proptest! {
    #[test]
    fn streams_on_disk_are_what_they_should_be(
        operations in operations(150),
        cuts in prop::collection::vec((1..9_usize, 0..8_u8), 1..40),
        recent in prop::sample::select(vec![0, 400, 1 << 20]),
    ) {
        let disk = SimDisk::new(1);
        let open = || Store::open(disk.folder(), SALT, config().recent_bytes(recent)).unwrap();
        let (mut store, mut model) = (open(), Model::default());
        let mut rest = &operations[..];
        for (count, then) in cuts.into_iter().cycle().take(200) {
            let (batch, others) = rest.split_at(count.min(rest.len()));
            rest = others;
            let want: Vec<Answer> = batch.iter().map(|(stream, asked)| model.ask(*stream, asked)).collect();
            let asked = batch.iter().map(|(stream, asked)| (*stream, ask_of(asked.clone()))).collect();
            let got: Vec<Answer> = store.commit(asked).into_iter().map(answer_of).collect();
            prop_assert_eq!(got, want);
            match then {
                0 => {
                    store.close();
                    store = open();
                }
                1 => {
                    // As a power loss does, all that was acknowledged being on disk.
                    disk.crash_by(0);
                    store = open();
                }
                2 | 3 => prop_assert!((0..2_000).any(|_| !store.tidy()), "it never has done"),
                _ => {}
            }
            prop_assert_eq!(seen_in(&store).unwrap(), seen_of(&model));
            if rest.is_empty() {
                break;
            }
        }
    }
}

/// What little a stream keeps in segments that others filled is moved, so space stays in proportion to what is alive.
#[test]
fn old_records_of_a_quiet_stream_hold_no_segments() {
    use bytes::Bytes;
    use nexus_kernel::hal::{Append, StreamLimits};
    use nexus_messages::Timestamp;

    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    let (quiet, busy) = (FileId(1), FileId(2));
    let done = |ask| store.commit(vec![ask]).remove(0).unwrap();
    done((quiet, Ask::Create(StreamLimits::NONE)));
    done((busy, Ask::Create(StreamLimits::NONE.bytes_max(500))));
    let one = |length, at| Ask::Append(Append::new([Bytes::from(vec![7; length])], Timestamp(at)));
    let mut most = 0;
    for round in 0..400 {
        if round % 10 == 0 {
            done((quiet, one(20, round)));
        }
        done((busy, one(100, round)));
        store.tidy();
        most = most.max(store.segments());
    }
    let read = store.read(quiet, 0, ReadBounds::ALL).unwrap();
    assert_eq!(read.records.len(), 40);
    assert!(read.records.iter().zip(0..).all(|(record, n)| record.at == Timestamp(n * 10)));
    println!("{most} segments at most, {} in the end, the last is {}", store.segments(), store.current());
    // All of the quiet stream is some five segments long, and half of each segment may be dead, and some are spare.
    assert!(store.segments() < 24, "{} segments", store.segments());
    assert!(store.current() > 60, "there were many: {}", store.current());
    drop(store);
    let again = open(disk.folder()).unwrap();
    assert_eq!(again.read(quiet, 0, ReadBounds::ALL).unwrap().records, read.records);
}

/// What is alive is moved once, however small it is beside the frame that it stands in.
#[test]
fn segments_of_small_records_that_are_all_alive_are_left_alone() {
    use bytes::Bytes;
    use nexus_kernel::hal::{Append, StreamLimits};
    use nexus_messages::Timestamp;

    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    store.commit(vec![(FileId(1), Ask::Create(StreamLimits::NONE))]);
    for n in 0..300 {
        let one = Append::new([Bytes::new()], Timestamp(n));
        store.commit(vec![(FileId(1), Ask::Append(one))]).remove(0).unwrap();
        assert!(!store.tidy(), "there is nothing to move after {n} appends");
    }
    assert_eq!(store.moved.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// Opening reads the last segment and the tables of the others.
#[test]
fn opening_reads_no_more_when_there_are_more_records() {
    use bytes::Bytes;
    use nexus_kernel::hal::{Append, StreamLimits};
    use nexus_messages::Timestamp;

    let read_by_opening = |appends: u64| {
        let disk = SimDisk::new(1);
        let config = || WalStreamsConfig::default().segment_bytes(64 << 10).ahead_bytes(4 << 10);
        let store = Store::open(disk.folder(), SALT, config()).unwrap();
        store.commit(vec![(FileId(1), Ask::Create(StreamLimits::NONE))]);
        let one = || Append::new([Bytes::from(vec![7; 100])], Timestamp(1));
        for _ in 0..appends / 50 {
            store.commit((0..50).map(|_| (FileId(1), Ask::Append(one()))).collect());
        }
        store.close();
        drop(store);
        let before = disk.counts().bytes_read;
        let store = Store::open(disk.folder(), SALT, config()).unwrap();
        assert_eq!(store.state(FileId(1)).unwrap().tail, appends / 50 * 50);
        (disk.counts().bytes_read - before, store.segments())
    };
    let ((few, some), (many, more)) = (read_by_opening(2_000), read_by_opening(20_000));
    println!("{few} bytes of {some} segments, {many} of {more}");
    assert!(more > 8 * some);
    // A table of one run for each, and the last segment, which is up to as long as one can be.
    assert!(many < few + 70_000 + 400 * more as u64, "{few} and {many}");
}
