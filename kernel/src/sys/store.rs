//! `store/`: what the committer did, how far the log of each zone is, and what is kept in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus_actors::CallError;
use nexus_messages::syscall::{Place, SysWrite};
use nexus_messages::{ErrorKind, Result, ZoneId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Change, Entry, Provider};
use crate::garbage::{Collect, Collection};
use crate::hal::TreeId;
use crate::kernel::{Kernel, call_kind, down};
use crate::metrics::Bucket;
use crate::scrub::{BeginCheck, BeginScrub, Check};

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
    /// Entries that were acknowledged before they were on disk; in none of the batches.
    #[serde(default)]
    pub put_off: u64,
    /// About how many bytes of such are in memory alone.
    #[serde(default)]
    pub unflushed_bytes: u64,
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
    /// What is held, in bytes, with what it costs to keep it.
    pub bytes: u64,
}

/// The collector of garbage, as `/__sys__/store/garbage` shows it. Takes writes: a [`CollectOrder`] as JSON begins a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GarbageEntry {
    /// How long it is from one collection to the next, in milliseconds; none for collections on demand only.
    pub interval_ms: Option<u64>,
    /// How long content must have been unreachable before it goes, in milliseconds.
    pub grace_ms: u64,
    /// How many contents calls and streams hold now.
    pub held: usize,
    /// The collection that runs, or the last one.
    pub latest: Option<Collection>,
}

/// What is written to `/__sys__/store/garbage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectOrder {
    /// Looks, counts, and takes nothing away.
    pub dry_run: bool,
    /// How long content must have been unreachable, in milliseconds; none for what is set.
    pub grace_ms: Option<u64>,
}

/// The checks of what is stored, as `/__sys__/store/fsck` shows them. Takes writes: a [`CheckOrder`] as JSON begins a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FsckEntry {
    /// The check that runs, or the last one.
    pub latest: Option<Check>,
}

/// What is written to `/__sys__/store/fsck`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckOrder {
    /// Repairs what can be repaired without a loss.
    pub repair: bool,
}

/// The scrub of content, as `/__sys__/store/scrub` shows it. Takes writes: an empty JSON object begins one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScrubEntry {
    /// How many bytes are read in a second, at most; 0 for no scrub but on demand, at any speed.
    pub bytes_per_s: u64,
    /// How long it is from one scrub to the next, in milliseconds.
    pub interval_ms: u64,
    /// How many bytes scrubs have read since the start of the kernel.
    pub bytes: u64,
    /// The scrub that runs, or the last one.
    pub latest: Option<Check>,
}

/// What is written to `/__sys__/store/scrub`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ScrubOrder {}

/// How long the collector, or the scrubber, may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The order that is written, whole.
fn order<T: DeserializeOwned>(change: &Change<'_>, call: &SysWrite) -> Result<T> {
    let invalid = || change.fail(ErrorKind::InvalidArgument);
    if call.place != Place::Whole {
        return Err(invalid().because("an order is given whole"));
    }
    serde_json::from_slice(&call.data.concat()).map_err(|why| invalid().because(why))
}

/// What came of an order to begin something of which one may run.
fn begun(
    change: &Change<'_>,
    answer: std::result::Result<Option<u64>, CallError>,
    what: &'static str,
) -> Result<()> {
    match answer {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(change.fail(ErrorKind::Busy).because(format!("a {what} runs"))),
        Err(error) => Err(down(change.fail(call_kind(error)), error)),
    }
}

async fn collect(change: Change<'_>, call: &SysWrite) -> Result<()> {
    let order: CollectOrder = order(&change, call)?;
    let grace = order.grace_ms.map(Duration::from_millis);
    let collect = Collect { dry_run: order.dry_run, grace };
    begun(&change, change.kernel.collector().call(collect, ANSWER_MAX).await, "collection")
}

async fn check(change: Change<'_>, call: &SysWrite) -> Result<()> {
    let CheckOrder { repair } = order(&change, call)?;
    begun(&change, change.kernel.scrubber().call(BeginCheck { repair }, ANSWER_MAX).await, "check")
}

async fn scrub(change: Change<'_>, call: &SysWrite) -> Result<()> {
    let ScrubOrder {} = order(&change, call)?;
    begun(&change, change.kernel.scrubber().call(BeginScrub, ANSWER_MAX).await, "scrub")
}

impl Provider for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => Some(Entry::directory(
                ["cache", "caches", "committer", "fsck", "garbage", "log", "scrub"].map(|name| (name, false)),
            )),
            ["cache"] => Some(Entry::json(&kernel.kernel_cache().entry())),
            ["caches"] => {
                let [metadata, content] = kernel.cache_hits_and_misses();
                let held = kernel.cache_stats();
                let cache = |(hits, misses), bytes| CacheEntry { hits, misses, bytes };
                let metadata = cache(metadata, held.metadata_bytes);
                Some(Entry::json(&CachesEntry { metadata, content: cache(content, held.content_bytes) }))
            }
            ["committer"] => {
                let (sizes, applied) = kernel.store().measured();
                let (put_off, unflushed_bytes) = kernel.store().put_off();
                Some(Entry::json(&CommitterEntry {
                    batches: sizes.count,
                    entries: sizes.sum,
                    failed: kernel.store().failures(),
                    applied_ns: applied.sum,
                    put_off,
                    unflushed_bytes,
                    sizes: sizes.buckets,
                    latency: applied.buckets,
                }))
            }
            ["fsck"] => Some(Entry::json(&FsckEntry { latest: kernel.scrubbing().check() })),
            ["garbage"] => {
                let config = kernel.config().garbage;
                Some(Entry::json(&GarbageEntry {
                    interval_ms: config.interval.map(milliseconds),
                    grace_ms: milliseconds(config.grace),
                    held: kernel.garbage().held(),
                    latest: kernel.garbage().latest(),
                }))
            }
            ["log"] => Some(Entry::json(&positions(kernel))),
            ["scrub"] => {
                let config = kernel.config().scrub;
                Some(Entry::json(&ScrubEntry {
                    bytes_per_s: config.bytes_per_s,
                    interval_ms: milliseconds(config.interval),
                    bytes: kernel.scrubbing().scrubbed_bytes(),
                    latest: kernel.scrubbing().scrub(),
                }))
            }
            _ => None,
        }
    }

    fn is_writable(&self, at: &[&str]) -> bool {
        matches!(at, ["fsck" | "garbage" | "scrub"])
    }

    fn write<'a>(&'a self, change: Change<'a>, call: &'a SysWrite) -> BoxFuture<'a, Result<()>> {
        match change.at[..] {
            ["fsck"] => Box::pin(check(change, call)),
            ["scrub"] => Box::pin(scrub(change, call)),
            _ => Box::pin(collect(change, call)),
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
