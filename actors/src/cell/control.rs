//! The supervisor's side of a cell: start, stop, kill, suspend, close, write off.

use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Cell, Given, Live, Pulse};
use crate::behaviour::{Behaviour, Start, Swap};
use crate::call::CallError;
use crate::engine;
use crate::env::{Place, Seat, Tenant};
use crate::exit::ExitReason;
use crate::fault::{Armed, Inject, Strike};
use crate::reference::Ref;
use crate::swap::{SwapError, SwapReport, SwapRequest};
use crate::turn::Turn;

/// The end of an incarnation, as its supervisor hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildExit {
    /// The name of the actor's `Ref`.
    pub id: Arc<str>,
    /// The incarnation that ended.
    pub generation: u64,
    /// Why.
    pub reason: ExitReason,
}

/// Where the exits of an incarnation are told. Called from any thread; must not block.
pub type ExitPort = Arc<dyn Fn(ChildExit) + Send + Sync>;

impl<B: Behaviour> Cell<B> {
    /// Starts the next incarnation with what is given when this is first polled. Fails when one lives.
    pub(crate) async fn start(
        self: Arc<Self>,
        given: Arc<Given<B>>,
        place: Place,
        warm: bool,
        exits: ExitPort,
    ) -> Result<u64, ExitReason> {
        let args = given.lock().clone().ok_or_else(|| ExitReason::error("it was given no arguments"))?;
        let seat = self.env.seat(place).ok_or(ExitReason::Killed)?;
        let (ack, started) = oneshot::channel();
        let pulse = Arc::new(Pulse::default());
        let Some(generation) = self.enter(&seat, &pulse, exits, ack) else {
            seat.vacated();
            return Err(ExitReason::error("it runs already"));
        };
        let me = Ref::from_cell(self.clone());
        let begun = seat.spawn(self.name.clone(), move || {
            let start = Start { me, generation, warm };
            Box::pin(engine::host(Turn::new(start, args, pulse)))
        });
        if !begun {
            self.end(generation, ExitReason::Killed, false);
        }
        started.await.unwrap_or(Err(ExitReason::Killed))
    }

    /// Enters the next incarnation, which may take messages from here on. None when one lives.
    pub(super) fn enter(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        pulse: &Arc<Pulse>,
        exits: ExitPort,
        started: oneshot::Sender<Result<u64, ExitReason>>,
    ) -> Option<u64> {
        let since = self.env.now();
        let mut state = self.state.lock();
        if state.live.is_some() {
            return None;
        }
        state.generation += 1;
        let generation = state.generation;
        state.serving = generation;
        state.restarts += u64::from(generation > 1);
        state.closed = false;
        state.orders.suspended = state.suspended;
        state.urgent = state.orders.any();
        let weak: Weak<Cell<B>> = Arc::downgrade(self);
        state.live = Some(Live {
            generation,
            ready: false,
            since,
            pulse: pulse.clone(),
            seat: seat.clone(),
            tenancy: seat.move_in(weak),
            exits,
            started: Some(started),
            _behaviour: std::marker::PhantomData,
        });
        Some(generation)
    }

    /// Asks the incarnation to end. None when none lives; else its last word will come.
    pub(crate) fn order_stop(&self, why: ExitReason) -> Option<oneshot::Receiver<ExitReason>> {
        self.order_end(|orders| &mut orders.stop, why)
    }

    /// Ends the incarnation at its next pause, without cleaning up.
    pub(crate) fn order_kill(&self) -> Option<oneshot::Receiver<ExitReason>> {
        self.order_end(|orders| &mut orders.kill, ExitReason::Killed)
    }

    fn order_end(
        &self,
        order: impl FnOnce(&mut super::Orders<B>) -> &mut Option<ExitReason>,
        why: ExitReason,
    ) -> Option<oneshot::Receiver<ExitReason>> {
        let mut state = self.state.lock();
        state.live.as_ref()?;
        let (heard, hears) = oneshot::channel();
        state.orders.stopped.retain(|waiting| !waiting.is_closed());
        state.orders.stopped.push(heard);
        *order(&mut state.orders) = Some(why);
        state.urgent = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Some(hears)
    }

    /// Kills without waiting; the exit is told to the port, as that of a crash.
    pub(crate) fn kill(&self) {
        self.order(|orders| orders.kill = Some(ExitReason::Killed));
    }

    /// Ends this incarnation as if it had failed by itself. False when it is not the live one, or an end is on its way.
    pub(crate) fn fail(&self, generation: u64, why: ExitReason) -> bool {
        let mut state = self.state.lock();
        let ordered = state.orders.kill.is_some() || state.orders.stop.is_some();
        if !state.is_live(generation) || ordered || state.orders.ending {
            return false;
        }
        state.orders.kill = Some(why);
        state.urgent = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    pub(crate) fn inject(&self, fault: Inject) {
        self.order(|orders| orders.inject = Some(fault));
    }

    /// Arms a fault for the next message. False when none lives, or one is armed.
    pub(crate) fn arm(&self, strike: Strike) -> bool {
        let mut armed = false;
        self.order(|orders| {
            armed = orders.armed.is_none();
            orders.armed.get_or_insert(Armed { strike, carried: false });
        });
        armed
    }

    pub(crate) fn disarm(&self) -> Option<Strike> {
        self.state.lock().orders.armed.take().map(|armed| armed.strike)
    }

    /// Holds also for the incarnations to come.
    pub(crate) fn suspend(&self, suspended: bool) {
        self.state.lock().suspended = suspended;
        self.order(|orders| orders.suspended = suspended);
    }

    fn order(&self, give: impl FnOnce(&mut super::Orders<B>)) {
        let mut state = self.state.lock();
        if state.live.is_none() {
            return;
        }
        give(&mut state.orders);
        state.urgent = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Closes the mailbox: who waits, and who comes, sees `Down`, and what nobody waits for is counted as lost. A later start opens it again.
    pub(crate) fn close(&self) {
        let mails = {
            let mut state = self.state.lock();
            state.closed = true;
            let untended = state.mailbox.count(|mail| mail.is_untended());
            state.lost = state.lost.saturating_add(u64::try_from(untended).unwrap_or(u64::MAX));
            state.mailbox.clear()
        };
        for mail in mails {
            mail.fail(CallError::Down, CallError::Down);
        }
    }

    /// Writes an incarnation off that cannot be ended. What it has begun is unknown to its callers, and nothing that it
    /// still does is seen. When it holds its thread, the thread is lost too.
    pub(crate) fn write_off(&self, generation: u64, why: ExitReason) {
        let on_thread = {
            let state = self.state.lock();
            state.live.as_ref().is_some_and(|live| live.pulse.on_thread().is_some())
        };
        self.end(generation, why, on_thread);
    }

    pub(crate) async fn swap(self: Arc<Self>, args: B::Args, limit: Duration) -> Result<SwapReport, SwapError>
    where
        B: Swap,
    {
        let (ack, done) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if !state.live.as_ref().is_some_and(|live| live.ready) {
                return Err(SwapError::NotRunning);
            }
            if state.orders.swap.is_some() {
                return Err(SwapError::UnderWay);
            }
            state.orders.swap = Some(Box::new(SwapRequest::new(args, limit, ack)));
            state.urgent = true;
            let waker = state.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
        done.await.unwrap_or(Err(SwapError::NotRunning))
    }
}

impl<B: Behaviour> Tenant for Cell<B> {
    fn displace(&self, tenancy: u64, by: &Arc<str>) {
        let generation = {
            let state = self.state.lock();
            state.live.as_ref().filter(|live| live.tenancy == tenancy).map(|live| live.generation)
        };
        if let Some(generation) = generation {
            self.end(generation, ExitReason::Displaced { by: by.clone() }, false);
        }
    }
}
