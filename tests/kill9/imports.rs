//! Imports: what of a folder of the host must be there, and may.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nexus::blocking;

use crate::books::Node;
use crate::client::read_tree;
use crate::plan::Random;

/// Where imports go.
pub(crate) const TO: &str = "/i";

/// Files of an import.
const FILES: u64 = 90;

/// An import that was killed, or came to its end.
pub(crate) struct Imported {
    pub(crate) source: PathBuf,
    /// The paths that it told as done.
    pub(crate) acknowledged: BTreeSet<String>,
}

/// Makes a folder of the host anew: most files are kept with their rows, some are not.
pub(crate) fn fill(folder: &Path, random: &mut Random) {
    // There is none at first.
    let _ = fs::remove_dir_all(folder);
    for number in 0..FILES {
        let below = folder.join(format!("{}", number % 7));
        fs::create_dir_all(&below).expect("there is room");
        let length = match random.below(20) {
            0 => (1 << 20) + random.below(500_000),
            1 | 2 => random.below(200_000),
            _ => random.below(3_000),
        };
        fs::write(below.join(format!("{number}")), random.content(length)).expect("there is room");
    }
}

impl Imported {
    /// Holds what is there against the source, and removes it. Gives what is wrong.
    pub(crate) fn check(self, nx: &blocking::Nexus) -> Result<(), String> {
        let found = read_tree(nx, TO)?;
        for path in &self.acknowledged {
            if !found.contains_key(path) {
                return Err(format!("{path} was told as imported, and is not there"));
            }
        }
        for (path, node) in &found {
            let host = self.source.join(path[TO.len()..].trim_start_matches('/'));
            let is_same = match node {
                Node::Dir => host.is_dir(),
                Node::File(content) => fs::read(&host).is_ok_and(|whole| whole == content[..]),
                Node::Link(_) => false,
            };
            if !is_same {
                return Err(format!("{path} is {node:?}, and not {}", host.display()));
            }
        }
        if !found.is_empty() {
            nx.remove_all(TO).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
