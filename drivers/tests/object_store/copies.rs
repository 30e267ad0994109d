//! Copies within a mounted folder. On a file system that can, they share what they are copies of.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};

use nexus_kernel::hal::{PathStore, StoreError};

use super::subjects::{path_local, wait};

/// More than a driver moves by itself.
const LARGE: u64 = 200 << 20;

#[test]
fn a_copy_to_where_something_is_replaces_it_or_is_refused_as_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (paths, there) = (path_local(folder.path()), |name: &str| folder.path().join(name));
    fs::write(there("f"), vec![7; 100_000]).unwrap();
    fs::set_permissions(there("f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(there("g"), "there").unwrap();
    let refused = wait(paths.copy_new("f", "g"));
    assert!(matches!(refused, Err(StoreError::Exists { .. })), "{refused:?}");
    assert_eq!(fs::read(there("g")).unwrap(), b"there");
    wait(paths.copy("f", "g")).unwrap();
    let info = wait(paths.copy_new("f", "new/h")).unwrap();
    assert_eq!((info.size, info.mode), (100_000, 0o640));
    // What is written to one is in none of the others.
    File::options().write(true).open(there("f")).unwrap().write_all_at(b"changed", 0).unwrap();
    for copy in ["g", "new/h"] {
        assert_eq!(fs::read(there(copy)).unwrap(), [7; 100_000]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left of it");
}

#[test]
fn a_large_file_is_copied_in_no_time_or_left_to_who_copies_it_piece_by_piece() {
    let folder = tempfile::tempdir().unwrap();
    let (paths, there) = (path_local(folder.path()), |name: &str| folder.path().join(name));
    let file = File::create(there("f")).unwrap();
    file.set_len(LARGE).unwrap();
    file.write_all_at(b"end", LARGE - 3).unwrap();
    match wait(paths.copy_new("f", "g")) {
        Ok(info) => {
            println!("shared");
            assert_eq!(info.size, LARGE);
            let mut end = [0; 3];
            File::open(there("g")).unwrap().read_exact_at(&mut end, LARGE - 3).unwrap();
            assert_eq!(&end, b"end");
        }
        Err(error) => {
            println!("not shared");
            assert!(std::env::var_os("NEXUS_SHARES").is_none(), "this file system can");
            assert!(matches!(error, StoreError::NotSupported { .. }), "{error:?}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left of it");
        }
    }
}
