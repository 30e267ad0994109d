//! Content: its address, its cache, how large content is divided, and how ranges, appends and edits are applied to it.

mod cache;
mod chunked;
mod chunker;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod list;
mod splice;
mod writer;

pub(crate) use cache::ContentCache;
pub(crate) use chunked::{Blobs, Cursor, Pieces, Sort, at_hand};
pub(crate) use list::{Hash, List, Part, Shape};
pub(crate) use splice::{Plan, Refusal, Search, Segment, plan, splice};
pub(crate) use writer::Writer;

use bytes::Bytes;
use nexus_messages::ContentId;
use nexus_messages::syscall::{ByteRange, Extent};

/// Content up to this many bytes is kept in the metastore, in the same commit as its row: one fsync covers both.
pub(crate) const INLINE_MAX: u64 = 16 * 1024;

/// Content up to this many bytes is hashed on the task that writes it; above, on a pool, so that the task's other work goes on.
pub(crate) const HASH_HERE_MAX: u64 = 256 * 1024;

/// Content above this many bytes is kept in chunks. Its address is that of its chunk list.
pub(crate) const WHOLE_MAX: u64 = 1 << 20;

/// The largest content of one file, in bytes.
pub const CONTENT_MAX: u64 = 1 << 40;

/// The most content that one call carries, in bytes, one way or the other. More goes as a stream, or range by range.
pub const CALL_MAX: u64 = 1 << 32;

const _: () = assert!(INLINE_MAX < HASH_HERE_MAX && HASH_HERE_MAX < WHOLE_MAX);
const _: () = assert!(WHOLE_MAX < CALL_MAX && CALL_MAX < CONTENT_MAX);

/// The address of the buffers, one after the other.
pub(crate) fn address(data: &[Bytes]) -> ContentId {
    let mut hasher = blake3::Hasher::new();
    for buffer in data {
        hasher.update(buffer);
    }
    ContentId::Blake3(*hasher.finalize().as_bytes())
}

/// How many bytes the buffers have.
pub(crate) fn length(data: &[Bytes]) -> u64 {
    data.iter().map(|buffer| buffer.len() as u64).sum()
}

/// The buffers as one, without a copy when there is one.
pub(crate) fn joined(data: &[Bytes]) -> Bytes {
    match data {
        [] => Bytes::new(),
        [one] => one.clone(),
        many => many.concat().into(),
    }
}

/// The buffers as one that shares its memory with nothing: what is kept for long must not hold a larger buffer that it is a part of.
pub(crate) fn own(data: &[Bytes]) -> Bytes {
    match data {
        [one] => Bytes::copy_from_slice(one),
        many => joined(many),
    }
}

/// The runs of `extent` out of the whole `content`, the first one apart. Copies nothing.
pub(crate) fn runs(content: &Bytes, extent: &Extent) -> (Bytes, Vec<Bytes>) {
    let size = content.len() as u64;
    let cut = |range: &ByteRange| {
        let (start, end) = range.within(size);
        content.slice(index(start)..index(end))
    };
    match extent {
        Extent::One(range) => (cut(range), Vec::new()),
        Extent::Vector(ranges) => {
            let mut runs = ranges.iter().map(cut);
            (runs.next().unwrap_or_default(), runs.collect())
        }
        // The enum may grow; what this kernel does not know of it never built.
        _ => (Bytes::new(), Vec::new()),
    }
}

/// The ranges that are asked for. The enum may grow; what this kernel does not know of it never built.
pub(crate) fn ranges(extent: &Extent) -> &[ByteRange] {
    match extent {
        Extent::One(range) => std::slice::from_ref(range),
        Extent::Vector(ranges) => ranges,
        _ => &[],
    }
}

/// How many bytes a read of `extent` gives, of content of `size` bytes.
pub(crate) fn bytes_in(extent: &Extent, size: u64) -> u64 {
    let length = |range: &ByteRange| {
        let (start, end) = range.within(size);
        end - start
    };
    ranges(extent).iter().map(length).fold(0, u64::saturating_add)
}

/// An offset within content that is in memory.
#[expect(clippy::cast_possible_truncation, reason = "content in memory is smaller than the address space")]
pub(crate) fn index(offset: u64) -> usize {
    offset as usize
}
