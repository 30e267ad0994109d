//! What callers saw of messages in pipes, and what is wrong with it: the oracle's pure core.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use nexus::FileId;
use serde::{Deserialize, Serialize};

use crate::order::{Span, overtaken};
use crate::plan::Dice;

/// The most bytes of a message beyond what says which it is.
const FILLING_MAX: u64 = 40;

/// Which message: the number of one of a writer, all its messages counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) writer: usize,
    pub(crate) number: u64,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of writer {}", self.number, self.writer)
    }
}

impl Message {
    /// What is written: a line that says which it is, and a filling that no other has.
    pub(crate) fn content(self) -> Bytes {
        let Self { writer, number } = self;
        let mut dice = Dice::new(number ^ (writer as u64) << 48);
        let mut content = format!("{writer} {number}\n").into_bytes();
        for _ in 0..dice.below(FILLING_MAX) {
            content.push(dice.roll().to_le_bytes()[0]);
        }
        content.into()
    }

    /// The message with this content; none when it is not whole.
    pub(crate) fn of(content: &[u8]) -> Option<Self> {
        let line = str::from_utf8(content.split(|byte| *byte == b'\n').next()?).ok()?;
        let (writer, number) = line.split_once(' ')?;
        let message = Self { writer: writer.parse().ok()?, number: number.parse().ok()? };
        (*message.content() == *content).then_some(message)
    }
}

/// What its writer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Became {
    /// It is in this pipe.
    Written(FileId),
    /// It may be in a pipe: a fault, or the writer gave up.
    Doubtful,
    Not,
}

/// What was seen since the pipes were empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) written: BTreeMap<Message, Became>,
    /// Which messages came out of which pipe.
    pub(crate) read: Vec<(Message, Span, FileId)>,
    /// The pipes that were removed, and may have been: what was in them is gone.
    pub(crate) removed: BTreeSet<FileId>,
}

impl History {
    /// What is wrong. All that were there were read, but for what was in a pipe that is gone.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut read = BTreeSet::new();
        let mut by_writer: BTreeMap<(usize, FileId), Vec<(Span, u64)>> = BTreeMap::new();
        for (message, span, pipe) in &self.read {
            by_writer.entry((message.writer, *pipe)).or_default().push((*span, message.number));
            if !read.insert(*message) {
                wrong.push(format!("{message} was read twice"));
            }
            match self.written.get(message) {
                None => wrong.push(format!("{message} was read, and nobody wrote it")),
                Some(Became::Not) => {
                    wrong
                        .push(format!("{message} was read, and its writer was told that it was not written"));
                }
                Some(Became::Written(to)) if to != pipe => {
                    wrong.push(format!("{message} was written to the pipe {to:?}, and came out of {pipe:?}"));
                }
                Some(Became::Written(_) | Became::Doubtful) => {}
            }
        }
        for (message, became) in &self.written {
            if let Became::Written(pipe) = became
                && !read.contains(message)
                && !self.removed.contains(pipe)
            {
                wrong.push(format!("{message} is lost"));
            }
        }
        for ((writer, pipe), read) in by_writer {
            if let Some(why) = overtaken(&read, false) {
                wrong.push(format!("the messages of writer {writer} in {pipe:?} are out of order: {why}"));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: FileId = FileId(7);
    const OTHER: FileId = FileId(8);

    fn message(number: u64) -> Message {
        Message { writer: 1, number }
    }

    /// Three messages that were written, and read one after the other.
    fn sound() -> History {
        let mut history = History::default();
        for number in 1..=3 {
            history.written.insert(message(number), Became::Written(PIPE));
            history.read.push((message(number), Span { sent: 10 * number, back: 10 * number + 1 }, PIPE));
        }
        history
    }

    fn check(wound: impl FnOnce(&mut History), says: Option<&str>) {
        let mut history = sound();
        wound(&mut history);
        let wrong = history.check();
        match says {
            None => assert!(wrong.is_empty(), "{wrong:?}"),
            Some(says) => assert!(wrong.iter().any(|wrong| wrong.contains(says)), "{says}: {wrong:?}"),
        }
    }

    #[test]
    fn a_message_says_which_it_is_and_a_torn_one_nothing() {
        for number in 0..200 {
            let content = message(number).content();
            assert_eq!(Message::of(&content), Some(message(number)));
            assert_eq!(Message::of(&content[..content.len() - 1]), None, "a part of it");
            let both = [&content[..], &message(number + 1).content()].concat();
            assert_eq!(Message::of(&both), None, "two that were merged");
        }
    }

    #[test]
    fn each_wound_of_a_history_is_seen() {
        check(|_| {}, None);
        let lost = |history: &mut History| {
            history.read.remove(1);
        };
        check(lost, Some("message 2 of writer 1 is lost"));
        check(
            |history| history.read.push((message(2), Span { sent: 50, back: 51 }, PIPE)),
            Some("read twice"),
        );
        let foreign = |history: &mut History| {
            history.written.remove(&message(2));
        };
        check(foreign, Some("nobody wrote it"));
        let not = |history: &mut History| {
            history.written.insert(message(2), Became::Not);
        };
        check(not, Some("not written"));
        check(|history| history.read[1].2 = OTHER, Some("came out of"));
        check(
            |history| (history.read[0].1, history.read[1].1) = (history.read[1].1, history.read[0].1),
            Some("out of order"),
        );
    }

    #[test]
    fn what_is_in_doubt_is_read_once_or_never_and_what_was_removed_may_be_gone() {
        let doubtful = |history: &mut History| {
            history.written.insert(message(2), Became::Doubtful);
        };
        check(doubtful, None);
        let never = |history: &mut History| {
            doubtful(history);
            history.read.remove(1);
        };
        check(never, None);
        let twice = |history: &mut History| {
            doubtful(history);
            history.read.push((message(2), Span { sent: 50, back: 51 }, PIPE));
        };
        check(twice, Some("read twice"));
        let removed = |history: &mut History| {
            history.removed.insert(PIPE);
            history.read.pop();
        };
        check(removed, None);
        let other = |history: &mut History| {
            history.removed.insert(OTHER);
            history.read.pop();
        };
        check(other, Some("is lost"));
    }
}
