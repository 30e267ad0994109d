//! What is written back.

use std::time::Duration;

use nexus_actors::{Event, TraceEntry};
use nexus_drivers::faults::{Fault, Where};
use nexus_kernel::hal::{PathWrite, StoreError};
use nexus_messages::Attributes;
use nexus_messages::syscall::ByteRange;

use super::far::{Far, Near, content};

const BACK: &[(&str, &str)] = &[("write_back", "yes"), ("cache_age_ms", "60000")];
const BACK_AND_CACHE: &[(&str, &str)] =
    &[("write_back", "yes"), ("cache_age_ms", "60000"), ("cache_bytes", "8388608")];

/// The store cannot be changed.
fn stuck(far: &Far) {
    far.faults.always(Where::Change, Fault::Error);
}

/// Found by a user of the command: an append waited until the store was there again.
#[test]
fn what_is_pending_is_appended_to_while_the_store_is_away() {
    let far = Far::new();
    let near = far.open(BACK);
    near.write("f", "one").unwrap();
    far.wait(near.flush()).unwrap();
    stuck(&far);
    let first = near.write("f", "two").unwrap();
    let more = near.write_as("f", "two, three", PathWrite::IfMatch(first.tag.clone())).unwrap();
    assert_eq!((near.read("f").unwrap(), far.theirs("f").unwrap()), ("two, three".into(), "one".into()));
    // It is on disk, as anything pending is, and each goes on from the one before.
    let tag = near.stat("f").unwrap().tag;
    assert_eq!(tag, more.tag);
    drop(near);
    let near = far.open(BACK);
    near.write_as("f", "two, three, four", PathWrite::IfMatch(tag)).unwrap();
    assert_eq!(near.figures().pending_files, 1);
    far.faults.clear();
    far.wait(near.flush()).unwrap();
    assert_eq!(far.theirs("f").unwrap(), "two, three, four");
    // Of those that go on from the same state, one does.
    for gone in [first.tag, more.tag] {
        let refused = near.write_as("f", "lost", PathWrite::IfMatch(gone)).unwrap_err();
        assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
    }
    let paths = near.paths();
    let (none, tag) = (Attributes::none(), near.write("f", "now").unwrap().tag);
    let both = ["a", "b"].map(|content| {
        let (tag, none) = (tag.clone(), &none);
        async move { paths.write("f", &[content.into()], PathWrite::IfMatch(tag), none).await }
    });
    let done = far.wait(futures_util::future::join_all(both));
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
    let won = if done[0].is_ok() { "a" } else { "b" };
    far.wait(near.flush()).unwrap();
    assert_eq!((near.read("f").unwrap(), far.theirs("f").unwrap()), (won.into(), won.into()));
}

#[test]
fn a_folder_that_is_here_alone_is_listed_to_its_end() {
    for age in ["0", "60000"] {
        let far = Far::new();
        let near = far.open(&[("write_back", "yes"), ("cache_age_ms", age)]);
        stuck(&far);
        near.write("d/a", content(1, 1)).unwrap();
        near.write("d/b", content(1, 2)).unwrap();
        let after = |name| {
            let page = far.wait(near.paths().list("d", Some(name), 9)).unwrap();
            (page.entries.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), page.more)
        };
        assert_eq!(after("a"), (vec!["b".to_owned()], false));
        assert_eq!(after("b"), (vec![], false), "the store has no such folder, and here is one");
        assert!(matches!(far.wait(near.paths().list("e", Some("a"), 9)), Err(StoreError::NotFound { .. })));
    }
}

#[test]
fn a_write_is_acknowledged_before_the_store_has_it_and_is_there_later() {
    for options in [BACK, BACK_AND_CACHE] {
        let far = Far::new();
        let near = far.open(options);
        stuck(&far);
        let files = [("a", 0), ("d/b", 10), ("d/e/c", 20_000), ("d/large", (3 << 20) + 5)];
        for (n, (name, length)) in (0..).zip(files) {
            let info = near.write(name, content(length, n)).unwrap();
            assert_eq!(info.size, length as u64);
        }
        let check = |far: &Far| {
            for (n, (name, length)) in (0..).zip(files) {
                assert!(near.read(name).unwrap() == content(length, n), "{name}");
                assert_eq!(near.stat(name).unwrap().size, length as u64, "{name}");
            }
            assert_eq!(near.names("").unwrap(), ["a", "d"]);
            assert_eq!(near.names("d").unwrap(), ["b", "e", "large"]);
            assert_eq!(near.names("d/e").unwrap(), ["c"]);
            assert!(near.stat("d/e").unwrap().entry_type.is_directory());
            assert!(matches!(near.stat("d/none"), Err(StoreError::NotFound { .. })));
            assert!(matches!(near.stat("a/below"), Err(StoreError::NotADirectory { .. })));
            far.calls()
        };
        check(&far);
        far.pass(Duration::from_secs(5));
        check(&far);
        assert_eq!(far.theirs("a"), None);
        let tags = files.map(|(name, _)| near.stat(name).unwrap().tag);
        far.faults.clear();
        far.pass(Duration::from_secs(120));
        for (n, (name, length)) in (0..).zip(files) {
            assert!(far.theirs(name).unwrap() == content(length, n), "{name}");
        }
        check(&far);
        assert_eq!(
            files.map(|(name, _)| near.stat(name).unwrap().tag),
            tags,
            "a tag is of the content, wherever it is"
        );
    }
}

#[test]
fn what_was_acknowledged_outlives_a_restart_with_and_without_the_option() {
    for again in [BACK, BACK_AND_CACHE, &[]] {
        let far = Far::new();
        let near = far.open(BACK);
        stuck(&far);
        near.write("small", "one").unwrap();
        near.write("small", "two").unwrap();
        near.write("large", content(2 << 20, 5)).unwrap();
        far.pass(Duration::from_secs(3));
        drop(near);
        far.pass(Duration::from_secs(3));
        let near = far.open(again);
        assert_eq!(near.read("small").unwrap(), "two");
        assert!(near.read("large").unwrap() == content(2 << 20, 5));
        far.faults.clear();
        far.pass(Duration::from_secs(120));
        assert_eq!(far.theirs("small").unwrap(), "two");
        assert!(far.theirs("large").unwrap() == content(2 << 20, 5));
    }
}

#[test]
fn the_latest_state_alone_goes_to_the_store() {
    let far = Far::new();
    let near = far.open(BACK);
    stuck(&far);
    for n in 0..50 {
        near.write("f", format!("state {n}")).unwrap();
    }
    far.faults.clear();
    let before = far.calls().1;
    far.pass(Duration::from_secs(120));
    assert_eq!(far.theirs("f").unwrap(), "state 49");
    assert!(far.calls().1 - before <= 2, "{} changes", far.calls().1 - before);
}

/// A mebibyte of content stays, and so much is written here that the first files go.
const BACK_AND_LITTLE: &[(&str, &str)] =
    &[("write_back", "yes"), ("cache_age_ms", "60000"), ("cache_bytes", "1048576")];

/// Writes files until those before them are let go, and have come to the store.
fn push_out(far: &Far, near: &Near<'_>) {
    for n in 0..8 {
        near.write(&format!("more/{n}"), content(300_000, n)).expect("there is room");
        far.pass(Duration::from_secs(1));
    }
}

#[test]
fn a_file_that_came_to_the_store_behind_a_listing_and_was_let_go_is_there() {
    let far = Far::new();
    let near = far.open(BACK_AND_LITTLE);
    stuck(&far);
    near.write("a", content(1_000, 9)).unwrap();
    near.write("d/e/a", content(1_000, 9)).unwrap();
    far.pass(Duration::from_secs(61));
    // The store has none of the two yet, and says so.
    for name in ["b", "d/b", "d/e/b"] {
        assert!(matches!(near.stat(name), Err(StoreError::NotFound { .. })));
    }
    far.faults.clear();
    far.wait(near.flush()).unwrap();
    push_out(&far, &near);
    for name in ["a", "d/e/a"] {
        assert_eq!(near.stat(name).expect(name).size, 1_000);
        assert_eq!(near.read(name).unwrap(), content(1_000, 9));
    }
    assert_eq!(near.names("").unwrap(), ["a", "d", "more"]);
    assert_eq!(near.names("d/e").unwrap(), ["a"]);
}

#[test]
fn a_file_that_was_let_go_has_one_tag_whoever_is_asked() {
    let far = Far::new();
    let near = far.open(BACK_AND_LITTLE);
    near.write("a", content(1_000, 9)).unwrap();
    push_out(&far, &near);
    let before = far.calls();
    let tag = near.stat("a").unwrap().tag;
    assert_eq!(far.calls(), before, "its folder tells of it");
    let (bytes, info) = near.read_part("a", ByteRange::ALL).unwrap();
    assert!(far.calls().0 > before.0, "its content was let go");
    assert_eq!(info.tag, tag);
    assert!(bytes == content(1_000, 9));
}

#[test]
fn what_is_deleted_stays_away() {
    let far = Far::new();
    far.they_write("old", "theirs");
    let near = far.open(BACK);
    stuck(&far);
    near.write("new", "1").unwrap();
    near.write("old", "2").unwrap();
    // A deletion is not acknowledged before the store has made it.
    assert!(near.delete("new").is_err());
    assert_eq!(near.read("new").unwrap(), "1");
    far.faults.clear();
    near.delete("new").unwrap();
    near.delete("old").unwrap();
    assert!(matches!(near.read("new"), Err(StoreError::NotFound { .. })));
    drop(near);
    far.pass(Duration::from_secs(120));
    let near = far.open(BACK);
    far.pass(Duration::from_secs(120));
    assert_eq!((far.theirs("new"), far.theirs("old")), (None, None));
    assert_eq!(near.names("").unwrap(), [""; 0]);
}

#[test]
fn other_changes_wait_for_what_is_pending_there() {
    let far = Far::new();
    let near = far.open(BACK);
    near.write("d/f", "content").unwrap();
    far.wait(near.paths().rename("d", "e")).unwrap();
    assert_eq!(near.read("e/f").unwrap(), "content");
    assert!(matches!(near.read("d/f"), Err(StoreError::NotFound { .. })));
    near.write("e/f", "abc").unwrap();
    near.write_as("e/f", "X", PathWrite::At { offset: 1, truncate: false }).unwrap();
    assert_eq!(near.read("e/f").unwrap(), "aXc");
    assert_eq!(far.theirs("e/f").unwrap(), "aXc");
    assert!(matches!(near.write_as("e/f", "", PathWrite::Exclusive), Err(StoreError::Exists { .. })));
    assert!(matches!(near.write("e", "a folder is there"), Err(StoreError::IsADirectory { .. })));
    near.write("e/g", "").unwrap();
    assert!(matches!(near.delete("e"), Err(StoreError::NotEmpty { .. })));
    assert!(!near.paths().capabilities().exclusive, "another kernel may make the same file");
}

#[test]
fn what_does_not_fit_goes_through() {
    let far = Far::new();
    let near = far.open(&[("write_back", "yes"), ("write_back_bytes", "1000")]);
    stuck(&far);
    near.write("fits", content(900, 1)).unwrap();
    assert!(near.write("not", content(101, 2)).is_err(), "the store itself takes no changes");
    assert!(near.write("huge", content(5 << 20, 2)).is_err());
    far.faults.clear();
    near.write("not", content(101, 3)).unwrap();
    assert_eq!(far.theirs("not").unwrap(), content(101, 3));
    near.write("huge", content(5 << 20, 4)).unwrap();
    assert!(far.theirs("huge").unwrap() == content(5 << 20, 4));
}

#[test]
fn no_more_is_on_its_way_at_once_than_may_be() {
    let at_once = |options: &[(&str, &str)], files: u8, length: usize| {
        let far = Far::new();
        let near = far.open(options);
        far.faults.always(Where::Change, Fault::Hang);
        for n in 0..files {
            near.write(&format!("d/{n}"), vec![n; length]).unwrap();
        }
        far.pass(Duration::from_secs(5));
        let at_once = far.calls().1;
        far.faults.clear();
        far.pass(Duration::from_secs(600));
        for n in 0..files {
            assert!(far.theirs(&format!("d/{n}")).unwrap() == vec![n; length], "{n}");
        }
        at_once
    };
    assert_eq!(at_once(BACK, 70, 10), 64);
    assert_eq!(at_once(&[BACK, &[("write_back_at_once", "3")]].concat(), 5, 10), 3);
    assert_eq!(at_once(BACK, 10, 4 << 20), 8, "32 MiB of 4 MiB each");
}

#[test]
fn a_store_that_panics_and_hangs_gets_it_in_the_end() {
    for fault in [Fault::Panic, Fault::PanicAtOnce, Fault::Hang, Fault::DoneThenPanic, Fault::DoneThenHang] {
        let far = Far::new();
        let near = far.open(BACK);
        far.faults.times(2, Where::Change, fault);
        near.write("f", "content").unwrap();
        far.pass(Duration::from_secs(600));
        assert_eq!(far.theirs("f").unwrap(), "content", "{fault:?}");
        assert_eq!(near.read("f").unwrap(), "content", "{fault:?}");
    }
}

#[test]
fn many_files_take_few_flushes_and_no_question() {
    let far = Far::new();
    let near = far.open(BACK);
    assert!(near.stat("d/0").is_err());
    let before = far.calls();
    stuck(&far);
    for n in 0..200 {
        near.write_as(&format!("d/{n}"), format!("{n}"), PathWrite::Exclusive).unwrap();
    }
    assert_eq!(far.calls().0, before.0, "what is in the folder is known");
    far.faults.clear();
    far.pass(Duration::from_secs(120));
    for n in 0..200 {
        assert_eq!(far.theirs(&format!("d/{n}")).unwrap(), format!("{n}"));
    }
}

#[test]
fn what_has_come_to_the_store_is_kept_within_the_bound() {
    let far = Far::new();
    let near = far.open(&[("write_back", "yes"), ("cache_age_ms", "60000"), ("cache_bytes", "4194304")]);
    for n in 0..20 {
        near.write(&format!("f{n}"), content(1 << 20, n)).unwrap();
    }
    far.pass(Duration::from_secs(120));
    let figures = near.figures();
    assert_eq!((figures.pending_files, figures.pending_bytes), (0, 0));
    assert!(figures.bytes <= figures.bytes_max && figures.bytes > 0, "{figures:?}");
    for n in 0..20 {
        assert!(near.read(&format!("f{n}")).unwrap() == content(1 << 20, n));
    }
}

#[test]
fn a_store_that_is_down_is_left_alone_however_much_is_pending() {
    const FILES: u64 = 60;
    let far = Far::new();
    let near = far.open(BACK);
    stuck(&far);
    for n in 0..FILES {
        near.write(&format!("f{n}"), format!("{n}")).unwrap();
    }
    let before = far.calls().1;
    far.pass(Duration::from_secs(60));
    let asked = far.calls().1 - before;
    assert!((5..50).contains(&asked), "it was asked {asked} times within a minute");
    far.faults.clear();
    far.pass(Duration::from_secs(60));
    for n in 0..FILES {
        assert_eq!(far.theirs(&format!("f{n}")).unwrap(), format!("{n}"));
    }
}

#[test]
fn what_no_store_may_have_a_key_for_is_not_acknowledged_before_it_is_there() {
    let far = Far::new();
    let near = far.open(BACK);
    stuck(&far);
    let long = "x".repeat(600);
    for path in [&*long, "a\nb", "d/\u{7f}"] {
        assert!(near.write(path, "1").is_err(), "{path:?}: the store itself takes no changes");
    }
    near.write(&long[..200], "1").unwrap();
    far.faults.clear();
    near.write(&long, "1").unwrap();
    assert_eq!(far.theirs(&long).unwrap(), "1");
}

#[test]
fn writes_at_the_same_moment_stay_within_the_bound_together() {
    let far = Far::new();
    let near = far.open(&[("write_back", "yes"), ("write_back_bytes", "3145728"), ("cache_age_ms", "60000")]);
    stuck(&far);
    let bytes = [content(1 << 20, 1)];
    let names: Vec<String> = (0..10).map(|n| format!("f{n}")).collect();
    let none = Attributes::none();
    let writes = names.iter().map(|name| near.paths().write(name, &bytes, PathWrite::Whole, &none));
    let done = far.wait(futures_util::future::join_all(writes));
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 3, "the store itself takes no changes");
    assert_eq!(near.figures().pending_bytes, 3 << 20);
}

/// What a server has, nobody calls back: it may do it when it was given up.
#[test]
fn what_was_given_up_and_arrives_late_comes_before_what_was_acknowledged_after_it() {
    let begun = || {
        let far = Far::new();
        far.faults.once(Where::Change, Fault::Hang);
        far
    };
    // Written while the attempt is under way, which takes two minutes, or after it was given up.
    for written in [100, 121] {
        let far = begun();
        let near = far.open(BACK);
        near.write("f", "old").unwrap();
        far.pass(Duration::from_secs(written));
        near.write("f", "new").unwrap();
        far.pass(Duration::from_secs(125 - written));
        far.they_write("f", "old");
        far.pass(Duration::from_secs(120));
        assert_eq!((near.read("f").unwrap(), far.theirs("f").unwrap()), ("new".into(), "new".into()));
    }
    for is_ended in [false, true] {
        let far = begun();
        let mut near = far.open(BACK);
        near.write("f", "old").unwrap();
        far.pass(Duration::from_secs(if is_ended { 30 } else { 121 }));
        if is_ended {
            let again = far.open(BACK);
            drop(std::mem::replace(&mut near, again));
            far.pass(Duration::from_secs(2));
        }
        let (deleted, ()) = far.wait(futures_util::future::join(near.paths().delete("f"), async {
            far.env.sleep(Duration::from_secs(4)).await;
            let late = far.paths().write("f", &["old".into()], PathWrite::Whole, &Attributes::none()).await;
            late.unwrap();
        }));
        deleted.unwrap();
        assert_eq!(far.theirs("f"), None, "ended: {is_ended}");
    }
}

/// Whether the mount of `far` goes on, or another one is opened from what is on disk.
fn go_on<'a>(far: &'a Far, near: Near<'a>, is_ended: bool) -> Near<'a> {
    if !is_ended {
        return near;
    }
    drop(near);
    far.pass(Duration::from_secs(2));
    far.open(BACK)
}

#[test]
fn a_change_of_the_store_that_was_given_up_and_arrives_late_comes_before_what_was_acknowledged_after_it() {
    for is_ended in [false, true] {
        let far = Far::new();
        let near = far.open(BACK);
        for name in ["f", "d/f", "g"] {
            near.write(name, "old").unwrap();
        }
        far.wait(near.flush()).unwrap();
        far.faults.always(Where::Change, Fault::Hang);
        let at = PathWrite::At { offset: 3, truncate: false };
        let changes = async {
            let append = ["er".into()];
            let (deleted, written) = (near.paths().delete("f"), Attributes::none());
            let written = near.paths().write("g", &append, at, &written);
            let names = ["d/f".to_owned()];
            let many = near.paths().delete_many(&names);
            futures_util::future::join3(deleted, written, many).await
        };
        far.wait(far.env.timeout(Duration::from_secs(1), changes)).expect_err("nobody answers");
        far.faults.clear();
        let near = go_on(&far, near, is_ended);
        for name in ["f", "d/f", "g"] {
            near.write(name, "new").unwrap();
        }
        far.pass(Duration::from_secs(4));
        for name in ["f", "d/f"] {
            assert_eq!(far.theirs(name).unwrap(), "old", "ended: {is_ended}");
            far.wait(far.paths().delete(name)).unwrap();
        }
        far.they_write("g", "older");
        far.pass(Duration::from_secs(120));
        for name in ["f", "d/f", "g"] {
            assert_eq!(near.read(name).unwrap(), "new", "{name}, ended: {is_ended}");
            assert_eq!(far.theirs(name).unwrap(), "new", "{name}, ended: {is_ended}");
        }
        // Nobody waits for what cannot come any more.
        let near = go_on(&far, near, true);
        let began = far.now().0;
        near.delete("f").unwrap();
        assert!(far.now().0 - began < 1_000_000_000, "ended: {is_ended}");
    }
}

/// Gives up a call that nobody answers.
fn give_up<F: Future>(far: &Far, call: F) {
    far.faults.always(Where::Change, Fault::Hang);
    assert!(far.wait(far.env.timeout(Duration::from_secs(1), call)).is_err(), "nobody answers");
    far.faults.clear();
}

#[test]
fn what_is_acknowledged_by_one_mount_while_another_one_changes_the_store_there_stays() {
    let far = Far::new();
    let (one, other) = (far.open(BACK), far.open(BACK));
    for name in ["f", "g"] {
        one.write(name, "old").unwrap();
    }
    far.wait(one.flush()).unwrap();
    let (at, more, none) = (PathWrite::At { offset: 3, truncate: false }, ["er".into()], Attributes::none());
    for name in ["f", "g"] {
        give_up(&far, one.paths().write(name, &more, at.clone(), &none));
    }
    // Both wait for what may arrive late.
    let changes = async {
        let appended = one.paths().write("f", &more, at.clone(), &none);
        let replaced =
            one.paths().write("g", &more, PathWrite::IfMatch(one.paths().stat("g").await?.tag), &none);
        let (appended, replaced) = futures_util::future::join(appended, replaced).await;
        appended.and(replaced)
    };
    let between = async {
        far.env.sleep(Duration::from_secs(4)).await;
        for name in ["f", "g"] {
            other.paths().write(name, &["new".into()], PathWrite::Whole, &none).await.expect("there is room");
        }
    };
    let (changed, ()) = far.wait(futures_util::future::join(changes, between));
    changed.unwrap();
    far.pass(Duration::from_secs(120));
    for name in ["f", "g"] {
        assert_eq!(
            (one.read(name).unwrap(), far.theirs(name).unwrap()),
            ("new".into(), "new".into()),
            "{name}"
        );
    }
}

#[test]
fn what_was_given_up_by_a_mount_that_does_not_write_back_comes_before_what_one_does() {
    for is_ended in [false, true] {
        let far = Far::new();
        let (through, back) = (far.open(&[("cache_bytes", "8388608")]), far.open(BACK));
        back.write("f", "old").unwrap();
        far.wait(back.flush()).unwrap();
        give_up(&far, through.paths().delete("f"));
        drop(through);
        let back = go_on(&far, back, is_ended);
        back.write("f", "new").unwrap();
        far.pass(Duration::from_secs(4));
        assert_eq!(far.theirs("f").unwrap(), "old", "ended: {is_ended}");
        far.wait(far.paths().delete("f")).unwrap();
        far.pass(Duration::from_secs(120));
        assert_eq!(far.theirs("f").unwrap(), "new", "ended: {is_ended}");
    }
}

#[test]
fn what_was_given_up_before_any_mount_wrote_back_comes_before_what_one_does() {
    let far = Far::new();
    far.they_write("f", "old");
    let through = far.open(&[("cache_bytes", "8388608")]);
    give_up(&far, through.paths().delete("f"));
    let back = far.open(BACK);
    back.write("f", "new").unwrap();
    drop((through, back));
    far.pass(Duration::from_secs(2));
    let back = far.open(BACK);
    far.pass(Duration::from_secs(2));
    far.wait(far.paths().delete("f")).unwrap();
    far.pass(Duration::from_secs(120));
    assert_eq!((back.read("f").unwrap(), far.theirs("f").unwrap()), ("new".into(), "new".into()));
}

#[test]
fn what_is_written_back_is_brought_to_the_store_by_who_writes_back_and_stays_in_its_cache() {
    let far = Far::new();
    // This one was there first, and keeps nothing.
    let through = far.open(&[("cache_age_ms", "60000")]);
    let back = far.open(BACK_AND_CACHE);
    for n in 0..8 {
        back.write(&format!("f{n}"), content(20_000, n)).unwrap();
        far.pass(Duration::from_secs(1));
    }
    assert_eq!((back.figures().pending_files, back.figures().bytes), (0, 8 * 20_000));
    // What is left goes to the store all the same.
    stuck(&far);
    back.write("left", "1").unwrap();
    far.pass(Duration::from_secs(1));
    drop(back);
    far.faults.clear();
    far.pass(Duration::from_secs(60));
    assert_eq!((through.figures().pending_files, far.theirs("left").unwrap()), (0, "1".into()));
}

#[test]
fn nobody_waits_behind_a_restart_for_what_could_not_come_any_more_before_it() {
    let far = Far::new();
    let near = far.open(BACK);
    for name in ["f", "g"] {
        near.write(name, "old").unwrap();
    }
    far.wait(near.flush()).unwrap();
    for (name, after) in [("f", 0), ("g", 30)] {
        give_up(&far, near.paths().delete(name));
        far.pass(Duration::from_secs(after));
    }
    let near = go_on(&far, near, true);
    for name in ["f", "g"] {
        let began = far.now().0;
        near.delete(name).unwrap();
        assert!(far.now().0 - began < 1_000_000_000, "{name}");
    }
}

#[test]
fn a_change_through_one_mount_does_not_wait_for_ever_for_what_another_one_left() {
    let far = Far::new();
    let through = far.open(&[("cache_bytes", "8388608")]);
    let back = far.open(BACK);
    stuck(&far);
    back.write("f", "old").unwrap();
    far.pass(Duration::from_secs(1));
    drop(back);
    far.faults.clear();
    let at = PathWrite::At { offset: 3, truncate: false };
    let (more, none) = (["er".into()], Attributes::none());
    let appended = through.paths().write("f", &more, at, &none);
    far.wait(far.env.timeout(Duration::from_secs(30), appended)).expect("it is waited for").unwrap();
    assert_eq!(far.theirs("f").unwrap(), "older");
}

#[test]
fn an_attempt_that_was_given_up_before_the_file_came_to_the_store_is_waited_for_behind_a_restart() {
    let far = Far::new();
    far.faults.once(Where::Change, Fault::Hang);
    let near = far.open(BACK);
    near.write("f", "old").unwrap();
    // It takes two minutes until it is given up, and goes again.
    far.pass(Duration::from_secs(122));
    assert_eq!((near.figures().pending_files, far.theirs("f").unwrap()), (0, "old".into()));
    let near = go_on(&far, near, true);
    near.write("f", "new").unwrap();
    far.pass(Duration::from_secs(2));
    far.they_write("f", "old");
    far.pass(Duration::from_secs(120));
    assert_eq!((near.read("f").unwrap(), far.theirs("f").unwrap()), ("new".into(), "new".into()));
}

#[test]
fn a_mount_for_which_nothing_is_pending_wakes_nobody_and_ends_when_it_is_unmounted() {
    let far = Far::new();
    let near = far.open(BACK);
    near.write("a", "one").unwrap();
    far.pass(Duration::from_secs(5));
    assert_eq!(far.theirs("a").unwrap(), "one");
    let steps = |far: &Far, event: &Event| {
        let trace = far.simulation.trace();
        let is_its = |entry: &&TraceEntry| &*entry.who == "cached.upload" && entry.event == *event;
        trace.entries.iter().filter(is_its).count()
    };
    let before = steps(&far, &Event::Ran);
    assert!(before > 0, "it has a name");
    far.pass(Duration::from_secs(600));
    assert_eq!(steps(&far, &Event::Ran), before);
    drop(near);
    far.pass(Duration::from_millis(1));
    assert_eq!(steps(&far, &Event::Ended), 1);
}

#[test]
fn of_two_mounts_of_a_store_the_one_that_stays_brings_what_is_pending_to_it() {
    let far = Far::new();
    let (one, other) = (far.open(BACK), far.open(BACK));
    stuck(&far);
    one.write("a", "one").unwrap();
    other.write("b", "two").unwrap();
    far.pass(Duration::from_secs(1));
    drop(one);
    far.faults.clear();
    far.pass(Duration::from_secs(120));
    assert_eq!((far.theirs("a").unwrap(), far.theirs("b").unwrap()), ("one".into(), "two".into()));
    drop(other);
}
