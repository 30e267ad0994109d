//! What of advisory locks is on disk: which tokens may be given, and the locks that outlive the process.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nexus_messages::syscall::{LockKind, SysLock};
use nexus_messages::{
    Caller, EntryType, Error, ErrorKind, Executed, LifeId, LockId, Op, Result, Timestamp, VPath, ZoneId,
};
use serde::{Deserialize, Serialize};

use super::key::LockKey;

use crate::hal::{Change, Entry, RowKey, StoreError, Table, TreeId};
use crate::kernel::Kernel;
use crate::namespace::{decode, encode};
use crate::semaphore::places::{Grant, Holder, Owner, Request};
use crate::volume::{Stop, commit_error, store_error};

/// How many tokens are reserved at once: with one commit, at the first lock after a boot.
const RESERVED: u64 = 1 << 32;

/// With how many tokens left more are reserved: more than callers can take while one waits for a commit.
const LOW: u64 = 1 << 24;

const _: () = assert!(LOW < RESERVED);

/// How many rows are read at once.
const PAGE: usize = 1_024;

/// How long the end of the kernel waits for the rows of locks that are gone.
const FORGET_MAX: Duration = Duration::from_secs(5);

const PREFIX: &[u8] = b"lock/";

/// A lock that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LockRow {
    zone: ZoneId,
    path: VPath,
    kind: LockKind,
    agent: Arc<str>,
    session: u64,
    token: u64,
    until: Timestamp,
    since: Timestamp,
    /// The zone of who asked for it, where it is another.
    by: Option<ZoneId>,
    admin: bool,
    entry_type: EntryType,
    user: Option<Arc<str>>,
}

/// The row as the first version wrote it. The next one wrote since when behind it, and the one after that [`Told`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LockRowBefore {
    zone: ZoneId,
    path: VPath,
    kind: LockKind,
    agent: Arc<str>,
    session: u64,
    token: u64,
    until: Timestamp,
}

/// The zone of who asked for it, where it is another; whether that is an administrator; and what was there.
type Told = (Option<ZoneId>, bool, EntryType);

/// The row at `key`, whichever version wrote it: one of which is not known since when it is held is taken to be held since `now`, and one of which nothing more is known, to be
/// of a file, and held by an agent of its zone.
fn lock_row(key: &RowKey, value: &[u8], now: Timestamp) -> std::result::Result<LockRow, StoreError> {
    decode::<LockRow>(key, value).or_else(|error| {
        let nothing = (None, false, EntryType::Reg);
        let (before, since, (by, admin, entry_type)) = decode::<(LockRowBefore, Timestamp, Told)>(key, value)
            .or_else(|_| decode(key, value).map(|(before, since)| (before, since, nothing.clone())))
            .or_else(|_| decode(key, value).map(|before| (before, now, nothing)))
            .map_err(|_| error)?;
        let LockRowBefore { zone, path, kind, agent, session, token, until } = before;
        let user = None;
        Ok(LockRow { zone, path, kind, agent, session, token, until, since, by, admin, entry_type, user })
    })
}

fn tokens_key() -> RowKey {
    RowKey::new(Table::Settings, *b"locks/tokens")
}

fn lock_key(id: LockId) -> RowKey {
    RowKey::new(Table::Settings, [PREFIX, id.to_string().as_bytes()].concat())
}

/// The identity in the key of a lock's row.
fn lock_id(key: &RowKey) -> Option<LockId> {
    let text = std::str::from_utf8(key.bytes.get(PREFIX.len()..)?).ok()?;
    u128::from_str_radix(text, 16).ok().map(LockId)
}

impl Kernel {
    /// Whether there are tokens for the next lock.
    pub(crate) fn has_lock_tokens(&self) -> bool {
        self.advisory().tokens().has(LOW)
    }

    /// Sees to it that there are tokens: those of a later process are above all that this one gives. Goes on when its caller does not: others wait for it.
    pub(crate) async fn reserve_lock_tokens(self: &Arc<Self>, path: &VPath) -> Result<()> {
        if self.has_lock_tokens() {
            return Ok(());
        }
        let (kernel, path_of) = (self.clone(), path.clone());
        let reserving = move |asker: Weak<()>| async move {
            let _one = kernel.advisory().reserving.lock().await;
            // Who stood in line and is gone asks for nothing any more.
            if asker.strong_count() == 0 || kernel.has_lock_tokens() {
                return Ok(());
            }
            let failed = |error: StoreError| store_error(Op::Lock, &path_of, &error);
            let key = tokens_key();
            let rows = kernel.store().rows(TreeId::ROOT).map_err(failed)?;
            let row = rows.reader.get(&key).map_err(failed)?;
            drop(rows);
            let before: u64 = row.map_or(Ok(0), |value| decode(&key, &value)).map_err(failed)?;
            let end = before.saturating_add(RESERVED);
            let change = Change::Put(key, encode(&end));
            kernel.commit_lock(Op::Lock, &path_of, &Caller::administrator(), change).await?;
            kernel.advisory().tokens().reserve(before + 1, end);
            Ok(())
        };
        self.apart("locks.reserve", (Op::Lock, path), reserving).await
    }

    /// Runs `work` on a task of its own: who asks first for what others wait for and is not polled any more must not hold up all of them. It goes on when its caller goes
    /// away, and is given what tells whether he has.
    async fn apart<T, F>(
        self: &Arc<Self>,
        name: &'static str,
        (op, path): (Op, &VPath),
        work: impl FnOnce(Weak<()>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let asker = Arc::new(());
        let done = self.env().apart(name, work(Arc::downgrade(&asker))).await;
        done.unwrap_or_else(|| Err(store_error(op, path, &StoreError::Closed)))
    }

    /// Has the lock `id` at `key` outlive the process, with the time that it has by now. Goes on when its caller goes away: then the lock is given up, and so is its row.
    pub(crate) async fn keep_lock(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        key: &LockKey,
        id: LockId,
    ) -> Result<()> {
        let (kernel, caller, key, locked) = (self.clone(), caller.clone(), key.clone(), key.parts().1);
        let kept = move |_| async move {
            // One at a time, and with what the table says by then, so that the rows agree with it when each has ended.
            let locks = kernel.advisory();
            let _one = locks.keeping.clone().lock_owned().await;
            // It may have been given up before this began.
            let Some(holder) = locks.holder(&key, id) else { return Ok(()) };
            let (row, path) = (kernel.lock_row(&key, &holder), key.parts().1);
            let change = Change::Put(lock_key(id), encode(&row));
            let put = kernel.commit_lock(Op::Lock, &path, &caller, change).await;
            if put.as_ref().is_err_and(|error| error.executed() == Executed::Unknown) {
                locks.doubt(id);
            }
            put?;
            if !locks.is_held(&key, id) {
                kernel.commit_lock(Op::Unlock, &path, &caller, Change::Delete(lock_key(id))).await?;
            }
            Ok(())
        };
        self.apart("locks.keep", (Op::Lock, &locked), kept).await
    }

    /// What outlives the process of a lock that is held.
    fn lock_row(&self, key: &LockKey, holder: &Holder) -> LockRow {
        let ((zone, path), now) = (key.parts(), self.advisory().now());
        let wall = Timestamp(self.env().wall());
        let (until, since) = (wall.after(holder.until.saturating_sub(now)), wall.before(holder.age(now)));
        let Request { kind, entry_type, owner, .. } = &holder.request;
        let Owner { agent, zone: by, admin, user, session, .. } = owner.clone();
        let (kind, entry_type, token) = (*kind, *entry_type, holder.token);
        LockRow { zone, path, kind, agent, session, token, until, since, by, admin, entry_type, user }
    }

    /// Takes back the lock `id` at `key`, or all of them: those that outlive the process when their rows are gone, so that no two are ever kept that exclude each
    /// other. Goes on when its caller goes away.
    pub(crate) async fn release_kept(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        key: &LockKey,
        id: Option<LockId>,
    ) -> Result<Vec<Holder>> {
        let (kernel, caller, key, path) = (self.clone(), caller.clone(), key.clone(), key.parts().1);
        let at = path.clone();
        let released = move |_| async move {
            let locks = kernel.advisory();
            let _one = locks.keeping.clone().lock_owned().await;
            let mut ids = locks.durable_at(&key);
            ids.retain(|durable| id.is_none_or(|id| id == *durable));
            let mut released = Vec::new();
            for id in ids {
                kernel.commit_lock(Op::Unlock, &at, &caller, Change::Delete(lock_key(id))).await?;
                // At once: should the next one fail, this one would be held, and gone with the process.
                released.extend(locks.release(&key, id));
            }
            match id {
                Some(id) => released.extend(locks.release(&key, id)),
                None => released.extend(locks.force(&key)),
            }
            Ok(released)
        };
        self.apart("locks.release", (Op::Unlock, &path), released).await
    }

    /// The kernel is about to end: removes the rows of durable locks that are not held any more, and would be held again at the next boot. Waits no longer than some seconds
    /// for that. To be called before the tree is stopped; may be repeated.
    pub async fn forget_locks(self: &Arc<Self>) {
        if self.env().timeout(FORGET_MAX, self.forget_gone_locks()).await.is_err() {
            tracing::warn!(
                "locks that are gone are held again when the kernel is back, until their time is over"
            );
        }
    }

    /// Removes the rows of durable locks that are not held any more.
    pub(super) async fn forget_gone_locks(&self) {
        let caller = Caller::administrator();
        let _one = self.advisory().keeping.clone().lock_owned().await;
        for (key, id) in self.advisory().take_gone() {
            if self.advisory().is_held(&key, id) {
                continue;
            }
            let row = self.store().rows(TreeId::ROOT).and_then(|rows| rows.reader.get(&lock_key(id)));
            // What became of a row nobody knows whose commit was not waited for: it may come yet.
            let is_doubted = self.advisory().take_doubt(id);
            if !is_doubted && matches!(row, Ok(None)) {
                continue;
            }
            let (path, change) = (key.parts().1, Change::Delete(lock_key(id)));
            if let Err(error) = self.commit_lock(Op::Unlock, &path, &caller, change).await {
                // Whoever looks next tries again: at the next boot it would be held, until its time is over.
                self.advisory().still_gone(&key, id, is_doubted);
                tracing::debug!(%path, %error, "the row of a lock that is gone stays for now");
            }
        }
    }

    async fn commit_lock(&self, op: Op, path: &VPath, caller: &Caller, change: Change) -> Result<()> {
        let entry = Entry {
            tree: TreeId::ROOT,
            op_id: self.new_op_id(),
            repeatable: false,
            caller: caller.agent.clone(),
            op,
            path: path.clone(),
            other: None,
            items: Vec::new(),
            told: None,
            at: Timestamp(self.env().wall()),
            preconditions: Vec::new(),
            changes: vec![change],
        };
        let committed = self.store().commit(entry, Box::new(|_| ())).await;
        committed.map(drop).map_err(|why| match commit_error(op, path, &why) {
            Stop::Failed(error) => error,
            Stop::Again => Error::new(op, path, ErrorKind::Busy),
        })
    }

    /// Holds the locks again that outlived the last process and whose time is not over; says how many. To be called once, before anybody calls.
    ///
    /// # Errors
    /// What the metastore says.
    pub(crate) fn restore_locks(&self) -> std::result::Result<usize, StoreError> {
        let rows = self.store().rows(TreeId::ROOT)?;
        let prefix = RowKey::new(Table::Settings, PREFIX);
        let now = Timestamp(self.env().wall());
        let (mut kept, mut after) = (Vec::new(), None);
        loop {
            let page = rows.reader.scan(&prefix, after.as_ref(), PAGE)?;
            for (key, value) in &page {
                kept.extend(lock_id(key).map(|id| Ok((id, lock_row(key, value, now)?))));
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
        let mut kept = kept.into_iter().collect::<std::result::Result<Vec<_>, StoreError>>()?;
        // Should two exclude each other, the later one is held: the earlier one's release was on its way.
        kept.sort_by_key(|(_, row)| std::cmp::Reverse(row.token));
        let (locks, mut restored) = (self.advisory(), 0);
        for (id, row) in kept {
            let key = LockKey::new(&row.zone, &row.path);
            let between = |from: Timestamp, to: Timestamp| {
                Duration::from_nanos(to.nanos().saturating_sub(from.nanos()))
            };
            let left = between(now, row.until).min(SysLock::TTL_MAX);
            let grant = Grant { id, token: row.token };
            // Its life is over; the agent may come back and extend it by its identity.
            let LockRow { kind, agent, session, by: zone, admin, entry_type, user, .. } = row;
            let owner = Owner { agent, zone, admin, user, life: LifeId::KERNEL, session };
            let request = Request { kind, ttl: left, owner, entry_type, tied: false, durable: true };
            if !left.is_zero() && locks.restore(&key, grant, request, between(row.since, now)) {
                restored += 1;
            } else {
                locks.forget(&key, id);
            }
        }
        Ok(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_an_earlier_version_is_one_of_a_lock_that_is_held_since_it_is_read() {
        let (key, now) = (lock_key(LockId(7)), Timestamp(50));
        let row = LockRow {
            zone: ZoneId::root(),
            path: VPath::root(),
            kind: LockKind::Semaphore(3),
            agent: "a".into(),
            session: 0,
            token: u64::MAX,
            until: Timestamp(60),
            since: Timestamp(10),
            by: Some(ZoneId::parse("team").unwrap()),
            admin: true,
            entry_type: EntryType::Dir,
            user: Some("ada".into()),
        };
        assert_eq!(lock_row(&key, &encode(&row), now).unwrap(), row);
        let LockRow { zone, path, kind, agent, session, token, until, .. } = row.clone();
        let before = LockRowBefore { zone, path, kind, agent, session, token, until };
        let told: Told = (row.by.clone(), row.admin, row.entry_type);
        let row = LockRow { user: None, ..row };
        assert_eq!(lock_row(&key, &encode(&(&before, row.since, told)), now).unwrap(), row);
        let row = LockRow { by: None, admin: false, entry_type: EntryType::Reg, ..row };
        assert_eq!(lock_row(&key, &encode(&(&before, row.since)), now).unwrap(), row);
        let before = encode(&before);
        assert_eq!(lock_row(&key, &before, now).unwrap(), LockRow { since: now, ..row });
        for broken in [&before[..before.len() - 1], &[&before[..], &[1, 1]].concat()] {
            assert!(matches!(lock_row(&key, broken, now), Err(StoreError::Corrupt { .. })), "{broken:?}");
        }
    }
}
