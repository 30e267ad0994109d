//! What is written: to the local disk first, or to the store itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use futures_util::future::{join_all, try_join_all};
use nexus_kernel::hal::{ObjectInfo, PathUpload, PathWrite, StoreError, StoreFuture};
use nexus_messages::{Attributes, EntryType, Timestamp};

use super::calls::Call;
use super::paths::{CachedPaths, count};
use super::pending::refusal;
use super::place::{Hold, Room};
use super::rows::tag_at;
use super::table::{Moment, Piece, parent};
use super::{PATH_MAX, PIECE_BYTES, WRITTEN_BACK_MAX};
use crate::late::{Ended, watched};
use crate::path::components;

impl CachedPaths {
    pub(super) async fn write_at(
        &self,
        path: &str,
        data: &[Bytes],
        how: PathWrite,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        components(path)?;
        let size: u64 = data.iter().map(|buffer| buffer.len() as u64).sum();
        // What is pending is here as a whole, and what it is by now is decided here.
        let over = match &how {
            PathWrite::IfMatch(tag) => self.place.table().pending_as(path, tag),
            _ => None,
        };
        let is_whole = matches!(how, PathWrite::Whole | PathWrite::Exclusive) || over.is_some();
        // Other names a driver may refuse, and must be asked.
        let is_plain = path.len() <= PATH_MAX
            && !path.contains(char::is_control)
            && !path.split('/').any(|name| name.starts_with(".nexus"));
        let room = if is_whole && is_plain { self.room(size) } else { None };
        let Some(room) = room else {
            return self.write_through(path, data, how, attributes).await;
        };
        let found = match self.look(path).await {
            Ok(_) if how == PathWrite::Exclusive => return Err(StoreError::Exists { what: path.into() }),
            Ok(info) if info.entry_type == EntryType::Dir => {
                return Err(StoreError::IsADirectory { what: path.into() });
            }
            Ok(info) if info.entry_type == EntryType::Reg => Some(info),
            // What becomes of a link, the store knows.
            Ok(_) => return self.write_through(path, data, how, attributes).await,
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        match self.write_back(path, data, room, attributes, found.as_ref(), over).await? {
            Some(info) => Ok(info),
            // It has come to the store meanwhile, or is another one by now.
            None => self.write_through(path, data, how, attributes).await,
        }
    }

    /// Room for a file of `size` bytes that goes to the local disk first; none when it does not.
    pub(super) fn room(&self, size: u64) -> Option<Room> {
        let goes_here = self.caching.write_back && size <= WRITTEN_BACK_MAX;
        goes_here.then(|| self.place.room(size, self.caching.pending_max)).flatten()
    }

    /// Puts content on the local disk, from where it goes to the store. With `over` in the place of what is pending with that row: none when it is not that any more.
    pub(super) async fn write_back(
        &self,
        path: &str,
        data: &[Bytes],
        room: Room,
        attributes: &Attributes,
        found: Option<&ObjectInfo>,
        over: Option<Bytes>,
    ) -> Result<Option<ObjectInfo>, StoreError> {
        let size = room.size();
        let inline_max = self.place.table().inline_max();
        let env = self.vault.env();
        let now = self.now();
        // Whoever comes here has just looked what is there, or knows it within the age that its mount believes, or has no need to.
        let moment = Moment { wall: now, uptime: self.vault.uptime() };
        let tag = tag_at(now, env.random());
        let mut info =
            ObjectInfo::new(EntryType::Reg, size, tag, attributes.modified.unwrap_or(Timestamp(now)));
        if let Some(found) = found {
            (info.mode, info.created, info.inode) = (found.mode, found.created, found.inode);
        }
        if self.store()?.capabilities().attributes {
            info.mode = attributes.mode.unwrap_or(info.mode);
            info.created = attributes.created.unwrap_or(info.created);
        }
        let pieces = pieces_of(data, size).into_iter().zip(0_u32..).map(async |(piece, index)| {
            let piece = match u32::try_from(piece.len()) {
                Ok(length) if piece.len() > inline_max => Piece::Blob(self.vault.keep(piece).await?, length),
                _ => Piece::Inline(piece),
            };
            Ok::<_, StoreError>((index, piece))
        });
        let pieces: BTreeMap<u32, Piece> = try_join_all(pieces).await?.into_iter().collect();
        let written = {
            let table = self.place.table();
            let (changes, row) = table.written(path, &info, attributes, &pieces, moment)?;
            let holds = over.map(|over| table.still(path, over)).into_iter().collect();
            let (place, path) = (self.place.clone(), path.to_owned());
            let (info, attributes) = (info.clone(), attributes.clone());
            self.vault.enter_and_wait(holds, changes, move |held| {
                if held {
                    place.table().settle_write(&path, &info, attributes, pieces, row, moment);
                }
                drop(room);
                place.due.notify_one();
            })
        };
        Ok(written.await?.then_some(info))
    }

    pub(super) async fn write_through(
        &self,
        path: &str,
        data: &[Bytes],
        how: PathWrite,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        let (how, held) = self.before_through(path, how).await?;
        let (store, mut call) = (self.store()?, self.begin_through(path, &how).await?);
        let info = call.told(watched(store.write(path, data, how, attributes)).await)?;
        self.after_through(call, &info).await?;
        drop(held);
        Ok(info)
    }

    /// What must be before the store itself is written to at `path`, and how it is told to: tags as it knows them.
    async fn before_through(&self, path: &str, how: PathWrite) -> Result<(PathWrite, Hold), StoreError> {
        match how {
            PathWrite::Whole => {}
            PathWrite::Exclusive if self.place.table().is_pending(path) => {
                return Err(StoreError::Exists { what: path.into() });
            }
            // What is pending is a part of what comes out, or of what must be there.
            _ => self.place.drain(path).await?,
        }
        if self.place.table().is_pending_below(path) {
            return Err(StoreError::IsADirectory { what: path.into() });
        }
        let held = self.place.hold(path).await;
        self.place.no_more_late(&self.vault, path).await;
        let how = match how {
            PathWrite::IfMatch(tag) => {
                let known = self.place.table().held(path, self.age());
                let remote = known.filter(|known| known.info.tag == tag).and_then(|known| known.remote);
                PathWrite::IfMatch(remote.unwrap_or(tag))
            }
            how => how,
        };
        Ok((how, held))
    }

    async fn begin_through(&self, path: &str, how: &PathWrite) -> Result<Call<'_>, StoreError> {
        let believes = self.believes(path, how);
        let call = Call::begin(self, path).await?.believing(believes);
        // All others were waited for, or looked for.
        Ok(if *how == PathWrite::Whole { call } else { call.over_nothing() })
    }

    /// Whether a write that goes so, with tags as the store knows them, goes for what is known here of the file.
    fn believes(&self, path: &str, how: &PathWrite) -> bool {
        let known = self.known(path).and_then(Result::ok);
        match how {
            PathWrite::IfMatch(tag) => {
                let held = self.place.table().held(path, self.age()).and_then(|held| held.remote);
                held.as_ref() == Some(tag) || known.is_some_and(|known| known.tag == *tag)
            }
            PathWrite::Exclusive => known.is_none(),
            _ => false,
        }
    }

    /// Takes what the store itself was written by `call`.
    async fn after_through(&self, call: Call<'_>, info: &ObjectInfo) -> Result<(), StoreError> {
        self.gone(&call).await?;
        let keep = self.remembers();
        self.place.table().note_written(&self.vault, call.path(), info, self.now(), keep);
        call.noted();
        Ok(())
    }

    /// Takes the file that `call` was about out of the index, and waits until that is on disk if it may be pending there. What was acknowledged since the call began, by
    /// another mount of the store, stays.
    async fn gone(&self, call: &Call<'_>) -> Result<(), StoreError> {
        let path = call.path();
        let removed = {
            let mut table = self.place.table();
            if table.is_pending(path) && table.pending_row(path).as_ref() != call.over() {
                return Ok(());
            }
            let Some((holds, changes)) = table.removed(path) else {
                table.take(path);
                return Ok(());
            };
            let (place, path) = (self.place.clone(), path.to_owned());
            self.vault.enter_and_wait(vec![holds], changes, move |held| {
                let mut table = place.table();
                // A row that is not there any more, or never came to be, tells of nothing that is pending.
                if held || !table.is_pending(&path) {
                    table.take(&path);
                }
                drop(table);
                place.settled.notify_waiters();
            })
        };
        removed.await.map(drop)
    }

    /// As [`gone`](Self::gone), of a file that the store has not any more.
    async fn gone_for_good(&self, call: Call<'_>) -> Result<(), StoreError> {
        self.gone(&call).await?;
        {
            let mut table = self.place.table();
            if !table.is_pending(call.path()) {
                table.note_gone(call.path());
            }
        }
        call.noted();
        Ok(())
    }

    /// Makes a folder at a store that has such, if it is not there.
    async fn make_folder(&self, folder: &str) -> Result<(), StoreError> {
        let store = self.store()?;
        if folder.is_empty() || !store.capabilities().directories {
            return Ok(());
        }
        match store.make_directory(folder, &Attributes::none()).await {
            Ok(_) | Err(StoreError::Exists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn delete_at(&self, path: &str) -> Result<(), StoreError> {
        components(path)?;
        let held = self.place.hold(path).await;
        self.place.no_more_late(&self.vault, path).await;
        let (is_refused, has_below) = {
            let table = self.place.table();
            (table.is_refused(path), table.is_pending_below(path))
        };
        if has_below {
            return Err(StoreError::NotEmpty { what: path.into() });
        }
        let (store, mut call) = (self.store()?, Call::begin(self, path).await?);
        let is_pending = call.over().is_some();
        match call.told(watched(store.delete(path)).await) {
            Ok(()) => {}
            // Nothing of it has come there, and with it its folder would have, which stays where folders do.
            Err(StoreError::NotFound { .. }) if is_pending => match self.make_folder(parent(path)).await {
                // There the store wants nothing at all.
                Err(error) if is_refused && refusal(&error).is_some() => {}
                made => made?,
            },
            // A file is where its folder would be, so nothing is here.
            Err(StoreError::NotADirectory { .. }) if is_refused => {}
            // It takes this state as little as it lets go what it has. Who deletes the file wants that state no more.
            Err(error) if is_refused && refusal(&error).is_some() => {
                self.gone(&call).await?;
                self.place.table().forget_within(&self.vault, path);
                tracing::warn!(path, %error, "what was written back there, and refused, is given up; its store refuses the deletion, too");
                return Err(given_up(path, error));
            }
            Err(error) => {
                if matches!(error, StoreError::NotFound { .. }) {
                    // Somebody else has taken it away.
                    self.gone_for_good(call).await?;
                }
                return Err(error);
            }
        }
        self.gone_for_good(call).await?;
        drop(held);
        Ok(())
    }

    /// Those that only the store has go in one call of it; each of the others, as a deletion by itself.
    pub(super) async fn delete_all(
        &self,
        paths: &[String],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let (mut together, mut holds, mut is_together) = (Vec::new(), Vec::new(), Vec::new());
        // In their order, so that no two wait for each other; and each once.
        let mut held = BTreeMap::new();
        for path in paths.iter().collect::<BTreeSet<_>>() {
            components(path)?;
            held.insert(path, self.place.hold(path).await);
        }
        for path in paths {
            // One that is named again is removed by itself.
            let Some(held) = held.remove(path) else {
                is_together.push(false);
                continue;
            };
            let now = self.vault.uptime();
            let is_plain = {
                let table = self.place.table();
                !table.is_pending(path)
                    && !table.is_refused(path)
                    && !table.is_pending_below(path)
                    && table.late_until(path).is_none_or(|until| until <= now)
            };
            is_together.push(is_plain);
            if is_plain {
                together.push(path.clone());
                holds.push(held);
            }
        }
        let (store, calls) =
            (self.store()?, Call::begin_all(self, together.iter().map(String::as_str)).await?);
        let told = match together.is_empty() {
            true => Ended { answer: Ok(Vec::new()), may_come: false },
            false => watched(store.delete_many(&together)).await,
        };
        let may_come = told.may_come;
        let told = match told.answer {
            Ok(told) => told,
            Err(error) => {
                calls.into_iter().for_each(|call| call.failed(&error, may_come));
                return Err(error);
            }
        };
        // Side by side: the index is flushed for many of them at once.
        let forgotten = told.into_iter().zip(calls).map(async |(deleted, mut call)| {
            let deleted = call.told(Ended { answer: deleted, may_come });
            if matches!(deleted, Ok(()) | Err(StoreError::NotFound { .. })) {
                self.gone_for_good(call).await?;
            }
            deleted
        });
        let mut forgotten = join_all(forgotten).await.into_iter();
        drop(holds);
        let mut each = Vec::with_capacity(paths.len());
        for (path, is_together) in paths.iter().zip(is_together) {
            each.extend(match is_together {
                true => forgotten.next(),
                false => Some(match self.delete_at(path).await {
                    Err(StoreError::NotFound { .. }) => Ok(()),
                    deleted => deleted,
                }),
            });
        }
        Ok(each)
    }

    /// Has nothing pending at these paths and below, calls the store, and forgets what was known of them.
    pub(super) async fn beside<T, const N: usize>(
        &self,
        paths: [&str; N],
        change: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        for path in paths {
            components(path)?;
            self.place.drain(path).await?;
            self.place.no_more_late(&self.vault, path).await;
        }
        let calls = Call::begin_all(self, paths).await?;
        // What was written through another mount meanwhile and is on its way there already is not changed under it.
        for path in paths {
            self.place.still(path).await;
        }
        let Ended { answer: mut done, may_come } = watched(change).await;
        for mut call in calls {
            done = call.told(Ended { answer: done, may_come });
            // Also of a failed call some may be done: all that is known there is forgotten, below.
            call.noted();
        }
        let mut table = self.place.table();
        for path in paths {
            table.forget_within(&self.vault, path);
        }
        done
    }
}

/// Content on its way to the store itself, piece by piece.
#[derive(Debug)]
pub(super) struct Through {
    pub(super) near: CachedPaths,
    pub(super) inner: Box<dyn PathUpload>,
}

impl PathUpload for Through {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        self.inner.push(data)
    }

    fn settle(&mut self) -> StoreFuture<'_, ()> {
        self.inner.settle()
    }

    fn finish<'a>(
        self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            let Self { near, inner } = *self;
            let (how, held) = near.before_through(path, how).await?;
            let mut call = near.begin_through(path, &how).await?;
            let info = call.told(watched(inner.finish(path, how, attributes)).await)?;
            near.after_through(call, &info).await?;
            drop(held);
            Ok(near.plain(info))
        })
    }
}

/// The store's refusal to delete what is at `path`, when what was pending there is given up all the same.
fn given_up(path: &str, error: StoreError) -> StoreError {
    let given_up = "what was written back there, and refused, is given up";
    match error {
        StoreError::Io { what, source } => StoreError::Io { what: format!("{what}: {given_up}"), source },
        StoreError::NotEmpty { .. } => StoreError::NotEmpty { what: format!("{path} ({given_up})") },
        StoreError::IsADirectory { .. } => StoreError::IsADirectory { what: format!("{path} ({given_up})") },
        other => other,
    }
}

/// The pieces of a content that is given in buffers.
fn pieces_of(data: &[Bytes], size: u64) -> Vec<Bytes> {
    let whole = match data {
        [bytes] => bytes.clone(),
        buffers => {
            let mut whole = BytesMut::with_capacity(count(size));
            buffers.iter().for_each(|buffer| whole.extend_from_slice(buffer));
            whole.freeze()
        }
    };
    let piece = count(PIECE_BYTES);
    let starts = (0..whole.len()).step_by(piece);
    starts.map(|start| whole.slice(start..(start + piece).min(whole.len()))).collect()
}
