//! Streams in shared memory do what the model does, are there when they are opened again, and give way when their room is used up.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{
    Env, HostConfig, SharedFolder, SharedHome, SharedKind, SharedLog, SharedState, Sleepers, block_on,
};
use nexus_kernel::hal::{
    Append, RECORD_BYTES_MAX, ReadBounds, StoreError, StreamError, StreamLimits, StreamStore, WhenFull,
};
use nexus_kernel::streams::groups::log_of;
use nexus_messages::{FileId, OpId, Timestamp};
use proptest::prelude::*;

use super::model::{Model, ask, operations, seen_in};
use super::shared::{SharedStream, SharedStreams, SharedStreamsConfig};

fn with(test: impl FnOnce(&dyn Fn() -> SharedStreams, &SharedFolder)) {
    with_config(SharedStreamsConfig::default(), test);
}

fn with_config(config: SharedStreamsConfig, test: impl FnOnce(&dyn Fn() -> SharedStreams, &SharedFolder)) {
    let env = Env::host(HostConfig::default()).expect("it starts");
    let (pool, sleepers) = (env.pool("test", 1, 64), Sleepers::new(&env));
    let host = tempfile::tempdir().expect("there is room");
    let folder = SharedFolder::new(host.path(), 7, SharedHome::Process);
    test(&|| SharedStreams::new(folder.clone(), sleepers.clone(), pool.clone(), config.clone()), &folder);
    env.stop();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn streams_in_shared_memory_are_what_they_should_be(operations in operations(60)) {
        with(|open, _| {
            let (mut store, mut model) = (open(), Model::default());
            for (n, (stream, asked)) in operations.into_iter().enumerate() {
                assert_eq!(ask(&store, stream, &asked), model.ask(stream, &asked), "{asked:?}");
                if n % 10 == 0 {
                    store = open();
                }
            }
            assert_eq!(seen_in(&store).unwrap(), model.seen());
        });
    }
}

fn append(n: u8, length: usize) -> Append {
    Append::new([Bytes::from(vec![n; length])], Timestamp(n.into()))
}

#[test]
fn what_was_appended_is_there_when_it_is_opened_again_and_a_repeat_is_known() {
    with(|open, folder| {
        let store = open();
        block_on(store.create(FileId(5), StreamLimits::NONE)).unwrap();
        let first = block_on(store.append(FileId(5), append(1, 10).op(OpId(9)))).unwrap();
        assert_eq!((first.first, first.repeated), (0, false));
        drop(store);
        let store = open();
        assert!(block_on(store.append(FileId(5), append(1, 10).op(OpId(9)))).unwrap().repeated);
        let other = SharedStream::map(&folder.file(SharedKind::Log, 5), 7, FileId(5)).unwrap();
        assert_eq!(other.append(&append(2, 3)).unwrap().first, 1);
        let read = block_on(store.read(FileId(5), 0, ReadBounds::ALL)).unwrap();
        assert_eq!(read.records.iter().map(|record| record.data.len()).collect::<Vec<_>>(), [10, 3]);
        assert!(block_on(store.remove(FileId(5))).unwrap());
        assert!(matches!(other.append(&append(3, 3)), Err(StreamError::NoStream { .. })));
        assert!(matches!(other.read(0, ReadBounds::ALL), Err(StreamError::NoStream { .. })));
    });
}

#[test]
fn when_the_room_is_used_up_the_oldest_go_or_the_append_is_refused() {
    with(|open, _| {
        let store = open();
        // Records without content fill more than they cost.
        let limits = StreamLimits::NONE.bytes_max(100_000);
        block_on(store.create(FileId(1), limits)).unwrap();
        block_on(store.create(FileId(2), limits.when_full(WhenFull::Refuse))).unwrap();
        let mut refused = None;
        for n in 0..10_000u64 {
            assert_eq!(block_on(store.append(FileId(1), append(1, 0))).unwrap().first, n);
            if let Err(error) = block_on(store.append(FileId(2), append(1, 0))) {
                refused.get_or_insert((n, error));
            }
        }
        let state = block_on(store.state(FileId(1))).unwrap();
        assert!(state.head > 1_000 && state.tail == 10_000 && state.bytes == (state.tail - state.head) * 4);
        let (full_at, error) = refused.unwrap();
        assert!(full_at > 1_000 && matches!(error, StreamError::Full { .. }), "{error}");
        assert!(matches!(
            block_on(store.read(FileId(1), 0, ReadBounds::ALL)),
            Err(StreamError::Trimmed { from: 0, head }) if head == state.head
        ));
        let read = block_on(store.read(FileId(1), state.head, ReadBounds::ALL)).unwrap();
        assert_eq!(read.next, 10_000);
    });
}

#[test]
fn what_is_there_counts_before_it_is_opened_and_until_it_goes() {
    let config = SharedStreamsConfig { bytes_max: 400_000, streams_max: 3 };
    with_config(config, |open, _| {
        let limits = StreamLimits::NONE.bytes_max(60_000);
        let create = |store: &SharedStreams, id, limits| block_on(store.create(FileId(id), limits));
        let store = open();
        create(&store, 1, limits).unwrap();
        create(&store, 2, limits).unwrap();
        assert!(matches!(create(&store, 3, limits), Err(StreamError::Store(StoreError::Full))));
        // It starts again, and has opened none.
        let store = open();
        assert!(matches!(create(&store, 3, limits), Err(StreamError::Store(StoreError::Full))));
        create(&store, 1, StreamLimits::NONE).expect("it is there");
        assert!(block_on(store.remove(FileId(2))).unwrap());
        create(&store, 3, limits).expect("what went gave its room back");
        // As many as may be.
        let small = StreamLimits::NONE.bytes_max(1);
        block_on(store.remove(FileId(1))).unwrap();
        create(&store, 4, small).unwrap();
        create(&store, 5, small).unwrap();
        assert!(matches!(create(&open(), 6, small), Err(StreamError::TooMany { most: 3 })));
        block_on(store.remove(FileId(4))).unwrap();
        create(&store, 6, small).unwrap();
    });
}

#[test]
fn what_the_kernel_keeps_for_itself_is_given_more_room_under_whoever_uses_it() {
    with(|open, folder| {
        let (store, id) = (open(), log_of(FileId(1)));
        block_on(store.create(id, StreamLimits::NONE)).unwrap();
        let (_, before) = folder.held(SharedKind::Log).unwrap();
        // Several at once, while it moves.
        std::thread::scope(|scope| {
            for writer in 0..3u8 {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..400u16 {
                        let append = append(writer, 1_000).op(OpId(u128::from(n) << 8 | u128::from(writer)));
                        block_on(store.append(id, append)).unwrap();
                        block_on(store.trim(id, 5)).unwrap();
                    }
                });
            }
        });
        let last = append(9, 1_000).op(OpId(9 << 32));
        assert!(!block_on(store.append(id, last.clone())).unwrap().repeated);
        let (_, after) = folder.held(SharedKind::Log).unwrap();
        assert!(after > 1_200_000 && after > 10 * before, "{before}, {after}");
        for store in [store, open()] {
            let state = block_on(store.state(id)).unwrap();
            assert_eq!((state.head, state.tail), (5, 1_201));
            let read = block_on(store.read(id, 5, ReadBounds::ALL)).unwrap();
            assert_eq!(read.next, 1_201);
            assert!(block_on(store.append(id, last.clone())).unwrap().repeated);
        }
    });
}

#[test]
fn what_the_kernel_keeps_for_itself_is_given_less_room_when_it_fills_little_and_nothing_is_lost() {
    with(|open, folder| {
        let (store, id) = (open(), log_of(FileId(1)));
        block_on(store.create(id, StreamLimits::NONE)).unwrap();
        let held = || folder.held(SharedKind::Log).unwrap().1;
        for round in 0..2u64 {
            let from = round * 1_202;
            for n in 0..1_200u64 {
                block_on(store.append(id, append(3, 3_000).op(OpId(u128::from(from + n))))).unwrap();
            }
            let grown = held();
            assert!(grown > 3_600_000, "{grown}");
            // Others append and read, while it moves.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    block_on(store.append(id, append(7, 10).op(OpId(1 << 80 | u128::from(round))))).unwrap()
                });
                scope.spawn(|| block_on(store.trim(id, from + 1_195)).unwrap());
                scope.spawn(|| block_on(store.append(id, append(8, 10))).unwrap());
            });
            let shrunk = held();
            assert!(shrunk < grown / 4 && shrunk >= 512 << 10, "{grown}, {shrunk}");
            for store in [&store, &open()] {
                let state = block_on(store.state(id)).unwrap();
                assert_eq!((state.head, state.tail), (from + 1_195, from + 1_202));
                let read = block_on(store.read(id, from + 1_195, ReadBounds::ALL)).unwrap();
                let lengths: Vec<usize> = read.records.iter().map(|record| record.data.len()).collect();
                assert_eq!(lengths, [3_000, 3_000, 3_000, 3_000, 3_000, 10, 10]);
                let again = append(7, 10).op(OpId(1 << 80 | u128::from(round)));
                assert!(block_on(store.append(id, again)).unwrap().repeated);
            }
        }
    });
}

#[test]
fn what_another_process_wrote_there_is_damage_and_nobody_goes_round() {
    with(|open, folder| {
        let store = open();
        let limits = StreamLimits::NONE.age_max(Duration::from_nanos(10));
        block_on(store.create(FileId(5), limits)).unwrap();
        for _ in 0..3 {
            block_on(store.append(FileId(5), append(0, 8))).unwrap();
        }
        let other = SharedLog::attach(&folder.file(SharedKind::Log, 5), 7, 5).unwrap();
        let writing = other.write().unwrap();
        let (_, second) = writing.frame(writing.state().head_at, 0).unwrap();
        // The second append says that it is the first one: the oldest never comes to an end.
        let file =
            std::fs::File::options().read(true).write(true).open(folder.file(SharedKind::Log, 5)).unwrap();
        let length = file.metadata().unwrap().len();
        let content = length - other.room_bytes();
        file.write_all_at(&0u64.to_le_bytes(), content + second * 8).unwrap();
        drop(writing);
        let damaged = block_on(store.retain(FileId(5), Timestamp(1_000))).unwrap_err();
        assert!(matches!(damaged, StreamError::Store(StoreError::Corrupt { .. })), "{damaged}");
        // A record that is larger than any.
        block_on(store.create(FileId(6), StreamLimits::NONE)).unwrap();
        let other = SharedLog::attach(&folder.file(SharedKind::Log, 6), 7, 6).unwrap();
        let mut writing = other.write().unwrap();
        let state = SharedState { bytes: 1, ..writing.state() };
        writing.append(&[vec![0; RECORD_BYTES_MAX + 1].into()], 0, 1, None, state);
        drop(writing);
        let damaged = block_on(store.read(FileId(6), 0, ReadBounds::ALL)).unwrap_err();
        assert!(matches!(damaged, StreamError::Store(StoreError::Corrupt { .. })), "{damaged}");
    });
}
