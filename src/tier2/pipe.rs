//! Pipes: made, and opened at either end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::syscall::{PipeSpec, SetattrDone, SysSetattr};
use nexus_messages::{FileMetadata, IntoPath, Op, Result};

use crate::attach::RemoteEnd;
use crate::handle::{Link, Nexus, path};

/// The reading end of a pipe; see [`Nexus::pipe_reader`].
pub struct PipeReader(Reader);

enum Reader {
    Local(nexus_kernel::PipeReader),
    Remote(RemoteEnd),
}

/// The writing end of a pipe; see [`Nexus::pipe_writer`].
pub struct PipeWriter(Writer);

enum Writer {
    Local(nexus_kernel::PipeWriter),
    Remote(RemoteEnd),
}

impl Nexus {
    /// Makes a pipe that holds `capacity` bytes: agents hand messages to each other through its path. Nothing happens when there is a pipe. Its entry is on disk
    /// when this returns, and stays; the messages are in memory.
    ///
    /// # Errors
    /// `EINVAL` for a capacity that no pipe has, `EEXIST` when something else is there, `EOPNOTSUPP` where files are found by their paths.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use std::time::Duration;
    /// use nexus::{ErrorKind, SysRead, SysWrite, VPath};
    ///
    /// nx.make_pipe("/tasks", 65_536).await?;
    /// let tasks = VPath::parse("/tasks")?;
    /// nx.send(SysWrite::at(&tasks, "build")).await?;
    /// nx.send(SysWrite::at(&tasks, "test")).await?;
    /// assert_eq!(nx.send(SysRead::at(&tasks)).await?.data, "build");
    /// assert_eq!(nx.read("/tasks").await?, "test");
    /// let none = nx.send(SysRead::at(&tasks).wait(Duration::from_millis(1))).await.unwrap_err();
    /// assert_eq!(none.kind(), ErrorKind::TimedOut);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn make_pipe(&self, at: impl IntoPath, capacity: u32) -> Result<SetattrDone> {
        self.make_pipe_with(at, PipeSpec::new(capacity)).await
    }

    /// As [`make_pipe`](Self::make_pipe), made so: [`PipeSpec::shared`] is a pipe in memory that processes share. Its ends that others have open who are
    /// [attached](crate::attach()) write and read with no message to the owner of the kernel, and go on when it dies. What was written is there when it comes back.
    ///
    /// # Errors
    /// As [`make_pipe`](Self::make_pipe); `EOPNOTSUPP` where there is no such memory.
    pub async fn make_pipe_with(&self, at: impl IntoPath, spec: PipeSpec) -> Result<SetattrDone> {
        self.send(SysSetattr::pipe_with(path(Op::Setattr, at)?, spec)).await
    }

    /// Opens the reading end of the pipe. When the last one that was opened is closed, writes fail with `EPIPE`, until one is opened anew. It is closed when it
    /// is dropped, and with the life of an agent's handle: also when the agent has crashed.
    ///
    /// # Errors
    /// `ENOENT`; `EOPNOTSUPP` for what is no pipe; `EBUSY` when it has as many ends as may be.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// nx.make_pipe("/p", 1_024).await?;
    /// let (reader, writer) = (nx.pipe_reader("/p").await?, nx.pipe_writer("/p").await?);
    /// writer.write("one", None).await?;
    /// drop(writer);
    /// assert_eq!(reader.read(None).await?.as_deref(), Some(&b"one"[..]));
    /// assert_eq!(reader.read(None).await?, None, "the end: no writer is left");
    /// # Ok::<(), nexus::Error>(()) }).unwrap();
    /// ```
    pub async fn pipe_reader(&self, at: impl IntoPath) -> Result<PipeReader> {
        let at = path(Op::Read, at)?;
        Ok(PipeReader(match &self.link {
            Link::Local(machine) => {
                machine.serving_for(Op::Read)?;
                let opened = machine.kernel.open_pipe_reader(self.shared_caller(), &at).await;
                Reader::Local(opened.map_err(|error| machine.told(error))?)
            }
            Link::Remote(remote) => {
                Reader::Remote(RemoteEnd::open(remote, self.shared_caller(), Op::Read, &at).await?)
            }
        }))
    }

    /// Opens the writing end of the pipe. When the last one that was opened is closed, readers come to the end once they have read what is left, until one is
    /// opened anew. It is closed as a [reader](Self::pipe_reader) is.
    ///
    /// # Errors
    /// As [`pipe_reader`](Self::pipe_reader).
    pub async fn pipe_writer(&self, at: impl IntoPath) -> Result<PipeWriter> {
        let at = path(Op::Write, at)?;
        Ok(PipeWriter(match &self.link {
            Link::Local(machine) => {
                machine.serving_for(Op::Write)?;
                let opened = machine.kernel.open_pipe_writer(self.shared_caller(), &at).await;
                Writer::Local(opened.map_err(|error| machine.told(error))?)
            }
            Link::Remote(remote) => {
                Writer::Remote(RemoteEnd::open(remote, self.shared_caller(), Op::Write, &at).await?)
            }
        }))
    }
}

impl PipeReader {
    /// What the entry was when the end was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        match &self.0 {
            Reader::Local(reader) => reader.metadata(),
            Reader::Remote(end) => end.metadata(),
        }
    }

    /// The next message, which it waits for so long, or not at all for `None`; none at the end of the pipe. Dropping the future takes no message along: one
    /// that was taken for it goes back, before all others.
    ///
    /// # Errors
    /// `EAGAIN` without a message, `ETIMEDOUT` when it has waited for one; `ENOENT` when the pipe is removed, also meanwhile; `EPERM` when the life of the
    /// caller has ended, and this end with it.
    pub async fn read(&self, wait: Option<Duration>) -> Result<Option<Bytes>> {
        match &self.0 {
            Reader::Local(reader) => reader.read(wait).await,
            Reader::Remote(end) => end.read(wait).await,
        }
    }
}

impl PipeWriter {
    /// What the entry was when the end was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        match &self.0 {
            Writer::Local(writer) => writer.metadata(),
            Writer::Remote(end) => end.metadata(),
        }
    }

    /// Writes one message, and waits for room for so long, or not at all for `None`. One without bytes is none. Dropping the future while it waits writes nothing.
    ///
    /// # Errors
    /// `EAGAIN` without room, `ETIMEDOUT` when it has waited for it; `EMSGSIZE` for a message larger than the pipe; `EPIPE` when readers had opened it and
    /// the last is gone; `ENOENT` and `EPERM` as for [`read`](PipeReader::read).
    pub async fn write(&self, message: impl Into<Bytes>, wait: Option<Duration>) -> Result<()> {
        match &self.0 {
            Writer::Local(writer) => writer.write(message, wait).await,
            Writer::Remote(end) => end.write(message.into(), wait).await,
        }
    }
}

impl PipeReader {
    /// As [`read`](Self::read), in this thread. At an [attached](crate::attach()) end of a pipe in shared memory it looks for some tens of microseconds before it sleeps,
    /// and is woken without a detour; elsewhere it does what `read` does.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_here(&self, wait: Duration) -> Result<Option<Bytes>> {
        match &self.0 {
            Reader::Remote(end) if let Some((mapped, env)) = end.mapped() => mapped.read_here(env, wait),
            _ => nexus_actors::block_on(self.read(Some(wait))),
        }
    }

    /// Whether messages come through memory that this process shares, with no message to the one that owns the kernel. So they do also when that is dead.
    pub fn is_mapped(&self) -> bool {
        matches!(&self.0, Reader::Remote(end) if end.mapped().is_some())
    }
}

impl PipeWriter {
    /// As [`write`](Self::write), in this thread; see [`PipeReader::read_here`].
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_here(&self, message: impl Into<Bytes>, wait: Duration) -> Result<()> {
        let message = message.into();
        match &self.0 {
            Writer::Remote(end) if let Some((mapped, env)) = end.mapped() => {
                mapped.write_here(env, &message, wait)
            }
            _ => nexus_actors::block_on(self.write(message, Some(wait))),
        }
    }

    /// See [`PipeReader::is_mapped`].
    pub fn is_mapped(&self) -> bool {
        matches!(&self.0, Writer::Remote(end) if end.mapped().is_some())
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader").field("path", &self.metadata().path).finish_non_exhaustive()
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").field("path", &self.metadata().path).finish_non_exhaustive()
    }
}
