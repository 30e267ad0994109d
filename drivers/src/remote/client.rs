//! Operations on a server: each under a deadline, not too many at once, and on the runtime that their library wants.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use nexus_actors::Env;
use nexus_kernel::hal::StoreError;
use nexus_messages::syscall::ByteRange;
use object_store::list::{PaginatedListOptions, PaginatedListResult};
use object_store::multipart::PartId;
use object_store::path::{self, Path};
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, PutResult, UpdateVersion,
};
use tokio::sync::{Semaphore, oneshot};

use super::buffers::Buffers;
use super::doubts::{Change, OfStore, OnItsWay};
use super::errors::{Call, is_of_the_answer, no_path, status, translated};
use super::going::{self, Kept};
use super::handles::{Handles, Parts};
use super::multipart::{PARTS_AT_ONCE, Upload};
use super::options::Settings;
use super::requests::{Condition, is_in_doubt, noting, under};
use crate::late;
use crate::secret::Secret;
use crate::turn::Turn;

/// An operation may take a second longer for each of so many bytes that it moves.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// A range that ends behind this asks for all the rest: no store has objects of that size, and not every server counts so far.
const END_MAX: u64 = 1 << 50;

/// No more room is made for content before it comes: how long it is, the server says.
const ROOM_MAX: u64 = 64 << 20;

/// What is at least so large is read to memory of its own.
const MAPPED_MIN: u64 = 1 << 20;

/// How long after a copy that is not made yet it is looked at again: at first, and at most.
const COPY_LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What a server says of an upload that it has no parts of.
const UNKNOWN_UPLOAD: &str = "the server knows nothing of the upload, or no more";

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

/// The operations of one mount.
///
/// The library waits, retries and connects by means of tokio's runtime, so all of it runs in tasks of the I/O runtime of `Env`; who waits for them may be
/// polled by anything. One that is given up ends its task.
#[derive(Clone)]
pub(super) struct Client {
    env: Env,
    pub(super) handles: Handles,
    pub(super) settings: Arc<Settings>,
    pub(super) secrets: Arc<[Secret]>,
    doubts: OfStore,
    places: Arc<Semaphore>,
    buffers: Arc<Buffers>,
    /// Whether the server was seen to give other parts than it was asked for: then it is asked for none but the whole.
    gives_no_parts: Arc<AtomicBool>,
    /// What it is giving then.
    kept: Arc<Kept>,
    /// Whether the server was seen to know nothing of deleting many keys at once.
    pub(super) deletes_singly: Arc<AtomicBool>,
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
        doubts: OfStore,
    ) -> Result<Self, StoreError> {
        if env.is_simulated() {
            return Err(StoreError::NotSupported { what: "a server in a simulation" });
        }
        let places = Arc::new(Semaphore::new(settings.concurrency));
        Ok(Self {
            env,
            handles,
            settings: Arc::new(settings),
            secrets: secrets.into(),
            doubts,
            places,
            buffers: Arc::default(),
            gives_no_parts: Arc::default(),
            kept: Arc::default(),
            deletes_singly: Arc::default(),
        })
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// How long an operation may take that moves so many bytes.
    pub(super) fn limit(&self, bytes: u64) -> Duration {
        self.settings.timeout + Duration::from_secs(bytes / BYTES_PER_SECOND)
    }

    /// The key of what is at `relative` below the prefix.
    pub(super) fn key(&self, relative: &str) -> Result<Path, StoreError> {
        self.whole_key(&[&self.settings.prefix, relative].concat())
    }

    /// `key` as it is.
    pub(super) fn whole_key(&self, key: &str) -> Result<Path, StoreError> {
        // What the library would change of it, it must not: the key is what other tools see.
        let parsed = Path::parse(key)
            .ok()
            .filter(|parsed| parsed.as_ref() == key && !key.contains(self.handles.barred));
        parsed.ok_or_else(|| StoreError::BadOption { why: format!("{key:?} cannot be a key of a store") })
    }

    /// Waits until nothing that was asked of the store before can be carried out at `key` any more, `but` for what may be.
    ///
    /// # Errors
    /// `ResourceBusy` when that would take too long: nothing was asked of the store, and it is well.
    pub(super) async fn settled(&self, key: &Path, but: Option<Change>) -> Result<(), StoreError> {
        let patience = self.settings.patience;
        let settled = self.env.timeout(patience, self.doubts.settled(key, but, &self.env)).await;
        settled.map_err(|_| {
            let cause = "what was asked for before, and not answered, may be carried out there yet; ask again in some seconds";
            StoreError::Io { what: key.to_string(), source: Arc::new(io::Error::new(io::ErrorKind::ResourceBusy, cause)) }
        })
    }

    /// Runs one operation.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        mut call: Call,
        work: Work<T>,
    ) -> Result<T, StoreError> {
        let limit = self.limit(call.bytes);
        let (mut done, answer) = oneshot::channel();
        let (places, turn) = (self.places.clone(), Turn::default());
        let (begins, left_open) = (turn.clone(), Arc::new(AtomicBool::new(false)));
        let mut on_its_way = call.noted.take().map(|(change, keys)| {
            let (doubts, env, turn) = (self.doubts.clone(), self.env.clone(), turn.clone());
            OnItsWay { doubts, keys, change, env, turn, is_over: false }
        });
        let work = noting(left_open.clone(), work);
        let work = async move {
            // It is never closed.
            let _place = places.acquire_owned().await.ok();
            if begins.take() { Some(work.await) } else { None }
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
        let was_sent = || !turn.take();
        let left_open = left_open.load(Ordering::Relaxed);
        if call.changing && left_open {
            late::note();
        }
        let ended = match answered {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(translated(&error, &call, limit, &self.secrets, left_open)),
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
        };
        if let Some(change) = &mut on_its_way {
            change.is_over = !left_open && !ended.as_ref().is_err_and(StoreError::is_unknown);
        }
        ended
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

    /// The part `range` of what is at `key`, and what it was. No other state of it is in the bytes. A large one comes in parts, a few at once.
    pub(super) async fn get(&self, key: &Path, range: ByteRange) -> Result<(Bytes, ObjectMeta), StoreError> {
        let part = self.settings.part_bytes;
        if let Some(count) = range.count.filter(|count| *count <= part) {
            return self.get_at_once(key, range, count).await;
        }
        if self.gives_no_parts.load(Ordering::Relaxed) {
            // How long it may take depends on how much there is.
            let size = self.head(key).await?.map_or(0, |meta| meta.size);
            return self.get_at_once(key, range, range.within(size).1).await;
        }
        let (first, meta) = self.get_at_once(key, ByteRange::new(range.offset, part), part).await?;
        let (from, to) = range.within(meta.size);
        if first.len() as u64 == to - from {
            return Ok((first, meta));
        }
        let what = || Call::look("reading", key.as_ref(), to - from);
        let limit = self.limit(to - from);
        let rest = self.env.timeout(limit, self.rest(key, from..to, first, &meta)).await;
        let rest =
            rest.map_err(|_| StoreError::TimedOut { what: what().in_words(), limit, changing: false })?;
        match rest? {
            Some(bytes) => Ok((bytes, meta)),
            // One request gives one state.
            None => self.get_at_once(key, range, to - from).await,
        }
    }

    /// The bytes of `part`, which begins with `first`, of what `meta` describes; none when it has become something else meanwhile.
    async fn rest(
        &self,
        key: &Path,
        part: Range<u64>,
        first: Bytes,
        meta: &ObjectMeta,
    ) -> Result<Option<Bytes>, StoreError> {
        if meta.e_tag.as_deref().is_some_and(is_in_doubt) {
            // Of no other answer is it known that it is of the same.
            return Ok(None);
        }
        let step = self.settings.part_bytes;
        let begins = part.start + first.len() as u64;
        let ranges = (0..(part.end - begins).div_ceil(step)).map(|number| {
            let begins = begins + number * step;
            ByteRange::new(begins, step.min(part.end - begins))
        });
        let at_once = PARTS_AT_ONCE.min(self.settings.concurrency);
        let gets = ranges.map(|range| async move {
            let (bytes, found) = self.get_at_once(key, range, step).await?;
            let is_same = (&found.e_tag, found.size, found.last_modified)
                == (&meta.e_tag, meta.size, meta.last_modified);
            Ok((is_same && Some(bytes.len() as u64) == range.count).then_some(bytes))
        });
        let mut gets = pin!(iter(gets).buffered(at_once));
        let mut all = BytesMut::with_capacity(room(part.end - part.start));
        all.extend_from_slice(&first);
        drop(first);
        while let Some(bytes) = gets.try_next().await? {
            let Some(bytes) = bytes else { return Ok(None) };
            all.extend_from_slice(&bytes);
        }
        Ok(Some(all.freeze()))
    }

    /// As [`get`](Self::get), in one request, with time for as many bytes as are expected.
    async fn get_at_once(
        &self,
        key: &Path,
        range: ByteRange,
        expected: u64,
    ) -> Result<(Bytes, ObjectMeta), StoreError> {
        let (gives_no_parts, buffers) = (self.gives_no_parts.clone(), self.buffers.clone());
        let (store, at) = (self.handles.repeating.clone(), key.clone());
        let end = range.count.map(|count| range.offset.saturating_add(count)).filter(|end| *end < END_MAX);
        let wanted = match end {
            Some(end) if end > range.offset => Some(GetRange::Bounded(range.offset..end)),
            Some(_) => None,
            None => (range.offset > 0).then_some(GetRange::Offset(range.offset)),
        };
        let head = end.is_some_and(|end| end <= range.offset);
        let call = Call::look("reading", key.as_ref(), expected);
        let (kept, env) = (self.kept.clone(), self.env.clone());
        let work = async move {
            if !head
                && gives_no_parts.load(Ordering::Relaxed)
                && let Some(found) = going::go_on(&kept, &env, &*store, &at, range).await
            {
                return Ok(found);
            }
            let options = GetOptions { range: wanted, head, ..GetOptions::default() };
            let found = match store.get_opts(&at, options).await {
                Ok(found) => found,
                // Nothing of it lies there: how long it is, the server tells who does not ask for a part.
                Err(error) if status(&error) == Some(416) => {
                    return Ok((Bytes::new(), store.head(&at).await?));
                }
                // It answered with another part.
                Err(error) if !head && is_of_the_answer(&error) => {
                    // It is only to spare requests.
                    gives_no_parts.store(true, Ordering::Relaxed);
                    return going::cut_out(&kept, &env, &*store, &at, range).await;
                }
                Err(error) => return Err(error),
            };
            if head {
                return Ok((Bytes::new(), found.meta));
            }
            let (meta, part) = (found.meta.clone(), found.range.clone());
            let (from, to) = range.within(meta.size);
            let bytes = collected(found, to - from, &buffers).await?;
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
        let size = size_of(data);
        if size < self.settings.multipart_bytes || self.handles.parts.is_none() {
            return self.put_once(key, data.to_vec()).await;
        }
        let putting = async {
            let mut upload = Upload::new(self.clone(), key.clone(), self.settings.part_of(size));
            for buffer in data {
                upload.push(buffer.clone()).await?;
            }
            upload.complete(None).await
        };
        let limit = self.limit(size);
        let put = self.env.timeout(limit, Box::pin(putting)).await;
        put.unwrap_or_else(|_| {
            let what = Call::change("writing", key.as_ref(), size).in_words();
            Err(StoreError::TimedOut { what, limit, changing: true })
        })
    }

    /// As [`put`](Self::put), in one request.
    pub(super) async fn put_once(&self, key: &Path, data: Vec<Bytes>) -> Result<PutResult, StoreError> {
        let call = Call::change("writing", key.as_ref(), size_of(&data));
        let call = call.noted(Change::Written, std::slice::from_ref(key));
        self.put_by(self.handles.repeating.clone(), call, key, data).await
    }

    /// As [`put_once`](Self::put_once), and the request is not repeated: what is told of it is told of all that was sent. Who asks for it orders what goes behind it.
    pub(super) async fn put_unrepeated(&self, key: &Path, data: Vec<Bytes>) -> Result<PutResult, StoreError> {
        let call = Call::change("writing", key.as_ref(), size_of(&data));
        self.put_by(self.handles.once.clone(), call, key, data).await
    }

    async fn put_by(
        &self,
        store: Arc<dyn ObjectStore>,
        call: Call,
        key: &Path,
        data: Vec<Bytes>,
    ) -> Result<PutResult, StoreError> {
        let at = key.clone();
        let work = async move { store.put(&at, payload(data)).await };
        let what = call.in_words();
        self.run(call, Box::pin(work)).await.map_err(|error| in_no_bucket(error, what))
    }

    /// Whether the server takes content in parts.
    pub(super) fn takes_parts(&self) -> bool {
        self.handles.parts.is_some()
    }

    /// Whether parts can be put together under a condition, as far as the client is concerned.
    pub(super) fn completes_under_conditions(&self) -> bool {
        self.handles.parts.as_ref().is_some_and(|parts| parts.conditional)
    }

    fn parts(&self) -> Result<Parts, StoreError> {
        self.handles.parts.clone().ok_or(StoreError::NotSupported { what: "content in parts" })
    }

    /// Tells the server that content for `key` comes in parts.
    pub(super) async fn begin_parts(&self, key: &Path) -> Result<String, StoreError> {
        let (store, at) = (self.parts()?.repeating, key.clone());
        let call = Call::look("beginning to write", key.as_ref(), 0);
        self.run(call, Box::pin(async move { store.create_multipart(&at).await })).await
    }

    /// Sends a part of the upload `id`. May be repeated, and is.
    pub(super) async fn part(
        &self,
        key: &Path,
        id: &str,
        index: usize,
        payload: PutPayload,
    ) -> Result<PartId, StoreError> {
        let (store, at, id) = (self.parts()?.repeating, key.clone(), id.to_owned());
        // Nobody sees a change.
        let call = Call::look("writing a part of", key.as_ref(), payload.content_length() as u64);
        let what = call.in_words();
        let work = async move { store.put_part(&at, &id, index, payload).await };
        self.run(call, Box::pin(work)).await.map_err(|error| match error {
            StoreError::NotFound { .. } => StoreError::Backend { what, cause: UNKNOWN_UPLOAD.into() },
            error => error,
        })
    }

    /// Makes the parts of the upload `id` what is at `key`. Under a condition the server is asked once, and says `Exists` when it does not hold.
    pub(super) async fn complete(
        &self,
        key: &Path,
        id: &str,
        parts: Vec<PartId>,
        size: u64,
        condition: Option<Condition>,
    ) -> Result<PutResult, StoreError> {
        let (handles, at, id) = (self.parts()?, key.clone(), id.to_owned());
        let is_repeated = condition.is_none();
        let store = if is_repeated { handles.repeating } else { handles.once };
        let call = Call::change("writing", key.as_ref(), size);
        let call = call.noted(Change::Written, std::slice::from_ref(key));
        let call = if is_repeated { call } else { call.under_a_condition() };
        let what = call.in_words();
        let work = async move { under(condition.as_ref(), store.complete_multipart(&at, &id, parts)).await };
        self.run(call, Box::pin(work)).await.map_err(|error| match error {
            // It may have been put together by a request whose answer was lost.
            StoreError::NotFound { .. } if is_repeated => {
                StoreError::Unknown { what, cause: UNKNOWN_UPLOAD.into() }
            }
            error => error,
        })
    }

    /// Has the server forget the upload `id`.
    pub(super) async fn abort_parts(&self, key: &Path, id: &str) -> Result<(), StoreError> {
        let (store, at, id) = (self.parts()?.repeating, key.clone(), id.to_owned());
        let call = Call::look("giving up writing", key.as_ref(), 0);
        match self.run(call, Box::pin(async move { store.abort_multipart(&at, &id).await })).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            aborted => aborted,
        }
    }

    /// As [`put`](Self::put), at once and in one request, refused by the server with `Exists` when there is something.
    pub(super) async fn create(&self, key: &Path, data: &[Bytes]) -> Result<PutResult, StoreError> {
        let (store, at, data) = (self.handles.once.clone(), key.clone(), data.to_vec());
        let call = Call::change("making", key.as_ref(), size_of(&data)).under_a_condition();
        let call = call.noted(Change::Written, std::slice::from_ref(key));
        let work = async move { store.put_opts(&at, payload(data), PutMode::Create.into()).await };
        self.run(call, Box::pin(work)).await
    }

    /// As [`create`](Self::create), refused by the server with `Exists` unless what is there is in the state `of`.
    pub(super) async fn update(
        &self,
        key: &Path,
        data: &[Bytes],
        of: UpdateVersion,
    ) -> Result<PutResult, StoreError> {
        let (store, at, data) = (self.handles.once.clone(), key.clone(), data.to_vec());
        let call = Call::change("replacing", key.as_ref(), size_of(&data)).under_a_condition();
        let call = call.noted(Change::Written, std::slice::from_ref(key));
        let work = async move { store.put_opts(&at, payload(data), PutMode::Update(of).into()).await };
        self.run(call, Box::pin(work)).await
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
        let call = Call::change("deleting", key.as_ref(), 0);
        self.run(call.noted(Change::Deleted, std::slice::from_ref(key)), Box::pin(work)).await
    }

    /// Has the server copy what has so many bytes, and looks at what came of it: Azure may say so of a copy that is pending, and that is empty until it is made. It is
    /// waited for.
    pub(super) async fn copy(&self, from: &Path, to: &Path, bytes: u64) -> Result<ObjectMeta, StoreError> {
        self.ask_for_copy(from, to, bytes).await?;
        let (begun, limit, mut wait) = (self.env.now(), self.limit(bytes), COPY_LOOKS.0);
        loop {
            let copy = self.head(to).await?;
            let size = copy.as_ref().map(|copy| copy.size);
            // The source may have been another one already when it was copied.
            let is_made =
                size == Some(bytes) || self.head(from).await?.is_some_and(|now| Some(now.size) == size);
            match copy.filter(|_| is_made) {
                Some(copy) => return Ok(copy),
                None if self.env.now() - begun + wait > limit => {
                    let what = Call::change("copying to", to.as_ref(), bytes).in_words();
                    let cause = format!(
                        "the server says that it is done, and there are {} bytes instead of {bytes}: the copy is pending, or has failed",
                        size.unwrap_or_default()
                    );
                    return Err(StoreError::Unknown { what, cause });
                }
                None => self.env.sleep(wait).await,
            }
            wait = (wait * 2).min(COPY_LOOKS.1);
        }
    }

    /// As [`copy`](Self::copy), without a look at what came of it.
    pub(super) async fn ask_for_copy(&self, from: &Path, to: &Path, bytes: u64) -> Result<(), StoreError> {
        let (store, of, at) = (self.handles.repeating.clone(), from.clone(), to.clone());
        let work = async move { store.copy_opts(&of, &at, CopyOptions::new()).await };
        let call = Call::change("copying to", to.as_ref(), bytes);
        self.run(call.noted(Change::copy_of(from), std::slice::from_ref(to)), Box::pin(work)).await
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
        self.run(call, Box::pin(work)).await.map_err(|error| in_no_bucket(error, what))
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

/// All that comes of `found`, which is to be so much. It is held once: the library's own way holds what came beside what it makes of it.
async fn collected(
    found: GetResult,
    expected: u64,
    buffers: &Arc<Buffers>,
) -> Result<Bytes, object_store::Error> {
    let mut pieces = found.into_stream();
    if expected >= MAPPED_MIN {
        let generic = |source| object_store::Error::Generic { store: "remote", source };
        let size = usize::try_from(expected).map_err(|error| generic(error.into()))?;
        let mut all = buffers.take(size).map_err(|error| generic(error.into()))?;
        while let Some(piece) = pieces.try_next().await? {
            if !all.fill(&piece).is_empty() {
                return Err(generic(format!("more than {expected} bytes came").into()));
            }
        }
        return Ok(all.freeze());
    }
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.try_next().await? {
        if all.is_empty() && piece.len() as u64 >= expected {
            // It came at once. What is too much is told by who looks at the length.
            all = match piece.try_into_mut() {
                Ok(piece) => piece,
                Err(piece) => BytesMut::from(piece),
            };
            continue;
        }
        if all.is_empty() {
            all.reserve(room(expected));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

/// How much room is made for content that is said to have so many bytes.
fn room(bytes: u64) -> usize {
    usize::try_from(bytes.min(ROOM_MAX)).unwrap_or_default()
}

/// The error of a call for which no key can be missing.
fn in_no_bucket(error: StoreError, what: String) -> StoreError {
    match error {
        StoreError::NotFound { .. } => StoreError::Backend { what, cause: "there is no such bucket".into() },
        error => error,
    }
}

fn size_of(data: &[Bytes]) -> u64 {
    data.iter().map(|buffer| buffer.len() as u64).sum()
}

fn payload(data: Vec<Bytes>) -> PutPayload {
    data.into_iter().collect()
}
