//! A small file system in memory: the pure core of [`MemoryPaths`](super::MemoryPaths). Handed the time; does no I/O.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nexus_kernel::hal::{ListPage, ObjectInfo, PathWrite, StoreError};
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};

use super::transport::joined;
use crate::path::{components, split_last};

/// The content of a file never grows beyond this, whatever offset is written to.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// Files, directories and links by their number.
#[derive(Debug)]
pub(super) struct Nodes {
    // Invariant: each node but the root is the child of exactly one directory, and each child is in it.
    nodes: BTreeMap<u64, Node>,
    next_inode: u64,
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    inode: u64,
    mode: u32,
    modified: Timestamp,
    created: Timestamp,
    /// How often the content was changed.
    changes: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    File(Bytes),
    Directory(BTreeMap<String, u64>),
    Link(Arc<str>),
}

const ROOT_INODE: u64 = 1;

impl Default for Nodes {
    fn default() -> Self {
        let mut nodes = Self { nodes: BTreeMap::new(), next_inode: ROOT_INODE };
        nodes.add(Kind::Directory(BTreeMap::new()), Timestamp::default());
        nodes
    }
}

impl Node {
    fn entry_type(&self) -> EntryType {
        match self.kind {
            Kind::File(_) => EntryType::Reg,
            Kind::Directory(_) => EntryType::Dir,
            Kind::Link(_) => EntryType::Link,
        }
    }

    fn tag(&self) -> ContentId {
        ContentId::Tag(format!("{:x}-{:x}", self.inode, self.changes).into())
    }

    fn info(&self) -> ObjectInfo {
        let size = match &self.kind {
            Kind::File(content) => content.len() as u64,
            Kind::Directory(_) => 0,
            Kind::Link(target) => target.len() as u64,
        };
        let mut info = ObjectInfo::new(self.entry_type(), size, self.tag(), self.modified);
        info.inode = self.inode;
        info.mode = self.mode;
        info.created = self.created;
        if let Kind::Link(target) = &self.kind {
            info.link_target = Some(target.clone());
        }
        info
    }

    fn set(&mut self, attributes: &Attributes) {
        self.mode = attributes.mode.unwrap_or(self.mode);
        self.modified = attributes.modified.unwrap_or(self.modified);
        self.created = attributes.created.unwrap_or(self.created);
    }
}

fn missing(path: &str) -> StoreError {
    StoreError::NotFound { what: path.into() }
}

fn exists(path: &str) -> StoreError {
    StoreError::Exists { what: path.into() }
}

fn not_a_directory(path: &str) -> StoreError {
    StoreError::NotADirectory { what: path.into() }
}

impl Nodes {
    pub(super) fn stat(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        Ok(self.node(self.find(path)?)?.info())
    }

    /// The file's content and what it is.
    pub(super) fn content(&self, path: &str) -> Result<(Bytes, ObjectInfo), StoreError> {
        let node = self.node(self.find(path)?)?;
        match &node.kind {
            Kind::File(content) => Ok((content.clone(), node.info())),
            Kind::Directory(_) => Err(StoreError::IsADirectory { what: path.into() }),
            Kind::Link(_) => Err(StoreError::NotSupported { what: "the content of a link" }),
        }
    }

    pub(super) fn write(
        &mut self,
        path: &str,
        data: &[Bytes],
        how: PathWrite,
        attributes: &Attributes,
        now: Timestamp,
    ) -> Result<ObjectInfo, StoreError> {
        let (parents, name) = split_last(path)?;
        if matches!(how, PathWrite::IfMatch(_)) && matches!(self.find(path), Err(StoreError::NotFound { .. }))
        {
            return Err(StoreError::Changed { what: path.into() });
        }
        let parent = self.make_parents(&parents, now)?;
        let there = self.children(parent, path)?.get(name).copied();
        let there_now = there.map(|inode| self.node(inode)).transpose()?;
        let old = match there_now.map(|node| &node.kind) {
            Some(_) if how == PathWrite::Exclusive => return Err(exists(path)),
            Some(Kind::Directory(_)) => return Err(StoreError::IsADirectory { what: path.into() }),
            Some(Kind::Link(_)) => return Err(StoreError::NotSupported { what: "writing through a link" }),
            Some(Kind::File(content)) => content.clone(),
            None => Bytes::new(),
        };
        let content = match how {
            PathWrite::At { offset, truncate } => splice(&old, offset, &joined(data), truncate)?,
            PathWrite::Append => splice(&old, old.len() as u64, &joined(data), false)?,
            PathWrite::IfMatch(tag) if there_now.is_none_or(|node| node.tag() != tag) => {
                return Err(StoreError::Changed { what: path.into() });
            }
            _ => joined(data),
        };
        let inode = match there {
            Some(inode) => inode,
            None => self.add_child(parent, name, Kind::File(Bytes::new()), now)?,
        };
        let node = self.node_mut(inode)?;
        node.kind = Kind::File(content);
        node.changes += 1;
        node.modified = now;
        node.set(attributes);
        Ok(node.info())
    }

    pub(super) fn delete(&mut self, path: &str) -> Result<(), StoreError> {
        let (parents, name) = split_last(path)?;
        let (parent, inode) = (self.walk(&parents)?, self.find(path)?);
        if matches!(&self.node(inode)?.kind, Kind::Directory(children) if !children.is_empty()) {
            return Err(StoreError::NotEmpty { what: path.into() });
        }
        self.children_mut(parent)?.remove(name);
        self.nodes.remove(&inode);
        Ok(())
    }

    pub(super) fn list(&self, path: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut children = self.children(self.find(path)?, path)?.range::<str, _>((start, Bound::Unbounded));
        let page = children.by_ref().take(limit);
        let entries: Result<_, StoreError> =
            page.map(|(name, inode)| Ok((name.clone(), self.node(*inode)?.info()))).collect();
        let more = children.next().is_some();
        Ok(ListPage::new(entries?, more, 0))
    }

    pub(super) fn make_directory(
        &mut self,
        path: &str,
        attributes: &Attributes,
        now: Timestamp,
    ) -> Result<ObjectInfo, StoreError> {
        let inode = self.make(path, Kind::Directory(BTreeMap::new()), now)?;
        let node = self.node_mut(inode)?;
        node.set(attributes);
        Ok(node.info())
    }

    pub(super) fn make_link(
        &mut self,
        path: &str,
        target: &str,
        now: Timestamp,
    ) -> Result<ObjectInfo, StoreError> {
        let inode = self.make(path, Kind::Link(Arc::from(target)), now)?;
        Ok(self.node(inode)?.info())
    }

    pub(super) fn set_attributes(
        &mut self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        let inode = self.find(path)?;
        let node = self.node_mut(inode)?;
        node.set(attributes);
        Ok(node.info())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<ObjectInfo, StoreError> {
        let ((from_parents, from_name), (to_parents, to_name)) = (split_last(from)?, split_last(to)?);
        let (moved, from_parent) = (self.find(from)?, self.walk(&from_parents)?);
        let info = self.node(moved)?.info();
        if to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
            return Err(StoreError::BadOption { why: format!("{from} cannot be moved into itself") });
        }
        let to_parent = self.walk(&to_parents)?;
        if let Some(there) = self.children(to_parent, to)?.get(to_name).copied() {
            if there == moved {
                return Ok(info);
            }
            match (&self.node(there)?.kind, info.entry_type) {
                (Kind::Directory(children), EntryType::Dir) if !children.is_empty() => {
                    return Err(StoreError::NotEmpty { what: to.into() });
                }
                (Kind::Directory(_), EntryType::Dir) => {}
                (Kind::Directory(_), _) => return Err(StoreError::IsADirectory { what: to.into() }),
                (_, EntryType::Dir) => return Err(not_a_directory(to)),
                _ => {}
            }
            self.nodes.remove(&there);
        }
        self.children_mut(from_parent)?.remove(from_name);
        self.children_mut(to_parent)?.insert(to_name.into(), moved);
        Ok(info)
    }

    fn find(&self, path: &str) -> Result<u64, StoreError> {
        self.walk(&components(path)?)
    }

    fn walk(&self, names: &[&str]) -> Result<u64, StoreError> {
        names.iter().enumerate().try_fold(ROOT_INODE, |inode, (depth, name)| {
            let children = self.children(inode, &names[..depth].join("/"))?;
            children.get(*name).copied().ok_or_else(|| missing(&names[..=depth].join("/")))
        })
    }

    fn make_parents(&mut self, names: &[&str], now: Timestamp) -> Result<u64, StoreError> {
        let mut inode = ROOT_INODE;
        for (depth, name) in names.iter().enumerate() {
            let there = self.children(inode, &names[..depth].join("/"))?.get(*name).copied();
            inode = match there {
                Some(child) => child,
                None => self.add_child(inode, name, Kind::Directory(BTreeMap::new()), now)?,
            };
        }
        Ok(inode)
    }

    /// A new node at `path`, with its parents.
    fn make(&mut self, path: &str, kind: Kind, now: Timestamp) -> Result<u64, StoreError> {
        let (parents, name) = split_last(path).map_err(|error| match path {
            "" => exists(path),
            _ => error,
        })?;
        let parent = self.make_parents(&parents, now)?;
        match self.children(parent, path)?.contains_key(name) {
            true => Err(exists(path)),
            false => self.add_child(parent, name, kind, now),
        }
    }

    fn add(&mut self, kind: Kind, now: Timestamp) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        let mut node = Node { kind, inode, mode: 0, modified: now, created: now, changes: 0 };
        node.mode = node.entry_type().default_mode();
        self.nodes.insert(inode, node);
        inode
    }

    fn add_child(&mut self, parent: u64, name: &str, kind: Kind, now: Timestamp) -> Result<u64, StoreError> {
        let inode = self.add(kind, now);
        self.children_mut(parent)?.insert(name.into(), inode);
        Ok(inode)
    }

    fn node(&self, inode: u64) -> Result<&Node, StoreError> {
        self.nodes.get(&inode).ok_or_else(|| missing("a node"))
    }

    fn node_mut(&mut self, inode: u64) -> Result<&mut Node, StoreError> {
        self.nodes.get_mut(&inode).ok_or_else(|| missing("a node"))
    }

    /// The children of `inode`, which is at `path`.
    fn children(&self, inode: u64, path: &str) -> Result<&BTreeMap<String, u64>, StoreError> {
        match &self.node(inode)?.kind {
            Kind::Directory(children) => Ok(children),
            _ => Err(not_a_directory(path)),
        }
    }

    fn children_mut(&mut self, inode: u64) -> Result<&mut BTreeMap<String, u64>, StoreError> {
        match &mut self.node_mut(inode)?.kind {
            Kind::Directory(children) => Ok(children),
            _ => Err(not_a_directory("a parent")),
        }
    }
}

/// `data` written into `old` at `offset`.
fn splice(old: &Bytes, offset: u64, data: &Bytes, truncate: bool) -> Result<Bytes, StoreError> {
    let too_large =
        || StoreError::BadOption { why: format!("a file in memory has at most {FILE_BYTES_MAX} bytes") };
    let end =
        offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX).ok_or_else(too_large)?;
    let start = usize::try_from(offset).map_err(|_| too_large())?;
    let end = usize::try_from(end).map_err(|_| too_large())?;
    if data.is_empty() && !truncate {
        return Ok(old.clone());
    }
    let mut new = BytesMut::from(&old[..]);
    new.resize(if truncate { end } else { old.len().max(end) }, 0);
    new[start..end].copy_from_slice(data);
    Ok(new.freeze())
}
