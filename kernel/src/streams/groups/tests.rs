//! Groups against a naive model, and what each promises alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{Chosen, GroupSettings};
use nexus_messages::{LifeId, Timestamp};
use proptest::prelude::*;

use super::record::{GroupRecord, Member};
use super::table::{Group, GroupError, OUTSTANDING_MAX, TAKE_MAX, Wish};

/// Whose life has the number of its first letter.
fn name(member: &str) -> Member {
    Member::new(member, Some(life(member)))
}

fn life(member: &str) -> LifeId {
    LifeId(member.bytes().next().unwrap_or_default().into())
}

fn wish(member: &str, most: usize) -> Wish {
    Wish { member: name(member), take: 1, most, hold: None }
}

fn these(offsets: &[u64]) -> Chosen {
    offsets.to_vec().into()
}

const NOW: Timestamp = Timestamp(0);

fn at(secs: u64) -> Timestamp {
    Timestamp(0).after(Duration::from_secs(secs))
}

fn settings() -> GroupSettings {
    GroupSettings::default().deadline(Duration::from_secs(10)).deliveries_max(3)
}

/// Takes, and gives the offsets with how often each was given.
fn take(group: &mut Group, member: &str, most: usize, tail: u64, secs: u64) -> Vec<(u64, u32)> {
    let Some(record) = group.take(&wish(member, most), tail, at(secs)).unwrap() else { return Vec::new() };
    group.apply(&record);
    group.deliveries(&record).into_iter().map(|given| (given.offset, given.deliveries)).collect()
}

fn apply(group: &mut Group, records: impl IntoIterator<Item = GroupRecord>) {
    records.into_iter().for_each(|record| group.apply(&record));
}

#[test]
fn each_record_is_given_to_one_member() {
    let mut group = Group::new(settings(), 2);
    assert_eq!(take(&mut group, "a", 2, 7, 0), [(2, 1), (3, 1)]);
    assert_eq!(take(&mut group, "b", 9, 7, 0), [(4, 1), (5, 1), (6, 1)]);
    assert_eq!(take(&mut group, "a", 9, 7, 0), []);
    assert_eq!((group.finished(), group.next()), (2, 7));
    let done = group.done(&name("b"), &these(&[4, 6])).unwrap();
    apply(&mut group, done);
    let done = group.done(&name("a"), &these(&[2, 3])).unwrap();
    apply(&mut group, done);
    assert_eq!(group.finished(), 5, "the fifth is not finished");
}

#[test]
fn what_a_crashed_member_had_is_taken_up_by_another_after_its_deadline() {
    let mut group = Group::new(settings(), 0);
    take(&mut group, "a", 2, 2, 0);
    assert_eq!(group.next_due(NOW), Some(at(10)));
    assert_eq!(group.expire(at(9)), []);
    let freed = group.expire(at(10));
    apply(&mut group, freed);
    assert_eq!(take(&mut group, "b", 1, 2, 10), [(0, 2)]);
    let late = group.done(&name("a"), &these(&[0])).unwrap_err();
    assert_eq!(late, GroupError::NotYours { member: Arc::from("a"), offset: 0 });
    // Nobody took the other one yet, but it is nobody's.
    assert!(group.done(&name("a"), &these(&[1])).is_err());
    let done = group.done(&name("b"), &these(&[0])).unwrap();
    apply(&mut group, done);
    assert_eq!(group.finished(), 1);
}

#[test]
fn a_member_that_is_not_finished_may_ask_for_more_time() {
    let mut group = Group::new(settings(), 0);
    take(&mut group, "a", 1, 1, 0);
    let extended = group.extend(&name("a"), &these(&[0]), None, at(8)).unwrap();
    apply(&mut group, extended);
    assert_eq!((group.expire(at(17)), group.next_due(NOW)), (vec![], Some(at(18))));
    assert!(group.extend(&name("b"), &these(&[0]), None, at(8)).is_err());
}

#[test]
fn what_is_given_too_often_is_dead_and_holds_nobody_up() {
    let mut group = Group::new(settings(), 0);
    for round in 1..=3 {
        assert_eq!(take(&mut group, "a", 1, 2, 0), [(0, round)]);
        let back = group.give_back(&name("a"), &these(&[0]), NOW).unwrap();
        apply(&mut group, back);
    }
    assert_eq!(take(&mut group, "a", 9, 2, 0), [(1, 1)]);
    assert_eq!(
        group.state().dead.iter().map(|dead| (dead.offset, dead.deliveries)).collect::<Vec<_>>(),
        [(0, 3)]
    );
    assert_eq!(group.finished(), 1);
    let buried = group.bury(&[0, 7]);
    apply(&mut group, buried);
    assert!(group.state().dead.is_empty() && group.bury(&[0]).is_none());
}

#[test]
fn who_leaves_gives_all_back() {
    let mut group = Group::new(settings(), 0);
    take(&mut group, "a", 3, 9, 0);
    take(&mut group, "b", 1, 9, 0);
    let left = group.leave(Some(life("a")));
    apply(&mut group, left);
    assert_eq!(take(&mut group, "c", 4, 9, 1), [(0, 2), (1, 2), (2, 2), (4, 1)]);
}

#[test]
fn what_was_not_received_does_not_count_as_given() {
    let mut group = Group::new(settings(), 0);
    take(&mut group, "a", 2, 2, 0);
    let untaken = group.untake(&name("a"), 1, &[1]);
    apply(&mut group, untaken);
    assert_eq!(group.counts(), (1, 1, 0), "the second was kept");
    assert_eq!(group.untake(&name("b"), 1, &[]), [], "it is not theirs");
    assert_eq!(take(&mut group, "b", 9, 2, 0), [(0, 1)]);
}

#[test]
fn what_is_kept_back_is_given_later() {
    let mut group = Group::new(settings(), 0);
    take(&mut group, "a", 1, 1, 0);
    let back = group.give_back(&name("a"), &Chosen::All, at(5)).unwrap();
    apply(&mut group, back);
    assert_eq!(group.next_due(at(0)), Some(at(5)));
    assert_eq!(take(&mut group, "b", 1, 1, 4), []);
    assert_eq!(take(&mut group, "b", 1, 1, 5), [(0, 2)]);
}

#[test]
fn what_is_tied_to_no_life_is_whoever_has_the_name() {
    let mut group = Group::new(settings(), 0);
    let wish = Wish { member: Member::new("a", None), ..wish("a", 1) };
    let taken = group.take(&wish, 1, at(0)).unwrap();
    apply(&mut group, taken);
    assert_eq!(group.leave(None), [], "it outlives the process");
    assert!(group.done(&name("b"), &0.into()).is_err());
    let done = group.done(&Member::new("a", Some(LifeId(99))), &Chosen::UpTo(0)).unwrap();
    apply(&mut group, done);
    assert_eq!(group.finished(), 1);
}

#[test]
fn the_dead_can_be_given_again() {
    let mut group = Group::new(settings().deliveries_max(1), 0);
    take(&mut group, "a", 1, 1, 0);
    let back = group.give_back(&name("a"), &0.into(), NOW).unwrap();
    apply(&mut group, back);
    assert_eq!((take(&mut group, "a", 1, 1, 0), group.counts()), (vec![], (0, 0, 1)));
    let revived = group.revive(&[0, 5]);
    apply(&mut group, revived);
    assert_eq!(take(&mut group, "a", 1, 1, 0), [(0, 1)]);
}

#[test]
fn what_the_stream_let_go_of_is_lost_and_counted() {
    let mut group = Group::new(settings(), 0);
    take(&mut group, "a", 3, 9, 0);
    assert_eq!(group.trimmed(0), None);
    let trimmed = group.trimmed(5).unwrap();
    apply(&mut group, [trimmed]);
    assert_eq!((group.next(), group.state().lost), (5, 5));
    assert_eq!(take(&mut group, "a", 1, 9, 0), [(5, 1)]);
}

#[test]
fn a_group_has_bounds_and_says_so() {
    let mut group = Group::new(settings(), 0);
    let tail = 10 * OUTSTANDING_MAX as u64;
    for _ in 0..OUTSTANDING_MAX / TAKE_MAX {
        assert_eq!(take(&mut group, "a", usize::MAX, tail, 0).len(), TAKE_MAX);
    }
    let full = group.take(&wish("a", 1), tail, at(0)).unwrap_err();
    assert_eq!(full, GroupError::Outstanding { outstanding: OUTSTANDING_MAX });
    let freed = group.leave(Some(life("a")));
    apply(&mut group, freed);
    assert_eq!(
        take(&mut group, "b", 1, tail, 0),
        [(0, 2)],
        "what waits is given although there is no room for more"
    );
    let many: Vec<u64> = (0..=TAKE_MAX as u64).collect();
    assert!(matches!(group.done(&name("b"), &these(&many)), Err(GroupError::TooMany { .. })));
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    With(u8, u64, u32),
    Waits(u32),
    Dead,
    Done,
    Lost,
}

#[derive(Debug, Clone)]
enum Asked {
    Append(u64),
    Take(u8, usize),
    Done(u8, usize),
    GiveBack(u8, usize),
    Extend(u8, usize),
    Leave(u8),
    Pass(u64),
    Trim(u64),
}

fn asked() -> impl Strategy<Value = Asked> {
    let member = || 0..3_u8;
    prop_oneof![
        3 => (1..5_u64).prop_map(Asked::Append),
        6 => (member(), 1..4_usize).prop_map(|(member, most)| Asked::Take(member, most)),
        4 => (member(), 0..3_usize).prop_map(|(member, nth)| Asked::Done(member, nth)),
        2 => (member(), 0..3_usize).prop_map(|(member, nth)| Asked::GiveBack(member, nth)),
        1 => (member(), 0..3_usize).prop_map(|(member, nth)| Asked::Extend(member, nth)),
        1 => member().prop_map(Asked::Leave),
        3 => (1..8_u64).prop_map(Asked::Pass),
        1 => (0..4_u64).prop_map(Asked::Trim),
    ]
}

/// One record after the other, in the plainest way.
#[derive(Debug, Default)]
struct Model {
    fates: BTreeMap<u64, Fate>,
    tail: u64,
    head: u64,
    now: u64,
}

impl Model {
    fn free(&mut self, which: impl Fn(u64, u8, u64) -> bool) {
        for (offset, fate) in &mut self.fates {
            if let Fate::With(member, until, deliveries) = *fate
                && which(*offset, member, until)
            {
                *fate = if deliveries >= 3 { Fate::Dead } else { Fate::Waits(deliveries) };
            }
        }
    }

    fn theirs(&self, member: u8) -> Vec<u64> {
        let theirs =
            self.fates.iter().filter(|(_, fate)| matches!(fate, Fate::With(by, ..) if *by == member));
        theirs.map(|(offset, _)| *offset).collect()
    }
}

proptest! {
    #[test]
    fn a_group_is_what_it_should_be_and_what_its_records_make_it(all in prop::collection::vec(asked(), 1..150)) {
        let (mut group, mut model) = (Group::new(settings(), 0), Model::default());
        let mut replayed = Group::default();
        let mut log = vec![GroupRecord::Snapshot(group.state())];
        for asked in all {
            let mut records = Vec::new();
            match asked {
                Asked::Append(count) => model.tail += count,
                Asked::Take(member, most) => {
                    let waiting = model.fates.iter().filter(|(_, fate)| matches!(fate, Fate::Waits(_)));
                    let given = model.fates.len() as u64;
                    let want: Vec<u64> = waiting.map(|(offset, _)| *offset).chain(given..model.tail).take(most).collect();
                    let record = group.take(&wish(&member.to_string(), most), model.tail, at(model.now)).unwrap();
                    let got = match &record {
                        Some(GroupRecord::Taken { offsets, .. }) => offsets.clone(),
                        _ => vec![],
                    };
                    prop_assert_eq!(&got, &want);
                    for offset in got {
                        let before = match model.fates.get(&offset) {
                            Some(Fate::Waits(deliveries)) => *deliveries,
                            _ => 0,
                        };
                        model.fates.insert(offset, Fate::With(member, model.now + 10, before + 1));
                    }
                    records.extend(record);
                }
                Asked::Done(member, nth) | Asked::GiveBack(member, nth) | Asked::Extend(member, nth) => {
                    let theirs = model.theirs(member);
                    let who = name(&member.to_string());
                    let Some(offset) = theirs.get(nth).copied() else {
                        prop_assert!(group.done(&who, &(model.tail + 5).into()).is_err());
                        continue;
                    };
                    match asked {
                        Asked::Done(..) => {
                            records.extend(group.done(&who, &offset.into()).unwrap());
                            model.fates.insert(offset, Fate::Done);
                        }
                        Asked::GiveBack(..) => {
                            records.extend(group.give_back(&who, &offset.into(), NOW).unwrap());
                            model.free(|at, _, _| at == offset);
                        }
                        _ => {
                            records.extend(group.extend(&who, &offset.into(), None, at(model.now)).unwrap());
                            if let Some(Fate::With(_, until, _)) = model.fates.get_mut(&offset) {
                                *until = model.now + 10;
                            }
                        }
                    }
                }
                Asked::Leave(member) => {
                    records.extend(group.leave(Some(life(&member.to_string()))));
                    model.free(|_, by, _| by == member);
                }
                Asked::Pass(secs) => {
                    model.now += secs;
                    records.extend(group.expire(at(model.now)));
                    let now = model.now;
                    model.free(|_, _, until| until <= now);
                }
                Asked::Trim(count) => {
                    model.head = (model.head + count).min(model.tail);
                    records.extend(group.trimmed(model.head));
                    for offset in 0..model.head {
                        let fate = model.fates.entry(offset).or_insert(Fate::Lost);
                        if matches!(fate, Fate::With(..) | Fate::Waits(_) | Fate::Dead) {
                            *fate = Fate::Lost;
                        }
                    }
                }
            }
            for record in records {
                group.apply(&record);
                let stored = GroupRecord::decode(&record.encode("g"));
                prop_assert_eq!(stored, Ok((Arc::from("g"), record.clone())));
                log.push(record);
            }
            let state = group.state();
            let with: Vec<(u64, u8, u64, u32)> = model.fates.iter().filter_map(|(offset, fate)| match fate {
                Fate::With(member, until, deliveries) => Some((*offset, *member, *until, *deliveries)),
                _ => None,
            }).collect();
            let held: Vec<(u64, u8, u64, u32)> = state.held.iter()
                .map(|held| (held.offset, held.member.agent.parse().unwrap(), held.until.secs(), held.deliveries))
                .collect();
            prop_assert_eq!(held, with);
            let waiting: Vec<u64> = model.fates.iter().filter(|(_, fate)| matches!(fate, Fate::Waits(_))).map(|(o, _)| *o).collect();
            prop_assert_eq!(state.waiting.iter().map(|loose| loose.offset).collect::<Vec<_>>(), waiting);
            let dead: Vec<u64> = model.fates.iter().filter(|(_, fate)| **fate == Fate::Dead).map(|(o, _)| *o).collect();
            prop_assert_eq!(state.dead.iter().map(|loose| loose.offset).collect::<Vec<_>>(), dead);
            prop_assert_eq!(group.next(), model.fates.len() as u64);
        }
        log.iter().for_each(|record| replayed.apply(record));
        prop_assert_eq!(&replayed, &group);
        let mut short = Group::default();
        short.apply(&GroupRecord::Snapshot(group.state()));
        prop_assert_eq!(short, group);
    }

    #[test]
    fn noise_is_no_record(noise in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok((name, record)) = GroupRecord::decode(&noise) {
            prop_assert_eq!(GroupRecord::decode(&record.encode(&name)), Ok((name, record)));
        }
    }
}
