//! Transactions as their users rely on them: all or nothing, each operation after those before it, and whoever comes too late is told what is there.

#![expect(clippy::disallowed_methods, reason = "the callers are threads of a program around the kernel")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration, Resolution, Resolver};
use nexus::gate::{Decision, Permission};
use nexus::{
    Attributes, Caller, Config, Conflict, ContentId, EntryType, Error, ErrorKind, Event, EventKind,
    EventMask, Executed, Found, HookContext, Lsn, MountSpec, Op, OpId, Outcome, Parents, Precondition, Right,
    Serving, SysRename, SysSetattr, SysTx, SysUnlink, SysWrite, Syscall, TX_OPS_MAX, Timestamp, Transacted,
    TxDone, VPath, Verdict, blocking,
};
use nexus_kernel::locks::{LockOwner, Mode, Scope};
use parking_lot::Mutex;

fn boot() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// Every entry with its content, as text.
fn all(nx: &blocking::Nexus) -> Vec<String> {
    let entries = nx.walk("/").with_metadata().map(|entry| entry.expect("it walks"));
    entries
        .filter(|entry| !entry.path.as_str().starts_with("/__sys__"))
        .map(|entry| {
            let metadata = entry.metadata.expect("it was asked for");
            let content = match entry.entry_type {
                EntryType::Reg => format!("{:?}", nx.read(&entry.path).expect("it is there")),
                _ => String::new(),
            };
            format!("{} {} v{} {content}", entry.path, entry.entry_type, metadata.version)
        })
        .collect()
}

#[track_caller]
fn refused(done: nexus::Result<Transacted>, kind: ErrorKind, item: impl Into<Option<usize>>) -> Error {
    let error = done.expect_err("it is refused");
    assert_eq!((error.kind(), error.item(), error.executed()), (kind, item.into(), Executed::No), "{error}");
    error
}

/// What the failures are about.
fn furnish(nx: &blocking::Nexus) {
    nx.write("/f", "old").expect("it writes");
    nx.write("/d/g", "old").expect("it writes");
    nx.mkdir("/empty").expect("it makes");
    nx.link("/l", "/f").expect("it links");
}

/// Does something of each kind.
fn begun(nx: &blocking::Nexus) -> blocking::Tx {
    nx.tx()
        .write("/new/file", "new")
        .write("/f", "new")
        .append("/f", "er")
        .mkdir("/made/deep")
        .rename("/d", "/moved")
        .unlink("/l")
        .rmdir("/empty")
        .op(SysSetattr::at(path("/moved/g")).mode(0o600))
}

const BEGUN: usize = 8;

#[test]
fn all_of_a_transaction_is_done_in_one_commit() {
    let nx = boot();
    furnish(&nx);
    let next = || nx.write("/other", "x").expect("it writes").receipt.lsn.0;
    let before = next();
    let done = begun(&nx).commit().expect("nothing is in its way");
    assert_eq!((done.receipt.lsn.0, next()), (before + 1, before + 2), "one place in the log");
    nx.unlink("/other").expect("it is there");
    assert_eq!((done.results.len(), done.repeated), (BEGUN, false));
    for result in &done.results {
        let receipt = match result {
            TxDone::Write(done) => done.receipt,
            TxDone::Setattr(done) => done.receipt,
            TxDone::Rename(done) => done.receipt,
            TxDone::Unlink(done) => done.receipt,
            other => panic!("{other:?}"),
        };
        assert_eq!(receipt, done.receipt);
    }
    assert_eq!(
        all(&nx),
        [
            r#"/f DT_REG v3 b"newer""#,
            "/made DT_DIR v0 ",
            "/made/deep DT_DIR v0 ",
            "/moved DT_DIR v0 ",
            r#"/moved/g DT_REG v1 b"old""#,
            "/new DT_DIR v0 ",
            r#"/new/file DT_REG v1 b"new""#,
        ]
    );
    assert_eq!(nx.stat("/moved/g").expect("it is there").mode, 0o600);
}

#[test]
fn whatever_fails_nothing_is_done() {
    let nx = boot();
    furnish(&nx);
    let content = |text: &[u8]| ContentId::Blake3(blake3_of(text));
    let before = all(&nx);
    let lsn = nx.send(SysSetattr::at(path("/f"))).expect("it looks").receipt.lsn;
    let fails = |last: fn(blocking::Tx) -> blocking::Tx, kind| {
        let error = refused(last(begun(&nx)).commit(), kind, BEGUN);
        assert_eq!(all(&nx), before, "{error}");
    };
    fails(|tx| tx.unlink("/nothing"), ErrorKind::NotFound);
    fails(|tx| tx.rename("/nothing", "/x"), ErrorKind::NotFound);
    fails(|tx| tx.op(SysWrite::at(path("/nothing"), "x")), ErrorKind::NotFound);
    fails(|tx| tx.create("/new/file", "x"), ErrorKind::AlreadyExists);
    fails(|tx| tx.unlink("/moved"), ErrorKind::IsADirectory);
    fails(|tx| tx.write("/moved", "x"), ErrorKind::IsADirectory);
    fails(|tx| tx.rmdir("/moved"), ErrorKind::NotEmpty);
    fails(|tx| tx.rmdir("/f"), ErrorKind::NotADirectory);
    fails(|tx| tx.write("/f/below", "x"), ErrorKind::NotADirectory);
    fails(|tx| tx.rename("/moved", "/moved/within"), ErrorKind::InvalidArgument);
    fails(|tx| tx.edit("/f", "not there", "x"), ErrorKind::InvalidArgument);
    fails(|tx| tx.rename("/", "/x"), ErrorKind::Busy);
    fails(|tx| tx.op(SysSetattr::directory(path("/x/y")).parents(Parents::Required)), ErrorKind::NotFound);
    fails(|tx| tx.write("/f", "x").if_version(2), ErrorKind::PreconditionFailed);
    fails(|tx| tx.unlink("/f").when(Precondition::Generation(7)), ErrorKind::PreconditionFailed);
    fails(|tx| tx.check("/f").if_absent(), ErrorKind::PreconditionFailed);
    // One that is in order, for once.
    let done = begun(&nx).check("/f").if_match(content(b"newer")).commit().expect("it is as expected");
    assert_eq!(done.receipt.lsn, Lsn(lsn.0 + 1), "nothing was in the log of what failed");
}

fn blake3_of(text: &[u8]) -> [u8; 32] {
    let nx = boot();
    let written = nx.write("/x", text.to_vec()).expect("it writes");
    match &written.metadata.content_id {
        Some(ContentId::Blake3(hash)) => *hash,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_operation_finds_what_those_before_it_have_left() {
    let nx = boot();
    nx.write("/file", "x").expect("it writes");
    nx.write("/here/and/there", "x").expect("it writes");
    let tx = nx.tx();
    // Written, then moved; a file where a directory was, and a directory where a file was.
    let tx = tx.write("/a", "1").append("/a", "2").rename("/a", "/b").edit("/b", "12", "3");
    let tx = tx
        .mkdir("/dir")
        .write("/dir/f", "x")
        .rename("/dir", "/dir2")
        .write("/dir2/g", "y")
        .remove_all("/dir2");
    let tx = tx.write("/dir2", "a file").unlink("/file").write("/file/below", "z");
    // Large content is stored before, small beside the row: both can be read again.
    let tx = tx
        .write("/large", vec![b'x'; 100_000])
        .append("/large", "y")
        .write("/small", "s")
        .append("/small", "t");
    // Nothing left in an implied directory: it goes with the commit.
    let tx = tx.unlink("/here/and/there");
    let done = tx.commit().expect("it is in order");
    assert!(matches!(&done.results[8], TxDone::Unlink(gone) if gone.removed == 3));
    let paths: Vec<_> = nx.walk("/").map(|entry| entry.expect("it walks").path.to_string()).collect();
    let paths: Vec<_> = paths.into_iter().filter(|path| !path.starts_with("/__sys__")).collect();
    assert_eq!(paths, ["/b", "/dir2", "/file", "/file/below", "/large", "/small"]);
    assert_eq!(
        (nx.read("/b").expect("it is there"), nx.read("/small").expect("it is there")),
        ("3".into(), "st".into())
    );
    assert_eq!(nx.read("/large").expect("it is there").len(), 100_001);
}

#[test]
fn what_was_known_of_a_directory_that_moved_is_known_no_more() {
    let nx = boot();
    nx.write("/d/f", "old").expect("it writes");
    nx.tx().write("/d/f", "new").rename("/d", "/e").write("/d/g", "x").commit().expect("it is in order");
    assert_eq!(nx.read("/d/f").expect_err("it moved").kind(), ErrorKind::NotFound);
    assert_eq!(
        (nx.read("/e/f").expect("it moved"), nx.read("/d/g").expect("it is there")),
        ("new".into(), "x".into())
    );
}

#[test]
fn a_conflict_says_which_precondition_did_not_hold_and_what_was_found() {
    let nx = boot();
    let there = nx.write("/f", "1").expect("it writes").metadata;
    let check = |expected: Precondition, found: &Found, words: &str| {
        let tx = nx.tx().write("/other", "x").write("/f", "2").when(expected.clone());
        let error = refused(tx.commit(), ErrorKind::PreconditionFailed, 1);
        assert_eq!(error.conflict(), Some(&Conflict::new(expected.clone(), found.clone())));
        assert_eq!(
            error.to_string(),
            format!("tx ops[1]: write /f: not in the state expected: {words} (ECANCELED)")
        );
        // The same of the call by itself.
        let alone =
            nx.send(SysWrite::at(path("/f"), "2").create().when(expected)).expect_err("it is refused");
        assert_eq!((alone.conflict(), alone.item()), (error.conflict(), None));
    };
    let (version, generation, content_id) = (there.version, there.generation, there.content_id.clone());
    let found = Found::Entry { file_id: there.file_id, version, generation, content_id: content_id.clone() };
    check(Precondition::Version(7), &found, "expected version 7, found version 1");
    check(Precondition::Generation(7), &found, "expected generation 7, found generation 1");
    check(Precondition::Absent, &found, "expected nothing, found version 1");
    let other = ContentId::Blake3([7; 32]);
    let words = format!("expected content {other}, found content {}", content_id.expect("it has content"));
    check(Precondition::Content(other), &found, &words);
    nx.unlink("/f").expect("it is there");
    check(Precondition::Version(1), &Found::Nothing, "expected version 1, found nothing");
}

/// Two entries that come to a path after each other both begin at version 1.
#[test]
fn another_entry_at_the_path_is_not_taken_for_the_one_that_was_seen() {
    let nx = boot();
    let replaced: [fn(&blocking::Nexus); 2] = [
        |nx| {
            nx.unlink("/f").expect("it is there");
        },
        |nx| {
            nx.write("/other", "theirs").expect("it writes");
            nx.rename("/other", "/f").expect("it is replaced");
        },
    ];
    for replace in replaced {
        let seen = nx.write("/f", "seen").expect("it writes").metadata;
        nx.tx().write("/f", "seen").if_unchanged(&seen).commit().expect("nobody changed it");
        let seen = nx.stat("/f").expect("it is there");
        replace(&nx);
        nx.write("/f", "theirs").expect("it writes");
        let now = nx.stat("/f").expect("it is there");
        let there = Found::Entry {
            file_id: now.file_id,
            version: now.version,
            generation: now.generation,
            content_id: now.content_id.clone(),
        };
        assert_ne!(seen.file_id, now.file_id);
        let late =
            nx.tx().write("/f", "mine").if_unchanged(&seen).commit().expect_err("another one is there");
        assert_eq!(late.conflict().expect("it says so").found, there, "{late}");
        let alone =
            nx.send(SysWrite::at(path("/f"), "mine").if_unchanged(&seen)).expect_err("another one is there");
        assert_eq!(alone.conflict().expect("it says so").found, there, "{alone}");
        let gone = nx.send(SysUnlink::at(path("/f")).if_unchanged(&seen)).expect_err("another one is there");
        assert_eq!(gone.kind(), ErrorKind::PreconditionFailed);
        assert_eq!(nx.read("/f").expect("it is there"), "theirs");
        nx.unlink("/f").expect("it is there");
    }
}

#[test]
fn a_check_of_a_path_that_nothing_changes_holds_or_refuses_all_and_says_what_was_found() {
    let nx = boot();
    let content = nx.write("/f", "old").expect("it writes").metadata.content_id.clone();
    let content = content.expect("it has some");
    nx.link("/l", "/f").expect("it links");
    let held: [fn(blocking::Tx) -> blocking::Tx; 6] = [
        |tx| tx.check("/nothing/here").if_absent(),
        |tx| tx.check("/f").if_version(1),
        |tx| tx.check("/l").if_version(1),
        |tx| tx.check("/f").when(Precondition::Generation(1)),
        |tx| tx.write("/n", "x").check("/n").if_version(1).unlink("/n").check("/n").if_absent(),
        |tx| tx.rename("/f", "/g").check("/f").if_absent().check("/g").if_version(1).rename("/g", "/f"),
    ];
    for (nth, check) in held.into_iter().enumerate() {
        let at = format!("/made/{nth}");
        check(nx.tx().write(&at, "x")).commit().unwrap_or_else(|error| panic!("{nth}: {error}"));
        assert_eq!(nx.read(&at).expect("it is made"), "x");
    }
    let done = nx.tx().check("/f").if_match(content.clone()).check("/no").if_absent().commit();
    let size = |done: &TxDone| match done {
        TxDone::Check(checked) => checked.metadata.as_ref().map(|found| found.size),
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = done.expect("both hold").results.iter().map(size).collect();
    assert_eq!(found, [Some(3), None]);

    let before = all(&nx);
    let fails = |tx: blocking::Tx, words: &str| {
        let error = refused(tx.commit(), ErrorKind::PreconditionFailed, 1);
        let conflict = error.conflict().expect("it says what was found").to_string();
        assert_eq!(conflict, words);
        assert!(error.to_string().starts_with("tx ops[1]: stat /"), "{error}");
        assert_eq!(all(&nx), before);
    };
    let tx = || nx.tx().write("/a", "x");
    fails(tx().check("/f").if_absent(), "expected nothing, found version 1");
    fails(tx().check("/f").if_version(2), "expected version 2, found version 1");
    fails(tx().check("/f").when(Precondition::Generation(9)), "expected generation 9, found generation 1");
    fails(tx().check("/no").if_version(2), "expected version 2, found nothing");
    fails(tx().check("/a").if_absent(), "expected nothing, found version 1");
    let other = ContentId::Blake3([7; 32]);
    let words = format!("expected content {other}, found content {content}");
    fails(tx().check("/f").if_match(other), &words);
    refused(tx().check("/f").commit(), ErrorKind::InvalidArgument, 1);
}

#[test]
fn a_check_needs_no_more_than_to_read_the_path() {
    let nx = boot();
    nx.write("/theirs", "x").expect("it writes");
    nx.mount("/ro", MountSpec::new("memory").read_only()).expect("it mounts");
    let owner = LockOwner { agent: "somebody".into(), since: Timestamp(0) };
    let locks = nx.kernel().expect("it may").path_locks();
    let reads = locks.try_lock(&path("/theirs"), Mode::Read, Scope::Entry, owner).expect("nobody has it");
    nx.set_permission(Some(Arc::new(Careful))).expect("it may");
    let agent = nx.agent("coder-7").expect("it is a name");
    let tx = agent.tx().create("/own", "x").check("/theirs").if_version(1).check("/ro/f").if_absent();
    tx.commit().expect("who reads it shares it");
    drop(reads);
    let tx = agent.tx().create("/more", "x").check("/secret/f").if_absent();
    refused(tx.commit(), ErrorKind::PermissionDenied, 1);
}

#[test]
fn every_change_has_preconditions_that_say_what_was_found() {
    let nx = boot();
    nx.write("/f", "1").expect("it writes");
    nx.write("/to", "1").expect("it writes");
    let old = || Precondition::Version(9);
    let calls: Vec<nexus::Result<()>> = vec![
        nx.send(SysWrite::at(path("/f"), "2").when(old())).map(drop),
        nx.send(SysSetattr::at(path("/f")).mode(0o600).when(old())).map(drop),
        nx.send(SysRename::new(path("/f"), path("/g")).when(old())).map(drop),
        nx.send(SysUnlink::at(path("/f")).when(old())).map(drop),
        nx.send(nexus::SysCopy::new(path("/f"), path("/to")).when(old())).map(drop),
    ];
    for done in calls {
        let error = done.expect_err("it is not as expected");
        let conflict = error.conflict().expect("it says so");
        assert!(matches!(conflict.found, Found::Entry { version: 1, generation: 1, .. }), "{error}");
        assert_eq!((error.kind(), &conflict.expected), (ErrorKind::PreconditionFailed, &old()));
    }
    nx.send(SysWrite::at(path("/f"), "2").if_version(1)).expect("it is as expected");
    nx.send(SysWrite::at(path("/h"), "2").create().if_absent()).expect("it is as expected");
}

#[test]
fn what_is_kept_elsewhere_is_not_changed_with_the_rest() {
    let nx = boot();
    nx.mount("/plain", MountSpec::new("memory-path")).expect("it mounts");
    nx.mount("/cas", MountSpec::new("memory")).expect("it mounts");
    let before = all(&nx);
    let check = |tx: blocking::Tx, item| {
        refused(tx.commit(), ErrorKind::CrossMount, item);
        assert_eq!(all(&nx), before);
    };
    check(nx.tx().write("/a", "x").write("/plain/a", "x"), 1);
    check(nx.tx().write("/plain/a", "x"), 0);
    check(nx.tx().write("/a", "x").rename("/a", "/plain/a"), 1);
    check(nx.tx().write("/a", "x").rename("/a", "/cas/a"), 1);
    check(nx.tx().write("/a", "x").unlink("/__sys__/actors/nexus"), 1);
    let read_only = nx.mount("/ro", MountSpec::new("memory").read_only());
    read_only.expect("it mounts");
    refused(nx.tx().write("/a", "x").write("/ro/a", "x").commit(), ErrorKind::ReadOnly, 1);
    // Two mounts of one zone are in one store.
    nx.tx()
        .write("/a", "x")
        .write("/cas/a", "y")
        .rename("/cas/a", "/cas/b")
        .commit()
        .expect("it is in order");
    assert_eq!(
        (nx.read("/a").expect("it is there"), nx.read("/cas/b").expect("it is there")),
        ("x".into(), "y".into())
    );
    assert!(!nx.exists("/cas/a").expect("it looks"));
}

#[test]
fn two_zones_are_not_changed_together() {
    let nx = boot();
    let team = nx.zone("team").expect("it may");
    team.mount("/own", MountSpec::new("memory")).expect("it mounts");
    // Below its own mounts, callers of a zone see the root zone's.
    let tx = team.tx().write("/own/a", "x").write("/shared", "x");
    let error = refused(tx.commit(), ErrorKind::CrossMount, 1);
    assert!(error.to_string().contains("another zone"), "{error}");
    assert!(!team.exists("/own/a").expect("it looks") && !nx.exists("/shared").expect("it looks"));
    team.tx().write("/own/a", "x").write("/own/b", "x").commit().expect("one zone");
}

#[test]
fn what_can_be_no_transaction_is_refused_before_anything() {
    let nx = boot();
    refused(nx.tx().commit(), ErrorKind::InvalidArgument, None);
    refused(nx.tx().if_absent().write("/a", "x").commit(), ErrorKind::InvalidArgument, None);
    let error = refused(nx.tx().write("/a", "x").write("no path", "x").commit(), ErrorKind::InvalidPath, 1);
    assert!(error.to_string().starts_with("tx ops[1]: write no path"), "{error}");
    let own = SysWrite::at(path("/b"), "x").op_id(OpId(7));
    refused(nx.tx().write("/a", "x").op(own).commit(), ErrorKind::InvalidArgument, 1);
    let mount = SysSetattr::mount(path("/m"), MountSpec::new("memory"));
    refused(nx.tx().write("/a", "x").op(mount).commit(), ErrorKind::InvalidArgument, 1);
    let many = (0..=TX_OPS_MAX).fold(nx.tx(), |tx, n| tx.write(format!("/{n}"), "x"));
    refused(many.commit(), ErrorKind::InvalidArgument, None);
    let most = (0..TX_OPS_MAX).fold(nx.tx(), |tx, n| tx.write(format!("/many/{n}"), "x"));
    most.commit().expect("so many may be");
    assert_eq!(nx.readdir("/many").expect("it is there").len(), TX_OPS_MAX);
}

#[test]
fn a_repeat_is_executed_once_and_has_the_same_receipt() {
    let nx = boot();
    let tx = nx.tx().append("/log", "once").unlink("/log").append("/kept", "once").op_id(OpId(77));
    let first = tx.clone().commit().expect("it is in order");
    nx.append("/kept", " and another").expect("it appends");
    let again = tx.commit().expect("it was executed");
    assert_eq!((again.receipt, again.repeated, again.results.len()), (first.receipt, true, 0));
    assert_eq!(nx.read("/kept").expect("it is there"), "once and another");
}

#[test]
fn links_are_followed_and_those_that_it_changes_are_refused() {
    let nx = boot();
    nx.write("/d/f", "x").expect("it writes");
    nx.link("/l", "/d").expect("it links");
    nx.link("/m", "/d/f").expect("it links");
    nx.tx().write("/l/f", "1").append("/m", "2").commit().expect("they lead to one file");
    assert_eq!(nx.read("/d/f").expect("it is there"), "12");
    let before = all(&nx);
    refused(nx.tx().unlink("/l").write("/l/f", "3").commit(), ErrorKind::NotSupported, 1);
    refused(nx.tx().rename("/m", "/n").write("/m", "3").commit(), ErrorKind::NotSupported, 1);
    refused(nx.tx().link("/new", "/d").write("/new/f", "3").commit(), ErrorKind::NotSupported, 1);
    refused(nx.tx().rename("/l", "/k").write("/k/f", "3").commit(), ErrorKind::NotSupported, 1);
    refused(nx.tx().link("/new", "/d").rename("/new/f", "/g").commit(), ErrorKind::NotSupported, 1);
    refused(nx.tx().link("/new", "/d").unlink("/new/f").commit(), ErrorKind::NotSupported, 1);
    refused(nx.tx().link("/new", "/d").rename("/none", "/g").commit(), ErrorKind::NotFound, 1);
    assert_eq!(all(&nx), before);
    // The link itself is an entry as any other.
    nx.tx().link("/new", "/d").rename("/new", "/k").unlink("/l").commit().expect("it is in order");
    assert_eq!(nx.read("/k/f").expect("it leads there"), "12");
}

#[test]
fn a_link_whose_way_the_transaction_changes_is_not_followed() {
    let nx = boot();
    nx.mkdir("/b/d").expect("it makes");
    nx.write("/b/f", "x").expect("it writes");
    nx.write("/c/f", "x").expect("it writes");
    nx.link("/up", "/b/..").expect("it links");
    nx.link("/deep", "b/d/../../c").expect("it links");
    let before = all(&nx);
    let fails = |tx: blocking::Tx| refused(tx.commit(), ErrorKind::NotSupported, 1);
    // By itself, the second of them would find no way: a directory that its link leads through is gone.
    fails(nx.tx().remove_all("/b").unlink("/up/c/f").if_version(1));
    fails(nx.tx().rename("/b", "/z").append("/up/c/f", "y"));
    fails(nx.tx().remove_all("/b").append("/deep/f", "y"));
    fails(nx.tx().remove_all("/b/d").rename("/c/f", "/deep/g"));
    assert_eq!(all(&nx), before);
    // Whatever else is changed, the way is the same.
    let tx = nx.tx().unlink("/b/f").rename("/c", "/e").append("/up/e/f", "y").write("/deep/f", "z");
    tx.commit().expect("it is in order");
    assert_eq!(nx.read("/e/f").expect("it moved"), "xy");
    assert_eq!(nx.read("/c/f").expect("it was made"), "z");
}

#[test]
fn a_link_to_a_directory_alone_does_not_lead_to_a_file_that_the_transaction_makes() {
    let nx = boot();
    nx.write("/f", "x").expect("it writes");
    nx.link("/l", "/n/.").expect("it links");
    let before = all(&nx);
    let fails = |tx: blocking::Tx| refused(tx.commit(), ErrorKind::NotSupported, 1);
    fails(nx.tx().write("/n", "x").append("/l", "y"));
    fails(nx.tx().rename("/f", "/n").append("/l", "y"));
    fails(nx.tx().op(SysSetattr::file(path("/n"))).append("/l", "y"));
    assert_eq!(all(&nx), before);
    let tx = nx.tx().mkdir("/n").op(SysSetattr::at(path("/l")).mode(0o700));
    tx.commit().expect("it leads to the directory");
    assert_eq!(nx.stat("/n").expect("it was made").mode, 0o700);
}

type Told = Arc<Mutex<Vec<String>>>;

/// Tells what it sees, and does to a call what it is told to.
struct Tells(Told, fn(&mut HookContext) -> Verdict);

impl Interceptor for Tells {
    fn ops(&self) -> OpSet {
        OpSet::ALL
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        self.0.lock().push(format!("before {} {}", cx.call.op(), cx.call.path()));
        Box::pin(std::future::ready((self.1)(cx)))
    }

    fn after<'a>(&'a self, cx: &'a HookContext, outcome: &'a Outcome) -> BoxFuture<'a, ()> {
        let how = outcome.error.as_ref().map_or("ok", |error| error.errno().name());
        self.0.lock().push(format!("after {} {} {how}", cx.call.op(), cx.call.path()));
        Box::pin(std::future::ready(()))
    }
}

/// Keeps what it hears.
#[derive(Default)]
struct Hears(Mutex<Vec<Event>>);

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

fn told(nx: &blocking::Nexus, change: fn(&mut HookContext) -> Verdict) -> Told {
    let told = Told::default();
    let hook = Registration::interceptor("tells", Arc::new(Tells(told.clone(), change)));
    nx.register_hook(hook).expect("there is room");
    told
}

#[test]
fn hooks_see_each_operation_as_the_syscall_that_it_is() {
    let nx = boot();
    nx.write("/old", "x").expect("it writes");
    let told = told(&nx, |_| Verdict::Continue);
    let heard = Arc::new(Hears::default());
    nx.register_hook(Registration::observer("hears", heard.clone()).inline()).expect("there is room");
    let tx = nx.tx().write("/a", "x").mkdir("/d").rename("/a", "/d/a").unlink("/old");
    let done = tx.commit().expect("it is in order");
    assert_eq!(
        *told.lock(),
        [
            "before write /a",
            "before setattr /d",
            "before rename /a",
            "before unlink /old",
            "after unlink /old ok",
            "after rename /a ok",
            "after setattr /d ok",
            "after write /a ok",
        ]
    );
    let heard = heard.0.lock();
    let kinds: Vec<_> = heard.iter().map(|event| (event.kind, event.path.as_str())).collect();
    assert_eq!(
        kinds,
        [
            (EventKind::FileWritten, "/a"),
            (EventKind::DirCreated, "/d"),
            (EventKind::Renamed, "/a"),
            (EventKind::FileDeleted, "/old"),
        ]
    );
    let receipt = done.receipt;
    assert!(heard.iter().all(|event| (event.lsn, event.op_id) == (receipt.lsn, receipt.op_id)));
    assert_eq!(heard[2].other, Some(path("/d/a")));
}

#[test]
fn a_hook_that_refuses_one_operation_refuses_all_of_them() {
    let nx = boot();
    let told = told(&nx, |cx| match cx.call.path().as_str() {
        "/never" => Verdict::refuse("never"),
        _ => Verdict::Continue,
    });
    let heard = Arc::new(Hears::default());
    nx.register_hook(Registration::observer("hears", heard.clone()).inline()).expect("there is room");
    let tx = nx.tx().write("/a", "x").write("/never", "x").write("/b", "x");
    refused(tx.commit(), ErrorKind::Refused, 1);
    assert!(all(&nx).is_empty() && heard.0.lock().is_empty());
    let told = std::mem::take(&mut *told.lock());
    let told: Vec<_> = told.iter().filter(|line| line.contains("write")).collect();
    assert_eq!(told, ["before write /a", "before write /never", "after write /a EACCES"]);
    // Hooks that let all pass hear of what fails later.
    refused(nx.tx().write("/a", "x").unlink("/nothing").commit(), ErrorKind::NotFound, 1);
    assert!(all(&nx).is_empty() && heard.0.lock().is_empty());
}

#[test]
fn what_a_hook_changes_of_an_operation_is_what_is_done() {
    let nx = boot();
    told(&nx, |cx| {
        if let Syscall::Write(call) = &mut cx.call
            && call.path.as_str() == "/in"
        {
            call.path = VPath::parse("/out").expect("written as one");
        }
        Verdict::Continue
    });
    nx.tx().write("/in", "x").rename("/out", "/end").commit().expect("it is in order");
    assert_eq!(all(&nx), [r#"/end DT_REG v1 b"x""#]);
}

/// Sends `/alias` elsewhere.
struct Alias;

impl Resolver for Alias {
    fn resolve(&self, _: &Caller, at: &VPath) -> Resolution {
        match at.as_str() {
            "/alias" => Resolution::Rewrite(VPath::parse("/real").expect("written as one")),
            _ => Resolution::Unchanged,
        }
    }
}

#[test]
fn resolvers_rewrite_the_paths_of_operations() {
    let nx = boot();
    let alias = Registration::resolver("alias", "/alias", Arc::new(Alias)).expect("it is a pattern");
    nx.register_hook(alias).expect("there is room");
    nx.tx().write("/alias", "x").rename("/alias", "/end").commit().expect("it is in order");
    assert_eq!(all(&nx), [r#"/end DT_REG v1 b"x""#]);
}

/// Lets agents make and remove, and never write what others own.
struct Careful;

impl Permission for Careful {
    fn check(&self, caller: &Caller, right: Right, at: &VPath) -> Decision {
        let may = match right {
            Right::Write => false,
            _ => !at.as_str().starts_with("/secret"),
        };
        if caller.admin || may { Decision::Allow } else { Decision::Deny("not yours".into()) }
    }
}

#[test]
fn the_gate_is_asked_about_every_path_as_things_are_when_it_comes_to_it() {
    let nx = boot();
    nx.write("/theirs", "x").expect("it writes");
    nx.set_permission(Some(Arc::new(Careful))).expect("it may");
    let agent = nx.agent("coder-7").expect("it is a name");
    let before = all(&nx);
    refused(agent.tx().write("/a", "x").write("/secret/a", "x").commit(), ErrorKind::PermissionDenied, 1);
    refused(agent.tx().write("/a", "x").rename("/a", "/secret/a").commit(), ErrorKind::PermissionDenied, 1);
    refused(agent.tx().write("/theirs", "mine").commit(), ErrorKind::PermissionDenied, 0);
    // What it may move it may not write: not even where nothing was before.
    let tx = agent.tx().rename("/theirs", "/moved").write("/moved", "mine");
    refused(tx.commit(), ErrorKind::PermissionDenied, 1);
    assert_eq!(all(&nx), before);
    agent.tx().write("/own", "x").append("/own", "y").commit().expect("it owns what it makes");
}

#[test]
fn what_the_transaction_removed_is_made_anew_only_by_who_may_make_it() {
    let nx = boot();
    let agent = nx.agent("coder-7").expect("it is a name");
    for file in ["/secret/mine", "/mine"] {
        agent.write(file, "x").expect("nobody is asked yet");
    }
    nx.set_permission(Some(Arc::new(Careful))).expect("it may");
    let before = all(&nx);
    let again = agent.tx().unlink("/secret/mine").create("/secret/mine", "y");
    refused(again.commit(), ErrorKind::PermissionDenied, 1);
    let moved = agent.tx().unlink("/secret/mine").rename("/mine", "/secret/mine");
    refused(moved.commit(), ErrorKind::PermissionDenied, 1);
    assert_eq!(all(&nx), before);
}

#[test]
fn a_repeat_is_known_also_when_its_own_effect_stands_in_its_way() {
    let nx = boot();
    nx.mkdir("/a").expect("it makes it");
    nx.write("/a/x", "x").expect("it writes");
    let tx = || nx.tx().unlink("/a/x").rmdir("/a").create("/a", "a file now").op_id(OpId(77)).commit();
    let first = tx().expect("it is in order");
    let second = tx().expect("it was done");
    assert_eq!((second.repeated, second.receipt), (true, first.receipt));
    assert_eq!(nx.read("/a").expect("it is there"), "a file now");
}

#[test]
fn of_many_that_commit_to_the_same_files_one_wins_each_round() {
    const AGENTS: usize = 4;
    const ROUNDS: u64 = 25;
    let nx = boot();
    let files = ["/a", "/b", "/c", "/d", "/e"];
    for file in files {
        nx.write(file, "nobody").expect("it writes");
    }
    let agents: Vec<_> = (0..AGENTS)
        .map(|number| {
            let agent = nx.agent(format!("agent-{number}")).expect("it is a name");
            thread::spawn(move || {
                let mut won = Vec::new();
                for version in 1..=ROUNDS {
                    // In another order each: that is no reason to wait for each other for ever.
                    let mut order = files;
                    order.rotate_left(number);
                    let tx = order.iter().fold(agent.tx(), |tx, file| {
                        tx.write(*file, format!("agent-{number}")).if_version(version)
                    });
                    match tx.commit() {
                        Ok(_) => won.push(version),
                        Err(error) => {
                            let conflict = error.conflict().expect("it is a conflict");
                            assert!(matches!(conflict.found, Found::Entry { version: found, .. } if found > version), "{error}");
                            assert_eq!(error.item(), Some(0), "all of it was there: {error}");
                        }
                    }
                }
                won
            })
        })
        .collect();
    let mut won: Vec<u64> = agents.into_iter().flat_map(|agent| agent.join().expect("it ends")).collect();
    won.sort_unstable();
    assert_eq!(won, (1..=ROUNDS).collect::<Vec<_>>());
    let last = nx.read("/a").expect("it is there");
    for file in files {
        assert_eq!(
            (nx.read(file).expect("it is there"), nx.stat(file).expect("it is there").version),
            (last.clone(), ROUNDS + 1)
        );
    }
}

#[test]
fn no_listing_sees_half_of_a_transaction() {
    let nx = boot();
    nx.write("/d/0", "x").expect("it writes");
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (nx, stop) = (nx.clone(), stop.clone());
        thread::spawn(move || {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let names: Vec<_> = nx.readdir("/d").expect("it is there");
                let names: Vec<_> = names.iter().map(|entry| entry.name().to_owned()).collect();
                assert_eq!(names.len(), 1, "{names:?}");
                seen += 1;
            }
            seen
        })
    };
    for n in 0..300 {
        let (old, new) = (format!("/d/{n}"), format!("/d/{}", n + 1));
        nx.tx().create(new, "x").unlink(old).commit().expect("it is in order");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().expect("it saw one file each time") > 0);
}

#[test]
fn a_transaction_of_an_attached_process_is_one_too() {
    let folder = tempfile::tempdir().expect("there is room");
    let owner =
        blocking::connect(Config::new(folder.path()).serve(Serving::administrator())).expect("it boots");
    let nx = blocking::attach(folder.path()).expect("it is served");
    let large = vec![b'x'; 3_000_000];
    let edit = SysWrite::edit(path("/large"), large[..2_999_999].to_vec(), "y");
    let tx =
        nx.tx()
            .write("/a", "1")
            .op(SysWrite::vectored(path("/v"), vec!["1".into(), "".into(), "23".into()]).create());
    let done = tx.write("/large", large).op(edit).rename("/a", "/b").commit().expect("it is in order");
    assert_eq!(done.results.len(), 5);
    assert_eq!(
        (owner.read("/b").expect("it is there"), owner.read("/v").expect("it is there")),
        ("1".into(), "123".into())
    );
    assert_eq!(owner.read("/large").expect("it is there"), "yx");
    let many = (0..70_000).fold(SysTx::new(), |many, _| many.with(SysWrite::at(path("/many"), "x").create()));
    assert_eq!(nx.send(many).expect_err("it is too much").kind(), ErrorKind::InvalidArgument);
    let error = refused(
        nx.tx().unlink("/v").write("/b", "x").if_version(5).commit(),
        ErrorKind::PreconditionFailed,
        1,
    );
    assert!(matches!(error.conflict().expect("it says so").found, Found::Entry { version: 1, .. }));
    assert!(owner.exists("/v").expect("it looks"));
    owner.shutdown().expect("it stops");
}

#[test]
fn what_was_committed_is_there_after_a_restart_and_its_operations_are_in_the_log() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = blocking::connect(folder.path()).expect("it boots");
    let tx = nx.tx().write("/a", "1").mkdir("/d").rename("/a", "/d/a").op_id(OpId(5));
    let receipt = tx.clone().commit().expect("it is in order").receipt;
    nx.shutdown().expect("it stops");
    let nx = blocking::connect(folder.path()).expect("it boots");
    assert_eq!(nx.read("/d/a").expect("it is there"), "1");
    let again = nx.tx().write("/a", "1").mkdir("/d").rename("/a", "/d/a").op_id(OpId(5)).commit();
    assert_eq!(again.map(|done| (done.receipt, done.repeated)).expect("it was executed"), (receipt, true));
    nx.shutdown().expect("it stops");
}

#[test]
fn attributes_and_owners_are_set_as_by_the_calls_themselves() {
    let nx = boot();
    let agent = nx.agent("coder-7").expect("it is a name");
    let attributes = Attributes::none().mode(0o640);
    agent
        .tx()
        .op(SysWrite::at(path("/a"), "x").create().attributes(attributes))
        .commit()
        .expect("it is in order");
    let a = nx.stat("/a").expect("it is there");
    assert_eq!((&*a.owner, a.mode), ("coder-7", 0o640));
    let mut given = Attributes::none();
    given.owner = Some("somebody".into());
    let tx = agent.tx().unlink("/a").write("/a", "y").op(SysSetattr::at(path("/a")).attributes(given));
    refused(tx.commit(), ErrorKind::PermissionDenied, 2);
    assert_eq!(nx.read("/a").expect("it is there"), "x");
    assert_eq!(SysTx::OP, Op::Tx);
}
