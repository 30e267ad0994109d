//! What was acknowledged, and its store refuses: it is told, it holds up nothing, and it can be given up.

use std::time::Duration;

use nexus_drivers::faults::{Fault, Where};
use nexus_kernel::hal::{PathWrite, StoreError};

use super::far::{Far, Near};

const BACK: &[(&str, &str)] = &[("write_back", "yes"), ("cache_age_ms", "60000")];

/// Files that the store refuses, whatever is tried: somebody else made a file where their folder is.
fn refused<'a>(far: &'a Far, files: &[&str]) -> Near<'a> {
    let near = far.open(BACK);
    far.faults.always(Where::Change, Fault::Error);
    for file in files {
        near.write(&format!("d/{file}"), "mine").expect("it is acknowledged");
    }
    far.they_write("d", "theirs");
    far.faults.clear();
    far.pass(Duration::from_secs(120));
    near
}

#[test]
fn what_a_store_refuses_is_told_by_name_and_holds_up_nothing() {
    let far = Far::new();
    let names: Vec<String> = (0..20).map(|n| format!("f{n:02}")).collect();
    let near = refused(&far, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let figures = near.figures();
    assert_eq!((figures.pending_files, figures.refused_files, figures.stuck.len()), (20, 20, 8));
    let first = &figures.stuck[0];
    assert!(first.path == "d/f00" && first.refused && first.attempts > 3, "{first:?}");
    assert!(first.error.contains("not a directory") && first.since.0 > 0, "{first:?}");
    // Others go on, and what would wait for it is told at once.
    near.write("other", "1").unwrap();
    far.pass(Duration::from_secs(1));
    assert_eq!(far.theirs("other").unwrap(), "1");
    let before = far.env.now();
    let appended = near.write_as("d/f00", "x", PathWrite::At { offset: 4, truncate: false });
    let told = appended.unwrap_err();
    assert!(told.to_string().contains("d/f00") && !told.is_backend_failure(), "{told}");
    assert!(far.wait(near.paths().rename("d", "e")).is_err());
    let left = far.wait(near.flush()).unwrap_err();
    assert!(left.to_string().contains("d/f00"), "{left}");
    assert!(far.env.now() - before < Duration::from_secs(5));
    assert_eq!(near.read("d/f00").unwrap(), "mine", "it is there until somebody gives it up");
}

#[test]
fn what_a_store_refuses_is_given_up_by_its_deletion_or_comes_there_when_it_may() {
    let far = Far::new();
    let near = refused(&far, &["gone", "later"]);
    near.delete("d/gone").unwrap();
    assert_eq!(near.figures().pending_files, 1);
    assert!(near.read("d/gone").is_err());
    drop(near);
    far.pass(Duration::from_secs(3));
    let near = far.open(BACK);
    assert_eq!(near.figures().pending_files, 1, "it stays given up");
    far.pass(Duration::from_secs(120));
    let since = near.figures().stuck[0].since;
    assert!(since.0 > 0 && since < far.now(), "for how long it is pending outlives a restart");
    far.wait(far.paths().delete("d")).unwrap();
    // Who waits has it tried again.
    far.wait(near.flush()).unwrap();
    assert_eq!(far.theirs("d/later").unwrap(), "mine");
    assert_eq!((near.figures().pending_files, near.figures().refused_files), (0, 0));
}

#[test]
fn what_a_store_refuses_to_take_and_to_delete_is_given_up_and_that_is_told() {
    let far = Far::new();
    let near = far.open(BACK);
    far.faults.always(Where::Change, Fault::Error);
    near.write("d", "mine").unwrap();
    // Not yet refused: its store failed.
    assert!(near.delete("d").is_err());
    assert_eq!(near.figures().pending_files, 1);
    far.they_write("d/theirs", "theirs");
    far.faults.clear();
    far.pass(Duration::from_secs(120));
    assert_eq!(near.figures().refused_files, 1);
    far.faults.always(Where::Change, Fault::Error);
    assert!(near.delete("d").is_err());
    assert_eq!(near.figures().refused_files, 1, "a store that fails has refused nothing");
    far.faults.clear();
    let told = near.delete("d").unwrap_err();
    assert!(matches!(&told, StoreError::NotEmpty { what } if what.contains("given up")), "{told}");
    assert_eq!(near.figures().pending_files, 0);
    assert_eq!(near.names("d").unwrap(), ["theirs"]);
}
