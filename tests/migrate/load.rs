//! Callers that write, remove and rename while files move, and keep books of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use nexus::blocking::Nexus;
use nexus::{SysSetattr, VPath};

use crate::bench::{AT, LARGE, content};

/// Callers at once. Each works below a folder of its own.
const CALLERS: u64 = 2;

/// Names in a folder.
const NAMES: u64 = 12;

/// Files, by their paths below the mount.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Callers at work.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Files>>,
}

impl Load {
    /// Begins. `renames` says that folders may be renamed, too.
    pub(crate) fn on(nx: &Nexus) -> Self {
        let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers = (0..CALLERS).map(|number| {
            let (nx, over, calls) = (nx.clone(), over.clone(), calls.clone());
            thread::spawn(move || Caller::new(nx, number).work(&over, &calls))
        });
        let callers = callers.collect();
        Self { over, calls, callers }
    }

    /// Waits for so many more calls.
    pub(crate) fn go_on(&self, calls: u64) {
        let until = self.calls.load(Ordering::Relaxed) + calls;
        crate::bench::until("called", || (self.calls.load(Ordering::Relaxed) >= until).then_some(()));
    }

    /// Ends, and gives what is to be there.
    pub(crate) fn end(self) -> Files {
        self.over.store(true, Ordering::Relaxed);
        self.callers.into_iter().flat_map(|caller| caller.join().expect("no call failed")).collect()
    }
}

struct Caller {
    nx: Nexus,
    number: u64,
    state: u64,
    files: Files,
}

impl Caller {
    fn new(nx: Nexus, number: u64) -> Self {
        Self { nx, number, state: number + 77, files: Files::new() }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    fn work(mut self, over: &AtomicBool, calls: &AtomicU64) -> Files {
        while !over.load(Ordering::Relaxed) {
            self.step();
            calls.fetch_add(1, Ordering::Relaxed);
        }
        self.files
    }

    fn name(&mut self) -> String {
        let (folder, name) = (self.draw(3), self.draw(NAMES));
        format!("/c{}/d{folder}/{name}", self.number)
    }

    fn step(&mut self) {
        let name = self.name();
        let at = format!("{AT}{name}");
        let is_there = self.files.contains_key(&name);
        match self.draw(10) {
            0 | 1 if is_there => {
                self.nx.unlink(&at).expect("it is removed");
                self.files.remove(&name);
            }
            2 | 3 if is_there => {
                let to = self.name();
                self.nx.rename(&at, format!("{AT}{to}")).expect("it is renamed");
                let content = self.files.remove(&name).expect("it is there");
                self.files.insert(to, content);
            }
            4 => self.rename_folder(),
            5 if is_there => {
                let mode = if self.draw(2) == 0 { 0o600 } else { 0o644 };
                let path = VPath::parse(&at).expect("it is one");
                self.nx.send(SysSetattr::at(path).mode(mode)).expect("it is described");
            }
            6 if is_there => {
                let more = content(self.state, 100);
                self.nx.append(&at, more.clone()).expect("it is appended to");
                self.files.entry(name).or_default().extend(more);
            }
            _ => {
                let length = match self.draw(8) {
                    0 => LARGE,
                    1 => 0,
                    _ => 200,
                };
                let content = content(self.state, length);
                self.nx.write(&at, content.clone()).expect("it is written");
                self.files.insert(name, content);
            }
        }
    }

    /// Renames a folder to where none is.
    fn rename_folder(&mut self) {
        let (from, to) = (self.draw(3), self.draw(3));
        let folder = |number: u64| format!("/c{}/d{number}/", self.number);
        let (from, to) = (folder(from), folder(to));
        let has = |files: &Files, folder: &str| files.keys().any(|name| name.starts_with(folder));
        if from == to || !has(&self.files, &from) || has(&self.files, &to) {
            return;
        }
        // An empty one may be there.
        let path = |folder: &str| format!("{AT}{}", folder.trim_end_matches('/'));
        self.nx.rename(path(&from), path(&to)).expect("it is renamed");
        let moved: Vec<String> = self.files.keys().filter(|name| name.starts_with(&from)).cloned().collect();
        for name in moved {
            let content = self.files.remove(&name).expect("it is there");
            self.files.insert(name.replacen(&from, &to, 1), content);
        }
    }
}
