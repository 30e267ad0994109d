//! The paths of a description, whatever they are asked by.
//!
//! A path is a directory when a route names something below it, or when its own route lists it and does not read it. A route that does both serves files and
//! folders alike: then a folder is there for as long as something lies in it. The top of a route for any number of names is always a directory. Where a name is a file and a folder too, the file is shown.
//!
//! A listing is asked for whole, with a bound, and put in order; what a caller takes page by page is asked for once. What a listing does not tell of a file is
//! looked at file by file, unless the description says that it does not matter.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use nexus_actors::Env;
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathWrite, StoreError,
    StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};
use parking_lot::Mutex;

use super::failure::of_the_call;
use super::listing::Item;
use super::pattern::Vars;
use super::routes::{Route, Routes};
use crate::path::{components, split_last};

/// How many entries that a listing does not describe are looked at at once.
const LOOKS_AT_ONCE: usize = 8;

/// How many listings are remembered for their next pages.
const LISTINGS_MAX: usize = 8;

/// How long they are.
const LISTING_AGE_MAX: Duration = Duration::from_secs(30);

/// How often a file is read whose listing says something else of its size.
const READS_MAX: usize = 3;

/// What a route may be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Can {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) delete: bool,
    pub(super) list: bool,
    /// Whether a write can be refused, by who does it, when there is something.
    pub(super) exclusive: bool,
    /// Whether the listing of the folder above tells what is there, and not a question of its own.
    pub(super) told_by_listing: bool,
    /// Whether the time of its last change tells a content from others, where there is no tag.
    pub(super) told_apart_by_time: bool,
    /// Whether what its listing does not tell of a file is looked at.
    pub(super) looks_at_each: bool,
}

/// What a route asks.
pub(super) trait Asks: fmt::Debug + Send + Sync + 'static {
    fn can(&self) -> Can;
}

/// One question.
#[derive(Debug)]
pub(super) struct Call<'a, A> {
    pub(super) path: &'a str,
    pub(super) asks: &'a A,
    pub(super) vars: Vars,
    /// What may be asked there.
    can: Can,
    /// Until when there must be an answer.
    pub(super) deadline: Instant,
}

/// What a listing gives.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) items: Vec<Item>,
    /// How many names no text can hold.
    pub(super) unreadable: usize,
}

/// Who is asked. What is not there is told as `NotFound`.
pub(super) trait Backend: fmt::Debug + Send + Sync + 'static {
    type Asks: Asks;

    fn env(&self) -> &Env;

    /// How long one operation may take.
    fn limit(&self) -> Duration;

    /// The file; none when there is none.
    fn stat<'a>(&'a self, call: &'a Call<'a, Self::Asks>) -> StoreFuture<'a, Option<ObjectInfo>>;

    /// All of the file, and what it is.
    fn read<'a>(&'a self, call: &'a Call<'a, Self::Asks>) -> StoreFuture<'a, (Bytes, ObjectInfo)>;

    /// Makes `data` the content. Gives its tag, when that is told.
    fn write<'a>(
        &'a self,
        call: &'a Call<'a, Self::Asks>,
        data: &'a [Bytes],
        exclusive: bool,
    ) -> StoreFuture<'a, Option<ContentId>>;

    fn delete<'a>(&'a self, call: &'a Call<'a, Self::Asks>) -> StoreFuture<'a, ()>;

    /// The names in the folder; no more than `enough` are needed.
    fn list<'a>(&'a self, call: &'a Call<'a, Self::Asks>, enough: usize) -> StoreFuture<'a, Listed>;

    fn probe(&self) -> StoreFuture<'_, ()>;

    fn trouble(&self) -> Option<String> {
        None
    }
}

/// The paths.
#[derive(Debug)]
pub(super) struct Tree<B: Backend> {
    backend: B,
    routes: Routes<B::Asks>,
    listings: Mutex<Listings>,
}

/// Listings of which pages were taken.
#[derive(Debug, Default)]
struct Listings {
    /// How many changes went through here.
    changes: u64,
    // Invariant: none was begun before the last change had ended.
    kept: Vec<Listing>,
}

/// A change that goes through here: when it ends, however it does, no listing is remembered.
struct Changing<'a>(&'a Mutex<Listings>);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut listings = self.0.lock();
        listings.changes += 1;
        listings.kept.clear();
    }
}

/// One name of a listing.
#[derive(Debug, Clone)]
enum Entry {
    Directory,
    File(ObjectInfo),
    /// A file of which the listing does not tell enough.
    Vague,
}

/// A whole listing, in order.
#[derive(Debug, Clone)]
struct Listing {
    path: Box<str>,
    at: Instant,
    /// How many changes had gone through when it was begun.
    changes: u64,
    entries: Arc<BTreeMap<String, Entry>>,
    unnameable: usize,
}

impl<B: Backend> Tree<B> {
    pub(super) fn new(backend: B, routes: Routes<B::Asks>) -> Self {
        Self { backend, routes, listings: Mutex::default() }
    }

    fn deadline(&self) -> Instant {
        self.backend.env().now() + self.backend.limit()
    }

    /// What can be asked at the path of these names.
    fn call<'a>(&'a self, path: &'a str, names: &[&str], deadline: Instant) -> Option<Call<'a, B::Asks>> {
        let (route, vars) = self.routes.find(names)?;
        Some(Call { path, asks: &route.asks, vars, can: self.can_of(route, names), deadline })
    }

    /// What can be asked there, if anything can.
    fn can(&self, names: &[&str]) -> Option<Can> {
        self.routes.find(names).map(|(route, _)| self.can_of(route, names))
    }

    /// What the route can be asked there. What others name something below, and the top of what lies at a route, is a directory, whatever it can do with files.
    fn can_of(&self, route: &Route<B::Asks>, names: &[&str]) -> Can {
        let can = route.asks.can();
        if !route.pattern.is_top(names) && !self.routes.leads_on(names) {
            return can;
        }
        Can { list: can.list, looks_at_each: can.looks_at_each, ..Can::default() }
    }

    /// What is there.
    async fn found(&self, names: &[&str], deadline: Instant) -> Result<Option<ObjectInfo>, StoreError> {
        let leads_on = self.routes.leads_on(names);
        let path = names.join("/");
        let Some(call) = self.call(&path, names, deadline) else { return Ok(leads_on.then(directory)) };
        if names.is_empty() {
            return Ok(Some(directory()));
        }
        let can = call.can;
        if can.read {
            let file = match can.told_by_listing {
                true => self.in_listing(names, &call).await?,
                false => self.backend.stat(&call).await?,
            };
            if file.is_some() {
                return Ok(file);
            }
        }
        if leads_on || (!can.read && call.vars.values().all(Vec::is_empty)) {
            return Ok(Some(directory()));
        }
        // What the folder above was asked for has told already that there is nothing.
        if !can.list || can.told_by_listing {
            return Ok(None);
        }
        match self.backend.list(&call, 1).await {
            // Where it could be a file, an empty folder is nothing.
            Ok(listed) => Ok((!can.read || !listed.items.is_empty()).then(directory)),
            Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the listing of the folder above says.
    async fn in_listing(
        &self,
        names: &[&str],
        call: &Call<'_, B::Asks>,
    ) -> Result<Option<ObjectInfo>, StoreError> {
        let Some((name, above)) = names.split_last() else { return Ok(Some(directory())) };
        let path = above.join("/");
        let lists = self.call(&path, above, call.deadline).filter(|above| above.can.list);
        let Some(lists) = lists else { return self.backend.stat(call).await };
        let listed = match self.backend.list(&lists, usize::MAX).await {
            Ok(listed) => listed,
            Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(item) = listed.items.iter().find(|item| item.name == *name) else { return Ok(None) };
        // Who asks for this one file wants to know: a size that is made up would not be that of its content.
        match self.entry(names, item, true) {
            Entry::Directory => Ok(Some(directory())),
            Entry::File(info) => Ok(Some(info)),
            Entry::Vague => self.backend.stat(call).await,
        }
    }

    /// What `item` is, which is listed at the path of these names. `vague` says that what is not told of it is to be looked at.
    fn entry(&self, names: &[&str], item: &Item, vague: bool) -> Entry {
        let Some(can) = self.can(names).filter(|can| can.read && !item.is_directory) else {
            return Entry::Directory;
        };
        let (modified, by_time) = (item.modified.unwrap_or(Timestamp(0)), can.told_apart_by_time);
        let tag = match (&item.tag, item.size, item.modified) {
            (Some(tag), _, _) => Some(tag_of(tag)),
            (None, Some(size), Some(modified)) if by_time => Some(tag_by_time(size, modified)),
            _ => None,
        };
        let (size, tag) = match (item.size, tag) {
            (Some(size), Some(tag)) => (size, tag),
            _ if vague => return Entry::Vague,
            (size, tag) => (size.unwrap_or(0), tag.unwrap_or_else(|| ContentId::Tag("listed".into()))),
        };
        let mut info = ObjectInfo::new(EntryType::Reg, size, tag, modified);
        // Two contents of one size may be of one time, as exactly as that is told.
        info.told_apart = item.tag.is_some();
        Entry::File(info)
    }

    /// Refuses when something on the way to the path of these names is a file.
    async fn no_file_above(&self, names: &[&str], deadline: Instant) -> Result<(), StoreError> {
        let reads = |above: &&[&str]| self.can(above).is_some_and(|can| can.read);
        let above = (1..names.len()).map(|many| &names[..many]).filter(reads);
        let found = join_all(above.map(async |above| Ok((above, self.found(above, deadline).await?))));
        for one in found.await {
            if let (above, Some(ObjectInfo { entry_type: EntryType::Reg, .. })) = one? {
                return Err(StoreError::NotADirectory { what: above.join("/") });
            }
        }
        Ok(())
    }

    /// That nothing is there: as `NotFound`, or because of what is on the way.
    async fn nothing<T>(&self, names: &[&str], deadline: Instant) -> Result<T, StoreError> {
        self.no_file_above(names, deadline).await?;
        Err(StoreError::NotFound { what: names.join("/") })
    }

    async fn look(&self, names: &[&str], deadline: Instant) -> Result<ObjectInfo, StoreError> {
        match self.found(names, deadline).await? {
            Some(found) => Ok(found),
            None => self.nothing(names, deadline).await,
        }
    }

    async fn stat_at(&self, path: &str) -> Result<ObjectInfo, StoreError> {
        self.look(&components(path)?, self.deadline()).await
    }

    async fn read_at(&self, path: &str, range: ByteRange) -> Result<(Bytes, ObjectInfo), StoreError> {
        let (names, deadline) = (components(path)?, self.deadline());
        let is_a_directory = || StoreError::IsADirectory { what: path.into() };
        let call = self.call(path, &names, deadline).filter(|call| !names.is_empty() && call.can.read);
        let Some(call) = call else {
            return match self.look(&names, deadline).await?.entry_type {
                EntryType::Reg => Err(StoreError::NotSupported { what: "reading there" }),
                _ => Err(is_a_directory()),
            };
        };
        let (bytes, info) = match call.can.told_by_listing {
            true => self.read_what_is_listed(&names, &call).await?,
            false => match self.backend.read(&call).await {
                Ok(read) => read,
                Err(StoreError::NotFound { .. }) => {
                    return match self.found(&names, deadline).await? {
                        Some(ObjectInfo { entry_type: EntryType::Dir, .. }) => Err(is_a_directory()),
                        _ => self.nothing(&names, deadline).await,
                    };
                }
                Err(error) => return Err(error),
            },
        };
        let (from, to) = range.within(bytes.len() as u64);
        // Both are at most its length.
        #[expect(clippy::cast_possible_truncation)]
        Ok((bytes.slice(from as usize..to as usize), info))
    }

    /// The content, and what the listing says of it. It is looked at before, so that its tag is never of a later state than the content.
    async fn read_what_is_listed(
        &self,
        names: &[&str],
        call: &Call<'_, B::Asks>,
    ) -> Result<(Bytes, ObjectInfo), StoreError> {
        for _ in 0..READS_MAX {
            let info = self.look(names, call.deadline).await?;
            if info.entry_type != EntryType::Reg {
                return Err(StoreError::IsADirectory { what: call.path.into() });
            }
            let (bytes, _) = self.backend.read(call).await?;
            if bytes.len() as u64 == info.size {
                return Ok((bytes, info));
            }
        }
        // It is changed faster than it is read; the backend is well.
        Err(StoreError::Locked { what: call.path.into() })
    }

    /// Refuses to make a file where one cannot be, or where a folder is.
    async fn place_for(&self, names: &[&str], call: &Call<'_, B::Asks>) -> Result<(), StoreError> {
        let is_a_directory = || StoreError::IsADirectory { what: call.path.into() };
        if self.routes.leads_on(names) {
            return Err(is_a_directory());
        }
        self.no_file_above(names, call.deadline).await?;
        let can = call.can;
        if can.list
            && self.found(names, call.deadline).await?.is_some_and(|there| there.entry_type != EntryType::Reg)
        {
            return Err(is_a_directory());
        }
        Ok(())
    }

    async fn write_at(&self, path: &str, data: &[Bytes], how: PathWrite) -> Result<ObjectInfo, StoreError> {
        split_last(path)?;
        let (names, deadline) = (components(path)?, self.deadline());
        let exclusive = match how {
            PathWrite::Whole => false,
            PathWrite::Exclusive => true,
            _ => return Err(StoreError::NotSupported { what: "writing in the middle of a file" }),
        };
        self.writable()?;
        let Some(call) = self.call(path, &names, deadline).filter(|call| call.can.write) else {
            return match self.look(&names, deadline).await {
                Ok(ObjectInfo { entry_type: EntryType::Dir, .. }) => {
                    Err(StoreError::IsADirectory { what: path.into() })
                }
                Err(error @ StoreError::NotADirectory { .. }) => Err(error),
                _ => {
                    Err(StoreError::NotSupported { what: "writing there: no route of the description does" })
                }
            };
        };
        self.place_for(&names, &call).await.map_err(|error| match error {
            StoreError::IsADirectory { what } if exclusive => StoreError::Exists { what },
            error => error,
        })?;
        let can = call.can;
        if exclusive && !can.exclusive && can.read && self.found(&names, deadline).await?.is_some() {
            return Err(StoreError::Exists { what: path.into() });
        }
        let changing = Changing(&self.listings);
        let tag = self.backend.write(&call, data, exclusive).await?;
        drop(changing);
        let size = data.iter().map(|buffer| buffer.len() as u64).sum();
        // It is written, whatever becomes of this.
        let seen = if can.read { self.found(&names, deadline).await.ok().flatten() } else { None };
        let mut info = seen.filter(|seen| seen.entry_type == EntryType::Reg).unwrap_or_else(|| {
            let now = Timestamp(self.backend.env().wall());
            ObjectInfo::new(EntryType::Reg, size, tag_by_time(size, now), now)
        });
        if let Some(tag) = tag {
            (info.size, info.tag) = (size, tag);
        }
        Ok(info)
    }

    async fn delete_at(&self, path: &str) -> Result<(), StoreError> {
        split_last(path)?;
        let (names, deadline) = (components(path)?, self.deadline());
        self.writable()?;
        let there = self.look(&names, deadline).await?;
        let call = self.call(path, &names, deadline);
        if there.entry_type == EntryType::Dir {
            let lists = call.filter(|call| call.can.list);
            let is_empty = match &lists {
                Some(lists) => self.backend.list(lists, 1).await?.items.is_empty(),
                None => false,
            };
            return match is_empty && !self.routes.leads_on(&names) {
                true => Err(StoreError::NotSupported { what: "removing a folder" }),
                false => Err(StoreError::NotEmpty { what: path.into() }),
            };
        }
        let Some(call) = call.filter(|call| call.can.delete) else {
            return Err(StoreError::NotSupported {
                what: "deleting there: no route of the description does",
            });
        };
        let _changing = Changing(&self.listings);
        self.backend.delete(&call).await
    }

    async fn list_at(&self, path: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let (names, deadline) = (components(path)?, self.deadline());
        if limit == 0 {
            return Ok(ListPage::new(Vec::new(), true, 0));
        }
        let known = after.and_then(|_| self.remembered(path));
        let listing = match known {
            Some(listing) => listing,
            None => self.listing(path, &names, deadline).await?,
        };
        let greater = |name: &str| after.is_none_or(|after| name > after);
        let mut rest = listing.entries.iter().filter(|(name, _)| greater(name));
        let mut entries = Vec::new();
        // What is gone when it is looked at is no entry, and a page of nothing but such is none.
        while entries.is_empty() {
            let page = rest.by_ref().take(limit).map(|(name, entry)| (name.clone(), entry.clone()));
            let page: Vec<_> = page.collect();
            if page.is_empty() {
                break;
            }
            let looks = page.into_iter().map(|(name, entry)| self.described(&names, name, entry, deadline));
            let mut looked = stream::iter(looks).buffered(LOOKS_AT_ONCE);
            while let Some(one) = looked.next().await {
                entries.extend(one?);
            }
        }
        let more = !entries.is_empty() && rest.next().is_some();
        let unnameable = listing.unnameable;
        if more {
            self.remember(listing);
        }
        Ok(ListPage::new(entries, more, unnameable))
    }

    /// The entry, looked at when the listing does not tell enough; none when it is gone.
    async fn described(
        &self,
        above: &[&str],
        name: String,
        entry: Entry,
        deadline: Instant,
    ) -> Result<Option<(String, ObjectInfo)>, StoreError> {
        let info = match entry {
            Entry::Directory => Some(directory()),
            Entry::File(info) => Some(info),
            Entry::Vague => {
                let names = [above, &[name.as_str()]].concat();
                let path = names.join("/");
                match self.call(&path, &names, deadline).filter(|call| call.can.told_by_listing) {
                    // This listing is what would be asked for.
                    Some(call) => self.backend.stat(&call).await?,
                    None => self.found(&names, deadline).await?,
                }
            }
        };
        Ok(info.map(|info| (name, info)))
    }

    /// All that is in the folder.
    async fn listing(&self, path: &str, names: &[&str], deadline: Instant) -> Result<Listing, StoreError> {
        let (at, changes) = (self.backend.env().now(), self.listings.lock().changes);
        let leads_on = self.routes.leads_on(names);
        let call = self.call(path, names, deadline);
        let can = call.as_ref().map(|call| call.can).unwrap_or_default();
        let (mut entries, mut unnameable) = (BTreeMap::new(), 0);
        if let Some(call) = call.filter(|_| can.list) {
            let listed = match self.backend.list(&call, usize::MAX).await {
                Ok(listed) => listed,
                // It may be a folder all the same, or a file.
                Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. })
                    if leads_on || can.read =>
                {
                    Listed::default()
                }
                Err(StoreError::NotFound { .. }) => return self.nothing(names, deadline).await,
                Err(error) => return Err(error),
            };
            unnameable = listed.unreadable;
            for item in listed.items {
                let child = [names, &[item.name.as_str()]].concat();
                let is_name = matches!(components(&item.name).as_deref(), Ok([_]));
                if !is_name || !(self.routes.leads_on(&child) || self.routes.find(&child).is_some()) {
                    unnameable += 1;
                    continue;
                }
                let entry = self.entry(&child, &item, can.looks_at_each);
                let there = entries.entry(item.name).or_insert(entry.clone());
                if matches!(there, Entry::Directory) {
                    *there = entry;
                }
            }
        }
        for name in self.routes.children(names) {
            let child = [names, &[name]].concat();
            let child_can = self.can(&child).unwrap_or_default();
            let is_file = child_can.read && !self.routes.leads_on(&child);
            if is_file && child_can.told_by_listing && can.list {
                // It was listed, or is not there.
                continue;
            }
            let entry = if is_file { Entry::Vague } else { Entry::Directory };
            entries.entry(name.to_owned()).or_insert(entry);
        }
        // Where it could be a file, an empty folder is nothing.
        let is_sure = leads_on || (can.list && !can.read);
        if entries.is_empty() && !is_sure && self.look(names, deadline).await?.entry_type == EntryType::Reg {
            return Err(StoreError::NotADirectory { what: path.into() });
        }
        Ok(Listing { path: path.into(), at, changes, entries: Arc::new(entries), unnameable })
    }

    fn remembered(&self, path: &str) -> Option<Listing> {
        let now = self.backend.env().now();
        let listings = self.listings.lock();
        let found = listings.kept.iter().find(|listing| *listing.path == *path)?;
        (now.saturating_duration_since(found.at) <= LISTING_AGE_MAX).then(|| found.clone())
    }

    fn remember(&self, listing: Listing) {
        let mut listings = self.listings.lock();
        listings.kept.retain(|other| other.path != listing.path);
        if listings.changes != listing.changes {
            return;
        }
        if listings.kept.len() >= LISTINGS_MAX {
            listings.kept.remove(0);
        }
        listings.kept.push(listing);
    }

    fn writable(&self) -> Result<(), StoreError> {
        match self.read_only() {
            true => {
                Err(StoreError::ReadOnly { cause: "no route of the description changes anything".into() })
            }
            false => Ok(()),
        }
    }
}

/// The tag of a content that is told by its server: an ETag, or a name of its own.
pub(super) fn tag_of(told: &str) -> ContentId {
    ContentId::Tag(told.trim().trim_start_matches("W/").trim_matches('"').into())
}

pub(super) fn tag_by_time(size: u64, modified: Timestamp) -> ContentId {
    ContentId::Tag(format!("{size}-{}", modified.nanos()).into())
}

/// A tag that is of this content and no other.
pub(super) fn tag_of_content(content: &[u8]) -> ContentId {
    ContentId::Tag(blake3::hash(content).to_hex().as_str().into())
}

fn directory() -> ObjectInfo {
    ObjectInfo::new(EntryType::Dir, 0, ContentId::Tag("directory".into()), Timestamp(0))
}

/// `data` as one, of at most `max` bytes.
pub(super) fn joined(data: &[Bytes], max: u64, path: &str) -> Result<Bytes, StoreError> {
    let size: u64 = data.iter().map(|buffer| buffer.len() as u64).sum();
    if size > max {
        let cause = format!("it has {size} bytes, and the description lets {max} be written");
        return Err(of_the_call(std::io::ErrorKind::FileTooLarge, format!("writing {path:?}"), cause));
    }
    match data {
        [one] => Ok(one.clone()),
        many => Ok(many.concat().into()),
    }
}

impl<B: Backend> ObjectStore for Tree<B> {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn read_only(&self) -> bool {
        !self.routes.any(|asks| asks.can().write || asks.can().delete)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.backend.probe()
    }

    fn trouble(&self) -> Option<String> {
        self.backend.trouble()
    }
}

fn unsupported<'a, T: Send + 'a>(path: &str, what: &'static str) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(components(path).and(Err(StoreError::NotSupported { what }))))
}

impl<B: Backend> PathStore for Tree<B> {
    fn capabilities(&self) -> PathCapabilities {
        let mut can = PathCapabilities::default();
        can.exclusive = self.routes.any(|asks| asks.can().write)
            && !self.routes.any(|asks| asks.can().write && !asks.can().exclusive);
        can
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.stat_at(path))
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(self.read_at(path, range))
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        _: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(self.write_at(path, data, how))
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.delete_at(path))
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(self.list_at(path, after, limit))
    }

    fn make_directory<'a>(&'a self, path: &'a str, _: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        unsupported(path, "folders of their own")
    }

    fn rename<'a>(&'a self, from: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        unsupported(from, "renaming")
    }

    fn make_link<'a>(&'a self, path: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        unsupported(path, "symbolic links")
    }

    fn set_attributes<'a>(&'a self, path: &'a str, _: &'a Attributes) -> StoreFuture<'a, ObjectInfo> {
        unsupported(path, "attributes")
    }
}
