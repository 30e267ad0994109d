//! What callers saw of locks, and what is wrong with it: the oracle's pure core.
//!
//! A hold counts from when its caller heard of it until that caller gives it back, somebody may have taken it by force, or its time is over by the caller's own clock, counted from
//! before it was asked for: the kernel's time for it began later. So two that overlap were held at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nexus::LockKind;

use crate::order::{Span, overtaken};

/// What is locked. One is below another.
pub(crate) const PATHS: [&str; 4] = ["/locked/0", "/locked/1", "/locked/1/below", "/locked/2"];

/// A number of the common count, and the time just after it was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) number: u64,
    pub(crate) time: Duration,
}

/// A lock that was given.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) path: usize,
    pub(crate) kind: LockKind,
    pub(crate) token: u64,
    /// The number before it was asked for.
    pub(crate) sent: u64,
    /// When the caller had it.
    pub(crate) from: At,
    /// The number before it was given back, or before the life ended that it was tied to.
    pub(crate) ends: Option<u64>,
    /// When its time is over.
    pub(crate) until: Duration,
    /// When its caller had heard that it was not held any more.
    pub(crate) missed: Option<At>,
    /// The client whose life it is tied to.
    pub(crate) tied: Option<usize>,
}

/// A write under a lock that is to be held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fenced {
    pub(crate) path: usize,
    pub(crate) token: u64,
    pub(crate) sent: u64,
    /// Its place in the log.
    pub(crate) lsn: u64,
}

/// All that was seen since the last time that it was looked through, and what of it matters later.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) holds: Vec<Hold>,
    /// Which path was freed by force, and when.
    pub(crate) forced: Vec<(usize, Span)>,
    pub(crate) fenced: Vec<Fenced>,
    /// What the file that is written under the lock of a path held when it was read: a token.
    pub(crate) read: Vec<(usize, Span, u64)>,
    /// All tokens are above this one.
    pub(crate) token_before: u64,
}

/// Whether two can be held at once, if there is room.
fn agree(one: &Hold, other: &Hold) -> bool {
    let both_shared = one.kind == LockKind::Shared && other.kind == LockKind::Shared;
    match (PATHS[one.path], PATHS[other.path]) {
        (one_path, other_path) if one_path == other_path => {
            one.kind == other.kind && one.kind != LockKind::Exclusive
        }
        (one_path, other_path) => {
            both_shared || !(is_below(one_path, other_path) || is_below(other_path, one_path))
        }
    }
}

fn is_below(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

impl History {
    /// A lock was given; says where it is here, until all is trimmed.
    pub(crate) fn begin(&mut self, hold: Hold) -> usize {
        self.holds.push(hold);
        self.holds.len() - 1
    }

    /// The life of a client is about to end, and with it all that is tied to it, what it has forgotten, too.
    pub(crate) fn life_ends(&mut self, client: usize, ends: u64) {
        for hold in self.holds.iter_mut().filter(|hold| hold.tied == Some(client)) {
            hold.ends.get_or_insert(ends);
        }
    }

    /// What is wrong.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut wrong = self.together();
        wrong.extend(self.tokens());
        wrong.extend(self.missed());
        wrong.extend(self.fences());
        wrong
    }

    /// Until which number a hold counts.
    fn ends(&self, hold: &Hold) -> u64 {
        let forced = self.forced.iter().filter(|(path, force)| *path == hold.path && force.back > hold.sent);
        forced.map(|(_, force)| force.sent).chain(hold.ends).min().unwrap_or(u64::MAX)
    }

    /// Those who were held at once and exclude each other.
    fn together(&self) -> Vec<String> {
        let mut holds: Vec<(&Hold, u64)> = self.holds.iter().map(|hold| (hold, self.ends(hold))).collect();
        holds.sort_by_key(|(hold, _)| hold.from.number);
        let (mut wrong, mut held): (Vec<String>, Vec<(&Hold, u64)>) = (Vec::new(), Vec::new());
        for (hold, ends) in holds {
            let now = hold.from;
            let is_held = |hold: &Hold, ends: u64| ends > now.number && hold.until > now.time;
            held.retain(|(other, ends)| is_held(other, *ends));
            if !is_held(hold, ends) {
                continue;
            }
            for (other, _) in held.iter().filter(|(other, _)| !agree(hold, other)) {
                wrong.push(format!("held at once: {other:?} and {hold:?}"));
            }
            held.push((hold, ends));
            let at =
                held.iter().filter(|(other, _)| other.path == hold.path && other.kind == hold.kind).count();
            if let LockKind::Semaphore(places) = hold.kind
                && at > places as usize
            {
                wrong.push(format!("{at} hold one of {places} places: {held:?}"));
            }
        }
        wrong
    }

    /// Tokens that did not grow.
    fn tokens(&self) -> Vec<String> {
        let span = |hold: &Hold| Span { sent: hold.sent, back: hold.from.number };
        let given: Vec<_> = self.holds.iter().map(|hold| (span(hold), hold.token)).collect();
        let grew = overtaken(&given, false).map(|why| format!("tokens do not grow: {why}"));
        let mut wrong: Vec<_> = grew.into_iter().collect();
        let mut tokens = BTreeSet::new();
        for hold in &self.holds {
            if !tokens.insert(hold.token) || hold.token <= self.token_before {
                wrong.push(format!("a token is not new, nor above {}: {hold:?}", self.token_before));
            }
        }
        wrong
    }

    /// Those that were lost before their time.
    fn missed(&self) -> Vec<String> {
        let is_forced = |hold: &Hold, missed: At| {
            let forced = |(path, force): &(usize, Span)| {
                *path == hold.path && force.back > hold.sent && force.sent < missed.number
            };
            self.forced.iter().any(forced)
        };
        let is_early = |hold: &&Hold| {
            hold.missed.is_some_and(|missed| missed.time < hold.until && !is_forced(hold, missed))
        };
        self.holds
            .iter()
            .filter(is_early)
            .map(|hold| format!("not held any more, before its time: {hold:?}"))
            .collect()
    }

    /// Writes under a lock that a newer one had followed.
    fn fences(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (path, name) in PATHS.iter().enumerate() {
            let mut written: Vec<_> = self.fenced.iter().filter(|write| write.path == path).collect();
            written.sort_by_key(|write| write.lsn);
            for two in written.windows(2).filter(|two| two[0].token > two[1].token) {
                wrong.push(format!("written under an older lock, after a newer one: {two:?}"));
            }
            let newer = |write: &Fenced| {
                let is_newer = |hold: &&Hold| {
                    hold.path == path && hold.token > write.token && hold.from.number < write.sent
                };
                self.holds.iter().find(is_newer)
            };
            for write in written {
                if let Some(newer) = newer(write) {
                    wrong.push(format!("written although {newer:?} had followed: {write:?}"));
                }
            }
            let read =
                self.read.iter().filter(|(at, ..)| *at == path).map(|(_, span, token)| (*span, *token));
            if let Some(why) = overtaken(&read.collect::<Vec<_>>(), true) {
                wrong.push(format!("what {name} guards went back: {why}"));
            }
        }
        wrong
    }

    /// Lets go of what was looked through, but for what says something of what comes.
    pub(crate) fn trim(&mut self) {
        let mut newest: BTreeMap<usize, Hold> = BTreeMap::new();
        for hold in self.holds.drain(..) {
            if newest.get(&hold.path).is_none_or(|other| other.token < hold.token) {
                newest.insert(hold.path, hold);
            }
        }
        self.token_before = newest
            .values()
            .map(|hold| hold.token)
            .min()
            .unwrap_or(1)
            .saturating_sub(1)
            .max(self.token_before);
        self.holds = newest.into_values().collect();
        let mut last: BTreeMap<usize, Fenced> = BTreeMap::new();
        for write in self.fenced.drain(..) {
            if last.get(&write.path).is_none_or(|other| other.lsn < write.lsn) {
                last.insert(write.path, write);
            }
        }
        self.fenced = last.into_values().collect();
        let mut seen: BTreeMap<usize, (usize, Span, u64)> = BTreeMap::new();
        for read in self.read.drain(..) {
            if seen.get(&read.0).is_none_or(|other| other.2 < read.2) {
                seen.insert(read.0, read);
            }
        }
        self.read = seen.into_values().collect();
        // A force says until when those counted that are kept.
        let kept = self.holds.iter().map(|hold| hold.sent).min().unwrap_or(u64::MAX);
        self.forced.retain(|(_, force)| force.back > kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCLUSIVE: LockKind = LockKind::Exclusive;
    const SHARED: LockKind = LockKind::Shared;
    const TWO: LockKind = LockKind::Semaphore(2);

    fn at(number: u64) -> At {
        At { number, time: Duration::from_millis(number) }
    }

    /// Held from one number to another, with a token that is the first; for as long as nobody waits that long.
    fn hold(path: usize, kind: LockKind, from: u64, ends: u64) -> Hold {
        let until = Duration::from_secs(1);
        Hold {
            path,
            kind,
            token: from,
            sent: from - 1,
            from: at(from),
            ends: Some(ends),
            until,
            missed: None,
            tied: None,
        }
    }

    fn check(holds: &[Hold], change: impl FnOnce(&mut History), says: Option<&str>) {
        let mut history = History { holds: holds.to_vec(), ..History::default() };
        change(&mut history);
        let wrong = history.check();
        match says {
            None => assert!(wrong.is_empty(), "{wrong:?}"),
            Some(says) => assert!(wrong.iter().any(|wrong| wrong.contains(says)), "{says}: {wrong:?}"),
        }
    }

    fn together(one: (usize, LockKind), other: (usize, LockKind), may_be: bool) {
        let holds = [hold(one.0, one.1, 10, 20), hold(other.0, other.1, 15, 30)];
        check(&holds, |_| {}, (!may_be).then_some("held at once"));
        let after = [hold(one.0, one.1, 10, 14), hold(other.0, other.1, 15, 30)];
        check(&after, |_| {}, None);
    }

    #[test]
    fn two_that_exclude_each_other_and_were_held_at_once_are_seen() {
        together((0, EXCLUSIVE), (0, EXCLUSIVE), false);
        together((0, EXCLUSIVE), (0, SHARED), false);
        together((0, TWO), (0, SHARED), false);
        together((0, SHARED), (0, SHARED), true);
        together((0, TWO), (0, TWO), true);
        together((0, EXCLUSIVE), (1, EXCLUSIVE), true);
        together((1, EXCLUSIVE), (2, SHARED), false);
        together((2, EXCLUSIVE), (1, SHARED), false);
        together((2, SHARED), (1, SHARED), true);
    }

    #[test]
    fn one_holder_more_than_there_are_places_is_seen() {
        let two = [hold(3, TWO, 10, 20), hold(3, TWO, 11, 20), hold(3, TWO, 21, 30)];
        check(&two, |_| {}, None);
        let three = [hold(3, TWO, 10, 20), hold(3, TWO, 11, 20), hold(3, TWO, 12, 30)];
        check(&three, |_| {}, Some("3 hold one of 2 places"));
    }

    #[test]
    fn a_hold_counts_no_longer_than_its_caller_may_believe_in_it() {
        let holds = [hold(0, EXCLUSIVE, 10, 20), hold(0, EXCLUSIVE, 15, 30)];
        // Its time was over.
        check(&holds, |history| history.holds[0].until = at(14).time, None);
        // Taken back by force, which was sent before the other was given; or not yet.
        check(&holds, |history| history.forced.push((0, Span { sent: 12, back: 13 })), None);
        check(&holds, |history| history.forced.push((0, Span { sent: 16, back: 17 })), Some("held at once"));
        check(&holds, |history| history.forced.push((1, Span { sent: 12, back: 13 })), Some("held at once"));
        // Forgotten, and tied to a life that ended.
        let forgotten = |history: &mut History| {
            (history.holds[0].ends, history.holds[0].tied) = (None, Some(7));
        };
        check(&holds, forgotten, Some("held at once"));
        let ended = |history: &mut History| {
            forgotten(history);
            history.life_ends(7, 12);
        };
        check(&holds, ended, None);
    }

    #[test]
    fn a_token_that_does_not_grow_is_seen() {
        let holds = [hold(0, EXCLUSIVE, 10, 12), hold(1, EXCLUSIVE, 15, 16)];
        check(&holds, |history| history.token_before = 9, None);
        check(&holds, |history| history.token_before = 10, Some("a token is not new"));
        check(&holds, |history| history.holds[1].token = 10, Some("tokens do not grow"));
        check(&holds, |history| history.holds[1].token = 4, Some("tokens do not grow"));
    }

    #[test]
    fn a_lock_that_is_lost_before_its_time_is_seen() {
        let holds = [hold(0, EXCLUSIVE, 10, 20)];
        let missed = |history: &mut History| history.holds[0].missed = Some(at(22));
        check(&holds, missed, Some("before its time"));
        let late = |history: &mut History| {
            missed(history);
            history.holds[0].until = at(19).time;
        };
        check(&holds, late, None);
        let forced = |history: &mut History| {
            missed(history);
            history.forced.push((0, Span { sent: 12, back: 13 }));
        };
        check(&holds, forced, None);
    }

    #[test]
    fn a_write_under_a_lock_that_a_newer_one_followed_is_seen() {
        let holds = [hold(0, EXCLUSIVE, 10, 12), hold(0, EXCLUSIVE, 15, 20)];
        let write = |token, sent, lsn| Fenced { path: 0, token, sent, lsn };
        check(&holds, |history| history.fenced = vec![write(10, 11, 1), write(15, 16, 2)], None);
        check(
            &holds,
            |history| history.fenced = vec![write(10, 11, 3), write(15, 16, 2)],
            Some("under an older lock"),
        );
        check(&holds, |history| history.fenced = vec![write(10, 16, 1)], Some("had followed"));
        let read =
            |one, other| vec![(0, Span { sent: 16, back: 17 }, one), (0, Span { sent: 18, back: 19 }, other)];
        check(&holds, |history| history.read = read(10, 15), None);
        check(&holds, |history| history.read = read(15, 10), Some("went back"));
    }

    #[test]
    fn what_is_kept_of_what_was_looked_through_still_tells_of_what_comes() {
        let mut history = History {
            holds: vec![hold(0, EXCLUSIVE, 10, 12), hold(0, EXCLUSIVE, 15, 20)],
            ..History::default()
        };
        history.fenced = vec![Fenced { path: 0, token: 15, sent: 16, lsn: 7 }];
        history.trim();
        assert!(history.check().is_empty());
        assert_eq!((history.holds.len(), history.holds[0].token), (1, 15));
        history.fenced.push(Fenced { path: 0, token: 10, sent: 22, lsn: 8 });
        assert_eq!(history.check().len(), 2);
        history.holds.push(hold(1, SHARED, 25, 30));
        history.holds[1].token = 14;
        assert!(
            history
                .check()
                .iter()
                .any(|wrong| wrong.contains("a token is not new") || wrong.contains("do not grow"))
        );
    }
}
