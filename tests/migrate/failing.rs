//! A new store that fails, is full, or gives back something else: the old one serves, and the same order goes on later.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nexus::{ErrorKind, MigrationState};

use crate::bench::{AT, Bench, LARGE, ODD_CONTENTS, ODD_FILES, content, count, read_host, refused, until};
use crate::load::Load;

fn fill(bench: &Bench, files: u64, length: usize) {
    for number in 0..files {
        let at = format!("{AT}/d{}/{number}", number % 4);
        bench.nx.write(at, content(number, length)).expect("it writes");
    }
}

/// Has a file be an old one: what was changed just now is copied again in any case.
fn age(file: &Path) {
    let file = File::options().append(true).open(file).expect("it is there");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).expect("it is ours");
}

#[test]
fn a_full_store_ends_it_and_with_room_it_goes_on_where_it_was() {
    for (bench, driver) in [(Bench::of_files(), ODD_FILES), (Bench::of_contents(), ODD_CONTENTS)] {
        fill(&bench, 100, if driver == ODD_FILES { 100 } else { 17_000 });
        if driver == ODD_FILES {
            (0..100).for_each(|number| age(&bench.host("old").join(format!("d{}/{number}", number % 4))));
        }
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

/// A migration that came to an end with some of the files copied, which a resumed one need not copy again.
fn cut_short(files: u64) -> Bench {
    let bench = Bench::of_files();
    for number in 0..files {
        let file = bench.host("old").join(format!("{number:03}"));
        fs::write(&file, content(number, 100)).expect("there is room");
        age(&file);
    }
    bench.odd.room(Some(i64::try_from(files).expect("a few") / 2));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    bench.failed("ENOSPC");
    assert!(count(&bench.host("new")) > 10);
    bench
}

#[test]
fn an_abort_that_was_cut_short_leaves_no_row_that_speaks_for_what_is_gone() {
    let bench = cut_short(60);
    let before = count(&bench.host("new"));
    bench.odd.room(Some(8));
    bench.nx.abort_migration(AT).expect("it begins");
    bench.failed("ENOSPC");
    assert!(count(&bench.host("new")) < before, "some were removed");
    bench.odd.room(None);
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
    bench.done();
    assert!(read_host(&bench.host("new")) == read_host(&bench.host("old")));
    assert_eq!(bench.tree().len(), 60);
}

#[test]
fn a_copy_that_others_changed_or_removed_meanwhile_is_made_again() {
    let bench = cut_short(60);
    let new = bench.host("new");
    let copied = read_host(&new);
    let mut names = copied.keys().map(|name| new.join(&name[1..]));
    let [gone, other] = [names.next(), names.next()].map(|name| name.expect("there are some"));
    fs::remove_file(gone).expect("it is there");
    fs::write(other, "x".repeat(100)).expect("it is there");
    bench.odd.room(None);
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
    let status = bench.done();
    assert!(status.kept > 0 && status.kept < 60, "{status:?}");
    assert!(read_host(&new) == read_host(&bench.host("old")));
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
            fs::write(bench.host("new").join("theirs"), "x").expect("there is room");
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
            fs::remove_file(bench.host("new").join("theirs")).expect("it is there");
        }
        assert_ne!(bench.driver().driver, driver);
        refused(bench.nx.abort_migration(AT), ErrorKind::NotFound);
        // And it can be begun anew.
        bench.begin(bench.spec(driver, "new")).expect("it begins");
        bench.done();
        assert!(bench.tree() == expected);
    }
}

/// A bench whose migration came to an end when the folder `z` was copied and `a` was begun, with how many files are in `z`.
fn interrupted() -> (Bench, i64) {
    const BELOW: i64 = 20;
    let bench = Bench::of_files();
    for (folder, number) in ["a", "z"].into_iter().flat_map(|folder| (0..BELOW).map(move |n| (folder, n))) {
        let folder = bench.host("old").join(folder);
        fs::create_dir_all(&folder).expect("there is room");
        let file = folder.join(number.to_string());
        fs::write(&file, "").expect("there is room");
        age(&file);
    }
    // The look whether the stores are two, both folders, all of `z` with its mode, and some of `a`.
    bench.odd.room(Some(2 + 2 + BELOW + 1 + 5));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    bench.failed("ENOSPC");
    assert_eq!(count(&bench.host("new").join("z")), count(&bench.host("old").join("z")));
    (bench, BELOW)
}

#[test]
fn a_removal_that_was_cut_short_leaves_no_row_that_speaks_for_what_is_gone() {
    let (bench, below) = interrupted();
    let z = |name: &str| bench.host("old").join(name);
    fs::rename(z("z"), z("z.tmp")).expect("it is there");
    // Some of the copies below `z` go before it ends.
    bench.odd.room(Some(below / 2));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
    bench.failed("ENOSPC");
    let left = count(&bench.host("new").join("z"));
    assert!(0 < left && left < count(&z("z.tmp")), "{left} are left");
    fs::rename(z("z.tmp"), z("z")).expect("it is there");
    bench.odd.room(None);
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
    bench.done();
    let names = |name: &str| read_host(&bench.host(name)).into_keys().collect::<Vec<_>>();
    assert_eq!(names("new"), names("old"));
}

#[test]
fn what_others_put_into_the_new_store_is_told_and_not_removed() {
    for theirs in ["theirs", "z/theirs"] {
        let (bench, _) = interrupted();
        let theirs_at = bench.host("new").join(theirs);
        fs::write(&theirs_at, "x").expect("there is room");
        fs::remove_dir_all(bench.host("old").join("z")).expect("it is there");
        bench.odd.room(None);
        bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
        let cause = bench.failed("ENOTEMPTY");
        assert!(cause.contains(theirs), "{cause}");
        assert_eq!(fs::read_to_string(&theirs_at).expect("it is there"), "x");
        assert_eq!(bench.driver().driver, "path-local");
        fs::remove_file(&theirs_at).expect("it is there");
        bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
        bench.done();
        assert!(read_host(&bench.host("new")) == read_host(&bench.host("old")));
    }
}
