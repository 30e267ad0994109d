//! Reading several blobs at once: those that lie side by side are read as one.

use std::io;

use bytes::Bytes;
use nexus_kernel::hal::StoreError;
use nexus_messages::syscall::ByteRange;

use super::buffers::BUFFER_BYTES;
use super::record;
use super::run::{Place, Wait};
use super::segment::ALIGN;
use super::store::Store;

/// How far apart blobs may lie that are read as one: what is between them is read, too.
const GAP_MAX: u64 = ALIGN;

/// A blob that is wanted: where its bytes are, and which of those that were asked for it is.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    segment: u64,
    from: u64,
    to: u64,
    which: usize,
}

impl Wanted {
    fn new(key: &str, place: Place, which: usize) -> Self {
        let from = u64::from(place.offset) + record::size(key, 0);
        Self { segment: place.segment, from, to: from + u64::from(place.len), which }
    }

    /// Whether it is read together with the one before it, of a run that begins at `start`.
    fn follows(&self, before: &Self, start: u64) -> bool {
        self.segment == before.segment
            && self.from <= before.to + GAP_MAX
            && self.to.max(before.to) - start <= BUFFER_BYTES as u64
    }
}

impl Store {
    /// All of each blob, in the order of the keys; none for one that is not there. Blocks.
    pub(super) fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let blobs = self.gather(keys, Wait::ForDisk);
        // What was moved meanwhile, or cannot be read, is read or told by itself.
        let alone = |key: &String| self.get(key, ByteRange::ALL);
        keys.iter()
            .zip(blobs)
            .map(|(key, blob)| blob.map_or_else(|| alone(key), |blob| Ok(Some(blob))))
            .collect()
    }

    /// All of each blob, in the order of the keys, if all of them are in the memory of the system. Waits for nothing.
    pub(super) fn at_hand(&self, keys: &[String]) -> Option<Vec<Bytes>> {
        self.gather(keys, Wait::Never).into_iter().collect()
    }

    /// The blobs that can be read at the first try.
    fn gather(&self, keys: &[String], wait: Wait) -> Vec<Option<Bytes>> {
        let mut blobs = vec![None; keys.len()];
        let places = self.places(keys, wait).into_iter().enumerate();
        let mut wanted: Vec<_> = places
            .filter_map(|(which, place)| Some(Wanted::new(&keys[which], place.ok()??, which)))
            .collect();
        if wait == Wait::Never && wanted.len() < keys.len() {
            return blobs;
        }
        wanted.sort_unstable_by_key(|blob| (blob.segment, blob.from));
        let mut rest = &wanted[..];
        while let Some(first) = rest.first() {
            let count = 1 + rest.windows(2).take_while(|two| two[1].follows(&two[0], first.from)).count();
            let (run, others) = rest.split_at(count);
            let read = self.read_run(run, wait, &mut blobs);
            if wait == Wait::Never && read.is_err() {
                break;
            }
            rest = others;
        }
        blobs
    }

    /// Reads blobs that lie side by side: all of them, or none.
    fn read_run(&self, run: &[Wanted], wait: Wait, blobs: &mut [Option<Bytes>]) -> io::Result<()> {
        let (Some(first), Some(end)) = (run.first(), run.iter().map(|blob| blob.to).max()) else {
            return Ok(());
        };
        // Both lie within a segment, or a buffer.
        let index = |offset: u64| usize::try_from(offset - first.from).unwrap_or(usize::MAX);
        let file = self.segment(first.segment, wait)?;
        let read = self.buffers().filled(index(end), |memory| wait.read(&*file, first.from, memory))?;
        for blob in run {
            blobs[blob.which] = Some(read.slice(index(blob.from)..index(blob.to)));
        }
        Ok(())
    }
}
