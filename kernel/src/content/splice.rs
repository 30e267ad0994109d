//! New content out of old: whole writes, writes at an offset, appends, edits.

use bytes::{Bytes, BytesMut};
use nexus_messages::ErrorKind;
use nexus_messages::syscall::Place;

use super::{CALL_MAX, CONTENT_MAX, index, length};

/// Places that one edit of large content may change.
pub(crate) const PLACES_MAX: usize = 1 << 20;

/// What new content is made of, without the old content at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The new content, in order. None is empty.
    pub(crate) parts: Vec<Segment>,
    /// How long it is.
    pub(crate) size: u64,
    /// How many bytes are written.
    pub(crate) written: u64,
    /// How many places are changed.
    pub(crate) places: u64,
}

/// A part of new content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// What the old content has from the first offset up to the second.
    Old(u64, u64),
    /// What is written.
    New(Bytes),
    /// So many zeros.
    Zeros(u64),
}

/// What a write made of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spliced {
    /// The new content, in buffers.
    pub(crate) content: Vec<Bytes>,
    /// How many bytes were written.
    pub(crate) written: u64,
    /// How many places were changed.
    pub(crate) places: u64,
}

/// Why a write cannot be done.
pub(crate) type Refusal = (ErrorKind, String);

/// Applies a write of `data` to the content `old`, in memory. `old` is not looked at when the whole content is replaced.
pub(crate) fn splice(old: &Bytes, data: &[Bytes], place: &Place, truncate: bool) -> Result<Spliced, Refusal> {
    let plan = plan(Some(old), old.len() as u64, data, place, truncate)?;
    if plan.size > CALL_MAX {
        return Err(too_large(plan.size, CALL_MAX));
    }
    let content = plan.parts.iter().map(|part| match part {
        Segment::Old(from, to) => old.slice(index(*from)..index(*to)),
        Segment::New(data) => data.clone(),
        Segment::Zeros(count) => BytesMut::zeroed(index(*count)).freeze(),
    });
    Ok(Spliced { content: content.collect(), written: plan.written, places: plan.places })
}

/// Plans a write of `data` to content of `size` bytes, which is `old` when it is at hand. An edit needs it to be; see
/// [`Search`] for where it is not.
pub(crate) fn plan(
    old: Option<&Bytes>,
    size: u64,
    data: &[Bytes],
    place: &Place,
    truncate: bool,
) -> Result<Plan, Refusal> {
    match place {
        Place::Whole => Sketch::default().data(data).plan(length(data), 1),
        Place::End => Sketch::default().old(0, size).data(data).plan(length(data), 1),
        Place::At(offset) => at(size, data, *offset, truncate),
        Place::Instead { of, all } => {
            let mut search = Search::new(of, *all)?;
            search.look(old.unwrap_or(&Bytes::new()))?;
            search.plan(size, data)
        }
        _ => Err((ErrorKind::NotSupported, "an unknown kind of write".into())),
    }
}

fn too_large(size: u64, max: u64) -> Refusal {
    (ErrorKind::TooLarge, format!("{size} bytes are more than {max}"))
}

#[derive(Default)]
struct Sketch {
    parts: Vec<Segment>,
    size: u64,
}

impl Sketch {
    fn old(mut self, from: u64, to: u64) -> Self {
        if from < to {
            self.parts.push(Segment::Old(from, to));
            self.size = self.size.saturating_add(to - from);
        }
        self
    }

    fn data(mut self, data: &[Bytes]) -> Self {
        self.parts.extend(data.iter().filter(|data| !data.is_empty()).cloned().map(Segment::New));
        self.size = self.size.saturating_add(length(data));
        self
    }

    fn zeros(mut self, count: u64) -> Self {
        if count > 0 {
            self.parts.push(Segment::Zeros(count));
            self.size = self.size.saturating_add(count);
        }
        self
    }

    fn plan(self, written: u64, places: u64) -> Result<Plan, Refusal> {
        match self.size {
            size if size > CONTENT_MAX => Err(too_large(size, CONTENT_MAX)),
            size => Ok(Plan { parts: self.parts, size, written, places }),
        }
    }
}

fn at(size: u64, data: &[Bytes], offset: u64, truncate: bool) -> Result<Plan, Refusal> {
    let end = offset.saturating_add(length(data));
    if end > CONTENT_MAX {
        return Err(too_large(end, CONTENT_MAX));
    }
    let gap = if end > offset || truncate { offset.saturating_sub(size) } else { 0 };
    let kept = Sketch::default().old(0, offset.min(size)).zeros(gap).data(data);
    let all = if truncate { kept } else { kept.old(end.min(size), size) };
    all.plan(length(data), 1)
}

/// Looks for the text that an edit replaces, in content that comes in pieces.
#[derive(Debug)]
pub(crate) struct Search {
    of: Bytes,
    all: bool,
    /// Where it was found.
    found: Vec<u64>,
    /// How often it was found; more than the places that are kept when it is to be replaced just once.
    count: u64,
    /// The end of what was seen, in which it may begin.
    tail: BytesMut,
    /// Where the tail begins.
    at: u64,
}

impl Search {
    pub(crate) fn new(of: &Bytes, all: bool) -> Result<Self, Refusal> {
        if of.is_empty() {
            return Err((ErrorKind::InvalidArgument, "the text to replace is empty".into()));
        }
        let (found, tail) = (Vec::new(), BytesMut::new());
        Ok(Self { of: of.clone(), all, found, count: 0, tail, at: 0 })
    }

    /// Looks into the next piece.
    pub(crate) fn look(&mut self, piece: &Bytes) -> Result<(), Refusal> {
        // Content that comes as one is not copied.
        let joined = (!self.tail.is_empty()).then(|| {
            self.tail.extend_from_slice(piece);
            std::mem::take(&mut self.tail).freeze()
        });
        let window = joined.as_ref().unwrap_or(piece);
        let mut behind = 0;
        for start in memchr::memmem::find_iter(window, &self.of) {
            behind = start + self.of.len();
            self.count += 1;
            if self.all || self.found.is_empty() {
                self.found.push(self.at + start as u64);
            }
            if self.found.len() > PLACES_MAX {
                let why = format!("the text to replace is there more than {PLACES_MAX} times");
                return Err((ErrorKind::TooLarge, why));
            }
        }
        let kept = behind.max((window.len() + 1).saturating_sub(self.of.len()));
        self.tail.extend_from_slice(&window[kept..]);
        self.at += kept as u64;
        Ok(())
    }

    /// The plan of the edit of content of `size` bytes, all of which was looked into.
    pub(crate) fn plan(self, size: u64, data: &[Bytes]) -> Result<Plan, Refusal> {
        let invalid = |why: String| Err((ErrorKind::InvalidArgument, why));
        match self.count {
            0 => return invalid("the text to replace is not there".into()),
            1 => {}
            many if self.all => tracing::trace!(many, "replacing each occurrence"),
            many => return invalid(format!("the text to replace is there {many} times, not once")),
        }
        let (mut sketch, mut kept) = (Sketch::default(), 0);
        for start in self.found {
            sketch = sketch.old(kept, start).data(data);
            kept = start + self.of.len() as u64;
        }
        sketch.old(kept, size).plan(length(data) * self.count, self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::joined;
    use super::*;

    fn check(old: &str, data: &[&str], place: Place, truncate: bool, expected: Result<&str, ErrorKind>) {
        let old = Bytes::copy_from_slice(old.as_bytes());
        let data: Vec<Bytes> = data.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        let got = splice(&old, &data, &place, truncate);
        let got = got.map(|done| joined(&done.content)).map_err(|(kind, _)| kind);
        assert_eq!(
            got.as_deref(),
            expected.as_ref().map(|text| text.as_bytes()),
            "{place:?} {old:?} {data:?}"
        );
    }

    fn instead_of(old: &'static str, all: bool) -> Place {
        Place::Instead { of: Bytes::from_static(old.as_bytes()), all }
    }

    #[test]
    fn a_write_at_an_offset_goes_over_what_is_there() {
        check("hello world!", &["RUST!"], Place::At(6), false, Ok("hello RUST!!"));
        check("ab", &["xyz"], Place::At(5), false, Ok("ab\0\0\0xyz"));
        check("head", &["TAIL"], Place::At(2), false, Ok("heTAIL"));
        check("head", &["T"], Place::At(1), true, Ok("hT"));
        check("head", &[], Place::At(2), true, Ok("he"));
        check("ab", &[], Place::At(4), true, Ok("ab\0\0"));
        check("ab", &[], Place::At(4), false, Ok("ab"));
        check("head", &["ab", "cd"], Place::At(0), false, Ok("abcd"));
        check("", &["x"], Place::At(CONTENT_MAX), false, Err(ErrorKind::TooLarge));
        check("", &["x"], Place::At(u64::MAX), false, Err(ErrorKind::TooLarge));
    }

    #[test]
    fn an_append_goes_to_the_end() {
        check("ab", &["cd", "e"], Place::End, false, Ok("abcde"));
        check("", &["x"], Place::End, false, Ok("x"));
    }

    #[test]
    fn an_edit_replaces_one_text_or_each() {
        check("a b a", &["x"], instead_of("b", false), false, Ok("a x a"));
        check("a b a", &["xy"], instead_of("a", true), false, Ok("xy b xy"));
        check("a b a", &["x"], instead_of("a", false), false, Err(ErrorKind::InvalidArgument));
        check("a b a", &["x"], instead_of("z", true), false, Err(ErrorKind::InvalidArgument));
        check("a b a", &["x"], instead_of("", true), false, Err(ErrorKind::InvalidArgument));
    }

    #[test]
    fn a_gap_costs_no_memory_until_it_is_filled() {
        let planned = plan(None, 3, &[Bytes::from_static(b"x")], &Place::At(CONTENT_MAX - 1), false).unwrap();
        let parts = [Segment::Old(0, 3), Segment::Zeros(CONTENT_MAX - 4), Segment::New("x".into())];
        assert_eq!((planned.size, &planned.parts[..]), (CONTENT_MAX, &parts[..]));
        check("abc", &["x"], Place::At(CONTENT_MAX - 1), false, Err(ErrorKind::TooLarge));
    }

    proptest! {
        #[test]
        fn an_edit_of_pieces_finds_what_an_edit_of_the_whole_finds(
            pieces in prop::collection::vec("[ab]{0,6}", 0..8),
            of in "[ab]{1,4}",
            all: bool,
        ) {
            let data = [Bytes::from_static(b"XY")];
            let whole = Bytes::from(pieces.concat());
            let size = whole.len() as u64;
            let of = Bytes::from(of);
            let mut search = Search::new(&of, all).unwrap();
            pieces.iter().for_each(|piece| search.look(&Bytes::from(piece.clone())).unwrap());
            let place = Place::Instead { of: of.clone(), all };
            let found = search.plan(size, &data);
            prop_assert_eq!(&found, &plan(Some(&whole), size, &data, &place, false));
            let (text, of) = (String::from_utf8(whole.to_vec()).unwrap(), String::from_utf8(of.to_vec()).unwrap());
            let count = text.matches(&of).count();
            prop_assert_eq!(found.is_ok(), count == 1 || (all && count > 0));
            if found.is_ok() {
                let done = splice(&whole, &data, &place, false).unwrap();
                prop_assert_eq!(joined(&done.content), Bytes::from(text.replace(&of, "XY")));
            }
        }

        #[test]
        fn writes_at_an_offset_do_what_a_byte_by_byte_write_does(
            old in prop::collection::vec(any::<u8>(), 0..40),
            data in prop::collection::vec(any::<u8>(), 0..40),
            offset in 0usize..60,
            truncate: bool,
        ) {
            let mut model = old.clone();
            if !data.is_empty() || truncate {
                model.resize(model.len().max(offset), 0);
            }
            for (n, byte) in data.iter().enumerate() {
                if offset + n < model.len() { model[offset + n] = *byte } else { model.push(*byte) }
            }
            if truncate {
                model.truncate(offset + data.len());
            }
            let place = Place::At(offset as u64);
            let done = splice(&old.into(), &[data.into()], &place, truncate).unwrap();
            prop_assert_eq!(joined(&done.content), Bytes::from(model));
        }
    }
}
