//! The past as its users rely on it: any tree that ever was is read as it was, what is not kept is told as such, and what was can be brought back.

mod common;

use nexus::{
    AsOf, EntryType, Error, FileMetadata, Lsn, SysCopy, SysRead, SysReaddir, SysRename, SysSetattr, SysStat,
    SysTx, SysUnlink, SysWrite, TxOp,
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
