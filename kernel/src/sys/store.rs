//! `store/`: what the committer did, how far the log of each zone is, and what is kept in memory.

use std::collections::BTreeMap;

use nexus_messages::ZoneId;
use serde::Serialize;

use super::{Entry, Provider};
use crate::hal::TreeId;
use crate::kernel::Kernel;
use crate::metrics::Bucket;

pub(super) struct Store;

#[derive(Serialize)]
struct Committer {
    batches: u64,
    /// Entries committed or refused in them.
    entries: u64,
    /// Batches that the metastore did not take.
    failed: u64,
    /// How long the metastore took to make the batches durable, in nanoseconds.
    applied_ns: u64,
    /// Batches by how many entries they had.
    sizes: Vec<Bucket>,
    /// Batches by how long they took, in nanoseconds.
    latency: Vec<Bucket>,
}

#[derive(Serialize)]
struct Caches {
    metadata: Cache,
    content: Cache,
}

#[derive(Serialize)]
struct Cache {
    hits: u64,
    misses: u64,
    /// Paths, or bytes of content.
    held: u64,
}

impl Provider for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => Some(Entry::directory(["caches", "committer", "log"].map(|name| (name, false)))),
            ["caches"] => {
                let [(metadata_hits, metadata_misses), (content_hits, content_misses)] =
                    kernel.cache_hits_and_misses();
                let held = kernel.cache_stats();
                let metadata = Cache {
                    hits: metadata_hits,
                    misses: metadata_misses,
                    held: held.metadata_entries as u64,
                };
                let content = Cache { hits: content_hits, misses: content_misses, held: held.content_bytes };
                Some(Entry::json(&Caches { metadata, content }))
            }
            ["committer"] => {
                let (sizes, applied) = kernel.store().measured();
                Some(Entry::json(&Committer {
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
