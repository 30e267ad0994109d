//! The command under test, in a data folder of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::children::until;

/// A folder of the host with a data folder in it; both are gone at the end.
pub(crate) struct Nexus {
    folder: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Nexus {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("there is room") }
    }

    /// A path of the host beside the data folder.
    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.host("data")
    }

    /// Whether nobody owns the data folder.
    pub(crate) fn is_free(&self) -> bool {
        File::open(self.data().join("nexus.lock")).map_or(true, |lock| lock.try_lock().is_ok())
    }

    /// The command with these arguments, not yet started.
    pub(crate) fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = command();
        command.arg("--data").arg(self.data()).args(args).current_dir(self.folder.path());
        command
    }

    /// Runs the command whose arguments are the words of `line`.
    pub(crate) fn run(&self, line: &str) -> Ended {
        self.run_args(line.split_whitespace())
    }

    pub(crate) fn run_args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Ended {
        end(self.command(args), "")
    }

    /// Runs the command with `input` on its standard input.
    pub(crate) fn feed(&self, line: &str, input: &str) -> Ended {
        end(self.command(line.split_whitespace()), input)
    }

    /// Runs a command that is to succeed, and gives what it prints.
    pub(crate) fn good(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!((ended.status, &*ended.err), (0, ""), "nexus {line}");
        ended.out
    }

    /// `import SOURCE DESTINATION`, which is to succeed; what it counts.
    pub(crate) fn import(&self, source: &Path, destination: &str) -> serde_json::Value {
        let args = [OsStr::new("--json"), OsStr::new("import"), source.as_os_str(), OsStr::new(destination)];
        let ended = self.run_args(args);
        assert_eq!((ended.status, &*ended.err), (0, ""), "import {}", source.display());
        serde_json::from_str(&ended.out).expect("import prints one object")
    }

    /// `export SOURCE DESTINATION`, which is to succeed.
    pub(crate) fn export(&self, source: &str, destination: &Path) {
        let ended = self.run_args([OsStr::new("export"), OsStr::new(source), destination.as_os_str()]);
        assert_eq!((ended.status, &*ended.err), (0, ""), "export {source}");
    }
}

impl Drop for Nexus {
    fn drop(&mut self) {
        // A command may have left an owner that is about to end.
        if !std::thread::panicking() {
            until("nobody owns the data folder", || self.is_free());
        }
    }
}

/// The command, deaf to the settings of who runs the tests.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NEXUS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub(crate) fn end(mut command: Command, input: &str) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("the command starts");
    let mut stdin = running.stdin.take().expect("it is piped");
    // A command that reads no input may have ended.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = running.wait_with_output().expect("the command ends");
    Ended {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
