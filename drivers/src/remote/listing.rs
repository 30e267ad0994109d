//! Folders of keys, in the order of names.
//!
//! Servers list by the bytes of keys, and a folder's key ends with a slash: `a.txt` comes before `a/`. By name, which callers go by, `a` comes before `a.txt`.
//! What a page leaves open is only whether beginnings of its last key are folders too, which come later; those few are looked for by themselves.
//!
//! A page with a key in it that is no path, the library does not give. Then fewer keys are asked for, until that one comes by itself: it is counted, and the
//! listing goes on behind it. A server that knows no offset has no way there.

use std::collections::{BTreeMap, BTreeSet};

use nexus_kernel::hal::StoreError;
use object_store::ObjectMeta;
use object_store::list::PaginatedListResult;

use super::client::{Client, PAGE_MAX, Page};
use super::errors::no_path;

/// What the names begin with that drivers use themselves, below a mount's prefix. Listings leave them out.
pub(super) const RESERVED: &str = ".nexus-";

/// The most pages that are asked for one listing which finds nothing new: a server that knows no offset begins each time from the start.
pub(super) const PAGES_MAX: usize = 10_000;

/// A part of a folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Names, with what the file of that name is; none for a folder.
    pub(super) names: BTreeMap<String, Option<ObjectMeta>>,
    /// Whether there may be more behind the last one.
    pub(super) more: bool,
    /// Whether the folder itself has a key, with a slash at its end, as some tools make them.
    pub(super) marked: bool,
    /// Keys and folders that are no paths, below the folder.
    pub(super) no_paths: Vec<String>,
    /// Names of files that are folders, too.
    pub(super) both: BTreeSet<String>,
}

impl Found {
    /// Takes a page of what is below `folder`, and gives the last key of it, below the folder.
    fn take(&mut self, at: At<'_>, page: PaginatedListResult) -> Option<String> {
        let At { folder, after, hides } = at;
        let mut last = None::<String>;
        let mut note = |key: String| last = last.take().max(Some(key));
        let is_wanted = |name: &str| {
            let is_own = hides && name.starts_with(RESERVED);
            after.is_none_or(|after| name > after) && !name.is_empty() && !is_own
        };
        for meta in page.result.objects {
            let Some(name) = meta.location.as_ref().strip_prefix(folder).map(str::to_owned) else {
                self.marked = true;
                continue;
            };
            note(name.clone());
            if is_wanted(&name) {
                // Where a name is both, the file is what is shown.
                if self.names.insert(name.clone(), Some(meta)).is_some_and(|known| known.is_none()) {
                    self.both.insert(name);
                }
            }
        }
        for prefix in page.result.common_prefixes {
            let Some(name) = prefix.as_ref().strip_prefix(folder) else { continue };
            note(format!("{name}/"));
            if is_wanted(name) && self.names.entry(name.to_owned()).or_default().is_some() {
                self.both.insert(name.to_owned());
            }
        }
        last
    }
}

/// The beginnings of `last`, a key below a folder, that are folders' names if their keys come behind it; that of a file itself among them.
fn open_names(last: &str) -> impl Iterator<Item = &str> {
    let (name, itself) = match last.strip_suffix('/') {
        Some(folder) => (folder, None),
        None => (last, Some(last)),
    };
    let before = name.bytes().enumerate().filter(|(at, byte)| *at > 0 && *byte < b'/');
    before.map(|(at, _)| &name[..at]).chain(itself.filter(|name| !name.is_empty()))
}

/// Where is looked.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    /// What the keys in the folder begin with: nothing, or with a slash at the end.
    pub(super) folder: &'a str,
    /// Greater names than this one are wanted.
    pub(super) after: Option<&'a str>,
    /// Whether names of the driver's own are left out.
    pub(super) hides: bool,
}

/// What is in a folder, in order. At least `limit` names, if there are so many.
pub(super) async fn of(client: &Client, at: At<'_>, limit: usize) -> Result<Found, StoreError> {
    let At { folder, after, .. } = at;
    let mut found = Found::default();
    let (most, mut token) = (limit.min(PAGE_MAX), None::<String>);
    let (mut step, mut offset) = (most, after.map(|after| [folder, after].concat()));
    for _ in 0..PAGES_MAX {
        let page = client.page_or_key(folder.to_owned(), offset.clone(), step, true, token.clone()).await?;
        let page = match page {
            Page::Keys(page) => page,
            Page::NoPath(_) if step > 1 => {
                step /= 2;
                continue;
            }
            Page::NoPath(key) => {
                let below = key.strip_prefix(folder).unwrap_or(&key).to_owned();
                // All that is in a folder comes with it.
                let end = if key.ends_with('/') { "\u{10ffff}" } else { "" };
                let behind = Some([&key, end].concat());
                if behind <= offset || found.no_paths.contains(&below) {
                    return Err(no_path(format!("listing {folder:?}")));
                }
                found.no_paths.push(below);
                (step, offset, token) = (most, behind, None);
                continue;
            }
        };
        token = page.page_token.clone();
        let last = found.take(at, page);
        found.more = token.is_some();
        if !found.more {
            return Ok(found);
        }
        if found.names.len() < limit {
            continue;
        }
        let last = last.unwrap_or_default();
        for name in open_names(&last).filter(|name| after.is_none_or(|after| *name > after)) {
            let known = found.names.get(name);
            if known.is_some_and(Option::is_none) || !has_below(client, &format!("{folder}{name}/")).await? {
                continue;
            }
            match known {
                Some(_) => drop(found.both.insert(name.to_owned())),
                None => drop(found.names.insert(name.to_owned(), None)),
            }
        }
        return Ok(found);
    }
    Err(StoreError::Backend { what: format!("listing {folder:?}"), cause: "it does not end".into() })
}

/// Whether any key begins with `folder`.
pub(super) async fn has_below(client: &Client, folder: &str) -> Result<bool, StoreError> {
    Ok(match client.page_or_key(folder.to_owned(), None, 1, false, None).await? {
        Page::Keys(page) => !page.result.objects.is_empty() || !page.result.common_prefixes.is_empty(),
        Page::NoPath(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_by_key_and_earlier_by_name_is_looked_for() {
        let check = |last: &str, expected: &[&str]| {
            assert_eq!(open_names(last).collect::<Vec<_>>(), expected, "{last}");
        };
        check("a.txt", &["a", "a.txt"]);
        check("a-b.c", &["a", "a-b", "a-b.c"]);
        check("a b/", &["a"]);
        check("plain", &["plain"]);
        check("plain/", &[]);
        check(".hidden", &[".hidden"]);
        check("ä.b", &["ä", "ä.b"]);
        check("", &[]);
    }
}
