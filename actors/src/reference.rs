//! The handle to an actor.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::Message;

use crate::behaviour::{Behaviour, Cx, Handle, Reply, Swap};
use crate::call::{CallError, Undone};
use crate::cell::{Call, Cell};
use crate::env::Env;
use crate::exit::ExitReason;
use crate::mailbox::MailboxBounds;
use crate::status::ActorStatus;
use crate::swap::{SwapError, SwapReport};
use crate::visit::Visit;

/// A handle to an actor and its mailbox. Made before the actor is, so that peers can be wired up front, and valid over
/// restarts, swaps, and the end of its supervisor. Cloning is one atomic addition.
pub struct Ref<B: Behaviour>(Arc<Cell<B>>);

impl<B: Behaviour> Ref<B> {
    /// An actor that has not begun. Messages wait for its first incarnation.
    pub fn new(env: &Env, name: impl Into<Arc<str>>, bounds: MailboxBounds) -> Self {
        Ref(Cell::new(env, name.into(), bounds))
    }

    pub(crate) fn from_cell(cell: Arc<Cell<B>>) -> Self {
        Ref(cell)
    }

    pub(crate) fn cell(&self) -> &Arc<Cell<B>> {
        &self.0
    }

    /// Sends `message` and waits for its reply, at most for `deadline` (one too long to be counted is none). A full
    /// mailbox makes it wait for room, within the deadline. The message is sent at the first poll, so calls that one
    /// task begins in order are served in that order. Dropping the future withdraws a message that was not begun.
    pub fn call<M: Message>(
        &self,
        message: M,
        deadline: Duration,
    ) -> impl Future<Output = Result<M::Reply, CallError>> + Send + '_
    where
        B: Handle<M>,
    {
        Call::new(&self.0, message, deadline)
    }

    /// As [`call`](Ref::call); and a message that was certainly not executed comes back with the error, to be offered
    /// again or to somebody else.
    pub fn offer<M: Message>(
        &self,
        message: M,
        deadline: Duration,
    ) -> impl Future<Output = Result<M::Reply, Undone<M>>> + Send + '_
    where
        B: Handle<M>,
    {
        let mut call = Call::new(&self.0, message, deadline);
        poll_fn(move |cx| {
            let polled = Pin::new(&mut call).poll(cx);
            polled.map_err(|error| Undone { error, message: call.message() })
        })
    }

    /// Sends `message` and forgets it. Never waits: a full mailbox is `Busy`, a closed one `Down`.
    pub fn tell<M: Message>(&self, message: M) -> Result<(), CallError>
    where
        B: Handle<M>,
    {
        self.0.tell(message)
    }

    /// Sends a message ahead of all others and past the bound: for exits, timers and the like, whose number the sender
    /// bounds. Never waits.
    pub fn signal<M: Message>(&self, message: M) -> Result<(), CallError>
    where
        B: Handle<M>,
    {
        self.0.signal(message)
    }

    /// Runs `f` on the actor as if it were a message: in its turn, between two others, with their promises. For looking
    /// at a state, or taking a copy of it, where a message of its own would say no more. Its name is `actor.visit`.
    pub fn visit<R, F>(
        &self,
        f: F,
        deadline: Duration,
    ) -> impl Future<Output = Result<R, CallError>> + Send + '_
    where
        F: FnOnce(&mut B, &mut Cx<'_, B>) -> Reply<B, R> + Send + 'static,
        R: Send + 'static,
    {
        Call::new(&self.0, Visit::new(f), deadline)
    }

    /// Ends the incarnation of this number at its next pause with this reason, as if it had failed by itself: its
    /// supervisor hears of it, and it does not clean up. For a failure of the actor's code on somebody else's task. Does
    /// not wait. False, and nothing is done, when that incarnation does not live any more, or its end was ordered already.
    pub fn fail(&self, generation: u64, why: ExitReason) -> bool {
        self.0.fail(generation, why)
    }

    /// One look at the actor. Sends no mail.
    pub fn status(&self) -> ActorStatus {
        self.0.status()
    }

    /// The newest incarnation's number; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// The name it was made with.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Where it takes clock, randomness and tasks from.
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// Replaces the actor's value: what is in progress is finished, the old value gives a copy of its state, the new
    /// one is made from it, and the mailbox goes on with it. No message is lost, and their order stays. All of it
    /// within `limit`; on any error the old value goes on, unchanged. `args` also hold for later restarts.
    pub async fn swap(&self, args: B::Args, limit: Duration) -> Result<SwapReport, SwapError>
    where
        B: Swap,
    {
        self.0.clone().swap(args, limit).await
    }
}

impl<B: Behaviour> Clone for Ref<B> {
    fn clone(&self) -> Self {
        Ref(self.0.clone())
    }
}

impl<B: Behaviour> fmt::Debug for Ref<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({})", self.0.name)
    }
}
