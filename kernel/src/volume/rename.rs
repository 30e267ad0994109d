//! Renaming entries of a content-addressed mount: a few rows, whatever lies below.

use std::sync::Arc;

use nexus_messages::syscall::{Create, Renamed, SysRename};
use nexus_messages::{EntryType, Error, ErrorKind, EventKind};

use super::rows::{End, Place, RowVolume, expect};
use super::{Intent, Site, Stop, store_error};
use crate::hal::StoreError;
use crate::namespace::{Visible, dentry_key};

impl RowVolume<'_> {
    pub(crate) async fn rename(
        &self,
        from: &Site,
        to: &Site,
        intent: &Intent,
        call: &SysRename,
        subtrees: bool,
    ) -> Result<Renamed, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &from.path, &error));
        let rows = self.rows().map_err(failed)?;
        let source = self.place(&rows, from, intent)?;
        let End::Entry { step, row } = source.end else {
            return Err(intent.fail(&from.path, ErrorKind::NotFound));
        };
        let id = step.as_ref().map_or(self.mount.root, |step| step.dentry.id);
        expect(intent, &from.path, Some((id, &row)), Create::Never, &call.precondition)?;
        if row.entry_type.is_directory() && !subtrees {
            // It became a directory after it was resolved: what is below it is not locked.
            return Err(Stop::Again);
        }
        if row.entry_type == EntryType::Pipe && from.path != to.path {
            let error = Error::new(intent.op, &from.path, ErrorKind::NotSupported);
            return Err(error
                .because("a pipe is not renamed by itself, only with the directory it is in")
                .into());
        }
        if from.path == to.path {
            let metadata = Arc::new(row.metadata(from.path.clone(), self.mount.zone.clone(), id));
            return Ok(Renamed::new(false, metadata, self.unchanged(from, intent).await?));
        }
        let Some(step) = step else { return Err(intent.fail(&from.path, ErrorKind::Busy)) };

        let mut draft = self.draft(intent);
        draft.still_named(step.parent, step.name, step.dentry);
        draft.remove_name(step.parent, step.name, step.dentry);
        draft.goes_on(id);
        let target: Place<'_> = self.place(&rows, to, intent)?;
        let (parent, name, replaced) = match target.end {
            End::Entry { step: None, .. } => return Err(intent.fail(&to.path, ErrorKind::AlreadyExists)),
            End::Entry { step: Some(there), row: old } => {
                if !call.replace {
                    return Err(intent.fail(&to.path, ErrorKind::AlreadyExists));
                }
                match (row.entry_type.is_directory(), old.entry_type.is_directory()) {
                    (true, false) => return Err(intent.fail(&to.path, ErrorKind::NotADirectory)),
                    (false, true) => return Err(intent.fail(&to.path, ErrorKind::IsADirectory)),
                    (true, true) if rows.has_children(there.dentry.id).map_err(failed)? => {
                        return Err(intent.fail(&to.path, ErrorKind::NotEmpty));
                    }
                    (true, true) => draft.vacant(there.dentry.id),
                    (false, false) => {}
                }
                draft.still_named(there.parent, there.name, there.dentry);
                draft.remove_inode(there.dentry.id, Some(&old));
                draft.frees(&to.path, &old);
                (there.parent, there.name, Some(there.dentry))
            }
            End::Nothing { parent, rest } => {
                let Some((name, missing)) = rest.split_last() else {
                    return Err(intent.fail(&to.path, ErrorKind::AlreadyExists));
                };
                let new_id = || self.kernel.store().new_file_id();
                let parent = draft
                    .parents(&to.path, parent, missing, Default::default(), &intent.caller.agent, new_id)
                    .map_err(|kind| intent.fail(&to.path, kind))?;
                let key = dentry_key(self.mount.tree, parent, name);
                draft.preconditions.push(crate::hal::Precondition::Absent(key));
                (parent, *name, None)
            }
        };
        draft.name(parent, name, replaced, step.dentry);
        let mut new = row.clone();
        new.changed = intent.at;
        // A directory that somebody moved is no longer there by implication only.
        new.implicit = false;
        draft.update(id, &row, &new);
        draft.frees(&from.path, &row);
        draft.takes(&to.path, &new);
        if row.entry_type.is_directory() {
            draft.effect.moved.push((from.path.clone(), to.path.clone()));
        }
        draft.visible.push(Visible::Gone(from.path.clone()));
        if row.entry_type == EntryType::Dir {
            draft.visible.push(Visible::Subtree);
        }
        let metadata = draft.show(&to.path, id, &new);
        draft.prune(&rows, &source.above, from.path.parent()).map_err(failed)?;
        drop(rows);
        let told = intent.told(EventKind::Renamed, &metadata, false);
        let receipt = self.commit(from, Some(&to.path), intent, draft, told).await?;
        Ok(Renamed::new(replaced.is_some(), metadata, receipt))
    }
}
