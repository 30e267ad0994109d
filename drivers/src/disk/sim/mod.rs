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
mod names;
mod orders;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DiskFile, Folder};
use chance::Chance;
pub use content::Kept;
use content::{Inode, Pending};
use names::{Names, Node, PendingName};
pub use orders::{Counts, Fault, Omission, Unsynced, UnsyncedChange};

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
    /// Takes room.
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
            Fault::Full => matches!(kind, Kind::Write | Kind::FileSync),
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
            Struck::Fault(Fault::Full) => Self::from(io::ErrorKind::StorageFull),
            // EIO.
            Struck::Fault(Fault::Error | Fault::Sync) => Self::from_raw_os_error(5),
        }
    }
}

#[derive(Debug)]
struct SimFolder {
    disk: SimDisk,
    number: u64,
    life: u64,
}

impl SimFolder {
    /// Changes a name. One that the power interrupts may be done or not; one that a fault strikes is not.
    fn change(
        &self,
        kind: Kind,
        change: impl FnOnce(&mut State) -> io::Result<PendingName>,
    ) -> io::Result<()> {
        self.disk.tell_watcher(self.life);
        let state = &mut *self.disk.0.lock();
        let begun = state.begin(self.life, kind);
        if matches!(begun, Err(Struck::Off | Struck::Fault(_))) {
            return Ok(begun?);
        }
        let change = change(state)?;
        state.names(self.number).change(change);
        Ok(begun?)
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

impl Folder for SimFolder {
    fn open(&self, name: &str, make: bool) -> io::Result<Arc<dyn DiskFile>> {
        let there = self.disk.0.lock().file_named(self.number, name);
        let number = match there {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                let mut number = 0;
                self.change(Kind::Write, |state| {
                    number = state.number();
                    state.files.insert(number, Inode::default());
                    Ok(PendingName::Made { name: name.into(), node: Node::File(number) })
                })?;
                number
            }
            there => {
                self.disk.0.lock().begin(self.life, Kind::Look)?;
                match there? {
                    Node::File(number) | Node::Folder(number) => number,
                }
            }
        };
        Ok(Arc::new(SimFile { disk: self.disk.clone(), number, life: self.life }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = &mut *self.disk.0.lock();
        state.begin(self.life, Kind::Look)?;
        let names = state.names(self.number).seen.iter();
        Ok(names.filter(|(_, node)| matches!(node, Node::File(_))).map(|(name, _)| name.clone()).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(Kind::Name, |state| {
            let node = state.file_named(self.number, from)?;
            Ok(PendingName::Moved { from: from.into(), to: to.into(), node })
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(Kind::Name, |state| {
            state.file_named(self.number, name)?;
            Ok(PendingName::Removed { name: name.into() })
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.tell_watcher(self.life);
        let state = &mut *self.disk.0.lock();
        let begun = state.begin(self.life, Kind::FolderSync);
        state.counts.folder_syncs += 1;
        if let Err(Struck::Fault(_)) = begun {
            let (chance, number) = (&mut state.chance, self.number);
            state.folders.entry(number).or_default().settle(|_| chance.kept());
        }
        begun?;
        if state.omission != Some(Omission::FolderSyncs) {
            state.names(self.number).settle(|_| Kept::All);
        }
        Ok(())
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Folder>> {
        let state = &mut *self.disk.0.lock();
        let number = match state.names(self.number).seen.get(name) {
            Some(Node::Folder(number)) => {
                let number = *number;
                state.begin(self.life, Kind::Look)?;
                number
            }
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => {
                state.begin(self.life, Kind::Write)?;
                let number = state.number();
                state.folders.insert(number, Names::default());
                let names = state.names(self.number);
                for names in [&mut names.seen, &mut names.durable] {
                    names.insert(name.into(), Node::Folder(number));
                }
                number
            }
        };
        Ok(Arc::new(Self { disk: self.disk.clone(), number, life: self.life }))
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let state = &mut *self.disk.0.lock();
        state.begin(self.life, Kind::Look)?;
        Ok(state.free_bytes)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    number: u64,
    life: u64,
}

impl SimFile {
    fn with<T>(&self, kind: Kind, job: impl FnOnce(&mut Inode, Result<(), Struck>) -> T) -> io::Result<T> {
        if kind != Kind::Look {
            self.disk.tell_watcher(self.life);
        }
        let state = &mut *self.disk.0.lock();
        let begun = state.begin(self.life, kind);
        if let Err(Struck::Off) = begun {
            begun?;
        }
        // It is there as long as its life lasts.
        let file = state.files.entry(self.number).or_default();
        let done = job(file, begun);
        begun?;
        Ok(done)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(Kind::Look, |file, _| file.seen.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let count = out.len() as u64;
        self.with(Kind::Look, |file, _| file.seen.read(offset, out))??;
        self.disk.0.lock().counts.bytes_read += count;
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(Kind::Write, |file, begun| match begun {
            Ok(()) | Err(Struck::PowerOff | Struck::Off) => file.write(offset, data),
            Err(Struck::Fault(_)) => file.write(offset, &data[..data.len() / 2]),
        })?;
        self.disk.0.lock().counts.writes += 1;
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(Kind::Write, |file, begun| {
            if !matches!(begun, Err(Struck::Fault(_))) {
                file.set_len(len);
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.tell_watcher(self.life);
        let state = &mut *self.disk.0.lock();
        let begun = state.begin(self.life, Kind::FileSync);
        state.counts.file_syncs += 1;
        if let Err(Struck::Fault(_)) = begun {
            let chance = &mut state.chance;
            state.files.entry(self.number).or_default().settle(|_| chance.kept());
        }
        begun?;
        match state.omission {
            Some(Omission::FileSyncs) => {}
            Some(Omission::PromptFileSyncs) => state.owed = Some(self.number),
            _ => state.flush(self.number),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(disk: &SimDisk, path: &str) -> String {
        String::from_utf8(disk.content(path).unwrap_or_default()).unwrap()
    }

    #[test]
    fn what_was_flushed_survives_every_crash_and_what_was_not_can_be_lost_kept_and_torn() {
        let disk = SimDisk::new(1);
        let folder = disk.folder();
        let file = folder.open("f", true).unwrap();
        file.write_at(0, &[1; 2_000]).unwrap();
        file.sync().unwrap();
        folder.sync().unwrap();
        file.write_at(1_000, &[2; 2_000]).unwrap();
        let mut outcomes = BTreeSet::new();
        for seed in 0..50 {
            let copy = disk.copy();
            copy.crash_by(seed);
            let content = copy.content("f").unwrap();
            assert!(content[..1_000].iter().all(|byte| *byte == 1), "seed {seed}");
            outcomes.insert(content);
        }
        assert!(outcomes.contains(&vec![1; 2_000]), "lost");
        assert!(outcomes.contains(&[vec![1; 1_000], vec![2; 2_000]].concat()), "kept");
        assert!(outcomes.contains(&[vec![1; 2_000], vec![0; 1_000]].concat()), "the length alone");
        assert!(outcomes.len() > 10, "torn");
    }

    #[test]
    fn names_are_durable_after_a_flush_of_their_folder_alone() {
        let disk = SimDisk::new(1);
        let folder = disk.folder();
        let file = folder.open("new", true).unwrap();
        file.write_at(0, b"x").unwrap();
        file.sync().unwrap();
        let lost = disk.copy();
        lost.crash_by(0);
        assert_eq!(lost.paths(), [""; 0]);
        folder.sync().unwrap();
        folder.rename("new", "moved").unwrap();
        for (seed, name) in [(0, "new"), (1, "moved")] {
            let copy = disk.copy();
            copy.crash_by(seed);
            assert_eq!(copy.paths(), [name]);
            assert_eq!(whole(&copy, name), "x");
        }
        folder.remove("moved").unwrap();
        file.write_at(0, b"y").unwrap();
        let mut read = [0];
        file.read_at(0, &mut read).unwrap();
        assert_eq!(read, *b"y", "who has it open goes on");
        assert_eq!(disk.unsynced(), 3);
    }

    #[test]
    fn a_flush_that_failed_is_not_made_good_by_a_second_one() {
        let mut lost = 0;
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            let folder = disk.folder();
            let file = folder.open("f", true).unwrap();
            folder.sync().unwrap();
            disk.fail_from(0, Fault::Sync, 1);
            file.write_at(0, b"one").unwrap();
            assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
            file.sync().unwrap();
            assert_eq!((whole(&disk, "f").as_str(), disk.counts().faults), ("one", 1), "readers see it");
            disk.crash_by(1);
            lost += usize::from(whole(&disk, "f") != "one");
        }
        assert!(lost > 5);
    }

    #[test]
    fn the_power_goes_off_within_a_change_and_an_earlier_life_changes_nothing() {
        let disk = SimDisk::new(1);
        let folder = disk.folder();
        let file = folder.open("f", true).unwrap();
        folder.sync().unwrap();
        disk.power_off_at(disk.counts().changes + 2);
        file.write_at(0, b"a").unwrap();
        assert!(file.write_at(1, b"b").is_err() && file.len().is_err() && folder.list().is_err());
        assert!(disk.is_off());
        disk.crash_by(1);
        assert_eq!(whole(&disk, "f"), "ab", "what was being done may be done");
        assert!(file.write_at(0, b"c").is_err() && folder.open("g", true).is_err());
        assert_eq!(disk.folder().list().unwrap(), ["f"]);
    }

    #[test]
    fn a_full_disk_refuses_what_takes_room() {
        let disk = SimDisk::new(1);
        let folder = disk.folder();
        let file = folder.open("f", true).unwrap();
        disk.fail_from(0, Fault::Full, u64::MAX);
        assert_eq!(file.write_at(0, b"ab").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(folder.open("g", true).is_err() && file.sync().is_err());
        assert_eq!(file.len().unwrap(), 1, "a part was done");
        folder.sync().unwrap();
        folder.remove("f").unwrap();
        disk.heal();
        folder.open("g", true).unwrap();
    }

    #[test]
    fn a_driver_that_leaves_flushes_out_loses_what_it_promised() {
        let kept = |omission| {
            let disk = SimDisk::new(1);
            disk.leave_out(omission);
            let folder = disk.folder();
            let file = folder.open("f", true).unwrap();
            file.write_at(0, b"one").unwrap();
            file.sync().unwrap();
            folder.sync().unwrap();
            let second = disk.folder().open("g", true).unwrap();
            second.write_at(0, b"two").unwrap();
            second.sync().unwrap();
            disk.crash_by(0);
            (whole(&disk, "f"), disk.paths().len())
        };
        assert_eq!(kept(Omission::FileSyncs), (String::new(), 1));
        assert_eq!(kept(Omission::FolderSyncs), (String::new(), 0));
        assert_eq!(kept(Omission::PromptFileSyncs), ("one".into(), 1));
    }

    #[test]
    fn who_watches_sees_each_point_at_which_the_power_can_go_off() {
        let work = |disk: &SimDisk| -> io::Result<()> {
            let folder = disk.folder();
            let file = folder.open("f", true)?;
            file.write_at(0, &[1; 700])?;
            file.sync()?;
            folder.sync()?;
            file.write_at(600, &[2; 700])?;
            folder.rename("f", "g")?;
            file.set_len(900)?;
            folder.remove("g")
        };
        let crashed = |disk: SimDisk| {
            (0..6).map(move |seed| {
                let disk = disk.copy();
                disk.crash_by(seed);
                disk.fingerprint()
            })
        };
        let watched = SimDisk::new(1);
        let seen: Arc<Mutex<Vec<SimDisk>>> = Arc::default();
        let seeing = seen.clone();
        watched.watch(move |disk| seeing.lock().push(disk.copy()));
        work(&watched).unwrap();
        watched.unwatch();
        seen.lock().push(watched);
        let by_watching: BTreeSet<_> = seen.lock().drain(..).flat_map(crashed).collect();
        let mut by_power = BTreeSet::new();
        for change in 1.. {
            let disk = SimDisk::new(1);
            disk.power_off_at(change);
            let done = work(&disk);
            by_power.extend(crashed(disk));
            if done.is_ok() {
                break;
            }
        }
        assert!(by_power.is_subset(&by_watching) && by_power.len() > 20, "{}", by_power.len());
    }

    #[test]
    fn damage_is_seen_and_stays() {
        let disk = SimDisk::new(1);
        let file = disk.folder().folder("sub").unwrap().open("f", true).unwrap();
        file.write_at(0, b"abc").unwrap();
        file.sync().unwrap();
        disk.folder().folder("sub").unwrap().sync().unwrap();
        assert!(disk.damage("sub/f", 1, |byte| byte ^ 1, 1));
        assert!(!disk.damage("sub/f", 3, |byte| byte, 1) && !disk.damage("f", 0, |byte| byte, 1));
        disk.crash_by(0);
        assert_eq!(whole(&disk, "sub/f"), "acc");
    }
}
