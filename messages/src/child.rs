//! Child processes whose standard input and output are paths.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ident::ZoneId;
use crate::path::VPath;
use crate::time::Timestamp;

/// How many bytes a pipe holds that is made for a child: a line of it can be as long.
pub const CHILD_PIPE_CAPACITY: u32 = 1 << 20;

/// The longest line of a child that is taken when nothing is said, in bytes.
pub const LINE_MAX_DEFAULT: u32 = 1 << 20;

/// The longest line of a child that can be asked for, in bytes.
pub const LINE_MAX: u32 = 16 << 20;

/// How long a descriptor may stay open after the child's end when nothing is said.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(2);

/// The longest grace that can be asked for.
pub const GRACE_MAX: Duration = Duration::from_secs(60 * 60);

/// A child process of the kernel. Given once in the life of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChildId(pub u64);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for ChildId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What is started, and where its standard input, output and error lead.
///
/// No shell is asked. The environment is what is named here, and `PATH` of the kernel's process unless another is named. A pipe, or a stream, that is not there is
/// made, of the kind [`Stdio`](crate::syscall::IoProfile::Stdio).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChildSpec {
    /// The program: a path of the host, or a name that is looked for in `PATH`.
    pub program: String,
    /// Its arguments, without the program itself.
    pub args: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// The folder of the host that it works in; none for the one of the kernel's process.
    pub folder: Option<String>,
    /// The pipe that its standard input is read from; none for one that is empty.
    pub stdin: Option<VPath>,
    /// Where its standard output goes.
    pub stdout: ChildOutput,
    /// Where its standard error goes. When that is where its standard output goes, both are one descriptor, as with `2>&1`: what it writes comes in the order in which it is written, and is counted
    /// as output.
    pub stderr: ChildOutput,
    /// What a message is.
    pub framing: Framing,
    /// How long after its end others, to whom it handed its descriptors, may write to them. Then all that is left of its process group is killed.
    pub grace: Duration,
    /// Whether it is killed with the life of its caller: of an attached one, with the connection. All are killed with the kernel.
    pub tied: bool,
}

/// Where one output of a child goes: to a pipe, to a stream, to both, or nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChildOutput {
    /// Each message is written to this pipe. The child waits while it is full.
    pub pipe: Option<VPath>,
    /// Each message is appended to this stream, before it is written to the pipe. One that is removed, or moved away, is made anew; what cannot be appended is counted.
    pub stream: Option<VPath>,
}

impl ChildOutput {
    /// Whether it goes nowhere.
    pub fn is_null(&self) -> bool {
        self.pipe.is_none() && self.stream.is_none()
    }
}

/// How bytes of a child become messages, and messages bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Framing {
    /// A message is a line without its newline. A message to the child is followed by a newline, unless it ends in one.
    ///
    /// A pipe has no message without bytes, so of empty lines only streams tell.
    Lines {
        /// The longest line that is taken, in bytes; less when the pipe or the stream holds less.
        max: u32,
        /// What becomes of longer ones.
        longer: LongLines,
    },
    /// A message is what was there to be read, at most 64 KiB. Messages to the child are written as they are.
    Raw,
}

/// What becomes of a line that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LongLines {
    /// It is left out whole, and counted: half a message is none.
    #[default]
    Drop,
    /// It comes as several messages, each as long as may be but the last.
    Cut,
}

impl Default for Framing {
    fn default() -> Self {
        Self::Lines { max: LINE_MAX_DEFAULT, longer: LongLines::Drop }
    }
}

impl ChildSpec {
    /// `program` with `args`, connected to nothing.
    pub fn new<A: Into<String>>(program: impl Into<String>, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            folder: None,
            stdin: None,
            stdout: ChildOutput::default(),
            stderr: ChildOutput::default(),
            framing: Framing::default(),
            grace: GRACE_DEFAULT,
            tied: false,
        }
    }

    /// Sets one variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Has it work in this folder of the host.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<String>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Reads its standard input from this pipe.
    #[must_use]
    pub fn stdin(mut self, pipe: impl Into<VPath>) -> Self {
        self.stdin = Some(pipe.into());
        self
    }

    /// Writes its standard output to this pipe.
    #[must_use]
    pub fn stdout(mut self, pipe: impl Into<VPath>) -> Self {
        self.stdout.pipe = Some(pipe.into());
        self
    }

    /// Appends its standard output to this stream, also beside a pipe.
    #[must_use]
    pub fn stdout_stream(mut self, stream: impl Into<VPath>) -> Self {
        self.stdout.stream = Some(stream.into());
        self
    }

    /// Writes its standard error to this pipe. It may be that of the standard output.
    #[must_use]
    pub fn stderr(mut self, pipe: impl Into<VPath>) -> Self {
        self.stderr.pipe = Some(pipe.into());
        self
    }

    /// Appends its standard error to this stream, also beside a pipe.
    #[must_use]
    pub fn stderr_stream(mut self, stream: impl Into<VPath>) -> Self {
        self.stderr.stream = Some(stream.into());
        self
    }

    /// Says what a message is.
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Says how long descriptors may stay open after its end.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Kills it with the life of its caller.
    #[must_use]
    pub fn tied(mut self) -> Self {
        self.tied = true;
        self
    }

    /// All paths that it is connected to.
    pub fn paths(&self) -> impl Iterator<Item = &VPath> {
        let outputs = [&self.stdout, &self.stderr].into_iter();
        self.stdin.iter().chain(outputs.flat_map(|output| output.pipe.iter().chain(&output.stream)))
    }

    /// Whether both outputs lead to the same place: they are one descriptor then.
    pub fn is_merged(&self) -> bool {
        !self.stdout.is_null() && self.stdout == self.stderr
    }

    /// Why nothing can be started so; none when it can be tried.
    pub fn fault(&self) -> Option<String> {
        let has_nul = |text: &str| text.contains('\0');
        let texts = self.args.iter().chain(self.env.values()).chain(&self.folder);
        if self.program.is_empty() {
            return Some("no program is named".into());
        }
        if has_nul(&self.program) || texts.into_iter().any(|text| has_nul(text)) {
            return Some("the program, its arguments and its environment cannot contain NUL".into());
        }
        if let Some(name) =
            self.env.keys().find(|name| name.is_empty() || has_nul(name) || name.contains('='))
        {
            return Some(format!("{name:?} does not name a variable"));
        }
        if self.grace > GRACE_MAX {
            return Some(format!("the grace is {GRACE_MAX:?} at most"));
        }
        match self.framing {
            Framing::Lines { max: 1..=LINE_MAX, .. } | Framing::Raw => None,
            Framing::Lines { max, .. } => Some(format!("a line has 1 to {LINE_MAX} bytes, and not {max}")),
        }
    }
}

macro_rules! signals {
    ($($name:ident = $word:literal $what:literal;)*) => {
        /// A signal for a child.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ChildSignal { $(#[doc = $what] $name),* }

        impl ChildSignal {
            /// Its name without SIG, such as `TERM`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }

        impl FromStr for ChildSignal {
            type Err = UnknownSignal;

            fn from_str(text: &str) -> Result<Self, UnknownSignal> {
                let upper = text.to_ascii_uppercase();
                match upper.strip_prefix("SIG").unwrap_or(&upper) {
                    $($word => Ok(Self::$name),)*
                    _ => Err(UnknownSignal(text.into(), &[$($word),*])),
                }
            }
        }
    };
}

signals! {
    Hangup = "HUP" "SIGHUP.";
    Interrupt = "INT" "SIGINT.";
    Quit = "QUIT" "SIGQUIT.";
    Kill = "KILL" "SIGKILL, which ends every process.";
    User1 = "USR1" "SIGUSR1.";
    User2 = "USR2" "SIGUSR2.";
    Terminate = "TERM" "SIGTERM, which asks for the end.";
    Stop = "STOP" "SIGSTOP, which halts every process.";
    Continue = "CONT" "SIGCONT, which lets it go on.";
}

impl fmt::Display for ChildSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no signal that a child can be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of the signals {words}", words = .1.join(", "))]
pub struct UnknownSignal(String, &'static [&'static str]);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChildExit {
    /// By itself, with this status: 0 when all was well.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ChildExit {
    /// The status as shells tell it: 128 more than the signal.
    pub fn status(self) -> u8 {
        let status = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        };
        u8::try_from(status).unwrap_or(u8::MAX)
    }

    /// Whether it ended by itself with status 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// How far a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// It runs.
    Running,
    /// It has ended, and what it wrote is still on its way.
    Ended(ChildExit),
    /// It has ended, and all that it wrote is in its pipes and streams.
    Done(ChildExit),
}

impl ChildState {
    /// How it ended; none while it runs.
    pub fn exit(self) -> Option<ChildExit> {
        match self {
            Self::Running => None,
            Self::Ended(exit) | Self::Done(exit) => Some(exit),
        }
    }

    /// Whether all that it wrote is in its pipes and streams.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// A child process, as `/__sys__/children/` shows it. Its environment is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChildEntry {
    /// Its identity.
    pub id: ChildId,
    /// The host's number for it, which is also that of its process group. The host gives it to another when the child has ended.
    pub pid: u32,
    /// The program, as it was asked for.
    pub program: Arc<str>,
    /// Its arguments.
    pub args: Arc<[String]>,
    /// Who started it.
    pub agent: Arc<str>,
    /// The zone of its paths.
    pub zone: ZoneId,
    /// When.
    pub started: Timestamp,
    /// How far it is.
    pub state: ChildState,
    /// The pipe of its standard input.
    pub stdin: Option<VPath>,
    /// Where its standard output goes.
    pub stdout: ChildOutput,
    /// Where its standard error goes.
    pub stderr: ChildOutput,
    /// Bytes that were written to its standard input.
    pub bytes_in: u64,
    /// Bytes that were read of its standard output.
    pub bytes_out: u64,
    /// Bytes that were read of its standard error.
    pub bytes_err: u64,
    /// Lines that were too long, and left out.
    pub lines_dropped: u64,
    /// Messages that were taken out of the pipe of its standard input when it did not read any more.
    pub messages_unread: u64,
    /// Records that could not be appended to its streams.
    pub records_lost: u64,
    /// What went wrong last between it and its paths.
    pub trouble: Option<Arc<str>>,
}

impl ChildEntry {
    /// A child that has just been started.
    pub fn new(
        id: ChildId,
        pid: u32,
        spec: &ChildSpec,
        agent: Arc<str>,
        zone: ZoneId,
        started: Timestamp,
    ) -> Self {
        Self {
            id,
            pid,
            program: spec.program.as_str().into(),
            args: spec.args.clone().into(),
            agent,
            zone,
            started,
            state: ChildState::Running,
            stdin: spec.stdin.clone(),
            stdout: spec.stdout.clone(),
            stderr: spec.stderr.clone(),
            bytes_in: 0,
            bytes_out: 0,
            bytes_err: 0,
            lines_dropped: 0,
            messages_unread: 0,
            records_lost: 0,
            trouble: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_told_before_anything_is_started() {
        let check = |spec: ChildSpec, fault: Option<&str>| {
            let found = spec.fault();
            assert_eq!(found.is_some(), fault.is_some(), "{spec:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(fault.unwrap_or_default()));
        };
        let cat = || ChildSpec::new("cat", ["-"]);
        check(cat(), None);
        check(ChildSpec::new("", ["x"]), Some("no program"));
        check(ChildSpec::new("cat", ["a\0b"]), Some("NUL"));
        check(cat().env("A=B", "c"), Some("does not name a variable"));
        check(cat().env("", "c"), Some("does not name a variable"));
        check(cat().folder("/a\0"), Some("NUL"));
        check(cat().framing(Framing::Lines { max: 0, longer: LongLines::Cut }), Some("1 to"));
        check(cat().framing(Framing::Raw), None);
        check(cat().grace(GRACE_MAX * 2), Some("grace"));
    }

    #[test]
    fn signals_are_named_as_kill_names_them() {
        assert_eq!("term".parse(), Ok(ChildSignal::Terminate));
        assert_eq!("SIGKILL".parse(), Ok(ChildSignal::Kill));
        let unknown = ChildSignal::from_str("SEGV").unwrap_err().to_string();
        assert!(unknown.contains("\"SEGV\"") && unknown.contains("TERM"), "{unknown}");
    }
}
