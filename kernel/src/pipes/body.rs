//! What carries a pipe's messages: a ring in memory, or one that processes share.

use bytes::Bytes;
use nexus_actors::{Env, Ring, SharedPipe, SharedTrouble, Sleepers};

use super::given::{Away, Taken};
use super::pipe::Refusal;

/// Where the messages are on their way.
#[expect(
    clippy::large_enum_variant,
    reason = "a pipe is on the heap, and its ring is not to be one look further"
)]
pub(super) enum Body {
    Memory(Ring<Bytes>),
    Shared { pipe: SharedPipe, sleepers: Sleepers, away: Away },
}

impl Body {
    pub(super) fn capacity(&self) -> u32 {
        match self {
            Self::Memory(ring) => ring.capacity(),
            Self::Shared { pipe, .. } => pipe.capacity(),
        }
    }

    /// Messages and bytes that are written and not read.
    pub(super) fn held(&self) -> (usize, u32) {
        match self {
            Self::Memory(ring) => ring.held(),
            Self::Shared { pipe, away, .. } => {
                let ((messages, bytes), (back, bytes_back)) = (pipe.held(), away.held());
                (messages + back, bytes.saturating_add(u32::try_from(bytes_back).unwrap_or(u32::MAX)))
            }
        }
    }

    /// How many reads wait, and how many writes; of a shared one those of this process.
    pub(super) fn waiting(&self) -> (usize, usize) {
        match self {
            Self::Memory(ring) => ring.waiting(),
            Self::Shared { pipe, .. } => pipe.waiting(),
        }
    }

    /// The next message, if there is one.
    #[inline]
    pub(super) fn try_pop(&self) -> Result<Option<Bytes>, Refusal> {
        match self {
            Self::Memory(ring) => Ok(ring.try_pop()),
            Self::Shared { pipe, away, .. } => Ok(away.pop(pipe)?),
        }
    }

    /// As [`try_pop`](Self::try_pop), for who may [put it back](Self::put_back).
    pub(super) fn try_take(&self) -> Result<Option<Taken>, Refusal> {
        match self {
            Self::Memory(ring) => Ok(ring.try_take().map(Taken::Memory)),
            Self::Shared { pipe, away, .. } => Ok(away.take(pipe)?),
        }
    }

    /// Puts back what was taken. Readers find it before all others.
    pub(super) fn put_back(&self, taken: Taken) {
        match (self, taken) {
            (Self::Memory(ring), Taken::Memory(taken)) => ring.put_back(taken),
            (Self::Shared { pipe, away, .. }, Taken::Shared(number, message)) => {
                away.put_back(number, message);
                pipe.wake_all();
            }
            _ => debug_assert!(false, "a pipe stays where it is"),
        }
    }

    /// What was taken is not waited for any longer.
    pub(super) fn settled(&self) {
        if let Self::Shared { away, .. } = self {
            away.settled();
        }
    }

    /// Has other processes see what came back. Says whether to come [again](Self::carried_back), when there is room for it.
    pub(super) fn carry_back(&self) -> bool {
        matches!(self, Self::Shared { pipe, away, .. } if away.carry(pipe, false))
    }

    /// Waits for room for what came back, until it is where other processes see it, or it is `over`.
    pub(super) async fn carried_back(&self, env: &Env, over: impl Fn() -> bool) {
        if let Self::Shared { pipe, sleepers, away } = self {
            let carried = || (over() || !away.carry(pipe, true)).then_some(Ok(()));
            // What keeps it from being looked at passes, or it is looked at again with the next that comes back.
            let _: Result<(), Refusal> = wait_for(env, pipe, sleepers, true, carried).await;
        }
    }

    /// As [`try_pop`](Self::try_pop) of one that was found empty: looks a moment longer.
    pub(super) fn look_for_message(&self) -> Result<Option<Bytes>, Refusal> {
        match self {
            Self::Memory(ring) => Ok(ring.look_for_message()),
            // Who waits there looks for a while by itself.
            Self::Shared { .. } => Ok(None),
        }
    }

    /// As [`try_push`](Self::try_push) to one that was found full: looks a moment longer.
    pub(super) fn look_for_room(&self, message: Bytes, weight: u32) -> Result<(), (Refusal, Bytes)> {
        match self {
            Self::Memory(ring) => {
                ring.look_for_room(message, weight).map_err(|message| (Refusal::Full, message))
            }
            Self::Shared { .. } => Err((Refusal::Full, message)),
        }
    }

    /// Writes a message that weighs something; what is not written comes back.
    #[inline]
    pub(super) fn try_push(&self, message: Bytes, weight: u32) -> Result<(), (Refusal, Bytes)> {
        match self {
            Self::Memory(ring) => ring.try_push(message, weight).map_err(|message| (Refusal::Full, message)),
            Self::Shared { pipe, .. } => match pipe.try_push(&message) {
                Ok(true) => Ok(()),
                Ok(false) => Err((Refusal::Full, message)),
                Err(trouble) => Err((trouble.into(), message)),
            },
        }
    }

    /// The next message, as soon as there is one; none when it is `over`.
    pub(super) async fn pop(&self, env: &Env, over: impl Fn() -> bool) -> Result<Option<Bytes>, Refusal> {
        match self {
            Self::Memory(ring) => Ok(ring.pop(over).await),
            Self::Shared { pipe, sleepers, away } => {
                wait_for(env, pipe, sleepers, false, || found(&over, || away.pop(pipe))).await
            }
        }
    }

    /// As [`pop`](Self::pop), for who may [put it back](Self::put_back).
    pub(super) async fn take(&self, env: &Env, over: impl Fn() -> bool) -> Result<Option<Taken>, Refusal> {
        match self {
            Self::Memory(ring) => Ok(ring.take(over).await.map(Taken::Memory)),
            Self::Shared { pipe, sleepers, away } => {
                wait_for(env, pipe, sleepers, false, || found(&over, || away.take(pipe))).await
            }
        }
    }

    /// Writes a message as soon as there is room for it; it comes back when it is `over`.
    pub(super) async fn push(
        &self,
        env: &Env,
        message: Bytes,
        weight: u32,
        over: impl Fn() -> bool,
    ) -> Result<Result<(), Bytes>, Refusal> {
        match self {
            Self::Memory(ring) => Ok(ring.push(message, weight, over).await),
            Self::Shared { pipe, sleepers, .. } => {
                let is_written = wait_for(env, pipe, sleepers, true, || {
                    if over() {
                        return Some(Ok(false));
                    }
                    match pipe.try_push(&message) {
                        Ok(false) => None,
                        done => Some(done.map_err(Refusal::from)),
                    }
                });
                Ok(if is_written.await? { Ok(()) } else { Err(message) })
            }
        }
    }

    /// Has everybody look anew who waits.
    pub(super) fn wake_all(&self) {
        match self {
            Self::Memory(ring) => ring.wake_all(),
            Self::Shared { pipe, .. } => pipe.wake_all(),
        }
    }

    /// Lets go of what is in it.
    pub(super) fn clear(&self) {
        match self {
            Self::Memory(ring) => drop(ring.clear()),
            Self::Shared { away, .. } => away.clear(),
        }
    }

    /// Tells other processes that some flags are set, and some no more.
    pub(super) fn tell(&self, set: u8, clear: u8) {
        if let Self::Shared { pipe, .. } = self {
            pipe.change_flags(set.into(), clear.into());
        }
    }
}

/// Waits until `look` finds something. While somebody else keeps this process out of the pipe it looks anew, now and then.
pub(super) async fn wait_for<T>(
    env: &Env,
    pipe: &SharedPipe,
    sleepers: &Sleepers,
    room: bool,
    mut look: impl FnMut() -> Option<Result<T, Refusal>>,
) -> Result<T, Refusal> {
    loop {
        match pipe.wait(sleepers, room, &mut look).await {
            Err(Refusal::Shared(trouble)) if trouble.may_pass() => {
                env.sleep(nexus_actors::SHARED_PATROL).await;
            }
            done => return done,
        }
    }
}

/// What who waits for a message finds; none when it is to wait on.
fn found<T>(
    over: impl Fn() -> bool,
    look: impl FnOnce() -> Result<Option<T>, SharedTrouble>,
) -> Option<Result<Option<T>, Refusal>> {
    // Before the look, as in a ring.
    let is_over = over();
    match look() {
        Ok(None) => is_over.then_some(Ok(None)),
        done => Some(done.map_err(Refusal::from)),
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(ring) => ring.fmt(f),
            Self::Shared { pipe, .. } => pipe.fmt(f),
        }
    }
}
