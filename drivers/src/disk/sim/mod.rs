//! A disk in memory that does to its driver whatever a disk may do: it loses, tears and reorders what was not flushed, and fails on demand.
//!
//! Files and names have two states: what is seen, and what is on disk. [`SimDisk::crash`] brings the second about, with what somebody chose of
//! all that was not flushed. Handles from before a crash are dead, so that what a driver of an earlier life still does changes nothing.
//!
//! A flush that fails leaves a part of the file's changes on disk, forgets the others, and lets readers see all of them: a second flush of the
//! same file succeeds, and has written nothing. Linux does so.
//!
//! [`SimDisk::leave_out`] breaks the driver on purpose, without a change to its code: a test of a driver that does not turn red then is none.
//!
//! ```
//! use nexus_drivers::disk::Folder;
//! use nexus_drivers::disk::sim::{Kept, SimDisk};
//!
//! let disk = SimDisk::new(1);
//! let file = disk.folder().open("a", true)?;
//! file.write_at(0, b"one")?;
//! file.sync()?;
//! disk.folder().sync()?;
//! file.write_at(0, b"two")?;
//! disk.crash(|_| Kept::Nothing);
//! assert!(file.len().is_err(), "a handle of an earlier life");
//! assert_eq!(disk.content("a").as_deref(), Some(&b"one"[..]));
//! # Ok::<(), std::io::Error>(())
//! ```

mod chance;
mod content;
mod handles;
mod names;
mod orders;
mod outcome;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Folder;
use chance::Chance;
pub use content::Kept;
use content::{Inode, Pending};
use handles::SimFolder;
use names::{Names, Node};
pub use orders::{Counts, Fault, Omission, Unsynced, UnsyncedChange};
pub use outcome::Outcome;

const ROOT: u64 = 0;

/// A disk in memory, with one folder at its root. Clones are the same disk; [`copy`](Self::copy) makes another.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct State {
    files: BTreeMap<u64, Inode>,
    folders: BTreeMap<u64, Names>,
    next_number: u64,
    /// Handles know in which life they were made.
    life: u64,
    off: bool,
    off_at: Option<u64>,
    plan: Option<Plan>,
    omission: Option<Omission>,
    /// A file whose flush is owed.
    owed: Option<u64>,
    free_bytes: Option<u64>,
    chance: Chance,
    counts: Counts,
    watcher: Option<Watcher>,
}

/// Who is shown the disk before each change.
type Watcher = Arc<dyn Fn(&SimDisk) + Send + Sync>;

#[derive(Debug, Clone, Copy)]
struct Plan {
    from: u64,
    fault: Fault,
    times: u64,
}

/// What an operation is, for the faults that can strike it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Look,
    /// Takes more room.
    Growth,
    /// Takes room, on some disks.
    Write,
    /// Takes none.
    Name,
    FileSync,
    FolderSync,
}

impl SimDisk {
    /// An empty disk. Of a flush that fails, `seed` chooses what is done.
    pub fn new(seed: u64) -> Self {
        let state = State {
            files: BTreeMap::new(),
            folders: BTreeMap::from([(ROOT, Names::default())]),
            next_number: ROOT + 1,
            life: 0,
            off: false,
            off_at: None,
            plan: None,
            omission: None,
            owed: None,
            free_bytes: None,
            chance: Chance::new(seed),
            counts: Counts::default(),
            watcher: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Another disk, as this one is now, what was not flushed included. Handles stay with this one, and so does who watches it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = State { watcher: None, ..self.0.lock().clone() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Shows the disk to `watcher` before each change, in the middle of whatever makes it: a [`copy`](Self::copy) that is made there can crash as the
    /// disk could at that point, so one run gives them all. The watcher must change nothing here, and wait for nobody. A crash ends it.
    pub fn watch(&self, watcher: impl Fn(&Self) + Send + Sync + 'static) {
        let before = self.0.lock().watcher.replace(Arc::new(watcher));
        // Not under the lock: what it holds may use the disk when it ends.
        drop(before);
    }

    /// Ends the watch.
    pub fn unwatch(&self) {
        let before = self.0.lock().watcher.take();
        drop(before);
    }

    fn tell_watcher(&self, life: u64) {
        let watcher = {
            let state = self.0.lock();
            state.watcher.clone().filter(|_| !state.off && state.life == life)
        };
        if let Some(watcher) = watcher {
            watcher(self);
        }
    }

    /// Makes the flush that is owed under [`Omission::PromptFileSyncs`].
    pub fn catch_up(&self) {
        let life = self.0.lock().life;
        self.tell_watcher(life);
        let state = &mut *self.0.lock();
        if let Some(file) = state.owed.take() {
            state.flush(file);
        }
    }

    /// What tells this disk, as it is seen, from others: two that have the same hold the same files with the same content.
    pub fn fingerprint(&self) -> [u8; 32] {
        let state = self.0.lock();
        let mut paths = state.paths(|names| &names.seen);
        paths.sort_by(|(_, one), (_, other)| one.cmp(other));
        let mut hasher = blake3::Hasher::new();
        for (node, path) in paths {
            hasher.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes());
            if let Node::File(number) = node {
                state.files[&number].seen.fingerprint(&mut hasher);
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// The folder at the root.
    pub fn folder(&self) -> Arc<dyn Folder> {
        Arc::new(SimFolder { disk: self.clone(), number: ROOT, life: self.0.lock().life })
    }

    /// How often the disk was asked for what.
    pub fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// The change with this number, counted as in [`Counts::changes`] from 1 on, is begun and does not return well, and nothing after it does,
    /// until there was a crash. So a loop over the numbers crashes a driver at every point at which it can.
    pub fn power_off_at(&self, change: u64) {
        self.0.lock().off_at = Some(change);
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// The first `times` operations that the fault can strike fail, from the one with the number `from` on, counted as in
    /// [`Counts::operations`]. Takes the place of an earlier plan.
    pub fn fail_from(&self, from: u64, fault: Fault, times: u64) {
        self.0.lock().plan = Some(Plan { from, fault, times });
    }

    /// Takes the plan of faults back.
    pub fn heal(&self) {
        self.0.lock().plan = None;
    }

    /// Breaks the driver on purpose; nothing repairs it.
    pub fn leave_out(&self, omission: Omission) {
        self.0.lock().omission = Some(omission);
    }

    /// What [`Folder::free_bytes`] says from now on.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.0.lock().free_bytes = bytes;
    }

    /// How much is not flushed: how often a crash asks what becomes of something.
    pub fn unsynced(&self) -> usize {
        let state = self.0.lock();
        let files: usize = state.files.values().map(|file| file.pending.len()).sum();
        files + state.folders.values().map(|names| names.pending.len()).sum::<usize>()
    }

    /// The machine stops and starts again. Of what was not flushed, `keep` chooses what is on disk, in the order of the files, each in the order
    /// of its changes, and then of the folders. The power is on again, and no fault is planned.
    pub fn crash(&self, keep: impl FnMut(&Unsynced) -> Kept) {
        self.0.lock().crash(keep);
        self.unwatch();
    }

    /// As [`crash`](Self::crash); 0 keeps nothing, 1 keeps all, and any other number chooses for each change by itself.
    pub fn crash_by(&self, seed: u64) {
        let mut chance = Chance::new(seed);
        self.crash(|_| match seed {
            0 => Kept::Nothing,
            1 => Kept::All,
            _ => chance.kept(),
        });
    }

    /// The process is killed, and the machine goes on: handles are dead, and what was not flushed is seen as before, and may be lost later. The
    /// power is on again, and no fault is planned.
    pub fn kill(&self) {
        self.0.lock().begin_life();
        self.unwatch();
    }

    /// The path of every file that is seen.
    pub fn paths(&self) -> Vec<String> {
        let state = self.0.lock();
        state
            .paths(|names| &names.seen)
            .into_iter()
            .filter(|(node, _)| matches!(node, Node::File(_)))
            .map(|(_, path)| path)
            .collect()
    }

    /// What is seen in the file at `path`.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let file = &state.files[&state.find(path)?];
        let mut content = vec![0; usize::try_from(file.seen.len()).ok()?];
        file.seen.read(0, &mut content).ok()?;
        Some(content)
    }

    /// Changes bytes of the file at `path` behind its driver's back, on disk and as seen. Says whether there are such bytes.
    pub fn damage(&self, path: &str, offset: u64, how: impl Fn(u8) -> u8, count: u64) -> bool {
        let mut state = self.0.lock();
        let Some(number) = state.find(path) else { return false };
        let Some(file) = state.files.get_mut(&number) else { return false };
        for pages in [&mut file.seen, &mut file.durable] {
            for at in offset..offset.saturating_add(count) {
                let mut byte = [0];
                if pages.read(at, &mut byte).is_err() {
                    return false;
                }
                pages.write(at, &[how(byte[0])]);
            }
        }
        true
    }
}

impl Chance {
    fn kept(&mut self) -> Kept {
        match self.below(3) {
            0 => Kept::Nothing,
            1 => Kept::All,
            _ => Kept::Torn(self.next()),
        }
    }
}

impl State {
    /// What leads to each file and folder, in one of the two states.
    fn paths(&self, which: impl Fn(&Names) -> &BTreeMap<String, Node>) -> Vec<(Node, String)> {
        let mut found = Vec::new();
        let mut open = vec![(ROOT, String::new())];
        while let Some((number, path)) = open.pop() {
            for (name, node) in which(&self.folders[&number]) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if let Node::Folder(number) = node {
                    open.push((*number, path.clone()));
                }
                found.push((*node, path));
            }
        }
        found
    }

    fn find(&self, path: &str) -> Option<u64> {
        let (mut folder, mut names) = (ROOT, path.split('/').peekable());
        while let Some(name) = names.next() {
            match (self.folders[&folder].seen.get(name)?, names.peek()) {
                (Node::Folder(number), Some(_)) => folder = *number,
                (Node::File(number), None) => return Some(*number),
                _ => return None,
            }
        }
        None
    }

    fn crash(&mut self, mut keep: impl FnMut(&Unsynced) -> Kept) {
        let paths = [self.paths(|names| &names.durable), self.paths(|names| &names.seen)].concat();
        let path_of =
            |node| paths.iter().find(|(at, _)| *at == node).map(|(_, path)| path.clone()).unwrap_or_default();
        for (number, file) in &mut self.files {
            let path = path_of(Node::File(*number));
            file.settle(|pending| {
                let what = match pending {
                    Pending::Data { offset, data } => {
                        UnsyncedChange::Data { offset: *offset, count: data.len() }
                    }
                    Pending::Grown { len } | Pending::Length { len } => UnsyncedChange::Length { len: *len },
                };
                keep(&Unsynced { path: path.clone(), what })
            });
            file.seen = file.durable.clone();
        }
        for (number, names) in &mut self.folders {
            let path = path_of(Node::Folder(*number));
            names.settle(|_| keep(&Unsynced { path: path.clone(), what: UnsyncedChange::Name }));
            names.seen = names.durable.clone();
        }
        let named: BTreeSet<u64> = self
            .folders
            .values()
            .flat_map(|names| names.seen.values())
            .filter_map(|node| if let Node::File(number) = node { Some(*number) } else { None })
            .collect();
        self.files.retain(|number, _| named.contains(number));
        self.begin_life();
    }

    fn begin_life(&mut self) {
        (self.off, self.off_at, self.plan, self.owed) = (false, None, None, None);
        self.life += 1;
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// An operation begins. Gives how it ends: badly, when it is the one at which the power goes off or that a fault strikes.
    fn begin(&mut self, life: u64, kind: Kind) -> Result<(), Struck> {
        if self.off || life != self.life {
            return Err(Struck::Off);
        }
        self.counts.operations += 1;
        if kind != Kind::Look {
            self.counts.changes += 1;
            if self.off_at.is_some_and(|at| self.counts.changes >= at) {
                self.off = true;
                return Err(Struck::PowerOff);
            }
            if let Some(file) = self.owed.take() {
                self.flush(file);
            }
        }
        let Some(plan) = &mut self.plan else { return Ok(()) };
        let strikes = match plan.fault {
            Fault::Error => true,
            Fault::Full => matches!(kind, Kind::Growth | Kind::Write | Kind::FileSync),
            Fault::Growth => kind == Kind::Growth,
            Fault::Sync => matches!(kind, Kind::FileSync | Kind::FolderSync),
        };
        if !strikes || plan.times == 0 || self.counts.operations < plan.from {
            return Ok(());
        }
        plan.times -= 1;
        self.counts.faults += 1;
        Err(Struck::Fault(plan.fault))
    }

    fn flush(&mut self, file: u64) {
        if let Some(file) = self.files.get_mut(&file) {
            file.settle(|_| Kept::All);
        }
    }
}

/// How an operation ends badly.
#[derive(Debug, Clone, Copy)]
enum Struck {
    /// Nothing is done: the machine is off, or it is another life.
    Off,
    /// The power goes off while it is done.
    PowerOff,
    Fault(Fault),
}

impl From<Struck> for io::Error {
    fn from(struck: Struck) -> Self {
        match struck {
            Struck::Off | Struck::PowerOff => Self::other("the power is off"),
            Struck::Fault(Fault::Full | Fault::Growth) => Self::from(io::ErrorKind::StorageFull),
            // EIO.
            Struck::Fault(Fault::Error | Fault::Sync) => Self::from_raw_os_error(5),
        }
    }
}

impl State {
    fn names(&mut self, folder: u64) -> &mut Names {
        self.folders.entry(folder).or_default()
    }

    fn file_named(&mut self, folder: u64, name: &str) -> io::Result<Node> {
        match self.names(folder).seen.get(name) {
            Some(node @ Node::File(_)) => Ok(*node),
            Some(Node::Folder(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
