//! The actix engine: one actix actor type, which does nothing but poll its turn.
//!
//! The queue, the budget, supervision and panics are ours; actix gives the context on an arbiter. A turn catches what its
//! behaviour throws, so no panic unwinds through actix, which would abort if a second one followed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context};

use crate::behaviour::Behaviour;
use crate::turn::Turn;

struct Shell<B: Behaviour> {
    turn: Turn<B>,
}

impl<B: Behaviour> Actor for Shell<B> {
    type Context = Context<Self>;

    fn started(&mut self, cx: &mut Self::Context) {
        // A future that is waited for is polled first and alone, so a turn costs one poll.
        cx.wait(Pump);
    }
}

/// Polls the turn of the actor that it belongs to.
struct Pump;

impl<B: Behaviour> ActorFuture<Shell<B>> for Pump {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        shell: &mut Shell<B>,
        cx: &mut Context<Shell<B>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let polled = Pin::new(&mut shell.turn).poll(task);
        if polled.is_ready() {
            cx.stop();
        }
        polled
    }
}

pub(super) async fn host<B: Behaviour>(turn: Turn<B>) {
    Context::new().into_future(Shell { turn }).await;
}
