//! Locks that outlive the process: one for each client, given back by a later kernel, or over by their time.

use std::time::Duration;

use nexus::{Env, ErrorKind, Executed, LockId, Nexus, SysLock, SysUnlock, VPath, ZoneId};
use serde::{Deserialize, Serialize};

use super::{KEPT, path};
use crate::clients::SYSCALL_MAX;
use crate::plan::Dice;
use crate::record::Record;
use crate::scene::Scene;

/// How long such a lock lasts: longer than a kernel takes to come back, or less.
const TTLS: [Duration; 2] = [Duration::from_secs(120), Duration::from_millis(700)];

/// How far the moment when its time is over is from what its caller knows of it.
const NEAR: Duration = Duration::from_millis(50);

/// How long a lock lasts that is asked for in vain, when nobody has it after all.
const BRIEF: Duration = SysLock::TTL_MIN;

/// What is known of a lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    #[default]
    Free,
    /// It was asked for or given back, and nobody said what became of that.
    Doubtful,
    /// Held, at least until the one moment of the clock on the wall, in nanoseconds, and at most until the other.
    Held { id: LockId, token: u64, until: u64, until_max: u64 },
}

/// Who keeps one.
pub(crate) struct Keeper {
    number: usize,
    kept: Kept,
}

pub(crate) fn place(number: usize) -> VPath {
    path(&format!("{KEPT}/{number}"))
}

/// Whether a moment is surely before another one: the clock on the wall, by which both are told, and the one by which a lock ends, do not go alike.
fn is_before(moment: u64, until: u64) -> bool {
    moment.saturating_add(u64::try_from(NEAR.as_nanos()).unwrap_or(0)) < until
}

impl Kept {
    /// What is wrong with a lock whose holders have these tokens, as was seen between two moments.
    pub(crate) fn disagrees(self, holders: &[u64], (before, after): (u64, u64)) -> Option<String> {
        let is_right = match self {
            Self::Free => holders.is_empty(),
            Self::Doubtful => holders.len() <= 1,
            Self::Held { token, until, .. } if is_before(after, until) => holders == [token],
            Self::Held { until_max, .. } if is_before(until_max, before) => holders.is_empty(),
            Self::Held { token, .. } => holders.is_empty() || holders == [token],
        };
        (!is_right).then(|| {
            format!("a lock that outlives the process is {self:?}, and held with the tokens {holders:?}")
        })
    }
}

impl Keeper {
    pub(crate) fn new(number: usize, kept: Kept) -> Self {
        Self { number, kept }
    }

    /// Takes the lock when nobody has it, and gives it back otherwise: it may have been taken in the kernel's last life.
    pub(crate) async fn step(&mut self, scene: &Scene, agent: &Nexus, dice: &mut Dice) {
        match self.kept {
            Kept::Free => self.take(scene, agent, dice).await,
            Kept::Doubtful => self.free(scene).await,
            Kept::Held { id, until, .. } => {
                self.try_again(scene, agent, until).await;
                if dice.below(3) == 0 {
                    self.give_back(scene, agent, id, until).await;
                }
            }
        }
    }

    fn know(&mut self, scene: &Scene, kept: Kept) {
        self.kept = kept;
        scene.tell(Record::Kept { locker: self.number, kept });
    }

    async fn take(&mut self, scene: &Scene, agent: &Nexus, dice: &mut Dice) {
        let at = place(self.number);
        let ttl = TTLS[usize::from(dice.below(4) == 0)];
        self.know(scene, Kept::Doubtful);
        let before = scene.env.wall();
        let asking = agent.send(SysLock::exclusive(&at).ttl(ttl).durable());
        match scene.call("lock", at.as_str(), SYSCALL_MAX, asking).await {
            Some(Ok(locked)) => {
                let ends = |from: u64| from.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
                let (until, until_max) = (ends(before), ends(scene.env.wall()));
                self.know(scene, Kept::Held { id: locked.id, token: locked.token, until, until_max });
                scene.count(|counts| counts.kept += 1);
            }
            Some(Err(error)) if error.executed() == Executed::Unknown => {}
            Some(Err(error)) => scene.failed("a lock that nobody holds was refused", &error),
            None => {}
        }
    }

    /// Another one asks for it, in vain.
    async fn try_again(&self, scene: &Scene, agent: &Nexus, until: u64) {
        let at = place(self.number);
        match agent.send(SysLock::exclusive(&at).ttl(BRIEF)).await {
            Ok(other) if is_before(scene.env.wall(), until) && !scene.is_dying() => {
                scene.broken(format_args!("held twice: {:?} and {other:?}", self.kept));
            }
            Ok(other) => {
                scene.tell(Record::Token { newest: other.token });
                // Before this client comes to rest: whoever looks then takes what is held here for the lock that it kept.
                if agent.send(SysUnlock::new(&at, other.id)).await.is_err() {
                    scene.env.sleep(BRIEF * 4).await;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => scene.failed("a lock was refused for no fault", &error),
        }
    }

    async fn give_back(&mut self, scene: &Scene, agent: &Nexus, id: LockId, until: u64) {
        let (at, kept) = (place(self.number), self.kept);
        self.know(scene, Kept::Doubtful);
        match scene.call("unlock", at.as_str(), SYSCALL_MAX, agent.send(SysUnlock::new(&at, id))).await {
            Some(Ok(_)) => self.know(scene, Kept::Free),
            Some(Err(error)) if error.kind() == ErrorKind::NotHeld => {
                let is_early = is_before(scene.env.wall(), until) && !scene.is_dying();
                if is_early {
                    scene.broken(format_args!("not held any more, before its time: {kept:?}: {error}"));
                }
            }
            Some(Err(error)) if error.executed() == Executed::Unknown => {}
            Some(Err(error)) => scene.failed("a lock was not given back", &error),
            None => {}
        }
    }

    /// Of one that nobody knows of, all are taken back.
    async fn free(&mut self, scene: &Scene) {
        let at = place(self.number);
        match scene.call("force", at.as_str(), SYSCALL_MAX, scene.nx.send(SysUnlock::force(&at))).await {
            Some(Ok(_)) => self.know(scene, Kept::Free),
            Some(Err(error)) => scene.failed("locks were not taken by force", &error),
            None => {}
        }
    }
}

/// What is wrong with the locks that outlive the process, when nobody asks for one. To be asked of a kernel that has just come up, too.
pub(crate) fn check(nx: &Nexus, env: &Env, kept: &[Kept]) -> Vec<String> {
    let Ok(kernel) = nx.kernel() else { return vec!["there is no kernel".into()] };
    let look = |(number, kept): (usize, &Kept)| {
        let before = env.wall();
        let state = kernel.advisory().state(&ZoneId::root(), &place(number));
        let holders: Vec<_> =
            state.iter().flat_map(|state| &state.holders).map(|holder| holder.token).collect();
        kept.disagrees(&holders, (before, env.wall()))
    };
    kept.iter().enumerate().filter_map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_lock_that_did_not_last_until_its_time_or_lasted_longer_is_seen() {
        let held = Kept::Held { id: LockId(1), token: 7, until: 10 * SECOND, until_max: 11 * SECOND };
        let check = |kept: Kept, holders: &[u64], at: u64, is_right: bool| {
            let moments = (at * SECOND, at * SECOND);
            assert_eq!(kept.disagrees(holders, moments).is_none(), is_right, "{kept:?} {holders:?} {at}");
        };
        check(held, &[7], 5, true);
        check(held, &[], 5, false);
        check(held, &[8], 5, false);
        check(held, &[7, 8], 5, false);
        check(held, &[7], 12, false);
        check(held, &[], 12, true);
        check(held, &[], 10, true);
        check(Kept::Free, &[], 5, true);
        check(Kept::Free, &[7], 5, false);
        check(Kept::Doubtful, &[7], 5, true);
        check(Kept::Doubtful, &[7, 8], 5, false);
    }
}
