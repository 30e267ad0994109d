//! `store/`: what the committer did, how far the log of each zone is, and what is kept in memory.

use std::collections::BTreeMap;

use nexus_messages::ZoneId;
use serde::{Deserialize, Serialize};

use super::{Entry, Provider};
use crate::hal::TreeId;
use crate::kernel::Kernel;
use crate::metrics::Bucket;

pub(super) struct Store;

/// What the committer did, as `/__sys__/store/committer` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CommitterEntry {
    /// Batches committed.
    pub batches: u64,
    /// Entries committed or refused in them.
    pub entries: u64,
    /// Batches that the metastore did not take.
    pub failed: u64,
    /// How long the metastore took to make the batches durable, in nanoseconds.
    pub applied_ns: u64,
    /// Batches by how many entries they had.
    pub sizes: Vec<Bucket>,
    /// Batches by how long they took, in nanoseconds.
    pub latency: Vec<Bucket>,
}

/// What is kept in memory, as `/__sys__/store/caches` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CachesEntry {
    /// Metadata by path.
    pub metadata: CacheEntry,
    /// Content by its address.
    pub content: CacheEntry,
}

/// What one cache did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheEntry {
    /// Looks that found what they looked for.
    pub hits: u64,
    /// Looks that did not.
    pub misses: u64,
    /// What is held: paths, or bytes of content.
    pub held: u64,
}

impl Provider for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => Some(Entry::directory(["caches", "committer", "log"].map(|name| (name, false)))),
            ["caches"] => {
                let [metadata, content] = kernel.cache_hits_and_misses();
                let held = kernel.cache_stats();
                let cache = |(hits, misses), held| CacheEntry { hits, misses, held };
                let metadata = cache(metadata, held.metadata_entries as u64);
                Some(Entry::json(&CachesEntry { metadata, content: cache(content, held.content_bytes) }))
            }
            ["committer"] => {
                let (sizes, applied) = kernel.store().measured();
                Some(Entry::json(&CommitterEntry {
                    batches: sizes.count,
                    entries: sizes.sum,
                    failed: kernel.store().failures(),
                    applied_ns: applied.sum,
                    sizes: sizes.buckets,
                    latency: applied.buckets,
                }))
            }
            ["log"] => Some(Entry::json(&positions(kernel))),
            _ => None,
        }
    }
}

/// How far the log of each zone with a mount is. A zone whose log cannot be asked, as after the store was closed, is left out.
pub(super) fn positions(kernel: &Kernel) -> BTreeMap<ZoneId, u64> {
    let trees = kernel.mounts().all().into_iter().map(|mount| (mount.zone.clone(), mount.tree));
    let trees: BTreeMap<ZoneId, TreeId> = trees.chain([(ZoneId::root(), TreeId::ROOT)]).collect();
    let position = |(zone, tree)| kernel.store().last_lsn(tree).ok().map(|lsn| (zone, lsn.0));
    trees.into_iter().filter_map(position).collect()
}
