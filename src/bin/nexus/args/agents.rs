//! What agents wait for: locks, pipes, streams, watches.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use nexus::EventKind;

use super::files::FenceArgs;
use crate::when::duration;

/// Hold a lock on a path while a command runs, as flock does, or until it is unlocked
///
/// The lock reaches all below the path: who holds /a keeps others from /a/b, and who holds /a/b from /a, but not where a zone has a mount of its own at /a/b. It binds those who ask for one. With a command it is extended until the
/// command ends, and released then. HUP, INT, QUIT, TERM, USR1 and USR2 are passed on to the command, and it is waited for; killed with -9 the lock goes, and the command does not. The lock goes with the
/// kernel, too, when whoever has that ends, and may be taken back by `unlock --force`: the command goes on without it, which is told at once. Two commands that wait for each other's locks are not told so: give them a --wait. The command is told of it by $NEXUS_LOCK_PATH, $NEXUS_LOCK_ID and
/// $NEXUS_LOCK_TOKEN, and of the data folder by $NEXUS_DATA_DIR, so `nexus` in it works on the same one; with --fenced it changes something only while the lock is held. Without a command the lock is printed and stays until
/// `unlock`, or until its time is over, also over restarts of the kernel. When nobody owns the data folder, a process in the background does for as long as
/// such commands are there: see `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: the command's, and 128 more than the signal that ended it; 1 when the lock was not free in time, was lost meanwhile, or the command cannot be started;
2 for wrong usage, such as a -- with no command behind it; 3 when it is not known whether it was taken or released.
Without a command it prints the lock's identity, which `unlock` wants.
With --json and no command: {path, id, token, ttl_ms}.")]
pub(crate) struct LockArgs {
    /// What is locked; it need not exist
    pub(crate) path: String,
    /// Others may hold it, too, if they say the same
    #[arg(short, long, group = "kind")]
    pub(crate) shared: bool,
    /// So many may hold it at once, if they say the same number
    #[arg(long, value_name = "N", group = "kind")]
    pub(crate) places: Option<u32>,
    /// Fail at once when it is not free
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) nonblock: bool,
    /// Wait so long at most, such as 30s or 5m [default: a day]
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// How long it lasts when nobody extends it
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub(crate) ttl: Duration,
    /// Extend the lock with this identity to the time of --ttl from now on
    #[arg(long, value_name = "ID", conflicts_with_all = ["kind", "nonblock", "wait", "command"])]
    pub(crate) extend: Option<String>,
    /// The command to run, after `--`
    #[arg(last = true)]
    pub(crate) command: Vec<OsString>,
}

/// Release a lock
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, released}.")]
pub(crate) struct UnlockArgs {
    pub(crate) path: String,
    /// The lock's identity, as `lock` prints it
    #[arg(required_unless_present = "force")]
    pub(crate) id: Option<String>,
    /// Release all locks on just this path, whoever holds them
    #[arg(long, conflicts_with = "id")]
    pub(crate) force: bool,
}

/// Show the locks, who holds them and who waits
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: one line a path: {zone, path, holders: [{agent, kind, token, age, left}], waiting: [{agent, kind, age}]}; times are {secs, nanos}.")]
pub(crate) struct LocksArgs {
    /// Only those on this path and below it
    #[arg(default_value = "/")]
    pub(crate) path: String,
}

/// Hand messages from agent to agent through a path
///
/// A message is read once, whole. It is in the memory of the process that owns the data folder, `nexus serve` say, and ends with it; the pipe's entry stays. So `write` is
/// refused while no such process is there, but for a pipe of the kind `shared`.
/// `rm` removes a pipe, and tells those who wait. Who waits with --wait needs no `serve`: see there who owns the folder then, and until when.
#[derive(Debug, Args)]
pub(crate) struct PipeArgs {
    #[command(subcommand)]
    pub(crate) command: PipeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PipeCommand {
    Make(PipeMakeArgs),
    Read(PipeReadArgs),
    Write(PipeWriteArgs),
}

/// Where the messages of a pipe are.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PipeKind {
    /// In the process that owns the data folder; they end with it.
    Memory,
    /// In memory that processes share; they outlive each of them.
    Shared,
}

/// Make a pipe; nothing happens when there is one
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, created, capacity}.")]
pub(crate) struct PipeMakeArgs {
    /// Its path; missing parents are made
    pub(crate) path: String,
    /// How many bytes of messages it holds [default: 65536]
    #[arg(long, value_name = "BYTES")]
    pub(crate) capacity: Option<u32>,
    /// Where its messages are
    #[arg(long, value_name = "KIND", default_value = "memory")]
    pub(crate) kind: PipeKind,
}

/// Take messages out of a pipe, and print each with a line end
///
/// Ends with status 1 when there is no message, or none came in time, and with 0 at the end of the pipe: when writers had opened it and the last is gone.
#[derive(Debug, Args)]
#[command(
    after_help = "With --json, for each message: {count, text} or {count, base64}; count is its bytes."
)]
pub(crate) struct PipeReadArgs {
    /// A pipe
    pub(crate) path: String,
    /// Wait for each message, at most for so long, such as 500ms or 2m
    #[arg(long, value_name = "DURATION")]
    pub(crate) wait: Option<humantime::Duration>,
    /// How many messages
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub(crate) number: u64,
}

/// Put one message into a pipe
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, written}.")]
pub(crate) struct PipeWriteArgs {
    /// A pipe
    pub(crate) path: String,
    /// The message; all of standard input when it is - or not given
    pub(crate) text: Option<String>,
    /// Wait for room, at most for so long, such as 500ms or 2m
    #[arg(long, value_name = "DURATION")]
    pub(crate) wait: Option<humantime::Duration>,
    #[command(flatten)]
    pub(crate) fence: FenceArgs,
}

/// Keep records that any number of readers read, from any offset
///
/// A record has an offset: the first one 0, each next one the next number. Reading takes nothing away. Records are on disk where those of files are that outlive the
/// process. Those of a stream in memory are in the process that owns the data folder, `nexus serve` say: `append` is refused there while no such process is there. `rm` removes
/// a stream, and tells those who wait; `mv` moves it with its records.
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    #[command(subcommand)]
    pub(crate) command: StreamCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    Make(StreamMakeArgs),
    Append(StreamAppendArgs),
    Read(StreamReadArgs),
    Tail(StreamTailArgs),
    Groups(StreamGroupsArgs),
    Take(StreamTakeArgs),
    Ack(StreamAckArgs),
    #[command(name = "giveback")]
    GiveBack(StreamGiveBackArgs),
    #[command(name = "rmgroup")]
    RemoveGroup(StreamRemoveGroupArgs),
}

/// Where the records of a stream are.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StreamKind {
    /// In the process that owns the data folder; they end with it.
    Memory,
    /// On disk.
    Durable,
    /// In memory that processes share; they outlive each of them, and not the machine.
    Shared,
}

/// Make a stream; nothing happens when there is one
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, created}.")]
pub(crate) struct StreamMakeArgs {
    /// Its path; missing parents are made
    pub(crate) path: String,
    /// How many bytes it keeps, by the records' content and four bytes each; then the oldest go
    #[arg(long, value_name = "BYTES")]
    pub(crate) bytes_max: Option<u64>,
    /// For how long it keeps a record, such as 500ms or 7d; what is too old goes by itself
    #[arg(long, value_name = "DURATION")]
    pub(crate) age_max: Option<humantime::Duration>,
    /// Where its records are [default: as the mount keeps files]
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<StreamKind>,
}

/// Append records to a stream, side by side and all or none
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, first, count}; first is the offset of the first one.")]
pub(crate) struct StreamAppendArgs {
    /// A stream
    pub(crate) path: String,
    /// The records; all of standard input as one when none is given
    pub(crate) records: Vec<String>,
    #[command(flatten)]
    pub(crate) fence: FenceArgs,
}

/// Print records of a stream, each with a line end
///
/// Ends with status 1 when there are fewer than were asked for, or they did not come in time.
#[derive(Debug, Args)]
#[command(after_help = "With --json, for each record: {offset, at_ms, text} or {offset, at_ms, base64}.")]
pub(crate) struct StreamReadArgs {
    /// A stream
    pub(crate) path: String,
    /// The offset of the first one [default: the oldest that is kept]
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// How many [default: all that are there]
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<u64>,
    /// Wait for each record, at most for so long, such as 500ms or 2m
    #[arg(long, value_name = "DURATION")]
    pub(crate) wait: Option<humantime::Duration>,
}

/// Print the last records of a stream, each with a line end
///
/// With --follow it ends, with status 1, when the process ends that has the kernel, also when that is started anew. `stream read --from OFFSET --wait DURATION` goes on, with
/// the offset behind that of the last record that came, which --json tells; the records of a stream in memory are gone then.
#[derive(Debug, Args)]
#[command(after_help = "With --json, for each record: {offset, at_ms, text} or {offset, at_ms, base64}.")]
pub(crate) struct StreamTailArgs {
    /// A stream
    pub(crate) path: String,
    /// How many
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    pub(crate) number: u64,
    /// Print what comes, until the command is stopped
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// List the consumer groups of a stream, or who has which records of one
///
/// With a group: its records that somebody has, that are to be given again, and that are dead because they were given too often.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints for each group: NAME next NEXT lag LAG held HELD waiting WAITING dead DEAD lost LOST.
Prints with a group: held OFFSET DELIVERIES AGENT UNTIL, waiting OFFSET DELIVERIES, dead OFFSET DELIVERIES.
With --json the same as objects, as the kernel has them.")]
pub(crate) struct StreamGroupsArgs {
    /// A stream
    pub(crate) path: String,
    /// A group
    pub(crate) group: Option<String>,
}

/// Take records of a stream for a consumer group, which is made when there is none, and print each with a line end
///
/// A record is given to one agent at a time: when it does not acknowledge it in time, it is another's. What is printed stays this agent's when `take` has ended. With a command, that is
/// run for each record instead, with the record on its standard input, once for each in one call: a record whose command ends with 0 is acknowledged, and the others are given back at the
/// end; it is extended while the command runs, and is another's at once when this process is killed with -9. Other signals are passed on to the command, and after HUP, INT and TERM no further record is taken. The command is told of the record by $NEXUS_RECORD_OFFSET and $NEXUS_RECORD_DELIVERIES. Ends with status 1 when there was nothing,
/// nothing came in time, or a command failed.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json and no command, for each record: {offset, deliveries, at_ms, text} or {offset, deliveries, at_ms, base64}; `stream ack` wants the offset.")]
pub(crate) struct StreamTakeArgs {
    /// A stream
    pub(crate) path: String,
    /// The group
    pub(crate) group: String,
    /// How many at most
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub(crate) number: u32,
    /// Wait for the first one, at most for so long, such as 500ms or 2m
    #[arg(long, value_name = "DURATION")]
    pub(crate) wait: Option<humantime::Duration>,
    /// Keep them for so long before they are another's [default: as the group says]
    #[arg(long, value_name = "DURATION")]
    pub(crate) hold: Option<humantime::Duration>,
    /// Acknowledge them once they are printed
    #[arg(long, conflicts_with = "command")]
    pub(crate) ack: bool,
    /// Where a group begins that is made: an offset [default: the oldest that is kept]
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// For how long a group that is made lets an agent have a record
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub(crate) deadline: humantime::Duration,
    /// How often a group that is made gives a record before it is dead
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) deliveries: u32,
    /// The command to run for each record, after `--`
    #[arg(last = true)]
    pub(crate) command: Vec<OsString>,
}

/// Say that records which were taken are done with: they are not given again
///
/// All of them or none. A record that is not this agent's, or not any more, is an error.
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, group, count}.")]
pub(crate) struct StreamAckArgs {
    /// A stream
    pub(crate) path: String,
    /// The group
    pub(crate) group: String,
    /// The offsets of the records; all that this agent has when none is given
    pub(crate) offsets: Vec<u64>,
}

/// Give records back that were taken: they are given again, or are dead when they were given too often
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, group, count}.")]
pub(crate) struct StreamGiveBackArgs {
    /// A stream
    pub(crate) path: String,
    /// The group
    pub(crate) group: String,
    /// The offsets of the records; all that this agent has when none is given
    pub(crate) offsets: Vec<u64>,
    /// Nobody is given them for so long
    #[arg(long, value_name = "DURATION")]
    pub(crate) delay: Option<humantime::Duration>,
}

/// Remove a consumer group of a stream; the records stay
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, group, removed}.")]
pub(crate) struct StreamRemoveGroupArgs {
    /// A stream
    pub(crate) path: String,
    /// The group
    pub(crate) group: String,
}

/// Tell what changes at a path and below it, as it happens
///
/// Prints each change once it is on disk, in the order of the log of the zone, until interrupted, or until the process ends that has the kernel. Others change what
/// they like meanwhile: when nobody serves the folder, a process in the background does, see `serve`. --since tells what was; locks are in no log, and it tells
/// nothing of them. A place in the log to go on from is the number that a line begins with, when all lines with that number were seen: a transaction has several.
/// A rename is told to who watches either path, and what becomes of a whole directory to who watches something in it; directories that are made on the way to something are not told of by
/// themselves. With --count and --wait the exit status is 1 when the time was over first.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints: LSN TIME KIND AGENT PATH, and behind it -> where a rename leads or <- where a copy comes from.
Kinds: file_write, file_delete, file_rename, file_copy, dir_create, dir_delete, metadata_change, create, mount, unmount, lock, unlock, outside_change, outside_delete.
When they came faster than they were taken, the log tells the rest; what is in no log is lost, and that is told on standard error, with the place from which the rest is told.
With --json: {lsn, kind, path, other, type, size, content_id, version, generation, is_new, agent, user, zone, op, at, lock} for each, {overflow} with that place, and
{next} at the end, also when a signal or the end of the kernel ends it: where to go on.")]
pub(crate) struct WatchArgs {
    /// A path, which need not exist; with --glob a pattern
    pub(crate) path: String,
    /// Also what was since this place in the log
    #[arg(long, value_name = "LSN")]
    pub(crate) since: Option<u64>,
    /// The path is a pattern: * and ? stand for parts of a name, ** for any number of directories
    #[arg(long, conflicts_with = "alone")]
    pub(crate) glob: bool,
    /// Nothing below the path
    #[arg(long)]
    pub(crate) alone: bool,
    /// Only these kinds, with commas between them
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub(crate) mask: Vec<EventKind>,
    /// End after so many, and what belongs to the same transaction
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// End after this time, such as 30s; with 0s what was is told
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
}
