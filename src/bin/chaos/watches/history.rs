//! What watchers were told, and what is wrong with it: the oracle's pure core.

use std::collections::BTreeMap;

use nexus::OpId;
use serde::{Deserialize, Serialize};

use crate::model::Became;

/// An event that a watcher was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) lsn: u64,
    pub(crate) op_id: OpId,
    /// The event in words.
    pub(crate) what: String,
}

/// A change as a watcher is to be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// Whose home it changes.
    pub(crate) client: usize,
    pub(crate) what: String,
}

/// What one watcher was told, over all lives of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watching {
    /// All up to this place in the log was told.
    pub(crate) cursor: u64,
    /// For the oracle alone.
    #[serde(skip)]
    told: BTreeMap<OpId, Told>,
    #[serde(skip)]
    last: u64,
    #[serde(skip)]
    wrong: Vec<String>,
}

impl Watching {
    /// It was told these, and goes on after `cursor`.
    pub(crate) fn hear(&mut self, events: &[Told], cursor: u64) {
        for event in events {
            // One change is one event, and one commit.
            if event.lsn <= self.last {
                self.wrong.push(format!("{event:?} came after the commit {}", self.last));
            }
            self.last = event.lsn;
            if self.told.insert(event.op_id, event.clone()).is_some() {
                self.wrong.push(format!("told twice: {event:?}"));
            }
        }
        if cursor < self.cursor || cursor < self.last {
            self.wrong.push(format!(
                "the cursor goes from {} to {cursor}, and {} was told",
                self.cursor, self.last
            ));
        }
        self.cursor = cursor;
    }

    /// Holds all that was told up to the end of the log against the changes that were made where it watches, and the places in the log that their callers were told. Says what
    /// is wrong.
    pub(crate) fn check(
        &mut self,
        is_watched: impl Fn(usize) -> bool,
        made: &BTreeMap<OpId, Made>,
        became: impl Fn(OpId) -> Became,
        lsns: &BTreeMap<OpId, u64>,
    ) -> Vec<String> {
        let mut wrong = std::mem::take(&mut self.wrong);
        for (op_id, made) in made.iter().filter(|(_, made)| is_watched(made.client)) {
            match (self.told.get(op_id), became(*op_id)) {
                (None, Became::Acknowledged) => wrong.push(format!("never told: {op_id} {made:?}")),
                (Some(event), Became::NotMade) => wrong.push(format!("told, and it was not made: {event:?}")),
                (Some(event), _) if event.what != made.what => {
                    wrong.push(format!("told as {event:?}, and it was {made:?}"));
                }
                (Some(event), _) if lsns.get(op_id).is_some_and(|lsn| *lsn != event.lsn) => {
                    wrong.push(format!("told as {event:?}, and its caller as {:?}", lsns.get(op_id)));
                }
                _ => {}
            }
        }
        let is_nobodys = |event: &&Told| made.get(&event.op_id).is_none_or(|made| !is_watched(made.client));
        wrong.extend(
            self.told.values().filter(is_nobodys).map(|event| format!("nobody did this there: {event:?}")),
        );
        wrong
    }
}

/// What a watcher was told that began at some places of the log, and each time went on to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Live(Vec<Span>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    from: u64,
    watching: Watching,
}

impl Live {
    /// It begins after this commit.
    pub(crate) fn begin(&mut self, from: u64) {
        let watching = Watching { cursor: from, last: from, ..Watching::default() };
        self.0.push(Span { from, watching });
    }

    pub(crate) fn hear(&mut self, events: &[Told], cursor: u64) {
        if let Some(last) = self.0.last_mut() {
            last.watching.hear(events, cursor);
        }
    }

    /// Holds it against one that was told everything, and forgets it. What comes after a cursor it was not told yet. Says what is wrong.
    pub(crate) fn check(&mut self, all: &Watching) -> Vec<String> {
        std::mem::take(&mut self.0).into_iter().flat_map(|span| span.check(all)).collect()
    }
}

impl Span {
    fn check(self, all: &Watching) -> Vec<String> {
        let mut wrong = self.watching.wrong;
        let told = &self.watching.told;
        for event in
            all.told.values().filter(|event| event.lsn > self.from && event.lsn <= self.watching.cursor)
        {
            if told.get(&event.op_id) != Some(event) {
                wrong.push(format!("told {:?} of {event:?}", told.get(&event.op_id)));
            }
        }
        let is_nobodys = |event: &&Told| all.told.get(&event.op_id) != Some(event);
        wrong.extend(told.values().filter(is_nobodys).map(|event| format!("it alone was told {event:?}")));
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one change nobody was told where it is.
    const LSNS: [(OpId, u64); 2] = [(OpId(1), 1), (OpId(3), 3)];

    fn told(lsn: u64) -> Told {
        Told { lsn, op_id: OpId(lsn.into()), what: format!("write {lsn}") }
    }

    fn made(numbers: &[u64]) -> BTreeMap<OpId, Made> {
        let made =
            |number: &u64| (OpId((*number).into()), Made { client: 1, what: format!("write {number}") });
        numbers.iter().map(made).collect()
    }

    fn check(events: &[Told], became: impl Fn(OpId) -> Became, says: Option<&str>) {
        let mut watching = Watching::default();
        for event in events {
            watching.hear(std::slice::from_ref(event), event.lsn);
        }
        let wrong = watching.check(|client| client == 1, &made(&[1, 2, 3]), became, &LSNS.into());
        match says {
            None => assert!(wrong.is_empty(), "{wrong:?}"),
            Some(says) => assert!(wrong.iter().any(|wrong| wrong.contains(says)), "{says}: {wrong:?}"),
        }
    }

    #[test]
    fn each_wound_of_what_a_watcher_was_told_is_seen() {
        let all = |_| Became::Acknowledged;
        check(&[told(1), told(2), told(3)], all, None);
        check(&[told(1), told(3)], all, Some("never told"));
        check(&[told(1), told(2), told(2), told(3)], all, Some("told twice"));
        check(&[told(1), told(3), told(2)], all, Some("came after the commit"));
        check(&[told(1), told(2), told(3), told(4)], all, Some("nobody did this"));
        check(&[told(1), Told { lsn: 3, ..told(2) }, Told { lsn: 4, ..told(3) }], all, Some("its caller"));
        let other = Told { what: "write 9".into(), ..told(2) };
        check(&[told(1), other, told(3)], all, Some("told as"));
        let not = |op_id| if op_id == OpId(2) { Became::NotMade } else { Became::Acknowledged };
        check(&[told(1), told(2), told(3)], not, Some("was not made"));
        check(&[told(1), told(3)], not, None);
        for became in [Became::Unknown, Became::Found] {
            let doubtful = move |op_id| if op_id == OpId(2) { became } else { Became::Acknowledged };
            check(&[told(1), told(2), told(3)], doubtful, None);
            check(&[told(1), told(3)], doubtful, None);
        }
    }

    #[test]
    fn a_cursor_that_goes_back_or_stays_behind_is_seen() {
        let hear = |cursors: &[u64]| {
            let mut watching = Watching::default();
            watching.hear(&[told(1)], 1);
            cursors.iter().for_each(|cursor| watching.hear(&[], *cursor));
            watching.check(|_| true, &made(&[1]), |_| Became::Acknowledged, &BTreeMap::new()).is_empty()
        };
        assert!(hear(&[1, 5, 5]));
        assert!(!hear(&[5, 4]));
        assert!(!hear(&[0]));
    }

    #[test]
    fn one_that_began_in_the_middle_is_told_what_the_other_was_from_there_on() {
        let mut all = Watching::default();
        (1..=5).for_each(|lsn| all.hear(&[told(lsn)], lsn));
        let check = |events: &[u64], cursor, is_right| {
            let mut live = Live::default();
            live.begin(2);
            live.hear(&events.iter().map(|lsn| told(*lsn)).collect::<Vec<_>>(), cursor);
            // Once more, from further on.
            live.begin(4);
            live.hear(&[told(5)], 5);
            let wrong = live.check(&all);
            assert_eq!(wrong.is_empty(), is_right, "{wrong:?}");
        };
        check(&[3, 4], 4, true);
        check(&[3, 4, 5], 5, true);
        check(&[4], 4, false);
        check(&[3, 4, 6], 6, false);
        check(&[2, 3, 4], 4, false);
        check(&[3, 3, 4], 4, false);
    }
}
