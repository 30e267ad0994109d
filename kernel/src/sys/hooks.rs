//! `hooks/`: what is registered, by its identity.

use crate::dispatch::HookTable;
use crate::kernel::Kernel;

use super::{ALL, Entry, Provider};

pub(super) struct Hooks;

impl Provider for Hooks {
    fn name(&self) -> &'static str {
        "hooks"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        let hooks = HookTable::thaw(&kernel.dispatch().view()).list();
        match at {
            [] => {
                let names = hooks.iter().map(|hook| hook.id.0.to_string());
                Some(Entry::directory(names.chain([ALL.into()]).map(|name| (name, false))))
            }
            [ALL] => Some(Entry::json(&hooks)),
            [id] => hooks.iter().find(|hook| hook.id.0.to_string() == **id).map(Entry::json),
            _ => None,
        }
    }
}
