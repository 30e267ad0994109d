//! A closure as a message: every behaviour can be visited.

use std::marker::PhantomData;

use nexus_messages::Message;

use crate::behaviour::{Behaviour, Cx, Handle, Reply};

pub(crate) struct Visit<B, R, F> {
    visitor: F,
    /// It holds neither; it only knows whom it visits, and what it brings back.
    _visited: PhantomData<fn(B) -> R>,
}

impl<B: Behaviour, R, F> Visit<B, R, F>
where
    F: FnOnce(&mut B, &mut Cx<'_, B>) -> Reply<B, R>,
{
    pub(crate) fn new(visitor: F) -> Self {
        Visit { visitor, _visited: PhantomData }
    }
}

impl<B, R, F> Message for Visit<B, R, F>
where
    B: 'static,
    R: Send + 'static,
    F: Send + 'static,
{
    type Reply = R;
    const NAME: &'static str = "actor.visit";
}

impl<B: Behaviour, R, F> Handle<Visit<B, R, F>> for B
where
    R: Send + 'static,
    F: FnOnce(&mut B, &mut Cx<'_, B>) -> Reply<B, R> + Send + 'static,
{
    fn handle(&mut self, visit: Visit<B, R, F>, cx: &mut Cx<'_, B>) -> Reply<B, R> {
        (visit.visitor)(self, cx)
    }
}
