//! What a driver holds of the simulated disk: folders and files, each of one life of the machine.

use std::io;
use std::sync::Arc;

use super::content::{Inode, Kept};
use super::names::{Names, Node, PendingName};
use super::orders::Omission;
use super::{Kind, SimDisk, State, Struck};
use crate::disk::{DiskFile, Folder};

#[derive(Debug)]
pub(super) struct SimFolder {
    pub(super) disk: SimDisk,
    pub(super) number: u64,
    pub(super) life: u64,
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
                state.begin(self.life, Kind::Growth)?;
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
    /// What a write is that ends at `end`.
    fn writes_to(&self, end: u64) -> Kind {
        let state = self.disk.0.lock();
        let there = state.files.get(&self.number).map_or(0, |file| file.seen.len());
        if end > there { Kind::Growth } else { Kind::Write }
    }

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
        self.with(self.writes_to(offset + data.len() as u64), |file, begun| match begun {
            Ok(()) | Err(Struck::PowerOff | Struck::Off) => file.write(offset, data),
            Err(Struck::Fault(_)) => file.write(offset, &data[..data.len() / 2]),
        })?;
        self.disk.0.lock().counts.writes += 1;
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(self.writes_to(len), |file, begun| {
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
