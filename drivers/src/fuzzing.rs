//! What the drivers' decoders are fuzzed with. See `nexus_kernel::fuzzing`, whose ways and means these are.
//!
//! Each target writes something by the driver's own means, damages it on disk, opens it and reads it again. Checksums cover all of it, so what
//! comes back is what was written or an error. A last part that is missing is told too, unless nothing that is left says that it was ever on
//! disk: of that a crash leaves no more.

use std::collections::BTreeSet;
use std::task::{Context, Poll, Waker};

use arbitrary::Unstructured;
use bytes::Bytes;
use nexus_kernel::fuzzing::{Target, damage};
use nexus_kernel::hal::{ContentStore, StoreError, StoreFuture, Transport};
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;

use crate::cas::Cas;
use crate::disk::Folder;
use crate::memory::MemoryTransport;
use crate::{packs, redb, streams, wal};

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    ("frame", wal::fuzzing::frame),
    ("log", wal::fuzzing::log),
    ("record", redb::fuzzing::record),
    ("pack", packs::fuzzing::pack),
    ("run", packs::fuzzing::run),
    ("stream-record", streams::wal::fuzzing::stream_record),
    ("stream-log", streams::wal::fuzzing::stream_log),
    ("blob", blob),
];

/// Damages one of the files of the folder. Gives its name, when it is another one now.
pub(crate) fn damage_a_file(
    u: &mut Unstructured<'_>,
    folder: &dyn Folder,
) -> arbitrary::Result<Option<String>> {
    let names: BTreeSet<String> = folder.list().expect("the disk is well").into_iter().collect();
    let names: Vec<String> = names.into_iter().collect();
    let name = u.choose(&names)?;
    let file = folder.open(name, false).expect("the disk is well");
    let mut bytes = vec![0; usize::try_from(file.len().expect("the disk is well")).unwrap_or_default()];
    file.read_at(0, &mut bytes).expect("the disk is well");
    if !damage(u, &mut bytes)? {
        return Ok(None);
    }
    file.set_len(0).and_then(|()| file.write_at(0, &bytes)).expect("the disk is well");
    Ok(Some(name.clone()))
}

/// A blob with a file of its own.
fn blob(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let range = ByteRange::new(u.int_in_range(0..=70)?, u.int_in_range(0..=70)?);
    let mut other = (0..60).map(|at| at * 3).collect::<Vec<u8>>();
    let content = Bytes::from(other.clone());
    let id = ContentId::Blake3(*blake3::hash(&content).as_bytes());
    let cas = Cas::new(MemoryTransport::new());
    now(cas.write(&id, std::slice::from_ref(&content))).expect("there is room");
    let is_damaged = damage(u, &mut other)?;
    let key = Cas::<MemoryTransport>::key(&id).expect("it is a hash");
    now(cas.transport().put(&key, &[other.into()])).expect("there is room");
    match now(cas.read(&id, range)) {
        Ok(read) => {
            let (from, to) = range.within(content.len() as u64);
            let part = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
            assert!(!is_damaged && read == content[part], "damaged content was given out");
        }
        Err(error) => {
            assert!(is_damaged && matches!(error, StoreError::Corrupt { .. }), "{error}");
            // And the next identical write heals it.
            now(cas.write(&id, std::slice::from_ref(&content))).expect("there is room");
            assert_eq!(now(cas.read(&id, ByteRange::ALL)).expect("it is healed"), content);
        }
    }
    Ok(())
}

/// What a future gives that waits for nothing, as those of memory do.
fn now<T>(mut future: StoreFuture<'_, T>) -> Result<T, StoreError> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("memory waits"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nexus_kernel::fuzzing::{run, run_found};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_broke_a_decoder_once_breaks_it_no_more() {
        run_found(TARGETS, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/found"));
    }

    proptest! {
        #[test]
        fn no_damage_is_taken_for_content(input in vec(any::<u8>(), 0..2_000)) {
            TARGETS.iter().for_each(|target| run(target, &input));
        }
    }
}
