//! Where what is in a region. All of it is words of eight bytes; what is written by others often stands in a line of its own.

use super::bell::Bell;
use super::lock::Lock;

/// The first word: what it is, and the version of this layout.
pub(super) const MAGIC_AT: usize = 0;

/// "nexushm" and the version of the layout, 2.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"nexushm\x02");

/// What kind of region.
pub(super) const KIND_AT: usize = 1;

/// The identity of the entry.
pub(super) const ID_AT: usize = 2;

/// The identity of the store that the entry is in.
pub(super) const STORE_AT: usize = 3;

/// Two numbers that say how the region is divided.
pub(super) const SHAPE_AT: [usize; 2] = [4, 5];

/// Words that say what the region is, the first ones. They never change.
pub(super) const TOLD_WORDS: usize = 6;

/// What has become of it, for all to see.
pub(super) const FLAGS_AT: usize = 8;

/// Who writes.
pub(super) const WRITERS: Lock = Lock { holder: 16, bell: Bell(17) };

/// Who reads, of a pipe.
pub(super) const READERS: Lock = Lock { holder: 24, bell: Bell(25) };

/// Of a pipe its tail, of a stream the version of its state; and who waits for it to change.
pub(super) const TAIL_AT: usize = 32;
pub(super) const COMES: Bell = Bell(33);

/// Of a pipe its head; and who waits for it to change.
pub(super) const HEAD_AT: usize = 40;
pub(super) const GOES: Bell = Bell(41);

/// Where a stream's state is, twice.
pub(super) const STATES_AT: usize = 64;

/// Words of a state.
pub(super) const STATE_WORDS: usize = 16;

/// Where what a stream knows of appends with an identity is.
pub(super) const OPS_AT: usize = 128;

/// For how many there is room, more than are kept: one that is written and not published takes nothing away.
pub(super) const OPS_ROOM: usize = 256;

/// Words of one.
pub(super) const OP_WORDS: usize = 4;

/// Words before what is the region's own, in all kinds.
pub(super) const HEADER_WORDS: usize = OPS_AT + OPS_ROOM * OP_WORDS;

const _: () = assert!(STATES_AT + 2 * STATE_WORDS <= OPS_AT);

/// How many words so many bytes fill.
pub(super) fn words(bytes: usize) -> usize {
    bytes.div_ceil(8)
}
