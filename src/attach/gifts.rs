//! Locks and children that were given to a client: what it calls off before it has them is taken back, and so is what has not left for it when it is gone.
//!
//! What has left stays: the client may have it.

use std::collections::VecDeque;
use std::sync::Arc;

use nexus_kernel::Kernel;
use nexus_messages::{Caller, ChildId, ChildSignal, LockId, VPath};

/// Locks and children that were given last and are remembered, to be taken back when the call for one is called off while its reply is on the way. All that have not left are
/// remembered: no more of them are there than replies that wait to leave.
const GIVEN_MAX: usize = 4_096;

/// What was given, and goes back when nobody takes it up.
pub(super) enum Gift {
    Lock(VPath, LockId),
    Child(ChildId),
}

/// The gifts of one client, by the numbers of the calls for them.
pub(super) struct Gifts {
    kernel: Arc<Kernel>,
    given: VecDeque<OnItsWay>,
    /// How many of them have not left. Of other calls nothing is looked for when there are none.
    here: usize,
}

struct OnItsWay {
    number: u64,
    caller: Arc<Caller>,
    gift: Gift,
    has_left: bool,
}

impl Gifts {
    pub(super) fn new(kernel: Arc<Kernel>) -> Self {
        Self { kernel, given: VecDeque::new(), here: 0 }
    }

    /// The reply to this call is about to leave, and brings this.
    pub(super) fn note(&mut self, number: u64, caller: Arc<Caller>, gift: Gift) {
        if self.given.len() >= GIVEN_MAX
            && let Some(oldest) = self.given.iter().position(|one| one.has_left)
        {
            self.given.remove(oldest);
        }
        self.given.push_back(OnItsWay { number, caller, gift, has_left: false });
        self.here += 1;
    }

    /// The reply to this call has left.
    pub(super) fn left(&mut self, number: u64) {
        let mut here = self.given.iter_mut().rev().filter(|one| !one.has_left).take(self.here);
        if let Some(one) = here.find(|one| one.number == number) {
            one.has_left = true;
            self.here -= 1;
        }
    }

    /// The client does not wait for the reply to this call any more. Whether something was given with it, which is taken back.
    pub(super) fn called_off(&mut self, number: u64) -> bool {
        let at = self.given.iter().rposition(|one| one.number == number);
        let Some(one) = at.and_then(|at| self.given.remove(at)) else { return false };
        self.here -= usize::from(!one.has_left);
        self.take_back(&one);
        true
    }

    fn take_back(&self, OnItsWay { caller, gift, .. }: &OnItsWay) {
        match gift {
            Gift::Lock(path, id) => drop(self.kernel.release_lock(caller, path, *id)),
            Gift::Child(id) => {
                if let Err(error) = self.kernel.signal_child(caller, *id, ChildSignal::Kill) {
                    tracing::warn!(child = %id, %error, "a child that nobody heard of cannot be killed");
                }
            }
        }
    }
}

impl Drop for Gifts {
    fn drop(&mut self) {
        for one in std::mem::take(&mut self.given).iter().filter(|one| !one.has_left) {
            self.take_back(one);
        }
    }
}
