//! Pipes in memory that processes share: where they are, and how another process uses one.
//!
//! The process that owns the kernel makes the file, says in it what has become of the pipe, and removes it. Another one maps it, when it may, and then reads and writes by
//! itself, also when the owner is dead: a kernel that is booted again finds the file, and what is in it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, Pool, SHARED_LOOKS, SharedFolder, SharedKind, SharedPipe, Sleepers};
use nexus_messages::syscall::{IoProfile, PipeSpec};
use nexus_messages::{Error, ErrorKind, FileId, FileMetadata, Op, Result, VPath};
use serde::{Deserialize, Serialize};

use super::PIPES_BYTES_MAX;
use super::body::wait_for;
use super::pipe::{Pipe, Refusal};
use crate::kernel::Kernel;

/// Pipes that may wait to be made.
const MAKES_MAX: usize = 256;

/// Where the shared memory of a kernel is.
#[derive(Clone)]
pub(crate) struct SharedPlace {
    pub(crate) folder: SharedFolder,
    pub(crate) sleepers: Sleepers,
    /// One thread, so that each file is made once.
    makers: Pool,
}

/// Where a pipe, or a stream, is in memory that processes share: what another process needs to map it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SharedRegion {
    /// The file, in the host's file system.
    pub file: String,
    /// The identity of the kernel's store.
    pub store: u64,
    /// What the entry is.
    pub metadata: Arc<FileMetadata>,
}

impl SharedRegion {
    pub(crate) fn new(folder: &SharedFolder, kind: SharedKind, metadata: &Arc<FileMetadata>) -> Option<Self> {
        let file = folder.file(kind, metadata.file_id.0).to_str()?.to_owned();
        Some(Self { file, store: folder.store(), metadata: metadata.clone() })
    }
}

impl Kernel {
    /// Gives the kernel a folder for memory that processes share. To be called once, before the tree runs; a kernel without it makes no such pipes.
    pub fn set_shared_memory(&self, folder: SharedFolder, sleepers: Sleepers) {
        let makers = self.env().pool("shared.make", 1, MAKES_MAX);
        self.pipes().set_shared(SharedPlace { folder, sleepers, makers });
    }

    /// The threads that sleep at memory that processes share, for all tasks of this kernel.
    pub fn sleepers(&self) -> Option<&Sleepers> {
        self.pipes().shared().map(|place| &place.sleepers)
    }

    /// Why no pipe can be made so; else its placement.
    pub(crate) fn place_pipe(
        &self,
        spec: PipeSpec,
    ) -> std::result::Result<crate::namespace::Placement, &'static str> {
        match spec.io_profile {
            IoProfile::Memory => Ok(crate::namespace::Placement::None),
            IoProfile::Shared if self.pipes().shared().is_some() => {
                Ok(crate::namespace::Placement::Shared { age_max_ms: 0 })
            }
            IoProfile::Shared => Err("this kernel has no memory that processes share"),
            IoProfile::Stdio => Ok(crate::namespace::Placement::Stdio { durable: false, age_max_ms: 0 }),
            _ => Err("this kernel does not know such pipes"),
        }
    }
}

impl SharedPlace {
    /// The pipe `id`, with what is in it.
    pub(crate) async fn make(&self, id: FileId, spec: PipeSpec) -> std::result::Result<SharedPipe, Refusal> {
        let folder = self.folder.clone();
        let make =
            move || SharedPipe::make(&folder, id.0, spec.capacity, spec.messages_max(), PIPES_BYTES_MAX);
        match self.makers.run(make).await {
            Ok(Ok(pipe)) => Ok(pipe),
            Ok(Err(error)) => Err(Refusal::NotMade(error.kind(), error.to_string().into())),
            Err(error) => Err(Refusal::NotMade(std::io::ErrorKind::Other, error.to_string().into())),
        }
    }

    /// Removes what is left of these pipes.
    pub(super) async fn remove(&self, ids: Vec<FileId>) {
        let folder = self.folder.clone();
        let remove = move || {
            for id in ids {
                if let Err(error) = folder.remove(SharedKind::Pipe, id.0) {
                    tracing::warn!(%id, %error, "the memory of a pipe that is gone is still there");
                }
            }
        };
        if let Err(error) = self.makers.run(remove).await {
            // The next boot finds what has no entry.
            tracing::debug!(%error, "the memory of pipes that are gone stays for now");
        }
    }
}

/// A pipe in memory that processes share, as one of them uses it that does not own the kernel. It goes on when the owner dies.
///
/// Whether the caller may was decided when it was mapped. Who reads and writes here is not counted, and asks nobody.
pub struct MappedPipe {
    pipe: SharedPipe,
    sleepers: Sleepers,
    path: VPath,
}

impl MappedPipe {
    /// Maps the pipe at `path`. Blocks for a moment.
    ///
    /// # Errors
    /// What the system says, and what is told of a file that is no such pipe.
    pub fn map(region: &SharedRegion, path: &VPath, sleepers: &Sleepers) -> std::io::Result<Self> {
        let id = region.metadata.file_id.0;
        let pipe = SharedPipe::attach(std::path::Path::new(&region.file), region.store, id)?;
        Ok(Self { pipe, sleepers: sleepers.clone(), path: path.clone() })
    }

    fn fail(&self, op: Op, refusal: &Refusal) -> Error {
        Error::new(op, &self.path, refusal.kind()).because(refusal)
    }

    fn state(&self) -> u8 {
        #[expect(clippy::cast_possible_truncation, reason = "the owner sets no others")]
        let state = self.pipe.flags() as u8;
        state
    }

    fn try_read(&self) -> std::result::Result<Bytes, Refusal> {
        // Before the look: what the last writer wrote before it went away is read first.
        let state = self.state();
        match Pipe::ended(state) {
            Some(Err(gone)) => Err(gone),
            ended => match self.pipe.try_pop()? {
                Some(message) => Ok(message),
                None => ended.unwrap_or(Err(Refusal::Empty)),
            },
        }
    }

    fn try_write(&self, message: &[u8]) -> std::result::Result<(), Refusal> {
        if let Some(refusal) = Pipe::refused(self.state()) {
            return Err(refusal);
        }
        let (length, capacity) = (message.len(), self.pipe.capacity());
        if length > capacity as usize {
            return Err(Refusal::TooLarge { length, capacity });
        }
        if self.pipe.try_push(message)? { Ok(()) } else { Err(Refusal::Full) }
    }

    /// The next message, which it waits for so long, or not at all; none at the end. Dropping the future takes no message along.
    ///
    /// # Errors
    /// As of a read of the pipe.
    pub async fn read(&self, env: &Env, wait: Option<Duration>) -> Result<Option<Bytes>> {
        let message = match (self.try_read(), wait) {
            (Err(refusal), Some(wait)) if refusal.passes() => {
                let read = wait_for(env, &self.pipe, &self.sleepers, false, || found(self.try_read()));
                env.timeout(wait, read).await.unwrap_or(Err(Refusal::NothingCame(wait)))
            }
            (read, _) => read,
        };
        Self::given(message.map_err(|refusal| self.fail(Op::Read, &refusal))?)
    }

    /// As [`read`](Self::read), in this thread: it looks for some tens of microseconds before it sleeps, and is woken without a detour.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_here(&self, env: &Env, wait: Duration) -> Result<Option<Bytes>> {
        let look = || found(self.try_read());
        let message = self.pipe.wait_here(env, false, wait, SHARED_LOOKS, look);
        let message = message.unwrap_or(Err(Refusal::NothingCame(wait)));
        Self::given(message.map_err(|refusal| self.fail(Op::Read, &refusal))?)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the end of two methods that fail")]
    fn given(message: Bytes) -> Result<Option<Bytes>> {
        Ok(Some(message).filter(|message| !message.is_empty()))
    }

    /// Writes one message, and waits for room for so long, or not at all. Dropping the future while it waits writes nothing.
    ///
    /// # Errors
    /// As of a write to the pipe.
    pub async fn write(&self, env: &Env, message: &[u8], wait: Option<Duration>) -> Result<()> {
        let done = match (self.try_write(message), wait) {
            (Err(refusal), Some(wait)) if refusal.passes() => {
                let write =
                    wait_for(env, &self.pipe, &self.sleepers, true, || found(self.try_write(message)));
                env.timeout(wait, write).await.unwrap_or(Err(Refusal::StayedFull(wait)))
            }
            (done, _) => done,
        };
        done.map_err(|refusal| self.fail(Op::Write, &refusal))
    }

    /// As [`write`](Self::write), in this thread.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_here(&self, env: &Env, message: &[u8], wait: Duration) -> Result<()> {
        let look = || found(self.try_write(message));
        let done = self.pipe.wait_here(env, true, wait, SHARED_LOOKS, look);
        let done = done.unwrap_or(Err(Refusal::StayedFull(wait)));
        done.map_err(|refusal| self.fail(Op::Write, &refusal))
    }
}

/// What need not be waited for.
fn found<T>(done: std::result::Result<T, Refusal>) -> Option<std::result::Result<T, Refusal>> {
    match done {
        Err(refusal) if refusal.passes() => None,
        done => Some(done),
    }
}

impl fmt::Debug for MappedPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedPipe").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Where the pipe or stream at `path` is in memory that this process shares with others, for one that is to read it (`Op::Read`) or to write to it: the gate is asked
    /// once, here. None for what is not in such memory, and while hooks or a permission provider are to see each call.
    ///
    /// # Errors
    /// As `SysRead` or `SysWrite` of the path, but for what is told of what is in it.
    pub async fn shared_region(
        self: &Arc<Self>,
        caller: &Arc<nexus_messages::Caller>,
        path: &VPath,
        op: Op,
    ) -> Result<Option<SharedRegion>> {
        if self.is_watched(op) || self.pipes().shared().is_none() {
            return Ok(None);
        }
        let (metadata, kind) = match crate::syscalls::shared_at(self, caller, path, op).await? {
            Some(found) => found,
            None => return Ok(None),
        };
        let region =
            self.pipes().shared().and_then(|place| SharedRegion::new(&place.folder, kind, &metadata));
        region.map(Some).ok_or_else(|| {
            Error::new(op, path, ErrorKind::NotSupported)
                .because("the folder of its memory has no name in UTF-8")
        })
    }
}
