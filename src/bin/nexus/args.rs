//! The grammar of the command line, in clap's terms. Reading this file is reading `nexus --help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nexus::EventKind;
use nexus::hal::MOUNT_OPTIONS;

use nexus::offline::GiveUpAfter;

use crate::locks::{LockArgs, LocksArgs, UnlockArgs};
use crate::past::{Then, moment};

/// One namespace of paths over any storage, served by a supervised kernel.
#[derive(Debug, Parser)]
#[command(
    name = "nexus",
    version,
    after_help = "\
Exit status: 0 done; 1 failed, or grep found nothing; 2 wrong usage; 3 the outcome is unknown.
Errors are told on stderr as `nexus: OPERATION PATH: what happened (ENOENT)`.
Logs go to stderr when $NEXUS_LOG or $RUST_LOG asks for them, such as NEXUS_LOG=debug;
NEXUS_LOG=nexus_kernel::syscall=debug tells each syscall, NEXUS_LOG=nexus_actors=trace each message of an actor."
)]
pub(crate) struct Cli {
    /// The data folder, made when missing [default: $NEXUS_DATA_DIR, else ./nexus-data; of `tour` a temporary one]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// The stack to run: slim, embedded, lite or full
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// Print JSON: one object, or one a line. Each command's help says which fields
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A line typed into the shell: a command without the options that choose the kernel.
#[derive(Debug, Parser)]
#[command(name = "nexus", no_binary_name = true, override_usage = "COMMAND [ARGUMENT]..")]
pub(crate) struct ShellLine {
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Import(ImportArgs),
    Export(ExportArgs),
    Ls(LsArgs),
    Tree(TreeArgs),
    Stat(StatArgs),
    Cat(CatArgs),
    #[command(about = "Make a host file or standard input the whole content of a file")]
    Write(WriteArgs),
    #[command(about = "Add a host file or standard input to the end of a file")]
    Append(WriteArgs),
    Edit(EditArgs),
    Mkdir(MkdirArgs),
    Rm(RmArgs),
    Mv(MvArgs),
    Cp(CpArgs),
    Versions(VersionsArgs),
    Restore(RestoreArgs),
    Ln(LnArgs),
    Tx(TxArgs),
    Glob(GlobArgs),
    Grep(GrepArgs),
    Pipe(PipeArgs),
    Stream(StreamArgs),
    Mount(MountArgs),
    Umount(UmountArgs),
    Mounts(MountsArgs),
    Services(ServicesArgs),
    Register(RegisterArgs),
    Unregister(UnregisterArgs),
    Swap(SwapArgs),
    Lock(LockArgs),
    Unlock(UnlockArgs),
    Locks(LocksArgs),
    Ps(PsArgs),
    Top(TopArgs),
    Kill(KillArgs),
    Watch(WatchArgs),
    Gc(GcArgs),
    Sync(SyncArgs),
    Outcome(OutcomeArgs),
    Fsck(FsckArgs),
    Serve(ServeArgs),
    Shell(ShellArgs),
    Tour(TourArgs),
    #[command(hide = true)]
    TourWriter(TourWriterArgs),
}

/// Copy a file or a directory tree of the host in
///
/// Modes and times of change are kept, symbolic links stay links with their targets verbatim. Each file is written whole, with its
/// attributes, in one commit: after a crash it is either there or not. Importing again completes an interrupted import: what is there
/// with the same type, size, mode and time of change is not written again. Sockets, pipes and devices are told and skipped. A name that
/// is not UTF-8 is told as a failure, and the rest goes on. The data folder itself is left out.
#[derive(Debug, Args)]
#[command(after_help = "\
Last line: N files, N bytes, S seconds; then the other counts.
With --json: {files, bytes, seconds, directories, links, unchanged, skipped, failed}; files and bytes include the unchanged ones.
With --verbose --json, before it: {imported} for each path once it is on disk.")]
pub(crate) struct ImportArgs {
    /// A file or directory of the host
    pub(crate) source: PathBuf,
    /// Its new path; missing parents are made
    pub(crate) destination: String,
    /// Print each path once it is on disk
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Write again what is there unchanged; heals damaged content
    #[arg(long)]
    pub(crate) force: bool,
}

/// Copy a file or a directory tree out to the host
///
/// Contents are byte-identical; modes and times of change are kept, symbolic links are made as links. A file or link of the host that is
/// in the way is replaced, never followed; a directory there is filled up.
#[derive(Debug, Args)]
#[command(after_help = "\
Last line: N files, N bytes, S seconds; then the other counts.
With --json: {files, bytes, seconds, directories, links, unchanged, skipped, failed}.")]
pub(crate) struct ExportArgs {
    /// A path
    pub(crate) source: String,
    /// Where it goes on the host
    pub(crate) destination: PathBuf,
}

/// As of when a command looks.
#[derive(Debug, Default, Args)]
pub(crate) struct AsOfArgs {
    /// As it was then: v:N for a version of a file, lsn:N for a place in the log, a time in UTC such as 2026-11-03T12:00:00Z, or how long ago such as '2h ago'
    #[arg(long, value_name = "WHEN")]
    pub(crate) as_of: Option<Then>,
}

/// List a directory
///
/// Prints the names of the entries, one a line, ordered by their bytes; with -R the full paths of all below, one a line, each directory
/// before what it holds. A path that is not a directory is printed itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status 1 when the metadata of an entry is damaged; it is listed all the same.
With --json: one line an entry: {path, type, size, mode, owner, modified, created, changed, mime, target?, content?, version,
generation, file_id, zone, implicit}; of one whose metadata is damaged {path, type, file_id, error: {errno, cause}}.")]
pub(crate) struct LsArgs {
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// With type, permissions, owner, size, time of change (UTC) and target of a link
    #[arg(short)]
    pub(crate) long: bool,
    /// All below it
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) then: AsOfArgs,
}

/// Draw a directory and all below it
#[derive(Debug, Args)]
#[command(after_help = "With --json: one line an entry, as `ls -R --json`.")]
pub(crate) struct TreeArgs {
    #[arg(default_value = "/")]
    pub(crate) path: String,
}

/// Show what is known of entries
#[derive(Debug, Args)]
#[command(after_help = "With --json: one line an entry, as `ls --json`.")]
pub(crate) struct StatArgs {
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
    /// Describe what a link leads to, not the link
    #[arg(short = 'L', long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) then: AsOfArgs,
}

/// Print the content of files, one after the other
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: one line a file: {path, size, offset, count, text}, or base64 in place of text when the bytes are not UTF-8.")]
pub(crate) struct CatArgs {
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
    /// The first byte to print
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: u64,
    /// How many bytes to print at most [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) then: AsOfArgs,
}

/// What `write` and `append` take.
#[derive(Debug, Args)]
#[command(after_help = "\
The file is made when it is missing, its parents too. The change is one commit: all of it or nothing.
With --json: {path, written, size, created, version, places, lsn, durability}.")]
pub(crate) struct WriteArgs {
    pub(crate) path: String,
    /// The host file to read; - for standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Return when the change can be seen, and not when it is on disk; `sync` brings it there
    #[arg(long)]
    pub(crate) eventual: bool,
}

/// Replace a text in a file
///
/// The text must be there, and only once unless --all is given. The change is one commit.
#[derive(Debug, Args)]
#[command(after_help = "With --json: as `write --json`; places is the number of replaced occurrences.")]
pub(crate) struct EditArgs {
    pub(crate) path: String,
    /// The text to replace
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) old: String,
    /// What to put there
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) new: String,
    /// Replace each occurrence
    #[arg(long)]
    pub(crate) all: bool,
}

/// Make directories
#[derive(Debug, Args)]
#[command(after_help = "With --json: one line a directory: {path, created}.")]
pub(crate) struct MkdirArgs {
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
    /// Make missing parents too; a directory that is there is no error
    #[arg(short, long)]
    pub(crate) parents: bool,
}

/// Remove entries
///
/// A link is removed, not what it leads to. A mount point is detached by `umount`, not by this.
#[derive(Debug, Args)]
#[command(after_help = "With --json: one line a path: {path, removed}, the number of entries that are gone.")]
pub(crate) struct RmArgs {
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
    /// Directories too, with all below them, in one commit
    #[arg(short, long)]
    pub(crate) recursive: bool,
}

/// Move an entry, with all below it, in one commit
///
/// B is the new path itself, never a directory to move into. A file at B is replaced, a directory only when it is empty.
#[derive(Debug, Args)]
#[command(after_help = "With --json: {from, to, replaced}.")]
pub(crate) struct MvArgs {
    #[arg(value_name = "A")]
    pub(crate) from: String,
    #[arg(value_name = "B")]
    pub(crate) to: String,
    /// Refuse when there is an entry at B
    #[arg(short, long)]
    pub(crate) no_replace: bool,
}

/// Copy a file, or with -r a directory and all below it, also across mounts
///
/// B is the path of the copy itself, never a directory to copy into; with -r a directory at B is filled up. Links are followed at A, and
/// copied as links below it.
#[derive(Debug, Args)]
#[command(after_help = "With --json: {from, to, files, bytes, directories, links, failed}.")]
pub(crate) struct CpArgs {
    #[arg(value_name = "A")]
    pub(crate) from: String,
    #[arg(value_name = "B")]
    pub(crate) to: String,
    /// Directories too, with all below them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) then: AsOfArgs,
}

/// List what was found at a path over time
///
/// The latest first, one line for each version of each entry that was there: number, the places in the log from where to where it was there (none
/// behind what is there now), size, when it came there (UTC), by which operation and whom, and the identity of the entry, which it has wherever it is
/// moved. What was removed, renamed away or replaced is told of as well, also when its directory is gone.
#[derive(Debug, Args)]
#[command(after_help = "\
How much is kept is a matter of the mount: its options history_count and history_age_s. `cat --as-of lsn:N` and `restore --lsn N` take the
first place of a line.
With --json: one line a version: {path, id, type, present, version, lsn, from, from_at, until, until_at, size, content, modified, by, op};
what is not known is null, and until is null for what is there now. lsn is null where from is only where the history begins.")]
pub(crate) struct VersionsArgs {
    /// A path, whatever is there now
    pub(crate) path: String,
    /// The versions of the file that is there, or was last, wherever it lay; the oldest first
    #[arg(long)]
    pub(crate) file: bool,
    /// A link that is there now is not followed
    #[arg(long)]
    pub(crate) no_follow: bool,
}

/// Make a file what it was
///
/// Content, mode and media type are those of then, as a new version and in one commit. A file that was removed is made again. What a whole
/// directory was comes back by `cp -r --as-of`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("then").required(true),
    after_help = "With --json: {path, to, created, size, version, lsn, durability}."
)]
pub(crate) struct RestoreArgs {
    /// The file as it was called then
    pub(crate) path: String,
    /// As it was in this version
    #[arg(long, value_name = "N", group = "then")]
    pub(crate) version: Option<u64>,
    /// As it was after the commit at this place in the log
    #[arg(long, value_name = "N", group = "then")]
    pub(crate) lsn: Option<u64>,
    /// As it was at this time in UTC, such as 2026-11-03T12:00:00Z, or so long ago, such as '2h ago'
    #[arg(long, value_name = "TIME", group = "then", value_parser = moment)]
    pub(crate) time: Option<Then>,
    /// Another file to make that [default: PATH]
    #[arg(long, value_name = "OTHER")]
    pub(crate) to: Option<String>,
}

/// Make a symbolic link
///
/// The target is kept as it is given; a relative one counts from the link's folder. It need not exist.
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, target, created}.")]
pub(crate) struct LnArgs {
    /// Required: there are only symbolic links
    #[arg(short, long, required = true)]
    pub(crate) symbolic: bool,
    pub(crate) target: String,
    pub(crate) path: String,
}

/// Make several changes as one: all of them, or none
///
/// Reads a description in JSON and executes its operations in their order, in one commit. Each finds what those before it have left: a
/// file that was written may be renamed by the next. When one cannot be executed, or does not find what it expects, nothing is done and the error says
/// which one it was and what was found; also after a crash all of it is there or nothing.
#[derive(Debug, Args)]
#[command(
    after_help = r#"The description is one object: {"ops": [OPERATION, ..], "op_id": HEX?}. Sent again with the same op_id, it is not executed again.
  {"op": "write",   "path": P, CONTENT, "offset": N?}   the whole content, or the bytes at an offset; made when it is missing
  {"op": "create",  "path": P, CONTENT}                 a file where nothing must be
  {"op": "append",  "path": P, CONTENT}                 to the end; made when it is missing
  {"op": "edit",    "path": P, "old": TEXT, "new": TEXT, "all": true?}
  {"op": "mkdir",   "path": P}                          with its parents; nothing happens when it is there
  {"op": "link",    "path": P, "target": TEXT}          a symbolic link
  {"op": "setattr", "path": P, "mode": "644"?, "owner": NAME?, "mime": TYPE?}
  {"op": "rename",  "from": P, "to": P, "replace": false?}
  {"op": "unlink",  "path": P, "recursive": true?}
  {"op": "check",   "path": P}                          changes nothing: for its condition
CONTENT is "text": TEXT, "base64": TEXT, or "file": PATH of the host. write, create and mkdir also take mode, owner and mime.
Each may have one condition: "if_absent": true, "if_version": N, "if_generation": N, or "if_content": HASH, as `stat` prints them.
Another file that took the place of the one that was seen may have the same version: with "if_file_id": N beside "if_version", it is refused.

Example, with `nexus stat --json /plan.md` having told version 3:
  {"ops": [
    {"op": "write",  "path": "/plan.md", "text": "1. think
2. act
", "if_version": 3},
    {"op": "rename", "from": "/drafts/one.md", "to": "/done/one.md"},
    {"op": "unlink", "path": "/drafts/two.md"}
  ]}
At most 1,024 operations and 64 MiB of content; all paths in one zone, on mounts that keep their files in the data folder (else EXDEV).

Prints how many operations were committed, and where in the log. Exit status 1 when nothing was done; 2 when the description makes no sense, which is
found before anything is done; 3 when it is not known.
With --json: {lsn, durability, op_id, repeated, results: [{op, path, to?, created?, size?, version?, removed?}]}, or, also for a description that makes no
sense, {error: {item, op, path, errno, cause, expected?, found?}}, where found is null or {version, generation, content}."#
)]
pub(crate) struct TxArgs {
    /// The host file with the description; - for standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
}

/// Print the paths that a pattern matches, one a line
///
/// `*` and `?` stay within a component, `**` crosses them; `[a-z]` and `{a,b}` work. Links are not followed.
#[derive(Debug, Args)]
#[command(after_help = "With --json: one line a path: {path}.")]
pub(crate) struct GlobArgs {
    /// Such as '/src/**/*.rs'; taken from the root
    pub(crate) pattern: String,
}

/// Search files for a regular expression
///
/// As ripgrep does: binary files are skipped, matches are printed by path. A directory is searched with all below it, and lines are
/// printed as PATH:LINE; for a single file without PATH. Hidden files are searched too, links below PATH are not followed.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status 1 when nothing was found. -c counts lines with a match; files without one are left out.
With --json: one line a match: {path, line, text}; with -l {path}; with -c {path, count}. Text that is not UTF-8 is shown with U+FFFD.")]
pub(crate) struct GrepArgs {
    /// Lower and upper case are the same
    #[arg(short, long)]
    pub(crate) ignore_case: bool,
    /// Print the number of each line
    #[arg(short = 'n', long)]
    pub(crate) line_number: bool,
    /// Print only the paths of files with a match
    #[arg(short = 'l', long, conflicts_with = "count")]
    pub(crate) files_with_matches: bool,
    /// Print only how many lines match in each file
    #[arg(short, long)]
    pub(crate) count: bool,
    /// Search only files that match this pattern; one without / matches the file's name
    #[arg(long, value_name = "G")]
    pub(crate) glob: Option<String>,
    /// The regular expression; after -- when it begins with -
    pub(crate) pattern: String,
    /// A file, or a directory to search with all below it
    #[arg(default_value = "/")]
    pub(crate) path: String,
}

/// Attach a driver's tree at a path; it is remembered over restarts
#[derive(Debug, Args)]
#[command(after_help = mount_help())]
pub(crate) struct MountArgs {
    pub(crate) path: String,
    /// The driver, such as cas-local, path-local or memory
    #[arg(long, value_name = "NAME")]
    pub(crate) driver: String,
    /// An option of the driver, or of every mount: see below
    #[arg(long = "opt", value_name = "K=V", value_parser = key_value)]
    pub(crate) options: Vec<(String, String)>,
    /// Refuse changes below it
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Put the driver in the place of the one that is mounted there, while calls go on
    #[arg(long)]
    pub(crate) replace: bool,
}

/// Detach a mount; what it holds stays where it is
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path}.")]
pub(crate) struct UmountArgs {
    pub(crate) path: String,
}

/// List the mounts and how they are
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: one line a mount: {zone, point, driver, options, read_only, state, generation, actor, in_flight, calls,
last_failure}.")]
pub(crate) struct MountsArgs {}

/// List the services and how they are
///
/// One line each: name, state, factory, version, number, and how many swaps succeeded, failed, and were taken back.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: one line a service, as in /__sys__/services/NAME: {name, state, factory, config, serving, startup, needs, exports, hooks, path,
actor, in_flight, missed, swaps, failed_swaps, swap_backs, trial_agreed, last_swap, last_failure}.")]
pub(crate) struct ServicesArgs {}

/// Register a service and start it; it is remembered over restarts
#[derive(Debug, Args)]
#[command(after_help = "With --json: {service, created}.")]
pub(crate) struct RegisterArgs {
    /// Its name
    pub(crate) name: String,
    /// What makes it, such as audit or quota
    pub(crate) factory: String,
    /// Its configuration
    #[arg(long, value_name = "JSON", default_value = "")]
    pub(crate) config: String,
}

/// Remove a service that no other needs
#[derive(Debug, Args)]
#[command(after_help = "With --json: {service}.")]
pub(crate) struct UnregisterArgs {
    /// Its name
    pub(crate) name: String,
}

/// Put another version, or configuration, of a service in its place while it serves
///
/// The new one is started and probed beside the old, takes over its state, and is published at once; should it crash while it is on
/// probation, the old one comes back. Whatever fails before leaves the old one serving.
#[derive(Debug, Args)]
#[command(after_help = "\
Says from which version to which, and from which factory to which when that changes; how many calls were drained and waited, how many are still inside
the old version, if any, and the longest pause. With --shadow it waits for real calls, 10 minutes at most, and fails when too few have come by then; how
many have agreed is shown on a terminal, and meanwhile in trial_agreed of `services --json`. Interrupted, the old version goes on.
With --json: {service, from, to, mode, drained, left, waited, pause, took, agreed}; from and to are {number, factory, version}.")]
pub(crate) struct SwapArgs {
    /// The service
    pub(crate) name: String,
    /// What makes the new version [default: what made the old one]
    pub(crate) factory: Option<String>,
    /// Its configuration [default: the one that serves; with another factory, that factory's own]
    #[arg(long, value_name = "JSON")]
    pub(crate) config: Option<String>,
    /// Both may be called at once
    #[arg(long, conflicts_with = "exclusive")]
    pub(crate) overlap: bool,
    /// Calls wait while the old one ends and hands its state over
    #[arg(long)]
    pub(crate) exclusive: bool,
    /// Try it in shadow first, until so many answers to copies of real calls agree, within 10 minutes
    #[arg(long, value_name = "CALLS")]
    pub(crate) shadow: Option<u32>,
    /// How many seconds calls inside the old one may take
    #[arg(long, value_name = "S")]
    pub(crate) limit: Option<u64>,
    /// For how many seconds a crash brings the old one back
    #[arg(long, value_name = "S")]
    pub(crate) probation: Option<u64>,
}

/// Draw the supervision tree: each actor, its state, incarnation, restarts and mailbox
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: the root as one object: {path, id, kind, restart, state, generation, restarts, queued, bound, callers_waiting,
in_flight, served, running, armed, last_exit, up_ms, children}. With --watch, one line each second.")]
pub(crate) struct PsArgs {
    /// Draw it again each second, until interrupted
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// Watch the kernel at work: actors, syscalls with their rates and latencies, mounts
///
/// Redrawn each second. Arrows select an actor, k hurts it after asking how, q ends. What is not a terminal is given one look, with
/// totals in the place of rates.
#[derive(Debug, Args)]
#[command(after_help = "\
Calls that are answered from memory are counted, and not timed: latencies are those of all others.
With --json: one look as one object: {actors, syscalls, mounts, committer, caches}, each as its file below /__sys__/ shows it.")]
pub(crate) struct TopArgs {}

/// Hand messages from agent to agent through a path
///
/// A message is read once, whole. It is in the memory of the process that owns the data folder, `nexus serve` say, and ends with it; the pipe's entry stays.
/// `rm` removes a pipe, and tells those who wait.
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

/// Make a pipe; nothing happens when there is one
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path, created, capacity}.")]
pub(crate) struct PipeMakeArgs {
    /// Its path; missing parents are made
    pub(crate) path: String,
    /// How many bytes of messages it holds [default: 65536]
    #[arg(long, value_name = "BYTES")]
    pub(crate) capacity: Option<u32>,
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
}

/// Keep records that any number of readers read, from any offset
///
/// A record has an offset: the first one 0, each next one the next number. Reading takes nothing away. Records are on disk where those of files are that outlive the
/// process. `rm` removes a stream, and tells those who wait; `mv` moves it with its records.
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
}

/// Where the records of a stream are.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StreamKind {
    /// In the process that owns the data folder; they end with it.
    Memory,
    /// On disk.
    Durable,
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
    /// For how long it keeps a record, such as 500ms or 7d; what is too old goes with the next append
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

/// Hurt an actor, to see what becomes of it
///
/// Prints how it ended and after how long it was back. It is in a kernel of the command's own, unless another process serves the folder. A version of a
/// service that is on probation does not come back: then the version that serves in its place is told. Nor does the root, `nexus`: the kernel ends with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status 1 when there is no such actor, or it is not back within 15 seconds.
With --json: {actor, how, outcome, last_exit?, generation?, back_after_seconds?, serves?}, where outcome is restarted, swapped_back, gone or kernel_ended;
with --handling {actor, how, armed}.")]
pub(crate) struct KillArgs {
    /// The actor's path in the tree that `ps` draws, such as nexus/kernel/router
    pub(crate) actor: String,
    /// What goes wrong: a panic, an exit with an error, a kill without a word, or a handler that never returns
    #[arg(long, value_name = "HOW", default_value = "panic", value_parser = ["panic", "error", "brutal", "wedge"])]
    pub(crate) how: String,
    /// Not now, but when it handles its next message: before or after the handler has run
    #[arg(long, value_name = "WHEN", value_parser = ["before", "after"])]
    pub(crate) handling: Option<String>,
}

/// Tell what changes at a path and below it, as it happens
///
/// Prints each change once it is on disk, in the order of the log of the zone, until interrupted. While another process serves the folder its changes are told, as
/// `serve` does; else nobody changes anything, and --since tells what was. A place in the log to go on from is the number that a line begins with. A rename is
/// told to who watches either path. With --count and --wait the exit status is 1 when the time was over first.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints: LSN TIME KIND AGENT PATH, and behind it -> where a rename leads or <- where a copy comes from.
Kinds: file_write, file_delete, file_rename, file_copy, dir_create, dir_delete, metadata_change, create, mount, unmount, lock, unlock.
With --json: {lsn, kind, path, other, type, size, content_id, version, generation, is_new, agent, zone, op, at} for each, {overflow} when they came faster than
they were taken and the log tells the rest from that place, and {next} at the end: where to go on.")]
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
    /// End after so many
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// End after this time, such as 30s; with 0s what was is told
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
}

/// Take away what nothing names any more
///
/// Content goes that no file names, when collections have found it so for the grace period, and rows of mounts that are gone. What a file, an open
/// stream or a call that is under way needs stays. Calls go on meanwhile. What is interrupted loses nothing, and goes on in the kernel if that is
/// another process.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints what went, and what stays for now.
With --json: {number, dry_run, grace_ms, began, ended, state, rows, reachable, freed, kept_by_grace, kept_by_pins, reclaimed_bytes, left_out, failed,
left_alone};
freed and kept are {objects, bytes}.")]
pub(crate) struct GcArgs {
    /// Only count what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long content must have been unreachable, in seconds [default: the setting garbage_grace_s]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace: Option<u64>,
}

/// Bring to the disk what was acknowledged before it was there
///
/// With `write --eventual` and on mounts of the classes cache and scratch changes are acknowledged when they can be seen, and are on disk soon after. Returns
/// when all that was acknowledged before is there.
#[derive(Debug, Args)]
#[command(after_help = "With --json: {lsn}, the place in the log up to which all is on disk.")]
pub(crate) struct SyncArgs {
    /// A path in the zone that is meant
    #[arg(default_value = "/")]
    pub(crate) path: String,
}

/// Tell what became of an operation
///
/// Asks for it by its identity: the one that was given with it, or that is told with an error when a change may have been executed. Each zone remembers its
/// last 65,536 operations, also after a crash. Of an older store, --since tells what was not executed from what is forgotten. Exit status: 0 when it was
/// committed, 1 when it was not executed, 3 when it is under way, in doubt, or may be forgotten.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: {outcome, kept, ..}; outcome is committed, under_way, not_executed, in_doubt or forgotten, and kept says how many operations are remembered.
Of a committed one also {lsn, durability, op, path, to?, at}, of one that is under way {op, path}, of a forgotten one {through}.")]
pub(crate) struct OutcomeArgs {
    /// The identity of the operation, in hexadecimal
    pub(crate) operation: String,
    /// It was not sent before the log had come to this place
    #[arg(long, value_name = "LSN")]
    pub(crate) since: Option<u64>,
}

/// Check all that is stored, and repair what loses nothing
///
/// Names are matched with metadata, metadata with content, each content with its hash, and each log with itself, while calls go on. What is told is wrong,
/// and was looked at twice. With --repair a name that leads to nothing goes, what has no name is named in lost+found of its mount, what the rows say twice
/// is made to agree, and damaged content is written again from another copy with the same hash; each repair is in the log. All else is left as it is.
///
/// A data folder that cannot be opened because its log is damaged is told of: in which file and where, up to which LSN all can be kept, and what would be lost.
/// With --repair --give-up-after and what was told, all behind that is cut off, and the folder opens. What is cut off is kept in files beside the log.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line for each finding, and then what was looked at.
Exit status 1 when something is left that is wrong, or could not be looked at to the end.
With --json: {number, repair, began, ended, state, resumed, entries, names, files, versions, blobs, bytes, records, garbage, findings, untold, left_out};
each finding is {zone, path, file_id, fault, cause, remedy}.
Of a damaged log: {damaged, repaired, segment, offset, frame, proof, kept, give_up_after, lost, aside}; kept is {tree, lsn} of each tree, the root zone's being 0,
lost is {through, unreadable, operations, bytes, places, listed}, places are {tree, first, last}, listed are {tree, lsn, op, path, to, by, at}, and at most 1024.")]
pub(crate) struct FsckArgs {
    /// Repair what can be repaired without a loss
    #[arg(long)]
    pub(crate) repair: bool,
    /// Cut the damaged log of a folder that cannot be opened: all after this place is given up
    #[arg(long, value_name = "LSN", requires = "repair")]
    pub(crate) give_up_after: Option<GiveUpAfter>,
}

/// Own the data folder, and let other processes attach to it
///
/// Serves the socket `nexus.sock` in the data folder until it is interrupted or terminated, then ends the kernel in order. Meanwhile
/// every other `nexus` command on that folder attaches to it. Only processes of the same user, and of root, can attach.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line once it serves. With --json: {data, socket, process, agent}; agent is null for an administrator.
Exit status 1 when the kernel ends by itself.")]
pub(crate) struct ServeArgs {
    /// Who attaches is this agent, and no administrator
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Clients at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) clients: u32,
}

/// Type commands, with history and completion of paths
///
/// Every command works inside, without `nexus` and its options. Words are split as in sh. A command that fails does not end it; `exit`
/// or the end of the input does. The exit status is that of the last command.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {}

/// One minute through the kernel on real input, each claim checked
///
/// Boots, imports SRC (what .gitignore ignores and .git left out), reads, greps, lets two agents commit to the same files, shows the tree of actors, kills each kernel primitive
/// while readers go on, puts broken permission policies in the place of a good one while agents try what is forbidden, kills -9 a writing
/// child process and reopens its store. The data is in a temporary folder unless --data is given; then the tour works below /tour there.
/// Ends with status 1 at the first claim that does not hold.
#[derive(Debug, Args)]
#[command(after_help = "With --json: one line a step: {step, seconds, says, ...what was measured}.")]
pub(crate) struct TourArgs {
    /// A directory of the host [default: the current one]
    pub(crate) source: Option<PathBuf>,
}

/// Writes files and prints each name once it is acknowledged, until it is killed. A part of the tour.
#[derive(Debug, Args)]
pub(crate) struct TourWriterArgs {
    /// The directory to write below
    pub(crate) path: String,
    /// Writers at once
    #[arg(long, default_value_t = 64)]
    pub(crate) writers: u32,
    /// Tells one run's files from another's
    #[arg(long, default_value_t = 0)]
    pub(crate) round: u32,
}

/// The options of every mount, in the kernel's own words.
fn mount_help() -> String {
    let mut help = String::from("Options of every mount:\n");
    let longest = MOUNT_OPTIONS.iter().map(|option| option.key.len()).max().unwrap_or_default();
    for option in MOUNT_OPTIONS {
        help += &format!("  {:<longest$}  {}\n", option.key, option.help);
    }
    help += "Those of a driver are told when one is missing or unknown.\n";
    help + "With --json: {path, driver, created}, and with --replace {path, driver, swapped}."
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected K=V".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
        ShellLine::command().debug_assert();
    }

    /// `nexus COMMAND --help`, on one line.
    fn help(command: &str) -> String {
        let told = Cli::try_parse_from(["nexus", command, "--help"]).unwrap_err().to_string();
        told.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_option_of_every_mount_is_in_the_help() {
        let help = help("mount");
        for option in MOUNT_OPTIONS {
            let words: Vec<_> = option.help.split_whitespace().collect();
            assert!(help.contains(&format!("{} {}", option.key, words.join(" "))), "{}: {help}", option.key);
        }
    }

    #[test]
    fn the_help_of_the_tour_says_one_thing_of_its_data() {
        let help = help("tour");
        assert!(help.contains("The data is in a temporary folder unless --data is given"), "{help}");
        assert!(help.contains("else ./nexus-data; of `tour` a temporary one]"), "{help}");
    }

    fn check(line: &str, good: bool) {
        let parsed = Cli::try_parse_from(line.split_whitespace());
        assert_eq!(parsed.is_ok(), good, "{line}: {:?}", parsed.err().map(|error| error.to_string()));
    }

    #[test]
    fn lines_of_the_manual_are_understood() {
        check("nexus --data d --profile lite --json ls -l -R /", true);
        check("nexus ls --json --data d /", true);
        check("nexus grep -i -n --glob *.rs fn /src", true);
        check("nexus grep -l -c fn", false);
        check("nexus ln /a /b", false);
        check("nexus ln -s /a /b", true);
        check("nexus mount /m --driver path-local --opt folder=/x --opt a=b=c", true);
        check("nexus mount /m --driver path-local --opt root", false);
        check("nexus mount /m", false);
        check("nexus edit /a --old -x --new --y", true);
        check("nexus grep -l -foo", false);
        check("nexus ls --as-of lsn:3 /a", true);
        check("nexus ls --as-of yesterday /a", false);
        check("nexus cp -r --as-of 2h /a /b", true);
        check("nexus versions /a", true);
        check("nexus restore /a --version 3", true);
        check("nexus restore /a --time 2h --to /b", true);
        check("nexus restore /a --time v:3", false);
        check("nexus restore /a", false);
        check("nexus restore /a --version 3 --lsn 4", false);
        check("nexus tx plan.json", true);
        check("nexus tx a b", false);
        check("nexus cat", false);
        check("nexus cat --offset 3 --count 4 /a /b", true);
        check("nexus serve --agent coder-7 --clients 3", true);
        check("nexus ps --watch --json", true);
        check("nexus top", true);
        check("nexus kill nexus/kernel/router", true);
        check("nexus kill --how wedge --handling after nexus/kernel/router", true);
        check("nexus kill --how nicely nexus/kernel/router", false);
        check("nexus kill", false);
        check("nexus watch / --since 7 --mask file_write,lock --count 3 --wait 2s --json", true);
        check("nexus watch --glob /logs/*.txt", true);
        check("nexus watch --glob --alone /logs/*.txt", false);
        check("nexus watch / --mask written", false);
        check("nexus fsck --repair --json", true);
        check("nexus fsck /a", false);
        check("nexus", false);
    }
}
