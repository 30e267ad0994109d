//! The server against clients that are not ours: who speak another version, or nonsense, do not read, or vanish.

use std::io::{ErrorKind as HostError, IoSlice, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::syscall::{PipeSpec, SysLock, SysRead, SysWatch, SysWrite, Syscall};
use nexus_messages::{ErrorKind, VPath};
use proptest::prelude::*;

use super::lives::OWN;
use super::message::{Call, Given, Refusal, Refused, Reply, Request, Streaming, Version, Welcome, hello};
use super::session::ALL_ANSWERED;
use super::socket::SOCKET;
use super::wire::{FRAME_MAX, Inbox, Incoming, Kind, Message, Outbox, SLICES_MAX};
use crate::attach::Serving;
use crate::blocking::{self, Nexus};
use crate::config::Config;

/// How long something may take that must come. Nothing waits so long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing happens when nothing happens any more. Less than it takes makes a test see less, and not fail.
const QUIET: Duration = Duration::from_millis(300);

/// A kernel that serves, on a folder of its own.
struct Owner {
    nx: Nexus,
    folder: tempfile::TempDir,
}

impl Owner {
    fn new(serving: Serving) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let nx = blocking::connect(Config::new(folder.path()).serve(serving)).expect("it boots");
        Self { nx, folder }
    }

    fn raw(&self) -> Raw {
        Raw::new(self.folder.path())
    }

    /// Waits for what must come, on its own time.
    #[track_caller]
    fn until(&self, what: &str, mut come: impl FnMut() -> bool) {
        let latest = self.nx.env().now() + PATIENCE;
        while !come() {
            assert!(self.nx.env().now() < latest, "{what} does not come: {:?}", self.nx.serving());
            std::thread::yield_now();
        }
    }

    fn connections(&self) -> usize {
        self.nx.serving().expect("it is the administrator's").expect("it serves").connections
    }

    fn calls(&self) -> usize {
        self.nx.serving().expect("it is the administrator's").expect("it serves").calls
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let stats = self.nx.serving().expect("it is the administrator's").expect("it serves");
        assert!(stats.crashed == 0 || std::thread::panicking(), "{stats:?}");
    }
}

/// A client that speaks in frames.
struct Raw {
    stream: UnixStream,
    inbox: Inbox,
}

impl Raw {
    fn new(folder: &Path) -> Self {
        let stream = UnixStream::connect(folder.join(SOCKET)).expect("it is served");
        stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("it can be set");
        Self { stream, inbox: Inbox::new(FRAME_MAX) }
    }

    /// One that has greeted.
    fn greeted(folder: &Path) -> Self {
        let mut raw = Self::new(folder);
        raw.send(&frame(Kind::Hello, 0, &hello(&Version::own())));
        let Some(Incoming::Frame { kind: Kind::Welcome, payload, .. }) = raw.next() else {
            panic!("it is not welcome")
        };
        Welcome::read(&payload).expect("it can be read");
        raw
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it is taken");
    }

    /// What comes next; none at the end.
    fn next(&mut self) -> Option<Incoming> {
        loop {
            match self.inbox.next().expect("the server keeps to the protocol") {
                Some(Incoming::Part) => {}
                Some(incoming) => return Some(incoming),
                None => {
                    let mut bytes = [0; 65_536];
                    match self.stream.read(&mut bytes) {
                        Ok(0) => return None,
                        Ok(count) => self.inbox.room().extend_from_slice(&bytes[..count]),
                        // It closed on what it did not want to read.
                        Err(error) if error.kind() == HostError::ConnectionReset => return None,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    }

    fn reply(&mut self) -> (u64, nexus_messages::Result<Given>) {
        match self.next() {
            Some(Incoming::Message(message)) if message.kind == Kind::Reply => {
                (message.number, Reply::unpack(message).expect("it can be read"))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn frame(kind: Kind, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Outbox::default();
    out.push_frame(kind, number, payload);
    drained(out)
}

fn call(number: u64, call: impl Into<Syscall>) -> Vec<u8> {
    request(number, Request::Syscall(call.into()))
}

fn request(number: u64, request: Request) -> Vec<u8> {
    let parcel = Call::pack(None, OWN, request).expect("it can be written");
    let mut out = Outbox::default();
    out.push_message(Kind::Call, number, &parcel.head, parcel.body);
    drained(out)
}

fn drained(mut out: Outbox) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let before = bytes.len();
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = out.slices(&mut slices);
        slices[..filled].iter().for_each(|slice| bytes.extend_from_slice(slice));
        out.left(bytes.len() - before, |_| {});
    }
    bytes
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

#[test]
fn a_client_of_another_version_is_told_both_versions() {
    let owner = Owner::new(Serving::administrator());
    let own = Version::own();
    let others = [
        Version { protocol: own.protocol + 1, ..own.clone() },
        Version { product: "9.9.9".into(), ..own.clone() },
    ];
    for other in others {
        let mut raw = owner.raw();
        raw.send(&frame(Kind::Hello, 0, &hello(&other)));
        let Some(Incoming::Frame { kind: Kind::Refused, payload, .. }) = raw.next() else {
            panic!("it is refused")
        };
        let refused = Refused::read(payload).expect("it can be read");
        assert_eq!((refused.why, &refused.server), (Some(Refusal::Version), &own));
        assert!(refused.text.contains(&own.to_string()) && refused.text.contains(&other.to_string()));
        assert_eq!(raw.next(), None, "and let go");
    }
}

#[test]
fn nobody_is_taken_any_more_once_all_are_gone() {
    let owner = Owner::new(Serving::administrator());
    let (first, last) = (Raw::greeted(owner.folder.path()), Raw::greeted(owner.folder.path()));
    drop(first);
    std::thread::scope(|scope| {
        let unused = scope.spawn(|| owner.nx.unused(PATIENCE));
        owner.until("the end of the first", || owner.connections() == 1);
        let another = Raw::greeted(owner.folder.path());
        drop(last);
        owner.until("the end of the last but one", || owner.connections() == 1);
        assert!(!unused.is_finished(), "one is there");
        drop(another);
        unused.join().expect("it does not panic").expect("it is served");
    });
    let mut late = owner.raw();
    let Some(Incoming::Frame { kind: Kind::Refused, payload, .. }) = late.next() else {
        panic!("it is refused")
    };
    let refused = Refused::read(payload).expect("it can be read");
    assert_eq!(refused.why, Some(Refusal::Ending), "it waits for the next owner");
    owner.nx.unused(PATIENCE).expect("nobody comes");
}

#[test]
fn who_does_not_come_in_time_is_not_waited_for() {
    let owner = Owner::new(Serving::administrator());
    owner.nx.unused(Duration::ZERO).expect("it is served");
}

#[test]
fn a_server_of_another_version_is_an_error_that_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
    let server = Version { protocol: 7, product: "7.0.0".into() };
    let refused = Refused { why: Some(Refusal::Version), server: server.clone(), text: "go away".into() };
    let answers = [
        (frame(Kind::Refused, 0, &refused.write()), server.to_string()),
        (frame(Kind::Welcome, 0, b"\xff\xff\xff"), "structure".into()),
        (frame(Kind::Reply, 0, b"what?"), "cut off".into()),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "longer than".into()),
    ];
    for (answer, said) in answers {
        let error = std::thread::scope(|scope| {
            let served = std::thread::Builder::new()
                .spawn_scoped(scope, || {
                    let (mut client, _) = listener.accept().unwrap();
                    client.read_exact(&mut [0; 20]).unwrap();
                    client.write_all(&answer).unwrap();
                })
                .unwrap();
            let error = blocking::attach(folder.path()).map(|_| ()).unwrap_err();
            served.join().unwrap();
            error
        });
        assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");
        let shown = error.to_string();
        if answer.starts_with(&frame(Kind::Refused, 0, &refused.write())) {
            assert!(shown.contains(&Version::own().to_string()) && shown.contains(&said), "{shown}");
        }
    }
}

#[test]
fn nonsense_ends_its_own_connection_and_no_other() {
    let owner = Owner::new(Serving::administrator());
    let mut good = Raw::greeted(owner.folder.path());
    let nonsense: [Vec<u8>; 9] = [
        b"GET / HTTP/1.1\r\nHost: nexus\r\n\r\n".to_vec(),
        vec![0; 100],
        vec![0xff; 100_000],
        call(1, SysRead::at(path("/f"))),
        frame(Kind::Bye, 0, b""),
        frame(Kind::Hello, 0, b"not the magic"),
        [frame(Kind::Hello, 0, &hello(&Version::own())), frame(Kind::Hello, 0, b"again")].concat(),
        [frame(Kind::Hello, 0, &hello(&Version::own())), frame(Kind::Call, 1, b"\0\0\0\0\0\0\0\0\0\0\0\0?")]
            .concat(),
        [frame(Kind::Hello, 0, &hello(&Version::own())), vec![0xff; 1_000]].concat(),
    ];
    for bytes in nonsense {
        let mut raw = owner.raw();
        // It may be let go in the middle.
        let _ = raw.stream.write_all(&bytes);
        while raw.next().is_some() {}
    }
    good.send(&call(1, SysWrite::at(path("/f"), "x").create()));
    good.reply().1.expect("it writes");
    owner.until("the end of the others", || owner.connections() == 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn whatever_follows_a_greeting_the_server_serves_on(
        noise in proptest::collection::vec((0u8..11, proptest::collection::vec(any::<u8>(), 0..100)), 1..20)
    ) {
        let owner = Owner::new(Serving::agent("a"));
        for round in 0..4 {
            let mut raw = Raw::greeted(owner.folder.path());
            for (kind, payload) in noise.iter().skip(round) {
                let mut bytes = frame(Kind::More, 1, payload);
                bytes[4] = *kind;
                let _ = raw.stream.write_all(&bytes);
            }
            let _ = raw.stream.shutdown(std::net::Shutdown::Write);
            while raw.next().is_some() {}
        }
        let mut raw = Raw::greeted(owner.folder.path());
        raw.send(&call(1, SysWrite::at(path("/f"), "x").create()));
        prop_assert!(raw.reply().1.is_ok());
    }
}

#[test]
fn replies_come_in_any_order_and_small_ones_overtake_large_ones() {
    let owner = Owner::new(Serving::administrator());
    let large: Bytes = vec![7u8; 8 << 20].into();
    owner.nx.write("/large", large.clone()).expect("it writes");
    owner.nx.write("/small", "x").expect("it writes");
    let mut raw = Raw::greeted(owner.folder.path());
    raw.send(&[call(1, SysRead::at(path("/large"))), call(2, SysRead::at(path("/small")))].concat());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (number, result) = raw.reply();
        seen.push(number);
        let Ok(Given::Answer(nexus_messages::syscall::Answer::Read(read))) = result else {
            panic!("{result:?}")
        };
        assert!(read.data == if number == 1 { large.clone() } else { "x".into() });
    }
    assert_eq!(seen, [2, 1]);
}

#[test]
fn who_does_not_read_is_not_read_from_and_holds_up_nobody() {
    const CALLS: u64 = 3_000;
    let owner = Owner::new(Serving::administrator().in_flight_max(8));
    owner.nx.write("/large", vec![7u8; 100_000]).expect("it writes");
    let mut slow = Raw::greeted(owner.folder.path());
    let mut writing = slow.stream.try_clone().expect("it can be shared");
    let reading = call(0, SysRead::at(path("/large")));
    let sent = std::thread::scope(|scope| {
        let sender = std::thread::Builder::new().spawn_scoped(scope, move || {
            for number in 0..CALLS {
                let mut bytes = reading.clone();
                bytes[5..13].copy_from_slice(&number.to_le_bytes());
                writing.write_all(&bytes).expect("it is taken in the end");
            }
        });
        let sender = sender.expect("it starts");
        let begun = || owner.nx.serving().unwrap().unwrap().served;
        // It stops long before all was begun: what waits to be read is bounded.
        let mut last = (0, owner.nx.env().now());
        owner.until("a standstill", || {
            let (count, now) = (begun(), owner.nx.env().now());
            if count != last.0 || count == 0 {
                last = (count, now);
            }
            now.duration_since(last.1) > QUIET
        });
        assert!(begun() < 200, "{} replies wait", begun());
        let other = blocking::attach(owner.folder.path()).expect("there is room");
        assert_eq!(other.read("/large").expect("it is there").len(), 100_000);
        // Once it reads, all comes.
        let mut numbers: Vec<u64> = (0..CALLS).map(|_| slow.reply().0).collect();
        numbers.sort_unstable();
        sender.join().expect("it sent all");
        numbers
    });
    assert!(sent.into_iter().eq(0..CALLS));
}

/// The sockets that there are at this path: the one that listens, and one for each client.
fn sockets(folder: &Path) -> usize {
    let all = std::fs::read_to_string("/proc/net/unix").expect("it is Linux");
    let path = folder.display().to_string();
    all.lines().filter(|line| line.contains(&path)).count()
}

#[test]
fn a_thousand_clients_that_vanish_leave_nothing_behind() {
    let owner = Owner::new(Serving::administrator().connections_max(32));
    let large: Bytes = vec![7u8; 1 << 20].into();
    owner.nx.write("/large", large.clone()).expect("it writes");
    let kernel = owner.nx.kernel().expect("it is the administrator's").clone();
    let sockets = || sockets(owner.folder.path());
    let before = sockets();
    assert!(before > 0, "it is seen");
    for client in 0..1_000u64 {
        owner.until("a place", || owner.connections() < 32);
        let at = path(&format!("/f{}", client % 7));
        let some_calls = || {
            let writes = (1..6).map(|number| call(number, SysWrite::at(&at, "x").append().create()));
            writes.collect::<Vec<_>>().concat()
        };
        match client % 6 {
            // It goes before it greets, in the middle of a greeting, of a call, of a large call; with calls under way, with replies unread.
            0 => drop(owner.raw()),
            1 => owner.raw().send(&frame(Kind::Hello, 0, &hello(&Version::own()))[..9]),
            2 => Raw::greeted(owner.folder.path()).send(&some_calls()[..30]),
            3 => {
                let bytes = call(1, SysWrite::at(&at, large.clone()).create());
                Raw::greeted(owner.folder.path()).send(&bytes[..400_000]);
            }
            4 => Raw::greeted(owner.folder.path()).send(&some_calls()),
            _ => {
                let mut raw = Raw::greeted(owner.folder.path());
                let reads = (1..9).map(|number| call(number, SysRead::at(path("/large"))));
                raw.send(&reads.collect::<Vec<_>>().concat());
            }
        }
    }
    owner.until("the end of all", || owner.connections() == 0);
    assert_eq!(owner.calls(), 0);
    // What had its lock is finished by the kernel.
    owner.until("the end of what they began", || {
        let locks = kernel.path_locks().statistics();
        (locks.held, locks.waiting) == (0, 0)
    });
    owner.until("the end of their sockets", || sockets() == before);
    let mut last = Raw::greeted(owner.folder.path());
    last.send(&call(1, SysRead::at(path("/large"))));
    last.reply().1.expect("it serves");
}

#[test]
fn a_call_that_is_called_off_gets_no_reply_and_gives_its_place_back() {
    let owner = Owner::new(Serving::administrator().in_flight_max(2));
    owner.nx.write("/f", "x").expect("it writes");
    let kernel = owner.nx.kernel().expect("it is the administrator's").clone();
    let holder = nexus_kernel::locks::LockOwner { agent: "test".into(), since: nexus_messages::Timestamp(0) };
    let at = path("/f");
    let lock = kernel.path_locks().lock(
        &at,
        nexus_kernel::locks::Mode::Write,
        nexus_kernel::locks::Scope::Entry,
        holder,
    );
    let held = nexus_actors::block_on(lock);
    let mut raw = Raw::greeted(owner.folder.path());
    let write = |number| call(number, SysWrite::at(path("/f"), "late"));
    raw.send(&[write(1), write(2)].concat());
    owner.until("both to wait", || kernel.path_locks().statistics().waiting == 2);
    // There are as many as may be; and yet what is called off is heard.
    raw.send(
        &[frame(Kind::Cancel, 1, b""), frame(Kind::Cancel, 2, b""), frame(Kind::Cancel, 77, b"")].concat(),
    );
    owner.until("both to be dropped", || kernel.path_locks().statistics().waiting == 0);
    raw.send(&call(3, SysRead::at(path("/f"))));
    assert_eq!(raw.reply().0, 3);
    drop(held);
    assert_eq!(owner.nx.read("/f").expect("it is there"), "x");
    owner.until("no call", || owner.calls() == 0);
}

/// Has a client take these messages from a pipe, each by a read that waits.
fn taken_by(owner: &Owner, raw: &mut Raw, spec: PipeSpec, messages: &[Bytes]) {
    owner.nx.make_pipe_with("/p", spec).expect("it is made");
    let reads = (1..).take(messages.len()).map(|number| call(number, SysRead::at(path("/p")).wait(PATIENCE)));
    raw.send(&reads.collect::<Vec<_>>().concat());
    let is = |key: &str, count: usize| {
        let counted = owner.nx.read("/__sys__/pipes/statistics").expect("it is counted");
        serde_json::from_slice::<serde_json::Value>(&counted).expect("it is JSON")[key] == count
    };
    owner.until("all to wait", || is("readers_waiting", messages.len()));
    for message in messages {
        owner.nx.send(SysWrite::at(path("/p"), message.clone())).expect("there is room");
    }
    owner.until("all to be taken", || is("messages", 0));
}

#[test]
fn messages_that_have_not_left_go_back_when_their_client_is_gone_however_many() {
    let owner = Owner::new(Serving::administrator());
    let mut raw = Raw::greeted(owner.folder.path());
    // Each is more than a socket holds, so none leaves whole.
    let messages: Vec<Bytes> = (0..24).map(|number| vec![number; 1 << 20].into()).collect();
    taken_by(&owner, &mut raw, PipeSpec::new(32 << 20), &messages);
    drop(raw);
    owner.until("its end", || owner.connections() == 0);
    for message in messages {
        assert!(owner.nx.read("/p").expect("it came back") == message, "not in their order");
    }
}

#[test]
fn a_lock_whose_reply_has_not_left_goes_back_when_its_client_is_gone() {
    const READS: u64 = 30;
    let owner = Owner::new(Serving::administrator());
    owner.nx.write("/large", vec![7u8; 100_000]).expect("it writes");
    owner.nx.read("/large").expect("it is there, and at hand from now on");
    let held = owner.nx.lock("/l", Duration::ZERO).expect("it is free");
    let mut raw = Raw::greeted(owner.folder.path());
    let lock = SysLock::exclusive(path("/l")).ttl(Duration::from_secs(3_600)).wait(PATIENCE);
    raw.send(&call(0, lock));
    // More than a socket holds, and nobody reads it: what is said later does not leave.
    raw.send(
        &(1..=READS).map(|number| call(number, SysRead::at(path("/large")))).collect::<Vec<_>>().concat(),
    );
    let served = || owner.nx.serving().expect("it is the administrator's").expect("it serves").served;
    owner.until("all reads", || served() == READS + 1 && owner.calls() == 1);
    owner.nx.unlock("/l", held.id).expect("it is held");
    owner.until("the lock to be given", || owner.calls() == 0);
    assert!(owner.nx.lock("/l", Duration::ZERO).is_err(), "the client has it");
    drop(raw);
    owner.until("its end", || owner.connections() == 0);
    owner.nx.lock("/l", Duration::ZERO).expect("nobody ever heard of it");
}

fn check_called_off(spec: PipeSpec) {
    let owner = Owner::new(Serving::administrator());
    let mut raw = Raw::greeted(owner.folder.path());
    taken_by(&owner, &mut raw, spec, &["one".into(), "two".into(), "three".into()]);
    (0..3).for_each(|_| drop(raw.reply().1.expect("it was taken")));
    let cancels = (1..4).map(|number| frame(Kind::Cancel, number, b""));
    raw.send(&[cancels.collect::<Vec<_>>().concat(), call(4, SysRead::at(path("/p")))].concat());
    let Ok(Given::Answer(nexus_messages::syscall::Answer::Read(read))) = raw.reply().1 else {
        panic!("nothing came back")
    };
    assert_eq!(read.data, "one");
    for message in ["two", "three"] {
        let read = owner.nx.send(SysRead::at(path("/p")).wait(PATIENCE));
        assert_eq!(read.expect("it came back").data, message);
    }
}

#[test]
fn messages_that_are_called_off_together_are_read_in_their_order() {
    check_called_off(PipeSpec::new(100));
    #[cfg(target_os = "linux")]
    check_called_off(PipeSpec::shared(100));
}

#[cfg(target_os = "linux")]
#[test]
fn a_child_whose_start_is_called_off_when_its_reply_is_on_the_way_is_killed() {
    let owner = Owner::new(Serving::administrator());
    let mut raw = Raw::greeted(owner.folder.path());
    let spec = || nexus_messages::ChildSpec::new("sleep", ["1000"]);
    raw.send(&[request(1, Request::Spawn(spec())), request(2, Request::Spawn(spec()))].concat());
    let replies = [raw.reply(), raw.reply()];
    assert!(replies.iter().all(|(_, reply)| matches!(reply, Ok(Given::Child(_)))), "{replies:?}");
    raw.send(&frame(Kind::Cancel, 1, b""));
    let state = |number: u64| {
        let child = replies.iter().find_map(|(replied, reply)| match reply {
            Ok(Given::Child(child)) if *replied == number => Some(child.id),
            _ => None,
        });
        let children = owner.nx.children().expect("it is the administrator's");
        children.iter().find(|there| Some(there.id) == child).map(|there| there.state)
    };
    owner.until("its end", || state(1).is_some_and(nexus_messages::ChildState::is_done));
    assert_eq!(state(2), Some(nexus_messages::ChildState::Running), "the other one goes on");
}

#[test]
fn one_too_many_is_told_so() {
    let owner = Owner::new(Serving::administrator().connections_max(2));
    let first = blocking::attach(owner.folder.path()).expect("there is room");
    let _second = Raw::greeted(owner.folder.path());
    let refused = blocking::attach(owner.folder.path()).map(|_| ()).expect_err("there is none");
    assert_eq!(refused.kind(), ErrorKind::Busy);
    assert!(refused.to_string().contains("2 clients are there already"), "{refused}");
    drop(first);
    owner.until("the first to go", || owner.connections() == 1);
    blocking::attach(owner.folder.path()).expect("there is room again");
}

#[test]
fn who_does_not_greet_is_let_go() {
    let owner = Owner::new(Serving::administrator());
    let mut silent = owner.raw();
    assert_eq!(silent.next(), None);
    owner.until("its end", || owner.connections() == 0);
}

#[test]
fn an_ending_kernel_answers_what_it_has_begun_and_says_goodbye() {
    let owner = Owner::new(Serving::administrator());
    let mut raw = Raw::greeted(owner.folder.path());
    raw.send(&call(1, SysWrite::at(path("/f"), "x").create()));
    owner.until("its begin", || owner.nx.serving().unwrap().unwrap().served == 1);
    owner.nx.shutdown().expect("it stops");
    assert_eq!(raw.reply().0, 1);
    let Some(Incoming::Frame { kind: Kind::Bye, payload, .. }) = raw.next() else {
        panic!("it says goodbye")
    };
    assert_eq!(&payload[..], [ALL_ANSWERED]);
    assert_eq!(raw.next(), None);
    assert!(!owner.folder.path().join(SOCKET).exists());
}

#[test]
fn a_forged_caller_is_refused() {
    let owner = Owner::new(Serving::agent("a"));
    let mut raw = Raw::greeted(owner.folder.path());
    let forged = nexus_messages::Caller::administrator();
    let write = SysWrite::at(path("/f"), "x").create();
    let parcel = Call::pack(Some(forged), OWN, Request::Syscall(write.into())).expect("it can be written");
    let mut out = Outbox::default();
    out.push_message(Kind::Call, 1, &parcel.head, parcel.body);
    raw.send(&drained(out));
    let (_, result) = raw.reply();
    assert_eq!(result.expect_err("it is more than was granted").kind(), ErrorKind::PermissionDenied);
    assert!(!owner.nx.exists("/f").expect("it looks"));
}

/// What a watch tells that this client has begun as its number 1, and that so many answers have come of.
fn events(raw: &mut Raw, came: u64) -> nexus_messages::Result<Vec<String>> {
    raw.send(&request(9, Request::Stream(Streaming::Events(1, came, PATIENCE))));
    match raw.reply().1? {
        Given::Answer(nexus_messages::syscall::Answer::Watch(watched)) => {
            Ok(watched.events.iter().map(|event| event.path.as_str().to_owned()).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_watch_has_told_is_told_again_until_it_has_come() {
    let owner = Owner::new(Serving::administrator());
    let mut raw = Raw::greeted(owner.folder.path());
    let watch = SysWatch::at(path("/")).limit(std::num::NonZeroU32::MIN);
    raw.send(&request(1, Request::Stream(Streaming::Watch(1, watch.clone(), false))));
    assert!(matches!(raw.reply().1, Ok(Given::Watching(_))));
    for name in ["/one", "/two"] {
        owner.nx.write(name, "x").expect("it writes");
    }
    for (came, name) in [(0, "/one"), (0, "/one"), (1, "/two"), (1, "/two")] {
        assert_eq!(events(&mut raw, came), Ok(vec![name.to_owned()]));
    }
    raw.send(&request(2, Request::Stream(Streaming::Watch(1, watch, false))));
    assert_eq!(raw.reply().1.expect_err("it has that number").kind(), ErrorKind::InvalidArgument);
    assert_eq!(events(&mut raw, 7).expect_err("they were not told").kind(), ErrorKind::InvalidArgument);
    raw.send(&request(3, Request::Stream(Streaming::Events(1, 2, PATIENCE))));
    assert_eq!(raw.reply().1, Ok(Given::NoWatch), "its client does not keep count");
}

#[test]
fn no_more_watches_than_may_be_are_begun_for_a_client() {
    const WATCHES: u64 = 1_024;
    let owner = Owner::new(Serving::administrator());
    let mut raw = Raw::greeted(owner.folder.path());
    for number in 0..=WATCHES {
        raw.send(&request(number, Request::Stream(Streaming::Watch(number, SysWatch::at(path("/")), false))));
        let begun = raw.reply().1.map(drop).map_err(|error| error.kind());
        assert_eq!(begun, if number < WATCHES { Ok(()) } else { Err(ErrorKind::Busy) });
    }
}

#[test]
fn nothing_is_tied_to_a_life_that_has_ended_and_none_begins_twice() {
    let owner = Owner::new(Serving::administrator());
    let mut raw = Raw::greeted(owner.folder.path());
    let mut is_tied = |before: &[u8], life: u64, at: &str| {
        let lock = SysLock::exclusive(path(at)).tied().ttl(SysLock::TTL_MAX);
        let parcel = Call::pack(None, life, Request::Syscall(lock.into())).expect("it can be written");
        let mut out = Outbox::default();
        out.push_message(Kind::Call, 1, &parcel.head, parcel.body);
        raw.send(&[before, &drained(out)].concat());
        raw.reply().1.is_ok()
    };
    assert!(is_tied(b"", OWN, "/own"));
    assert!(!is_tied(b"", 7, "/never"), "that never began");
    let begins = frame(Kind::LifeBegins, 7, b"");
    assert!(is_tied(&begins, 7, "/l"));
    assert!(!is_tied(&frame(Kind::LifeEnds, 7, b""), 7, "/late"));
    let lock = owner.nx.lock("/l", Duration::ZERO).expect("it went with that life");
    owner.nx.unlock("/l", lock.id).expect("it is held");
    owner.nx.lock("/own", Duration::ZERO).expect_err("this one goes on");
    raw.send(&[&begins[..], &begins].concat());
    assert_eq!(raw.next(), None, "it is let go");
}

#[test]
fn a_message_is_what_it_was() {
    // What the tests above rest on: a frame of theirs is one of ours.
    let mut inbox = Inbox::new(FRAME_MAX);
    inbox.room().extend_from_slice(&call(7, SysRead::at(path("/f"))));
    let Ok(Some(Incoming::Message(Message { kind: Kind::Call, number: 7, .. }))) = inbox.next() else {
        panic!("it arrives")
    };
}
