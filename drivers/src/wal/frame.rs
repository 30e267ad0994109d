//! What a frame of the log holds: one batch. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{LogRecord, RowKey, Told, TreeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::frames::frame;
pub(super) use crate::frames::frame::{CHAIN_START, Header, PAYLOAD_MAX, Seed};

/// What a batch did. Behind it stands what is told of each entry, which the records are written without; and behind that for whom each was, if that was said of one.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload<'a> {
    /// A number above every identity that was used.
    pub(super) next_file_id: u64,
    pub(super) entries: Vec<FrameEntry<'a>>,
}

/// What one entry did: the rows as it left them. Preconditions are checked and conditions decided, so replaying needs neither.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FrameEntry<'a> {
    pub(super) tree: TreeId,
    pub(super) repeatable: bool,
    pub(super) record: Cow<'a, LogRecord>,
    /// Rows in the order of the changes; none for one that was removed.
    pub(super) rows: Cow<'a, [(RowKey, Option<Bytes>)]>,
}

/// What one entry did, until its frame is written.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) tree: TreeId,
    pub(super) repeatable: bool,
    pub(super) record: Arc<LogRecord>,
    pub(super) rows: Vec<(RowKey, Option<Bytes>)>,
}

impl Done {
    /// As it stands in the frame.
    pub(super) fn as_frame(&self) -> FrameEntry<'_> {
        FrameEntry {
            tree: self.tree,
            repeatable: self.repeatable,
            record: Cow::Borrowed(&self.record),
            rows: Cow::Borrowed(&self.rows),
        }
    }

    /// About how many bytes it takes in a frame.
    pub(super) fn bytes(&self) -> u64 {
        let row = |(key, value): &(RowKey, Option<Bytes>)| {
            (key.bytes.len() + value.as_ref().map_or(0, Bytes::len)) as u64
        };
        self.record.bytes() + self.rows.iter().map(row).sum::<u64>()
    }
}

/// Writes the frame of a batch, as [`frame::encode`] does.
pub(super) fn encode(
    out: &mut Vec<u8>,
    seed: Seed,
    seq: u64,
    durable: u64,
    previous: u64,
    payload: &Payload<'_>,
) -> Option<Header> {
    let told: SmallVec<[_; 1]> = payload.entries.iter().map(|entry| entry.record.told.as_deref()).collect();
    let users: SmallVec<[_; 1]> =
        told.iter().map(|told| told.and_then(|told| told.user.as_deref())).collect();
    let write = |out: &mut Vec<u8>| {
        // It grows in place. What the kernel puts into a batch can always be written.
        let grown = postcard::to_extend(payload, std::mem::take(out));
        let grown = grown.and_then(|grown| postcard::to_extend(&told, grown));
        let grown = match users.iter().any(Option::is_some) {
            true => grown.and_then(|grown| postcard::to_extend(&users, grown)),
            false => grown,
        };
        grown.map(|grown| *out = grown).is_ok()
    };
    frame::encode(out, seed, seq, durable, previous, write)
}

/// The payload in `bytes`, whose checksum is right.
pub(super) fn decode(bytes: &[u8]) -> Result<Payload<'static>, String> {
    let (mut payload, told): (Payload<'static>, _) = take(bytes)?;
    if told.is_empty() {
        // Of the format that had no more.
        return Ok(payload);
    }
    let (mut told, rest): (Vec<Option<Told>>, _) = take(told)?;
    let rest = match rest.is_empty() {
        true => rest,
        false => with_users(&mut told, rest)?,
    };
    if !rest.is_empty() || told.len() != payload.entries.len() {
        return Err(format!("{} bytes behind what is told of {} entries", rest.len(), told.len()));
    }
    for (entry, told) in payload.entries.iter_mut().zip(told) {
        entry.record.to_mut().told = told.map(Arc::new);
    }
    Ok(payload)
}

/// Takes for whom each entry was, and gives what is behind that.
fn with_users<'a>(told: &mut [Option<Told>], users: &'a [u8]) -> Result<&'a [u8], String> {
    let (users, rest): (Vec<Option<Arc<str>>>, _) = take(users)?;
    let is_said = users.iter().any(Option::is_some);
    if !is_said || users.len() != told.len() {
        return Err(format!("{} users of {} entries", users.len(), told.len()));
    }
    for (told, user) in told.iter_mut().zip(users) {
        match told {
            Some(told) => told.user = user,
            None if user.is_some() => return Err("a user of what is told to nobody".into()),
            None => {}
        }
    }
    Ok(rest)
}

fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), String> {
    postcard::take_from_bytes(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use nexus_kernel::hal::{Table, ToldEvent};
    use nexus_messages::{ContentId, EntryType, EventKind, Lsn, Op, OpId, Timestamp, VPath, ZoneId};
    use proptest::prelude::*;

    use super::*;
    use crate::frames::frame::HEADER_BYTES;

    fn told() -> Told {
        let event = ToldEvent {
            kind: EventKind::FileWritten,
            entry_type: EntryType::Reg,
            size: 5,
            content_id: Some(ContentId::Blake3([7; 32])),
            version: 2,
            generation: 3,
            is_new: true,
            owner: Arc::from("coder-7"),
        };
        Told { zone: ZoneId::root(), admin: false, events: smallvec::smallvec![Some(event)], user: None }
    }

    fn payload(rows: &[(&'static str, Option<&'static [u8]>)]) -> Payload<'static> {
        let record = LogRecord {
            lsn: Lsn(4),
            op_id: OpId(1 << 100),
            caller: Arc::from("coder-7"),
            op: Op::Write,
            path: VPath::parse("/a/b").unwrap(),
            other: None,
            items: Vec::new(),
            told: Some(Arc::new(told())),
            at: Timestamp(9),
        };
        let key = |name: &str| RowKey::new(Table::Inodes, name.as_bytes());
        let rows = rows.iter().map(|(name, value)| (key(name), value.map(Bytes::from_static))).collect();
        let entry = FrameEntry { tree: TreeId::ROOT, repeatable: true, record: Cow::Owned(record), rows };
        Payload { next_file_id: 77, entries: vec![entry] }
    }

    /// The frame in `bytes`, if it is one of segment 3.
    fn read(bytes: &[u8]) -> Option<(Header, Payload<'static>)> {
        let (header, payload) = frame::read(Seed::of(9, 3), bytes)?;
        Some((header, decode(payload).ok()?))
    }

    fn frame() -> (Vec<u8>, Header) {
        let before = [1; 8];
        let mut out = before.to_vec();
        let payload = payload(&[("x", Some(b"value")), ("y", None)]);
        let header = encode(&mut out, Seed::of(9, 3), 12, 11, 5, &payload).unwrap();
        (out.strip_prefix(&before).unwrap().to_vec(), header)
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let (bytes, header) = frame();
        assert_eq!(bytes.len() as u64, header.frame_bytes());
        assert_eq!(read(&bytes), Some((header, payload(&[("x", Some(b"value")), ("y", None)]))));
        assert_eq!((header.seq, header.durable, header.previous), (12, 11, 5));
    }

    #[test]
    fn for_whom_each_entry_was_comes_back_with_what_is_told_of_it() {
        let entry = || payload(&[("x", Some(b"value"))]).entries.remove(0);
        let of = |user: &str| {
            let mut entry = entry();
            entry.record.to_mut().told = Some(Arc::new(Told { user: Some(user.into()), ..told() }));
            entry
        };
        let nothing = || {
            let mut entry = entry();
            entry.record.to_mut().told = None;
            entry
        };
        for entries in [vec![of("ada")], vec![entry(), nothing(), of("ada"), of(""), nothing()]] {
            let payload = Payload { next_file_id: 77, entries };
            let mut out = Vec::new();
            encode(&mut out, Seed::of(9, 3), 12, 11, 5, &payload).unwrap();
            assert_eq!(read(&out).map(|(_, read)| read), Some(payload));
        }
    }

    #[test]
    fn a_payload_with_bytes_behind_it_is_none() {
        let old = postcard::to_allocvec(&payload(&[("x", Some(b"value"))])).unwrap();
        for behind in [&[0][..], &[1, 0, 0], &[2, 0, 0], &[1]] {
            assert!(decode(&[&old, behind].concat()).is_err(), "{behind:?}");
        }
    }

    #[test]
    fn what_was_written_before_anything_was_told_can_be_read() {
        let mut expected = payload(&[("x", Some(b"value"))]);
        let old = postcard::to_allocvec(&expected).unwrap();
        expected.entries[0].record.to_mut().told = None;
        assert_eq!(decode(&old), Ok(expected));
    }

    #[test]
    fn a_frame_of_another_segment_or_store_is_none() {
        for other in [Seed::of(9, 2), Seed::of(8, 3)] {
            let mut out = Vec::new();
            encode(&mut out, other, 12, 11, 5, &payload(&[])).unwrap();
            assert_eq!(read(&out), None);
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_seen_and_noise_is_no_frame(at in 0usize..4_096, bit in 0u32..8, noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut bytes, header) = frame();
            let end = HEADER_BYTES + header.payload_bytes();
            let at = at % end;
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(read(&bytes), None);
            prop_assert_eq!(read(&noise), None);
            let _ = decode(&noise);
        }
    }
}
