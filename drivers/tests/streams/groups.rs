//! A consumer group whose records are in streams on disk, at every point at which a crash can come: what a member was told that it has or is done with is so afterwards,
//! and every record is given until somebody is done with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::Env;
use nexus_drivers::disk::sim::{Outcome, SimDisk};
use nexus_drivers::streams::wal::{WalStreams, WalStreamsConfig};
use nexus_drivers::streams::{MemoryStreams, MemoryStreamsConfig};
use nexus_kernel::hal::{Append, StreamError, StreamLimits, StreamStore};
use nexus_kernel::streams::groups::{
    Group, GroupChange, GroupLog, GroupLogError, GroupRecord, Groups, Member, OUTSTANDING_MAX,
    SNAPSHOT_EVERY, Wish, apply, log_of,
};
use nexus_messages::syscall::{Chosen, GroupSettings};
use nexus_messages::{FileId, LifeId, Timestamp};

const STREAM: FileId = FileId(1);

fn name() -> Arc<str> {
    Arc::from("g")
}

fn changes(records: impl IntoIterator<Item = GroupRecord>) -> Vec<GroupChange> {
    records.into_iter().map(|record| (name(), record)).collect()
}

fn first() -> Vec<GroupChange> {
    changes([GroupRecord::Snapshot(Group::new(settings(), 0).state())])
}

fn wish(member: &Member, most: usize) -> Wish {
    Wish { member: member.clone(), take: 1, most, hold: None }
}

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
    let mut log = GroupLog::new(store.clone(), STREAM);
    let mut groups = log.read().await?;
    log.append(&first(), at(0)).await?;
    first().iter().for_each(|change| apply(&mut groups, change));
    known.acknowledged = groups.get("g").cloned();
    let members = ["a", "b", "c"].map(|agent| Member::new(agent, Some(LifeId(1))));
    for round in 0..30_u64 {
        if round % 3 == 0 {
            let records = (0..2).map(|n| Bytes::from(format!("{round}.{n}")));
            known.tail = store.append(STREAM, Append::new(records, at(round))).await?.tail;
        }
        let group = &groups["g"];
        let member = &members[usize::try_from(round % 3).unwrap_or_default()];
        let records = match round % 5 {
            0 | 1 => group.take(&wish(member, 2), known.tail, at(round)).ok().flatten().into_iter().collect(),
            2 => group.done(member, &Chosen::All).unwrap_or_default(),
            3 => group.give_back(member, &Chosen::All, at(round)).unwrap_or_default(),
            _ => group.expire(at(round)),
        };
        if records.is_empty() {
            continue;
        }
        let mut after = group.clone();
        records.iter().for_each(|record| after.apply(record));
        known.begun = vec![after];
        let changes = changes(records);
        log.append(&changes, at(round)).await?;
        changes.iter().for_each(|change| apply(&mut groups, change));
        known.begun.clear();
        known.acknowledged = groups.get("g").cloned();
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
            let read = simulation.block_on(async { GroupLog::new(store, STREAM).read().await });
            let group = read.expect("they are read after a crash").remove("g");
            let mut possible = known.acknowledged.iter().chain(&known.begun);
            let is_possible = match &group {
                Some(group) => {
                    possible.any(|possible| possible == group)
                        || (known.acknowledged.is_none() && *group == Group::new(settings(), 0))
                }
                None => known.acknowledged.is_none(),
            };
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
        let mut log = GroupLog::new(store.clone(), STREAM);
        let mut groups: Groups = log.read().await.unwrap();
        log.append(&first(), Timestamp(0)).await.unwrap();
        first().iter().for_each(|change| apply(&mut groups, change));
        let member = Member::new("a", None);
        for n in 0..2 * SNAPSHOT_EVERY {
            let taken = groups["g"].take(&wish(&member, 1), n + 1, Timestamp(n)).unwrap();
            for records in [Vec::from_iter(taken), vec![GroupRecord::Done { offsets: vec![n] }]] {
                let changes = changes(records);
                log.append(&changes, Timestamp(n)).await.unwrap();
                changes.iter().for_each(|change| apply(&mut groups, change));
                if log.is_long() {
                    log.shorten(&groups, Timestamp(n)).await.unwrap();
                }
            }
            let state = store.state(log_of(STREAM)).await.unwrap();
            assert!(state.tail - state.head <= SNAPSHOT_EVERY + 1, "{state:?}");
        }
        assert_eq!(GroupLog::new(store.clone(), STREAM).read().await.unwrap(), groups);
        assert_eq!(groups["g"].finished(), 2 * SNAPSHOT_EVERY);
    });
}

#[test]
fn what_another_owner_wrote_is_noticed() {
    let (env, simulation) = Env::seeded(1);
    drop(env);
    simulation.block_on(async {
        let store: Arc<dyn StreamStore> = Arc::new(MemoryStreams::default());
        let [mut one, mut other] = [(), ()].map(|()| GroupLog::new(store.clone(), STREAM));
        one.read().await.unwrap();
        other.read().await.unwrap();
        one.append(&first(), Timestamp(0)).await.unwrap();
        assert!(other.append(&first(), Timestamp(0)).await.unwrap_err().is_unknown());
        assert!(matches!(other.append(&first(), Timestamp(0)).await, Err(GroupLogError::InDoubt)));
        assert_eq!(other.read().await.unwrap().len(), 1);
    });
}

/// Groups of so many members with long names that all of them, written down as a whole, are some hundreds of kilobytes each.
fn large_groups(count: usize) -> Vec<GroupChange> {
    let member = Member::new("m".repeat(250), None);
    let mut group = Group::new(settings(), 0);
    while !group.is_full() {
        let taken = group.take(&wish(&member, usize::MAX), OUTSTANDING_MAX as u64, Timestamp(0));
        group.apply(&taken.expect("there is room").expect("there is something"));
    }
    let of = |n: usize| (format!("group {n}").into(), GroupRecord::Snapshot(group.state()));
    (0..count).map(of).collect()
}

/// Acknowledges all records of all groups, one after the other, as long as there is room, as their desk does. Gives the groups as they were acknowledged, and how it ended.
async fn acknowledge_all(
    store: &Arc<dyn StreamStore>,
    first: &[GroupChange],
) -> (Groups, Result<(), GroupLogError>) {
    let mut log = GroupLog::new(store.clone(), STREAM);
    let mut groups = log.read().await.unwrap();
    let begins = first.iter().map(|change| vec![change.clone()]);
    let done = |offset| {
        let done = |(name, _): &GroupChange| (name.clone(), GroupRecord::Done { offsets: vec![offset] });
        first.iter().map(done).collect()
    };
    for changes in begins.chain((0..OUTSTANDING_MAX as u64).map(done)) {
        if let Err(error) = log.append(&changes, Timestamp(0)).await {
            return (groups, Err(error));
        }
        changes.iter().for_each(|change| apply(&mut groups, change));
        if log.is_long()
            && let Err(error) = log.shorten(&groups, Timestamp(0)).await
        {
            return (groups, Err(error));
        }
    }
    (groups, Ok(()))
}

#[cfg(target_os = "linux")]
#[test]
fn groups_in_shared_memory_have_room_for_all_that_they_are() {
    use nexus_actors::{HostConfig, SharedFolder, SharedHome, SharedKind, Sleepers, block_on};
    use nexus_drivers::streams::{SharedStreams, SharedStreamsConfig};

    let env = Env::host(HostConfig::default()).unwrap();
    let host = tempfile::tempdir().unwrap();
    let folder = SharedFolder::new(host.path(), 1, SharedHome::Process);
    let open = |bytes_max| -> Arc<dyn StreamStore> {
        let (pool, sleepers) = (env.pool("test", 1, 8), Sleepers::new(&env));
        let mut config = SharedStreamsConfig::default();
        config.bytes_max = bytes_max;
        Arc::new(SharedStreams::new(folder.clone(), sleepers, pool, config))
    };
    let first = large_groups(32);
    block_on(async {
        let (groups, done) = acknowledge_all(&open(u64::MAX), &first).await;
        done.unwrap();
        // More than any stream has room for that says nothing.
        assert!(folder.held(SharedKind::Log).unwrap().1 > 10 << 20);
        assert!(
            groups.len() == 32 && groups.values().all(|group| group.finished() == OUTSTANDING_MAX as u64)
        );
        assert_eq!(GroupLog::new(open(u64::MAX), STREAM).read().await.unwrap(), groups);
        // Where there is no memory for it, that is told, and nothing is forgotten.
        assert!(open(u64::MAX).remove(log_of(STREAM)).await.unwrap());
        let (groups, done) = acknowledge_all(&open(8 << 20), &first).await;
        let full = done.unwrap_err();
        assert!(matches!(full, GroupLogError::Stream(StreamError::Store(_))), "{full:?}");
        assert!(groups.len() > 5, "{} groups", groups.len());
        assert_eq!(GroupLog::new(open(8 << 20), STREAM).read().await.unwrap(), groups);
    });
    env.stop();
}

#[test]
fn groups_in_memory_are_told_that_there_is_no_room_and_forget_nothing() {
    let (env, simulation) = Env::seeded(1);
    drop(env);
    simulation.block_on(async {
        let config = MemoryStreamsConfig::default().bytes_max(8 << 20);
        let store: Arc<dyn StreamStore> = Arc::new(MemoryStreams::new(config));
        let (groups, done) = acknowledge_all(&store, &large_groups(32)).await;
        let full = done.unwrap_err();
        assert!(matches!(full, GroupLogError::Stream(StreamError::Store(_))), "{full:?}");
        assert!(groups.len() > 5, "{} groups", groups.len());
        assert_eq!(GroupLog::new(store, STREAM).read().await.unwrap(), groups);
    });
}
