//! Reads of what the system has in its memory, on the thread of whoever asks. No disk is waited for, and so no other thread is, which takes several times as long as
//! the read.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use nexus_kernel::hal::ObjectInfo;
use nexus_messages::EntryType;
use nexus_messages::syscall::ByteRange;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::ReadWriteFlags;

use super::descend::FILE;
use super::info;

/// How much is read so at most: the thread is another one's, too.
const AT_HAND_MAX: u64 = 64 << 10;

/// File systems of this machine's own disks and memory, by the numbers that Linux gives them: what they know of an open file they tell without asking anybody. One that lies over
/// others is none of them: what is below it may be elsewhere.
const OWN: [u32; 5] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683E, // Btrfs
    0xF2F5_2010, // F2FS
    0x0102_1994, // tmpfs
];

/// Opened from the names that are in memory, and nowhere else than below the folder, on the same file system.
const STAY: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV)
    .union(ResolveFlags::CACHED);

/// Whether files in this folder can be read so.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "the field's type differs from system to system, and the numbers have 32 bits"
)]
pub(super) fn can_be(root: &OwnedFd) -> bool {
    rustix::fs::fstatfs(root).is_ok_and(|there| OWN.contains(&(there.f_type as u32)))
}

/// What is in the file at `path`, and what it is, when all of that is in memory and stays as it is meanwhile. None when it is not as simple as that; nothing was done then.
pub(super) fn read(root: &OwnedFd, path: &str, range: ByteRange) -> Option<(Bytes, ObjectInfo)> {
    let open = |flags| rustix::fs::openat2(root, path, flags, Mode::empty(), STAY).ok();
    // Looked at before it is opened to be read: a pipe would take from its writer what is for its reader, and a device may act.
    let there = open(OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
    let before = info::of_open(&there, path).ok().filter(|info| info.entry_type == EntryType::Reg)?;
    let (start, end) = range.within(before.size);
    let length = usize::try_from(end - start).ok().filter(|_| end - start <= AT_HAND_MAX)?;
    let file = open(OFlags::RDONLY | FILE)?;
    let mut bytes = vec![0; length];
    let mut into = [IoSliceMut::new(&mut bytes)];
    // The system says so when it would have to wait.
    let read = rustix::io::preadv2(&file, &mut into, start, ReadWriteFlags::NOWAIT).ok()?;
    let mut after = info::of_open_now(&file, path).ok()?;
    after.created = before.created;
    (read == length && after.tag == before.tag).then(|| (bytes.into(), after))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_in_memory_is_read_and_nothing_else_is_touched() {
        let there = tempfile::tempdir().unwrap();
        let at = |name: &str| there.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/f"), "content").unwrap();
        fs::write(at("long"), vec![7; 64 * 1024 + 1]).unwrap();
        symlink("d", at("link")).unwrap();
        symlink("d/f", at("file-link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let root: OwnedFd = File::open(there.path()).unwrap().into();
        let read = |path: &str, range| read(&root, path, range).map(|(bytes, info)| (bytes, info.size));
        // Nothing is at hand on a file system that does not say whether it would wait.
        let check = |path: &str, range, content: Vec<u8>, size| {
            let found = read(path, range);
            assert!(found.is_none() || found == Some((content.into(), size)), "{path} {range:?}");
        };
        check("d/f", ByteRange::ALL, b"content".to_vec(), 7);
        check("d/f", ByteRange::new(3, 2), b"te".to_vec(), 7);
        check("d/f", ByteRange::new(9, 2), Vec::new(), 7);
        check("long", ByteRange::new(1, 64 * 1024), vec![7; 64 * 1024], 64 * 1024 + 1);
        for none in ["long", "d", "nothing", "link/f", "file-link", "pipe", "../x", "/etc/passwd", ""] {
            assert_eq!(read(none, ByteRange::ALL), None, "{none}");
        }
    }
}
