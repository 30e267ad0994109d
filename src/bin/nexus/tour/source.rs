//! What the tour is given to work on.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::writer::content;
use crate::failure::{Failure, Outcome};

/// A directory of the host.
pub(super) struct Source {
    pub(super) folder: PathBuf,
    /// Whether it was made for this tour.
    pub(super) made: bool,
}

impl Source {
    /// The folder that was asked for, or the current one; when there is nothing in it, a small tree that is made in `spare`.
    pub(super) fn choose(asked: Option<PathBuf>, spare: &Path) -> Outcome<Self> {
        let folder = asked.unwrap_or_else(|| PathBuf::from("."));
        let folder = folder.canonicalize().map_err(|error| Failure::host("tour", &folder, error))?;
        let empty =
            fs::read_dir(&folder).map_err(|error| Failure::host("tour", &folder, error))?.next().is_none();
        if !empty {
            return Ok(Self { folder, made: false });
        }
        let folder = spare.join("tree");
        make(&folder).map_err(|error| Failure::host("tour", &folder, error))?;
        Ok(Self { folder, made: true })
    }
}

/// A tree with some of everything: many small files, binary ones, deep folders, an empty one, links, odd names and modes.
fn make(folder: &Path) -> io::Result<()> {
    for chapter in 0..20 {
        let below = folder.join(format!("chapter-{chapter:02}"));
        fs::create_dir_all(&below)?;
        for page in 0..25 {
            let text: String =
                (0..40).map(|line| format!("line {line}: the page {page} of {chapter}\n")).collect();
            fs::write(below.join(format!("page {page:02}.txt")), text)?;
        }
        fs::write(below.join("image.bin"), [&[0_u8], &*content(&format!("image {chapter}"))].concat())?;
    }
    let deep = (0..30).fold(folder.to_owned(), |path, level| path.join(format!("level-{level}")));
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("bottom"), "the bottom\n")?;
    fs::create_dir(folder.join("empty"))?;
    fs::write(folder.join("ünïcode 名前.md"), "# the odd name\n")?;
    fs::write(folder.join("run.sh"), "#!/bin/sh\necho the end\n")?;
    fs::set_permissions(folder.join("run.sh"), fs::Permissions::from_mode(0o755))?;
    symlink("chapter-00/page 00.txt", folder.join("first"))?;
    symlink("nowhere", folder.join("dangling"))
}
