//! What the kernel knows of itself: its actors, its mounts.
//!
//! In the process of the kernel it is looked at directly, from elsewhere through the files below `/__sys__/`.

use nexus_kernel::MountStatus;
use nexus_kernel::sys::{ALL, ActorEntry, ROOT, SELF};
use nexus_messages::syscall::{SysRead, SysWrite};
use nexus_messages::{Error, ErrorKind, Op, Result};
use nexus_supervisors::Kill;
use serde::de::DeserializeOwned;

use crate::handle::{Link, Nexus, path};

impl Nexus {
    /// The supervision tree as it is now. Asks no actor.
    ///
    /// # Errors
    /// On an [attached](crate::attach()) handle: `EACCES` unless it is an administrator's, and what keeps the kernel from being asked.
    pub async fn tree(&self) -> Result<ActorEntry> {
        match &self.link {
            Link::Local(machine) => Ok(ActorEntry::tree(&machine.tree.snapshot(), "")),
            Link::Remote(_) => self.shown("actors").await,
        }
    }

    /// Hurts the actor at `path` of the tree, such as `nexus/kernel/router`, to see what becomes of it. Does not wait for that; false when there is no such
    /// actor. It is a write to `/__sys__/actors/`, and passes what writes pass: the gate, hooks, what is counted.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle, or the gate refuses it; what a hook says.
    pub async fn kill(&self, path: &str, how: Kill) -> Result<bool> {
        self.administrator(Op::Kill)?;
        match (self.tell_actor(path, how).await, &self.link) {
            // A kernel that has ended has no actors.
            (Err(_), Link::Local(machine)) if machine.is_stopping() => Ok(false),
            (told, _) => told,
        }
    }

    /// The mounts and how they are. Asks no actor.
    ///
    /// # Errors
    /// On an [attached](crate::attach()) handle: `EACCES` unless it is an administrator's, and what keeps the kernel from being asked.
    pub async fn mounts(&self) -> Result<Vec<MountStatus>> {
        match &self.link {
            Link::Local(machine) => Ok(machine.kernel.mount_statuses()),
            Link::Remote(_) => self.shown("mounts").await,
        }
    }

    /// All that a directory of `/__sys__/` shows, as one.
    pub(super) async fn shown<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let file = path(Op::Read, format!("{ROOT}/{name}/{ALL}"))?;
        let read = self.send(SysRead::at(&file)).await?;
        serde_json::from_slice(&read.data)
            .map_err(|why| Error::new(Op::Read, &file, ErrorKind::Io).because(why))
    }

    async fn tell_actor(&self, actor: &str, how: Kill) -> Result<bool> {
        let word = how.to_string();
        let tell = async |file: String| self.send(SysWrite::at(path(Op::Kill, file)?, word.clone())).await;
        let told = match tell(format!("{ROOT}/actors/{actor}")).await {
            // A supervisor is a directory of its children.
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                tell(format!("{ROOT}/actors/{actor}/{SELF}")).await
            }
            told => told,
        };
        match told.map_err(|error| error.during(Op::Kill)) {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::Busy
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
