//! The one door to a driver: every call of one passes here.
//!
//! A call runs on its caller's task, under the mount's deadline. Its panic is a value. What becomes of it is told to the mount's circuit breaker, and
//! trouble to the driver's actor: that one opens the driver anew. What changes something goes through the mount's gate, `passage.rs`. Who still holds the
//! door to a store that the mount's files have left is led on to the one that they are in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_actors::{Env, Panicked, Ref, guard};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, VPath};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::breaker::Change;
use super::driver::{Driver, Recover};
use super::figures::CallKind;
use super::health::{Came, Failing, Health, NotNow};
use super::options::MountOptions;
use super::passage::{Era, Passage, Touched};
use super::uploading::Uploading;
use crate::content;
use crate::hal::{
    Addressing, CacheFigures, ConnectorCategory, ContentStore, ListPage, ObjectInfo, ObjectStore,
    OutsideChanges, PathCapabilities, PathStore, PathUpload, PathWrite, StoreError, StoreFuture,
};

/// How many bytes a driver may move to give back space, as far as its deadline is concerned.
const RECLAIMED_MAX: u64 = 4 << 30;

/// A driver behind its door.
#[derive(Debug)]
pub(crate) struct Guarded {
    // Invariant: some until it is dropped.
    driver: Option<Arc<dyn ObjectStore>>,
    path_addressed: bool,
    /// None for what stands in for a driver: there is nothing to watch.
    watch: Option<Arc<Watch>>,
}

/// What the door goes by.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) env: Env,
    pub(super) point: VPath,
    pub(super) options: MountOptions,
    pub(super) health: Arc<Health>,
    /// The driver's actor; none for a driver that serves no mount yet.
    pub(super) actor: Option<Ref<Driver>>,
    pub(super) passage: Arc<Passage>,
    pub(super) era: Era,
    /// The incarnation that opened the driver and answers for it; none for a driver that outlives them, for which the one that lives answers.
    pub(super) opener: Option<u64>,
    /// The places of calls under way, when the mount bounds them.
    pub(super) places: Option<Places>,
}

/// The places of calls under way.
#[derive(Debug)]
pub(super) struct Places {
    free: Semaphore,
    /// When a call failed after which none was good.
    barren_since: Mutex<Option<Instant>>,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Semaphore::new(count), barren_since: Mutex::default() }
    }

    /// Notes that a call ended `now`, and whether it told of trouble.
    fn ended(&self, failed: bool, now: Instant) {
        let mut since = self.barren_since.lock();
        *since = if failed { since.or(Some(now)) } else { None };
    }

    /// Whether no call was good for as long as two in a row may take.
    fn are_barren(&self, limit: Duration, now: Instant) -> bool {
        self.barren_since.lock().is_some_and(|since| now.saturating_duration_since(since) >= 2 * limit)
    }
}

/// One call of a driver.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) what: &'static str,
    pub(super) changing: bool,
    /// How many bytes it moves, as far as is known.
    pub(super) bytes: u64,
    /// How many of them the driver is given.
    pub(super) given: u64,
    /// What it is for; none for what is not timed.
    pub(super) kind: Option<CallKind>,
}

impl Call {
    /// For the kernel's own ends: not timed.
    fn aside(what: &'static str) -> Self {
        Self { what, changing: false, bytes: 0, given: 0, kind: None }
    }

    pub(super) fn look(what: &'static str) -> Self {
        Self { kind: Some(CallKind::Look), ..Self::aside(what) }
    }

    fn read(what: &'static str, range: ByteRange) -> Self {
        let bytes = range.count.unwrap_or(0).min(content::CALL_MAX);
        Self { bytes, kind: Some(CallKind::Read), ..Self::aside(what) }
    }

    fn list(what: &'static str) -> Self {
        Self { kind: Some(CallKind::List), ..Self::aside(what) }
    }

    pub(super) fn change(what: &'static str) -> Self {
        Self { changing: true, kind: Some(CallKind::Write), ..Self::aside(what) }
    }

    fn write(what: &'static str, data: &[Bytes]) -> Self {
        let bytes = content::length(data);
        Self { bytes, given: bytes, ..Self::change(what) }
    }
}

/// As how many bytes one of several deletions counts where time is allowed for them: a thousand have a second more than one.
const DELETED_AS: u64 = 16 << 10;

impl Guarded {
    /// A driver, watched.
    pub(super) fn new(driver: Arc<dyn ObjectStore>, path_addressed: bool, watch: Watch) -> Self {
        Self { driver: Some(driver), path_addressed, watch: Some(Arc::new(watch)) }
    }

    /// What stands in for a driver.
    pub(super) fn unwatched(driver: Arc<dyn ObjectStore>, path_addressed: bool) -> Self {
        Self { driver: Some(driver), path_addressed, watch: None }
    }

    /// The driver itself, for calls that are not made on behalf of anybody.
    pub(super) fn driver(&self) -> &Arc<dyn ObjectStore> {
        self.driver.as_ref().expect("it is there until the door is dropped")
    }

    pub(super) fn is_path_addressed(&self) -> bool {
        self.path_addressed
    }

    fn contents(&self) -> Result<&dyn ContentStore, StoreError> {
        match self.driver().addressing() {
            Addressing::Content(store) => Ok(store),
            Addressing::Path(_) => Err(StoreError::NotSupported { what: "content by its hash" }),
        }
    }

    fn paths(&self) -> Result<&dyn PathStore, StoreError> {
        match self.driver().addressing() {
            Addressing::Path(store) => Ok(store),
            Addressing::Content(_) => Err(StoreError::NotSupported { what: "content by its path" }),
        }
    }

    /// The door that has taken the place of this one, or this one.
    fn latest(&self) -> &Self {
        let mut door = self;
        while let Some(next) = door.watch.as_ref().and_then(|watch| watch.era.get()) {
            door = next;
        }
        door
    }

    /// Of which store it is a door; none of what stands in for a driver.
    pub(super) fn era(&self) -> Option<&Era> {
        self.watch.as_ref().map(|watch| &watch.era)
    }

    /// Makes one call that changes nothing.
    fn look<'a, T, F>(&'a self, call: Call, make: F) -> StoreFuture<'a, T>
    where
        T: Send + 'a,
        F: FnOnce(&'a Self) -> Result<StoreFuture<'a, T>, StoreError> + Send + 'a,
    {
        self.weighed(call, |_| 0, make)
    }

    /// As [`look`](Self::look), of whose answer `weigh` says how many bytes came with it.
    fn weighed<'a, T, F>(&'a self, call: Call, weigh: fn(&T) -> u64, make: F) -> StoreFuture<'a, T>
    where
        T: Send + 'a,
        F: FnOnce(&'a Self) -> Result<StoreFuture<'a, T>, StoreError> + Send + 'a,
    {
        let me = self.latest();
        let Some(watch) = &me.watch else {
            return make(me).unwrap_or_else(|error| Box::pin(std::future::ready(Err(error))));
        };
        Box::pin(watch.over(call, weigh, move || make(me)))
    }

    /// Makes one call that changes what is `touched`.
    fn change<'a, T, F>(&'a self, call: Call, touched: Touched<'a>, make: F) -> StoreFuture<'a, T>
    where
        T: Send + 'a,
        F: FnOnce(&'a Self) -> Result<StoreFuture<'a, T>, StoreError> + Send + 'a,
    {
        let Some(watch) = &self.watch else {
            return make(self).unwrap_or_else(|error| Box::pin(std::future::ready(Err(error))));
        };
        Box::pin(async move {
            // Until the call has ended. Whoever took the store's place did so while nobody was inside.
            let _pass = watch.passage.pass(&watch.env, &watch.point, touched).await?;
            let me = self.latest();
            match &me.watch {
                Some(watch) => watch.over(call, |_| 0, move || make(me)).await,
                None => make(me)?.await,
            }
        })
    }
}

impl Watch {
    /// Makes a call of the driver, or of what it has begun.
    pub(super) async fn over<'a, T: Send + 'a>(
        &self,
        call: Call,
        weigh: fn(&T) -> u64,
        make: impl FnOnce() -> Result<StoreFuture<'a, T>, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let limit = self.options.deadline(call.bytes);
        let refused = |not_now: NotNow| StoreError::Unavailable {
            mount: self.point.to_string(),
            cause: not_now.cause.to_string(),
            retry_in: not_now.retry_in,
        };
        let asked = self.places.is_some().then(|| self.env.now());
        let _place = match &self.places {
            Some(places) => {
                self.health.look(&self.env).map_err(refused)?;
                Some(self.place(places, &call, limit).await?)
            }
            None => None,
        };
        let waited = asked.map_or(Duration::ZERO, |asked| self.env.now().saturating_duration_since(asked));
        let under_way = self.health.begin(&self.env).map_err(refused)?;
        let answer = match guard(make) {
            Ok(Ok(future)) => self.env.timeout(limit.saturating_sub(waited), Caught::new(future)).await,
            Ok(Err(error)) => Ok(Ok(Err(error))),
            Err(panicked) => Ok(Err(panicked)),
        };
        let Call { what, changing, kind, given, .. } = call;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(panicked)) => Err(StoreError::Panicked { what: what.into(), panicked, changing }),
            // It had little of its time left when its turn came: that this was not enough says nothing of the backend, unless nobody's was.
            Err(_) if waited > limit / 2 && !self.are_barren(limit) => {
                return Err(StoreError::TimedOut { what: what.into(), limit, changing });
            }
            Err(_) => Err(StoreError::TimedOut { what: what.into(), limit, changing }),
        };
        let failed = answer.as_ref().err().filter(|error| error.is_backend_failure());
        let failing = failed.map(|error| match error {
            StoreError::Panicked { .. } => Failing::Panic,
            StoreError::TimedOut { .. } => Failing::Late,
            _ => Failing::Backend,
        });
        if let Some(error) = failed {
            self.health.note(&self.env, error);
        }
        if let Some(places) = &self.places {
            places.ended(failed.is_some(), self.env.now());
        }
        let (error, read, written) = match &answer {
            Ok(answer) => (None, weigh(answer), given),
            Err(error) => (Some(error.kind()), 0, 0),
        };
        match under_way.ended(Came { kind, failing, error, read, written }, self.env.now()) {
            Some(Change::Opened) => {
                let cause = self.health.cause();
                tracing::warn!(mount = %self.point, %cause, "a driver failed too often: calls are refused for a while");
                // An actor that is closed belongs to a mount that is gone.
                let _ = self.actor.as_ref().map(|actor| actor.signal(Recover));
            }
            Some(Change::Closed) => tracing::info!(mount = %self.point, "a driver serves again"),
            None => {}
        }
        if let Some(StoreError::Panicked { panicked, .. }) = failed {
            self.report(panicked, what);
        }
        answer
    }

    fn are_barren(&self, limit: Duration) -> bool {
        self.places.as_ref().is_some_and(|places| places.are_barren(limit, self.env.now()))
    }

    /// Waits for a place among the calls under way. What finds none in time was not begun, and says nothing of the backend.
    async fn place<'p>(
        &self,
        places: &'p Places,
        call: &Call,
        limit: Duration,
    ) -> Result<SemaphorePermit<'p>, StoreError> {
        match self.env.timeout(limit, places.free.acquire()).await {
            // It is never closed.
            Ok(place) => place.map_err(|_| StoreError::Closed),
            Err(_) => {
                let what = format!("waiting for its turn before {}", call.what);
                Err(StoreError::TimedOut { what, limit, changing: false })
            }
        }
    }

    /// Tells the driver's supervisor of a panic: the driver's actor ends with it, and its next incarnation opens the driver anew.
    fn report(&self, panicked: &Panicked, what: &'static str) {
        let Some(actor) = &self.actor else { return };
        let answers = self.opener.unwrap_or_else(|| actor.generation());
        // The second panic of an instance finds its opener gone.
        actor.fail(answers, panicked.clone().into_exit(Some(what)));
    }
}

fn length_of(data: &Bytes) -> u64 {
    data.len() as u64
}

/// The future of a driver's call. A panic in it, also one while it is dropped, goes no further.
pub(super) struct Caught<'a, T>(Option<StoreFuture<'a, T>>);

impl<'a, T> Caught<'a, T> {
    pub(super) fn new(future: StoreFuture<'a, T>) -> Self {
        Self(Some(future))
    }

    fn end(&mut self) {
        let future = self.0.take();
        if let Err(panicked) = guard(move || drop(future)) {
            tracing::error!(%panicked, "a driver's call panicked while it was dropped");
        }
    }
}

impl<T> Future for Caught<'_, T> {
    type Output = Result<Result<T, StoreError>, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let polled = guard(|| future.as_mut().poll(cx));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answer)) => {
                self.end();
                Poll::Ready(Ok(answer))
            }
            Err(panicked) => {
                self.end();
                Poll::Ready(Err(panicked))
            }
        }
    }
}

impl<T> Drop for Caught<'_, T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for Guarded {
    /// It may be the last owner of the driver, on whichever task comes by.
    fn drop(&mut self) {
        let driver = self.driver.take();
        if let Err(panicked) = guard(move || drop(driver)) {
            tracing::error!(%panicked, "a driver panicked while it was dropped");
        }
    }
}

impl ObjectStore for Guarded {
    fn addressing(&self) -> Addressing<'_> {
        if self.path_addressed { Addressing::Path(self) } else { Addressing::Content(self) }
    }

    fn read_only(&self) -> bool {
        // One that panics is asked to do what it is to do, and says then what is wrong.
        guard(|| self.latest().driver().read_only()).unwrap_or(false)
    }

    fn connector(&self) -> Option<ConnectorCategory> {
        self.latest().driver().connector()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.look(Call::aside("probing"), |me| Ok(me.driver().probe()))
    }

    fn cache(&self) -> Option<CacheFigures> {
        // Who looks at a listing is not to hear of one that panics.
        guard(|| self.latest().driver().cache()).unwrap_or_default()
    }

    fn trouble(&self) -> Option<String> {
        guard(|| self.latest().driver().trouble()).unwrap_or_default()
    }

    fn acknowledges_early(&self) -> bool {
        guard(|| self.latest().driver().acknowledges_early()).unwrap_or(false)
    }

    /// Neither late nor a failure of the backend, however long it takes: who asks for it sets the limit.
    fn flush(&self) -> StoreFuture<'_, ()> {
        let me = self.latest();
        Box::pin(async move {
            let what = "flushing";
            let flushed = match guard(|| me.driver().flush()) {
                Ok(future) => Caught::new(future).await,
                Err(panicked) => Err(panicked),
            };
            flushed.unwrap_or_else(|panicked| {
                Err(StoreError::Panicked { what: what.into(), panicked, changing: false })
            })
        })
    }
}

impl ContentStore for Guarded {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        self.change(Call::write("writing content", data), Touched::Content(id), move |me| {
            Ok(me.contents()?.write(id, data))
        })
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        let call = Call::read("reading content", range);
        self.weighed(call, length_of, move |me| Ok(me.contents()?.read(id, range)))
    }

    fn read_many<'a>(&'a self, ids: &'a [ContentId]) -> StoreFuture<'a, Vec<Bytes>> {
        let call = Call { bytes: content::CALL_MAX, ..Call::read("reading contents", ByteRange::ALL) };
        self.weighed(call, |all| content::length(all), move |me| Ok(me.contents()?.read_many(ids)))
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        let call = Call::read("examining content", range);
        self.weighed(call, length_of, move |me| Ok(me.contents()?.examine(id, range)))
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        self.look(Call::look("looking for content"), move |me| Ok(me.contents()?.contains(id)))
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        self.change(Call::change("deleting content"), Touched::Nothing, move |me| {
            Ok(me.contents()?.delete(id))
        })
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        self.look(Call::look("looking for content"), move |me| Ok(me.contents()?.length(id)))
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        self.look(Call::list("listing contents"), move |me| Ok(me.contents()?.list(after, limit)))
    }

    fn reclaim(&self) -> StoreFuture<'_, u64> {
        let call = Call { bytes: RECLAIMED_MAX, changing: true, ..Call::aside("reclaiming space") };
        self.change(call, Touched::Nothing, |me| Ok(me.contents()?.reclaim()))
    }

    fn damage(&self) -> StoreFuture<'_, Vec<String>> {
        self.look(Call::aside("asking for damage"), |me| Ok(me.contents()?.damage()))
    }
}

impl PathStore for Guarded {
    fn capabilities(&self) -> PathCapabilities {
        guard(|| self.latest().paths().map(PathStore::capabilities))
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default()
    }

    fn can_name(&self, path: &str) -> Result<(), StoreError> {
        guard(|| self.latest().paths().and_then(|store| store.can_name(path))).unwrap_or(Ok(()))
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.look(Call::look("looking at a file"), move |me| Ok(me.paths()?.stat(path)))
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        let call = Call::read("reading a file", range);
        self.weighed(call, |(data, _)| length_of(data), move |me| Ok(me.paths()?.read(path, range)))
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let asked = self.latest();
        self.change(Call::write("writing a file", data), Touched::Path(path), move |me| match how {
            // It waited at the gate, and this is of a state in the store that the files have left, or that was left.
            PathWrite::IfMatch(_) | PathWrite::At { .. } | PathWrite::Append if !std::ptr::eq(me, asked) => {
                Err(StoreError::Changed { what: path.into() })
            }
            how => Ok(me.paths()?.write(path, data, how, attributes)),
        })
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        // What it goes by from here on is the door at which it began.
        let me = self.latest();
        let begun = me.look(Call::look("beginning an upload"), move |_| Ok(me.paths()?.upload(path)));
        Box::pin(async move {
            Ok(Box::new(Uploading::new(begun.await?, me.watch.clone(), path)) as Box<dyn PathUpload>)
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        self.change(Call::change("deleting a file"), Touched::Path(path), move |me| {
            Ok(me.paths()?.delete(path))
        })
    }

    fn delete_many<'a>(&'a self, paths: &'a [String]) -> StoreFuture<'a, Vec<Result<(), StoreError>>> {
        let bytes = DELETED_AS.saturating_mul(paths.len() as u64);
        let call = Call { bytes, ..Call::change("deleting files") };
        self.change(call, Touched::Paths(paths), move |me| Ok(me.paths()?.delete_many(paths)))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        self.look(Call::list("listing a directory"), move |me| Ok(me.paths()?.list(path, after, limit)))
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.change(Call::change("making a directory"), Touched::Path(path), move |me| {
            Ok(me.paths()?.make_directory(path, attributes))
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.change(Call::change("renaming"), Touched::Moved(from, to), move |me| {
            Ok(me.paths()?.rename(from, to))
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.change(Call::change("copying a file"), Touched::Path(to), move |me| {
            Ok(me.paths()?.copy(from, to))
        })
    }

    fn copy_new<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.change(Call::change("copying a file"), Touched::Path(to), move |me| {
            Ok(me.paths()?.copy_new(from, to))
        })
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.change(Call::change("making a link"), Touched::Path(path), move |me| {
            Ok(me.paths()?.make_link(path, target))
        })
    }

    fn outside(&self) -> StoreFuture<'_, Option<Box<dyn OutsideChanges>>> {
        self.look(Call::aside("looking for changes of others"), |me| Ok(me.paths()?.outside()))
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.change(Call::change("setting attributes"), Touched::Path(path), move |me| {
            Ok(me.paths()?.set_attributes(path, attributes))
        })
    }
}
