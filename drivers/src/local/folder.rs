//! An existing folder by its paths: the blocking core of [`PathLocal`](super::PathLocal).
//!
//! The user's files stay plain files. A whole write goes to a hidden file beside its target, is flushed, takes the target's place, and the
//! folder is flushed. Links are entries like others: made, told, moved and removed, and never followed.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nexus_kernel::hal::{ListPage, ObjectInfo, PathWrite, StoreError};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, EntryType, ErrorKind};
use parking_lot::Mutex;
use quick_cache::unsync::Cache;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;

use super::copying::fill;
use super::descend::{FILE, dup, folder, folder_made, folder_there, open_folder};
use super::info::{self, done, failed, mode_of};
use super::part::{HIDDEN, Part, remove_hidden, remove_left, sync, what_may_be_replaced};
use crate::path::{components, split_last};
use crate::pooled::Wanted;

/// How often a read is tried again because the file was written to meanwhile, before it is given as it is.
const READS_MAX: usize = 4;

/// Of how many folders it is known that nothing is left in them of killed processes.
const CLEANED_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Folder {
    root: OwnedFd,
    path: PathBuf,
    /// Which of this process's folders it is.
    number: u64,
    next_part: AtomicU64,
    /// In which folders, by device and inode, nothing is left of killed processes.
    cleaned: Mutex<Cache<(i128, i128), ()>>,
    /// What lies in it and is not served.
    left_out: OnceLock<String>,
    /// Whether what of it is in memory can be read without waiting.
    #[cfg(target_os = "linux")]
    is_at_hand: bool,
}

/// How many folders this process opened. Only makes names of their parts differ.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        // As the system tells of what is in it.
        let path = path.canonicalize().map_err(|e| StoreError::io(&name, e))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| failed(&name, e))?;
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            #[cfg(target_os = "linux")]
            is_at_hand: super::at_hand::can_be(&root),
            root,
            path,
            number,
            next_part: AtomicU64::new(0),
            cleaned: Mutex::new(Cache::new(CLEANED_MAX)),
            left_out: OnceLock::new(),
        })
    }

    /// Fails also when the folder was removed or moved away, and perhaps another made in its place: that one is served by who opens it anew.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        let open = self.there()?;
        match rustix::fs::stat(&self.path) {
            Ok(now) if (now.st_dev, now.st_ino) == (open.st_dev, open.st_ino) => Ok(()),
            Ok(_) => Err(self.gone("another folder is in its place")),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(self.gone("the folder was moved away")),
            Err(error) => Err(failed(&self.path.display().to_string(), error)),
        }
    }

    /// What the folder is, unless it was removed.
    fn there(&self) -> Result<Stat, StoreError> {
        let stat = rustix::fs::fstat(&self.root).map_err(|e| failed(&self.path.display().to_string(), e))?;
        if stat.st_nlink == 0 { Err(self.gone("the folder was removed")) } else { Ok(stat) }
    }

    fn gone(&self, cause: &str) -> StoreError {
        StoreError::Backend { what: format!("looking at {}", self.path.display()), cause: cause.into() }
    }

    /// What is told of a call that is `done`: in a folder that was removed nothing is found, and nobody removed that by itself.
    pub(super) fn told<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::NotFound { .. } | StoreError::Changed { .. }) = &done {
            self.there()?;
        }
        done
    }

    /// Serves it without what is at `path` from now on. Said once.
    pub(super) fn leave_out(&self, path: String) {
        // The first one counts.
        let _ = self.left_out.set(path);
    }

    /// What is not served.
    pub(super) fn left_out(&self) -> Option<&str> {
        self.left_out.get().map(String::as_str)
    }

    /// The name in the folder at `path` of what is not served.
    fn left_out_of(&self, path: &str) -> Option<&str> {
        let left_out = self.left_out()?;
        let (above, name) = left_out.rsplit_once('/').unwrap_or(("", left_out));
        (above == path).then_some(name)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn stat(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        if self.checked(path)?.is_empty() {
            self.there()?;
            return info::of_open(&self.root, path);
        }
        let (parents, name) = split_last(path)?;
        info::of_name(&folder(&self.root, &parents)?, name, path)
    }

    /// As [`read`](Self::read), when that waits for nothing; none when it may, and nothing was done.
    #[cfg(target_os = "linux")]
    pub(super) fn read_at_hand(&self, path: &str, range: ByteRange) -> Option<(Bytes, ObjectInfo)> {
        let may_be = self.is_at_hand && self.checked(path).is_ok();
        may_be.then(|| super::at_hand::read(&self.root, path, range)).flatten()
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn read_at_hand(&self, _: &str, _: ByteRange) -> Option<(Bytes, ObjectInfo)> {
        None
    }

    pub(super) fn read(&self, path: &str, range: ByteRange) -> Result<(Bytes, ObjectInfo), StoreError> {
        if self.checked(path)?.is_empty() {
            return Err(is_a_directory(path));
        }
        let (parents, name) = split_last(path)?;
        let parent = folder(&self.root, &parents)?;
        let mut file = self.open_file(&parent, name, path, OFlags::RDONLY)?;
        let mut before = content_info(&file, path)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let bytes = read_range(&mut file, range, before.size).map_err(|e| StoreError::io(path, e))?;
            let mut after = info::of_open_now(&file, path)?;
            after.created = before.created;
            if after.tag == before.tag || attempts == READS_MAX {
                return Ok((bytes, after));
            }
            before = after;
            file.rewind().map_err(|e| StoreError::io(path, e))?;
        }
    }

    pub(super) fn write(
        &self,
        path: &str,
        data: &[Bytes],
        how: PathWrite,
        attributes: &Attributes,
        wanted: &Wanted,
    ) -> Result<ObjectInfo, StoreError> {
        self.checked(path)?;
        let (parents, name) = split_last(path)?;
        let parent = match how {
            PathWrite::IfMatch(_) => {
                folder(&self.root, &parents).map_err(|error| nothing_there(error, path))?
            }
            _ => folder_made(&self.root, &parents)?,
        };
        if let Some(written) = self.write_in_place((&parent, name, path), data, &how, attributes, wanted) {
            return written;
        }
        what_may_be_replaced(&parent, name, path, &how)?;
        let part = self.part_in(&parent, path)?;
        part.write(data, path)?;
        part.place(&parent, name, path, &how, attributes, wanted)
    }

    /// Makes the file at `to` a copy of that at `from`. `exclusive` says that nothing may be there.
    pub(super) fn copy(
        &self,
        from: &str,
        to: &str,
        exclusive: bool,
        wanted: &Wanted,
    ) -> Result<ObjectInfo, StoreError> {
        self.checked(from)?;
        self.checked(to)?;
        let ((from_parents, from_name), (to_parents, to_name)) = (split_last(from)?, split_last(to)?);
        let source = self.open_file(&folder(&self.root, &from_parents)?, from_name, from, OFlags::RDONLY)?;
        let mut before = content_info(&source, from)?;
        let attributes = Attributes::none().mode(EntryType::Reg.copied_mode(before.mode));
        let parent = folder_made(&self.root, &to_parents)?;
        let how = if exclusive { PathWrite::Exclusive } else { PathWrite::Whole };
        what_may_be_replaced(&parent, to_name, to, &how)?;
        let part = self.part_in(&parent, to)?;
        for _ in 0..READS_MAX {
            fill(&source, before.size, part.file(), from, wanted)?;
            // As with a read: what is written to meanwhile is copied again.
            let after = info::of_open(&source, from)?;
            if after.tag == before.tag {
                break;
            }
            before = after;
        }
        part.place(&parent, to_name, to, &how, &attributes, wanted)
    }

    /// A hidden file for content that comes piece by piece, in the deepest folder on the way to `path` that is there.
    pub(super) fn begin(&self, path: &str) -> Result<Part, StoreError> {
        self.checked(path)?;
        let (parents, _) = split_last(path)?;
        let folder = folder_there(&self.root, &parents)?;
        clean(&folder, path);
        Part::create(folder, || self.hidden_name(), path)
    }

    /// A hidden file in the folder `parent`, for what is to be at `path`. With the first one what was left there goes.
    fn part_in(&self, parent: &OwnedFd, path: &str) -> Result<Part, StoreError> {
        let stat = rustix::fs::fstat(parent).map_err(|e| failed(path, e))?;
        let is_first = {
            let (mut cleaned, which) =
                (self.cleaned.lock(), (i128::from(stat.st_dev), i128::from(stat.st_ino)));
            let is_first = cleaned.get(&which).is_none();
            cleaned.insert(which, ());
            is_first
        };
        if is_first {
            clean(parent, path);
        }
        Part::create(dup(parent)?, || self.hidden_name(), path)
    }

    /// Makes the hidden file the one at `path`.
    pub(super) fn finish(
        &self,
        part: Part,
        path: &str,
        how: &PathWrite,
        attributes: &Attributes,
        wanted: &Wanted,
    ) -> Result<ObjectInfo, StoreError> {
        self.checked(path)?;
        let (parents, name) = split_last(path)?;
        match how {
            PathWrite::At { .. } | PathWrite::Append => {
                Err(StoreError::NotSupported { what: "an upload to the middle of a file" })
            }
            PathWrite::IfMatch(_) => {
                let parent = folder(&self.root, &parents).map_err(|error| nothing_there(error, path))?;
                part.place(&parent, name, path, how, attributes, wanted)
            }
            _ => part.place(&folder_made(&self.root, &parents)?, name, path, how, attributes, wanted),
        }
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.checked(path)?;
        let (parents, name) = split_last(path)?;
        let parent = folder(&self.root, &parents)?;
        let is_folder = info::of_name(&parent, name, path)?.entry_type == EntryType::Dir;
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let removed = match rustix::fs::unlinkat(&parent, name, flags) {
            // What looks empty may hold what a crash left in the making.
            Err(Errno::NOTEMPTY | Errno::EXIST) if remove_hidden(&parent, name).unwrap_or(false) => {
                rustix::fs::unlinkat(&parent, name, flags)
            }
            removed => removed,
        };
        removed.map_err(|e| match e {
            Errno::NOTEMPTY | Errno::EXIST => StoreError::NotEmpty { what: path.into() },
            _ => failed(path, e),
        })?;
        sync(&parent, path).map_err(|error| done(path, &error))
    }

    pub(super) fn list(&self, path: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let names = self.checked(path)?;
        let folder = folder(&self.root, &names)?;
        let failed = |e| failed(path, e);
        let listing = match Dir::read_from(&folder) {
            // It may be listed, and not entered, not even to be opened once more. The mounted folder itself is open for good, and its place in it everybody's.
            Err(Errno::ACCESS) if !names.is_empty() => Dir::new(dup(&folder)?),
            listing => listing,
        };
        let after = after.map(str::as_bytes);
        let left_out = self.left_out_of(path).map(str::as_bytes);
        // The smallest names, largest on top: no more of a large folder is held than the page needs.
        let mut names: BinaryHeap<(String, u64, RawMode)> = BinaryHeap::new();
        let mut unnameable = Vec::new();
        let mut more = false;
        // One that may not be listed was opened for what is in it.
        let refused = |e| if e == Errno::BADF { Errno::ACCESS } else { e };
        for entry in listing.map_err(failed)? {
            let entry = entry.map_err(|e| failed(refused(e)))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..")
                || name.starts_with(HIDDEN.as_bytes())
                || after.is_some_and(|a| name <= a)
                || left_out == Some(name)
            {
                continue;
            }
            match std::str::from_utf8(name) {
                Ok(name) => {
                    names.push((name.into(), entry.ino(), entry.file_type().as_raw_mode()));
                }
                Err(_) => unnameable.push(name.to_vec()),
            }
            if names.len() > limit {
                names.pop();
                more = true;
            }
        }
        let names = names.into_sorted_vec();
        if let (true, Some(last)) = (more, names.last()) {
            // Those beyond this page are counted on theirs.
            unnameable.retain(|name| name.as_slice() <= last.0.as_bytes());
        }
        let mut entries = Vec::with_capacity(names.len());
        for (name, inode, file_type) in names {
            match info::of_name(&folder, &name, &name) {
                Ok(info) => entries.push((name, info)),
                // The folder may be listed, and not entered.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    entries.push((name, info::of_unseen(FileType::from_raw_mode(file_type), inode)));
                }
                // It went while we looked.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // One that was removed meanwhile is told by the system as one with nothing in it.
        if rustix::fs::fstat(&folder).map_err(failed)?.st_nlink == 0 {
            self.there()?;
            return Err(StoreError::NotFound { what: path.into() });
        }
        Ok(ListPage::new(entries, more, unnameable.len()))
    }

    pub(super) fn make_directory(
        &self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        if self.checked(path)?.is_empty() {
            return Err(StoreError::Exists { what: path.into() });
        }
        let (parents, name) = split_last(path)?;
        let parent = folder_made(&self.root, &parents)?;
        let mode = attributes.mode.unwrap_or(EntryType::Dir.default_mode());
        // With its own mode it may be one that cannot be opened.
        rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(|e| failed(path, e))?;
        let settle = || {
            let made = open_folder(&parent, name).map_err(|e| failed(path, e))?;
            info::set_open(&made, &attributes.clone().mode(mode), path)?;
            sync(&made, path)?;
            sync(&parent, path)?;
            info::of_open(&made, path)
        };
        settle().map_err(|error| done(path, &error))
    }

    pub(super) fn make_link(&self, path: &str, target: &str) -> Result<ObjectInfo, StoreError> {
        if self.checked(path)?.is_empty() {
            return Err(StoreError::Exists { what: path.into() });
        }
        if target.is_empty() || target.contains('\0') {
            return Err(StoreError::BadOption { why: format!("a link cannot point to {target:?}") });
        }
        let (parents, name) = split_last(path)?;
        let parent = folder_made(&self.root, &parents)?;
        rustix::fs::symlinkat(target, &parent, name).map_err(|e| failed(path, e))?;
        let made = sync(&parent, path).and_then(|()| info::of_name(&parent, name, path));
        made.map_err(|error| done(path, &error))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<ObjectInfo, StoreError> {
        self.checked(from)?;
        self.checked(to)?;
        if self.left_out().is_some_and(|left_out| is_within(left_out, from)) {
            return Err(kernels_own(from));
        }
        let ((from_parents, from_name), (to_parents, to_name)) = (split_last(from)?, split_last(to)?);
        let from_parent = folder(&self.root, &from_parents)?;
        let moved = info::of_name(&from_parent, from_name, from)?;
        let to_parent = folder(&self.root, &to_parents)?;
        rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name).map_err(|e| match e {
            Errno::NOTEMPTY | Errno::EXIST => StoreError::NotEmpty { what: to.into() },
            Errno::INVAL if moved.entry_type == EntryType::Dir => {
                StoreError::BadOption { why: format!("{from} cannot be moved into itself") }
            }
            _ => failed(to, e),
        })?;
        let synced = sync(&to_parent, to).and_then(|()| sync(&from_parent, from));
        synced.and_then(|()| info::of_name(&to_parent, to_name, to)).map_err(|error| done(to, &error))
    }

    pub(super) fn set_attributes(
        &self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        if self.checked(path)?.is_empty() {
            let root = dup(&self.root)?;
            info::set_open(&root, attributes, path)?;
            sync(&root, path)?;
            return info::of_open(&root, path);
        }
        let (parents, name) = split_last(path)?;
        let parent = folder(&self.root, &parents)?;
        match info::of_name(&parent, name, path)?.entry_type {
            EntryType::Reg | EntryType::Dir => {
                match rustix::fs::openat(&parent, name, OFlags::RDONLY | FILE, Mode::empty()) {
                    Err(Errno::ACCESS) => info::set_unread(&parent, name, attributes, path)?,
                    file => {
                        let file = file.map_err(|e| failed(path, e))?;
                        info::set_open(&file, attributes, path)?;
                        sync(&file, path)?;
                    }
                }
            }
            // A link has a time of its own, and no permissions.
            _ => {
                if let Some(modified) = attributes.modified {
                    let times = info::times(modified);
                    rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|e| failed(path, e))?;
                    sync(&parent, path)?;
                }
            }
        }
        info::of_name(&parent, name, path)
    }

    /// Opens a file. What is none is not opened: a pipe would take from its writer what is for its reader, and a device may act.
    pub(super) fn open_file(
        &self,
        parent: &OwnedFd,
        name: &str,
        path: &str,
        flags: OFlags,
    ) -> Result<File, StoreError> {
        let no_file = StoreError::NotSupported { what: "the content of what is not a file" };
        if let Ok(EntryType::Pipe) = info::type_of(parent, name) {
            return Err(no_file);
        }
        let mode = mode_of(EntryType::Reg.default_mode());
        let file = rustix::fs::openat(parent, name, flags | FILE, mode).map_err(|e| match e {
            // It became a pipe that nobody reads, or a socket, just now.
            Errno::NXIO => no_file,
            _ => failed(path, e),
        })?;
        Ok(file.into())
    }

    /// A name for a file in the making that no other one has: of this process, of another, or left by a crash.
    fn hidden_name(&self) -> String {
        let (process, number) = (std::process::id(), self.next_part.fetch_add(1, Ordering::Relaxed));
        format!("{HIDDEN}{process:x}-{:x}-{number:x}", self.number)
    }

    /// The components of `path`, none of which is hidden.
    fn checked<'a>(&self, path: &'a str) -> Result<Vec<&'a str>, StoreError> {
        let names = components(path)?;
        if names.iter().any(|name| name.starts_with(HIDDEN)) {
            let why = format!("names that begin with {HIDDEN} are the driver's own");
            return Err(StoreError::BadOption { why });
        }
        match self.left_out().is_some_and(|left_out| is_within(path, left_out)) {
            true => Err(kernels_own(path)),
            false => Ok(names),
        }
    }
}

/// Removes from `folder`, in which something is to be made at `path`, what killed processes left of such.
fn clean(folder: &OwnedFd, path: &str) {
    if let Err(error) = remove_left(folder) {
        tracing::warn!(%path, %error, "what killed processes left of their files in the making stays");
    }
}

/// Whether `path` is `folder`, or below it.
pub(super) fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn kernels_own(path: &str) -> StoreError {
    StoreError::BadOption { why: format!("{path} is where this kernel keeps its own data") }
}

/// A file that cannot be there, since its folder is not, is none that is in some state.
fn nothing_there(error: StoreError, path: &str) -> StoreError {
    match error {
        StoreError::NotFound { .. } => StoreError::Changed { what: path.into() },
        error => error,
    }
}

fn is_a_directory(path: &str) -> StoreError {
    StoreError::IsADirectory { what: path.into() }
}

/// What the open `file` is; refuses what has no content.
pub(super) fn content_info(file: &File, path: &str) -> Result<ObjectInfo, StoreError> {
    let info = info::of_open(file, path)?;
    match info.entry_type {
        EntryType::Reg => Ok(info),
        EntryType::Dir => Err(is_a_directory(path)),
        _ => Err(StoreError::NotSupported { what: "the content of what is not a file" }),
    }
}

fn read_range(file: &mut File, range: ByteRange, size: u64) -> std::io::Result<Bytes> {
    let (start, end) = range.within(size);
    if start > 0 {
        file.seek(SeekFrom::Start(start))?;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(end - start).unwrap_or_default());
    file.take(end - start).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_a_process_of_the_same_number_left_is_in_nobodys_way() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::open(there.path()).unwrap();
        let next = folder.next_part.load(Ordering::Relaxed);
        let left = format!("{HIDDEN}{:x}-{:x}-{next:x}", std::process::id(), folder.number);
        fs::write(there.path().join(left), "left").unwrap();
        let waiting = std::sync::Arc::new(());
        let wanted = Wanted::by(&waiting);
        folder.write("g", &["new".into()], PathWrite::Exclusive, &Attributes::none(), &wanted).unwrap();
        assert_eq!(fs::read(there.path().join("g")).unwrap(), b"new");
    }

    #[test]
    fn what_killed_processes_left_goes_with_the_first_write_beside_it() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::open(there.path()).unwrap();
        let waiting = std::sync::Arc::new(());
        let wanted = Wanted::by(&waiting);
        let left = |name: &str| there.path().join(name).join(format!("{HIDDEN}1-2-3"));
        for name in ["d", "e"] {
            fs::create_dir(there.path().join(name)).unwrap();
            fs::write(left(name), "left").unwrap();
        }
        folder.write("d/f", &["new".into()], PathWrite::Whole, &Attributes::none(), &wanted).unwrap();
        assert!(!left("d").exists() && left("e").exists());
        folder.copy("d/f", "e/f", true, &wanted).unwrap();
        assert!(!left("e").exists());
    }

    #[test]
    fn a_folder_that_was_removed_does_not_answer() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::open(there.path()).unwrap();
        folder.probe().unwrap();
        fs::remove_dir(there.path()).unwrap();
        fs::create_dir(there.path()).unwrap();
        let error = folder.probe().unwrap_err();
        assert!(error.is_backend_failure() && error.to_string().contains("removed"), "{error}");
    }

    /// Who is no administrator may not all, also in what is theirs.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_may_not_be_read_is_there_all_the_same() {
        crate::local::as_nobody(|| {
            let there = tempfile::tempdir().unwrap();
            let folder = Folder::open(there.path()).unwrap();
            let mode = |name: &str| fs::metadata(there.path().join(name)).unwrap().mode() & 0o7777;
            let none = Attributes::none();
            for (name, closed) in [("entered", 0o300), ("closed", 0o000), ("listed", 0o400)] {
                let made = folder.make_directory(name, &none.clone().mode(closed)).unwrap();
                assert_eq!((made.mode, mode(name)), (closed, closed));
                assert_eq!(folder.set_attributes(name, &none.clone().mode(0o700)).unwrap().mode, 0o700);
                let waiting = std::sync::Arc::new(());
                let wanted = Wanted::by(&waiting);
                let file = format!("{name}/f");
                folder.write(&file, &["content".into()], PathWrite::Exclusive, &none, &wanted).unwrap();
                folder.set_attributes(name, &none.clone().mode(closed)).unwrap();
            }
            // What is in it is found by who knows its name.
            assert_eq!(folder.read("entered/f", ByteRange::ALL).unwrap().0, "content");
            let waiting = std::sync::Arc::new(());
            let wanted = Wanted::by(&waiting);
            folder.write("entered/d/g", &["more".into()], PathWrite::Whole, &none, &wanted).unwrap();
            folder.write("entered/f", &["!".into()], PathWrite::Append, &none, &wanted).unwrap();
            assert_eq!(folder.read("entered/f", ByteRange::ALL).unwrap().0, "content!");
            folder.delete("entered/d/g").unwrap();
            assert_eq!(folder.list("entered", None, 9).unwrap_err().kind(), ErrorKind::PermissionDenied);
            // What is in this one is not more than named.
            let listed = folder.list("listed", None, 9).unwrap();
            let (name, info) = &listed.entries[0];
            assert_eq!((&**name, info.entry_type), ("f", EntryType::Reg));
            assert_eq!(folder.stat("closed/f").unwrap_err().kind(), ErrorKind::PermissionDenied);
            assert_eq!(folder.list("", None, 9).unwrap().entries.len(), 3);
            // A file is described, though it cannot be read.
            folder.write("f", &["content".into()], PathWrite::Whole, &none.clone().mode(0), &wanted).unwrap();
            let dated = none.clone().mode(0o200).modified(nexus_messages::Timestamp(7_000_000_000));
            let described = folder.set_attributes("f", &dated).unwrap();
            assert_eq!((described.mode, described.modified.secs()), (0o200, 7));
            for name in ["entered", "closed", "listed"] {
                folder.set_attributes(name, &none.clone().mode(0o700)).unwrap();
            }
        });
    }

    #[test]
    fn what_is_replaced_keeps_its_owner() {
        use std::os::unix::fs::chown;

        let there = tempfile::tempdir().unwrap();
        let folder = Folder::open(there.path()).unwrap();
        let file = there.path().join("f");
        fs::write(&file, "old").unwrap();
        // Others than the system's administrator can give nothing away, and keep what they had.
        let _ = chown(&file, Some(12_345), Some(54_321));
        let owner = |file: &Path| fs::metadata(file).map(|it| (it.uid(), it.gid())).unwrap();
        let before = owner(&file);
        let waiting = std::sync::Arc::new(());
        let wanted = Wanted::by(&waiting);
        folder.write("f", &["new".into()], PathWrite::Whole, &Attributes::none(), &wanted).unwrap();
        assert_eq!((owner(&file), fs::read(&file).unwrap()), (before, b"new".to_vec()));
    }

    #[test]
    fn a_write_in_the_middle_is_of_all_its_buffers() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::open(there.path()).unwrap();
        let waiting = std::sync::Arc::new(());
        let wanted = Wanted::by(&waiting);
        let data = ["", "ab", "", "cde"].map(Bytes::from);
        let how = PathWrite::At { offset: 3, truncate: false };
        folder.write("f", &data, how, &Attributes::none(), &wanted).unwrap();
        assert_eq!(fs::read(there.path().join("f")).unwrap(), b"\0\0\0abcde");
        let how = PathWrite::At { offset: 1, truncate: true };
        folder.write("f", &[], how, &Attributes::none(), &wanted).unwrap();
        assert_eq!(fs::read(there.path().join("f")).unwrap(), b"\0");
    }

    #[test]
    fn a_whole_write_that_was_given_up_meanwhile_does_not_take_the_files_place() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::open(there.path()).unwrap();
        fs::write(there.path().join("f"), "acknowledged").unwrap();
        for (name, how) in [("f", PathWrite::Whole), ("g", PathWrite::Exclusive)] {
            let late = [Bytes::from("late")];
            let written = folder.write(name, &late, how, &Attributes::none(), &Wanted::by_nobody());
            assert!(matches!(written, Err(StoreError::Closed)), "{written:?}");
        }
        assert_eq!(fs::read(there.path().join("f")).unwrap(), b"acknowledged");
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 1, "nothing is left of it");
    }
}
