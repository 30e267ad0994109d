//! The suite of [`PathStore`].

use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};

use super::super::{Claim, Report, Verdict, check_claims, claims, done, ensure, same};
use super::upload::{
    an_upload_is_seen_when_it_is_finished, an_upload_keeps_to_its_condition,
    an_upload_that_is_dropped_changes_nothing,
};
use super::{fails, not_found, wait};
use crate::hal::{Addressing, ObjectInfo, ObjectStore, PathStore, PathWrite, StoreError};

/// A store to be checked.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Subject {
    /// A new, empty store.
    pub store: Arc<dyn ObjectStore>,
    /// Closes the store and opens it again; none for a store that is gone with its value.
    pub reopen: Option<super::content::Reopen>,
}

impl Subject {
    /// A store that is gone with its value.
    pub fn new(store: impl ObjectStore) -> Self {
        Self { store: Arc::new(store), reopen: None }
    }

    /// Says how the store is closed and opened again.
    #[must_use]
    pub fn reopen(mut self, reopen: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + 'static) -> Self {
        self.reopen = Some(Box::new(reopen));
        self
    }
}

/// Checks every claim on a store of its own. Claims about what the store does not declare in its capabilities are that it says so.
pub fn check(make: &dyn Fn() -> Subject) -> Report {
    check_claims("object store, by path", CLAIMS, make)
}

const CLAIMS: &[Claim<Subject>] = claims![
    it_answers_and_is_addressed_by_path,
    the_mount_point_is_an_empty_directory,
    what_was_written_is_read,
    ranges_are_exact,
    what_is_not_there_is_told_so,
    a_write_makes_the_parents,
    a_write_replaces_the_content_and_keeps_the_permissions,
    an_exclusive_write_replaces_nothing,
    a_write_of_one_state_replaces_no_other,
    an_upload_is_seen_when_it_is_finished,
    an_upload_that_is_dropped_changes_nothing,
    an_upload_keeps_to_its_condition,
    a_write_in_the_middle_keeps_the_rest,
    the_tag_changes_with_the_content,
    a_file_is_no_directory_and_a_directory_no_file,
    deleting_removes_files_and_empty_directories,
    deleting_several_files_removes_those_and_no_others,
    listings_are_the_children_in_order,
    listings_stop_at_their_limit_and_go_on_after_it,
    paths_that_lead_out_are_refused,
    directories_are_made_with_their_parents,
    a_rename_moves_and_replaces_as_posix_does,
    a_rename_moves_a_directory_with_what_is_in_it,
    a_copy_has_the_content_and_leaves_the_file,
    links_are_kept_verbatim,
    links_are_never_followed,
    attributes_are_kept,
    what_was_done_survives_reopening,
];

pub(super) fn paths(store: &dyn ObjectStore) -> Result<&dyn PathStore, String> {
    match store.addressing() {
        Addressing::Path(paths) => Ok(paths),
        Addressing::Content(_) => Err("the store is addressed by content".into()),
    }
}

pub(super) fn put_as(
    store: &dyn ObjectStore,
    path: &str,
    content: &str,
    how: PathWrite,
) -> Result<ObjectInfo, String> {
    let data = [Bytes::copy_from_slice(content.as_bytes())];
    done(&format!("write {path}"), wait(paths(store)?.write(path, &data, how, &Attributes::none())))
}

pub(super) fn put(store: &dyn ObjectStore, path: &str, content: &str) -> Verdict {
    put_as(store, path, content, PathWrite::Whole).map(drop)
}

fn try_put(store: &dyn ObjectStore, path: &str, how: PathWrite) -> Result<Result<(), StoreError>, String> {
    let data = [Bytes::from_static(b"other")];
    Ok(wait(paths(store)?.write(path, &data, how, &Attributes::none())).map(drop))
}

pub(super) fn read(store: &dyn ObjectStore, path: &str) -> Result<String, String> {
    let (bytes, _) = done(&format!("read {path}"), wait(paths(store)?.read(path, ByteRange::ALL)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn stat(store: &dyn ObjectStore, path: &str) -> Result<ObjectInfo, String> {
    done(&format!("stat {path}"), wait(paths(store)?.stat(path)))
}

pub(super) fn is_there(store: &dyn ObjectStore, path: &str) -> Result<bool, String> {
    match wait(paths(store)?.stat(path)) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(format!("stat {path}: {error}")),
    }
}

pub(super) fn names(store: &dyn ObjectStore, path: &str) -> Result<Vec<String>, String> {
    let page = done(&format!("list {path}"), wait(paths(store)?.list(path, None, usize::MAX)))?;
    same("more", page.more, false)?;
    Ok(page.entries.into_iter().map(|(name, _)| name).collect())
}

pub(super) fn is_not_a_directory(error: &StoreError) -> bool {
    matches!(error, StoreError::NotADirectory { .. })
}

pub(super) fn is_a_directory(error: &StoreError) -> bool {
    matches!(error, StoreError::IsADirectory { .. })
}

pub(super) fn exists(error: &StoreError) -> bool {
    matches!(error, StoreError::Exists { .. })
}

fn not_empty(error: &StoreError) -> bool {
    matches!(error, StoreError::NotEmpty { .. })
}

pub(super) fn not_supported(error: &StoreError) -> bool {
    matches!(error, StoreError::NotSupported { .. })
}

pub(super) fn changed(error: &StoreError) -> bool {
    matches!(error, StoreError::Changed { .. })
}

pub(super) fn any(_: &StoreError) -> bool {
    true
}

fn it_answers_and_is_addressed_by_path(Subject { store, .. }: Subject) -> Verdict {
    paths(&*store)?;
    done("probe", wait(store.probe()))
}

fn the_mount_point_is_an_empty_directory(Subject { store, .. }: Subject) -> Verdict {
    same("its type", stat(&*store, "")?.entry_type, EntryType::Dir)?;
    same("its children", names(&*store, "")?, vec![])?;
    fails("deleting it", wait(paths(&*store)?.delete("")), any)?;
    fails("writing it", try_put(&*store, "", PathWrite::Whole)?, any)
}

fn what_was_written_is_read(Subject { store, .. }: Subject) -> Verdict {
    for (path, content) in
        [("a", "1"), ("empty", ""), ("with space", "ä\0b"), ("d/e/f", "deep"), ("...", "dots")]
    {
        let info = put_as(&*store, path, content, PathWrite::Whole)?;
        same("size", info.size, content.len() as u64)?;
        same(path, read(&*store, path)?, content.to_owned())?;
        same("stat", stat(&*store, path)?, info)?;
    }
    let parts = [&b"one"[..], b"", b"two"].map(Bytes::from_static);
    done("write", wait(paths(&*store)?.write("parts", &parts, PathWrite::Whole, &Attributes::none())))?;
    same("buffers", read(&*store, "parts")?, "onetwo".to_owned())
}

fn ranges_are_exact(Subject { store, .. }: Subject) -> Verdict {
    put(&*store, "f", "0123456789")?;
    for (offset, count, expected) in [
        (0, None, "0123456789"),
        (0, Some(1), "0"),
        (3, Some(4), "3456"),
        (8, Some(50), "89"),
        (9, Some(1), "9"),
        (10, Some(5), ""),
        (99, None, ""),
        (5, Some(0), ""),
        (1, Some(u64::MAX), "123456789"),
    ] {
        let (bytes, info) = done("read", wait(paths(&*store)?.read("f", ByteRange { offset, count })))?;
        same(&format!("{count:?} bytes at {offset}"), &*bytes, expected.as_bytes())?;
        same("the file's size", info.size, 10)?;
    }
    Ok(())
}

fn what_is_not_there_is_told_so(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    for path in ["none", "none/below"] {
        fails("stat", wait(paths.stat(path)), not_found)?;
        fails("read", wait(paths.read(path, ByteRange::ALL)), not_found)?;
        fails("delete", wait(paths.delete(path)), not_found)?;
        fails("list", wait(paths.list(path, None, 9)), not_found)?;
        if paths.capabilities().rename {
            fails("rename", wait(paths.rename(path, "to")), not_found)?;
        }
        if paths.capabilities().attributes {
            fails("attributes", wait(paths.set_attributes(path, &Attributes::none())), not_found)?;
        }
    }
    same("the children of the mount point", names(&*store, "")?, vec![])
}

fn a_write_makes_the_parents(Subject { store, .. }: Subject) -> Verdict {
    put(&*store, "a/b/c", "1")?;
    same("a", stat(&*store, "a")?.entry_type, EntryType::Dir)?;
    same("a/b", stat(&*store, "a/b")?.entry_type, EntryType::Dir)?;
    same("a/b/c", stat(&*store, "a/b/c")?.entry_type, EntryType::Reg)?;
    same("the children of a", names(&*store, "a")?, vec!["b".to_owned()])
}

fn a_write_replaces_the_content_and_keeps_the_permissions(Subject { store, .. }: Subject) -> Verdict {
    let with_mode = Attributes::none().mode(0o640);
    let data = [Bytes::from_static(b"a long first content")];
    done("write", wait(paths(&*store)?.write("f", &data, PathWrite::Whole, &with_mode)))?;
    put(&*store, "f", "short")?;
    same("content", read(&*store, "f")?, "short".to_owned())?;
    if paths(&*store)?.capabilities().attributes {
        same("mode", stat(&*store, "f")?.mode, 0o640)?;
    }
    same("children", names(&*store, "")?, vec!["f".to_owned()])
}

fn an_exclusive_write_replaces_nothing(Subject { store, .. }: Subject) -> Verdict {
    put_as(&*store, "f", "first", PathWrite::Exclusive)?;
    put(&*store, "d/f", "")?;
    for path in ["f", "d"] {
        fails(path, try_put(&*store, path, PathWrite::Exclusive)?, exists)?;
    }
    same("content", read(&*store, "f")?, "first".to_owned())?;
    same("children", names(&*store, "")?, vec!["d".to_owned(), "f".to_owned()])
}

fn a_write_of_one_state_replaces_no_other(Subject { store, .. }: Subject) -> Verdict {
    let first = put_as(&*store, "f", "1111", PathWrite::Whole)?.tag;
    let if_match = |tag: &ContentId| PathWrite::IfMatch(tag.clone());
    if let Err(StoreError::NotSupported { .. }) = try_put(&*store, "f", if_match(&first))? {
        return same("if_match", paths(&*store)?.capabilities().if_match, false);
    }
    let second = put_as(&*store, "f", "2222", PathWrite::Whole)?.tag;
    fails("write of an earlier state", try_put(&*store, "f", if_match(&first))?, changed)?;
    same("content", read(&*store, "f")?, "2222".to_owned())?;
    let third = put_as(&*store, "f", "3333", if_match(&second))?;
    same("stat", stat(&*store, "f")?, third)?;
    fails("the same again", try_put(&*store, "f", if_match(&second))?, changed)?;
    same("content", read(&*store, "f")?, "3333".to_owned())?;
    fails("write of what is not there", try_put(&*store, "none", if_match(&second))?, changed)?;
    put(&*store, "d/f", "")?;
    fails("write of a directory", try_put(&*store, "d", if_match(&second))?, any)?;
    same("children", names(&*store, "")?, vec!["d".to_owned(), "f".to_owned()])
}

fn a_write_in_the_middle_keeps_the_rest(Subject { store, .. }: Subject) -> Verdict {
    let at = |offset, truncate| PathWrite::At { offset, truncate };
    if !paths(&*store)?.capabilities().write_at {
        fails("append", try_put(&*store, "f", PathWrite::Append)?, not_supported)?;
        return fails("write at", try_put(&*store, "f", at(0, false))?, not_supported);
    }
    put(&*store, "f", "hello world!")?;
    for (data, how, expected) in [
        ("RUST!", at(6, false), "hello RUST!!"),
        ("J", at(0, false), "Jello RUST!!"),
        ("..", at(11, false), "Jello RUST!.."),
        ("x", at(15, false), "Jello RUST!..\0\0x"),
        ("", at(3, false), "Jello RUST!..\0\0x"),
        ("p", at(4, true), "Jellp"),
        ("", at(2, true), "Je"),
        ("", at(4, true), "Je\0\0"),
    ] {
        let info = put_as(&*store, "f", data, how.clone())?;
        same(&format!("{data:?} {how:?}"), read(&*store, "f")?, expected.to_owned())?;
        same("size", info.size, expected.len() as u64)?;
    }
    for (data, expected) in [("ab", "Je\0\0ab"), ("", "Je\0\0ab"), ("c", "Je\0\0abc")] {
        let info = put_as(&*store, "f", data, PathWrite::Append)?;
        same(&format!("{data:?} appended"), read(&*store, "f")?, expected.to_owned())?;
        same("size", info.size, expected.len() as u64)?;
    }
    put_as(&*store, "new/appended", "ab", PathWrite::Append)?;
    same("a new file", read(&*store, "new/appended")?, "ab".to_owned())?;
    put_as(&*store, "new/file", "ab", at(2, false))?;
    same("a new file", read(&*store, "new/file")?, "\0\0ab".to_owned())?;
    fails("too far", try_put(&*store, "f", at(u64::MAX, false))?, any)
}

fn the_tag_changes_with_the_content(Subject { store, .. }: Subject) -> Verdict {
    put(&*store, "f", "1111")?;
    let first = stat(&*store, "f")?.tag;
    same("the tag of what did not change", stat(&*store, "f")?.tag, first.clone())?;
    let (_, info) = done("read", wait(paths(&*store)?.read("f", ByteRange::new(0, 1))))?;
    same("the tag that a read tells", info.tag, first.clone())?;
    put(&*store, "f", "2222")?;
    ensure(stat(&*store, "f")?.tag != first, || "the same tag for another content of the same length".into())
}

fn a_file_is_no_directory_and_a_directory_no_file(Subject { store, .. }: Subject) -> Verdict {
    put(&*store, "d/f", "1")?;
    let paths = paths(&*store)?;
    fails("read of a directory", wait(paths.read("d", ByteRange::ALL)), is_a_directory)?;
    fails("write of a directory", try_put(&*store, "d", PathWrite::Whole)?, is_a_directory)?;
    fails("list of a file", wait(paths.list("d/f", None, 9)), is_not_a_directory)?;
    fails("stat below a file", wait(paths.stat("d/f/x")), is_not_a_directory)?;
    fails("read below a file", wait(paths.read("d/f/x", ByteRange::ALL)), is_not_a_directory)?;
    fails("write below a file", try_put(&*store, "d/f/x", PathWrite::Whole)?, is_not_a_directory)?;
    same("the file", read(&*store, "d/f")?, "1".to_owned())
}

fn deleting_removes_files_and_empty_directories(Subject { store, .. }: Subject) -> Verdict {
    put(&*store, "d/f", "1")?;
    put(&*store, "d/g", "2")?;
    let paths = paths(&*store)?;
    fails("delete of what is not empty", wait(paths.delete("d")), not_empty)?;
    done("delete", wait(paths.delete("d/f")))?;
    fails("delete again", wait(paths.delete("d/f")), not_found)?;
    same("what is left", read(&*store, "d/g")?, "2".to_owned())?;
    done("delete", wait(paths.delete("d/g")))?;
    if paths.capabilities().directories {
        same("an empty directory", names(&*store, "d")?, vec![])?;
        done("delete of the empty directory", wait(paths.delete("d")))?;
    }
    same("d", is_there(&*store, "d")?, false)
}

fn deleting_several_files_removes_those_and_no_others(Subject { store, .. }: Subject) -> Verdict {
    // What would become another one of these, were it told in a way that leaves out spaces, or takes some letters for its own.
    let files = ["a", "a ", " a", "a&amp;b", "a&b", "<a>", "sub/a", "ä"].map(|name| format!("d/{name}"));
    for file in &files {
        put(&*store, file, "x")?;
    }
    put(&*store, "a", "x")?;
    let paths = paths(&*store)?;
    let deleted = |some: &[String]| {
        let each = done("delete", wait(paths.delete_many(some)))?;
        same("how many are told of", each.len(), some.len())?;
        each.into_iter().try_for_each(|each| done("one of them", each))
    };
    let some = [&files[1..3], &files[4..6], &["d/none".into()]].concat();
    deleted(&some)?;
    for file in &files {
        same(file, is_there(&*store, file)?, !some.contains(file))?;
    }
    deleted(&files)?;
    deleted(&[])?;
    for file in &files {
        same(file, is_there(&*store, file)?, false)?;
    }
    same("what is beside them", read(&*store, "a")?, "x".to_owned())
}

const NAMES: [&str; 7] = ["a", "a b", "a.b", "a0", "aa", "b", "ä"];

fn listings_are_the_children_in_order(Subject { store, .. }: Subject) -> Verdict {
    for name in NAMES.iter().rev() {
        put(&*store, &format!("d/{name}"), "x")?;
    }
    put(&*store, "d/sub/deep", "x")?;
    put(&*store, "dd", "x")?;
    let names = ["a", "a b", "a.b", "a0", "aa", "b", "sub", "ä"];
    let before =
        names.iter().map(|name| stat(&*store, &format!("d/{name}"))).collect::<Result<Vec<_>, _>>()?;
    let page = done("list", wait(paths(&*store)?.list("d", None, usize::MAX)))?;
    let got: Vec<_> = page.entries.iter().map(|(name, _)| name.as_str()).collect();
    same("names", got, names.to_vec())?;
    for ((name, info), before) in page.entries.iter().zip(before) {
        let what = if name == "sub" { EntryType::Dir } else { EntryType::Reg };
        same(name, info.entry_type, what)?;
        // A folder may come into being behind what is in it: then it tells another time from a moment on.
        if *info != before {
            same("what the listing tells", info.clone(), stat(&*store, &format!("d/{name}"))?)?;
        }
    }
    same("unnameable", page.unnameable, 0)
}

fn listings_stop_at_their_limit_and_go_on_after_it(Subject { store, .. }: Subject) -> Verdict {
    for name in NAMES {
        put(&*store, &format!("d/{name}"), "x")?;
    }
    let paths = paths(&*store)?;
    for limit in 1..=NAMES.len() + 1 {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = done("list", wait(paths.list("d", after.as_deref(), limit)))?;
            ensure(page.entries.len() <= limit, || format!("more than {limit}"))?;
            ensure(!page.entries.is_empty() || !page.more, || {
                "an empty page says that there is more".into()
            })?;
            seen.extend(page.entries.into_iter().map(|(name, _)| name));
            after = seen.last().cloned();
            if !page.more || seen.len() > NAMES.len() {
                break;
            }
        }
        same(&format!("pages of {limit}"), seen, NAMES.map(String::from).to_vec())?;
    }
    let page = done("list", wait(paths.list("d", Some("a.c"), 1)))?;
    same("after a name that is not there", page.entries[0].0.as_str(), "a0")?;
    let page = done("list", wait(paths.list("d", Some("ä"), 9)))?;
    same("after the last", (page.entries.len(), page.more), (0, false))
}

fn paths_that_lead_out_are_refused(Subject { store, .. }: Subject) -> Verdict {
    put(&*store, "d/f", "1")?;
    let paths = paths(&*store)?;
    for path in ["..", "../x", "d/../../x", "d/..", "/etc", "/", "d/../f", "."] {
        fails(path, wait(paths.stat(path)), any)?;
        fails(path, wait(paths.read(path, ByteRange::ALL)), any)?;
        fails(path, try_put(&*store, path, PathWrite::Whole)?, any)?;
        fails(path, wait(paths.list(path, None, 9)), any)?;
        fails(path, wait(paths.delete(path)), any)?;
        fails(path, wait(paths.rename("d/f", path)), any)?;
        fails(path, wait(paths.rename(path, "x")), any)?;
        fails(path, wait(paths.make_directory(path, &Attributes::none())), any)?;
        fails(path, wait(paths.make_link(path, "x")), any)?;
        fails(path, wait(paths.set_attributes(path, &Attributes::none().mode(0o600))), any)?;
    }
    same("the file", read(&*store, "d/f")?, "1".to_owned())
}

fn directories_are_made_with_their_parents(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    let make = |path| wait(paths.make_directory(path, &Attributes::none()));
    if !paths.capabilities().directories {
        return fails("make_directory", make("a"), not_supported);
    }
    same("type", done("make", make("a/b/c"))?.entry_type, EntryType::Dir)?;
    same("children", names(&*store, "a/b")?, vec!["c".to_owned()])?;
    fails("make again", make("a/b"), exists)?;
    fails("make the mount point", make(""), exists)?;
    put(&*store, "f", "1")?;
    fails("make over a file", make("f"), exists)?;
    fails("make below a file", make("f/d"), is_not_a_directory)
}

fn a_rename_moves_and_replaces_as_posix_does(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    let rename = |from, to| wait(paths.rename(from, to));
    if !paths.capabilities().rename {
        return fails("rename", rename("a", "b"), not_supported);
    }
    put(&*store, "a", "1")?;
    let before = stat(&*store, "a")?;
    let after = done("rename", rename("a", "b"))?;
    same("the identity", after.inode, before.inode)?;
    same("the new path", (is_there(&*store, "a")?, read(&*store, "b")?), (false, "1".to_owned()))?;
    put(&*store, "c", "2")?;
    done("rename over a file", rename("b", "c"))?;
    same("the new path", (is_there(&*store, "b")?, read(&*store, "c")?), (false, "1".to_owned()))?;
    done("rename to itself", rename("c", "c"))?;
    same("itself", read(&*store, "c")?, "1".to_owned())?;
    put(&*store, "full/f", "3")?;
    fails("a file over a directory", rename("c", "full"), |e| is_a_directory(e) || not_empty(e))?;
    fails("a directory over a file", rename("full", "c"), is_not_a_directory)?;
    // Where folders are implied, none is missing.
    if paths.capabilities().directories {
        fails("into what is missing", rename("c", "none/c"), not_found)?;
    }
    fails("below a file", rename("full", "c/x"), is_not_a_directory)?;
    same(
        "all is as it was",
        (read(&*store, "c")?, read(&*store, "full/f")?),
        ("1".to_owned(), "3".to_owned()),
    )
}

fn a_rename_moves_a_directory_with_what_is_in_it(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    if !paths.capabilities().rename || !paths.capabilities().directories {
        return Ok(());
    }
    let rename = |from, to| wait(paths.rename(from, to));
    put(&*store, "d/e/f", "1")?;
    put(&*store, "d.x", "2")?;
    put(&*store, "full/f", "3")?;
    fails("into itself", rename("d", "d/e/d"), any)?;
    fails("over a full directory", rename("d", "full"), not_empty)?;
    done("make", wait(paths.make_directory("empty", &Attributes::none())))?;
    done("over an empty directory", rename("d", "empty"))?;
    same("what was in it", read(&*store, "empty/e/f")?, "1".to_owned())?;
    done("back", rename("empty", "d2"))?;
    same("the children", names(&*store, "")?, ["d.x", "d2", "full"].map(String::from).to_vec())?;
    same("what was in it", read(&*store, "d2/e/f")?, "1".to_owned())
}

fn a_copy_has_the_content_and_leaves_the_file(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    let copy = |from, to| wait(paths.copy(from, to));
    put(&*store, "d/f", "1")?;
    if !paths.capabilities().copy {
        return fails("copy", copy("d/f", "g"), not_supported);
    }
    let info = done("copy", copy("d/f", "e/g"))?;
    same("stat", stat(&*store, "e/g")?, info)?;
    put(&*store, "h", "another")?;
    done("copy over a file", copy("d/f", "h"))?;
    let all = (read(&*store, "d/f")?, read(&*store, "e/g")?, read(&*store, "h")?);
    same("the contents", all, ("1".to_owned(), "1".to_owned(), "1".to_owned()))?;
    fails("copy of what is not there", copy("none", "x"), not_found)?;
    fails("copy of a directory", copy("d", "x"), is_a_directory)?;
    fails("copy over a directory", copy("h", "d"), is_a_directory)?;
    fails("copy below a file", copy("h", "d/f/x"), is_not_a_directory)?;
    fails("copy that leads out", copy("h", "../x"), any)?;
    same("x", is_there(&*store, "x")?, false)
}

fn links_are_kept_verbatim(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    let link = |path, target| wait(paths.make_link(path, target));
    if !paths.capabilities().links {
        return fails("make_link", link("l", "x"), not_supported);
    }
    for (path, target) in
        [("up", "../../x"), ("absolute", "/etc/passwd"), ("odd", "a//./b/"), ("d/self", "self")]
    {
        let info = done("make_link", link(path, target))?;
        same("type", info.entry_type, EntryType::Link)?;
        same("target", info.link_target.as_deref(), Some(target))?;
        same("stat", stat(&*store, path)?, info)?;
        fails("make again", link(path, "elsewhere"), exists)?;
    }
    done("rename", wait(paths.rename("up", "moved")))?;
    same("a moved link", stat(&*store, "moved")?.link_target.as_deref(), Some("../../x"))?;
    done("delete", wait(paths.delete("moved")))?;
    same("a deleted link", is_there(&*store, "moved")?, false)
}

fn links_are_never_followed(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    if !paths.capabilities().links {
        return Ok(());
    }
    put(&*store, "d/f", "1")?;
    for (path, target) in [("to-dir", "d"), ("to-file", "d/f"), ("dangling", "d/new")] {
        done("make_link", wait(paths.make_link(path, target)))?;
    }
    let none = Attributes::none();
    fails("stat through a link", wait(paths.stat("to-dir/f")), any)?;
    fails("read through a link", wait(paths.read("to-dir/f", ByteRange::ALL)), any)?;
    fails("list through a link", wait(paths.list("to-dir", None, 9)), is_not_a_directory)?;
    fails("delete through a link", wait(paths.delete("to-dir/f")), any)?;
    fails("rename out of a link", wait(paths.rename("to-dir/f", "g")), any)?;
    fails("rename into a link", wait(paths.rename("d/f", "to-dir/g")), any)?;
    fails("mkdir through a link", wait(paths.make_directory("to-dir/x", &none)), any)?;
    fails("link through a link", wait(paths.make_link("to-dir/x", "y")), any)?;
    fails("attributes through a link", wait(paths.set_attributes("to-dir/f", &none.mode(0o600))), any)?;
    fails("read of a link", wait(paths.read("to-file", ByteRange::ALL)), any)?;
    for how in [PathWrite::Whole, PathWrite::Exclusive] {
        fails("write through a link", try_put(&*store, "to-dir/new", how.clone())?, any)?;
        fails("write of a link", try_put(&*store, "to-file", how.clone())?, any)?;
        fails("write of a dangling link", try_put(&*store, "dangling", how)?, any)?;
    }
    if paths.capabilities().write_at {
        let at = PathWrite::At { offset: 0, truncate: false };
        fails("write at, of a link", try_put(&*store, "to-file", at.clone())?, any)?;
        fails("write at, of a dangling link", try_put(&*store, "dangling", at)?, any)?;
    }
    done("delete of a link", wait(paths.delete("to-dir")))?;
    same(
        "what it pointed to",
        (names(&*store, "d")?, read(&*store, "d/f")?),
        (vec!["f".to_owned()], "1".to_owned()),
    )
}

fn attributes_are_kept(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    let at = Timestamp(1_234_567_890_123_456_789);
    let both = Attributes::none().mode(0o600).modified(at);
    if !paths.capabilities().attributes {
        return fails("set_attributes", wait(paths.set_attributes("f", &both)), not_supported);
    }
    let check = |path: &str, info: ObjectInfo| {
        same(path, (info.mode, info.modified), (0o600, at))?;
        same("stat", stat(&*store, path)?, info)
    };
    let info = done("write", wait(paths.write("f", &[Bytes::from_static(b"1")], PathWrite::Whole, &both)))?;
    check("f", info)?;
    check("d", done("make", wait(paths.make_directory("d", &both)))?)?;
    put(&*store, "g", "1")?;
    check("g", done("set", wait(paths.set_attributes("g", &both)))?)?;
    let info = done("set nothing", wait(paths.set_attributes("g", &Attributes::none())))?;
    check("g", info)?;
    same("content", read(&*store, "g")?, "1".to_owned())
}

fn what_was_done_survives_reopening(Subject { store, reopen }: Subject) -> Verdict {
    let Some(reopen) = reopen else { return Ok(()) };
    put(&*store, "a/b", "1")?;
    put(&*store, "gone", "2")?;
    done("delete", wait(paths(&*store)?.delete("gone")))?;
    let before = stat(&*store, "a/b")?;
    let store = reopen(store);
    same("children", names(&*store, "")?, vec!["a".to_owned()])?;
    same("content", read(&*store, "a/b")?, "1".to_owned())?;
    same("stat", stat(&*store, "a/b")?, before)
}
