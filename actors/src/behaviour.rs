//! What an actor is: a state, a start, an end, and a handler for each message.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_messages::Message;

use crate::env::Env;
use crate::exit::ExitReason;
use crate::reference::Ref;

/// One actor. It lives on one thread, so it need not be `Send`, and is handed one message at a time.
pub trait Behaviour: Sized + 'static {
    /// Peers and settings, handed over by the supervisor at every start.
    type Args: Clone + Send + Sync + 'static;

    /// The kind of actor, for logs and status.
    const NAME: &'static str;

    /// How long `terminate` may take after the actor has ended itself. An ordered stop brings its own limit.
    const TERMINATE_MAX: Duration = Duration::from_secs(5);

    /// Makes the state of a new incarnation. An error and a panic are both a failed start.
    fn init(args: Self::Args, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>>;

    /// Cleans up before an ordered stop, within the time that the supervisor gives, and after the actor has ended
    /// itself. Not called after a crash or a kill.
    fn terminate(&mut self, why: &ExitReason) -> LocalBoxFuture<'static, ()> {
        let _ = why;
        std::future::ready(()).boxed_local()
    }
}

/// Serves one kind of message.
pub trait Handle<M: Message>: Behaviour {
    /// Answers `message`. Must not block: it holds the thread that other actors share.
    fn handle(&mut self, message: M, cx: &mut Cx<'_, Self>) -> Reply<Self, M::Reply>;
}

/// A behaviour whose value can be replaced by a newer one while it serves.
pub trait Swap: Behaviour {
    /// The version of `Carry`.
    const VSN: u32;

    /// What the old value hands to the new one.
    type Carry: Send + 'static;

    /// Gives a copy of the state. The value may have to go on afterwards, so nothing is moved out of it.
    fn export(&mut self) -> Result<Self::Carry, ExitReason>;

    /// Makes the new value from what the old one gave. An error and a panic leave the old value serving.
    fn import(
        carry: Self::Carry,
        from_vsn: u32,
        args: Self::Args,
        start: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>>;
}

/// What a new incarnation is told about itself.
pub struct Start<B: Behaviour> {
    pub(crate) me: Ref<B>,
    pub(crate) generation: u64,
    pub(crate) warm: bool,
}

impl<B: Behaviour> Start<B> {
    /// The reference that stays over restarts.
    pub fn me(&self) -> &Ref<B> {
        &self.me
    }

    /// The number of this incarnation; every publish carries it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether to trust what the last incarnation published. False on a second restart within the supervisor's
    /// period: then read the store, since what was published may be what kills.
    pub fn warm(&self) -> bool {
        self.warm
    }

    /// Clock, randomness, tasks.
    pub fn env(&self) -> &Env {
        self.me.env()
    }
}

impl<B: Behaviour> Clone for Start<B> {
    fn clone(&self) -> Self {
        Start { me: self.me.clone(), generation: self.generation, warm: self.warm }
    }
}

/// How a handler answers.
///
/// A step that finishes on the actor names its type: `Reply::wait_then(read, |me: &mut Self, _, bytes| me.keep(bytes))`.
pub enum Reply<B: Behaviour, R> {
    /// Here it is.
    Now(R),
    /// When this is done; until then the actor serves nothing else.
    Wait(Deferred<B, R>),
    /// When this is done; other messages are served meanwhile.
    Later(Deferred<B, R>),
}

/// A reply that takes a while.
pub struct Deferred<B: Behaviour, R>(LocalBoxFuture<'static, Then<B, R>>);

/// The last step of a deferred reply, back on the actor.
type Then<B, R> = Box<dyn FnOnce(&mut B, &mut Cx<'_, B>) -> R>;

/// A future of an actor, and what to do with its end.
pub(crate) type Job<B> = LocalBoxFuture<'static, Finish<B>>;
pub(crate) type Finish<B> = Box<dyn FnOnce(&mut B, &mut Cx<'_, B>)>;

impl<B: Behaviour, R: 'static> Reply<B, R> {
    /// Answers with what `future` gives; the mailbox waits for it.
    pub fn wait(future: impl Future<Output = R> + 'static) -> Self {
        Reply::Wait(Deferred::new(future, |_, _, out| out))
    }

    /// Like [`wait`](Reply::wait), and finishes on the actor.
    pub fn wait_then<T: 'static>(
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut B, &mut Cx<'_, B>, T) -> R + 'static,
    ) -> Self {
        Reply::Wait(Deferred::new(future, then))
    }

    /// Answers with what `future` gives; other messages are served meanwhile.
    pub fn later(future: impl Future<Output = R> + 'static) -> Self {
        Reply::Later(Deferred::new(future, |_, _, out| out))
    }

    /// Like [`later`](Reply::later), and finishes on the actor.
    pub fn later_then<T: 'static>(
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut B, &mut Cx<'_, B>, T) -> R + 'static,
    ) -> Self {
        Reply::Later(Deferred::new(future, then))
    }
}

impl<B: Behaviour, R: 'static> Deferred<B, R> {
    fn new<T: 'static>(
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut B, &mut Cx<'_, B>, T) -> R + 'static,
    ) -> Self {
        Deferred(
            future
                .map(|out| Box::new(move |b: &mut B, cx: &mut Cx<'_, B>| then(b, cx, out)) as Then<B, R>)
                .boxed_local(),
        )
    }

    /// The same, with its result handed to `reply`.
    pub(crate) fn into_job(self, reply: impl FnOnce(R) + 'static) -> Job<B> {
        self.0
            .map(|then| {
                Box::new(move |b: &mut B, cx: &mut Cx<'_, B>| {
                    let out = then(b, cx);
                    reply(out);
                }) as Finish<B>
            })
            .boxed_local()
    }
}

/// What a handler can do beside answering.
pub struct Cx<'a, B: Behaviour> {
    pub(crate) me: &'a Ref<B>,
    pub(crate) generation: u64,
    pub(crate) exit: &'a mut Option<ExitReason>,
    pub(crate) spawned: &'a mut Vec<Job<B>>,
}

impl<B: Behaviour> Cx<'_, B> {
    /// The reference that stays over restarts.
    pub fn me(&self) -> &Ref<B> {
        self.me
    }

    /// The number of this incarnation; every publish carries it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Clock, randomness, tasks.
    pub fn env(&self) -> &Env {
        self.me.env()
    }

    /// Ends this incarnation after the current message has been answered. The first reason stays.
    pub fn exit(&mut self, why: ExitReason) {
        self.exit.get_or_insert(why);
    }

    /// Runs `future` beside the messages, as a part of this incarnation: its panic is the actor's, and it is dropped
    /// with it. `then` gets its result on the actor. No message is begun while as many of these run as the mailbox
    /// holds messages.
    pub fn spawn<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut B, &mut Cx<'_, B>, T) + 'static,
    ) {
        self.spawned.push(Deferred::new(future, then).into_job(|()| {}));
    }
}
