//! Folders of the new store that keep their owner from changing what is in them, as their modes say: they are opened for it, and closed when it is done.

use nexus_messages::Attributes;

use super::files::DIFFERS;
use super::{Attempts, Failed, Run, Side, tried};

/// The permission bits without which nothing can be put into a folder, or taken out of it.
const OWNER_CHANGES: u32 = 0o300;

/// Makes a call of the new store that changes what is at a path, once more when the folder that it is in had to be opened for it.
macro_rules! changing {
    ($run:expr, $path:expr, $call:expr) => {
        match tried!($run, Side::New, $call) {
            Err(failed) if failed.kind == ErrorKind::PermissionDenied && $run.opens($path).await? => {
                tried!($run, Side::New, $call)
            }
            done => done,
        }
    };
}
pub(super) use changing;

impl Run {
    /// Opens the folders on the way to `path` that this migration made, and says whether there are any. Their modes are set again when all is in them.
    pub(super) async fn opens(&self, path: &str) -> Result<bool, Failed> {
        let mut found = false;
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            let known = self.journal.copies(&[folder.to_owned()])?.pop().flatten();
            let Some(row) = known.filter(|row| row.ours && row.folder) else { continue };
            // Somebody else may have opened it just now.
            found = true;
            let Some(info) = self.look_new(folder).await? else { continue };
            if info.mode & OWNER_CHANGES == OWNER_CHANGES {
                continue;
            }
            if row.of.is_some() {
                // Whenever it is cut short, the row does not say that the folder has its mode.
                self.confirm_folder(folder, DIFFERS);
                self.journal.flush(true).await?;
                self.note_again(folder, false);
            }
            let open = Attributes::none().mode(info.mode | OWNER_CHANGES);
            tried!(self, Side::New, async { self.new_files()?.set_attributes(folder, &open).await })?;
        }
        Ok(found)
    }
}
