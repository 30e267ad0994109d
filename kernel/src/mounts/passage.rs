//! The gate through which all passes that changes what a mount's driver stores, and the note that is taken of it while the mount is migrated.
//!
//! Every change goes through it from its beginning to its end. So who closes it knows that nothing changes, and that of all that changed before
//! a note was taken. Looks pass without it.
//!
//! Where names are rows, a change of a name need not come to the driver. While such a mount is migrated to where they are not, it is noted by who holds the lock of
//! its path, before the lock is given back: so who has the lock of all of the mount knows of all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nexus_actors::Env;
use nexus_messages::{ContentId, VPath};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::guarded::Guarded;
use super::mount::Mount;
use crate::hal::StoreError;

/// How many changes of one mount may be inside its driver at once.
const PASSES: u32 = 1 << 20;

/// How long a change waits before a closed gate. Longer than it is closed, unless the driver's actor dies again and again just then.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// When a change is tried again that waited too long, says the error.
const RETRY_IN: Duration = Duration::from_secs(1);

/// How many paths and contents are noted by themselves. Were there more, all is looked at again.
const NOTED_MAX: usize = 65_536;

/// The doors of one store: which door has taken their place, once the mount's files are in another store.
pub(super) type Era = Arc<OnceLock<Arc<Guarded>>>;

/// What was changed since it was last taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    /// Paths, and whether all below them may have changed, too.
    pub(super) paths: BTreeMap<String, bool>,
    pub(super) contents: BTreeSet<ContentId>,
    /// More than can be told one by one.
    pub(super) all: bool,
}

impl Notes {
    pub(super) fn len(&self) -> usize {
        self.paths.len() + self.contents.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && !self.all
    }

    fn path(&mut self, path: &str, deep: bool) {
        if let Some(noted) = self.paths.get_mut(path) {
            *noted |= deep;
        } else if self.len() < NOTED_MAX {
            self.paths.insert(path.to_owned(), deep);
        } else {
            self.all = true;
        }
    }

    fn content(&mut self, id: &ContentId) {
        if self.contents.contains(id) {
            return;
        }
        if self.len() < NOTED_MAX {
            self.contents.insert(id.clone());
        } else {
            self.all = true;
        }
    }

    fn merge(&mut self, other: Self) {
        self.all |= other.all;
        other.paths.iter().for_each(|(path, deep)| self.path(path, *deep));
        other.contents.iter().for_each(|id| self.content(id));
    }
}

/// What a change touches.
#[derive(Debug, Clone, Copy)]
pub(super) enum Touched<'a> {
    /// Nothing that has to be copied.
    Nothing,
    Content(&'a ContentId),
    /// What is at the path itself.
    Path(&'a str),
    /// What is at each of these paths itself.
    Paths(&'a [String]),
    /// Both paths, and all below them.
    Moved(&'a str, &'a str),
}

/// The gate of one mount, and its notes. Shared by all doors to its drivers.
#[derive(Debug)]
pub(super) struct Passage {
    gate: Arc<Semaphore>,
    is_noting: AtomicBool,
    /// Whether names are noted that rows tell of, and not what comes to the driver.
    is_noting_names: AtomicBool,
    notes: Mutex<Notes>,
    /// How many uploads are under way, at whichever of the doors.
    uploads: AtomicUsize,
    /// How many streams of content come for files of the mount, whether their content is with a driver yet or not.
    streams: AtomicUsize,
    /// What the next door of another era ends.
    handover: Mutex<Option<Handover>>,
}

/// The gate is closed, and the doors of an era wait for the one that takes their place.
#[derive(Debug)]
struct Handover {
    era: Era,
    _closed: Closed,
}

/// The gate, closed. It opens when this is dropped.
#[derive(Debug)]
pub(super) struct Closed(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

/// A change on its way. What it touches is noted when it has ended, however it did.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    passage: &'a Passage,
    touched: Touched<'a>,
    // Given back after the note is taken: fields go when `drop` has run.
    _permit: SemaphorePermit<'a>,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.passage.note(self.touched);
    }
}

/// Names that may be changed by who made this, with their paths locked, on mounts where names are rows. They are noted when it is dropped, which is to be before the
/// locks are.
pub(crate) struct Naming<'a>(SmallVec<[(&'a Mount, &'a VPath, bool); 2]>);

impl<'a> Naming<'a> {
    /// Paths on mounts, and whether all below them may be changed, too.
    pub(crate) fn of(names: impl Iterator<Item = (&'a Mount, &'a VPath, bool)>) -> Self {
        Self(names.filter(|(mount, ..)| !mount.is_path_addressed()).collect())
    }
}

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        for (mount, path, deep) in &self.0 {
            mount.passage().note_name(path.relative_to(&mount.point).unwrap_or_default(), *deep);
        }
    }
}

/// Content, while it is on its way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    passage: Arc<Passage>,
    /// Whether it is with the driver.
    uploaded: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.passage.coming(self.uploaded).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passage {
    pub(super) fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(PASSES as usize)),
            is_noting: AtomicBool::new(false),
            is_noting_names: AtomicBool::new(false),
            notes: Mutex::default(),
            uploads: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            handover: Mutex::default(),
        }
    }

    /// Lets a change pass; it waits while the gate is closed.
    pub(super) async fn pass<'a>(
        &'a self,
        env: &Env,
        point: &VPath,
        touched: Touched<'a>,
    ) -> Result<Pass<'a>, StoreError> {
        let permit = match self.gate.try_acquire() {
            Ok(permit) => Ok(permit),
            Err(_) => env
                .timeout(WAIT_MAX, self.gate.acquire())
                .await
                .map_err(drop)
                .and_then(|got| got.map_err(drop)),
        };
        let permit = permit.map_err(|()| StoreError::Unavailable {
            mount: point.to_string(),
            cause: "its files are handed over to another driver".into(),
            retry_in: RETRY_IN,
        })?;
        Ok(Pass { passage: self, touched, _permit: permit })
    }

    fn coming(&self, uploaded: bool) -> &AtomicUsize {
        if uploaded { &self.uploads } else { &self.streams }
    }

    fn under_way(self: &Arc<Self>, uploaded: bool) -> UnderWay {
        self.coming(uploaded).fetch_add(1, Ordering::Relaxed);
        UnderWay { passage: self.clone(), uploaded }
    }

    /// An upload is under way for as long as what this gives is there. It passes the gate when it finishes, and not before.
    pub(super) fn upload(self: &Arc<Self>) -> UnderWay {
        self.under_way(true)
    }

    /// Content comes as a stream for as long as what this gives is there: until it is committed, or given up.
    pub(super) fn stream(self: &Arc<Self>) -> UnderWay {
        self.under_way(false)
    }

    /// How many uploads are under way. It may be another number by now.
    pub(super) fn uploads(&self) -> usize {
        self.uploads.load(Ordering::Relaxed)
    }

    /// How many streams of content come. It may be another number by now.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn note(&self, touched: Touched<'_>) {
        // A change that ends before this is raised is seen by whoever looks afterwards.
        if !self.is_noting.load(Ordering::Acquire) {
            return;
        }
        let mut notes = self.notes.lock();
        match touched {
            Touched::Nothing => {}
            Touched::Content(id) => notes.content(id),
            Touched::Path(path) => notes.path(path, false),
            Touched::Paths(paths) => paths.iter().for_each(|path| notes.path(path, false)),
            Touched::Moved(from, to) => {
                notes.path(from, true);
                notes.path(to, true);
            }
        }
    }

    fn note_name(&self, path: &str, deep: bool) {
        // As above.
        if self.is_noting_names.load(Ordering::Acquire) {
            self.notes.lock().path(path, deep);
        }
    }

    /// Notes what is changed from now on, until [`end_notes`](Self::end_notes): of what comes to the driver, or of `names` that are rows.
    pub(super) fn begin_notes(&self, names: bool) {
        *self.notes.lock() = Notes::default();
        let noting = if names { &self.is_noting_names } else { &self.is_noting };
        noting.store(true, Ordering::Release);
    }

    pub(super) fn end_notes(&self) {
        self.is_noting.store(false, Ordering::Release);
        self.is_noting_names.store(false, Ordering::Release);
        *self.notes.lock() = Notes::default();
    }

    /// How much is noted.
    pub(super) fn noted(&self) -> usize {
        self.notes.lock().len()
    }

    /// Whether nothing is noted.
    pub(super) fn is_clear(&self) -> bool {
        self.notes.lock().is_empty()
    }

    /// What was noted; it is so no more.
    pub(super) fn take_notes(&self) -> Notes {
        std::mem::take(&mut *self.notes.lock())
    }

    /// Notes again what was taken and not seen to.
    pub(super) fn give_back(&self, notes: Notes) {
        self.notes.lock().merge(notes);
    }

    /// Closes the gate once the changes that are inside have ended; none when they do not in time. Changes wait from the moment that this is asked for.
    pub(super) async fn close(&self, env: &Env, within: Duration) -> Option<Closed> {
        let closing = self.gate.clone().acquire_many_owned(PASSES);
        env.timeout(within, closing).await.ok()?.ok().map(Closed)
    }

    /// Keeps the gate closed until there is a door of another era than `era`, which then takes the place of those.
    pub(super) fn hand_over(&self, era: Era, closed: Closed) {
        *self.handover.lock() = Some(Handover { era, _closed: closed });
    }

    /// There is a new door, in its place: it ends the handover that waits for one like it.
    pub(super) fn opened(&self, era: &Era, door: &Arc<Guarded>) {
        let mut waiting = self.handover.lock();
        let ended = waiting.take_if(|handover| !Arc::ptr_eq(&handover.era, era));
        drop(waiting);
        if let Some(ended) = ended {
            // An era ends once.
            let _ = ended.era.set(door.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_and_tell_when_they_are_not_all() {
        let mut notes = Notes::default();
        for n in 0..NOTED_MAX {
            notes.path(&n.to_string(), false);
        }
        assert!(!notes.all);
        notes.path("0", true);
        assert!(!notes.all && notes.paths["0"], "it is noted already");
        notes.path("one more", false);
        assert!(notes.all && notes.len() == NOTED_MAX);
        let mut others = Notes::default();
        others.merge(notes);
        assert!(others.all);
    }

    #[test]
    fn a_change_is_noted_when_it_ends_and_none_passes_a_closed_gate() {
        let (env, simulation) = Env::seeded(1);
        simulation.block_on(async {
            let (passage, point) = (Passage::new(), VPath::root());
            let touched = passage.pass(&env, &point, Touched::Path("a")).await.unwrap();
            passage.begin_notes(false);
            assert!(passage.close(&env, Duration::from_secs(1)).await.is_none(), "a change is inside");
            assert!(passage.take_notes().is_empty());
            drop(touched);
            let closed = passage.close(&env, Duration::from_secs(1)).await.unwrap();
            assert_eq!(passage.take_notes().paths, BTreeMap::from([("a".to_owned(), false)]));
            let waits = passage.pass(&env, &point, Touched::Nothing).await.unwrap_err();
            assert!(matches!(waits, StoreError::Unavailable { .. }), "{waits}");
            drop(closed);
            passage.pass(&env, &point, Touched::Nothing).await.unwrap();
        });
    }
}
