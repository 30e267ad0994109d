//! Renaming by copying and deleting, for mounts that allow it.
//!
//! It is not atomic: until it has ended, others see both places, each with a part. It can be taken up again: a key of the driver's own says what is renamed
//! to where and how far it came, and the same renaming, asked for again, goes on from there. Nothing is deleted before all is copied, and nothing whose copy is
//! not of the state that a look right before finds: what others write meanwhile is copied, too. Only what they write between that look and the deletion is lost: no
//! store that the library knows deletes under a condition.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nexus_kernel::hal::{ObjectInfo, StoreError};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, EntryType};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::client::PAGE_MAX;
use super::doubts::Change;
use super::paths::{COPY_MAX, RemotePaths, file};
use crate::path::split_last;

/// What the names of the keys begin with that say how far a renaming came.
const MARK: &str = ".nexus-rename-";

/// How many keys are copied, or deleted, at once.
const AT_ONCE: usize = 16;

/// How often a key is copied again because somebody wrote to it, before it stays for now.
const COPIES_MAX: usize = 4;

/// The first line of a mark: what is being done.
const COPYING: &str = "copying";
const DELETING: &str = "deleting";

/// Moves what is at `from` to `to`.
pub(super) async fn rename(paths: &RemotePaths, from: &str, to: &str) -> Result<ObjectInfo, StoreError> {
    split_last(from)?;
    split_last(to)?;
    let mark = Mark::of(paths, from, to)?;
    let mut begun = mark.read(paths).await?;
    let source = match (paths.look(from).await, &begun) {
        // All but the mark is done.
        (Err(StoreError::NotFound { .. }), Some(begun)) if begun.state.starts_with(DELETING) => {
            mark.remove(paths).await?;
            return paths.look(to).await;
        }
        (source, _) => source?,
    };
    if from == to {
        return Ok(source);
    }
    if source.entry_type == EntryType::Reg {
        let key = paths.place_for(to).await?;
        let of = paths.key(from)?;
        paths.client.copy(&of, &key, source.size).await?;
        let gone = take_away(paths, &of, &key, Some(source.tag)).await;
        gone.map_err(|error| unfinished(from, to, &error))?;
        return paths.look(to).await;
    }
    if to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
        return Err(StoreError::BadOption { why: format!("{from:?} cannot be moved into itself") });
    }
    let (of, into) = (paths.folder(from), paths.folder(to));
    if let Some(mark) = &begun
        && !is_left_of(paths, &of, mark).await?
    {
        // Its renaming has moved all that there was, and what is there now came since.
        begun = None;
    }
    match paths.place_for(to).await {
        Ok(key) if paths.client.head(&key).await?.is_some() => {
            return Err(StoreError::NotADirectory { what: to.into() });
        }
        // What was begun has made it.
        Err(StoreError::IsADirectory { .. }) if begun.is_some() => {}
        // A folder that is there has something in it.
        Err(StoreError::IsADirectory { what }) => return Err(StoreError::NotEmpty { what }),
        placed => drop(placed?),
    }
    if begun.is_none() {
        // Before anything is done: what no path can hold cannot be moved, and would be met again whenever it is tried.
        check(paths, &of).await?;
    }
    let moved = move_folder(paths, &mark, begun, &of, &into).await;
    moved.map_err(|error| unfinished(from, to, &error))?;
    paths.look(to).await
}

fn unfinished(from: &str, to: &str, error: &StoreError) -> StoreError {
    let cause = format!("{error}; it is done in part, and goes on when it is asked for again");
    let what = format!("moving {from:?} to {to:?} by copying and deleting");
    match error.is_backend_failure() {
        true => StoreError::Unknown { what, cause },
        false => StoreError::Doubtful { what, cause },
    }
}

/// Whether all keys below `of` can be told, and what is there can be copied.
async fn check(paths: &RemotePaths, of: &str) -> Result<(), StoreError> {
    let (mut last, mut more) = (None, true);
    while more {
        let keys;
        (keys, more) = page(paths, of, last).await?;
        if keys.iter().any(|meta| meta.size > COPY_MAX) {
            return Err(StoreError::NotSupported { what: "copying so much at once" });
        }
        last = keys.last().map(|meta| meta.location.as_ref().to_owned());
        more &= last.is_some();
    }
    Ok(())
}

/// Whether something of what the renaming was about that left the mark is still below `of`.
async fn is_left_of(paths: &RemotePaths, of: &str, mark: &Begun) -> Result<bool, StoreError> {
    let mut last = None;
    loop {
        let (keys, more) = page(paths, of, last).await?;
        if keys.iter().any(|meta| !mark.is_before(meta)) {
            return Ok(true);
        }
        last = keys.last().map(|meta| meta.location.as_ref().to_owned());
        if !more || last.is_none() {
            return Ok(false);
        }
    }
}

async fn move_folder(
    paths: &RemotePaths,
    mark: &Mark,
    begun: Option<Begun>,
    of: &str,
    into: &str,
) -> Result<(), StoreError> {
    let state = begun.as_ref().map_or("", |begun| &begun.state);
    if state != DELETING {
        // A mark that says nothing of it is of one that has copied nothing.
        let copied = state.strip_prefix(COPYING).and_then(|copied| copied.strip_prefix('\n'));
        let mut last = copied.map(str::to_owned);
        mark.write(paths, COPYING, last.as_deref()).await?;
        loop {
            let (keys, more) = page(paths, of, last.clone()).await?;
            last = keys.last().map(|meta| meta.location.as_ref().to_owned()).or(last);
            let copies: Vec<_> = keys.into_iter().map(|meta| copy_into(paths, meta, of, into)).collect();
            stream::iter(copies).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
            if !more {
                break;
            }
            mark.write(paths, COPYING, last.as_deref()).await?;
        }
        mark.write(paths, DELETING, None).await?;
    }
    // A folder may have a key of its own, which is not below it.
    let own = paths.client.mark(of).zip(paths.client.mark(into));
    if let Some((from, to)) = &own {
        paths.client.settled(from, Some(Change::Deleted)).await?;
        if paths.client.head(from).await?.is_some() {
            paths.client.settled(to, Some(Change::copy_of(from))).await?;
            paths.client.copy(from, to, 0).await?;
        }
    }
    loop {
        let (keys, _) = page(paths, of, None).await?;
        if keys.is_empty() {
            break;
        }
        // What came since it was cut short has no copy, whatever lies where that would be.
        let is_copied = |meta: &ObjectMeta| begun.as_ref().is_none_or(|begun| !begun.is_before(meta));
        let deletions: Vec<_> = keys
            .into_iter()
            .map(|meta| {
                let is_copied = is_copied(&meta);
                settle(paths, meta, is_copied, of, into)
            })
            .collect();
        stream::iter(deletions).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    }
    if let Some((from, _)) = &own {
        paths.client.delete(from).await?;
    }
    mark.remove(paths).await
}

/// The key that `meta` is of. That of a folder itself, which is empty, has lost its slash on the way here; where there is a file of that name too, it comes up again
/// when that is gone.
async fn key_of(paths: &RemotePaths, meta: &ObjectMeta) -> Result<Path, StoreError> {
    if meta.size > 0 || paths.client.head(&meta.location).await?.is_some() {
        return Ok(meta.location.clone());
    }
    let mark = paths.client.mark(&format!("{}/", meta.location));
    mark.ok_or(StoreError::NotSupported { what: "moving a folder that has a key of its own" })
}

/// The key that becomes that of `key`.
fn target(paths: &RemotePaths, key: &Path, of: &str, into: &str) -> Result<Path, StoreError> {
    let key = [into, key.as_ref().strip_prefix(of).unwrap_or_default()].concat();
    paths.client.mark(&key).map_or_else(|| paths.client.whole_key(&key), Ok)
}

async fn copy_into(paths: &RemotePaths, meta: ObjectMeta, of: &str, into: &str) -> Result<(), StoreError> {
    let key = key_of(paths, &meta).await?;
    let target = target(paths, &key, of, into)?;
    paths.client.settled(&target, Some(Change::copy_of(&key))).await?;
    // Before it is deleted, what came of it is looked at.
    paths.client.ask_for_copy(&key, &target, meta.size).await
}

/// Deletes a key whose copy is newer than it, and of its size, if it can have been copied. What came, or was written, since it was copied is copied first: the renaming may have been cut
/// short long ago.
async fn settle(
    paths: &RemotePaths,
    meta: ObjectMeta,
    is_copied: bool,
    of: &str,
    into: &str,
) -> Result<(), StoreError> {
    let key = key_of(paths, &meta).await?;
    let target = target(paths, &key, of, into)?;
    let copy = paths.client.head(&target).await?;
    let is_newer =
        |copy: &ObjectMeta| is_copied && copy.size == meta.size && copy.last_modified > meta.last_modified;
    let copied = copy.as_ref().is_some_and(is_newer).then(|| file(&meta).tag);
    take_away(paths, &key, &target, copied).await
}

/// Deletes `key`, of whose state `copied` there is a copy at `target`. While it is in another one, that is copied first.
async fn take_away(
    paths: &RemotePaths,
    key: &Path,
    target: &Path,
    mut copied: Option<ContentId>,
) -> Result<(), StoreError> {
    // What is carried out there yet comes before the last look at it.
    paths.client.settled(key, Some(Change::Deleted)).await?;
    for _ in 0..=COPIES_MAX {
        // What is not there any more, somebody else has deleted.
        let Some(now) = paths.client.head(key).await? else { return Ok(()) };
        let state = file(&now).tag;
        if copied.as_ref() == Some(&state) {
            return paths.client.delete(key).await;
        }
        paths.client.settled(target, Some(Change::copy_of(key))).await?;
        paths.client.copy(key, target, now.size).await?;
        copied = Some(state);
    }
    Err(StoreError::Locked { what: key.to_string() })
}

/// The next keys below `of`, in order, and whether there are more.
async fn page(
    paths: &RemotePaths,
    of: &str,
    after: Option<String>,
) -> Result<(Vec<ObjectMeta>, bool), StoreError> {
    let (mut keys, mut token) = (Vec::new(), None);
    loop {
        let page = paths.client.page(of.to_owned(), after.clone(), PAGE_MAX, false, token).await?;
        token = page.page_token;
        // The folder's own key has lost its slash, and is not below it any more.
        keys.extend(page.result.objects.into_iter().filter(|meta| {
            let key = meta.location.as_ref();
            key.starts_with(of) && after.as_deref().is_none_or(|after| key > after)
        }));
        if !keys.is_empty() || token.is_none() {
            keys.sort_unstable_by(|one, other| one.location.cmp(&other.location));
            return Ok((keys, token.is_some()));
        }
    }
}

/// The key that says how far the renaming came.
struct Mark {
    key: Path,
}

/// What a mark says.
struct Begun {
    state: String,
    /// What is known of the mark itself, as a listing tells it.
    meta: ObjectMeta,
}

impl Begun {
    /// Whether the mark was made before what `meta` tells of.
    fn is_before(&self, meta: &ObjectMeta) -> bool {
        meta.last_modified > self.meta.last_modified
    }
}

impl Mark {
    fn of(paths: &RemotePaths, from: &str, to: &str) -> Result<Self, StoreError> {
        let name = blake3::hash([from, "\0", to].concat().as_bytes()).to_hex();
        Ok(Self { key: paths.client.key(&format!("{MARK}{}", &name[..32]))? })
    }

    async fn read(&self, paths: &RemotePaths) -> Result<Option<Begun>, StoreError> {
        match paths.client.get(&self.key, ByteRange::ALL).await {
            Ok((bytes, meta)) => {
                let state = String::from_utf8_lossy(&bytes).into_owned();
                let meta = self.as_listed(paths).await?.unwrap_or(meta);
                Ok(Some(Begun { state, meta }))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a listing tells of it. Its age is held against that of keys which are listed, and some servers tell parts of a second there alone: without them it would be older than
    /// what was there before it.
    async fn as_listed(&self, paths: &RemotePaths) -> Result<Option<ObjectMeta>, StoreError> {
        let page = paths.client.page(self.key.to_string(), None, 1, false, None).await?;
        Ok(page.result.objects.into_iter().find(|meta| meta.location == self.key))
    }

    async fn write(&self, paths: &RemotePaths, state: &str, last: Option<&str>) -> Result<(), StoreError> {
        let text = last.map_or_else(|| state.to_owned(), |last| format!("{state}\n{last}"));
        paths.client.settled(&self.key, None).await?;
        paths.client.put(&self.key, &[Bytes::from(text)]).await.map(drop)
    }

    /// Takes it away when nothing can bring it back any more: a renaming that is asked for later would take it for its own.
    async fn remove(&self, paths: &RemotePaths) -> Result<(), StoreError> {
        paths.client.settled(&self.key, Some(Change::Deleted)).await?;
        paths.client.delete(&self.key).await
    }
}
