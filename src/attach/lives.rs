//! Lives of the agents of a client: each handle of an agent has one of its own in the owner's process, and what is tied to it goes with it.
//!
//! The client numbers them, and says when one begins and ends; each call says in which it is made. All end with the connection. One that goes on when its
//! connection was lost begins anew on the next.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use nexus_kernel::{Kernel, Life};
use nexus_messages::{Error, ErrorKind, LifeId, Op, Result};

use super::client::Reach;
use super::wire::WireError;

/// Lives that one client can have at once, beside its connection's own.
pub(super) const LIVES_MAX: usize = 16_384;

/// The number of the connection's own life, which ends with that.
pub(super) const OWN: u64 = LifeId::KERNEL.0;

/// The lives of one client in the owner's process.
pub(super) struct Lives {
    kernel: Arc<Kernel>,
    /// What is tied to it goes with the connection.
    own: Life,
    /// Invariant: at most `LIVES_MAX`.
    agents: HashMap<u64, Life>,
    /// One that has ended: in it a call is made that comes behind the end of its own.
    ended: LifeId,
}

impl Lives {
    pub(super) fn new(kernel: &Arc<Kernel>) -> Self {
        Self {
            kernel: kernel.clone(),
            own: kernel.begin_life(),
            agents: HashMap::new(),
            ended: kernel.begin_life().id(),
        }
    }

    /// The connection's own.
    pub(super) fn own(&self) -> LifeId {
        self.own.id()
    }

    /// The life of this number.
    pub(super) fn of(&self, number: u64) -> LifeId {
        match number {
            OWN => self.own.id(),
            agent => self.agents.get(&agent).map_or(self.ended, Life::id),
        }
    }

    /// # Errors
    /// For one more than may be, and one that is there already.
    pub(super) fn begin(&mut self, number: u64) -> std::result::Result<(), WireError> {
        if number == OWN || self.agents.len() >= LIVES_MAX || self.agents.contains_key(&number) {
            return Err(WireError::Malformed(format!("life {number} cannot begin")));
        }
        self.agents.insert(number, self.kernel.begin_life());
        Ok(())
    }

    /// One that is not there has ended.
    pub(super) fn end(&mut self, number: u64) {
        self.agents.remove(&number);
    }
}

/// The lives of one client, as that has them: those that go on, by their numbers.
#[derive(Default)]
pub(super) struct Going {
    lives: HashMap<LifeId, Weak<RemoteLife>>,
    last: u64,
}

impl Going {
    /// One more, which ends when it is dropped.
    ///
    /// # Errors
    /// `EBUSY` when there are as many as may be.
    pub(super) fn begin(&mut self, reach: &Arc<Reach>) -> Result<Arc<RemoteLife>> {
        if self.lives.len() >= LIVES_MAX {
            let error = Error::global(Op::Connect, ErrorKind::Busy);
            return Err(error.because(format!("this client has handles of {LIVES_MAX} agents")));
        }
        self.last += 1;
        let life = Arc::new(RemoteLife { reach: reach.clone(), id: LifeId(self.last) });
        self.lives.insert(life.id, Arc::downgrade(&life));
        Ok(life)
    }

    pub(super) fn end(&mut self, id: LifeId) {
        self.lives.remove(&id);
    }

    /// The numbers of all.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.lives.keys().map(|id| id.0)
    }

    /// Keeps this one going; none when it has ended, and of the connection's own.
    pub(super) fn kept(&self, id: LifeId) -> Option<Arc<RemoteLife>> {
        self.lives.get(&id)?.upgrade()
    }
}

/// The life of an agent whose kernel is elsewhere. It ends when this is dropped.
pub(crate) struct RemoteLife {
    reach: Arc<Reach>,
    id: LifeId,
}

impl RemoteLife {
    /// Its number, which the callers have for whom it goes on.
    pub(crate) fn id(&self) -> LifeId {
        self.id
    }
}

impl Drop for RemoteLife {
    fn drop(&mut self) {
        self.reach.end_life(self.id);
    }
}

impl fmt::Debug for RemoteLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteLife").field(&self.id.0).finish()
    }
}
