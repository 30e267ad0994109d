//! The claims about [`PathUpload`](crate::hal::PathUpload)s, in the suite of [`PathStore`](crate::hal::PathStore).

use bytes::Bytes;
use nexus_messages::Attributes;
use nexus_messages::syscall::ByteRange;

use super::super::{Verdict, done, ensure, same};
use super::path::{
    Subject, any, changed, exists, is_a_directory, is_not_a_directory, is_there, names, not_supported, paths,
    put, read, stat,
};
use super::{fails, wait};
use crate::hal::{ObjectInfo, ObjectStore, PathWrite, StoreError};

/// The pieces of content that is large: more than a part of 5 MiB, which are the smallest that there are, and no multiple of one.
const LARGE_PIECES: usize = 2;
const LARGE_PIECE: usize = 3 << 20;

pub(super) fn an_upload_is_seen_when_it_is_finished(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    let none = Attributes::none();
    if !paths.capabilities().upload {
        return fails("upload", wait(paths.upload("f")), not_supported);
    }
    put(&*store, "f", "old")?;
    let pieces = large();
    let size = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
    for path in ["new/deep/f", "f"] {
        let was = if is_there(&*store, path)? { Some(stat(&*store, path)?) } else { None };
        let mut upload = done("upload", wait(paths.upload(path)))?;
        for piece in &pieces {
            done("push", wait(upload.push(piece.clone())))?;
        }
        done("settle", wait(upload.settle()))?;
        done("settle again", wait(upload.settle()))?;
        let now = if is_there(&*store, path)? { Some(stat(&*store, path)?) } else { None };
        same(&format!("{path} before it is finished"), now, was)?;
        let info = done("finish", wait(upload.finish(path, PathWrite::Whole, &none)))?;
        same("size", info.size, size)?;
        same("stat", stat(&*store, path)?, info)?;
        let (bytes, _) = done("read", wait(paths.read(path, ByteRange::ALL)))?;
        ensure(bytes[..] == pieces.concat()[..], || format!("{path} is not what was pushed"))?;
        let middle = ByteRange::new(LARGE_PIECE as u64 - 1, 5);
        let (bytes, _) = done("read", wait(paths.read(path, middle)))?;
        same("where the pieces meet", &bytes[..], &pieces.concat()[LARGE_PIECE - 1..][..5])?;
    }
    put(&*store, "f", "old")?;
    let small = [&b"one"[..], b"", b"two"].map(Bytes::from_static);
    for (path, pieces, expected) in [("small", &small[..], "onetwo"), ("empty", &[], "")] {
        done("upload", upload_as(&*store, path, pieces, PathWrite::Whole)?)?;
        same(path, read(&*store, path)?, expected.to_owned())?;
    }
    for (path, is) in [
        ("new", is_a_directory as fn(&StoreError) -> bool),
        ("f/x", is_not_a_directory),
        ("", any),
        ("..", any),
        ("a/../x", any),
        ("/etc", any),
    ] {
        fails(path, upload_as(&*store, path, &small, PathWrite::Whole)?, is)?;
    }
    let at = PathWrite::At { offset: 0, truncate: true };
    fails("an upload to the middle", upload_as(&*store, "f", &small, at)?, any)?;
    same("content", read(&*store, "f")?, "old".to_owned())?;
    same("children", names(&*store, "")?, ["empty", "f", "new", "small"].map(String::from).to_vec())
}

pub(super) fn an_upload_that_is_dropped_changes_nothing(Subject { store, .. }: Subject) -> Verdict {
    let paths = paths(&*store)?;
    if !paths.capabilities().upload {
        return Ok(());
    }
    put(&*store, "f", "old")?;
    let before = stat(&*store, "f")?;
    let (small, large) = (vec![Bytes::from_static(b"new")], large());
    for (path, pieces, is_settled) in
        [("f", &large, true), ("f", &small, false), ("none", &small, true), ("d/none", &large, false)]
    {
        let mut upload = done("upload", wait(paths.upload(path)))?;
        for piece in pieces {
            done("push", wait(upload.push(piece.clone())))?;
        }
        if is_settled {
            done("settle", wait(upload.settle()))?;
        }
    }
    same("children", names(&*store, "")?, vec!["f".to_owned()])?;
    same("stat", stat(&*store, "f")?, before)?;
    same("content", read(&*store, "f")?, "old".to_owned())
}

pub(super) fn an_upload_keeps_to_its_condition(Subject { store, .. }: Subject) -> Verdict {
    let can = paths(&*store)?.capabilities();
    if !can.upload {
        return same("conditional_upload", can.conditional_upload, false);
    }
    let (small, large) = (vec![Bytes::from_static(b"new")], large());
    put(&*store, "d/f", "")?;
    for (round, pieces) in [&small, &large].into_iter().enumerate() {
        let path = format!("f{round}");
        let upload = |how: PathWrite| upload_as(&*store, &path, pieces, how);
        let content = || read(&*store, &path);
        put(&*store, &path, "old")?;
        fails("what is there", upload(PathWrite::Exclusive)?, exists)?;
        fails("a directory", upload_as(&*store, "d", &small, PathWrite::Exclusive)?, exists)?;
        same("content", content()?, "old".to_owned())?;
        let tag = stat(&*store, &path)?.tag;
        put(&*store, &path, "another")?;
        match upload(PathWrite::IfMatch(tag.clone()))? {
            Err(StoreError::NotSupported { .. }) if !can.if_match && !can.conditional_upload => {}
            refused => {
                fails("an earlier state", refused, changed)?;
                same("content", content()?, "another".to_owned())?;
                done("its state", upload(PathWrite::IfMatch(stat(&*store, &path)?.tag))?)?;
            }
        }
        done("delete", wait(paths(&*store)?.delete(&path)))?;
        done("what is new", upload(PathWrite::Exclusive)?)?;
        same("size", stat(&*store, &path)?.size, pieces.iter().map(|piece| piece.len() as u64).sum())?;
    }
    Ok(())
}

/// Uploads `pieces`, and finishes `how` it is to be.
fn upload_as(
    store: &dyn ObjectStore,
    path: &str,
    pieces: &[Bytes],
    how: PathWrite,
) -> Result<Result<ObjectInfo, StoreError>, String> {
    let paths = paths(store)?;
    Ok(wait(Box::pin(async move {
        let mut upload = paths.upload(path).await?;
        for piece in pieces {
            upload.push(piece.clone()).await?;
        }
        upload.settle().await?;
        upload.finish(path, how, &Attributes::none()).await
    })))
}

/// Content that goes in several parts wherever parts are small, in pieces of uneven sizes.
fn large() -> Vec<Bytes> {
    let numbers: Vec<u8> = (0..=250).collect();
    let bytes = Bytes::from(numbers.repeat(LARGE_PIECE / numbers.len() + LARGE_PIECES));
    (0..LARGE_PIECES).map(|number| bytes.slice(number..LARGE_PIECE + 2 * number)).collect()
}
