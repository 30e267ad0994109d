//! What is known of the folders of a store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use nexus_kernel::hal::{ListPage, ObjectInfo};
use nexus_messages::ContentId;

use super::table::{Age, Table, below, directory, name, parent};
use super::vault::Vault;
use super::{FOLDERS_MAX, NAMES_MAX};

/// What is let go at once when there are too many: an eighth.
const SHARE: usize = 8;

/// What a folder was seen to hold.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) seen: u64,
    /// All of it; none when there was more than a page.
    pub(super) children: Option<BTreeMap<String, ObjectInfo>>,
}

impl Table {
    /// Whether the folder was seen within `age`, and has more than a page.
    pub(super) fn is_large(&self, folder: &str, age: Age) -> bool {
        self.folders.get(folder).is_some_and(|folder| age.covers(folder.seen) && folder.children.is_none())
    }

    /// Takes what was seen of a whole folder, if nothing changed in it meanwhile; `children` is none when it has more than a page.
    pub(super) fn learn_folder(
        &mut self,
        folder: &str,
        children: Option<BTreeMap<String, ObjectInfo>>,
        now: u64,
    ) {
        if self.folders.len() >= FOLDERS_MAX && !self.folders.contains_key(folder) {
            let mut seen: Vec<(u64, String)> =
                self.folders.iter().map(|(path, folder)| (folder.seen, path.clone())).collect();
            seen.sort_unstable();
            for (_, path) in seen.into_iter().take(FOLDERS_MAX / SHARE) {
                self.folders.remove(&path);
            }
        }
        self.folders.insert(folder.to_owned(), Folder { seen: now, children });
    }

    /// A page of a folder that was seen within `age`; none when it was not.
    pub(super) fn listing(
        &self,
        folder: &str,
        after: Option<&str>,
        limit: usize,
        age: Age,
    ) -> Option<ListPage> {
        let seen = self.folders.get(folder).filter(|folder| age.covers(folder.seen))?;
        let children = seen.children.as_ref()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = children.range::<str, _>((from, Bound::Unbounded));
        let page: Vec<_> =
            rest.by_ref().take(limit).map(|(name, info)| (name.clone(), info.clone())).collect();
        Some(ListPage::new(page, rest.next().is_some(), 0))
    }

    /// Notes that something changed at `path`: what is being asked about its folders is not to be believed.
    pub(super) fn touch(&mut self, path: &str) {
        let mut folder = path;
        while !folder.is_empty() {
            folder = parent(folder);
            if let Some(asked) = self.asked.get_mut(folder) {
                asked.1 += 1;
            }
        }
    }

    /// Notes that there is a file at `path` now, which was not, or was another.
    pub(super) fn note(&mut self, path: &str, info: &ObjectInfo) {
        self.touch(path);
        self.note_there(path, info);
    }

    /// Has the folders above `path` hold what is there, where they are known.
    pub(super) fn note_there(&mut self, path: &str, info: &ObjectInfo) {
        if path.is_empty() {
            return;
        }
        self.note_child(path, info);
        let mut above = parent(path);
        while !above.is_empty() {
            self.note_child(above, &directory());
            above = parent(above);
        }
    }

    fn note_child(&mut self, path: &str, info: &ObjectInfo) {
        let Some(folder) = self.folders.get_mut(parent(path)) else { return };
        let Some(children) = &mut folder.children else { return };
        let there = children.entry(name(path).to_owned()).or_insert_with(|| info.clone());
        // A folder that is known better stays what it is.
        if !(there.entry_type.is_directory() && info.entry_type.is_directory()) {
            there.clone_from(info);
        }
        if children.len() > NAMES_MAX {
            folder.children = None;
        }
    }

    /// What the folder of `path` says of it bears the tag of the store from now on, if it bore the other one, which nobody knows any more.
    pub(super) fn note_unknown(&mut self, path: &str, other: &ContentId, tag: &ContentId) {
        let children = self.folders.get_mut(parent(path)).and_then(|folder| folder.children.as_mut());
        let there = children.and_then(|children| children.get_mut(name(path)));
        if let Some(there) = there.filter(|there| there.tag == *other) {
            there.tag = tag.clone();
        }
    }

    /// Notes that the store says that nothing is at `path`.
    pub(super) fn note_missing(&mut self, path: &str) {
        let children = self.folders.get(parent(path)).and_then(|folder| folder.children.as_ref());
        if children.is_some_and(|children| children.contains_key(name(path))) {
            self.note_gone(path);
        }
    }

    /// Notes that nothing is at `path` any more.
    pub(super) fn note_gone(&mut self, path: &str) {
        self.touch(path);
        let mut folder = parent(path);
        if let Some(Folder { children: Some(children), .. }) = self.folders.get_mut(folder) {
            children.remove(name(path));
            if !children.is_empty() {
                return;
            }
        }
        // Whether folders stay that are empty, the store knows.
        loop {
            self.folders.remove(folder);
            if folder.is_empty() {
                return;
            }
            folder = parent(folder);
        }
    }

    /// Forgets all that was seen at `path` and below, where nothing is pending; and what folders hold.
    pub(super) fn forget_within(&mut self, vault: &Arc<Vault>, path: &str) {
        self.touch(path);
        self.folders.clear();
        let prefix = below(path);
        for (folder, asked) in &mut self.asked {
            asked.1 += u64::from(folder == path || folder.starts_with(&prefix));
        }
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let within = self.files.range::<str, _>(from).map(|(path, _)| path);
        let mut within: Vec<String> = within.take_while(|path| path.starts_with(&prefix)).cloned().collect();
        within.push(path.to_owned());
        for path in within {
            if !self.is_pending(&path) {
                self.forget(vault, &path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nexus_actors::Env;
    use nexus_kernel::hal::ObjectInfo;
    use nexus_messages::{EntryType, Timestamp};

    use super::*;
    use crate::cached::place::Place;

    fn file() -> ObjectInfo {
        ObjectInfo::new(EntryType::Reg, 1, ContentId::Tag("t".into()), Timestamp(1))
    }

    #[test]
    fn what_is_asked_below_a_folder_that_moves_is_not_believed() {
        let (env, simulation) = Env::seeded(1);
        let vault = simulation.block_on(Vault::in_memory(&env)).unwrap();
        let place = Arc::new(Place::new([0; 16]));
        for (moved, is_believed) in
            [("d", false), ("d/e", false), ("d/e/f", false), ("", false), ("de", true)]
        {
            let asking = place.ask("d/e");
            place.table().forget_within(&vault, moved);
            assert_eq!(asking.holds(&place.table()), is_believed, "{moved:?}");
        }
    }

    #[test]
    fn a_folder_that_grows_beyond_a_page_is_not_known_as_a_whole() {
        let (env, simulation) = Env::seeded(1);
        let vault = simulation.block_on(Vault::in_memory(&env)).unwrap();
        let mut table = Table::new([0; 16]);
        let age = Age { since: 0, now: 9 };
        table.learn_folder("d", Some(BTreeMap::new()), 5);
        for n in 0..NAMES_MAX {
            table.note_written(&vault, &format!("d/{n}"), &file(), 5, false);
        }
        assert!(!table.is_large("d", age));
        table.note_written(&vault, "d/one-more", &file(), 5, false);
        assert!(table.is_large("d", age) && table.listing("d", None, 1, age).is_none());
    }

    #[test]
    fn a_folder_stays_what_the_store_said_of_it_when_something_comes_into_it() {
        let (env, simulation) = Env::seeded(1);
        let vault = simulation.block_on(Vault::in_memory(&env)).unwrap();
        let mut table = Table::new([0; 16]);
        let mut folder = directory();
        folder.mode = 0o700;
        table.learn_folder("", Some([("d".to_owned(), folder.clone())].into()), 5);
        table.note_written(&vault, "d/f", &file(), 5, false);
        table.note_written(&vault, "e/f", &file(), 5, false);
        let page = table.listing("", None, 9, Age { since: 0, now: 9 }).unwrap();
        assert_eq!(page.entries, [("d".to_owned(), folder), ("e".to_owned(), directory())]);
    }
}
