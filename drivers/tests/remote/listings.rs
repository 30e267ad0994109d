//! Buckets as other tools leave them: keys that are no paths, keys of folders themselves, and what drivers leave.

use nexus_actors::block_on;
use nexus_kernel::hal::{ObjectStore, StoreError};

use crate::servers::s3::{moto, put};
use crate::subjects::{names, open, paths, read, s3};

/// All names of a folder, `limit` at a time, and how many were left out.
fn by_pages(store: &dyn ObjectStore, path: &str, limit: usize) -> (Vec<String>, usize) {
    let (mut all, mut left_out, mut more) = (Vec::<String>::new(), 0, true);
    while more {
        let page = block_on(paths(store).list(path, all.last().map(String::as_str), limit));
        let page = page.expect("it is listed");
        assert!(page.entries.len() <= limit);
        more = page.more;
        left_out += page.unnameable;
        all.extend(page.entries.into_iter().map(|(name, _)| name));
    }
    (all, left_out)
}

#[test]
fn what_drivers_leave_hides_nothing_from_a_listing_by_small_pages() {
    let server = moto();
    for key in [".nexus-probe-1", ".nexus-rename-1", "a", "b"] {
        put(server.port(), key, "1");
    }
    let store = open(&s3(server.port()));
    for limit in [1, 2, 3, 1_000] {
        assert_eq!(by_pages(&*store, "", limit), (vec!["a".into(), "b".into()], 0), "{limit}");
    }
}

#[test]
fn a_folder_that_is_hidden_by_a_file_of_its_name_counts_as_left_out() {
    let server = moto();
    for key in ["both", "both-a", "both.b", "both/x", "file", "folder/x", "last", "last/x"] {
        put(server.port(), key, "1");
    }
    let store = open(&s3(server.port()));
    let expected = ["both", "both-a", "both.b", "file", "folder", "last"].map(String::from);
    for limit in [1, 2, 3, 4, 1_000] {
        assert_eq!(by_pages(&*store, "", limit), (expected.to_vec(), 2), "{limit}");
    }
    assert_eq!(&read(&*store, "both/x").expect("it is reached by its path")[..], b"1");
}

#[test]
fn keys_that_are_no_paths_are_left_out_and_counted() {
    let server = moto();
    for file in 0..20 {
        put(server.port(), &format!("d/f{file:02}"), "1");
    }
    for key in ["d//x", "d//y", "d/f03/../x", "d/f03b%01c", "d/f10/./x", "d/f19z/%2E%2E/y"] {
        put(server.port(), key, "1");
    }
    let store = open(&s3(server.port()));
    let mut expected: Vec<_> = (0..20).map(|file| format!("f{file:02}")).collect();
    expected.push("f19z".into());
    for limit in [1, 7, 1_000] {
        // The empty name and the one with a control character, and two folders that have files' names.
        assert_eq!(by_pages(&*store, "d", limit), (expected.clone(), 4), "{limit}");
    }
    // Folders whose first key is none are there all the same.
    assert!(block_on(paths(&*store).stat("d/f19z")).expect("it is there").entry_type.is_directory());
    assert_eq!(by_pages(&*store, "d/f19z", 9), (vec![], 1));
    let kept = block_on(paths(&*store).delete("d/f19z")).expect_err("there is something in it");
    assert!(matches!(kept, StoreError::NotEmpty { .. }), "{kept:?}");
    // Where all of a mount begins with such a one, too.
    put(server.port(), "%21//x", "1");
    let store = open(&s3(server.port()).option("prefix", "!"));
    assert_eq!(by_pages(&*store, "", 9), (vec![], 1));
}

#[test]
fn a_folder_that_is_only_a_key_of_its_own_can_be_removed() {
    let server = moto();
    for key in ["d/", "e/", "e/f"] {
        put(server.port(), key, "");
    }
    let store = open(&s3(server.port()));
    assert_eq!(names(&*store, ""), ["d", "e"]);
    assert!(names(&*store, "d").is_empty());
    block_on(paths(&*store).delete("d")).expect("it is empty");
    let kept = block_on(paths(&*store).delete("e")).expect_err("it is not empty");
    assert!(matches!(kept, StoreError::NotEmpty { .. }), "{kept:?}");
    assert_eq!((names(&*store, ""), names(&*store, "e")), (vec!["e".into()], vec!["f".into()]));
    block_on(paths(&*store).delete("e/f")).expect("it is there");
    block_on(paths(&*store).delete("e")).expect("it is empty now");
    assert!(names(&*store, "").is_empty());
}

#[test]
fn keys_of_folders_themselves_are_moved_with_them() {
    let server = moto();
    // Here a name is a file and a folder, too.
    for key in ["from/", "from/empty/", "from/both", "from/both/", "from/f", "alone/"] {
        put(server.port(), key, "");
    }
    let store = open(&s3(server.port()).option("rename", "copy"));
    block_on(paths(&*store).rename("from", "to")).expect("it is moved");
    assert_eq!(names(&*store, ""), ["alone", "to"]);
    assert_eq!(names(&*store, "to"), ["both", "empty", "f"]);
    assert_eq!(&read(&*store, "to/both").expect("it is there")[..], b"");
    assert!(block_on(paths(&*store).stat("to/empty")).expect("it is there").entry_type.is_directory());
    block_on(paths(&*store).rename("alone", "else")).expect("it is moved");
    assert_eq!(names(&*store, ""), ["else", "to"]);
}
