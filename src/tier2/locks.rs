//! Advisory locks: taken, held by a guard, given back; and semaphores.

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, abortable};
use nexus_actors::{Env, Latch};
use nexus_kernel::Semaphore;
use nexus_messages::syscall::{Fence, LockKind, Locked, SysLock, SysUnlock, Unlocked};
use nexus_messages::{Error, ErrorKind, IntoPath, LockId, Op, Result, VPath};

use crate::handle::{Link, Nexus, WeakNexus, path};

/// How long a guard goes on extending its lock when nothing else is said.
const HOLD_MAX: Duration = Duration::from_secs(60 * 60);

/// After which part of its time a guard extends its lock: two extensions may fail before it is lost.
const EXTEND_AFTER: u32 = 3;

/// How long to wait before a lock is extended that just could not be.
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// What [`Nexus::lock`] sends.
pub(crate) fn lock_call(at: impl IntoPath, wait: Duration) -> Result<SysLock> {
    let call = SysLock::exclusive(path(Op::Lock, at)?);
    Ok(if wait.is_zero() { call } else { call.wait(wait) })
}

/// What [`Nexus::unlock`] sends.
pub(crate) fn unlock_call(at: impl IntoPath, id: LockId) -> Result<SysUnlock> {
    Ok(SysUnlock::new(path(Op::Unlock, at)?, id))
}

impl Nexus {
    /// Takes the exclusive lock on `at`; waits for it at most for `wait`. It lasts for [`SysLock::TTL_DEFAULT`] unless it is extended, and is released by its id. Others ([`SysLock`] says which)
    /// are taken by [`send`](Self::send). [`locked`](Self::locked) gives one that takes care of itself.
    ///
    /// # Errors
    /// `EAGAIN` when it is not free and `wait` is zero; `ETIMEDOUT`; `EDEADLK` when those who wait, this one among them, wait for each other.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use std::time::Duration;
    /// use nexus::{ErrorKind, SysWrite, VPath};
    ///
    /// let (a, b) = (nx.agent("a")?, nx.agent("b")?);
    /// let lock = a.lock("/plan.md", Duration::ZERO).await?;
    /// assert_eq!(b.lock("/plan.md", Duration::ZERO).await.unwrap_err().kind(), ErrorKind::WouldBlock);
    ///
    /// // Written while the lock is held, or not at all.
    /// let write = SysWrite::at(VPath::parse("/plan.md")?, "1. think").create().fence(lock.fence());
    /// a.send(write.clone()).await?;
    /// a.unlock("/plan.md", lock.id).await?;
    /// assert_eq!(a.send(write).await.unwrap_err().kind(), ErrorKind::Fenced);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn lock(&self, at: impl IntoPath, wait: Duration) -> Result<Locked> {
        self.send(lock_call(at, wait)?).await
    }

    /// Lets the lock last for `ttl` from now on.
    ///
    /// # Errors
    /// `EPERM` when it is not held any more.
    pub async fn extend(&self, at: impl IntoPath, id: LockId, ttl: Duration) -> Result<Locked> {
        self.send(SysLock::extend(path(Op::Lock, at)?, id).ttl(ttl)).await
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// `EPERM` when it is not held any more.
    pub async fn unlock(&self, at: impl IntoPath, id: LockId) -> Result<Unlocked> {
        self.send(unlock_call(at, id)?).await
    }

    /// Takes all locks on just this path back, whoever holds them; says how many those were. May be repeated.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle.
    pub async fn force_unlock(&self, at: impl IntoPath) -> Result<Unlocked> {
        self.send(SysUnlock::force(path(Op::Unlock, at)?)).await
    }

    /// As [`locked_with`](Self::locked_with), of the exclusive lock on `at`, for up to an hour.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use std::time::Duration;
    ///
    /// let agent = nx.agent("coder-7")?;
    /// {
    ///     let lock = agent.locked("/plan.md", Duration::from_secs(1)).await?;
    ///     agent.write("/plan.md", "1. think").await?;
    ///     assert!(!lock.is_lost());
    /// } // Released.
    /// assert!(nx.lock("/plan.md", Duration::from_secs(1)).await.is_ok());
    /// # Ok::<(), nexus::Error>(()) }).unwrap();
    /// ```
    pub async fn locked(&self, at: impl IntoPath, wait: Duration) -> Result<LockGuard> {
        let call = SysLock::exclusive(path(Op::Lock, at)?);
        self.locked_with(if wait.is_zero() { call } else { call.wait(wait) }, HOLD_MAX).await
    }

    /// Takes the lock that `call` asks for, and holds it as long as the guard lives: it is extended again and again, for `hold_max` in all, released when the
    /// guard is dropped, and goes with the life of this handle. Tells when it is lost.
    ///
    /// # Errors
    /// As [`SysLock`]; `EINVAL` for a call that extends, and for one that is durable.
    pub async fn locked_with(&self, call: SysLock, hold_max: Duration) -> Result<LockGuard> {
        let invalid =
            |why: &str| Err(Error::new(Op::Lock, &call.path, ErrorKind::InvalidArgument).because(why));
        if call.id.is_some() {
            return invalid("a guard takes its lock itself");
        }
        if call.durable {
            return invalid("a lock with a guard goes with it, and cannot outlive the process");
        }
        let mut begun = self.env().now();
        let cut = self.cut();
        let locked = self.send(call.clone().tied()).await?;
        let locked = if call.wait.is_some() {
            // How much of its time has passed is not known: it may have been given long before this was heard, or just now.
            begun = self.env().now();
            let mut given = Given { nx: self, locked: Some(&locked) };
            let extended = self.extend(&locked.path, locked.id, call.ttl).await?;
            given.locked = None;
            extended
        } else {
            locked
        };
        Ok(LockGuard::new((self.clone(), cut), call.kind, locked, begun, hold_max))
    }

    /// What is set when the connection is lost that is there now, or was last; none where the kernel is in this process.
    fn cut(&self) -> Option<Latch<()>> {
        match &self.link {
            Link::Local(_) => None,
            Link::Remote(remote) => Some(remote.cut()),
        }
    }

    /// Gives a lock back without asking anybody whether that may be. Does not wait.
    fn release_lock(&self, locked: &Locked) {
        match &self.link {
            Link::Local(machine) => {
                machine.kernel.release_lock(self.shared_caller(), &locked.path, locked.id);
            }
            Link::Remote(remote) => {
                let (remote, caller, locked) = (remote.clone(), self.shared_caller().clone(), locked.clone());
                self.env().spawn("lock.release", async move {
                    // When it cannot be sent, the connection is lost, and the lock goes with that.
                    let _ = remote.release_lock(&caller, &locked.path, locked.id).await;
                });
            }
        }
    }

    /// The semaphore called `name`, of which `holders_max` can hold a place at once. All handles of the kernel that name it share it.
    ///
    /// # Errors
    /// `EINVAL` for a name that is empty or longer than 255 bytes, and for places for nobody; `EOPNOTSUPP` when this handle is [attached](crate::attach()): there
    /// [`SysLock::semaphore`] does the same for a path.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use std::time::Duration;
    ///
    /// let gpu = nx.agent("trainer")?.semaphore("gpu", 2)?;
    /// let ttl = Duration::from_secs(10);
    /// let (first, _second) = (gpu.try_acquire(ttl)?, gpu.try_acquire(ttl)?);
    /// assert!(gpu.try_acquire(ttl).is_err());
    /// gpu.release(first.id)?;
    /// assert!(gpu.acquire(ttl, Duration::from_secs(1)).await.is_ok());
    /// # Ok::<(), nexus::Error>(()) }).unwrap();
    /// ```
    pub fn semaphore(&self, name: &str, holders_max: u32) -> Result<Semaphore> {
        self.machine(Op::Lock)?.kernel.advisory().semaphore(self.shared_caller(), name, holders_max)
    }
}

/// A lock that was given and has no guard yet: released when whoever asked for it goes away, or is refused one.
struct Given<'l> {
    nx: &'l Nexus,
    locked: Option<&'l Locked>,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        if let Some(locked) = self.locked {
            self.nx.release_lock(locked);
        }
    }
}

/// A lock that is held while this lives: what [`Nexus::locked`] gives. It extends itself, up to a limit; dropping it releases it, which nobody can refuse.
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard {
    nx: Nexus,
    kind: LockKind,
    locked: Locked,
    /// When it is not extended any more.
    ends: Option<Instant>,
    lost: Latch<()>,
    extending: AbortHandle,
    released: bool,
}

impl LockGuard {
    fn new(
        (nx, cut): (Nexus, Option<Latch<()>>),
        kind: LockKind,
        locked: Locked,
        begun: Instant,
        hold_max: Duration,
    ) -> Self {
        let (lost, ends) = (Latch::new(), begun.checked_add(hold_max));
        let env = nx.env().clone();
        let hold = Extending {
            env: env.clone(),
            // What this task has must not keep anybody going.
            nx: nx.downgrade(),
            cut,
            locked: locked.clone(),
            ends,
            until: begun + locked.ttl,
            lost: lost.clone(),
        };
        let (task, extending) = abortable(hold.run());
        env.spawn("lock.extend", async move {
            let _ = task.await;
        });
        Self { nx, kind, locked, ends, lost, extending, released: false }
    }

    /// What is locked, links followed.
    pub fn path(&self) -> &VPath {
        &self.locked.path
    }

    /// How it is shared.
    pub fn kind(&self) -> LockKind {
        self.kind
    }

    /// The lock's identity.
    pub fn id(&self) -> LockId {
        self.locked.id
    }

    /// For what is to be written under this lock.
    pub fn fence(&self) -> Fence {
        self.locked.fence()
    }

    /// Whether it is known to be lost: its time was over before it could be extended, it was taken back by force, or it was held for as long as it may be. What is written
    /// under it without its [`fence`](Self::fence) may be written beside somebody else.
    pub fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// Asks whether it is held, for who has reason to think that it was taken back; it is extended with that, for no longer than it may be held. Who waits for its loss is
    /// told, too, and one that is known to be lost is not asked about.
    ///
    /// # Errors
    /// What keeps the kernel from being reached.
    pub async fn check(&self) -> Result<bool> {
        if self.is_lost() {
            return Ok(false);
        }
        let ttl = time_left(self.ends, self.locked.ttl, self.nx.env().now());
        match self.nx.extend(&self.locked.path, self.locked.id, ttl).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotHeld => {
                self.lost.set(());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until it is lost.
    pub async fn lost(&self) {
        self.lost.wait().await;
    }

    /// Releases it, and says whether it was held until then. Dropping the guard does the same without saying so.
    ///
    /// # Errors
    /// `EPERM` when it was lost before; what keeps the kernel from being reached.
    pub async fn release(mut self) -> Result<Unlocked> {
        self.extending.abort();
        let done = self.nx.unlock(&self.locked.path, self.locked.id).await;
        // One that could not be sent is tried once more by the drop.
        self.released = done.is_ok();
        done
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.extending.abort();
        if !self.released {
            self.nx.release_lock(&self.locked);
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("locked", &self.locked).field("is_lost", &self.is_lost()).finish()
    }
}

/// For how long a lock is extended at `now` that lasts for `ttl`, and is held until it `ends`.
fn time_left(ends: Option<Instant>, ttl: Duration, now: Instant) -> Duration {
    ends.map_or(ttl, |ends| ends.saturating_duration_since(now)).min(ttl).max(SysLock::TTL_MIN)
}

/// The task that extends a lock.
struct Extending {
    env: Env,
    nx: WeakNexus,
    /// Set when a connection is lost that may have taken the lock along: the one that was there before it was asked about last.
    cut: Option<Latch<()>>,
    locked: Locked,
    /// When it is not extended any more.
    ends: Option<Instant>,
    /// When it is lost if it is not extended.
    until: Instant,
    lost: Latch<()>,
}

impl Extending {
    async fn run(mut self) {
        let (env, ttl, mut failed) = (self.env.clone(), self.locked.ttl, false);
        loop {
            let now = env.now();
            let left = self.until.saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            let may_extend = self.ends.is_none_or(|ends| ends > now + ttl / EXTEND_AFTER);
            if !may_extend {
                env.sleep(left).await;
                break;
            }
            let pause = (ttl / EXTEND_AFTER).min(left);
            match self.cut.take() {
                _ if failed => env.sleep(pause.min(RETRY_EVERY)).await,
                // Then whether it took the lock along is known as soon as somebody can be asked.
                Some(cut) => drop(env.timeout(pause, cut.wait()).await),
                None => env.sleep(pause).await,
            }
            let asked = env.now();
            let rest = time_left(self.ends, ttl, asked);
            let Some(nx) = self.nx.upgrade() else { break };
            self.cut = nx.cut();
            let left = self.until.saturating_duration_since(asked);
            let extended = env.timeout(left, nx.extend(&self.locked.path, self.locked.id, rest)).await;
            match extended {
                // Counted from before it was sent: the lock lasts at least as long.
                Ok(Ok(_)) => (self.until, failed) = (asked + rest, false),
                Ok(Err(error)) if error.kind() == ErrorKind::NotHeld => break,
                // Who kept it has ended, or the connection with which it goes.
                Ok(Err(error)) if error.kind() == ErrorKind::Down => break,
                // Whoever is to answer hangs, and the time of the lock is over meanwhile.
                Err(_) => break,
                Ok(Err(error)) => {
                    let left = self.until.saturating_duration_since(env.now());
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(path = %self.locked.path, %error, ?left, "a lock was not extended");
                    }
                }
            }
        }
        self.lost.set(());
    }
}
