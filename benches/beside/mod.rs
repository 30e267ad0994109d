//! What a benchmark measures in another process: a part of its own, or OpenDAL doing the same where it is built, by itself, so that nobody who builds Nexus builds it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What is said when it is not.
pub(crate) const NOT_BUILT: &str =
    "OpenDAL is not built: cargo build --release --manifest-path benches/opendal/Cargo.toml";

/// OpenDAL's part, when it is built.
pub(crate) fn opendal() -> Option<Command> {
    // The benchmark's package is the workspace itself, or lies in it.
    let mut places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().take(2);
    let program = |place: &Path| place.join("benches/opendal/target/release/nexus-bench-opendal");
    places.find_map(|place| program(place).canonicalize().ok()).map(Command::new)
}

/// Another process.
pub(crate) struct Part(Child, BufReader<ChildStdout>);

impl Part {
    /// This benchmark, with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(Command::new(std::env::current_exe().expect("it runs")), arguments)
    }

    pub(crate) fn of(mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self(child, output)
    }

    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("it tells text");
        assert!(!line.is_empty(), "a part of the benchmark failed");
        line.trim_end().to_owned()
    }

    /// How long something took.
    pub(crate) fn hear_time(&mut self) -> Duration {
        Duration::from_secs_f64(self.hear().parse().expect("it is a number"))
    }

    /// Has a round of something done, and gives how long it took.
    pub(crate) fn round(&mut self, what: &str) -> Duration {
        writeln!(self.0.stdin.as_ref().expect("it is piped"), "{what}").expect("it listens");
        self.hear_time()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
