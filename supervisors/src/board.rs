//! The children of a supervisor, for all to see.
//!
//! A board is made with its supervisor's spec and outlives its incarnations, so looking at the tree sends no mail and
//! works while supervisors are down. Only the supervisor changes its board.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nexus_actors::{ActorStatus, Child, ChildExit, ExitReason, guard};
use parking_lot::Mutex;
use serde::Serialize;

use crate::spec::{ChildSpec, Restart};

/// A child as its supervisor holds it.
pub(crate) struct Kid {
    pub(crate) spec: ChildSpec,
    pub(crate) child: Arc<dyn Child>,
    /// The children of a supervisor.
    pub(crate) board: Option<Arc<Board>>,
    /// Started by order, not by the spec.
    pub(crate) dynamic: bool,
    /// Whether it has run: who ordered one that has not was never told that it is there.
    pub(crate) has_run: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Board {
    kids: Mutex<Vec<Arc<Kid>>>,
}

/// One look at a part of the tree. Taking it sends no mail.
#[derive(Debug, Clone, Serialize)]
pub struct TreeStatus {
    /// The id in its supervisor's spec.
    pub id: Arc<str>,
    /// After which exits it is restarted; none for the root.
    pub restart: Option<Restart>,
    /// The actor's own status.
    #[serde(flatten)]
    pub actor: ActorStatus,
    /// Its children, in the order of their start.
    pub children: Vec<TreeStatus>,
}

impl Board {
    pub(crate) fn new(kids: Vec<Kid>) -> Arc<Self> {
        Arc::new(Board { kids: Mutex::new(kids.into_iter().map(Arc::new).collect()) })
    }

    pub(crate) fn kids(&self) -> Vec<Arc<Kid>> {
        self.kids.lock().clone()
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<Kid>> {
        self.kids.lock().iter().find(|kid| &*kid.spec.id == id).cloned()
    }

    pub(crate) fn add(&self, kid: Arc<Kid>) {
        self.kids.lock().push(kid);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.kids.lock().retain(|kid| &*kid.spec.id != id);
    }

    pub(crate) fn status(&self) -> Vec<TreeStatus> {
        self.kids().iter().map(|kid| kid.status()).collect()
    }

    /// Closes the mailboxes of all below, last to first.
    pub(crate) fn close(&self) {
        self.kids().iter().rev().for_each(|kid| kid.close());
    }
}

impl Kid {
    pub(crate) fn status(&self) -> TreeStatus {
        TreeStatus {
            id: self.spec.id.clone(),
            restart: Some(self.spec.restart),
            actor: self.child.status(),
            children: self.board.as_ref().map(|board| board.status()).unwrap_or_default(),
        }
    }

    /// Tells whoever watches it of an end.
    pub(crate) fn report(&self, generation: u64, reason: &ExitReason) {
        for monitor in &self.spec.monitors {
            let exit = ChildExit { id: self.child.name().clone(), generation, reason: reason.clone() };
            if let Err(panicked) = guard(|| monitor(&exit)) {
                tracing::error!(child = %self.spec.id, %panicked, "a monitor");
            }
        }
    }

    /// Closes its mailbox, and those of its children.
    pub(crate) fn close(&self) {
        if let Some(board) = &self.board {
            board.close();
        }
        self.child.close();
    }
}
