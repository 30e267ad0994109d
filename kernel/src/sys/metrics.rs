//! `metrics`: what the kernel counts, in Prometheus' text format.

use nexus_actors::ActorState;
use nexus_supervisors::TreeStatus;

use super::{Entry, Provider, store};
use crate::dispatch::{HookCounts, HookKind, HookTable};
use crate::hal::CacheFigures;
use crate::kernel::Kernel;
use crate::metrics::{Exposition, Kind, MIME, Measured};
use crate::mounts::{MountState, MountStatus};
use crate::registry::ServiceStatus;

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;

/// The caches, in the order in which the kernel tells of them.
const CACHES: [&str; 2] = ["metadata", "content"];

pub(super) struct Metrics;

impl Provider for Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn is_directory(&self) -> bool {
        false
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        at.is_empty().then(|| Entry::File { content: text(kernel).into(), mime: MIME })
    }
}

fn text(kernel: &Kernel) -> String {
    let mut text = Exposition::default();
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    text.family("nexus_build_info", Kind::Gauge, "What runs here.", [(version, 1)]);
    syscalls(&mut text, kernel);
    caches(&mut text, kernel);
    committer(&mut text, kernel);
    scrub(&mut text, kernel);
    locks(&mut text, kernel);
    watches(&mut text, kernel);
    pipes(&mut text, kernel);
    streams(&mut text, kernel);
    children(&mut text, kernel);
    actors(&mut text, kernel);
    mounts(&mut text, kernel);
    services(&mut text, kernel);
    hooks(&mut text, kernel);
    text.finish()
}

fn syscalls(text: &mut Exposition, kernel: &Kernel) {
    let ops = kernel.syscalls().entries();
    let outcomes = ops.iter().flat_map(|op| {
        let outcomes = op.outcomes.iter();
        outcomes.map(|(outcome, count)| (vec![("op", &*op.op), ("outcome", &**outcome)], count))
    });
    let help = "Syscalls by operation and what came of them: ok, an errno, or dropped by the caller.";
    text.family("nexus_syscalls_total", Kind::Counter, help, outcomes);
    let warm = ops.iter().map(|op| (vec![("op", &*op.op)], op.warm));
    let help = "Syscalls answered from memory, which are not timed.";
    text.family("nexus_syscalls_warm_total", Kind::Counter, help, warm);
    let running = ops.iter().map(|op| (vec![("op", &*op.op)], op.in_flight));
    text.family("nexus_syscalls_in_flight", Kind::Gauge, "Syscalls being executed.", running);
    let took = ops.iter().map(|op| {
        let took = Measured { buckets: op.latency.clone(), count: op.timed, sum: op.timed_ns };
        (vec![("op", &*op.op)], took)
    });
    let help = "How long syscalls took that were not answered from memory.";
    text.histograms("nexus_syscall_seconds", help, SECOND, took);
}

fn caches(text: &mut Exposition, kernel: &Kernel) {
    let counted = kernel.cache_hits_and_misses();
    let of = |pick: fn((u64, u64)) -> u64| {
        CACHES.into_iter().zip(counted).map(move |(cache, both)| (vec![("cache", cache)], pick(both)))
    };
    let help = "Looks into a cache that found what they looked for.";
    text.family("nexus_cache_hits_total", Kind::Counter, help, of(|(hits, _)| hits));
    let help = "Looks into a cache that did not find what they looked for.";
    text.family("nexus_cache_misses_total", Kind::Counter, help, of(|(_, misses)| misses));
    let services = kernel.kernel_cache().entry();
    let calls = [
        ("hit", services.hits),
        ("miss", services.misses),
        ("change", services.changes),
        ("error", services.errors),
        ("late", services.late),
        ("bypassed", services.bypassed),
    ];
    let calls = calls.map(|(outcome, count)| (vec![("outcome", outcome)], count));
    let help = "Calls of the cache that services are handed.";
    text.family("nexus_service_cache_calls_total", Kind::Counter, help, calls);
    let held = kernel.cache_stats();
    let help = "Paths whose metadata is at hand.";
    text.single("nexus_cache_metadata_entries", Kind::Gauge, help, held.metadata_entries);
    let help = "Bytes of such metadata, with what it costs to keep it.";
    text.single("nexus_cache_metadata_bytes", Kind::Gauge, help, held.metadata_bytes);
    let help = "Bytes of content at hand, with what it costs to keep them.";
    text.single("nexus_cache_content_bytes", Kind::Gauge, help, held.content_bytes);
}

fn committer(text: &mut Exposition, kernel: &Kernel) {
    let (sizes, applied) = kernel.store().measured();
    let help = "Entries of committed batches.";
    text.histograms("nexus_store_batch_entries", help, 1.0, [(Vec::new(), sizes)]);
    let help = "How long the metastore took to make a batch durable.";
    text.histograms("nexus_store_apply_seconds", help, SECOND, [(Vec::new(), applied)]);
    let help = "Batches that the metastore did not take.";
    text.single("nexus_store_failed_batches_total", Kind::Counter, help, kernel.store().failures());
    let (put_off, unflushed) = kernel.store().put_off();
    let help = "Entries that were acknowledged before they were on disk.";
    text.single("nexus_store_put_off_entries_total", Kind::Counter, help, put_off);
    let help = "Bytes of such entries that are in memory alone.";
    text.single("nexus_store_unflushed_bytes", Kind::Gauge, help, unflushed);
    let positions = store::positions(kernel);
    let positions = positions.iter().map(|(zone, lsn)| (vec![("zone", zone.as_str())], lsn));
    text.family("nexus_store_lsn", Kind::Gauge, "The last place in the log of a zone.", positions);
}

fn scrub(text: &mut Exposition, kernel: &Kernel) {
    let scrubbing = kernel.scrubbing();
    let help = "Bytes of content that scrubs have read.";
    text.single("nexus_scrub_bytes_total", Kind::Counter, help, scrubbing.scrubbed_bytes());
    let left = [("check", scrubbing.check()), ("scrub", scrubbing.scrub())];
    let left = left.map(|(by, latest)| (vec![("by", by)], latest.map_or(0, |latest| latest.left())));
    let help = "What the latest check, or the latest scrub, found wrong and left so.";
    text.family("nexus_store_faults", Kind::Gauge, help, left);
}

fn locks(text: &mut Exposition, kernel: &Kernel) {
    let locks = kernel.locks().statistics();
    let entries = locks.held.saturating_sub(locks.subtrees);
    let held = [(vec![("scope", "entry")], entries), (vec![("scope", "subtree")], locks.subtrees)];
    text.family("nexus_locks_held", Kind::Gauge, "Path locks held.", held);
    text.single("nexus_locks_waiting", Kind::Gauge, "Calls that wait for a path lock.", locks.waiting);
    text.single("nexus_locks_taken_total", Kind::Counter, "Path locks taken.", locks.taken);
    let help = "Calls that had to wait for a path lock and were served.";
    text.single("nexus_locks_waited_total", Kind::Counter, help, locks.waited);
    let advisory = kernel.advisory().statistics();
    text.single("nexus_advisory_locks_held", Kind::Gauge, "Advisory locks held.", advisory.held);
    let help = "Calls that wait for an advisory lock.";
    text.single("nexus_advisory_locks_waiting", Kind::Gauge, help, advisory.waiting);
    text.single(
        "nexus_advisory_locks_granted_total",
        Kind::Counter,
        "Advisory locks given.",
        advisory.granted,
    );
    let help = "Advisory locks and semaphores' places that were taken back because their time was over.";
    text.single("nexus_advisory_locks_expired_total", Kind::Counter, help, advisory.expired);
    let help = "Calls that were told that they wait for each other.";
    text.single("nexus_advisory_locks_deadlocks_total", Kind::Counter, help, advisory.deadlocks);
}

fn watches(text: &mut Exposition, kernel: &Kernel) {
    let counted = kernel.watches().statistics();
    text.single("nexus_watches", Kind::Gauge, "Watches that somebody waits on.", counted.watches);
    let help = "Events that were queued for watches.";
    text.single("nexus_watch_events_total", Kind::Counter, help, counted.delivered);
    let help = "How often the queue of a watch was full, and its owner had to go on from the log.";
    text.single("nexus_watch_overflows_total", Kind::Counter, help, counted.overflows);
    let help = "Commits that watches are to be told of when they are on disk.";
    text.single("nexus_watch_waiting", Kind::Gauge, help, counted.waiting);
}

fn pipes(text: &mut Exposition, kernel: &Kernel) {
    let counted = kernel.pipes().statistics();
    text.single("nexus_pipes", Kind::Gauge, "Pipes that are open.", counted.open);
    let help = "Messages that are written to pipes and not read.";
    text.single("nexus_pipe_messages", Kind::Gauge, help, counted.messages);
    text.single("nexus_pipe_bytes", Kind::Gauge, "Bytes of these messages.", counted.bytes);
    let waiting = [("reader", counted.readers_waiting), ("writer", counted.writers_waiting)];
    let waiting = waiting.map(|(side, waiting)| (vec![("side", side)], waiting));
    let help = "Reads of pipes that wait for a message, and writes that wait for room.";
    text.family("nexus_pipe_waiting", Kind::Gauge, help, waiting);
    let passed = [("write", counted.written), ("read", counted.read)];
    let passed = passed.map(|(op, passed)| (vec![("op", op)], passed));
    text.family("nexus_pipe_messages_total", Kind::Counter, "Messages written to pipes, and read.", passed);
}

fn streams(text: &mut Exposition, kernel: &Kernel) {
    let counted = kernel.streams().statistics();
    text.single("nexus_streams", Kind::Gauge, "Streams that are open.", counted.open);
    text.single("nexus_stream_bytes", Kind::Gauge, "Bytes that their records cost.", counted.bytes);
    let help = "Reads of streams that wait for a record.";
    text.single("nexus_stream_waiting", Kind::Gauge, help, counted.readers_waiting);
    let help = "Streams whose entries are gone, and whose records are still there.";
    text.single("nexus_streams_dropped", Kind::Gauge, help, counted.dropped);
    text.single("nexus_stream_appends_total", Kind::Counter, "Appends to streams.", counted.appends);
    let passed = [("write", counted.appended), ("read", counted.read)];
    let passed = passed.map(|(op, passed)| (vec![("op", op)], passed));
    text.family(
        "nexus_stream_records_total",
        Kind::Counter,
        "Records appended to streams, and read.",
        passed,
    );
    let help = "Records that went by themselves because they were too old.";
    text.single("nexus_stream_records_aged_total", Kind::Counter, help, counted.aged);
    text.single("nexus_stream_groups", Kind::Gauge, "Consumer groups that were asked.", counted.groups);
    let shared = [
        ("taken", counted.taken),
        ("taken_again", counted.taken_again),
        ("acknowledged", counted.acknowledged),
        ("dead", counted.dead),
    ];
    let shared = shared.map(|(what, count)| (vec![("what", what)], count));
    let help = "Records given to members of groups, given again, acknowledged, and given too often.";
    text.family("nexus_stream_group_records_total", Kind::Counter, help, shared);
}

fn children(text: &mut Exposition, kernel: &Kernel) {
    let counted = kernel.children_table().statistics();
    text.single("nexus_children", Kind::Gauge, "Child processes that run.", counted.running);
    let help = "Child processes that have ended, and whose output is on its way to who reads it.";
    text.single("nexus_children_ended", Kind::Gauge, help, counted.ended);
    let help = "Child processes that were started.";
    text.single("nexus_children_started_total", Kind::Counter, help, counted.started);
}

fn actors(text: &mut Exposition, kernel: &Kernel) {
    let mut all = Vec::new();
    if let Some(tree) = kernel.supervised() {
        flatten(tree.snapshot(), "", &mut all);
    }
    let mut family = |name: &str, kind, help: &str, value: fn(&TreeStatus) -> u64| {
        let samples = all.iter().map(|(path, actor)| (vec![("actor", &**path)], value(actor)));
        text.family(name, kind, help, samples);
    };
    let running = |it: &TreeStatus| u64::from(it.actor.state == ActorState::Running);
    family("nexus_actor_running", Kind::Gauge, "Whether the actor serves messages.", running);
    let generation = |it: &TreeStatus| it.actor.generation;
    family("nexus_actor_generation", Kind::Gauge, "Incarnations of the actor.", generation);
    let restarts = |it: &TreeStatus| it.actor.restarts;
    let help = "Incarnations that replaced one that had ended.";
    family("nexus_actor_restarts_total", Kind::Counter, help, restarts);
    let served = |it: &TreeStatus| it.actor.served;
    family("nexus_actor_served_total", Kind::Counter, "Messages begun.", served);
    let queued = |it: &TreeStatus| it.actor.queued as u64;
    family("nexus_actor_queued", Kind::Gauge, "Messages in the mailbox.", queued);
    let bound = |it: &TreeStatus| it.actor.bound as u64;
    family("nexus_actor_bound", Kind::Gauge, "Most messages that the mailbox holds.", bound);
    let in_flight = |it: &TreeStatus| it.actor.in_flight as u64;
    family("nexus_actor_in_flight", Kind::Gauge, "Messages begun and not finished.", in_flight);
}

/// The actors with their paths, each before those below it.
fn flatten(mut status: TreeStatus, above: &str, all: &mut Vec<(String, TreeStatus)>) {
    let path = if above.is_empty() { status.id.to_string() } else { format!("{above}/{}", status.id) };
    let children = std::mem::take(&mut status.children);
    all.push((path.clone(), status));
    for child in children {
        flatten(child, &path, all);
    }
}

fn mounts(text: &mut Exposition, kernel: &Kernel) {
    let mounts = kernel.mount_statuses();
    let mut family = |name: &str, kind, help: &str, value: fn(&MountStatus) -> u64| {
        let samples = mounts.iter().map(|mount| (labels_of(mount), value(mount)));
        text.family(name, kind, help, samples);
    };
    let serving = |mount: &MountStatus| u64::from(mount.state == MountState::Serving);
    family("nexus_mount_serving", Kind::Gauge, "Whether the mount's driver serves.", serving);
    let in_flight = |mount: &MountStatus| mount.in_flight as u64;
    family("nexus_mount_in_flight", Kind::Gauge, "Calls inside the mount's driver.", in_flight);
    let generation = |mount: &MountStatus| mount.generation;
    family("nexus_mount_generation", Kind::Gauge, "How often the mount's driver was replaced.", generation);
    let mut calls = |name: &str, help: &str, value| family(name, Kind::Counter, help, value);
    calls("nexus_mount_calls_total", "Calls made of the driver.", |mount| mount.calls.made);
    let help = "Calls in which the backend failed, late ones and panics included.";
    calls("nexus_mount_failed_total", help, |mount| mount.calls.failed);
    let help = "Calls of the driver that were late, and given up.";
    calls("nexus_mount_timed_out_total", help, |mount| mount.calls.timed_out);
    let help = "Calls in which the driver panicked.";
    calls("nexus_mount_panicked_total", help, |mount| mount.calls.panicked);
    let help = "Calls that were not made because the driver had failed too often.";
    calls("nexus_mount_refused_total", help, |mount| mount.calls.refused);
    calls("nexus_mount_read_bytes_total", "Bytes that came from the driver.", |mount| mount.bytes_read);
    calls("nexus_mount_written_bytes_total", "Bytes that the driver took.", |mount| mount.bytes_written);
    let errors = mounts.iter().flat_map(|mount| {
        mount.errors.iter().map(|(error, count)| {
            let mut labels = labels_of(mount);
            labels.push(("error", error.as_str()));
            (labels, *count)
        })
    });
    let help = "Calls of the driver that answered with this error, ordinary ones included.";
    text.family("nexus_mount_errors_total", Kind::Counter, help, errors);
    kept_of_mounts(text, &mounts);
    let all = kernel.mount_times();
    let times = all.iter().flat_map(|mount| {
        mount.kinds.iter().filter(|(_, measured)| measured.count > 0).map(|(kind, measured)| {
            let place = [("zone", mount.zone.as_str()), ("point", mount.point.as_str())];
            let labels = place.into_iter().chain([("driver", &*mount.driver), ("kind", kind.name())]);
            (labels.collect(), measured.clone())
        })
    });
    let help = "How long the calls of the driver took, by what they were for.";
    text.histograms("nexus_mount_call_seconds", help, 1e9, times);
}

/// What is kept here of stores that are slow or elsewhere.
fn kept_of_mounts(text: &mut Exposition, mounts: &[MountStatus]) {
    let mut family = |name: &str, kind, help: &str, value: fn(&CacheFigures) -> u64| {
        let cached = mounts.iter().filter_map(|mount| Some((mount, mount.cache.as_ref()?)));
        text.family(name, kind, help, cached.map(|(mount, cache)| (labels_of(mount), value(cache))));
    };
    let help = "Reads that what is kept here answered.";
    family("nexus_mount_cache_hits_total", Kind::Counter, help, |cache| cache.hits);
    let help = "Reads that the backend had to be asked for.";
    family("nexus_mount_cache_misses_total", Kind::Counter, help, |cache| cache.misses);
    family("nexus_mount_cache_bytes", Kind::Gauge, "Bytes kept here.", |cache| cache.bytes);
    let help = "Bytes that may be kept here.";
    family("nexus_mount_cache_bound_bytes", Kind::Gauge, help, |cache| cache.bytes_max);
    let help = "Files that are yet to be written to the backend.";
    family("nexus_mount_pending_files", Kind::Gauge, help, |cache| cache.pending_files);
    let help = "Bytes that are yet to be written to the backend.";
    family("nexus_mount_pending_bytes", Kind::Gauge, help, |cache| cache.pending_bytes);
    let help = "Files that are yet to be written to a backend that refuses them.";
    family("nexus_mount_refused_files", Kind::Gauge, help, |cache| cache.refused_files);
    let help = "Attempts to write to the backend later that failed.";
    family("nexus_mount_pending_failed_total", Kind::Counter, help, |cache| cache.failed);
}

fn labels_of(mount: &MountStatus) -> Vec<(&'static str, &str)> {
    vec![("zone", mount.zone.as_str()), ("point", mount.point.as_str()), ("driver", &*mount.driver)]
}

fn services(text: &mut Exposition, kernel: &Kernel) {
    let services = kernel.service_statuses();
    let mut family = |name: &str, kind, help: &str, value: fn(&ServiceStatus) -> u64| {
        let samples = services.iter().map(|service| (vec![("service", &*service.name)], value(service)));
        text.family(name, kind, help, samples);
    };
    let serving = |service: &ServiceStatus| u64::from(service.serving.is_some());
    family("nexus_service_serving", Kind::Gauge, "Whether a version of the service serves.", serving);
    let in_flight = |service: &ServiceStatus| service.in_flight as u64;
    family("nexus_service_in_flight", Kind::Gauge, "Calls inside the service.", in_flight);
    let mut counts = |name: &str, help: &str, value| family(name, Kind::Counter, help, value);
    let help = "Mails of the service's hooks, and messages sent and forgotten, that did not reach it.";
    counts("nexus_service_missed_total", help, |service| service.missed);
    counts("nexus_service_swaps_total", "Swaps that succeeded.", |service| service.swaps);
    let help = "Swaps that failed, and left the version before serving.";
    counts("nexus_service_failed_swaps_total", help, |service| service.failed_swaps);
    let help = "Versions that crashed on probation, after which the one before came back.";
    counts("nexus_service_swap_backs_total", help, |service| service.swap_backs);
}

fn hooks(text: &mut Exposition, kernel: &Kernel) {
    let hooks = HookTable::thaw(&kernel.dispatch().view()).statuses();
    let kinds = [
        ("resolver", HookKind::Resolver),
        ("interceptor", HookKind::Interceptor),
        ("observer", HookKind::Observer),
        ("mount", HookKind::Mount),
    ];
    let samples = kinds.map(|(name, kind)| {
        (vec![("kind", name)], hooks.iter().filter(|hook| hook.info.kind == kind).count())
    });
    text.family("nexus_hooks", Kind::Gauge, "Registered hooks.", samples);

    let ids: Vec<_> = hooks.iter().map(|hook| super::hooks::name_of(&hook.info)).collect();
    let mut family = |name: &str, kind, help: &str, value: fn(&HookCounts) -> u64| {
        let samples = hooks
            .iter()
            .zip(&ids)
            .map(|(hook, id)| (vec![("hook", &*hook.info.name), ("id", id.as_str())], value(&hook.counts)));
        text.family(name, kind, help, samples);
    };
    family("nexus_hook_queued", Kind::Gauge, "Events in an observer's queue.", |hook| hook.queued);
    let mut counts = |name: &str, help: &str, value| family(name, Kind::Counter, help, value);
    counts("nexus_hook_calls_total", "Calls of the hook; before and after a call are two.", |hook| {
        hook.calls
    });
    counts("nexus_hook_refusals_total", "Calls that the hook refused.", |hook| hook.refusals);
    counts("nexus_hook_errors_total", "Times that the hook panicked, or was down.", |hook| hook.errors);
    counts("nexus_hook_timeouts_total", "Times that the hook was late.", |hook| hook.timeouts);
    counts("nexus_hook_overflow_total", "What the hook was not told for want of room.", |hook| hook.overflow);
    let help = "Nanoseconds that the hook took, all its calls together.";
    counts("nexus_hook_nanoseconds_total", help, |hook| hook.total_ns);
}
