//! A region: a file that processes map, and who sleeps at it in this one.
//!
//! A file comes to be under another name, and is whole when it has its own. Its room is taken at once, so that a file system that is full is told by who makes the
//! file, and not by the end of the process that touches it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use tokio::sync::watch;

use super::bell::{Bell, Heard, PATROL};
use super::folder::{SharedFolder, SharedKind};
use super::layout::{COMES, FLAGS_AT, GOES, ID_AT, KIND_AT, MAGIC, MAGIC_AT, SHAPE_AT, STORE_AT, TOLD_WORDS};
use super::log::Log;
use super::mapped::Mapped;
use super::memory::Memory;
use super::ring::Ring;
use crate::{Env, Pool};

/// Threads of a process that sleep for those of its tasks that wait; each is for one region and one side of it. Who has none looks every [`PATROL`].
const THREADS_MAX: usize = 64;

/// Regions that may wait for such a thread.
const QUEUE_MAX: usize = 1_024;

/// How often a thread that sleeps for nobody does so once more.
const IDLE_SLEEPS: u32 = 2;

/// What stands on words.
pub(super) trait OnMemory {
    fn memory(&self) -> &Mapped;
}

impl OnMemory for Ring<Mapped> {
    fn memory(&self) -> &Mapped {
        &self.memory
    }
}

impl OnMemory for Log<Mapped> {
    fn memory(&self) -> &Mapped {
        &self.memory
    }
}

/// A region that this process has mapped.
#[derive(Debug)]
pub(super) struct Region<T> {
    pub(super) of: Arc<T>,
    comes: Ear,
    goes: Ear,
}

/// Those in this process who wait for a bell.
#[derive(Debug, Clone, Default)]
struct Ear(Arc<EarState>);

#[derive(Debug)]
struct EarState {
    /// Told when the bell rang, or may have.
    rang: watch::Sender<()>,
    /// Whether a thread sleeps at the bell, or is about to.
    sleeps: AtomicBool,
}

impl Default for EarState {
    fn default() -> Self {
        Self { rang: watch::Sender::new(()), sleeps: AtomicBool::new(false) }
    }
}

/// Tells who waits in this process, when it is dropped.
pub(super) struct Told<'a>(&'a Ear);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.call();
    }
}

/// The threads of a process that sleep at regions for its tasks. Clones share them.
#[derive(Clone)]
pub struct Sleepers {
    env: Env,
    pool: Pool,
}

impl Sleepers {
    /// None yet: they come when somebody waits, and end some seconds after the last one does.
    pub fn new(env: &Env) -> Self {
        Self { pool: env.pool("shared", THREADS_MAX, QUEUE_MAX), env: env.clone() }
    }
}

impl std::fmt::Debug for Sleepers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleepers").field("busy", &self.pool.busy()).finish_non_exhaustive()
    }
}

/// Makes the region `id` anew, whatever is there; `of` makes what stands on it, before anybody else sees it. All of its kind together may have `bytes_max`.
pub(super) fn create<T: OnMemory>(
    folder: &SharedFolder,
    kind: SharedKind,
    id: u64,
    (shape, words): ([u64; 2], usize),
    bytes_max: u64,
    of: impl FnOnce(Mapped) -> T,
) -> io::Result<Region<T>> {
    let lives = folder.ready()?;
    let before = folder.reserve(kind, id, words as u64 * 8, bytes_max)?;
    let whole = folder.file(kind, id);
    let coming = folder.path().join(format!(".{id:016x}.{}", kind.extension()));
    let make = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&coming)?;
        take_room(&file, words)?;
        let memory = Mapped::new(&file, words, lives)?;
        let header = [
            (MAGIC_AT, MAGIC),
            (KIND_AT, kind.number()),
            (ID_AT, id),
            (STORE_AT, folder.store()),
            (SHAPE_AT[0], shape[0]),
            (SHAPE_AT[1], shape[1]),
        ];
        header.into_iter().for_each(|(at, word)| memory.poke(at, word));
        let region = Region::new(of(memory));
        fs::rename(&coming, &whole)?;
        Ok(region)
    };
    let made = make();
    if made.is_err() {
        folder.unreserve(kind, id, before);
        // What cannot be removed now goes when the folder is opened.
        let _ = fs::remove_file(&coming);
    }
    made
}

/// Gives the file its length, and takes the room for it.
fn take_room(file: &File, words: usize) -> io::Result<()> {
    let bytes = words as u64 * 8;
    file.set_len(bytes)?;
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => io::copy(&mut io::repeat(0).take(bytes), &mut &*file).map(drop),
        Err(error) => Err(error.into()),
    }
}

/// Maps the region in `file`, which is there. `shaped` says how many words a region of such a shape has, and makes what stands on it.
pub(super) fn attach<T: OnMemory, F: FnOnce(Mapped) -> T>(
    file: &Path,
    kind: SharedKind,
    (store, id): (u64, u64),
    shaped: impl FnOnce([u64; 2]) -> Option<(usize, F)>,
) -> io::Result<Region<T>> {
    let other = || io::Error::new(io::ErrorKind::InvalidData, "it is no such region, or another");
    let mut options = OpenOptions::new();
    // What is no file, and would keep who opens it waiting, does not.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = options.read(true).write(true).custom_flags(flags.bits().cast_signed()).open(file)?;
    let found = opened.metadata()?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's, or no file"));
    }
    // What it was made as, once: whoever has it mapped may write there, too.
    let mut told = [0; TOLD_WORDS * 8];
    opened.read_exact_at(&mut told, 0)?;
    let (told, _) = told.as_chunks();
    let told = |at: usize| told.get(at).map_or(0, |word| u64::from_ne_bytes(*word));
    if [MAGIC_AT, KIND_AT, STORE_AT, ID_AT].map(told) != [MAGIC, kind.number(), store, id] {
        return Err(other());
    }
    let (words, of) = shaped(SHAPE_AT.map(told)).ok_or_else(other)?;
    let memory = Mapped::new(&opened, words, SharedFolder::lives_beside(file)?)?;
    Ok(Region::new(of(memory)))
}

impl<T: OnMemory> Region<T> {
    fn new(of: T) -> Self {
        Self { of: Arc::new(of), comes: Ear::default(), goes: Ear::default() }
    }

    fn memory(&self) -> &Mapped {
        self.of.memory()
    }

    fn ear(&self, bell: Bell) -> &Ear {
        if bell == COMES { &self.comes } else { &self.goes }
    }

    /// Tells those in this process who wait for the bell; the others were told by it.
    #[inline]
    pub(super) fn told(&self, bell: Bell) {
        self.ear(bell).call();
    }

    /// Tells them when what it gives is dropped.
    pub(super) fn tells(&self, bell: Bell) -> Told<'_> {
        Told(self.ear(bell))
    }

    pub(super) fn waiting(&self, bell: Bell) -> usize {
        self.ear(bell).0.rang.receiver_count()
    }

    pub(super) fn wake_here(&self) {
        self.comes.call();
        self.goes.call();
        // Those who sleep in their threads.
        COMES.ring(self.memory());
        GOES.ring(self.memory());
    }

    pub(super) fn flags(&self) -> u64 {
        self.memory().load(FLAGS_AT)
    }

    pub(super) fn change_flags(&self, set: u64, clear: u64) {
        let memory = self.memory();
        let mut now = memory.load(FLAGS_AT);
        while let Err(other) = memory.exchange(FLAGS_AT, now, (now | set) & !clear) {
            now = other;
        }
        self.wake_here();
    }
}

impl<T: OnMemory + Send + Sync + 'static> Region<T> {
    /// Waits until `look` finds something.
    pub(super) async fn wait<R>(
        &self,
        sleepers: &Sleepers,
        bell: Bell,
        mut look: impl FnMut() -> Option<R>,
    ) -> R {
        loop {
            // Before the look: whoever brings what it looks for after it tells this one.
            let mut rang = self.ear(bell).0.rang.subscribe();
            let heard = bell.listen(self.memory());
            if let Some(found) = look() {
                return found;
            }
            if sleepers.env.is_simulated() {
                // Threads that sleep would hold up all of it.
                sleepers.env.sleep(Duration::from_millis(1)).await;
                continue;
            }
            self.ear(bell).have_sleep(self.of.clone(), sleepers, bell, heard);
            // Also when there is no thread for it, or it had an end.
            let _ = sleepers.env.timeout(PATROL, rang.changed()).await;
        }
    }

    /// As [`wait`](Self::wait), in this thread, for so long. While `nothing` is all that is there it does not look, and the first `looks` it does not sleep.
    pub(super) fn wait_here<R>(
        &self,
        env: &Env,
        bell: Bell,
        within: Duration,
        looks: u32,
        nothing: impl Fn(&T) -> bool,
        mut look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        // What came before the caller knew what to look for.
        if let Some(found) = look() {
            return Some(found);
        }
        for _ in 0..looks {
            if !nothing(&self.of)
                && let Some(found) = look()
            {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        let deadline = env.now().checked_add(within);
        loop {
            let heard = bell.listen(self.memory());
            if let Some(found) = look() {
                return Some(found);
            }
            let left = deadline.map_or(PATROL, |deadline| deadline.saturating_duration_since(env.now()));
            if left.is_zero() {
                return None;
            }
            bell.sleep(self.memory(), heard, left);
        }
    }
}

impl Ear {
    #[inline]
    fn call(&self) {
        if self.0.rang.receiver_count() > 0 {
            self.0.rang.send_modify(|()| ());
        }
    }

    /// Sees to it that a thread sleeps at the bell for those who wait.
    fn have_sleep<T: OnMemory + Send + Sync + 'static>(
        &self,
        of: Arc<T>,
        sleepers: &Sleepers,
        bell: Bell,
        heard: Heard,
    ) {
        // Orders nothing by itself: who finds a thread there was heard of by its next look at the bell.
        if self.0.sleeps.swap(true, Ordering::SeqCst) {
            return;
        }
        let (ear, pool) = (self.clone(), sleepers.pool.clone());
        sleepers.env.spawn("shared.sleep", async move {
            // Without a thread, who waits looks now and then.
            let _ = pool.run(move || ear.sleep(&*of, bell, heard)).await;
        });
    }

    /// Sleeps at the bell as long as somebody waits here, and tells them when it rang.
    fn sleep<T: OnMemory>(&self, of: &T, bell: Bell, mut heard: Heard) {
        let mut idle = 0;
        while idle < IDLE_SLEEPS {
            bell.sleep(of.memory(), heard, PATROL);
            // Before they are told: who begins to wait after that listens after this.
            heard = bell.listen(of.memory());
            self.call();
            idle = if self.0.rang.receiver_count() == 0 { idle + 1 } else { 0 };
        }
        self.0.sleeps.store(false, Ordering::SeqCst);
    }
}
