//! A disk without room: the store opens on it, however it ended, with all that was acknowledged; and it can be emptied.

use bytes::Bytes;
use nexus_kernel::hal::{Append, ReadBounds, StoreError, StreamError, StreamLimits};
use nexus_messages::{FileId, OpId, Timestamp};

use super::config::WalStreamsConfig;
use super::crash::{A, B, Client, Step, begin, holds, life, step};
use super::model::{SALT, ask_of, open};
use super::store::{Ask, Store, Told};
use crate::disk::sim::{Fault, Outcome, SimDisk};
use crate::streams::model::Asked;

/// More appends than there can be room for in what is laid down ahead.
const FILLED_BY: usize = 2_000;

fn is_full(told: &Result<(), StreamError>) -> bool {
    matches!(told, Err(StreamError::Store(StoreError::Full)))
}

/// A store that goes through so many steps, and then takes what there is room for.
fn filled(disk: &SimDisk, client: &mut Client, steps: usize) -> Store {
    let mut store = begin(client, disk).unwrap();
    for next in life(steps) {
        step(client, &mut store, disk, next).unwrap();
    }
    disk.fail_from(0, Fault::Growth, u64::MAX);
    let filled = (0..FILLED_BY).find(|_| {
        let told = step(client, &mut store, disk, Step::One);
        assert!(told.is_ok() || is_full(&told), "{told:?}");
        told.is_err()
    });
    assert!(filled.is_some(), "there is no end to it");
    store
}

fn bytes(disk: &SimDisk) -> usize {
    disk.paths().iter().filter_map(|path| disk.content(path)).map(|content| content.len()).sum()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Closed,
    Killed,
    /// Of what was not flushed this is kept.
    Crashed(u64),
}

#[test]
fn a_full_disk_is_opened_read_and_emptied_however_the_store_ended() {
    for steps in 0..24 {
        for end in [End::Closed, End::Killed, End::Crashed(0), End::Crashed(1), End::Crashed(7)] {
            let (disk, mut client) = (SimDisk::new(7), Client::new());
            let store = filled(&disk, &mut client, steps);
            if end == End::Closed {
                store.close();
            }
            drop(store);
            let said = disk.content("closed").unwrap_or_default();
            assert!(end != End::Closed || said.starts_with(b"NXSTCL"), "{steps} steps: it is not said");
            match end {
                End::Crashed(seed) => disk.crash_by(seed),
                _ => disk.kill(),
            }
            disk.fail_from(0, Fault::Growth, u64::MAX);
            let case = format!("{steps} steps, {end:?}");
            let store = open(disk.folder()).unwrap_or_else(|error| panic!("{case}: {error}"));
            client.settle(&store).unwrap_or_else(|why| panic!("{case}: {why}"));
            let refused = client.append(1, 20_000);
            assert!(is_full(&client.commit(&store, vec![(A, refused)])), "{case}");
            let let_go = vec![(A, Asked::Trim(2)), (B, Asked::Remove)];
            client.commit(&store, let_go).unwrap_or_else(|error| panic!("{case}: {error}"));
            store.tidy();
            drop(store);
            disk.crash_by(0);
            holds(&client, &disk).unwrap_or_else(|why| panic!("{case}: {why}"));
        }
    }
}

#[test]
fn what_a_flush_that_failed_left_in_memory_alone_is_written_again_where_there_is_no_room_elsewhere() {
    let mut kept = 0;
    for seed in 0..12 {
        let (disk, mut client) = (SimDisk::new(seed), Client::new());
        let mut store = begin(&mut client, &disk).unwrap();
        step(&mut client, &mut store, &disk, Step::One).unwrap();
        disk.fail_from(0, Fault::Sync, 1);
        assert!(step(&mut client, &mut store, &disk, Step::Large).unwrap_err().is_unknown());
        drop(store);
        disk.kill();
        disk.fail_from(0, Fault::Growth, u64::MAX);
        let store = open(disk.folder()).unwrap();
        client.settle(&store).unwrap();
        kept += store.state(B).unwrap().tail;
        drop(store);
        disk.crash_by(0);
        assert_eq!(client.check(&open(disk.folder()).unwrap()), Ok(0), "what was seen stays, seed {seed}");
    }
    assert!(kept > 0, "something was in doubt");
}

#[test]
fn what_was_done_before_is_not_refused_for_others_who_find_no_room() {
    let disk = SimDisk::new(1);
    let store = open(disk.folder()).unwrap();
    let append = |bytes| Append::new([Bytes::from(vec![7; bytes])], Timestamp(1));
    let again = || Ask::Append(append(10).op(OpId(7)));
    let create = |stream| (stream, Ask::Create(StreamLimits::NONE));
    let done = store.commit(vec![create(A), create(B), (A, again())]);
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    disk.fail_from(0, Fault::Growth, u64::MAX);
    let more = |stream| (stream, Ask::Append(append(60_000)));
    let told = store.commit(vec![(A, again()), create(A), more(A), more(B)]);
    assert!(matches!(&told[0], Ok(Told::Appended(appended)) if appended.repeated), "{told:?}");
    assert!(told[1].is_ok(), "{told:?}");
    let is_full = |told: &_| matches!(told, Err(StreamError::Store(StoreError::Full)));
    assert!(told[2..].iter().all(is_full), "{told:?}");
}

#[test]
fn a_crash_while_a_full_disk_is_opened_loses_nothing() {
    let mut states = 0;
    for steps in [0, 9, 17] {
        let (disk, mut client) = (SimDisk::new(3), Client::new());
        drop(filled(&disk, &mut client, steps));
        disk.kill();
        for change in 1.. {
            let disk = disk.copy();
            disk.fail_from(0, Fault::Growth, u64::MAX);
            disk.power_off_at(disk.counts().changes + change);
            let opened = open(disk.folder());
            if !disk.is_off() {
                opened.unwrap();
                assert!(change > 3, "{change} changes");
                break;
            }
            drop(opened);
            for outcome in Outcome::of(disk.unsynced(), 27, 0..10) {
                let disk = disk.copy();
                outcome.crash(&disk);
                states += 1;
                let held = holds(&client, &disk);
                held.unwrap_or_else(|why| panic!("{steps} steps, at change {change}, {outcome:?}: {why}"));
            }
        }
    }
    println!("{states} states");
    assert!(states > 20, "{states}");
}

/// Segments that are not full for long.
fn config() -> WalStreamsConfig {
    super::model::config().segment_bytes(1 << 30)
}

/// A store with much in one stream, in one segment.
fn with_much(disk: &SimDisk, client: &mut Client) -> Store {
    let store = Store::open(disk.folder(), SALT, config()).unwrap();
    client.commit(&store, vec![(A, Asked::Create(StreamLimits::NONE))]).unwrap();
    for _ in 0..40 {
        let large = client.append(1, 20_000);
        client.commit(&store, vec![(A, large)]).unwrap();
    }
    store
}

#[test]
fn space_comes_back_before_a_segment_is_full_where_room_is_short() {
    for (free, comes_back) in [(None, false), (Some(10_000), true), (Some(2 << 30), false)] {
        let (disk, mut client) = (SimDisk::new(5), Client::new());
        let store = with_much(&disk, &mut client);
        disk.set_free_bytes(free);
        client.commit(&store, vec![(A, Asked::Trim(u64::MAX))]).unwrap();
        store.tidy();
        store.tidy();
        assert_eq!(bytes(&disk) < 200_000, comes_back, "{free:?}: {}", bytes(&disk));
        client.check(&store).unwrap();
    }
}

#[test]
fn the_space_of_a_stream_that_is_removed_comes_back_on_a_full_disk_though_its_segment_is_not_full() {
    let (disk, mut client) = (SimDisk::new(5), Client::new());
    let store = with_much(&disk, &mut client);
    disk.fail_from(0, Fault::Growth, u64::MAX);
    let (large, before) = (client.append(1, 20_000), bytes(&disk));
    // What lets go is not refused with what shares its flush.
    let told = store.commit([large, Asked::Remove].map(|asked| (A, ask_of(asked))).into());
    assert!(is_full(&told[0].clone().map(drop)) && told[1].is_ok(), "{told:?}");
    store.tidy();
    store.tidy();
    let after = bytes(&disk);
    assert!(before > 800_000 && after < 100_000, "{before} bytes, and then {after}");
    drop(store);
    disk.crash_by(0);
    let store = Store::open(disk.folder(), SALT, config()).unwrap();
    assert!(store.list(None, 9).is_empty());
    let mut client = Client::new();
    let one = client.append(1, 10);
    client.commit(&store, vec![(FileId(8), Asked::Create(StreamLimits::NONE)), (FileId(8), one)]).unwrap();
    assert_eq!(store.read(FileId(8), 0, ReadBounds::ALL).unwrap().records.len(), 1);
}
