//! The operations of a transaction, drawn up one after the other and committed as one.

use std::sync::Arc;

use nexus_messages::syscall::{Create, Precondition};
use nexus_messages::{Effect, EntryType, FileId, FileMetadata, Lsn, Receipt, VPath};
use parking_lot::Mutex;

use super::rows::{End, RowVolume};
use super::{Intent, Site, State, Stop, commit, commit_error, store_error};
use crate::garbage::Hold;
use crate::hal::{LogItem, StoreError, Told};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::{Draft, Ledger, Rows, Visible, Walk, publish};
use crate::pruning;

/// What the operations of a transaction have drawn up so far, on content-addressed mounts of one tree.
#[derive(Debug)]
pub(crate) struct Transaction {
    ledger: Arc<Ledger>,
    visible: Mutex<Vec<(Arc<Mount>, Vec<Visible>)>>,
    /// What is held until it is committed.
    holds: Mutex<Vec<Hold>>,
}

impl Transaction {
    /// One on mounts of the tree of this one.
    pub(crate) fn new(mount: &Mount) -> Self {
        let effect = Effect::within(mount.zone.clone());
        let ledger = Arc::new(Ledger::new(mount.tree, effect));
        Self { ledger, visible: Mutex::default(), holds: Mutex::default() }
    }

    /// The rows as the operations so far leave them.
    pub(super) fn over(&self, rows: Rows) -> Rows {
        self.ledger.over(rows)
    }

    /// Takes over what an operation on `mount` has drawn up. The receipt is one of nothing yet.
    pub(super) fn take(&self, mount: &Arc<Mount>, intent: &Intent, mut draft: Draft) -> Receipt {
        self.holds.lock().extend(draft.holds.drain(..));
        let visible = self.ledger.take(draft);
        self.visible.lock().push((mount.clone(), visible));
        intent.receipt(mount, Lsn::default())
    }

    /// Whether a link that stands on the way to `site`, or at its end, is one that the transaction has brought there.
    pub(crate) fn brought_link(&self, kernel: &Kernel, site: &Site) -> Result<bool, StoreError> {
        let rows = kernel.store().rows(site.mount.tree)?;
        let leads = |rows: &Rows| -> Result<bool, StoreError> {
            Ok(match rows.walk(site.mount.root, site.relative())? {
                Walk::Link => true,
                Walk::Found { steps } => {
                    let last = steps.last().map(|step| step.dentry.entry_type);
                    last == Some(EntryType::Link)
                }
                _ => false,
            })
        };
        Ok(!leads(&rows)? && leads(&self.over(rows))?)
    }

    /// Makes all of it durable and then visible, as one, or visible alone where `mount` lets that do: of all that it changes the one that promises most.
    /// `items` are the operations as the log keeps them, and `told` is what those are told of it who watch.
    pub(crate) async fn commit(
        &self,
        kernel: &Arc<Kernel>,
        site: &Site,
        intent: &Intent,
        mount: &Mount,
        items: Vec<LogItem>,
        told: Arc<Told>,
    ) -> Result<Receipt, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &site.path, &error));
        let tree = site.mount.tree;
        let settled = {
            let rows = self.over(kernel.store().rows(tree).map_err(failed)?);
            self.ledger.settle(&rows).map_err(failed)?
        };
        if let Some(scales) = &intent.scales {
            scales.weigh(settled.effect)?;
        }
        if settled.changes.is_empty() {
            return intent.unchanged(kernel.store(), mount, &site.path).await;
        }
        let mut entry = intent.entry(tree, &site.path, None);
        (entry.preconditions, entry.changes, entry.items) = (settled.preconditions, settled.changes, items);
        entry.told = Some(told);
        let kept = pruning::added_by(&entry.changes);
        let (publisher, visible) = (kernel.clone(), by_mount(std::mem::take(&mut *self.visible.lock())));
        let holds = std::mem::take(&mut *self.holds.lock());
        let published = Box::new(move |_| {
            for (mount, visible, subtree) in visible {
                let generation = if subtree { mount.raise_generation() } else { mount.generation() };
                publish(&publisher, mount.root, generation, visible);
            }
            drop(holds);
        });
        match commit(kernel, intent, intent.durability(mount), entry, published).await {
            Ok((lsn, true)) => {
                if kept > 0 {
                    pruning::added(kernel, tree, kept);
                }
                if let Some(scales) = &intent.scales {
                    scales.committed(lsn);
                }
                Ok(intent.receipt(mount, lsn))
            }
            // It was committed before, by another call with its id: answered as a repeat.
            Ok((_, false)) => Err(Stop::Again),
            Err(error) => Err(commit_error(intent.op, &site.path, &error)),
        }
    }
}

impl RowVolume<'_> {
    /// What is at `site`, which must be as `expected`.
    pub(crate) fn check(
        &self,
        site: &Site,
        intent: &Intent,
        expected: &Precondition,
    ) -> Result<Option<Arc<FileMetadata>>, Stop> {
        let rows = self.rows().map_err(|error| store_error(intent.op, &site.path, &error))?;
        let expect = |found| super::expect(intent, &site.path, found, Create::IfMissing, expected);
        match self.place(&rows, site, intent)?.end {
            // A link that came here since the path was resolved: what it leads to is meant.
            End::Entry { row, .. } if row.entry_type == EntryType::Link => Err(Stop::Again),
            End::Entry { step, row } => {
                let (version, generation) = (row.version, row.generation);
                let id = step.map_or(self.mount.root, |step| step.dentry.id);
                let content_id = row.content_id.as_ref();
                expect(Some(State { file_id: id, version, generation, content_id }))?;
                Ok(Some(Arc::new(row.metadata(site.path.clone(), self.mount.zone.clone(), id))))
            }
            End::Nothing { .. } => {
                // A directory that is there because of a mount below it has no row.
                let implied = self.kernel.has_mounts_below(&intent.caller.zone, &site.path);
                let file_id = FileId(site.path.hash64());
                expect(implied.then_some(State { file_id, version: 0, generation: 0, content_id: None }))?;
                Ok(None)
            }
        }
    }
}

/// For each mount what becomes visible there, and whether that begins with all that was known of it being known no more.
fn by_mount(visible: Vec<(Arc<Mount>, Vec<Visible>)>) -> Vec<(Arc<Mount>, Vec<Visible>, bool)> {
    let mut mounts: Vec<(Arc<Mount>, Vec<Visible>, bool)> = Vec::new();
    for (mount, visible) in visible {
        let known = mounts.iter().position(|(other, ..)| Arc::ptr_eq(other, &mount));
        let known = known.unwrap_or_else(|| {
            mounts.push((mount, Vec::new(), false));
            mounts.len() - 1
        });
        let (_, all, subtree) = &mut mounts[known];
        for change in visible {
            match change {
                // What an operation before it has put below the directory is elsewhere by now, or nowhere. It is looked up again.
                Visible::Subtree => {
                    all.retain(|change| matches!(change, Visible::PipeGone(_) | Visible::StreamGone(..)));
                    *subtree = true;
                }
                change => all.push(change),
            }
        }
    }
    mounts
}

/// The operation on these paths, as the log keeps it.
pub(crate) fn logged(op: nexus_messages::Op, path: &VPath, other: Option<&VPath>) -> LogItem {
    LogItem { op, path: path.clone(), other: other.cloned() }
}
