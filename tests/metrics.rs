//! `/__sys__/metrics`: that Prometheus can read it, and that it says what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, OpSet, Registration};
use nexus::sys::{CachesEntry, SyscallEntry};
use nexus::{Config, HookContext, MountSpec, Op, SysRead, SysStat, VPath, Verdict, blocking};

/// The samples of a text by what they are called with their labels, once all that the format asks for was checked: version 0.0.4 of
/// Prometheus' text format, and its advice for counters and histograms.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut samples = BTreeMap::new();
    let mut finished = BTreeSet::new();
    // The family that is being read: its name, its type, and whether its type was told.
    let mut family: Option<(String, Option<String>)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!help.is_empty() && help.ends_with('.'), "{line}");
            assert!(finished.insert(name.to_owned()), "a second family of this name: {line}");
            family = Some((name.to_owned(), None));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let (current, told) = family.as_mut().unwrap_or_else(|| panic!("no help before {line}"));
            assert_eq!((&**current, &*told), (name, &None), "{line}");
            *told = Some(kind.to_owned());
        } else {
            let (name, labels, value) = sample(line);
            let (current, kind) = family.as_ref().unwrap_or_else(|| panic!("no family before {line}"));
            let suffix = name.strip_prefix(&**current).unwrap_or_else(|| panic!("not of {current}: {line}"));
            let fits = match kind.as_deref() {
                Some("histogram") => ["_bucket", "_sum", "_count"].contains(&suffix),
                Some(_) => suffix.is_empty(),
                None => panic!("no type before {line}"),
            };
            assert!(fits, "{line}");
            assert!(value >= 0.0, "{line}");
            let names: BTreeSet<_> = labels.iter().map(|(label, _)| label).collect();
            assert_eq!(names.len(), labels.len(), "a label twice: {line}");
            let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
            let series = format!("{name}{{{}}}", labels.join(","));
            assert!(samples.insert(series, value).is_none(), "a series twice: {line}");
        }
    }
    histograms(&samples);
    samples
}

/// One line of a sample, taken apart.
fn sample(line: &str) -> (&str, Vec<(String, String)>, f64) {
    let is_name = |text: &str| {
        let mut letters = text.chars();
        letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    let value = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label), "{line}");
            let mut value = String::new();
            let mut letters = quoted.char_indices();
            let end = loop {
                match letters.next().unwrap_or_else(|| panic!("no end of {label}: {line}")) {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match letters.next() {
                        Some((_, 'n')) => '\n',
                        Some((_, c @ ('\\' | '"'))) => c,
                        other => panic!("no escape: {other:?} in {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &quoted[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break rest.strip_prefix('}').unwrap_or_else(|| panic!("labels do not end: {line}")),
            }
        },
    };
    let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    (name, labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// The buckets of each histogram grow up to its count, in the order of their bounds.
fn histograms(samples: &BTreeMap<String, f64>) {
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (series, count) in samples.iter().filter(|(series, _)| series.contains("_bucket{")) {
        let (name, labels) = series.split_once("_bucket{").expect("it has one");
        let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
        let le = labels.pop().and_then(|label| label.strip_prefix("le=")).expect("the bound comes last");
        let bound = if le == "+Inf" { f64::INFINITY } else { le.parse().expect("a bound is a number") };
        buckets.entry(format!("{name}_count{{{}}}", labels.join(","))).or_default().push((bound, *count));
    }
    assert!(!buckets.is_empty());
    for (count, mut buckets) in buckets {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{count}: {buckets:?}");
        let all = buckets.last().expect("there is one");
        assert_eq!((all.0, Some(&all.1)), (f64::INFINITY, samples.get(&count)), "{count}");
        assert!(samples.contains_key(&count.replace("_count{", "_sum{")), "{count} has no sum");
    }
}

fn boot() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

fn samples(nx: &blocking::Nexus) -> BTreeMap<String, f64> {
    let text = nx.read("/__sys__/metrics").expect("it can be read");
    parse(std::str::from_utf8(&text).expect("it is text"))
}

/// How much the sample grew between two looks; what was not there before was 0.
fn growth(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, series: &str) -> f64 {
    let after = after.get(series).unwrap_or_else(|| panic!("there is no {series}"));
    after - before.get(series).copied().unwrap_or_default()
}

#[test]
fn prometheus_can_read_it() {
    let nx = boot();
    nx.mount("/odd \"name\"\\\nx", MountSpec::new("memory")).expect("it mounts");
    nx.write("/odd \"name\"\\\nx/f", "x").expect("it writes");
    let samples = samples(&nx);
    assert_eq!(samples["nexus_mount_serving{zone=root,point=/odd \"name\"\\\nx,driver=memory}"], 1.0);
    assert_eq!(samples["nexus_actor_running{actor=nexus/kernel/router}"], 1.0);
    assert!(samples["nexus_actor_bound{actor=nexus/kernel/router}"] > 1.0);
    let stat = nx.stat("/__sys__/metrics").expect("it is there");
    assert_eq!(stat.mime(), "text/plain; version=0.0.4");
}

#[test]
fn each_call_is_counted_by_what_came_of_it() {
    let nx = boot();
    nx.write("/f", "x").expect("it writes");
    let file = VPath::parse("/f").expect("it is a path");
    let before = samples(&nx);
    for _ in 0..10 {
        nx.send(SysStat::at(&file)).expect("it is there");
        nx.send(SysRead::at(&file)).expect("it is there");
    }
    for _ in 0..3 {
        nx.stat("/nothing").expect_err("there is none");
    }
    nx.mkdir_new("/d").expect("it is new");
    nx.mkdir_new("/d").expect_err("it is there");
    nx.agent("a").expect("it is a name").mount("/m", MountSpec::new("memory")).expect_err("it may not");
    let after = samples(&nx);
    let grew = |series: &str| growth(&before, &after, series);
    assert_eq!(grew("nexus_syscalls_total{op=stat,outcome=ok}"), 10.0);
    assert_eq!(grew("nexus_syscalls_warm_total{op=stat}"), 10.0);
    assert_eq!(grew("nexus_syscalls_total{op=stat,outcome=ENOENT}"), 3.0);
    // The reads of this text are calls too: the first had not ended when it was made, the second has not now.
    assert_eq!(grew("nexus_syscalls_total{op=read,outcome=ok}"), 10.0 + 1.0);
    assert_eq!(grew("nexus_syscalls_warm_total{op=read}"), 10.0);
    assert_eq!(grew("nexus_syscalls_total{op=setattr,outcome=ok}"), 1.0);
    assert_eq!(grew("nexus_syscalls_total{op=setattr,outcome=EEXIST}"), 1.0);
    assert_eq!(grew("nexus_syscalls_total{op=setattr,outcome=EACCES}"), 1.0);
    // What was not answered from memory was timed.
    assert_eq!(grew("nexus_syscall_seconds_count{op=stat}"), 3.0);
    assert_eq!(grew("nexus_syscall_seconds_count{op=setattr}"), 3.0);
    assert!(grew("nexus_syscall_seconds_sum{op=setattr}") > 0.0);
    assert_eq!(after["nexus_syscalls_in_flight{op=read}"], 1.0, "the read of this text itself");
    // The two caches, by what calls found in them.
    assert_eq!(
        grew("nexus_cache_hits_total{cache=metadata}"),
        20.0 + 1.0 + 2.0,
        "the second mkdir met a directory, and that nothing is at a path is known the second time"
    );
    assert_eq!(grew("nexus_cache_hits_total{cache=content}"), 10.0);
    assert!(grew("nexus_cache_misses_total{cache=metadata}") >= 2.0);
    // Each write and each directory is an entry: what ends with the process waits for no batch.
    assert_eq!(grew("nexus_store_put_off_entries_total{}"), 1.0);
    assert_eq!(grew("nexus_store_batch_entries_sum{}"), 0.0);
    assert_eq!(grew("nexus_store_lsn{zone=root}"), 1.0);
}

/// Paths and bytes of the metadata cache with room for `bound` bytes, when more was asked for than there is room for, below names of `length` bytes.
fn remembered(bound: u64, length: usize, create: bool) -> (f64, f64) {
    let nx = blocking::connect(Config::in_memory().metadata_cache_bytes(bound)).expect("it boots");
    for number in 0..400 {
        let path = VPath::parse(&format!("/{number:0length$}")).expect("it is one");
        if create {
            nx.write(&path, "x").expect("it writes");
        }
        assert_eq!(nx.stat(&path).is_ok(), create, "{path}");
        if number % 20 == 0 {
            let held = samples(&nx)["nexus_cache_metadata_bytes{}"];
            assert!(held <= bound as f64, "{held} of {bound}");
        }
    }
    let text = samples(&nx);
    let told = nx.read("/__sys__/store/caches").expect("it can be read");
    let told: CachesEntry = serde_json::from_slice(&told).expect("it describes the caches");
    let held = text["nexus_cache_metadata_bytes{}"];
    assert_eq!(told.metadata.bytes as f64, held);
    let settings = nx.read("/__sys__/config/kernel").expect("it can be read");
    let settings: serde_json::Value = serde_json::from_slice(&settings).expect("JSON");
    assert_eq!(settings["metadata_cache_bytes"], bound);
    (text["nexus_cache_metadata_entries{}"], held)
}

#[test]
fn the_metadata_cache_stays_within_its_bytes() {
    const BOUND: u64 = 64 << 10;
    for create in [true, false] {
        let (short, bytes) = remembered(BOUND, 3, create);
        assert!(bytes > BOUND as f64 / 2.0, "{bytes} are used");
        let (long, bytes) = remembered(BOUND, 250, create);
        assert!(bytes > BOUND as f64 / 2.0, "{bytes} are used");
        assert!(long < 0.8 * short, "{long} with long names, {short} with short ones");
        assert_eq!(remembered(0, 3, create), (0.0, 0.0));
    }
}

#[test]
fn the_entries_say_the_same_as_the_text() {
    let nx = boot();
    for n in 0..5 {
        nx.write(format!("/{n}"), "x").expect("it writes");
    }
    let text = samples(&nx);
    let read = nx.read("/__sys__/syscalls/write").expect("it can be read");
    let write: SyscallEntry = serde_json::from_slice(&read).expect("it describes the writes");
    assert_eq!((write.calls, write.warm, write.in_flight, write.timed), (5, 0, 0, 5));
    assert_eq!(text["nexus_syscalls_total{op=write,outcome=ok}"], 5.0);
    assert_eq!(write.outcomes.get("ok"), Some(&5));
    assert_eq!(write.latency.last().map(|bucket| bucket.count), Some(5));
    let store: serde_json::Value =
        serde_json::from_slice(&nx.read("/__sys__/store/committer").expect("it can be read")).expect("JSON");
    assert_eq!(store["batches"].as_f64(), text.get("nexus_store_apply_seconds_count{}").copied());
}

/// Holds writes for ever.
struct Waits;

impl Interceptor for Waits {
    fn ops(&self) -> OpSet {
        OpSet::from(Op::Write)
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_call_whose_caller_went_away_is_counted_as_that() {
    let nx = boot();
    nx.register_hook(Registration::interceptor("waits", Arc::new(Waits))).expect("there is room");
    let dropped = nx.as_async().write("/f", "x");
    let mut dropped = Box::pin(dropped);
    let waker = std::task::Waker::noop();
    let first = dropped.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(first.is_pending(), "a hook holds it");
    assert_eq!(samples(&nx)["nexus_syscalls_in_flight{op=write}"], 1.0);
    drop(dropped);
    let samples = samples(&nx);
    assert_eq!(samples["nexus_syscalls_total{op=write,outcome=dropped}"], 1.0);
    assert_eq!(samples["nexus_syscalls_in_flight{op=write}"], 0.0);
}
