//! Metadata, directories, removal, listings.

use nexus::{Attributes, Bytes, Cursor, EntryType, ErrorKind, SysReaddir, SysSetattr, SysUnlink, VPath};

use crate::script::{ALL, Bench, ROWS, check, check_on, refused};

#[test]
fn what_is_missing_is_told_as_missing() {
    check(
        "stat /f ! ENOENT
         exists /f = false
         is_directory /f = false
         unlink /f ! ENOENT
         rmdir /f ! ENOENT
         remove_all /f ! ENOENT
         ls /f ! ENOENT
         write /a x
         exists /a/b = false
         is_directory /a = false
         is_directory / = true",
    );
}

#[test]
fn the_root_is_a_mount_point() {
    check("stat / = mount\n mode / = 755\n mime / = inode/directory\n where / = /\n ls / = \"\"");
}

#[test]
fn new_entries_have_the_usual_modes() {
    check(
        "write /f x
         mkdir /d
         mode /f = 644
         mode /d = 755
         mime /d = inode/directory
         mime /f = application/octet-stream
         write /page.html x
         mime /page.html = text/html",
    );
}

#[test]
fn mkdir_makes_parents_and_may_be_repeated() {
    check(
        "mkdir /a/b/c = created
         mkdir /a/b/c = there
         mkdir /a = there
         stat /a/b = directory
         mkdir / = there
         write /f x
         mkdir /f ! EEXIST
         read /f = x",
    );
}

#[test]
fn mkdir_new_wants_a_parent_and_no_entry() {
    check(
        "mkdir_new /a/b ! ENOENT
         mkdir_new /a = created
         mkdir_new /a ! EEXIST
         mkdir_new / ! EEXIST
         mkdir_new /a/b = created
         write /f x
         mkdir_new /f ! EEXIST",
    );
}

#[test]
fn a_file_is_made_once_and_its_type_stays() {
    check(
        "touch /f = created
         touch /f = there
         stat /f = file 0
         write /g x
         touch /g = there
         read /g = x
         mkdir /d
         touch /d ! EEXIST
         make /d 0 ! EEXIST
         make /f 1 ! EEXIST
         make /x 5 ! EOPNOTSUPP",
    );
}

#[test]
fn a_change_of_attributes_tells_what_changed() {
    check(
        "write /f x
         chmod /f 600 = [Mode]
         chmod /f 600 = []
         mode /f = 600
         read /f = x
         chmod /missing 600 ! ENOENT
         mkdir /d
         chmod /d 700 = [Mode]
         mode /d = 700
         chmod /f 10000 ! EINVAL",
    );
    for root in ROWS {
        let Bench { nx, .. } = &Bench::new(root);
        nx.write("/f", "x").unwrap();
        let path = VPath::parse("/f").unwrap();
        let call = SysSetattr::at(&path).attributes(Attributes::none().mime_type("text/plain"));
        assert_eq!(nx.send(call).unwrap().changed, [nexus::Attribute::MimeType], "{root:?}");
        assert_eq!(nx.stat("/f").unwrap().mime(), "text/plain", "{root:?}");
    }
}

#[test]
fn a_file_is_removed() {
    check(
        "write /f x
         unlink /f = 1
         stat /f ! ENOENT
         read /f ! ENOENT
         unlink /f ! ENOENT
         write /f y = created 1
         mkdir /d
         unlink /d ! EISDIR
         unlink / ! EISDIR",
    );
}

#[test]
fn a_directory_is_removed_when_it_is_empty() {
    check(
        "mkdir /d/e
         rmdir /d ! ENOTEMPTY
         rmdir /d/e = 1
         rmdir /d = 1
         ls / = \"\"
         write /f x
         rmdir /f ! ENOTDIR
         write /p/q/f x
         rmdir /p ! ENOTEMPTY
         rmdir /p/q ! ENOTEMPTY
         rmdir / ! EBUSY
         remove_all / ! EBUSY",
    );
}

#[test]
fn all_below_a_directory_goes_with_it() {
    check(
        "write /d/a/f x
         write /d/b y
         mkdir /d/c
         link /d/l /keep
         write /keep z
         remove_all /d = 6
         ls / = keep
         stat /d/a/f ! ENOENT
         read /keep = z
         remove_all /keep = 1
         ls / = \"\"",
    );
}

#[test]
fn a_directory_that_nobody_made_lives_as_long_as_its_children() {
    check_on(
        &ROWS,
        "write /p/q/f x
         unlink /p/q/f
         stat /p/q ! ENOENT
         stat /p ! ENOENT
         ls / = \"\"
         mkdir /p
         write /p/q/f x
         unlink /p/q/f
         ls / = p
         write /p/q/f x
         mkdir_new /p/q ! EEXIST
         mkdir /p/q = created
         unlink /p/q/f
         ls /p = q
         write /i/f x
         remove_all /i = 2
         write /i/f x
         rename /i/f /g
         stat /i ! ENOENT",
    );
}

#[test]
fn a_removal_without_recursion_says_what_is_in_the_way() {
    for root in ALL {
        let Bench { nx, .. } = &Bench::new(root);
        nx.write("/d/f", "x").unwrap();
        refused(nx.send(SysUnlink::at(VPath::parse("/d").unwrap())), ErrorKind::NotEmpty, "unlink /d: ");
        let gone = nx.send(SysUnlink::at(VPath::parse("/d/f").unwrap())).unwrap();
        assert_eq!((gone.entry_type, gone.removed), (EntryType::Reg, 1), "{root:?}");
    }
}

#[test]
fn a_listing_is_of_the_children_alone() {
    check(
        "write /d/c x
         write /d/a/deep/f x
         mkdir /d/b
         ls /d = a b c
         ls /d/a = deep
         walk /d = /d/a /d/a/deep /d/a/deep/f /d/b /d/c
         ls /d/c ! ENOTDIR
         walk /d/c ! ENOTDIR
         ls /missing ! ENOENT
         ls /d/b = \"\"",
    );
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat() {
    for root in ALL {
        let Bench { nx, .. } = &Bench::new(root);
        for n in 0..25 {
            nx.write(format!("/d/s{}/f{n}", n % 3), Bytes::new()).unwrap();
        }
        for recursive in [false, true] {
            let base = VPath::parse(if recursive { "/" } else { "/d/s0" }).unwrap();
            let mut call = SysReaddir::at(&base);
            call.recursive = recursive;
            let whole = nx.send(call.clone()).unwrap();
            assert_eq!((whole.entries.len(), &whole.next), (if recursive { 29 } else { 9 }, &None));
            for limit in [1, 3, 9, 29] {
                let mut paged = Vec::new();
                let mut page = nx.send(call.clone().limit(limit)).unwrap();
                loop {
                    assert!(page.entries.len() <= limit as usize, "{root:?}");
                    paged.append(&mut page.entries);
                    let Some(cursor) = page.next.take() else { break };
                    assert_eq!(Some(&cursor.0), paged.last().map(|entry| &entry.path));
                    page = nx.send(call.clone().limit(limit).after(cursor)).unwrap();
                    assert!(!page.entries.is_empty(), "{root:?}: a page that goes on is not empty");
                }
                assert_eq!(paged, whole.entries, "{root:?} by {limit}");
            }
        }
        // A cursor stays good when its entry is gone.
        nx.unlink("/d/s0/f12").unwrap();
        let after = Cursor(VPath::parse("/d/s0/f12").unwrap());
        let rest = nx.send(SysReaddir::at(VPath::parse("/d/s0").unwrap()).after(after)).unwrap();
        assert_eq!(rest.entries[0].name(), "f15", "{root:?}");
        let foreign = Cursor(VPath::parse("/elsewhere").unwrap());
        let call = SysReaddir::at(VPath::parse("/d/s0").unwrap()).after(foreign);
        refused(nx.send(call), ErrorKind::InvalidArgument, "cursor");
    }
}

#[test]
fn a_listing_with_metadata_tells_what_stat_tells() {
    for root in ALL {
        let Bench { nx, .. } = &Bench::new(root);
        nx.write("/d/f", "xyz").unwrap();
        nx.link("/d/l", "f").unwrap();
        nx.mkdir("/d/s").unwrap();
        for entry in nx.walk("/d").with_metadata() {
            let entry = entry.unwrap();
            let stat = nx.lstat(&entry.path).unwrap();
            assert_eq!((entry.file_id, entry.entry_type), (stat.file_id, stat.entry_type), "{root:?}");
            assert_eq!(entry.metadata, Some(stat), "{root:?}");
        }
    }
}
