//! The entry of a pipe: made, kept, never changed, removed; and what other calls do with it.

use futures_util::FutureExt;
use nexus::{
    EntryType, Errno, Kill, MountSpec, PIPE_CAPACITY_DEFAULT, PIPE_CAPACITY_MAX, PipeSpec, SysCopy, SysRead,
    SysRename, SysSetattr, SysUnlink, SysWrite, blocking,
};

use crate::bench::{LONG, boot, path, piped, read, refused, write};

#[test]
fn making_a_pipe_twice_makes_it_once_and_tells_its_capacity() {
    let (nx, at) = piped(1_000);
    let again = nx.send(SysSetattr::pipe(&at, 2_000)).unwrap();
    assert!(!again.created);
    assert_eq!(again.metadata.pipe(), Some(PipeSpec::new(1_000)), "it stays as it was made");
    let stat = nx.stat(&at).unwrap();
    assert_eq!((stat.entry_type, stat.size, stat.mime()), (EntryType::Pipe, 1_000, "inode/fifo"));
    assert_eq!(stat.pipe(), Some(PipeSpec::new(1_000)));
    refused(nx.send(SysSetattr::pipe(&at, 1_000).exclusive()), Errno::EEXIST);
    nx.write("/f", "x").unwrap();
    assert_eq!(nx.stat("/f").unwrap().pipe(), None);
}

#[test]
fn a_capacity_that_no_pipe_has_is_refused_before_anything_is_made() {
    let nx = boot();
    for capacity in [0, PIPE_CAPACITY_MAX + 1, u32::MAX] {
        refused(nx.make_pipe("/d/p", capacity), Errno::EINVAL);
    }
    assert!(!nx.exists("/d").unwrap());
    let mut file = SysSetattr::file(path("/f"));
    file.pipe = Some(PipeSpec::default());
    refused(nx.send(file), Errno::EINVAL);
    let mut unsaid = SysSetattr::pipe(path("/p"), 1);
    unsaid.pipe = None;
    assert_eq!(nx.send(unsaid).unwrap().metadata.pipe(), Some(PipeSpec::new(PIPE_CAPACITY_DEFAULT)));
    nx.make_pipe("/large", PIPE_CAPACITY_MAX).unwrap();
    write(&nx, &path("/large"), "x").unwrap();
}

#[test]
fn an_entry_never_becomes_a_pipe_nor_a_pipe_something_else() {
    let (nx, at) = piped(100);
    nx.write("/f", "x").unwrap();
    nx.mkdir("/d").unwrap();
    for other in ["/f", "/d"] {
        refused(nx.make_pipe(other, 100), Errno::EEXIST);
    }
    refused(nx.mkdir(&at), Errno::EEXIST);
    refused(nx.send(SysSetattr::file(&at)), Errno::EEXIST);
    refused(nx.link(&at, "/f"), Errno::EEXIST);
    nx.send(SysSetattr::at(&at).mode(0o600)).unwrap();
    let stat = nx.stat(&at).unwrap();
    assert_eq!((stat.entry_type, stat.mode, stat.pipe()), (EntryType::Pipe, 0o600, Some(PipeSpec::new(100))));
    write(&nx, &at, "x").unwrap();
    assert_eq!(nx.send(SysRead::at(&at)).unwrap().metadata.mode, 0o600);
    nx.send(SysSetattr::at(&at).mode(0o640)).unwrap();
    write(&nx, &at, "y").unwrap();
    assert_eq!(nx.send(SysRead::at(&at)).unwrap().metadata.mode, 0o640, "a reply tells what is so by then");
}

#[test]
fn a_pipe_is_neither_renamed_nor_copied() {
    let (nx, at) = piped(100);
    nx.write("/f", "x").unwrap();
    refused(nx.send(SysRename::new(&at, path("/q"))), Errno::EOPNOTSUPP);
    refused(nx.send(SysCopy::new(&at, path("/q"))), Errno::EINVAL);
    refused(nx.send(SysCopy::new(path("/f"), &at)), Errno::EINVAL);
    assert!(!nx.exists("/q").unwrap());
    write(&nx, &at, "x").unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "x");
}

#[test]
fn a_transaction_makes_and_removes_pipes_and_writes_to_none() {
    let (nx, at) = piped(100);
    write(&nx, &at, "x").unwrap();
    refused(nx.tx().op(SysWrite::at(&at, "y")).write("/f", "z").commit(), Errno::EOPNOTSUPP);
    assert!(!nx.exists("/f").unwrap());
    nx.tx().op(SysSetattr::pipe(path("/q"), 50)).write("/f", "z").commit().unwrap();
    assert_eq!(nx.stat("/q").unwrap().pipe(), Some(PipeSpec::new(50)));
    refused(read(&nx, &path("/q")), Errno::EAGAIN);
    let mut waiting = Box::pin(nx.as_async().send(SysRead::at(path("/q")).wait(LONG)));
    assert!(waiting.as_mut().now_or_never().is_none());
    nx.tx().unlink("/q").unlink(&at).commit().unwrap();
    refused(nx.env().blocking_wait(waiting), Errno::ENOENT);
    refused(read(&nx, &at), Errno::ENOENT);
}

#[test]
fn who_waits_is_told_when_the_pipe_is_removed() {
    let (nx, at) = piped(4);
    let reads = || Box::pin(nx.as_async().send(SysRead::at(&at).wait(LONG)));
    let (mut first, mut second) = (reads(), reads());
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    assert_eq!(nx.unlink(&at).unwrap().entry_type, EntryType::Pipe);
    for waiting in [first, second] {
        let error = refused(nx.env().blocking_wait(waiting), Errno::ENOENT);
        assert_eq!(error.to_string(), "read /p: no such file or directory: the pipe was removed (ENOENT)");
    }
    refused(read(&nx, &at), Errno::ENOENT);
    refused(write(&nx, &at, "x"), Errno::ENOENT);

    nx.make_pipe(&at, 4).unwrap();
    let end = nx.pipe_reader(&at).unwrap();
    write(&nx, &at, "full").unwrap();
    let mut waiting = Box::pin(nx.as_async().send(SysWrite::at(&at, "more").wait(LONG)));
    assert!(waiting.as_mut().now_or_never().is_none());
    nx.unlink(&at).unwrap();
    refused(nx.env().blocking_wait(waiting), Errno::ENOENT);
    refused(end.read(None), Errno::ENOENT);
    nx.make_pipe(&at, 4).unwrap();
    refused(read(&nx, &at), Errno::EAGAIN);
    refused(end.read(None), Errno::ENOENT);
    assert_eq!(nx.stat(&at).unwrap().pipe(), Some(PipeSpec::new(4)));
}

#[test]
fn a_pipe_goes_with_its_directory_and_moves_with_it() {
    let nx = boot();
    nx.make_pipe("/d/e/p", 100).unwrap();
    let (old, new) = (path("/d/e/p"), path("/moved/e/p"));
    write(&nx, &old, "x").unwrap();
    nx.rename("/d", "/moved").unwrap();
    refused(read(&nx, &old), Errno::ENOENT);
    refused(write(&nx, &old, "y"), Errno::ENOENT);
    assert_eq!(read(&nx, &new).unwrap(), "x");
    nx.write("/d/e/p", "a file by now").unwrap();
    assert_eq!(read(&nx, &old).unwrap(), "a file by now");
    let mut waiting = Box::pin(nx.as_async().send(SysRead::at(&new).wait(LONG)));
    assert!(waiting.as_mut().now_or_never().is_none());
    nx.remove_all("/moved").unwrap();
    refused(nx.env().blocking_wait(waiting), Errno::ENOENT);
}

#[test]
fn a_file_that_is_renamed_over_a_pipe_removes_it() {
    let (nx, at) = piped(100);
    let mut waiting = Box::pin(nx.as_async().send(SysRead::at(&at).wait(LONG)));
    assert!(waiting.as_mut().now_or_never().is_none());
    nx.write("/f", "a file").unwrap();
    nx.rename("/f", &at).unwrap();
    refused(nx.env().blocking_wait(waiting), Errno::ENOENT);
    assert_eq!(read(&nx, &at).unwrap(), "a file");
}

#[test]
fn the_entry_outlives_the_kernel_and_begins_empty() {
    let folder = tempfile::tempdir().expect("there is room");
    let at = path("/p");
    let nx = blocking::connect(folder.path()).expect("it boots");
    nx.make_pipe(&at, 1_234).unwrap();
    write(&nx, &at, "gone with the process").unwrap();
    let mut waiting = Box::pin(nx.as_async().send(SysWrite::at(&at, vec![0; 1_230]).wait(LONG)));
    assert!(waiting.as_mut().now_or_never().is_none());
    nx.shutdown().expect("it stops");
    refused(nx.env().blocking_wait(waiting), Errno::ESHUTDOWN);
    refused(write(&nx, &at, "x"), Errno::ESHUTDOWN);
    drop(nx);
    let nx = blocking::connect(folder.path()).expect("it boots");
    assert_eq!(nx.stat(&at).unwrap().pipe(), Some(PipeSpec::new(1_234)));
    refused(read(&nx, &at), Errno::EAGAIN);
    assert!(!nx.make_pipe(&at, 1_234).unwrap().created);
    write(&nx, &at, "x").unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "x");
    nx.shutdown().expect("it stops");
}

#[test]
fn a_pipe_is_closed_with_its_mount_and_begins_empty_with_it() {
    let nx = boot();
    nx.mount("/m", MountSpec::new("memory")).unwrap();
    let at = path("/m/p");
    nx.make_pipe(&at, 100).unwrap();
    write(&nx, &at, "x").unwrap();
    let end = nx.pipe_reader(&at).unwrap();
    nx.unmount("/m").unwrap();
    refused(end.read(None), Errno::ENOENT);
    refused(read(&nx, &at), Errno::ENOENT);
}

#[test]
fn a_crash_of_the_actor_harms_nobody() {
    let (nx, at) = piped(100);
    write(&nx, &at, "before").unwrap();
    let mut waiting = Box::pin(nx.as_async().send(SysRead::at(&at).wait(LONG)));
    assert_eq!(waiting.as_mut().now_or_never().unwrap().unwrap().data, "before");
    let mut waiting = Box::pin(nx.as_async().send(SysRead::at(&at).wait(LONG)));
    assert!(waiting.as_mut().now_or_never().is_none());
    for how in [Kill::Panic, Kill::Brutal] {
        assert!(nx.kill("nexus/kernel/pipes", how).unwrap());
    }
    write(&nx, &at, "after").unwrap();
    assert_eq!(nx.env().blocking_wait(waiting).unwrap().data, "after");
    // What is to be opened waits for the actor, which comes back.
    nx.make_pipe("/another", 10).unwrap();
    write(&nx, &path("/another"), "x").unwrap();
    assert_eq!(read(&nx, &path("/another")).unwrap(), "x");
}

#[test]
fn another_zone_has_pipes_of_its_own() {
    let nx = boot();
    let team = nx.zone("team").unwrap();
    team.mount("/", MountSpec::new("memory")).unwrap();
    let at = path("/p");
    nx.make_pipe(&at, 10).unwrap();
    team.make_pipe(&at, 10).unwrap();
    for _ in 0..3 {
        write(&nx, &at, "root").unwrap();
        write(&team, &at, "team").unwrap();
        assert_eq!(read(&team, &at).unwrap(), "team");
        assert_eq!(read(&nx, &at).unwrap(), "root");
    }
    nx.send(SysUnlink::at(&at)).unwrap();
    write(&team, &at, "team").unwrap();
    refused(read(&nx, &at), Errno::ENOENT);
}

#[test]
fn plain_files_of_the_host_are_no_pipes() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = boot();
    let spec = MountSpec::new("path-local").option("folder", folder.path().display().to_string());
    nx.mount("/host", spec).unwrap();
    refused(nx.make_pipe("/host/p", 10), Errno::EOPNOTSUPP);
}

#[test]
fn a_pipe_that_is_removed_while_it_is_opened_is_not_there_for_ever() {
    let nx = boot();
    let at = path("/p");
    for _ in 0..20 {
        nx.make_pipe(&at, 10).unwrap();
        // It asks the actor, and nobody waits for the answer before the entry is gone.
        let mut opening = Box::pin(nx.as_async().send(SysRead::at(&at).wait(LONG)));
        assert!(opening.as_mut().now_or_never().is_none());
        nx.unlink(&at).unwrap();
        refused(nx.env().blocking_wait(opening), Errno::ENOENT);
    }
    let listed = nx.readdir("/__sys__/pipes").unwrap();
    assert_eq!(listed.len(), 2, "no pipe is listed: {listed:?}");
}
