//! Blobs under flat keys: what content-addressed mounts stand on.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use nexus_kernel::hal::{BlobInfo, StoreError, StoreFuture, Transport};
use nexus_messages::syscall::ByteRange;
use object_store::path::Path;

use super::client::{Client, PAGE_MAX};
use super::doubts::Change;
use super::listing::PAGES_MAX;

/// How many blobs are asked for at once.
const BLOBS_AT_ONCE: usize = 8;

/// Blobs in a bucket, one an object, below the prefix. Their names are hashes, so that writing one again changes nothing: no condition is needed.
///
/// Nobody calls a deletion back. While one may be carried out yet that was given up, or repeated, nothing is said of its key, nor written there: who comes then would find a blob that is
/// about to go. A deletion that was under way when the process ended is not known to the next one.
#[derive(Debug)]
pub struct RemoteTransport {
    client: Client,
}

impl RemoteTransport {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The key of the blob, at which nothing can be carried out any more that was given up, but for the same being written.
    async fn settled(&self, key: &str) -> Result<Path, StoreError> {
        let key = self.client.key(key)?;
        self.client.settled(&key, Some(Change::Written)).await?;
        Ok(key)
    }

    fn writable(&self) -> Result<(), StoreError> {
        match self.client.settings.read_only {
            true => Err(StoreError::ReadOnly { cause: "it is mounted so".into() }),
            false => Ok(()),
        }
    }

    async fn keys(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let own = self.client.settings.prefix.as_str();
        let (mut keys, mut token, mut last) = (Vec::new(), None, after.map(|after| [own, after].concat()));
        for _ in 0..PAGES_MAX {
            let wanted = (limit - keys.len()).min(PAGE_MAX);
            let page = self.client.page([own, prefix].concat(), last.clone(), wanted, false, token);
            let page = page.await?;
            token = page.page_token;
            let mut found: Vec<_> =
                page.result.objects.iter().map(|meta| meta.location.as_ref().to_owned()).collect();
            found.sort_unstable();
            // A server that knows no offset begins from the start.
            found.retain(|key| last.as_ref().is_none_or(|last| key > last));
            last = found.last().cloned().or(last);
            keys.extend(found.into_iter().filter_map(|key| key.strip_prefix(own).map(str::to_owned)));
            if token.is_none() || keys.len() >= limit {
                keys.truncate(limit);
                return Ok(keys);
            }
        }
        Err(StoreError::Backend { what: format!("listing {prefix:?}"), cause: "it does not end".into() })
    }
}

impl Transport for RemoteTransport {
    fn read_only(&self) -> bool {
        self.client.settings.read_only
    }

    fn put<'a>(&'a self, key: &'a str, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.writable()?;
            self.client.put(&self.settled(key).await?, data).await.map(drop)
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move { Ok(self.client.get(&self.settled(key).await?, range).await?.0) })
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Result<Bytes, StoreError>>> {
        Box::pin(async move {
            let blobs: Vec<_> = keys.iter().map(|key| self.get(key, ByteRange::ALL)).collect();
            Ok(stream::iter(blobs).buffered(BLOBS_AT_ONCE).collect().await)
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<BlobInfo>> {
        Box::pin(async move {
            let found = self.client.head(&self.settled(key).await?).await?;
            Ok(found.map(|meta| BlobInfo { size: meta.size }))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.writable()?;
            let at = self.client.key(key)?;
            // Most servers do not say whether there was anything.
            if self.client.head(&at).await?.is_none() {
                return Err(StoreError::NotFound { what: key.into() });
            }
            self.client.delete(&at).await
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<String>> {
        Box::pin(self.keys(prefix, after, limit))
    }
}
