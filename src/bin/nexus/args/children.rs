//! Child processes whose standard input and output are paths.

use clap::{Args, ValueEnum};
use nexus::{ChildId, ChildSignal};

/// Run a command whose standard input, output and error are paths, and wait for its end
///
/// What is written to the pipe of --in is a line for it, and a line of it is a message in the pipe of --out; a stream keeps all that is appended. Paths that are missing
/// are made; what is not named is empty, or goes nowhere. The command runs in the process that owns the data folder, `nexus serve` say, or in this one, which serves
/// the folder meanwhile; and in the folder that this one is in. It is killed when this one ends, and so is what it leaves behind in its process group, unless this one is killed with -9. HUP, INT, QUIT,
/// TERM, USR1 and USR2 are handed on to it. It has no terminal.
///
/// Its environment is PATH and what --env names. No shell is asked. While the pipe of --out is full the command waits.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: the command's, and 128 more than the signal that ended it, or that came before it was there; 1 when it could not be started, 3 when its kernel went away.
With --json, at its end: {id, pid, program, args, state, bytes_in, bytes_out, bytes_err, lines_dropped, messages_unread, records_lost, trouble, ..}.")]
pub(crate) struct RunArgs {
    /// The pipe of its standard input
    #[arg(long = "in", value_name = "PIPE")]
    pub(crate) stdin: Option<String>,
    /// The pipe of its standard output
    #[arg(long = "out", value_name = "PIPE")]
    pub(crate) stdout: Option<String>,
    /// Append its standard output to this stream, too
    #[arg(long, value_name = "STREAM")]
    pub(crate) tee: Option<String>,
    /// The stream of its standard error
    #[arg(long = "err", value_name = "STREAM")]
    pub(crate) stderr: Option<String>,
    /// Its standard error goes where its standard output does, in the order in which both are written
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) merge: bool,
    /// What a message is: a line, or what was there to be read
    #[arg(long, value_name = "HOW", default_value = "lines")]
    pub(crate) framing: FramingKind,
    /// Cut lines that are longer than a message may be, and do not leave them out
    #[arg(long)]
    pub(crate) cut: bool,
    /// Set a variable of its environment; NAME alone hands on the one of this process
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// How long after its end others may write to its output, such as 500ms or 1m [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) grace: Option<std::time::Duration>,
    /// The command, after `--`
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// What a message of a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FramingKind {
    /// A line, without its newline.
    Lines,
    /// What was there to be read.
    Raw,
}

/// Show the child processes that run and the last that ended, or send one a signal
#[derive(Debug, Args)]
#[command(after_help = "\
Prints: ID PID STATE BYTES-IN BYTES-OUT BYTES-ERR PROGRAM ARGUMENTS.
With --json: one line a child: {id, pid, program, args, agent, zone, started, state, stdin, stdout, stderr, bytes_in, bytes_out, bytes_err, lines_dropped,
messages_unread, records_lost, trouble}.")]
pub(crate) struct ChildrenArgs {
    /// Only this one
    pub(crate) id: Option<ChildId>,
    /// Send it, and what is left of its process group, this signal, such as TERM
    #[arg(long, value_name = "NAME", requires = "id")]
    pub(crate) signal: Option<ChildSignal>,
}
