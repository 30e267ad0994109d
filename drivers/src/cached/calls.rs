//! Calls that change the store itself, and what of them may arrive late.
//!
//! Nobody calls a request back that a server has. What was given up on its way, or was under way when the process ended, may be carried out later than what goes
//! behind it. So whatever else is to be done at its path, and below, waits for a while: it is to come after it.
//!
//! Where a mount writes back, the index is told of a call before it goes, and that it has ended, so that the next life of the process waits for it, too. What is
//! pending needs no such row: that it may be on its way, its own row says, until it has come to the store while an older attempt may still arrive.

use std::ops::Bound;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use nexus_kernel::hal::{Change, StoreError};
use nexus_messages::ContentId;

use super::paths::CachedPaths;
use super::place::Place;
use super::rows::call_key;
use super::table::{Table, below, parent};
use super::vault::Vault;

/// For how long, in nanoseconds, an attempt may arrive at the store that was given up, or was under way when the process ended.
pub(super) const LATE_MAX: u64 = 10_000_000_000;

/// What the row of a call says beside its key: nothing.
const ROW: Bytes = Bytes::from_static(&[1]);

impl Table {
    /// Notes that an attempt to change `path` was given up, and may arrive there until then all the same. No state goes there before, nor below, but the one that the
    /// attempt was to bring.
    pub(super) fn doubt(&mut self, path: &str, brought: Option<&ContentId>, now: u64, until: u64) {
        self.late.retain(|_, until| *until > now);
        self.late.insert(path.to_owned(), until);
        let prefix = below(path);
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let within = self.pending.range::<str, _>(from).take_while(|path| path.starts_with(&prefix));
        let within: Vec<String> = within.cloned().chain([path.to_owned()]).collect();
        for path in within {
            self.number += 1;
            let number = self.number;
            let Some(file) = self.files.get_mut(&path).filter(|file| Some(&file.info.tag) != brought) else {
                continue;
            };
            if let Some(pending) = file.pending.as_mut().filter(|pending| pending.due.0 < until) {
                self.due.remove(&pending.due);
                pending.due = (until, number);
                self.due.insert(pending.due, path);
            }
        }
    }

    /// When a new state of `path` may go to the store.
    pub(super) fn first_due(&self, path: &str, now: u64) -> u64 {
        self.late_above(path).filter(|until| *until > now).unwrap_or(0)
    }

    /// Until when something may arrive at the store, at `path`, above or below, that was given up.
    pub(super) fn late_until(&self, path: &str) -> Option<u64> {
        let prefix = below(path);
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let within = self.late.range::<str, _>(from).take_while(|(path, _)| path.starts_with(&prefix));
        within.map(|(_, until)| *until).chain(self.late_above(path)).max()
    }

    /// The same, of `path` and the folders that it is in.
    fn late_above(&self, path: &str) -> Option<u64> {
        let mut latest = self.late.get(path).copied();
        let mut above = path;
        while !above.is_empty() && !self.late.is_empty() {
            above = parent(above);
            latest = latest.max(self.late.get(above).copied());
        }
        latest
    }

    /// Takes up a call that the index was told of, and that may have been under way when the process ended.
    pub(super) fn restore_call(&mut self, path: &str) {
        self.told.insert(path.to_owned());
        self.doubt(path, None, 0, LATE_MAX);
    }

    /// Whether something may arrive late.
    pub(super) fn is_doubted(&self) -> bool {
        !self.late.is_empty()
    }

    /// The change by which the index is told that something may arrive at `path`.
    fn tell(&mut self, path: &str) -> Change {
        self.told.insert(path.to_owned());
        Change::Put(call_key(&self.id(), path), ROW)
    }

    /// The change that goes with a state of `path` that has come to the store: the index is told when an older attempt may still arrive, and that none may.
    pub(super) fn told_with(&mut self, path: &str, now: u64) -> Option<Change> {
        if self.late.get(path).is_some_and(|until| *until > now) {
            return Some(self.tell(path));
        }
        self.over(path, now)
    }

    /// The change by which the index is told that nothing arrives at `path` any more, if it was told that something may, and that is so.
    fn over(&mut self, path: &str, now: u64) -> Option<Change> {
        let is_late = self.late.get(path).is_some_and(|until| *until > now);
        if is_late || self.calls.contains_key(path) || !self.told.remove(path) {
            return None;
        }
        Some(Change::Delete(call_key(&self.id(), path)))
    }

    fn call_ends(&mut self, path: &str) {
        if let Some(count) = self.calls.get_mut(path) {
            *count -= 1;
            if *count == 0 {
                self.calls.remove(path);
            }
        }
    }
}

/// Tells the index, when it is time, that what the last life of the process had on its way arrives no more.
pub(super) async fn outlive(vault: &Weak<Vault>, place: &Place) {
    let Some(env) = vault.upgrade().map(|vault| vault.env().clone()) else { return };
    env.sleep(Duration::from_nanos(LATE_MAX)).await;
    let Some(vault) = vault.upgrade() else { return };
    let now = vault.uptime();
    let mut table = place.table();
    let told: Vec<String> = table.told.iter().cloned().collect();
    let over: Vec<Change> = told.iter().filter_map(|path| table.over(path, now)).collect();
    if !over.is_empty() {
        vault.enter(Vec::new(), over, true, |_| {});
    }
}

/// A call that changes the store at a path. What was known there is forgotten, unless the store says what became of it: it may have made it, or may make it yet.
pub(super) struct Call<'a> {
    near: &'a CachedPaths,
    path: String,
    is_sent: bool,
    is_told: bool,
}

impl<'a> Call<'a> {
    /// One that is about to go to the store. Waits until that is in the index.
    pub(super) async fn begin(near: &'a CachedPaths, path: &str) -> Result<Self, StoreError> {
        let mut calls = Self::begin_all(near, [path]).await?;
        Ok(calls.pop().expect("there is one for each path"))
    }

    /// Those that are about to go to the store together.
    pub(super) async fn begin_all(
        near: &'a CachedPaths,
        paths: impl IntoIterator<Item = &str>,
    ) -> Result<Vec<Self>, StoreError> {
        let call = |path: &str| Self { near, path: path.to_owned(), is_sent: false, is_told: false };
        let mut calls: Vec<Self> = paths.into_iter().map(call).collect();
        if near.caching.write_back && !calls.is_empty() {
            let told = {
                let mut table = near.place.table();
                let each = calls.iter().map(|call| {
                    *table.calls.entry(call.path.clone()).or_default() += 1;
                    table.tell(&call.path)
                });
                let changes = each.collect();
                near.vault.enter_and_wait(Vec::new(), changes, |_| {})
            };
            told.await?;
        }
        calls.iter_mut().for_each(|call| call.is_sent = true);
        Ok(calls)
    }

    /// What the store said of it.
    pub(super) fn told<T>(mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        self.is_told = !done.as_ref().is_err_and(StoreError::is_unknown);
        done
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Self { near, path, is_sent, is_told } = self;
        let mut table = near.place.table();
        let is_doubtful = *is_sent && !*is_told;
        if is_doubtful {
            table.forget_within(&near.vault, path);
        }
        if !near.caching.write_back {
            return;
        }
        table.call_ends(path);
        let now = near.vault.uptime();
        if is_doubtful {
            table.doubt(path, None, now, now + LATE_MAX);
        }
        if let Some(over) = table.over(path, now) {
            near.vault.enter(Vec::new(), vec![over], true, |_| {});
        }
    }
}
