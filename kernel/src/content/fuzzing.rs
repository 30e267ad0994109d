//! What the targets of `fuzzing` reach chunk lists through.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::chunked::{Blobs, Cursor, Sort};
use super::chunker::Sizes;
use super::list::{Entry, Hash, List, Lists, Part, Shape};
use crate::hal::StoreError;

/// So small that a few parts make lists of lists.
const SMALL: Shape = Shape { sizes: Sizes { min: 16, avg: 64, max: 256 }, fan: 2 };

/// The lists that tell these chunks, the root last.
pub(crate) fn lists(parts: &[(Hash, u64)]) -> Vec<(Hash, Bytes)> {
    let (mut lists, mut complete) = (Lists::new(SMALL), Vec::new());
    parts.iter().for_each(|(hash, length)| {
        lists.push(0, Part { hash: *hash, length: *length }, &mut complete);
    });
    let root = lists.finish(&mut complete);
    assert_eq!(root.map(|root| root.hash), complete.last().map(|(hash, _)| *hash));
    complete
}

/// Whether `bytes` are a list; then it is sound in all it says.
pub(crate) fn check_list(bytes: Bytes) -> bool {
    let Ok(list) = List::parse(bytes.clone()) else { return false };
    assert!(List::known(bytes).is_some(), "a list is unknown once it was parsed");
    let mut before = 0;
    for index in 0..list.entries() {
        let Some(Entry { start, end, .. }) = list.entry(index) else { panic!("entry {index} is not there") };
        assert!(start == before && start < end, "entry {index} goes from {start} to {end}");
        assert_eq!((list.find(start), list.find(end - 1)), (index, index));
        before = end;
    }
    assert!(list.entry(list.entries()).is_none() && list.length() == before);
    true
}

/// Reads content of `total` bytes out of `blobs`, which are taken as they are.
pub(crate) async fn read(
    blobs: Arc<BTreeMap<Hash, Bytes>>,
    root: &Hash,
    total: u64,
    range: Range<u64>,
) -> Result<Bytes, StoreError> {
    Cursor::open(Unverified(blobs), root, total).await?.read(range).await
}

#[derive(Clone)]
struct Unverified(Arc<BTreeMap<Hash, Bytes>>);

impl Blobs for Unverified {
    fn get(&self, _: Sort, hash: &Hash) -> impl Future<Output = Result<Bytes, StoreError>> + Send {
        let blob = self.0.get(hash).cloned();
        std::future::ready(blob.ok_or(StoreError::NotFound { what: "a blob".into() }))
    }

    fn put(&self, _: Sort, _: Hash, _: Bytes) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    fn crunch<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        std::future::ready(Ok(job()))
    }
}
