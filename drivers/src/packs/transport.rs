//! The transport: packed blobs, and beside them those that have files of their own.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, LazyLock, Weak};
use std::task::Poll;

use bytes::Bytes;
use nexus_actors::{Pool, PoolError};
use nexus_kernel::hal::{BlobInfo, StoreError, StoreFuture, Transport};
use nexus_messages::syscall::ByteRange;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::record::KEY_BYTES_MAX;
use super::recovery::Damage;
use super::store::{Limits, Store};
use crate::disk::{FileLock, Folder, LocalFolder, make_durable};
use crate::local::{Blobs, PACKS_FOLDER, check_key};
use crate::pooled;

/// Up to this length a blob shares a file, and a flush, with others.
pub const PACKED_BYTES_MAX: usize = 1 << 20;

/// Held as long as the store is open, so that no other process opens it.
const LOCK: &str = "lock";

/// Blobs in a folder that belongs to the store. What `put` returned for is on disk, with everything that leads to it.
///
/// A process has each folder open once: opening it again gives the same store, so a driver may be opened beside the one that serves. Another
/// process is told that it is in use. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Packs {
    opened: Arc<Opened>,
    pool: Pool,
}

/// What all that have the folder open share. The order of the fields is that in which they are dropped.
#[derive(Debug)]
struct Opened {
    store: Store,
    /// Those that have files of their own; none when the folder is not one of the file system.
    files: Option<Blobs>,
    _held: Option<(FileLock, Closing)>,
}

impl Packs {
    /// Blobs in `folder`, which is made when it is missing; what a crash left half-written is removed. All blocking is done on `pool`. `seed` is
    /// random: it makes what nobody else can foresee.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when another process has the folder.
    pub async fn open(folder: impl AsRef<Path>, pool: Pool, seed: u64) -> Result<Self, StoreError> {
        let folder: PathBuf = folder.as_ref().into();
        let opened =
            pooled::change(&pool, "opening a folder of blobs", move |_| Opened::shared(&folder, seed))
                .await?;
        Ok(Self { opened, pool })
    }

    /// Blobs in `folder`, which nobody else opens: no lock is taken. None may be larger than [`PACKED_BYTES_MAX`]: they have no files of their own
    /// here. Blocks.
    pub fn open_in(
        folder: Arc<dyn Folder>,
        pool: Pool,
        seed: u64,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        let store = Store::open(folder, seed, limits)?;
        Ok(Self { opened: Arc::new(Opened { store, files: None, _held: None }), pool })
    }

    /// Says whether the folder is there. Cheap.
    pub fn probe(&self) -> StoreFuture<'_, ()> {
        let opened = self.opened.clone();
        Box::pin(pooled::look(&self.pool, "probing", move || {
            opened.files.as_ref().map_or(Ok(()), Blobs::probe)
        }))
    }

    /// Copies together what is alive in files that are mostly dead, and removes them. Gives the number of bytes that became free. Reads and writes go
    /// on meanwhile. Repeat: safe; there is nothing more to do when it gives 0. Nothing is lost when it fails midway.
    pub fn compact(&self) -> StoreFuture<'_, u64> {
        let opened = self.opened.clone();
        Box::pin(pooled::change(&self.pool, "compacting blobs", move |_| opened.store.compact()))
    }

    /// What was found damaged when the folder was opened. As long as there is some, a blob that is not found is told as corrupt.
    pub fn damage(&self) -> Vec<Damage> {
        self.opened.store.damage().to_vec()
    }

    /// Waits for `answer`, and sees to it that somebody works at it.
    async fn settle(
        &self,
        what: &'static str,
        answer: oneshot::Receiver<Result<bool, StoreError>>,
    ) -> Result<bool, StoreError> {
        let opened = self.opened.clone();
        let mut driving = pin!(self.pool.run(move || {
            opened.store.drive();
            opened.store.tend();
        }));
        let mut answer = pin!(answer);
        let mut is_driven = false;
        poll_fn(|cx| {
            // Until it is queued it must be polled; from then on it runs, also when somebody else has done the work and this goes on at once.
            if !is_driven && let Poll::Ready(driven) = driving.as_mut().poll(cx) {
                is_driven = true;
                match driven {
                    Ok(()) => {}
                    Err(PoolError::Panicked(panicked)) => {
                        return Poll::Ready(Err(StoreError::Panicked {
                            what: what.into(),
                            panicked,
                            changing: true,
                        }));
                    }
                    Err(error) => {
                        return Poll::Ready(Err(StoreError::Unknown {
                            what: what.into(),
                            cause: error.to_string(),
                        }));
                    }
                }
            }
            answer.as_mut().poll(cx).map(|answer| {
                answer.unwrap_or_else(|_| {
                    let cause = "the flush that it was to share was cut short".into();
                    Err(StoreError::Unknown { what: what.into(), cause })
                })
            })
        })
        .await
    }

    async fn put_packed(&self, key: &str, data: &[Bytes]) -> Result<(), StoreError> {
        self.settle("writing a blob", self.opened.store.ask_put(key, data)).await?;
        Ok(())
    }

    async fn delete_packed(&self, key: &str) -> Result<bool, StoreError> {
        self.settle("deleting a blob", self.opened.store.ask_delete(key)).await
    }

    /// Calls `job` with the blobs that have files of their own; gives nothing when there are none.
    async fn on_files<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&Blobs) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let opened = self.opened.clone();
        pooled::change(&self.pool, what, move |_| opened.files.as_ref().map(job).transpose()).await
    }
}

impl Transport for Packs {
    fn put<'a>(&'a self, key: &'a str, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            check_key(key)?;
            let size = data.iter().map(Bytes::len).sum::<usize>();
            if size <= PACKED_BYTES_MAX && key.len() <= KEY_BYTES_MAX {
                return self.put_packed(key, data).await;
            }
            let (owned, data) = (key.to_owned(), data.to_vec());
            let put = self.on_files("writing a blob", move |files| files.put(&owned, &data)).await?;
            put.ok_or(StoreError::NotSupported { what: "a blob with a file of its own" })?;
            // A packed one would hide it.
            if self.head_packed(key).await?.is_some() {
                self.delete_packed(key).await?;
            }
            Ok(())
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> StoreFuture<'a, Bytes> {
        let (opened, key) = (self.opened.clone(), key.to_owned());
        Box::pin(pooled::look(&self.pool, "reading a blob", move || {
            check_key(&key)?;
            let packed = opened.store.get(&key, range)?;
            packed.map_or_else(|| opened.of_its_own(key, range), Ok)
        }))
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, Vec<Result<Bytes, StoreError>>> {
        // What the system has in memory costs less than to have somebody else read it.
        if let Some(blobs) = self.opened.store.at_hand(keys) {
            return Box::pin(std::future::ready(Ok(blobs.into_iter().map(Ok).collect())));
        }
        let (opened, keys) = (self.opened.clone(), keys.to_vec());
        Box::pin(pooled::look(&self.pool, "reading blobs", move || {
            keys.iter().try_for_each(|key| check_key(key))?;
            let packed = opened.store.get_many(&keys);
            let whole = |(key, packed): (String, Result<Option<Bytes>, StoreError>)| {
                packed?.map_or_else(|| opened.of_its_own(key, ByteRange::ALL), Ok)
            };
            Ok(keys.into_iter().zip(packed).map(whole).collect())
        }))
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<BlobInfo>> {
        let (opened, key) = (self.opened.clone(), key.to_owned());
        Box::pin(pooled::look(&self.pool, "looking at a blob", move || {
            check_key(&key)?;
            match (opened.store.head(&key)?, &opened.files) {
                (Some(info), _) => Ok(Some(info)),
                (None, Some(files)) => files.head(&key),
                (None, None) => Ok(None),
            }
        }))
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let owned = key.to_owned();
            // First what the packed one hides: the other way round it would come back.
            let of_its_own = match self.on_files("deleting a blob", move |files| files.delete(&owned)).await {
                Err(StoreError::NotFound { .. }) => false,
                deleted => deleted?.is_some(),
            };
            let is_packed = key.len() <= KEY_BYTES_MAX && self.delete_packed(key).await?;
            match of_its_own || is_packed {
                true => Ok(()),
                false => Err(StoreError::NotFound { what: key.into() }),
            }
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<String>> {
        let (opened, prefix, after) = (self.opened.clone(), prefix.to_owned(), after.map(str::to_owned));
        Box::pin(pooled::look(&self.pool, "listing blobs", move || {
            let mut keys = opened.store.list(&prefix, after.as_deref(), limit)?;
            if let Some(files) = &opened.files {
                keys.append(&mut files.list(&prefix, after.as_deref(), limit)?);
            }
            keys.sort_unstable();
            keys.dedup();
            keys.truncate(limit);
            Ok(keys)
        }))
    }

    fn reclaim(&self) -> StoreFuture<'_, u64> {
        self.compact()
    }

    fn damage(&self) -> StoreFuture<'_, Vec<String>> {
        let damage = self.opened.store.damage().iter().map(ToString::to_string).collect();
        Box::pin(std::future::ready(Ok(damage)))
    }
}

impl Packs {
    async fn head_packed(&self, key: &str) -> Result<Option<BlobInfo>, StoreError> {
        let (opened, key) = (self.opened.clone(), key.to_owned());
        pooled::look(&self.pool, "looking at a blob", move || opened.store.head(&key)).await
    }
}

/// The folders that this process has open, by their paths without links.
static FOLDERS: LazyLock<Mutex<BTreeMap<PathBuf, Arc<Slot>>>> = LazyLock::new(Mutex::default);

/// A folder that is open, or was.
#[derive(Debug, Default)]
struct Slot {
    state: Mutex<SlotState>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct SlotState {
    store: Weak<Opened>,
    /// Until its lock is given back.
    is_open: bool,
}

/// Says that all before it is closed.
#[derive(Debug)]
struct Closing(Arc<Slot>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.state.lock().is_open = false;
        self.0.closed.notify_all();
    }
}

impl Opened {
    /// A part of the blob, which is not packed: it has a file of its own, or is not there.
    fn of_its_own(&self, key: String, range: ByteRange) -> Result<Bytes, StoreError> {
        let found = match &self.files {
            Some(files) => files.get(&key, range),
            None => Err(StoreError::NotFound { what: key.clone() }),
        };
        match (found, self.store.damage().first()) {
            (Err(StoreError::NotFound { .. }), Some(damage)) => Err(StoreError::Corrupt {
                what: key,
                found: format!("it is not there, and may have been in {damage}, which is damaged"),
            }),
            (found, _) => found,
        }
    }

    fn shared(folder: &Path, seed: u64) -> Result<Arc<Self>, StoreError> {
        let failed = |e| StoreError::io(format!("opening {}", folder.display()), e);
        make_durable(folder).map_err(failed)?;
        let path = folder.canonicalize().map_err(failed)?;
        let slot = {
            let mut folders = FOLDERS.lock();
            // Nobody has those, and nobody waits for them.
            folders.retain(|_, slot| Arc::strong_count(slot) > 1);
            folders.entry(path).or_default().clone()
        };
        let mut state = slot.state.lock();
        loop {
            if let Some(opened) = state.store.upgrade() {
                return Ok(opened);
            }
            if !state.is_open {
                break;
            }
            // Its last user is just letting go of it.
            slot.closed.wait(&mut state);
        }
        let packs = folder.join(PACKS_FOLDER);
        let disk = Arc::new(LocalFolder::open(&packs).map_err(failed)?);
        let lock = lock(&packs)?;
        let files = Blobs::open(folder)?;
        let store = Store::open(disk, seed, Limits::default())?;
        let opened = Arc::new(Self { store, files: Some(files), _held: Some((lock, Closing(slot.clone()))) });
        (state.store, state.is_open) = (Arc::downgrade(&opened), true);
        Ok(opened)
    }
}

fn lock(folder: &Path) -> Result<FileLock, StoreError> {
    let failed = |e| StoreError::io(format!("locking {}", folder.display()), e);
    let taken = FileLock::try_take(&folder.join(LOCK)).map_err(failed)?;
    taken.ok_or_else(|| StoreError::Locked { what: folder.display().to_string() })
}
