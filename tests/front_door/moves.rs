//! Rename and copy.

use nexus::blocking::Nexus;

use crate::script::{ALL, Bench, ROWS, check, check_on};

#[test]
fn a_file_moves() {
    check(
        "write /a one
         rename /a /b = moved
         read /b = one
         stat /a ! ENOENT
         rename /b /p/q/c = moved
         read /p/q/c = one
         rename /a /x ! ENOENT
         rename /missing /p ! ENOENT",
    );
}

#[test]
fn a_file_replaces_a_file_and_nothing_else() {
    check(
        "write /a one
         write /b two
         rename /a /b = replaced
         read /b = one
         ls / = b
         mkdir /d
         rename /b /d ! EISDIR
         rename /d /b ! ENOTDIR
         write /c x
         rename_new /b /c ! EEXIST
         rename_new /b /d ! EEXIST
         rename_new /b /e = moved",
    );
}

#[test]
fn a_directory_moves_with_all_below_it() {
    check(
        "write /d/a/f one
         mkdir /d/empty
         link /d/l a/f
         stat /d/a/f = file 3
         rename /d /e = moved
         walk /e = /e/a /e/a/f /e/empty /e/l
         read /e/a/f = one
         read /e/l = one
         stat /d ! ENOENT
         stat /d/a/f ! ENOENT
         read /d/a/f ! ENOENT
         write /d/a/f two = created 3
         read /e/a/f = one",
    );
}

#[test]
fn a_directory_replaces_an_empty_directory() {
    check(
        "write /a/f one
         mkdir /empty
         write /full/g two
         rename /a /full ! ENOTEMPTY
         rename /a /empty = replaced
         read /empty/f = one
         stat /a ! ENOENT
         mkdir /d
         rename_new /empty /d ! EEXIST",
    );
}

#[test]
fn a_directory_does_not_move_into_itself() {
    check(
        "write /d/e/f x
         rename /d /d/e/g ! EINVAL
         rename /d /d/x ! EINVAL
         rename /d/e /d ! ENOTEMPTY
         rename / /x ! EBUSY",
    );
}

#[test]
fn a_rename_onto_itself_does_nothing() {
    check(
        "write /f x
         mkdir /d
         rename /f /f
         rename /d /d
         read /f = x
         stat /d = directory
         rename /missing /missing ! ENOENT",
    );
}

#[test]
fn identity_survives_a_rename() {
    for root in ROWS {
        let Bench { nx, .. } = &Bench::new(root);
        let before = nx.write("/d/f", "x").unwrap().metadata;
        nx.rename("/d", "/e").unwrap();
        let after = nx.stat("/e/f").unwrap();
        assert_eq!(
            (after.file_id, after.version, after.created),
            (before.file_id, before.version, before.created)
        );
        nx.rename("/e/f", "/g").unwrap();
        assert_eq!(nx.stat("/g").unwrap().file_id, before.file_id, "{root:?}");
    }
}

#[test]
fn a_copy_is_a_file_of_its_own() {
    check(
        "write /a one
         copy /a /b = created
         read /b = one
         write /a two
         read /b = one
         copy /a /b = there
         read /b = two
         copy /a /p/q/c = created
         read /p/q/c = two
         copy_new /a /b ! EEXIST
         copy_new /a /n = created",
    );
    check_on(
        &ROWS,
        "write /a one
         copy /a /b
         versions /b = 1 1
         copy /a /b
         versions /b = 2 2",
    );
}

#[test]
fn a_copy_onto_itself_does_nothing() {
    check(
        "write /f content
         copy /f /f
         read /f = content
         link /l /f
         copy /l /f
         read /f = content",
    );
}

#[test]
fn only_files_are_copied_onto_files() {
    check(
        "write /f x
         mkdir /d
         copy /d /g ! EINVAL
         copy /f /d ! EINVAL
         copy /missing /g ! ENOENT
         copy /f / ! EINVAL",
    );
}

#[test]
fn a_copy_keeps_the_mode() {
    check(
        "write /f x
         chmod /f 751
         copy /f /g
         mode /g = 751",
    );
}

#[test]
fn across_mounts_a_rename_is_refused_and_a_copy_works() {
    check(
        "mount /m memory = created
         write /f one
         write /m/g two
         write /d/h three
         rename /f /m/f ! EXDEV
         rename /m/g /g ! EXDEV
         rename /d /m/d ! EXDEV
         copy /f /m/f = created
         copy /m/g /g = created
         read /m/f = one
         read /g = two
         rename /m /n ! EBUSY
         rename /f /m ! EBUSY",
    );
}

#[test]
fn readers_see_the_old_file_or_the_new_one() {
    for root in ALL {
        let bench = Bench::new(root);
        let nx: &Nexus = &bench.nx;
        nx.write("/f", "a".repeat(1_000)).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..50 {
                    nx.write("/new", if n % 2 == 0 { "b".repeat(2_000) } else { "a".repeat(1_000) }).unwrap();
                    nx.rename("/new", "/f").unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let read = nx.read("/f").unwrap();
                let whole = (read.len() == 1_000 && read.iter().all(|b| *b == b'a'))
                    || (read.len() == 2_000 && read.iter().all(|b| *b == b'b'));
                assert!(whole, "{root:?}: {} bytes", read.len());
            }
        });
    }
}
