//! Who waits for whom, as those are told apart who wait in a circle.

use std::sync::Arc;

use super::Filed;
use crate::semaphore::places::{Moment, Owner, Places};
use crate::semaphore::ticket::Ticket;

/// Somebody who waits, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Wait<K> {
    pub(crate) key: K,
    pub(crate) number: u64,
    pub(crate) owner: Owner,
    /// Each of these stands in the way.
    pub(crate) blockers: Vec<Owner>,
    /// Of these, who all hold one of several places, one is enough that gives its place back.
    pub(crate) one_of: Vec<Owner>,
}

impl<K: Filed> Places<K, Arc<Ticket>> {
    /// Who waits, and for whom.
    pub(super) fn waits(&self, now: Moment) -> Vec<Wait<K>> {
        let mut waits = Vec::new();
        for (key, waiter, before) in self.lines() {
            let (mut blockers, one_of) = self.blockers(key, waiter, before, now);
            blockers.extend(before.map(|before| before.request.owner.clone()));
            waits.push(Wait {
                key: key.clone(),
                number: waiter.number,
                owner: waiter.request.owner.clone(),
                blockers,
                one_of,
            });
        }
        waits
    }
}
