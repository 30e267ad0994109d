//! What the dispatch is asked. Reading this file is reading all it can do.

use std::sync::Arc;

use nexus_messages::Message;

use super::hook::{HookId, Registration};
use super::table::{HookError, HookInfo};
use crate::registry::Enlisted;
use crate::service::Generation;

/// Adds a hook. Calls that begin after the reply pass it. Not to be repeated without looking: it would be there twice.
#[derive(Debug, Clone)]
pub struct Register(pub Registration);

impl Message for Register {
    type Reply = Result<HookId, HookError>;
    const NAME: &'static str = "dispatch.register";
}

/// Removes a hook. Calls that have begun may still pass it. Repeating it is an error and does nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unregister(pub HookId);

impl Message for Unregister {
    type Reply = Result<HookInfo, HookError>;
    const NAME: &'static str = "dispatch.unregister";
}

/// Removes some hooks and adds others in one step, all of it or nothing: each call sees the old ones or the new ones, never none.
/// Answers with the ids of the new ones. Repeating it is an error and does nothing.
#[derive(Debug, Clone)]
pub struct ReplaceHooks {
    /// What goes.
    pub old: Vec<HookId>,
    /// What comes.
    pub new: Vec<Registration>,
}

impl Message for ReplaceHooks {
    type Reply = Result<Vec<HookId>, HookError>;
    const NAME: &'static str = "dispatch.replace";
}

/// Lets calls meet the hooks of these versions of a service: each call those of the version that serves when it begins. What was said of the
/// service before is replaced in one step; its place among the others stays. Repeating it does nothing.
#[derive(Debug, Clone)]
pub(crate) struct Cover {
    /// The service.
    pub(crate) enlisted: Arc<Enlisted>,
    /// The versions that may serve while this holds.
    pub(crate) versions: Vec<Arc<Generation>>,
}

impl Message for Cover {
    type Reply = Result<(), HookError>;
    const NAME: &'static str = "dispatch.cover";
}

/// Takes the hooks of a service away. Calls that have begun may still meet them. Repeating it does nothing.
#[derive(Debug, Clone)]
pub(crate) struct Uncover {
    /// The service.
    pub(crate) name: Arc<str>,
}

impl Message for Uncover {
    type Reply = Result<(), HookError>;
    const NAME: &'static str = "dispatch.uncover";
}

/// All hooks, in the order of registration.
#[derive(Debug, Clone, Copy)]
pub struct ListHooks;

impl Message for ListHooks {
    type Reply = Vec<HookInfo>;
    const NAME: &'static str = "dispatch.list";
}
