//! The language of the claims.
//!
//! One call a line: a verb, its arguments, and what comes of it. `= TEXT` is what the call must answer, `! ERRNO` how it must fail; a line with neither
//! must succeed. An argument is a word; `""` is an empty one, and `\0`, `\n`, `\s` stand for NUL, line feed and space.
//!
//! After each call that fails, everything must be as it was before it: names, metadata and content.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus::blocking::{self, Nexus};
use nexus::{
    Attributes, Config, EntryType, Error, ErrorKind, FileMetadata, MountSpec, Op, Result, Serving, SysCopy,
    SysSetattr, SysWrite, VPath,
};

/// What `/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// Rows in redb, content by its hash on disk: the default.
    CasLocal,
    /// An existing folder, whose files stay plain files.
    PathLocal,
    /// Rows and content in memory.
    Memory,
    /// A file system in memory.
    MemoryPath,
    /// The default, called through the socket of who owns it.
    Attached,
}

/// Every kind of mount.
pub(crate) const ALL: [Root; 5] =
    [Root::CasLocal, Root::PathLocal, Root::Memory, Root::MemoryPath, Root::Attached];

/// Mounts on which names are rows of the metastore.
pub(crate) const ROWS: [Root; 3] = [Root::CasLocal, Root::Memory, Root::Attached];

/// A kernel whose `/` is `root`, and what it stands on.
pub(crate) struct Bench {
    pub(crate) nx: Nexus,
    root: Root,
    /// Whose kernel it is, when it is not `nx` itself.
    _owner: Option<Nexus>,
    _folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(root: Root) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let plain = MountSpec::new("path-local").option("folder", folder.path().display().to_string());
        let config = match root {
            Root::CasLocal => Config::new(folder.path()),
            Root::Attached => Config::new(folder.path()).serve(Serving::administrator()),
            Root::PathLocal => Config::in_memory().root(plain),
            Root::Memory => Config::in_memory(),
            Root::MemoryPath => Config::in_memory().root(MountSpec::new("memory-path")),
        };
        let owner = blocking::connect(config).expect("it boots");
        let (nx, owner) = match root {
            Root::Attached => (blocking::attach(folder.path()).expect("it is served"), Some(owner)),
            _ => (owner, None),
        };
        Self { nx, root, _owner: owner, _folder: folder }
    }

    /// Runs a script.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (call, expected) = match (line.split_once(" = "), line.split_once(" ! ")) {
                (Some((call, answer)), None) => (call, Expected::Answer(unescape(answer))),
                (None, Some((call, errno))) => (call, Expected::Failure(errno)),
                _ => (line, Expected::Success),
            };
            let before = matches!(expected, Expected::Failure(_)).then(|| self.everything());
            let words: Vec<String> = call.split_whitespace().map(unescape).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let done = self.call(&words);
            match (&expected, &done) {
                (Expected::Success, Ok(_)) => {}
                (Expected::Answer(answer), Ok(done)) if answer == done => {}
                (Expected::Failure(errno), Err(error)) if *errno == error.errno().name() => {}
                _ => panic!("on {:?}: {line}\n   gave {done:?}\n  where {expected:?} was due", self.root),
            }
            if let Some(before) = before {
                assert_eq!(self.everything(), before, "on {:?}: {line}: changed something", self.root);
            }
        }
    }

    fn call(&self, words: &[&str]) -> Result<String> {
        let nx = &self.nx;
        let path = |text: &str| VPath::parse(text).map_err(|why| Error::bad_path(Op::Write, text, &why));
        let number = |text: &str| text.parse::<u64>().expect("a number");
        Ok(match *words {
            ["write", at, data] => written(&nx.write(at, data.to_owned())?),
            ["append", at, data] => written(&nx.append(at, data.to_owned())?),
            ["overwrite", at, data] => written(&nx.send(SysWrite::at(path(at)?, data.to_owned()))?),
            ["write_new", at, data] => {
                written(&nx.send(SysWrite::at(path(at)?, data.to_owned()).create_exclusive())?)
            }
            ["pwrite", at, offset, data] => {
                written(&nx.send(SysWrite::at(path(at)?, data.to_owned()).offset(number(offset)))?)
            }
            ["pwrite_end", at, offset, data] => {
                let call = SysWrite::at(path(at)?, data.to_owned()).offset(number(offset)).truncate();
                written(&nx.send(call)?)
            }
            ["edit", at, old, new] => nx.edit(at, old.to_owned(), new.to_owned())?.places.to_string(),
            ["edit_all", at, old, new] => nx.edit_all(at, old.to_owned(), new.to_owned())?.places.to_string(),
            ["read", at] => text(&nx.read(at)?),
            ["pread", at, offset, count] => text(&nx.read_range(at, number(offset), number(count))?),
            ["stat", at] => described(&*nx.stat(at)?),
            ["lstat", at] => described(&*nx.lstat(at)?),
            ["versions", at] => {
                let found = nx.stat(at)?;
                format!("{} {}", found.version, found.generation)
            }
            ["mode", at] => format!("{:o}", nx.stat(at)?.mode),
            ["mime", at] => nx.stat(at)?.mime().to_owned(),
            ["where", at] => nx.stat(at)?.path.to_string(),
            ["exists", at] => nx.exists(at)?.to_string(),
            ["is_directory", at] => nx.is_directory(at)?.to_string(),
            ["mkdir", at] => created(nx.mkdir(at)?.created),
            ["mkdir_new", at] => created(nx.mkdir_new(at)?.created),
            ["touch", at] => created(nx.send(SysSetattr::file(path(at)?))?.created),
            ["chmod", at, mode] => {
                let mode = u32::from_str_radix(mode, 8).expect("an octal number");
                let call = SysSetattr::at(path(at)?).attributes(Attributes::none().mode(mode));
                format!("{:?}", nx.send(call)?.changed)
            }
            ["make", at, number_of_type] => {
                let kind = EntryType::from_number(number_of_type.parse().expect("a number")).expect("a type");
                let mut call = SysSetattr::file(path(at)?);
                call.entry_type = Some(kind);
                created(nx.send(call)?.created)
            }
            ["link", at, target] => created(nx.link(at, target)?.created),
            ["rmdir", at] => nx.rmdir(at)?.removed.to_string(),
            ["unlink", at] => nx.unlink(at)?.removed.to_string(),
            ["remove_all", at] => nx.remove_all(at)?.removed.to_string(),
            ["rename", from, to] => {
                (if nx.rename(from, to)?.replaced { "replaced" } else { "moved" }).to_owned()
            }
            ["rename_new", from, to] => {
                (if nx.rename_new(from, to)?.replaced { "replaced" } else { "moved" }).to_owned()
            }
            ["copy", from, to] => created(nx.copy(from, to)?.created),
            ["copy_new", from, to] => {
                created(nx.send(SysCopy::new(path(from)?, path(to)?).no_replace())?.created)
            }
            ["ls", at] => {
                let entries = nx.readdir(at)?;
                entries.iter().map(|entry| entry.name().to_owned()).collect::<Vec<_>>().join(" ")
            }
            ["walk", at] => {
                let entries: Vec<_> = nx.walk(at).collect::<Result<_>>()?;
                entries.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>().join(" ")
            }
            ["glob", pattern] => nx.glob(pattern)?.iter().map(VPath::to_string).collect::<Vec<_>>().join(" "),
            ["mount", at, driver] => created(nx.mount(at, MountSpec::new(driver))?.created),
            ["mount_read_only", at, driver] => {
                created(nx.mount(at, MountSpec::new(driver).read_only())?.created)
            }
            ["unmount", at] => nx.unmount(at)?.removed.to_string(),
            _ => panic!("no such call: {words:?}"),
        })
    }

    /// All that can be seen, below all mounts.
    fn everything(&self) -> BTreeMap<VPath, (Arc<FileMetadata>, String)> {
        let mut seen = BTreeMap::new();
        for entry in self.nx.walk("/") {
            let path = match entry {
                Ok(entry) => entry.path,
                // Nothing is mounted: there is nothing to see.
                Err(error) if error.kind() == ErrorKind::NoMount => break,
                Err(error) => panic!("{error}"),
            };
            let metadata = self.nx.lstat(&path).expect("it was listed");
            let content = match metadata.entry_type {
                EntryType::Reg => text(&self.nx.read(&path).expect("it was listed")),
                _ => String::new(),
            };
            seen.insert(path, (metadata, content));
        }
        seen
    }
}

#[derive(Debug)]
enum Expected<'a> {
    Success,
    Answer(String),
    Failure(&'a str),
}

fn unescape(word: &str) -> String {
    match word {
        "\"\"" => String::new(),
        _ => word.replace("\\0", "\0").replace("\\n", "\n").replace("\\s", " "),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn created(created: bool) -> String {
    (if created { "created" } else { "there" }).to_owned()
}

fn written(done: &nexus::Written) -> String {
    match done.old_size {
        None => format!("created {}", done.written),
        Some(old) => format!("{} over {old}", done.written),
    }
}

fn described(metadata: &FileMetadata) -> String {
    match metadata.entry_type {
        EntryType::Reg => format!("file {}", metadata.size),
        EntryType::Dir => "directory".into(),
        EntryType::Mount => "mount".into(),
        EntryType::Link => format!("link {}", metadata.link_target.as_deref().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// Runs the script on every kind of mount.
#[track_caller]
pub(crate) fn check(script: &str) {
    check_on(&ALL, script);
}

/// Runs the script on these kinds of mounts.
#[track_caller]
pub(crate) fn check_on(roots: &[Root], script: &str) {
    for root in roots {
        Bench::new(*root).run(script);
    }
}

/// Checks how a call failed.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, text: &str) {
    let error = result.expect_err("it is refused");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}
