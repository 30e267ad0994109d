//! What of advisory locks is on disk: which tokens may be given, and the locks that outlive the process.

use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{LockKind, SysLock};
use nexus_messages::{Caller, Error, ErrorKind, LifeId, LockId, Op, Result, Timestamp, VPath, ZoneId};
use serde::{Deserialize, Serialize};

use super::key::LockKey;
use crate::hal::{Change, Entry, RowKey, StoreError, Table, TreeId};
use crate::kernel::Kernel;
use crate::namespace::{decode, encode};
use crate::semaphore::places::{Holder, Owner, Request};
use crate::volume::{Stop, commit_error, store_error};

/// How many tokens are reserved at once: with one commit, at the first lock after a boot.
const RESERVED: u64 = 1 << 32;

/// With how many tokens left more are reserved: more than callers can take while one waits for a commit.
const LOW: u64 = 1 << 24;

const _: () = assert!(LOW < RESERVED);

/// How many rows are read at once.
const PAGE: usize = 1_024;

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

    /// Sees to it that there are tokens: those of a later process are above all that this one gives.
    pub(crate) async fn reserve_lock_tokens(&self, path: &VPath) -> Result<()> {
        if self.has_lock_tokens() {
            return Ok(());
        }
        let _one = self.advisory().reserving.lock().await;
        if self.has_lock_tokens() {
            return Ok(());
        }
        let failed = |error: StoreError| store_error(Op::Lock, path, &error);
        let key = tokens_key();
        let rows = self.store().rows(TreeId::ROOT).map_err(failed)?;
        let row = rows.reader.get(&key).map_err(failed)?;
        drop(rows);
        let before: u64 = row.map_or(Ok(0), |value| decode(&key, &value)).map_err(failed)?;
        let end = before.saturating_add(RESERVED);
        self.commit_lock(Op::Lock, path, &Caller::administrator(), Change::Put(key, encode(&end))).await?;
        self.advisory().tokens().reserve(before + 1, end);
        Ok(())
    }

    /// Has a lock outlive the process.
    pub(crate) async fn keep_lock(&self, caller: &Caller, key: &LockKey, holder: &Holder) -> Result<()> {
        let (zone, path) = key.parts();
        let request = &holder.request;
        let until = Timestamp(self.env().wall()).after(request.ttl);
        let (kind, agent, session) = (request.kind, request.owner.agent.clone(), request.owner.session);
        let row = LockRow { zone, path: path.clone(), kind, agent, session, token: holder.token, until };
        let change = Change::Put(lock_key(holder.id), encode(&row));
        self.commit_lock(Op::Lock, &path, caller, change).await
    }

    /// Forgets a lock that would outlive the process.
    pub(crate) async fn forget_lock(&self, caller: &Caller, path: &VPath, id: LockId) -> Result<()> {
        self.commit_lock(Op::Unlock, path, caller, Change::Delete(lock_key(id))).await
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
        let now = self.env().wall();
        let (mut restored, mut after) = (0, None);
        loop {
            let page = rows.reader.scan(&prefix, after.as_ref(), PAGE)?;
            let last = page.len() < PAGE;
            for (key, value) in &page {
                let row: LockRow = decode(key, value)?;
                let left = Duration::from_nanos(row.until.nanos().saturating_sub(now)).min(SysLock::TTL_MAX);
                let Some(id) = lock_id(key).filter(|_| !left.is_zero()) else { continue };
                // Its life is over; the agent may come back and extend it by its identity.
                let owner = Owner { agent: row.agent, life: LifeId::KERNEL, session: row.session };
                let request = Request { kind: row.kind, ttl: left, owner, tied: false, durable: true };
                self.advisory().restore(&LockKey::new(&row.zone, &row.path), id, row.token, request);
                restored += 1;
            }
            if last {
                return Ok(restored);
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
    }
}
