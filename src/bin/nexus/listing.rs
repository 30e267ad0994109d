//! Pages through a directory, one page at a time; and through all below it, whatever of it cannot be read.

use std::vec::IntoIter;

use nexus::syscall::{DirEntry, Hidden, Listing, SysReaddir};
use nexus::{ErrorKind, Nexus, Result};

use crate::failure::{Failure, Outcome};
use crate::output::one_line;

/// How many entries are fetched at once: what bounds the memory that a listing of any size takes.
const PAGE: u32 = 1_024;

/// A listing that is under way.
pub(crate) struct Pages<'a> {
    nx: &'a Nexus,
    // Invariant: none once the last page was given.
    next: Option<SysReaddir>,
    hidden: Vec<Hidden>,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(nx: &'a Nexus, listing: SysReaddir) -> Self {
        Self { nx, next: Some(listing.limit(PAGE)), hidden: Vec::new() }
    }

    /// The next page, which may be empty; none when there are no more.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<DirEntry>>> {
        let Some(call) = self.next.take() else { return Ok(None) };
        let Listing { entries, next, hidden, .. } = self.nx.send(call.clone()).await?;
        self.next = next.map(|cursor| call.after(cursor));
        self.hidden = hidden;
        Ok(Some(entries))
    }

    /// Why the page that was given last is not all that there is, for `op`: once for each directory.
    pub(crate) fn left_out(&mut self, op: &'static str) -> impl Iterator<Item = Failure> + use<> {
        let hidden = std::mem::take(&mut self.hidden);
        hidden.into_iter().map(move |hidden| left_out(op, &hidden))
    }
}

fn left_out(op: &'static str, hidden: &Hidden) -> Failure {
    let Hidden { path, count, .. } = hidden;
    let path = one_line(path.as_str());
    Failure::claim(
        op,
        format!(
            "{path}: names that no path can hold, or that a file of the same name hides, are left out: {count}"
        ),
    )
}

/// All that lies below a directory, each directory before what it holds. One that cannot be read is told, and those beside it follow.
pub(crate) struct Descent<'a> {
    nx: &'a Nexus,
    /// How a directory is listed; of which one is filled in.
    listing: SysReaddir,
    /// The open directories from the top down.
    levels: Vec<Level<'a>>,
    op: &'static str,
    /// Of which directories names are left out.
    left_out: Vec<Failure>,
}

struct Level<'a> {
    pages: Pages<'a>,
    page: IntoIter<DirEntry>,
}

impl<'a> Descent<'a> {
    /// Through all below the path of `listing`, which is of one directory, for `op`.
    pub(crate) fn new(nx: &'a Nexus, listing: SysReaddir, op: &'static str) -> Self {
        let first = Level::new(nx, listing.clone());
        Self { nx, listing, levels: vec![first], op, left_out: Vec::new() }
    }

    /// The next entry, or why a directory cannot be read, or not all of it; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Outcome<DirEntry>> {
        loop {
            if let Some(failure) = self.left_out.pop() {
                return Some(Err(failure));
            }
            let deep = self.levels.len() > 1;
            let level = self.levels.last_mut()?;
            if let Some(entry) = level.page.next() {
                if entry.entry_type.is_directory() {
                    let mut listing = self.listing.clone();
                    listing.path = entry.path.clone();
                    self.levels.push(Level::new(self.nx, listing));
                }
                return Some(Ok(entry));
            }
            match level.pages.next().await {
                Ok(Some(page)) => {
                    level.page = page.into_iter();
                    self.left_out.extend(level.pages.left_out(self.op));
                }
                Ok(None) => drop(self.levels.pop()),
                Err(error) => {
                    self.levels.pop();
                    // It was there when it was seen in its parent, and is gone since.
                    if !deep || !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                        return Some(Err(error.into()));
                    }
                }
            }
        }
    }
}

impl<'a> Level<'a> {
    fn new(nx: &'a Nexus, listing: SysReaddir) -> Self {
        Self { pages: Pages::new(nx, listing), page: Vec::new().into_iter() }
    }
}
