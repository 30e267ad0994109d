//! What the kernel's decoders are fuzzed with: targets that make of any bytes what a decoder is handed, and panic when it breaks its promise.
//!
//! The same targets run under a fuzzer that is guided by coverage (`fuzz/`) and, briefly, as property tests. What broke one once lies in
//! `fuzz/found/`, a folder for each target, and is tried by the tests for ever.
//!
//! Rows stand under the checksums of the log and of the database, which are checked whenever they are read. What is promised of rows beside that is that bytes which are no row, or a row and more, are told, and that what is taken as a row is written again as the same row. Chunk lists stand under their hash.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use arbitrary::Unstructured;
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::content::fuzzing as content;
use crate::hal::{RowKey, StoreError, Table, TreeId};
use crate::namespace::{self, DentryRow, InodeRow, MountRow};

/// A target, by its name.
pub type Target = (&'static str, fn(&mut Unstructured<'_>) -> arbitrary::Result<()>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("row", row), ("chunk_list", chunk_list), ("chunked", chunked)];

/// The most bytes that [`damage`] puts in or takes out at a place.
const RUN_MAX: usize = 40;

/// Does to `bytes` what a bad disk, or a bad hand, may do. Says whether they are others now.
///
/// # Errors
/// As [`Unstructured::int_in_range`].
pub fn damage(u: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> arbitrary::Result<bool> {
    let before = bytes.clone();
    for _ in 0..u.int_in_range(1..=3)? {
        let at = u.int_in_range(0..=bytes.len())?;
        let end = bytes.len().min(at + u.int_in_range(0..=RUN_MAX)?);
        match u.int_in_range(0..=5)? {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.insert(at, u.arbitrary()?),
            3 => bytes[at..end].fill(u.arbitrary()?),
            4 => bytes.extend_from_within(at..end),
            _ => {
                let bit = u.int_in_range(0..=7)?;
                bytes[at..end].iter_mut().take(1).for_each(|byte| *byte ^= 1 << bit);
            }
        }
    }
    Ok(*bytes != before)
}

/// Hands `input` to a target.
pub fn run((_, target): &Target, input: &[u8]) {
    // Input that does not reach for a whole case is no case.
    let _ = target(&mut Unstructured::new(input));
}

/// Hands each target what once broke it: the files of the folder in `found` that has its name. Gives how many there were.
pub fn run_found(targets: &[Target], found: &Path) -> usize {
    let files = |name: &str| std::fs::read_dir(found.join(name)).into_iter().flatten().flatten();
    let tried = targets.iter().map(|target| {
        let inputs = files(target.0).map(|file| std::fs::read(file.path()).expect("it can be read"));
        inputs.inspect(|input| run(target, input)).count()
    });
    tried.sum()
}

fn row(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    match u.int_in_range(0..=3)? {
        0 => row_of::<DentryRow>(u),
        1 => row_of::<InodeRow>(u),
        2 => row_of::<MountRow>(u),
        _ => row_of::<TreeId>(u),
    }
}

fn row_of<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    u: &mut Unstructured<'_>,
) -> arbitrary::Result<()> {
    let key = RowKey::new(Table::Settings, *b"fuzzed");
    let read = |bytes: &[u8]| namespace::decode::<T>(&key, bytes);
    // Most bytes are of a known format, or little would come of them.
    let format = if u.ratio(9, 10)? { namespace::FORMAT } else { u.arbitrary()? };
    let longer: u8 = u.arbitrary()?;
    let cut = u.int_in_range(0..=u16::MAX)?;
    let bytes = [&[format], u.bytes(u.len())?].concat();
    let Ok(row) = read(&bytes) else { return Ok(()) };
    assert_eq!(format, namespace::FORMAT, "a row of a format that nobody knows was read");
    let written = namespace::encode(&row);
    assert_eq!(read(&written).ok().as_ref(), Some(&row), "a row is another one when it was written again");
    let part = &written[..usize::from(cut) % written.len()];
    let more = [&written[..], &[longer]].concat();
    for other in [part, &more] {
        let told = read(other);
        assert!(matches!(told, Err(StoreError::Corrupt { .. })), "{other:?} was read as {told:?}");
    }
    Ok(())
}

fn chunk_list(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    if u.arbitrary()? {
        content::check_list(u.bytes(u.len())?.to_vec().into());
        return Ok(());
    }
    let parts = parts(u)?;
    for (_, blob) in content::lists(&parts) {
        assert!(content::check_list(blob.clone()), "a list of the kernel's own is none");
        let mut damaged = blob.to_vec();
        damage(u, &mut damaged)?;
        content::check_list(damaged.into());
    }
    Ok(())
}

fn parts(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<([u8; 32], u64)>> {
    let count = u.int_in_range(1..=60)?;
    (0..count)
        .map(|_| Ok((*blake3::hash(&u.arbitrary::<[u8; 2]>()?).as_bytes(), u.int_in_range(1..=90)?)))
        .collect()
}

/// Content whose lists and chunks are not what their addresses say: whoever keeps them failed to verify. Even then nothing is made of them
/// that is longer or shorter than was asked for, and nothing breaks.
fn chunked(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let parts = parts(u)?;
    let total: u64 = parts.iter().map(|(_, length)| length).sum();
    let mut blobs: BTreeMap<[u8; 32], Bytes> = parts
        .iter()
        .map(|(hash, length)| (*hash, Bytes::from(vec![hash[0]; usize::try_from(*length).unwrap_or(1)])))
        .collect();
    let lists = content::lists(&parts);
    let root = lists.last().map_or([0; 32], |(hash, _)| *hash);
    blobs.extend(lists.iter().cloned());
    if u.arbitrary()? {
        let (hash, blob) = u.choose(&lists)?;
        let mut damaged = blob.to_vec();
        if damage(u, &mut damaged)? {
            blobs.insert(*hash, damaged.into());
        }
    }
    let (from, count) = (u.int_in_range(0..=total)?, u.int_in_range(0..=total)?);
    let end = total.min(from + count);
    let read = content::read(Arc::new(blobs), &root, total, from..end).now_or_never();
    if let Some(Ok(read)) = read {
        assert_eq!(read.len() as u64, end - from, "a read gave more or less than it was asked for");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_broke_a_decoder_once_breaks_it_no_more() {
        run_found(TARGETS, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/found"));
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_decoder(input in vec(any::<u8>(), 0..2_000)) {
            TARGETS.iter().for_each(|target| run(target, &input));
        }
    }
}
