//! Replacing an actor's value while its mailbox stays.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

use crate::behaviour::{Behaviour, Start, Swap};
use crate::exit::ExitReason;

/// What a swap did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapReport {
    /// The incarnation before.
    pub from: u64,
    /// The incarnation that serves now.
    pub to: u64,
    /// For how long no message was begun.
    pub pause: Duration,
}

/// Why the old value goes on serving, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError {
    /// There is no running incarnation to swap, or it ended meanwhile.
    #[error("it does not run")]
    NotRunning,
    /// Another swap is under way.
    #[error("another swap is under way")]
    UnderWay,
    /// What had been begun was not finished within the limit.
    #[error("{in_flight} messages in progress were not finished in time")]
    DrainTimeout {
        /// Messages still in progress.
        in_flight: usize,
    },
    /// The old value gave no copy of its state.
    #[error("export: {0}")]
    Export(ExitReason),
    /// The new value did not come to be.
    #[error("import: {0}")]
    Import(ExitReason),
    /// Whoever asked for it has gone.
    #[error("nobody waits for it")]
    Cancelled,
}

pub(crate) type Import<B> = Box<dyn FnOnce(Start<B>) -> LocalBoxFuture<'static, Result<B, ExitReason>>>;

type Export<B> = Box<dyn FnOnce(&mut B) -> Result<Import<B>, ExitReason> + Send>;

/// An order to swap, for the incarnation that serves.
pub(crate) struct SwapRequest<B: Behaviour> {
    pub(crate) limit: Duration,
    pub(crate) args: B::Args,
    pub(crate) export: Export<B>,
    pub(crate) ack: oneshot::Sender<Result<SwapReport, SwapError>>,
}

impl<B: Swap> SwapRequest<B> {
    pub(crate) fn new(
        args: B::Args,
        limit: Duration,
        ack: oneshot::Sender<Result<SwapReport, SwapError>>,
    ) -> Self {
        let import_args = args.clone();
        let export: Export<B> = Box::new(move |old: &mut B| {
            let carry = old.export()?;
            let import: Import<B> = Box::new(move |start| B::import(carry, B::VSN, import_args, start));
            Ok(import)
        });
        SwapRequest { limit, args, export, ack }
    }
}
