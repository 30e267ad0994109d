//! Content that a server gives from its beginning alone: an answer that is under way is kept for a while, for who goes on where it stands. Else each piece of a
//! stream would have all that lies before it come again.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use nexus_actors::Env;
use nexus_messages::syscall::ByteRange;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

use super::requests::as_said;

/// How many answers of a mount are kept, beside the operations that may be under way.
const KEPT_MAX: usize = 8;

/// How long one is kept that nobody asks for more of.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Who asks for less at once reads here and there, and does not go on.
const PIECE_MIN: u64 = 256 << 10;

/// How much of one is passed over, at most, to come to where somebody goes on.
const PASSED_MAX: u64 = 32 << 20;

/// The answers of one mount that are under way, and that nobody reads just now.
#[derive(Default)]
pub(super) struct Kept {
    answers: Mutex<Vec<Going>>,
}

/// An answer that is under way.
struct Going {
    key: Path,
    meta: ObjectMeta,
    /// What comes next: first `rest`.
    offset: u64,
    rest: Bytes,
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    kept_at: Instant,
}

/// The part `range` of what is at `at`, of an answer that is kept; none when no such goes on, or it is not what is there any more.
pub(super) async fn go_on(
    kept: &Arc<Kept>,
    env: &Env,
    store: &dyn ObjectStore,
    at: &Path,
    range: ByteRange,
) -> Option<(Bytes, ObjectMeta)> {
    let mut going = kept.take(at, range.offset)?;
    let now = store.head(at).await.ok()?;
    let state = |meta: &ObjectMeta| {
        (meta.e_tag.as_deref().map(|e_tag| as_said(e_tag).to_owned()), meta.size, meta.last_modified)
    };
    if state(&now) != state(&going.meta) {
        return None;
    }
    let (from, to) = range.within(going.meta.size);
    // Whoever breaks off is asked from the beginning.
    let part = going.part(from, to).await.ok()?;
    let meta = going.meta.clone();
    kept.keep(going, range, env);
    Some((part, meta))
}

/// As [`go_on`], of a new answer. No more than the part is held.
pub(super) async fn cut_out(
    kept: &Arc<Kept>,
    env: &Env,
    store: &dyn ObjectStore,
    at: &Path,
    range: ByteRange,
) -> Result<(Bytes, ObjectMeta), Error> {
    let found = store.get_opts(at, GetOptions::default()).await?;
    let meta = found.meta.clone();
    let mut going = Going {
        key: at.clone(),
        meta: meta.clone(),
        offset: 0,
        rest: Bytes::new(),
        pieces: found.into_stream().boxed(),
        kept_at: env.now(),
    };
    let (from, to) = range.within(meta.size);
    let part = going.part(from, to).await?;
    kept.keep(going, range, env);
    Ok((part, meta))
}

impl Going {
    async fn part(&mut self, from: u64, to: u64) -> Result<Bytes, Error> {
        let mut part = BytesMut::new();
        while self.offset < to {
            if self.rest.is_empty() {
                let Some(piece) = self.pieces.try_next().await? else {
                    let source = format!("{} bytes came instead of {}", self.offset, self.meta.size).into();
                    return Err(Error::Generic { store: "remote", source });
                };
                self.rest = piece;
            }
            let is_before = self.offset < from;
            let wanted = if is_before { from } else { to } - self.offset;
            let count = usize::try_from(wanted).unwrap_or(usize::MAX).min(self.rest.len());
            match is_before {
                true => self.rest.advance(count),
                false => part.extend_from_slice(&self.rest.split_to(count)),
            }
            self.offset += count as u64;
        }
        Ok(part.freeze())
    }
}

impl Kept {
    /// The one that comes soonest to `offset`.
    fn take(&self, key: &Path, offset: u64) -> Option<Going> {
        let mut answers = self.answers.lock();
        let fits = |going: &Going| {
            going.key == *key && going.offset <= offset && offset - going.offset <= PASSED_MAX
        };
        let all = answers.iter().enumerate().filter(|(_, going)| fits(going));
        let (nth, _) = all.max_by_key(|(_, going)| going.offset)?;
        Some(answers.swap_remove(nth))
    }

    fn keep(self: &Arc<Self>, mut going: Going, range: ByteRange, env: &Env) {
        let is_piece = range.count.is_some_and(|count| count >= PIECE_MIN);
        if !is_piece || going.offset >= going.meta.size {
            return;
        }
        going.kept_at = env.now();
        {
            let mut answers = self.answers.lock();
            if answers.len() >= KEPT_MAX {
                let oldest = answers.iter().enumerate().min_by_key(|(_, going)| going.kept_at);
                if let Some((nth, _)) = oldest {
                    answers.swap_remove(nth);
                }
            }
            answers.push(going);
        }
        let (kept, clock): (Weak<Self>, Env) = (Arc::downgrade(self), env.clone());
        env.spawn("remote.kept", async move {
            clock.sleep(KEPT_FOR).await;
            if let Some(kept) = kept.upgrade() {
                let now = clock.now();
                kept.answers.lock().retain(|going| now - going.kept_at < KEPT_FOR);
            }
        });
    }
}
