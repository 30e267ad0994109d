//! Taking back what a migration has written to the new store.

use nexus_messages::ErrorKind;

use super::{Failed, MigrationState, Run, contents, journal, not_taken, tried};
use crate::hal::{Addressing, ObjectStore, StoreError};

impl Run {
    /// Removes what was written.
    pub(super) async fn undo(self) {
        let undone = self.remove_all().await;
        match undone {
            Ok(()) => self.progress.end(MigrationState::Aborted),
            Err(failed) => {
                tracing::warn!(point = %self.mount.point, why = %failed.why, "a migration was not undone");
                self.progress.fail(&failed);
            }
        }
        self.mount.threads().end(self.kernel.env(), (self.target, self.opened)).await;
    }

    async fn remove_all(&self) -> Result<(), Failed> {
        // Another mount, or migration, may count on what it found there.
        not_taken(&self.kernel, &self.mount, &self.spec)?;
        // Whenever it is cut short, no row speaks for a copy that is gone.
        self.journal.doubt_all().await?;
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
        if self.is_by_path() {
            return gone(self.delete(name).await);
        }
        let id = contents::id_of(name).ok_or_else(|| StoreError::Corrupt {
            what: "the journal of a migration".into(),
            found: format!("a content called {name:?}"),
        })?;
        tried!(self, async {
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
