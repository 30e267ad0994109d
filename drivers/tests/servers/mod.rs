//! Real servers for tests: started on loopback in a folder of their own, stopped with the test.
//!
//! What starts one belongs to a test target that asks for the feature `servers`: so `cargo test --workspace` needs none, and a test that
//! needs one fails when it is not installed, in words that say how it is.

#[cfg(feature = "azure")]
#[allow(dead_code, reason = "each target uses a part of it")]
pub(crate) mod azure;
#[allow(dead_code, reason = "each target uses a part of it")]
pub(crate) mod certificates;
#[path = "../../../tests/common/halted.rs"]
mod halted;
#[allow(dead_code, reason = "each target uses a part of it")]
pub(crate) mod proxy;
#[cfg(feature = "s3")]
#[allow(dead_code, reason = "each target uses a part of it")]
pub(crate) mod s3;
#[cfg(feature = "s3")]
#[allow(dead_code, reason = "each target uses a part of it")]
pub(crate) mod small;
#[allow(dead_code, reason = "each target uses a part of it")]
pub(crate) mod web;

use std::io::{BufRead, BufReader, Read, pipe};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// How long a server may take until it serves.
const START_MAX: Duration = Duration::from_secs(60);

/// How to start a server.
pub(crate) struct Recipe {
    /// The program, and how it comes onto the machine.
    pub(crate) program: &'static str,
    pub(crate) install: &'static str,
    /// What it prints once it serves: a part of a line.
    pub(crate) ready: &'static str,
    /// Its arguments, for a folder and a port.
    pub(crate) arguments: fn(&Path, u16) -> Vec<String>,
}

/// A server that runs. Dropping it kills it.
///
/// It belongs to the thread that started it: the system kills it when that thread ends, however it does.
pub(crate) struct Server {
    recipe: Recipe,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

#[allow(dead_code, reason = "each target of tests uses its part of it")]
impl Server {
    /// Starts one, and waits until it serves.
    pub(crate) fn start(recipe: Recipe) -> Self {
        Self::start_in(recipe, tempfile::tempdir().expect("a folder for the server"))
    }

    /// As [`start`](Self::start), in a folder that was prepared.
    pub(crate) fn start_in(recipe: Recipe, folder: TempDir) -> Self {
        let mut server = Self { recipe, folder, port: free_port(), child: None };
        server.start_again();
        server
    }

    /// The port on 127.0.0.1 at which it listens, also after it was killed and started again.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where all of it is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it as a crash would, and waits for its end. Nothing happens when it does not run.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// Stops it in the middle of what it does: it keeps its connections, and answers nothing until it is [resumed](Self::resume).
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        halted::until_halted(self.child.as_ref().expect("it runs").id());
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it runs");
        let mut kill = Command::new("kill");
        let sent = kill
            .args(["-s", name, &child.id().to_string()])
            .status()
            .expect("kill is a part of every Debian");
        assert!(sent.success(), "the server cannot be sent {name}");
    }

    /// Starts it with the folder and the port that it had, and waits until it serves.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        let Recipe { program, install, ready, arguments } = &self.recipe;
        let (output, end) = pipe().expect("a pipe");
        // With the thread that started it, whatever becomes of this process.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(arguments(self.folder.path(), self.port));
        command.stdin(Stdio::null()).stderr(end.try_clone().expect("a pipe's end")).stdout(end);
        command.current_dir(self.folder.path());
        let child = command.spawn().expect("setpriv is a part of every Debian");
        self.child = Some(child);
        // The command holds the other end of the pipe.
        drop(command);
        let lines = read_on(output);
        let mut said = Vec::new();
        loop {
            match lines.recv_timeout(START_MAX) {
                Ok(line) if line.contains(ready) => break,
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("{program} does not serve: {said:#?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{program} does not start; when it is not installed: {install}: {said:#?}")
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads what a server prints for as long as it does, so that it never waits for a reader.
fn read_on(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (line, lines) = mpsc::channel();
    let read = move || {
        for text in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody listens once it serves.
            let _ = line.send(text);
        }
    };
    thread::Builder::new().name("server-output".into()).spawn(read).expect("a thread can be started");
    lines
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
    listener.local_addr().expect("it is bound").port()
}
