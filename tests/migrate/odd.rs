//! Drivers over others that are slow, full, forgetful, or can do less, when they are told to.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nexus::hal::{
    Addressing, ContentStore, DriverContext, DriverFactory, DriverOption, ListPage, ObjectInfo, ObjectStore,
    PathCapabilities, PathStore, PathUpload, PathWrite, StoreError, StoreFuture,
};
use nexus::{Attributes, ByteRange, Bytes, ContentId, Env, MountSpec};

/// How such drivers are. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Odd(Arc<How>);

#[derive(Debug, Default)]
struct How {
    /// Changes that have begun and not ended.
    under_way: AtomicU64,
    /// How long each change takes, in microseconds.
    slow_us: AtomicU64,
    /// How many changes succeed before the store is full, plus one; 0 for any number.
    room: AtomicI64,
    /// What is written is not what is given back.
    lies: AtomicBool,
    /// It can do what an object store can.
    plain: AtomicBool,
    /// It cannot be reached.
    gone: AtomicBool,
    /// It has no name with this in it.
    nameless: Mutex<Option<&'static str>>,
}

impl Odd {
    pub(crate) fn slow(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).expect("it is short");
        self.0.slow_us.store(micros, Ordering::Relaxed);
    }

    /// So many changes succeed, and then the store is full; none for any number.
    pub(crate) fn room(&self, changes: Option<i64>) {
        self.0.room.store(changes.map_or(0, |changes| changes + 1), Ordering::Relaxed);
    }

    pub(crate) fn lies(&self, lies: bool) {
        self.0.lies.store(lies, Ordering::Relaxed);
    }

    pub(crate) fn plain(&self) {
        self.0.plain.store(true, Ordering::Relaxed);
    }

    /// How many slow changes have begun and not ended.
    pub(crate) fn under_way(&self) -> u64 {
        self.0.under_way.load(Ordering::Relaxed)
    }

    /// It cannot be reached from now on, or again.
    pub(crate) fn gone(&self, gone: bool) {
        self.0.gone.store(gone, Ordering::Relaxed);
    }

    /// From now on it has no name with `part` in it.
    pub(crate) fn names_without(&self, part: &'static str) {
        *self.0.nameless.lock().expect("nobody panics with it") = Some(part);
    }

    /// Whether it can be reached, for `what`.
    fn reached(&self, what: &str) -> Result<(), StoreError> {
        if !self.0.gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(StoreError::Backend { what: what.to_owned(), cause: "the server cannot be reached".into() })
    }

    /// Before a change.
    async fn change(&self, env: &Env, what: &str) -> Result<(), StoreError> {
        self.reached(what)?;
        let slow = self.0.slow_us.load(Ordering::Relaxed);
        if slow > 0 {
            self.0.under_way.fetch_add(1, Ordering::Relaxed);
            env.sleep(Duration::from_micros(slow)).await;
            self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        }
        // It may have gone while the change was under way.
        self.reached(what)?;
        let take = |room: i64| if room > 1 { Some(room - 1) } else { None };
        match self.0.room.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => match self.0.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                Ok(_) => Ok(()),
                Err(_) => Err(StoreError::Full),
            },
        }
    }

    /// What is written in the place of `data`.
    fn written(&self, data: &[Bytes]) -> Vec<Bytes> {
        let mut data = data.to_vec();
        if self.0.lies.load(Ordering::Relaxed)
            && let Some(first) = data.iter_mut().find(|piece| !piece.is_empty())
        {
            let mut changed = first.to_vec();
            changed[0] ^= 1;
            *first = changed.into();
        }
        data
    }

    fn is_plain(&self) -> bool {
        self.0.plain.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct OddFactory {
    pub(crate) name: &'static str,
    pub(crate) inner: Arc<dyn DriverFactory>,
    pub(crate) odd: Odd,
}

impl DriverFactory for OddFactory {
    fn name(&self) -> &str {
        self.name
    }

    fn options(&self) -> &[DriverOption] {
        self.inner.options()
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let (env, odd) = (context.env.clone(), self.odd.clone());
        let opening = self.inner.open(spec, context);
        Box::pin(async move {
            odd.reached("opening it")?;
            let inner = opening.await?;
            Ok(Arc::new(OddStore { inner, env, odd }) as Arc<dyn ObjectStore>)
        })
    }
}

#[derive(Debug)]
struct OddStore {
    inner: Arc<dyn ObjectStore>,
    env: Env,
    odd: Odd,
}

impl OddStore {
    fn paths(&self) -> &dyn PathStore {
        match self.inner.addressing() {
            Addressing::Path(store) => store,
            Addressing::Content(_) => unreachable!("it was asked for its addressing"),
        }
    }

    fn contents(&self) -> &dyn ContentStore {
        match self.inner.addressing() {
            Addressing::Content(store) => store,
            Addressing::Path(_) => unreachable!("it was asked for its addressing"),
        }
    }

    fn change<'a, T: Send + 'a>(
        &'a self,
        path: &'a str,
        call: impl FnOnce() -> StoreFuture<'a, T> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            self.odd.change(&self.env, &format!("changing {path:?}")).await?;
            call().await
        })
    }
}

fn no<'a, T: Send + 'a>(what: &'static str) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Err(StoreError::NotSupported { what })))
}

impl ObjectStore for OddStore {
    fn addressing(&self) -> Addressing<'_> {
        match self.inner.addressing() {
            Addressing::Content(_) => Addressing::Content(self),
            Addressing::Path(_) => Addressing::Path(self),
        }
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.odd.reached("asking it")?;
            self.inner.probe().await
        })
    }
}

impl ContentStore for OddStore {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.odd.change(&self.env, "writing content").await?;
            self.contents().write(id, &self.odd.written(data)).await
        })
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        self.contents().read(id, range)
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        self.contents().examine(id, range)
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            self.odd.reached("looking for content")?;
            self.contents().contains(id).await
        })
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        self.contents().length(id)
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        self.contents().delete(id)
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        self.contents().list(after, limit)
    }
}

impl PathStore for OddStore {
    fn capabilities(&self) -> PathCapabilities {
        if self.odd.is_plain() { PathCapabilities::default() } else { self.paths().capabilities() }
    }

    fn can_name(&self, path: &str) -> Result<(), StoreError> {
        match *self.odd.0.nameless.lock().expect("nobody panics with it") {
            Some(part) if path.contains(part) => {
                Err(StoreError::BadOption { why: format!("a name with {part:?} is another one there") })
            }
            _ => self.paths().can_name(path),
        }
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            self.odd.reached(&format!("looking at {path:?}"))?;
            self.paths().stat(path).await
        })
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(async move {
            self.odd.reached(&format!("reading {path:?}"))?;
            self.paths().read(path, range).await
        })
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        if self.odd.is_plain() && matches!(how, PathWrite::At { .. } | PathWrite::Append) {
            return no("writing in the middle");
        }
        Box::pin(async move {
            self.odd.change(&self.env, &format!("writing {path:?}")).await?;
            self.paths().write(path, &self.odd.written(data), how, attributes).await
        })
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        if self.odd.is_plain() {
            return no("uploads");
        }
        Box::pin(async move {
            let inner = self.paths().upload(path).await?;
            let (env, odd) = (self.env.clone(), self.odd.clone());
            Ok(Box::new(OddUpload { inner, env, odd }) as Box<dyn PathUpload>)
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        self.change(path, move || self.paths().delete(path))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(async move {
            self.odd.reached(&format!("listing {path:?}"))?;
            self.paths().list(path, after, limit).await
        })
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        if self.odd.is_plain() {
            return no("directories");
        }
        self.change(path, move || self.paths().make_directory(path, attributes))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        if self.odd.is_plain() {
            return no("renaming");
        }
        self.change(from, move || self.paths().rename(from, to))
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        if self.odd.is_plain() {
            return no("links");
        }
        self.change(path, move || self.paths().make_link(path, target))
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        if self.odd.is_plain() {
            return no("attributes");
        }
        self.change(path, move || self.paths().set_attributes(path, attributes))
    }
}

#[derive(Debug)]
struct OddUpload {
    inner: Box<dyn PathUpload>,
    env: Env,
    odd: Odd,
}

impl PathUpload for OddUpload {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            for piece in self.odd.written(&[data]) {
                self.inner.push(piece).await?;
            }
            Ok(())
        })
    }

    fn settle(&mut self) -> StoreFuture<'_, ()> {
        self.inner.settle()
    }

    fn finish<'a>(
        self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            let Self { inner, env, odd } = *self;
            odd.change(&env, &format!("writing {path:?}")).await?;
            inner.finish(path, how, attributes).await
        })
    }
}
