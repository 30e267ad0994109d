//! A store that cannot be reached when its mount is opened.

use std::time::Duration;

use nexus_drivers::faults::{Fault, Where};
use nexus_kernel::hal::StoreError;

use super::far::Far;

const BACK: &[(&str, &str)] = &[("write_back", "yes"), ("cache_age_ms", "60000")];

const ALL: [Where; 4] = [Where::Open, Where::Probe, Where::Look, Where::Change];

/// From now on nothing is answered.
fn down(far: &Far, fault: Fault) {
    ALL.into_iter().for_each(|at| far.faults.always(at, fault));
}

#[test]
fn what_is_here_is_served_until_it_is_reached_and_then_all_goes_on_by_itself() {
    for fault in [Fault::Error, Fault::Hang] {
        let far = Far::new();
        far.they_write("theirs", "old");
        let near = far.open(BACK);
        far.faults.always(Where::Change, Fault::Error);
        near.write("a", "one").unwrap();
        near.write("d/b", "one").unwrap();
        drop(near);
        far.pass(Duration::from_secs(3));

        down(&far, fault);
        let near = far.open(BACK);
        let told = near.trouble().expect("it is not reached");
        assert!(told.starts_with("not reached, and what is here is served: "), "{told}");
        assert_eq!((near.read("a").unwrap(), near.read("d/b").unwrap()), ("one".into(), "one".into()));
        near.write("a", "two").expect("what is there is known: it is pending");
        assert_eq!(near.read("a").unwrap(), "two");
        // Of what is not here nobody says what it is, or that it is not.
        for error in [near.read("theirs").unwrap_err(), near.write("new", "x").unwrap_err()] {
            assert!(matches!(error, StoreError::Backend { .. }), "{fault:?}: {error:?}");
            assert!(
                error.to_string().contains("was not reached when its driver was opened, and was not since"),
                "{error}"
            );
        }
        // It stays so for as long as it takes.
        far.pass(Duration::from_secs(300));
        assert!(near.trouble().is_some());
        assert_eq!(near.read("a").unwrap(), "two");

        far.faults.clear();
        far.pass(Duration::from_secs(120));
        assert_eq!(near.trouble(), None);
        assert_eq!((far.theirs("a").unwrap(), far.theirs("d/b").unwrap()), ("two".into(), "one".into()));
        assert_eq!(near.read("theirs").unwrap(), "old");
        near.write("new", "x").unwrap();
        assert_eq!(near.names("").unwrap(), ["a", "d", "new", "theirs"]);
    }
}

#[test]
fn what_nothing_is_known_of_is_not_mounted_and_neither_is_what_writes_nothing_back() {
    let far = Far::new();
    down(&far, Fault::Error);
    assert!(matches!(far.try_open(BACK, true), Err(StoreError::Io { .. } | StoreError::Backend { .. })));
    far.faults.clear();
    let near = far.open(&[("cache_age_ms", "60000"), ("cache_bytes", "1000")]);
    far.they_write("f", "x");
    assert_eq!(near.read("f").unwrap(), "x");
    drop(near);
    down(&far, Fault::Error);
    far.try_open(&[("cache_age_ms", "60000"), ("cache_bytes", "1000")], true)
        .expect_err("nothing is pending for it");
}

#[test]
fn who_unmounts_one_that_was_not_reached_leaves_what_is_pending_for_the_next() {
    let far = Far::new();
    let near = far.open(BACK);
    far.faults.always(Where::Change, Fault::Error);
    near.write("a", "one").unwrap();
    drop(near);
    down(&far, Fault::Error);
    let near = far.open(BACK);
    drop(near);
    far.pass(Duration::from_secs(20));
    far.faults.clear();
    far.pass(Duration::from_secs(60));
    assert_eq!(far.theirs("a"), None, "nobody has it mounted");
    let near = far.open(BACK);
    far.pass(Duration::from_secs(60));
    assert_eq!((near.trouble(), far.theirs("a").unwrap()), (None, "one".into()));
}
