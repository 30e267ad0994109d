//! The log of a store that was closed, damaged in one place: each record is as it was or is told as damaged, and no other is lost with it; or nothing is opened.
//!
//! NEXUS_CRASHES=all looks at each place, else some are left out.

use std::collections::BTreeSet;

use nexus_kernel::hal::{ReadBounds, StoreError, StreamError};

use super::crash::{Client, begin, life, one_in, step};
use super::cut::{DamagedStreams, StreamsCut, StreamsPlace};
use super::model::{SALT, open, seen_of};
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
        let mut all: Vec<Self> = (0..length).step_by(13 * one_in(3)).map(Self::Byte).collect();
        all.extend((0..length).step_by(256).map(Self::Zeros));
        all.extend((0..length).step_by(97 * one_in(3)).map(Self::Cut));
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

/// Whether the streams are what they were, up to some record of each: or what is wrong.
fn is_beginning(store: &Store, want: &Seen) -> Result<(), String> {
    for stream in store.list(None, usize::MAX) {
        let Some((_, records)) = want.get(&stream) else { continue };
        let state = store.state(stream).map_err(|error| error.to_string())?;
        let mut next = state.head;
        while next < state.tail {
            let read = match store.read(stream, next, ReadBounds::new(1, 0)) {
                Ok(read) => read,
                Err(StreamError::Store(StoreError::Corrupt { .. })) => {
                    next += 1;
                    continue;
                }
                Err(error) => return Err(format!("record {next} of stream {stream}: {error}")),
            };
            let record = &read.records[0];
            let is_right = |(offset, at, data): &(u64, _, _)| {
                *offset != record.offset || (record.at, &record.data) == (*at, data)
            };
            if !records.iter().all(is_right) {
                return Err(format!("record {next} of stream {stream} is another one"));
            }
            next = read.next;
        }
    }
    Ok(())
}

/// What there is at a disk, but for what was set aside.
fn is_cut_off(disk: &SimDisk, before: &SimDisk, cut: &StreamsCut) -> Result<(), String> {
    for name in before.paths() {
        let (was, is) = (before.content(&name).unwrap_or_default(), disk.content(&name).unwrap_or_default());
        let trimmed = was.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let gone = &was[is.len().min(trimmed)..trimmed];
        let kept_aside = |name: &String| disk.content(name).is_some_and(|aside| aside.ends_with(gone));
        if !gone.is_empty() && !cut.aside.iter().any(kept_aside) {
            return Err(format!("{} bytes of {name} are gone, and not in {:?}", gone.len(), cut.aside));
        }
    }
    Ok(())
}

#[test]
fn what_keeps_a_log_from_being_opened_is_told_and_cut_off_and_set_aside() {
    let (disk, _, want) = closed(60);
    let (mut cuts, mut crashes) = (0, 0);
    for name in disk.paths() {
        let length = disk.content(&name).unwrap().len() as u64;
        for wound in Wound::all(length) {
            let disk = disk.copy();
            wound.inflict(&disk, &name, length);
            let case = format!("{name}, {wound:?}");
            let open_damaged = |disk: &SimDisk| DamagedStreams::of(disk.folder(), SALT);
            let opens = open(disk.copy().folder()).is_ok();
            let before = disk.copy();
            let Some(damage) = open_damaged(&disk).damage().unwrap() else {
                assert!(opens, "{case}: it is not opened, and nothing is told");
                continue;
            };
            assert!(!opens, "{case}: {damage}");
            cuts += 1;
            let place = damage.place;
            let wrong = StreamsPlace { offset: place.offset + 8, ..place };
            let refused = open_damaged(&disk).cut(wrong).unwrap_err();
            assert!(matches!(refused, StoreError::BadOption { .. }), "{case}: {refused}");
            assert_eq!(disk.fingerprint(), before.fingerprint(), "{case}: nothing was changed");
            // Whenever the power goes off, it is cut in the end.
            for change in (1..).step_by(one_in(3)).take_while(|change| cuts % 7 == 0 || *change == 1) {
                let disk = before.copy();
                let seed = change;
                if cuts % 7 == 0 {
                    disk.power_off_at(change);
                }
                let done = open_damaged(&disk).cut(place);
                if !disk.is_off() {
                    disk.power_off_at(u64::MAX);
                    let cut = done.unwrap();
                    assert_eq!(cut.damage, damage, "{case}");
                    is_cut_off(&disk, &before, &cut).unwrap_or_else(|why| panic!("{case}: {why}"));
                    let store = open(disk.folder()).unwrap_or_else(|error| panic!("{case}: {error}"));
                    for (stream, tail) in &damage.kept {
                        assert_eq!(store.state(*stream).unwrap().tail, *tail, "{case}: {stream}");
                    }
                    is_beginning(&store, &want).unwrap_or_else(|why| panic!("{case}: {why}"));
                    break;
                }
                crashes += 1;
                disk.crash_by(seed);
                if let Some(again) = open_damaged(&disk).damage().unwrap() {
                    assert_eq!(again.place, place, "{case}, crash at {change}");
                    open_damaged(&disk).cut(place).unwrap();
                }
                let store =
                    open(disk.folder()).unwrap_or_else(|error| panic!("{case}, crash at {change}: {error}"));
                is_beginning(&store, &want).unwrap_or_else(|why| panic!("{case}, crash at {change}: {why}"));
            }
        }
    }
    println!("{cuts} logs were cut, {crashes} times the power went off meanwhile");
    assert!(cuts > 20 && crashes > 20, "{cuts}, {crashes}");
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
