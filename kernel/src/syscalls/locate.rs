//! From a path to what is there: routing, and following links.
//!
//! Most paths have no link in them: one route and one walk, or a look into the cache. Only when a walk meets a link are the components
//! taken one by one, as POSIX does: `..` in a target is the parent of where the link leads, not of its text.

use std::collections::VecDeque;
use std::sync::Arc;

use nexus_messages::{
    EntryType, Error, ErrorKind, FileId, FileMetadata, Lsn, Op, Result, Timestamp, VPath, ZoneId,
};

use crate::hal::StoreError;
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::{Node, Placement};
use crate::sys;
use crate::volume::{Memory, Site, Volume, store_error};

/// How many links one path may lead through.
pub(crate) const LINKS_MAX: usize = 40;

/// How often a call is resolved anew because what it was resolved to changed meanwhile.
pub(crate) const ATTEMPTS_MAX: usize = 64;

/// A resolved path, and what is there.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) site: Site,
    /// None when nothing is there.
    pub(crate) node: Option<Node>,
    /// What it is only reached by while it is as it was: the links that were followed, and each directory that `..` led out of, or `.` into at the
    /// end. Empty for a path without links.
    pub(crate) way: Vec<VPath>,
}

impl Located {
    /// Whether both are the same entry, served by the same mount.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let entry = |located: &Self| {
            located.node.as_ref().map(|node| (node.metadata.file_id, node.metadata.entry_type))
        };
        Arc::ptr_eq(&self.site.mount, &other.site.mount)
            && self.site.path == other.site.path
            && entry(self) == entry(other)
    }

    /// Whether both are the same entry with the same content.
    pub(crate) fn has_same_content(&self, other: &Self) -> bool {
        let content = |located: &Self| located.node.as_ref().map(|node| node.metadata.content_id.clone());
        self.is_same(other) && content(self) == content(other)
    }

    /// What is there, or `ENOENT`.
    pub(crate) fn existing(self, op: Op) -> Result<(Site, Node)> {
        match self.node {
            Some(node) => Ok((self.site, node)),
            None => Err(Error::new(op, &self.site.path, ErrorKind::NotFound)),
        }
    }

    /// As [`existing`](Self::existing), of what has content.
    pub(crate) fn existing_file(self, op: Op) -> Result<(Site, Node)> {
        let (site, node) = self.existing(op)?;
        match node.metadata.entry_type {
            EntryType::Reg => Ok((site, node)),
            directory if directory.is_directory() => Err(Error::new(op, &site.path, ErrorKind::IsADirectory)),
            _ => Err(Error::new(op, &site.path, ErrorKind::NotSupported)),
        }
    }
}

/// What is asked of what is there.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// What is there now, as far as it is remembered.
    Now,
    /// What is there now by the rows. What is remembered is told of a moment after the rows change: who sees both in turn may find that they
    /// contradict each other for as long as that takes.
    NowByRows,
    /// What was there as of a place in the log.
    Past(Lsn),
}

impl Source {
    fn as_of(self) -> Option<Lsn> {
        match self {
            Self::Now | Self::NowByRows => None,
            Self::Past(lsn) => Some(lsn),
        }
    }

    /// What a call of the kind `op` has to do with what is remembered.
    fn memory(self, op: Op) -> Memory {
        match self {
            // What it finds is another one in a moment.
            Self::Now if op == Op::Write => Memory::Asked,
            Self::Now => Memory::Filed,
            Self::NowByRows | Self::Past(_) => Memory::Passed,
        }
    }

    /// After what was remembered may have been what was in the way.
    fn again(self) -> Self {
        match self {
            Self::Now => Self::NowByRows,
            other => other,
        }
    }
}

/// What a path leads to before any link is followed.
enum Sight {
    /// This is there, or nothing is.
    Plain(Located),
    /// A link stands on the way, or at the end.
    Link,
}

/// The mount that serves `path` in `zone`.
pub(crate) fn route(kernel: &Kernel, op: Op, zone: &ZoneId, path: &VPath) -> Result<Arc<Mount>> {
    let mount = kernel.routes().read(|routes| routes.route(zone, path).map(|routed| routed.mount.clone()));
    let mount = mount.ok_or_else(|| Error::new(op, path, ErrorKind::NoMount))?;
    match mount.failure() {
        None => Ok(mount),
        Some(cause) => {
            let told = Error::new(op, path, ErrorKind::Unavailable);
            Err(told.because(format!("the mount {} could not be started: {cause}", mount.point)))
        }
    }
}

/// Follows `path` to where it leads; a link at its end only when `follow`.
pub(crate) async fn locate(
    kernel: &Arc<Kernel>,
    op: Op,
    zone: &ZoneId,
    path: &VPath,
    follow: bool,
) -> Result<Located> {
    locate_as_of(kernel, op, zone, path, follow, None).await
}

/// As [`locate`], where it led as of a place in the log. Mounts are where they are now.
pub(crate) async fn locate_as_of(
    kernel: &Arc<Kernel>,
    op: Op,
    zone: &ZoneId,
    path: &VPath,
    follow: bool,
    as_of: Option<Lsn>,
) -> Result<Located> {
    let mut source = as_of.map_or(Source::Now, Source::Past);
    if let Sight::Plain(located) = sight(kernel, op, zone, path, follow, source).await? {
        return Ok(located);
    }
    for _ in 0..ATTEMPTS_MAX {
        if let Some(located) = Box::pin(step_by_step(kernel, op, zone, path, follow, source)).await? {
            return Ok(located);
        }
        source = source.again();
    }
    let error = Error::new(op, path, ErrorKind::Busy);
    Err(error.because(format!("links came and went on its way {ATTEMPTS_MAX} times in a row")))
}

/// Where `path` leads once the file that stands on its way is gone; none when no file does, or a link before it.
pub(crate) fn beyond_a_file(
    kernel: &Arc<Kernel>,
    op: Op,
    zone: &ZoneId,
    path: &VPath,
) -> Result<Option<Located>> {
    let site = Site { mount: route(kernel, op, zone, path)?, path: path.clone() };
    let Volume::Rows(volume) = Volume::of(kernel, &site) else { return Ok(None) };
    let beyond = volume.is_beyond_a_file(&site).map_err(|error| store_error(op, path, &error))?;
    Ok(beyond.then(|| Located { site, node: None, way: Vec::new() }))
}

/// Where `path` leads if no link is on the way, without a look at what is there; none where somebody is to be asked about that first, or would be told
/// of a link too late.
pub(crate) fn straight(kernel: &Arc<Kernel>, op: Op, zone: &ZoneId, path: &VPath) -> Option<Located> {
    if kernel.gate().is_guarded() || sys::serves(path) {
        return None;
    }
    let mount = route(kernel, op, zone, path).ok()?;
    // A link may lead from what takes no changes, or keeps none, to what does.
    if mount.is_path_addressed() || mount.is_read_only() || mount.forgets() {
        return None;
    }
    Some(Located { site: Site { mount, path: path.clone() }, node: None, way: Vec::new() })
}

/// Whether the mount that `site` was routed to still serves it.
pub(crate) fn is_served(kernel: &Kernel, zone: &ZoneId, site: &Site) -> bool {
    if sys::serves(&site.path) {
        return true;
    }
    kernel.routes().read(|routes| {
        routes.route(zone, &site.path).is_some_and(|routed| Arc::ptr_eq(routed.mount, &site.mount))
    })
}

async fn sight(
    kernel: &Arc<Kernel>,
    op: Op,
    zone: &ZoneId,
    path: &VPath,
    follow: bool,
    source: Source,
) -> Result<Sight> {
    let as_of = source.as_of();
    let mut attempts = 0..ATTEMPTS_MAX;
    loop {
        let mount =
            if sys::serves(path) { kernel.sys_mount().clone() } else { route(kernel, op, zone, path)? };
        let site = Site { mount, path: path.clone() };
        let found = match Volume::as_of(kernel, &site, as_of) {
            Volume::Sys(_) | Volume::Paths(_) if as_of.is_some() => Err(NO_PAST),
            Volume::Sys(volume) => volume.find(zone, path).map(Some),
            Volume::Rows(volume) => volume.look(&site, follow, source.memory(op)),
            Volume::Paths(volume) => match volume.find(&site).await {
                Ok(Some(node)) if follow && node.metadata.entry_type == EntryType::Link => {
                    return Ok(Sight::Link);
                }
                // The driver follows nothing: a link on the way is, to it, no directory.
                Err(StoreError::NotADirectory { .. }) => Ok(None),
                found => found.map(Some),
            },
        };
        return match found {
            Ok(Some(Some(node))) => Ok(Sight::Plain(Located { site, node: Some(node), way: Vec::new() })),
            Ok(Some(None)) => {
                let node = implied(kernel, zone, &site);
                Ok(Sight::Plain(Located { site, node, way: Vec::new() }))
            }
            Ok(None) => Ok(Sight::Link),
            // It was detached while it was asked: another one serves the path now, or none.
            Err(_) if !is_served(kernel, zone, &site) && attempts.next().is_some() => continue,
            Err(error) => Err(store_error(op, path, &error)),
        };
    }
}

/// A directory that exists only because a mount point lies below it.
fn implied(kernel: &Kernel, zone: &ZoneId, site: &Site) -> Option<Node> {
    let mount = &site.mount;
    kernel.has_mounts_below(zone, &site.path).then(|| {
        let id = FileId(site.path.hash64());
        let at = Timestamp::default();
        let mut metadata = FileMetadata::new(site.path.clone(), mount.zone.clone(), id, EntryType::Dir, at);
        metadata.implicit = true;
        Node { metadata: Arc::new(metadata), placement: Placement::None }
    })
}

/// What is told of the past where no row tells of it.
pub(crate) const NO_PAST: StoreError = StoreError::NotSupported { what: "what was there before" };

/// Takes the components one by one. None when a step that was a directory is a link, or a file, at the next look.
async fn step_by_step(
    kernel: &Arc<Kernel>,
    op: Op,
    zone: &ZoneId,
    path: &VPath,
    follow: bool,
    source: Source,
) -> Result<Option<Located>> {
    let fail = |kind| Error::new(op, path, kind);
    let mut here = VPath::root();
    let mut pending: VecDeque<String> = path.components().map(str::to_owned).collect();
    let mut way = Vec::new();
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        match name.as_str() {
            "" => continue,
            "." => {
                if pending.is_empty() {
                    way.push(here.clone());
                }
                continue;
            }
            ".." => {
                if let Some(parent) = here.parent() {
                    way.push(std::mem::replace(&mut here, parent));
                }
                continue;
            }
            _ => {}
        }
        let next = here.join(&name).map_err(|why| Error::bad_path(op, path.as_str(), &why))?;
        let last = pending.is_empty();
        let Sight::Plain(Located { node, .. }) = sight(kernel, op, zone, &next, false, source).await? else {
            return Ok(None);
        };
        match node {
            Some(node) if node.metadata.entry_type == EntryType::Link && (!last || follow) => {
                way.push(next);
                links += 1;
                if links > LINKS_MAX {
                    return Err(fail(ErrorKind::TooManyLinks));
                }
                let target = node.metadata.link_target.clone().unwrap_or_default();
                for name in target.split('/').rev().filter(|name| !name.is_empty()) {
                    pending.push_front(name.to_owned());
                }
                if target.starts_with('/') {
                    here = VPath::root();
                }
            }
            Some(node) if !last && !node.metadata.is_directory() => {
                return Err(fail(ErrorKind::NotADirectory));
            }
            None if pending.iter().any(|name| name == "..") => return Err(fail(ErrorKind::NotFound)),
            _ => here = next,
        }
    }
    match sight(kernel, op, zone, &here, false, source).await? {
        Sight::Plain(located) => Ok(Some(Located { way, ..located })),
        Sight::Link => Ok(None),
    }
}
