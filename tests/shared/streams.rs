//! Streams: what was acknowledged is there, in order, each once, whoever is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, OpSet, Registration};
use nexus::{
    ErrorKind, GroupSettings, HookContext, IoProfile, Op, RecordRange, StreamSpec, StreamStart, SysRead,
    VPath, Verdict,
};
use nexus_actors::block_on;

use crate::child::{LONG, Role, STREAM, furnish, message, number_of, own};
use crate::cleaning::until;

/// All records that a kernel on this folder knows, from the oldest on; they are dense and whole. Gives the tail.
fn check_all(nx: &nexus::Nexus) -> u64 {
    let mut reader = nx.stream_reader(STREAM, StreamStart::Oldest).expect("it is a path");
    let mut next = None;
    while let Some(record) = block_on(reader.next(None)).expect("it can be read") {
        assert_eq!(record.offset, next.unwrap_or(record.offset), "no gap");
        assert_eq!(number_of(&record.data), record.offset, "each stands where it was told to be");
        next = Some(record.offset + 1);
    }
    next.unwrap_or(0)
}

pub(crate) fn an_appender_that_is_killed_leaves_each_append_whole() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    for kill in 0..15 {
        let mut appender = Role::start("appender", folder.path());
        let mut acknowledged = 0;
        for _ in 0..1 + kill * 17 % 90 {
            acknowledged = appender.number().expect("it goes on");
        }
        acknowledged = appender.kill().last().copied().unwrap_or(acknowledged);
        let tail = check_all(&nx);
        assert!(tail == acknowledged || tail == acknowledged + 2, "{tail} of {acknowledged}");
    }
    drop(block_on(nx.shutdown()));
}

pub(crate) fn records_outlive_their_owner_and_who_waits_hears_of_them() {
    let folder = tempfile::tempdir().expect("there is room");
    for _ in 0..4 {
        let owner = Role::start("owner", folder.path());
        let nx = block_on(nexus::attach(folder.path())).expect("it is served");
        let stream = block_on(nx.map_stream(STREAM)).expect("it is there");
        let mut appender = Role::start("appender", folder.path());
        // Through the path, and through the memory: both hear of what another process appends.
        let mut tail = nx.stream_reader(STREAM, StreamStart::Tail).expect("it is a path");
        let heard = block_on(tail.next(Some(LONG))).expect("it can be read").expect("it comes");
        let mut next = heard.offset + 1;
        owner.kill();
        for _ in 0..200 {
            let read = stream.read_here(RecordRange::from(next).records_max(1), LONG).expect("they go on");
            assert_eq!(number_of(&read.records[0].data), next);
            next += 1;
        }
        let read = block_on(stream.read(RecordRange::from(next), Some(LONG))).expect("they go on");
        assert_eq!(read.records[0].offset, next);
        let mut acknowledged = appender.number().expect("it goes on");
        acknowledged = appender.kill().last().copied().unwrap_or(acknowledged);
        let nx = own(folder.path());
        let tail = check_all(&nx);
        assert!(tail == acknowledged || tail == acknowledged + 2, "{tail} of {acknowledged}");
        drop(block_on(nx.shutdown()));
    }
}

pub(crate) fn a_reader_that_is_overtaken_is_told_the_oldest() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    let spec = StreamSpec::new().io_profile(IoProfile::Shared).bytes_max(20_000);
    block_on(nx.make_stream(STREAM, spec)).expect("it is made");
    let mut appender = Role::start("appender", folder.path());
    while appender.number().expect("it goes on") < 1_000 {}
    let mut call = SysRead::at(VPath::parse(STREAM).expect("it is one"));
    call = call.records(RecordRange::from(0));
    let refused = block_on(nx.send(call)).expect_err("it is not kept");
    assert_eq!(refused.kind(), ErrorKind::NotKept, "{refused}");
    // One that is overtaken all the time sees nothing that is torn.
    let stream = block_on(nx.map_stream(STREAM)).expect("it is there");
    let (mut records, mut from) = (0, StreamStart::Oldest);
    appender.unheard(|| {
        while records < 20_000 {
            match stream.read_here(RecordRange::from(from), LONG) {
                Ok(read) => {
                    read.records.iter().for_each(|record| assert_eq!(number_of(&record.data), record.offset));
                    records += read.records.len();
                    from = StreamStart::At(read.next);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
                    from = StreamStart::Oldest;
                }
            }
        }
    });
    drop(block_on(nx.shutdown()));
}

pub(crate) fn members_of_a_group_hear_of_what_other_processes_append() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    block_on(async {
        let group = nx.consumer(STREAM, "workers", StreamStart::Oldest, GroupSettings::default());
        let member = group.await.expect("it is made");
        // As from another process: the kernel is told nothing of it.
        let mapped = nx.map_stream(STREAM).await.expect("it is there");
        let mut taking = Box::pin(member.take(1, Some(LONG * 10)));
        assert!(futures_util::poll!(&mut taking).is_pending());
        mapped.append(vec![message(0).into()]).expect("there is room");
        let taken = nx.env().timeout(LONG, taking).await.expect("it is woken").expect("it goes on");
        assert_eq!(number_of(&taken[0].record.data), 0);
    });
    drop(block_on(nx.shutdown()));
}

pub(crate) fn a_take_of_a_group_that_is_full_ends_in_time_while_another_process_appends() {
    const LARGE: &str = "/large";
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    // With room for all that comes meanwhile.
    let spec = StreamSpec::new().io_profile(IoProfile::Shared).bytes_max(64 << 20);
    block_on(nx.make_stream(LARGE, spec)).expect("it is made");
    let is_over = AtomicBool::new(false);
    block_on(async {
        let group = nx.consumer(LARGE, "workers", StreamStart::Oldest, GroupSettings::default());
        let member = group.await.expect("it is made");
        // As from another process: the kernel is told nothing of it.
        let mapped = nx.map_stream(LARGE).await.expect("it is there");
        let append = || mapped.append(vec![message(0).into()]);
        append().expect("there is room");
        let full = loop {
            for _ in 0..1_024 {
                append().expect("there is room");
            }
            match member.take(1_024, None).await {
                Ok(taken) => assert!(!taken.is_empty()),
                Err(full) => break full,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    append().expect("there is room");
                }
            });
            let taking = nx.env().timeout(LONG, member.take(1, Some(Duration::from_millis(50))));
            let taken = block_on(taking);
            is_over.store(true, Ordering::Relaxed);
            let taken = taken.expect("it has a deadline").expect("it is told that there is none");
            assert!(taken.is_empty(), "it is full: {taken:?}");
        });
    });
    drop(block_on(nx.shutdown()));
}

/// Sees writes, and lets them pass.
struct Seeing;

impl Interceptor for Seeing {
    fn ops(&self) -> OpSet {
        OpSet::from(Op::Write)
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::ready(Verdict::Continue))
    }
}

pub(crate) fn nothing_is_mapped_past_who_is_to_see_what_is_written() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    let hook =
        block_on(nx.register_hook(Registration::interceptor("seeing", Arc::new(Seeing)))).expect("it is let");
    let refused = block_on(nx.map_stream(STREAM)).expect_err("it would not be seen");
    assert_eq!(refused.kind(), ErrorKind::NotSupported, "{refused}");
    block_on(nx.unregister_hook(hook)).expect("it is there");
    block_on(nx.map_stream(STREAM)).expect("nobody looks");
    drop(block_on(nx.shutdown()));
}

/// Threads of this process that sleep at shared memory.
fn sleeping() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").expect("it is there").filter_map(|thread| {
        let name = thread.ok()?.path().join("comm");
        std::fs::read_to_string(name).ok()
    });
    threads.filter(|name| name.trim_end() == "nexus-shared").count()
}

pub(crate) fn all_who_wait_in_a_process_have_the_same_threads() {
    /// As many as a process has; see `Sleepers`.
    const THREADS_MAX: usize = 64;
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    block_on(async {
        let mut streams = Vec::new();
        for n in 0..2 * THREADS_MAX {
            let path = format!("/stream/{n}");
            let spec = StreamSpec::new().io_profile(IoProfile::Shared).bytes_max(100);
            nx.make_stream(&path, spec).await.expect("it is made");
            streams.push((nx.map_stream(&path).await.expect("it is there"), path));
        }
        let reads = streams.iter().map(|(stream, _)| stream.read(RecordRange::from(0), Some(LONG)));
        let mut all = Box::pin(futures_util::future::join_all(reads));
        assert!(futures_util::poll!(&mut all).is_pending());
        until("as many sleep as may", || sleeping() >= THREADS_MAX);
        // Also those are told for whom no thread sleeps.
        for (_, path) in &streams {
            nx.append_record(path, "x").await.expect("there is room");
        }
        let read = all.await;
        assert!(read.iter().all(|read| read.as_ref().is_ok_and(|read| read.records.len() == 1)));
        assert!(sleeping() <= THREADS_MAX, "{} threads sleep", sleeping());
    });
    drop(block_on(nx.shutdown()));
}
