//! What the dispatch is asked. Reading this file is reading all it can do.

use std::sync::Arc;

use nexus_messages::Message;

use super::hook::{HookId, Registration};
use super::table::{HookError, HookInfo};
use crate::registry::Enlisted;

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

/// Looks which versions of a service may serve now, and lets calls meet their hooks: each call those of the version that serves when it begins.
/// None, when the service is removed. What was there of the service is replaced in one step; its place among the others stays. Asked once more,
/// or late, it does no harm: it goes by what is so when it is handled.
#[derive(Debug, Clone)]
pub(crate) struct Cover {
    /// The service.
    pub(crate) enlisted: Arc<Enlisted>,
}

impl Message for Cover {
    type Reply = Result<(), HookError>;
    const NAME: &'static str = "dispatch.cover";
}

/// All hooks, in the order of registration.
#[derive(Debug, Clone, Copy)]
pub struct ListHooks;

impl Message for ListHooks {
    type Reply = Vec<HookInfo>;
    const NAME: &'static str = "dispatch.list";
}
