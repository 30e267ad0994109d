//! A region: a file that processes map, and who sleeps at it in this one.
//!
//! A file comes to be under another name, and is whole when it has its own. Its room is taken at once, so that a file system that is full is told by who makes the
//! file, and not by the end of the process that touches it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use tokio::sync::watch;

use super::bell::{Bell, Heard, PATROL};
use super::layout::{
    COMES, FLAGS_AT, GOES, HEADER_WORDS, ID_AT, KIND_AT, MAGIC, MAGIC_AT, PROCESSES_AT, READERS, SHAPE_AT,
    STORE_AT, WRITERS,
};
use super::log::Log;
use super::mapped::{self, Mapped, namespace};
use super::memory::Memory;
use super::ring::Ring;
use crate::{Env, Pool};

/// Threads of a process that sleep for those of its tasks that wait; each is for one region and one side of it. Who has none looks every [`PATROL`].
const THREADS_MAX: usize = 64;

/// Regions that may wait for such a thread.
const QUEUE_MAX: usize = 1_024;

/// How often a thread that sleeps for nobody does so once more.
const IDLE_SLEEPS: u32 = 2;

/// What a region holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedKind {
    /// Messages, each read once.
    Pipe,
    /// Records, read from any place.
    Log,
}

impl SharedKind {
    fn number(self) -> u64 {
        match self {
            Self::Pipe => 1,
            Self::Log => 2,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Log => "stream",
        }
    }
}

/// Where the regions of one store are. Only its owner makes and removes them; others of the same user map what is there. Clones are the same folder.
#[derive(Debug, Clone)]
pub struct SharedFolder(Arc<Place>);

#[derive(Debug)]
struct Place {
    path: PathBuf,
    store: u64,
    home: SharedHome,
    made: OnceLock<()>,
}

/// What a folder of regions belongs to: with that gone, it is left over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedHome {
    /// This process.
    Process,
    /// The store whose identity is in this file, in sixteen hexadecimal digits.
    File(PathBuf),
}

/// The file in the folder that says what it belongs to.
const HOME: &str = "home";

/// The most entries that are looked at for folders that are left over.
const LOOKED_AT_MAX: usize = 10_000;

impl SharedFolder {
    /// The folder for the regions of this store, in `root`, for this user alone. It is made when the first region is. To be called by the one owner of the store.
    pub fn new(root: impl AsRef<Path>, store: u64, home: SharedHome) -> Self {
        let path = root.as_ref().join(format!("{}{store:016x}", prefix()));
        Self(Arc::new(Place { path, store, home, made: OnceLock::new() }))
    }

    /// Removes the folders in `root` that are left over: what they belong to is gone. Returns how many. Blocks.
    ///
    /// # Errors
    /// What the system says of `root`; what cannot be removed stays.
    pub fn remove_left_over(root: impl AsRef<Path>) -> io::Result<usize> {
        let (prefix, view, mut removed) = (prefix(), mapped::view()?, 0);
        for entry in fs::read_dir(root)?.take(LOOKED_AT_MAX) {
            let entry = entry?;
            let name = entry.file_name();
            let Some(store) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
            let Ok(home) = fs::read_to_string(entry.path().join(HOME)) else { continue };
            // What is not there, or not alive, for this process may be for who made the folder.
            let Some((of, home)) = home.split_once(' ') else { continue };
            let is_ours = u64::from_str_radix(of, 16).is_ok_and(|of| of == view);
            let is_left = match home.split_once(' ') {
                Some(("process", process)) => process.parse().is_ok_and(mapped::is_dead),
                Some(("file", file)) => fs::read_to_string(file).map_or_else(
                    |error| error.kind() == io::ErrorKind::NotFound,
                    |told| told.split_whitespace().next() != Some(store),
                ),
                _ => false,
            };
            let is_left = is_ours && is_left;
            if is_left && fs::remove_dir_all(entry.path()).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Makes the folder if it is not there; what was never finished in it is removed.
    fn ready(&self) -> io::Result<()> {
        let Place { path, home, made, .. } = &*self.0;
        if made.get().is_some() {
            return Ok(());
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(path)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            let why = "it is another user's, or no folder";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                fs::remove_file(entry.path())?;
            }
        }
        let home = match home {
            SharedHome::Process => format!("process {}", mapped::myself()?),
            SharedHome::File(file) => format!("file {}", file.display()),
        };
        fs::write(path.join(HOME), format!("{:016x} {home}", mapped::view()?))?;
        made.get_or_init(|| ());
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The identity of the store.
    pub fn store(&self) -> u64 {
        self.0.store
    }

    /// The file of a region.
    pub fn file(&self, kind: SharedKind, id: u64) -> PathBuf {
        self.0.path.join(format!("{id:016x}.{}", kind.extension()))
    }

    /// The identities of all regions of this kind, in their order. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub fn ids(&self, kind: SharedKind) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        let entries = match fs::read_dir(&self.0.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(kind.extension())?.strip_suffix('.'));
            ids.extend(id.and_then(|id| u64::from_str_radix(id, 16).ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes a region's file, and says whether there was one. Who has it mapped keeps it. Blocks. Repeat: safe.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, kind: SharedKind, id: u64) -> io::Result<bool> {
        match fs::remove_file(self.file(kind, id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the folder with all that is in it. Blocks. Repeat: safe.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_all(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// How the names of this user's folders begin.
fn prefix() -> String {
    format!("nexus-{}-", rustix::process::geteuid().as_raw())
}

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

/// Makes the region `id` anew, whatever is there; `of` makes what stands on it, before anybody else sees it.
pub(super) fn create<T: OnMemory>(
    folder: &SharedFolder,
    kind: SharedKind,
    id: u64,
    shape: [u64; 2],
    words: usize,
    of: impl FnOnce(Mapped) -> T,
) -> io::Result<Region<T>> {
    folder.ready()?;
    let whole = folder.file(kind, id);
    let coming = folder.path().join(format!(".{id:016x}.{}", kind.extension()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&coming)?;
    let made = take_room(&file, words).and_then(|()| Mapped::new(&file, words)).and_then(|memory| {
        let header = [
            (MAGIC_AT, MAGIC),
            (KIND_AT, kind.number()),
            (ID_AT, id),
            (STORE_AT, folder.store()),
            (PROCESSES_AT, namespace()?),
            (SHAPE_AT[0], shape[0]),
            (SHAPE_AT[1], shape[1]),
        ];
        header.into_iter().for_each(|(at, word)| memory.poke(at, word));
        let region = Region::new(of(memory));
        fs::rename(&coming, &whole)?;
        Ok(region)
    });
    if made.is_err() {
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

/// Maps the region in `file`, which is there. `shaped` says how many words a region of such a shape has, and makes what stands on it. `owns` is whether the caller
/// owns the folder: then nobody else lives who knew its processes by other numbers.
pub(super) fn attach<T: OnMemory, F: FnOnce(Mapped) -> T>(
    file: &Path,
    kind: SharedKind,
    (store, id): (u64, u64),
    owns: bool,
    shaped: impl FnOnce([u64; 2]) -> Option<(usize, F)>,
) -> io::Result<Region<T>> {
    let other = || io::Error::new(io::ErrorKind::InvalidData, "it is no such region, or another");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(file)?;
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's, or no file"));
    }
    let header = Mapped::new(&file, HEADER_WORDS)?;
    let told = [MAGIC_AT, KIND_AT, STORE_AT, ID_AT].map(|at| header.load(at));
    if told != [MAGIC, kind.number(), store, id] {
        return Err(other());
    }
    let (words, of) = shaped(SHAPE_AT.map(|at| header.load(at))).ok_or_else(other)?;
    let memory = Mapped::new(&file, words)?;
    let here = namespace()?;
    if memory.load(PROCESSES_AT) != here {
        if !owns {
            let why = "it is shared by processes that cannot see each other";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        // The machine was started since, or all of them were elsewhere: who held a lock then is gone.
        [WRITERS, READERS].into_iter().for_each(|lock| memory.store(lock.holder, 0));
        memory.store(PROCESSES_AT, here);
    }
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
