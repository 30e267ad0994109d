//! What a frame of the log holds: entries, and behind them the bytes of their records. Pure.
//!
//! An append is a frame. Only the first frame of a segment has several entries: what all streams are there, and what was carried over into it.

use bytes::Bytes;
use nexus_kernel::hal::{StreamLimits, StreamState};
use nexus_messages::{FileId, OpId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::streams::rules::Executed;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// A segment begins, when the streams were these: so no segment before it has to be read to know what they are.
    Start(Vec<Snapshot>),
    /// A stream was made, or given other limits.
    Create { stream: FileId, limits: StreamLimits },
    /// Records came.
    Append(Appending),
    /// Records were brought here from an older segment.
    Moved { stream: FileId, first: u64, at: Timestamp, lengths: Vec<u32> },
    /// A stream's oldest records went.
    Head { stream: FileId, head: u64, bytes: u64 },
    /// A stream takes no more records.
    Close { stream: FileId },
    /// A stream is forgotten.
    Remove { stream: FileId },
}

/// What a stream was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) stream: FileId,
    pub(super) state: StreamState,
    pub(super) ops: Vec<Executed>,
}

/// An append, and what its stream is after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Appending {
    pub(super) stream: FileId,
    pub(super) first: u64,
    pub(super) op: Option<OpId>,
    pub(super) at: Timestamp,
    pub(super) head: u64,
    pub(super) bytes: u64,
    pub(super) lengths: Vec<u32>,
}

impl Entry {
    /// How long its records are, one by one.
    pub(super) fn lengths(&self) -> &[u32] {
        match self {
            Self::Append(Appending { lengths, .. }) | Self::Moved { lengths, .. } => lengths,
            _ => &[],
        }
    }

    /// The records that it brings: of which stream, from which offset on, and of what time.
    pub(super) fn records(&self) -> Option<(FileId, u64, Timestamp)> {
        match self {
            Self::Append(Appending { stream, first, at, .. }) | Self::Moved { stream, first, at, .. } => {
                Some((*stream, *first, *at))
            }
            _ => None,
        }
    }
}

/// An entry with the bytes of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) entry: Entry,
    pub(super) data: Bytes,
}

impl Item {
    /// Its records, one by one. They share the memory of the frame.
    pub(super) fn split(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut rest = self.data.clone();
        self.entry.lengths().iter().map(move |length| rest.split_to(*length as usize))
    }
}

/// Puts a payload with these entries behind what is in `out`, and behind them the parts. Says whether it could.
pub(super) fn encode<'d>(
    out: &mut Vec<u8>,
    entries: &[&Entry],
    data: impl IntoIterator<Item = &'d Bytes>,
) -> bool {
    let Ok(grown) = postcard::to_extend(entries, std::mem::take(out)) else { return false };
    *out = grown;
    data.into_iter().for_each(|part| out.extend_from_slice(part));
    true
}

/// The entries in a payload whose checksum is right.
pub(super) fn decode(payload: &Bytes) -> Result<Vec<Item>, String> {
    let (entries, rest) =
        postcard::take_from_bytes::<Vec<Entry>>(payload).map_err(|error| error.to_string())?;
    let mut rest = payload.slice(payload.len() - rest.len()..);
    let mut items = Vec::with_capacity(entries.len());
    for entry in entries {
        let wanted = entry.lengths().iter().map(|length| u64::from(*length)).sum::<u64>();
        let wanted = usize::try_from(wanted).ok().filter(|wanted| *wanted <= rest.len());
        let Some(wanted) = wanted else { return Err("records are missing".into()) };
        let reaches = entry.records().is_some_and(|(_, first, _)| {
            !entry.lengths().is_empty() && first.checked_add(entry.lengths().len() as u64).is_some()
        });
        if entry.records().is_some() && !reaches {
            return Err("records without offsets".into());
        }
        items.push(Item { data: rest.split_to(wanted), entry });
    }
    if rest.is_empty() { Ok(items) } else { Err(format!("{} bytes behind it", rest.len())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn append(lengths: &[u32]) -> Entry {
        Entry::Append(Appending {
            stream: FileId(7),
            first: 3,
            op: Some(OpId(1 << 100)),
            at: Timestamp(9),
            head: 1,
            bytes: 20,
            lengths: lengths.to_vec(),
        })
    }

    #[test]
    fn entries_come_back_with_their_records() {
        let (one, two) = (append(&[3, 0, 2]), Entry::Close { stream: FileId(7) });
        let mut out = Vec::new();
        let data = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"to")];
        assert!(encode(&mut out, &[&one, &two], &data));
        let items = decode(&out.into()).unwrap();
        assert_eq!(items[0].entry, one);
        assert_eq!(items[0].split().collect::<Vec<_>>(), data);
        assert_eq!(items[1], Item { entry: two, data: Bytes::new() });
    }

    #[test]
    fn a_payload_with_more_or_fewer_bytes_than_its_records_have_is_none() {
        let mut out = Vec::new();
        encode(&mut out, &[&append(&[3])], [&Bytes::from_static(b"one")]);
        let mut more = out.clone();
        more.push(0);
        assert_eq!(decode(&more.into()), Err("1 bytes behind it".into()));
        out.pop();
        assert_eq!(decode(&out.into()), Err("records are missing".into()));
        let mut none = Vec::new();
        encode(&mut none, &[&append(&[])], []);
        assert!(decode(&none.into()).is_err(), "an append has records");
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(items) = decode(&noise.into()) {
                for item in items {
                    prop_assert_eq!(item.split().count(), item.entry.lengths().len());
                }
            }
        }
    }
}
