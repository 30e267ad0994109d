//! What is in a folder, in the order of names, a page at a time: however many names there are, a few are held.

use std::collections::{BinaryHeap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use nexus::syscall::{DirEntry, SysReaddir, SysStat};

use super::place::{BESIDE, Item, Place, during, of_host, of_space, told};
use crate::failure::{Failure, Outcome};
use crate::listing::Pages;
use crate::session::Session;

/// How many names of a folder of the host are held. They come in no order, so all of them are read for each so many.
const HOST_NAMES: usize = 16 << 10;

/// What is in one folder, from the first name to the last.
pub(super) struct Names<'a> {
    session: &'a Session,
    at: Place,
    source: Source<'a>,
    /// The last name that was given.
    last: Option<String>,
    /// Whether a name was seen that no path can have.
    unnameable: bool,
}

enum Source<'a> {
    /// Nothing is there.
    Nothing,
    Space(Pages<'a>, IntoIter<DirEntry>),
    /// And the data folder, which is never copied into itself.
    Host(Sorted, Option<PathBuf>),
}

/// One of what is in a folder.
pub(super) enum Found {
    Entry(String, Item),
    /// It cannot be told what is there; nor its name, when that is no text.
    Untold(Option<String>, Failure),
}

impl Found {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Entry(name, _) => Some(name),
            Self::Untold(name, _) => name.as_deref(),
        }
    }
}

impl<'a> Names<'a> {
    /// Of a folder that was just made.
    pub(super) fn none(session: &'a Session, at: Place) -> Self {
        Self { session, at, source: Source::Nothing, last: None, unnameable: false }
    }

    pub(super) fn of(session: &'a Session, at: Place) -> Self {
        let source = match &at {
            Place::Space(path) => {
                let listing = SysReaddir::at(path).with_metadata();
                Source::Space(Pages::new(&session.nx, listing), Vec::new().into_iter())
            }
            Place::Host(_) => Source::Host(Sorted::new(HOST_NAMES), fs::canonicalize(&session.data).ok()),
        };
        Self { source, ..Self::none(session, at) }
    }

    /// Whether there was a name, anywhere in the folder, that no path can have. Known from the first entry on.
    pub(super) fn has_unnameable(&self) -> bool {
        self.unnameable
    }

    /// The next one; none when there are no more.
    pub(super) async fn next(&mut self) -> Outcome<Option<Found>> {
        let found = match &mut self.source {
            Source::Nothing => None,
            Source::Space(pages, page) => {
                next_of_space(self.session, pages, page, &mut self.unnameable).await?
            }
            Source::Host(names, data) => {
                let Place::Host(folder) = &self.at else { return Ok(None) };
                next_of_host(folder, names, data.as_deref(), &mut self.unnameable)?
            }
        };
        if let Some(name) = found.as_ref().and_then(Found::name) {
            // Who does not find a name where it would be must be able to say that it is not there.
            if self.last.as_deref().is_some_and(|last| last >= name) {
                let why = format!("{}: its names come in no order, {name:?} after others", self.at);
                return Err(Failure::claim("sync", why));
            }
            self.last = Some(name.to_owned());
        }
        Ok(found)
    }
}

async fn next_of_space(
    session: &Session,
    pages: &mut Pages<'_>,
    page: &mut IntoIter<DirEntry>,
    unnameable: &mut bool,
) -> Outcome<Option<Found>> {
    loop {
        let Some(entry) = page.next() else {
            match pages.next().await.map_err(during)? {
                Some(next) => *page = next.into_iter(),
                None => return Ok(None),
            }
            // It is one directory.
            if let Some(failure) = pages.left_out("sync").next() {
                *unnameable = true;
                return Ok(Some(Found::Untold(None, failure)));
            }
            continue;
        };
        let Some(name) = entry.path.name().map(str::to_owned) else { continue };
        let metadata = match entry.metadata {
            Some(metadata) => metadata,
            None => session.nx.send(SysStat::at(&entry.path).no_follow()).await.map_err(during)?,
        };
        return Ok(Some(Found::Entry(name, of_space(&metadata))));
    }
}

fn next_of_host(
    folder: &Path,
    names: &mut Sorted,
    data: Option<&Path>,
    unnameable: &mut bool,
) -> Outcome<Option<Found>> {
    loop {
        let seen = |name: &OsStr| *unnameable |= name.to_str().is_none();
        let Some(name) = names.next(folder, seen).map_err(told(folder))? else { return Ok(None) };
        let at = folder.join(&name);
        if data == Some(&*at) {
            continue;
        }
        let Ok(name) = name.into_string() else {
            let why = io::Error::other("the name is not UTF-8, which a path must be (EILSEQ)");
            return Ok(Some(Found::Untold(None, told(&at)(why))));
        };
        if name.starts_with(BESIDE) {
            continue;
        }
        return Ok(Some(match fs::symlink_metadata(&at).and_then(|metadata| of_host(&at, &metadata)) {
            Ok(item) => Found::Entry(name, item),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Found::Untold(Some(name), told(&at)(error)),
        }));
    }
}

/// The names in a folder of the host, in order.
struct Sorted {
    /// How many are held.
    held_max: usize,
    held: VecDeque<OsString>,
    last: Option<OsString>,
    /// Whether there may be more than those.
    more: bool,
}

impl Sorted {
    fn new(held_max: usize) -> Self {
        Self { held_max, held: VecDeque::new(), last: None, more: true }
    }

    /// The next name. `seen` is shown each that is read on the way.
    fn next(&mut self, folder: &Path, seen: impl FnMut(&OsStr)) -> io::Result<Option<OsString>> {
        if self.held.is_empty() && self.more {
            self.fill(folder, seen)?;
        }
        Ok(self.held.pop_front())
    }

    /// Takes the first names behind the last one.
    fn fill(&mut self, folder: &Path, mut seen: impl FnMut(&OsStr)) -> io::Result<()> {
        let mut first = BinaryHeap::new();
        self.more = false;
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            seen(&name);
            if self.last.as_ref().is_some_and(|last| name <= *last) {
                continue;
            }
            first.push(name);
            if first.len() > self.held_max {
                first.pop();
                self.more = true;
            }
        }
        self.held = first.into_sorted_vec().into();
        self.last = self.held.back().cloned().or(self.last.take());
        Ok(())
    }
}

/// Where a path of the host leads, as far as there is anything.
pub(super) fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
    match there {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_folder_is_told_in_order_with_few_names_held() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected: Vec<_> = (0..50).map(|nth| format!("f{}", (nth * 37) % 50)).collect();
        for name in &expected {
            fs::write(folder.path().join(name), "").unwrap();
        }
        expected.sort_unstable();
        for held_max in [1, 7, 50, 1_000] {
            let (mut names, mut given) = (Sorted::new(held_max), Vec::new());
            while let Some(name) = names.next(folder.path(), |_| {}).unwrap() {
                assert!(names.held.len() < held_max);
                given.push(name.into_string().unwrap());
            }
            assert_eq!(given, expected, "{held_max}");
        }
    }

    #[test]
    fn a_path_leads_where_its_beginning_does() {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(top.join("a")).unwrap();
        std::os::unix::fs::symlink("a", top.join("b")).unwrap();
        assert_eq!(real(&top.join("b/c/d")), top.join("a/c/d"));
        assert_eq!(real(&top.join("b")), top.join("a"));
    }
}
