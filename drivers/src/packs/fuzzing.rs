//! What segments and runs are fuzzed with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::Unstructured;
use bytes::Bytes;
use nexus_kernel::fuzzing::damage;
use nexus_kernel::hal::StoreError;
use nexus_messages::syscall::ByteRange;

use super::record::{RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::run::{Entry, Place, Run, Span, Through};
use super::store::{Limits, Store};
use crate::disk::sim::SimDisk;
use crate::fuzzing::damage_a_file;

/// Segments, batches and runs so small that a few blobs make several of them.
const SMALL: Limits = Limits {
    segment_bytes: 16 << 10,
    batch_bytes: 8 << 10,
    batch_count: 3,
    unwritten: 4,
    unwritten_max: 8,
    open_max: 3,
};

/// Blobs in segments, of which one file was damaged after the store was closed in order.
pub(crate) fn pack(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    headers(u)?;
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let open = || Store::open(folder.clone(), 7, SMALL);
    // What was done last to each, and before which flush.
    let mut blobs: BTreeMap<String, (Option<Bytes>, u32)> = BTreeMap::new();
    let mut flush = 0;
    for _ in 0..u.int_in_range(1..=2)? {
        let store = open().expect("the disk is well");
        // Who gives an answer up gives the change up.
        let mut answers = Vec::new();
        for _ in 0..u.int_in_range(1..=8)? {
            let content: Bytes = vec![u.arbitrary()?; u.int_in_range(0..=3_000)?].into();
            let key = blake3::hash(&content).to_hex().to_string();
            let kept = u.ratio(4, 5)?;
            answers.push(match kept {
                true => store.ask_put(&key, std::slice::from_ref(&content)),
                false => store.ask_delete(&key),
            });
            // It is not written again: it stays where it is.
            let is_kept_already = kept && matches!(blobs.get(&key), Some((Some(_), _)));
            if !is_kept_already {
                blobs.insert(key, (kept.then_some(content), flush));
            }
            if u.ratio(3, 4)? {
                store.drive();
                store.tend();
                flush += 1;
            }
        }
        store.drive();
        store.tend();
        flush += 1;
        for mut answer in answers {
            answer.try_recv().expect("nobody else drives").expect("the disk is well");
        }
    }
    let damaged = damage_a_file(u, &*folder)?;
    let store = open().expect("damage is told, and the rest is served");
    let is_told = !store.damage().is_empty();
    let (mut found_last, mut missing_first) = (0, u32::MAX);
    for (key, (content, flush)) in &blobs {
        match (store.get(key, ByteRange::ALL), content) {
            // Whoever addresses content by its hash looks at that, too.
            (Ok(Some(found)), Some(content)) => {
                let is_seen = blake3::hash(&found).to_hex().as_str() != key;
                assert!(found == content || is_seen, "{key} is another blob");
                found_last = found_last.max(*flush);
            }
            (Ok(Some(_)), None) => assert!(damaged.is_some(), "{key} is back"),
            (Ok(None), Some(_)) => {
                assert!(damaged.is_some(), "{key} is gone");
                missing_first = missing_first.min(*flush);
            }
            (Ok(None), None) => {}
            (Err(error), _) => {
                assert!(damaged.is_some() && matches!(error, StoreError::Corrupt { .. }), "{error}");
            }
        }
    }
    assert!(
        is_told || missing_first >= found_last,
        "with {damaged:?}, a blob of flush {missing_first} is gone, one of flush {found_last} is there, and nothing is told"
    );
    if let Ok(listed) = store.list("", None, usize::MAX) {
        let strange = listed.iter().find(|key| !blobs.contains_key(*key));
        assert_eq!(strange, None, "a key was listed that was never put");
    }
    Ok(())
}

/// The headers of a segment and of a record: as they were written, or none.
fn headers(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let header = SegmentHeader {
        number: u.arbitrary()?,
        salt: u.arbitrary()?,
        previous: u.arbitrary()?,
        previous_end: u.arbitrary()?,
        copied: u.arbitrary()?,
    };
    let mut bytes = header.encode().to_vec();
    damage(u, &mut bytes)?;
    if let Some(found) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>().and_then(SegmentHeader::decode) {
        assert_eq!(found, header, "damage was read as another header");
    }
    let noise: [u8; SEGMENT_HEADER_BYTES] = u.arbitrary()?;
    assert_eq!(SegmentHeader::decode(&noise), None);
    let noise: [u8; RECORD_HEADER_BYTES] = u.arbitrary()?;
    if let Some(length) = Record::key_len(&noise) {
        assert_eq!(Record::decode(&noise, &vec![b'k'; length], &header.salt, 0), None);
    }
    Ok(())
}

/// A run of the index that was damaged: it is told when it is opened, or when the damaged part is come to.
pub(crate) fn run(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let mut entries: BTreeMap<String, Option<Place>> = BTreeMap::new();
    for _ in 0..u.int_in_range(1..=40)? {
        let place = Place { segment: u.int_in_range(1..=9)?, offset: u.arbitrary()?, len: u.arbitrary()? };
        // Long ones, so that there are several blocks.
        let key = format!("{:02x}{}", u.arbitrary::<u8>()?, "k".repeat(u.int_in_range(0..=1_000)?));
        entries.insert(key, if u.ratio(3, 4)? { Some(place) } else { None });
    }
    let span = Span { first: 0, last: u.int_in_range(0..=9)? };
    let through = Through { segment: u.arbitrary()?, offset: u.arbitrary()? };
    let sorted: Vec<Entry> = entries.clone().into_iter().collect();
    let count = sorted.len() as u64;
    Run::write(&*folder, span, through, count, sorted.iter().cloned().map(Ok)).expect("the disk is well");
    let damaged = damage_a_file(u, &*folder)?;
    let Some(run) = Run::open(&*folder, span).expect("the disk is well") else {
        assert!(damaged.is_some(), "a run is none");
        return Ok(());
    };
    assert_eq!((run.through, run.entries), (through, count));
    let told = |error: &StoreError| {
        assert!(damaged.is_some() && matches!(error, StoreError::Corrupt { .. }), "{error}");
    };
    for (key, place) in &entries {
        match run.get(key, super::run::Wait::ForDisk) {
            Ok(found) => assert_eq!(found, Some(*place), "{key} is somewhere else"),
            Err(error) => told(&error),
        }
    }
    let mut expected = sorted.into_iter();
    for entry in Arc::new(run).from("") {
        match entry {
            Ok(entry) => assert_eq!(Some(entry), expected.next(), "another entry was listed"),
            Err(error) => {
                told(&error);
                return Ok(());
            }
        }
    }
    assert_eq!(expected.next(), None, "an entry was not listed");
    Ok(())
}
