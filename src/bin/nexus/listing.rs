//! Pages through a directory, one page at a time.

use nexus::syscall::{DirEntry, Listing, SysReaddir};
use nexus::{Nexus, Result};

/// How many entries are fetched at once: what bounds the memory that a listing of any size takes.
const PAGE: u32 = 1_024;

/// A listing that is under way.
pub(crate) struct Pages<'a> {
    nx: &'a Nexus,
    // Invariant: none once the last page was given.
    next: Option<SysReaddir>,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(nx: &'a Nexus, listing: SysReaddir) -> Self {
        Self { nx, next: Some(listing.limit(PAGE)) }
    }

    /// The next page, which may be empty; none when there are no more.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<DirEntry>>> {
        let Some(call) = self.next.take() else { return Ok(None) };
        let Listing { entries, next, .. } = self.nx.send(call.clone()).await?;
        self.next = next.map(|cursor| call.after(cursor));
        Ok(Some(entries))
    }
}
