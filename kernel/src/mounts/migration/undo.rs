//! Ending a migration: what it has written to the new store is taken back, or left where it is.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_messages::{Caller, Error, ErrorKind, Op, VPath};

use super::crossing::Crossing;
use super::failed::{Attempts, Side, tried};
use super::journal::{Journal, StateRow};
use super::view::Progress;
use super::{Failed, MigrationState, Run, contents, journal, mount_at, not_taken, open_new, order_of, start};
use crate::hal::{Addressing, ObjectStore, StoreError};
use crate::kernel::Kernel;
use crate::mounts::attach::LOCK_WAIT_MAX;

/// How long calls of the new store may take that were begun, before what they wrote is removed.
const UNDO_MAX: Duration = Duration::from_secs(60);

/// Ends the migration of the mount at `point`, whether it runs or was cut short. With `leave` nothing is asked of the new store.
pub(super) async fn end(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    point: &VPath,
    leave: bool,
) -> Result<(), Error> {
    let fail = |kind| Error::new(Op::Mount, point, kind);
    let failed = |error: Failed| fail(error.kind).because(error.why);
    let mount = mount_at(kernel, &caller.zone, point)?;
    if let Some(running) = kernel.migrations().of(&mount).filter(|progress| !progress.state().is_over()) {
        let why = "the new driver takes the place of the old one just now";
        return if running.abort(leave) { Ok(()) } else { Err(fail(ErrorKind::Busy).because(why)) };
    }
    let waited = kernel.env().timeout(LOCK_WAIT_MAX, mount.changing().clone().lock_owned()).await;
    let turn = waited.map_err(|_| fail(ErrorKind::Busy).because("the mount is being changed"))?;
    let known = Journal::state(kernel, &mount).map_err(|error| failed(error.into()))?;
    let Some(row) = known.filter(|row| !row.over) else {
        return Err(fail(ErrorKind::NotFound).because("no migration of it was begun that is not done"));
    };
    let spec = Arc::new(row.spec.clone());
    let progress = Progress::new(kernel.env(), kernel.catalogue(), &mount, &spec, MigrationState::Aborting);
    let progress = Arc::new(progress);
    let journal = Journal::new(kernel, &mount, order_of(&mount, caller, &spec)).with_successor(row.successor);
    if leave {
        kernel.migrations().list(&mount, progress.clone());
        let giving_up = {
            let progress = progress.clone();
            async move {
                give_up(&journal, &progress, row).await;
                drop(turn);
            }
        };
        start(kernel, "migration.give_up", &progress, giving_up);
        return Ok(());
    }
    let opened = open_new(kernel, &mount, &spec).await;
    let opened = opened.map_err(|error| failed(not_removed(error)))?;
    let run = Run::new(kernel, &mount, opened, journal, progress.clone(), (&row, true), turn).await;
    kernel.migrations().list(&mount, progress.clone());
    start(kernel, "migration.abort", &progress, run.undo());
    Ok(())
}

async fn give_up(journal: &Journal, progress: &Progress, row: StateRow) {
    match journal.give_up(row).await {
        Ok(left) => progress.give_up(left),
        Err(failed) => progress.fail(&failed),
    }
}

/// Why copies are still there, and what can be done about it.
fn not_removed(failed: Failed) -> Failed {
    let why = format!(
        "what was copied cannot be removed: {}. Abort it again when that can be done; or give it up, with --abort --leave-copies, which asks nothing of the new store and leaves \
         there what was copied",
        failed.why
    );
    Failed { why, ..failed }
}

impl Run {
    /// Removes what was written; or leaves it, as soon as that is asked for.
    pub(super) async fn undo(self) {
        let row = self.row(false);
        let undone = {
            let (left, removed) = (pin!(self.progress.leave.wait()), pin!(self.remove_all()));
            match select(left, removed).await {
                Either::Left(_) => None,
                Either::Right((done, _)) => Some(done),
            }
        };
        match undone {
            None => {
                if let Crossing::ToRows { store, .. } = &self.crossing {
                    store.give_up();
                }
                give_up(&self.journal, &self.progress, row).await;
            }
            Some(Ok(())) => self.progress.end(MigrationState::Aborted),
            Some(Err(failed)) => {
                tracing::warn!(point = %self.mount.point, why = %failed.why, "a migration was not undone");
                self.progress.fail(&not_removed(failed));
            }
        }
        self.mount.threads().end(self.kernel.env(), (self.target, self.opened, self.crossing)).await;
    }

    async fn remove_all(&self) -> Result<(), Failed> {
        // Another mount, or migration, may count on what it found there.
        not_taken(&self.kernel, &self.mount, &self.spec)?;
        // Whenever it is cut short, no row speaks for a copy that is gone.
        self.journal.doubt_all().await?;
        if let Crossing::ToRows { store, .. } = &self.crossing {
            // What was begun ends first, so that nothing comes later.
            let Some(_closed) = store.close(UNDO_MAX).await else {
                let why = format!("calls of the new store have not ended within {UNDO_MAX:?}");
                return Err(Failed { kind: ErrorKind::TimedOut, why });
            };
            self.remove_contents().await?;
            // The rows of the copies go with the successor.
            return self.journal.clear().await;
        }
        let (mut folders, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let page = self.journal.page("", after.as_deref())?;
            let last = page.len() < journal::PAGE;
            for (name, row) in &page {
                if row.folder {
                    folders.push(name.clone());
                } else if row.ours {
                    self.remove_copy(name).await?;
                }
            }
            if last {
                break;
            }
            after = page.into_iter().next_back().map(|(name, _)| name);
        }
        // Those below others first; what somebody else has put into one stays, and with it the folder.
        for folder in folders.iter().rev().filter(|_| self.can.directories) {
            match self.delete(folder).await {
                Err(failed) if failed.kind == ErrorKind::NotEmpty => {}
                deleted => gone(deleted)?,
            }
        }
        self.journal.clear().await
    }

    async fn remove_copy(&self, name: &str) -> Result<(), Failed> {
        if self.is_of_files() {
            return gone(self.delete(name).await);
        }
        self.remove_content(name).await
    }

    pub(super) async fn remove_content(&self, name: &str) -> Result<(), Failed> {
        let id = contents::id_of(name).ok_or_else(|| StoreError::Corrupt {
            what: "the journal of a migration".into(),
            found: format!("a content called {name:?}"),
        })?;
        tried!(self, Side::New, async {
            match self.target.addressing() {
                Addressing::Content(store) => match store.delete(&id).await {
                    Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(error),
                },
                Addressing::Path(_) => Ok(()),
            }
        })
    }
}

/// What the new store cannot have at all was announced at most.
fn gone(deleted: Result<(), Failed>) -> Result<(), Failed> {
    match deleted {
        Err(failed) if failed.kind == ErrorKind::InvalidArgument => Ok(()),
        deleted => deleted,
    }
}
