//! The store: BLAKE3 over a transport.

use bytes::{Bytes, BytesMut};
use nexus_kernel::hal::{Addressing, ContentStore, ObjectStore, StoreError, StoreFuture, Transport};
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;

use super::standing::{Standing, Standings};

/// How much of a blob is held for verifying it, beside what was asked for.
const PIECE_BYTES: u64 = 1 << 20;

/// What the keys of blobs begin with.
const PREFIX: &str = "cas/";

/// A content-addressed store on the transport `T`.
///
/// A write is left out when the blob is known to be whole and durable: because this process wrote or verified it, or because it is found
/// under its final name, where transports put only what is durable, and its hash is right. A blob that is found damaged is told as
/// corrupt, is not counted as there, and is replaced by the next identical write.
///
/// What was verified once is not hashed again when it is read again, as long as it is remembered and as long as it was: blobs are never changed in place, and
/// their folder is the store's own. What rots meanwhile is for [`examine`](ContentStore::examine) to find.
#[derive(Debug)]
pub struct Cas<T> {
    transport: T,
    standings: Standings,
}

impl<T: Transport> Cas<T> {
    /// A store on `transport`, whose keys below `cas/` are its own.
    pub fn new(transport: T) -> Self {
        Self { transport, standings: Standings::default() }
    }

    /// What the store stands on.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The blob's key: two levels of folders, so that none of them grows large.
    pub fn key(id: &ContentId) -> Result<String, StoreError> {
        let hex = id.blake3().map(|_| id.to_string()).ok_or(NOT_A_HASH)?;
        Ok([PREFIX, &hex[..2], "/", &hex[2..4], "/", &hex].concat())
    }

    /// Reads the blob in pieces, and hands each to `each` with its offset. Gives the hash and the length.
    async fn walk(
        &self,
        key: &str,
        mut each: impl FnMut(u64, &Bytes) + Send,
    ) -> Result<([u8; 32], u64), StoreError> {
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        loop {
            let piece = self.transport.get(key, ByteRange::new(offset, PIECE_BYTES)).await?;
            hasher.update(&piece);
            each(offset, &piece);
            offset += piece.len() as u64;
            if (piece.len() as u64) < PIECE_BYTES {
                return Ok((*hasher.finalize().as_bytes(), offset));
            }
        }
    }

    /// Whether the blob is there and whole, by looking at all of it.
    async fn verify(&self, key: &str, hash: &[u8; 32], size: u64) -> Result<bool, StoreError> {
        match self.transport.head(key).await {
            Ok(Some(info)) if info.size == size => {}
            Ok(_) | Err(StoreError::Io { .. } | StoreError::Corrupt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        match self.walk(key, |_, _| ()).await {
            Ok((found, _)) => Ok(found == *hash),
            // It can be read no better than if it were not there; writing it anew is the cure.
            Err(StoreError::NotFound { .. } | StoreError::Io { .. } | StoreError::Corrupt { .. }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn write_blob(&self, id: &ContentId, data: &[Bytes]) -> Result<(), StoreError> {
        let (key, hash) = (Self::key(id)?, id.blake3().ok_or(NOT_A_HASH)?);
        let size = data.iter().map(|buffer| buffer.len() as u64).sum();
        let there = match self.standings.of(hash) {
            // It was whole when it was last looked at, and may be deleted since: also by another store on the same transport.
            Some(Standing::Written | Standing::Verified(_)) => {
                matches!(self.transport.head(&key).await, Ok(Some(info)) if info.size == size)
            }
            Some(Standing::Bad) => false,
            None => {
                let whole = self.verify(&key, hash, size).await?;
                if whole {
                    self.standings.learn(hash, Standing::Verified(size));
                }
                whole
            }
        };
        if !there {
            // Known as bad until the transport says that it is durable: also when this future is dropped meanwhile.
            self.standings.learn(hash, Standing::Bad);
            self.transport.put(&key, data).await?;
            self.standings.learn(hash, Standing::Written);
        }
        Ok(())
    }

    async fn length_of(&self, id: &ContentId) -> Result<Option<u64>, StoreError> {
        let (key, hash) = (Self::key(id)?, id.blake3().ok_or(NOT_A_HASH)?);
        match self.standings.of(hash) {
            Some(Standing::Bad) => Ok(None),
            _ => Ok(self.transport.head(&key).await?.map(|info| info.size)),
        }
    }

    async fn read_blob(&self, id: &ContentId, range: ByteRange) -> Result<Bytes, StoreError> {
        let (key, hash) = (Self::key(id)?, id.blake3().ok_or(NOT_A_HASH)?);
        let Some(Standing::Verified(size)) = self.standings.of(hash) else {
            return self.examine_blob(id, range).await;
        };
        let part = self.transport.get(&key, range).await.map_err(|error| self.failed(hash, error))?;
        let (from, to) = range.within(size);
        if part.len() as u64 != to - from {
            // All of it tells how long it is.
            return self.examine_blob(id, range).await;
        }
        Ok(part)
    }

    async fn examine_blob(&self, id: &ContentId, range: ByteRange) -> Result<Bytes, StoreError> {
        let (key, hash) = (Self::key(id)?, id.blake3().ok_or(NOT_A_HASH)?);
        let mut wanted = Wanted::new(range);
        let walked = self.walk(&key, |offset, piece| wanted.take(offset, piece)).await;
        let (found, size) = walked.map_err(|error| self.failed(hash, error))?;
        self.judge(id, hash, &found, size)?;
        Ok(wanted.into_bytes())
    }

    async fn read_blobs(&self, ids: &[ContentId]) -> Result<Vec<Bytes>, StoreError> {
        let keys: Vec<_> = ids.iter().map(Self::key).collect::<Result<_, _>>()?;
        let hashes: Vec<_> = ids.iter().map(|id| id.blake3().ok_or(NOT_A_HASH)).collect::<Result<_, _>>()?;
        let read = self.transport.get_many(&keys).await?;
        let read = read.into_iter().zip(&hashes);
        let blobs: Vec<_> = read
            .map(|(blob, hash)| blob.map_err(|error| self.failed(hash, error)))
            .collect::<Result<_, _>>()?;
        let sized = hashes.iter().zip(&blobs).map(|(hash, blob)| (*hash, blob.len() as u64));
        let verified = self.standings.are_verified(sized);
        for (((id, hash), blob), _) in ids.iter().zip(hashes).zip(&blobs).zip(verified).filter(|(_, v)| !v) {
            self.judge(id, hash, blake3::hash(blob).as_bytes(), blob.len() as u64)?;
        }
        Ok(blobs)
    }

    /// Learns what was read of all of a blob: something with the hash `found`, of `size` bytes.
    fn judge(&self, id: &ContentId, hash: &[u8; 32], found: &[u8; 32], size: u64) -> Result<(), StoreError> {
        if found == hash {
            self.standings.learn(hash, Standing::Verified(size));
            return Ok(());
        }
        self.standings.learn(hash, Standing::Bad);
        tracing::error!(content = %id, size, "a stored content does not match its hash");
        let found = format!("{size} bytes with another hash");
        Err(StoreError::Corrupt { what: format!("content {id}"), found })
    }

    /// Learns that a blob could not be read.
    fn failed(&self, hash: &[u8; 32], error: StoreError) -> StoreError {
        match error {
            StoreError::NotFound { .. } => self.standings.forget(hash),
            // The next identical write is the cure.
            StoreError::Io { .. } | StoreError::Corrupt { .. } => self.standings.learn(hash, Standing::Bad),
            _ => {}
        }
        error
    }
}

const NOT_A_HASH: StoreError = StoreError::NotSupported { what: "content that is not addressed by its hash" };

/// The part of a blob that was asked for, put together from pieces.
struct Wanted {
    range: ByteRange,
    /// A range that lies within one piece is that piece's own memory.
    first: Bytes,
    rest: BytesMut,
}

impl Wanted {
    fn new(range: ByteRange) -> Self {
        Self { range, first: Bytes::new(), rest: BytesMut::new() }
    }

    fn take(&mut self, offset: u64, piece: &Bytes) {
        let end = offset + piece.len() as u64;
        let (from, to) = self.range.within(end);
        let from = from.max(offset);
        if from >= to {
            return;
        }
        // Both lie within the piece, whose length is a usize.
        #[expect(clippy::cast_possible_truncation)]
        let part = piece.slice((from - offset) as usize..(to - offset) as usize);
        if self.first.is_empty() {
            self.first = part;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&self.first);
            }
            self.rest.extend_from_slice(&part);
        }
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

impl<T: Transport> ObjectStore for Cas<T> {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn read_only(&self) -> bool {
        self.transport.read_only()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { self.transport.list(PREFIX, None, 1).await.map(drop) })
    }
}

impl<T: Transport> ContentStore for Cas<T> {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(self.write_blob(id, data))
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(self.read_blob(id, range))
    }

    fn read_many<'a>(&'a self, ids: &'a [ContentId]) -> StoreFuture<'a, Vec<Bytes>> {
        Box::pin(self.read_blobs(ids))
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(self.examine_blob(id, range))
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        Box::pin(async move { Ok(self.length_of(id).await?.is_some()) })
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        Box::pin(self.length_of(id))
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let (key, hash) = (Self::key(id)?, id.blake3().ok_or(NOT_A_HASH)?);
            self.standings.forget(hash);
            let deleted = self.transport.delete(&key).await;
            // What another call learned while the blob went is no longer so.
            self.standings.forget(hash);
            deleted
        })
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        Box::pin(async move {
            let mut last = after.map(Self::key).transpose()?;
            loop {
                let keys = self.transport.list(PREFIX, last.as_deref(), limit).await?;
                let named = |key: &String| ContentId::parse_hex(key.rsplit('/').next()?);
                // A key that leads nowhere else: what lies about under another name is no content.
                let is_its = |(key, id): &(&String, ContentId)| Self::key(id).is_ok_and(|its| its == **key);
                let found = keys.iter().filter_map(|key| Some((key, named(key)?))).filter(is_its);
                let ids: Vec<_> = found.map(|(_, id)| id).collect();
                if !ids.is_empty() || keys.is_empty() {
                    return Ok(ids);
                }
                last = keys.into_iter().next_back();
            }
        })
    }

    fn reclaim(&self) -> StoreFuture<'_, u64> {
        self.transport.reclaim()
    }

    fn damage(&self) -> StoreFuture<'_, Vec<String>> {
        self.transport.damage()
    }
}
