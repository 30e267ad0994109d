//! The two kinds of trees that are synchronised: of the namespace and of the host.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};
use nexus::syscall::{SysCopy, SysRead, SysSetattr, SysStat, SysUnlink, SysWrite};
use nexus::{Attributes, ContentId, EntryType, Error, ErrorKind, FileMetadata, Op, Timestamp, VPath};
use rustix::fs::{Dir, OFlags};

use crate::failure::{Failure, Outcome, shown};
use crate::feed;
use crate::session::{Session, path};

/// How a folder of the host is written.
const HOST: &str = "host:";

/// What the names of files of the host begin with that are on their way to become others.
pub(super) const BESIDE: &str = ".nexus-sync-";

/// What a file of the host may be used for until it is whole.
const OPEN_FILE: u32 = 0o600;

/// What a folder of the host may be used for until all is in it.
const OPEN_FOLDER: u32 = 0o700;

/// The permission bits of a mode of the host.
const PERMISSIONS: u32 = 0o7777;

/// How much of a file of the host is read at once.
const PIECE: usize = 1 << 20;

/// A place in one of the trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Space(VPath),
    Host(PathBuf),
}

/// What is at a place, links not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mode: u32,
    /// Zero where nobody keeps it.
    pub(super) modified: Timestamp,
    /// When anything of it was changed.
    pub(super) changed: Timestamp,
    pub(super) content: Option<ContentId>,
}

/// Times of change that are told in whole seconds are told of all that is changed within one.
const SECOND_NANOS: u64 = 1_000_000_000;

impl Item {
    /// Whether the time of change says that `copy`, a file of the same size, was made of this state of it.
    pub(super) fn is_told_by_time(&self, copy: &Self) -> bool {
        let time = self.modified.nanos();
        let is_fine = !time.is_multiple_of(SECOND_NANOS);
        let is_later = copy.changed.nanos() >= time.saturating_add(2 * SECOND_NANOS);
        time > 0 && self.modified == copy.modified && (is_fine || is_later)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// And whether something is mounted there.
    Folder {
        mount: bool,
    },
    Link(String),
    Other(String),
}

impl Kind {
    pub(super) fn is_folder(&self) -> bool {
        matches!(self, Self::Folder { .. })
    }

    /// Whether nothing is mounted there.
    pub(super) fn is_plain(&self) -> bool {
        *self != Self::Folder { mount: true }
    }

    /// Whether the one can become the other without being removed.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File, Self::File) | (Self::Folder { .. }, Self::Folder { .. }) => true,
            (Self::Link(one), Self::Link(other)) => one == other,
            _ => false,
        }
    }
}

/// Whether the identities of both contents tell whether they are the same.
pub(super) fn comparable(one: &Item, other: &Item) -> bool {
    matches!(
        (&one.content, &other.content),
        (Some(ContentId::Blake3(_)), Some(ContentId::Blake3(_)))
            | (Some(ContentId::Chunks(_)), Some(ContentId::Chunks(_)))
    )
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Space(path) => path.fmt(f),
            Self::Host(path) => write!(f, "{HOST}{}", shown(path)),
        }
    }
}

pub(super) fn of_space(entry: &FileMetadata) -> Item {
    let kind = match entry.entry_type {
        EntryType::Reg => Kind::File,
        EntryType::Link => Kind::Link(entry.link_target.as_deref().unwrap_or_default().to_owned()),
        EntryType::Mount => Kind::Folder { mount: true },
        other if other.is_directory() => Kind::Folder { mount: false },
        other => Kind::Other(format!("a {other}")),
    };
    Item {
        kind,
        size: entry.size,
        mode: entry.mode,
        modified: entry.modified,
        changed: entry.changed,
        content: entry.content_id.clone(),
    }
}

pub(super) fn of_host(host: &Path, metadata: &fs::Metadata) -> io::Result<Item> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_file() {
        Kind::File
    } else if file_type.is_dir() {
        Kind::Folder { mount: false }
    } else if file_type.is_symlink() {
        let target = fs::read_link(host)?;
        let target = target.into_os_string().into_string();
        Kind::Link(target.map_err(|_| io::Error::other("the link's target is not UTF-8 (EILSEQ)"))?)
    } else {
        Kind::Other("a device, a socket or a pipe".into())
    };
    Ok(Item {
        kind,
        size: metadata.len(),
        mode: metadata.mode() & PERMISSIONS,
        modified: metadata.modified().map(Timestamp::from).unwrap_or_default(),
        changed: Timestamp(
            u64::try_from(metadata.ctime())
                .unwrap_or_default()
                .saturating_mul(SECOND_NANOS)
                .saturating_add(u64::try_from(metadata.ctime_nsec()).unwrap_or_default()),
        ),
        content: None,
    })
}

pub(super) fn told(host: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::host("sync", host, error)
}

pub(super) fn during(error: Error) -> Failure {
    error.during(Op::Copy).into()
}

impl Place {
    pub(super) fn parse(text: &str) -> Outcome<Self> {
        match text.strip_prefix(HOST) {
            Some(host) => Ok(Self::Host(host.into())),
            None => Ok(Self::Space(path(Op::Copy, text)?)),
        }
    }

    pub(super) fn join(&self, name: &str) -> Outcome<Self> {
        match self {
            Self::Space(path) => {
                let joined = path.join(name);
                let joined =
                    joined.map_err(|why| Error::bad_path(Op::Copy, &format!("{path}/{name}"), &why))?;
                Ok(Self::Space(joined))
            }
            Self::Host(path) => Ok(Self::Host(path.join(name))),
        }
    }

    /// That nothing is there.
    pub(super) fn missing(&self) -> Failure {
        match self {
            Self::Space(path) => Error::new(Op::Copy, path, ErrorKind::NotFound).into(),
            Self::Host(host) => told(host)(rustix::io::Errno::NOENT.into()),
        }
    }

    /// Where it leads, links followed, and what is there; none when nothing is.
    pub(super) async fn resolved(&self, session: &Session) -> Outcome<Option<(Self, Item)>> {
        match self {
            Self::Space(path) => match session.nx.send(SysStat::at(path)).await {
                Ok(entry) => Ok(Some((Self::Space(entry.path.clone()), of_space(&entry)))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(during(error)),
            },
            Self::Host(host) => {
                match fs::canonicalize(host).and_then(|real| Ok((fs::metadata(&real)?, real))) {
                    Ok((metadata, real)) => {
                        let item = of_host(&real, &metadata).map_err(told(&real))?;
                        Ok(Some((Self::Host(real), item)))
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(told(host)(error)),
                }
            }
        }
    }

    /// Whether a folder here that has the mode of `like` could not be filled.
    pub(super) fn closes(&self, like: &Item) -> bool {
        matches!(self, Self::Host(_)) && like.mode & OPEN_FOLDER != OPEN_FOLDER
    }

    /// What it is in.
    pub(super) fn parent(&self) -> Option<Self> {
        match self {
            Self::Space(path) => path.parent().map(Self::Space),
            Self::Host(host) => host.parent().map(|above| Self::Host(above.to_owned())),
        }
    }

    pub(super) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Space(path), Self::Space(other)) => path.is_within(other),
            (Self::Host(host), Self::Host(other)) => host.starts_with(other),
            _ => false,
        }
    }

    /// How many names lead to it.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Space(path) => path.depth(),
            Self::Host(host) => host.components().count(),
        }
    }

    /// What is there, links not followed.
    async fn look(&self, session: &Session) -> Outcome<Item> {
        match self {
            Self::Space(path) => {
                let entry = session.nx.send(SysStat::at(path).no_follow()).await.map_err(during)?;
                Ok(of_space(&entry))
            }
            Self::Host(host) => {
                fs::symlink_metadata(host).and_then(|there| of_host(host, &there)).map_err(told(host))
            }
        }
    }

    /// Lets the folder that is here be filled and emptied whose mode keeps its owner from that. Gives what it was; none when it is none such.
    pub(super) async fn open(&self, session: &Session) -> Outcome<Option<Item>> {
        let item = self.look(session).await?;
        if item.kind != (Kind::Folder { mount: false }) || item.mode & OPEN_FOLDER == OPEN_FOLDER {
            return Ok(None);
        }
        let open = Item { mode: item.mode | OPEN_FOLDER, ..item.clone() };
        let is_kept = self.describe(session, &open, &item).await?;
        Ok(is_kept.then_some(item))
    }

    /// Makes a folder that can be filled, whatever its mode is to be in the end.
    pub(super) async fn make_folder(&self, session: &Session, like: &Item) -> Outcome {
        match self {
            Self::Space(path) => {
                let call = SysSetattr::directory(path).attributes(Attributes::none().mode(like.mode));
                session.nx.send(call).await.map(drop).map_err(during)
            }
            Self::Host(host) => {
                let made = fs::create_dir(host);
                let mode = Permissions::from_mode(like.mode | OPEN_FOLDER);
                made.and_then(|()| fs::set_permissions(host, mode)).map_err(told(host))
            }
        }
    }

    pub(super) async fn make_link(&self, session: &Session, target: &str) -> Outcome {
        match self {
            Self::Space(path) => {
                session.nx.send(SysSetattr::link(path, target)).await.map(drop).map_err(during)
            }
            Self::Host(host) => symlink(target, host).map_err(told(host)),
        }
    }

    /// Removes what is there, with all below it.
    pub(super) async fn remove(&self, session: &Session, there: &Item) -> Outcome {
        match self {
            Self::Space(path) => {
                if !there.kind.is_plain() {
                    let error = Error::new(Op::Unlink, path, ErrorKind::Busy);
                    return Err(error.because("a mount point, which umount detaches").into());
                }
                let call = SysUnlink::at(path);
                let call = if there.kind.is_folder() { call.recursive() } else { call };
                session.nx.send(call).await.map(drop).map_err(during)
            }
            Self::Host(host) if there.kind.is_folder() => remove_folder(host).map_err(told(host)),
            Self::Host(host) => fs::remove_file(host).map_err(told(host)),
        }
    }

    /// Gives what is there mode and time of another one; says whether they are kept there.
    pub(super) async fn describe(&self, session: &Session, like: &Item, there: &Item) -> Outcome<bool> {
        let folder = there.kind.is_folder();
        match self {
            Self::Space(path) => {
                let attributes = Attributes::none().mode(like.mode);
                let is_timed = !folder && like.modified != Timestamp(0);
                let attributes = if is_timed { attributes.modified(like.modified) } else { attributes };
                match session.nx.send(SysSetattr::at(path).attributes(attributes)).await {
                    Ok(done) => Ok(!done.changed.is_empty()),
                    Err(error) if error.kind() == ErrorKind::NotSupported => Ok(false),
                    Err(error) => Err(during(error)),
                }
            }
            Self::Host(host) => {
                let file = match open_there(host) {
                    Err(error) if folder && error.kind() == io::ErrorKind::PermissionDenied => {
                        open_folder(host).and_then(|()| open_there(host))
                    }
                    opened => opened,
                };
                let file = file.map_err(told(host))?;
                describe_host(&file, like, folder).map_err(told(host))?;
                Ok(true)
            }
        }
    }

    /// The hash of the file that is there.
    pub(super) async fn hash(&self, session: &Session) -> Outcome<Hash> {
        match self {
            Self::Space(path) => {
                let mut hasher = Hasher::new();
                let mut stream = session.nx.open_stream(SysRead::at(path)).await.map_err(during)?;
                while let Some(piece) = stream.next().await {
                    hasher.update(&piece.map_err(during)?);
                }
                Ok(hasher.finalize())
            }
            Self::Host(host) => {
                let mut reader = Hashing::new(open(host).map_err(told(host))?);
                let mut piece = vec![0; PIECE];
                while reader.read(&mut piece).map_err(told(host))? > 0 {}
                Ok(reader.hasher.finalize())
            }
        }
    }

    /// The hash that the file there is known by, if it is.
    async fn known_hash(&self, session: &Session) -> Outcome<Option<Hash>> {
        let Self::Space(path) = self else { return Ok(None) };
        let entry = session.nx.send(SysStat::at(path).no_follow()).await.map_err(during)?;
        let hash = entry.content_id.as_ref().and_then(|id| id.blake3().copied());
        Ok(hash.map(Hash::from_bytes))
    }
}

/// Removes a folder of the host with all below it, also where folders have modes that keep their owner from it.
fn remove_folder(host: &Path) -> io::Result<()> {
    match fs::remove_dir_all(host) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(host)?;
            fs::remove_dir_all(host)
        }
        removed => removed,
    }
}

/// Gives a folder of the host, and all folders below it, modes with which they can be emptied.
fn open_folders(host: &Path) -> io::Result<()> {
    let mut folders = vec![host.to_owned()];
    while let Some(host) = folders.pop() {
        open_folder(&host)?;
        let folder = open_there(&host)?;
        // What was opened, whatever is called so by now.
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && fs::symlink_metadata(host.join(name))?.is_dir() {
                folders.push(host.join(name));
            }
        }
    }
    Ok(())
}

/// Gives a folder of the host a mode with which it can be listed, filled and emptied. It may be one that cannot be opened for that.
fn open_folder(host: &Path) -> io::Result<()> {
    let there = fs::symlink_metadata(host)?;
    let mode = there.mode() & PERMISSIONS;
    if there.is_dir() && mode & OPEN_FOLDER != OPEN_FOLDER {
        fs::set_permissions(host, Permissions::from_mode(mode | OPEN_FOLDER))?;
    }
    Ok(())
}

fn describe_host(file: &File, like: &Item, folder: bool) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(like.mode))?;
    let is_timed = !folder && like.modified != Timestamp(0);
    if is_timed { file.set_modified(like.modified.into()) } else { Ok(()) }
}

/// Opens what is at a place of the host; should it have become a pipe or a link, it is neither waited for nor followed.
fn open_there(host: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    #[expect(clippy::cast_possible_wrap, reason = "flags are bits")]
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(host)
}

/// As [`open_there`], and it is a file.
fn open(host: &Path) -> io::Result<File> {
    let file = open_there(host)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file any more")) }
}

/// Hashes what is read.
struct Hashing {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self { file, hasher: Hasher::new(), size: 0 }
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}

/// Makes the file at `to` the same as that at `from`, which `item` describes, and verifies it. Gives its size.
pub(super) async fn copy(session: &Session, from: &Place, item: &Item, to: &Place) -> Outcome<u64> {
    let (hash, size) = match (from, to) {
        (Place::Space(source), Place::Space(target)) => {
            let done = session.nx.send(SysCopy::new(source, target)).await.map_err(during)?;
            let copy = of_space(&done.metadata);
            if comparable(item, &copy) && item.content == copy.content {
                return Ok(copy.size);
            }
            // Where no identity of content tells, the time of change does the next time.
            to.describe(session, item, &copy).await?;
            (from.hash(session).await?, copy.size)
        }
        (Place::Host(source), Place::Space(target)) => {
            let mut reader = Hashing::new(open(source).map_err(told(source))?);
            let attributes = Attributes::none().mode(item.mode).modified(item.modified);
            let call = SysWrite::vectored(target, Vec::new()).create().attributes(attributes);
            let written = feed::write(&session.nx, call, &mut reader).await.map_err(told(source))?;
            written.map_err(during)?;
            (reader.hasher.finalize(), reader.size)
        }
        (Place::Space(source), Place::Host(target)) => out_of(session, source, item, target).await?,
        (Place::Host(_), Place::Host(_)) => {
            return Err(Failure::Usage("sync: neither is of the namespace".into()));
        }
    };
    // What is found by its hash is verified when it is read.
    let found = match to.known_hash(session).await? {
        Some(known) => known,
        None => to.hash(session).await?,
    };
    if found == hash {
        return Ok(size);
    }
    Err(Failure::claim(
        "sync",
        format_args!(
            "{to}: what is there is not what was read of {from}; one of them changed meanwhile, or is damaged"
        ),
    ))
}

/// What a file is until it takes the place of `target`. The same however one came to that folder, so that who copies it again finds what was left.
fn beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default();
    target.with_file_name(format!("{BESIDE}{:016x}", nexus::hash_of(&name.to_string_lossy())))
}

/// Copies a file to the host, through one beside it.
async fn out_of(session: &Session, source: &VPath, item: &Item, target: &Path) -> Outcome<(Hash, u64)> {
    let beside = beside(target);
    let told = told(&beside);
    let mut stream = session.nx.open_stream(SysRead::at(source)).await.map_err(during)?;
    // What a process left there that was killed is removed, so that no link leads the bytes elsewhere.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(OPEN_FILE).open(&beside).map_err(&told)?;
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let copied = async {
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(during)?;
            hasher.update(&piece);
            size += piece.len() as u64;
            file.write_all(&piece).map_err(&told)?;
        }
        describe_host(&file, item, false).map_err(&told)?;
        file.sync_data().map_err(&told)?;
        fs::rename(&beside, target).map_err(&told)
    };
    let copied: Outcome = copied.await;
    if copied.is_err() {
        // That it cannot be removed says nothing more.
        let _ = fs::remove_file(&beside);
    }
    copied?;
    Ok((hasher.finalize(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_of_a_file_is_found_again_by_whatever_path() {
        let name = |target: &str| beside(Path::new(target)).file_name().map(ToOwned::to_owned);
        assert_eq!(name("target/f"), name("/home/user/target/f"));
        assert_ne!(name("target/f"), name("target/g"));
        assert_eq!(beside(Path::new("a/b/f")).parent(), Some(Path::new("a/b")));
    }

    #[test]
    fn a_time_tells_only_what_it_is_fine_enough_for() {
        let check = |modified, of_copy, changed, expected| {
            let of = |modified, changed| Item {
                kind: Kind::File,
                size: 1,
                mode: 0o644,
                modified: Timestamp(modified),
                changed: Timestamp(changed),
                content: None,
            };
            let told = of(modified, 0).is_told_by_time(&of(of_copy, changed));
            assert_eq!(told, expected, "{modified} {of_copy} {changed}");
        };
        let now = 1_000 * SECOND_NANOS;
        check(now + 7, now + 7, now + 8, true);
        check(now + 7, now + 8, now + 9, false);
        // Nobody keeps it.
        check(0, 0, now, false);
        // It was copied when the second was not over in which it was changed.
        check(now, now, now + SECOND_NANOS, false);
        check(now, now, now + 2 * SECOND_NANOS, true);
    }
}
