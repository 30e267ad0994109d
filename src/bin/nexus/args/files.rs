//! What is in the namespace: copied in and out, listed, read, changed, looked for.

use std::path::PathBuf;

use clap::Args;

use crate::past::{Then, moment};

/// Copy a file or a directory tree of the host in
///
/// Modes and times of change are kept, symbolic links stay links with their targets verbatim. Each file is written whole, with its
/// attributes, in one commit: after a crash it is either there or not. Importing again completes an interrupted import: what is there
/// with the same type, size, mode and time of change is not written again. Sockets, pipes and devices are told and skipped, and so are
/// empty folders where folders are only implied, as in a bucket. A name that is not UTF-8 is told as a failure, and the rest goes on. The
/// data folder itself is left out.
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
/// in the way is replaced, never followed, and stays as it is until the new one is whole; a directory there is filled up.
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
generation, file_id, zone, implicit}; of one whose metadata is damaged {path, type, file_id, error: {errno, cause}}. The times are null
where nobody keeps one, as of a folder of a bucket; -l has a - for that.")]
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

/// Under which lock a command changes something.
#[derive(Debug, Default, Args)]
pub(crate) struct FenceArgs {
    /// Only while the lock is held that $NEXUS_LOCK_PATH and $NEXUS_LOCK_TOKEN name, which `lock` sets for its command; EFENCED otherwise
    #[arg(long)]
    pub(crate) fenced: bool,
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
    #[command(flatten)]
    pub(crate) fence: FenceArgs,
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
    #[command(flatten)]
    pub(crate) fence: FenceArgs,
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
    #[command(flatten)]
    pub(crate) fence: FenceArgs,
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
    #[command(flatten)]
    pub(crate) fence: FenceArgs,
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
    #[command(flatten)]
    pub(crate) fence: FenceArgs,
}

/// Copy a file, or with -r a directory and all below it, also across mounts
///
/// B is the path of the copy itself, never a directory to copy into; with -r a directory at B is filled up. Links are followed at A, and
/// copied as links below it. Where folders are only implied, as in a bucket, those come that hold something; empty ones are told and
/// skipped.
#[derive(Debug, Args)]
#[command(after_help = "With --json: {from, to, files, bytes, directories, links, skipped, failed}.")]
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
