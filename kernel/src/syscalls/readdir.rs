//! `SysReaddir`: the children of a directory, or all below it.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_messages::syscall::{AsOf, Cursor, DirEntry, Hidden, Listing, SysReaddir};
use nexus_messages::{Caller, EntryType, Error, ErrorKind, Lsn, Result, VPath, ZoneId};

use super::Serve;
use super::admit::{Admissible, Which, admit, allow, one_path, pass};
use super::locate::{ATTEMPTS_MAX, Located, is_served, locate_as_of, route};
use super::past::{place, then};
use crate::gate::{Owner, Right};
use crate::kernel::Kernel;
use crate::namespace::Node;
use crate::sys;
use crate::volume::{Child, Children, Site, Volume, store_error};

/// How many entries one reply holds at most; the rest comes with the cursor.
pub(crate) const ENTRIES_MAX: usize = 65_536;

/// How many children of one directory are fetched at once.
const PAGE_MAX: usize = 4_096;

impl Admissible for SysReaddir {
    one_path!();

    fn is_of_the_past(&self, _: Which) -> bool {
        self.as_of.is_some()
    }

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        Right::List
    }
}

impl Serve for SysReaddir {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Listing> {
        let mut admitted = Box::pin(admit(kernel, caller, self, None)).await?;
        let mut attempts = 0..ATTEMPTS_MAX;
        let listed = loop {
            let listed = Box::pin(list_as_of(kernel, caller, &admitted.first, &admitted.call)).await;
            let served = is_served(kernel, &caller.zone, &admitted.first.site);
            if listed.is_ok() || served || attempts.next().is_none() {
                break listed;
            }
            // Its mount was detached while it was listed: another one serves the path now, or none.
            (admitted.first, _) = pass(kernel, caller, &admitted.call).await?;
        };
        admitted.after(&listed).await;
        listed
    }
}

/// A directory whose children are being listed.
struct Level {
    site: Site,
    node: Node,
    page: std::vec::IntoIter<Child>,
    /// The last name that was taken from the page.
    after: Option<String>,
    /// Whether another page may follow.
    more: bool,
    as_of: Option<Lsn>,
}

impl Level {
    fn new(site: Site, node: Node, after: Option<String>, as_of: Option<Lsn>) -> Self {
        Self { site, node, page: Vec::new().into_iter(), after, more: true, as_of }
    }

    /// The next child; none when there are no more. Names that are left out are added to `hidden`.
    async fn next(
        &mut self,
        kernel: &Arc<Kernel>,
        zone: &ZoneId,
        page_max: usize,
        metadata: bool,
        hidden: &mut Vec<Hidden>,
    ) -> Result<Option<Child>> {
        loop {
            if let Some(child) = self.page.next() {
                self.after = Some(child.name.clone());
                return Ok(Some(child));
            }
            if !self.more {
                return Ok(None);
            }
            let found = children(kernel, zone, self, page_max, metadata).await?;
            if found.hidden > 0 {
                hidden.push(Hidden::new(self.site.path.clone(), found.hidden));
            }
            self.more = found.more;
            self.page = found.page.into_iter();
        }
    }
}

async fn list_as_of(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    now: &Located,
    call: &SysReaddir,
) -> Result<Listing> {
    let Some(as_of) = call.as_of else { return list(kernel, caller, now, call, None).await };
    // Once for all that is listed.
    let lsn = place(kernel, call, now, as_of)?;
    let then = then(kernel, caller, call, now, AsOf::Lsn(lsn)).await?;
    list(kernel, caller, &then, call, Some(lsn)).await
}

async fn list(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    located: &Located,
    call: &SysReaddir,
    as_of: Option<Lsn>,
) -> Result<Listing> {
    let (site, node) = located.clone().existing(SysReaddir::OP)?;
    if !node.metadata.is_directory() {
        return Err(Error::new(SysReaddir::OP, &site.path, ErrorKind::NotADirectory));
    }
    let limit = call.limit.map_or(ENTRIES_MAX, |limit| (limit.get() as usize).min(ENTRIES_MAX));
    // One more than there is room for tells whether there is more.
    let page_max = (limit + 1).min(PAGE_MAX);
    // The gate lets owners see what is theirs, so it must know whose an entry is.
    let metadata = call.metadata || kernel.gate().is_guarded();
    let mut levels = resume(kernel, caller, site, node, call, as_of).await?;
    let (mut entries, mut hidden): (Vec<DirEntry>, Vec<Hidden>) = Default::default();
    let next = loop {
        let deep = levels.len() > 1;
        let Some(level) = levels.last_mut() else { break None };
        let child = match level.next(kernel, &caller.zone, page_max, metadata, &mut hidden).await {
            Ok(child) => child,
            // It was there when it was seen in its parent, and is gone since: it has no children.
            Err(error) if deep && (is_gone(&error) || !is_served(kernel, &caller.zone, &level.site)) => None,
            Err(error) => return Err(error),
        };
        let Some(child) = child else {
            levels.pop();
            continue;
        };
        let Some(mut entry) = visible(kernel, caller, &level.site, child).await? else { continue };
        entry.metadata = entry.metadata.filter(|_| call.metadata);
        if entries.len() == limit {
            break entries.last().map(|last| Cursor(last.path.clone()));
        }
        if call.recursive && entry.entry_type.is_directory() {
            levels.extend(open(kernel, caller, &entry.path, None, as_of).await?);
        }
        entries.push(entry);
    };
    let mut listing = Listing::new(entries, next);
    listing.hidden = hidden;
    Ok(listing)
}

/// The levels that a listing goes on in: the cursor's folders from the top down, and the cursor's own children last.
async fn resume(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    site: Site,
    node: Node,
    call: &SysReaddir,
    as_of: Option<Lsn>,
) -> Result<Vec<Level>> {
    let Some(Cursor(last)) = &call.cursor else {
        return Ok(vec![Level::new(site, node, None, as_of)]);
    };
    let invalid = || {
        let error = Error::new(SysReaddir::OP, &call.path, ErrorKind::InvalidArgument);
        error.because(format!("the cursor {last} is not from a listing of this directory"))
    };
    let base = site.path.clone();
    let relative = last.relative_to(&base).filter(|relative| !relative.is_empty()).ok_or_else(invalid)?;
    if !call.recursive && relative.contains('/') {
        return Err(invalid());
    }
    let mut names = relative.split('/');
    let mut levels = vec![Level::new(site, node, names.next().map(str::to_owned), as_of)];
    let mut path = base;
    for (name, next) in relative.split('/').zip(names.map(Some).chain([None])) {
        path = path.join(name).map_err(|_| invalid())?;
        if next.is_some() || call.recursive {
            levels.extend(open(kernel, caller, &path, next.map(str::to_owned), as_of).await?);
        }
    }
    Ok(levels)
}

/// The directory at `path`, to be listed after the name `after`; none when it is no longer one, or may not be listed. A link that has come on the way since leads elsewhere:
/// what is there is listed where it is.
async fn open(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    path: &VPath,
    after: Option<String>,
    as_of: Option<Lsn>,
) -> Result<Option<Level>> {
    let located = match locate_as_of(kernel, SysReaddir::OP, &caller.zone, path, false, as_of).await {
        Ok(located) => located,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if allow(kernel, caller, SysReaddir::OP, Right::List, &located).await.is_err() {
        return Ok(None);
    }
    let directory = located.node.filter(|node| node.metadata.is_directory() && located.site.path == *path);
    Ok(directory.map(|node| Level::new(located.site, node, after, as_of)))
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The children of a directory, those among them that are mount points, or lead to one, as `zone` sees them.
async fn children(
    kernel: &Arc<Kernel>,
    zone: &ZoneId,
    level: &Level,
    limit: usize,
    metadata: bool,
) -> Result<Children> {
    let Level { site, node, after, as_of, .. } = level;
    let (after, as_of) = (after.as_deref(), *as_of);
    let listed = Volume::as_of(kernel, site, as_of).list(site, node, after, limit, metadata).await;
    let Children { page: listed, more, hidden } = match listed {
        // Only a mount point below makes it a directory.
        Err(_) if as_of.is_none() && node.metadata.implicit && kernel.has_mounts_below(zone, &site.path) => {
            Children::default()
        }
        listed => listed.map_err(|error| store_error(SysReaddir::OP, &site.path, &error))?,
    };
    let mounted = kernel.mounted_children(zone, &site.path);
    if mounted.is_empty() {
        return Ok(Children { page: listed, more, hidden });
    }
    // What lies beyond this page comes with its own.
    let end = listed.last().filter(|_| more).map(|last| last.name.clone());
    let mut merged: BTreeMap<String, Child> =
        listed.into_iter().map(|child| (child.name.clone(), child)).collect();
    let is_here = |name: &String| {
        after.is_none_or(|after| name.as_str() > after) && end.as_ref().is_none_or(|end| name <= end)
    };
    for name in mounted.into_iter().filter(is_here) {
        let path =
            site.path.join(&name).map_err(|why| Error::bad_path(SysReaddir::OP, site.path.as_str(), &why))?;
        if let Some(lsn) = as_of
            && !has_past(kernel, zone, &path, lsn)?
        {
            // Nothing tells what there was then.
            continue;
        }
        let found = locate_as_of(kernel, SysReaddir::OP, zone, &path, false, as_of).await;
        // A mount that could not be started is listed all the same.
        let described = found.ok().and_then(|located| located.node).map(|node| node.metadata);
        let entry_type = described.as_ref().map_or_else(
            || match kernel.mount_seen_at(zone, &path) {
                Some(mount) => kernel.catalogue().mount_type(&mount.spec().driver),
                None => EntryType::Mount,
            },
            |metadata| metadata.entry_type,
        );
        let file_id =
            described.as_ref().map_or(nexus_messages::FileId(path.hash64()), |metadata| metadata.file_id);
        let metadata = described.filter(|_| metadata);
        merged.insert(name.clone(), Child { name, entry_type, file_id, metadata });
    }
    Ok(Children { page: merged.into_values().collect(), more, hidden })
}

/// Whether what serves `path` keeps a history that goes back to `lsn`.
fn has_past(kernel: &Arc<Kernel>, zone: &ZoneId, path: &VPath, lsn: Lsn) -> Result<bool> {
    if sys::serves(path) {
        return Ok(false);
    }
    let site = Site { mount: route(kernel, SysReaddir::OP, zone, path)?, path: path.clone() };
    match Volume::of(kernel, &site) {
        Volume::Rows(volume) => {
            volume.has_past(lsn).map_err(|error| store_error(SysReaddir::OP, path, &error))
        }
        Volume::Paths(_) | Volume::Sys(_) => Ok(false),
    }
}

/// The child as the caller sees it; none when the gate does not show it.
async fn visible(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    site: &Site,
    child: Child,
) -> Result<Option<DirEntry>> {
    // A directory that was moved deeper may hold what no path can name any more; it is reached where it is moved up again.
    let Ok(path) = site.path.join(&child.name) else { return Ok(None) };
    if !sys::permits(caller, Right::Read, &path) {
        return Ok(None);
    }
    if kernel.gate().is_guarded() {
        let owner = child.metadata.as_ref().map(|metadata| Owner::from(&**metadata));
        if kernel.gate().pass(caller, Right::Read, &path, owner).await.is_err() {
            return Ok(None);
        }
    }
    let mut entry = DirEntry::new(path, child.entry_type, child.file_id);
    entry.metadata = child.metadata;
    Ok(Some(entry))
}
