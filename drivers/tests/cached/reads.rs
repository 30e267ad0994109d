//! What is read again.

use std::path::Path;
use std::time::Duration;

use nexus_drivers::faults::{Fault, Where};
use nexus_kernel::hal::{PathWrite, StoreError};
use nexus_messages::Attributes;
use nexus_messages::syscall::ByteRange;

use super::far::{Far, Near, content};

const AGE: &[(&str, &str)] = &[("cache_bytes", "8388608"), ("cache_age_ms", "10000")];
const NO_AGE: &[(&str, &str)] = &[("cache_bytes", "8388608")];

#[test]
fn what_was_read_is_read_again_without_its_content_coming_again() {
    let far = Far::new();
    for (name, length) in
        [("small", 100), ("inline", 16 << 10), ("piece", 1 << 20), ("large", (3 << 20) + 77), ("none", 0)]
    {
        far.they_write(name, content(length, 1));
        let near = far.open(NO_AGE);
        assert_eq!(near.read(name).unwrap(), content(length, 1), "{name}");
        far.pass(Duration::from_secs(1));
        let before = far.calls();
        assert_eq!(near.read(name).unwrap(), content(length, 1), "{name}");
        assert_eq!(
            far.calls().0 - before.0,
            1,
            "{name}: it is asked whether it is still the same, and no more"
        );
        drop(near);
        far.pass(Duration::from_secs(1));
        // Also after a restart, behind which what was asked before it counts no more.
        let near = far.open(AGE);
        for asked in [1, 0] {
            let before = far.calls();
            assert_eq!(near.read(name).unwrap(), content(length, 1), "{name}");
            assert_eq!(far.calls().0 - before.0, asked, "{name}: it is asked once");
        }
    }
}

#[test]
fn parts_are_exact_whatever_is_here() {
    let far = Far::new();
    let whole = content((4 << 20) + 13, 2);
    far.they_write("f", whole.clone());
    let (size, piece) = (whole.len() as u64, 1_u64 << 20);
    let near = far.open(NO_AGE);
    let mut seed = 1_u64;
    for _ in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = match seed >> 60 {
            0..4 => (seed >> 20) % 5 * piece,
            4 => size,
            5 => size + 1,
            _ => (seed >> 8) % size,
        };
        let count = match (seed >> 56) & 7 {
            0 => Some(0),
            1 => Some(piece),
            2 => None,
            3 => Some(u64::MAX),
            _ => Some((seed >> 16) % (2 * piece)),
        };
        let range = ByteRange { offset, count };
        let (bytes, info) = near.read_part("f", range).unwrap();
        let (start, end) = range.within(size);
        let at = |byte| usize::try_from(byte).unwrap();
        assert!(bytes == whole.slice(at(start)..at(end)), "{range:?}");
        assert_eq!(info.size, size);
        far.pass(Duration::from_millis(10));
    }
    let before = far.calls();
    assert!(near.read("f").unwrap() == whole);
    assert_eq!(far.calls().0 - before.0, 1, "all pieces are here by now");
}

#[test]
fn what_others_change_is_seen_at_once_or_within_the_age() {
    let far = Far::new();
    far.they_write("d/f", "one");
    let (asks, believes) = (far.open(NO_AGE), far.open(AGE));
    assert_eq!(asks.read("d/f").unwrap(), "one");
    assert_eq!(believes.read("d/f").unwrap(), "one");
    assert_eq!(believes.names("d").unwrap(), ["f"]);
    far.they_write("d/f", "two");
    far.they_write("d/g", "new");
    assert_eq!(asks.read("d/f").unwrap(), "two");
    assert_eq!(asks.stat("d/g").unwrap().size, 3);
    // These two share what they know; what was asked is known to both.
    assert_eq!(believes.read("d/f").unwrap(), "two");
    far.they_write("d/f", "three");
    assert_eq!(believes.read("d/f").unwrap(), "two");
    assert!(matches!(believes.stat("d/g"), Ok(_) | Err(StoreError::NotFound { .. })));
    far.pass(Duration::from_secs(11));
    assert_eq!(believes.read("d/f").unwrap(), "three");
    assert_eq!(believes.stat("d/g").unwrap().size, 3);
    assert_eq!(believes.names("d").unwrap(), ["f", "g"]);
}

/// Found by a user of the command: an append failed for as long as the cache believed what it knew, however often it was tried.
#[test]
fn who_is_refused_because_others_changed_something_sees_what_they_did() {
    let far = Far::new();
    far.they_write("d/f", "one");
    for options in [AGE, &[("cache_age_ms", "600000"), ("cache_bytes", "8388608"), ("write_back", "yes")]] {
        let near = far.open(options);
        far.they_write("d/f", "one");
        far.pass(Duration::from_secs(601));
        assert_eq!((near.read("d/f").unwrap(), near.names("d").unwrap().len()), ("one".into(), 1));
        far.they_write("d/f", "two");
        assert_eq!(near.read("d/f").unwrap(), "one", "it is believed");
        let tag = near.stat("d/f").unwrap().tag;
        let refused = near.write_as("d/f", "one, more", PathWrite::IfMatch(tag)).unwrap_err();
        assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
        assert_eq!(near.read("d/f").unwrap(), "two");
        let tag = near.stat("d/f").unwrap().tag;
        near.write_as("d/f", "two, more", PathWrite::IfMatch(tag)).unwrap();
        far.wait(near.flush()).unwrap();
        assert_eq!(far.theirs("d/f").unwrap(), "two, more");
        // Of what is not there any more, too.
        far.they_remove("d/f");
        let tag = near.stat("d/f").unwrap().tag;
        near.write_as("d/f", "lost", PathWrite::IfMatch(tag)).unwrap_err();
        assert!(matches!(near.stat("d/f"), Err(StoreError::NotFound { .. })));
    }
}

#[test]
fn a_folder_that_was_seen_answers_for_its_names() {
    let far = Far::new();
    for name in ["d/a", "d/b", "d/e/f"] {
        far.they_write(name, name);
    }
    let near = far.open(AGE);
    assert_eq!(near.stat("d/a").unwrap().size, 3);
    let before = far.calls();
    assert_eq!(near.stat("d/b").unwrap().size, 3);
    assert!(matches!(near.stat("d/c"), Err(StoreError::NotFound { .. })));
    assert!(near.stat("d/e").unwrap().entry_type.is_directory());
    assert_eq!(near.names("d").unwrap(), ["a", "b", "e"]);
    assert_eq!(far.calls(), before, "one listing told all of it");
    for _ in 0..2 {
        assert!(near.stat("").unwrap().entry_type.is_directory());
        assert_eq!(near.names("").unwrap(), ["d"], "nothing is in itself");
    }
    let before = far.calls();
    // What is changed here is known here.
    near.write("d/c", "new").unwrap();
    near.delete("d/a").unwrap();
    assert_eq!(near.stat("d/c").unwrap().size, 3);
    assert!(matches!(near.stat("d/a"), Err(StoreError::NotFound { .. })));
    assert_eq!(near.names("d").unwrap(), ["b", "c", "e"]);
    // The last one may take its folder along.
    near.delete("d/e/f").unwrap();
    let _ = near.stat("d/e");
    assert!(far.calls().0 > before.0);
}

#[test]
fn a_write_through_is_what_is_read_from_then_on() {
    let far = Far::new();
    far.they_write("f", content(100, 1));
    let near = far.open(AGE);
    assert_eq!(near.read("f").unwrap(), content(100, 1));
    near.write("f", content(50, 2)).unwrap();
    assert_eq!(near.read("f").unwrap(), content(50, 2));
    near.write_as("f", "xy", PathWrite::At { offset: 1, truncate: false }).unwrap();
    let mut expected = content(50, 2).to_vec();
    expected[1..3].copy_from_slice(b"xy");
    assert_eq!(near.read("f").unwrap(), expected);
    far.wait(near.paths().rename("f", "g")).unwrap();
    assert!(matches!(near.read("f"), Err(StoreError::NotFound { .. })));
    assert_eq!(near.read("g").unwrap(), expected);
    near.delete("g").unwrap();
    assert!(matches!(near.read("g"), Err(StoreError::NotFound { .. })));
}

#[test]
fn it_keeps_no_more_than_it_may() {
    const FILES: u8 = 180;
    let far = Far::new();
    let near = far.open(&[("cache_bytes", "8388608")]);
    for n in 0..FILES {
        let name = format!("f{n}");
        far.they_write(&name, content(1 << 20, n));
        assert!(near.read(&name).unwrap() == content(1 << 20, n));
        far.pass(Duration::from_secs(1));
    }
    let of_files = |folder: &Path| -> u64 {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    far.pass(Duration::from_secs(10));
    let there = walk(&far.folder().join("cached").join("blobs"), &of_files) >> 20;
    // Twice that, and a segment of 64 MiB that is being written and one that was.
    assert!(there < 16 + 128, "{there} MiB are there of at most 8, and {FILES} were read");
    // The last ones are here, and the first are not.
    let before = far.calls();
    assert!(near.read(&format!("f{}", FILES - 1)).unwrap() == content(1 << 20, FILES - 1));
    assert_eq!(far.calls().0 - before.0, 1);
    assert!(near.read("f0").unwrap() == content(1 << 20, 0));
}

#[test]
fn a_mount_that_may_keep_less_lets_the_rest_go() {
    let far = Far::new();
    for n in 0..6 {
        far.they_write(&format!("f{n}"), content(1 << 20, n));
    }
    let near = far.open(&[("cache_bytes", "8388608")]);
    for n in 0..6 {
        assert!(near.read(&format!("f{n}")).unwrap() == content(1 << 20, n));
        far.pass(Duration::from_secs(1));
    }
    assert_eq!(near.figures().bytes, 6 << 20);
    drop(near);
    far.pass(Duration::from_secs(2));
    let near = far.open(&[("cache_bytes", "2097152")]);
    let figures = near.figures();
    assert!(figures.bytes <= 2 << 20 && figures.bytes > 0, "{figures:?}");
}

fn walk(folder: &Path, of_files: &dyn Fn(&Path) -> u64) -> u64 {
    let below =
        std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is there").path());
    below.filter(|path| path.is_dir()).map(|path| walk(&path, of_files)).sum::<u64>() + of_files(folder)
}

#[test]
fn what_is_damaged_here_is_read_again() {
    let far = Far::new();
    let whole = content(2 << 20, 3);
    far.they_write("f", whole.clone());
    let near = far.open(NO_AGE);
    assert!(near.read("f").unwrap() == whole);
    far.pass(Duration::from_secs(1));
    drop(near);
    far.pass(Duration::from_secs(2));
    // Somebody writes over the blobs.
    damage(&far.folder().join("cached").join("blobs"));
    let near = far.open(NO_AGE);
    assert!(near.read("f").unwrap() == whole, "no wrong byte is given");
    assert!(near.read("f").unwrap() == whole);
}

/// Changes a byte in the middle of each large file.
fn damage(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("it is there").path();
        if path.is_dir() {
            damage(&path);
        } else if path.metadata().expect("it is there").len() > 1 << 20 {
            let mut bytes = std::fs::read(&path).expect("it is there");
            let middle = bytes.len() / 3;
            bytes[middle] ^= 0x55;
            std::fs::write(&path, bytes).expect("it is ours");
        }
    }
}

#[test]
fn what_is_here_of_a_store_that_is_not_mounted_makes_room_for_one_that_is() {
    const EACH: u64 = 8 << 20;
    let far = Far::new();
    for n in 0..8 {
        far.they_write(&format!("f{n}"), content(1 << 20, n));
    }
    let open = |prefix: &'static str| far.open(&[("cache_bytes", "8388608"), ("prefix", prefix)]);
    let read = |near: &Near, files: u8| {
        for n in 0..files {
            near.read(&format!("f{n}")).unwrap();
            far.pass(Duration::from_millis(100));
        }
        near.figures().bytes
    };
    let (mounted, gone) = (open("mounted"), open("gone"));
    assert_eq!((read(&mounted, 7), read(&gone, 7)), (7 << 20, 7 << 20));
    drop(gone);
    far.pass(Duration::from_secs(2));
    // There is room for all of it.
    assert_eq!(open("gone").figures().bytes, 7 << 20, "it is found again");
    let other = open("other");
    assert_eq!(read(&other, 2), 2 << 20);
    assert_eq!(open("gone").figures().bytes, 7 << 20);
    read(&other, 8);
    let left = open("gone").figures().bytes;
    assert!((7 << 20) + left + other.figures().bytes <= 2 * EACH + (1 << 20), "{left}");
    assert_eq!(mounted.figures().bytes, 7 << 20, "who is mounted gives nothing");
}

#[test]
fn a_change_that_nobody_heard_the_end_of_is_looked_for_at_the_store() {
    let far = Far::new();
    let near = far.open(AGE);
    for name in ["f", "gone"] {
        near.write(name, "one").unwrap();
        assert_eq!(near.read(name).unwrap(), "one");
    }
    assert_eq!(near.names("").unwrap(), ["f", "gone"]);
    far.faults.always(Where::Change, Fault::DoneThenHang);
    // As a kernel does it that has waited for long enough.
    let (at, two, none) = (PathWrite::At { offset: 3, truncate: false }, ["two".into()], Attributes::none());
    let written = near.paths().write("f", &two, at, &none);
    far.wait(far.env.timeout(Duration::from_secs(1), written)).expect_err("nobody answers");
    far.wait(far.env.timeout(Duration::from_secs(1), near.paths().delete("gone")))
        .expect_err("nobody answers");
    assert_eq!(near.read("f").unwrap(), "onetwo");
    assert!(matches!(near.read("gone"), Err(StoreError::NotFound { .. })));
    assert_eq!(near.names("").unwrap(), ["f"]);
}
