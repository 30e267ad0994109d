//! A store that could not be reached when the driver of its mount was opened, for the first time or again: it is opened later, and until then says so to whoever asks it.
//!
//! The mount in front of it serves meanwhile what is here: what is pending, and what its age lets count as true.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::Env;
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathUpload, PathWrite,
    StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId};
use parking_lot::Mutex;

/// How long is waited between two attempts to open it: at first, and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How long one attempt may take.
pub(super) const OPENED_WITHIN: Duration = Duration::from_secs(5);

/// How long any attempt may take: who hangs is not heard of before that, when the store is there again.
const OPENED_MAX: Duration = Duration::from_secs(30);

/// Opens the store.
pub(super) type Open = Box<dyn Fn() -> StoreFuture<'static, Arc<dyn ObjectStore>> + Send + Sync>;

/// The store, or what stands in its place until it is reached.
pub(super) struct Later {
    store: OnceLock<Arc<dyn ObjectStore>>,
    /// Why it is not there.
    cause: Mutex<String>,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").field("store", &self.store).field("cause", &self.cause).finish()
    }
}

impl Later {
    /// One that failed to open with `error`, and is tried again for as long as somebody has it.
    pub(super) fn begin(env: &Env, error: &StoreError, open: Open) -> Arc<Self> {
        let later = Arc::new(Self { store: OnceLock::new(), cause: Mutex::new(error.to_string()) });
        let (weak, clock) = (Arc::downgrade(&later), env.clone());
        env.spawn("cached.open", async move { go_on(&clock, &weak, &open).await });
        later
    }

    /// The store behind, for what is to be done with it.
    fn there(&self, what: &str, path: &str) -> Result<&dyn PathStore, StoreError> {
        let Some(store) = self.store.get() else {
            let cause = format!(
                "its store was not reached when its driver was opened, and was not since: {}",
                self.cause.lock()
            );
            return Err(StoreError::Backend { what: format!("{what} {path:?}"), cause });
        };
        match store.addressing() {
            Addressing::Path(store) => Ok(store),
            Addressing::Content(_) => Err(StoreError::NotSupported { what: "content by its path" }),
        }
    }
}

/// Opens the store, again and again, until it is there or nobody has it any more.
async fn go_on(env: &Env, later: &Weak<Later>, open: &Open) {
    let (mut wait, mut within) = (WAIT.0, OPENED_WITHIN);
    loop {
        env.sleep(wait).await;
        wait = (wait * 2).min(WAIT.1);
        // Nobody waits for it here, and each attempt begins anew: one that is slow needs the time.
        within = (within * 2).min(OPENED_MAX);
        if later.strong_count() == 0 {
            return;
        }
        let opened = env.timeout(within, open()).await;
        let Some(later) = later.upgrade() else { return };
        match opened {
            Ok(Ok(store)) => {
                tracing::info!("a store is reached that was not when its driver was opened");
                // It is set once: here.
                let _ = later.store.set(store);
                return;
            }
            Ok(Err(error)) => *later.cause.lock() = error.to_string(),
            Err(_) => *later.cause.lock() = format!("it did not answer within {within:?}"),
        }
    }
}

impl ObjectStore for Later {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn read_only(&self) -> bool {
        self.store.get().is_some_and(|store| store.read_only())
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        match self.store.get() {
            Some(store) => store.probe(),
            // What is here is served. That it is not reached, `trouble` tells.
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn trouble(&self) -> Option<String> {
        match self.store.get() {
            Some(store) => store.trouble(),
            None => Some(format!("not reached, and what is here is served: {}", self.cause.lock())),
        }
    }
}

impl PathStore for Later {
    fn capabilities(&self) -> PathCapabilities {
        self.there("", "").map(PathStore::capabilities).unwrap_or_else(|_| {
            // Who asks for these is told that it is not reached, and not that it cannot do them.
            let mut can = PathCapabilities::default();
            (can.rename, can.copy, can.upload) = (true, true, true);
            can
        })
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.there("looking at", path)?.stat(path).await })
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(async move { self.there("reading", path)?.read(path, range).await })
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.there("writing", path)?.write(path, data, how, attributes).await })
    }

    fn put<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        attributes: &'a Attributes,
        looked: bool,
    ) -> StoreFuture<'a, ContentId> {
        Box::pin(async move { self.there("writing", path)?.put(path, data, attributes, looked).await })
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        Box::pin(async move { self.there("writing", path)?.upload(path).await })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move { self.there("deleting", path)?.delete(path).await })
    }

    fn delete_many<'a>(&'a self, paths: &'a [String]) -> StoreFuture<'a, Vec<Result<(), StoreError>>> {
        let first = paths.first().map_or("", String::as_str);
        Box::pin(async move { self.there("deleting what begins with", first)?.delete_many(paths).await })
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(async move { self.there("listing", path)?.list(path, after, limit).await })
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.there("making", path)?.make_directory(path, attributes).await })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.there("renaming", from)?.rename(from, to).await })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.there("copying", from)?.copy(from, to).await })
    }

    fn copy_new<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.there("copying", from)?.copy_new(from, to).await })
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.there("making", path)?.make_link(path, target).await })
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.there("changing", path)?.set_attributes(path, attributes).await })
    }
}
