//! Makes the calls of the model in a kernel, and tells in the model's words what came of them.

use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::{FutureExt, stream};
use nexus::{
    Attributes, ByteRange, Bytes, Caller, Consistency, ContentId, EntryType, FileMetadata, Precondition,
    SysCopy, SysRead, SysReaddir, SysRename, SysSetattr, SysStat, SysSync, SysTx, SysUnlink, SysWrite,
    Timestamp, TxDone, TxOp, VPath,
};
use nexus_kernel::Kernel;
use proptest::prelude::*;

use crate::calls::{Call, Expected, Given, Place};
use crate::tree::{
    self, Answer, Node, Seen, Set, Tree, names, text, told_content, told_dir, told_file, told_link,
};

/// Times before this one were set by somebody: no clock tells them.
const SET_BEFORE: Timestamp = Timestamp(1_000);

/// How many bytes of a stream come at once.
const PIECE: usize = 100_000;

/// How many entries are listed at once.
const PAGE: u32 = 1_000;

/// What the kernel may keep of metadata: so little that entries leave it all the time.
pub(crate) const METADATA_CACHE_BYTES: u64 = 3 << 10;

/// Who calls.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) admin: Arc<Caller>,
    /// Whether names are rows of the metastore.
    pub(crate) has_rows: bool,
    /// When changes are to be acknowledged; none: as the mount does.
    consistency: Option<Consistency>,
}

pub(crate) fn path(text: &str) -> VPath {
    VPath::parse(text).expect("it is one")
}

impl Client {
    pub(crate) fn new(kernel: Arc<Kernel>, has_rows: bool) -> Self {
        Self { kernel, admin: Arc::new(Caller::administrator()), has_rows, consistency: None }
    }

    /// The same, whose changes are acknowledged before they are on disk.
    pub(crate) fn eventual(&self) -> Self {
        Self { consistency: Some(Consistency::Eventual), ..self.clone() }
    }

    pub(crate) async fn sync(&self) -> nexus::Result<()> {
        self.kernel.send(&self.admin, SysSync::at(VPath::root())).await.map(drop)
    }

    fn told(&self, metadata: &FileMetadata) -> String {
        let path = metadata.path.as_str();
        let at = |at: Timestamp| (at < SET_BEFORE).then_some(at.0);
        let set = Set {
            mode: metadata.mode,
            owner: Some(metadata.owner.to_string()).filter(|owner| *owner != *self.admin.agent.to_string()),
            mime: metadata.mime_type.as_ref().map(|mime| mime.to_string()),
            modified: at(metadata.modified),
            created: at(metadata.created),
        };
        let set = set.told(self.has_rows);
        match metadata.entry_type {
            EntryType::Mount => "root".into(),
            EntryType::Reg => {
                let versions = self.has_rows.then_some((metadata.version, metadata.generation));
                told_file(path, metadata.size, versions, &set)
            }
            EntryType::Link => told_link(path, metadata.link_target.as_deref().unwrap_or_default()),
            _ => told_dir(path, metadata.implicit, &set),
        }
    }

    fn told_of(&self, done: &TxDone) -> String {
        match done {
            TxDone::Write(done) => {
                assert_eq!(done.created, done.old_size.is_none());
                let (written, places, old) = (done.written, done.places, done.old_size);
                format!("{written} bytes at {places} over {old:?}: {}", self.told(&done.metadata))
            }
            TxDone::Setattr(done) => {
                let changed = !done.changed.is_empty();
                format!("created {} changed {changed}: {}", done.created, self.told(&done.metadata))
            }
            TxDone::Rename(done) => format!("replaced {}: {}", done.replaced, self.told(&done.metadata)),
            TxDone::Unlink(done) => format!("removed {}, a {}", done.removed, done.entry_type),
            other => panic!("{other:?} is not among the calls"),
        }
    }

    async fn change(&self, op: TxOp) -> nexus::Result<TxDone> {
        let (kernel, admin) = (&self.kernel, &self.admin);
        let mut op = op;
        match &mut op {
            TxOp::Write(call) => call.consistency = self.consistency,
            TxOp::Setattr(call) => call.consistency = self.consistency,
            TxOp::Rename(call) => call.consistency = self.consistency,
            TxOp::Unlink(call) => call.consistency = self.consistency,
            other => panic!("{other:?} is not among the calls"),
        }
        match op {
            TxOp::Write(call) => kernel.send(admin, call).await.map(TxDone::Write),
            TxOp::Setattr(call) => kernel.send(admin, call).await.map(TxDone::Setattr),
            TxOp::Rename(call) => kernel.send(admin, call).await.map(TxDone::Rename),
            TxOp::Unlink(call) => kernel.send(admin, call).await.map(TxDone::Unlink),
            other => panic!("{other:?} is not among the calls"),
        }
    }

    /// Makes the call, and tells of an error no more than its kind.
    pub(crate) async fn call(&self, call: &Call) -> Answer {
        self.try_call(call).await.map_err(|error| error.kind())
    }

    pub(crate) async fn try_call(&self, call: &Call) -> nexus::Result<String> {
        let (kernel, admin) = (&self.kernel, &self.admin);
        if let Some(op) = op(call) {
            return Ok(self.told_of(&self.change(op).await?));
        }
        match call {
            Call::Tx(calls) => {
                let mut call = calls.iter().filter_map(op).fold(SysTx::new(), SysTx::with);
                call.consistency = self.consistency;
                let done = kernel.send(admin, call).await?;
                assert_eq!((done.results.len(), done.repeated), (calls.len(), false));
                Ok(done.results.iter().map(|done| self.told_of(done)).collect::<Vec<_>>().join("\n"))
            }
            Call::Copy { from, to, replace } => {
                let mut call = SysCopy::new(path(from), path(to));
                (call.replace, call.consistency) = (*replace, self.consistency);
                let done = kernel.send(admin, call).await?;
                assert_eq!(done.size, done.metadata.size);
                Ok(format!("created {}: {}", done.created, self.told(&done.metadata)))
            }
            Call::Stat { path: at, follow } => {
                let mut call = SysStat::at(path(at));
                call.follow = *follow;
                Ok(self.told(&*kernel.send(admin, call).await?))
            }
            Call::Read { path: at, ranges } => {
                let range = |&(offset, count): &(usize, Option<usize>)| ByteRange {
                    offset: offset as u64,
                    count: count.map(|count| count as u64),
                };
                let call = SysRead::at(path(at)).vectored(ranges.iter().map(range).collect());
                let done = kernel.send(admin, call).await?;
                let mut runs: Vec<Vec<u8>> = done.runs().map(|run| run.to_vec()).collect();
                runs.truncate(ranges.len());
                Ok(format!("{runs:?} of {}", self.told(&done.metadata)))
            }
            Call::Batch(calls) => {
                let done = join_all(calls.iter().map(|call| Box::pin(self.call(call)))).await;
                Ok(done.iter().map(|done| format!("{done:?}")).collect::<Vec<_>>().join("\n"))
            }
            Call::WriteStream { path: at, head, byte, count, create, expected } => {
                let mut call = SysWrite::at(path(at), Vec::new()).when(wanted(*expected));
                (call.create, call.consistency) = (*create, self.consistency);
                let data = Bytes::from([head.clone(), vec![*byte; *count]].concat());
                let starts = (0..data.len()).step_by(PIECE);
                let pieces = starts.map(|start| Ok(data.slice(start..(start + PIECE).min(data.len()))));
                let pieces = stream::iter(pieces.collect::<Vec<_>>());
                Ok(self.told_of(&TxDone::Write(kernel.write_stream(admin, call, pieces).await?)))
            }
            Call::ReadStream { path: at, offset, count } => {
                let call = SysRead::at(path(at)).range(*offset as u64, *count as u64);
                let mut reader = kernel.open_stream(admin, call).await?;
                let mut pieces = Vec::new();
                while let Some(piece) = reader.next().await {
                    pieces.push(piece?);
                }
                Ok(format!("{} of {}", told_content(pieces), self.told(reader.metadata())))
            }
            Call::List { path: at, recursive, limit } => self.list(at, *recursive, *limit).await,
            _ => Ok(String::new()),
        }
    }

    async fn list(&self, at: &str, recursive: bool, limit: u32) -> nexus::Result<String> {
        let mut call = SysReaddir::at(path(at)).limit(limit).with_metadata();
        call.recursive = recursive;
        let mut told = Vec::new();
        loop {
            let page = self.kernel.send(&self.admin, call.clone()).await?;
            assert!(
                page.entries.len() <= limit as usize && (page.next.is_none() || !page.entries.is_empty())
            );
            for entry in &page.entries {
                let metadata = entry.metadata.as_ref().expect("it was asked for");
                assert_eq!(
                    (&entry.path, entry.entry_type, entry.file_id),
                    (&metadata.path, metadata.entry_type, metadata.file_id)
                );
                told.push(self.told(metadata));
            }
            match page.next {
                Some(next) => call = call.after(next),
                None => return Ok(told.join("\n")),
            }
        }
    }

    /// What is at the path now, links not followed, without waiting for anything; none when that cannot be told.
    pub(crate) fn glance(&self, at: &VPath) -> Option<Answer> {
        let mut call = SysStat::at(at.clone());
        call.follow = false;
        let found = self.kernel.send(&self.admin, call).now_or_never()?;
        Some(found.map(|metadata| self.told(&metadata)).map_err(|error| error.kind()))
    }

    /// All that is there, with all content.
    pub(crate) async fn seen(&self) -> nexus::Result<Seen> {
        let mut call = SysReaddir::at(VPath::root()).limit(PAGE).with_metadata();
        call.recursive = true;
        let page = self.kernel.send(&self.admin, call).await?;
        assert!(page.next.is_none(), "the tree is small");
        let mut seen = Seen::new();
        for entry in &page.entries {
            let metadata = entry.metadata.as_ref().expect("it was asked for");
            let content = if metadata.entry_type == EntryType::Reg {
                let read = self.kernel.send(&self.admin, SysRead::at(entry.path.clone())).await?;
                told_content(read.runs())
            } else {
                String::new()
            };
            seen.push((self.told(metadata), content));
        }
        Ok(seen)
    }

    /// Whether all that can be seen is the model's: what is listed, each path that may be there, all content.
    pub(crate) async fn matches(&self, model: &Tree) -> Result<(), TestCaseError> {
        let all: Vec<String> = model.below(&[]).iter().map(|at| model.told(at)).collect();
        let listed = self.list("/", true, PAGE).await.map_err(|error| error.kind());
        prop_assert_eq!(listed, Ok(all.join("\n")));
        // A look changes nothing.
        let mut looked_at = model.clone();
        for at in every_path() {
            let stat = self.call(&Call::Stat { path: text(&at), follow: false }).await;
            let read = self.kernel.send(&self.admin, SysRead::at(path(&text(&at)))).await;
            match model.get(&at) {
                Some(node) => {
                    prop_assert_eq!(stat, Ok(model.told(&at)));
                    if let Node::File { data, .. } = node {
                        prop_assert_eq!(&read.expect("it is there").data[..], &data[..]);
                    }
                }
                // It may be there by way of a link.
                None => {
                    let due = looked_at.call(&Call::Stat { path: text(&at), follow: false });
                    prop_assert_eq!(stat, due);
                }
            }
        }
        // Each was looked at just now; so most have left the cache again.
        let held = self.kernel.cache_stats();
        prop_assert!(held.metadata_bytes <= METADATA_CACHE_BYTES, "{:?}", held);
        prop_assert!(2 * held.metadata_entries < every_path().len(), "{:?}", held);
        prop_assert!(held.metadata_entries > 0 || !self.has_rows, "{:?}", held);
        Ok(())
    }
}

/// The call as an operation of a transaction, when it can be one.
fn op(call: &Call) -> Option<TxOp> {
    Some(match call {
        Call::Write { path: at, data, place, truncate, create, expected } => {
            let mut call = match place {
                Place::Whole => SysWrite::at(path(at), data.clone()),
                Place::At(offset) => SysWrite::at(path(at), data.clone()).offset(*offset as u64),
                Place::End => SysWrite::at(path(at), data.clone()).append(),
                Place::Instead { of, all: false } => SysWrite::edit(path(at), *of, data.clone()),
                Place::Instead { of, all: true } => SysWrite::edit(path(at), *of, data.clone()).all(),
            };
            call.truncate = *truncate;
            call.create = *create;
            call.when(wanted(*expected)).into()
        }
        Call::Set { path: at, entry_type, target, create, parents, given } => {
            let mut call = SysSetattr::at(path(at)).parents(*parents);
            call.entry_type = *entry_type;
            call.link_target = target.as_deref().map(Into::into);
            call.create = *create;
            call.attributes = attributes(given);
            call.into()
        }
        Call::Rename { from, to, replace, expected } => {
            let mut call = SysRename::new(path(from), path(to)).when(wanted(*expected));
            call.replace = *replace;
            call.into()
        }
        Call::Unlink { path: at, recursive, expect, expected } => {
            let mut call = SysUnlink::at(path(at)).expect(*expect).when(wanted(*expected));
            call.recursive = *recursive;
            call.into()
        }
        _ => return None,
    })
}

fn attributes(given: &Given) -> Attributes {
    let mut attributes = Attributes::none();
    attributes.mode = given.mode;
    attributes.owner = given.owner.map(Arc::from);
    attributes.mime_type = given.mime.map(Arc::from);
    attributes.modified = given.modified.map(Timestamp);
    attributes.created = given.created.map(Timestamp);
    attributes
}

fn wanted(expected: Expected) -> Precondition {
    match expected {
        Expected::Nothing => Precondition::None,
        Expected::Absent => Precondition::Absent,
        Expected::Version(version) => Precondition::Version(version),
        Expected::Generation(generation) => Precondition::Generation(generation),
        Expected::Content(content) => {
            Precondition::Content(ContentId::Blake3(*blake3::hash(content.as_bytes()).as_bytes()))
        }
    }
}

/// All paths that the calls can make.
fn every_path() -> Vec<tree::Names> {
    let mut found = vec![Vec::new()];
    for depth in 0..3 {
        let longest: Vec<_> = found.iter().filter(|at: &&tree::Names| at.len() == depth).cloned().collect();
        for at in longest {
            found.extend(["a", "b", "c"].map(|name| [at.clone(), names(name)].concat()));
        }
    }
    found
}
