//! What the router is asked. Reading this file is reading all it can do.

use std::fmt;
use std::marker::PhantomData;

use nexus_messages::Message;

use super::table::{AsMount, RouteError};

/// Attaches a mount at its point. Repeating it does nothing; another mount there is refused.
#[derive(Debug, Clone)]
pub struct Mount<T>(pub T);

impl<T: AsMount> Message for Mount<T> {
    type Reply = Result<(), RouteError>;
    const NAME: &'static str = "router.mount";
}

/// Detaches a mount from its point. Another mount there, by its id, is left alone. Repeating it is an error and does nothing.
#[derive(Debug, Clone)]
pub struct Unmount<T>(pub T);

impl<T: AsMount> Message for Unmount<T> {
    type Reply = Result<(), RouteError>;
    const NAME: &'static str = "router.unmount";
}

/// Puts a mount in the place of the one at its point, with no moment in between without either. Answers with the one before.
/// May be repeated.
#[derive(Debug, Clone)]
pub struct Rebind<T>(pub T);

impl<T: AsMount> Message for Rebind<T> {
    type Reply = Result<T, RouteError>;
    const NAME: &'static str = "router.rebind";
}

/// All mounts, by zone and point. The view answers the same without mail.
pub struct ListMounts<T>(PhantomData<fn() -> T>);

impl<T> ListMounts<T> {
    /// The message.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for ListMounts<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for ListMounts<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListMounts")
    }
}

impl<T: AsMount> Message for ListMounts<T> {
    type Reply = Vec<T>;
    const NAME: &'static str = "router.list";
}
