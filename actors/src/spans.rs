//! A span for each message, from its sending to its end, entered whenever the actor works on it, on whatever thread. What
//! it is not entered for is waiting: in the queue, or for a future.
//!
//! The span of a call is a child of the one that it was made in. What is sent and forgotten only follows from that: a parent
//! lives as long as its children, and an actor that sends to itself would have one line of descent without an end.
//!
//! A traced message is wrapped when it is sent. Others are not, so that where nobody listens the one cost is the look
//! whether somebody does.

use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Instrument, Level, Span};

use crate::behaviour::{Behaviour, Cx, Finish, Job};
use crate::call::CallError;
use crate::cell::Mail;
use crate::envelope::{Envelope, Opened, Step};

/// The target of the spans.
const TARGET: &str = "nexus_actors";

struct Traced<B: Behaviour> {
    mail: Mail<B>,
    span: Span,
}

/// The same message, in a span if anybody wants one. Calls the subscriber, so no lock may be held.
#[inline]
pub(crate) fn traced<B: Behaviour>(actor: &Arc<str>, mail: Mail<B>, awaited: bool) -> Mail<B> {
    // One relaxed load.
    if tracing::level_enabled!(Level::TRACE) { in_span(actor, mail, awaited) } else { mail }
}

#[cold]
fn in_span<B: Behaviour>(actor: &Arc<str>, mail: Mail<B>, awaited: bool) -> Mail<B> {
    let (actor, message) = (&**actor, mail.name());
    let span = if awaited {
        tracing::trace_span!(target: TARGET, "message", actor, message, generation = Empty)
    } else {
        let span =
            tracing::trace_span!(target: TARGET, parent: None, "message", actor, message, generation = Empty);
        span.follows_from(Span::current());
        span
    };
    if span.is_disabled() { mail } else { Arc::new(Traced { mail, span }) }
}

impl<B: Behaviour> Envelope<B> for Traced<B> {
    fn name(&self) -> &'static str {
        self.mail.name()
    }

    fn is_untended(&self) -> bool {
        self.mail.is_untended()
    }

    fn run(self: Arc<Self>, behaviour: &mut B, cx: &mut Cx<'_, B>) -> Step<B> {
        self.span.record("generation", cx.generation);
        let step = self.span.in_scope(|| self.mail.clone().run(behaviour, cx));
        followed(step, &self.span)
    }

    fn open(self: Arc<Self>, generation: u64) -> Option<Opened<B>> {
        let opened = self.mail.clone().open(generation)?;
        Some(Box::new(move |behaviour, cx| {
            self.span.record("generation", cx.generation);
            let (step, answer) = self.span.in_scope(|| opened(behaviour, cx));
            (followed(step, &self.span), answer)
        }))
    }

    fn give_back(&self, generation: u64) -> bool {
        self.mail.give_back(generation)
    }

    fn seal(&self, begun: CallError) {
        self.mail.seal(begun);
    }

    fn fail(&self, queued: CallError, begun: CallError) {
        self.mail.fail(queued, begun);
    }
}

/// What is left to be done is done in the span.
fn followed<B: Behaviour>(step: Step<B>, span: &Span) -> Step<B> {
    match step {
        Step::Done => Step::Done,
        Step::Exclusive(job) => Step::Exclusive(follow(job, span)),
        Step::Interleaved(job) => Step::Interleaved(follow(job, span)),
    }
}

fn follow<B: Behaviour>(job: Job<B>, span: &Span) -> Job<B> {
    let last = span.clone();
    let work = async move {
        let finish = job.await;
        Box::new(move |behaviour: &mut B, cx: &mut Cx<'_, B>| last.in_scope(|| finish(behaviour, cx)))
            as Finish<B>
    };
    Box::pin(work.instrument(span.clone()))
}
