//! The command under test: the process that serves, and an import.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Within this time the command serves, whatever it was killed at before.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

/// A folder of the host with a data folder in it; both are gone at the end.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.host("data")
    }

    fn log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.host("log")).expect("there is room")
    }

    /// What the commands said on their standard error so far.
    pub(crate) fn said(&self) -> String {
        fs::read(self.host("log")).map(|said| String::from_utf8_lossy(&said).into_owned()).unwrap_or_default()
    }

    /// The command, deaf to the settings of who runs the tests.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NEXUS_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.arg("--data").arg(self.data()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(self.log());
        command
    }

    /// Starts to serve; says so on the channel.
    fn start(&self) -> (Server, Receiver<String>) {
        let mut child = self.command().arg("serve").spawn().expect("the command starts");
        let lines = lines_of(&mut child);
        let (says, said) = channel();
        // It ends with the process.
        thread::spawn(move || lines.for_each(|line| drop(says.send(line))));
        (Server(child), said)
    }

    /// Serves.
    pub(crate) fn serve(&self) -> Result<Server, String> {
        let (mut server, said) = self.start();
        match said.recv_timeout(OPENED_WITHIN) {
            Ok(line) if line.starts_with("serving ") => Ok(server),
            other => {
                server.kill();
                Err(format!("it does not serve: {other:?}"))
            }
        }
    }

    /// Starts to serve, and is killed so long after that. Gives whether it served by then.
    pub(crate) fn serve_for(&self, time: Duration) -> bool {
        let (mut server, said) = self.start();
        let served = said.recv_timeout(time).is_ok();
        server.kill();
        served
    }

    /// Starts to import a folder of the host.
    pub(crate) fn import(&self, source: &Path, to: &str) -> Import {
        let child = self.command().args(["import", "-v"]).arg(source).arg(to).spawn();
        Import { child: child.expect("the command starts"), acknowledged: BTreeSet::new() }
    }
}

fn lines_of(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let mut said: BufReader<ChildStdout> = BufReader::new(child.stdout.take().expect("it is piped"));
    // A line without an end was cut off, and says nothing.
    std::iter::from_fn(move || {
        let mut line = String::new();
        said.read_line(&mut line).ok().filter(|length| *length > 0)?;
        line.strip_suffix('\n').map(str::to_owned)
    })
}

/// The process that owns the data folder.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it can be asked").is_none()
    }

    /// `kill -9`; it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An import that runs.
pub(crate) struct Import {
    child: Child,
    acknowledged: BTreeSet<String>,
}

impl Import {
    /// Hears it out, and kills it when so many paths were acknowledged. Gives all that were, and whether it came to its end.
    pub(crate) fn hear(mut self, killed_after: usize) -> (BTreeSet<String>, bool) {
        for line in lines_of(&mut self.child) {
            // The last line counts.
            if line.starts_with('/') {
                self.acknowledged.insert(line);
            }
            if self.acknowledged.len() == killed_after {
                // It may have ended.
                let _ = self.child.kill();
            }
        }
        let ended = self.child.wait().expect("it ends");
        (self.acknowledged, ended.success())
    }
}
