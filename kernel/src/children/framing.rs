//! How the bytes of a child become messages. Pure: chunks in, messages out.

use bytes::{Bytes, BytesMut};
use nexus_messages::{Framing, LongLines};

/// Cuts what comes in chunks into messages.
#[derive(Debug)]
pub(super) struct Framer {
    /// None: each chunk is a message.
    lines: Option<Lines>,
}

#[derive(Debug)]
struct Lines {
    max: usize,
    longer: LongLines,
    /// The beginning of a line whose end has not come. Invariant: at most `max` bytes.
    begun: BytesMut,
    /// Whether the line that has begun is too long, and left out.
    is_left_out: bool,
    dropped: u64,
}

impl Framer {
    /// `max` is the longest message that all can take for whom they are.
    pub(super) fn new(framing: Framing, max: usize) -> Self {
        let lines = match framing {
            Framing::Lines { max: line_max, longer } => {
                let max = max.min(usize::try_from(line_max).unwrap_or(usize::MAX)).max(1);
                Some(Lines { max, longer, begun: BytesMut::new(), is_left_out: false, dropped: 0 })
            }
            _ => None,
        };
        Self { lines }
    }

    /// Adds the messages that are whole with `chunk` to `messages`.
    pub(super) fn take(&mut self, chunk: Bytes, messages: &mut Vec<Bytes>) {
        let Some(lines) = &mut self.lines else {
            messages.push(chunk);
            return;
        };
        let mut rest = &chunk[..];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            lines.add(&rest[..end], messages);
            lines.end_line(messages);
            rest = &rest[end + 1..];
        }
        lines.add(rest, messages);
    }

    /// Nothing more comes: what has begun is a message.
    pub(super) fn end(&mut self, messages: &mut Vec<Bytes>) {
        if let Some(lines) = &mut self.lines
            && (lines.is_left_out || !lines.begun.is_empty())
        {
            lines.end_line(messages);
        }
    }

    /// How many lines were left out since this was asked last.
    pub(super) fn dropped(&mut self) -> u64 {
        self.lines.as_mut().map_or(0, |lines| std::mem::take(&mut lines.dropped))
    }
}

impl Lines {
    /// Adds to the line that has begun.
    fn add(&mut self, mut part: &[u8], messages: &mut Vec<Bytes>) {
        while self.begun.len() + part.len() > self.max && !self.is_left_out {
            if self.longer == LongLines::Drop {
                self.is_left_out = true;
                self.begun = BytesMut::new();
                break;
            }
            let room = self.max - self.begun.len();
            self.begun.extend_from_slice(&part[..room]);
            messages.push(self.begun.split().freeze());
            part = &part[room..];
        }
        if !self.is_left_out {
            self.begun.extend_from_slice(part);
        }
    }

    /// The line is whole.
    fn end_line(&mut self, messages: &mut Vec<Bytes>) {
        if std::mem::take(&mut self.is_left_out) {
            self.dropped += 1;
        } else {
            // A copy of its own: one line that is kept long is not to keep others.
            messages.push(Bytes::copy_from_slice(&self.begun));
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn framed(framing: Framing, max: usize, chunks: &[&[u8]]) -> (Vec<Bytes>, u64) {
        let (mut framer, mut messages) = (Framer::new(framing, max), Vec::new());
        for chunk in chunks {
            framer.take(Bytes::copy_from_slice(chunk), &mut messages);
        }
        framer.end(&mut messages);
        let dropped = framer.dropped();
        (messages, dropped)
    }

    fn check(longer: LongLines, text: &str, messages: &[&str], dropped: u64) {
        let lines = Framing::Lines { max: 5, longer };
        let (got, left_out) = framed(lines, usize::MAX, &[text.as_bytes()]);
        assert_eq!(
            (got, left_out),
            (messages.iter().map(|m| Bytes::from(m.to_string())).collect(), dropped),
            "{text:?}"
        );
    }

    #[test]
    fn a_message_is_a_line() {
        check(LongLines::Drop, "", &[], 0);
        check(LongLines::Drop, "a\nbc\n", &["a", "bc"], 0);
        check(LongLines::Drop, "a\n\nbc", &["a", "", "bc"], 0);
        check(LongLines::Drop, "a\r\n", &["a\r"], 0);
        check(LongLines::Drop, "12345\n123456\nx\n", &["12345", "x"], 1);
        check(LongLines::Drop, "1234567890", &[], 1);
        check(LongLines::Cut, "12345\n123456\nx\n", &["12345", "12345", "6", "x"], 0);
        check(LongLines::Cut, "1234567890\n", &["12345", "67890"], 0);
    }

    #[test]
    fn raw_chunks_are_messages() {
        let (messages, dropped) = framed(Framing::Raw, 5, &[b"a\nb", b"c"]);
        assert_eq!((messages, dropped), (vec![Bytes::from("a\nb"), Bytes::from("c")], 0));
    }

    proptest! {
        #[test]
        fn how_the_bytes_come_is_of_no_matter(
            text in vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..200),
            cuts in vec(0usize..200, 0..10),
            max in 1u32..20,
            cut in any::<bool>(),
        ) {
            let longer = if cut { LongLines::Cut } else { LongLines::Drop };
            let framing = Framing::Lines { max, longer };
            let whole = framed(framing, usize::MAX, &[&text]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.sort_unstable();
            let (mut chunks, mut from) = (Vec::new(), 0);
            for at in cuts {
                chunks.push(&text[from..at]);
                from = at;
            }
            chunks.push(&text[from..]);
            prop_assert_eq!(&framed(framing, usize::MAX, &chunks), &whole);
            // And as the plainest way says.
            let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
            if lines.last().is_some_and(|last| last.is_empty()) {
                lines.pop();
            }
            let max = max as usize;
            let expected: Vec<Bytes> = if cut {
                let pieces = |line: &'_ [u8]| -> Vec<Bytes> {
                    if line.is_empty() { return vec![Bytes::new()]; }
                    line.chunks(max).map(Bytes::copy_from_slice).collect()
                };
                lines.iter().flat_map(|line| pieces(line)).collect()
            } else {
                lines.iter().filter(|line| line.len() <= max).map(|line| Bytes::copy_from_slice(line)).collect()
            };
            prop_assert_eq!(whole.0, expected);
        }
    }
}
