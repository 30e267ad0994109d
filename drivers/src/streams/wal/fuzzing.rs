//! What the streams' log is fuzzed with.

use std::collections::BTreeMap;

use arbitrary::Unstructured;
use bytes::Bytes;
use nexus_kernel::hal::{Append, ReadBounds, StoreError, StreamError, StreamLimits};
use nexus_messages::{FileId, OpId, Timestamp};

use super::config::WalStreamsConfig;
use super::index;
use super::record;
use super::store::{Ask, Store};
use crate::disk::sim::SimDisk;
use crate::frames::frame::Seed;
use crate::fuzzing::damage_a_file;

const SALT: u64 = 9;

/// Bytes of any kind as a payload, and as an index; what is read is written as it was.
pub(crate) fn stream_record(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let noise = Bytes::copy_from_slice(u.bytes(u.len())?);
    if let Ok(items) = record::decode(&noise) {
        let entries: Vec<_> = items.iter().map(|item| &item.entry).collect();
        let mut written = Vec::new();
        assert!(record::encode(&mut written, &entries, items.iter().map(|item| &item.data)));
        assert_eq!(record::decode(&written.into()).as_ref(), Ok(&items));
        for item in &items {
            assert_eq!(item.split().map(|record| record.len()).sum::<usize>(), item.data.len());
        }
    }
    if let Some(head) = noise.first_chunk() {
        let _ = index::table_bytes(head);
    }
    assert!(index::decode(Seed::of(SALT, 1), &noise).is_none(), "noise with a checksum");
    Ok(())
}

/// Streams in some segments, one of whose files is damaged.
pub(crate) fn stream_log(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let open = || {
        let config = WalStreamsConfig::default().segment_bytes(400).ahead_bytes(256).recent_bytes(0);
        Store::open(folder.clone(), SALT, config)
    };
    let store = open().expect("the disk is well");
    let streams = [FileId(1), FileId(2)];
    let create = |stream| (stream, Ask::Create(StreamLimits::NONE.bytes_max(900)));
    store.commit(streams.map(create).to_vec());
    let mut written: BTreeMap<FileId, Vec<Bytes>> = BTreeMap::new();
    for number in 0..u.int_in_range(1..=14_u64)? {
        let stream = *u.choose(&streams)?;
        if u.ratio(1, 8)? {
            store.commit(vec![(stream, Ask::Trim(u.int_in_range(0..=9)?))]);
            continue;
        }
        let mut records = Vec::new();
        for _ in 0..u.int_in_range(1..=3)? {
            records.push(Bytes::from(vec![u.arbitrary()?; u.int_in_range(0..=90)?]));
        }
        written.entry(stream).or_default().extend(records.iter().cloned());
        let append = Append::new(records, Timestamp(number)).op(OpId(number.into()));
        store.commit(vec![(stream, Ask::Append(append))]).remove(0).expect("the disk is well");
    }
    let states: Vec<_> = streams.iter().map(|stream| store.state(*stream).expect("it is there")).collect();
    // Else the last batch is not known to have been on disk.
    store.close();
    drop(store);
    damage_a_file(u, &*folder)?;
    let store = match open() {
        Ok(store) => store,
        Err(StoreError::Corrupt { .. }) => return Ok(()),
        Err(error) => panic!("{error}"),
    };
    for (stream, state) in streams.into_iter().zip(states) {
        assert_eq!(store.state(stream).expect("it is there"), state, "another state was read");
        for offset in state.head..state.tail {
            match store.read(stream, offset, ReadBounds::new(1, 0)) {
                Ok(read) => {
                    let at = usize::try_from(offset).expect("there are few");
                    assert_eq!(read.records[0].data, written[&stream][at], "another record was read");
                }
                Err(StreamError::Store(StoreError::Corrupt { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    Ok(())
}
