//! Clients that use advisory locks: shared in every way, waited for, given up, overstayed, taken by force, and written under.

pub(crate) mod history;
pub(crate) mod kept;

use std::sync::Arc;
use std::time::Duration;

use nexus::{
    ErrorKind, Fence, LockKind, Locked, Nexus, SysLock, SysRead, SysUnlock, SysWrite, VPath, ZoneId,
};

use self::history::{Fenced, Hold, PATHS};
use crate::clients::SYSCALL_MAX;
use crate::order::Span;
use crate::plan::Dice;
use crate::record::Record;
use crate::scene::Scene;

/// Clients of this kind.
pub(crate) const LOCKERS: usize = 4;

/// What all locks of these clients are below, and where what they guard is written, a file for each path.
pub(crate) const LOCKED: &str = "/locked";
pub(crate) const GUARDED: &str = "/guarded";

/// Where the locks are that outlive the process.
pub(crate) const KEPT: &str = "/kept";

/// How many may hold a counted lock.
const PLACES: u32 = 3;

/// How long a lock lasts that is to be given back, and how many times the pace of the run one lasts whose time is to be over.
const LONG: Duration = Duration::from_secs(10);
const SHORT_PACES: u32 = 20;

/// How long a client waits for a second lock, on average: longer than it takes until a circle is looked for.
const CIRCLE_WAIT: Duration = Duration::from_millis(40);

/// Within what all locks are free when nobody asks for one: all whose time is long are given back by then.
const FREE_MAX: Duration = Duration::from_secs(8);

const _: () = assert!(FREE_MAX.as_secs() < LONG.as_secs());

struct Locker {
    scene: Arc<Scene>,
    number: usize,
    dice: Dice,
    agent: Nexus,
    /// A lock that is not held any more, by its path.
    stale: Option<(usize, Fence)>,
}

/// A lock that this client has, by its place in the history.
struct Taken {
    at: usize,
    path: usize,
    locked: Locked,
    ttl: Duration,
}

/// Runs one client until the scene ends.
pub(crate) async fn run(scene: Arc<Scene>, number: usize) {
    let dice = Dice::new(scene.life.seed ^ (number as u64 + 1) << 44);
    let Ok(agent) = agent(&scene, number) else { return scene.broken("there can be no agent") };
    let mut locker = Locker { scene: scene.clone(), number, dice, agent, stale: None };
    let mut kept = kept::Keeper::new(number, scene.ledger.kept(number));
    while scene.goes_on().await {
        if !scene.is_dying() {
            match locker.dice.below(40) {
                0 => kept.step(&scene, &locker.agent, &mut locker.dice).await,
                1 => locker.force().await,
                2..6 => locker.write_late().await,
                6..10 => locker.read().await,
                _ => locker.step().await,
            }
        }
        let pause = locker.dice.around(scene.setting.pace * 3);
        scene.env.sleep(pause).await;
    }
}

fn agent(scene: &Scene, number: usize) -> nexus::Result<Nexus> {
    scene.nx.agent(format!("locker-{number}"))
}

fn path(path: &str) -> VPath {
    VPath::parse(path).unwrap_or_else(|_| VPath::root())
}

fn guarded(path: usize) -> VPath {
    self::path(&format!("{GUARDED}/{path}"))
}

impl Locker {
    /// Takes a lock, does something with it, and gives it back or lets its time pass.
    async fn step(&mut self) {
        let Some(mut taken) = self.take(true).await else { return };
        let paces = self.scene.setting.pace;
        let is_exclusive = self.scene.locks.lock().holds[taken.at].kind == LockKind::Exclusive;
        if is_exclusive && self.dice.below(3) > 0 {
            self.write(taken.path, taken.locked.fence()).await;
        }
        let hold = self.dice.around(paces * 2);
        self.scene.env.sleep(hold).await;
        if self.dice.below(4) == 0 {
            self.extend(&mut taken).await;
        }
        if self.dice.below(3) == 0
            && let Some(second) = self.take(false).await
        {
            self.give_back(second).await;
        }
        if taken.ttl < LONG && self.dice.below(2) == 0 {
            // Overstays, or is forgotten.
            self.remember(&taken);
            let overstay = self.dice.around(taken.ttl);
            self.scene.env.sleep(overstay).await;
            if is_exclusive {
                self.write(taken.path, taken.locked.fence()).await;
            }
            if self.dice.below(2) == 0 {
                return;
            }
        }
        self.give_back(taken).await;
    }

    /// Asks for a lock. When it has no other, its life may end with it, if that is tied to it.
    async fn take(&mut self, is_first: bool) -> Option<Taken> {
        let scene = self.scene.clone();
        let at = usize::try_from(self.dice.below(PATHS.len() as u64)).unwrap_or(0);
        let counted = at == PATHS.len() - 1;
        let kind = match self.dice.below(6) {
            0..4 if counted => LockKind::Semaphore(PLACES),
            0..4 => LockKind::Exclusive,
            _ => LockKind::Shared,
        };
        let is_short = self.dice.below(3) == 0;
        let ttl = if is_short { scene.setting.pace * SHORT_PACES } else { LONG };
        // Who has one already waits so long for another that a circle is found.
        let around = if is_first { scene.setting.wait } else { CIRCLE_WAIT };
        let wait = (!is_first || self.dice.below(3) > 0).then(|| self.dice.around(around));
        let mut call = SysLock::exclusive(path(PATHS[at])).ttl(ttl);
        (call.kind, call.wait, call.tied) = (kind, wait, self.dice.below(5) == 0);
        let is_tied = call.tied;
        let gives_up_one_of = if is_first { 4 } else { 8 };
        let gives_up = (self.dice.below(gives_up_one_of) == 0).then(|| self.dice.around(scene.setting.wait));
        let (asked, sent) = (scene.age(), scene.tick());
        let asking = self.agent.send(call);
        let answer = match gives_up {
            Some(after) => scene.give_up(after, asking).await?,
            None => scene.call("lock", PATHS[at], SYSCALL_MAX + wait.unwrap_or_default(), asking).await?,
        };
        match answer {
            Ok(locked) => {
                let from = scene.at();
                scene.count(|counts| counts.locked += 1);
                let until = asked + ttl;
                let token = locked.token;
                // At once: after a kill the next life gives no older one.
                scene.tell(Record::Token { newest: token });
                let tied = is_tied.then_some(self.number);
                let hold = Hold { path: at, kind, token, sent, from, ends: None, until, missed: None, tied };
                let mut taken = Taken { at: scene.locks.lock().begin(hold), path: at, locked, ttl };
                if wait.is_some() && self.dice.below(2) == 0 {
                    // It may have been given just now: how much of its time has passed is known with the next answer.
                    self.extend(&mut taken).await;
                }
                if is_tied && is_first && self.dice.below(2) == 0 {
                    self.live_anew();
                    return None;
                }
                Some(taken)
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        scene.count(|counts| counts.lock_refused += 1);
                    }
                    ErrorKind::Deadlock => scene.count(|counts| counts.deadlocks += 1),
                    _ => self.failed("a lock was refused for no fault", &error),
                }
                None
            }
        }
    }

    /// Ends this client's life, and with it what is tied to it.
    fn live_anew(&mut self) {
        let tick = self.scene.tick();
        self.scene.locks.lock().life_ends(self.number, tick);
        match agent(&self.scene, self.number) {
            Ok(agent) => self.agent = agent,
            Err(error) => self.failed("there can be no agent", &error),
        }
    }

    async fn extend(&mut self, taken: &mut Taken) {
        let scene = self.scene.clone();
        let call = SysLock::extend(path(PATHS[taken.path]), taken.locked.id).ttl(taken.ttl);
        let asked = scene.age();
        let Some(answer) = scene.call("extend", PATHS[taken.path], SYSCALL_MAX, self.agent.send(call)).await
        else {
            return;
        };
        match answer {
            Ok(_) => {
                let hold = &mut scene.locks.lock().holds[taken.at];
                hold.until = hold.until.max(asked + taken.ttl);
            }
            Err(error) if error.kind() == ErrorKind::NotHeld => self.missed(taken),
            Err(error) => self.failed("a lock was not extended for no fault", &error),
        }
    }

    fn missed(&self, taken: &Taken) {
        let at = self.scene.at();
        self.scene.locks.lock().holds[taken.at].missed.get_or_insert(at);
        self.scene.count(|counts| counts.lost += 1);
    }

    async fn give_back(&mut self, taken: Taken) {
        let scene = self.scene.clone();
        let tick = scene.tick();
        scene.locks.lock().holds[taken.at].ends = Some(tick);
        self.remember(&taken);
        let call = SysUnlock::new(path(PATHS[taken.path]), taken.locked.id);
        match scene.call("unlock", PATHS[taken.path], SYSCALL_MAX, self.agent.send(call)).await {
            Some(Ok(_)) | None => {}
            Some(Err(error)) if error.kind() == ErrorKind::NotHeld => self.missed(&taken),
            Some(Err(error)) => self.failed("a lock was not given back", &error),
        }
    }

    /// Notes a lock that is to be written under later, when others may have had it: an exclusive one, for others do not exclude who comes next.
    fn remember(&mut self, taken: &Taken) {
        if self.scene.locks.lock().holds[taken.at].kind == LockKind::Exclusive {
            self.stale = Some((taken.path, taken.locked.fence()));
        }
    }

    /// Takes all locks on a path away from whoever has them.
    async fn force(&mut self) {
        let scene = self.scene.clone();
        let at = usize::try_from(self.dice.below(PATHS.len() as u64)).unwrap_or(0);
        let sent = scene.tick();
        // Of one that is under way it is not known yet whether it has been.
        let number = {
            let mut locks = scene.locks.lock();
            locks.forced.push((at, Span { sent, back: u64::MAX }));
            locks.forced.len() - 1
        };
        let forcing = scene.nx.send(SysUnlock::force(path(PATHS[at])));
        let forced = scene.call("force", PATHS[at], SYSCALL_MAX, forcing).await;
        let back = scene.tick();
        scene.locks.lock().forced[number].1.back = back;
        match forced {
            Some(Ok(done)) => scene.count(|counts| counts.forced += u64::from(done.released)),
            Some(Err(error)) => self.failed("locks were not taken by force", &error),
            None => {}
        }
    }

    /// Writes under a lock.
    async fn write(&mut self, at: usize, fence: Fence) {
        let scene = self.scene.clone();
        let (file, token) = (guarded(at), fence.token);
        let sent = scene.tick();
        let writing = scene.nx.send(SysWrite::at(&file, token.to_string()).create().fence(fence));
        match scene.call("write", file.as_str(), SYSCALL_MAX, writing).await {
            Some(Ok(written)) => {
                let lsn = written.receipt.lsn.0;
                scene.locks.lock().fenced.push(Fenced { path: at, token, sent, lsn });
                scene.count(|counts| counts.fenced += 1);
            }
            Some(Err(error)) if error.kind() == ErrorKind::Fenced => scene.count(|counts| counts.stale += 1),
            Some(Err(error)) => self.failed("a write under a lock failed", &error),
            None => {}
        }
    }

    /// Writes under a lock that was given back, or may be over.
    async fn write_late(&mut self) {
        if let Some((at, fence)) = self.stale.clone() {
            self.write(at, fence).await;
        }
    }

    /// Looks at what is guarded.
    async fn read(&mut self) {
        let scene = self.scene.clone();
        let at = usize::try_from(self.dice.below(PATHS.len() as u64)).unwrap_or(0);
        let (file, sent) = (guarded(at), scene.tick());
        match scene.call("read", file.as_str(), SYSCALL_MAX, scene.nx.send(SysRead::at(&file))).await {
            Some(Ok(read)) => {
                let back = scene.tick();
                match str::from_utf8(&read.data).ok().and_then(|text| text.parse().ok()) {
                    Some(token) => scene.locks.lock().read.push((at, Span { sent, back }, token)),
                    None => scene.broken(format_args!("{file} is torn")),
                }
            }
            Some(Err(error)) if error.kind() == ErrorKind::NotFound => {}
            Some(Err(error)) => self.failed("a read failed", &error),
            None => {}
        }
    }

    fn failed(&self, what: &str, error: &nexus::Error) {
        self.scene.failed(what, error);
    }
}

/// When nobody asks for a lock: what was seen is sound, and after a while nothing is held or waited for, however those ended who asked.
pub(crate) async fn check(scene: &Scene) {
    let wrong = {
        let mut locks = scene.locks.lock();
        let wrong = locks.check();
        locks.trim();
        wrong
    };
    wrong.iter().for_each(|wrong| scene.broken(wrong));
    let Ok(kernel) = scene.nx.kernel() else { return };
    let root = path(LOCKED);
    let held = || {
        let mut all = kernel.advisory().list(usize::MAX);
        all.retain(|lock| lock.zone == ZoneId::root() && lock.path.is_within(&root));
        all
    };
    if !scene.comes_about(FREE_MAX, || held().is_empty()).await {
        scene.broken(format_args!("locks are held or waited for although nobody asks: {:?}", held()));
    }
}
