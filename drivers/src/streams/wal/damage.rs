//! The log of a store that was closed, damaged in one place: each record is as it was or is told as damaged, and no other is lost with it; or nothing is opened.

use std::collections::BTreeSet;

use nexus_kernel::hal::{ReadBounds, StoreError, StreamError};

use super::crash::{Client, begin, life, step};
use super::model::{open, seen_of};
use super::store::Store;
use crate::disk::sim::SimDisk;
use crate::streams::model::Seen;

/// What can be wrong with a file.
#[derive(Debug, Clone, Copy)]
enum Wound {
    /// A byte is another.
    Byte(u64),
    /// A sector is zeros.
    Zeros(u64),
    /// It ends here.
    Cut(u64),
    Gone,
}

impl Wound {
    fn all(length: u64) -> Vec<Self> {
        let mut all: Vec<Self> = (0..length).step_by(13).map(Self::Byte).collect();
        all.extend((0..length).step_by(256).map(Self::Zeros));
        all.extend((0..length).step_by(97).map(Self::Cut));
        all.push(Self::Gone);
        all
    }

    fn inflict(self, disk: &SimDisk, name: &str, length: u64) {
        match self {
            Self::Byte(at) => assert!(disk.damage(name, at, |byte| byte ^ 0x55, 1)),
            Self::Zeros(at) => assert!(disk.damage(name, at, |_| 0, 256.min(length - at))),
            Self::Cut(at) => disk.folder().open(name, false).unwrap().set_len(at).unwrap(),
            Self::Gone => disk.folder().remove(name).unwrap(),
        }
        disk.crash_by(1);
    }
}

/// A store with everything in it, that was closed, and what is in it.
fn closed(rounds: usize) -> (SimDisk, Client, Seen) {
    let disk = SimDisk::new(1);
    let mut client = Client::new();
    let mut store = begin(&mut client, &disk).unwrap();
    for next in life(rounds) {
        step(&mut client, &mut store, &disk, next).unwrap();
    }
    store.close();
    drop(store);
    disk.crash_by(1);
    let seen = seen_of(client.states.last().unwrap()).0;
    (disk, client, seen)
}

/// How many records are told as damaged; or what is wrong.
fn look(store: &Store, want: &Seen) -> Result<usize, String> {
    let streams: Vec<_> = want.keys().copied().collect();
    if store.list(None, usize::MAX) != streams {
        return Err("other streams".into());
    }
    let mut damaged = 0;
    for (stream, (state, records)) in want {
        let found = store.state(*stream).map_err(|error| error.to_string())?;
        if found != *state {
            return Err(format!("stream {stream} is {found:?}, and was {state:?}"));
        }
        for (offset, at, data) in records {
            match store.read(*stream, *offset, ReadBounds::new(1, 0)) {
                Ok(read) => {
                    let record = &read.records[0];
                    if (record.offset, record.at, &record.data) != (*offset, *at, data) {
                        return Err(format!("record {offset} of stream {stream} is another one"));
                    }
                }
                Err(StreamError::Store(StoreError::Corrupt { .. })) => damaged += 1,
                Err(error) => return Err(format!("record {offset} of stream {stream}: {error}")),
            }
        }
        // Read together they are the same, up to the first that is damaged.
        let read = store.read(*stream, state.head, ReadBounds::ALL);
        let same = |read: nexus_kernel::hal::StreamRead| {
            let mut pairs = read.records.iter().zip(records);
            pairs.all(|(got, want)| (got.offset, got.at, &got.data) == (want.0, want.1, &want.2))
        };
        if !read.map_or_else(|error| matches!(error.kind(), nexus_messages::ErrorKind::Corrupt), same) {
            return Err(format!("stream {stream} is read as something else"));
        }
    }
    Ok(damaged)
}

#[test]
fn what_is_damaged_anywhere_is_told_and_never_skipped_over() {
    let (disk, _, want) = closed(60);
    let records: usize = want.values().map(|(_, records)| records.len()).sum();
    let (mut opened, mut refused, mut told, mut most) = (0, 0, 0, 0);
    let mut wounds = 0;
    let mut kinds = BTreeSet::new();
    for name in disk.paths() {
        let length = disk.content(&name).unwrap().len() as u64;
        let index = name.ends_with(".idx");
        for wound in Wound::all(length) {
            wounds += 1;
            let disk = disk.copy();
            wound.inflict(&disk, &name, length);
            let store = match open(disk.folder()) {
                Ok(store) => store,
                Err(StoreError::Corrupt { what, .. }) => {
                    assert!(!index, "{name}, {wound:?}: {what}");
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{name}, {wound:?}: {error}"),
            };
            opened += 1;
            let damaged = look(&store, &want).unwrap_or_else(|why| panic!("{name}, {wound:?}: {why}"));
            assert!(damaged == 0 || !index, "{name}, {wound:?}: an index can be made again");
            told += usize::from(damaged > 0);
            most = most.max(damaged);
            kinds.insert((index, damaged > 0));
        }
    }
    println!(
        "{records} records, {wounds} wounds: {opened} opened, {told} of them with damage that is told (of up to {most} records), {refused} refused"
    );
    assert!(refused > 20 && told > 100 && kinds.contains(&(true, false)), "{kinds:?}");
}

#[test]
fn a_log_without_its_segments_is_not_taken_for_a_new_one() {
    let (disk, _, _) = closed(6);
    for name in disk.paths() {
        if name.ends_with(".wal") {
            disk.folder().remove(&name).unwrap();
        }
    }
    assert!(matches!(open(disk.folder()), Err(StoreError::Corrupt { .. })));
}

/// New records can be appended to a stream whose old ones are damaged, and limits let go of those.
#[test]
fn a_stream_with_damage_goes_on_and_lets_go_of_it() {
    use bytes::Bytes;
    use nexus_kernel::hal::{Append, StreamLimits};
    use nexus_messages::{FileId, Timestamp};

    use super::store::{Ask, Told};

    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    let stream = FileId(1);
    let one = |n: u64| Ask::Append(Append::new([Bytes::from(vec![7; 200])], Timestamp(n)));
    store.commit(vec![(stream, Ask::Create(StreamLimits::NONE))]);
    (0..20).for_each(|n| drop(store.commit(vec![(stream, one(n))])));
    store.close();
    drop(store);
    let first = disk.paths().into_iter().filter(|name| name.ends_with(".wal")).min().unwrap();
    disk.folder().remove(&first).unwrap();
    let store = open(disk.folder()).unwrap();
    assert!(store.read(stream, 0, ReadBounds::ALL).is_err());
    let limits = StreamLimits::NONE.bytes_max(3_000);
    let told = store.commit(vec![(stream, Ask::Create(limits)), (stream, one(20)), (stream, one(21))]);
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    let Ok(Told::State(state)) = &store.commit(vec![(stream, Ask::Trim(18))])[0] else { panic!("no state") };
    assert_eq!((state.head, state.tail), (18, 22));
    let read = store.read(stream, 18, ReadBounds::ALL).unwrap();
    assert_eq!(read.records.len(), 4);
}
