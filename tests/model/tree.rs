//! A file system that is too simple to be wrong: a tree of nodes, changed by one call after the other.

use std::collections::{BTreeMap, VecDeque};

use nexus::Bytes;
use nexus::ErrorKind::{self, *};
use nexus::{Create, EntryType, Expect, Parents};

use crate::calls::{Call, Expected, Given, Place};

/// Names from the root down.
pub(crate) type Names = Vec<String>;

/// What a call gives, told in words, or the kind of its error.
pub(crate) type Answer = Result<String, ErrorKind>;

/// All that is there: each entry in words, and its content as [`told_content`] tells it.
pub(crate) type Seen = Vec<(String, String)>;

#[derive(Debug, Clone)]
pub(crate) enum Node {
    File { data: Bytes, version: u64, attributes: Set },
    Dir { children: BTreeMap<String, Node>, implicit: bool, attributes: Set },
    Link { target: String },
}

/// Attributes; times, the owner and the media type only as far as somebody set them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) mode: u32,
    pub(crate) owner: Option<String>,
    pub(crate) mime: Option<String>,
    pub(crate) modified: Option<u64>,
    pub(crate) created: Option<u64>,
}

impl Set {
    fn of(mode: u32) -> Self {
        Self { mode, owner: None, mime: None, modified: None, created: None }
    }

    fn with(mut self, given: &Given) -> Self {
        let Given { mode, owner, mime, modified, created } = given;
        self.mode = mode.unwrap_or(self.mode);
        self.owner = owner.map(str::to_owned).or(self.owner);
        self.mime = mime.map(str::to_owned).or(self.mime);
        self.modified = modified.or(self.modified);
        self.created = created.or(self.created);
        self
    }

    /// As it is told; on mounts without rows, the mode alone.
    pub(crate) fn told(&self, rows: bool) -> String {
        match rows {
            true => format!("{:o} {:?}", self.mode, (&self.owner, &self.mime, self.modified, self.created)),
            false => format!("{:o}", self.mode),
        }
    }
}

/// The whole file system.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: Node,
    /// Whether parents exist by implication, files have versions and so on: mounts whose names are rows. On the others, parents are made, and
    /// the backend has no versions.
    rows: bool,
    /// Within a transaction, implicit directories stay.
    within: bool,
}

fn directory(implicit: bool) -> Node {
    Node::Dir { children: BTreeMap::new(), implicit, attributes: Set::of(0o755) }
}

pub(crate) fn names(path: &str) -> Names {
    path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

pub(crate) fn text(names: &[String]) -> String {
    format!("/{}", names.join("/"))
}

/// What a file is, as answers tell it. Versions are none where the backend has none.
pub(crate) fn told_file(path: &str, size: u64, versions: Option<(u64, u64)>, set: &str) -> String {
    format!("file {path} of {size} mode {set} {versions:?}")
}

pub(crate) fn told_dir(path: &str, implicit: bool, set: &str) -> String {
    format!("dir {path} mode {set}{}", if implicit { " implicit" } else { "" })
}

pub(crate) fn told_link(path: &str, target: &str) -> String {
    format!("link {path} to {target}")
}

/// What content is, in few words.
pub(crate) fn told_content<D: AsRef<[u8]>>(runs: impl IntoIterator<Item = D>) -> String {
    let mut hasher = blake3::Hasher::new();
    for run in runs {
        hasher.update(run.as_ref());
    }
    format!("{} bytes {}", hasher.count(), hasher.finalize().to_hex())
}

impl Node {
    fn is_dir(&self) -> bool {
        matches!(self, Self::Dir { .. })
    }

    fn is_vacant(&self) -> bool {
        matches!(self, Self::Dir { children, .. } if children.is_empty())
    }

    fn entry_type(&self) -> EntryType {
        match self {
            Self::File { .. } => EntryType::Reg,
            Self::Dir { .. } => EntryType::Dir,
            Self::Link { .. } => EntryType::Link,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Dir { children, .. } => 1 + children.values().map(Self::count).sum::<usize>(),
            _ => 1,
        }
    }
}

impl Tree {
    pub(crate) fn new(rows: bool) -> Self {
        Self { root: directory(false), rows, within: false }
    }

    pub(crate) fn get(&self, at: &[String]) -> Option<&Node> {
        at.iter().try_fold(&self.root, |node, name| match node {
            Node::Dir { children, .. } => children.get(name),
            _ => None,
        })
    }

    fn get_mut(&mut self, at: &[String]) -> Option<&mut Node> {
        at.iter().try_fold(&mut self.root, |node, name| match node {
            Node::Dir { children, .. } => children.get_mut(name),
            _ => None,
        })
    }

    /// Puts `node` at a path, over what is there, with the parents that it lacks.
    fn put(&mut self, at: &[String], new: Node, implicit: bool) {
        let implicit = implicit && self.rows;
        let (name, parents) = at.split_last().expect("the root is never made");
        let parent = parents.iter().fold(&mut self.root, |node, name| match node {
            Node::Dir { children, .. } => children.entry(name.clone()).or_insert_with(|| directory(implicit)),
            _ => unreachable!("resolved"),
        });
        match parent {
            Node::Dir { children, .. } => children.insert(name.clone(), new),
            _ => unreachable!("resolved"),
        };
    }

    fn take(&mut self, at: &[String]) -> Option<Node> {
        let (name, parents) = at.split_last()?;
        match self.get_mut(parents)? {
            Node::Dir { children, .. } => children.remove(name),
            _ => None,
        }
    }

    /// Lets the implicit directories above `at` go that hold nothing.
    fn prune(&mut self, at: &[String]) {
        if self.within {
            return;
        }
        for depth in (1..at.len()).rev() {
            match self.get(&at[..depth]) {
                Some(Node::Dir { children, implicit: true, .. }) if children.is_empty() => {
                    self.take(&at[..depth]);
                }
                _ => return,
            }
        }
    }

    /// Where a path leads, by POSIX's rules.
    fn resolve(&self, path: &str, follow: bool) -> Result<Names, ErrorKind> {
        let mut here = Names::new();
        let mut pending: VecDeque<String> = names(path).into();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            match name.as_str() {
                "." => continue,
                ".." => {
                    here.pop();
                    continue;
                }
                _ => here.push(name),
            }
            let last = pending.is_empty();
            match self.get(&here) {
                Some(Node::Link { target }) if follow || !last => {
                    links += 1;
                    if links > 40 {
                        return Err(TooManyLinks);
                    }
                    here.pop();
                    if target.starts_with('/') {
                        here.clear();
                    }
                    names(target).into_iter().rev().for_each(|name| pending.push_front(name));
                }
                Some(node) if !last && !node.is_dir() => return Err(NotADirectory),
                None if pending.iter().any(|name| name == "..") => return Err(NotFound),
                _ => {}
            }
        }
        Ok(here)
    }

    /// What is at a resolved path, as answers tell it.
    pub(crate) fn told(&self, at: &[String]) -> String {
        let path = text(at);
        match self.get(at).expect("it is there") {
            _ if at.is_empty() => "root".into(),
            Node::File { data, version, attributes } => {
                let versions = self.rows.then_some((*version, *version));
                told_file(&path, data.len() as u64, versions, &attributes.told(self.rows))
            }
            Node::Dir { implicit, attributes, .. } => told_dir(&path, *implicit, &attributes.told(self.rows)),
            Node::Link { target } => told_link(&path, target),
        }
    }

    /// All that is there.
    pub(crate) fn seen(&self) -> Seen {
        let content = |at: &Names| match self.get(at) {
            Some(Node::File { data, .. }) => told_content([data]),
            _ => String::new(),
        };
        self.below(&[]).iter().map(|at| (self.told(at), content(at))).collect()
    }

    /// All entries below `at`, each directory before what it holds.
    pub(crate) fn below(&self, at: &[String]) -> Vec<Names> {
        let Some(Node::Dir { children, .. }) = self.get(at) else { return Vec::new() };
        let mut found = Vec::new();
        for name in children.keys() {
            let path = [at, std::slice::from_ref(name)].concat();
            found.push(path.clone());
            found.extend(self.below(&path));
        }
        found
    }

    fn expect(&self, found: Option<&Node>, create: Create, expected: Expected) -> Result<(), ErrorKind> {
        let holds = match (expected, found) {
            (Expected::Nothing, _) | (Expected::Absent, None) => true,
            (Expected::Version(wanted) | Expected::Generation(wanted), Some(Node::File { version, .. })) => {
                wanted == *version
            }
            // Only content has a version.
            (Expected::Version(wanted) | Expected::Generation(wanted), Some(_)) => wanted == 0,
            // What was never written has none.
            (Expected::Content(wanted), Some(Node::File { data, version, .. })) => {
                *version > 0 && wanted.as_bytes() == data
            }
            _ => false,
        };
        match (holds, found, create) {
            (false, ..) => Err(PreconditionFailed),
            (_, None, Create::Never) => Err(NotFound),
            (_, Some(_), Create::Exclusive) => Err(AlreadyExists),
            _ => Ok(()),
        }
    }

    /// Makes a call. What fails changes nothing.
    pub(crate) fn call(&mut self, call: &Call) -> Answer {
        match call {
            Call::Write { path, data, place, truncate, create, expected } => {
                self.write(path, data, place, *truncate, *create, *expected)
            }
            Call::Set { path, entry_type, target, create, parents, given } => {
                self.set(path, *entry_type, target.as_deref(), *create, *parents, given)
            }
            Call::Rename { from, to, replace, expected } => self.rename(from, to, *replace, *expected),
            Call::Unlink { path, recursive, expect, expected } => {
                self.unlink(path, *recursive, *expect, *expected)
            }
            Call::Copy { from, to, replace } => self.copy(from, to, *replace),
            Call::Stat { path, follow } => {
                let at = self.resolve(path, *follow)?;
                self.get(&at).ok_or(NotFound)?;
                Ok(self.told(&at))
            }
            Call::Read { path, ranges } => {
                let at = self.resolve(path, true)?;
                match self.get(&at) {
                    None => Err(NotFound),
                    Some(Node::File { data, .. }) => {
                        let cut = |&(offset, count): &(usize, Option<usize>)| {
                            data.iter().skip(offset).take(count.unwrap_or(usize::MAX)).copied().collect()
                        };
                        let runs: Vec<Vec<u8>> = ranges.iter().map(cut).collect();
                        Ok(format!("{runs:?} of {}", self.told(&at)))
                    }
                    Some(_) => Err(IsADirectory),
                }
            }
            Call::List { path, recursive, .. } => {
                let at = self.resolve(path, true)?;
                match self.get(&at) {
                    None => Err(NotFound),
                    Some(node) if !node.is_dir() => Err(NotADirectory),
                    Some(_) => {
                        let mut all = self.below(&at);
                        all.retain(|path| *recursive || path.len() == at.len() + 1);
                        Ok(all.iter().map(|path| self.told(path)).collect::<Vec<_>>().join("\n"))
                    }
                }
            }
            Call::Tx(calls) => self.transact(calls),
            Call::Batch(calls) => {
                let mut told = Vec::new();
                for call in calls {
                    let before = self.clone();
                    let done = self.call(call);
                    if done.is_err() {
                        *self = before;
                    }
                    told.push(format!("{done:?}"));
                }
                Ok(told.join("\n"))
            }
            Call::WriteStream { path, head, byte, count, create, expected } => {
                let data = [head.clone(), vec![*byte; *count]].concat();
                self.write(path, &data, &Place::Whole, false, *create, *expected)
            }
            Call::ReadStream { path, offset, count } => {
                let at = self.resolve(path, true)?;
                match self.get(&at) {
                    None => Err(NotFound),
                    Some(Node::File { data, .. }) => {
                        let start = (*offset).min(data.len());
                        let part = data.slice(start..start.saturating_add(*count).min(data.len()));
                        Ok(format!("{} of {}", told_content([part]), self.told(&at)))
                    }
                    Some(_) => Err(IsADirectory),
                }
            }
            Call::Reopen | Call::Crash { .. } => Ok(String::new()),
        }
    }

    /// One call after the other; then the implicit directories go that hold nothing.
    fn transact(&mut self, calls: &[Call]) -> Answer {
        if !self.rows {
            return Err(CrossMount);
        }
        self.within = true;
        let mut told = Vec::new();
        for call in calls {
            if matches!(call, Call::Unlink { path, .. } if path == "/") {
                return Err(Busy);
            }
            told.push(self.call(call)?);
        }
        self.within = false;
        self.sweep();
        Ok(told.join("\n"))
    }

    fn sweep(&mut self) {
        let mut all = self.below(&[]);
        // What is below a directory comes behind it.
        while let Some(at) = all.pop() {
            if matches!(self.get(&at), Some(Node::Dir { children, implicit: true, .. }) if children.is_empty())
            {
                self.take(&at);
            }
        }
    }

    /// Whether there is a link anywhere.
    pub(crate) fn has_links(&self) -> bool {
        self.below(&[]).iter().any(|at| matches!(self.get(at), Some(Node::Link { .. })))
    }

    fn write(
        &mut self,
        path: &str,
        data: &[u8],
        place: &Place,
        truncate: bool,
        create: Create,
        expected: Expected,
    ) -> Answer {
        if truncate && !matches!(place, Place::Whole | Place::At(_)) {
            return Err(InvalidArgument);
        }
        let at = self.resolve(path, create != Create::Exclusive)?;
        let found = self.get(&at);
        if create != Create::Exclusive && found.is_some_and(Node::is_dir) {
            return Err(IsADirectory);
        }
        self.expect(found, create, expected)?;
        let (old, version, attributes) = match found {
            Some(Node::File { data, version, attributes }) => {
                (Some(data.to_vec()), *version, attributes.clone())
            }
            _ => (None, 0, Set::of(0o644)),
        };
        let attributes = Set { modified: None, ..attributes };
        let old_size = old.as_ref().map(Vec::len);
        let (new, places) = place.apply(old.unwrap_or_default(), data, truncate).ok_or(InvalidArgument)?;
        self.put(&at, Node::File { data: new.into(), version: version + 1, attributes }, true);
        let written = data.len() * places;
        Ok(format!("{written} bytes at {places} over {old_size:?}: {}", self.told(&at)))
    }

    fn set(
        &mut self,
        path: &str,
        entry_type: Option<EntryType>,
        target: Option<&str>,
        create: Create,
        parents: Parents,
        given: &Given,
    ) -> Answer {
        match target {
            Some("") => return Err(InvalidArgument),
            Some(target) if target == path => return Err(TooManyLinks),
            _ => {}
        }
        let at = self.resolve(path, entry_type.is_none())?;
        let found = self.get(&at);
        self.expect(found, create, Expected::Nothing)?;
        if let Some(node) = found {
            let there = node.entry_type();
            let other_target = matches!(node, Node::Link { target: there } if Some(&**there) != target);
            if entry_type.is_some_and(|wanted| wanted != there || other_target) {
                return Err(AlreadyExists);
            }
            let Some(node) = self.get_mut(&at) else { unreachable!("it was there") };
            let mut created = false;
            let mut changed = false;
            if let Node::File { attributes, .. } | Node::Dir { attributes, .. } = &mut *node {
                let new = attributes.clone().with(given);
                changed = *attributes != new;
                *attributes = new;
            }
            if let Node::Dir { implicit, .. } = node {
                created = *implicit && entry_type.is_some();
                *implicit = *implicit && !created && !changed;
            }
            return Ok(format!("created {created} changed {changed}: {}", self.told(&at)));
        }
        let parent = &at[..at.len() - 1];
        if parents == Parents::Required && self.get(parent).is_none() {
            return Err(NotFound);
        }
        let new = match (entry_type, target) {
            (Some(EntryType::Dir), _) => {
                let attributes = Set::of(0o755).with(given);
                Node::Dir { children: BTreeMap::new(), implicit: false, attributes }
            }
            (Some(EntryType::Link), Some(target)) => Node::Link { target: target.to_owned() },
            _ => Node::File { data: Bytes::new(), version: 0, attributes: Set::of(0o644).with(given) },
        };
        self.put(&at, new, parents != Parents::Made);
        Ok(format!("created true changed false: {}", self.told(&at)))
    }

    fn rename(&mut self, from: &str, to: &str, replace: bool, expected: Expected) -> Answer {
        let (from, to) = (self.resolve(from, false)?, self.resolve(to, false)?);
        let source = self.get(&from).ok_or(NotFound)?;
        if from != to && (from.is_empty() || to.is_empty()) {
            return Err(Busy);
        }
        if source.is_dir() && from != to && to.starts_with(&from) {
            return Err(InvalidArgument);
        }
        self.expect(Some(source), Create::Never, expected)?;
        if from == to {
            return Ok(format!("replaced false: {}", self.told(&to)));
        }
        let replaced = match (source.is_dir(), self.get(&to)) {
            (_, None) => false,
            _ if !replace => return Err(AlreadyExists),
            (true, Some(target)) if !target.is_dir() => return Err(NotADirectory),
            (false, Some(target)) if target.is_dir() => return Err(IsADirectory),
            (true, Some(target)) if !target.is_vacant() => return Err(NotEmpty),
            _ => true,
        };
        let Some(mut moved) = self.take(&from) else { unreachable!("it was there") };
        if let Node::Dir { implicit, .. } = &mut moved {
            *implicit = false;
        }
        self.put(&to, moved, true);
        self.prune(&from);
        Ok(format!("replaced {replaced}: {}", self.told(&to)))
    }

    fn unlink(&mut self, path: &str, recursive: bool, expect: Expect, expected: Expected) -> Answer {
        let at = self.resolve(path, false)?;
        if at.is_empty() {
            return Err(if expect == Expect::File { IsADirectory } else { Busy });
        }
        let node = self.get(&at).ok_or(NotFound)?;
        self.expect(Some(node), Create::Never, expected)?;
        match expect {
            Expect::File if node.is_dir() => return Err(IsADirectory),
            Expect::Directory if !node.is_dir() => return Err(NotADirectory),
            Expect::Mount => return Err(InvalidArgument),
            _ if node.is_dir() && !recursive && !node.is_vacant() => return Err(NotEmpty),
            _ => {}
        }
        let (entry_type, removed) = (node.entry_type(), node.count());
        self.take(&at);
        self.prune(&at);
        Ok(format!("removed {removed}, a {entry_type}"))
    }

    fn copy(&mut self, from: &str, to: &str, replace: bool) -> Answer {
        let (from, to) = (self.resolve(from, true)?, self.resolve(to, true)?);
        let (data, source) = match self.get(&from) {
            None => return Err(NotFound),
            Some(Node::File { data, attributes, .. }) => (data.clone(), attributes.clone()),
            Some(_) => return Err(InvalidArgument),
        };
        if from == to {
            return Ok(format!("created false: {}", self.told(&to)));
        }
        let (created, version, there) = match self.get(&to) {
            None => (true, 0, Set::of(source.mode)),
            Some(_) if !replace => return Err(AlreadyExists),
            Some(Node::File { version, attributes, .. }) => (false, *version, attributes.clone()),
            Some(_) => return Err(InvalidArgument),
        };
        let attributes = Set { mode: source.mode, mime: source.mime, modified: None, ..there };
        self.put(&to, Node::File { data, version: version + 1, attributes }, true);
        Ok(format!("created {created}: {}", self.told(&to)))
    }
}
