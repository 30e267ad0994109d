//! Folders of keys, in the order of names.
//!
//! Servers list by the bytes of keys, and a folder's key ends with a slash: `a.txt` comes before `a/`. By name, which callers go by, `a` comes before `a.txt`.
//! What a page leaves open is only whether beginnings of its last key are folders too, which come later; those few are looked for by themselves.

use std::collections::BTreeMap;

use nexus_kernel::hal::StoreError;
use object_store::ObjectMeta;
use object_store::list::PaginatedListResult;

use super::client::{Client, PAGE_MAX};

/// What the names begin with that drivers use themselves, below a mount's prefix. Listings leave them out.
pub(super) const RESERVED: &str = ".nexus-";

/// The most pages that are asked for one listing which finds nothing new: a server that knows no offset begins each time from the start.
const PAGES_MAX: usize = 10_000;

/// A part of a folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Names, with what the file of that name is; none for a folder.
    pub(super) names: BTreeMap<String, Option<ObjectMeta>>,
    /// Whether there may be more behind the last one.
    pub(super) more: bool,
    /// Whether the folder itself has a key, with a slash at its end, as some tools make them.
    pub(super) marked: bool,
}

impl Found {
    /// Takes a page of what is below `folder`, and gives the last key of it, below the folder.
    fn take(&mut self, folder: &str, after: Option<&str>, page: PaginatedListResult) -> Option<String> {
        let mut last = None::<String>;
        let mut note = |key: String| last = last.take().max(Some(key));
        let is_wanted = |name: &str| after.is_none_or(|after| name > after) && !name.is_empty();
        for meta in page.result.objects {
            let Some(name) = meta.location.as_ref().strip_prefix(folder).map(str::to_owned) else {
                self.marked = true;
                continue;
            };
            note(name.clone());
            if is_wanted(&name) {
                // Where a name is both, the file is what is shown.
                self.names.insert(name, Some(meta));
            }
        }
        for prefix in page.result.common_prefixes {
            let Some(name) = prefix.as_ref().strip_prefix(folder) else { continue };
            note(format!("{name}/"));
            if is_wanted(name) {
                self.names.entry(name.to_owned()).or_default();
            }
        }
        last
    }
}

/// The beginnings of `last`, a key below a folder, that are folders' names if their keys come behind it.
fn open_names(last: &str) -> impl Iterator<Item = &str> {
    let name = last.strip_suffix('/').unwrap_or(last);
    let before = name.bytes().enumerate().filter(|(at, byte)| *at > 0 && *byte < b'/');
    before.map(|(at, _)| &name[..at])
}

/// What is in the folder whose keys begin with `folder`, which is empty or ends with a slash: the names greater than `after`, in order. At least `limit` of
/// them, if there are so many.
pub(super) async fn of(
    client: &Client,
    folder: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Found, StoreError> {
    let (mut found, mut token) = (Found::default(), None);
    let offset = after.map(|after| [folder, after].concat());
    for _ in 0..PAGES_MAX {
        let page = client.page(folder.to_owned(), offset.clone(), limit.min(PAGE_MAX), true, token).await?;
        token = page.page_token.clone();
        let last = found.take(folder, after, page);
        found.more = token.is_some();
        if !found.more {
            return Ok(found);
        }
        if found.names.len() < limit {
            continue;
        }
        let last = last.unwrap_or_default();
        for name in open_names(&last).filter(|name| after.is_none_or(|after| *name > after)) {
            if !found.names.contains_key(name) && has_below(client, &format!("{folder}{name}/")).await? {
                found.names.insert(name.to_owned(), None);
            }
        }
        return Ok(found);
    }
    Err(StoreError::Backend { what: format!("listing {folder:?}"), cause: "it does not end".into() })
}

/// Whether any key begins with `folder`.
pub(super) async fn has_below(client: &Client, folder: &str) -> Result<bool, StoreError> {
    let page = client.page(folder.to_owned(), None, 1, false, None).await?;
    Ok(!page.result.objects.is_empty() || !page.result.common_prefixes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_by_key_and_earlier_by_name_is_looked_for() {
        let check = |last: &str, expected: &[&str]| {
            assert_eq!(open_names(last).collect::<Vec<_>>(), expected, "{last}");
        };
        check("a.txt", &["a"]);
        check("a-b.c", &["a", "a-b"]);
        check("a b/", &["a"]);
        check("plain", &[]);
        check("plain/", &[]);
        check(".hidden", &[]);
        check("ä.b", &["ä"]);
    }
}
