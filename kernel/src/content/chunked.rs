//! Large content as it is stored: chunks, and the lists that tell them.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::{FuturesOrdered, StreamExt};
use nexus_messages::ContentId;

use super::cache::ContentCache;
use super::index;
use super::list::{Entry, Hash, List};
use crate::hal::StoreError;

/// How many bytes of chunks are asked for together. One chunk always is.
const TOGETHER_BYTES: u64 = 512 << 10;

/// How often as many are read ahead of who reads a run of bytes.
const READ_AHEAD: usize = 3;

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Chunk,
    List,
}

/// Where chunks and lists are kept.
pub(crate) trait Blobs: Clone + Send + Sync + 'static {
    /// The blob with this hash, verified.
    fn get(&self, sort: Sort, hash: &Hash) -> impl Future<Output = Result<Bytes, StoreError>> + Send;

    /// The chunks with these hashes, in their order, verified.
    fn get_chunks(&self, hashes: &[Hash]) -> impl Future<Output = Result<Vec<Bytes>, StoreError>> + Send {
        try_join_all(hashes.iter().map(|hash| self.get(Sort::Chunk, hash)))
    }

    /// Keeps the blob, whose hash this is. Durable on return.
    fn put(&self, sort: Sort, hash: Hash, blob: Bytes)
    -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Runs what takes the processor for long, where it holds up nobody.
    fn crunch<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;
}

/// A place in large content: the way from the root to a chunk.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<B> {
    blobs: B,
    root: List,
    total: u64,
    steps: Vec<Step>,
}

/// One list on the way, and which of its entries is next.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) list: List,
    /// Where the list begins in the content.
    start: u64,
    index: usize,
}

impl Step {
    /// The entry, with its place in the content.
    pub(crate) fn entry(&self) -> Option<Entry> {
        let Entry { hash, start, end } = self.list.entry(self.index)?;
        Some(Entry { hash, start: self.start + start, end: self.start + end })
    }
}

impl<B: Blobs> Cursor<B> {
    /// Opens the content whose root is `root`. It has `total` bytes.
    pub(crate) async fn open(blobs: B, root: &Hash, total: u64) -> Result<Self, StoreError> {
        let list = list(&blobs, root, total, None).await?;
        Ok(Self { blobs, root: list, total, steps: Vec::new() })
    }

    /// How long the content is.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The list that tells all.
    pub(crate) fn root(&self) -> &List {
        &self.root
    }

    /// The way to the chunk that has the byte at `offset`, from the root on; nothing beyond the end.
    pub(crate) async fn seek(&mut self, offset: u64) -> Result<&[Step], StoreError> {
        if offset >= self.total {
            self.steps.clear();
            return Ok(&self.steps);
        }
        // What lies on both ways is kept.
        let covers = |step: &Step| (step.start..step.start + step.list.length()).contains(&offset);
        let kept = self.steps.iter().take_while(|step| covers(step)).count();
        self.steps.truncate(kept);
        if self.steps.is_empty() {
            self.steps.push(Step { list: self.root.clone(), start: 0, index: 0 });
        }
        loop {
            let last = self.steps.len() - 1;
            let step = &mut self.steps[last];
            step.index = step.list.find(offset - step.start);
            let level = step.list.level();
            let Some(Entry { hash, start, end }) = step.entry() else {
                // A list that was parsed has an entry for each of its bytes.
                return Err(damaged(&[0; 32], "a list that ends too early"));
            };
            let Some(below) = level.checked_sub(1) else { return Ok(&self.steps) };
            let list = list(&self.blobs, &hash, end - start, Some(below)).await?;
            self.steps.push(Step { list, start, index: 0 });
        }
    }

    /// The chunk that has the byte at `offset`.
    pub(crate) async fn chunk_at(&mut self, offset: u64) -> Result<Option<Entry>, StoreError> {
        Ok(self.seek(offset).await?.last().and_then(Step::entry))
    }

    /// The content of a chunk.
    pub(crate) fn fetch(
        &self,
        chunk: Entry,
    ) -> impl Future<Output = Result<Bytes, StoreError>> + Send + use<B> {
        let blobs = self.blobs.clone();
        async move { as_long(&chunk, blobs.get(Sort::Chunk, &chunk.hash).await?) }
    }

    /// The parts of chunks, in their order.
    fn fetch_parts(
        &self,
        parts: Vec<(Entry, Range<usize>)>,
    ) -> impl Future<Output = Result<Vec<Bytes>, StoreError>> + Send + use<B> {
        let blobs = self.blobs.clone();
        async move {
            let hashes: Vec<_> = parts.iter().map(|(chunk, _)| chunk.hash).collect();
            let chunks = blobs.get_chunks(&hashes).await?;
            let cut = parts.into_iter().zip(chunks);
            cut.map(|((chunk, part), content)| Ok(as_long(&chunk, content)?.slice(part))).collect()
        }
    }

    /// The bytes of `range`, piece by piece.
    pub(crate) fn pieces(self, range: Range<u64>) -> Pieces<B> {
        let range = range.start.min(self.total)..range.end.min(self.total);
        Pieces { cursor: self, range, ahead: FuturesOrdered::new(), ready: VecDeque::new(), at_once: false }
    }

    /// The bytes of `range` as one. Of a range within one chunk nothing is copied.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let mut pieces = self.clone().pieces(range);
        let whole = index(pieces.left());
        let first = pieces.next().await?.unwrap_or_default();
        if first.len() == whole {
            return Ok(first);
        }
        let mut bytes = BytesMut::with_capacity(whole);
        bytes.extend_from_slice(&first);
        while let Some(piece) = pieces.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }
}

/// The bytes of a range, chunk by chunk. Some chunks are read ahead.
pub(crate) struct Pieces<B> {
    cursor: Cursor<B>,
    /// What is left to be asked for.
    range: Range<u64>,
    ahead: FuturesOrdered<BoxFuture<'static, Result<Vec<Bytes>, StoreError>>>,
    /// What has come.
    ready: VecDeque<Bytes>,
    /// What was asked for last came at once.
    at_once: bool,
}

impl<B: Blobs> Pieces<B> {
    /// The next piece: a chunk, or the part of it that lies in the range.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        // What comes at once is asked for when it is wanted: read ahead, it would only leave the processor's caches before it is given.
        while self.ahead.len() < READ_AHEAD
            && self.range.start < self.range.end
            && (!self.at_once || self.ready.is_empty())
        {
            let parts = self.parts().await?;
            if parts.is_empty() {
                break;
            }
            self.ahead.push_back(Box::pin(self.cursor.fetch_parts(parts)));
            let come = self.ahead.next().now_or_never().flatten();
            self.at_once = come.is_some();
            if let Some(come) = come {
                self.ready.extend(come?);
            }
        }
        // What is asked for is on its way from here on, also while there is something to give.
        while let Some(come) = match self.ready.is_empty() {
            true => self.ahead.next().await,
            false => self.ahead.next().now_or_never().flatten(),
        } {
            self.ready.extend(come?);
        }
        Ok(self.ready.pop_front())
    }

    /// Which chunks are asked for together next, and which part of each is wanted.
    async fn parts(&mut self) -> Result<Vec<(Entry, Range<usize>)>, StoreError> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        while bytes < TOGETHER_BYTES && self.range.start < self.range.end {
            let Some(chunk) = self.cursor.chunk_at(self.range.start).await? else { break };
            let end = chunk.end.min(self.range.end);
            parts.push((chunk, index(self.range.start - chunk.start)..index(end - chunk.start)));
            bytes += chunk.end - chunk.start;
            self.range.start = end;
        }
        Ok(parts)
    }

    /// How many bytes are still to be asked for.
    fn left(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }
}

/// The bytes of `range`, when they lie in one chunk and all that leads to it is in memory. Copies nothing.
pub(crate) fn at_hand(cache: &ContentCache, root: &Hash, range: Range<u64>) -> Option<Bytes> {
    if range.is_empty() {
        return Some(Bytes::new());
    }
    let blob = |hash| cache.get(&ContentId::Blake3(hash));
    let (mut hash, mut base) = (*root, 0);
    loop {
        let list = List::known(blob(hash)?)?;
        let entry = list.entry(list.find(range.start - base))?;
        if range.end > base + entry.end {
            return None;
        }
        (hash, base) = (entry.hash, base + entry.start);
        if list.level() == 0 {
            let chunk = blob(hash)?;
            let part = index(range.start - base)..index(range.end - base);
            return (part.end <= chunk.len()).then(|| chunk.slice(part));
        }
    }
}

/// The list with this hash. It tells `length` bytes; of all but the root the level is known.
async fn list<B: Blobs>(blobs: &B, hash: &Hash, length: u64, level: Option<u8>) -> Result<List, StoreError> {
    let list = List::parse(blobs.get(Sort::List, hash).await?).map_err(|found| damaged(hash, &found))?;
    if list.length() != length || level.is_some_and(|level| level != list.level()) {
        let found = format!("a list of level {} that tells {} bytes", list.level(), list.length());
        return Err(damaged(hash, &found));
    }
    Ok(list)
}

/// The content of a chunk, if it is as long as its list tells.
fn as_long(chunk: &Entry, content: Bytes) -> Result<Bytes, StoreError> {
    match content.len() as u64 {
        length if length == chunk.end - chunk.start => Ok(content),
        length => Err(damaged(&chunk.hash, &format!("{length} bytes"))),
    }
}

fn damaged(hash: &Hash, found: &str) -> StoreError {
    let what = format!("blob {}", ContentId::Blake3(*hash));
    StoreError::Corrupt { what, found: found.into() }
}
