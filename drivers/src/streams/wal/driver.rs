//! The driver: what is asked goes to one thread, whose batches are what came during the one before.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use nexus_actors::{Env, Pool, Worker, WorkerBounds};
use nexus_kernel::hal::{
    APPEND_BYTES_MAX, Append, Appended, ReadBounds, StoreError, StreamError, StreamFuture, StreamLimits,
    StreamRead, StreamState, StreamStore,
};
use nexus_messages::{FileId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::config::WalStreamsConfig;
use super::salt;
use super::store::{Ask, Store, Told};
use crate::disk::{FileLock, Folder, LocalFolder};
use crate::pooled;

/// Held as long as the streams are open, so that no other process opens them.
pub(super) const LOCK: &str = "lock";

/// Streams in a folder that belongs to them: one log for all. See the [module](super) for what it promises when the disk fails.
///
/// Dropping it waits until the batch is on disk that is being written, and gives the folder free.
#[derive(Debug)]
pub struct WalStreams {
    opened: Arc<Opened>,
    writer: Worker<Job>,
    pool: Pool,
    /// A permit is a byte of an append that waits, or is being written.
    room: Arc<Semaphore>,
    room_bytes: u32,
}

/// What the threads share.
#[derive(Debug)]
struct Opened {
    store: Store,
    held: Mutex<Option<FileLock>>,
}

impl Drop for WalStreams {
    fn drop(&mut self) {
        // The thread may be at it yet, also when all was answered.
        self.opened.store.close();
        drop(self.opened.held.lock().take());
    }
}

struct Job {
    stream: FileId,
    ask: Ask,
    reply: oneshot::Sender<Result<Told, StreamError>>,
    // Held until it is answered.
    _room: Option<OwnedSemaphorePermit>,
}

impl Job {
    fn bytes(&self) -> u64 {
        match &self.ask {
            Ask::Append(append) => append.records.iter().map(|record| record.len() as u64).sum(),
            _ => 0,
        }
    }
}

impl WalStreams {
    /// The streams in `folder`, which is made when it is missing. What blocks is done on a thread of its own, and on `pool` what opens and reads.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when the folder is open already, here or in another process, and [`StoreError::Corrupt`] when something that was on disk, and
    /// without which it is not known what the streams are, is not there any more.
    pub async fn open(
        folder: impl AsRef<Path>,
        env: &Env,
        pool: Pool,
        config: WalStreamsConfig,
    ) -> Result<Self, StoreError> {
        let path: PathBuf = folder.as_ref().into();
        let (seed, settings) = (env.random(), config.clone());
        let opened = pooled::change(&pool, "opening streams", move |_| {
            let failed = |e| StoreError::io(format!("opening {}", path.display()), e);
            let folder: Arc<dyn Folder> = Arc::new(LocalFolder::open(&path).map_err(failed)?);
            let held = FileLock::try_take(&path.join(LOCK)).map_err(failed)?;
            let held = held.ok_or_else(|| StoreError::Locked { what: path.display().to_string() })?;
            let store = Store::open(folder.clone(), salt::of(&folder, seed)?, settings)?;
            // Dropped in this order.
            Ok(Opened { store, held: Mutex::new(Some(held)) })
        })
        .await?;
        Self::start(opened, env, pool, &config)
    }

    /// The streams in `folder`, which nobody else opens: no lock is taken. Blocks.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but [`StoreError::Locked`].
    pub fn open_in(
        folder: Arc<dyn Folder>,
        env: &Env,
        pool: Pool,
        config: WalStreamsConfig,
    ) -> Result<Self, StoreError> {
        let store = Store::open(folder.clone(), salt::of(&folder, env.random())?, config.clone())?;
        Self::start(Opened { store, held: Mutex::new(None) }, env, pool, &config)
    }

    fn start(opened: Opened, env: &Env, pool: Pool, config: &WalStreamsConfig) -> Result<Self, StoreError> {
        let opened = Arc::new(opened);
        // Weak: what is in memory goes with the driver, and not when its thread has heard of it.
        let writing = Arc::downgrade(&opened);
        let bounds = WorkerBounds { queue: config.queue_max, batch: config.batch_max };
        let bytes = config.batch_bytes;
        let worker = env.worker("streams", bounds, move |jobs| write(&writing, jobs, bytes));
        let writer = worker.map_err(|e| StoreError::io("starting a thread for streams", e))?;
        let room_bytes = config.queue_bytes.max(u32::try_from(APPEND_BYTES_MAX).unwrap_or(u32::MAX));
        let room = Arc::new(Semaphore::new(usize::try_from(room_bytes).unwrap_or(usize::MAX)));
        Ok(Self { opened, writer, pool, room, room_bytes })
    }

    /// Takes nothing any more, once the batch is on disk that is being written, and gives the folder free, also while others hold this value. What was
    /// appended stays readable. Blocks on disk. May be repeated.
    pub fn shut(&self) {
        self.opened.store.close();
        drop(self.opened.held.lock().take());
    }

    /// How many operations wait.
    pub fn queued(&self) -> usize {
        self.writer.queued()
    }

    async fn ask(&self, stream: FileId, ask: Ask, bytes: u64) -> Result<Told, StreamError> {
        let closed = || StreamError::from(StoreError::Closed);
        let room = match u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_bytes) {
            0 => None,
            bytes => Some(self.room.clone().acquire_many_owned(bytes).await.map_err(|_| closed())?),
        };
        let (reply, answer) = oneshot::channel();
        self.writer.submit(Job { stream, ask, reply, _room: room }).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| {
            let cause = "the thread that writes it ended".into();
            Err(StoreError::Unknown { what: "writing to a stream".into(), cause }.into())
        })
    }

    fn change(&self, stream: FileId, ask: Ask) -> StreamFuture<'_, StreamState> {
        Box::pin(async move {
            match self.ask(stream, ask, 0).await? {
                Told::State(state) => Ok(state),
                other => Err(unexpected(other)),
            }
        })
    }
}

fn unexpected(told: Told) -> StreamError {
    let (what, cause) = ("writing to a stream".into(), format!("another answer: {told:?}"));
    StoreError::Backend { what, cause }.into()
}

/// Does the jobs that came during the batch before; in several batches when they are large. Runs on the thread that writes.
fn write(opened: &Weak<Opened>, jobs: Vec<Job>, bytes_max: u64) {
    let Some(opened) = opened.upgrade() else { return };
    // Who gave it up was not told that it is done, and it was not begun.
    let mut waiting = jobs.into_iter().filter(|job| !job.reply.is_closed()).peekable();
    while waiting.peek().is_some() {
        let (mut asked, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(job) = waiting.next_if(|next| asked.is_empty() || bytes + next.bytes() <= bytes_max) {
            bytes += job.bytes();
            let Job { stream, ask, reply, _room: room } = job;
            asked.push((stream, ask));
            replies.push((reply, room));
        }
        let told = opened.store.commit(asked);
        for ((reply, room), told) in replies.into_iter().zip(told) {
            drop(room);
            // Who gave it up meanwhile is not told.
            let _ = reply.send(told);
        }
    }
    opened.store.tidy();
}

impl StreamStore for WalStreams {
    fn is_durable(&self) -> bool {
        true
    }

    fn create(&self, stream: FileId, limits: StreamLimits) -> StreamFuture<'_, StreamState> {
        self.change(stream, Ask::Create(limits))
    }

    fn append(&self, stream: FileId, append: Append) -> StreamFuture<'_, Appended> {
        Box::pin(async move {
            let bytes = append.check()?;
            match self.ask(stream, Ask::Append(append), bytes).await? {
                Told::Appended(appended) => Ok(appended),
                other => Err(unexpected(other)),
            }
        })
    }

    fn read(&self, stream: FileId, from: u64, most: ReadBounds) -> StreamFuture<'_, StreamRead> {
        match self.opened.store.at_hand(stream, from, most).transpose() {
            Some(read) => Box::pin(std::future::ready(read)),
            None => {
                let opened = self.opened.clone();
                Box::pin(async move {
                    let read = move || Ok(opened.store.read(stream, from, most));
                    pooled::look(&self.pool, "reading a stream", read).await?
                })
            }
        }
    }

    fn state(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        Box::pin(std::future::ready(self.opened.store.state(stream)))
    }

    fn trim(&self, stream: FileId, before: u64) -> StreamFuture<'_, StreamState> {
        self.change(stream, Ask::Trim(before))
    }

    fn retain(&self, stream: FileId, now: Timestamp) -> StreamFuture<'_, StreamState> {
        self.change(stream, Ask::Retain(now))
    }

    fn close(&self, stream: FileId) -> StreamFuture<'_, StreamState> {
        self.change(stream, Ask::Close)
    }

    fn remove(&self, stream: FileId) -> StreamFuture<'_, bool> {
        Box::pin(async move {
            match self.ask(stream, Ask::Remove, 0).await? {
                Told::Removed(was_there) => Ok(was_there),
                other => Err(unexpected(other)),
            }
        })
    }

    fn list(&self, after: Option<FileId>, limit: usize) -> StreamFuture<'_, Vec<FileId>> {
        Box::pin(std::future::ready(Ok(self.opened.store.list(after, limit))))
    }
}
