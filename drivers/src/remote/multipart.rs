//! Large content in parts, as it comes.
//!
//! Pieces are put together to parts and handed on as they are; nothing is copied. A few parts are under way at once, each in a task of its own, so they go on while
//! nobody pushes. The server shows nothing of it until the last step, so a reader sees the old content or the new one.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use nexus_kernel::hal::StoreError;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{PutPayload, PutResult};
use tokio::sync::oneshot;

use super::client::Client;
use super::requests::Condition;

/// How many parts of one content are under way at once.
pub(super) const PARTS_AT_ONCE: usize = 4;

/// No more parts are under way than have together so many bytes, but for one that is larger by itself.
const UNDER_WAY_MAX: u64 = 32 << 20;

/// After so many parts they are twice as large, and again: nobody says how long content will be that comes piece by piece, and no store takes more than 10,000 parts. With
/// parts of 5 MiB at the beginning these have more than a TiB.
const PARTS_OF_ONE_SIZE: usize = 1_300;

/// The most parts that any of the stores takes.
pub(super) const PARTS_MAX: usize = 10_000;

/// How often the server is told to forget an upload that was given up, and how long the first pause in between is; each is four times as long as the one before.
const ABORTS_MAX: u32 = 6;
const ABORT_PAUSE: Duration = Duration::from_millis(50);

/// No part grows beyond this.
const PART_MAX: u64 = 1 << 30;

/// The size of the part `index`, when the first one has `first` bytes.
fn size_of(first: u64, index: usize) -> u64 {
    let doubled = u32::try_from(index / PARTS_OF_ONE_SIZE).unwrap_or(u32::MAX);
    1_u64
        .checked_shl(doubled)
        .map_or(PART_MAX, |times| first.saturating_mul(times))
        .clamp(first, PART_MAX.max(first))
}

/// A part that has come to an end: which, and how.
type Ended = (usize, Result<PartId, StoreError>);

/// Content on its way to a key. Dropping it takes away what the server has of it.
pub(super) struct Upload {
    client: Client,
    key: Path,
    /// The size of the first part.
    part: u64,
    /// What has come for the next part, less than it.
    held: Vec<Bytes>,
    held_size: u64,
    size: u64,
    begun: Option<Begun>,
    /// Those that the server has; none for those that are under way.
    parts: Vec<Option<PartId>>,
    under_way: FuturesUnordered<oneshot::Receiver<Ended>>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("key", &self.key).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Upload {
    /// Content for `key`, in parts of `part` bytes. Nothing is asked of the server before there is a whole part.
    pub(super) fn new(client: Client, key: Path, part: u64) -> Self {
        let (held, parts, under_way) = (Vec::new(), Vec::new(), FuturesUnordered::new());
        Self { client, key, part, held, held_size: 0, size: 0, begun: None, parts, under_way }
    }

    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// All that was pushed, when that was not enough for a part. Then the server knows nothing of it.
    pub(super) fn all_held(&self) -> Option<&[Bytes]> {
        self.begun.is_none().then_some(&self.held)
    }

    /// Takes the next bytes, and waits while as many parts are under way as may be.
    pub(super) async fn push(&mut self, mut data: Bytes) -> Result<(), StoreError> {
        self.size += data.len() as u64;
        while !data.is_empty() {
            let wanted = size_of(self.part, self.parts.len()) - self.held_size;
            let piece = data.split_to(usize::try_from(wanted).unwrap_or(usize::MAX).min(data.len()));
            self.held_size += piece.len() as u64;
            self.held.push(piece);
            if self.held_size == size_of(self.part, self.parts.len()) {
                self.start().await?;
            }
        }
        Ok(())
    }

    /// Waits until the server has all parts, the last one too. Content that is less than one stays held.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        if self.begun.is_none() {
            return Ok(());
        }
        if self.held_size > 0 {
            self.start().await?;
        }
        while !self.under_way.is_empty() {
            self.one_ended().await?;
        }
        Ok(())
    }

    /// Makes all that was pushed what is at the key, in parts or, when it is less than one, at once: that knows no condition.
    pub(super) async fn complete(&mut self, condition: Option<Condition>) -> Result<PutResult, StoreError> {
        self.settle().await?;
        let Some(begun) = &mut self.begun else {
            return self.client.put_once(&self.key, std::mem::take(&mut self.held)).await;
        };
        let parts: Option<Vec<_>> = self.parts.iter().cloned().collect();
        let (what, cause) = (format!("writing {:?}", self.key.as_ref()), "a part is missing");
        let parts = parts.ok_or_else(|| StoreError::Backend { what, cause: cause.into() })?;
        let put = self.client.complete(&self.key, &begun.id, parts, self.size, condition).await?;
        begun.is_over = true;
        Ok(put)
    }

    /// Has the server forget what was not completed, and waits for that. When the server does not hear it, it is told again, for which nobody waits.
    pub(super) async fn abort(mut self) {
        if let Some(mut begun) = self.begun.take().filter(|begun| !begun.is_over) {
            // Those that are under way would come after it.
            self.under_way.clear();
            begun.is_over = begun.client.abort_parts(&begun.key, &begun.id).await.is_ok();
        }
    }

    /// Sends what is held as the next part.
    async fn start(&mut self) -> Result<(), StoreError> {
        let index = self.parts.len();
        if index == PARTS_MAX {
            let why =
                format!("{:?} has more parts than stores take: larger ones are needed", self.key.as_ref());
            return Err(StoreError::BadOption { why });
        }
        let id = match &self.begun {
            Some(begun) => begun.id.clone(),
            None => self.begun.insert(begin(&self.client, &self.key).await?).id.clone(),
        };
        while self.under_way.len() >= self.at_once() {
            self.one_ended().await?;
        }
        self.held_size = 0;
        let payload: PutPayload = std::mem::take(&mut self.held).into_iter().collect();
        self.parts.push(None);
        let (mut tell, ended) = oneshot::channel();
        let (client, key) = (self.client.clone(), self.key.clone());
        self.client.env().spawn("remote.part", async move {
            let put = match select(pin!(client.part(&key, &id, index, payload)), pin!(tell.closed())).await {
                Either::Left((put, _)) => put,
                // The upload was dropped.
                Either::Right(_) => return,
            };
            // It may be dropped just now.
            let _ = tell.send((index, put));
        });
        self.under_way.push(ended);
        Ok(())
    }

    /// How many parts may be under way with the next one.
    fn at_once(&self) -> usize {
        let fitting = UNDER_WAY_MAX / size_of(self.part, self.parts.len());
        let most = PARTS_AT_ONCE.min(self.client.settings.concurrency);
        usize::try_from(fitting).unwrap_or(usize::MAX).clamp(1, most.max(1))
    }

    /// Waits until one of the parts that are under way has come to its end.
    async fn one_ended(&mut self) -> Result<(), StoreError> {
        match self.under_way.next().await {
            Some(Ok((index, part))) => {
                self.parts[index] = Some(part?);
                Ok(())
            }
            Some(Err(_)) => {
                let what = format!("writing {:?}", self.key.as_ref());
                Err(StoreError::Backend { what, cause: "a task of it has ended".into() })
            }
            None => Ok(()),
        }
    }
}

/// Tells the server of an upload. Who gives it up in between leaves nothing behind.
async fn begin(client: &Client, key: &Path) -> Result<Begun, StoreError> {
    let (tell, told) = oneshot::channel();
    let (asking, at) = (client.clone(), key.clone());
    client.env().spawn("remote.begin", async move {
        let begun = asking.begin_parts(&at).await;
        let begun = begun.map(|id| Begun { client: asking, key: at, id, is_over: false });
        // When nobody waits any more it is dropped here, and so taken away.
        let _ = tell.send(begun);
    });
    told.await.unwrap_or_else(|_| {
        let what = format!("writing {:?}", key.as_ref());
        Err(StoreError::Backend { what, cause: "a task of it has ended".into() })
    })
}

/// An upload that the server knows of. Unless it is completed, the server is told to forget it: it would keep, and bill, the parts that it has.
struct Begun {
    client: Client,
    key: Path,
    id: String,
    is_over: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (client, key, id) = (self.client.clone(), self.key.clone(), std::mem::take(&mut self.id));
        self.client.env().spawn("remote.abort", async move { abort(&client, &key, &id).await });
    }
}

/// Tells the server to forget an upload until it has heard it, whatever the mount says of repeating: what is given up is mostly given up because the server, or the way to
/// it, fails. What cannot be forgotten is logged.
async fn abort(client: &Client, key: &Path, id: &str) {
    let mut pause = ABORT_PAUSE;
    for is_last in (0..ABORTS_MAX).map(|tried| tried + 1 == ABORTS_MAX) {
        match client.abort_parts(key, id).await {
            Err(error) if is_last || !error.is_backend_failure() => {
                tracing::warn!(%error, "parts of an upload that was given up may stay on the server");
                return;
            }
            Err(_) => client.env().sleep(pause).await,
            Ok(()) => return,
        }
        pause *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_so_that_there_are_not_too_many() {
        let all = |first: u64| (0..PARTS_MAX).map(|index| size_of(first, index)).sum::<u64>();
        assert_eq!((size_of(8, 0), size_of(8, PARTS_OF_ONE_SIZE - 1)), (8, 8));
        assert_eq!(size_of(8, PARTS_OF_ONE_SIZE), 16);
        for first in [5 << 20, 8 << 20, 1 << 30] {
            assert!(all(first) >= 1 << 40, "{first}");
        }
        assert_eq!(size_of(PART_MAX, PARTS_MAX - 1), PART_MAX);
    }
}
