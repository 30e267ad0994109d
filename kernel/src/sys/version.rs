//! `version`: what runs here.

use serde::Serialize;

use super::{Entry, Provider};
use crate::kernel::Kernel;

/// Counts changes of this interface that a program must know of.
const INTERFACE: u32 = 1;

pub(super) struct Version;

#[derive(Serialize)]
struct Running {
    name: &'static str,
    version: &'static str,
    interface: u32,
}

impl Provider for Version {
    fn name(&self) -> &'static str {
        "version"
    }

    fn is_directory(&self) -> bool {
        false
    }

    fn look(&self, _: &Kernel, at: &[&str]) -> Option<Entry> {
        let running = Running { name: "nexus", version: env!("CARGO_PKG_VERSION"), interface: INTERFACE };
        at.is_empty().then(|| Entry::json(&running))
    }
}
