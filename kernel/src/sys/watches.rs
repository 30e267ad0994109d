//! `watches/`: who waits for which changes, by the watch's number.

use super::{ALL, Entry, Provider};
use crate::kernel::Kernel;
use crate::watcher::{LIST_MAX, list};

pub(super) struct Watches;

impl Provider for Watches {
    fn name(&self) -> &'static str {
        "watches"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        let watches = list(&kernel.watches().table(), LIST_MAX);
        match at {
            [] => {
                let names = watches.iter().map(|watch| watch.id.to_string());
                Some(Entry::directory(names.chain([ALL.into()]).map(|name| (name, false))))
            }
            [ALL] => Some(Entry::json(&watches)),
            [name] => watches.iter().find(|watch| watch.id.to_string() == **name).map(Entry::json),
            _ => None,
        }
    }
}
