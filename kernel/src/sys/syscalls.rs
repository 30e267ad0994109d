//! `syscalls/`: the calls of each operation: how many, what came of them, how long they took.

use super::{ALL, Entry, Provider};
use crate::kernel::Kernel;

pub(super) struct Syscalls;

impl Provider for Syscalls {
    fn name(&self) -> &'static str {
        "syscalls"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        let entries = kernel.syscalls().entries();
        match at {
            [] => {
                let names = entries.iter().map(|entry| &*entry.op);
                Some(Entry::directory(names.chain([ALL]).map(|name| (name, false))))
            }
            [ALL] => Some(Entry::json(&entries)),
            [op] => entries.iter().find(|entry| entry.op == **op).map(Entry::json),
            _ => None,
        }
    }
}
