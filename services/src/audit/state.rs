//! The pure core of the audit log: records, the chain that they form, and what is appended next.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use nexus_kernel::hal::LogRecord;
use nexus_messages::{ErrorKind, Lsn, Op, OpId, Timestamp, VPath};
use serde::{Deserialize, Serialize};

/// How many records one append has at most.
pub(super) const RECORDS_MAX: usize = 256;
/// How many refusals wait for being logged, and messages for the service. More are counted, and the log says how many.
pub(super) const REFUSALS_MAX: usize = 1_024;
/// After so many commits without a record, its own that is, the log says how far it is: or the kernel's log would have lost, at a restart, what is
/// before the last record, and nobody could say that these were nothing but its own.
pub(super) const MARK_EVERY: u64 = 8_192;
/// How many digits the name of a segment has, so that their order is that of their numbers.
const NAME_DIGITS: usize = 20;
const NAME_ENDING: &str = ".log";

/// One of a zone's two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// What was changed. Exact.
    Changes,
    /// What was refused, or failed. As far as it was heard of.
    Refusals,
}

impl Log {
    /// The name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Refusals => "refusals",
        }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number in its log: 0 for the first.
    pub n: u64,
    /// When it happened: for a change, when the operation was assigned its time.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a record tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entry {
    /// Something was changed, and is on disk.
    Change {
        /// The commit's place in the zone's log, as the receipt says it.
        lsn: Lsn,
        /// The operation's identity, as the receipt says it.
        #[serde(with = "hexadecimal")]
        op_id: OpId,
        /// Who.
        agent: Arc<str>,
        /// What.
        op: Op,
        /// Where; the old path of a rename, the source of a copy.
        path: VPath,
        /// The second path of a rename or copy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other: Option<VPath>,
        /// The operations of a transaction.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        items: Vec<Item>,
    },
    /// Something was not changed.
    Refusal {
        /// The operation's identity, when it had one.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_hexadecimal")]
        op_id: Option<OpId>,
        /// Who asked for it.
        agent: Arc<str>,
        /// What was asked for.
        op: Op,
        /// Where.
        path: VPath,
        /// The second path of a rename or copy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other: Option<VPath>,
        /// The kind of error.
        error: ErrorKind,
        /// Why, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
    /// So many refusals were too many at once, and are not here.
    Missed {
        /// How many.
        refusals: u64,
    },
    /// The kernel's log no longer had these commits when they were asked for.
    Gap {
        /// The first.
        from: Lsn,
        /// The last.
        to: Lsn,
    },
    /// Up to here there were no further changes but the log's own.
    Mark {
        /// How far the log is.
        lsn: Lsn,
    },
    /// The last record of a segment.
    Sealed {
        /// How far the log is; 0 in a log of refusals.
        lsn: Lsn,
    },
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What.
    pub op: Op,
    /// Where; the old path of a rename.
    pub path: VPath,
    /// The second path of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<VPath>,
}

impl Entry {
    /// How far the log is with this record, when the record says it.
    pub fn lsn(&self) -> Option<Lsn> {
        match self {
            Self::Change { lsn, .. }
            | Self::Gap { to: lsn, .. }
            | Self::Mark { lsn }
            | Self::Sealed { lsn } => Some(*lsn),
            Self::Refusal { .. } | Self::Missed { .. } => None,
        }
    }

    /// Who, and where, of records that tell of a call.
    pub fn who_and_where(&self) -> Option<(&Arc<str>, &VPath, Option<&VPath>)> {
        match self {
            Self::Change { agent, path, other, .. } | Self::Refusal { agent, path, other, .. } => {
                Some((agent, path, other.as_ref()))
            }
            _ => None,
        }
    }

    /// Every path that the record tells of, those of a transaction's operations included.
    pub fn paths(&self) -> impl Iterator<Item = &VPath> {
        let items: &[Item] = if let Self::Change { items, .. } = self { items } else { &[] };
        let call =
            self.who_and_where().into_iter().flat_map(|(_, path, other)| std::iter::once(path).chain(other));
        call.chain(items.iter().flat_map(|item| std::iter::once(&item.path).chain(&item.other)))
    }

    pub(super) fn of(record: &LogRecord) -> Self {
        let items = record.items.iter().map(|item| Item {
            op: item.op,
            path: item.path.clone(),
            other: item.other.clone(),
        });
        Self::Change {
            lsn: record.lsn,
            op_id: record.op_id,
            agent: record.caller.clone(),
            op: record.op,
            path: record.path.clone(),
            other: record.other.clone(),
            items: items.collect(),
        }
    }
}

mod hexadecimal {
    use nexus_messages::OpId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &OpId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OpId, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(OpId).map_err(D::Error::custom)
    }
}

mod maybe_hexadecimal {
    use nexus_messages::OpId;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &Option<OpId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => super::hexadecimal::serialize(id, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OpId>, D::Error> {
        super::hexadecimal::deserialize(deserializer).map(Some)
    }
}

/// A place in a chain, between two records: what the next one is chained to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The number of the next record.
    pub n: u64,
    /// The hash of the record before it.
    pub hash: [u8; 32],
}

impl Link {
    /// Before the first record.
    pub const FIRST: Self = Self { n: 0, hash: [0; 32] };

    /// After a record with this text.
    fn after(self, text: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash);
        hasher.update(text);
        Self { n: self.n + 1, hash: hasher.finalize().into() }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({}, {})", self.n, blake3::Hash::from_bytes(self.hash).to_hex())
    }
}

/// Where a log is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The name of the segment.
    pub segment: String,
    /// The number of the first record that is not in order.
    pub n: u64,
    /// What is wrong, in words.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of {}: {}", self.n, self.segment, self.why)
    }
}

/// Changes that the log says it could not know: the kernel had forgotten them when the log came to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The number of the record that says so.
    pub n: u64,
    /// The first.
    pub from: Lsn,
    /// The last.
    pub to: Lsn,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "record {}: the changes with the LSNs {} to {} are not in the log",
            self.n, self.from, self.to
        )
    }
}

/// A segment that is in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its records.
    pub records: Vec<Record>,
    /// What the next record is chained to.
    pub link: Link,
}

impl Segment {
    /// Whether it has its last record.
    pub fn is_sealed(&self) -> bool {
        self.records.last().is_some_and(|last| matches!(last.entry, Entry::Sealed { .. }))
    }
}

/// Checks a segment with nothing but its bytes: `from` is [`Link::FIRST`] for the first one of a log, and the link at the end of the one before
/// for each other.
///
/// # Errors
/// The first record that is not in order, with what is wrong.
pub fn verify_segment(name: &str, bytes: &[u8], from: Link) -> Result<Segment, Broken> {
    let mut segment = Segment { records: Vec::new(), link: from };
    let broken = |n, why: String| Broken { segment: name.to_owned(), n, why };
    if parse_name(name) != Some(from.n) {
        return Err(broken(from.n, format!("the next segment is to be {}", name_of(from.n))));
    }
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let n = segment.link.n;
        let (hash, text) = split(line).map_err(|why| broken(n, why.into()))?;
        let link = segment.link.after(text);
        if link.hash != hash {
            return Err(broken(n, "its hash is not that of the records up to it".into()));
        }
        let record: Record = serde_json::from_slice(text).map_err(|why| broken(n, why.to_string()))?;
        if record.n != n {
            return Err(broken(n, format!("it says that it is record {}", record.n)));
        }
        if segment.is_sealed() {
            return Err(broken(n, "the segment was sealed before it".into()));
        }
        segment.records.push(record);
        segment.link = link;
    }
    if segment.records.is_empty() {
        return Err(broken(from.n, "the segment is empty".into()));
    }
    Ok(segment)
}

/// The parts of a line: the hash, and the record's text.
fn split(line: &[u8]) -> Result<([u8; 32], &[u8]), &'static str> {
    let line = line.strip_suffix(b"\n").ok_or("its line has no end")?;
    let (hash, rest) = line.split_at_checked(64).ok_or("its line has no hash")?;
    let text = rest.strip_prefix(b" ").ok_or("its line has no hash")?;
    let parsed = blake3::Hash::from_hex(hash).map_err(|_| "its line has no hash")?;
    // One way to write it, so that no byte can be another one.
    match parsed.to_hex().as_bytes() == hash {
        true => Ok((parsed.into(), text)),
        false => Err("its hash is not in small letters"),
    }
}

/// The last record of a segment and the link behind it, without a look at what is before: where to go on.
pub(super) fn last_of(bytes: &[u8]) -> Option<(Record, Link)> {
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next_back()?;
    let (hash, text) = split(line).ok()?;
    let record: Record = serde_json::from_slice(text).ok()?;
    let link = Link { n: record.n.checked_add(1)?, hash };
    Some((record, link))
}

/// The name of the segment whose first record has the number `n`.
pub(super) fn name_of(n: u64) -> String {
    format!("{n:0NAME_DIGITS$}{NAME_ENDING}")
}

/// The number of the first record of the segment with this name; none when it is no segment's.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(NAME_ENDING).filter(|digits| digits.len() == NAME_DIGITS)?;
    u64::from_str(digits).ok()
}

/// How far a log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) link: Link,
    /// The last commit that a record tells of. Never runs ahead of the files.
    pub(super) told: Lsn,
}

/// Records in the making.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) tip: Tip,
    pub(super) text: Vec<u8>,
    pub(super) records: usize,
    pub(super) sealed: bool,
}

impl Batch {
    pub(super) fn after(tip: Tip) -> Self {
        Self { tip, text: Vec::new(), records: 0, sealed: false }
    }

    /// Adds a record.
    pub(super) fn push(&mut self, at: Timestamp, entry: Entry) {
        self.tip.told = entry.lsn().unwrap_or(self.tip.told);
        let record = Record { n: self.tip.link.n, at, entry };
        // A record is plain data with texts as keys: there is nothing that could not be written.
        let text = serde_json::to_vec(&record).unwrap_or_default();
        self.tip.link = self.tip.link.after(&text);
        self.text.extend_from_slice(blake3::Hash::from_bytes(self.tip.link.hash).to_hex().as_bytes());
        self.text.push(b' ');
        self.text.extend_from_slice(&text);
        self.text.push(b'\n');
        self.records += 1;
    }

    /// Whether no more should be added to what is appended at once, where there is room for so many bytes.
    pub(super) fn is_full(&self, room: u64) -> bool {
        self.records >= RECORDS_MAX || self.text.len() as u64 >= room
    }

    /// Ends the segment when it has grown to its size; `size` is that of what is there already. A segment is left for the next one only so: whoever
    /// still knows the old one as the last cannot append to it any more.
    pub(super) fn seal(&mut self, size: u64, segment_bytes: u64, at: Timestamp) {
        if size + self.text.len() as u64 >= segment_bytes {
            self.push(at, Entry::Sealed { lsn: self.tip.told });
            self.sealed = true;
        }
    }
}

/// Whose commits are left out: writes by the service's own agent below its own directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) agent: &'a str,
    pub(super) directory: &'a VPath,
}

impl Own<'_> {
    pub(super) fn is(&self, record: &LogRecord) -> bool {
        record.op == Op::Write && *record.caller == *self.agent && record.path.is_within(self.directory)
    }
}

/// Adds what the commits after `cursor` tell, until the batch is full; gives the new cursor.
pub(super) fn take(batch: &mut Batch, commits: &[LogRecord], cursor: Lsn, own: Own<'_>, room: u64) -> Lsn {
    let mut cursor = cursor;
    for record in commits {
        if batch.is_full(room) {
            break;
        }
        if record.lsn.0 > cursor.0 + 1 {
            batch.push(record.at, Entry::Gap { from: Lsn(cursor.0 + 1), to: Lsn(record.lsn.0 - 1) });
        }
        if !own.is(record) {
            batch.push(record.at, Entry::of(record));
        } else if record.lsn.0 - batch.tip.told.0 >= MARK_EVERY {
            batch.push(record.at, Entry::Mark { lsn: record.lsn });
        }
        cursor = record.lsn;
    }
    cursor
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn commit(lsn: u64, agent: &str, path: &str) -> LogRecord {
        LogRecord {
            lsn: Lsn(lsn),
            op_id: OpId(u128::from(lsn) << 70),
            caller: agent.into(),
            op: Op::Write,
            path: path.parse().unwrap(),
            other: None,
            at: Timestamp(lsn * 10),
            items: Vec::new(),
            told: None,
        }
    }

    fn own(directory: &VPath) -> Own<'_> {
        Own { agent: "service:audit", directory }
    }

    fn directory() -> VPath {
        "/audit".parse().unwrap()
    }

    /// Logs `commits` from the first on, in appends that end in other places for each `bytes`; gives the segments.
    fn log(commits: &[LogRecord], bytes: u64) -> Vec<(String, Vec<u8>)> {
        let (directory, mut tip, mut cursor) = (directory(), Tip::default(), Lsn(0));
        let mut segments: Vec<(String, Vec<u8>)> = Vec::new();
        let mut sealed = true;
        loop {
            let rest: Vec<_> = commits.iter().filter(|commit| commit.lsn > cursor).cloned().collect();
            let mut batch = Batch::after(tip);
            cursor = take(&mut batch, &rest, cursor, own(&directory), bytes);
            if rest.is_empty() {
                return segments;
            }
            if batch.records == 0 {
                continue;
            }
            if sealed {
                segments.push((name_of(tip.link.n), Vec::new()));
            }
            let segment = segments.last_mut().unwrap();
            batch.seal(segment.1.len() as u64, bytes, Timestamp(0));
            segment.1.extend(&batch.text);
            (tip, sealed) = (batch.tip, batch.sealed);
        }
    }

    fn verify(segments: &[(String, Vec<u8>)]) -> Result<Vec<Record>, Broken> {
        let (mut link, mut records) = (Link::FIRST, Vec::new());
        for (name, bytes) in segments {
            let segment = verify_segment(name, bytes, link)?;
            link = segment.link;
            records.extend(segment.records);
        }
        Ok(records)
    }

    fn changes(records: &[Record]) -> Vec<Entry> {
        let entries = records.iter().map(|record| record.entry.clone());
        entries.filter(|entry| matches!(entry, Entry::Change { .. })).collect()
    }

    #[test]
    fn a_record_is_one_line_that_anybody_can_read() {
        let mut batch = Batch::after(Tip::default());
        batch.push(Timestamp(5), Entry::of(&commit(3, "a\nb", "/x \"y\"")));
        let text = String::from_utf8(batch.text).unwrap();
        let (hash, json) = text.split_once(' ').unwrap();
        assert_eq!(hash.len(), 64);
        let expected = concat!(
            r#"{"n":0,"at":5,"what":"change","lsn":3,"op_id":"00000000000000c00000000000000000","#,
            r#""agent":"a\nb","op":"Write","path":"/x \"y\""}"#,
            "\n"
        );
        assert_eq!(json, expected);
        let (record, link) = last_of(text.as_bytes()).unwrap();
        assert_eq!((record.n, link), (0, batch.tip.link));
    }

    #[test]
    fn only_its_own_writes_below_its_own_directory_are_left_out() {
        let directory = directory();
        let check =
            |record: LogRecord, expected| assert_eq!(own(&directory).is(&record), expected, "{record:?}");
        check(commit(1, "service:audit", "/audit/root/changes/x"), true);
        check(commit(1, "service:audit", "/elsewhere"), false);
        check(commit(1, "nexus", "/audit/root/changes/x"), false);
        check(LogRecord { op: Op::Unlink, ..commit(1, "service:audit", "/audit/x") }, false);
    }

    #[test]
    fn what_the_kernel_no_longer_knows_is_told_as_a_gap() {
        let records = verify(&log(&[commit(7, "a", "/x"), commit(8, "a", "/y")], 1 << 20)).unwrap();
        assert_eq!(records[0].entry, Entry::Gap { from: Lsn(1), to: Lsn(6) });
        assert_eq!(changes(&records).len(), 2);
    }

    #[test]
    fn many_commits_of_its_own_leave_a_mark() {
        let commits: Vec<_> =
            (1..=MARK_EVERY * 2 + 5).map(|lsn| commit(lsn, "service:audit", "/audit/x")).collect();
        let records = verify(&log(&commits, 1 << 20)).unwrap();
        let marks: Vec<_> = records.iter().map(|record| record.entry.clone()).collect();
        assert_eq!(marks, [MARK_EVERY, MARK_EVERY * 2].map(|lsn| Entry::Mark { lsn: Lsn(lsn) }));
    }

    #[test]
    fn a_segment_out_of_place_is_found() {
        let commits: Vec<_> = (1..=50).map(|lsn| commit(lsn, "a", "/x")).collect();
        let segments = log(&commits, 1_000);
        assert!(segments.len() > 4);
        let mut without = segments.clone();
        without.remove(1);
        let n = parse_name(&segments[1].0).unwrap();
        assert_eq!(verify(&without).unwrap_err().n, n);
        let mut first_gone = segments.clone();
        first_gone.remove(0);
        assert_eq!(verify(&first_gone).unwrap_err().n, 0);
        let mut swapped = segments;
        swapped.swap(1, 2);
        assert!(verify(&swapped).is_err());
    }

    proptest! {
        #[test]
        fn every_change_is_there_once_and_in_order_however_it_is_cut(
            whose in prop::collection::vec(any::<bool>(), 1..120),
            bytes in 1u64..3_000,
        ) {
            let commits: Vec<_> = whose.iter().zip(1..).map(|(mine, lsn)| match mine {
                true => commit(lsn, "service:audit", "/audit/root/changes/x"),
                false => commit(lsn, "coder", "/src/x"),
            }).collect();
            let records = verify(&log(&commits, bytes)).unwrap();
            let expected: Vec<_> =
                commits.iter().zip(&whose).filter(|(_, mine)| !**mine).map(|(commit, _)| Entry::of(commit)).collect();
            prop_assert_eq!(changes(&records), expected);
        }

        #[test]
        fn a_changed_byte_is_found(
            commits in 1u64..40,
            place in any::<prop::sample::Index>(),
            mask in 1u8..=255,
        ) {
            let commits: Vec<_> = (1..=commits).map(|lsn| commit(lsn, "a", "/x")).collect();
            let mut segments = log(&commits, 2_000);
            let total: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
            let mut at = place.index(total);
            for (_, bytes) in &mut segments {
                if at < bytes.len() {
                    bytes[at] ^= mask;
                    break;
                }
                at -= bytes.len();
            }
            prop_assert!(verify(&segments).is_err());
        }
    }
}
