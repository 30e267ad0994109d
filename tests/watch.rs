//! Watches: who is told of what, when, in which order, and from where on.

#![expect(clippy::disallowed_methods, reason = "the callers are threads of a program around the kernel")]

#[path = "common/many.rs"]
mod many;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use nexus::blocking::{self, EventStream};
use nexus::dispatch::{Observer, Registration};
use nexus::gate::{Decision, Permission};
use nexus::syscall::{Attribute, MountSpec, SysCopy, SysLock, SysSetattr, SysWrite};
use nexus::{
    Attributes, Caller, Config, EntryType, Errno, Event, EventKind, EventMask, Executed, Kill, Lsn, OpId,
    Right, Serving, VPath, WatchItem,
};
use nexus_drivers::memory::MemoryMetastore;
use nexus_kernel::hal::{Applied, Batch, LogRecord, Metastore, Reader, StoreError, TreeId};
use nexus_kernel::locks::{LockOwner, Mode, Scope};
use nexus_kernel::watcher::{QUEUE_MAX, WatchInfo};
use parking_lot::Mutex;

use many::commit_many;

/// Within this time something happens that is waited for.
const SOON: Duration = Duration::from_secs(30);

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn boot() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

/// The next `count` events. An overflow among them is none.
fn events(stream: &mut EventStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        match stream.next_for(SOON).expect("it comes in time").expect("it is told") {
            WatchItem::Event(event) => events.push(event),
            WatchItem::Overflow(_) => {}
        }
    }
    events
}

/// All events after `since` that the log has.
fn from_log(nx: &blocking::Nexus, at: &str, since: Lsn) -> Vec<Event> {
    let (mut events, mut since) = (Vec::new(), since);
    loop {
        let batch = nx.watch(at).since(since).batch(Duration::ZERO).expect("it is told");
        if batch.events.is_empty() {
            return events;
        }
        events.extend(batch.events);
        since = batch.next;
    }
}

fn shown(events: &[Event]) -> Vec<String> {
    let show = |event: &Event| match &event.other {
        Some(other) => format!("{} {} {other}", event.kind, event.path),
        None => format!("{} {}", event.kind, event.path),
    };
    events.iter().map(show).collect()
}

#[track_caller]
fn refused<T: fmt::Debug>(done: nexus::Result<T>, errno: Errno) -> nexus::Error {
    let error = done.expect_err("it is refused");
    assert_eq!(error.errno(), errno, "{error}");
    error
}

/// What watches see of one script, each as the events of the paths that it names.
#[track_caller]
fn check(watch: impl FnOnce(&blocking::Nexus) -> blocking::WatchBuilder, expected: &[&str]) {
    let nx = boot();
    let watch = watch(&nx);
    let begun = nx.write("/begun", "").expect("it writes").receipt.lsn;
    let mut live = watch.clone().stream().expect("it begins");
    nx.write("/w/a", "1").expect("it writes");
    nx.write("/w/a/../b".replace("a/../", ""), "2").expect("it writes");
    nx.mkdir("/w/d").expect("it is made");
    nx.write("/w/d/c.txt", "3").expect("it writes");
    nx.rename("/w/b", "/out").expect("it moves");
    nx.rename("/out", "/w/d/in").expect("it moves");
    nx.copy("/w/a", "/copy").expect("it copies");
    nx.rename("/w/d", "/w/e").expect("it moves");
    nx.unlink("/w/a").expect("it goes");
    nx.remove_all("/w").expect("it goes");
    nx.write("/begun", "end").expect("it writes");
    let expected: Vec<_> = expected.iter().map(|text| (*text).to_owned()).collect();
    let told = events(&mut live, expected.len());
    assert_eq!(shown(&told), expected);
    let batch = watch.since(begun).batch(Duration::ZERO).expect("it is told");
    assert_eq!(batch.events, told, "the log tells the same");
}

#[test]
fn a_subtree_hears_of_all_in_it_and_of_renames_by_either_path() {
    check(
        |nx| nx.watch("/w"),
        &[
            "file_write /w/a",
            "file_write /w/b",
            "dir_create /w/d",
            "file_write /w/d/c.txt",
            "file_rename /w/b /out",
            "file_rename /out /w/d/in",
            "file_rename /w/d /w/e",
            "file_delete /w/a",
            "dir_delete /w",
        ],
    );
}

#[test]
fn a_path_hears_of_itself_and_of_the_directories_that_take_it_along() {
    check(|nx| nx.watch("/w/a").alone(), &["file_write /w/a", "file_delete /w/a", "dir_delete /w"]);
    check(
        |nx| nx.watch("/w/d/c.txt").alone(),
        &["file_write /w/d/c.txt", "file_rename /w/d /w/e", "dir_delete /w"],
    );
}

#[test]
fn a_pattern_matches_names_and_two_stars_any_depth() {
    check(|nx| nx.watch_glob("/w/*").mask(EventKind::FileWritten), &["file_write /w/a", "file_write /w/b"]);
    check(|nx| nx.watch_glob("/w/**/*.txt").mask(EventKind::FileWritten), &["file_write /w/d/c.txt"]);
    check(
        |nx| nx.watch_glob("/{copy,out}").mask(EventKind::Renamed | EventKind::FileCopied),
        &["file_rename /w/b /out", "file_rename /out /w/d/in", "file_copy /copy /w/a"],
    );
}

#[test]
fn a_mask_lets_only_its_kinds_through() {
    check(
        |nx| nx.watch("/").mask(EventKind::DirCreated | EventKind::DirDeleted),
        &["dir_create /w/d", "dir_delete /w"],
    );
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_watched() {
    let nx = boot();
    let now = Duration::ZERO;
    refused(nx.watch_glob("/w/[").batch(now), Errno::EINVAL);
    refused(nx.watch_glob("/w/{a").batch(now), Errno::EINVAL);
    // It is well formed, and deeper than anything can be that is compiled from it.
    let deep = format!("/{}a{}", "{".repeat(300), "}".repeat(300));
    refused(nx.watch_glob(&deep).batch(now), Errno::EINVAL);
    refused(nx.glob(&deep), Errno::EINVAL);
    refused(nx.watch("/w").matching("").batch(now), Errno::EINVAL);
    refused(nx.watch("/w").mask(EventMask::NONE).batch(now), Errno::EINVAL);
    refused(nx.watch("relative").batch(now), Errno::EINVAL);
    let beyond = refused(nx.watch("/").since(Lsn(u64::MAX)).batch(now), Errno::EINVAL);
    assert!(beyond.to_string().contains("the log ends at"), "{beyond}");
    refused(nx.watch("/__sys__/locks").batch(now), Errno::EOPNOTSUPP);
    refused(nx.watch("/w").matching("{").stream().map(drop), Errno::EINVAL);
    assert_eq!(watches(&nx), []);
}

fn watches(nx: &blocking::Nexus) -> Vec<WatchInfo> {
    let text = nx.read("/__sys__/watches/.all").expect("it is there");
    serde_json::from_slice(&text).expect("it is a list")
}

#[test]
fn a_watch_that_waits_for_nothing_that_happens_ends_in_time_and_says_where_to_go_on() {
    let nx = boot();
    let before = nx.write("/x", "").expect("it writes").receipt.lsn;
    let batch = nx.watch("/w").batch(Duration::ZERO).expect("it is told");
    assert_eq!((batch.events.len(), batch.next, batch.overflow), (0, before, None));
    let batch = nx.watch("/w").batch(Duration::from_millis(20)).expect("it is told");
    assert_eq!((batch.events.len(), batch.next), (0, before));
    // What nobody waited for moves the place on, too: it is not looked at again.
    let mut stream = nx.watch("/w").stream().expect("it begins");
    let after = nx.write("/x", "").expect("it writes").receipt.lsn;
    assert!(stream.next_for(Duration::from_millis(20)).is_none());
    assert_eq!(stream.cursor(), after);
}

#[test]
fn one_event_wakes_who_waits_for_it() {
    let nx = boot();
    let waiting = thread::spawn({
        let nx = nx.clone();
        move || nx.watch("/w/a").alone().one(SOON)
    });
    while watches(&nx).is_empty() {
        thread::yield_now();
    }
    nx.write("/w/b", "").expect("it writes");
    nx.write("/w/a", "abc").expect("it writes");
    let event = waiting.join().expect("it ends").expect("it is told").expect("it came in time");
    assert_eq!((event.path.as_str(), event.size), ("/w/a", 3));
    assert_eq!(watches(&nx), [], "it went with its answer");
}

/// Keeps all that it is told.
struct Keeps(Arc<Mutex<Vec<Event>>>);

impl Observer for Keeps {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

/// Does everything that there is an event of, below `/`, which is a `root`.
fn everything(nx: &blocking::Nexus, is_plain: bool) {
    let agent = nx.agent("coder-7").expect("it is a name");
    let for_ada = nx.user("ada").and_then(|nx| nx.agent("coder-7")).expect("they are names");
    nx.write("/d/new", "one").expect("it writes");
    for_ada.write("/d/new", "two more").expect("it writes");
    agent.append("/d/new", "!").expect("it writes");
    nx.write("/large", vec![7; 40_000]).expect("it writes");
    nx.mkdir("/e").expect("it is made");
    nx.send(SysSetattr::file(path("/empty"))).expect("it is made");
    nx.link("/link", "/d/new").expect("it is made");
    let times = Attributes::none().mode(0o600);
    nx.send(SysSetattr::at(path("/d/new")).attributes(times)).expect("it is set");
    nx.copy("/d/new", "/copy").expect("it copies");
    nx.copy("/large", "/copy").expect("it copies");
    nx.rename("/copy", "/e/moved").expect("it moves");
    nx.rename("/e/moved", "/d/new").expect("it replaces");
    nx.rename("/e", "/f").expect("it moves");
    nx.unlink("/link").expect("it goes");
    nx.rmdir("/f").expect("it goes");
    nx.remove_all("/d").expect("it goes");
    if !is_plain {
        let tx = for_ada
            .tx()
            .write("/t/a", "a")
            .mkdir("/t/d")
            .rename("/t/a", "/t/d/a")
            .unlink("/empty")
            .check("/large")
            .if_version(1);
        tx.commit().expect("it commits");
        nx.tx().write("/t/d/a", "b").append("/large", "x").remove_all("/t").commit().expect("it commits");
        let eventual = SysWrite::at(path("/soon"), "x").create().eventual();
        nx.send(eventual).expect("it writes");
        nx.sync("/").expect("it is on disk");
    }
}

#[track_caller]
fn tells_the_same(nx: &blocking::Nexus, is_plain: bool) {
    let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
    let observer = Registration::observer("keeps", Arc::new(Keeps(heard.clone()))).inline();
    nx.register_hook(observer).expect("there is room");
    let mut stream = nx.watch("/").stream().expect("it begins");
    let begun = stream.cursor();
    everything(nx, is_plain);
    let files = tempfile::tempdir().expect("there is room");
    let plain = MountSpec::new("path-local").option("folder", files.path().display().to_string());
    nx.mount("/m", plain.clone()).expect("it mounts");
    nx.write("/m/x", "1").expect("it writes");
    nx.swap_driver("/m", plain.read_only()).expect("it is replaced");
    nx.unmount("/m").expect("it goes");
    nx.write("/end", "").expect("it writes");

    let log = from_log(nx, "/", begun);
    let live = events(&mut stream, log.len());
    assert_eq!(shown(&live), shown(&log));
    assert_eq!(live, log, "field by field");
    assert_eq!(live.last().map(|event| event.path.as_str()), Some("/end"));
    let (mut told, mut observed) = (live.clone(), heard.lock().clone());
    // Observers hear of a mount a moment after it was committed, and take that for its time.
    for event in told.iter_mut().chain(&mut observed).filter(|event| event.entry_type == EntryType::Mount) {
        event.at = nexus::Timestamp::default();
    }
    observed.sort_by_key(|event| event.lsn);
    assert_eq!(told, observed, "as observers were told");
    let kinds: EventMask = live.iter().fold(EventMask::NONE, |mask, event| mask | event.kind);
    let logged = EventKind::ALL.iter().filter(|kind| kind.is_logged());
    assert_eq!(kinds, logged.fold(EventMask::NONE, |mask, kind| mask | *kind));
}

#[test]
fn live_and_from_the_log_events_are_the_same_in_every_field() {
    tells_the_same(&boot(), false);
    let data = tempfile::tempdir().expect("there is room");
    tells_the_same(&blocking::connect(data.path()).expect("it boots"), false);
}

#[test]
fn plain_files_are_told_of_as_others_when_they_are_changed_through_the_kernel() {
    let config = Config::in_memory().root(MountSpec::new("memory-path"));
    tells_the_same(&blocking::connect(config).expect("it boots"), true);
}

#[test]
fn an_event_says_who_did_what_to_which_content() {
    let nx = boot();
    let agent = nx.user("ada").and_then(|nx| nx.agent("coder-7")).expect("they are names");
    let mut stream = nx.watch("/").stream().expect("it begins");
    let write = SysWrite::at(path("/a"), "abc").create().op_id(OpId(77));
    let written = agent.send(write).expect("it writes");
    let event = events(&mut stream, 1).remove(0);
    assert_eq!((&*event.caller, event.caller.user.as_deref()), (agent.caller(), Some("ada")));
    assert_eq!((event.op_id, event.lsn, event.is_new), (OpId(77), written.receipt.lsn, true));
    let metadata = &written.metadata;
    assert_eq!((event.size, &event.content_id, event.version), (3, &metadata.content_id, metadata.version));
    assert_eq!((event.generation, event.at, event.clock), (metadata.generation, metadata.modified, None));
    // Nothing changed, so nothing is told; what comes next is.
    agent.mkdir("/").expect("it is there");
    agent.copy("/a", "/a").expect("it is itself");
    agent.write("/b", "").expect("it writes");
    assert_eq!(events(&mut stream, 1)[0].path, "/b");
    let set = SysSetattr::at(path("/a")).attributes(Attributes::none().mode(0o600));
    assert_eq!(agent.send(set.clone()).expect("it is set").changed, [Attribute::Mode]);
    agent.send(set).expect("it is so");
    agent.send(SysCopy::new(path("/a"), path("/c"))).expect("it copies");
    assert_eq!(shown(&events(&mut stream, 2)), ["metadata_change /a", "file_copy /c /a"]);
}

struct Careful;

impl Permission for Careful {
    fn check(&self, _: &Caller, _: Right, at: &VPath) -> Decision {
        assert!(!at.as_str().contains("breaks"), "a provider that panics");
        match at.as_str() {
            text if text.contains("secret") => Decision::Deny("it is secret".into()),
            text if text.contains("slow") => Decision::Slow(async { Err("it is slow".into()) }.boxed()),
            _ => Decision::Allow,
        }
    }
}

#[test]
fn who_may_not_read_a_path_does_not_hear_of_it() {
    let nx = boot();
    let begun = nx.write("/pub/0", "").expect("it writes").receipt.lsn;
    nx.set_permission(Some(Arc::new(Careful))).expect("it is the administrator's");
    let (reader, owner) = (nx.agent("reader").expect("a name"), nx.agent("owner").expect("a name"));
    refused(reader.watch("/secret").batch(Duration::ZERO), Errno::EACCES);
    let mut stream = reader.watch("/").stream().expect("it begins");
    let mut own = owner.watch("/").stream().expect("it begins");
    nx.set_permission(None).expect("it is the administrator's");
    owner.write("/secret/mine", "").expect("it writes");
    nx.write("/secret/a", "").expect("it writes");
    nx.write("/breaks", "").expect("it writes");
    nx.write("/slow", "").expect("it writes");
    nx.write("/pub/a", "").expect("it writes");
    nx.rename("/pub/a", "/secret/b").expect("it moves");
    nx.rename("/secret/b", "/pub/c").expect("it moves");
    nx.rename("/secret/a", "/secret/c").expect("it moves");
    nx.copy("/secret/c", "/pub/d").expect("it copies");
    nx.copy("/pub/d", "/secret/e").expect("it copies");
    nx.write("/pub/end", "").expect("it writes");
    // By the rights of who hears of it when it hears of it.
    nx.set_permission(Some(Arc::new(Careful))).expect("it is the administrator's");
    let seen = [
        "file_write /pub/a",
        "file_rename /pub/a",
        "file_rename /pub/c",
        "file_copy /pub/d",
        "file_write /pub/end",
    ];
    let live = events(&mut stream, seen.len());
    assert_eq!(shown(&live), seen);
    assert_eq!(from_log(&reader, "/", begun), live, "the log keeps it from him, too");
    assert_eq!(events(&mut own, 1)[0].path, "/secret/mine", "what is his own he may read");
}

#[test]
fn a_zone_hears_of_its_own_and_of_the_root_zone_where_it_sees_it() {
    let nx = boot();
    let team = nx.zone("team").expect("it is a name");
    team.mount("/own", MountSpec::new("memory")).expect("it mounts");
    let mut own = team.watch("/own").stream().expect("it begins");
    let mut shared = team.watch("/").stream().expect("it begins");
    let mut root = nx.watch("/").stream().expect("it begins");
    team.write("/own/a", "").expect("it writes");
    nx.write("/own/hidden", "").expect("it writes");
    team.write("/shared", "").expect("it writes");
    nx.write("/end", "").expect("it writes");
    assert_eq!(shown(&events(&mut own, 1)), ["file_write /own/a"]);
    assert_eq!(shown(&events(&mut shared, 2)), ["file_write /shared", "file_write /end"]);
    let all = events(&mut root, 3);
    assert_eq!(shown(&all), ["file_write /own/hidden", "file_write /shared", "file_write /end"]);
    assert_eq!(all[1].caller.zone.as_str(), "team");
}

#[test]
fn links_on_the_way_are_followed() {
    let nx = boot();
    nx.mkdir("/real").expect("it is made");
    nx.link("/link", "/real").expect("it is made");
    let mut stream = nx.watch("/link").stream().expect("it begins");
    nx.write("/link/x", "").expect("it writes");
    assert_eq!(shown(&events(&mut stream, 1)), ["file_write /real/x"]);
}

#[test]
fn a_slow_watcher_slows_nobody_and_goes_on_from_the_log_without_a_gap() {
    let nx = boot();
    let mut slow = nx.watch("/w").stream().expect("it begins");
    let count = 3 * QUEUE_MAX;
    let places: Vec<_> =
        (0..count).map(|n| nx.write(format!("/w/{n}"), "x").expect("it writes").receipt.lsn).collect();
    let listed = watches(&nx).remove(0);
    assert_eq!((listed.queued, listed.overflowed, listed.overflows), (QUEUE_MAX, true, 1));
    let (mut told, mut overflows) = (Vec::new(), Vec::new());
    while told.len() < count {
        match slow.next_for(SOON).expect("it comes").expect("it is told") {
            WatchItem::Event(event) => told.push(event.lsn),
            WatchItem::Overflow(from) => overflows.push((told.len(), from)),
        }
    }
    assert_eq!(told, places, "each once, in their order");
    assert_eq!(overflows, [(QUEUE_MAX, places[QUEUE_MAX - 1])], "it says from where on");
    nx.write("/w/live", "").expect("it writes");
    assert_eq!(events(&mut slow, 1)[0].path, "/w/live", "and then it is told as before");
    assert!(!watches(&nx).remove(0).overflowed);
}

/// A metastore at whose next look for the end of its log something happens first.
#[derive(Default)]
struct Between {
    rows: MemoryMetastore,
    first: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Whether who applies the next batch dies before it says so.
    dies: AtomicBool,
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Between").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Metastore for Between {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let applied = self.rows.apply(batch);
        assert!(!self.dies.swap(false, Ordering::Relaxed), "it dies, as it is to");
        applied
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.rows.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        // What was found is old when it is given.
        let last = self.rows.last_lsn(tree);
        let first = self.first.lock().take();
        if let Some(first) = first {
            first();
        }
        last
    }

    fn durable_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.rows.durable_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.rows.changes(tree, since, limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.rows.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.rows.next_file_id()
    }
}

#[test]
fn what_comes_while_a_slow_watcher_looks_for_the_end_of_the_log_is_told() {
    let store = Arc::new(Between::default());
    let nx = blocking::connect(Config::in_memory().metastore(store.clone())).expect("it boots");
    let mut slow = nx.watch("/w").stream().expect("it begins");
    for n in 0..=QUEUE_MAX {
        nx.write(format!("/w/{n}"), "x").expect("it writes");
    }
    assert_eq!(events(&mut slow, QUEUE_MAX).len(), QUEUE_MAX, "and one did not fit");
    let writer = nx.clone();
    *store.first.lock() = Some(Box::new(move || {
        writer.write("/w/between", "x").expect("it writes");
    }));
    assert_eq!(events(&mut slow, 1)[0].path.as_str(), format!("/w/{QUEUE_MAX}"));
    assert_eq!(shown(&events(&mut slow, 1)), ["file_write /w/between"]);
    assert!(store.first.lock().is_none(), "it came between");
    nx.write("/w/after", "x").expect("it writes");
    assert_eq!(shown(&events(&mut slow, 1)), ["file_write /w/after"]);
}

#[test]
fn what_a_dying_committer_did_is_told_also_when_it_is_the_first_that_a_watch_hears_of() {
    let store = Arc::new(Between::default());
    let config = Config::in_memory().metastore(store.clone()).restarts(1_000, Duration::from_secs(1));
    let nx = blocking::connect(config).expect("it boots");
    let mut stream = nx.watch("/w").stream().expect("it begins");
    store.dies.store(true, Ordering::Relaxed);
    let unknown = nx.write("/w/unheard", "x").expect_err("who commits it dies");
    assert_eq!(unknown.executed(), Executed::Unknown, "{unknown}");
    assert_eq!(shown(&events(&mut stream, 1)), ["file_write /w/unheard"], "also when nothing follows");
    nx.write("/w/next", "x").expect("it writes");
    assert_eq!(shown(&events(&mut stream, 1)), ["file_write /w/next"]);
    store.dies.store(true, Ordering::Relaxed);
    nx.write("/w/unheard", "x").expect_err("who commits it dies");
    nx.write("/w/next", "x").expect("it writes");
    assert_eq!(shown(&events(&mut stream, 2)), ["file_write /w/unheard", "file_write /w/next"]);
}

#[test]
fn a_transaction_is_told_as_a_whole_however_little_is_asked_for() {
    let nx = boot();
    let begun = nx.write("/w/0", "").expect("it writes").receipt.lsn;
    let mut stream = nx.watch("/w").limit(std::num::NonZeroU32::MIN).stream().expect("it begins");
    let tx = (0..5).fold(nx.tx(), |tx, n| tx.write(format!("/w/{n}"), "x"));
    let lsn = tx.commit().expect("it commits").receipt.lsn;
    nx.write("/w/after", "").expect("it writes");
    let batch =
        nx.watch("/w").since(begun).limit(std::num::NonZeroU32::MIN).batch(Duration::ZERO).expect("told");
    assert_eq!((batch.events.len(), batch.next), (5, lsn));
    let live = events(&mut stream, 3);
    assert_eq!(stream.cursor(), begun, "who has a part of it is told all of it again");
    assert_eq!([live, events(&mut stream, 2)].concat(), batch.events);
    assert_eq!(stream.cursor(), lsn);
}

#[test]
fn a_wait_that_is_given_up_again_and_again_loses_nothing() {
    let nx = boot();
    let count = 2_000;
    let mut stream = nx.as_async().watch("/w");
    stream = stream.limit(std::num::NonZeroU32::MIN);
    let mut stream = nexus_actors::block_on(stream.stream()).expect("it begins");
    let writer = thread::spawn({
        let nx = nx.clone();
        move || {
            (0..count)
                .map(|n| nx.write(format!("/w/{}", n % 7), "x").expect("it writes").receipt.lsn)
                .collect::<Vec<_>>()
        }
    });
    let mut told = Vec::new();
    while told.len() < count {
        // Polled once, and dropped.
        match stream.next().now_or_never() {
            Some(Some(Ok(WatchItem::Event(event)))) => told.push(event.lsn),
            Some(Some(Ok(WatchItem::Overflow(_)))) => {}
            None => thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, writer.join().expect("it ends"));
}

#[test]
fn a_restart_of_the_watcher_under_load_is_seen_by_nobody() {
    let nx = boot();
    let stop = Arc::new(AtomicBool::new(false));
    let mut streams: Vec<_> = (0..4).map(|_| nx.watch("/w").stream().expect("it begins")).collect();
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (nx, stop) = (nx.clone(), stop.clone());
            thread::spawn(move || {
                let mut places = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    places.push(nx.write(format!("/w/{writer}"), "x").expect("it writes").receipt.lsn);
                }
                places
            })
        })
        .collect();
    for kill in [Kill::Panic, Kill::Error, Kill::Brutal] {
        let generation = || {
            nx.kernel()
                .expect("it is here")
                .supervised()
                .expect("it runs")
                .find("nexus/kernel/watcher")
                .expect("it is there")
                .actor
                .generation
        };
        let before = generation();
        assert!(nx.kill("nexus/kernel/watcher", kill).expect("it is the administrator's"));
        // It serves again: a new watch is told, too.
        let mut late = nx.watch("/w").stream().expect("it begins");
        events(&mut late, 3);
        assert!(generation() > before);
        streams.iter_mut().for_each(|stream| drop(events(stream, 1)));
    }
    stop.store(true, Ordering::Relaxed);
    let mut places: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().expect("it ends")).collect();
    places.sort_unstable();
    for stream in &mut streams {
        let told: Vec<_> = events(stream, places.len() - 3).iter().map(|event| event.lsn).collect();
        assert_eq!(told, places[3..]);
    }
}

#[test]
fn watchers_hear_of_just_what_was_committed_by_many_at_once() {
    let nx = boot();
    let scopes = ["/w", "/w/0", "/w/1/f"];
    let mut streams: Vec<_> = scopes.iter().map(|at| nx.watch(*at).stream().expect("it begins")).collect();
    let begun = streams[0].cursor();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let nx = nx.clone();
            thread::spawn(move || {
                let mut commits = Vec::new();
                for n in 0..150 {
                    let at = format!("/w/{}/f", (writer + n) % 3);
                    let eventual = SysWrite::at(path(&at), n.to_string()).create().eventual();
                    let lsn = match n % 3 {
                        0 => nx.send(eventual).expect("it writes").receipt.lsn,
                        1 => {
                            nx.tx()
                                .write(&at, "x")
                                .write("/elsewhere", "x")
                                .commit()
                                .expect("it commits")
                                .receipt
                                .lsn
                        }
                        _ => nx.append(&at, "y").expect("it writes").receipt.lsn,
                    };
                    commits.push((lsn, at));
                }
                commits
            })
        })
        .collect();
    let commits: BTreeMap<Lsn, String> =
        writers.into_iter().flat_map(|writer| writer.join().expect("it ends")).collect();
    nx.sync("/").expect("it is on disk");
    for (at, stream) in scopes.iter().zip(&mut streams) {
        let expected: Vec<_> = commits
            .iter()
            .filter(|(_, of)| path(of).is_within(&path(at)))
            .map(|(lsn, of)| (*lsn, of.clone()))
            .collect();
        let live = events(stream, expected.len());
        let told: Vec<_> = live.iter().map(|event| (event.lsn, event.path.to_string())).collect();
        assert_eq!(told, expected, "{at}");
        assert_eq!(from_log(&nx, at, begun), live);
        assert!(stream.next_for(Duration::ZERO).is_none(), "and of nothing else");
    }
}

#[test]
fn a_cursor_goes_on_after_a_restart_with_each_event_once() {
    let data = tempfile::tempdir().expect("there is room");
    let (mut cursor, mut told) = (Lsn::default(), Vec::new());
    let mut written = Vec::new();
    for life in 0..4 {
        let nx = blocking::connect(data.path()).expect("it boots");
        let mut write = |n: usize| {
            let at = format!("/w/{life}-{n}");
            nx.write(&at, "x").expect("it writes");
            written.push(at);
        };
        write(0);
        if life == 0 {
            cursor = nx.watch("/w").since(cursor).batch(Duration::ZERO).expect("told").next;
            told.push("/w/0-0".to_owned());
        }
        let mut stream = nx.watch("/w").since(cursor).stream().expect("it begins");
        (1..4).for_each(&mut write);
        // Those of this life, and what the one before did when nobody heard of it.
        let missing = if life == 0 { 3 } else { 5 };
        told.extend(events(&mut stream, missing).iter().map(|event| event.path.to_string()));
        cursor = stream.cursor();
        // Of what comes after it the next life hears.
        write(4);
        nx.shutdown().expect("it ends");
        let last = stream.find(|item| item.is_err()).expect("it is told");
        refused(last, Errno::ESHUTDOWN);
    }
    assert_eq!(told, written[..written.len() - 1]);
}

#[test]
fn for_whom_an_agent_acted_is_told_after_a_restart_too_and_of_its_locks() {
    let data = tempfile::tempdir().expect("there is room");
    let of = |nx: &blocking::Nexus, user: &str| nx.user(user).and_then(|nx| nx.agent("coder-7"));
    let nx = blocking::connect(data.path()).expect("it boots");
    let ada = of(&nx, "ada").expect("they are names");
    ada.write("/a", "1").expect("it writes");
    nx.write("/b", "1").expect("it writes");
    let lock = SysLock::exclusive(path("/a")).durable();
    let locked = ada.send(lock).expect("it is free");
    nx.shutdown().expect("it ends");

    let nx = blocking::connect(data.path()).expect("it boots");
    let mut stream = nx.watch("/a").stream().expect("it begins");
    nx.unlock("/a", locked.id).expect("it is held");
    let mut told = from_log(&nx, "/", Lsn::default());
    told.extend(events(&mut stream, 1));
    let users = |at: &str| -> Vec<_> {
        let of_it = told.iter().filter(|event| event.path == at);
        of_it.map(|event| (event.kind, event.caller.user.as_deref())).collect()
    };
    assert_eq!(users("/a"), [(EventKind::FileWritten, Some("ada")), (EventKind::Unlocked, Some("ada"))]);
    assert_eq!(users("/b"), [(EventKind::FileWritten, None)]);
    let error = refused(of(&nx, "ada").expect("they are names").user("bob"), Errno::EACCES);
    assert!(error.to_string().contains("coder-7"), "{error}");
    refused(nx.user(""), Errno::EINVAL);
}

#[test]
fn a_place_that_the_log_has_forgotten_is_an_error_with_the_oldest_that_it_has_not() {
    let (store, content) = (Arc::new(MemoryMetastore::new()), tempfile::tempdir().expect("there is room"));
    let booted =
        || blocking::connect(Config::new(content.path()).metastore(store.clone())).expect("it boots");
    let nx = booted();
    let first = nx.write("/w/first", "").expect("it writes").receipt.lsn;
    nx.shutdown().expect("it ends");
    commit_many(&store, 0);
    let nx = booted();
    let error = refused(nx.watch("/w").since(first).batch(Duration::ZERO), Errno::ENODATA);
    let oldest = error.oldest().expect("it says so");
    assert!(oldest > first && error.to_string().contains(&oldest.to_string()), "{error}");
    let batch = nx.watch("/w").since(oldest).batch(Duration::ZERO).expect("that is there");
    assert!(batch.events.is_empty() && batch.next > oldest);
    refused(nx.watch("/w").since(Lsn(oldest.0 - 1)).batch(Duration::ZERO), Errno::ENODATA);
}

#[test]
fn nothing_is_told_before_it_is_on_disk() {
    let data = tempfile::tempdir().expect("there is room");
    let config = Config::new(data.path()).flush(Duration::from_secs(3_600), 8 << 20);
    let nx = blocking::connect(config).expect("it boots");
    let mut stream = nx.watch("/w").stream().expect("it begins");
    let begun = stream.cursor();
    let written = nx.send(SysWrite::at(path("/w/a"), "x").create().eventual()).expect("it writes");
    assert!(stream.next_for(Duration::from_millis(50)).is_none(), "it may never have been");
    assert_eq!(stream.cursor(), begun);
    assert!(nx.watch("/w").since(begun).batch(Duration::from_millis(50)).expect("told").events.is_empty());
    nx.sync("/").expect("it is on disk");
    assert_eq!(events(&mut stream, 1)[0].lsn, written.receipt.lsn);
    // A watch that begins between the two hears of it once, from the log.
    let begun = stream.cursor();
    nx.send(SysWrite::at(path("/w/b"), "x").create().eventual()).expect("it writes");
    let waiting = thread::spawn({
        let nx = nx.clone();
        move || nx.watch("/w").since(begun).batch(SOON)
    });
    while watches(&nx).len() < 2 {
        thread::yield_now();
    }
    nx.sync("/").expect("it is on disk");
    let batch = waiting.join().expect("it ends").expect("it is told");
    assert_eq!(shown(&batch.events), ["file_write /w/b"]);
}

/// Sees that no lock is held when an event arrives.
#[test]
fn who_is_told_finds_the_path_free() {
    let nx = boot();
    let locks = nx.kernel().expect("it is here").path_locks().clone();
    let mut stream = nx.watch("/w").stream().expect("it begins");
    let writer = thread::spawn({
        let nx = nx.clone();
        move || (0..500).for_each(|n| drop(nx.write(format!("/w/{n}"), "x").expect("it writes")))
    });
    for _ in 0..500 {
        let event = events(&mut stream, 1).remove(0);
        let owner = LockOwner { agent: "who is told".into(), since: event.at };
        assert!(locks.try_lock(&event.path, Mode::Write, Scope::Entry, owner).is_some(), "{event:?}");
    }
    writer.join().expect("it ends");
}

#[test]
fn a_caller_who_does_not_go_on_holds_up_nobody_elses_events_for_long() {
    let data = tempfile::tempdir().expect("there is room");
    let nx = blocking::connect(data.path()).expect("it boots");
    let mut stream = nx.watch("/w").stream().expect("it begins");
    let nx_async = nx.as_async().clone();
    let mut expected = Vec::new();
    // Up to where it waits for its commit; then nobody polls it, and its lock stays. The disk may be faster than who looks whether it is done.
    let stalled = loop {
        let (at, nx) = (format!("/w/stalled-{}", expected.len()), nx_async.clone());
        expected.push(format!("file_write {at}"));
        let mut writes = Box::pin(async move { nx.write(&at, "x").await });
        if writes.as_mut().now_or_never().is_none() {
            break writes;
        }
    };
    nx.write("/w/other", "x").expect("it writes");
    expected.push("file_write /w/other".into());
    assert_eq!(shown(&events(&mut stream, expected.len())), expected);
    nexus_actors::block_on(stalled).expect("it writes");
}

#[test]
fn what_is_in_no_log_is_told_at_once_and_to_nobody_later() {
    let nx = boot();
    let kernel = nx.kernel().expect("it is here").clone();
    let mut stream =
        nx.watch("/w").mask(EventKind::Locked | EventKind::FileWritten).stream().expect("it begins");
    let begun = nx.write("/w/a", "").expect("it writes").receipt.lsn;
    let caller = Arc::new(nx.caller().clone());
    let lock = |kind| Event::new(kind, path("/w/a"), EntryType::Reg, caller.clone(), OpId(1));
    kernel.announce(lock(EventKind::Locked));
    kernel.announce(lock(EventKind::Unlocked));
    nx.write("/w/a", "").expect("it writes");
    let told = events(&mut stream, 3);
    assert_eq!(shown(&told), ["file_write /w/a", "lock /w/a", "file_write /w/a"]);
    assert_eq!(told[1].lsn, begun, "between the commits");
    assert_eq!(shown(&from_log(&nx, "/w", Lsn(begun.0 - 1))), ["file_write /w/a", "file_write /w/a"]);
}

#[test]
fn watches_are_listed_and_counted_and_go_with_their_owners() {
    let nx = boot();
    let agent = nx.agent("coder-7").expect("it is a name");
    let since = nx.write("/w/0", "").expect("it writes").receipt.lsn;
    let one = agent.watch_glob("/w/*.txt").mask(EventKind::FileWritten).stream().expect("it begins");
    let mut two = agent.watch("/w/x").alone().since(since).stream().expect("it begins");
    // It waits once it has looked through what was.
    while watches(&nx).len() < 2 {
        assert!(two.next_for(Duration::from_millis(1)).is_none(), "all that was is told");
    }
    nx.write("/w/a.txt", "").expect("it writes");
    let listed = watches(&nx);
    assert_eq!(listed.len(), 2);
    let first = &listed[0];
    assert_eq!((&*first.agent, first.path.as_str(), first.glob.as_deref()), ("coder-7", "/w", Some("*.txt")));
    assert_eq!((first.mask.clone(), first.queued, first.delivered), (vec!["file_write".to_owned()], 1, 1));
    assert_eq!((listed[1].recursive, listed[1].since, listed[1].queued), (false, Some(since), 0));
    let alone = nx.read(format!("/__sys__/watches/{}", first.id)).expect("it is there");
    assert_eq!(serde_json::from_slice::<WatchInfo>(&alone).expect("it is one"), *first);
    let metrics =
        || String::from_utf8(nx.read("/__sys__/metrics").expect("it is there").to_vec()).expect("text");
    assert!(
        metrics().contains("\nnexus_watches 2\n") && metrics().contains("\nnexus_watch_events_total 1\n")
    );
    refused(agent.read("/__sys__/watches/.all"), Errno::EACCES);
    drop(one);
    assert_eq!(watches(&nx).len(), 1, "at once");
    drop(two);
    assert_eq!(watches(&nx), []);
}

#[test]
fn waiting_watches_take_no_place_of_other_calls_of_an_attached_process() {
    let data = tempfile::tempdir().expect("there is room");
    let owner = blocking::connect(Config::new(data.path()).serve(Serving::administrator().in_flight_max(8)))
        .expect("it boots");
    let there = blocking::attach(data.path()).expect("it is served");
    let begun = owner.write("/w/0", "").expect("it writes").receipt.lsn;
    // More than the calls that one client may have under way.
    let waiting: Vec<_> = (0..60)
        .map(|n| {
            let there = there.clone();
            thread::spawn(move || there.watch(format!("/w/{n}")).since(begun).one(SOON))
        })
        .collect();
    while watches(&owner).len() < waiting.len() {
        thread::yield_now();
    }
    for n in 0..waiting.len() {
        there.write(format!("/w/{n}"), "x").expect("it is not held up");
    }
    for (n, waiting) in waiting.into_iter().enumerate() {
        let event = waiting.join().expect("it ends").expect("it is told").expect("in time");
        assert_eq!(event.path, format!("/w/{n}").as_str());
    }
    // A stream is told over there as here, and of the end.
    let mut stream = there.watch("/w").stream().expect("it begins");
    owner.write("/w/a", "x").expect("it writes");
    owner.write("/w/b", "x").expect("it writes");
    assert_eq!(shown(&events(&mut stream, 2)), ["file_write /w/a", "file_write /w/b"]);
    let error = refused(there.watch_glob("/[").batch(Duration::ZERO), Errno::EINVAL);
    assert!(error.oldest().is_none());
    let last = thread::spawn(move || stream.next_for(SOON));
    while watches(&owner).is_empty() {
        thread::yield_now();
    }
    owner.shutdown().expect("it ends");
    refused(last.join().expect("it ends").expect("it is told"), Errno::ESHUTDOWN);
}
