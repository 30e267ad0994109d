//! Going through all that a zone's files hold, as it was at one moment.

use nexus_messages::{Error, ErrorKind, FileId, Holding, Lsn, Op, Result, VPath, ZoneId};

use crate::hal::{Metastore, StoreError, TreeId};
use crate::kernel::Kernel;
use crate::namespace::{Rows, holding};

/// How many children are looked at in one step.
const PAGE: usize = 1_024;
/// How often it looks for a moment between two commits.
const LOOKS_MAX: usize = 10_000;

impl Kernel {
    pub(crate) async fn census<T: Send + 'static>(
        &self,
        zone: &ZoneId,
        mut state: T,
        visit: impl Fn(&mut T, Holding) + Send + 'static,
    ) -> Result<(Lsn, T)> {
        let failed = |error: StoreError| Error::global(Op::Service, error.kind()).because(error);
        let Some(tree) = self.tree_of(zone).map_err(failed)? else { return Ok((Lsn(0), state)) };
        let (rows, lsn) = at_one_moment(self.store().metastore(), tree).map_err(failed)?;
        let roots: Vec<(FileId, VPath)> = self
            .mounts()
            .all()
            .iter()
            .filter(|mount| mount.zone == *zone && !mount.is_path_addressed())
            .map(|mount| (mount.root, mount.point.clone()))
            .collect();
        let pool = self.env().pool("census", 1, 1);
        let counted = pool.run(move || {
            for (root, point) in roots {
                walk(&rows, root, point, &mut |held| visit(&mut state, held))?;
            }
            Ok(state)
        });
        match counted.await {
            Ok(state) => Ok((lsn, state.map_err(failed)?)),
            Err(error) => Err(Error::global(Op::Service, ErrorKind::Crashed).because(error)),
        }
    }
}

/// A view of the rows, and the last commit that it sees.
fn at_one_moment(metastore: &dyn Metastore, tree: TreeId) -> std::result::Result<(Rows, Lsn), StoreError> {
    for _ in 0..LOOKS_MAX {
        let lsn = metastore.last_lsn(tree)?;
        let reader = metastore.reader()?;
        // Whatever the view sees beyond that commit, the log has by now.
        if metastore.changes(tree, lsn, 1)?.is_empty() {
            return Ok((Rows { reader, tree }, lsn));
        }
    }
    Err(StoreError::Backend { what: "taking a census".into(), cause: "commits came without a pause".into() })
}

fn walk(
    rows: &Rows,
    root: FileId,
    point: VPath,
    visit: &mut impl FnMut(Holding),
) -> std::result::Result<(), StoreError> {
    let mut directories = vec![(root, point)];
    while let Some((directory, path)) = directories.pop() {
        let mut after: Option<String> = None;
        loop {
            let page = rows.children(directory, after.as_deref(), PAGE)?;
            for (name, dentry) in &page {
                // One whose path would be too long cannot be reached either.
                let Ok(path) = path.join(name) else { continue };
                if dentry.entry_type.is_directory() {
                    directories.push((dentry.id, path));
                } else if let Some(held) = holding(&path, &rows.inode(dentry.id)?) {
                    visit(held);
                }
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().next_back().map(|(name, _)| name);
        }
    }
    Ok(())
}
