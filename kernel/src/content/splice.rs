//! New content out of old: whole writes, writes at an offset, appends, edits.

use bytes::{Bytes, BytesMut};
use nexus_messages::ErrorKind;
use nexus_messages::syscall::Place;

use super::{CONTENT_MAX, index, length};

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

/// Applies a write of `data` to the content `old`. `old` is not looked at when the whole content is replaced.
pub(crate) fn splice(
    old: &Bytes,
    data: &[Bytes],
    place: &Place,
    truncate: bool,
) -> Result<Spliced, (ErrorKind, String)> {
    let written = length(data);
    let (content, places) = match place {
        Place::Whole => (data.to_vec(), 1),
        Place::End => (join(old.clone(), data, Bytes::new()), 1),
        Place::At(offset) => (at(old, data, *offset, truncate)?, 1),
        Place::Instead { of, all } => instead(old, data, of, *all)?,
        _ => return Err((ErrorKind::NotSupported, "an unknown kind of write".into())),
    };
    match length(&content) {
        size if size > CONTENT_MAX => Err(too_large(size)),
        _ => Ok(Spliced { content, written: written * places, places }),
    }
}

fn too_large(size: u64) -> (ErrorKind, String) {
    (ErrorKind::TooLarge, format!("{size} bytes are more than {CONTENT_MAX}"))
}

fn join(head: Bytes, data: &[Bytes], tail: Bytes) -> Vec<Bytes> {
    let mut content = Vec::with_capacity(data.len() + 2);
    content.push(head);
    content.extend_from_slice(data);
    content.push(tail);
    content.retain(|buffer| !buffer.is_empty());
    content
}

fn at(old: &Bytes, data: &[Bytes], offset: u64, truncate: bool) -> Result<Vec<Bytes>, (ErrorKind, String)> {
    let size = old.len() as u64;
    let end = offset.saturating_add(length(data));
    if end > CONTENT_MAX {
        return Err(too_large(end));
    }
    let mut head = old.slice(..index(offset.min(size)));
    if offset > size && (end > offset || truncate) {
        let mut padded = BytesMut::with_capacity(index(offset));
        padded.extend_from_slice(old);
        padded.resize(index(offset), 0);
        head = padded.freeze();
    }
    let tail = if truncate { Bytes::new() } else { old.slice(index(end.min(size))..) };
    Ok(join(head, data, tail))
}

fn instead(
    old: &Bytes,
    data: &[Bytes],
    of: &Bytes,
    all: bool,
) -> Result<(Vec<Bytes>, u64), (ErrorKind, String)> {
    let invalid = |why: String| (ErrorKind::InvalidArgument, why);
    if of.is_empty() {
        return Err(invalid("the text to replace is empty".into()));
    }
    let found: Vec<usize> = memchr::memmem::find_iter(old, of).collect();
    match found.len() {
        0 => return Err(invalid("the text to replace is not there".into())),
        1 => {}
        many if all => tracing::trace!(many, "replacing each occurrence"),
        many => return Err(invalid(format!("the text to replace is there {many} times, not once"))),
    }
    let size = old.len() as u64 + found.len() as u64 * length(data);
    if size > CONTENT_MAX {
        return Err(too_large(size));
    }
    let mut content = BytesMut::with_capacity(index(size));
    let mut kept = 0;
    for &start in &found {
        content.extend_from_slice(&old[kept..start]);
        data.iter().for_each(|buffer| content.extend_from_slice(buffer));
        kept = start + of.len();
    }
    content.extend_from_slice(&old[kept..]);
    Ok((vec![content.freeze()], found.len() as u64))
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

    proptest! {
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
