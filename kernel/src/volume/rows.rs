//! A content-addressed mount: names and metadata are rows, content is found by its hash.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use nexus_messages::syscall::{Create, Extent, Precondition};
use nexus_messages::{ContentId, EntryType, FileId, FileMetadata, Lsn, VPath};

use super::{Child, Intent, Runs, Site, State, Stop, Transaction, commit_error, store_error};
use crate::content;
use crate::hal::{Addressing, ObjectStore, StoreError, Told};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::{
    Draft, InodeRow, Keeping, Lookup, Node, Placement, Rest, Rows, Step, Steps, Visible, Walk, publish,
};
use crate::pruning;

/// A content-addressed mount, with the kernel around it.
#[derive(Clone, Copy)]
pub(crate) struct RowVolume<'a> {
    pub(crate) kernel: &'a Arc<Kernel>,
    pub(crate) mount: &'a Arc<Mount>,
    /// The transaction that changes belong to: what it has drawn up so far is there already.
    pub(crate) within: Option<&'a Transaction>,
    /// The place in the log as of which it is looked at; none for what is there now. Nothing is changed in the past.
    pub(crate) as_of: Option<Lsn>,
}

/// Where a walk ended, with the inode when it ended at an entry.
pub(super) struct Place<'p> {
    /// The steps from the root to the parent of the entry.
    pub(super) above: Steps<'p>,
    pub(super) end: End<'p>,
}

/// What is at the end of a walk.
pub(super) enum End<'p> {
    /// An entry; no step when it is the mount's root.
    Entry { step: Option<Step<'p>>, row: InodeRow },
    /// Nothing: `parent` does not have the first name of `rest`.
    Nothing { parent: FileId, rest: Rest<'p> },
}

/// What a look at a path has to do with the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It is asked first, and told what the rows say.
    Filed,
    /// It is asked first. What the caller does next will be told to it.
    Asked,
    /// The rows are asked alone.
    Passed,
}

/// What a look at a path gave.
enum Seen {
    Entry(Node),
    /// Nothing; and whether the parent is a directory, without a link on the way.
    Nothing {
        in_directory: bool,
    },
    /// A link stands on the way.
    Link,
}

impl<'a> RowVolume<'a> {
    pub(super) fn rows(&self) -> Result<Rows, StoreError> {
        if let Some(lsn) = self.as_of {
            return self.past(lsn);
        }
        let rows = self.kernel.store().rows(self.mount.tree)?;
        Ok(match self.within {
            Some(transaction) => transaction.over(rows),
            None => rows,
        })
    }

    /// What is at `site`. None when a link stands on the way, or at the end and is to be followed.
    #[expect(clippy::option_option, reason = "whether it is resolved, and whether something is there")]
    pub(crate) fn look(
        &self,
        site: &Site,
        follow: bool,
        memory: Memory,
    ) -> Result<Option<Option<Node>>, StoreError> {
        let seen = match memory {
            Memory::Filed if self.as_of.is_none() => self.look_first_in_the_cache(site)?,
            Memory::Asked if self.as_of.is_none() => {
                self.known(site).map_or_else(|| self.look_up(site), Ok)?
            }
            _ => self.look_up(site)?,
        };
        Ok(match seen {
            Seen::Entry(node) if follow && node.metadata.entry_type == EntryType::Link => None,
            Seen::Entry(node) => Some(Some(node)),
            Seen::Nothing { .. } => Some(None),
            Seen::Link => None,
        })
    }

    /// What the cache knows of `site`.
    fn known(&self, site: &Site) -> Option<Seen> {
        let (cache, generation) = (&self.kernel.caches().metadata, self.mount.generation());
        Some(match cache.known(self.mount.root, generation, &site.path)? {
            Some(node) => Seen::Entry(node),
            None => Seen::Nothing { in_directory: true },
        })
    }

    fn look_first_in_the_cache(&self, site: &Site) -> Result<Seen, StoreError> {
        let generation = self.mount.generation();
        let fill = match self.kernel.caches().metadata.lookup(self.mount.root, generation, &site.path) {
            Lookup::Hit(Some(node)) => return Ok(Seen::Entry(node)),
            Lookup::Hit(None) => return Ok(Seen::Nothing { in_directory: true }),
            Lookup::Miss(fill) => fill,
        };
        let seen = self.look_up(site)?;
        match &seen {
            Seen::Entry(node) => fill.keep(node.clone()),
            Seen::Nothing { in_directory: true } => fill.keep_nothing(),
            Seen::Nothing { in_directory: false } | Seen::Link => {}
        }
        Ok(seen)
    }

    /// What is at `site` by the rows.
    fn look_up(&self, site: &Site) -> Result<Seen, StoreError> {
        let rows = self.rows()?;
        let steps = match rows.walk(self.mount.root, site.relative())? {
            Walk::Found { steps } => steps,
            Walk::Missing { rest, .. } => return Ok(Seen::Nothing { in_directory: rest.len() == 1 }),
            Walk::Link => return Ok(Seen::Link),
            Walk::NotADirectory => return Err(file_on_the_way(site)),
        };
        let id = steps.last().map_or(self.mount.root, |step| step.dentry.id);
        let row = rows.inode(id)?;
        let metadata = Arc::new(row.metadata(site.path.clone(), self.mount.zone.clone(), id));
        Ok(Seen::Entry(Node { metadata, placement: row.placement }))
    }

    /// What is at `site` by the rows, those that the transaction has drawn up included. Nothing where a link stands on the way.
    pub(crate) fn find(&self, site: &Site) -> Result<Option<Node>, StoreError> {
        Ok(match self.look_up(site)? {
            Seen::Entry(node) => Some(node),
            Seen::Nothing { .. } | Seen::Link => None,
        })
    }

    /// Whether a file stands on the way to `site`, and no link before it.
    pub(crate) fn is_beyond_a_file(&self, site: &Site) -> Result<bool, StoreError> {
        Ok(matches!(self.rows()?.walk(self.mount.root, site.relative())?, Walk::NotADirectory))
    }

    pub(crate) fn list(
        &self,
        site: &Site,
        node: &Node,
        after: Option<&str>,
        limit: usize,
        metadata: bool,
    ) -> Result<(Vec<Child>, bool), StoreError> {
        let rows = self.rows()?;
        let found = rows.children(node.metadata.file_id, after, limit)?;
        let more = found.len() == limit;
        let mut children = Vec::with_capacity(found.len());
        for (name, dentry) in found {
            let metadata = match site.path.join(&name) {
                Ok(path) if metadata => match rows.inode(dentry.id) {
                    Ok(row) => Some(Arc::new(row.metadata(path, self.mount.zone.clone(), dentry.id))),
                    // One that is damaged hides none of the others. Who looks at it is told.
                    Err(StoreError::Corrupt { .. }) => None,
                    Err(error) => return Err(error),
                },
                _ => None,
            };
            children.push(Child { name, entry_type: dentry.entry_type, file_id: dentry.id, metadata });
        }
        Ok((children, more))
    }

    pub(crate) async fn read(
        &self,
        _: &Site,
        node: &Node,
        extent: &Extent,
    ) -> Result<(Runs, Arc<FileMetadata>), StoreError> {
        let metadata = node.metadata.clone();
        let (Some(id), false) = (&metadata.content_id, node.placement == Placement::None) else {
            return Ok((content::runs(&Bytes::new(), extent), metadata));
        };
        if node.placement == Placement::Chunked {
            return Ok((self.read_chunks(id, metadata.size, extent).await?, metadata));
        }
        if node.placement == Placement::Store && !self.kernel.caches().content.takes(metadata.size) {
            return Ok((self.read_around(id, extent).await?, metadata));
        }
        let whole = self.whole(id, node.placement).await?;
        Ok((content::runs(&whole, extent), metadata))
    }

    /// The whole content at `id`, which is not in chunks: from the cache when it is there, else verified, and then kept.
    pub(super) async fn whole(&self, id: &ContentId, placement: Placement) -> Result<Bytes, StoreError> {
        let cache = &self.kernel.caches().content;
        if let Some(content) = cache.lookup(id) {
            return Ok(content);
        }
        let content = match placement {
            // The records of a stream are no content, and neither are messages.
            Placement::None
            | Placement::Records { .. }
            | Placement::Stdio { .. }
            | Placement::Shared { .. } => Bytes::new(),
            Placement::Inline => self.inline(id)?,
            Placement::Store | Placement::Chunked => {
                self.stored(id, nexus_messages::syscall::ByteRange::ALL).await?
            }
        };
        cache.keep(id, &content);
        Ok(content)
    }

    pub(super) fn inline(&self, id: &ContentId) -> Result<Bytes, StoreError> {
        let damaged =
            |found: &str| StoreError::Corrupt { what: format!("content {id}"), found: found.into() };
        let key = crate::namespace::content_key(id).ok_or_else(|| damaged("an address that is no hash"))?;
        let content = self.rows()?.reader.get(&key)?.ok_or_else(|| damaged("nothing"))?;
        match content::address(std::slice::from_ref(&content)) {
            // The rows may have it as a part of all that was read with it.
            found if found == *id => Ok(content::own(&[content])),
            found => Err(damaged(&format!("content with the hash {found}"))),
        }
    }

    pub(super) async fn stored(
        &self,
        id: &ContentId,
        range: nexus_messages::syscall::ByteRange,
    ) -> Result<Bytes, StoreError> {
        let driver = self.mount.lease().await;
        match driver.addressing() {
            Addressing::Content(store) => store.read(id, range).await.map_err(|error| match error {
                // The file is there, or nobody would ask for its content.
                StoreError::NotFound { .. } => {
                    StoreError::Corrupt { what: format!("content {id}"), found: "nothing".into() }
                }
                error => error,
            }),
            Addressing::Path(_) => Err(StoreError::NotSupported { what: "content by its hash" }),
        }
    }

    /// All of each of these contents, in their order.
    pub(super) async fn stored_many(&self, ids: &[ContentId]) -> Result<Vec<Bytes>, StoreError> {
        let driver = self.mount.lease().await;
        match driver.addressing() {
            Addressing::Content(store) => store.read_many(ids).await.map_err(|error| match error {
                StoreError::NotFound { what } => StoreError::Corrupt { what, found: "nothing".into() },
                error => error,
            }),
            Addressing::Path(_) => Err(StoreError::NotSupported { what: "content by its hash" }),
        }
    }

    /// Reads runs of content that is too large for the cache, each verified by the driver.
    async fn read_around(&self, id: &ContentId, extent: &Extent) -> Result<Runs, StoreError> {
        let ranges = content::ranges(extent);
        let mut runs = Vec::with_capacity(ranges.len());
        for range in ranges {
            runs.push(self.stored(id, *range).await?);
        }
        let mut runs = runs.into_iter();
        Ok((runs.next().unwrap_or_default(), runs.collect()))
    }

    /// Reads runs of content that is in chunks. Only the chunks that the runs lie in are looked at.
    async fn read_chunks(&self, id: &ContentId, size: u64, extent: &Extent) -> Result<Runs, StoreError> {
        let cursor = self.chunks(id, size, true).await?;
        let ranges = content::ranges(extent);
        let mut runs = Vec::with_capacity(ranges.len());
        for range in ranges {
            let (start, end) = range.within(size);
            runs.push(cursor.read(start..end).await?);
        }
        let mut runs = runs.into_iter();
        Ok((runs.next().unwrap_or_default(), runs.collect()))
    }

    /// What is at `site` by the rows of one view. `Again` when it is no longer resolved: a link or a file has come in between.
    pub(super) fn place<'p>(&self, rows: &Rows, site: &'p Site, intent: &Intent) -> Result<Place<'p>, Stop> {
        let walk = rows.walk(self.mount.root, site.relative());
        let failed = |error: &StoreError| Stop::from(store_error(intent.op, &site.path, error));
        match walk.map_err(|error| failed(&error))? {
            Walk::Found { mut steps } => {
                let step = steps.pop();
                let id = step.as_ref().map_or(self.mount.root, |step| step.dentry.id);
                let row = rows.inode(id).map_err(|error| failed(&error))?;
                Ok(Place { above: steps, end: End::Entry { step, row } })
            }
            Walk::Missing { steps, parent, rest } => {
                Ok(Place { above: steps, end: End::Nothing { parent, rest } })
            }
            Walk::Link => Err(Stop::Again),
            Walk::NotADirectory => Err(failed(&file_on_the_way(site))),
        }
    }

    pub(super) fn draft(&self, intent: &Intent) -> Draft {
        let keeping = self.mount.history().map(|_| Keeping {
            mount: self.mount.root,
            by: intent.caller.agent.clone(),
            op: intent.op,
        });
        let is_weighed = intent.scales.is_some() || self.within.is_some();
        let draft = Draft::new(self.mount.tree, self.mount.zone.clone(), intent.at);
        draft.mode_dirs(self.mount.first_mode(EntryType::Dir)).keeping(keeping).weighed(is_weighed)
    }

    /// Makes the draft durable and then visible, or leaves that to the transaction. Of a copy, `site` is the source, which may be on another mount. `told` is
    /// what those are told of it who watch.
    pub(super) fn commit<'c>(
        &'c self,
        site: &'c Site,
        other: Option<&'c VPath>,
        intent: &'c Intent,
        draft: Draft,
        told: Arc<Told>,
    ) -> impl Future<Output = Result<nexus_messages::Receipt, Stop>> + Send + 'c {
        if let Some(transaction) = self.within {
            return Either::Left(ready(Ok(transaction.take(self.mount, intent, draft))));
        }
        if let Some(scales) = &intent.scales
            && let Err(refused) = scales.weigh(draft.effect)
        {
            return Either::Left(ready(Err(refused.into())));
        }
        let mut entry = intent.entry(self.mount.tree, &site.path, other);
        entry.preconditions = draft.preconditions;
        entry.changes = draft.changes;
        entry.told = Some(told);
        let kept = pruning::added_by(&entry.changes);
        let (kernel, mount, visible) = (self.kernel.clone(), self.mount.clone(), draft.visible);
        // With the entry: whatever becomes of this call, what it names is held until it is committed or refused.
        let holds = draft.holds;
        let published = Box::new(move |_| {
            let subtree = visible.iter().any(|change| matches!(change, Visible::Subtree));
            let generation = if subtree { mount.raise_generation() } else { mount.generation() };
            publish(&kernel, mount.root, generation, visible);
            drop(holds);
        });
        let durability = intent.durability(self.mount);
        // The entry is in it, and the draft in the entry: what follows has no room for either.
        let committed = super::commit(self.kernel, intent, durability, entry, published);
        Either::Right(committed.map(move |committed| match committed {
            Ok((lsn, true)) => {
                if kept > 0 {
                    pruning::added(self.kernel, self.mount.tree, kept);
                }
                if let Some(scales) = &intent.scales {
                    scales.committed(lsn);
                }
                Ok(intent.receipt(self.mount, lsn))
            }
            // It was committed before, by another call with its id: answered as a repeat.
            Ok((_, false)) => Err(Stop::Again),
            Err(error) => Err(commit_error(intent.op, &site.path, &error)),
        }))
    }

    /// A receipt for a call that found nothing to change.
    pub(super) async fn unchanged(
        &self,
        site: &Site,
        intent: &Intent,
    ) -> Result<nexus_messages::Receipt, Stop> {
        intent.unchanged(self.kernel.store(), self.mount, &site.path).await
    }
}

fn file_on_the_way(site: &Site) -> StoreError {
    StoreError::NotADirectory { what: format!("a part of {}", site.path) }
}

/// Whether the entry that was `found` is what the caller expects, and may be made when it is missing.
pub(super) fn expect(
    intent: &Intent,
    path: &VPath,
    found: Option<(FileId, &InodeRow)>,
    create: Create,
    expected: &Precondition,
) -> Result<(), Stop> {
    let found = found.map(|(file_id, row)| State {
        file_id,
        version: row.version,
        generation: row.generation,
        content_id: row.content_id.as_ref(),
    });
    super::expect(intent, path, found, create, expected)
}
