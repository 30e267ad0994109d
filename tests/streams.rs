//! Streams: records that are appended through a path, and read again by any number of readers.

#[path = "common/hindered.rs"]
mod hindered;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, OpSet, Registration};
use nexus::gate::{Decision, Permission};
use nexus::{
    Caller, Config, EntryType, Errno, Error, HookContext, IoProfile, Kill, MountSpec, Op, OpId, RecordRange,
    Records, Right, Serving, StreamSpec, StreamStart, SysRead, SysSetattr, SysWrite, Syscall, VPath, Verdict,
    blocking,
};
use nexus_drivers::streams::MemoryStreams;
use nexus_kernel::hal::StreamStore;
use nexus_kernel::streams::{StreamEntry, StreamStatistics};

use hindered::Hindered;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(30);

/// Long enough to be told apart from nothing.
const SHORT: Duration = Duration::from_millis(20);

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn in_memory() -> (blocking::Nexus, VPath) {
    let (nx, at) = (blocking::connect(Config::in_memory()).expect("it boots"), path("/log"));
    assert!(nx.send(SysSetattr::stream(&at)).expect("it is made").created);
    (nx, at)
}

fn on_disk(folder: &Path) -> blocking::Nexus {
    blocking::connect(Config::new(folder)).expect("it boots")
}

fn append(nx: &blocking::Nexus, at: &VPath, records: &[&str]) -> Result<u64, Error> {
    let records = records.iter().map(|record| record.to_string().into()).collect();
    let written = nx.send(SysWrite::vectored(at, records).append())?;
    Ok(written.first_record.expect("it is a stream"))
}

fn read(nx: &blocking::Nexus, at: &VPath, from: impl Into<StreamStart>) -> Result<Records, Error> {
    let read = nx.send(SysRead::at(at).records_from(from))?;
    Ok(*read.records.expect("it is a stream"))
}

fn texts(records: &Records) -> Vec<&str> {
    let text = |data| std::str::from_utf8(data).expect("it was text");
    records.records.iter().map(|record| text(&record.data)).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(done: Result<T, Error>, errno: Errno) -> Error {
    let error = done.expect_err("it is refused");
    assert_eq!(error.errno(), errno, "{error}");
    error
}

fn listed(nx: &blocking::Nexus) -> Vec<StreamEntry> {
    serde_json::from_slice(&nx.read("/__sys__/streams/.all").expect("it is shown")).expect("it is a list")
}

fn counted(nx: &blocking::Nexus) -> StreamStatistics {
    let read = nx.read("/__sys__/streams/statistics").expect("it is shown");
    serde_json::from_slice(&read).expect("they are counts")
}

/// Waits until somebody waits at the tail of a stream.
fn until_waited_for(nx: &blocking::Nexus, readers: usize) {
    let latest = nx.env().now() + Duration::from_secs(60);
    while counted(nx).readers_waiting < readers {
        assert!(nx.env().now() < latest, "{readers} readers do not come to wait");
        thread::yield_now();
    }
}

#[test]
fn records_have_offsets_and_are_read_again_from_anywhere() {
    let (nx, at) = in_memory();
    assert_eq!(nx.stat(&at).unwrap().entry_type, EntryType::Stream);
    assert_eq!(append(&nx, &at, &["a"]).unwrap(), 0);
    assert_eq!(append(&nx, &at, &["b", "c"]).unwrap(), 1);
    for _ in 0..2 {
        let all = read(&nx, &at, StreamStart::Oldest).unwrap();
        assert_eq!((texts(&all), all.next, all.tail), (vec!["a", "b", "c"], 3, 3));
    }
    let last = read(&nx, &at, 2).unwrap();
    assert_eq!((texts(&last), last.records[0].offset), (vec!["c"], 2));
    let none = read(&nx, &at, StreamStart::Tail).unwrap();
    assert_eq!((none.records.len(), none.next), (0, 3));
    let some = RecordRange::from(0).records_max(2);
    let some = nx.send(SysRead::at(&at).records(some)).unwrap().records.unwrap();
    assert_eq!((texts(&some), some.next, some.tail), (vec!["a", "b"], 2, 3));
    let one = RecordRange::from(1).bytes_max(1);
    assert_eq!(texts(&nx.send(SysRead::at(&at).records(one)).unwrap().records.unwrap()), ["b"]);
    refused(read(&nx, &at, 4), Errno::EINVAL);
}

#[test]
fn making_a_stream_again_changes_nothing() {
    let (nx, at) = in_memory();
    append(&nx, &at, &["a"]).unwrap();
    let again = SysSetattr::stream_with(&at, StreamSpec::new().bytes_max(5));
    assert!(!nx.send(again).unwrap().created);
    assert_eq!(texts(&read(&nx, &at, 0).unwrap()), ["a"]);
    refused(nx.send(SysSetattr::stream(&at).exclusive()), Errno::EEXIST);
    refused(nx.send(SysSetattr::pipe(&at, 100)), Errno::EEXIST);
    nx.write("/file", "x").unwrap();
    refused(nx.send(SysSetattr::stream(path("/file"))), Errno::EEXIST);
}

#[test]
fn what_no_stream_can_do_is_refused_before_anything_is_done() {
    let (nx, at) = in_memory();
    let make = |spec| nx.send(SysSetattr::stream_with(path("/other"), spec));
    refused(make(StreamSpec::new().bytes_max(0)), Errno::EINVAL);
    refused(make(StreamSpec::new().age_max(Duration::ZERO)), Errno::EINVAL);
    refused(make(StreamSpec::new().age_max(Duration::MAX)), Errno::EINVAL);
    refused(make(StreamSpec::new().io_profile(IoProfile::Durable)), Errno::EOPNOTSUPP);
    assert!(!nx.exists("/other").unwrap());
    refused(nx.read(&at), Errno::EINVAL);
    refused(nx.send(SysRead::at(&at).range(0, 1)), Errno::EINVAL);
    refused(nx.send(SysWrite::at(&at, "whole")), Errno::EINVAL);
    refused(nx.send(SysWrite::at(&at, "x").offset(0)), Errno::EINVAL);
    refused(nx.send(SysWrite::at(&at, "x").append().create_exclusive()), Errno::EEXIST);
    refused(nx.send(SysWrite::vectored(&at, vec![]).append()), Errno::EINVAL);
    refused(nx.send(SysWrite::at(&at, vec![0; (1 << 20) + 1]).append()), Errno::EFBIG);
    refused(nx.copy(&at, "/copy"), Errno::EINVAL);
    nx.write("/file", "x").unwrap();
    refused(read(&nx, &path("/file"), 0), Errno::EINVAL);
    assert_eq!(read(&nx, &at, 0).unwrap().tail, 0);
}

#[test]
fn a_read_at_the_tail_waits_for_the_next_record() {
    let (nx, at) = in_memory();
    refused(nx.send(SysRead::at(&at).records_from(0).wait(SHORT)), Errno::ETIMEDOUT);
    for n in 0..20 {
        thread::scope(|scope| {
            let waiting =
                scope.spawn(|| nx.send(SysRead::at(&at).records_from(StreamStart::Tail).wait(LONG)));
            until_waited_for(&nx, 1);
            append(&nx, &at, &["late"]).unwrap();
            let read = waiting.join().unwrap().unwrap().records.unwrap();
            assert_eq!((read.records[0].offset, texts(&read)), (n, vec!["late"]));
        });
    }
    assert_eq!(counted(&nx).readers_waiting, 0);
}

#[test]
fn many_readers_each_read_all_records_of_many_writers_once_and_in_order() {
    const WRITERS: usize = 4;
    const READERS: usize = 4;
    const EACH: usize = 300;
    let (nx, at) = in_memory();
    thread::scope(|scope| {
        let reader = || {
            let (mut next, mut seen) = (0, vec![0; WRITERS]);
            while seen.iter().sum::<usize>() < WRITERS * EACH {
                let call = SysRead::at(&at).records(RecordRange::from(next).records_max(7)).wait(LONG);
                let read = nx.send(call).unwrap().records.unwrap();
                for record in &read.records {
                    assert_eq!(record.offset, next);
                    next += 1;
                    let text = std::str::from_utf8(&record.data).unwrap();
                    let (writer, n) = text.split_once(' ').unwrap();
                    let (writer, n): (usize, usize) = (writer.parse().unwrap(), n.parse().unwrap());
                    assert_eq!(seen[writer], n, "those of one writer in its order");
                    seen[writer] += 1;
                }
            }
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
        for writer in 0..WRITERS {
            let (nx, at) = (&nx, &at);
            scope.spawn(move || {
                for n in 0..EACH {
                    append(nx, at, &[&format!("{writer} {n}")]).unwrap();
                }
            });
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert_eq!(counted(&nx).appended, (WRITERS * EACH) as u64);
}

#[test]
fn what_is_older_than_what_is_kept_is_refused_and_the_oldest_is_told() {
    let nx = blocking::connect(Config::in_memory()).unwrap();
    let at = path("/short");
    nx.send(SysSetattr::stream_with(&at, StreamSpec::new().bytes_max(10))).unwrap();
    for record in ["aa", "bb", "cc"] {
        append(&nx, &at, &[record]).unwrap();
    }
    let error = refused(read(&nx, &at, 0), Errno::ENODATA);
    assert!(error.to_string().contains("from offset 2 on"), "{error}");
    let kept = read(&nx, &at, StreamStart::Oldest).unwrap();
    assert_eq!((texts(&kept), kept.records[0].offset), (vec!["cc"], 2));
    refused(append(&nx, &at, &["longer than that"]), Errno::EFBIG);
}

#[test]
fn what_is_too_old_goes_with_the_next_append_at_the_latest() {
    let nx = blocking::connect(Config::in_memory()).unwrap();
    let at = path("/brief");
    nx.send(SysSetattr::stream_with(&at, StreamSpec::new().age_max(Duration::from_millis(1)))).unwrap();
    append(&nx, &at, &["first"]).unwrap();
    loop {
        append(&nx, &at, &["later"]).unwrap();
        if read(&nx, &at, 0).is_err() {
            break;
        }
    }
    refused(read(&nx, &at, 0), Errno::ENODATA);
    assert!(read(&nx, &at, StreamStart::Oldest).unwrap().tail > 1);
}

#[test]
fn removing_a_stream_wakes_who_waits_and_lets_its_records_go() {
    let (nx, at) = in_memory();
    append(&nx, &at, &["a"]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| nx.send(SysRead::at(&at).records_from(1).wait(LONG)));
        until_waited_for(&nx, 1);
        assert_eq!(nx.unlink(&at).unwrap().entry_type, EntryType::Stream);
        refused(waiting.join().unwrap(), Errno::ENOENT);
    });
    refused(append(&nx, &at, &["b"]), Errno::ENOENT);
    nx.send(SysSetattr::stream(&at)).unwrap();
    assert_eq!(append(&nx, &at, &["new"]).unwrap(), 0, "it is another stream");
    nx.mkdir("/d").unwrap();
    let inner = path("/d/s");
    nx.send(SysSetattr::stream(&inner)).unwrap();
    append(&nx, &inner, &["x"]).unwrap();
    nx.remove_all("/d").unwrap();
    while counted(&nx).dropped > 0 {
        thread::yield_now();
    }
    assert_eq!(listed(&nx).len(), 1);
}

#[test]
fn a_renamed_stream_is_the_same_stream() {
    let (nx, at) = in_memory();
    append(&nx, &at, &["a"]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| nx.send(SysRead::at(&at).records_from(1).wait(LONG)));
        until_waited_for(&nx, 1);
        nx.rename(&at, "/elsewhere").unwrap();
        append(&nx, &path("/elsewhere"), &["b"]).unwrap();
        assert_eq!(texts(&waiting.join().unwrap().unwrap().records.unwrap()), ["b"]);
    });
    assert_eq!(texts(&read(&nx, &path("/elsewhere"), 0).unwrap()), ["a", "b"]);
    assert_eq!(listed(&nx)[0].path, "/elsewhere");
    // What it takes the place of is gone.
    nx.send(SysSetattr::stream(&at)).unwrap();
    append(&nx, &at, &["other"]).unwrap();
    nx.rename("/elsewhere", &at).unwrap();
    assert_eq!(texts(&read(&nx, &at, 0).unwrap()), ["a", "b"]);
    assert_eq!(listed(&nx).len(), 1);
}

#[test]
fn an_operation_that_comes_again_is_executed_once() {
    let (nx, at) = in_memory();
    let mut call = SysWrite::at(&at, "a").append();
    call.op_id = Some(OpId(7));
    for _ in 0..2 {
        assert_eq!(nx.send(call.clone()).unwrap().first_record, Some(0));
    }
    assert_eq!(read(&nx, &at, 0).unwrap().tail, 1);
}

#[test]
fn a_crash_of_the_actor_harms_nobody() {
    let (nx, at) = in_memory();
    append(&nx, &at, &["a"]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| nx.send(SysRead::at(&at).records_from(1).wait(LONG)));
        until_waited_for(&nx, 1);
        nx.kill("nexus/kernel/streams", Kill::Panic).unwrap();
        append(&nx, &at, &["b"]).unwrap();
        assert_eq!(texts(&waiting.join().unwrap().unwrap().records.unwrap()), ["b"]);
    });
    assert_eq!(texts(&read(&nx, &at, 0).unwrap()), ["a", "b"]);
}

#[test]
fn the_end_of_the_kernel_wakes_who_waits() {
    let (nx, at) = in_memory();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| nx.send(SysRead::at(&at).records_from(0).wait(LONG)));
        until_waited_for(&nx, 1);
        nx.clone().shutdown().unwrap();
        refused(waiting.join().unwrap(), Errno::ESHUTDOWN);
    });
}

#[test]
fn what_was_acknowledged_is_there_when_the_folder_is_opened_again() {
    let folder = tempfile::tempdir().expect("there is room");
    let (kept, gone, brief) = (path("/kept"), path("/gone"), path("/brief"));
    let nx = on_disk(folder.path());
    nx.send(SysSetattr::stream_with(&kept, StreamSpec::new().bytes_max(1_000))).unwrap();
    nx.send(SysSetattr::stream(&gone)).unwrap();
    nx.send(SysSetattr::stream_with(&brief, StreamSpec::new().io_profile(IoProfile::Memory))).unwrap();
    for n in 0..50 {
        assert_eq!(append(&nx, &kept, &[&n.to_string()]).unwrap(), n);
        append(&nx, &brief, &["x"]).unwrap();
    }
    append(&nx, &gone, &["x"]).unwrap();
    let profiles: Vec<_> = listed(&nx).iter().map(|stream| stream.io_profile).collect();
    assert_eq!(profiles, [IoProfile::Memory, IoProfile::Durable, IoProfile::Durable]);
    nx.rename(&kept, "/moved").unwrap();
    nx.unlink(&gone).unwrap();
    // Nobody says that it is to end.
    drop(nx);

    let nx = loop {
        match blocking::connect(Config::new(folder.path())) {
            Ok(nx) => break nx,
            Err(error) => assert_eq!(error.errno(), Errno::EBUSY, "{error}"),
        }
    };
    let kept = path("/moved");
    let all = read(&nx, &kept, 0).unwrap();
    let numbers: Vec<String> = (0..50).map(|n: u64| n.to_string()).collect();
    assert_eq!(texts(&all), numbers);
    assert_eq!(append(&nx, &kept, &["next"]).unwrap(), 50);
    assert_eq!(read(&nx, &brief, 0).unwrap().tail, 0, "what is in memory ends with the process");
    refused(read(&nx, &gone, 0), Errno::ENOENT);
    let limits = listed(&nx).iter().find(|stream| stream.path == "/moved").unwrap().state.unwrap().limits;
    assert_eq!(limits.bytes_max, Some(1_000));
    nx.shutdown().unwrap();
}

#[test]
fn who_has_no_streams_on_disk_has_no_log_of_them() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = on_disk(folder.path());
    let brief = StreamSpec::new().io_profile(IoProfile::Memory);
    nx.send(SysSetattr::stream_with(path("/brief"), brief)).unwrap();
    append(&nx, &path("/brief"), &["x"]).unwrap();
    nx.unlink("/brief").unwrap();
    while counted(&nx).dropped > 0 {
        thread::yield_now();
    }
    let log = folder.path().join("streams");
    assert!(!log.exists());
    nx.send(SysSetattr::stream(path("/s"))).unwrap();
    append(&nx, &path("/s"), &["x"]).unwrap();
    assert!(log.exists());
    nx.shutdown().unwrap();
    let nx = on_disk(folder.path());
    assert_eq!(texts(&read(&nx, &path("/s"), 0).unwrap()), ["x"]);
    nx.shutdown().unwrap();
}

#[test]
fn what_is_too_old_goes_by_itself_also_from_a_stream_that_nobody_uses() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = on_disk(folder.path());
    let for_a_while = StreamSpec::new().age_max(Duration::from_millis(300));
    let brief = for_a_while.io_profile(IoProfile::Memory);
    for (at, spec) in [("/kept", for_a_while), ("/brief", brief)] {
        nx.send(SysSetattr::stream_with(path(at), spec)).unwrap();
        append(&nx, &path(at), &["a", "b"]).unwrap();
    }
    let heads =
        |nx: &blocking::Nexus| listed(nx).iter().map(|one| one.state.unwrap().head).collect::<Vec<_>>();
    nx.kill("nexus/kernel/streams", Kill::Panic).unwrap();
    while heads(&nx) != [2, 2] {
        thread::yield_now();
    }
    append(&nx, &path("/kept"), &["c"]).unwrap();
    nx.shutdown().unwrap();
    // Nobody asks for it in this process: what is below is looked at when it is too old.
    let nx = on_disk(folder.path());
    let log_has_head = || {
        let streams: StreamStatistics = counted(&nx);
        (streams.open, streams.aged)
    };
    while log_has_head() != (0, 1) {
        thread::yield_now();
    }
    assert_eq!(read(&nx, &path("/kept"), StreamStart::Oldest).unwrap().next, 3);
    nx.shutdown().unwrap();
}

#[test]
fn a_mount_whose_content_ends_with_the_process_keeps_streams_in_memory() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = on_disk(folder.path());
    nx.mount("/scratch", MountSpec::new("memory")).unwrap();
    let at = path("/scratch/s");
    nx.send(SysSetattr::stream(&at)).unwrap();
    append(&nx, &at, &["x"]).unwrap();
    assert_eq!(listed(&nx)[0].io_profile, IoProfile::Memory);
    let durable = StreamSpec::new().io_profile(IoProfile::Durable);
    refused(nx.send(SysSetattr::stream_with(path("/scratch/d"), durable)), Errno::EOPNOTSUPP);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| nx.send(SysRead::at(&at).records_from(1).wait(LONG)));
        until_waited_for(&nx, 1);
        nx.unmount("/scratch").unwrap();
        refused(waiting.join().unwrap(), Errno::ENOENT);
    });
    nx.shutdown().unwrap();
}

#[test]
fn an_attached_handle_appends_and_follows() {
    let folder = tempfile::tempdir().expect("there is room");
    let config = Config::new(folder.path()).serve(Serving::administrator());
    let owner = blocking::connect(config).expect("it boots");
    let nx = blocking::attach(folder.path()).expect("it is served");
    let at = path("/s");
    nx.send(SysSetattr::stream(&at)).unwrap();
    assert_eq!(append(&nx, &at, &["a", "b"]).unwrap(), 0);
    assert_eq!(texts(&read(&owner, &at, 0).unwrap()), ["a", "b"]);
    assert_eq!(texts(&read(&nx, &at, 1).unwrap()), ["b"]);
    refused(nx.send(SysRead::at(&at).records_from(2).wait(SHORT)), Errno::ETIMEDOUT);
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..10).map(|_| scope.spawn(|| nx.send(SysRead::at(&at).records_from(2).wait(LONG)))).collect();
        until_waited_for(&owner, waiting.len());
        append(&nx, &at, &["late"]).unwrap();
        for waiting in waiting {
            assert_eq!(texts(&waiting.join().unwrap().unwrap().records.unwrap()), ["late"]);
        }
    });
    owner.shutdown().expect("it stops");
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let (nx, at) = in_memory();
    for n in 0..600 {
        assert_eq!(nx.append_record(&at, n.to_string()).unwrap(), n);
    }
    let (mut one, mut other) = (nx.stream_reader(&at, 0).unwrap(), nx.stream_reader(&at, 598).unwrap());
    for n in 0..600 {
        assert_eq!(one.position(), StreamStart::At(n));
        let record = one.next(None).unwrap().expect("it is there");
        assert_eq!((record.offset, &record.data[..]), (n, n.to_string().as_bytes()));
    }
    assert_eq!(one.next(None).unwrap(), None);
    assert_eq!(one.next(Some(SHORT)).unwrap(), None);
    assert_eq!(other.next(None).unwrap().unwrap().data, "598");
    assert_eq!(nx.append_records(&at, vec!["x".into(), "y".into()]).unwrap(), 600);
    assert_eq!(one.next(Some(LONG)).unwrap().unwrap().data, "x");
    nx.write("/file", "x").unwrap();
    refused(nx.append_record("/file", "y"), Errno::EOPNOTSUPP);
    assert_eq!(nx.read("/file").unwrap(), "x");
    nx.unlink(&at).unwrap();
    assert_eq!(one.next(None).unwrap().unwrap().data, "y", "it was read already");
    refused(one.next(Some(LONG)), Errno::ENOENT);
}

/// Refuses `secret`, and writes `loud` in capitals. No reader may read.
#[derive(Debug)]
struct Minds;

impl Interceptor for Minds {
    fn ops(&self) -> OpSet {
        [Op::Write].into_iter().collect()
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        let mut verdict = Verdict::Continue;
        if let Syscall::Write(call) = &mut cx.call {
            match &*call.data[0] {
                b"secret" => verdict = Verdict::refuse("it is one"),
                b"loud" => call.data = vec!["LOUD".into()],
                _ => {}
            }
        }
        Box::pin(std::future::ready(verdict))
    }
}

impl Permission for Minds {
    fn check(&self, _: &Caller, right: Right, _: &VPath) -> Decision {
        match right {
            Right::Read => Decision::Deny("nobody reads".into()),
            _ => Decision::Allow,
        }
    }
}

#[test]
fn interceptors_and_the_gate_stand_before_a_stream() {
    let (nx, at) = in_memory();
    append(&nx, &at, &["warm"]).unwrap();
    nx.register_hook(Registration::interceptor("minds", Arc::new(Minds))).unwrap();
    refused(append(&nx, &at, &["secret"]), Errno::EACCES);
    assert_eq!(append(&nx, &at, &["loud"]).unwrap(), 1);
    assert_eq!(texts(&read(&nx, &at, 1).unwrap()), ["LOUD"]);
    nx.set_permission(Some(Arc::new(Minds))).unwrap();
    refused(read(&nx.agent("somebody").unwrap(), &at, 0), Errno::EACCES);
}

#[test]
fn the_mount_says_where_records_are_and_who_makes_a_stream_may_say_otherwise() {
    let folder = tempfile::tempdir().expect("there is room");
    let there = tempfile::tempdir().expect("there is room");
    let nx = on_disk(folder.path());
    let mount = |driver: &str, streams: &str| {
        let spec = MountSpec::new(driver).option("streams", streams);
        let own = (driver == "cas-local").then(|| there.path().join(streams).display().to_string());
        let spec = own.into_iter().fold(spec, |spec, folder| spec.option("folder", folder));
        nx.mount(format!("/{streams}").as_str(), spec)
    };
    let kind = |at: &str, spec: StreamSpec| {
        nx.send(SysSetattr::stream_with(path(at), spec)).map(|_| nx.stat(at).unwrap().io_profile.unwrap())
    };
    for (name, expected) in
        [("memory", IoProfile::Memory), ("durable", IoProfile::Durable), ("shared", IoProfile::Shared)]
    {
        mount("cas-local", name).unwrap();
        assert_eq!(kind(&format!("/{name}/unsaid"), StreamSpec::new()).unwrap(), expected);
        for said in [IoProfile::Memory, IoProfile::Durable, IoProfile::Shared] {
            let spec = StreamSpec::new().io_profile(said);
            assert_eq!(kind(&format!("/{name}/{}", said.name()), spec).unwrap(), said);
        }
        assert_eq!(append(&nx, &path(&format!("/{name}/unsaid")), &["x"]).unwrap(), 0);
    }
    assert_eq!(kind("/unsaid", StreamSpec::new()).unwrap(), IoProfile::Durable);
    refused(mount("memory", "durable").map(drop), Errno::EEXIST);
    nx.unmount("/durable").unwrap();
    refused(mount("memory", "durable").map(drop), Errno::EINVAL);
    nx.shutdown().unwrap();

    let nx = blocking::connect(Config::in_memory()).unwrap();
    let spec = MountSpec::new("cas-local").option("folder", there.path().join("x").display().to_string());
    nx.mount("/m", spec.option("streams", "durable")).unwrap();
    let error = nx.send(SysSetattr::stream(path("/m/s"))).expect_err("there is no disk");
    assert!(error.to_string().contains("this kernel keeps no streams on disk"), "{error}");
    nx.send(SysSetattr::stream_with(path("/m/s"), StreamSpec::new().io_profile(IoProfile::Memory))).unwrap();
    nx.shutdown().unwrap();
}

#[test]
fn durable_streams_are_kept_by_the_store_that_was_given_for_them() {
    let folder = tempfile::tempdir().expect("there is room");
    let store = Arc::new(MemoryStreams::default());
    let boot = || blocking::connect(Config::new(folder.path()).stream_store(store.clone())).unwrap();
    let nx = boot();
    let (kept, gone) = (path("/kept"), path("/gone"));
    for at in [&kept, &gone] {
        nx.send(SysSetattr::stream(at)).unwrap();
        append(&nx, at, &["a", "b"]).unwrap();
    }
    let listed = || smol::block_on(store.list(None, 9)).unwrap();
    let ids = [&kept, &gone].map(|at| nx.stat(at).unwrap().file_id);
    assert_eq!(listed(), ids);
    assert!(!folder.path().join("streams").exists());
    nx.unlink(&gone).unwrap();
    nx.shutdown().unwrap();
    let nx = boot();
    while listed().len() > 1 {
        thread::yield_now();
    }
    assert_eq!(listed(), [ids[0]]);
    assert_eq!(texts(&read(&nx, &kept, 0).unwrap()), ["a", "b"]);
    assert_eq!(append(&nx, &kept, &["c"]).unwrap(), 2);
    nx.shutdown().unwrap();
}

#[test]
fn a_stream_whose_mount_goes_while_it_is_opened_keeps_its_records() {
    let (folder, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(Hindered::default());
    let nx = blocking::connect(Config::new(folder.path()).stream_store(store.clone())).unwrap();
    let spec = MountSpec::new("cas-local").option("folder", there.path().display().to_string());
    let at = path("/m/s");
    nx.mount("/m", spec.clone()).unwrap();
    nx.send(SysSetattr::stream(&at)).unwrap();
    append(&nx, &at, &["a"]).unwrap();
    nx.unmount("/m").unwrap();
    nx.mount("/m", spec.clone()).unwrap();
    let held = smol::block_on(store.may_go.acquire()).unwrap();
    store.asked.forget_permits(usize::MAX);
    thread::scope(|scope| {
        let appending = scope.spawn(|| append(&nx, &at, &["b"]));
        drop(smol::block_on(store.asked.acquire()).unwrap());
        nx.unmount("/m").unwrap();
        drop(held);
        appending.join().unwrap().expect_err("nothing is there");
    });
    // What is to be removed is removed by now.
    while counted(&nx).dropped > 0 {
        thread::yield_now();
    }
    nx.mount("/m", spec).unwrap();
    assert_eq!(texts(&read(&nx, &at, 0).unwrap()), ["a"]);
    nx.shutdown().unwrap();
}
