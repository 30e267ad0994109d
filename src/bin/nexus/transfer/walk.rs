//! Finds what there is to import below a directory of the host.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::{DirEntry, Walk, WalkBuilder};
use nexus::syscall::SysStat;
use nexus::{Error, ErrorKind, Nexus, Op, VPath};
use nexus_actors::block_on;

use super::Transfer;
use crate::failure::{Failure, shown};
use crate::session::Session;

/// An entry of the host that can be imported.
pub(super) struct Found {
    /// Where it is on the host.
    pub(super) host: PathBuf,
    /// Where it goes.
    pub(super) path: VPath,
    pub(super) kind: Kind,
    /// How deep it lies below the source, which is 0.
    pub(super) depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
}

/// Which file of the host something is, whatever path leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// What is taken below the source, and what is told and left out.
struct Rules {
    source: PathBuf,
    destination: VPath,
    nx: Nexus,
    /// The data folder is never imported into itself.
    data: Option<Identity>,
    /// Whether `.git` is left out, with what `.gitignore` ignores.
    tracked_only: bool,
}

/// Walks the tree below `source`, each directory before what it holds. What cannot be taken is told to `transfer`.
pub(super) fn walk(
    session: &Arc<Session>,
    transfer: &Arc<Transfer>,
    source: &Path,
    destination: &VPath,
    tracked_only: bool,
) -> impl Iterator<Item = Found> + use<> {
    let rules = Arc::new(Rules {
        source: source.to_owned(),
        destination: destination.clone(),
        nx: session.nx.clone(),
        data: fs::metadata(&session.data).ok().map(|metadata| Identity::of(&metadata)),
        tracked_only,
    });
    let tell = {
        let (session, transfer) = (session.clone(), transfer.clone());
        move |told: Told| match told {
            Told::Skipped(what) => transfer.skip(&session.out, what),
            Told::Failed(failure) => transfer.fail(&session.out, &failure),
        }
    };
    let (admits, tells) = (rules.clone(), tell.clone());
    let found: Walk = builder(source, tracked_only)
        .filter_entry(move |entry| match admits.look(entry) {
            Ok(admitted) => admitted,
            Err(told) => {
                tells(told);
                false
            }
        })
        .build();
    found.filter_map(move |entry| match entry.map_err(|error| failed(&rules.source, &error)) {
        Ok(entry) => match rules.found(&entry) {
            Ok(found) => Some(found),
            Err(told) => {
                tell(told);
                None
            }
        },
        Err(failure) => {
            tell(Told::Failed(failure));
            None
        }
    })
}

/// Tells `transfer` how many files there are, for its bar. What cannot be taken is told by the walk.
pub(super) fn count(transfer: &Transfer, source: &Path, tracked_only: bool) {
    let unwanted = move |entry: &DirEntry| tracked_only && entry.file_name() == ".git";
    let found = builder(source, tracked_only).filter_entry(move |entry| !unwanted(entry)).build();
    for entry in found.flatten() {
        if transfer.is_hopeless() {
            break;
        }
        if entry.file_type().is_some_and(|file_type| file_type.is_file()) {
            transfer.expect_file();
        }
    }
}

fn builder(source: &Path, tracked_only: bool) -> WalkBuilder {
    let mut builder = WalkBuilder::new(source);
    builder.standard_filters(false).git_ignore(tracked_only).parents(tracked_only);
    builder.require_git(false).follow_links(false);
    builder
}

/// An entry that is not imported.
enum Told {
    Skipped(String),
    Failed(Failure),
}

impl Rules {
    /// Whether the entry, which is not the source itself, is imported, and what is below it looked at.
    fn look(&self, entry: &DirEntry) -> Result<bool, Told> {
        if self.tracked_only && entry.file_name() == ".git" {
            return Ok(false);
        }
        let found = self.found(entry)?;
        if found.kind == Kind::Directory {
            if self.is_data_folder(entry.path()) {
                return Ok(false);
            }
            self.check_way(&found.path)?;
        }
        Ok(true)
    }

    fn found(&self, entry: &DirEntry) -> Result<Found, Told> {
        let host = entry.path();
        let path = self.path_of(host).map_err(Told::Failed)?;
        let kind = match entry.file_type() {
            // The source itself may be named by a link.
            Some(file_type) if file_type.is_symlink() && entry.depth() == 0 => Kind::Directory,
            Some(file_type) if file_type.is_dir() => Kind::Directory,
            Some(file_type) if file_type.is_file() => Kind::File,
            Some(file_type) if file_type.is_symlink() => Kind::Link,
            other => {
                let what = match other {
                    Some(file_type) if file_type.is_socket() => "a socket",
                    Some(file_type) if file_type.is_fifo() => "a pipe",
                    _ => "a device",
                };
                return Err(Told::Skipped(format!(
                    "import {}: skipped: {what} has no content to keep",
                    shown(host)
                )));
            }
        };
        Ok(Found { host: host.to_owned(), path, kind, depth: entry.depth() })
    }

    fn path_of(&self, host: &Path) -> Result<VPath, Failure> {
        let relative = host.strip_prefix(&self.source).unwrap_or(Path::new(""));
        let Some(text) = relative.to_str() else {
            let why = "the name is not UTF-8, which a path must be";
            let error = io::Error::new(io::ErrorKind::InvalidData, format!("{why} (EILSEQ)"));
            return Err(Failure::host("import", host, error));
        };
        let joined = self.destination.join_relative(text);
        joined
            .map_err(|why| Error::bad_path(Op::Import, &format!("{}/{text}", self.destination), &why).into())
    }

    fn is_data_folder(&self, host: &Path) -> bool {
        let Some(data) = self.data else { return false };
        fs::symlink_metadata(host).is_ok_and(|metadata| Identity::of(&metadata) == data)
    }

    /// A link in the place of a directory would lead what is below it somewhere else.
    fn check_way(&self, path: &VPath) -> Result<(), Told> {
        let there = block_on(self.nx.send(SysStat::at(path).no_follow()));
        match there {
            Ok(entry) if !entry.is_directory() => {
                let error = Error::new(Op::Import, path, ErrorKind::NotADirectory);
                let why = format!("a {} is there, and a directory is to be imported", entry.entry_type);
                Err(Told::Failed(error.because(why).into()))
            }
            _ => Ok(()),
        }
    }
}

/// An error of the walk: a directory that cannot be read, an entry that went away.
fn failed(source: &Path, error: &ignore::Error) -> Failure {
    let path = blamed(error).unwrap_or(source).to_owned();
    let host = error.io_error().and_then(io::Error::raw_os_error).map(io::Error::from_raw_os_error);
    Failure::Host { op: "import", path, error: host.unwrap_or_else(|| io::Error::other(error.to_string())) }
}

fn blamed(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithLineNumber { err, .. } | ignore::Error::WithDepth { err, .. } => blamed(err),
        _ => None,
    }
}
