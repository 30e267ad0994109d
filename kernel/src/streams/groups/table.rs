//! A group: who has which records of a stream. Pure; handed the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{Chosen, GROUP_RECORDS_MAX, GroupSettings};
use nexus_messages::{LifeId, Timestamp};

use super::record::{GroupRecord, GroupState, Held, Loose, Member};
use crate::hal::RECORD_BYTES_MAX;

/// How many records of a stream all members of a group have at once, and how many wait to be given again, at most: who wants more has to finish some.
pub const OUTSTANDING_MAX: usize = 2_048;

/// How many records are taken or named at once at most, and how many stand in one record of a group.
pub const TAKE_MAX: usize = GROUP_RECORDS_MAX;

/// How many dead records are listed; of older ones only the number is known.
pub const DEAD_MAX: usize = 1_024;

/// How long the name of a member is at most, in bytes: that of an agent.
const MEMBER_BYTES_MAX: usize = 255;

/// What a record that is not finished takes at most in what is stored, beside the name of who has it, in bytes.
const HELD_BYTES: usize = 64;

const _: () = assert!(TAKE_MAX <= OUTSTANDING_MAX);

// A group as a whole is one record.
const _: () = assert!(
    OUTSTANDING_MAX * (MEMBER_BYTES_MAX + HELD_BYTES) + (DEAD_MAX + 16) * HELD_BYTES < RECORD_BYTES_MAX
);

/// Why a group said no. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The member does not have the record: its time was over, somebody is done with it, or it never had it.
    #[error("{member} does not have record {offset}, or not any more")]
    NotYours {
        /// Who asked.
        member: Arc<str>,
        /// Of which record.
        offset: u64,
    },
    /// There are as many records with members, or to be given again, as there can be.
    #[error("{outstanding} records are not finished, and there can be no more")]
    Outstanding {
        /// How many there are.
        outstanding: usize,
    },
    /// More at once than can be.
    #[error("{found} records at once, of which there may be {TAKE_MAX}")]
    TooMany {
        /// How many were named.
        found: usize,
    },
}

/// A record that was given to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Its offset.
    pub offset: u64,
    /// How often it was given, this time included.
    pub deliveries: u32,
}

/// What a member asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Who asks.
    pub member: Member,
    /// The number of the take.
    pub take: u64,
    /// How many records at most.
    pub most: usize,
    /// For how long; none for as long as the group says.
    pub hold: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    member: Member,
    take: u64,
    since: Timestamp,
    until: Timestamp,
    deliveries: u32,
}

/// How often a record was given, and from when on it may be given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    deliveries: u32,
    from: Timestamp,
}

/// Who has which records of a stream. Each record below [`next`](Self::next) is with one member, waits to be given again, is dead, or somebody is done with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    settings: GroupSettings,
    next: u64,
    // Invariant: no offset is in two of these three, and all are below `next`.
    held: BTreeMap<u64, Taken>,
    waiting: BTreeMap<u64, Free>,
    dead: BTreeMap<u64, u32>,
    dead_unlisted: u64,
    lost: u64,
}

impl Group {
    /// A group to which records are given from `next` on.
    pub fn new(settings: GroupSettings, next: u64) -> Self {
        Self { settings, next, ..Self::default() }
    }

    /// How it shares its stream.
    pub fn settings(&self) -> GroupSettings {
        self.settings
    }

    /// The first record that was never given.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// All records before this one are finished or dead.
    pub fn finished(&self) -> u64 {
        let first = |offsets: Option<u64>| offsets.unwrap_or(self.next);
        first(self.held.keys().next().copied()).min(first(self.waiting.keys().next().copied()))
    }

    /// How many records are with members, wait to be given again, and are dead.
    pub fn counts(&self) -> (usize, usize, u64) {
        (self.held.len(), self.waiting.len(), self.dead.len() as u64 + self.dead_unlisted)
    }

    /// How many records the stream has let go of before anybody was done with them.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether no more records may be given before some are finished.
    pub fn is_full(&self) -> bool {
        self.held.len() + self.waiting.len() >= OUTSTANDING_MAX
    }

    /// When there is something to be done next: the time of a member is over, or a record may be given again.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let later = self.waiting.values().map(|free| free.from).filter(|from| *from > now);
        self.held.values().map(|taken| taken.until).chain(later).min()
    }

    /// All that it is.
    pub fn state(&self) -> GroupState {
        let waiting = |(offset, free): (&u64, &Free)| Loose {
            offset: *offset,
            deliveries: free.deliveries,
            from: free.from,
        };
        let dead = |(offset, deliveries): (&u64, &u32)| Loose {
            offset: *offset,
            deliveries: *deliveries,
            from: Timestamp::default(),
        };
        let held = |(offset, taken): (&u64, &Taken)| Held {
            offset: *offset,
            member: taken.member.clone(),
            take: taken.take,
            since: taken.since,
            until: taken.until,
            deliveries: taken.deliveries,
        };
        GroupState {
            settings: self.settings,
            next: self.next,
            held: self.held.iter().map(held).collect(),
            waiting: self.waiting.iter().map(waiting).collect(),
            dead: self.dead.iter().map(dead).collect(),
            dead_unlisted: self.dead_unlisted,
            lost: self.lost,
        }
    }

    /// Gives a member records of a stream that ends at `tail`: first those that wait to be given again, then new ones. None when there is nothing to
    /// take. What is overdue is freed by [`expire`](Self::expire), and what the stream let go of by [`trimmed`](Self::trimmed), before.
    ///
    /// # Errors
    ///
    /// [`GroupError::Outstanding`].
    pub fn take(&self, wish: &Wish, tail: u64, now: Timestamp) -> Result<Option<GroupRecord>, GroupError> {
        let outstanding = self.held.len() + self.waiting.len();
        let room = OUTSTANDING_MAX.saturating_sub(outstanding);
        let most = wish.most.clamp(1, TAKE_MAX);
        let again = self.waiting.iter().filter(|(_, free)| free.from <= now).map(|(offset, _)| *offset);
        // What waits is among those already.
        let fresh = (self.next..tail).take(room);
        let offsets: Vec<u64> = again.take(most).chain(fresh).take(most).collect();
        if offsets.is_empty() {
            return match self.next < tail {
                true => Err(GroupError::Outstanding { outstanding }),
                false => Ok(None),
            };
        }
        let until = now.after(wish.hold.unwrap_or(self.settings.deadline));
        let (member, take) = (wish.member.clone(), wish.take);
        Ok(Some(GroupRecord::Taken { member, take, offsets, since: now, until }))
    }

    /// What a record that was applied gave its member; nothing for others.
    pub fn deliveries(&self, record: &GroupRecord) -> Vec<Delivery> {
        let GroupRecord::Taken { offsets, .. } = record else { return Vec::new() };
        let delivery = |offset: &u64| {
            let deliveries = self.held.get(offset)?.deliveries;
            Some(Delivery { offset: *offset, deliveries })
        };
        offsets.iter().filter_map(delivery).collect()
    }

    /// The member is done with these records. A deadline that passed, and that nobody has noticed yet, counts for nothing.
    ///
    /// # Errors
    ///
    /// [`GroupError::NotYours`] names the first that the member does not have.
    pub fn done(&self, member: &Member, which: &Chosen) -> Result<Vec<GroupRecord>, GroupError> {
        let offsets = self.theirs(member, which)?;
        Ok(offsets.chunks(TAKE_MAX).map(|some| GroupRecord::Done { offsets: some.to_vec() }).collect())
    }

    /// The member gives these records back: they are given again, not before `from`, or are dead when they were given too often.
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    pub fn give_back(
        &self,
        member: &Member,
        which: &Chosen,
        from: Timestamp,
    ) -> Result<Vec<GroupRecord>, GroupError> {
        Ok(self.free(self.theirs(member, which)?.into_iter(), from))
    }

    /// The member has these records for as long as `hold`, or as the group says, from `now` on.
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    pub fn extend(
        &self,
        member: &Member,
        which: &Chosen,
        hold: Option<Duration>,
        now: Timestamp,
    ) -> Result<Vec<GroupRecord>, GroupError> {
        let until = now.after(hold.unwrap_or(self.settings.deadline));
        let extended = |some: &[u64]| GroupRecord::Extended { offsets: some.to_vec(), until };
        Ok(self.theirs(member, which)?.chunks(TAKE_MAX).map(extended).collect())
    }

    /// What the member was given by this take, but for the offsets in `kept`, it was not given.
    pub fn untake(&self, member: &Member, take: u64, kept: &[u64]) -> Vec<GroupRecord> {
        let mut offsets = self.taken_by(member, take);
        offsets.retain(|offset| !kept.contains(offset));
        offsets.chunks(TAKE_MAX).map(|some| GroupRecord::Untaken { offsets: some.to_vec() }).collect()
    }

    /// The records that the member has by this take.
    pub fn taken_by(&self, member: &Member, take: u64) -> Vec<u64> {
        let theirs = self.held.iter().filter(|(_, taken)| taken.take == take && taken.member.is(member));
        theirs.map(|(offset, _)| *offset).collect()
    }

    /// This life is over: what is tied to it is given to others. None stands for the end of the process.
    pub fn leave(&self, life: Option<LifeId>) -> Vec<GroupRecord> {
        let is_over =
            |taken: &Taken| taken.member.life.is_some() && (life.is_none() || taken.member.life == life);
        let theirs = self.held.iter().filter(|(_, taken)| is_over(taken));
        self.free(theirs.map(|(offset, _)| *offset), Timestamp::default())
    }

    /// Frees what is overdue.
    pub fn expire(&self, now: Timestamp) -> Vec<GroupRecord> {
        let overdue = self.held.iter().filter(|(_, taken)| taken.until <= now);
        self.free(overdue.map(|(offset, _)| *offset), Timestamp::default())
    }

    /// The stream begins at `head` now: what was before it is lost. None when that changes nothing.
    pub fn trimmed(&self, head: u64) -> Option<GroupRecord> {
        let first = |offsets: Option<u64>| offsets.is_some_and(|offset| offset < head);
        let changes = self.next < head
            || first(self.held.keys().next().copied())
            || first(self.waiting.keys().next().copied())
            || first(self.dead.keys().next().copied());
        changes.then_some(GroupRecord::Head { head })
    }

    /// Lists dead records no more. Those that are not listed are passed over; none when that leaves none.
    pub fn bury(&self, offsets: &[u64]) -> Option<GroupRecord> {
        let listed = offsets.iter().copied().filter(|offset| self.dead.contains_key(offset));
        let offsets: Vec<u64> = listed.take(TAKE_MAX).collect();
        (!offsets.is_empty()).then_some(GroupRecord::Buried { offsets })
    }

    /// Gives dead records again, as if they never had been. Those that are not listed are passed over, and so are those for which there is no room.
    pub fn revive(&self, offsets: &[u64]) -> Option<GroupRecord> {
        let room = OUTSTANDING_MAX.saturating_sub(self.held.len() + self.waiting.len());
        let listed = offsets.iter().copied().filter(|offset| self.dead.contains_key(offset));
        let offsets: Vec<u64> = listed.take(room.min(TAKE_MAX)).collect();
        (!offsets.is_empty()).then_some(GroupRecord::Revived { offsets })
    }

    fn theirs(&self, member: &Member, which: &Chosen) -> Result<Vec<u64>, GroupError> {
        let theirs = |last: u64| {
            let theirs = self.held.range(..=last).filter(|(_, taken)| taken.member.is(member));
            theirs.map(|(offset, _)| *offset).collect()
        };
        let offsets = match which {
            Chosen::UpTo(last) => return Ok(theirs(*last)),
            Chosen::Records(offsets) => offsets,
            _ => return Ok(theirs(u64::MAX)),
        };
        if offsets.len() > TAKE_MAX {
            return Err(GroupError::TooMany { found: offsets.len() });
        }
        let is_theirs = |offset: &u64| self.held.get(offset).is_some_and(|taken| taken.member.is(member));
        match offsets.iter().find(|offset| !is_theirs(offset)) {
            Some(offset) => Err(GroupError::NotYours { member: member.agent.clone(), offset: *offset }),
            None => Ok(offsets.clone()),
        }
    }

    fn free(&self, offsets: impl Iterator<Item = u64>, from: Timestamp) -> Vec<GroupRecord> {
        let is_dead = |offset: &u64| {
            self.held.get(offset).is_some_and(|taken| taken.deliveries >= self.settings.deliveries_max)
        };
        let (dead, again): (Vec<u64>, Vec<u64>) = offsets.partition(is_dead);
        let mut records = Vec::new();
        records
            .extend(again.chunks(TAKE_MAX).map(|some| GroupRecord::Freed { offsets: some.to_vec(), from }));
        records.extend(dead.chunks(TAKE_MAX).map(|some| GroupRecord::Died { offsets: some.to_vec() }));
        records
    }

    /// Takes in what was decided.
    pub fn apply(&mut self, record: &GroupRecord) {
        match record {
            GroupRecord::Snapshot(state) => *self = Self::of(state),
            GroupRecord::Settings(settings) => self.settings = *settings,
            GroupRecord::Taken { member, take, offsets, since, until } => {
                for offset in offsets {
                    let before = self.waiting.remove(offset).map_or(0, |free| free.deliveries);
                    let (member, deliveries) = (member.clone(), before.saturating_add(1));
                    let taken = Taken { member, take: *take, since: *since, until: *until, deliveries };
                    self.held.insert(*offset, taken);
                    self.next = self.next.max(offset.saturating_add(1));
                }
            }
            GroupRecord::Done { offsets } => offsets.iter().for_each(|offset| {
                self.held.remove(offset);
            }),
            GroupRecord::Freed { offsets, from } => {
                for offset in offsets {
                    if let Some(taken) = self.held.remove(offset) {
                        self.waiting.insert(*offset, Free { deliveries: taken.deliveries, from: *from });
                    }
                }
            }
            GroupRecord::Untaken { offsets } => {
                for offset in offsets {
                    if let Some(taken) = self.held.remove(offset) {
                        let free = Free {
                            deliveries: taken.deliveries.saturating_sub(1),
                            from: Timestamp::default(),
                        };
                        self.waiting.insert(*offset, free);
                    }
                }
            }
            GroupRecord::Died { offsets } => {
                for offset in offsets {
                    if let Some(taken) = self.held.remove(offset) {
                        self.dead.insert(*offset, taken.deliveries);
                    }
                }
                while self.dead.len() > DEAD_MAX {
                    self.dead.pop_first();
                    self.dead_unlisted += 1;
                }
            }
            GroupRecord::Extended { offsets, until } => {
                for offset in offsets {
                    if let Some(taken) = self.held.get_mut(offset) {
                        taken.until = *until;
                    }
                }
            }
            GroupRecord::Buried { offsets } => offsets.iter().for_each(|offset| {
                self.dead.remove(offset);
            }),
            GroupRecord::Revived { offsets } => {
                for offset in offsets {
                    if self.dead.remove(offset).is_some() {
                        self.waiting.insert(*offset, Free { deliveries: 0, from: Timestamp::default() });
                    }
                }
            }
            GroupRecord::Removed => *self = Self::default(),
            GroupRecord::Head { head } => {
                let never_given = head.saturating_sub(self.next);
                let (held, waiting) = (self.held.split_off(head), self.waiting.split_off(head));
                self.lost += never_given + (self.held.len() + self.waiting.len()) as u64;
                (self.held, self.waiting) = (held, waiting);
                self.dead = self.dead.split_off(head);
                self.next = self.next.max(*head);
            }
        }
    }

    fn of(state: &GroupState) -> Self {
        let waiting = |loose: &Loose| (loose.offset, Free { deliveries: loose.deliveries, from: loose.from });
        let held = |held: &Held| {
            let Held { offset, member, take, since, until, deliveries } = held.clone();
            (offset, Taken { member, take, since, until, deliveries })
        };
        Self {
            settings: state.settings,
            next: state.next,
            held: state.held.iter().map(held).collect(),
            waiting: state.waiting.iter().map(waiting).collect(),
            dead: state.dead.iter().map(|loose| (loose.offset, loose.deliveries)).collect(),
            dead_unlisted: state.dead_unlisted,
            lost: state.lost,
        }
    }
}
