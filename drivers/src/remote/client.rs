//! Operations on a server: each under a deadline, not too many at once, and on the runtime that their library wants.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::future::{Either, select};
use nexus_actors::Env;
use nexus_kernel::hal::StoreError;
use nexus_messages::syscall::ByteRange;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::{self, Path};
use object_store::{
    CopyOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    PutResult,
};
use tokio::sync::{Semaphore, oneshot};

use super::errors::{Call, is_of_the_answer, no_path, status, translated};
use super::multipart;
use super::options::Settings;
use crate::secret::Secret;

/// An operation may take a second longer for each of so many bytes that it moves.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// A range that ends behind this asks for all the rest: no store has objects of that size, and not every server counts so far.
const END_MAX: u64 = 1 << 50;

/// The most keys that a server lists at once.
pub(super) const PAGE_MAX: usize = 1_000;

/// What a library's operation gives.
pub(super) type Work<T> = Pin<Box<dyn Future<Output = Result<T, object_store::Error>> + Send>>;

/// What a server lists at once.
pub(super) enum Page {
    Keys(PaginatedListResult),
    /// One of its keys, or of the folders in it, is no path, and this is it: then the library gives none of them.
    NoPath(String),
}

/// How the library speaks to one server.
#[derive(Clone)]
pub(super) struct Handles {
    /// Repeats requests that may be repeated, with growing and random waits between them.
    pub(super) repeating: Arc<dyn ObjectStore>,
    /// Makes each request once. What asks for something to be made that is not there yet must not be repeated by itself: the repetition would find what the
    /// first one made.
    pub(super) once: Arc<dyn ObjectStore>,
    /// Listings by pages, where the server has them.
    pub(super) pages: Option<Arc<dyn PaginatedListStore>>,
    /// Whether the library can ask for a key that ends with a slash.
    pub(super) marks: bool,
}

/// The operations of one mount.
///
/// The library waits, retries and connects by means of tokio's runtime, so all of it runs in tasks of the I/O runtime of `Env`; who waits for them may be
/// polled by anything. One that is given up ends its task.
#[derive(Clone)]
pub(super) struct Client {
    env: Env,
    handles: Handles,
    pub(super) settings: Arc<Settings>,
    secrets: Arc<[Secret]>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Client {
    /// # Errors
    /// In a simulation, which has no network.
    pub(super) fn new(
        env: Env,
        handles: Handles,
        settings: Settings,
        secrets: Vec<Secret>,
    ) -> Result<Self, StoreError> {
        if env.is_simulated() {
            return Err(StoreError::NotSupported { what: "a server in a simulation" });
        }
        let places = Arc::new(Semaphore::new(settings.concurrency));
        Ok(Self { env, handles, settings: Arc::new(settings), secrets: secrets.into(), places })
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// How long an operation may take that moves so many bytes.
    fn limit(&self, bytes: u64) -> Duration {
        self.settings.timeout + Duration::from_secs(bytes / BYTES_PER_SECOND)
    }

    /// The key of what is at `relative` below the prefix.
    pub(super) fn key(&self, relative: &str) -> Result<Path, StoreError> {
        self.whole_key(&[&self.settings.prefix, relative].concat())
    }

    /// `key` as it is.
    pub(super) fn whole_key(&self, key: &str) -> Result<Path, StoreError> {
        // What the library would change of it, it must not: the key is what other tools see.
        let parsed = Path::parse(key).ok().filter(|parsed| parsed.as_ref() == key);
        parsed.ok_or_else(|| StoreError::BadOption { why: format!("{key:?} cannot be a key of a store") })
    }

    /// Runs one operation.
    pub(super) async fn run<T: Send + 'static>(&self, call: Call, work: Work<T>) -> Result<T, StoreError> {
        let limit = self.limit(call.bytes);
        let (mut done, answer) = oneshot::channel();
        let (places, settled) = (self.places.clone(), Arc::new(AtomicBool::new(false)));
        let begins = settled.clone();
        let work = async move {
            // It is never closed.
            let _place = places.acquire_owned().await.ok();
            // Whoever waits may have given up a moment ago, and says that nothing was sent. Of the two, the first to set it has its way; it guards no other memory.
            if begins.swap(true, Ordering::Relaxed) { None } else { Some(work.await) }
        };
        self.env.spawn("remote.operation", async move {
            let ended = match select(pin!(work), pin!(done.closed())).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => None,
            };
            if let Some(ended) = ended {
                // Who waited may have given up.
                let _ = done.send(ended);
            }
        });
        let answered = self.env.timeout(limit, answer).await;
        // What waited for its place until then was not sent, and is not any more.
        let was_sent = || settled.swap(true, Ordering::Relaxed);
        match answered {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(translated(&error, &call, limit, &self.secrets)),
            Ok(Err(_)) => {
                let (what, cause) = (call.in_words(), "its task has ended".into());
                Err(match call.changing && was_sent() {
                    true => StoreError::Unknown { what, cause },
                    false => StoreError::Backend { what, cause },
                })
            }
            Err(_) => {
                let changing = call.changing && was_sent();
                Err(StoreError::TimedOut { what: call.in_words(), limit, changing })
            }
        }
    }

    /// What is at `key`.
    pub(super) async fn head(&self, key: &Path) -> Result<Option<ObjectMeta>, StoreError> {
        let (store, at) = (self.handles.repeating.clone(), key.clone());
        let call = Call::look("looking at", key.as_ref(), 0);
        match self.run(call, Box::pin(async move { store.head(&at).await })).await {
            Ok(meta) => Ok(Some(meta)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The part `range` of what is at `key`, and what it was. No other state of it is in the bytes.
    pub(super) async fn get(&self, key: &Path, range: ByteRange) -> Result<(Bytes, ObjectMeta), StoreError> {
        let (store, at) = (self.handles.repeating.clone(), key.clone());
        let end = range.count.map(|count| range.offset.saturating_add(count)).filter(|end| *end < END_MAX);
        let wanted = match end {
            Some(end) if end > range.offset => Some(GetRange::Bounded(range.offset..end)),
            Some(_) => None,
            None => (range.offset > 0).then_some(GetRange::Offset(range.offset)),
        };
        let head = end.is_some_and(|end| end <= range.offset);
        let call = Call::look("reading", key.as_ref(), end.map_or(0, |end| end - range.offset));
        let work = async move {
            let options = GetOptions { range: wanted, head, ..GetOptions::default() };
            let found = match store.get_opts(&at, options).await {
                Ok(found) => found,
                // Nothing of it lies there: how long it is, the server tells who does not ask for a part.
                Err(error) if status(&error) == Some(416) => {
                    return Ok((Bytes::new(), store.head(&at).await?));
                }
                // It answered with another part.
                Err(error) if !head && is_of_the_answer(&error) => return cut_out(&*store, &at, range).await,
                Err(error) => return Err(error),
            };
            if head {
                return Ok((Bytes::new(), found.meta));
            }
            let (meta, part) = (found.meta.clone(), found.range.clone());
            let (from, to) = range.within(meta.size);
            let bytes = found.bytes().await?;
            if part.start != from || part.end != to || bytes.len() as u64 != to - from {
                let source = format!("{} bytes came instead of {}", bytes.len(), to - from).into();
                return Err(object_store::Error::Generic { store: "remote", source });
            }
            Ok((bytes, meta))
        };
        self.run(call, Box::pin(work)).await
    }

    /// Makes the buffers what is at `key`, in parts when they are large. May be repeated, and is.
    pub(super) async fn put(&self, key: &Path, data: &[Bytes]) -> Result<PutResult, StoreError> {
        let (store, at, data) = (self.handles.repeating.clone(), key.clone(), data.to_vec());
        let size = data.iter().map(|buffer| buffer.len() as u64).sum();
        let call = Call::change("writing", key.as_ref(), size);
        if size < self.settings.multipart_bytes {
            let work = async move { store.put(&at, payload(data)).await };
            return self.run(call, Box::pin(work)).await;
        }
        let (env, part, limit) = (self.env.clone(), self.settings.part_of(size), self.limit(0));
        self.run(call, Box::pin(multipart::put(env, store, at, data, part, limit))).await
    }

    /// As [`put`](Self::put), at once and in one request, refused by the server with `Exists` when there is something.
    pub(super) async fn create(&self, key: &Path, data: &[Bytes]) -> Result<PutResult, StoreError> {
        let (store, at, data) = (self.handles.once.clone(), key.clone(), data.to_vec());
        let size = data.iter().map(|buffer| buffer.len() as u64).sum();
        let work = async move { store.put_opts(&at, payload(data), PutMode::Create.into()).await };
        self.run(Call::change("making", key.as_ref(), size), Box::pin(work)).await
    }

    /// Takes away what is at `key`. What is not there is no error: the request may be a repetition, and the first one may have done it.
    pub(super) async fn delete(&self, key: &Path) -> Result<(), StoreError> {
        let (store, at) = (self.handles.repeating.clone(), key.clone());
        let work = async move {
            match store.delete(&at).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted,
            }
        };
        self.run(Call::change("deleting", key.as_ref(), 0), Box::pin(work)).await
    }

    /// Has the server copy.
    pub(super) async fn copy(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let (store, of, at) = (self.handles.repeating.clone(), from.clone(), to.clone());
        let work = async move { store.copy_opts(&of, &at, CopyOptions::new()).await };
        self.run(Call::change("copying to", to.as_ref(), 0), Box::pin(work)).await
    }

    /// One page of the keys that start with `prefix` and are greater than `after`, at most `limit`; those with a slash behind the prefix are put together when
    /// `folded`. Needs a server with pages.
    pub(super) async fn page(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        folded: bool,
        token: Option<String>,
    ) -> Result<PaginatedListResult, StoreError> {
        let what = Call::look("listing", &prefix, 0).in_words();
        match self.page_or_key(prefix, after, limit, folded, token).await? {
            Page::Keys(page) => Ok(page),
            Page::NoPath(_) => Err(no_path(what)),
        }
    }

    /// As [`page`](Self::page), and tells which key is no path.
    pub(super) async fn page_or_key(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        folded: bool,
        token: Option<String>,
    ) -> Result<Page, StoreError> {
        let call = Call::look("listing", &prefix, 0);
        let what = call.in_words();
        let Some(pages) = self.handles.pages.clone() else {
            return Err(StoreError::NotSupported { what: "listing" });
        };
        let work = async move {
            let options = PaginatedListOptions {
                offset: after,
                delimiter: folded.then_some("/".into()),
                max_keys: Some(limit.clamp(1, PAGE_MAX)),
                page_token: token,
                ..PaginatedListOptions::default()
            };
            match pages.list_paginated((!prefix.is_empty()).then_some(&*prefix), options).await {
                Ok(page) => Ok(Page::Keys(page)),
                Err(object_store::Error::InvalidPath {
                    source: path::Error::EmptySegment { path } | path::Error::BadSegment { path, .. },
                }) => Ok(Page::NoPath(path)),
                Err(error) => Err(error),
            }
        };
        self.run(call, Box::pin(work)).await.map_err(|error| match error {
            // No key can be missing here.
            StoreError::NotFound { .. } => {
                StoreError::Backend { what, cause: "there is no such bucket".into() }
            }
            error => error,
        })
    }

    /// The key that some tools make for a folder: its own, with a slash at the end. `folder` ends with one. None when the library cannot ask for it.
    pub(super) fn mark(&self, folder: &str) -> Option<Path> {
        let name = folder.strip_suffix('/').filter(|_| self.handles.marks)?;
        // What is joined is an empty name.
        let mark = Path::parse(name).ok()?.join("");
        (mark.as_ref() == folder).then_some(mark)
    }

    /// Whether the server lists by pages.
    pub(super) fn has_pages(&self) -> bool {
        self.handles.pages.is_some()
    }

    /// All that a server without pages has in the folder at `key`.
    pub(super) async fn folder(&self, key: Option<Path>) -> Result<object_store::ListResult, StoreError> {
        let store = self.handles.repeating.clone();
        let call = Call::look("listing", key.as_ref().map_or("", |key| key.as_ref()), 0);
        self.run(call, Box::pin(async move { store.list_with_delimiter(key.as_ref()).await })).await
    }
}

/// The part `range` of what is at `at`, from a server that does not give parts, or other ones than it was asked for. No more than the part is held.
async fn cut_out(
    store: &dyn ObjectStore,
    at: &Path,
    range: ByteRange,
) -> Result<(Bytes, ObjectMeta), object_store::Error> {
    let found = store.get_opts(at, GetOptions::default()).await?;
    let meta = found.meta.clone();
    let (from, to) = range.within(meta.size);
    let (mut part, mut offset, mut pieces) = (BytesMut::new(), 0, found.into_stream());
    while offset < to {
        let Some(piece) = pieces.try_next().await? else {
            let source = format!("{offset} bytes came instead of {}", meta.size).into();
            return Err(object_store::Error::Generic { store: "remote", source });
        };
        let end = offset + piece.len() as u64;
        let (start, stop) = (from.clamp(offset, end) - offset, to.clamp(offset, end) - offset);
        // Both are at most the piece's length.
        #[expect(clippy::cast_possible_truncation)]
        part.extend_from_slice(&piece[start as usize..stop as usize]);
        offset = end;
    }
    Ok((part.freeze(), meta))
}

fn payload(data: Vec<Bytes>) -> PutPayload {
    data.into_iter().collect()
}
