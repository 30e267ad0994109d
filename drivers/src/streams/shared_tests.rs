//! Streams in shared memory do what the model does, are there when they are opened again, and give way when their room is used up.

use bytes::Bytes;
use nexus_actors::{Env, HostConfig, SharedFolder, SharedHome, Sleepers, block_on};
use nexus_kernel::hal::{Append, ReadBounds, StreamError, StreamLimits, StreamStore, WhenFull};
use nexus_messages::{FileId, OpId, Timestamp};
use proptest::prelude::*;

use super::model::{Model, ask, operations, seen_in};
use super::shared::{SharedStream, SharedStreams, SharedStreamsConfig};

fn with(test: impl FnOnce(&dyn Fn() -> SharedStreams, &SharedFolder)) {
    let env = Env::host(HostConfig::default()).expect("it starts");
    let (pool, sleepers) = (env.pool("test", 1, 64), Sleepers::new(&env));
    let host = tempfile::tempdir().expect("there is room");
    let folder = SharedFolder::new(host.path(), 7, SharedHome::Process);
    test(
        &|| {
            SharedStreams::new(folder.clone(), sleepers.clone(), pool.clone(), SharedStreamsConfig::default())
        },
        &folder,
    );
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
        let other = SharedStream::map(&folder.file(nexus_actors::SharedKind::Log, 5), 7, FileId(5)).unwrap();
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
