//! Content: read, write, append, edit.

use nexus::{Attributes, ByteRange, Precondition, SysRead, SysWrite, Timestamp, VPath};

use crate::script::{ALL, Bench, ROWS, check, check_on};

#[test]
fn what_was_written_is_read() {
    check(
        "write /f one = created 3
         read /f = one
         write /f three = 5 over 3
         read /f = three
         stat /f = file 5
         write /empty \"\" = created 0
         read /empty = \"\"
         stat /empty = file 0",
    );
}

#[test]
fn a_missing_file_is_made_only_when_asked_for() {
    check(
        "overwrite /f x ! ENOENT
         pwrite /f 0 x ! ENOENT
         pwrite /f 3 x ! ENOENT
         edit /f a b ! ENOENT
         write_new /f x = created 1
         write_new /f y ! EEXIST
         overwrite /f z = 1 over 1
         mkdir /d
         write_new /d x ! EEXIST",
    );
}

#[test]
fn a_range_ends_where_the_content_ends() {
    check(
        "write /f 0123456789
         pread /f 3 4 = 3456
         pread /f 10 5 = \"\"
         pread /f 11 5 = \"\"
         pread /f 8 50 = 89
         pread /f 0 0 = \"\"
         pread /f 9 18446744073709551615 = 9",
    );
}

#[test]
fn reading_what_is_no_file_fails() {
    check(
        "mkdir /d
         read /d ! EISDIR
         read / ! EISDIR
         read /missing ! ENOENT
         read /d/missing ! ENOENT
         write /f x
         read /f/below ! ENOTDIR",
    );
}

#[test]
fn writing_to_a_directory_fails() {
    check(
        "write /d/f x
         write /d y ! EISDIR
         append /d y ! EISDIR
         pwrite /d 0 y ! EISDIR
         edit /d x y ! EISDIR
         write / y ! EISDIR",
    );
}

#[test]
fn a_write_at_an_offset_goes_over_what_is_there() {
    check(
        "write /f hello\\sworld!
         pwrite /f 6 RUST! = 5 over 12
         read /f = hello\\sRUST!!
         write /g head
         pwrite /g 2 TAIL = 4 over 4
         read /g = heTAIL
         write /h ab
         pwrite /h 5 xyz = 3 over 2
         read /h = ab\\0\\0\\0xyz
         pwrite /h 0 \"\" = 0 over 8
         read /h = ab\\0\\0\\0xyz
         pwrite_end /h 1 Z = 1 over 8
         read /h = aZ",
    );
}

#[test]
fn an_append_goes_to_the_end() {
    check(
        "append /f one = created 3
         append /f two = 3 over 3
         read /f = onetwo
         append /f \"\" = 0 over 6
         read /f = onetwo",
    );
}

#[test]
fn an_edit_replaces_what_is_there_once() {
    check(
        "write /f one\\stwo\\stwo
         edit /f one 1 = 1
         read /f = 1\\stwo\\stwo
         edit /f two 2 ! EINVAL
         edit /f three 3 ! EINVAL
         edit /f \"\" 3 ! EINVAL
         edit_all /f two 2 = 2
         read /f = 1\\s2\\s2
         edit_all /f two 2 ! EINVAL
         edit /f \\s2\\s2 \"\" = 1
         read /f = 1",
    );
}

#[test]
fn parents_of_a_file_need_not_be_made() {
    check(
        "write /p/q/r.txt x
         stat /p/q = directory
         ls /p = q
         ls / = p
         stat /p = directory",
    );
}

#[test]
fn a_parent_that_is_a_file_is_refused() {
    check(
        "write /a x
         write /a/b y ! ENOTDIR
         write /a/b/c y ! ENOTDIR
         append /a/b y ! ENOTDIR
         mkdir /a/b ! ENOTDIR
         mkdir_new /a/b ! ENOTDIR
         touch /a/b ! ENOTDIR
         link /a/b /x ! ENOTDIR
         stat /a/b ! ENOTDIR
         ls /a/b ! ENOTDIR
         unlink /a/b ! ENOTDIR
         rmdir /a/b ! ENOTDIR
         rename /a /a/b ! ENOTDIR
         rename /a/b /c ! ENOTDIR
         write /f z
         rename /f /a/b ! ENOTDIR
         copy /f /a/b ! ENOTDIR",
    );
}

#[test]
fn each_write_raises_version_and_generation() {
    check_on(
        &ROWS,
        "write /f one
         versions /f = 1 1
         write /f two
         versions /f = 2 2
         append /f x
         versions /f = 3 3
         chmod /f 600
         versions /f = 3 3
         touch /new
         versions /new = 0 0
         write /other x
         rename /f /other
         versions /other = 3 3",
    );
}

#[test]
fn the_time_of_creation_is_kept_and_the_time_of_change_advances() {
    for root in ROWS {
        let Bench { nx, .. } = &Bench::new(root);
        let first = nx.write("/f", "one").unwrap().metadata;
        let second = nx.write("/f", "two").unwrap().metadata;
        assert_eq!((first.created, first.file_id), (second.created, second.file_id));
        assert!(second.modified > first.modified, "{first:?} {second:?}");
        assert_eq!(&*nx.stat("/f").unwrap(), &*second);
        let copied = nx.copy("/f", "/g").unwrap().metadata;
        nx.write("/h", "three").unwrap();
        let again = nx.copy("/h", "/g").unwrap().metadata;
        assert_eq!((again.created, again.version, copied.version), (copied.created, 2, 1));
    }
}

#[test]
fn runs_of_a_vectored_read_come_from_one_content() {
    let path = VPath::parse("/f").unwrap();
    for root in ALL {
        let Bench { nx, .. } = &Bench::new(root);
        let buffers = vec!["01234".into(), "".into(), "56789".into()];
        nx.send(SysWrite::vectored(&path, buffers).create()).unwrap();
        let ranges = vec![ByteRange::new(8, 5), ByteRange::new(0, 2), ByteRange::new(20, 1)];
        let read = nx.send(SysRead::at(&path).vectored(ranges)).unwrap();
        assert_eq!(read.runs().collect::<Vec<_>>(), ["89", "01", ""], "{root:?}");
        let nothing = nx.send(SysRead::at(&path).vectored(Vec::new())).unwrap();
        assert_eq!(nothing.data, "", "{root:?}");
        assert_eq!(nx.send(SysRead::at(&path).from_offset(7)).unwrap().data, "789", "{root:?}");
    }
}

#[test]
fn content_of_every_size_comes_back() {
    for root in ALL {
        let Bench { nx, .. } = &Bench::new(root);
        for size in [0, 1, 4_095, 16_384, 16_385, 1 << 20, (1 << 20) + 1, 5_000_000] {
            let data: Vec<u8> = (0..=250u8).map(|b| b.wrapping_mul(31)).cycle().take(size).collect();
            nx.write("/f", data.clone()).unwrap();
            assert!(nx.read("/f").unwrap() == data, "{size} bytes on {root:?}");
            let half = size as u64 / 2;
            assert!(nx.read_range("/f", half, 100).unwrap() == data[size / 2..size.min(size / 2 + 100)]);
            assert_eq!(nx.stat("/f").unwrap().size, size as u64);
        }
    }
}

#[test]
fn a_precondition_that_does_not_hold_changes_nothing() {
    let path = VPath::parse("/f").unwrap();
    for root in ALL {
        let Bench { nx, .. } = &Bench::new(root);
        let write = |data: &'static str| SysWrite::at(&path, data).create();
        let first = nx.send(write("one").when(Precondition::Absent)).unwrap().metadata;
        let refused = nx.send(write("two").when(Precondition::Absent)).unwrap_err();
        assert_eq!(refused.errno().name(), "ECANCELED", "{root:?}: {refused}");
        let stale = Precondition::Version(first.version + 1);
        assert_eq!(nx.send(write("two").when(stale)).unwrap_err().errno().name(), "ECANCELED", "{root:?}");
        assert_eq!(nx.read("/f").unwrap(), "one");
        nx.send(write("two").when(Precondition::Version(first.version))).unwrap();
        assert_eq!(nx.read("/f").unwrap(), "two");
    }
}

#[test]
fn an_operation_that_is_sent_again_is_executed_once() {
    let path = VPath::parse("/f").unwrap();
    for root in ROWS {
        let Bench { nx, .. } = &Bench::new(root);
        let append = || SysWrite::at(&path, "x").append().create().op_id(nexus::OpId(42));
        let first = nx.send(append()).unwrap().receipt;
        let again = nx.send(append()).unwrap().receipt;
        assert_eq!(first, again, "{root:?}");
        assert_eq!(nx.read("/f").unwrap(), "x", "{root:?}");
    }
}

#[test]
fn attributes_are_set_in_the_same_commit() {
    let path = VPath::parse("/f").unwrap();
    let at = Timestamp(1_500_000_000_000_000_000);
    for root in ALL {
        let Bench { nx, .. } = &Bench::new(root);
        let attributes = Attributes::none().mode(0o640).modified(at);
        let call = SysWrite::at(&path, "x").create().attributes(attributes);
        let done = nx.send(call).unwrap().metadata;
        assert_eq!((done.mode, done.modified), (0o640, at), "{root:?}");
        assert_eq!(nx.write("/f", "y").unwrap().metadata.mode, 0o640, "{root:?}: a mode outlives a write");
    }
}

#[test]
fn a_batch_answers_each_item_in_its_place() {
    for root in ALL {
        let Bench { nx, .. } = &Bench::new(root);
        nx.mkdir("/d").unwrap();
        let items = [("/a", "1"), ("bad", "2"), ("/d", "3"), ("/b", "4"), ("/a", "5"), ("/a/below", "6")];
        let shown: Vec<_> = nx.write_batch(items).into_iter().map(errno).collect();
        assert_eq!(shown, ["ok", "EINVAL", "EISDIR", "ok", "ok", "ENOTDIR"], "{root:?}");
        let read = nx.read_batch(["/a", "/missing", "/b", "/a", "..", "/d"]);
        let shown: Vec<_> =
            read.into_iter().map(|read| read.map_or_else(|e| e.errno().to_string(), |b| text(&b))).collect();
        assert_eq!(shown, ["5", "ENOENT", "4", "5", "EINVAL", "EISDIR"], "{root:?}");
        let shown: Vec<_> = nx.stat_batch(["/a", "/missing"]).into_iter().map(errno).collect();
        assert_eq!(shown, ["ok", "ENOENT"], "{root:?}");
        let shown: Vec<_> = nx.unlink_batch(["/a", "/d", "/a", "/b"]).into_iter().map(errno).collect();
        assert_eq!(shown, ["ok", "EISDIR", "ENOENT", "ok"], "{root:?}");
        assert!(nx.write_batch(Vec::<(&str, &str)>::new()).is_empty());
    }
}

#[test]
fn a_large_batch_is_complete_and_in_order() {
    for root in ROWS {
        let Bench { nx, .. } = &Bench::new(root);
        let items: Vec<_> = (0..300).map(|n| (format!("/d{}/f{n}", n % 7), n.to_string())).collect();
        assert!(nx.write_batch(items.clone()).into_iter().all(|done| done.is_ok()), "{root:?}");
        let read = nx.read_batch(items.iter().map(|(path, _)| path));
        let read: Vec<_> = read.into_iter().map(|data| text(&data.unwrap())).collect();
        assert_eq!(read, items.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), "{root:?}");
    }
}

fn errno<T>(result: nexus::Result<T>) -> String {
    result.map_or_else(|error| error.errno().to_string(), |_| "ok".into())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
