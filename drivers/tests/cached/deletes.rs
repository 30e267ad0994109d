//! Many files that are deleted in one call.

use std::time::Duration;

use nexus_drivers::faults::{Fault, Where};
use nexus_kernel::hal::StoreError;

use super::far::Far;

const BACK_AND_CACHE: &[(&str, &str)] =
    &[("write_back", "yes"), ("cache_age_ms", "60000"), ("cache_bytes", "8388608")];

#[test]
fn of_many_that_are_deleted_those_are_gone_too_that_are_pending() {
    let far = Far::new();
    for name in ["d/a", "d/b", "d/theirs"] {
        far.they_write(name, "old");
    }
    let near = far.open(BACK_AND_CACHE);
    assert_eq!((near.read("d/a").unwrap(), near.read("d/b").unwrap()), ("old".into(), "old".into()));
    far.faults.always(Where::Change, Fault::Error);
    near.write("d/b", "new").unwrap();
    near.write("d/pending", "new").unwrap();
    far.pass(Duration::from_secs(1));
    far.faults.clear();
    let some = ["d/a", "d/b", "d/pending", "d/none"].map(String::from);
    let each = far.wait(near.paths().delete_many(&some)).unwrap();
    assert!(each.len() == 4 && each.iter().all(Result::is_ok), "{each:?}");
    let gone = |far: &Far| {
        for path in &some {
            assert!(matches!(near.read(path), Err(StoreError::NotFound { .. })), "{path}");
            assert_eq!(far.theirs(path), None, "{path}");
        }
    };
    gone(&far);
    far.pass(Duration::from_secs(120));
    gone(&far);
    assert_eq!(near.names("d").unwrap(), ["theirs"]);
    drop(near);
    let near = far.open(BACK_AND_CACHE);
    assert_eq!(near.names("d").unwrap(), ["theirs"], "after a restart, too");
}
