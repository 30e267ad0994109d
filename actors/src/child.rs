//! What a supervisor holds of an actor, whatever its behaviour.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::behaviour::Behaviour;
use crate::cell::{ExitPort, Given};
use crate::env::Place;
use crate::exit::ExitReason;
use crate::fault::{Inject, Strike};
use crate::panics;
use crate::reference::Ref;
use crate::status::ActorStatus;

/// How long a killed actor may take to end before it is written off.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// A supervisor's hold on an actor: everything but its messages.
pub trait Child: Send + Sync {
    /// The name of its `Ref`.
    fn name(&self) -> &Arc<str>;

    /// Starts the next incarnation on the same mailbox, and waits for its `init`. `warm`: see
    /// [`Start::warm`](crate::Start::warm). Later exits go to `exits`; a failed start is told by the result alone.
    fn start(&self, place: Place, warm: bool, exits: ExitPort)
    -> BoxFuture<'static, Result<u64, ExitReason>>;

    /// Ends the incarnation in order: what it is doing is finished, and it cleans up. After `timeout` (None: never; zero: at
    /// once) it is killed, and written off when that does not help. The mailbox stays; the exit port hears nothing. May be
    /// repeated; gives `Normal` when nothing ran.
    fn stop(&self, why: ExitReason, timeout: Option<Duration>) -> BoxFuture<'static, ExitReason>;

    /// Ends the incarnation at its next pause, without cleaning up. The exit port hears of it. Does not wait.
    fn kill(&self);

    /// Ends this incarnation at its next pause with this reason, as if it had failed by itself; see
    /// [`Ref::fail`](crate::Ref::fail).
    fn fail(&self, generation: u64, why: ExitReason) -> bool;

    /// Puts a fault into the running incarnation, between two messages.
    fn inject(&self, fault: Inject);

    /// Arms a fault: it strikes the next message that the running incarnation begins, and is gone with that incarnation.
    /// Until it strikes, [`status`](Child::status) shows it. False when there is no incarnation, or a fault is armed
    /// already. Does not wait.
    fn arm(&self, strike: Strike) -> bool;

    /// Withdraws a fault that has not struck, and says which it was.
    fn disarm(&self) -> Option<Strike>;

    /// Serves no messages until [`resume`](Child::resume), over restarts too.
    fn suspend(&self);

    /// Serves messages again.
    fn resume(&self);

    /// Closes the mailbox: its callers see `Down`, and what was sent and forgotten is dropped and counted in [`ActorStatus::lost`]. A later start
    /// opens it again.
    fn close(&self);

    /// Writes this incarnation off: it may still run, but it can neither take a message, nor reply. If it holds its
    /// thread, the thread is replaced, and the other actors on it are displaced.
    fn write_off(&self, generation: u64, why: ExitReason);

    /// One look at the actor. Sends no mail.
    fn status(&self) -> ActorStatus;
}

/// Puts an actor under control: `args` are what each start is given.
pub fn child<B: Behaviour>(actor: &Ref<B>, args: B::Args) -> Arc<dyn Child> {
    let given = Arc::new(Given::<B>::new(Some(args)));
    *actor.cell().given.lock() = Arc::downgrade(&given);
    Arc::new(Controlled { actor: actor.clone(), given })
}

struct Controlled<B: Behaviour> {
    actor: Ref<B>,
    given: Arc<Given<B>>,
}

impl<B: Behaviour> Drop for Controlled<B> {
    fn drop(&mut self) {
        // Their end is anybody's code, and whoever lets go of a child may be its supervisor.
        let args = self.given.lock().take();
        if let Err(panicked) = panics::guarded_drop(args) {
            tracing::warn!(actor = %self.actor.name(), %panicked, "a destructor panicked");
        }
    }
}

impl<B: Behaviour> Child for Controlled<B> {
    fn name(&self) -> &Arc<str> {
        self.actor.name()
    }

    fn start(
        &self,
        place: Place,
        warm: bool,
        exits: ExitPort,
    ) -> BoxFuture<'static, Result<u64, ExitReason>> {
        Box::pin(self.actor.cell().clone().start(self.given.clone(), place, warm, exits))
    }

    fn stop(&self, why: ExitReason, timeout: Option<Duration>) -> BoxFuture<'static, ExitReason> {
        let actor = self.actor.clone();
        let brutal = timeout == Some(Duration::ZERO);
        // Ordered at once: whoever drops the future has stopped it nevertheless.
        let ordered = if brutal { actor.cell().order_kill() } else { actor.cell().order_stop(why) };
        let Some(mut last_word) = ordered else {
            return Box::pin(std::future::ready(ExitReason::Normal));
        };
        // The one that was ordered to end. Should it have ended since, it is not its successor that is written off.
        let generation = actor.cell().generation();
        Box::pin(async move {
            let (cell, env) = (actor.cell(), actor.env());
            let Some(timeout) = timeout else { return last_word.await.unwrap_or(ExitReason::Killed) };
            if !brutal {
                if let Ok(heard) = env.timeout(timeout, last_word).await {
                    return heard.unwrap_or(ExitReason::Killed);
                }
                match cell.order_kill() {
                    Some(killed) => last_word = killed,
                    None => return ExitReason::Killed,
                }
            }
            if let Ok(heard) = env.timeout(KILL_GRACE, last_word).await {
                return heard.unwrap_or(ExitReason::Killed);
            }
            cell.write_off(generation, ExitReason::Killed);
            ExitReason::Killed
        })
    }

    fn kill(&self) {
        self.actor.cell().kill();
    }

    fn fail(&self, generation: u64, why: ExitReason) -> bool {
        self.actor.cell().fail(generation, why)
    }

    fn inject(&self, fault: Inject) {
        self.actor.cell().inject(fault);
    }

    fn arm(&self, strike: Strike) -> bool {
        self.actor.cell().arm(strike)
    }

    fn disarm(&self) -> Option<Strike> {
        self.actor.cell().disarm()
    }

    fn suspend(&self) {
        self.actor.cell().suspend(true);
    }

    fn resume(&self) {
        self.actor.cell().suspend(false);
    }

    fn close(&self) {
        self.actor.cell().close();
    }

    fn write_off(&self, generation: u64, why: ExitReason) {
        self.actor.cell().write_off(generation, why);
    }

    fn status(&self) -> ActorStatus {
        self.actor.status()
    }
}
