//! What goes wrong, where and how often.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::Arc;

use nexus_kernel::hal::{StoreError, StoreFuture};
use parking_lot::{Condvar, Mutex};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// It is not done, and answers with an I/O error.
    Error,
    /// It is not done, and panics when it is polled.
    Panic,
    /// It is not done, and panics before there is anything to poll.
    PanicAtOnce,
    /// It is not done, and never answers.
    Hang,
    /// It is not done, and blocks the thread that polls it until the faults are cleared. Then it answers with an I/O error.
    Block,
    /// It is done, and panics then.
    DoneThenPanic,
    /// It is done, and never answers.
    DoneThenHang,
}

impl Fault {
    /// Every fault, for who draws one.
    pub const ALL: [Self; 7] = [
        Self::Error,
        Self::Panic,
        Self::PanicAtOnce,
        Self::Hang,
        Self::Block,
        Self::DoneThenPanic,
        Self::DoneThenHang,
    ];
}

/// Which calls of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Where {
    /// Opening it.
    Open,
    /// Asking whether it answers: when it is opened, and from time to time.
    Probe,
    /// Calls that change nothing.
    Look,
    /// Calls that change something.
    Change,
}

/// The switches. Clones are the same switches.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    cleared: Condvar,
}

#[derive(Debug, Default)]
struct State {
    armed: Vec<Armed>,
    /// How often the faults were cleared.
    clears: u64,
    calls: BTreeMap<Where, u64>,
    hits: BTreeMap<(Where, Fault), u64>,
}

#[derive(Debug)]
struct Armed {
    at: Where,
    fault: Fault,
    /// Calls that are let pass first.
    after: u32,
    /// Calls that are hit; none for all.
    times: Option<u32>,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next call goes wrong.
    pub fn once(&self, at: Where, fault: Fault) {
        self.times(1, at, fault);
    }

    /// One call goes wrong, after so many that do not.
    pub fn once_after(&self, calls: u32, at: Where, fault: Fault) {
        self.arm(Armed { at, fault, after: calls, times: Some(1) });
    }

    /// The next calls go wrong, so many of them.
    pub fn times(&self, times: u32, at: Where, fault: Fault) {
        self.arm(Armed { at, fault, after: 0, times: Some(times) });
    }

    /// All calls go wrong, until that is taken back.
    pub fn always(&self, at: Where, fault: Fault) {
        self.arm(Armed { at, fault, after: 0, times: None });
    }

    /// Nothing goes wrong any more. What blocks goes on; what hangs does not.
    pub fn clear(&self) {
        let mut state = self.0.state.lock();
        state.armed.clear();
        state.clears += 1;
        self.0.cleared.notify_all();
    }

    /// How many calls were made, those that went wrong included.
    pub fn calls(&self, at: Where) -> u64 {
        self.0.state.lock().calls.get(&at).copied().unwrap_or(0)
    }

    /// How many calls went wrong in this way.
    pub fn hits(&self, at: Where, fault: Fault) -> u64 {
        self.0.state.lock().hits.get(&(at, fault)).copied().unwrap_or(0)
    }

    fn arm(&self, armed: Armed) {
        self.0.state.lock().armed.push(armed);
    }

    /// What goes wrong with the call that is made now. The switches that were turned first come first.
    fn take(&self, at: Where) -> Option<Fault> {
        let mut state = self.0.state.lock();
        *state.calls.entry(at).or_default() += 1;
        let mut hit = None;
        for armed in state.armed.iter_mut().filter(|armed| armed.at == at) {
            if armed.after > 0 {
                armed.after -= 1;
                continue;
            }
            hit = Some(armed.fault);
            armed.times = armed.times.map(|times| times - 1);
            break;
        }
        state.armed.retain(|armed| armed.times != Some(0));
        if let Some(fault) = hit {
            *state.hits.entry((at, fault)).or_default() += 1;
        }
        hit
    }

    /// Makes a call, or what becomes of it.
    pub(super) fn over<'a, T: Send + 'a>(
        &self,
        at: Where,
        what: &'static str,
        call: impl FnOnce() -> StoreFuture<'a, T> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        let Some(fault) = self.take(at) else { return call() };
        let injected = move || StoreError::io(what, io::Error::other("an injected fault"));
        if fault == Fault::PanicAtOnce {
            panic!("an injected panic before {what}");
        }
        let faults = self.clone();
        Box::pin(async move {
            match fault {
                Fault::Panic => panic!("an injected panic while {what}"),
                Fault::Hang => pending().await,
                Fault::Block => {
                    faults.block();
                    Err(injected())
                }
                Fault::DoneThenPanic => {
                    call().await?;
                    panic!("an injected panic after {what}")
                }
                Fault::DoneThenHang => {
                    call().await?;
                    pending().await
                }
                _ => Err(injected()),
            }
        })
    }

    fn block(&self) {
        let mut state = self.0.state.lock();
        let clears = state.clears;
        self.0.cleared.wait_while(&mut state, |state| state.clears == clears);
    }
}
