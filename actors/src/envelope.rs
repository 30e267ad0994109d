//! A message on its way: one allocation that holds the message, then its state, then its reply.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use nexus_messages::Message;

use crate::behaviour::{Cx, Handle, Job, Reply};
use crate::call::CallError;
use crate::panics;
use crate::sync::Lock;

/// What the mailbox and the turn see of a message.
pub(crate) trait Envelope<B: crate::Behaviour>: Send + Sync {
    fn name(&self) -> &'static str;

    /// Whether it is yet to be begun and nobody waits for its reply, so that nobody hears of it when it is dropped.
    fn is_untended(&self) -> bool;

    /// Hands the message to its handler.
    fn run(self: Arc<Self>, behaviour: &mut B, cx: &mut Cx<'_, B>) -> Step<B>;

    /// Begins the message, and leaves its handler to be run, and its reply to be sent, one by one. None when it was
    /// withdrawn.
    fn open(self: Arc<Self>, generation: u64) -> Option<Opened<B>>;

    /// The incarnation that took it out has ended. True when it had not begun the message, and cannot any more: then the
    /// message is for its successor.
    fn give_back(&self, generation: u64) -> bool;

    /// Ends it with this if it was begun, and wakes nobody: `fail` is to follow. No reply to it is heard any more.
    fn seal(&self, begun: CallError);

    /// Ends it with `queued` if it was not begun, else with `begun`. An ended one stays as it is.
    fn fail(&self, queued: CallError, begun: CallError);
}

/// What a handler left to be done.
pub(crate) enum Step<B: crate::Behaviour> {
    Done,
    Exclusive(Job<B>),
    Interleaved(Job<B>),
}

/// A begun message, whose handler is yet to run.
pub(crate) type Opened<B> = Box<dyn FnOnce(&mut B, &mut Cx<'_, B>) -> (Step<B>, Answer)>;

/// A reply that is held back, once it is there: what sends it.
pub(crate) type Answer = Rc<Cell<Option<Box<dyn FnOnce()>>>>;

pub(crate) struct Parcel<B, M: Message> {
    inner: Lock<Inner<M>>,
    /// A parcel holds no behaviour; it only knows whose it is.
    _behaviour: PhantomData<fn(B)>,
}

struct Inner<M: Message> {
    content: Content<M>,
    /// The caller; none for a message that nobody waits for.
    waker: Option<Waker>,
}

enum Content<M: Message> {
    Queued(M),
    /// Back from an incarnation of this number, which had taken it out and not begun it: for a later one.
    Returned(M, u64),
    Begun,
    Replied(M::Reply),
    /// Ended before it was begun. The message is kept for a caller who wants it back.
    Refused(M, CallError),
    /// Ended after it was begun.
    Failed(CallError),
    /// Nobody waits any more.
    Gone,
}

impl<B, M: Message> Parcel<B, M> {
    pub(crate) fn new(message: M, waker: Option<Waker>) -> Arc<Self> {
        let inner = Inner { content: Content::Queued(message), waker };
        Arc::new(Parcel { inner: Lock::new(inner), _behaviour: PhantomData })
    }

    /// The caller's look at it. After an error, `message` gives back what was not executed.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<M::Reply, CallError>> {
        let mut inner = self.inner.lock();
        match &inner.content {
            Content::Queued(_) | Content::Returned(..) | Content::Begun => {
                match &mut inner.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            Content::Refused(_, error) => Poll::Ready(Err(*error)),
            _ => match std::mem::replace(&mut inner.content, Content::Gone) {
                Content::Replied(reply) => Poll::Ready(Ok(reply)),
                Content::Failed(error) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Err(CallError::Down)),
            },
        }
    }

    /// The mailbox did not take it.
    pub(crate) fn refuse(&self, error: CallError) {
        let mut inner = self.inner.lock();
        inner.content = match std::mem::replace(&mut inner.content, Content::Gone) {
            Content::Queued(message) => Content::Refused(message, error),
            other => other,
        };
    }

    /// After an error: gives back a message that was not begun.
    pub(crate) fn message(&self) -> Option<M> {
        let mut inner = self.inner.lock();
        match std::mem::replace(&mut inner.content, Content::Gone) {
            Content::Refused(message, _) => Some(message),
            other => {
                inner.content = other;
                None
            }
        }
    }

    /// The caller has gone. True when the message was still queued; it is dropped.
    pub(crate) fn withdraw(&self) -> bool {
        let mut inner = self.inner.lock();
        let waker = inner.waker.take();
        let old = std::mem::replace(&mut inner.content, Content::Gone);
        drop(inner);
        drop(waker);
        let queued = matches!(old, Content::Queued(_) | Content::Returned(..));
        if let Content::Refused(message, _) = old {
            // The caller has heard that it was not executed; a bad destructor is not its business as well.
            let _ = panics::guarded_drop(message);
        }
        queued
    }

    /// Takes the message, which counts as begun from here on.
    fn begin(&self, generation: u64) -> Option<M> {
        let mut inner = self.inner.lock();
        match std::mem::replace(&mut inner.content, Content::Begun) {
            Content::Queued(message) => Some(message),
            Content::Returned(message, from) if from < generation => Some(message),
            other => {
                inner.content = other;
                None
            }
        }
    }

    /// Answers; a reply that comes too late is dropped.
    #[inline(always)] // The warm path of serving.
    fn reply(&self, reply: M::Reply) {
        let mut inner = self.inner.lock();
        if matches!(inner.content, Content::Begun) {
            inner.content = Content::Replied(reply);
            let waker = inner.waker.take();
            drop(inner);
            waker.into_iter().for_each(Waker::wake);
        } else {
            // The reply's destructor is somebody's code and runs after the lock is gone.
            drop(inner);
            drop(reply);
        }
    }
}

impl<B: Handle<M>, M: Message> Envelope<B> for Parcel<B, M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn is_untended(&self) -> bool {
        let inner = self.inner.lock();
        matches!(inner.content, Content::Queued(_) | Content::Returned(..)) && inner.waker.is_none()
    }

    fn run(self: Arc<Self>, behaviour: &mut B, cx: &mut Cx<'_, B>) -> Step<B> {
        let Some(message) = self.begin(cx.generation) else { return Step::Done };
        match behaviour.handle(message, cx) {
            Reply::Now(reply) => {
                self.reply(reply);
                Step::Done
            }
            Reply::Wait(deferred) => Step::Exclusive(deferred.into_job(move |reply| self.reply(reply))),
            Reply::Later(deferred) => Step::Interleaved(deferred.into_job(move |reply| self.reply(reply))),
        }
    }

    fn open(self: Arc<Self>, generation: u64) -> Option<Opened<B>> {
        let message = self.begin(generation)?;
        Some(Box::new(move |behaviour, cx| {
            let answer = Answer::default();
            let held = answer.clone();
            let hold = move |reply| held.set(Some(Box::new(move || self.reply(reply)) as Box<dyn FnOnce()>));
            let step = match behaviour.handle(message, cx) {
                Reply::Now(reply) => {
                    hold(reply);
                    Step::Done
                }
                Reply::Wait(deferred) => Step::Exclusive(deferred.into_job(hold)),
                Reply::Later(deferred) => Step::Interleaved(deferred.into_job(hold)),
            };
            (step, answer)
        }))
    }

    fn give_back(&self, generation: u64) -> bool {
        let mut inner = self.inner.lock();
        inner.content = match std::mem::replace(&mut inner.content, Content::Gone) {
            Content::Queued(message) | Content::Returned(message, _) => {
                Content::Returned(message, generation)
            }
            other => other,
        };
        matches!(inner.content, Content::Returned(..))
    }

    fn seal(&self, begun: CallError) {
        let mut inner = self.inner.lock();
        if matches!(inner.content, Content::Begun) {
            inner.content = Content::Failed(begun);
        }
    }

    fn fail(&self, queued: CallError, begun: CallError) {
        let mut inner = self.inner.lock();
        let waker = inner.waker.take();
        let mut unwanted = None;
        inner.content = match std::mem::replace(&mut inner.content, Content::Gone) {
            Content::Queued(message) | Content::Returned(message, _) if waker.is_some() => {
                Content::Refused(message, queued)
            }
            Content::Queued(message) | Content::Returned(message, _) => {
                unwanted = Some(message);
                Content::Failed(queued)
            }
            Content::Begun => Content::Failed(begun),
            ended => ended,
        };
        drop(inner);
        // A message that nobody waits for. Its destructor must not take down whoever tells its end.
        let _ = panics::guarded_drop(unwanted);
        waker.into_iter().for_each(Waker::wake);
    }
}
