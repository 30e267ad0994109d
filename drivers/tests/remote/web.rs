//! What a web server has.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use nexus_actors::block_on;
use nexus_kernel::hal::{PathWrite, StoreError};
use nexus_messages::syscall::{ByteRange, MountSpec};

use crate::servers::web::web;
use crate::subjects::{env, open, paths, read, write};

pub(crate) fn mount(port: u16) -> MountSpec {
    MountSpec::new("http").option("url", format!("http://127.0.0.1:{port}")).option("allow_http", "true")
}

#[test]
fn files_are_read_and_nothing_is_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("docs")).expect("it is made");
    fs::write(folder.path().join("docs/a b.txt"), "0123456789").expect("it is written");
    fs::write(folder.path().join("empty"), "").expect("it is written");
    let server = web(folder);
    let store = open(&mount(server.port()));
    assert!(store.read_only());
    assert_eq!(&read(&*store, "docs/a b.txt").expect("it is read")[..], b"0123456789");
    assert_eq!(&read(&*store, "empty").expect("it is read")[..], b"");
    let range = |offset, count| {
        block_on(paths(&*store).read("docs/a b.txt", ByteRange::new(offset, count))).expect("it is read")
    };
    assert_eq!(&range(3, 4).0[..], b"3456");
    assert_eq!(&range(8, 9).0[..], b"89");
    assert_eq!((&range(10, 1).0[..], range(10, 1).1.size), (&b""[..], 10));
    let missing = block_on(paths(&*store).stat("none")).expect_err("it is not there");
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    let listed = block_on(paths(&*store).list("", None, 9)).expect_err("it lists nothing");
    assert!(matches!(listed, StoreError::NotSupported { .. }), "{listed:?}");
    // Also with a cache in front of it, which would list a folder once for all names in it.
    let near = open(&mount(server.port()).option("cache_age_ms", "60000").option("cache_bytes", "100000"));
    assert_eq!(block_on(paths(&*near).stat("docs/a b.txt")).expect("it is there").size, 10);
    assert_eq!(&read(&*near, "docs/a b.txt").expect("it is read")[..], b"0123456789");
    let missing = block_on(paths(&*near).stat("none")).expect_err("it is not there");
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    // The same of one folder of it.
    let spec = MountSpec::new("http").option("url", format!("http://127.0.0.1:{}", server.port()));
    let below = open(&spec.option("allow_http", "true").option("prefix", "docs"));
    assert_eq!(&read(&*below, "a b.txt").expect("it is read")[..], b"0123456789");
    let listed = block_on(paths(&*below).list("", None, 9)).expect_err("it lists nothing");
    assert!(matches!(listed, StoreError::NotSupported { .. }), "{listed:?}");
    let written = write(&*store, "new", "1", PathWrite::Whole).expect_err("it is refused");
    assert!(matches!(written, StoreError::ReadOnly { .. }), "{written:?}");
}

/// What a server without ranges is giving goes on for who reads on, for as long as that is what is there.
#[test]
fn who_reads_on_is_not_given_all_of_it_again() {
    const SIZE: usize = 4 << 20;
    const PIECE: u64 = 1 << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, beside) = (folder.path().join("f"), folder.path().join("beside"));
    let modified = |path, seconds| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("it is ours");
    };
    for (path, byte) in [(&file, b'a'), (&beside, b'b')] {
        fs::write(path, vec![byte; SIZE]).expect("there is room");
        modified(path, 1_000_000);
    }
    let server = web(folder);
    let store = open(&mount(server.port()));
    let piece = |nth: u64| {
        let range = ByteRange::new(nth * PIECE, PIECE);
        let (bytes, _) = block_on(paths(&*store).read("f", range)).expect("it is read");
        assert_eq!(bytes.len() as u64, PIECE);
        (bytes[0], bytes[bytes.len() - 1])
    };
    assert_eq!(piece(0), (b'a', b'a'));
    // As far as anybody can tell this is the same file; only who has it open sees what it was.
    fs::rename(&beside, &file).expect("it is ours");
    assert_eq!((piece(1), piece(2)), ((b'a', b'a'), (b'a', b'a')));
    // And now it is told to be another one.
    modified(&file, 2_000_000);
    assert_eq!(piece(3), (b'b', b'b'));
    assert_eq!((piece(0), piece(2), piece(1)), ((b'b', b'b'), (b'b', b'b'), (b'b', b'b')));
}

/// This server tells of a state the second in which it was made, and no more.
#[test]
fn what_is_as_young_as_its_date_is_not_taken_for_what_was_there_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path().join("f");
    let put = |content: &str, modified: SystemTime| {
        fs::write(&there, content).expect("there is room");
        File::options()
            .write(true)
            .open(&there)
            .and_then(|file| file.set_modified(modified))
            .expect("it is ours");
    };
    let server = web(folder);
    let near = open(&mount(server.port()).option("cache_bytes", "100000"));
    let read = || String::from_utf8_lossy(&read(&*near, "f").expect("it is read")).into_owned();
    // It may change again within the second.
    let young = SystemTime::UNIX_EPOCH + Duration::from_nanos(env().wall()) + Duration::from_secs(3_600);
    put("one", young);
    assert_eq!(read(), "one");
    put("two", young);
    assert_eq!(read(), "two");
    assert_eq!(read(), "two");
    // One that cannot: what is here is asked about, and not fetched again.
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    put("old", old);
    assert_eq!(read(), "old");
    put("odd", old);
    assert_eq!(read(), "old");
}
