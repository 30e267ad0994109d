//! What commands know of the kernel: read from the files below `/__sys__/`, so that they are the same beside a kernel and attached to one.

use std::fmt::Display;

use nexus::advisory::AdvisoryLock;
use nexus::sys::{
    ALL, ActorEntry, CachesEntry, CollectOrder, CommitterEntry, FsckEntry, GarbageEntry, ROOT, SELF,
    SyscallEntry,
};
use nexus::syscall::SysWrite;
use nexus::{Error, ErrorKind, Kill, MountStatus, Op};
use serde::de::DeserializeOwned;

use crate::failure::Outcome;
use crate::session::{Session, path};

/// The supervision tree.
pub(crate) async fn actors(session: &Session) -> Outcome<ActorEntry> {
    shown(session, format_args!("actors/{ALL}")).await
}

/// One actor, without those below it.
pub(crate) async fn actor(session: &Session, actor: &str) -> Outcome<ActorEntry> {
    match shown(session, format_args!("actors/{actor}")).await {
        Err(failure) if failure.is(ErrorKind::IsADirectory) => {
            shown(session, format_args!("actors/{actor}/{SELF}")).await
        }
        shown => shown,
    }
}

/// The mounts, in the order of their points.
pub(crate) async fn mounts(session: &Session) -> Outcome<Vec<MountStatus>> {
    shown(session, format_args!("mounts/{ALL}")).await
}

/// What was counted of syscalls.
pub(crate) async fn syscalls(session: &Session) -> Outcome<Vec<SyscallEntry>> {
    shown(session, format_args!("syscalls/{ALL}")).await
}

/// What the committer did.
pub(crate) async fn committer(session: &Session) -> Outcome<CommitterEntry> {
    shown(session, "store/committer").await
}

/// The advisory locks.
pub(crate) async fn advisory(session: &Session) -> Outcome<Vec<AdvisoryLock>> {
    #[derive(serde::Deserialize)]
    struct Listing {
        locks: Vec<AdvisoryLock>,
    }
    let listing: Listing = shown(session, "locks/advisory").await?;
    Ok(listing.locks)
}

/// What is kept in memory.
pub(crate) async fn caches(session: &Session) -> Outcome<CachesEntry> {
    shown(session, "store/caches").await
}

/// The collector of garbage.
pub(crate) async fn garbage(session: &Session) -> Outcome<GarbageEntry> {
    shown(session, "store/garbage").await
}

/// Begins a collection. Does not wait for what becomes of it.
pub(crate) async fn collect(session: &Session, order: CollectOrder) -> Outcome {
    let file = path(Op::Collect, &format!("{ROOT}/store/garbage"))?;
    let text = serde_json::json!({ "dry_run": order.dry_run, "grace_ms": order.grace_ms }).to_string();
    let told = session.nx.send(SysWrite::at(file, text)).await;
    Ok(told.map(drop).map_err(|error| error.during(Op::Collect))?)
}

/// The checks of what is stored.
pub(crate) async fn checks(session: &Session) -> Outcome<FsckEntry> {
    shown(session, "store/fsck").await
}

/// Begins a check. Does not wait for what becomes of it.
pub(crate) async fn check(session: &Session, repair: bool) -> Outcome {
    let file = path(Op::Check, &format!("{ROOT}/store/fsck"))?;
    let text = serde_json::json!({ "repair": repair }).to_string();
    let told = session.nx.send(SysWrite::at(file, text)).await;
    Ok(told.map(drop).map_err(|error| error.during(Op::Check))?)
}

/// Hurts an actor. Does not wait for what becomes of it.
pub(crate) async fn kill(session: &Session, actor: &str, how: Kill) -> Outcome {
    let tell = async |file: String| {
        let told = session.nx.send(SysWrite::at(path(Op::Kill, &file)?, how.to_string())).await;
        told.map(drop).map_err(|error| error.during(Op::Kill))
    };
    let told = match tell(format!("{ROOT}/actors/{actor}")).await {
        // A supervisor is a directory of its children.
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            tell(format!("{ROOT}/actors/{actor}/{SELF}")).await
        }
        told => told,
    };
    Ok(told?)
}

async fn shown<T: DeserializeOwned>(session: &Session, name: impl Display) -> Outcome<T> {
    let file = path(Op::Read, &format!("{ROOT}/{name}"))?;
    let read = session.nx.read(&file).await?;
    let shown = serde_json::from_slice(&read);
    // A kernel of another version may show other things.
    Ok(shown.map_err(|why| Error::new(Op::Read, &file, ErrorKind::NotSupported).because(why))?)
}
