//! `/__sys__/` as the syscalls see it: a volume beside those of mounts.

use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::{
    Copied, Create, Extent, MountSpec, Precondition, Renamed, SetattrDone, SysCopy, SysRename, SysSetattr,
    SysUnlink, SysWrite, Unlinked, Written,
};
use nexus_messages::{
    Caller, EntryType, Error, ErrorKind, FileId, FileMetadata, Op, Result, Timestamp, VPath, ZoneId,
};

use super::{Change, Entry, PROVIDERS, Provider, ROOT};
use crate::content;
use crate::hal::{StoreError, TreeId};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::{Node, Placement};
use crate::volume::{Child, Intent, Runs, Site, Stop, store_error, taken_for};

/// What stands in for a mount where a path is resolved to one: it is never routed to, and has no driver.
pub(crate) fn mount() -> Arc<Mount> {
    let point = VPath::parse(ROOT).expect("it is written as a path");
    let root = FileId(point.hash64());
    Arc::new(Mount::new(root, ZoneId::root(), TreeId::ROOT, point, MountSpec::new("sys"), 0))
}

/// `/__sys__/` of one kernel.
pub(crate) struct SysVolume<'a> {
    pub(crate) kernel: &'a Arc<Kernel>,
}

/// The provider that serves a path, and the path below its name.
struct Served<'p> {
    provider: &'static dyn Provider,
    at: Vec<&'p str>,
}

fn served(path: &VPath) -> Option<Served<'_>> {
    let mut components = path.components().skip(1);
    let name = components.next()?;
    let provider = PROVIDERS.iter().find(|provider| provider.name() == name)?;
    Some(Served { provider: *provider, at: components.collect() })
}

fn top() -> Entry {
    Entry::directory(PROVIDERS.iter().map(|provider| (provider.name(), provider.is_directory())))
}

impl SysVolume<'_> {
    /// What is at `path`, as `zone` sees it.
    pub(crate) fn find(&self, zone: &ZoneId, path: &VPath) -> Result<Option<Node>, StoreError> {
        match self.look(path)? {
            Some(entry) => Ok(Some(self.node(zone, path, &entry))),
            None => Ok(None),
        }
    }

    fn look(&self, path: &VPath) -> Result<Option<Entry>, StoreError> {
        if path.as_str() == ROOT {
            return Ok(Some(top()));
        }
        let Some(Served { provider, at }) = served(path) else { return Ok(None) };
        if let Some(entry) = provider.look(self.kernel, &at) {
            return Ok(Some(entry));
        }
        // Nothing is below a file.
        let above = (0..at.len()).rev().find_map(|depth| provider.look(self.kernel, &at[..depth]));
        match above {
            Some(Entry::File { .. }) => Err(StoreError::NotADirectory { what: path.to_string() }),
            _ => Ok(None),
        }
    }

    fn node(&self, zone: &ZoneId, path: &VPath, entry: &Entry) -> Node {
        let at = Timestamp(self.kernel.env().wall());
        let id = FileId(path.hash64());
        let served = served(path);
        let writable = served.is_some_and(|served| served.provider.is_writable(&served.at));
        let entry_type = match entry {
            Entry::Directory(_) => EntryType::Dir,
            Entry::File { .. } => EntryType::Reg,
        };
        let mut metadata = FileMetadata::new(path.clone(), zone.clone(), id, entry_type, at);
        metadata.owner = Caller::KERNEL.into();
        match entry {
            Entry::Directory(_) => metadata.mode = 0o555,
            Entry::File { content, mime } => {
                metadata.mode = if writable { 0o644 } else { 0o444 };
                metadata.size = content.len() as u64;
                metadata.mime_type = Some((*mime).into());
            }
        }
        Node { metadata: Arc::new(metadata), placement: Placement::None }
    }

    pub(crate) fn list(
        &self,
        site: &Site,
        node: &Node,
        after: Option<&str>,
        limit: usize,
        metadata: bool,
    ) -> Result<(Vec<Child>, bool), StoreError> {
        let Some(Entry::Directory(names)) = self.look(&site.path)? else {
            return Err(StoreError::NotFound { what: site.path.to_string() });
        };
        let mut names = names.into_iter().filter(|(name, _)| after.is_none_or(|after| &**name > after));
        let mut children = Vec::new();
        for (name, entry_type) in names.by_ref().take(limit) {
            let path = site.path.join(&name);
            let found = match &path {
                Ok(path) if metadata => self.find(&node.metadata.zone, path)?,
                _ => None,
            };
            let file_id = FileId(path.map_or(0, |path| path.hash64()));
            children.push(Child { name, entry_type, file_id, metadata: found.map(|node| node.metadata) });
        }
        Ok((children, names.next().is_some()))
    }

    /// What is there now, cut: not what was there when the path was resolved.
    #[expect(clippy::unused_async, reason = "volumes are asked alike")]
    pub(crate) async fn read(
        &self,
        site: &Site,
        node: &Node,
        extent: &Extent,
    ) -> Result<(Runs, Arc<FileMetadata>), StoreError> {
        match self.look(&site.path)? {
            Some(entry @ Entry::File { .. }) => {
                let metadata = self.node(&node.metadata.zone, &site.path, &entry).metadata;
                let content = match entry {
                    Entry::File { content, .. } => content,
                    Entry::Directory(_) => Bytes::new(),
                };
                Ok((content::runs(&content, extent), metadata))
            }
            Some(Entry::Directory(_)) => Err(StoreError::IsADirectory { what: site.path.to_string() }),
            None => Err(StoreError::NotFound { what: site.path.to_string() }),
        }
    }

    pub(crate) async fn write(&self, site: &Site, intent: &Intent, call: &SysWrite) -> Result<Written, Stop> {
        let found = self.here(site, intent)?;
        unconditional(site, intent, &call.precondition)?;
        let found = match (found, call.create) {
            (None, Create::Never) => return Err(intent.fail(&site.path, ErrorKind::NotFound)),
            (None, _) => return Err(read_only(intent, &site.path)),
            (Some(_), Create::Exclusive) => return Err(intent.fail(&site.path, ErrorKind::AlreadyExists)),
            (Some(node), _) if node.metadata.is_directory() => {
                return Err(intent.fail(&site.path, ErrorKind::IsADirectory));
            }
            (Some(node), _) => node,
        };
        let served = served(&site.path).filter(|served| served.provider.is_writable(&served.at));
        let Some(Served { provider, at }) = served else { return Err(read_only(intent, &site.path)) };
        let change = self.change(site, intent, at);
        let before = change.receipt()?;
        provider.write(change.clone(), call).await?;
        // It is done, also when it was the end of the kernel, and of its store.
        let receipt = change.receipt().unwrap_or(before);
        // What it shows of itself now; what was written is no content of it.
        let now = self.here(site, intent).ok().flatten().unwrap_or(found);
        let size = now.metadata.size;
        Ok(Written::new(content::length(&call.data), Some(size), now.metadata, receipt))
    }

    pub(crate) async fn set(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysSetattr,
    ) -> Result<SetattrDone, Stop> {
        match (self.here(site, intent)?, call.create) {
            (None, Create::Never) => return Err(intent.fail(&site.path, ErrorKind::NotFound)),
            // Of a service, the registry knows better whether it is the same.
            (Some(_), Create::Exclusive) if call.service.is_none() => {
                return Err(intent.fail(&site.path, ErrorKind::AlreadyExists));
            }
            // As `mkdir -p` of what is there.
            (Some(node), _) if node.metadata.is_directory() && call.entry_type == Some(EntryType::Dir) => {
                let receipt = self.change(site, intent, Vec::new()).receipt()?;
                return Ok(SetattrDone::new(false, Vec::new(), node.metadata, receipt));
            }
            _ => {}
        }
        let Some(Served { provider, at }) = served(&site.path) else {
            return Err(read_only(intent, &site.path));
        };
        Ok(provider.set(self.change(site, intent, at), call).await?)
    }

    pub(crate) async fn unlink(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysUnlink,
    ) -> Result<Unlinked, Stop> {
        let Some(node) = self.here(site, intent)? else {
            return Err(intent.fail(&site.path, ErrorKind::NotFound));
        };
        taken_for(intent, &site.path, node.metadata.entry_type, call.expect)?;
        unconditional(site, intent, &call.precondition)?;
        let Some(Served { provider, at }) = served(&site.path) else {
            let error = Error::new(intent.op, &site.path, ErrorKind::Busy);
            return Err(error.because("it is the kernel's own").into());
        };
        Ok(provider.unlink(self.change(site, intent, at), call).await?)
    }

    #[expect(clippy::unused_async, reason = "volumes are asked alike")]
    pub(crate) async fn rename(
        &self,
        from: &Site,
        _: &Site,
        intent: &Intent,
        _: &SysRename,
        _: bool,
    ) -> Result<Renamed, Stop> {
        Err(read_only(intent, &from.path))
    }

    #[expect(clippy::unused_async, reason = "volumes are asked alike")]
    pub(crate) async fn copy(
        &self,
        _: &Site,
        _: &Node,
        to: &Site,
        intent: &Intent,
        _: &SysCopy,
    ) -> Result<Copied, Stop> {
        Err(read_only(intent, &to.path))
    }

    /// What is at `site` now.
    fn here(&self, site: &Site, intent: &Intent) -> Result<Option<Node>, Stop> {
        let found = self.find(&intent.caller.zone, &site.path);
        Ok(found.map_err(|error| store_error(intent.op, &site.path, &error))?)
    }

    fn change<'c>(&'c self, site: &'c Site, intent: &'c Intent, at: Vec<&'c str>) -> Change<'c> {
        Change { kernel: self.kernel, intent, path: &site.path, at }
    }
}

fn read_only(intent: &Intent, path: &VPath) -> Stop {
    let error = Error::new(intent.op, path, ErrorKind::ReadOnly);
    error.because("it shows what the kernel does").into()
}

/// What is made anew at each look has no version to go by.
fn unconditional(site: &Site, intent: &Intent, expected: &Precondition) -> Result<(), Stop> {
    if *expected == Precondition::None {
        return Ok(());
    }
    let error = Error::new(intent.op, &site.path, ErrorKind::NotSupported);
    Err(error.because("what the kernel shows has no version to expect").into())
}

/// Mounting at `point` is refused when it is the kernel's own.
pub(crate) fn not_to_be_covered(point: &VPath) -> Result<()> {
    if !super::serves(point) {
        return Ok(());
    }
    Err(Error::new(Op::Mount, point, ErrorKind::Busy).because("it is the kernel's own"))
}
