//! `services/`: what is registered, and how it is. Setting one registers or swaps it, removing one unregisters it.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nexus_messages::syscall::{SetattrDone, SysSetattr, SysUnlink, Unlinked};
use nexus_messages::{ErrorKind, Result};

use crate::kernel::Kernel;

use super::{ALL, Change, Entry, Provider};

pub(super) struct Services;

impl Provider for Services {
    fn name(&self) -> &'static str {
        "services"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => {
                let names = kernel.service_statuses().into_iter().map(|service| service.name.to_string());
                Some(Entry::directory(names.chain([ALL.into()]).map(|name| (name, false))))
            }
            [ALL] => Some(Entry::json(&kernel.service_statuses())),
            [name] => kernel.service_status(name).as_ref().map(Entry::json),
            _ => None,
        }
    }

    fn set<'a>(&'a self, change: Change<'a>, call: &'a SysSetattr) -> BoxFuture<'a, Result<SetattrDone>> {
        async move {
            if call.service.is_none() {
                return Err(change.fail(ErrorKind::InvalidArgument).because("a service needs a factory"));
            }
            // Those come another way, as the locks of paths are no matter to the registry.
            Err(change.fail(ErrorKind::Refused).because("a hook made it a service's"))
        }
        .boxed()
    }

    fn unlink<'a>(&'a self, change: Change<'a>, _: &'a SysUnlink) -> BoxFuture<'a, Result<Unlinked>> {
        async move { change.kernel.delist(&change.intent.caller, change.path).await }.boxed()
    }
}
