//! The kernel itself: mounts, services, actors, upkeep, and how it is run.

use std::path::PathBuf;

use clap::Args;
use nexus::hal::MOUNT_OPTIONS;
use nexus::offline::{GiveUpAfter, StreamsPlace};

/// Attach a driver's tree at a path; it is remembered over restarts
#[derive(Debug, Args)]
#[command(after_help = mount_help())]
pub(crate) struct MountArgs {
    pub(crate) path: String,
    /// The driver, such as cas-local, local or memory: `nexus drivers` has them all
    #[arg(long, value_name = "NAME")]
    pub(crate) driver: String,
    /// An option of the driver (`nexus drivers NAME`), or of every mount: see below
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
///
/// What was written back and is not at its store, for all that is waited for it, stays in the data folder and goes there when the store is mounted again; files whose last attempt
/// failed are named on standard error. What is cached of the store stays, too, until other caches need its room.
#[derive(Debug, Args)]
#[command(after_help = "With --json: {path}.")]
pub(crate) struct UmountArgs {
    pub(crate) path: String,
}

/// Move all files of a mount to another driver while they are used
///
/// All is copied and verified by its hash, what changes meanwhile is copied again, and in one step the new driver takes the place of the old one. Calls go
/// on; for the last round changes wait, a few seconds at most. Until that step the old driver serves, whatever happens. Interrupted, also by a kill, the
/// same command goes on where it was; --abort removes what it has copied. Where the new store is gone for good, --abort --leave-copies gives up: it asks
/// nothing of that store, and says what may be left there. A migration in a process that serves the folder goes on there when this command is
/// interrupted, which says where it stands. The old driver's store is left as it was, for you to remove.
///
/// Files that are found by their paths (local, s3, ..) and content that is found by its hash (cas-local, s3 with addressing=content, ..) go to a driver of
/// their own kind, and of the other. From the first to the second, files become rows of the metastore that belong to nobody, and a history begins. From the second to the first,
/// the history has to be given up, by --opt history_count=0, and so have media types that are not those of their names, and where somebody grants rights the owners of files, by
/// --without-modes; streams and pipes have no place there. All of a mount moves: for a part, `nexus mount /new --driver ..` and `nexus sync /old/part /new` copy what can be
/// copied, which is not the versions. A store of files must be empty. What it cannot
/// hold (links, empty folders, modes, names) is told before anything is copied. An upload that is under way holds up the last step, for a minute at most; one that takes
/// longer is refused (EBUSY), and may be made again. Ask for write_back afterwards, by `mount --replace`. The numbers of files change with the store, and on one without times
/// of its own their times of change. A file with several names (hard links) becomes a file for each of them. What was said of the mount for every driver (read-only,
/// modes, deadlines, ..) goes on, unless --opt says otherwise.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["to", "abort", "status"]))]
#[command(after_help = "\
Exit status 1 when it came to an end before the new driver serves, 130 when it was interrupted.
With --json: {zone, path, from, to, options, state, began, ended, found, copied, kept, removed, left, bytes, noted, rounds, closings, closed_us}; state is
checking, copying, switching, done, aborting, aborted, given_up, interrupted or {failed: {cause, error}}.")]
pub(crate) struct MigrateArgs {
    /// The mount point
    pub(crate) path: String,
    /// The new driver
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Option<String>,
    /// An option of the new driver, or of every mount: as for `mount`
    #[arg(long = "opt", value_name = "K=V", value_parser = key_value, conflicts_with_all = ["abort", "status"])]
    pub(crate) options: Vec<(String, String)>,
    /// Give up permission bits, where the new driver keeps none; and what else rows say of a file and no plain file has
    #[arg(long, conflicts_with_all = ["abort", "status"])]
    pub(crate) without_modes: bool,
    /// End it, and remove what it has copied
    #[arg(long)]
    pub(crate) abort: bool,
    /// With --abort: leave in the new store what was copied; nothing is asked of it
    #[arg(long, requires = "abort")]
    pub(crate) leave_copies: bool,
    /// Tell how far it is
    #[arg(long)]
    pub(crate) status: bool,
}

/// List the mounts and how they are
///
/// One line each: where, driver, access, state; calls of the driver, and those in which its backend failed; how long half of the looks, reads,
/// writes and listings took at most, and 99 of 100; bytes in (written to it) and out (read from it); what is cached of it here: how often that
/// helped, how much it is of how much it may be, and what is yet to be written. Then why it does not serve, and its options. All counted since it
/// was attached, or the kernel began.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: one line a mount: {zone, point, driver, options, read_only, state, generation, actor, in_flight, calls,
last_failure: {at, what, error}, errors: {NAME: count}, times: {looks, reads, writes, listings}, bytes_read, bytes_written,
cache: {hits, misses, bytes, bytes_max, pending_files, pending_bytes, failed, last_failure}}. Times are {calls, total_ns,
median_ns, p99_ns, longest_ns}.")]
pub(crate) struct MountsArgs {}

/// List the drivers that mounts can have, or the options of one
///
/// One line each: name, and whether it is on another machine, ends with the process, takes no changes, or is a connector. Of a NAME: its options, one a line, those that must be
/// given first; what every mount takes besides is in `nexus mount --help`. Nothing is asked of a kernel.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json, one line each: {name, elsewhere, volatile, read_only, connector, options: [{key, required, secret, help}]}.")]
pub(crate) struct DriversArgs {
    pub(crate) name: Option<String>,
}

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

/// Make a tree the same as another one; or, with one path or none, bring to the disk what was acknowledged before it was there
///
/// With SRC and DST: copies what differs, in one direction. Either is a path of the namespace, or a folder of the host, written as host:FOLDER. Files are the
/// same when they have the same content id, or the same size and time of change, if there is one and it tells states apart; else their contents are compared. A bucket, an API or a
/// program keeps no time of change that it is given, so there each file of the same size is read again, each time, unless both sides know its content id: how many
/// were read, and how many bytes of both sides, is counted. What lies in each other on the host, through mounts of folders, is refused. Each file is
/// replaced whole and then verified by its hash. Symbolic links are copied as links. What is of another type is replaced; a folder with something in it
/// only with --delete. What fails is told, and the rest goes on; the same command does the rest later.
///
/// With one path: `write --eventual` and mounts of the classes cache and scratch acknowledge changes when they can be seen, and have them on disk soon after.
/// Returns when all that was acknowledged before is there.
#[derive(Debug, Args)]
#[command(after_help = "\
Last line: N copied, N bytes, S seconds; then the other counts. Exit status 1 when something failed.
With --json: {copied, bytes, seconds, directories, links, unchanged, described, deleted, compared, compared_bytes, skipped, failed, failures, dry_run}; failures are texts, at most 1000.
With --dry-run, before it: one line for what would be done; with --json {action, path}, where action is copy, link, directory, describe or delete.
With one path and --json: {lsn}, the place in the log up to which all is on disk.")]
pub(crate) struct SyncArgs {
    /// What is copied; or, alone, a path in the zone that is meant
    #[arg(value_name = "SRC", default_value = "/")]
    pub(crate) path: String,
    /// What is to be like it
    #[arg(value_name = "DST")]
    pub(crate) destination: Option<String>,
    /// Remove what DST has and SRC has not
    #[arg(long, requires = "destination")]
    pub(crate) delete: bool,
    /// Only tell what would be done
    #[arg(long, requires = "destination")]
    pub(crate) dry_run: bool,
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
/// With --repair --give-up-after and what was told, all behind that is cut off, and the folder opens. What is cut off is kept in files beside the log. The streams' log is told of, and
/// cut with --give-up-streams-after, in the same way.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line for each finding, and then what was looked at.
Exit status 1 when something is left that is wrong, or could not be looked at to the end.
With --json: {number, repair, began, ended, state, resumed, entries, names, files, versions, blobs, bytes, records, garbage, findings, untold, left_out};
each finding is {zone, path, file_id, fault, cause, remedy}.
Of a damaged log: {damaged, repaired, segment, offset, frame, proof, kept, give_up_after, lost, aside}; kept is {tree, lsn} of each tree, the root zone's being 0,
lost is {through, unreadable, operations, bytes, places, listed}, places are {tree, first, last}, listed are {tree, lsn, op, path, to, by, at}, and at most 1024.
Of a damaged streams' log: {damaged, repaired, segment, offset, proof, kept, give_up_streams_after, lost, aside}; kept is {stream, next}, lost is {records, bytes, streams}, streams are
{stream, first, last}.")]
pub(crate) struct FsckArgs {
    /// Repair what can be repaired without a loss
    #[arg(long)]
    pub(crate) repair: bool,
    /// Cut the damaged log of a folder that cannot be opened: all after this place is given up
    #[arg(long, value_name = "LSN", requires = "repair")]
    pub(crate) give_up_after: Option<GiveUpAfter>,
    /// Cut the damaged streams' log of a folder that cannot be opened: all after this place is given up
    #[arg(long, value_name = "SEGMENT:OFFSET", requires = "repair", conflicts_with = "give_up_after")]
    pub(crate) give_up_streams_after: Option<StreamsPlace>,
}

/// Own the data folder, and let other processes attach to it
///
/// Serves the socket `nexus.sock` in the data folder until it is interrupted or terminated, then ends the kernel in order. Meanwhile
/// every other `nexus` command on that folder attaches to it. Only processes of the same user, and of root, can attach.
///
/// Commands that wait for what others do, such as `lock`, `watch`, `pipe read --wait` and `stream tail -f`, need no `serve`: when nobody owns the folder they
/// start `nexus serve --while-used` in the background, to which all of them attach. It ends with the last of them. When there are as many clients as it takes, they wait for a place for as long
/// as they wait for others, and at least 5 seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line once it serves. With --json: {data, socket, process, agent}; agent is null for an administrator.
Exit status 1 when the kernel ends by itself.")]
pub(crate) struct ServeArgs {
    /// Who attaches is this agent, and no administrator
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Clients at once; others wait for a place [default: $NEXUS_CLIENTS, else 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: Option<u32>,
    /// End as soon as the last client has gone, or when none comes within 10 seconds
    #[arg(long)]
    pub(crate) while_used: bool,
    /// A command has started it, and attaches to it or to whoever else owns the folder
    #[arg(long, hide = true)]
    pub(crate) apart: bool,
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
    help += "What is secret is given as env:NAME or file:PATH: a variable, or a file, of the process that has the kernel, which is `nexus serve` when that runs, and this command otherwise.\n";
    help + "With --json: {path, driver, created}, and with --replace {path, driver, swapped}."
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected K=V".into()),
    }
}
