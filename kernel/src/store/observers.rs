//! Who is told of a commit when it is on disk: in the order of the log, and not before.
//!
//! A change has its place here from before its locks go, and is told when the hooks behind it are done: so of two changes of one path the first is told first, whichever
//! call comes to its end first. Changes of other paths wait for neither, but for what was put off before them.

use std::collections::BTreeMap;
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

/// A log, and whether it is the part of it that ends with the process, which waits for no disk.
type Log = (TreeId, bool);

/// The place of a commit in its log; and, of several that stand at one place, which.
type Place = (Lsn, u64);

/// What is to be told. As long as what is put off, and what calls are about to tell, at most.
#[derive(Default)]
pub(super) struct Untold {
    logs: BTreeMap<Log, BTreeMap<Place, Waiting>>,
    numbers: u64,
    /// Whether somebody tells what was put off: one at a time, so that the order is kept.
    pub(super) telling: bool,
    /// Whether somebody waits for those who hold others up.
    pub(super) patrols: bool,
}

struct Waiting {
    paths: Vec<VPath>,
    since: Instant,
    stage: Stage,
}

enum Stage {
    /// Its call has not come to its end.
    Coming,
    /// It is put off.
    Ready(Tell),
    /// It is being told.
    Told,
}

/// What is to be told next.
pub(super) enum Next {
    Tell(Log, Place, Tell),
    /// Nothing before somebody who holds it up goes on.
    Held,
    Nothing,
}

impl Waiting {
    /// Whether one that comes after it is not told before it.
    fn holds(&self, paths: &[VPath], now: Instant) -> bool {
        let meets =
            |path: &VPath| self.paths.iter().any(|before| path.is_within(before) || before.is_within(path));
        now.saturating_duration_since(self.since) < HOLD_MAX && paths.iter().any(meets)
    }
}

impl Untold {
    fn add(&mut self, log: Log, lsn: Lsn, paths: Vec<VPath>, now: Instant) -> Place {
        self.numbers += 1;
        let place = (lsn, self.numbers);
        let waiting = Waiting { paths, since: now, stage: Stage::Coming };
        self.logs.entry(log).or_default().insert(place, waiting);
        place
    }

    fn remove(&mut self, log: Log, place: Place) {
        if let Some(waiting) = self.logs.get_mut(&log) {
            waiting.remove(&place);
            if waiting.is_empty() {
                self.logs.remove(&log);
            }
        }
    }

    fn put_off(&mut self, log: Log, place: Place, tell: Tell) {
        if let Some(waiting) = self.logs.get_mut(&log).and_then(|log| log.get_mut(&place)) {
            waiting.stage = Stage::Ready(tell);
        }
    }

    /// Whether what has this place may be told now: nothing was put off before it, and nothing comes before it of the same paths. Then it is being told.
    fn begin(&mut self, log: Log, place: Place, now: Instant) -> bool {
        let Some(waiting) = self.logs.get_mut(&log).filter(|_| !self.telling) else { return false };
        let Some(own) = waiting.get(&place) else { return false };
        let waits = |before: &Waiting| match before.stage {
            Stage::Ready(_) => true,
            Stage::Coming | Stage::Told => before.holds(&own.paths, now),
        };
        if waiting.range(..place).any(|(_, before)| waits(before)) {
            return false;
        }
        if let Some(own) = waiting.get_mut(&place) {
            own.stage = Stage::Told;
        }
        true
    }

    /// What was put off, is on disk, and is held up by nobody: the first of it.
    fn next(&mut self, durable: impl Fn(TreeId) -> Lsn, now: Instant) -> Next {
        let mut is_held = false;
        for (log, waiting) in &mut self.logs {
            let (tree, ends_with_process) = *log;
            let through = if ends_with_process { Lsn(u64::MAX) } else { durable(tree) };
            let mut found = None;
            for (place, next) in waiting.range(..=(through, u64::MAX)) {
                if matches!(next.stage, Stage::Ready(_)) {
                    let holds = |(_, before): (&Place, &Waiting)| before.holds(&next.paths, now);
                    let waits = waiting.range(..place).any(holds);
                    is_held |= waits;
                    found = (!waits).then_some(*place);
                    break;
                }
            }
            if let Some(next) = found.and_then(|place| waiting.get_mut(&place).map(|next| (place, next)))
                && let Stage::Ready(tell) = std::mem::replace(&mut next.1.stage, Stage::Told)
            {
                return Next::Tell(*log, next.0, tell);
            }
        }
        if is_held { Next::Held } else { Next::Nothing }
    }
}

/// A change that observers are to be told of, in its place. Dropped before it is told, nobody is.
pub(crate) struct Announced {
    store: Arc<Store>,
    log: Log,
    place: Place,
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
        let (tree, ends_with_process) = self.log;
        let store = &self.store;
        (ends_with_process || store.is_durable(tree, self.place.0))
            && store.untold.lock().begin(self.log, self.place, store.env.now())
    }

    /// Has it told as soon as that may be.
    pub(crate) fn put_off(
        mut self,
        tell: impl FnOnce(Vec<Event>) -> BoxFuture<'static, ()> + Send + 'static,
    ) {
        self.is_put_off = true;
        let events = std::mem::take(&mut self.events);
        self.store.untold.lock().put_off(self.log, self.place, Box::new(|| tell(events)));
        self.store.tell_durable();
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if !self.is_put_off {
            self.store.untold.lock().remove(self.log, self.place);
            // What it held up.
            self.store.tell_durable();
        }
    }
}

/// Somebody tells what was put off. When that ends, by a panic of theirs too, the next one may.
struct Telling {
    store: Arc<Store>,
    at: Option<(Log, Place)>,
}

impl Telling {
    /// What was told is out of the way.
    fn done(&mut self) {
        if let Some((log, place)) = self.at.take() {
            self.store.untold.lock().remove(log, place);
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.done();
        self.store.untold.lock().telling = false;
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
        let (paths, log) = (paths.cloned().collect(), (tree, ends_with_process));
        let place = self.untold.lock().add(log, lsn, paths, self.env.now());
        Some(Announced { store: self.clone(), log, place, events, is_put_off: false })
    }

    /// Has told what is durable and was not told yet, on a task of its own.
    pub(super) fn tell_durable(self: &Arc<Self>) {
        let mut untold = self.untold.lock();
        if untold.telling {
            return;
        }
        match untold.next(self.durable(), self.env.now()) {
            Next::Nothing => {}
            Next::Held => {
                if !std::mem::replace(&mut untold.patrols, true) {
                    drop(untold);
                    self.patrol();
                }
            }
            Next::Tell(log, place, mut tell) => {
                untold.telling = true;
                drop(untold);
                let store = self.clone();
                self.env.spawn("store.tell", async move {
                    let mut telling = Telling { store: store.clone(), at: Some((log, place)) };
                    loop {
                        tell().await;
                        telling.done();
                        let next = store.untold.lock().next(store.durable(), store.env.now());
                        let Next::Tell(log, place, next) = next else { return };
                        (telling.at, tell) = (Some((log, place)), next);
                    }
                });
            }
        }
    }

    /// Looks again when those who hold others up have done so for long enough.
    fn patrol(self: &Arc<Self>) {
        let (store, env) = (Arc::downgrade(self), self.env.clone());
        self.env.spawn("store.patrol", async move {
            env.sleep(HOLD_MAX).await;
            if let Some(store) = store.upgrade() {
                store.untold.lock().patrols = false;
                store.tell_durable();
            }
        });
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

    const LOG: Log = (TreeId::ROOT, false);

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
            Next::Tell(log, place, _) => {
                untold.remove(log, place);
                Some(place.0.0)
            }
            Next::Held => None,
            Next::Nothing => Some(0),
        }
    }

    #[test]
    fn what_was_put_off_is_told_in_the_order_of_the_log_when_it_is_on_disk() {
        let (mut untold, now) = (Untold::default(), now());
        for lsn in [2, 1, 3] {
            let place = untold.add(LOG, Lsn(lsn), paths("/a"), now);
            untold.put_off(LOG, place, tell());
        }
        assert_eq!(next(&mut untold, 0, now), Some(0));
        assert_eq!((next(&mut untold, 2, now), next(&mut untold, 2, now)), (Some(1), Some(2)));
        assert_eq!((next(&mut untold, 2, now), next(&mut untold, 3, now)), (Some(0), Some(3)));
        assert!(untold.logs.is_empty());
    }

    #[test]
    fn a_change_waits_for_one_before_it_of_its_path_and_not_for_ever() {
        let (mut untold, now) = (Untold::default(), now());
        let first = untold.add(LOG, Lsn(1), paths("/a/b"), now);
        let other = untold.add(LOG, Lsn(2), paths("/x"), now);
        let second = untold.add(LOG, Lsn(3), paths("/a"), now);
        assert!(untold.begin(LOG, other, now), "it is of another path");
        assert!(!untold.begin(LOG, second, now), "what is below it comes first");
        untold.remove(LOG, other);
        untold.put_off(LOG, second, tell());
        assert_eq!(next(&mut untold, 3, now), None);
        let third = untold.add(LOG, Lsn(4), paths("/y"), now);
        assert!(!untold.begin(LOG, third, now), "something was put off before it");
        assert_eq!(next(&mut untold, 3, now + HOLD_MAX), Some(3));
        assert!(untold.begin(LOG, first, now + HOLD_MAX), "it is late");
    }
}
