//! What the actor of pipes is asked. Reading, writing and listing are not among it: they happen on the caller's task.

use std::sync::Arc;

use nexus_messages::{FileId, FileMetadata, Message};

use super::pipe::{Pipe, Refusal};
use crate::hal::TreeId;

/// Opens the pipe whose entry this is, empty; gives the one that is open when there is one. Refused when the entry is gone by then, or its mount is.
#[derive(Debug, Clone)]
pub(crate) struct OpenPipe {
    /// The mount that it is on, by its root: it is closed with that.
    pub(crate) mount: FileId,
    /// The tree that its entry is in.
    pub(crate) tree: TreeId,
    /// What the entry is.
    pub(crate) metadata: Arc<FileMetadata>,
    /// Its memory, when it is one that processes share; it is taken by who opens the pipe.
    pub(crate) shared: Option<Arc<parking_lot::Mutex<Option<nexus_actors::SharedPipe>>>>,
}

impl Message for OpenPipe {
    type Reply = Result<Arc<Pipe>, Refusal>;
    const NAME: &'static str = "pipes.open";
}
