//! `sync`: one tree becomes the same as another one, in one direction.
//!
//! Both are walked together in the order of names, depth first, and only what differs is copied. So what was interrupted is completed by the same command. Of each
//! folder on the way down a page of names is in memory.

mod names;
mod overlap;
mod place;

use std::cmp::{Ordering as Order, Reverse};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use blake3::Hash;
use nexus::{ContentId, Error, ErrorKind, Op, Timestamp};
use parking_lot::Mutex;
use serde_json::json;

use super::{FOUND_MAX, Transfer, broken, lanes};
use crate::args::SyncArgs;
use crate::failure::{Failure, Outcome};
use crate::output::one_line;
use crate::session::Session;
use names::{Found, Names};
pub(super) use overlap::not_into_stores;
use place::{Item, Kind, Place, comparable};

/// Makes a call that changes what is at a place, once more when the folder that it is in had to be opened for it.
macro_rules! opening {
    ($work:expr, $at:expr, $call:expr) => {
        match $call.await {
            Err(failure) if failure.is_denied() && $work.opens($at).await? => $call.await,
            done => done,
        }
    };
}

/// How many failures are listed; all are counted, and told when they happen.
const LISTED_MAX: usize = 1_000;

pub(crate) async fn sync(session: &Arc<Session>, args: SyncArgs) -> Outcome {
    let Some(destination) = &args.destination else {
        let synced = session.nx.sync(args.path.as_str()).await?;
        return session.out.quiet(&synced);
    };
    let (from, to) = (Place::parse(&args.path)?, Place::parse(destination)?);
    if let (Place::Host(_), Place::Host(_)) = (&from, &to) {
        return Err(Failure::Usage("sync: one of the two is a path of the namespace".into()));
    }
    let transfer = Arc::new(Transfer::begin("sync", session.env(), &session.out));
    let work = Arc::new(Work {
        session: session.clone(),
        transfer: transfer.clone(),
        delete: args.delete,
        dry_run: args.dry_run,
        kept: overlap::Kept::of(session, &to).await,
        described: AtomicU64::new(0),
        keepless: OnceLock::new(),
        deleted: AtomicU64::new(0),
        compared: AtomicU64::new(0),
        compared_bytes: AtomicU64::new(0),
        top: OnceLock::new(),
        opening: tokio::sync::Mutex::default(),
        closed: Mutex::default(),
        failures: Mutex::default(),
    });
    let done = Box::pin(work.clone().run(from, to)).await;
    let counts = transfer.end(&session.out);
    done?;
    if transfer.is_hopeless() {
        session.out.warn("sync: given up; what is left was not tried");
    }
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (described, deleted, compared) = (get(&work.described), get(&work.deleted), get(&work.compared));
    let told = json!({
        "copied": counts.files,
        "bytes": counts.bytes,
        "seconds": counts.seconds,
        "directories": counts.directories,
        "links": counts.links,
        "unchanged": counts.unchanged,
        "described": described,
        "deleted": deleted,
        "compared": compared,
        "compared_bytes": get(&work.compared_bytes),
        "skipped": counts.skipped,
        "failed": counts.failed,
        "failures": *work.failures.lock(),
        "dry_run": args.dry_run,
    });
    let mut text = format!("{} copied, {} bytes, {:.3} seconds", counts.files, counts.bytes, counts.seconds);
    for (count, what) in [
        (counts.unchanged, "unchanged"),
        (counts.directories, "directories made"),
        (counts.links, "links made"),
        (described, "described anew"),
        (deleted, "deleted"),
        (compared, "read to be compared"),
        (counts.skipped, "skipped"),
        (counts.failed, "failed"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    if args.dry_run {
        text += " (nothing was done)";
    }
    session.out.either(&told, text)
}

/// A file, and what is in its place.
struct Job {
    from: Place,
    item: Item,
    to: Place,
    there: Option<Item>,
}

/// Two folders that are being compared: what comes next in each.
struct Level<'a> {
    from: Place,
    to: Place,
    wanted: Names<'a>,
    there: Names<'a>,
    next_wanted: Option<Found>,
    next_there: Option<Found>,
}

/// What a step through a level comes to.
enum Step {
    On,
    /// These two are to be compared, too, and whether the second is new.
    Into(Place, Place, bool),
    Over,
}

struct Work {
    session: Arc<Session>,
    transfer: Arc<Transfer>,
    delete: bool,
    dry_run: bool,
    /// What is not removed.
    kept: overlap::Kept,
    described: AtomicU64,
    /// Where modes and times are not kept; looked up once, by a dry run.
    keepless: OnceLock<overlap::Keepless>,
    deleted: AtomicU64,
    /// Files that had to be read to tell whether they are the same, and how much was read of both sides.
    compared: AtomicU64,
    compared_bytes: AtomicU64,
    /// What is to become the same, with all below it.
    top: OnceLock<Place>,
    /// Held by who opens a folder.
    opening: tokio::sync::Mutex<()>,
    /// Folders that are open, and are to be closed to their owner when all is in them.
    closed: Mutex<Vec<(Place, Item)>>,
    failures: Mutex<Vec<String>>,
}

impl Work {
    /// All of it. What fails is told and counted; only what concerns the whole is the result.
    async fn run(self: Arc<Self>, from: Place, to: Place) -> Outcome {
        let session = self.session.clone();
        let Some((from, item)) = from.resolved(&session).await? else { return Err(from.missing()) };
        let (to, there) = match to.resolved(&session).await? {
            Some((to, there)) => (to, Some(there)),
            None => (to, None),
        };
        if let (Place::Space(from), Place::Space(to)) = (&from, &to) {
            if from == to {
                return Ok(());
            }
            if to.is_within(from) || from.is_within(to) {
                let error = Error::new(Op::Copy, to, ErrorKind::InvalidArgument);
                return Err(error.because(format!("{from} and it lie in each other")).into());
            }
        }
        // Nobody has set it before.
        let _ = self.top.set(to.clone());
        overlap::refused(&session, &from, &to).await?;
        self.kept.refused(&from, &to, self.delete)?;
        if self.dry_run {
            // Nobody has set it before.
            let _ = self.keepless.set(overlap::Keepless::of(&session).await);
        }
        if there.is_none() {
            self.make_above(&to)?;
        }
        let (send, jobs) = flume::bounded(FOUND_MAX);
        let worker = self.clone();
        let lanes = lanes(session.env(), jobs, move |job| worker.clone().take(job));
        let finder = self.clone();
        let find = async move { finder.find(from, item, to, there, send).await };
        let (found, taken) = futures_util::future::join(find, lanes).await;
        self.close().await;
        found?;
        taken.map_err(broken("sync"))
    }

    /// Makes the folders of the host that the destination is to be in. In the namespace they come by themselves.
    fn make_above(&self, to: &Place) -> Outcome {
        let Place::Host(host) = to else { return Ok(()) };
        let above = host.ancestors().skip(1);
        let missing: Vec<_> =
            above.take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            self.tell("directory", &Place::Host(folder.to_owned()))?;
            if !self.dry_run {
                std::fs::create_dir(folder).map_err(place::told(folder))?;
            }
            Transfer::count(&self.transfer.directories);
        }
        Ok(())
    }

    /// Opens the folder in which `at` is, if it is a part of what is to become the same and its mode closes it to its owner; whether it is open now.
    async fn opens(&self, at: &Place) -> Outcome<bool> {
        let top = self.top.get();
        let Some(folder) = at.parent().filter(|folder| top.is_some_and(|top| folder.is_within(top))) else {
            return Ok(false);
        };
        let _one = self.opening.lock().await;
        if self.closed.lock().iter().any(|(open, _)| *open == folder) {
            return Ok(true);
        }
        let Some(item) = folder.open(&self.session).await? else { return Ok(false) };
        self.closed.lock().push((folder, item));
        Ok(true)
    }

    /// Gives folders their modes that could not be filled or emptied with them, those below others first.
    async fn close(&self) {
        let mut closed = std::mem::take(&mut *self.closed.lock());
        closed.sort_by_key(|(at, _)| Reverse(at.depth()));
        for (at, like) in &closed {
            if let Err(failure) = at.describe(&self.session, like, like).await {
                self.fail(&failure);
            }
        }
    }

    /// Walks both trees: makes folders and links, removes what is too much, and sends files to the lanes.
    async fn find(
        &self,
        from: Place,
        item: Item,
        to: Place,
        there: Option<Item>,
        send: flume::Sender<Job>,
    ) -> Outcome {
        let mut levels = Vec::new();
        match self.one(from, item, to, there, &send).await {
            Ok(folder) => levels.extend(folder.map(|folder| self.level(folder))),
            Err(failure) => self.fail(&failure),
        }
        while let Some(level) = levels.last_mut() {
            if self.transfer.is_hopeless() {
                break;
            }
            match self.step(level, &send).await {
                Ok(Step::On) => {}
                Ok(Step::Into(from, to, is_new)) => levels.push(self.level((from, to, is_new))),
                Ok(Step::Over) => drop(levels.pop()),
                // Where it cannot be listed nothing is known to be too much.
                Err(failure) => {
                    self.fail(&failure);
                    levels.pop();
                }
            }
        }
        Ok(())
    }

    fn level(&self, (from, to, is_new): (Place, Place, bool)) -> Level<'_> {
        let there = match is_new {
            true => Names::none(&self.session, to.clone()),
            false => Names::of(&self.session, to.clone()),
        };
        let wanted = Names::of(&self.session, from.clone());
        Level { from, to, wanted, there, next_wanted: None, next_there: None }
    }

    /// Sees to what comes next in two folders. What fails of one entry is told, and is not the result.
    async fn step(&self, level: &mut Level<'_>, send: &flume::Sender<Job>) -> Outcome<Step> {
        if level.next_wanted.is_none() {
            level.next_wanted = level.wanted.next().await?;
        }
        if level.next_there.is_none() {
            level.next_there = level.there.next().await?;
        }
        let order = match (&level.next_wanted, &level.next_there) {
            (None, None) => return Ok(Step::Over),
            (Some(_), None) => Order::Less,
            (None, Some(_)) => Order::Greater,
            // What has no name is told at once.
            (Some(wanted), Some(there)) => match (wanted.name(), there.name()) {
                (None, _) => Order::Less,
                (_, None) => Order::Greater,
                (Some(wanted), Some(there)) => wanted.cmp(there),
            },
        };
        let wanted = if order.is_le() { level.next_wanted.take() } else { None };
        let there = if order.is_ge() { level.next_there.take() } else { None };
        let done = match (wanted, there) {
            (Some(Found::Entry(name, item)), there) => {
                // Of what cannot be told there the copy tells what is wrong.
                let there = match there {
                    Some(Found::Entry(_, there)) => Some(there),
                    _ => None,
                };
                let both = level.from.join(&name).and_then(|from| Ok((from, level.to.join(&name)?)));
                match both {
                    Ok((from, to)) => self.one(from, item, to, there, send).await,
                    Err(failure) => Err(failure),
                }
            }
            (Some(Found::Untold(_, failure)), _) => Err(failure),
            // Of a name that cannot be told nobody knows that it is too much.
            (None, Some(Found::Entry(name, item))) if self.delete && !level.wanted.has_unnameable() => {
                match level.to.join(&name) {
                    Ok(at) => self.remove(&at, &item).await.map(|()| None),
                    Err(failure) => Err(failure),
                }
            }
            (None, _) => Ok(None),
        };
        Ok(match done {
            Ok(Some((from, to, is_new))) => Step::Into(from, to, is_new),
            Ok(None) => Step::On,
            Err(failure) => {
                self.fail(&failure);
                Step::On
            }
        })
    }

    async fn is_empty(&self, folder: &Place) -> Outcome<bool> {
        Ok(Names::of(&self.session, folder.clone()).next().await?.is_none())
    }

    /// Sees to one entry. Of a folder, gives the two that are to be compared, and whether the second is new.
    async fn one(
        &self,
        from: Place,
        item: Item,
        to: Place,
        there: Option<Item>,
        send: &flume::Sender<Job>,
    ) -> Outcome<Option<(Place, Place, bool)>> {
        if let Kind::Other(what) = &item.kind {
            self.transfer
                .skip(&self.session.out, format_args!("sync {from}: skipped: {what} has no content to copy"));
            return Ok(None);
        }
        let there = match there {
            Some(there) if !there.kind.is_like(&item.kind) => {
                self.make_way(&to, &there).await?;
                None
            }
            there => there,
        };
        match &item.kind {
            Kind::Folder { .. } => {
                let is_new = there.is_none();
                if is_new {
                    let made = match self.dry_run {
                        true => self.would_make(&to),
                        false => opening!(self, &to, to.make_folder(&self.session, &item)),
                    };
                    match made {
                        // Where folders are only implied, files bring theirs along.
                        Err(failure) if failure.is(ErrorKind::NotSupported) => {
                            if self.is_empty(&from).await? {
                                self.transfer.skip_empty(&self.session.out, &from, &to);
                            }
                        }
                        made => {
                            made?;
                            Transfer::count(&self.transfer.directories);
                            if to.closes(&item) && !self.dry_run {
                                self.closed.lock().push((to.clone(), item));
                            }
                        }
                    }
                } else if let Some(there) =
                    there.filter(|there| there.mode != item.mode && there.kind.is_plain())
                {
                    self.describe(&to, &item, &there).await?;
                }
                Ok(Some((from, to, is_new)))
            }
            Kind::Link(target) => {
                if there.is_some_and(|there| there.kind == item.kind) {
                    Transfer::count(&self.transfer.unchanged);
                    return Ok(None);
                }
                self.tell("link", &to)?;
                if !self.dry_run {
                    opening!(self, &to, to.make_link(&self.session, target))?;
                }
                Transfer::count(&self.transfer.links);
                Ok(None)
            }
            _ => {
                self.transfer.expect_file();
                // The lanes are gone only when one of them broke, which is told by itself.
                let _ = send.send_async(Job { from, item, to, there }).await;
                Ok(None)
            }
        }
    }

    /// Removes what is of another type than what is to be there.
    async fn make_way(&self, at: &Place, there: &Item) -> Outcome {
        if there.kind.is_folder() && !self.delete && !self.is_empty(at).await? {
            let why = format!("{at}: a folder with something in it is in the way, which --delete removes");
            return Err(Failure::claim("sync", why));
        }
        self.remove(at, there).await
    }

    async fn remove(&self, at: &Place, there: &Item) -> Outcome {
        self.kept.not_removed(at)?;
        self.tell("delete", at)?;
        if !self.dry_run {
            opening!(self, at, at.remove(&self.session, there))?;
        }
        Transfer::count(&self.deleted);
        Ok(())
    }

    async fn take(self: Arc<Self>, job: Job) {
        if self.transfer.is_hopeless() {
            return;
        }
        if let Err(failure) = Box::pin(self.file(&job)).await {
            self.fail(&failure);
        }
    }

    async fn file(&self, job: &Job) -> Outcome {
        let Job { from, item, to, there } = job;
        let _room = self.transfer.room(item.size.min(super::STREAM_BYTES)).await;
        if let Some(there) = there
            && self.is_same(from, item, to, there).await?
        {
            Transfer::count(&self.transfer.unchanged);
            self.transfer.bar.inc(1);
            let is_older =
                !comparable(item, there) && item.modified != there.modified && item.modified != Timestamp(0);
            if item.mode != there.mode || is_older {
                self.describe(to, item, there).await?;
            }
            return Ok(());
        }
        self.tell("copy", to)?;
        if self.dry_run {
            self.transfer.file(item.size);
            return Ok(());
        }
        let size = opening!(self, to, place::copy(&self.session, from, item, to))?;
        self.transfer.file(size);
        Ok(())
    }

    /// Whether both have the same content.
    async fn is_same(&self, from: &Place, item: &Item, to: &Place, there: &Item) -> Outcome<bool> {
        if item.size != there.size {
            return Ok(false);
        }
        if comparable(item, there) {
            return Ok(item.content == there.content);
        }
        if item.is_told_by_time(there) {
            return Ok(true);
        }
        // Only the contents tell. What is known by its hash is not read.
        let (one, other) = (self.hash(from, item).await?, self.hash(to, there).await?);
        Transfer::count(&self.compared);
        Ok(one == other)
    }

    async fn hash(&self, at: &Place, item: &Item) -> Outcome<Hash> {
        if let Some(known) = item.content.as_ref().and_then(ContentId::blake3) {
            return Ok(Hash::from_bytes(*known));
        }
        self.compared_bytes.fetch_add(item.size, Ordering::Relaxed);
        at.hash(&self.session).await
    }

    /// Tells that a folder would be made; fails as making it would where folders are only implied, which is where no attributes are kept.
    fn would_make(&self, at: &Place) -> Outcome {
        match at {
            Place::Space(path) if self.is_keepless(at) => {
                Err(Error::new(Op::Copy, path, ErrorKind::NotSupported).into())
            }
            _ => self.tell("directory", at),
        }
    }

    fn is_keepless(&self, at: &Place) -> bool {
        self.keepless.get().is_some_and(|keepless| keepless.holds(at))
    }

    /// Gives what is at `at` the mode and the time of change of `like`, as far as they are kept there.
    async fn describe(&self, at: &Place, like: &Item, there: &Item) -> Outcome {
        if self.dry_run {
            if !self.is_keepless(at) {
                self.tell("describe", at)?;
                Transfer::count(&self.described);
            }
            return Ok(());
        }
        if at.describe(&self.session, like, there).await? {
            Transfer::count(&self.described);
        }
        Ok(())
    }

    /// Tells what would be done.
    fn tell(&self, action: &str, at: &Place) -> Outcome {
        if !self.dry_run {
            return Ok(());
        }
        self.session.out.either(
            &json!({ "action": action, "path": at.to_string() }),
            format_args!("{action} {}", one_line(&at.to_string())),
        )
    }

    fn fail(&self, failure: &Failure) {
        self.transfer.fail(&self.session.out, failure);
        let mut failures = self.failures.lock();
        if failures.len() < LISTED_MAX {
            failures.push(failure.to_string());
        }
    }
}
