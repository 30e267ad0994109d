//! `kill -9` of the command at random points, under load. What was acknowledged as on disk is there, byte for byte; of what was acknowledged before that
//! all up to one of the changes; what was sent and not acknowledged is there whole or not at all, and once when it is sent again; nothing else has
//! changed; and the folder opens in time.
//!
//! This process is the checker. It is never killed, keeps books of its own (`books.rs`), and knows nothing of the kernel but its public
//! interface. Killed are `nexus serve` with clients attached, also while it opens the folder, and imports; with the drivers for it built in, also over a bucket that is
//! written back (`bucket.rs`).
//!
//! `NEXUS_KILLS` says how many rounds there are, and `NEXUS_SEED` is the plan, which a failure prints. The moments of the kills are no part of it.

#![allow(clippy::disallowed_methods, reason = "the checker is no part of a kernel")]

mod books;
#[cfg(all(feature = "s3", feature = "servers"))]
mod bucket;
mod client;
mod imports;
mod plan;
mod process;
#[cfg(all(feature = "s3", feature = "servers"))]
#[path = "../../drivers/tests/servers/mod.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod servers;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nexus::{Config, ErrorKind, blocking};

use crate::client::Client;
use crate::imports::Imported;
use crate::plan::Random;
use crate::process::Place;

/// Rounds when nothing else is said.
const KILLS: u64 = 8;

const SEED: u64 = 20_261_126;

const CLIENTS: u64 = 4;

/// Within this time some call is acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// Calls that are acknowledged before a kill, at most.
const CALLS_MAX: u64 = 160;

fn setting(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(number) => number.parse().unwrap_or_else(|_| panic!("{name} is no number: {number}")),
        Err(_) => otherwise,
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_at_any_point() {
    let (kills, seed) = (setting("NEXUS_KILLS", KILLS), setting("NEXUS_SEED", SEED));
    let mut run = Run::new(seed);
    for number in 0..kills {
        if let Err(what) = run.round() {
            panic!("seed {seed}, round {number}: {what}\nwhat the commands said:\n{}", run.place.said());
        }
    }
    let said = run.place.said();
    assert!(!said.contains("panicked"), "seed {seed}: {said}");
    let lost: usize = run.clients.iter().map(|client| client.lost).sum();
    let Told { calls, put_off, unknown, openings, imports } = run.told;
    println!(
        "seed {seed}: {kills} kills under load, {openings} while opening, {imports} of imports; \
         {calls} calls acknowledged, {put_off} of them not on disk yet when it was killed, of which {lost} are lost; {unknown} unknown"
    );
}

/// How much happened.
#[derive(Debug, Default)]
struct Told {
    calls: usize,
    put_off: usize,
    unknown: usize,
    openings: u64,
    imports: u64,
}

struct Run {
    place: Place,
    random: Random,
    clients: Vec<Client>,
    imported: Option<Imported>,
    told: Told,
}

impl Run {
    fn new(seed: u64) -> Self {
        let clients = (0..CLIENTS).map(|number| Client::new(number, seed)).collect();
        Self { place: Place::new(), random: Random(seed), clients, imported: None, told: Told::default() }
    }

    /// One life of the server, and what comes before and after it.
    fn round(&mut self) -> Result<(), String> {
        for _ in 0..self.random.below(3) {
            // Mostly short, for opening is.
            let most = 1 << (8 + self.random.below(10));
            let micros = self.random.below(most);
            self.told.openings += u64::from(!self.place.serve_for(Duration::from_micros(micros)));
        }
        if self.random.below(2) == 0 {
            let nx = blocking::connect(Config::new(self.place.data())).map_err(|error| error.to_string())?;
            self.check(&nx)?;
            nx.shutdown().map_err(|error| error.to_string())?;
        }
        let import = self.random.below(6);
        // One at a time: what is left of the one before is looked at first.
        if import == 0 && self.imported.is_none() {
            // One that owns the folder itself.
            let (source, after) = (self.source(), self.somewhere());
            let heard = self.place.import(&source, imports::TO).hear(after);
            self.imported(source, heard);
        }
        let mut server = self.place.serve()?;
        let attached = blocking::attach(self.place.data()).map_err(|error| error.to_string())?;
        self.check(&attached)?;
        drop(attached);
        let source = matches!(import, 1 | 2).then(|| self.source());
        let after = if import == 1 { self.somewhere() } else { usize::MAX };
        let heavy = self.random.below(5) == 0;
        let enough = self.random.below(if heavy { CALLS_MAX / 2 } else { CALLS_MAX });
        let delay = Duration::from_micros(self.random.below(4_000));
        let (acknowledged, told) = channel();
        let is_killed = AtomicBool::new(false);
        let data = self.place.data();
        let (place, clients, count) = (&self.place, &mut self.clients, &mut self.told.calls);
        let (heard, wrong) = thread::scope(|scope| {
            let working: Vec<_> = clients
                .iter_mut()
                .map(|client| {
                    let (acknowledged, is_killed, data) = (acknowledged.clone(), &is_killed, &data);
                    scope.spawn(move || {
                        let nx = match blocking::attach(data) {
                            Ok(nx) => nx,
                            Err(error) => return complaint_of(is_killed, &error),
                        };
                        let failure = client.work(nx.as_async(), heavy, &acknowledged);
                        complaint_of(is_killed, &failure)
                    })
                })
                .collect();
            drop(acknowledged);
            let importing =
                scope.spawn(|| source.as_ref().map(|source| place.import(source, imports::TO).hear(after)));
            let mut calls = 0;
            let mut waited = Ok(());
            while calls < enough && waited.is_ok() {
                waited = told.recv_timeout(ACKNOWLEDGED_WITHIN);
                calls += u64::from(waited.is_ok());
            }
            let _ = told.recv_timeout(delay);
            let was_running = server.is_running();
            is_killed.store(true, Ordering::SeqCst);
            server.kill();
            let mut wrong: Vec<String> =
                working.into_iter().filter_map(|client| client.join().expect("it is well")).collect();
            let heard = importing.join().expect("it is well");
            wrong.extend(waited.err().map(|why| format!("no call was acknowledged: {why}")));
            wrong.extend((!was_running).then(|| "it ended by itself".to_owned()));
            *count += usize::try_from(calls).unwrap_or(0) + told.try_iter().count();
            (heard, wrong)
        });
        if let (Some(source), Some(heard)) = (source, heard) {
            self.imported(source, heard);
        }
        self.told.put_off += self.clients.iter().map(Client::put_off).sum::<usize>();
        self.told.unknown += self.clients.iter().map(Client::unknown).sum::<usize>();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// A folder of the host to import, with files of all sizes.
    fn source(&mut self) -> PathBuf {
        let folder = self.place.host("source");
        imports::fill(&folder, &mut self.random);
        folder
    }

    /// How many paths an import tells before it is killed.
    fn somewhere(&mut self) -> usize {
        1 + usize::try_from(self.random.below(60)).unwrap_or(0)
    }

    fn imported(&mut self, source: PathBuf, (acknowledged, ended): (BTreeSet<String>, bool)) {
        self.told.imports += u64::from(!ended);
        self.imported = Some(Imported { source, acknowledged });
    }

    fn check(&mut self, nx: &blocking::Nexus) -> Result<(), String> {
        self.clients.iter_mut().try_for_each(|client| client.check(nx))?;
        if let Some(imported) = self.imported.take() {
            imported.check(nx)?;
        }
        let known = |name: &str| {
            name == "/__sys__" || name == imports::TO || self.clients.iter().any(|client| client.base == name)
        };
        let entries = nx.readdir("/").map_err(|error| error.to_string())?;
        match entries.iter().find(|entry| !known(entry.path.as_str())) {
            Some(strange) => Err(format!("{} is there, and nobody made it", strange.path)),
            None => Ok(()),
        }
    }
}

/// What is wrong with a call that failed.
fn complaint_of(is_killed: &AtomicBool, failure: &nexus::Error) -> Option<String> {
    let expected = is_killed.load(Ordering::SeqCst) && failure.kind() == ErrorKind::Down;
    (!expected).then(|| format!("a call failed, and that was no kill: {failure}"))
}
