//! `SysWatch`: changes at a path and below it, past ones and those to come.

use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{SysWatch, Watched};
use nexus_messages::{Caller, Error, ErrorKind, Result, Timestamp, VPath};

use super::Serve;
use super::admit::{Admissible, Admitted, Which, admit, one_path};
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::sys;
use crate::volume::store_error;
use crate::watcher::{BATCH_MAX, QUEUE_MAX, Scope, Wanted, Watch};

impl Admissible for SysWatch {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        Right::Read
    }

    fn is_of_the_past(&self, _: Which) -> bool {
        // What is in the way now may not have been, and may not stay.
        true
    }

    fn validate(&self) -> Result<()> {
        let invalid = || Error::new(Self::OP, &self.path, ErrorKind::InvalidArgument);
        if self.mask.is_empty() {
            return Err(invalid().because("it waits for no kind of event"));
        }
        scope(self).map(drop)
    }
}

fn scope(call: &SysWatch) -> Result<Scope> {
    match &call.glob {
        Some(pattern) => Scope::glob(pattern).map_err(|why| {
            Error::new(SysWatch::OP, &call.path, ErrorKind::InvalidArgument)
                .because(format!("{pattern:?}: {why}"))
        }),
        None if call.recursive => Ok(Scope::Subtree),
        None => Ok(Scope::Entry),
    }
}

impl Serve for SysWatch {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Watched> {
        let wait = self.wait;
        let mut watch = Box::pin(open(kernel, caller, self, wait > Duration::ZERO)).await?;
        Box::pin(watch.next(Some(wait))).await
    }
}

impl Kernel {
    /// Begins a watch that goes on until it is dropped: how long the call waits is of no matter. One without a place to begin at hears of all that is
    /// committed after this returns.
    ///
    /// # Errors
    /// As [`SysWatch`]; `EBUSY` when there are as many watches as may be.
    pub async fn watch(self: &Arc<Self>, caller: &Arc<Caller>, call: SysWatch) -> Result<Watch> {
        open(self, caller, call, true).await
    }

    /// As [`watch`](Self::watch), of one that goes on where another one was lost: it hears of all that happens after this returns, also of what is in no log, and not
    /// only once it has read the log.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub async fn watch_on(self: &Arc<Self>, caller: &Arc<Caller>, call: SysWatch) -> Result<Watch> {
        let mut watch = open(self, caller, call, true).await?;
        watch.publish().await?;
        Ok(watch)
    }
}

/// Begins a watch; one without a place to begin at is told of what comes when it `waits`.
async fn open(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysWatch, waits: bool) -> Result<Watch> {
    call.validate()?;
    let admitted = admit(kernel, caller, call, None).await?;
    let opened = begin(kernel, caller, &admitted, waits).await;
    // Before anything is waited for: who waits inside a service's hooks would hold up its swap.
    admitted.after(&opened).await;
    opened
}

async fn begin(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    admitted: &Admitted<SysWatch>,
    waits: bool,
) -> Result<Watch> {
    let (call, site) = (&admitted.call, &admitted.first.site);
    let fail = |path: &VPath, kind| Error::new(SysWatch::OP, path, kind);
    // What is seen in `/` is the kernel's own in part, of which nobody is told.
    if sys::serves(&site.path) {
        return Err(fail(&site.path, ErrorKind::NotSupported)
            .because("what the kernel shows of itself is committed nowhere"));
    }
    let tree = site.mount.tree;
    let end = kernel.store().last_lsn(tree).map_err(|error| store_error(SysWatch::OP, &site.path, &error))?;
    if let Some(since) = call.since.filter(|since| *since > end) {
        let error = fail(&site.path, ErrorKind::InvalidArgument);
        return Err(error.because(format!("the log ends at {end}, before {since}")));
    }
    let wanted = Wanted {
        caller: caller.clone(),
        tree,
        zone: site.mount.zone.clone(),
        base: site.path.clone(),
        scope: scope(call)?,
        mask: call.mask,
        since: call.since,
        at: Timestamp(kernel.env().wall()),
        queue_max: QUEUE_MAX,
    };
    let limit = call.limit.map_or(BATCH_MAX, |limit| (limit.get() as usize).min(BATCH_MAX));
    let mut watch = Watch::new(kernel, wanted, limit);
    match call.since {
        None if waits => watch.publish().await?,
        None => watch.begin_at_end()?,
        // What is in the log is told without it.
        Some(_) => {}
    }
    Ok(watch)
}
