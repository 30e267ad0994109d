//! A group: who has which records of a stream. Pure; handed the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::Timestamp;

use super::record::{GroupRecord, GroupSettings, GroupState, Held, Loose};
use crate::hal::RECORD_BYTES_MAX;

/// How many records of a stream all members of a group have at once, and how many wait to be given again, at most: who wants more has to finish some.
pub const OUTSTANDING_MAX: usize = 4_096;

/// How many records are taken, finished, given back or extended at once at most.
pub const TAKE_MAX: usize = 256;

/// How many dead records are listed; of older ones only the number is known.
pub const DEAD_MAX: usize = 1_024;

/// How long the name of a member is at most, in bytes.
pub const MEMBER_BYTES_MAX: usize = 128;

/// What a record that is not finished takes at most in what is stored, beside the name of who has it, in bytes.
const LOOSE_BYTES: usize = 32;

const _: () = assert!(TAKE_MAX <= OUTSTANDING_MAX);

// A group as a whole is one record.
const _: () = assert!(
    OUTSTANDING_MAX * (MEMBER_BYTES_MAX + LOOSE_BYTES) + (DEAD_MAX + 16) * LOOSE_BYTES < RECORD_BYTES_MAX
);

/// Why a group said no. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The member does not have the record: its time was over, somebody is done with it, or it never had it.
    #[error("{member} does not have record {offset}")]
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
    /// The name of a member is empty or too long.
    #[error("a member's name has between 1 and {MEMBER_BYTES_MAX} bytes, and this has {found}")]
    BadMember {
        /// How many it has.
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

#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    member: Arc<str>,
    until: Timestamp,
    deliveries: u32,
}

/// Who has which records of a stream. Each record below [`next`](Self::next) is with one member, waits to be given again, is dead, or somebody is done with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    settings: GroupSettings,
    next: u64,
    // Invariant: no offset is in two of these three, and all are below `next`.
    held: BTreeMap<u64, Taken>,
    waiting: BTreeMap<u64, u32>,
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

    /// Whether there is something to take: of a stream that ends at `tail`.
    pub fn has_work(&self, tail: u64) -> bool {
        !self.waiting.is_empty() || self.next < tail
    }

    /// When the next deadline of a member passes; none when nobody has anything.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.held.values().map(|taken| taken.until).min()
    }

    /// All that it is.
    pub fn state(&self) -> GroupState {
        let loose = |offsets: &BTreeMap<u64, u32>| {
            offsets
                .iter()
                .map(|(offset, deliveries)| Loose { offset: *offset, deliveries: *deliveries })
                .collect()
        };
        let held = |(offset, taken): (&u64, &Taken)| Held {
            offset: *offset,
            member: taken.member.clone(),
            until: taken.until,
            deliveries: taken.deliveries,
        };
        GroupState {
            settings: self.settings,
            next: self.next,
            held: self.held.iter().map(held).collect(),
            waiting: loose(&self.waiting),
            dead: loose(&self.dead),
            dead_unlisted: self.dead_unlisted,
            lost: self.lost,
        }
    }

    /// Gives `member` up to `most` records of a stream that ends at `tail`: first those that wait to be given again, then new ones. None when there is nothing to
    /// take. What is overdue is freed by [`expire`](Self::expire), and what the stream let go of by [`trimmed`](Self::trimmed), before.
    ///
    /// # Errors
    ///
    /// [`GroupError::Outstanding`], and what is wrong with the name.
    pub fn take(
        &self,
        member: &Arc<str>,
        most: usize,
        tail: u64,
        now: Timestamp,
    ) -> Result<Option<GroupRecord>, GroupError> {
        if member.is_empty() || member.len() > MEMBER_BYTES_MAX {
            return Err(GroupError::BadMember { found: member.len() });
        }
        if !self.has_work(tail) {
            return Ok(None);
        }
        let outstanding = self.held.len() + self.waiting.len();
        let room = OUTSTANDING_MAX.saturating_sub(outstanding);
        let most = most.clamp(1, TAKE_MAX);
        let again = self.waiting.keys().copied().take(most);
        // What waits is among those already.
        let fresh = (self.next..tail).take(room);
        let offsets: Vec<u64> = again.chain(fresh).take(most).collect();
        if offsets.is_empty() {
            return Err(GroupError::Outstanding { outstanding });
        }
        let until = now.after(self.settings.deadline);
        Ok(Some(GroupRecord::Taken { member: member.clone(), offsets, until }))
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
    pub fn done(&self, member: &Arc<str>, offsets: &[u64]) -> Result<Option<GroupRecord>, GroupError> {
        self.check_held(member, offsets)?;
        Ok((!offsets.is_empty()).then(|| GroupRecord::Done { offsets: offsets.to_vec() }))
    }

    /// The member gives these records back: they are given again at once, or are dead when they were given too often.
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    pub fn give_back(&self, member: &Arc<str>, offsets: &[u64]) -> Result<Vec<GroupRecord>, GroupError> {
        self.check_held(member, offsets)?;
        Ok(self.free(offsets.iter().copied()))
    }

    /// The member has these records for as long again, from `now` on.
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    pub fn extend(
        &self,
        member: &Arc<str>,
        offsets: &[u64],
        now: Timestamp,
    ) -> Result<Option<GroupRecord>, GroupError> {
        self.check_held(member, offsets)?;
        let until = now.after(self.settings.deadline);
        Ok((!offsets.is_empty()).then(|| GroupRecord::Extended { offsets: offsets.to_vec(), until }))
    }

    /// The member is gone: what it has is given to others.
    pub fn leave(&self, member: &str) -> Vec<GroupRecord> {
        let theirs = self.held.iter().filter(|(_, taken)| &*taken.member == member);
        self.free(theirs.map(|(offset, _)| *offset))
    }

    /// Frees what is overdue.
    pub fn expire(&self, now: Timestamp) -> Vec<GroupRecord> {
        let overdue = self.held.iter().filter(|(_, taken)| taken.until <= now);
        self.free(overdue.map(|(offset, _)| *offset))
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

    fn check_held(&self, member: &Arc<str>, offsets: &[u64]) -> Result<(), GroupError> {
        if offsets.len() > TAKE_MAX {
            return Err(GroupError::TooMany { found: offsets.len() });
        }
        let theirs = |offset: &u64| self.held.get(offset).is_some_and(|taken| taken.member == *member);
        match offsets.iter().find(|offset| !theirs(offset)) {
            Some(offset) => Err(GroupError::NotYours { member: member.clone(), offset: *offset }),
            None => Ok(()),
        }
    }

    fn free(&self, offsets: impl Iterator<Item = u64>) -> Vec<GroupRecord> {
        let is_dead = |offset: &u64| {
            self.held.get(offset).is_some_and(|taken| taken.deliveries >= self.settings.deliveries_max)
        };
        let (dead, again): (Vec<u64>, Vec<u64>) = offsets.partition(is_dead);
        let mut records = Vec::new();
        records.extend(again.chunks(TAKE_MAX).map(|some| GroupRecord::Freed { offsets: some.to_vec() }));
        records.extend(dead.chunks(TAKE_MAX).map(|some| GroupRecord::Died { offsets: some.to_vec() }));
        records
    }

    /// Takes in what was decided.
    pub fn apply(&mut self, record: &GroupRecord) {
        match record {
            GroupRecord::Snapshot(state) => *self = Self::of(state),
            GroupRecord::Settings(settings) => self.settings = *settings,
            GroupRecord::Taken { member, offsets, until } => {
                for offset in offsets {
                    let deliveries = self.waiting.remove(offset).unwrap_or(0).saturating_add(1);
                    let taken = Taken { member: member.clone(), until: *until, deliveries };
                    self.held.insert(*offset, taken);
                    self.next = self.next.max(offset.saturating_add(1));
                }
            }
            GroupRecord::Done { offsets } => offsets.iter().for_each(|offset| {
                self.held.remove(offset);
            }),
            GroupRecord::Freed { offsets } => {
                for offset in offsets {
                    if let Some(taken) = self.held.remove(offset) {
                        self.waiting.insert(*offset, taken.deliveries);
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
        let loose =
            |offsets: &[Loose]| offsets.iter().map(|loose| (loose.offset, loose.deliveries)).collect();
        let held = |held: &Held| {
            let taken = Taken { member: held.member.clone(), until: held.until, deliveries: held.deliveries };
            (held.offset, taken)
        };
        Self {
            settings: state.settings,
            next: state.next,
            held: state.held.iter().map(held).collect(),
            waiting: loose(&state.waiting),
            dead: loose(&state.dead),
            dead_unlisted: state.dead_unlisted,
            lost: state.lost,
        }
    }
}
