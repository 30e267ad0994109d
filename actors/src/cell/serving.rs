//! The incarnation's side of a cell: what to do next, and what has been done.
//!
//! Every step names its generation; one that has been superseded is told so, and can change nothing any more.

use std::task::Waker;
use std::time::Duration;

use super::{Cell, ChildExit, InFlight, Mail};
use crate::behaviour::Behaviour;
use crate::call::CallError;
use crate::exit::ExitReason;
use crate::fault::{Armed, Inject, Moment, Strike};
use crate::swap::SwapRequest;

/// What an incarnation is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Anything.
    Open,
    /// As much is in progress as may be: no message.
    Full,
    /// It drains for a swap: no message.
    Draining,
    /// A message holds it: nothing but its end.
    Held,
}

/// What comes next.
pub(crate) enum Next<B: Behaviour> {
    Kill(ExitReason),
    Stop(ExitReason),
    Swap(Box<SwapRequest<B>>),
    Inject(Inject),
    /// A message, and when a fault strikes it.
    Strike(Mail<B>, Moment),
    /// Nothing; the waker is woken when there is.
    Idle,
    /// No order is left: back to the messages.
    Messages,
    /// Another incarnation has taken over, or will.
    Superseded,
}

impl<B: Behaviour> Cell<B> {
    /// The next message, if that is all there is to it. The message before counts as done. None with `idle` set: there is
    /// nothing, and the waker is woken when there is; else see `next`. The warm path of serving: one lock, little moved.
    pub(crate) fn pop(&self, generation: u64, waker: &Waker, idle: &mut bool) -> Option<Mail<B>> {
        let mut state = self.state.lock();
        if state.serving != generation || state.urgent {
            return None;
        }
        let Some((mail, deadline)) = state.mailbox.pop() else {
            // Dropped after the lock, here and below: it may hold the last reference to a reply.
            let done = state.running.mail.take();
            state.waker = Some(waker.clone());
            drop(state);
            drop(done);
            *idle = true;
            return None;
        };
        state.served += 1;
        state.begun += 1;
        state.running.deadline = deadline;
        let done = state.running.mail.replace(mail.clone());
        drop(state);
        drop(done);
        Some(mail)
    }

    /// What comes next for this incarnation. In `Open` mode the message before counts as done.
    pub(crate) fn next(&self, generation: u64, waker: &Waker, mode: Mode) -> Next<B> {
        let mut state = self.state.lock();
        if state.serving != generation {
            return Next::Superseded;
        }
        let done = if mode == Mode::Held {
            None
        } else {
            state.running.label = None;
            state.running.mail.take()
        };
        let next = if let Some(why) = state.orders.kill.take() {
            Next::Kill(why)
        } else if let Some(swap) = state.orders.swap.take() {
            Next::Swap(swap)
        } else if mode == Mode::Held {
            Next::Idle
        } else if let Some(why) = state.orders.stop.take() {
            Next::Stop(why)
        } else if mode == Mode::Draining {
            Next::Idle
        } else if let Some(inject) = state.orders.inject.take() {
            if inject == Inject::Wedge {
                state.begun += 1;
                state.running.label = Some("an injected wedge");
            }
            Next::Inject(inject)
        } else if mode == Mode::Open {
            state.next_struck()
        } else {
            Next::Idle
        };
        state.orders.ending |= matches!(next, Next::Kill(_) | Next::Stop(_));
        state.urgent = state.orders.any();
        let next = match next {
            Next::Idle if mode == Mode::Open && !state.urgent => Next::Messages,
            next => next,
        };
        if matches!(next, Next::Idle) && !state.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        drop(state);
        drop(done);
        next
    }

    /// The message that was handed out with the fault has begun, and carries it from here on.
    pub(crate) fn carry(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.is_live(generation)
            && let Some(armed) = &mut state.orders.armed
        {
            armed.carried = true;
        }
    }

    /// The fault strikes. None when it has been withdrawn.
    pub(crate) fn blow(&self, generation: u64, message: &'static str) -> Option<Inject> {
        let mut state = self.state.lock();
        if !state.is_live(generation) {
            return None;
        }
        let Strike { fault, .. } = state.orders.armed.take_if(|armed| armed.carried)?.strike;
        if fault == Inject::Wedge && state.running.mail.is_none() {
            // It was answered later, and holds the thread all the same.
            state.begun += 1;
            state.running.label = Some(message);
        }
        Some(fault)
    }

    /// Whether another incarnation takes over; if not, the waker is woken when one does.
    pub(crate) fn is_superseded(&self, generation: u64, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        let live = state.is_live(generation);
        if live {
            state.waker = Some(waker.clone());
        }
        !live
    }

    pub(crate) fn is_live(&self, generation: u64) -> bool {
        self.state.lock().is_live(generation)
    }

    /// The message being handled is answered later; the number is for `landed`.
    pub(crate) fn fly(&self, generation: u64) -> Option<usize> {
        let mut state = self.state.lock();
        if !state.is_live(generation) {
            return None;
        }
        let flying = InFlight { deadline: state.running.deadline, mail: state.running.mail.take()? };
        state.flying += 1;
        match state.in_flight.iter().position(Option::is_none) {
            Some(free) => {
                state.in_flight[free] = Some(flying);
                Some(free)
            }
            None => {
                state.in_flight.push(Some(flying));
                Some(state.in_flight.len() - 1)
            }
        }
    }

    /// A message that was answered later is done.
    pub(crate) fn landed(&self, generation: u64, number: usize) {
        let mut state = self.state.lock();
        if state.is_live(generation) {
            let done = state.in_flight.get_mut(number).and_then(Option::take);
            state.flying -= usize::from(done.is_some());
            drop(state);
            drop(done);
        }
    }

    /// How many messages are answered later.
    pub(crate) fn flying(&self) -> usize {
        self.state.lock().flying
    }

    /// `init` has succeeded.
    pub(crate) fn ready(&self, generation: u64) {
        let mut state = self.state.lock();
        let Some(live) = state.live.as_mut().filter(|live| live.generation == generation) else { return };
        live.ready = true;
        let started = live.started.take();
        drop(state);
        self.env.note(&self.name, || format!("generation {generation} serves"));
        // The starter may have given up.
        started.into_iter().for_each(|started| drop(started.send(Ok(generation))));
    }

    /// A swap is done: the same mailbox goes on with a newer value, whose number is returned.
    pub(crate) fn swapped(&self, generation: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let live = state.live.as_mut().filter(|live| live.generation == generation)?;
        live.generation += 1;
        let newer = live.generation;
        state.generation = newer;
        state.serving = newer;
        drop(state);
        self.env.note(&self.name, || format!("generation {newer} takes over"));
        Some(newer)
    }

    /// The end begins. Begun messages will not be finished: their callers hear of the crash.
    pub(crate) fn abandon(&self, generation: u64) {
        let begun = {
            let mut state = self.state.lock();
            if !state.is_live(generation) {
                return;
            }
            state.orders.ending = true;
            state.take_begun()
        };
        for mail in begun {
            mail.fail(CallError::Down, CallError::Crashed { generation });
        }
    }

    /// The incarnation has ended, by itself or by order. A superseded one is not heard.
    pub(crate) fn ended(&self, generation: u64, why: ExitReason) {
        self.end(generation, why, false);
    }

    /// Ends an incarnation from outside. It may still run, but changes nothing from here on. With `lose_thread` it is
    /// taken to block its thread.
    pub(super) fn end(&self, generation: u64, why: ExitReason, lose_thread: bool) {
        let (live, begun, stopped, swap, waker) = {
            let mut state = self.state.lock();
            if !state.is_live(generation) {
                return;
            }
            let Some(live) = state.live.take() else { return };
            state.serving = 0;
            state.urgent = false;
            state.last_exit = Some(why.clone());
            let begun = state.take_begun();
            if let Some(message) = state.interrupted.take()
                && !why.is_normal()
            {
                state.struck += 1;
                state.last_struck = Some(message);
            }
            let orders = std::mem::replace(&mut state.orders, super::Orders::none());
            (live, begun, orders.stopped, orders.swap, state.waker.take())
        };
        self.env.note(&self.name, || format!("generation {generation} ended: {why}"));
        for mail in begun {
            mail.fail(CallError::Down, CallError::Crashed { generation });
        }
        if lose_thread {
            live.seat.lose(live.tenancy, &self.name);
        } else {
            live.seat.move_out(live.tenancy);
        }
        waker.into_iter().for_each(Waker::wake);
        drop(swap);
        // A failed start is told to the starter, and an ordered end to whoever ordered it; all else to the port.
        let starting = live.started.map(|started| started.send(Err(why.clone()))).is_some();
        if stopped.is_empty() && !starting {
            (live.exits)(ChildExit { id: self.name.clone(), generation, reason: why });
        } else {
            for waiting in stopped {
                let _ = waiting.send(why.clone());
            }
        }
    }

    /// Waits, blocking the thread, until the incarnation is written off; for tests of watchdogs.
    pub(crate) fn wedge(&self, generation: u64) {
        let began = self.env.now();
        while self.is_live(generation) && self.env.now() - began < WEDGE_MAX {
            std::thread::park_timeout(WEDGE_LOOK);
        }
    }
}

/// An injected wedge ends by itself after this long, should no watchdog see it.
pub(crate) const WEDGE_MAX: Duration = Duration::from_secs(60);
const WEDGE_LOOK: Duration = Duration::from_millis(2);

impl<B: Behaviour> super::State<B> {
    /// Takes out what was begun and not finished, each sealed: who sees that its incarnation is over gets no reply to it
    /// through any more, and each is still to be failed. What was only taken out, by an incarnation that has not come to begin it,
    /// is put back for the next one.
    fn take_begun(&mut self) -> Vec<Mail<B>> {
        self.flying = 0;
        self.running.label = None;
        let mut running = self.running.mail.take();
        if !self.closed
            && let Some(mail) = running.take_if(|mail| mail.give_back(self.generation))
        {
            self.mailbox.give_back(mail, self.running.deadline.take());
        }
        let flying = std::mem::take(&mut self.in_flight).into_iter().flatten().map(|flying| flying.mail);
        let begun: Vec<_> = running.into_iter().chain(flying).collect();
        begun.iter().for_each(|mail| mail.seal(CallError::Crashed { generation: self.generation }));
        self.interrupted = self.interrupted.or(begun.first().map(|mail| mail.name()));
        begun
    }

    /// The next message, if a fault waits for one.
    fn next_struck(&mut self) -> Next<B> {
        let Some(Armed { strike, carried: false }) = &self.orders.armed else { return Next::Idle };
        if self.orders.suspended {
            return Next::Idle;
        }
        let Some((mail, deadline)) = self.mailbox.pop() else { return Next::Idle };
        let moment = strike.moment;
        self.served += 1;
        self.begun += 1;
        self.running.deadline = deadline;
        self.running.mail = Some(mail.clone());
        Next::Strike(mail, moment)
    }
}
