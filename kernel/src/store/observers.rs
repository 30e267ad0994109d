//! Who is told of a commit when it is on disk: in the order of the log, and not before.
//!
//! A change has its place here from before its locks go, and is told when the hooks behind it are done: so of two changes of one path the first is told first, whichever
//! call comes to its end first. Changes of other paths wait for neither, but for what was put off before them. What ends with the process waits for no disk, and so for what
//! does only if that is of its paths.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nexus_messages::{Event, Lsn, VPath};

use super::Store;
use crate::hal::TreeId;

/// How long the telling of a change waits for one before it of the same path, whose call has not come to its end: behind it may be a hook that waits, or a caller who does
/// not go on. What is told later than that is told out of its order.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(5);

/// Tells the observers of one commit.
pub(crate) type Tell = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// The place of a commit in the log of its tree; and, of several that stand at one place, which.
type Place = (TreeId, Lsn, u64);

/// What is to be told. As long as what is put off, and what calls are about to tell, at most.
#[derive(Default)]
pub(super) struct Untold {
    lines: BTreeMap<TreeId, Line>,
    numbers: u64,
    /// Whether somebody tells what was put off: one at a time, so that the order is kept.
    pub(super) telling: bool,
    /// When somebody looks again who waits for those who hold others up. None twice.
    patrols: BTreeSet<Instant>,
}

/// What is to be told of one log, in its order.
#[derive(Default)]
struct Line {
    waiting: BTreeMap<Place, Waiting>,
    /// Invariant: how many of those are put off.
    put_off: usize,
}

struct Waiting {
    paths: Vec<VPath>,
    since: Instant,
    /// It never is on disk, and so does not wait for that.
    ends_with_process: bool,
    /// What it is put off for; none while its call has not come to its end, and while it is being told.
    tell: Option<Tell>,
}

/// What is to be told next.
pub(super) enum Next {
    Tell(Place, Tell),
    /// Nothing before somebody who holds it up goes on, or this moment has come.
    Held(Instant),
    Nothing,
}

impl Waiting {
    /// Until when `later`, which comes after it, is not told before it; none when it does not hold that up any more.
    fn holds(&self, later: &Self, now: Instant) -> Option<Instant> {
        let meets = |path: &VPath| self.paths.iter().any(|own| path.is_within(own) || own.is_within(path));
        let until = self.since + HOLD_MAX;
        (now < until && later.paths.iter().any(meets)).then_some(until)
    }

    /// Whether what is put off is told before `later` of whatever paths, which has come to its end too.
    fn precedes(&self, later: &Self) -> bool {
        self.tell.is_some() && (self.ends_with_process || !later.ends_with_process)
    }
}

impl Line {
    /// Until when the last of those goes on that hold up what has this place.
    fn held_until(&self, place: Place, now: Instant) -> Option<Instant> {
        let own = self.waiting.get(&place)?;
        self.waiting.range(..place).filter_map(|(_, before)| before.holds(own, now)).max()
    }

    /// The first that is put off and waits for the disk, or does not.
    fn first(&self, ends_with_process: bool) -> Option<Place> {
        let is_such =
            |waiting: &Waiting| waiting.tell.is_some() && waiting.ends_with_process == ends_with_process;
        self.waiting.iter().find(|(_, waiting)| is_such(waiting)).map(|(place, _)| *place)
    }

    fn take(&mut self, place: Place) -> Option<Tell> {
        let tell = self.waiting.get_mut(&place)?.tell.take();
        self.put_off -= usize::from(tell.is_some());
        tell
    }
}

impl Untold {
    fn add(
        &mut self,
        (tree, lsn): (TreeId, Lsn),
        ends_with_process: bool,
        paths: Vec<VPath>,
        now: Instant,
    ) -> Place {
        self.numbers += 1;
        let place = (tree, lsn, self.numbers);
        let waiting = Waiting { paths, since: now, ends_with_process, tell: None };
        self.lines.entry(tree).or_default().waiting.insert(place, waiting);
        place
    }

    fn remove(&mut self, place: Place) {
        if let Some(line) = self.lines.get_mut(&place.0) {
            line.take(place);
            line.waiting.remove(&place);
            if line.waiting.is_empty() {
                self.lines.remove(&place.0);
            }
        }
    }

    fn put_off(&mut self, place: Place, tell: Tell) {
        if let Some(line) = self.lines.get_mut(&place.0)
            && let Some(waiting) = line.waiting.get_mut(&place)
        {
            waiting.tell = Some(tell);
            line.put_off += 1;
        }
    }

    /// Whether what has this place may be told now, until it is removed: nothing was put off before it, and nothing comes before it of the same paths.
    fn begin(&self, place: Place, now: Instant) -> bool {
        let Some(line) = self.lines.get(&place.0).filter(|_| !self.telling) else { return false };
        let Some(own) = line.waiting.get(&place) else { return false };
        let precedes = |(_, before): (&Place, &Waiting)| before.precedes(own);
        let is_preceded = line.put_off > 0 && line.waiting.range(..place).any(precedes);
        !is_preceded && line.held_until(place, now).is_none()
    }

    /// What was put off, is on disk if it waits for that, and is held up by nobody: the first of it.
    fn next(&mut self, durable: impl Fn(TreeId) -> Lsn, now: Instant) -> Next {
        let mut held: Option<Instant> = None;
        for (tree, line) in self.lines.iter_mut().filter(|(_, line)| line.put_off > 0) {
            let on_disk = line.first(false).filter(|(_, lsn, _)| *lsn <= durable(*tree));
            let mut free = None;
            // In the order of the log.
            let mut places = [on_disk, line.first(true)];
            places.sort_unstable();
            for place in places.into_iter().flatten() {
                match line.held_until(place, now) {
                    None => {
                        free = Some(place);
                        break;
                    }
                    Some(until) => held = Some(held.map_or(until, |other| other.min(until))),
                }
            }
            if let Some(place) = free
                && let Some(tell) = line.take(place)
            {
                return Next::Tell(place, tell);
            }
        }
        held.map_or(Next::Nothing, Next::Held)
    }

    /// Whether something is put off; none when besides nothing of it is being told either.
    fn is_behind(&self) -> Option<bool> {
        let is_put_off = self.lines.values().any(|line| line.put_off > 0);
        (is_put_off || self.telling).then_some(is_put_off)
    }
}

/// A change that observers are to be told of, in its place. Dropped before it is told, nobody is.
pub(crate) struct Announced {
    store: Arc<Store>,
    place: Place,
    ends_with_process: bool,
    events: Vec<Event>,
    /// Whether the place is somebody else's to give up.
    is_put_off: bool,
}

impl Announced {
    /// What is to be told, in its order.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Whether it may be told on the spot, until this is dropped: it is on disk, or never will be, and nothing is to be told before it.
    pub(crate) fn begin(&self) -> bool {
        let ((tree, lsn, _), store) = (self.place, &self.store);
        (self.ends_with_process || store.is_durable(tree, lsn))
            && store.untold.lock().begin(self.place, store.env.now())
    }

    /// Has it told as soon as that may be.
    pub(crate) fn put_off(
        mut self,
        tell: impl FnOnce(Vec<Event>) -> BoxFuture<'static, ()> + Send + 'static,
    ) {
        self.is_put_off = true;
        let events = std::mem::take(&mut self.events);
        self.store.untold.lock().put_off(self.place, Box::new(|| tell(events)));
        self.store.tell_durable();
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if !self.is_put_off {
            self.store.untold.lock().remove(self.place);
            // What it held up.
            self.store.tell_durable();
        }
    }
}

/// Somebody tells what was put off. When that ends, by a panic of theirs too, the next one may.
struct Telling {
    store: Arc<Store>,
    at: Option<Place>,
}

impl Telling {
    /// What was told is out of the way.
    fn done(&mut self) {
        if let Some(place) = self.at.take() {
            self.store.untold.lock().remove(place);
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.done();
        self.store.untold.lock().telling = false;
        self.store.told.notify_waiters();
        // What became durable in between.
        self.store.tell_durable();
    }
}

impl Store {
    /// Gives the `events` of the commit at `lsn` in the log of `tree` their place among what observers are told. To be called under the locks of the change.
    /// `ends_with_process` says that it never is on disk.
    pub(crate) fn announce(
        self: &Arc<Self>,
        tree: TreeId,
        ends_with_process: bool,
        events: Vec<Event>,
    ) -> Option<Announced> {
        let lsn = events.first()?.lsn;
        let paths = events.iter().flat_map(|event| event.other.iter().chain([&event.path]));
        let (paths, now) = (paths.cloned().collect(), self.env.now());
        let place = self.untold.lock().add((tree, lsn), ends_with_process, paths, now);
        Some(Announced { store: self.clone(), place, ends_with_process, events, is_put_off: false })
    }

    /// Has told what is durable and was not told yet, on a task of its own.
    pub(super) fn tell_durable(self: &Arc<Self>) {
        let mut untold = self.untold.lock();
        if untold.telling {
            return;
        }
        match untold.next(self.durable(), self.env.now()) {
            Next::Nothing => {}
            Next::Held(until) => {
                if untold.patrols.first().is_none_or(|looks| *looks > until) {
                    untold.patrols.insert(until);
                    drop(untold);
                    self.patrol(until);
                }
            }
            Next::Tell(place, mut tell) => {
                untold.telling = true;
                drop(untold);
                let store = self.clone();
                self.env.spawn("store.tell", async move {
                    let mut telling = Telling { store: store.clone(), at: Some(place) };
                    loop {
                        tell().await;
                        telling.done();
                        let next = store.untold.lock().next(store.durable(), store.env.now());
                        let Next::Tell(place, next) = next else { return };
                        (telling.at, tell) = (Some(place), next);
                    }
                });
            }
        }
    }

    /// Looks again at this moment.
    fn patrol(self: &Arc<Self>, at: Instant) {
        let (store, env) = (Arc::downgrade(self), self.env.clone());
        self.env.spawn("store.patrol", async move {
            env.sleep(at.saturating_duration_since(env.now())).await;
            if let Some(store) = store.upgrade() {
                store.untold.lock().patrols.remove(&at);
                store.tell_durable();
            }
        });
    }

    /// Has what was put off flushed, and waits until all of it is told. Dropping the future is harmless.
    pub(crate) async fn all_told(&self) {
        loop {
            // Registered before the look, so that an end in between is not missed.
            let mut told = std::pin::pin!(self.told.notified());
            told.as_mut().enable();
            let behind = self.untold.lock().is_behind();
            match behind {
                None => return,
                Some(true) => {
                    // Where that fails it is tried again in time.
                    let _ = self.sync().await;
                }
                Some(false) => {}
            }
            told.await;
        }
    }

    /// Up to where the logs are on disk.
    fn durable(&self) -> impl Fn(TreeId) -> Lsn {
        |tree| self.metastore.durable_lsn(tree).unwrap_or_default()
    }

    fn is_durable(&self, tree: TreeId, lsn: Lsn) -> bool {
        self.metastore.durable_lsn(tree).is_ok_and(|durable| durable >= lsn)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use nexus_actors::Env;

    use super::*;

    const TREE: TreeId = TreeId::ROOT;

    fn paths(text: &str) -> Vec<VPath> {
        vec![VPath::parse(text).unwrap()]
    }

    fn now() -> Instant {
        let (env, _simulation) = Env::seeded(1);
        env.now()
    }

    fn tell() -> Tell {
        Box::new(|| std::future::ready(()).boxed())
    }

    fn next(untold: &mut Untold, through: u64, now: Instant) -> Option<u64> {
        match untold.next(|_| Lsn(through), now) {
            Next::Tell(place, _) => {
                untold.remove(place);
                Some(place.1.0)
            }
            Next::Held(_) => None,
            Next::Nothing => Some(0),
        }
    }

    #[test]
    fn what_was_put_off_is_told_in_the_order_of_the_log_when_it_is_on_disk() {
        let (mut untold, now) = (Untold::default(), now());
        for lsn in [2, 1, 3] {
            let place = untold.add((TREE, Lsn(lsn)), false, paths("/a"), now);
            untold.put_off(place, tell());
        }
        assert_eq!(next(&mut untold, 0, now), Some(0));
        assert_eq!((next(&mut untold, 2, now), next(&mut untold, 2, now)), (Some(1), Some(2)));
        assert_eq!((next(&mut untold, 2, now), next(&mut untold, 3, now)), (Some(0), Some(3)));
        assert!(untold.lines.is_empty());
    }

    #[test]
    fn a_change_waits_for_one_before_it_of_its_path_and_not_for_ever() {
        let (mut untold, now) = (Untold::default(), now());
        let first = untold.add((TREE, Lsn(1)), false, paths("/a/b"), now);
        let other = untold.add((TREE, Lsn(2)), false, paths("/x"), now);
        let second = untold.add((TREE, Lsn(3)), false, paths("/a"), now);
        assert!(untold.begin(other, now), "it is of another path");
        assert!(!untold.begin(second, now), "what is below it comes first");
        untold.remove(other);
        untold.put_off(second, tell());
        assert_eq!(next(&mut untold, 3, now), None);
        let third = untold.add((TREE, Lsn(4)), false, paths("/y"), now);
        assert!(!untold.begin(third, now), "something was put off before it");
        assert_eq!(next(&mut untold, 3, now + HOLD_MAX), Some(3));
        assert!(untold.begin(first, now + HOLD_MAX), "it is late");
    }

    #[test]
    fn it_is_said_when_the_time_of_the_last_is_over_that_hold_a_change_up() {
        let (mut untold, now) = (Untold::default(), now());
        let second = Duration::from_secs(1);
        for (lsn, at) in [(1, "/a"), (2, "/a"), (3, "/other")] {
            untold.add((TREE, Lsn(lsn)), false, paths(at), now + second * u32::try_from(lsn).unwrap());
        }
        let held = untold.add((TREE, Lsn(4)), false, paths("/a"), now + 4 * second);
        untold.put_off(held, tell());
        let told = untold.next(|_| Lsn(4), now + 4 * second);
        assert!(matches!(told, Next::Held(until) if until == now + 2 * second + HOLD_MAX));
        assert_eq!(next(&mut untold, 4, now + 2 * second + HOLD_MAX), Some(4));
    }

    #[test]
    fn what_ends_with_the_process_waits_for_the_disk_only_behind_a_change_of_its_path() {
        let (mut untold, now) = (Untold::default(), now());
        let durable = untold.add((TREE, Lsn(1)), false, paths("/s/a"), now);
        untold.put_off(durable, tell());
        let other = untold.add((TREE, Lsn(2)), true, paths("/s/b"), now);
        assert!(untold.begin(other, now));
        untold.remove(other);
        let behind = untold.add((TREE, Lsn(3)), true, paths("/s/a"), now);
        assert!(!untold.begin(behind, now));
        untold.put_off(behind, tell());
        let later = untold.add((TREE, Lsn(4)), true, paths("/s/b"), now);
        assert!(!untold.begin(later, now), "one of its kind was put off before it");
        assert_eq!(next(&mut untold, 0, now), None);
        assert_eq!((next(&mut untold, 1, now), next(&mut untold, 1, now)), (Some(1), Some(3)));
        // A disk that does not answer holds nobody up for ever.
        let durable = untold.add((TREE, Lsn(5)), false, paths("/s/b"), now);
        untold.put_off(durable, tell());
        untold.remove(later);
        let last = untold.add((TREE, Lsn(6)), true, paths("/s/b"), now);
        assert!(!untold.begin(last, now));
        assert!(untold.begin(last, now + HOLD_MAX));
    }
}
