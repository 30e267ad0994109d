//! Calls that change the store itself, and what of them may arrive late.
//!
//! Nobody calls a request back that a server has. What was given up on its way, or was under way when the process ended, may be carried out later than what goes
//! behind it. So whatever else is to be done at its path, and below, waits for a while: it is to come after it.
//!
//! Where a mount writes back, the index is told of a call before it goes, and that it has ended, so that the next life of the process waits for it, too. What is
//! pending needs no such row: that it may be on its way, its own row says, until it has come to the store while an older attempt may still arrive.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_kernel::hal::{Change, StoreError};
use nexus_messages::ContentId;

use super::paths::CachedPaths;
use super::place::Place;
use super::rows::call_key;
use super::table::{Table, below, parent};
use super::vault::Vault;
use crate::late::{self, Ended};

/// For how long, in nanoseconds, an attempt may arrive at the store that was given up, or was under way when the process ended.
pub(super) const LATE_MAX: u64 = late::LATE_MAX.as_secs() * 1_000_000_000;

/// What the row of a call says beside its key: nothing.
const ROW: Bytes = Bytes::from_static(&[1]);

impl Table {
    /// Notes that an attempt to change `path` was given up, and may arrive there until then all the same. No state goes there before, nor below, but the one that the
    /// attempt was to bring.
    pub(super) fn doubt(&mut self, path: &str, brought: Option<&ContentId>, until: u64) {
        let known = self.late.entry(path.to_owned()).or_default();
        *known = until.max(*known);
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
        self.doubt(path, None, LATE_MAX);
    }

    /// The change by which the index is told that something may arrive at `path`.
    fn tell(&mut self, path: &str) -> Change {
        self.told.insert(path.to_owned());
        Change::Put(call_key(&self.id(), path), ROW)
    }

    /// The change that goes with a state of `path` that has come to the store: the index is told when an older attempt may still arrive.
    pub(super) fn told_with(&mut self, path: &str, now: u64) -> Option<Change> {
        self.late.get(path).is_some_and(|until| *until > now).then(|| self.tell(path))
    }

    /// The change by which the index is told that nothing arrives at `path` any more, if it was told that something may, and that is so.
    fn over(&mut self, path: &str, now: u64) -> Option<Change> {
        let is_late = self.late.get(path).is_some_and(|until| *until > now);
        if is_late || self.calls.contains_key(path) || !self.told.remove(path) {
            return None;
        }
        Some(Change::Delete(call_key(&self.id(), path)))
    }

    /// Whether nothing may go to `path` now: something is on its way there, or a call is under way that changes the store there or above, as a renaming does that copies and deletes.
    pub(super) fn is_held_up(&self, path: &str) -> bool {
        let mut above = path;
        let mut is_called = || {
            loop {
                if self.calls.contains_key(above) {
                    return true;
                }
                if above.is_empty() {
                    return false;
                }
                above = parent(above);
            }
        };
        self.busy.contains(path) || !self.calls.is_empty() && is_called()
    }

    /// Whether something is on its way to the store at `path` or below.
    pub(super) fn is_busy_within(&self, path: &str) -> bool {
        let below = below(path);
        self.busy.iter().any(|busy| busy == path || busy.starts_with(&below))
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

/// Has the index told, when it is time, that what may arrive late at `place` arrives no more.
pub(super) fn outlive(vault: &Arc<Vault>, place: &Arc<Place>) {
    {
        let mut table = place.table();
        if table.late.is_empty() || std::mem::replace(&mut table.is_outliving, true) {
            return;
        }
    }
    let (env, vault, place) = (vault.env().clone(), Arc::downgrade(vault), place.clone());
    env.clone().spawn("cached.outlive", async move {
        loop {
            env.sleep(Duration::from_nanos(LATE_MAX)).await;
            let Some(vault) = vault.upgrade() else { return };
            let now = vault.uptime();
            let mut table = place.table();
            table.late.retain(|_, until| *until > now);
            let told: Vec<String> = table.told.iter().cloned().collect();
            let over: Vec<Change> = told.iter().filter_map(|path| table.over(path, now)).collect();
            if !over.is_empty() {
                vault.enter(Vec::new(), over, true, |_| {});
            }
            if table.late.is_empty() {
                table.is_outliving = false;
                return;
            }
        }
    });
}

/// A call that changes the store at a path. What is known there is forgotten with it, unless the store has said what became of the call, and that was noted: it may have
/// made it, or may make it yet.
pub(super) struct Call<'a> {
    near: &'a CachedPaths,
    path: String,
    /// The row of what is pending there, which it goes over.
    over: Option<Bytes>,
    /// Whether it goes for what is known here: a store that has another state refuses it.
    believes: bool,
    is_counted: bool,
    is_sent: bool,
    is_told: bool,
    /// Whether an attempt of it that came before the one that was answered may arrive yet.
    may_come: bool,
    is_noted: bool,
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
        let (believes, is_sent, is_told, may_come, is_noted) = (false, false, false, false, false);
        let mut calls: Vec<Self> = Vec::new();
        let entered = {
            let mut table = near.place.table();
            // What goes through another mount of the store may meet what is written back.
            let is_counted = near.place.writes_back() || table.pending_files() > 0;
            let mut changes = Vec::new();
            for path in paths {
                let (path, over) = (path.to_owned(), table.pending_row(path));
                if is_counted {
                    *table.calls.entry(path.clone()).or_default() += 1;
                    changes.push(table.tell(&path));
                }
                calls.push(Self {
                    near,
                    path,
                    over,
                    believes,
                    is_counted,
                    is_sent,
                    is_told,
                    may_come,
                    is_noted,
                });
            }
            (!changes.is_empty()).then(|| near.vault.enter_and_wait(Vec::new(), changes, |_| {}))
        };
        if let Some(entered) = entered {
            entered.await?;
        }
        calls.iter_mut().for_each(|call| call.is_sent = true);
        Ok(calls)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The same, of a call that goes over nothing that is pending: what is by now, was acknowledged since it was looked for.
    pub(super) fn over_nothing(mut self) -> Self {
        self.over = None;
        self
    }

    /// The same, of one that goes for what is known here, if `believes`.
    pub(super) fn believing(mut self, believes: bool) -> Self {
        self.believes = believes;
        self
    }

    /// The row of what was pending there when it began.
    pub(super) fn over(&self) -> Option<&Bytes> {
        self.over.as_ref()
    }

    /// What the store said of it.
    pub(super) fn told<T>(&mut self, ended: Ended<Result<T, StoreError>>) -> Result<T, StoreError> {
        let done = ended.answer;
        self.is_told = !done.as_ref().is_err_and(StoreError::is_unknown);
        self.may_come |= ended.may_come;
        // Where nothing was changed, what is known stays, unless just that is not so any more.
        let is_old = |error: &StoreError| self.believes && is_of_another_state(error);
        self.is_noted = self.is_told && done.as_ref().is_err_and(|error| !is_old(error));
        done
    }

    /// It failed together with others, which leaves open whether it was carried out before.
    pub(super) fn failed(mut self, error: &StoreError, may_come: bool) {
        self.is_told = !error.is_unknown();
        self.may_come = may_come;
    }

    /// What became of it was noted.
    pub(super) fn noted(mut self) {
        self.is_noted = true;
    }
}

/// Whether the store refused a change because something else is there than was meant.
fn is_of_another_state(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Changed { .. }
            | StoreError::Exists { .. }
            | StoreError::NotFound { .. }
            | StoreError::NotADirectory { .. }
            | StoreError::IsADirectory { .. }
            | StoreError::NotEmpty { .. }
    )
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let (vault, place) = (&self.near.vault, &self.near.place);
        let is_doubtful = self.is_sent && (!self.is_told || self.may_come);
        {
            let (mut table, now) = (place.table(), vault.uptime());
            if self.is_sent && !self.is_noted {
                table.forget_within(vault, &self.path);
            }
            if is_doubtful {
                table.doubt(&self.path, None, now + LATE_MAX);
            }
            if self.is_counted {
                table.call_ends(&self.path);
                if let Some(over) = table.over(&self.path, now) {
                    vault.enter(Vec::new(), vec![over], true, |_| {});
                }
            }
        }
        if self.is_counted {
            place.due.notify_one();
        }
        if is_doubtful {
            outlive(vault, place);
        }
    }
}
