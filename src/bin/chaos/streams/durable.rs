//! What the oracle knows of the stream that is on disk, over all lives of the kernel.

use nexus::OpId;
use serde::{Deserialize, Serialize};

use super::history::{Appended, check};
use crate::pipes::history::Message;

/// An append that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) first: Message,
    pub(crate) count: u64,
    pub(crate) op_id: OpId,
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Became {
    /// It was acknowledged, with the offset of its first record, and may be there so often.
    Acknowledged {
        offset: u64,
        times_max: u64,
    },
    NotMade,
}

/// What is known of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Durable {
    /// By appender: the append whose end nobody heard of, and the number of the first record after it.
    pub(crate) pending: Vec<Option<Begun>>,
    pub(crate) numbers: Vec<u64>,
    /// For the oracle alone, as what it saw the last time is.
    #[serde(skip)]
    appended: Vec<Appended>,
    #[serde(skip)]
    seen: Vec<Message>,
}

impl Durable {
    pub(crate) fn new(appenders: usize) -> Self {
        Self { pending: vec![None; appenders], numbers: vec![0; appenders], ..Self::default() }
    }

    pub(crate) fn begun(&mut self, begun: Begun) {
        let writer = begun.first.writer;
        // One that is sent again, in another life, is the same.
        self.pending[writer] = Some(begun);
        self.numbers[writer] = begun.first.number + begun.count;
    }

    pub(crate) fn ended(&mut self, writer: usize, became: Became) {
        let Some(Begun { first, count, .. }) = self.pending[writer].take() else { return };
        let (offset, times_max) = match became {
            Became::Acknowledged { offset, times_max } => (Some(offset), times_max),
            Became::NotMade => (None, 0),
        };
        self.appended.push(Appended { first, count, offset, times_max });
    }

    /// Holds what is there against what was told; says what is wrong.
    pub(crate) fn settle(&mut self, records: Vec<Message>) -> Vec<String> {
        let mut appended = self.appended.clone();
        let pending = self.pending.iter().flatten();
        appended.extend(pending.map(|begun| Appended {
            first: begun.first,
            count: begun.count,
            offset: None,
            times_max: 1,
        }));
        let mut wrong = check(&records, &appended);
        if !records.starts_with(&self.seen) {
            wrong.push(format!("the first {} records are not what they were", self.seen.len()));
        }
        self.seen = records;
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_before_a_crash_is_there_once_after_it_and_stays() {
        let message = |number| Message { writer: 0, number };
        let begun = |number, count| Begun { first: message(number), count, op_id: OpId(number.into()) };
        let mut durable = Durable::new(1);
        durable.begun(begun(0, 2));
        durable.ended(0, Became::Acknowledged { offset: 0, times_max: 1 });
        durable.begun(begun(2, 1));
        let settle = |durable: &Durable, numbers: &[u64]| {
            durable.clone().settle(numbers.iter().map(|number| message(*number)).collect())
        };
        assert!(settle(&durable, &[0, 1]).is_empty());
        assert!(settle(&durable, &[0, 1, 2]).is_empty());
        assert!(!settle(&durable, &[0]).is_empty(), "lost");
        assert!(!settle(&durable, &[0, 1, 2, 2]).is_empty(), "doubled");
        assert!(!settle(&durable, &[0, 1, 3]).is_empty(), "nobody's");
        durable.settle(vec![message(0), message(1), message(2)]);
        assert!(!settle(&durable, &[0, 1]).is_empty(), "it was seen, and is gone");
        // Sent again by a later life, with the same identity.
        durable.begun(begun(2, 1));
        durable.ended(0, Became::Acknowledged { offset: 2, times_max: 1 });
        assert!(settle(&durable, &[0, 1, 2]).is_empty());
        durable.begun(begun(3, 1));
        durable.ended(0, Became::NotMade);
        assert!(!settle(&durable, &[0, 1, 2, 3]).is_empty(), "it was told as not made");
    }
}
