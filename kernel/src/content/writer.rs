//! Writes large content: cuts what comes, stores what is new, and takes over what is there.

use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::chunked::{Blobs, Cursor, Sort, Step};
use super::chunker::{Behind, Chunker};
use super::list::{Blob, Hash, Lists, Part, Shape};
use super::{HASH_HERE_MAX, index};
use crate::hal::StoreError;

/// Bytes that are on their way to the store at once: enough to share fsyncs, and few enough to be held for each writer.
pub(crate) const IN_FLIGHT_MAX: usize = 4 << 20;

/// The largest piece that is cut and hashed in one go.
const PIECE_MAX: usize = 1 << 20;

/// Large content in the making. Holds at most [`IN_FLIGHT_MAX`] bytes beside a piece and a chunk. What was stored by a writer that is dropped
/// is named by nothing.
pub(crate) struct Writer<B> {
    blobs: B,
    shape: Shape,
    chunker: Chunker,
    lists: Lists,
    storing: FuturesUnordered<BoxFuture<'static, (usize, Result<(), StoreError>)>>,
    in_flight: usize,
    /// What was stored last of each sort: content that repeats itself is stored once.
    latest: [Option<Hash>; 2],
    length: u64,
}

impl<B: Blobs> Writer<B> {
    pub(crate) fn new(blobs: B, shape: Shape) -> Self {
        Self {
            blobs,
            shape,
            chunker: Chunker::new(shape.sizes),
            lists: Lists::new(shape),
            storing: FuturesUnordered::new(),
            in_flight: 0,
            latest: [None; 2],
            length: 0,
        }
    }

    /// Takes the next bytes.
    pub(crate) async fn feed(&mut self, data: &Bytes) -> Result<(), StoreError> {
        self.length += data.len() as u64;
        let mut rest = data.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE_MAX));
            let mut chunker = std::mem::replace(&mut self.chunker, Chunker::new(self.shape.sizes));
            let here = piece.len() as u64 <= HASH_HERE_MAX;
            let job = move || {
                chunker.feed(&piece);
                let chunks = drain(&mut chunker, Behind::More);
                (chunker, chunks)
            };
            let (chunker, chunks) = if here { job() } else { self.blobs.crunch(job).await? };
            self.chunker = chunker;
            for chunk in chunks {
                self.chunk(chunk).await?;
            }
        }
        Ok(())
    }

    /// Takes `count` zeros.
    pub(crate) async fn zeros(&mut self, count: u64) -> Result<(), StoreError> {
        self.length += count;
        let largest = self.shape.sizes.max;
        let zeros = Bytes::from(vec![0; index(count.min(largest.into()))]);
        let mut left = count;
        // How many of the bytes since the last cut are of these zeros.
        let mut own = 0;
        while left > 0 {
            if self.chunker.pending() == 0 && left >= largest.into() {
                left = self.repeat(&zeros, left).await?;
                continue;
            }
            let piece = zeros.slice(..index(left.min(largest.into())));
            left -= piece.len() as u64;
            own += piece.len();
            self.chunker.feed(&piece);
            for chunk in drain(&mut self.chunker, Behind::Unread) {
                self.chunk(chunk).await?;
            }
            let pending = self.chunker.pending();
            if pending <= own {
                // From here on nothing but zeros was seen: they are not looked at one by one.
                self.chunker.forget();
                left += pending as u64;
                own = 0;
                if left < largest.into() {
                    self.chunker.feed(&zeros[..index(left)]);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Adds chunks of zeros while there are enough that no other byte decides where they end; says how many zeros are left.
    async fn repeat(&mut self, zeros: &Bytes, mut left: u64) -> Result<u64, StoreError> {
        let largest: u64 = self.shape.sizes.max.into();
        self.chunker.feed(zeros);
        let chunk = self.chunker.next(Behind::More).unwrap_or_else(|| zeros.clone());
        self.chunker.forget();
        let part = Part { hash: *blake3::hash(&chunk).as_bytes(), length: chunk.len() as u64 };
        self.store(Sort::Chunk, (part.hash, chunk)).await?;
        while left >= largest {
            left -= part.length;
            self.push(0, part).await?;
        }
        Ok(left)
    }

    /// Takes the part `range` of the content `old`. Its chunks are read only where they are cut anew: at both ends. `is_last` says that nothing
    /// follows.
    pub(crate) async fn copy(
        &mut self,
        old: &mut Cursor<B>,
        range: Range<u64>,
        is_last: bool,
    ) -> Result<(), StoreError> {
        self.length += range.end - range.start;
        let alike = old.root().shape() == self.shape;
        let mut at = range.start;
        while at < range.end {
            let fresh = self.chunker.pending() == 0;
            let total = old.total();
            let steps = old.seek(at).await?;
            if fresh && alike {
                let ends = is_last && range.end == total;
                let found = steps.iter().find_map(|step| self.takes(step, at, range.end, total, ends));
                if let Some((level, part)) = found {
                    self.push(level, part).await?;
                    at += part.length;
                    continue;
                }
            }
            let Some(chunk) = steps.last().and_then(Step::entry) else {
                return Err(StoreError::Corrupt {
                    what: "a chunk list".into(),
                    found: "too few chunks".into(),
                });
            };
            let content = old.fetch(chunk).await?;
            let end = chunk.end.min(range.end);
            self.chunker.feed(&content[index(at - chunk.start)..index(end - chunk.start)]);
            at = end;
            while let Some(cut) = self.chunker.next(Behind::Unread) {
                self.chunk((*blake3::hash(&cut).as_bytes(), cut)).await?;
                // Where a chunk begins that an old one begins with, the cuts are the old ones from there on.
                let Some(begins) = at.checked_sub(self.chunker.pending() as u64) else { continue };
                if !alike || begins < range.start || begins == at {
                    continue;
                }
                if old.chunk_at(begins).await?.is_some_and(|chunk| chunk.start == begins) {
                    self.chunker.forget();
                    at = begins;
                    break;
                }
            }
        }
        Ok(())
    }

    /// What can be taken as it is at `at` of old content of `total` bytes, of which the part up to `end` follows.
    fn takes(&self, step: &Step, at: u64, end: u64, total: u64, ends: bool) -> Option<(u8, Part)> {
        let entry = step.entry().filter(|entry| entry.start == at && entry.end <= end)?;
        let part = Part { hash: entry.hash, length: entry.end - entry.start };
        let level = step.list.level();
        // The two bytes behind a cut decide about it, too: it is looked for in pairs.
        let goes_on = entry.end + 1 < end;
        let is_cut_there = match level {
            0 => goes_on || (ends && entry.end == end) || part.length == u64::from(self.shape.sizes.max),
            // The last list of a level was ended by the end of the content.
            _ => goes_on && entry.end < total && self.lists.is_level_with(level),
        };
        is_cut_there.then_some((level, part))
    }

    /// Completes the content. All of it is durable on return.
    pub(crate) async fn finish(mut self) -> Result<Part, StoreError> {
        for chunk in drain(&mut self.chunker, Behind::Nothing) {
            self.chunk(chunk).await?;
        }
        let lists = std::mem::replace(&mut self.lists, Lists::new(self.shape));
        let mut complete = Vec::new();
        let root = lists.finish(&mut complete);
        for list in complete {
            self.store(Sort::List, list).await?;
        }
        self.settle(0).await?;
        root.filter(|root| root.length == self.length).ok_or_else(|| StoreError::Backend {
            what: "putting chunks together".into(),
            cause: format!("{} bytes became {root:?}", self.length),
        })
    }

    async fn chunk(&mut self, chunk: Blob) -> Result<(), StoreError> {
        let part = Part { hash: chunk.0, length: chunk.1.len() as u64 };
        self.store(Sort::Chunk, chunk).await?;
        self.push(0, part).await
    }

    async fn push(&mut self, level: u8, part: Part) -> Result<(), StoreError> {
        let mut complete = Vec::new();
        self.lists.push(level, part, &mut complete);
        for list in complete {
            self.store(Sort::List, list).await?;
        }
        Ok(())
    }

    /// Sends a blob to the store, once there is room on the way.
    async fn store(&mut self, sort: Sort, (hash, blob): Blob) -> Result<(), StoreError> {
        let latest = &mut self.latest[usize::from(sort == Sort::List)];
        if latest.replace(hash) == Some(hash) {
            return Ok(());
        }
        let size = blob.len();
        self.settle(IN_FLIGHT_MAX.saturating_sub(size)).await?;
        self.in_flight += size;
        let blobs = self.blobs.clone();
        self.storing.push(Box::pin(async move { (size, blobs.put(sort, hash, blob).await) }));
        Ok(())
    }

    /// Waits until at most so many bytes are on their way.
    async fn settle(&mut self, bytes: usize) -> Result<(), StoreError> {
        while self.in_flight > bytes {
            let Some((size, stored)) = self.storing.next().await else { break };
            self.in_flight -= size;
            stored?;
        }
        Ok(())
    }
}

/// The chunks whose ends are certain, hashed.
fn drain(chunker: &mut Chunker, behind: Behind) -> Vec<Blob> {
    let chunks = std::iter::from_fn(|| chunker.next(behind));
    chunks.map(|chunk| (*blake3::hash(&chunk).as_bytes(), chunk)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::task::Poll;

    use nexus_actors::block_on;
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::super::chunker::Sizes;
    use super::super::splice::{Plan, Segment};
    use super::*;

    const SMALL: Shape = Shape { sizes: Sizes { min: 64, avg: 256, max: 1_024 }, fan: 2 };

    /// Blobs in memory, with a count of what was moved.
    #[derive(Debug, Clone, Default)]
    struct Memory(Arc<Mutex<Inside>>);

    #[derive(Debug, Default)]
    struct Inside {
        blobs: HashMap<Hash, Bytes>,
        read: usize,
        written: usize,
        /// Bytes that are being written, and the most that ever were.
        now: usize,
        most: usize,
    }

    impl Blobs for Memory {
        async fn get(&self, _: Sort, hash: &Hash) -> Result<Bytes, StoreError> {
            let mut inside = self.0.lock();
            let blob = inside.blobs.get(hash).cloned().expect("it is there");
            inside.read += blob.len();
            Ok(blob)
        }

        async fn put(&self, _: Sort, hash: Hash, blob: Bytes) -> Result<(), StoreError> {
            assert_eq!(hash, *blake3::hash(&blob).as_bytes());
            {
                let mut inside = self.0.lock();
                inside.now += blob.len();
                inside.most = inside.most.max(inside.now);
            }
            // Others are sent meanwhile.
            let mut first = true;
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            let mut inside = self.0.lock();
            inside.now -= blob.len();
            inside.written += blob.len();
            inside.blobs.insert(hash, blob);
            Ok(())
        }

        async fn crunch<T: Send + 'static>(
            &self,
            job: impl FnOnce() -> T + Send + 'static,
        ) -> Result<T, StoreError> {
            Ok(job())
        }
    }

    impl Memory {
        async fn write(&self, shape: Shape, content: &[u8]) -> Part {
            let mut writer = Writer::new(self.clone(), shape);
            writer.feed(&Bytes::copy_from_slice(content)).await.unwrap();
            writer.finish().await.unwrap()
        }

        async fn open(&self, root: Part) -> Cursor<Self> {
            Cursor::open(self.clone(), &root.hash, root.length).await.unwrap()
        }

        async fn read(&self, root: Part) -> Bytes {
            self.open(root).await.read(0..root.length).await.unwrap()
        }

        fn moved(&self) -> (usize, usize) {
            let mut inside = self.0.lock();
            (std::mem::take(&mut inside.read), std::mem::take(&mut inside.written))
        }
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let key = blake3::hash(&seed.to_le_bytes());
        blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[derive(Debug, Clone)]
    enum Piece {
        Old(usize, usize),
        New(u64, usize),
        Zeros(usize),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        prop_oneof![
            3 => (0usize..30_000, 0usize..30_000).prop_map(|(a, b)| Piece::Old(a.min(b), a.max(b))),
            2 => (any::<u64>(), 0usize..5_000).prop_map(|(seed, length)| Piece::New(seed, length)),
            1 => (0usize..6_000).prop_map(Piece::Zeros),
        ]
    }

    proptest! {
        #[test]
        fn content_put_together_from_old_and_new_is_divided_as_if_written_at_once(
            seed: u64,
            length in 1usize..30_000,
            pieces in prop::collection::vec(piece(), 1..7),
        ) {
            block_on(async {
                let memory = Memory::default();
                let old = noise(seed, length);
                let root = memory.write(SMALL, &old).await;
                let mut cursor = memory.open(root).await;
                let mut model = Vec::new();
                let mut writer = Writer::new(memory.clone(), SMALL);
                let last = pieces.len() - 1;
                for (n, piece) in pieces.into_iter().enumerate() {
                    match piece {
                        Piece::Old(from, to) => {
                            let (from, to) = (from.min(length), to.min(length));
                            model.extend_from_slice(&old[from..to]);
                            writer.copy(&mut cursor, from as u64..to as u64, n == last).await.unwrap();
                        }
                        Piece::New(seed, length) => {
                            let new = noise(seed, length);
                            model.extend_from_slice(&new);
                            writer.feed(&new.into()).await.unwrap();
                        }
                        Piece::Zeros(count) => {
                            model.resize(model.len() + count, 0);
                            writer.zeros(count as u64).await.unwrap();
                        }
                    }
                }
                if !model.is_empty() {
                    let got = writer.finish().await.unwrap();
                    assert_eq!(memory.read(got).await, Bytes::from(model.clone()));
                    assert_eq!(got, memory.write(SMALL, &model).await);
                }
            });
        }

        #[test]
        fn a_range_is_read_as_it_was_written(
            seed: u64, length in 1usize..20_000, from in 0usize..22_000, count in 0usize..9_000
        ) {
            block_on(async {
                let memory = Memory::default();
                let content = noise(seed, length);
                let cursor = memory.open(memory.write(SMALL, &content).await).await;
                let read = cursor.read(from as u64..(from + count) as u64).await.unwrap();
                assert_eq!(read, content[from.min(length)..(from + count).min(length)]);
            });
        }
    }

    /// The same content has had this address since there are chunk lists: cuts, layout and ends of lists are all in it.
    #[test]
    fn the_address_of_large_content_never_changes() {
        block_on(async {
            let address = async |content: &[u8]| {
                let root = Memory::default().write(Shape::TODAY, content).await;
                nexus_messages::ContentId::Chunks(root.hash).to_string()
            };
            assert_eq!(
                address(&noise(1, 3 << 20)).await,
                "chunks:e500047a392f24667733ad661d6d0a2b951a94bf6d6146a713e51aabb2364fce"
            );
            // Several lists on two levels.
            assert_eq!(
                address(&noise(1, 96 << 20)).await,
                "chunks:fe41f6ccf0185101807d966241ebcc8c28359c99552674fbf884198524484f3d"
            );
        });
    }

    /// Also right behind a cut, where the chunk before would have been longer.
    #[test]
    fn content_that_ends_anywhere_has_one_address() {
        block_on(async {
            let memory = Memory::default();
            let content = noise(11, 6_000);
            let root = memory.write(SMALL, &content).await;
            for end in 1..content.len() {
                let mut cursor = memory.open(root).await;
                let mut writer = Writer::new(memory.clone(), SMALL);
                writer.copy(&mut cursor, 0..end as u64, true).await.unwrap();
                let cut = writer.finish().await.unwrap();
                assert_eq!(cut, memory.write(SMALL, &content[..end]).await, "{end} bytes");
            }
        });
    }

    /// 16 MiB with the chunks that are really used.
    #[test]
    fn a_change_reads_and_writes_what_lies_around_it() {
        block_on(async {
            let memory = Memory::default();
            let content = noise(7, 16 << 20);
            let root = memory.write(Shape::TODAY, &content).await;
            memory.moved();
            let edits: [(&str, Vec<Segment>); 4] = [
                (
                    "over",
                    vec![Segment::Old(0, 8 << 20), new(9, 4_096), Segment::Old((8 << 20) + 4_096, 16 << 20)],
                ),
                ("insert", vec![Segment::Old(0, 8 << 20), new(9, 10), Segment::Old(8 << 20, 16 << 20)]),
                ("append", vec![Segment::Old(0, 16 << 20), new(9, 10)]),
                ("truncate", vec![Segment::Old(0, 9 << 20)]),
            ];
            for (what, parts) in edits {
                let mut writer = Writer::new(memory.clone(), Shape::TODAY);
                let mut old = memory.open(root).await;
                let last = parts.len() - 1;
                for (n, part) in parts.iter().enumerate() {
                    match part {
                        Segment::Old(from, to) => writer.copy(&mut old, *from..*to, n == last).await.unwrap(),
                        Segment::New(data) => writer.feed(data).await.unwrap(),
                        Segment::Zeros(count) => writer.zeros(*count).await.unwrap(),
                    }
                }
                writer.finish().await.unwrap();
                let (read, written) = memory.moved();
                assert!(read <= 1 << 20 && written <= 1 << 20, "{what}: {read} read, {written} written");
            }
        });
    }

    fn new(seed: u64, length: usize) -> Segment {
        Segment::New(noise(seed, length).into())
    }

    #[test]
    fn what_is_on_its_way_to_the_store_is_bounded() {
        block_on(async {
            let memory = Memory::default();
            memory.write(Shape::TODAY, &noise(3, 24 << 20)).await;
            let most = memory.0.lock().most;
            assert!(most <= IN_FLIGHT_MAX && most > IN_FLIGHT_MAX / 2, "{most}");
        });
    }

    #[test]
    fn a_gap_of_a_tebibyte_stores_one_chunk_and_few_lists() {
        block_on(async {
            let memory = Memory::default();
            let mut writer = Writer::new(memory.clone(), Shape::TODAY);
            writer.feed(&Bytes::from_static(b"head")).await.unwrap();
            writer.zeros((1 << 40) - 8).await.unwrap();
            writer.feed(&Bytes::from_static(b"tail")).await.unwrap();
            let root = writer.finish().await.unwrap();
            assert_eq!(root.length, 1 << 40);
            let (_, written) = memory.moved();
            assert!(written < 8 << 20, "{written}");
            let read = memory.open(root).await.read((1 << 40) - 6..1 << 40).await.unwrap();
            assert_eq!(read, &b"\0\0tail"[..]);
        });
    }

    #[test]
    fn a_plan_has_no_empty_parts() {
        let Plan { parts, .. } =
            super::super::plan(None, 0, &[], &nexus_messages::syscall::Place::End, false).unwrap();
        assert!(parts.is_empty());
    }
}
