//! `kill -9` over a bucket that is written back, while the wire to its server fails: what was acknowledged is read from the next life of the kernel on, whether it had
//! come to the bucket or not, and comes there; what is unknown is whole or not at all; nothing else is in the bucket.
//!
//! The server outlives the kills. Of a bucket whose keys are the paths, what has come to it is read by a kernel of this process, which knows nothing of the one that is
//! killed; of one that holds content by its hash, it is read through the names in that kernel, with nothing between it and the bucket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nexus::blocking::{self, Nexus};
use nexus::syscall::SysWrite;
use nexus::{Bytes, Config, ErrorKind, Executed, MountSpec, VPath};

use crate::plan::Random;
use crate::process::Place;
use crate::servers::Server;
use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::{BUCKET, KEY, moto, request};
use crate::{ACKNOWLEDGED_WITHIN, complaint_of, setting};

/// Rounds when nothing else is said, of each kind of bucket.
const KILLS: u64 = 3;

const SEED: u64 = 20_261_129;

const WRITERS: u64 = 5;

/// Where the bucket is mounted.
const AT: &str = "/b";

/// The names of a writer's files.
const NAMES: [&str; 6] = ["a", "b", "d/a", "d/b", "d/e/a", "f/a"];

/// Calls that are acknowledged before a kill, at most.
const CALLS_MAX: u64 = 120;

/// What is kept of what was done lately, in lines.
const LATELY_MAX: usize = 60;

/// How often a file may change while it is read.
const CHANGES_MAX: u32 = 5;

/// For how long calls are waited for when the wire fails: what needs the server is not acknowledged any more.
const FAILING_FOR: Duration = Duration::from_millis(700);

/// Within this time all is in the bucket, and the server has done with what a dead kernel had sent.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// What may become of the wire while calls are under way.
const FAULTS: [Fault; 8] = [
    Fault::None,
    Fault::None,
    Fault::Unavailable,
    Fault::Unavailable,
    Fault::Cut,
    Fault::Lost,
    Fault::Half,
    Fault::Stall,
];

/// How the bucket is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addressing {
    /// Its keys are the paths.
    Path,
    /// Content by its hash; names are in the kernel.
    Content,
}

/// A bucket at a server that this process has started, and the wire to it.
pub(crate) struct Bucket {
    server: Server,
    wire: Proxy,
    addressing: Addressing,
}

impl Bucket {
    pub(crate) fn start(addressing: Addressing) -> Self {
        let server = moto();
        let wire = Proxy::start(server.port());
        Self { server, wire, addressing }
    }

    /// The bucket behind `port`, with nothing before it.
    fn spec(&self, port: u16) -> MountSpec {
        let spec = MountSpec::new("s3")
            .option("bucket", BUCKET)
            .option("endpoint", format!("http://127.0.0.1:{port}"))
            .option("allow_http", "true")
            .option("access_key", KEY);
        match self.addressing {
            Addressing::Path => spec,
            Addressing::Content => spec.option("addressing", "content"),
        }
    }

    /// As the kernel of `place` has it: written back over the wire.
    fn written_back(&self, place: &Place) -> MountSpec {
        let secret = place.host("secret");
        std::fs::write(&secret, KEY).expect("there is room");
        let spec = self.spec(self.wire.port()).option("secret_key", format!("file:{}", secret.display()));
        // What was asked a moment ago is not asked again: so writes go on without the server.
        let spec = match self.addressing {
            Addressing::Path => spec.option("cache_age_ms", "60000"),
            Addressing::Content => spec,
        };
        spec.option("write_back", "yes").option("cache_bytes", "4194304")
    }

    /// Mounts it in the kernel of `place`.
    fn mount(&self, place: &Place) {
        let nx = blocking::connect(Config::new(place.data())).expect("it boots");
        nx.mount(AT, self.written_back(place)).expect("it mounts");
        nx.shutdown().expect("it stops");
    }

    /// A kernel that sees what the server has, where that has names.
    fn beside(&self) -> Option<Nexus> {
        (self.addressing == Addressing::Path).then(|| {
            let nx = blocking::connect(Config::in_memory()).expect("it boots");
            let spec = self.spec(self.server.port()).option("secret_key", KEY);
            nx.mount(AT, spec).expect("it mounts");
            nx
        })
    }

    /// The wire is well, and the server has done with what came over it from who is dead.
    fn settle(&self) {
        self.wire.set(Fault::None);
        // Who comes last over the wire is answered after all who came before have got through.
        request(self.wire.port(), "GET / HTTP/1.1");
        until("done with what was sent", || self.wire.is_idle());
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SETTLED_WITHIN, "never {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// What the file at `path` holds; none when it is not there.
fn found_at(nx: &Nexus, path: &str) -> nexus::Result<Option<Bytes>> {
    let mut changes = 0;
    loop {
        match nx.stream(path).and_then(Iterator::collect::<nexus::Result<Vec<Bytes>>>) {
            Ok(pieces) => return Ok(Some(pieces.concat().into())),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // What a kernel sent before it was killed came just now.
            Err(error) if error.kind() == ErrorKind::Busy && changes < CHANGES_MAX => changes += 1,
            Err(error) => return Err(error),
        }
    }
}

fn shown(state: Option<&Bytes>) -> String {
    match state {
        Some(content) => format!("{} bytes from {:02x?} on", content.len(), &content[..content.len().min(8)]),
        None => "nothing".to_owned(),
    }
}

/// Who writes below a folder of its own, and keeps books.
struct Writer {
    base: String,
    /// What may be at each path: the last state that was acknowledged, and what was asked for since and is unknown.
    may: BTreeMap<String, Vec<Option<Bytes>>>,
    /// What was done lately, for who has to find out what went wrong.
    lately: VecDeque<String>,
    random: Random,
}

/// What makes a writer's call fail by right.
struct Around<'a> {
    /// The wire fails, or is about to.
    fails: &'a AtomicBool,
    is_killed: &'a AtomicBool,
    acknowledged: &'a Sender<()>,
}

impl Writer {
    fn new(number: u64, seed: u64) -> Self {
        let random = Random(seed ^ (number + 1).wrapping_mul(0x0123_4567_89ab_cdef));
        Self { base: format!("{AT}/w{number}"), may: BTreeMap::new(), lately: VecDeque::new(), random }
    }

    fn note(&mut self, what: String) {
        if self.lately.len() == LATELY_MAX {
            self.lately.pop_front();
        }
        self.lately.push_back(what);
    }

    /// What is wrong, and what was done before.
    fn told(&self, wrong: &str) -> String {
        let lately = self.lately.iter().fold(String::new(), |all, line| all + "\n  " + line);
        format!("{wrong}\nlately:{lately}")
    }

    /// Calls until the kernel is gone. Gives what is wrong.
    fn work(&mut self, nx: &Nexus, around: &Around<'_>) -> Option<String> {
        loop {
            match self.call(nx) {
                Ok(Ok(())) => {
                    // Nobody counts any more when all is being ended.
                    let _ = around.acknowledged.send(());
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Down => {
                    return complaint_of(around.is_killed, &error);
                }
                Ok(Err(_)) if around.fails.load(Ordering::SeqCst) => {}
                Ok(Err(error)) => {
                    let wrong = format!("{}: a call failed, and the wire was well: {error}", self.base);
                    return Some(self.told(&wrong));
                }
                Err(wrong) => return Some(self.told(&wrong)),
            }
        }
    }

    /// One call, and what is known after it; the error is what cannot be.
    fn call(&mut self, nx: &Nexus) -> Result<nexus::Result<()>, String> {
        let name = NAMES[usize::try_from(self.random.below(NAMES.len() as u64)).expect("it is small")];
        let path = format!("{}/{name}", self.base);
        let states = self.may.entry(path.clone()).or_insert_with(|| vec![None]);
        let (done, after) = match self.random.below(12) {
            0..7 => {
                let length = match self.random.below(24) {
                    // It goes to the server before it is acknowledged.
                    0 => (4 << 20) + self.random.below(9),
                    1 => (1 << 20) + self.random.below(9),
                    2..5 => self.random.below(300_000),
                    5..8 => self.random.below(30_000),
                    _ => self.random.below(400),
                };
                let content = self.random.content(length);
                (nx.write(path.as_str(), content.clone()).map(drop), vec![Some(content)])
            }
            7 => (nx.unlink(path.as_str()).map(drop), vec![None]),
            8 => {
                let length = 1 + self.random.below(400);
                let more = self.random.content(length);
                let appended =
                    states.iter().map(|old| [old.as_deref().unwrap_or_default(), &more[..]].concat());
                let appended: Vec<_> = appended.map(|content| Some(Bytes::from(content))).collect();
                let at = VPath::parse(&path).expect("it is a path");
                (nx.send(SysWrite::at(at, more).append().create()).map(drop), appended)
            }
            _ => {
                let (found, states) = (found_at(nx, &path), states.clone());
                self.note(format!("{path} read: {:?}", found.as_ref().map(|found| shown(found.as_ref()))));
                return match found {
                    Ok(found) if states.contains(&found) => Ok(Ok(())),
                    Ok(found) => Err(unexpected(&path, &states, found.as_ref())),
                    Err(error) => Ok(Err(error)),
                };
            }
        };
        let became: Vec<String> = after.iter().map(|state| shown(state.as_ref())).collect();
        let said = done.as_ref().map_err(|error| (error.executed(), error.to_string()));
        let line = format!("{path} to be {}: {said:?}", became.join(", or "));
        self.note(line);
        let states = self.may.entry(path.clone()).or_default();
        match done {
            Ok(()) if after == [None] && states == &after => {
                return Err(format!("{path} was removed, and was not there"));
            }
            Ok(()) => *states = after,
            Err(error) if error.kind() == ErrorKind::NotFound && after == [None] => {
                if !states.contains(&None) {
                    return Err(format!("it cannot be removed: {}", unexpected(&path, states, None)));
                }
                *states = after;
            }
            Err(error) => {
                if error.executed() == Executed::Unknown {
                    states.extend(after);
                }
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Holds all that is there against the books, which say that alone from then on.
    fn check(&mut self, nx: &Nexus) -> Result<(), String> {
        for (path, states) in &mut self.may {
            let found = found_at(nx, path).map_err(|error| format!("{path} cannot be read: {error}"))?;
            if !states.contains(&found) {
                return Err(unexpected(path, states, found.as_ref()));
            }
            *states = vec![found];
        }
        let there = nx.exists(self.base.as_str()).map_err(|error| error.to_string())?;
        for entry in there.then(|| nx.walk(self.base.as_str())).into_iter().flatten() {
            let entry = entry.map_err(|error| format!("{} cannot be listed: {error}", self.base))?;
            let is_file = entry.entry_type == nexus::EntryType::Reg;
            if is_file && self.may.get(entry.path.as_str()).is_none_or(|states| states[0].is_none()) {
                return Err(format!("{} is listed, and should not be there", entry.path));
            }
        }
        Ok(())
    }

    /// How many of its files are not in the bucket as they were acknowledged.
    fn here_alone(&self, beside: &Nexus) -> Result<usize, String> {
        let mut count = 0;
        for (path, states) in self.may.iter().filter(|(_, states)| states.len() == 1) {
            let found = found_at(beside, path).map_err(|error| format!("{path} beside: {error}"))?;
            count += usize::from(!states.contains(&found));
        }
        Ok(count)
    }
}

fn unexpected(path: &str, states: &[Option<Bytes>], found: Option<&Bytes>) -> String {
    let states: Vec<String> = states.iter().map(|state| shown(state.as_ref())).collect();
    format!("{path} has {}, and may have {}", shown(found), states.join(", or "))
}

struct Run {
    place: Place,
    bucket: Bucket,
    beside: Option<Nexus>,
    random: Random,
    writers: Vec<Writer>,
    calls: usize,
    unknown: usize,
    here_alone: usize,
}

impl Run {
    fn new(seed: u64, addressing: Addressing) -> Self {
        let (place, bucket) = (Place::new(), Bucket::start(addressing));
        bucket.mount(&place);
        let beside = bucket.beside();
        let writers = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
        Self { place, bucket, beside, random: Random(seed), writers, calls: 0, unknown: 0, here_alone: 0 }
    }

    fn check(&mut self, nx: &Nexus) -> Result<(), String> {
        self.writers.iter_mut().try_for_each(|writer| {
            writer.note("here all is held against the books".to_owned());
            writer.check(nx).map_err(|wrong| writer.told(&wrong))
        })
    }

    /// Waits until nothing is pending, and holds the bucket against the books.
    fn drain(&mut self, nx: &Nexus) -> Result<(), String> {
        until("all in the bucket", || pending(nx) == 0);
        let wrong = |wrong: String| format!("in the bucket: {wrong}");
        if let Self { writers, beside: Some(beside), .. } = self {
            return writers.iter_mut().try_for_each(|writer| writer.check(beside)).map_err(wrong);
        }
        let bare = self.bucket.spec(self.bucket.server.port()).option("secret_key", KEY);
        nx.swap_driver(AT, bare).map_err(|error| wrong(error.to_string()))?;
        self.check(nx).map_err(wrong)?;
        nx.swap_driver(AT, self.bucket.written_back(&self.place)).map(drop).map_err(|error| error.to_string())
    }

    /// One life of the server, and what comes before and after it.
    fn round(&mut self) -> Result<(), String> {
        for _ in 0..self.random.below(3) {
            let most = 1 << (8 + self.random.below(12));
            let micros = self.random.below(most);
            self.place.serve_for(Duration::from_micros(micros));
        }
        let mut server = self.place.serve()?;
        let attached = blocking::attach(self.place.data()).map_err(|error| error.to_string())?;
        if self.beside.is_none() {
            self.here_alone += pending(&attached);
        }
        self.check(&attached)?;
        if self.random.below(2) == 0 {
            self.drain(&attached)?;
            // And what was pending is read as it was.
            self.check(&attached)?;
        }
        drop(attached);
        let fault = FAULTS[usize::try_from(self.random.below(FAULTS.len() as u64)).expect("it is small")];
        let enough = self.random.below(CALLS_MAX);
        let turned_at = self.random.below(enough + 1);
        let delay = Duration::from_micros(self.random.below(4_000));
        let (acknowledged, told) = channel();
        let (fails, is_killed) = (AtomicBool::new(false), AtomicBool::new(false));
        let data = self.place.data();
        let (writers, wire, count) = (&mut self.writers, &self.bucket.wire, &mut self.calls);
        let wrong = thread::scope(|scope| {
            let working: Vec<_> = writers
                .iter_mut()
                .map(|writer| {
                    let (acknowledged, fails, is_killed, data) =
                        (acknowledged.clone(), &fails, &is_killed, &data);
                    scope.spawn(move || match blocking::attach(data) {
                        Ok(nx) => writer.work(&nx, &Around { fails, is_killed, acknowledged: &acknowledged }),
                        Err(error) => complaint_of(is_killed, &error),
                    })
                })
                .collect();
            drop(acknowledged);
            let (mut calls, mut stuck) = (0, None);
            while calls < enough && stuck.is_none() {
                if calls == turned_at && fault != Fault::None {
                    fails.store(true, Ordering::SeqCst);
                    wire.set(fault);
                }
                let most = if fails.load(Ordering::SeqCst) { FAILING_FOR } else { ACKNOWLEDGED_WITHIN };
                match told.recv_timeout(most) {
                    Ok(()) => calls += 1,
                    Err(why) => stuck = Some(why),
                }
            }
            let _ = told.recv_timeout(delay);
            let was_running = server.is_running();
            is_killed.store(true, Ordering::SeqCst);
            server.kill();
            let mut wrong: Vec<String> =
                working.into_iter().filter_map(|writer| writer.join().expect("it is well")).collect();
            let stuck = stuck.filter(|_| !fails.load(Ordering::SeqCst));
            wrong.extend(stuck.map(|why| format!("no call was acknowledged: {why}")));
            wrong.extend((!was_running).then(|| "it ended by itself".to_owned()));
            *count += usize::try_from(calls).unwrap_or(0) + told.try_iter().count();
            wrong
        });
        self.bucket.settle();
        for writer in &self.writers {
            if let Some(beside) = &self.beside {
                self.here_alone += writer.here_alone(beside)?;
            }
            self.unknown += writer.may.values().filter(|states| states.len() > 1).count();
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}\nthe wire: {fault:?}", wrong.join("\n"))) }
    }

    /// Once more, and all is in the bucket.
    fn end(&mut self) -> Result<(), String> {
        let nx = blocking::connect(Config::new(self.place.data())).map_err(|error| error.to_string())?;
        self.check(&nx)?;
        self.drain(&nx)?;
        nx.shutdown().map_err(|error| error.to_string())
    }
}

/// How many files are not in the bucket yet.
fn pending(nx: &Nexus) -> usize {
    let mounts = nx.mounts().expect("they are listed");
    let there = mounts.into_iter().find(|mount| mount.point.as_str() == AT);
    let pending = there.expect("it is mounted").cache.expect("it writes back").pending_files;
    usize::try_from(pending).expect("they are in memory")
}

#[test]
fn what_was_acknowledged_over_a_bucket_that_is_written_back_survives_kill_9_at_any_point() {
    println!("{}", campaign(Addressing::Path));
}

#[test]
fn so_does_what_was_acknowledged_over_one_that_holds_content_by_its_hash() {
    println!("{}", campaign(Addressing::Content));
}

/// Gives what was done.
fn campaign(addressing: Addressing) -> String {
    let (kills, seed) = (setting("NEXUS_KILLS", KILLS), setting("NEXUS_SEED", SEED));
    let mut run = Run::new(seed, addressing);
    for number in 0..=kills {
        let done = if number < kills { run.round() } else { run.end() };
        if let Err(what) = done {
            panic!("seed {seed}, round {number}: {what}\nwhat the commands said:\n{}", run.place.said());
        }
    }
    let said = run.place.said();
    assert!(!said.contains("panicked"), "seed {seed}: {said}");
    let Run { calls, unknown, here_alone, .. } = run;
    assert!(here_alone > 0, "seed {seed}: nothing was ever pending at a kill");
    format!(
        "{addressing:?}, seed {seed}: {kills} kills; {calls} calls acknowledged, {unknown} unknown; {here_alone} files were not in the bucket as they were acknowledged when the kernel was killed"
    )
}
