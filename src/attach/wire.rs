//! Frames and messages, as bytes. Pure: it is handed bytes and gives bytes, and knows no socket.
//!
//! ```text
//! frame    = length of the payload (u32) · kind (u8) · number (u64) · payload       all numbers little-endian
//! message  = one frame that opens it, then as many of kind `More` as it takes
//! opening  = length of the head (u32) · length of the body (u64) · the first bytes of head and body
//! ```
//!
//! A message is a head, which is structure, and a body, which is content as it is. One that is larger than a frame is cut up; its pieces
//! are in order, and small messages go between them. Of the large ones there is one under way at a time in each direction, so that what
//! a peer has to keep is bounded.
//!
//! Nothing is allocated for what a peer only says it will send.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nexus_kernel::CALL_MAX;

/// The largest payload of a frame.
pub(crate) const FRAME_MAX: usize = 256 * 1_024;

/// The largest head of a call: a path or two, options, ranges.
pub(crate) const CALL_HEAD_MAX: usize = 4 << 20;

/// The largest head of a reply: a page of a listing.
pub(crate) const REPLY_HEAD_MAX: usize = 64 << 20;

/// The largest body of a message: the content of one call.
pub(crate) const BODY_MAX: u64 = CALL_MAX;

/// Bytes in front of each payload.
const HEADER: usize = 4 + 1 + 8;

/// Bytes in front of the head, in the frame that opens a message.
const OPENING: usize = 4 + 8;

/// A body up to this size is copied behind its head; a larger one is written from where it is.
const COPY_MAX: usize = 16 * 1_024;

/// Pieces handed to the socket at once.
pub(crate) const SLICES_MAX: usize = 16;

const _: () = assert!(HEADER + OPENING + COPY_MAX < FRAME_MAX && FRAME_MAX < CALL_HEAD_MAX);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[$doc])* $name = $number),* }

        impl Kind {
            fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// The client says who it is. The first frame of all.
    Hello = 0,
    /// The server takes the client, and says as whom.
    Welcome = 1,
    /// The server does not take the client, and says why.
    Refused = 2,
    /// Opens a call.
    Call = 3,
    /// Opens the reply to the call of this number.
    Reply = 4,
    /// Goes on with the message of this number.
    More = 5,
    /// Nobody waits for the call of this number any more. There may be no reply.
    Cancel = 6,
    /// The server ends, and has answered all that it will.
    Bye = 7,
    /// The message of a pipe that the reply to the call of this number brought is with who asked for it.
    Took = 8,
    /// The client has an agent whose life has this number, for the calls that come behind this.
    LifeBegins = 9,
    /// That life has ended.
    LifeEnds = 10,
}

/// A peer does not keep to the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a frame of {length} bytes is longer than {max}")]
    FrameTooLong { length: usize, max: usize },
    #[error("there is no frame of kind {0}")]
    UnknownKind(u8),
    #[error("a message with a head of {head} and a body of {body} bytes is larger than may be")]
    MessageTooLarge { head: u64, body: u64 },
    #[error("the frame that opens a message is cut off")]
    NoOpening,
    #[error("a message has more bytes than it said")]
    TooMuch,
    #[error("a frame goes on with a message and has nothing of it")]
    Nothing,
    #[error("message {0} was opened before the one before it was complete")]
    Torn(u64),
    #[error("{0}")]
    Malformed(String),
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A whole message.
    Message(Message),
    /// A part of a message whose rest is to come, or of one that was forgotten.
    Part,
    /// A frame that is no part of a message.
    Frame { kind: Kind, number: u64, payload: Bytes },
}

/// A message: structure, and the content that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

/// Bytes that arrive, put together.
#[derive(Debug)]
pub(crate) struct Inbox {
    buffer: BytesMut,
    frame_max: usize,
    large: Option<Large>,
}

/// A message of several frames that is not complete.
#[derive(Debug)]
struct Large {
    kind: Kind,
    number: u64,
    head_left: usize,
    body_left: u64,
    head: BytesMut,
    body: BytesMut,
}

impl Inbox {
    /// Takes frames of at most `frame_max` bytes.
    pub(crate) fn new(frame_max: usize) -> Self {
        Self { buffer: BytesMut::new(), frame_max, large: None }
    }

    /// From now on frames are of any size that the protocol has.
    pub(crate) fn widen(&mut self) {
        self.frame_max = FRAME_MAX;
    }

    /// Where arriving bytes go, with room for a frame. Bounded: by a frame and what was read with its end.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        // Little while it is quiet: most frames are small.
        let wanted = self.waiting().map_or(READ, |length| length.min(HEADER + self.frame_max).max(READ));
        let missing = wanted.saturating_sub(self.buffer.len()).max(READ_LEAST);
        self.buffer.reserve(missing);
        &mut self.buffer
    }

    /// How many bytes the frame at the front has, when its header is there.
    fn waiting(&self) -> Option<usize> {
        let mut front = self.buffer.get(..4)?;
        Some(HEADER + front.get_u32_le() as usize)
    }

    /// Whether a message is under way whose end has not arrived.
    pub(crate) fn is_within_a_message(&self) -> bool {
        self.large.is_some() || !self.buffer.is_empty()
    }

    /// The large message that is under way.
    pub(crate) fn large(&self) -> Option<u64> {
        self.large.as_ref().map(|large| large.number)
    }

    /// Forgets the message of this number, if it is under way. What still comes of it is passed over.
    pub(crate) fn forget(&mut self, number: u64) {
        self.large.take_if(|large| large.number == number);
    }

    /// Whether the next frame opens a call.
    pub(crate) fn is_call_next(&self) -> bool {
        self.buffer.get(4).is_some_and(|kind| *kind == Kind::Call as u8)
    }

    /// What the next frame brings; none when it has not arrived whole.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, WireError> {
        let Some((kind, number, payload)) = self.frame()? else { return Ok(None) };
        let whole = match kind {
            Kind::Call | Kind::Reply => self.open(kind, number, payload)?,
            Kind::More => self.go_on(number, payload)?,
            _ => return Ok(Some(Incoming::Frame { kind, number, payload })),
        };
        Ok(Some(whole.map_or(Incoming::Part, Incoming::Message)))
    }

    fn frame(&mut self) -> Result<Option<(Kind, u64, Bytes)>, WireError> {
        let Some(mut header) = self.buffer.get(..HEADER) else { return Ok(None) };
        let length = header.get_u32_le() as usize;
        if length > self.frame_max {
            return Err(WireError::FrameTooLong { length, max: self.frame_max });
        }
        let kind = header.get_u8();
        let kind = Kind::from_number(kind).ok_or(WireError::UnknownKind(kind))?;
        let number = header.get_u64_le();
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(HEADER + length).freeze();
        frame.advance(HEADER);
        Ok(Some((kind, number, frame)))
    }

    fn open(&mut self, kind: Kind, number: u64, mut payload: Bytes) -> Result<Option<Message>, WireError> {
        if payload.len() < OPENING {
            return Err(WireError::NoOpening);
        }
        let (head, body) = (payload.get_u32_le(), payload.get_u64_le());
        let head_max = if kind == Kind::Call { CALL_HEAD_MAX } else { REPLY_HEAD_MAX };
        if head as usize > head_max || body > BODY_MAX {
            return Err(WireError::MessageTooLarge { head: head.into(), body });
        }
        let (arrived, whole) = (payload.len() as u64, u64::from(head) + body);
        if arrived > whole {
            return Err(WireError::TooMuch);
        }
        if arrived == whole {
            let head = payload.split_to(head as usize);
            return Ok(Some(Message { kind, number, head, body: payload }));
        }
        if let Some(torn) = &self.large {
            return Err(WireError::Torn(torn.number));
        }
        let mut large = Large {
            kind,
            number,
            head_left: head as usize,
            body_left: body,
            head: BytesMut::new(),
            body: BytesMut::new(),
        };
        large.take(payload)?;
        self.large = Some(large);
        Ok(None)
    }

    fn go_on(&mut self, number: u64, payload: Bytes) -> Result<Option<Message>, WireError> {
        if payload.is_empty() {
            return Err(WireError::Nothing);
        }
        // Of another number: it was forgotten here while its rest was on the way.
        let Some(large) = self.large.as_mut().filter(|large| large.number == number) else { return Ok(None) };
        large.take(payload)?;
        if large.head_left > 0 || large.body_left > 0 {
            return Ok(None);
        }
        let whole = self.large.take();
        Ok(whole.map(|Large { kind, number, head, body, .. }| Message {
            kind,
            number,
            head: head.freeze(),
            body: body.freeze(),
        }))
    }
}

/// Bytes asked of the socket at once when nothing larger is waited for, and at least.
const READ: usize = 16 * 1_024;
const READ_LEAST: usize = 4 * 1_024;

impl Large {
    fn take(&mut self, mut bytes: Bytes) -> Result<(), WireError> {
        let of_head = bytes.split_to(bytes.len().min(self.head_left));
        self.head_left -= of_head.len();
        self.head.extend_from_slice(&of_head);
        self.body_left = self.body_left.checked_sub(bytes.len() as u64).ok_or(WireError::TooMuch)?;
        self.body.extend_from_slice(&bytes);
        Ok(())
    }
}

/// Messages that leave, cut into frames.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// How much of the first piece is gone.
    gone: usize,
    /// How many bytes the pieces have.
    bytes: usize,
    /// Large messages, one after the other, of which pieces are made as others leave.
    large: VecDeque<Leaving>,
    /// How many bytes they have.
    large_bytes: u64,
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// The message that is whole at the other end with this piece's last byte.
    ends: Option<u64>,
}

/// A large message of which a part may have left.
#[derive(Debug)]
struct Leaving {
    kind: Kind,
    number: u64,
    begun: bool,
    left: u64,
    opening: [u8; OPENING],
    parts: VecDeque<Bytes>,
}

/// How many bytes of pieces there are before more are made of large messages.
const PIECES_ENOUGH: usize = FRAME_MAX;

impl Outbox {
    /// Appends a frame that is no part of a message.
    pub(crate) fn push_frame(&mut self, kind: Kind, number: u64, payload: &[u8]) {
        let mut frame = BytesMut::with_capacity(HEADER + payload.len());
        header(&mut frame, payload.len(), kind, number);
        frame.extend_from_slice(payload);
        self.push(frame.freeze(), None);
    }

    /// Appends a message, whose body is the parts one after the other.
    pub(crate) fn push_message(&mut self, kind: Kind, number: u64, head: &[u8], body: Vec<Bytes>) {
        let body_length: u64 = body.iter().map(|part| part.len() as u64).sum();
        let head_length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let mut opening = [0; OPENING];
        (&mut opening[..]).put_u32_le(head_length);
        (&mut opening[4..]).put_u64_le(body_length);
        let whole = head.len() as u64 + body_length;
        if whole > (FRAME_MAX - OPENING) as u64 {
            let parts = std::iter::once(Bytes::copy_from_slice(head)).chain(body);
            let parts = parts.filter(|part| !part.is_empty()).collect();
            self.large.push_back(Leaving { kind, number, begun: false, left: whole, opening, parts });
            self.large_bytes += whole;
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is smaller than a frame")]
        let (whole, body_length) = (whole as usize, body_length as usize);
        let copied = if body_length <= COPY_MAX { body_length } else { 0 };
        let mut frame = BytesMut::with_capacity(HEADER + OPENING + head.len() + copied);
        header(&mut frame, OPENING + whole, kind, number);
        frame.extend_from_slice(&opening);
        frame.extend_from_slice(head);
        if copied > 0 || body_length == 0 {
            body.iter().for_each(|part| frame.extend_from_slice(part));
            return self.push(frame.freeze(), Some(number));
        }
        self.push(frame.freeze(), None);
        body.into_iter().filter(|part| !part.is_empty()).for_each(|part| self.push(part, None));
        if let Some(last) = self.pieces.back_mut() {
            last.ends = Some(number);
        }
    }

    fn push(&mut self, bytes: Bytes, ends: Option<u64>) {
        self.bytes += bytes.len();
        self.pieces.push_back(Piece { bytes, ends });
    }

    /// Takes back what has not left of a large message. Of a small one nothing is taken back.
    pub(crate) fn take_back(&mut self, number: u64) {
        self.large.retain(|leaving| leaving.number != number);
        self.large_bytes = self.large.iter().map(|leaving| leaving.left).sum();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.large.is_empty()
    }

    /// How many bytes have not left.
    pub(crate) fn waiting(&self) -> u64 {
        (self.bytes - self.gone) as u64 + self.large_bytes
    }

    /// The next bytes to leave; how many slices were filled.
    pub(crate) fn slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        self.cut();
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            let from = if filled == 0 { self.gone } else { 0 };
            *slot = IoSlice::new(&piece.bytes[from..]);
            filled += 1;
        }
        filled
    }

    /// These bytes have left; says of each message that has now left whole.
    pub(crate) fn left(&mut self, mut count: usize, mut whole: impl FnMut(u64)) {
        while let Some(first) = self.pieces.front() {
            let rest = first.bytes.len() - self.gone;
            if count < rest {
                self.gone += count;
                return;
            }
            count -= rest;
            self.gone = 0;
            self.bytes -= first.bytes.len();
            if let Some(number) = first.ends {
                whole(number);
            }
            self.pieces.pop_front();
        }
    }

    /// Makes pieces of large messages until there are enough.
    fn cut(&mut self) {
        while self.bytes < PIECES_ENOUGH
            && let Some(leaving) = self.large.front_mut()
        {
            let mut frame = BytesMut::with_capacity(HEADER + OPENING);
            let (kind, opening) = match leaving.begun {
                false => (leaving.kind, &leaving.opening[..]),
                true => (Kind::More, &[][..]),
            };
            let room = FRAME_MAX - opening.len();
            let size = usize::try_from(leaving.left).map_or(room, |left| left.min(room));
            header(&mut frame, opening.len() + size, kind, leaving.number);
            frame.extend_from_slice(opening);
            leaving.begun = true;
            leaving.left -= size as u64;
            self.large_bytes -= size as u64;
            let ends = (leaving.left == 0).then_some(leaving.number);
            let mut pieces = vec![frame.freeze()];
            let mut missing = size;
            while missing > 0
                && let Some(part) = leaving.parts.front_mut()
            {
                let piece = part.split_to(part.len().min(missing));
                missing -= piece.len();
                if part.is_empty() {
                    leaving.parts.pop_front();
                }
                pieces.push(piece);
            }
            if ends.is_some() {
                self.large.pop_front();
            }
            pieces.into_iter().for_each(|piece| self.push(piece, None));
            if let Some(last) = self.pieces.back_mut() {
                last.ends = ends;
            }
        }
    }
}

fn header(frame: &mut BytesMut, length: usize, kind: Kind, number: u64) {
    frame.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_u8(kind as u8);
    frame.put_u64_le(number);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// All bytes that leave, in the portions in which a socket takes them.
    fn drain(out: &mut Outbox, portion: usize, whole: &mut Vec<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = out.slices(&mut slices);
            let offered: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = offered.len().min(portion);
            bytes.extend_from_slice(&offered[..count]);
            out.left(count, |number| whole.push(number));
        }
        assert_eq!(out.waiting(), 0);
        bytes
    }

    /// What arrives when the bytes come in such portions.
    fn arrive(bytes: &[u8], portion: usize) -> Result<Vec<Incoming>, WireError> {
        let mut inbox = Inbox::new(FRAME_MAX);
        let mut arrived = Vec::new();
        for bytes in bytes.chunks(portion) {
            inbox.room().extend_from_slice(bytes);
            while let Some(incoming) = inbox.next()? {
                arrived.extend(Some(incoming).filter(|incoming| *incoming != Incoming::Part));
            }
        }
        Ok(arrived)
    }

    fn pattern(length: usize, seed: u8) -> Bytes {
        (0..=u8::MAX).map(|at| at.wrapping_mul(31) ^ seed).cycle().take(length).collect::<Vec<_>>().into()
    }

    fn check(messages: &[(usize, Vec<usize>)], leaving: usize, arriving: usize) {
        let mut out = Outbox::default();
        let mut sent = Vec::new();
        for (number, (head, body)) in (1..).zip(messages) {
            let head = pattern(*head, 7);
            let body: Vec<Bytes> = body.iter().map(|length| pattern(*length, 9)).collect();
            out.push_message(Kind::Call, number, &head, body.clone());
            sent.push(Message { kind: Kind::Call, number, head, body: body.concat().into() });
        }
        let mut whole = Vec::new();
        let bytes = drain(&mut out, leaving, &mut whole);
        let mut arrived: Vec<Message> = arrive(&bytes, arriving)
            .expect("it is of our making")
            .into_iter()
            .map(|incoming| match incoming {
                Incoming::Message(message) => message,
                other => panic!("{other:?}"),
            })
            .collect();
        // Small messages overtake large ones; what left whole is what arrived, in that order.
        assert_eq!(arrived.iter().map(|message| message.number).collect::<Vec<_>>(), whole);
        arrived.sort_by_key(|message| message.number);
        assert!(arrived == sent, "not what was sent: {messages:?}");
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        check(&[(0, vec![])], 1, 1);
        check(&[(3, vec![5]), (0, vec![0, 7]), (9, vec![])], 3, 2);
        check(&[(10, vec![COPY_MAX + 1]), (10, vec![COPY_MAX])], 1_000, 7_777);
        let most = FRAME_MAX - OPENING;
        check(&[(most, vec![]), (most + 1, vec![]), (1, vec![most - 1]), (1, vec![most])], 100_000, 65_537);
        check(
            &[(5, vec![1_000_000, 3, 700_000]), (1, vec![]), (600_000, vec![1]), (2, vec![2])],
            50_000,
            4_096,
        );
    }

    #[test]
    fn a_small_message_does_not_wait_for_a_large_one() {
        let mut out = Outbox::default();
        out.push_message(Kind::Reply, 1, b"", vec![pattern(10 * FRAME_MAX, 1)]);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        out.slices(&mut slices);
        out.push_message(Kind::Reply, 2, b"small", vec![]);
        let mut whole = Vec::new();
        let bytes = drain(&mut out, FRAME_MAX, &mut whole);
        assert_eq!(whole, [2, 1]);
        assert_eq!(arrive(&bytes, FRAME_MAX).expect("it is of our making").len(), 2);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_passed_over() {
        let mut out = Outbox::default();
        out.push_message(Kind::Reply, 1, b"", vec![pattern(3 * FRAME_MAX, 1)]);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = out.slices(&mut slices);
        let begun: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
        out.left(begun.len(), |_| {});
        out.push_message(Kind::Reply, 2, b"", vec![pattern(2 * FRAME_MAX, 2)]);
        out.take_back(1);
        let rest = drain(&mut out, FRAME_MAX, &mut Vec::new());

        let mut inbox = Inbox::new(FRAME_MAX);
        inbox.room().extend_from_slice(&begun);
        assert_eq!(inbox.next(), Ok(Some(Incoming::Part)));
        inbox.forget(1);
        inbox.room().extend_from_slice(&rest);
        let mut arriving = std::iter::from_fn(|| inbox.next().expect("it is of our making"));
        let second = arriving.find_map(|incoming| match incoming {
            Incoming::Message(message) => Some(message),
            _ => None,
        });
        let second = second.expect("the second arrives");
        assert_eq!((second.number, second.body.len()), (2, 2 * FRAME_MAX));
        assert!(!inbox.is_within_a_message());
    }

    fn refused(bytes: &[u8], why: &WireError) {
        assert_eq!(arrive(bytes, bytes.len()).as_ref(), Err(why));
    }

    #[test]
    fn what_is_no_frame_of_ours_is_refused() {
        let frame = |length: u32, kind: u8, payload: &[u8]| {
            let mut bytes = BytesMut::new();
            bytes.put_u32_le(length);
            bytes.put_u8(kind);
            bytes.put_u64_le(1);
            bytes.extend_from_slice(payload);
            bytes
        };
        let opening = |head: u32, body: u64, more: &[u8]| {
            let mut bytes = BytesMut::new();
            bytes.put_u32_le(head);
            bytes.put_u64_le(body);
            bytes.extend_from_slice(more);
            frame(u32::try_from(bytes.len()).expect("it is short"), Kind::Call as u8, &bytes)
        };
        let length = FRAME_MAX + 1;
        refused(
            &frame(u32::try_from(length).expect("it fits"), 3, &[]),
            &WireError::FrameTooLong { length, max: FRAME_MAX },
        );
        refused(&frame(0, 99, &[]), &WireError::UnknownKind(99));
        refused(&frame(3, 3, b"abc"), &WireError::NoOpening);
        let large = WireError::MessageTooLarge { head: u64::from(u32::MAX), body: 0 };
        refused(&opening(u32::MAX, 0, &[]), &large);
        refused(&opening(0, BODY_MAX + 1, &[]), &WireError::MessageTooLarge { head: 0, body: BODY_MAX + 1 });
        refused(&opening(1, 1, b"abc"), &WireError::TooMuch);
        let begun = opening(2, 2, b"ab");
        refused(&[&begun[..], &frame(0, 5, &[])].concat(), &WireError::Nothing);
        refused(&[&begun[..], &frame(3, 5, b"cde")].concat(), &WireError::TooMuch);
        refused(&[&begun[..], &begun[..]].concat(), &WireError::Torn(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_messages_arrive_in_any_portions(
            messages in vec((0usize..2_000, vec(0usize..400_000, 0..3)), 1..5),
            leaving in 1_000usize..400_000,
            arriving in 1_000usize..400_000,
        ) {
            check(&messages, leaving, arriving);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Nothing that arrives makes it panic, or keep more than what arrived and the room for one frame.
        #[test]
        fn arbitrary_bytes_neither_panic_nor_fill_the_memory(
            frames in vec((0u8..9, any::<u8>(), vec(any::<u8>(), 0..60)), 0..8),
            noise in vec(any::<u8>(), 0..40),
            portion in 1usize..50,
            frame_max in prop_oneof![Just(FRAME_MAX), 1usize..100],
        ) {
            let mut bytes = BytesMut::new();
            for (kind, length, payload) in &frames {
                // Most say how long they really are, so that the noise goes deep.
                let said = u32::try_from(payload.len()).expect("it is short");
                let length = if *length < 200 { said } else { u32::from(*length) << 24 };
                bytes.put_u32_le(length);
                bytes.put_u8(*kind);
                bytes.put_u64_le(u64::from(payload.first().copied().unwrap_or_default() % 3));
                bytes.extend_from_slice(payload);
            }
            bytes.extend_from_slice(&noise);
            let mut inbox = Inbox::new(frame_max);
            'all: for some in bytes.chunks(portion) {
                inbox.room().extend_from_slice(some);
                let bound = 2 * (bytes.len() + HEADER + FRAME_MAX + READ);
                prop_assert!(inbox.buffer.capacity() <= bound, "{} of room", inbox.buffer.capacity());
                loop {
                    match inbox.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
                if let Some(large) = &inbox.large {
                    prop_assert!(large.head.capacity() + large.body.capacity() <= 2 * bytes.len() + READ);
                }
            }
        }
    }
}
