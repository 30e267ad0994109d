//! What the drivers on the local disk leave on it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_drivers::local::LocalTransport;
use nexus_kernel::hal::{ContentStore, ObjectStore, PathStore, PathWrite, StoreError, Transport};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, EntryType};

use super::subjects::{cas_local, id_of, packs, path_local, pool, wait};

fn bytes(text: &'static str) -> [Bytes; 1] {
    [Bytes::from_static(text.as_bytes())]
}

#[test]
fn a_torn_blob_is_corrupt_and_healed_by_the_identical_write() {
    let folder = tempfile::tempdir().unwrap();
    let cas = cas_local(folder.path());
    let id = id_of(b"0123456789");
    wait(cas.write(&id, &bytes("0123456789"))).unwrap();
    let hex = id.to_string();
    let file = folder.path().join("cas").join(&hex[..2]).join(&hex[2..4]).join(&hex);
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(5).unwrap();
    assert!(matches!(wait(cas.read(&id, ByteRange::new(0, 2))), Err(StoreError::Corrupt { .. })));
    wait(cas.write(&id, &bytes("0123456789"))).unwrap();
    assert_eq!(wait(cas.read(&id, ByteRange::ALL)).unwrap(), "0123456789");
    assert_eq!(fs::read(&file).unwrap(), b"0123456789");
}

#[test]
fn identical_content_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let cas = cas_local(folder.path());
    let id = id_of(b"same");
    wait(cas.write(&id, &bytes("same"))).unwrap();
    let file = folder.path().join(nexus_drivers::cas::Cas::<LocalTransport>::key(&id).unwrap());
    let inode = fs::metadata(&file).unwrap().ino();
    wait(cas.write(&id, &bytes("same"))).unwrap();
    wait(cas_local(folder.path()).write(&id, &bytes("same"))).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
}

#[test]
fn what_a_crash_left_half_written_is_removed_at_the_next_start_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let open = || block_on(LocalTransport::open(folder.path(), pool())).unwrap();
    let tmp = folder.path().join("tmp");
    let stagings = || fs::read_dir(&tmp).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    let alive = open();
    // As a process that was killed leaves it: not locked by anybody.
    fs::create_dir(tmp.join("7")).unwrap();
    fs::write(tmp.join("7/alive"), "").unwrap();
    fs::write(tmp.join("7/0"), "half").unwrap();
    fs::create_dir(tmp.join("8")).unwrap();
    assert_eq!(stagings(), 3);
    let second = open();
    assert_eq!(stagings(), 2, "the dead are gone, the first owner's is not");
    wait(alive.put("a", &bytes("1"))).unwrap();
    wait(second.put("b", &bytes("2"))).unwrap();
    drop(alive);
    assert_eq!(stagings(), 1);
    assert_eq!(wait(second.get("a", ByteRange::ALL)).unwrap(), "1");
}

#[test]
fn keys_are_listed_in_order_and_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let local = block_on(LocalTransport::open(folder.path(), pool())).unwrap();
    let memory = nexus_drivers::memory::MemoryTransport::new();
    let packed_in = tempfile::tempdir().unwrap();
    let packed = packs(packed_in.path());
    let stores: [&dyn Transport; 3] = [&local, &memory, &packed];
    let keys = ["a", "a.b", "a-/x", "b/c/d", "b/c/e", "b/c.d", "b0", "c"];
    for (store, key) in stores.iter().flat_map(|store| keys.map(|key| (store, key))) {
        if key != "a" {
            wait(store.put(key, &bytes("x"))).unwrap();
        }
    }
    for prefix in ["", "a", "b/", "b/c", "b/c/", "none", "c"] {
        for after in [None, Some("a-/x"), Some("b"), Some("b/c/d"), Some("b/c.d"), Some("zz")] {
            for limit in [0, 1, 2, 100] {
                let list = |store: &dyn Transport| wait(store.list(prefix, after, limit)).unwrap();
                assert_eq!(list(&local), list(&memory), "{prefix:?} {after:?} {limit}");
                assert_eq!(list(&packed), list(&memory), "{prefix:?} {after:?} {limit}");
            }
        }
    }
    let mut sorted = keys[1..].to_vec();
    sorted.sort_unstable();
    assert_eq!(wait(local.list("", None, 100)).unwrap(), sorted);
    for bad in ["../x", "/x", "tmp/x", "", "a//b"] {
        assert!(wait(local.put(bad, &bytes("x"))).is_err(), "{bad}");
        assert!(wait(packed.put(bad, &bytes("x"))).is_err(), "{bad}");
    }
}

#[test]
fn a_whole_write_leaves_one_plain_file_with_its_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o751)).unwrap();
    let paths = path_local(folder.path());
    wait(paths.write("script", &bytes("new"), PathWrite::Whole, &Attributes::none())).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    wait(paths.write("fresh", &bytes("x"), PathWrite::Exclusive, &Attributes::none())).unwrap();
    assert_eq!(fs::metadata(folder.path().join("fresh")).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_others_do_to_the_folder_is_seen_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let paths = path_local(folder.path());
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("d/f"), "theirs").unwrap();
    let (content, info) = wait(paths.read("d/f", ByteRange::ALL)).unwrap();
    assert_eq!(content, "theirs");
    fs::write(folder.path().join("d/f"), "theirs again").unwrap();
    assert_ne!(wait(paths.stat("d/f")).unwrap().tag, info.tag);
    fs::remove_dir_all(folder.path().join("d")).unwrap();
    assert!(matches!(wait(paths.stat("d/f")), Err(StoreError::NotFound { .. })));
}

#[test]
fn names_that_no_path_can_hold_are_counted_once_over_all_pages() {
    let folder = tempfile::tempdir().unwrap();
    for name in [&b"b\xff"[..], b"d\xff", b"\xfe"] {
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
    }
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let paths = path_local(folder.path());
    for limit in 1..7 {
        let (mut names, mut unnameable, mut after) = (0, 0, None::<String>);
        loop {
            let page = wait(paths.list("", after.as_deref(), limit)).unwrap();
            names += page.entries.len();
            unnameable += page.unnameable;
            after = page.entries.last().map(|(name, _)| name.clone());
            if !page.more {
                break;
            }
        }
        assert_eq!((names, unnameable), (5, 3), "pages of {limit}");
    }
}

#[test]
fn what_a_crash_left_in_the_making_is_hidden_and_does_not_keep_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("d/.nexus-part-1-2-3"), "half").unwrap();
    fs::write(folder.path().join("d/f"), "").unwrap();
    let paths = path_local(folder.path());
    assert_eq!(wait(paths.list("d", None, 9)).unwrap().entries.len(), 1);
    assert!(wait(paths.read("d/.nexus-part-1-2-3", ByteRange::ALL)).is_err());
    assert!(matches!(wait(paths.delete("d")), Err(StoreError::NotEmpty { .. })));
    assert!(folder.path().join("d/.nexus-part-1-2-3").exists(), "a folder in use is left alone");
    wait(paths.delete("d/f")).unwrap();
    wait(paths.delete("d")).unwrap();
    assert!(!folder.path().join("d").exists());
}

#[test]
fn a_pipe_in_the_folder_holds_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(status.success() && fs::metadata(&pipe).unwrap().file_type().is_fifo());
    let paths = path_local(folder.path());
    assert_eq!(wait(paths.stat("pipe")).unwrap().entry_type, EntryType::Pipe);
    for how in [PathWrite::Whole, PathWrite::At { offset: 0, truncate: false }] {
        let written = wait(paths.write("pipe", &bytes("x"), how, &Attributes::none()));
        assert!(matches!(written, Err(StoreError::NotSupported { .. })), "{written:?}");
    }
    assert!(matches!(wait(paths.read("pipe", ByteRange::ALL)), Err(StoreError::NotSupported { .. })));
}

/// Each upload that begins looks for what was left in its folder.
#[test]
fn what_is_just_being_made_is_not_taken_for_what_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let paths = path_local(folder.path());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let paths = &paths;
            scope.spawn(move || {
                for n in 0..60 {
                    let path = format!("{thread}-{n}");
                    let mut upload = block_on(paths.upload(&path)).unwrap();
                    block_on(upload.push(Bytes::from_static(b"content"))).unwrap();
                    let finished = block_on(upload.finish(&path, PathWrite::Whole, &Attributes::none()));
                    assert_eq!(finished.unwrap_or_else(|e| panic!("{path}: {e}")).size, 7);
                }
            });
        }
    });
}

/// Opened, it would take from its writer, who waits for a reader, what is for another one.
#[cfg(target_os = "linux")]
#[test]
fn a_pipe_in_the_folder_is_not_opened() {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let paths = path_local(folder.path());
    let opened = init(CreateFlags::NONBLOCK).unwrap();
    add_watch(&opened, &pipe, WatchFlags::OPEN).unwrap();
    for done in [
        wait(paths.read("pipe", ByteRange::ALL)).map(drop),
        wait(paths.copy("pipe", "copy")).map(drop),
        wait(paths.write(
            "pipe",
            &bytes("x"),
            PathWrite::At { offset: 0, truncate: false },
            &Attributes::none(),
        ))
        .map(drop),
    ] {
        assert!(matches!(done, Err(StoreError::NotSupported { .. })), "{done:?}");
    }
    let told = rustix::io::read(&opened, &mut [0; 256]);
    assert_eq!(told, Err(rustix::io::Errno::AGAIN), "it was opened");
    assert!(!folder.path().join("copy").exists());
}

#[test]
fn a_folder_that_was_removed_is_not_taken_for_an_empty_one() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("f"), "x").unwrap();
    let paths = path_local(&folder);
    assert_eq!(wait(paths.list("", None, 10)).unwrap().entries.len(), 1);
    fs::remove_dir_all(&folder).unwrap();
    for made_again in [false, true] {
        if made_again {
            // That is another one.
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("f"), "x").unwrap();
        }
        let told: [Result<(), StoreError>; 6] = [
            wait(paths.list("", None, 10)).map(drop),
            wait(paths.stat("")).map(drop),
            wait(paths.stat("f")).map(drop),
            wait(paths.read("f", ByteRange::ALL)).map(drop),
            wait(paths.write("g", &bytes("y"), PathWrite::Whole, &Attributes::none())).map(drop),
            wait(paths.delete("f")),
        ];
        for told in told {
            let error = told.expect_err("it is not there");
            assert!(error.is_backend_failure() && error.to_string().contains("removed"), "{error}");
        }
        assert!(wait(paths.probe()).is_err());
    }
    // Nor one that was moved away for the one that is in its place.
    let paths = path_local(&folder);
    wait(paths.probe()).unwrap();
    fs::rename(&folder, above.path().join("moved")).unwrap();
    assert!(wait(paths.probe()).is_err());
    fs::create_dir(&folder).unwrap();
    let error = wait(paths.probe()).unwrap_err();
    assert!(error.is_backend_failure(), "{error}");
}
