//! Files of the old store that have several names there (hard links). Who changes such a file by one of them changes it for all, and only that one is noted; the new
//! store has a file for each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::hal::ObjectInfo;

/// How many such names are remembered.
const NAMES_MAX: usize = 65_536;

/// The names that were seen.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Each file with each of its names.
    by_file: BTreeSet<(u64, String)>,
    /// Which file was seen last at each name.
    by_name: BTreeMap<String, u64>,
    /// Whether some were seen that are not remembered.
    has_missed: bool,
}

impl Twins {
    /// Takes note of what is at `path`. False when other names of it may be unknown: there are more than are remembered.
    pub(super) fn saw(&mut self, path: &str, info: &ObjectInfo) -> bool {
        if info.names < 2 {
            return true;
        }
        let seen = (info.inode, path.to_owned());
        if self.by_file.len() < NAMES_MAX || self.by_file.contains(&seen) {
            self.by_file.insert(seen);
            self.by_name.insert(path.to_owned(), info.inode);
        } else {
            self.has_missed = true;
        }
        !self.has_missed
    }

    /// All names of the file that was seen at `path`, and with `deep` of those below it.
    pub(super) fn names(&self, path: &str, deep: bool) -> BTreeSet<String> {
        let mut files: BTreeSet<u64> = self.by_name.get(path).copied().into_iter().collect();
        if deep {
            let below = if path.is_empty() { String::new() } else { format!("{path}/") };
            let there = self.by_name.range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded));
            files.extend(there.take_while(|(name, _)| name.starts_with(&below)).map(|(_, file)| *file));
        }
        let names = files.into_iter().flat_map(|file| {
            let from = self.by_file.range((file, String::new())..);
            from.take_while(move |(other, _)| *other == file)
        });
        names.map(|(_, name)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::{ContentId, EntryType, Timestamp};

    use super::*;

    fn file(inode: u64, names: u64) -> ObjectInfo {
        let mut info = ObjectInfo::new(EntryType::Reg, 1, ContentId::Tag("t".into()), Timestamp(1));
        (info.inode, info.names) = (inode, names);
        info
    }

    #[test]
    fn who_changes_one_name_has_all_of_them_looked_at() {
        let mut twins = Twins::default();
        for (path, inode, names) in [("a", 1, 2), ("d/b", 1, 2), ("c", 2, 1), ("d/e", 3, 3), ("f", 3, 3)] {
            assert!(twins.saw(path, &file(inode, names)));
        }
        let names = |twins: &Twins, path, deep| twins.names(path, deep).into_iter().collect::<Vec<_>>();
        assert_eq!(names(&twins, "a", false), ["a", "d/b"]);
        assert!(names(&twins, "c", true).is_empty() && names(&twins, "d", false).is_empty());
        assert_eq!(names(&twins, "d", true), ["a", "d/b", "d/e", "f"]);
        assert_eq!(names(&twins, "", true), names(&twins, "d", true));
        // Another file takes a name: who had it keeps it among its own, in case it was changed by that before.
        assert!(twins.saw("a", &file(3, 3)));
        assert_eq!(names(&twins, "a", false), ["a", "d/e", "f"]);
        assert_eq!(names(&twins, "d/b", false), ["a", "d/b"]);
    }

    #[test]
    fn no_more_names_are_remembered_than_there_is_room_for() {
        let mut twins = Twins::default();
        for n in 0..NAMES_MAX as u64 {
            assert!(twins.saw(&n.to_string(), &file(n, 2)));
        }
        assert!(twins.saw("7", &file(7, 2)));
        // From then on nobody knows all names of any.
        assert!(!twins.saw("more", &file(1, 2)) && !twins.saw("7", &file(7, 2)));
        assert!(twins.names("more", false).is_empty() && twins.saw("single", &file(1, 1)));
    }
}
