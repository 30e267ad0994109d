//! What callers were told of records of a stream, and what is wrong with what is there: the oracle's pure core.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::order::{Span, overtaken};
use crate::pipes::history::Message;

/// Between the first and the last time that an append was sent, so many others may have been executed: of more, a stream need not remember the identity.
pub(crate) const OTHERS_MAX: u64 = 100;

/// Records that were appended together: the messages of a writer from a number on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Appended {
    pub(crate) first: Message,
    pub(crate) count: u64,
    /// The offset of the first; none when nobody said so.
    pub(crate) offset: Option<u64>,
    /// How often it may be there: once, unless it was repeated after its identity may have been forgotten.
    pub(crate) times_max: u64,
}

impl Appended {
    fn records(&self) -> impl Iterator<Item = Message> {
        let Message { writer, number } = self.first;
        (number..number + self.count).map(move |number| Message { writer, number })
    }
}

/// What is wrong with a stream that holds these records, from its first one on, when nothing else was appended to it.
pub(crate) fn check(records: &[Message], appended: &[Appended]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known: BTreeMap<Message, (&Appended, u64)> =
        appended.iter().map(|append| (append.first, (append, 0))).collect();
    let mut at = 0;
    while let Some(first) = records.get(at) {
        let Some((append, times)) = known.get_mut(first) else {
            wrong.push(format!("at {at} is {first}, which nobody appended there"));
            at += 1;
            continue;
        };
        *times += 1;
        let there = records[at..]
            .iter()
            .copied()
            .zip(append.records())
            .take_while(|(there, record)| there == record)
            .count();
        if (there as u64) < append.count {
            wrong.push(format!("at {at} are {there} of {append:?}"));
        }
        match append.offset {
            Some(offset) if offset != at as u64 && append.times_max == 1 => {
                wrong.push(format!("at {at} is {append:?}"));
            }
            _ => {}
        }
        at += there.max(1);
    }
    for (append, times) in known.values() {
        if *times > append.times_max {
            wrong.push(format!("{times} times there: {append:?}"));
        }
        let is_lost =
            |offset: u64| usize::try_from(offset).ok().and_then(|at| records.get(at)) != Some(&append.first);
        if append.offset.is_some_and(is_lost) {
            wrong.push(format!("lost: {append:?}"));
        }
    }
    wrong
}

/// What is wrong with the order of appends to one stream: who was answered before another was sent comes before it.
pub(crate) fn order(appended: &[(Span, u64)]) -> Option<String> {
    overtaken(appended, false).map(|why| format!("offsets are not in the order of the appends: {why}"))
}

/// What readers saw of a stream, each from the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    records: Vec<Message>,
}

impl Seen {
    /// A reader that expects the record at `next` was given this one: what is wrong with it.
    pub(crate) fn saw(&mut self, next: u64, offset: u64, record: Message) -> Option<String> {
        if offset != next {
            return Some(format!("a reader was given offset {offset} and not {next}"));
        }
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.records.get(at) {
            Some(other) if *other != record => {
                Some(format!("one reader saw {other} at {offset}, and another one {record}"))
            }
            Some(_) => None,
            None => {
                self.records.push(record);
                None
            }
        }
    }

    pub(crate) fn records(&self) -> &[Message] {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64) -> Message {
        Message { writer: 1, number }
    }

    fn append(number: u64, count: u64, offset: Option<u64>) -> Appended {
        Appended { first: message(number), count, offset, times_max: 1 }
    }

    fn says(records: &[u64], appended: &[Appended], says: Option<&str>) {
        let records: Vec<_> = records.iter().map(|number| message(*number)).collect();
        let wrong = check(&records, appended);
        match says {
            None => assert!(wrong.is_empty(), "{wrong:?}"),
            Some(says) => assert!(wrong.iter().any(|wrong| wrong.contains(says)), "{says}: {wrong:?}"),
        }
    }

    #[test]
    fn each_wound_of_a_stream_is_seen() {
        let known = [append(1, 1, Some(0)), append(2, 3, Some(1)), append(5, 1, Some(4))];
        says(&[1, 2, 3, 4, 5], &known, None);
        says(&[1, 2, 3, 4], &known, Some("lost"));
        says(&[2, 3, 4, 5], &known, Some("lost"));
        says(&[1, 2, 3, 4, 5, 5], &known, Some("2 times there"));
        says(&[1, 2, 3, 4, 5, 9], &known, Some("nobody appended"));
        says(&[1, 2, 4, 5], &known, Some("at 1 are 1 of"));
        says(&[1, 5, 2, 3, 4], &known, Some("lost"));
    }

    #[test]
    fn what_is_in_doubt_is_there_whole_once_or_not_at_all() {
        let known = [append(1, 1, Some(0)), append(2, 2, None), append(4, 1, None)];
        says(&[1], &known, None);
        says(&[1, 2, 3], &known, None);
        says(&[1, 4, 2, 3], &known, None);
        says(&[1, 2], &known, Some("are 1 of"));
        says(&[1, 4, 4], &known, Some("2 times there"));
        let repeated = [append(1, 1, Some(0)), Appended { times_max: 2, ..append(4, 1, None) }];
        says(&[1, 4, 4], &repeated, None);
    }

    #[test]
    fn an_append_before_one_that_was_over_is_seen() {
        let span = |sent, back| Span { sent, back };
        assert_eq!(order(&[(span(1, 2), 0), (span(3, 4), 1)]), None);
        assert!(order(&[(span(1, 2), 1), (span(3, 4), 0)]).is_some());
        assert!(order(&[(span(1, 2), 1), (span(3, 4), 1)]).is_some());
    }

    #[test]
    fn a_gap_and_two_records_at_one_offset_are_seen() {
        let mut seen = Seen::default();
        assert_eq!(seen.saw(0, 0, message(1)), None);
        assert_eq!(seen.saw(1, 1, message(2)), None);
        assert!(seen.saw(2, 3, message(4)).is_some(), "a gap");
        assert!(seen.saw(1, 0, message(1)).is_some(), "back");
        assert_eq!(seen.saw(0, 0, message(1)), None, "another reader");
        assert!(seen.saw(1, 1, message(3)).is_some(), "another record");
        assert_eq!(seen.records(), [message(1), message(2)]);
    }
}
