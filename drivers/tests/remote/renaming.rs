//! Renaming by copying and deleting: cut short, and taken up again; and what others do meanwhile.

use std::time::Duration;

use nexus_actors::block_on;
use nexus_kernel::hal::{PathWrite, StoreError};

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::{moto, put, request};
use crate::servers::small::{AtCopies, Small};
use crate::subjects::{env, names, open, paths, read, s3, write};

const FILES: usize = 100;

/// When it is given up: before anything, in the middle, and late.
const GIVEN_UP_AFTER_MS: [u64; 5] = [1, 50, 100, 200, 400];

#[test]
fn a_renaming_that_is_cut_short_loses_nothing_and_goes_on_when_asked_again() {
    let server = moto();
    let store = open(&s3(server.port()).option("rename", "copy"));
    assert!(paths(&*store).capabilities().rename);
    let mut expected = Vec::new();
    for file in 0..FILES {
        let name = format!("f{file:03}");
        write(&*store, &format!("from/{name}"), name.clone(), PathWrite::Whole).expect("it is written");
        expected.push(name);
    }
    let env = env();
    for after in GIVEN_UP_AFTER_MS {
        let renaming = env.timeout(Duration::from_millis(after), paths(&*store).rename("from", "to"));
        match block_on(renaming) {
            Err(_) | Ok(Ok(_)) => {}
            Ok(Err(StoreError::NotFound { .. })) => break,
            Ok(Err(error)) => panic!("{error}"),
        }
        // Each is in one of both places.
        for name in &expected {
            let there =
                ["to", "from"].iter().find_map(|folder| read(&*store, &format!("{folder}/{name}")).ok());
            assert_eq!(there.expect("it is somewhere")[..], *name.as_bytes(), "{name} after {after} ms");
        }
    }
    match block_on(paths(&*store).rename("from", "to")) {
        Ok(_) | Err(StoreError::NotFound { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    assert_eq!(names(&*store, "to"), expected);
    let gone = block_on(paths(&*store).stat("from")).expect_err("it is gone");
    assert!(matches!(gone, StoreError::NotFound { .. }), "{gone:?}");
    let keys = request(server.port(), "GET /bkt?list-type=2 HTTP/1.1");
    assert!(!keys.contains(".nexus-rename-"), "a mark is left");
}

#[test]
fn a_renaming_that_fails_says_that_it_is_done_in_part() {
    let server = moto();
    let proxy = Proxy::start(server.port());
    let spec = s3(proxy.port()).option("rename", "copy").option("timeout_ms", "2000").option("retries", "0");
    let store = open(&spec);
    write(&*store, "from/f", "1", PathWrite::Whole).expect("it is written");
    // A mark that says nothing.
    let hash = blake3::hash(b"from\0to").to_hex();
    let mark = format!("PUT /bkt/.nexus-rename-{} HTTP/1.1", &hash[..32]);
    assert!(request(server.port(), &mark).starts_with("HTTP/1.1 200"));
    proxy.set(Fault::Unavailable);
    let error = block_on(paths(&*store).rename("from", "to")).expect_err("nothing is served");
    assert!(error.is_backend_failure(), "{error:?}");
    proxy.set(Fault::None);
    // It is taken for one that had copied nothing, and not for one that had copied all.
    block_on(paths(&*store).rename("from", "to")).expect("it is renamed");
    assert_eq!(&read(&*store, "to/f").expect("it is there")[..], b"1");
}

#[test]
fn what_no_path_can_hold_keeps_a_folder_where_it_is_and_leaves_no_mark() {
    let server = moto();
    for key in ["from/a", "from/d//b"] {
        put(server.port(), key, "1");
    }
    let store = open(&s3(server.port()).option("rename", "copy"));
    let error = block_on(paths(&*store).rename("from", "to")).expect_err("a key there is no path");
    assert!(!matches!(error, StoreError::Doubtful { .. } | StoreError::Unknown { .. }), "{error:?}");
    let keys = request(server.port(), "GET /bkt?list-type=2 HTTP/1.1");
    assert!(keys.contains("from/a") && !keys.contains("to/") && !keys.contains(".nexus-rename-"), "{keys}");
}

/// A renaming that had copied all was cut short, and before it goes on the folder is written to: after the copy, by the server's clock of whole seconds.
#[test]
fn what_was_written_since_it_was_cut_short_is_moved_too() {
    let server = moto();
    let store = open(&s3(server.port()).option("rename", "copy"));
    let whole = open(&s3(server.port()));
    for (path, content) in [
        ("from/old", "1"),
        ("to/old", "1"),
        ("to/changed", "old"),
        ("from/changed", "new"),
        ("from/new", "2"),
    ] {
        write(&*whole, path, content, PathWrite::Whole).expect("it is written");
    }
    let mark = format!(".nexus-rename-{}", &blake3::hash(b"from\0to").to_hex()[..32]);
    // Names of the driver's own are refused at the top of a mount.
    let refused = write(&*whole, &mark, "deleting", PathWrite::Whole).expect_err("it is refused");
    assert!(matches!(refused, StoreError::BadOption { .. }), "{refused:?}");
    put(server.port(), &mark, "deleting");
    block_on(paths(&*store).rename("from", "to")).expect("it goes on");
    for (path, content) in [("to/old", "1"), ("to/changed", "new"), ("to/new", "2")] {
        assert_eq!(read(&*store, path).expect("it is there")[..], *content.as_bytes(), "{path}");
    }
    assert_eq!(names(&*store, ""), ["to"]);
}

/// A renaming was cut short, and since then the same place was filled anew, and somebody wrote to where the copies would be.
#[test]
fn what_came_since_it_was_cut_short_counts_for_no_copy() {
    for is_left in [true, false] {
        let server = moto();
        let store = open(&s3(server.port()).option("rename", "copy"));
        let put_at = |path: &str, content: &'static str| {
            write(&*store, path, content, PathWrite::Whole).expect("it is written")
        };
        if is_left {
            put_at("from/left", "1");
        }
        let mark = format!(".nexus-rename-{}", &blake3::hash(b"from\0to").to_hex()[..32]);
        put(server.port(), &mark, "deleting");
        let marked = put_at("clock", "").modified;
        // The server's clock has whole seconds.
        while put_at("from/new", "theirs").modified <= marked {}
        let last = put_at("from/new", "theirs").modified;
        while put_at("to/new", "others").modified <= last {}
        let renamed = block_on(paths(&*store).rename("from", "to"));
        if is_left {
            renamed.expect("it goes on");
            assert_eq!(&read(&*store, "to/left").expect("it is there")[..], b"1");
            assert_eq!(&read(&*store, "to/new").expect("it is there")[..], b"theirs");
            continue;
        }
        assert!(matches!(renamed, Err(StoreError::NotEmpty { .. })), "{renamed:?}");
        assert_eq!(&read(&*store, "from/new").expect("it is there")[..], b"theirs");
        assert_eq!(&read(&*store, "to/new").expect("it is there")[..], b"others");
    }
}

/// A listing tells parts of a second, as those of MinIO, Ceph and Google do, and an answer about a key does not.
#[test]
fn a_mark_is_as_old_as_the_listing_says_that_tells_of_the_others() {
    let server = Small::start(Duration::ZERO);
    let store = open(&s3(server.port()).option("rename", "copy"));
    write(&*store, "from/left", "1", PathWrite::Whole).expect("it is written");
    write(&*store, "to/copied", "2", PathWrite::Whole).expect("it is written");
    let mark = format!(".nexus-rename-{}", &blake3::hash(b"from\0to").to_hex()[..32]);
    put(server.port(), &mark, "deleting");
    block_on(paths(&*store).rename("from", "to")).expect("it goes on");
    assert_eq!(names(&*store, "to"), ["copied", "left"]);
    assert_eq!(names(&*store, ""), ["to"]);
}

#[test]
fn what_is_written_to_a_source_while_it_is_copied_is_moved_too() {
    for (from, to, file) in [("f", "g", ""), ("from", "to", "/f")] {
        let server = Small::start(Duration::ZERO);
        let store = open(&s3(server.port()).option("rename", "copy"));
        write(&*store, &format!("{from}{file}"), "as it was", PathWrite::Whole).expect("it is written");
        server.at_copies(AtCopies::Rewritten(2));
        block_on(paths(&*store).rename(from, to)).expect("it is renamed");
        let moved = read(&*store, &format!("{to}{file}")).expect("it is there");
        assert_eq!(&moved[..], b"rewritten, and 0 to come", "{from}");
        assert_eq!(names(&*store, ""), [to]);
    }
    // One that is written to again and again stays, and that says so.
    let server = Small::start(Duration::ZERO);
    let store = open(&s3(server.port()).option("rename", "copy"));
    write(&*store, "f", "as it was", PathWrite::Whole).expect("it is written");
    server.at_copies(AtCopies::Rewritten(usize::MAX));
    let error = block_on(paths(&*store).rename("f", "g")).expect_err("it is never the same");
    assert!(error.is_unknown() && !error.is_backend_failure(), "{error:?}");
    assert!(read(&*store, "f").expect("it is there").starts_with(b"rewritten"));
}

/// As Azure may answer, with x-ms-copy-status: pending.
#[test]
fn a_copy_that_is_said_to_be_made_and_is_pending_is_waited_for_and_nothing_goes_before() {
    let server = Small::start(Duration::ZERO);
    let store = open(&s3(server.port()).option("rename", "copy").option("timeout_ms", "400"));
    write(&*store, "f", "content", PathWrite::Whole).expect("it is written");
    server.at_copies(AtCopies::Pending(usize::MAX));
    for moving in [true, false] {
        let done = match moving {
            true => block_on(paths(&*store).rename("f", "never")),
            false => block_on(paths(&*store).copy("f", "never")),
        };
        let error = done.expect_err("it is never made");
        assert!(error.is_unknown() && error.to_string().contains("0 bytes"), "{error:?}");
        assert_eq!(&read(&*store, "f").expect("it is there")[..], b"content");
    }
    server.at_copies(AtCopies::Pending(6));
    block_on(paths(&*store).rename("f", "g")).expect("it is made in the end");
    assert_eq!(&read(&*store, "g").expect("it is there")[..], b"content");
    assert!(matches!(read(&*store, "f"), Err(StoreError::NotFound { .. })));
}
