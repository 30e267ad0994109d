//! All that lies below a directory, page by page.

use std::num::NonZeroU32;
use std::vec::IntoIter;

use futures_util::stream::{self, Stream};
use nexus_messages::syscall::{Cursor, DirEntry, SysReaddir};
use nexus_messages::{IntoPath, Op, Result, VPath};

use crate::handle::{Nexus, path};

/// How many entries a walk holds at most.
const PAGE: NonZeroU32 = NonZeroU32::new(1_024).unwrap();

/// A walk through all that lies below a directory; see [`Nexus::walk`]. Holds one page of entries at a time.
#[derive(Debug)]
pub struct Walk {
    nx: Nexus,
    base: Result<VPath>,
    page: IntoIter<DirEntry>,
    next: Next,
    metadata: bool,
}

/// What follows the page.
#[derive(Debug)]
enum Next {
    First,
    After(Cursor),
    Nothing,
}

impl Nexus {
    /// All that lies below the directory, each directory before what it holds, children ordered by the bytes of their names. Links are told, not followed.
    ///
    /// A walk is no snapshot: what is made or removed meanwhile may or may not be seen, everything else is seen once.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// # nx.write("/src/main.rs", "").await?;
    /// # nx.write("/src/lib/mod.rs", "").await?;
    /// let mut walk = nx.walk("/src");
    /// let mut paths = Vec::new();
    /// while let Some(entry) = walk.next().await {
    ///     paths.push(entry?.path.to_string());
    /// }
    /// assert_eq!(paths, ["/src/lib", "/src/lib/mod.rs", "/src/main.rs"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn walk(&self, at: impl IntoPath) -> Walk {
        let base = path(Op::Readdir, at);
        Walk { nx: self.clone(), base, page: Vec::new().into_iter(), next: Next::First, metadata: false }
    }
}

impl Walk {
    /// Gives each entry its metadata.
    #[must_use]
    pub fn with_metadata(mut self) -> Self {
        self.metadata = true;
        self
    }

    /// The next entry; none at the end. After an error the walk is at its end.
    pub async fn next(&mut self) -> Option<Result<DirEntry>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let cursor = match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::First => None,
                Next::After(cursor) => Some(cursor),
                Next::Nothing => return None,
            };
            if let Err(error) = self.turn(cursor).await {
                return Some(Err(error));
            }
        }
    }

    async fn turn(&mut self, cursor: Option<Cursor>) -> Result<()> {
        let mut call = SysReaddir::at(self.base.clone()?).recursive().limit(PAGE.get());
        call.cursor = cursor;
        call.metadata = self.metadata;
        let listing = self.nx.send(call).await?;
        self.next = listing.next.map_or(Next::Nothing, Next::After);
        self.page = listing.entries.into_iter();
        Ok(())
    }

    /// The walk as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<DirEntry>> + Send {
        stream::unfold(self, |mut walk| async move { walk.next().await.map(|entry| (entry, walk)) })
    }
}
