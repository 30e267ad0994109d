//! Content on its way to a driver, piece by piece, behind the same door as the driver's calls.
//!
//! What was given of it is with the driver that it began at. It passes the mount's gate when it finishes, as any change. When the mount's files have moved to
//! another store by then, that one has nothing of it: it is refused, and what is there stays.

use std::sync::Arc;

use bytes::Bytes;
use nexus_actors::guard;
use nexus_messages::Attributes;

use super::figures::CallKind;
use super::guarded::{Call, Watch};
use super::passage::{Touched, UnderWay};
use crate::hal::{ObjectInfo, PathUpload, PathWrite, StoreError, StoreFuture};

/// How many bytes a driver may have on their way when it is given more, as far as its deadline is concerned.
const UNDER_WAY_MAX: u64 = 64 << 20;

/// An upload behind the door. One of which a call failed, or was given up, is dropped at once.
#[derive(Debug)]
pub(super) struct Uploading {
    // Invariant: some unless a call is being made, failed, or was given up.
    held: Option<Held>,
    /// None for what stands in for a driver.
    watch: Option<Arc<Watch>>,
    /// What errors call it.
    path: Arc<str>,
    size: u64,
}

impl Uploading {
    pub(super) fn new(upload: Box<dyn PathUpload>, watch: Option<Arc<Watch>>, path: &str) -> Self {
        let under_way = watch.as_ref().map(|watch| watch.passage.upload());
        let held = Some(Held { upload: Some(upload), _under_way: under_way });
        Self { held, watch, path: path.into(), size: 0 }
    }

    /// Makes one call that may be made again.
    fn call<'a>(
        &'a mut self,
        what: &'static str,
        bytes: u64,
        make: impl for<'u> FnOnce(&'u mut dyn PathUpload) -> StoreFuture<'u, ()> + Send + 'a,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            // Nobody sees a change before it is finished: none is counted, and the time is that of a write all the same.
            let call = Call { bytes, kind: Some(CallKind::Write), ..Call::look(what) };
            let mut held = self.held.take().ok_or_else(over)?;
            let upload = held.upload.as_deref_mut().ok_or_else(over)?;
            match self.watch.clone() {
                // Better now than when all of it was sent in vain.
                Some(watch) if watch.era.get().is_some() => return Err(moved(&self.path)),
                Some(watch) => watch.over(call, |()| 0, move || Ok(make(upload))).await?,
                None => make(upload).await?,
            }
            self.held = Some(held);
            Ok(())
        })
    }
}

impl PathUpload for Uploading {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        self.size += data.len() as u64;
        let bytes = UNDER_WAY_MAX + data.len() as u64;
        self.call("uploading a part of a file", bytes, move |upload| upload.push(data))
    }

    fn settle(&mut self) -> StoreFuture<'_, ()> {
        let bytes = self.size;
        self.call("uploading the rest of a file", bytes, |upload| upload.settle())
    }

    fn finish<'a>(
        mut self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            let call = Call { bytes: self.size, given: self.size, ..Call::change("finishing an upload") };
            let (mut held, watch) = (self.held.take().ok_or_else(over)?, self.watch.clone());
            // Until it is done. Whoever takes the store's place does so while nobody is inside.
            let _pass = match &watch {
                Some(watch) => Some(watch.passage.pass(&watch.env, &watch.point, Touched::Path(path)).await?),
                None => None,
            };
            if watch.as_ref().is_some_and(|watch| watch.era.get().is_some()) {
                return Err(moved(path));
            }
            let upload = held.upload.take().ok_or_else(over)?;
            match &watch {
                Some(watch) => {
                    watch.over(call, |_| 0, move || Ok(upload.finish(path, how, attributes))).await
                }
                None => upload.finish(path, how, attributes).await,
            }
        })
    }
}

/// What is asked of an upload that is there no more.
fn over() -> StoreError {
    StoreError::Backend {
        what: "uploading a file".into(),
        cause: "a call before failed, or was given up".into(),
    }
}

fn moved(path: &str) -> StoreError {
    StoreError::Moved { what: path.to_owned() }
}

/// An upload, whose end is watched.
#[derive(Debug)]
struct Held {
    upload: Option<Box<dyn PathUpload>>,
    /// None for what stands in for a driver.
    _under_way: Option<UnderWay>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let upload = self.upload.take();
        if let Err(panicked) = guard(move || drop(upload)) {
            tracing::error!(%panicked, "a driver panicked while an upload was dropped");
        }
    }
}
