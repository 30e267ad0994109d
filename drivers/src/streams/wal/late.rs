//! Streams on disk that are opened when the first of them is made: who has none has no log of them.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nexus_actors::{Env, Pool};
use nexus_kernel::hal::{
    Append, Appended, ReadBounds, StoreError, StreamError, StreamFuture, StreamLimits, StreamRead,
    StreamState, StreamStore,
};
use nexus_messages::{FileId, Timestamp};
use tokio::sync::Mutex;

use super::config::WalStreamsConfig;
use super::driver::WalStreams;

/// Streams in a folder, which is made, with its log, when the first stream is. Until then there are none.
pub struct LateStreams(Arc<Late>);

struct Late {
    folder: PathBuf,
    env: Env,
    pool: Pool,
    config: WalStreamsConfig,
    opened: OnceLock<Arc<WalStreams>>,
    /// Held by who opens them, so that one does it for all.
    opening: Mutex<()>,
    is_shut: AtomicBool,
}

impl LateStreams {
    /// The streams in `folder`. Nothing is opened yet, but when the folder is there: what is in it is known to all from the first call on.
    ///
    /// # Errors
    ///
    /// As [`WalStreams::open`].
    pub async fn new(
        folder: impl Into<PathBuf>,
        env: &Env,
        pool: Pool,
        config: WalStreamsConfig,
    ) -> Result<Self, StoreError> {
        let (opened, opening, is_shut) = (OnceLock::new(), Mutex::default(), AtomicBool::new(false));
        let late = Late { folder: folder.into(), env: env.clone(), pool, config, opened, opening, is_shut };
        if late.folder.exists() {
            late.open().await?;
        }
        Ok(Self(Arc::new(late)))
    }

    /// The streams, which are opened on a task of its own: who asks for them first and is not polled any more holds up nobody.
    async fn open(&self) -> Result<&Arc<WalStreams>, StoreError> {
        if self.opened().is_none() {
            let late = self.0.clone();
            let opening = self.0.env.apart("streams.open", async move { late.open().await });
            opening.await.unwrap_or(Err(StoreError::Closed))?;
        }
        self.opened().ok_or(StoreError::Closed)
    }

    /// As [`WalStreams::shut`]; those that were not opened stay so.
    pub fn shut(&self) {
        self.0.is_shut.store(true, Ordering::SeqCst);
        if let Some(opened) = self.opened() {
            opened.shut();
        }
    }

    fn opened(&self) -> Option<&Arc<WalStreams>> {
        self.0.opened.get()
    }

    fn there(&self, stream: FileId) -> Result<&Arc<WalStreams>, StreamError> {
        self.opened().ok_or(StreamError::NoStream { stream })
    }
}

impl Late {
    async fn open(&self) -> Result<(), StoreError> {
        let _one = self.opening.lock().await;
        if self.opened.get().is_some() {
            return Ok(());
        }
        if self.is_shut.load(Ordering::SeqCst) {
            return Err(StoreError::Closed);
        }
        let (pool, config) = (self.pool.clone(), self.config.clone());
        let opened = WalStreams::open(&self.folder, &self.env, pool, config).await?;
        let opened = self.opened.get_or_init(|| Arc::new(opened));
        // SeqCst, here and where it is set: either who shuts finds them opened, or this finds that they are to be shut.
        if self.is_shut.load(Ordering::SeqCst) {
            opened.shut();
        }
        Ok(())
    }
}

/// Asks the streams if they are opened; none of them is there if not.
macro_rules! ask {
    ($self:ident, $stream:ident, $call:ident($($arg:expr),*)) => {
        match $self.there($stream) {
            Ok(opened) => opened.$call($stream, $($arg),*),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    };
}

impl StreamStore for LateStreams {
    fn is_durable(&self) -> bool {
        true
    }

    fn create(&self, stream: FileId, limits: StreamLimits) -> StreamFuture<'_, StreamState> {
        Box::pin(async move { self.open().await?.create(stream, limits).await })
    }

    fn append(&self, stream: FileId, append: Append) -> StreamFuture<'_, Appended> {
        ask!(self, stream, append(append))
    }

    fn read(&self, stream: FileId, from: u64, most: ReadBounds) -> StreamFuture<'_, StreamRead> {
        ask!(self, stream, read(from, most))
    }

    fn state(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        ask!(self, stream, state())
    }

    fn trim(&self, stream: FileId, before: u64) -> StreamFuture<'_, StreamState> {
        ask!(self, stream, trim(before))
    }

    fn retain(&self, stream: FileId, now: Timestamp) -> StreamFuture<'_, StreamState> {
        ask!(self, stream, retain(now))
    }

    fn close(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        ask!(self, stream, close())
    }

    fn remove(&self, stream: FileId) -> StreamFuture<'_, bool> {
        match self.opened() {
            Some(opened) => opened.remove(stream),
            None => Box::pin(std::future::ready(Ok(false))),
        }
    }

    fn list(&self, after: Option<FileId>, limit: usize) -> StreamFuture<'_, Vec<FileId>> {
        match self.opened() {
            Some(opened) => opened.list(after, limit),
            None => Box::pin(std::future::ready(Ok(Vec::new()))),
        }
    }
}

impl fmt::Debug for LateStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateStreams").field("opened", &self.opened()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use nexus_actors::{HostConfig, block_on};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn streams_whose_opening_is_given_up_are_there_for_the_next_one() {
        let host = tempfile::tempdir().expect("there is room");
        let env = Env::host(HostConfig::default()).expect("it starts");
        for n in 0..20 {
            let folder = host.path().join(n.to_string());
            let pool = env.pool("streams.read", 2, 8);
            block_on(async {
                let late = LateStreams::new(folder, &env, pool, WalStreamsConfig::default()).await;
                let late = late.expect("there is nothing");
                let create = |n| late.create(FileId(n), StreamLimits::default());
                // Given up once it is under way, or not polled any more.
                let mut begun = Box::pin(env.timeout(Duration::from_micros(100 * n), create(1)));
                if n % 2 == 0 {
                    let _ = begun.as_mut().await;
                } else {
                    let _ = begun.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
                let made = env.timeout(PATIENCE, create(2)).await;
                made.expect("nobody holds it up").expect("nobody else has it");
                late.shut();
            });
        }
        env.stop();
    }
}
