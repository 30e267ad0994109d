//! Attaching at boot what the metastore remembers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join;
use nexus_messages::{Caller, EntryType, Error, ErrorKind, FileId, MountContext, Op, Timestamp};

use super::attach::{commit, open, remembered, route, start};
use super::driver::Recover;
use super::health::Standing;
use super::mount::Mount;
use super::options::{Class, MountOptions};
use super::{history, migration};
use crate::hal::{Change, Entry, StoreError, TreeId};
use crate::kernel::Kernel;
use crate::namespace::{InodeRow, MountRow, Rows, addressing_key, decode, encode, inode_key, mount_key};

/// How many drivers are opened at once.
const OPENINGS_MAX: usize = 16;

/// How long the boot waits for all drivers together. What is not open by then is attached all the same, and opened when it can be.
const OPENING_MAX: Duration = Duration::from_secs(60);

/// How long it waits for those whose backend is on another machine: one that is down hinders nobody.
const OPENING_ELSEWHERE_MAX: Duration = Duration::from_secs(3);

const _: () = assert!(OPENING_ELSEWHERE_MAX.as_secs() < OPENING_MAX.as_secs());

/// Gives a mount whose content is gone with the last process a new, empty root.
async fn begin_empty(
    kernel: &Kernel,
    old: FileId,
    row: &MountRow,
    by_path: Option<bool>,
) -> Result<FileId, Error> {
    let root = kernel.store().new_file_id();
    let at = Timestamp(kernel.env().wall());
    let mut inode = InodeRow::new(EntryType::Mount, Caller::KERNEL.into(), at);
    let options = MountOptions::of(&row.spec).unwrap_or_default();
    inode.mode = options.mode(EntryType::Mount).unwrap_or(inode.mode);
    let mut changes = vec![
        Change::Delete(mount_key(old)),
        Change::Put(mount_key(root), encode(row)),
        Change::Put(inode_key(row.tree, root), encode(&inode)),
    ];
    if let Some(by_path) = by_path {
        // Of the old one nothing is remembered any more: so it is known to be gone.
        changes.extend([
            Change::Delete(addressing_key(old)),
            Change::Put(addressing_key(root), encode(&by_path)),
        ]);
    }
    let entry = Entry {
        tree: row.tree,
        op_id: kernel.new_op_id(),
        repeatable: false,
        caller: Caller::KERNEL.into(),
        op: Op::Mount,
        path: row.point.clone(),
        other: None,
        items: Vec::new(),
        told: None,
        at,
        preconditions: Vec::new(),
        changes,
    };
    commit(kernel, entry, None).await?;
    Ok(root)
}

/// Lets the history of a mount that is to keep one begin, if it has none: the store is from before there was a history, or its content is gone with
/// the last process. Nothing is routed there yet.
async fn begin_history(kernel: &Kernel, mount: &Mount, volatile: bool) -> Result<(), Error> {
    let failed = |error: StoreError| Error::new(Op::Mount, &mount.point, error.kind()).because(error);
    let options = MountOptions::of(&mount.spec()).unwrap_or_default();
    let policy = options.history(volatile).filter(|_| !mount.is_path_addressed());
    let rows = kernel.store().rows(mount.tree).map_err(failed)?;
    let begun = history::begin(&rows, mount, policy).map_err(failed)?;
    drop(rows);
    let Some(begun) = begun else { return Ok(()) };
    let entry = Entry {
        tree: mount.tree,
        op_id: kernel.new_op_id(),
        repeatable: false,
        caller: Caller::KERNEL.into(),
        op: Op::Mount,
        path: mount.point.clone(),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(kernel.env().wall()),
        preconditions: Vec::new(),
        changes: vec![begun],
    };
    match commit(kernel, entry, None).await {
        Ok(_) => Ok(()),
        // What can be read is served all the same, without its past.
        Err(error) => {
            tracing::warn!(point = %mount.point, %error, "the mount keeps no history for now");
            Ok(())
        }
    }
}

/// Leaves a mount without a driver, and says why to whoever calls: what is mounted there hides what else would be there all the same.
fn keep_shut(kernel: &Kernel, mount: &Mount, why: String) {
    tracing::error!(point = %mount.point, why, "a mount stays shut until it is mounted again");
    let until = kernel.env().now();
    mount.health().set_standing(Standing::Failed { cause: why.as_str().into(), until });
    let error = StoreError::Backend { what: format!("mounting {} again", mount.point), cause: why };
    mount.health().note(kernel.env(), &error);
    mount.health().ended(error);
}

/// The mounts that are attached. Of two at one point, which a mount leaves behind that was cut short, the one that was made last.
fn latest(known: Vec<(FileId, MountRow)>) -> Vec<(FileId, MountRow)> {
    let mut mounts: Vec<(FileId, MountRow)> = Vec::new();
    for (root, row) in known.into_iter().filter(|(_, row)| row.attached) {
        match mounts.iter_mut().find(|(_, there)| there.zone == row.zone && there.point == row.point) {
            None => mounts.push((root, row)),
            Some(there) => {
                tracing::warn!(point = %row.point, "two mounts are remembered here: the older one is left out");
                if there.0 < root {
                    *there = (root, row);
                }
            }
        }
    }
    mounts
}

/// Whether the mount finds its files by their paths, if that is remembered.
fn by_path(rows: &Rows, root: FileId) -> Result<Option<bool>, StoreError> {
    let key = addressing_key(root);
    rows.reader.get(&key)?.map(|value| decode(&key, &value)).transpose()
}

pub(super) async fn remount(kernel: Arc<Kernel>) -> Result<usize, Error> {
    let failed = |error: StoreError| Error::global(Op::Mount, error.kind()).because(error);
    let rows = kernel.store().rows(TreeId::ROOT).map_err(failed)?;
    let known = latest(remembered(&rows).map_err(failed)?).into_iter();
    let known = known.map(|(root, row)| Ok((root, row, by_path(&rows, root)?)));
    let known = known.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    for (_, row, _) in &known {
        kernel.store().begins(row.tree).map_err(failed)?;
    }
    drop(rows);
    let mut mounts = Vec::new();
    for (root, row, by_path) in known {
        if kernel.mount_at(&row.zone, &row.point).is_some() {
            continue;
        }
        let volatile = kernel.catalogue().get(&row.spec.driver).is_some_and(|factory| factory.volatile());
        let scratch = MountOptions::of(&row.spec).unwrap_or_default().class() == Class::Scratch;
        let empty = match volatile || scratch {
            true => Some(begin_empty(&kernel, root, &row, by_path).await),
            false => None,
        };
        let (root, shut) = match empty {
            None => (root, None),
            Some(Ok(root)) => (root, None),
            // The others must come up, with which room can be made.
            Some(Err(error)) if error.kind() == ErrorKind::StoreFull => (root, Some(error.to_string())),
            Some(Err(error)) => return Err(error),
        };
        let generation = kernel.caches().metadata.new_mount();
        let mount = Mount::new(root, row.zone, row.tree, row.point, row.spec, generation);
        let mount = Arc::new(match by_path {
            // Of one that stays shut nothing is served, not even names.
            Some(by_path) if shut.is_none() => mount.known(by_path),
            _ => mount,
        });
        if let Some(why) = shut {
            keep_shut(&kernel, &mount, format!("it could not begin anew, as empty as it is now: {why}"));
            mounts.push(mount);
            continue;
        }
        begin_history(&kernel, &mount, volatile).await?;
        migration::found(&kernel, &mount).map_err(failed)?;
        match start(&kernel, &mount).await {
            Ok(()) => {}
            Err((kind @ ErrorKind::Down, why)) => {
                return Err(Error::new(Op::Mount, &mount.point, kind).because(why));
            }
            Err((_, why)) => {
                keep_shut(&kernel, &mount, format!("its driver's actor could not be started: {why}"));
            }
        }
        mounts.push(mount);
    }
    open_all(&kernel, &mounts).await;
    for mount in &mounts {
        // Before it is routed, so that a router which starts from this list has it.
        kernel.mounts().list(mount);
        route(&kernel, mount)
            .await
            .map_err(|(kind, why)| Error::new(Op::Mount, &mount.point, kind).because(why))?;
        if let Some(hooks) = kernel.dispatch().get() {
            let driver = mount.spec().driver.clone();
            hooks.mounted(&MountContext::new(mount.point.clone(), driver, None)).await;
        }
    }
    Ok(mounts.len())
}

/// Opens the drivers of `mounts`, several at once. One that fails, or takes too long, is tried again by its actor.
async fn open_all(kernel: &Kernel, mounts: &[Arc<Mount>]) {
    let is_elsewhere = |mount: &&Arc<Mount>| {
        kernel.catalogue().get(&mount.spec().driver).is_some_and(|factory| factory.elsewhere())
    };
    let (elsewhere, here): (Vec<_>, Vec<_>) = mounts.iter().partition(is_elsewhere);
    join(open_within(kernel, &here, OPENING_MAX), open_within(kernel, &elsewhere, OPENING_ELSEWHERE_MAX))
        .await;
}

async fn open_within(kernel: &Kernel, mounts: &[&Arc<Mount>], limit: Duration) {
    let openings = futures_util::stream::iter(mounts).for_each_concurrent(OPENINGS_MAX, async |mount| {
        if let Err((_, cause)) = open(mount, true).await {
            let driver = &mount.spec().driver;
            tracing::error!(point = %mount.point, driver, cause, "a mount could not be started");
        }
    });
    if kernel.env().timeout(limit, openings).await.is_err() {
        for mount in mounts.iter().filter(|mount| !mount.has_driver()) {
            tracing::warn!(point = %mount.point, "a mount is not open yet, and the boot goes on without it");
            // Its actor may not have been told to open it. One that is closed belongs to a kernel that stops.
            let _ = mount.actor().map(|actor| actor.signal(Recover));
        }
    }
}
