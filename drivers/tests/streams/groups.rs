//! A consumer group whose records are in streams on disk, at every point at which a crash can come: what a member was told that it has or is done with is so afterwards,
//! and every record is given until somebody is done with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::Env;
use nexus_drivers::disk::sim::{Outcome, SimDisk};
use nexus_drivers::streams::MemoryStreams;
use nexus_drivers::streams::wal::{WalStreams, WalStreamsConfig};
use nexus_kernel::hal::{Append, StreamLimits, StreamStore};
use nexus_kernel::streams::groups::{Group, GroupLog, GroupLogError, GroupSettings, SNAPSHOT_EVERY};
use nexus_messages::{FileId, Timestamp};

const STREAM: FileId = FileId(1);
const GROUP: FileId = FileId(2);

fn settings() -> GroupSettings {
    GroupSettings::default().deadline(Duration::from_nanos(5)).deliveries_max(3)
}

fn open(disk: &SimDisk, env: &Env) -> Option<Arc<dyn StreamStore>> {
    let config = WalStreamsConfig::default().segment_bytes(900).ahead_bytes(512);
    let streams = WalStreams::open_in(disk.folder(), env, env.pool("test", 1, 8), config).ok()?;
    Some(Arc::new(streams))
}

/// What was acknowledged, and what may be there instead because it was begun.
#[derive(Debug, Clone, Default)]
struct Known {
    acknowledged: Option<Group>,
    begun: Vec<Group>,
    tail: u64,
}

/// Members that take, finish, give back, leave and crash.
async fn work(store: Arc<dyn StreamStore>, known: &mut Known) -> Result<(), GroupLogError> {
    let at = Timestamp;
    store.create(STREAM, StreamLimits::NONE).await?;
    let mut log = GroupLog::open(store.clone(), GROUP, settings(), 0, at(0)).await?;
    known.acknowledged = Some(log.group().clone());
    let members = ["a", "b", "c"].map(Arc::<str>::from);
    for round in 0..30_u64 {
        if round % 3 == 0 {
            let records = (0..2).map(|n| Bytes::from(format!("{round}.{n}")));
            known.tail = store.append(STREAM, Append::new(records, at(round))).await?.tail;
        }
        let group = log.group();
        let member = &members[usize::try_from(round % 3).unwrap_or_default()];
        let theirs: Vec<u64> =
            group.state().held.iter().filter(|held| held.member == *member).map(|held| held.offset).collect();
        let records = match round % 5 {
            0 | 1 => group.take(member, 2, known.tail, at(round)).ok().flatten().into_iter().collect(),
            2 => group.done(member, &theirs).ok().flatten().into_iter().collect(),
            3 => group.give_back(member, &theirs).unwrap_or_default(),
            _ => group.expire(at(round)),
        };
        if records.is_empty() {
            continue;
        }
        let mut after = group.clone();
        records.iter().for_each(|record| after.apply(record));
        known.begun = vec![after];
        log.commit(&records, at(round)).await?;
        known.begun.clear();
        known.acknowledged = Some(log.group().clone());
    }
    Ok(())
}

#[test]
fn a_crash_anywhere_leaves_a_group_that_was_acknowledged_or_begun() {
    let mut states = 0;
    for change in 1.. {
        let disk = SimDisk::new(change);
        disk.power_off_at(change);
        let mut known = Known::default();
        let (env, simulation) = Env::seeded(change);
        if let Some(store) = open(&disk, &env) {
            // How it ends does not matter: what was acknowledged does.
            let _ = simulation.block_on(work(store, &mut known));
        }
        if !disk.is_off() {
            println!("{states} states");
            assert!(states > 200 && known.acknowledged.is_some_and(|group| group.next() > 10), "{states}");
            return;
        }
        for outcome in Outcome::of(disk.unsynced(), 9, 0..6) {
            let disk = disk.copy();
            outcome.crash(&disk);
            states += 1;
            let (env, simulation) = Env::seeded(1);
            let store = open(&disk, &env).expect("it opens after a crash");
            let opened = simulation.block_on(GroupLog::open(store, GROUP, settings(), 0, Timestamp(0)));
            let group = opened.expect("it is read after a crash").group().clone();
            let possible = known.acknowledged.iter().chain(&known.begun);
            let is_possible = possible.clone().any(|possible| *possible == group)
                || (known.acknowledged.is_none() && group == Group::new(settings(), 0));
            assert!(is_possible, "crash at {change}, {outcome:?}: {group:?} is none of {known:?}");
        }
    }
}

#[test]
fn the_records_of_a_group_do_not_pile_up() {
    let (env, simulation) = Env::seeded(1);
    drop(env);
    simulation.block_on(async {
        let store: Arc<dyn StreamStore> = Arc::new(MemoryStreams::default());
        let open = || GroupLog::open(store.clone(), GROUP, settings(), 0, Timestamp(0));
        let mut log = open().await.unwrap();
        let member = Arc::from("a");
        for n in 0..2 * SNAPSHOT_EVERY {
            let taken = log.group().take(&member, 1, n + 1, Timestamp(n)).unwrap();
            log.commit(&Vec::from_iter(taken), Timestamp(n)).await.unwrap();
            let done = log.group().done(&member, &[n]).unwrap();
            log.commit(&Vec::from_iter(done), Timestamp(n)).await.unwrap();
            let state = store.state(GROUP).await.unwrap();
            assert!(state.tail - state.head <= SNAPSHOT_EVERY + 1, "{state:?}");
        }
        assert_eq!(open().await.unwrap().group(), log.group());
        assert_eq!(log.group().finished(), 2 * SNAPSHOT_EVERY);
    });
}
