//! `migrations`: mounts whose files move to other drivers.

use futures_util::future::BoxFuture;
use nexus_messages::syscall::{Place, SysWrite};
use nexus_messages::{ErrorKind, Result};

use super::{Change, Entry, Provider};
use crate::kernel::Kernel;
use crate::mounts::ordered;

pub(super) struct MigrationsFile;

impl Provider for MigrationsFile {
    fn name(&self) -> &'static str {
        "migrations"
    }

    fn is_directory(&self) -> bool {
        false
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        at.is_empty().then(|| Entry::json(&kernel.migrations().statuses()))
    }

    fn is_writable(&self, at: &[&str]) -> bool {
        at.is_empty()
    }

    fn write<'a>(&'a self, change: Change<'a>, call: &'a SysWrite) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if call.place != Place::Whole {
                return Err(change.fail(ErrorKind::InvalidArgument).because("an order is given whole"));
            }
            let order = serde_json::from_slice(&call.data.concat());
            // What is wrong may be a credential, so only where it is wrong is told.
            let order = order.map_err(|why| {
                let place = format!("no order: line {}, column {}", why.line(), why.column());
                change.fail(ErrorKind::InvalidArgument).because(place)
            })?;
            ordered(change.kernel, &change.intent.caller, order).await
        })
    }
}
