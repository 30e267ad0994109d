//! What streams on disk promise beside the suite: how much is flushed and read, what is given up, and who may open them.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use nexus_actors::{Env, HostConfig, Simulation, block_on};
use nexus_drivers::disk::sim::SimDisk;
use nexus_drivers::streams::wal::{WalStreams, WalStreamsConfig};
use nexus_kernel::hal::{Append, ReadBounds, StoreError, StreamLimits, StreamStore};
use nexus_messages::{FileId, Timestamp};

const STREAM: FileId = FileId(1);

/// Streams on a simulated disk, under a seed: what is asked for at once is one batch.
fn simulated(disk: &SimDisk, config: WalStreamsConfig) -> (Simulation, WalStreams) {
    let (env, simulation) = Env::seeded(1);
    let pool = env.pool("test", 1, 8);
    let streams = WalStreams::open_in(disk.folder(), &env, pool, config).unwrap();
    simulation.block_on(streams.create(STREAM, StreamLimits::NONE)).unwrap();
    (simulation, streams)
}

fn one(text: &str) -> Append {
    Append::new([Bytes::copy_from_slice(text.as_bytes())], Timestamp(1))
}

#[test]
fn what_is_appended_at_once_to_any_streams_shares_a_flush() {
    let disk = SimDisk::new(1);
    let (simulation, streams) = simulated(&disk, WalStreamsConfig::default());
    let made = (2..9).map(|stream| streams.create(FileId(stream), StreamLimits::NONE));
    assert!(simulation.block_on(join_all(made)).iter().all(Result::is_ok));
    let before = disk.counts();
    let appends = (0..64_u64).map(|n| streams.append(FileId(1 + n % 8), one(&n.to_string())));
    let appended = simulation.block_on(join_all(appends));
    assert!(appended.iter().all(Result::is_ok));
    let after = disk.counts();
    assert_eq!((after.file_syncs - before.file_syncs, after.folder_syncs - before.folder_syncs), (1, 0));
}

#[test]
fn who_follows_reads_nothing_from_disk() {
    let disk = SimDisk::new(1);
    let (simulation, streams) = simulated(&disk, WalStreamsConfig::default());
    let before = disk.counts().bytes_read;
    for n in 0..100 {
        simulation.block_on(streams.append(STREAM, one("x"))).unwrap();
        let read = simulation.block_on(streams.read(STREAM, n, ReadBounds::ALL)).unwrap();
        assert_eq!(read.records.len(), 1);
    }
    assert_eq!(disk.counts().bytes_read, before);
}

#[test]
fn an_append_that_is_given_up_before_its_batch_began_is_not_made() {
    let disk = SimDisk::new(1);
    let (simulation, streams) = simulated(&disk, WalStreamsConfig::default());
    let mut given_up = streams.append(STREAM, one("given up"));
    let polled = given_up.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending));
    drop(given_up);
    assert_eq!(simulation.block_on(streams.append(STREAM, one("kept"))).unwrap().first, 0);
}

/// However much is asked for at once: what has no room waits, and all of it is done.
#[test]
fn what_waits_is_bounded_by_its_bytes_and_nothing_is_lost() {
    let disk = SimDisk::new(1);
    let (simulation, streams) = simulated(&disk, WalStreamsConfig::default().segment_bytes(1 << 20));
    let large = Bytes::from(vec![7; 1 << 20]);
    let appends = (0..100).map(|_| streams.append(STREAM, Append::new([large.clone()], Timestamp(1))));
    assert!(simulation.block_on(join_all(appends)).iter().all(Result::is_ok));
    assert_eq!(simulation.block_on(streams.state(STREAM)).unwrap().tail, 100);
}

#[test]
fn a_folder_is_open_once_and_free_when_its_streams_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::host(HostConfig::default()).unwrap();
    let open = || {
        let pool = env.pool("test", 1, 8);
        block_on(WalStreams::open(folder.path(), &env, pool, WalStreamsConfig::default()))
    };
    for round in 0..20 {
        let streams = Arc::new(open().unwrap());
        assert!(matches!(open(), Err(StoreError::Locked { .. })));
        block_on(streams.create(STREAM, StreamLimits::NONE)).unwrap();
        let both = block_on(join(streams.append(STREAM, one("a")), streams.append(STREAM, one("b"))));
        assert_eq!((both.0.unwrap().first, both.1.unwrap().first), (2 * round, 2 * round + 1));
    }
    env.stop();
}
