//! The past as its users rely on it: any tree that ever was is read as it was, what is not kept is told as such, and what was can be brought back.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nexus::{
    AsOf, ContentId, EntryType, Error, ErrorKind, FileId, FileMetadata, Lsn, MountSpec, Op, SysCopy, SysRead,
    SysReaddir, SysRename, SysSetattr, SysStat, SysTx, SysUnlink, SysVersions, SysWrite, Timestamp, TxOp,
};
use nexus_actors::block_on;
use proptest::prelude::*;
use proptest::sample::select;

use common::{Running, boot, path};

/// One change, as data. The names are few, so that changes meet.
#[derive(Debug, Clone)]
enum Step {
    Write(String, Vec<u8>),
    Append(String),
    Mode(String, u32),
    Mkdir(String),
    Link(String, String),
    Rename(String, String),
    Copy(String, String),
    Unlink(String),
    Restore(String, u64),
    Tx(Vec<Step>),
    Reopen,
}

fn place() -> impl Strategy<Value = String> {
    let name = || select(vec!["a", "a", "b", "ab"]);
    prop::collection::vec(name(), 1..=3).prop_map(|names| format!("/{}", names.join("/")))
}

fn in_a_transaction() -> impl Strategy<Value = Step> {
    let data = prop_oneof![9 => "[xyz]{0,6}".prop_map(String::into_bytes), 1 => Just(vec![b'x'; 20_000])];
    prop_oneof![
        5 => (place(), data).prop_map(|(at, data)| Step::Write(at, data)),
        1 => place().prop_map(Step::Append),
        1 => (place(), 0u32..0o777).prop_map(|(at, mode)| Step::Mode(at, mode)),
        2 => place().prop_map(Step::Mkdir),
        4 => (place(), place()).prop_map(|(from, to)| Step::Rename(from, to)),
        3 => place().prop_map(Step::Unlink),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => in_a_transaction(),
        1 => (place(), place()).prop_map(|(at, target)| Step::Link(at, target)),
        1 => (place(), place()).prop_map(|(from, to)| Step::Copy(from, to)),
        1 => (place(), 1u64..4).prop_map(|(at, version)| Step::Restore(at, version)),
        3 => prop::collection::vec(in_a_transaction(), 2..5).prop_map(Step::Tx),
        1 => Just(Step::Reopen),
    ]
}

impl Step {
    /// As an operation of a transaction.
    fn op(&self) -> TxOp {
        match self {
            Self::Write(at, data) => SysWrite::at(path(at), data.clone()).create().into(),
            Self::Append(at) => SysWrite::at(path(at), "+").append().create().into(),
            Self::Mode(at, mode) => SysSetattr::at(path(at)).mode(*mode).into(),
            Self::Mkdir(at) => SysSetattr::directory(path(at)).into(),
            Self::Rename(from, to) => SysRename::new(path(from), path(to)).into(),
            Self::Unlink(at) => SysUnlink::at(path(at)).recursive().into(),
            other => panic!("{other:?} is in no transaction"),
        }
    }

    /// Does it alone. What the kernel refuses changes nothing, and is of no matter here.
    async fn run(&self, system: &Running) -> Result<(), Error> {
        let (kernel, admin) = (&system.kernel, &system.admin);
        match self {
            Self::Write(at, data) => {
                kernel.send(admin, SysWrite::at(path(at), data.clone()).create()).await.map(drop)
            }
            Self::Append(at) => {
                kernel.send(admin, SysWrite::at(path(at), "+").append().create()).await.map(drop)
            }
            Self::Mode(at, mode) => kernel.send(admin, SysSetattr::at(path(at)).mode(*mode)).await.map(drop),
            Self::Mkdir(at) => kernel.send(admin, SysSetattr::directory(path(at))).await.map(drop),
            Self::Link(at, target) => {
                kernel.send(admin, SysSetattr::link(path(at), target.as_str())).await.map(drop)
            }
            Self::Rename(from, to) => {
                kernel.send(admin, SysRename::new(path(from), path(to))).await.map(drop)
            }
            Self::Copy(from, to) => kernel.send(admin, SysCopy::new(path(from), path(to))).await.map(drop),
            Self::Unlink(at) => kernel.send(admin, SysUnlink::at(path(at)).recursive()).await.map(drop),
            Self::Restore(at, version) => {
                let call = SysCopy::new(path(at), path(at)).as_of(AsOf::Version(*version));
                kernel.send(admin, call).await.map(drop)
            }
            Self::Tx(steps) => {
                let call = steps.iter().map(Self::op).fold(SysTx::new(), SysTx::with);
                kernel.send(admin, call).await.map(drop)
            }
            Self::Reopen => Ok(()),
        }
    }
}

/// A whole tree: metadata and content, in the order of the paths.
type Picture = Vec<(FileMetadata, Option<Vec<u8>>)>;

/// All below `/` as of then, by stat, read and readdir, which must agree. What the kernel shows of itself is left out: it has no past.
async fn picture(system: &Running, as_of: Option<AsOf>) -> Result<Picture, Error> {
    let (kernel, admin) = (&system.kernel, &system.admin);
    let mut list = SysReaddir::at(path("/")).recursive().with_metadata().limit(3);
    list.as_of = as_of;
    let mut entries = Vec::new();
    loop {
        let mut page = kernel.send(admin, list.clone()).await?;
        entries.append(&mut page.entries);
        match page.next {
            Some(next) => list = list.after(next),
            None => break,
        }
    }
    let mut stat = SysStat::at(path("/"));
    stat.as_of = as_of;
    let mut picture = vec![((*kernel.send(admin, stat).await?).clone(), None)];
    for entry in entries.into_iter().filter(|entry| !entry.path.as_str().starts_with("/__sys__")) {
        let mut stat = SysStat::at(&entry.path).no_follow();
        stat.as_of = as_of;
        let metadata = kernel.send(admin, stat).await?;
        assert_eq!(entry.metadata.as_ref(), Some(&metadata), "listed and looked at");
        let content = match entry.entry_type {
            EntryType::Reg => {
                let mut read = SysRead::at(&entry.path);
                read.as_of = as_of;
                let read = kernel.send(admin, read).await?;
                assert_eq!(read.metadata, metadata, "read and looked at");
                Some(read.data.to_vec())
            }
            _ => None,
        };
        picture.push(((*metadata).clone(), content));
    }
    Ok(picture)
}

/// The last place in the log: that of a call which finds nothing to change.
async fn last(system: &Running) -> Lsn {
    let looked = system.kernel.send(&system.admin, SysSetattr::at(path("/"))).await;
    looked.expect("it looks").receipt.lsn
}

fn check(steps: &[Step]) {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let mut system = boot(folder.path()).await;
        let first = last(&system).await.0;
        let mut pictures = vec![picture(&system, None).await.expect("it is seen")];
        let mut times = vec![Timestamp(system.env.wall())];
        for step in steps {
            if matches!(step, Step::Reopen) {
                system.stop().await;
                system = boot(folder.path()).await;
            }
            let before = last(&system).await;
            let done = step.run(&system).await;
            let after = last(&system).await;
            assert!(after.0 - before.0 <= 1, "{step:?} is more than one commit");
            let now = picture(&system, None).await.expect("it is seen");
            if after > before {
                pictures.push(now);
                times.push(Timestamp(system.env.wall()));
            } else {
                assert_eq!(Some(&now), pictures.last(), "{step:?} changed something: {done:?}");
            }
        }
        for reopened in [false, true] {
            if reopened {
                system.stop().await;
                system = boot(folder.path()).await;
            }
            for (picture_then, lsn) in pictures.iter().zip(first..) {
                let seen = picture(&system, Some(AsOf::Lsn(Lsn(lsn)))).await;
                let seen = seen.unwrap_or_else(|error| panic!("as of {lsn}: {error}"));
                assert_eq!(&seen, picture_then, "as of {lsn}, reopened: {reopened}");
            }
            for (picture_then, time) in pictures.iter().zip(&times) {
                let seen = picture(&system, Some(AsOf::Time(*time))).await;
                let seen = seen.unwrap_or_else(|error| panic!("as of {time}: {error}"));
                assert_eq!(&seen, picture_then, "as of {time}, reopened: {reopened}");
            }
        }
        system.stop().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The model keeps every tree that there ever was, as it was seen when it was that of now.
    #[test]
    fn every_tree_that_ever_was_is_read_as_it_was(steps in prop::collection::vec(step(), 1..40)) {
        check(&steps);
    }
}

/// The places that steps change, and those between them and the root.
fn places() -> Vec<String> {
    let mut places = vec![String::new()];
    let mut from = 0;
    for _ in 0..3 {
        let to = places.len();
        for above in from..to {
            places.extend(["a", "b", "ab"].map(|name| format!("{}/{name}", places[above])));
        }
        from = to;
    }
    places.split_off(1)
}

/// What is at the place, or the kind of the error. As of a place in the log it comes from the rows alone.
async fn look(
    system: &Running,
    at: &str,
    follow: bool,
    as_of: Option<AsOf>,
) -> Result<FileMetadata, ErrorKind> {
    let mut stat = SysStat::at(path(at));
    stat.follow = follow;
    stat.as_of = as_of;
    let found = system.kernel.send(&system.admin, stat).await;
    found.map(|metadata| (*metadata).clone()).map_err(|error| error.kind())
}

/// Each place is looked at before and after each step, so that what is there, and that nothing is, is remembered when it changes.
fn check_caches(steps: &[Step]) {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let system = boot(folder.path()).await;
        for step in steps {
            let done = step.run(&system).await;
            let now = Some(AsOf::Lsn(last(&system).await));
            for at in places() {
                for follow in [false, true] {
                    let remembered = look(&system, &at, follow, None).await;
                    let told = look(&system, &at, follow, now).await;
                    assert_eq!(remembered, told, "{at}, followed: {follow}, after {step:?}: {done:?}");
                }
            }
        }
        system.stop().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The model is the same kernel without what it remembers.
    #[test]
    fn what_is_remembered_of_a_place_is_what_the_rows_say(steps in prop::collection::vec(step(), 1..40)) {
        check_caches(&steps);
    }
}

/// What was at a place, in the words of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    id: FileId,
    entry_type: EntryType,
    version: u64,
    size: u64,
    content: Option<ContentId>,
}

/// What is told of a place: what it was, from when until when.
type Told = (Seen, Option<u64>, Option<u64>);

async fn see(system: &Running, at: &str, as_of: Option<AsOf>) -> Option<Seen> {
    let found = match look(system, at, false, as_of).await {
        Ok(found) => found,
        Err(ErrorKind::NotFound | ErrorKind::NotADirectory) => return None,
        Err(kind) => panic!("{at} as of {as_of:?}: {kind:?}"),
    };
    let FileMetadata { file_id, entry_type, version, size, content_id, .. } = found;
    Some(Seen { id: file_id, entry_type, version, size, content: content_id })
}

/// All that is told of a place, in pages of `limit`.
async fn trail(system: &Running, at: &str, limit: u32) -> Vec<Told> {
    let mut call = SysVersions::at(path(at)).no_follow().limit(limit);
    let mut all: Vec<Told> = Vec::new();
    loop {
        let page = match system.kernel.send(&system.admin, call.clone()).await {
            Ok(page) => page,
            Err(error) if error.kind() == ErrorKind::NotFound => return all,
            Err(error) => panic!("{at}: {error}"),
        };
        for version in page.versions {
            assert!(version.lsn == version.from && version.from_at.is_some(), "all began with a commit");
            assert_eq!((version.is_present(), version.until_at), (version.until.is_none(), version.until_at));
            assert_eq!(version.until.is_some(), version.until_at.is_some());
            let (id, content) = (version.file_id, version.content_id);
            let (entry_type, version, size, from, until) =
                (version.entry_type, version.version, version.size, version.from, version.until);
            let seen = Seen { id, entry_type, version, size, content };
            all.push((seen, from.map(|lsn| lsn.0), until.map(|lsn| lsn.0)));
        }
        match page.next {
            Some(next) => call = call.after(next),
            None => return all,
        }
    }
}

/// The naive model: what is at each place is written down after each commit, and runs of the same are one stay.
fn check_trails(steps: &[Step]) {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let mut system = boot(folder.path()).await;
        let places = places();
        let Lsn(mut seen_to) = last(&system).await;
        let mut model: Vec<Vec<Told>> = vec![Vec::new(); places.len()];
        let first = seen_to;
        let mut states: Vec<Vec<Option<Seen>>> = vec![vec![None; places.len()]];
        for step in steps {
            if matches!(step, Step::Reopen) {
                system.stop().await;
                system = boot(folder.path()).await;
            }
            let _ = step.run(&system).await;
            let Lsn(now) = last(&system).await;
            if now == seen_to {
                continue;
            }
            assert_eq!(now, seen_to + 1, "{step:?} is more than one commit");
            seen_to = now;
            let mut state = Vec::new();
            for (at, stays) in places.iter().zip(&mut model) {
                let found = see(&system, at, None).await;
                let open = stays.last_mut().filter(|(.., until)| until.is_none());
                match (open, found.clone()) {
                    (Some((seen, ..)), Some(found)) if *seen == found => {}
                    (open, found) => {
                        open.into_iter().for_each(|(.., until)| *until = Some(now));
                        stays.extend(found.map(|found| (found, Some(now), None)));
                    }
                }
                state.push(found);
            }
            states.push(state);
        }
        for (nth, at) in places.iter().enumerate() {
            let mut expected = model[nth].clone();
            expected.reverse();
            for limit in [0, 1, 3] {
                assert_eq!(trail(&system, at, limit).await, expected, "{at} in pages of {limit}");
            }
            for (state, lsn) in states.iter().zip(first..) {
                let seen = see(&system, at, Some(AsOf::Lsn(Lsn(lsn)))).await;
                assert_eq!(seen, state[nth], "{at} as of {lsn}");
            }
        }
        system.stop().await;
    });
}

/// No link: what was reached through one is told of where it led.
fn without_links() -> impl Strategy<Value = Step> {
    step().prop_filter("it is a link", |step| !matches!(step, Step::Link(..)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_told_of_a_place_is_all_that_was_ever_there(
        steps in prop::collection::vec(without_links(), 1..40),
    ) {
        check_trails(&steps);
    }
}

#[test]
fn all_that_was_at_a_path_is_told_whatever_came_of_it() {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let system = boot(folder.path()).await;
        let (kernel, admin) = (&system.kernel, &system.admin);
        let Lsn(a) = write(&system, "/f", "a").await;
        let Lsn(b) = write(&system, "/f", "bb").await;
        let gone = kernel.send(admin, SysUnlink::at(path("/f"))).await.expect("it goes").receipt.lsn.0;
        let Lsn(c) = write(&system, "/f", "ccc").await;
        write(&system, "/g", "gggg").await;
        let moved = SysRename::new(path("/g"), path("/f"));
        let moved = kernel.send(admin, moved).await.expect("it moves").receipt.lsn.0;
        let told = trail(&system, "/f", 0).await;
        let places: Vec<_> = told.iter().map(|(seen, from, until)| (seen.size, *from, *until)).collect();
        let expected = [
            (4, Some(moved), None),
            (3, Some(c), Some(moved)),
            (2, Some(b), Some(gone)),
            (1, Some(a), Some(b)),
        ];
        assert_eq!(places, expected);
        assert_eq!((told[2].0.id, told[1].0.id == told[2].0.id), (told[3].0.id, false));
        let of_g = trail(&system, "/g", 0).await;
        assert_eq!((of_g[0].0.id, of_g.len()), (told[0].0.id, 1), "the same file, at its old name");

        // Its directory goes, and another thing takes its name.
        let Lsn(deep) = write(&system, "/d/e/f", "x").await;
        let gone = kernel.send(admin, SysUnlink::at(path("/d")).recursive()).await.expect("it goes");
        let Lsn(gone) = gone.receipt.lsn;
        for now in ["nothing", "a file"] {
            if now == "a file" {
                write(&system, "/d", "a file").await;
            }
            let told = trail(&system, "/d/e/f", 0).await;
            assert_eq!((told.len(), told[0].1, told[0].2), (1, Some(deep), Some(gone)), "{now}");
            assert_eq!(read(&system, "/d/e/f", AsOf::Lsn(Lsn(deep))).await.expect("it is kept"), b"x");
            assert_eq!(versions(&system, "/d/e/f", 0).await.len(), 1, "{now}");
        }
        system.stop().await;
    });
}

async fn write(system: &Running, at: &str, text: &str) -> Lsn {
    let call = SysWrite::at(path(at), text.to_owned()).create();
    system.kernel.send(&system.admin, call).await.expect("it writes").receipt.lsn
}

async fn read(system: &Running, at: &str, as_of: AsOf) -> Result<Vec<u8>, Error> {
    let read = system.kernel.send(&system.admin, SysRead::at(path(at)).as_of(as_of)).await;
    read.map(|read| read.data.to_vec())
}

async fn restore(system: &Running, at: &str, as_of: AsOf) -> Result<u64, Error> {
    let call = SysCopy::new(path(at), path(at)).as_of(as_of);
    system.kernel.send(&system.admin, call).await.map(|done| done.metadata.version)
}

/// The versions of the file as number, first and last place, size and operation, read in pages of `limit`.
async fn versions(
    system: &Running,
    at: &str,
    limit: u32,
) -> Vec<(u64, Option<u64>, Option<u64>, u64, Option<Op>)> {
    let mut call = SysVersions::at(path(at)).of_file().limit(limit);
    let mut all = Vec::new();
    loop {
        let page = system.kernel.send(&system.admin, call.clone()).await.expect("it is told");
        let place = |lsn: Option<Lsn>| lsn.map(|Lsn(lsn)| lsn);
        all.extend(page.versions.iter().map(|v| (v.version, place(v.lsn), place(v.until), v.size, v.op)));
        match page.next {
            Some(next) => call = call.after(next),
            None => return all,
        }
    }
}

#[test]
fn versions_are_told_with_their_places_and_can_be_read_and_restored() {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let system = boot(folder.path()).await;
        let Lsn(one) = write(&system, "/d/f", "1").await;
        let Lsn(two) = write(&system, "/d/f", "22").await;
        let mode = system.kernel.send(&system.admin, SysSetattr::at(path("/d/f")).mode(0o600)).await;
        mode.expect("it is set");
        let Lsn(three) = write(&system, "/d/f", "333").await;
        let written = Some(Op::Write);
        let mut expected = vec![
            (1, Some(one), Some(two), 1, written),
            (2, Some(two), Some(three), 2, written),
            (3, Some(three), None, 3, written),
        ];
        for limit in [1, 2, 3, 0] {
            assert_eq!(versions(&system, "/d/f", limit).await, expected, "pages of {limit}");
        }
        assert_eq!(read(&system, "/d/f", AsOf::Version(2)).await.expect("it is kept"), b"22");
        assert_eq!(read(&system, "/d/f", AsOf::Lsn(Lsn(two))).await.expect("it is kept"), b"22");
        assert_eq!(restore(&system, "/d/f", AsOf::Version(1)).await.expect("it is kept"), 4);
        assert_eq!(read(&system, "/d/f", AsOf::Version(4)).await.expect("it is there"), b"1");

        let gone = system.kernel.send(&system.admin, SysUnlink::at(path("/d/f"))).await;
        let Lsn(gone) = gone.expect("it goes").receipt.lsn;
        expected[2].2 = Some(three + 1);
        expected.push((4, Some(three + 1), Some(gone), 1, Some(Op::Copy)));
        // The directory was there by implication, and went with its only file: what was in it is found as of a place.
        assert_eq!(read(&system, "/d/f", AsOf::Lsn(Lsn(gone - 1))).await.expect("it is kept"), b"1");
        assert_eq!(restore(&system, "/d/f", AsOf::Lsn(Lsn(three))).await.expect("it is kept"), 1);
        let now = read(&system, "/d/f", AsOf::Version(1)).await;
        assert_eq!(now.expect("another file, with versions of its own"), b"333");

        let Lsn(last) = write(&system, "/kept", "x").await;
        write(&system, "/kept", "y").await;
        system.kernel.send(&system.admin, SysUnlink::at(path("/kept"))).await.expect("it goes");
        let told = versions(&system, "/kept", 0).await;
        assert_eq!((told.len(), told[0].1), (2, Some(last)), "those of a file that is gone");
        assert_eq!(restore(&system, "/kept", AsOf::Version(1)).await.expect("it is kept"), 1);
        system.stop().await;
    });
}

#[test]
fn what_is_not_kept_is_told_as_such() {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let system = boot(folder.path()).await;
        let (kernel, admin) = (&system.kernel, &system.admin);
        let kind = |done: Result<Vec<u8>, Error>| done.expect_err("it is not there").kind();
        let files = tempfile::tempdir().expect("there is room");
        let plain = MountSpec::new("path-local").option("folder", files.path().display().to_string());
        let none = MountSpec::new("cas-local").option("history_count", "0");
        for (at, spec) in [("/plain", plain), ("/none", none), ("/memory", MountSpec::new("memory"))] {
            kernel.send(admin, SysSetattr::mount(path(at), spec)).await.expect("it mounts");
            write(&system, &format!("{at}/f"), "1").await;
            write(&system, &format!("{at}/f"), "2").await;
        }
        let lsn = AsOf::Lsn(last(&system).await);
        assert_eq!(kind(read(&system, "/plain/f", lsn).await), ErrorKind::NotSupported);
        assert_eq!(kind(read(&system, "/plain/f", AsOf::Version(1)).await), ErrorKind::NotSupported);
        for at in ["/none/f", "/memory/f"] {
            assert_eq!(kind(read(&system, at, lsn).await), ErrorKind::NotKept, "{at}");
            assert_eq!(kind(read(&system, at, AsOf::Version(1)).await), ErrorKind::NotKept, "{at}");
        }
        let Lsn(first) = write(&system, "/f", "1").await;
        assert_eq!(kind(read(&system, "/f", AsOf::Version(9)).await), ErrorKind::NotKept);
        assert_eq!(
            kind(read(&system, "/f", AsOf::Lsn(Lsn(0))).await),
            ErrorKind::NotKept,
            "before the mount was"
        );
        assert_eq!(kind(read(&system, "/f", AsOf::Lsn(Lsn(first - 1))).await), ErrorKind::NotFound);
        assert_eq!(kind(read(&system, "/f", AsOf::Lsn(Lsn(first + 9))).await), ErrorKind::InvalidArgument);
        let listing = SysReaddir::at(path("/")).as_of(AsOf::Version(1));
        let error = kernel.send(admin, listing).await.expect_err("a directory has no versions");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = kernel.send(admin, SysVersions::at(path("/never/was"))).await.expect_err("it never was");
        let told = error.to_string();
        assert!(error.kind() == ErrorKind::NotFound && told.contains("nothing was there since"), "{told}");
        system.stop().await;
    });
}

#[test]
fn a_time_shows_what_was_there_then_and_one_that_nothing_tells_of_is_refused_with_the_oldest() {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let system = boot(folder.path()).await;
        let (kernel, admin) = (&system.kernel, &system.admin);
        let before = Timestamp(system.env.wall());
        let root = kernel.send(admin, SysStat::at(path("/"))).await.expect("it is there").created;
        write(&system, "/d/f", "1").await;
        let one = Timestamp(system.env.wall());
        write(&system, "/d/f", "22").await;
        let moved = SysRename::new(path("/d"), path("/e"));
        kernel.send(admin, moved).await.expect("it moves");

        // The time of a commit is the first at which it is seen.
        let made = kernel.send(admin, SysStat::at(path("/d/f")).as_of(AsOf::Time(one))).await;
        let made = made.expect("it is kept");
        assert_eq!((made.size, made.modified > before), (1, true));
        for (time, expected) in [(made.modified, Ok(&b"1"[..])), (before, Err(ErrorKind::NotFound))] {
            let seen = read(&system, "/d/f", AsOf::Time(time)).await;
            assert_eq!(seen.as_deref().map_err(Error::kind), expected, "at {time}");
        }
        let listing = SysReaddir::at(path("/")).recursive().as_of(AsOf::Time(one));
        let listed = kernel.send(admin, listing).await.expect("it is kept");
        let listed: Vec<_> = listed.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(listed, ["/d", "/d/f"], "under the name that the directory had");
        let copy = SysCopy::new(path("/d/f"), path("/g")).as_of(AsOf::Time(one));
        kernel.send(admin, copy).await.expect("it is kept");
        let now = AsOf::Time(Timestamp(system.env.wall()));
        assert_eq!(read(&system, "/g", now).await.expect("it is there"), b"1");

        let hour = 3_600_000_000_000;
        let to_come = Timestamp(system.env.wall() + hour);
        let error = read(&system, "/e/f", AsOf::Time(to_come)).await.expect_err("it is yet to come");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let told = error.to_string();
        assert!(told.starts_with("read /e/f: ") && told.contains(&to_come.to_string()), "{told}");
        let long_ago = Timestamp(root.0 - hour);
        let read = read(&system, "/e/f", AsOf::Time(long_ago)).await.map(drop);
        let listing = SysReaddir::at(path("/")).as_of(AsOf::Time(long_ago));
        let listed = kernel.send(admin, listing).await.map(drop);
        let copy = SysCopy::new(path("/e/f"), path("/h")).as_of(AsOf::Time(long_ago));
        let copied = kernel.send(admin, copy).await.map(drop);
        for (done, call) in [(read, "read /e/f: "), (listed, "readdir /: "), (copied, "copy /e/f: ")] {
            let error = done.expect_err("nothing was mounted");
            assert_eq!(error.kind(), ErrorKind::NotKept);
            let told = error.to_string();
            assert!(told.starts_with(call) && told.contains(&long_ago.to_string()), "{told}");
            // When the mount was made its history began.
            assert!(told.contains(&root.to_string()), "{told}");
        }
        let first = SysReaddir::at(path("/")).as_of(AsOf::Time(root));
        assert_eq!(kernel.send(admin, first).await.expect("it is kept").entries, []);
        system.stop().await;
    });
}

#[test]
fn a_file_that_is_written_again_and_again_keeps_what_its_mount_says() {
    const WRITES: u64 = 1_600;
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let system = boot(folder.path()).await;
        let few = MountSpec::new("cas-local").option("history_count", "3");
        system.kernel.send(&system.admin, SysSetattr::mount(path("/few"), few)).await.expect("it mounts");
        let mut first = Lsn(0);
        for n in 1..=WRITES {
            let lsn = write(&system, "/few/f", &n.to_string()).await;
            if n == 1 {
                first = lsn;
            }
        }
        let told = versions(&system, "/few/f", 0).await;
        assert!(told.len() < 600, "{} versions are kept", told.len());
        let error = read(&system, "/few/f", AsOf::Version(1)).await.expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
        let error = read(&system, "/few/f", AsOf::Lsn(first)).await.expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
        // More is dropped aside, by and by: what is told holds for as long as the same is told.
        loop {
            let told = versions(&system, "/few/f", 0).await;
            let (version, ..) = told[0];
            let kept = read(&system, "/few/f", AsOf::Version(version)).await;
            let stays = trail(&system, "/few/f", 7).await;
            let mut found = Vec::new();
            for (_, from, _) in &stays {
                found.push(read(&system, "/few/f", AsOf::Lsn(Lsn(from.expect("it is known")))).await);
            }
            if versions(&system, "/few/f", 0).await != told {
                continue;
            }
            assert_eq!(kept.expect("it is kept"), version.to_string().into_bytes());
            // Of the path all that is kept is told, and nothing else.
            assert_eq!(stays.len(), told.len());
            assert_eq!(stays.last().and_then(|(.., until)| *until), told[0].2, "what is dropped is absent");
            for ((seen, ..), found) in stays.iter().zip(found) {
                assert_eq!(found.expect("it is told, so it is kept"), seen.version.to_string().into_bytes());
            }
            break;
        }
        system.stop().await;
    });
}

/// The content of the version with this number: too large to lie beside its row.
fn body(version: u64) -> Vec<u8> {
    let mut body = version.to_string().into_bytes();
    body.resize(17_000, b'.');
    body
}

/// Runs each of the jobs in a thread of its own.
fn at_once(jobs: Vec<Box<dyn FnOnce() + Send + '_>>) {
    std::thread::scope(|scope| {
        for job in jobs {
            std::thread::Builder::new().spawn_scoped(scope, job).expect("it starts");
        }
    });
}

async fn mount(system: &Running, at: &str, options: &[(&str, &str)]) {
    let spec = options.iter().fold(MountSpec::new("memory"), |spec, (key, value)| spec.option(*key, *value));
    system.kernel.send(&system.admin, SysSetattr::mount(path(at), spec)).await.expect("it mounts");
}

/// Commits to another file until `done`: history is let go in steps that commits pace.
async fn commit_until(system: &Running, at: &str, mut done: impl AsyncFnMut() -> bool) {
    const COMMITS_MAX: usize = 20_000;
    for n in 0..COMMITS_MAX {
        if n % 64 == 0 && done().await {
            return;
        }
        write(system, at, "x").await;
    }
    panic!("{COMMITS_MAX} commits did not suffice");
}

#[test]
fn pruning_by_count_keeps_just_what_the_policy_says_while_writers_go_on() {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 300;
    const KEPT: u64 = 3;
    let folder = tempfile::tempdir().expect("there is room");
    let system = block_on(boot(folder.path()));
    block_on(mount(&system, "/few", &[("history_count", "3")]));
    let file = |writer: u64| format!("/few/{writer}");
    let writer = |writer: u64| {
        let (system, at) = (&system, file(writer));
        let job = move || {
            for n in 1..=WRITES {
                block_on(async {
                    write(system, &at, &n.to_string()).await;
                    for version in n.saturating_sub(KEPT).max(1)..=n {
                        let seen = read(system, &at, AsOf::Version(version)).await;
                        let seen = seen.unwrap_or_else(|error| panic!("{version} of {n}: {error}"));
                        assert_eq!(seen, version.to_string().into_bytes());
                    }
                });
            }
        };
        Box::new(job) as Box<dyn FnOnce() + Send + '_>
    };
    at_once((0..WRITERS).map(writer).collect());
    block_on(async {
        for writer in 0..WRITERS {
            let at = file(writer);
            let pruned = async || versions(&system, &at, 0).await.len() as u64 <= KEPT + 1;
            commit_until(&system, "/few/other", pruned).await;
        }
        for writer in 0..WRITERS {
            let numbers: Vec<_> =
                versions(&system, &file(writer), 0).await.into_iter().map(|(version, ..)| version).collect();
            assert_eq!(numbers, (WRITES - KEPT..=WRITES).collect::<Vec<_>>());
            let gone = read(&system, &file(writer), AsOf::Version(WRITES - KEPT - 1)).await;
            assert_eq!(gone.map_err(|error| error.kind()), Err(ErrorKind::NotKept));
        }
        system.stop().await;
    });
}

#[test]
fn pruning_by_age_keeps_what_is_young_enough_and_says_that_the_rest_is_not_kept() {
    const WRITES: u64 = 20;
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let system = boot(folder.path()).await;
        mount(&system, "/short", &[("history_count", "1000"), ("history_age_s", "0")]).await;
        mount(&system, "/long", &[("history_count", "1000")]).await;
        let mut places = Vec::new();
        for n in 1..=WRITES {
            places.push(write(&system, "/short/f", &n.to_string()).await);
            write(&system, "/long/f", &n.to_string()).await;
        }
        let numbers = async |at: &str| -> Vec<u64> {
            versions(&system, at, 0).await.into_iter().map(|(version, ..)| version).collect()
        };
        commit_until(&system, "/other", async || numbers("/short/f").await == [WRITES]).await;
        assert_eq!(numbers("/long/f").await, (1..=WRITES).collect::<Vec<_>>());
        for (version, place) in (1..WRITES).zip(places) {
            for then in [AsOf::Version(version), AsOf::Lsn(place)] {
                let gone = read(&system, "/short/f", then).await.map_err(|error| error.kind());
                assert_eq!(gone, Err(ErrorKind::NotKept), "{then}");
            }
            let kept = read(&system, "/long/f", AsOf::Version(version)).await.expect("it is young");
            assert_eq!(kept, version.to_string().into_bytes());
        }
        system.stop().await;
    });
}

#[test]
fn a_restore_that_races_with_pruning_and_collections_gives_the_version_or_says_that_it_is_not_kept() {
    const WRITES: u64 = 800;
    const RESTORERS: usize = 2;
    let folder = tempfile::tempdir().expect("there is room");
    let system = &block_on(boot(folder.path()));
    block_on(mount(system, "/few", &[("history_count", "1")]));
    let over = &AtomicBool::new(false);
    let (restored, refused) = &(AtomicU64::new(0), AtomicU64::new(0));
    let writer = move || {
        for n in 1..=WRITES {
            let call = SysWrite::at(path("/few/f"), body(n)).create();
            block_on(system.kernel.send(&system.admin, call)).expect("it writes");
        }
        over.store(true, Ordering::Relaxed);
    };
    let collector = move || {
        let at = || path("/__sys__/store/garbage");
        while !over.load(Ordering::Relaxed) {
            // One may be running: then there is nothing to begin.
            let _ = block_on(system.kernel.send(&system.admin, SysWrite::at(at(), "{\"grace_ms\":0}")));
            std::thread::yield_now();
        }
    };
    let restorer = |to: String| {
        move || {
            while !over.load(Ordering::Relaxed) {
                let page = SysVersions::at(path("/few/f")).of_file().limit(1);
                let Ok(page) = block_on(system.kernel.send(&system.admin, page)) else { continue };
                let Some(version) = page.versions.first().map(|version| version.version) else { continue };
                let then = AsOf::Version(version);
                let call = SysCopy::new(path("/few/f"), path(&to)).as_of(then);
                let done = block_on(system.kernel.send(&system.admin, call)).map(drop);
                let seen = block_on(read(system, "/few/f", then));
                let copy = done.map(|()| {
                    let read = block_on(system.kernel.send(&system.admin, SysRead::at(path(&to))));
                    read.unwrap_or_else(|error| panic!("version {version} was restored: {error}")).data
                });
                for found in [seen, copy.map(|data| data.to_vec())] {
                    match found {
                        Ok(data) => assert!(data == body(version), "it is another version than {version}"),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
                            refused.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                    }
                    restored.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    let mut jobs: Vec<Box<dyn FnOnce() + Send + '_>> = vec![Box::new(writer), Box::new(collector)];
    jobs.extend((0..RESTORERS).map(|n| Box::new(restorer(format!("/few/r{n}"))) as Box<dyn FnOnce() + Send>));
    at_once(jobs);
    let entry = block_on(system.kernel.send(&system.admin, SysRead::at(path("/__sys__/store/garbage"))));
    let entry = String::from_utf8_lossy(&entry.expect("it is shown").data).into_owned();
    println!("{restored:?} read or restored, {refused:?} not kept; {entry}");
    assert!(restored.load(Ordering::Relaxed) > 0, "nothing was restored");
}
