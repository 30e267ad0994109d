//! A new store that fails, is full, or gives back something else: the old one serves, and the same order goes on later.

use std::time::Duration;

use nexus::{ErrorKind, MigrationState};

use crate::bench::{AT, Bench, LARGE, ODD_CONTENTS, ODD_FILES, content, read_host, refused, until};
use crate::load::Load;

fn fill(bench: &Bench, files: u64, length: usize) {
    for number in 0..files {
        let at = format!("{AT}/d{}/{number}", number % 4);
        bench.nx.write(at, content(number, length)).expect("it writes");
    }
}

#[test]
fn a_full_store_ends_it_and_with_room_it_goes_on_where_it_was() {
    for (bench, driver) in [(Bench::of_files(), ODD_FILES), (Bench::of_contents(), ODD_CONTENTS)] {
        fill(&bench, 100, if driver == ODD_FILES { 100 } else { 17_000 });
        bench.odd.room(Some(80));
        bench.begin(bench.spec(driver, "new")).expect("it begins");
        bench.failed("ENOSPC");
        assert_ne!(bench.driver().driver, driver);
        bench.nx.write(format!("{AT}/d0/meanwhile"), "x").expect("the old one serves");
        // Another one is not begun over it.
        let error = refused(bench.begin(bench.spec(driver, "other")), ErrorKind::Busy);
        assert!(error.to_string().contains("abort"), "{error}");
        bench.odd.room(None);
        bench.begin(bench.spec(driver, "new")).expect("it goes on");
        let status = bench.done();
        assert!(status.kept >= 40, "{status:?}");
        let bench = bench.again();
        assert_eq!(bench.tree().len(), 101);
        assert!(bench.nx.read(format!("{AT}/d1/5")).expect("it is there").len() >= 100);
    }
}

#[test]
fn a_store_that_gives_back_something_else_never_serves() {
    for (bench, driver, length) in
        [(Bench::of_files(), ODD_FILES, 100), (Bench::of_contents(), ODD_CONTENTS, LARGE)]
    {
        fill(&bench, 3, length);
        bench.odd.lies(true);
        bench.begin(bench.spec(driver, "new")).expect("it begins");
        let status = bench.over();
        assert!(matches!(status.state, MigrationState::Failed { .. }), "{status:?}");
        assert_eq!(status.copied, 0);
        bench.odd.lies(false);
        assert_ne!(bench.driver().driver, driver);
        assert!(bench.nx.read(format!("{AT}/d1/1")).expect("it is there") == content(1, length));
    }
}

#[test]
fn an_abort_removes_what_was_copied_and_nothing_else() {
    for (bench, driver) in [(Bench::of_files(), ODD_FILES), (Bench::of_contents(), ODD_CONTENTS)] {
        fill(&bench, 60, 17_000);
        let load = Load::on(&bench.nx);
        bench.odd.slow(Duration::from_millis(15));
        bench.begin(bench.spec(driver, "new")).expect("it begins");
        until("copied", || bench.status().filter(|status| status.copied > 20));
        if driver == ODD_FILES {
            std::fs::write(bench.host("new").join("theirs"), "x").expect("there is room");
        }
        bench.nx.abort_migration(AT).expect("it is told");
        bench.odd.slow(Duration::ZERO);
        assert_eq!(bench.over().state, MigrationState::Aborted);
        load.go_on(30);
        let mut expected = load.end();
        for number in 0..60 {
            expected.insert(format!("/d{}/{number}", number % 4), content(number, 17_000));
        }
        assert!(bench.tree() == expected);
        if driver == ODD_FILES {
            let left = read_host(&bench.host("new"));
            assert_eq!(left.keys().collect::<Vec<_>>(), ["/theirs"]);
            std::fs::remove_file(bench.host("new").join("theirs")).expect("it is there");
        }
        assert_ne!(bench.driver().driver, driver);
        refused(bench.nx.abort_migration(AT), ErrorKind::NotFound);
        // And it can be begun anew.
        bench.begin(bench.spec(driver, "new")).expect("it begins");
        bench.done();
        assert!(bench.tree() == expected);
    }
}
