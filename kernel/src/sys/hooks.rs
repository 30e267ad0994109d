//! `hooks/`: what is registered and what it did so far, by its identity; each hook of a service by that of its service and its number there.

use crate::dispatch::{HookInfo, HookTable};
use crate::kernel::Kernel;

use super::{ALL, Entry, Provider};

pub(super) struct Hooks;

impl Provider for Hooks {
    fn name(&self) -> &'static str {
        "hooks"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        let hooks = HookTable::thaw(&kernel.dispatch().view()).statuses();
        match at {
            [] => {
                let names = hooks.iter().map(|hook| name_of(&hook.info));
                Some(Entry::directory(names.chain([ALL.into()]).map(|name| (name, false))))
            }
            [ALL] => Some(Entry::json(&hooks)),
            [name] => hooks.iter().find(|hook| name_of(&hook.info) == **name).map(Entry::json),
            _ => None,
        }
    }
}

/// `7`, and `8.1` for the first hook of a service whose place is 8.
pub(super) fn name_of(hook: &HookInfo) -> String {
    match hook.nth {
        Some(nth) => format!("{}.{nth}", hook.id.0),
        None => hook.id.0.to_string(),
    }
}
