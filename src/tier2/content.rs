//! Content of files: read, write, append, edit, copy.

use bytes::Bytes;
use nexus_messages::syscall::{
    AsOf, Copied, Kept, OpOutcome, Synced, SysCopy, SysOutcome, SysRead, SysReceipt, SysSync, SysVersions,
    SysWrite, Version, Written,
};
use nexus_messages::{Error, ErrorKind, IntoPath, Op, OpId, Receipt, Result};

use crate::handle::{Nexus, path};

impl Nexus {
    /// The whole content of the file.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`; `EIO` when the content is damaged.
    pub async fn read(&self, at: impl IntoPath) -> Result<Bytes> {
        let read = self.send(SysRead::at(path(Op::Read, at)?)).await?;
        Ok(read.data)
    }

    /// At most `count` bytes of the file from `offset` on, as `pread` does: fewer where the content ends, none beyond it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_range(&self, at: impl IntoPath, offset: u64, count: u64) -> Result<Bytes> {
        let read = self.send(SysRead::at(path(Op::Read, at)?).range(offset, count)).await?;
        Ok(read.data)
    }

    /// Makes `data` the whole content of the file, and makes the file when it is missing. On disk when it returns. May be repeated.
    ///
    /// # Errors
    /// `EISDIR`, `ENOTDIR` when a parent is a file, `ENOSPC`, `EROFS`.
    pub async fn write(&self, at: impl IntoPath, data: impl Into<Bytes>) -> Result<Written> {
        self.send(SysWrite::at(path(Op::Write, at)?, data).create()).await
    }

    /// Adds `data` to the end of the file, and makes the file when it is missing. One locked change: what others append at the same time is kept whole.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn append(&self, at: impl IntoPath, data: impl Into<Bytes>) -> Result<Written> {
        let call = SysWrite::at(path(Op::Append, at)?, data).append().create();
        self.send(call).await.map_err(|error| error.during(Op::Append))
    }

    /// Replaces the text `old`, which must be in the file just once, by `new`. One locked change: nothing that others write meanwhile is lost.
    ///
    /// # Errors
    /// `EINVAL` when `old` is not there, there more than once, or empty; `ENOENT`, `EISDIR`.
    pub async fn edit(
        &self,
        at: impl IntoPath,
        old: impl Into<Bytes>,
        new: impl Into<Bytes>,
    ) -> Result<Written> {
        let call = SysWrite::edit(path(Op::Edit, at)?, old, new);
        self.send(call).await.map_err(|error| error.during(Op::Edit))
    }

    /// As [`edit`](Self::edit), for each place where `old` is; [`Written::places`] says how many they were.
    ///
    /// # Errors
    /// As [`edit`](Self::edit), but `old` may be there more than once.
    pub async fn edit_all(
        &self,
        at: impl IntoPath,
        old: impl Into<Bytes>,
        new: impl Into<Bytes>,
    ) -> Result<Written> {
        let call = SysWrite::edit(path(Op::Edit, at)?, old, new).all();
        self.send(call).await.map_err(|error| error.during(Op::Edit))
    }

    /// The whole content of the file as it was then. See [`AsOf`] for what is kept.
    ///
    /// # Errors
    /// As [`read`](Self::read); `ENODATA` when it is not kept, or not any more; `EINVAL` for a place in the log, or a time, that is yet to come; `EOPNOTSUPP` where files
    /// are found by their paths.
    pub async fn read_at(&self, at: impl IntoPath, as_of: AsOf) -> Result<Bytes> {
        let read = self.send(SysRead::at(path(Op::Read, at)?).as_of(as_of)).await?;
        Ok(read.data)
    }

    /// What was found at the path over time, the latest first, within the history that is kept: all pages in one. What was removed, or renamed away, is
    /// told of, too. [`read_at`](Self::read_at) as of the place [`from`](Version::from) of each gives what it was.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// use nexus::AsOf;
    ///
    /// let nx = nexus::blocking::connect(folder.path())?;
    /// nx.write("/f", "one")?;
    /// nx.unlink("/f")?;
    /// nx.write("/g", "another")?;
    /// nx.rename("/g", "/f")?;
    /// let told = nx.versions("/f")?;
    /// assert!(told.len() == 2 && told[0].is_present() && told[0].file_id != told[1].file_id);
    /// nx.restore("/f", AsOf::Lsn(told[1].from.unwrap()))?;
    /// assert_eq!(nx.read("/f")?, "one");
    /// assert_eq!(nx.versions("/f")?.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `ENOENT` when nothing was ever there, within the history; `ENODATA` on a mount that keeps no history; `EOPNOTSUPP` where files are found by
    /// their paths.
    pub async fn versions(&self, at: impl IntoPath) -> Result<Vec<Version>> {
        self.all_versions(SysVersions::at(path(Op::Versions, at)?)).await
    }

    /// The versions of the file that is at the path, or was the last one there, wherever it lay: the oldest first and that of now last, all pages in
    /// one. So those are told of that it had before it was moved here.
    ///
    /// # Errors
    /// As [`versions`](Self::versions); `EINVAL` for a directory, which has no versions.
    pub async fn versions_of_file(&self, at: impl IntoPath) -> Result<Vec<Version>> {
        self.all_versions(SysVersions::at(path(Op::Versions, at)?).of_file()).await
    }

    async fn all_versions(&self, call: SysVersions) -> Result<Vec<Version>> {
        let mut versions = Vec::new();
        let mut page = self.send(call.clone()).await?;
        loop {
            versions.append(&mut page.versions);
            match page.next.take() {
                Some(cursor) => page = self.send(call.clone().after(cursor)).await?,
                None if versions.is_empty() => {
                    return Err(Error::new(Op::Versions, &call.path, ErrorKind::NotFound));
                }
                None => return Ok(versions),
            }
        }
    }

    /// Makes the file what it was then, as a new version and in one commit: content, mode and media type. A file that was removed is made again. Goes the
    /// way of every change, hooks and quotas included; [`SysCopy::as_of`] takes conditions too.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at) and [`copy`](Self::copy).
    pub async fn restore(&self, at: impl IntoPath, as_of: AsOf) -> Result<Copied> {
        let at = path(Op::Copy, at)?;
        self.send(SysCopy::new(&at, &at).as_of(as_of)).await
    }

    /// Makes all durable that was acknowledged before in the zone of the mount that serves the path: on return it is on disk. May be repeated.
    ///
    /// # Errors
    /// `ENOENT`; `EIO` with an unknown outcome when the disk fails, and the store is read only from then on.
    pub async fn sync(&self, at: impl IntoPath) -> Result<Synced> {
        self.send(SysSync::at(path(Op::Sync, at)?)).await
    }

    /// What became of what the receipt acknowledges, in the zone of this handle; also after a crash. May be repeated.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let nx = nexus::connect(folder.path()).await?;
    /// use nexus::{Kept, SysWrite, VPath};
    ///
    /// let path = VPath::parse("/progress")?;
    /// let written = nx.send(SysWrite::at(path, "40 %").create().eventual()).await?;
    /// nx.sync("/progress").await?;
    /// assert_eq!(nx.receipt(written.receipt).await?, Kept::OnDisk);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// What the metastore says.
    pub async fn receipt(&self, receipt: Receipt) -> Result<Kept> {
        self.send(SysReceipt::of(receipt)).await
    }

    /// What became of an operation, by the identity that its call was given, or that its error has: one of this handle's agent, or any one for the
    /// administrator; also after a crash. Each zone remembers its last [`OPS_KEPT`](nexus_messages::syscall::OPS_KEPT) operations;
    /// [`SysOutcome::since`] tells one that was not executed from one that is forgotten. May be repeated.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::{OpId, OpOutcome, SysWrite, VPath};
    ///
    /// let op_id = OpId(0x5eed);
    /// assert_eq!(nx.outcome(op_id).await?, OpOutcome::NotExecuted);
    /// let written = nx.send(SysWrite::at(VPath::parse("/a")?, "one").create().op_id(op_id)).await?;
    /// assert_eq!(nx.outcome(op_id).await?.receipt(), Some(written.receipt));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `EACCES` when it is the operation of another agent; `EBUSY` when more calls are under way than are kept track of; what the metastore says.
    pub async fn outcome(&self, op_id: OpId) -> Result<OpOutcome> {
        self.send(SysOutcome::of(op_id)).await
    }

    /// Copies the file `from` to `to`, also to another mount; a file at `to` is replaced. Onto itself: nothing happens. May be repeated.
    ///
    /// # Errors
    /// `ENOENT`; `EINVAL` when either is no regular file.
    pub async fn copy(&self, from: impl IntoPath, to: impl IntoPath) -> Result<Copied> {
        self.send(SysCopy::new(path(Op::Copy, from)?, path(Op::Copy, to)?)).await
    }
}
