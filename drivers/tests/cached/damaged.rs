//! A cache that cannot be read any more: who needs it is told, nobody else notices, and nothing that was acknowledged goes with it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nexus_drivers::faults::{Fault, Where};
use nexus_kernel::hal::StoreError;

use super::far::{Far, content};

const CACHE: &[(&str, &str)] = &[("cache_bytes", "8388608")];
const BACK: &[(&str, &str)] = &[("write_back", "yes")];
const OTHER: (&str, &str) = ("prefix", "other");

/// Overwrites all of the index.
fn damage(far: &Far) {
    fn all(folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                all(&entry.path())?;
            } else {
                let length = usize::try_from(entry.metadata()?.len()).unwrap_or_default();
                fs::write(entry.path(), vec![b'#'; length])?;
            }
        }
        Ok(())
    }
    all(&far.folder().join("cached").join("index")).expect("it can be overwritten");
}

/// A mount that ends with a file that is here alone: its store takes no changes from then on.
fn leaves_something_pending(far: &Far) {
    let near = far.open(BACK);
    far.faults.always(Where::Change, Fault::Error);
    near.write("f", "acknowledged").expect("it is acknowledged");
    drop(near);
    far.pass(Duration::from_secs(3));
}

fn has_aside(far: &Far) -> bool {
    far.folder().join("cached.damaged").join("index").exists()
}

#[test]
fn a_damaged_cache_of_what_can_be_read_again_is_put_aside_and_begun_anew() {
    let far = Far::new();
    far.they_write("f", content(100_000, 1));
    for round in 0..2 {
        let near = far.open(CACHE);
        assert_eq!(near.figures().bytes, 0, "{round}");
        near.read("f").unwrap();
        far.pass(Duration::from_secs(1));
        assert_eq!(near.figures().bytes, 100_000);
        drop(near);
        // What was written back, and is all there, leaves nothing that could be lost.
        let back = far.open(BACK);
        back.write("g", "1").unwrap();
        far.pass(Duration::from_secs(1));
        drop(back);
        far.pass(Duration::from_secs(3));
        damage(&far);
        assert_eq!(has_aside(&far), round > 0);
        drop(far.try_open(&[], true).unwrap());
        assert_eq!(has_aside(&far), round > 0, "a mount that asks for no cache needs none");
    }
    far.open(BACK);
    assert!(has_aside(&far));
}

#[test]
fn a_damaged_cache_that_may_hold_what_is_nowhere_else_is_left_as_it_is() {
    let far = Far::new();
    leaves_something_pending(&far);
    damage(&far);
    far.faults.clear();
    // Also one that asks for nothing would show something else than what was acknowledged.
    for options in [BACK, CACHE, &[], &[CACHE[0], OTHER]] {
        let told = far.try_open(options, true).unwrap_err();
        assert!(matches!(told, StoreError::Corrupt { .. }), "{told}");
        let said = told.to_string();
        assert!(said.contains("move that folder away") && said.contains("/cached"), "{said}");
    }
    far.try_open(&[OTHER], true).unwrap();
    assert!(!has_aside(&far));
    fs::rename(far.folder().join("cached"), far.folder().join("kept")).unwrap();
    let near = far.open(BACK);
    assert!(near.read("f").is_err());
}

#[test]
fn a_damaged_cache_of_a_version_that_kept_no_marks_is_left_as_it_is() {
    let far = Far::new();
    drop(far.open(CACHE));
    far.pass(Duration::from_secs(3));
    fs::remove_dir_all(far.folder().join("cached").join("write_back")).unwrap();
    damage(&far);
    assert!(matches!(far.try_open(CACHE, true), Err(StoreError::Corrupt { .. })));
    far.try_open(&[], true).unwrap();
    assert!(!has_aside(&far));
}

#[test]
fn what_is_pending_in_a_cache_of_a_version_that_kept_no_marks_is_marked_when_it_is_opened() {
    let far = Far::new();
    leaves_something_pending(&far);
    let marks = far.folder().join("cached").join("write_back");
    fs::remove_dir_all(&marks).unwrap();
    drop(far.open(&[CACHE[0], OTHER]));
    far.pass(Duration::from_secs(3));
    assert_eq!(fs::read_dir(&marks).unwrap().count(), 2);
    far.faults.clear();
    let near = far.open(&[]);
    assert_eq!(near.read("f").unwrap(), "acknowledged");
    far.pass(Duration::from_secs(60));
    assert_eq!(far.theirs("f").unwrap(), "acknowledged");
}
