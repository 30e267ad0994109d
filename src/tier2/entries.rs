//! Entries: metadata, directories, links, names.

use std::sync::Arc;

use nexus_kernel::gate::Right;
use nexus_messages::syscall::{
    AsOf, DirEntry, Expect, Parents, Renamed, SetattrDone, SysReaddir, SysRename, SysSetattr, SysStat,
    SysUnlink, Unlinked,
};
use nexus_messages::{Error, ErrorKind, FileMetadata, IntoPath, Op, Result};

use crate::handle::{Link, Nexus, path};

impl Nexus {
    /// What the kernel knows of the entry; of what a link leads to, for a link.
    ///
    /// # Errors
    /// `ENOENT`; `ENOTDIR` when something on the way is a file.
    pub async fn stat(&self, at: impl IntoPath) -> Result<Arc<FileMetadata>> {
        self.send(SysStat::at(path(Op::Stat, at)?)).await
    }

    /// What was known of the entry then. See [`AsOf`] for what is kept.
    ///
    /// # Errors
    /// As [`stat`](Self::stat); `ENODATA` when it is not kept, or not any more; `EINVAL` for a place in the log, or a time, that is yet to come, and for a version of a directory; `EOPNOTSUPP` where files
    /// are found by their paths.
    pub async fn stat_at(&self, at: impl IntoPath, as_of: AsOf) -> Result<Arc<FileMetadata>> {
        self.send(SysStat::at(path(Op::Stat, at)?).as_of(as_of)).await
    }

    /// As [`stat`](Self::stat), of a link itself.
    ///
    /// # Errors
    /// As [`stat`](Self::stat).
    pub async fn lstat(&self, at: impl IntoPath) -> Result<Arc<FileMetadata>> {
        self.send(SysStat::at(path(Op::Stat, at)?).no_follow()).await
    }

    /// Whether something is there. A link that leads nowhere is not.
    ///
    /// # Errors
    /// What keeps the question from being answered.
    pub async fn exists(&self, at: impl IntoPath) -> Result<bool> {
        Ok(missing(self.stat(at).await)?.is_some())
    }

    /// Whether a directory, or a link to one, is there.
    ///
    /// # Errors
    /// What keeps the question from being answered.
    pub async fn is_directory(&self, at: impl IntoPath) -> Result<bool> {
        Ok(missing(self.stat(at).await)?.is_some_and(|metadata| metadata.is_directory()))
    }

    /// Whether this caller may do this there, as things are now. What is missing, nobody may. A write on a read-only mount, neither.
    ///
    /// # Errors
    /// What keeps the question from being answered.
    pub async fn access(&self, at: impl IntoPath, right: Right) -> Result<bool> {
        let at = path(Op::Access, at)?;
        match &self.link {
            Link::Local(machine) if machine.is_stopping() => {
                Err(Error::new(Op::Access, &at, ErrorKind::Down))
            }
            Link::Local(machine) => machine.kernel.access(self.shared_caller(), &at, right).await,
            Link::Remote(remote) => remote.access(self.shared_caller(), &at, right).await,
        }
    }

    /// Makes a directory, and its parents. Nothing happens when it is there.
    ///
    /// # Errors
    /// `EEXIST` when something else is there, `ENOTDIR` when a parent is a file.
    pub async fn mkdir(&self, at: impl IntoPath) -> Result<SetattrDone> {
        let call = SysSetattr::directory(path(Op::Mkdir, at)?).parents(Parents::Made);
        self.send(call).await.map_err(|error| error.during(Op::Mkdir))
    }

    /// Makes a directory that must not be there, in a parent that must be, as `mkdir(2)` does.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `ENOTDIR`.
    pub async fn mkdir_new(&self, at: impl IntoPath) -> Result<SetattrDone> {
        let call = SysSetattr::directory(path(Op::Mkdir, at)?).exclusive().parents(Parents::Required);
        self.send(call).await.map_err(|error| error.during(Op::Mkdir))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOTEMPTY`, `ENOENT`; `EBUSY` for a mount point.
    pub async fn rmdir(&self, at: impl IntoPath) -> Result<Unlinked> {
        let call = SysUnlink::at(path(Op::Rmdir, at)?).expect(Expect::Directory);
        self.send(call).await.map_err(|error| error.during(Op::Rmdir))
    }

    /// Removes a file, or a link and not its target.
    ///
    /// # Errors
    /// `EISDIR`, `ENOENT`.
    pub async fn unlink(&self, at: impl IntoPath) -> Result<Unlinked> {
        self.send(SysUnlink::at(path(Op::Unlink, at)?).expect(Expect::File)).await
    }

    /// Removes an entry, a directory with all below it, in one commit.
    ///
    /// # Errors
    /// `ENOENT`; `EBUSY` when it is a mount point, or one lies below it.
    pub async fn remove_all(&self, at: impl IntoPath) -> Result<Unlinked> {
        self.send(SysUnlink::at(path(Op::Unlink, at)?).recursive()).await
    }

    /// Moves an entry, a directory with all below it, in one commit. A file at `to` is replaced, a directory there only when it is empty.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`, `ENOTDIR`, `ENOTEMPTY`; `EINVAL` for a directory into itself; `EXDEV` to another mount.
    pub async fn rename(&self, from: impl IntoPath, to: impl IntoPath) -> Result<Renamed> {
        self.send(SysRename::new(path(Op::Rename, from)?, path(Op::Rename, to)?)).await
    }

    /// As [`rename`](Self::rename), to where nothing is.
    ///
    /// # Errors
    /// As [`rename`](Self::rename), and `EEXIST`.
    pub async fn rename_new(&self, from: impl IntoPath, to: impl IntoPath) -> Result<Renamed> {
        self.send(SysRename::new(path(Op::Rename, from)?, path(Op::Rename, to)?).no_replace()).await
    }

    /// Makes a symbolic link to `target`: an absolute path, or one relative to the link's folder. It is kept as it is given and need not lead anywhere. Nothing happens when just
    /// this link is there.
    ///
    /// # Errors
    /// `EEXIST`; `EINVAL` for an empty target.
    pub async fn link(&self, at: impl IntoPath, target: impl AsRef<str>) -> Result<SetattrDone> {
        let call = SysSetattr::link(path(Op::Link, at)?, target.as_ref());
        self.send(call).await.map_err(|error| error.during(Op::Link))
    }

    /// The children of the directory, ordered by the bytes of their names: all pages in one.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub async fn readdir(&self, at: impl IntoPath) -> Result<Vec<DirEntry>> {
        let at = path(Op::Readdir, at)?;
        let mut page = self.send(SysReaddir::at(&at)).await?;
        let mut entries = std::mem::take(&mut page.entries);
        while let Some(cursor) = page.next.take() {
            page = self.send(SysReaddir::at(&at).after(cursor)).await?;
            entries.append(&mut page.entries);
        }
        Ok(entries)
    }
}

/// What is missing is an answer.
fn missing<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}
