//! Watchers of the clients' homes: with cursors that are dropped and taken up again, also by a later kernel; so slow that events overflow; and live.

pub(crate) mod history;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nexus::{
    Consistency, ErrorKind, Event, EventKind, EventMask, EventStream, Executed, Lsn, Nexus, OpId, SysWrite,
    VPath, WatchItem,
};

use self::history::{Made, Told};
use crate::clients::SYSCALL_MAX;
use crate::model::{CLIENTS, Change, Home, Ledger, Mark, base};
use crate::plan::Dice;
use crate::record::Record;
use crate::scene::{MOMENT, Scene};

/// Watchers with cursors, and the live one, which is the last.
pub(crate) const CURSORS: usize = 3;
pub(crate) const LIVE: usize = CURSORS;

/// The one that watches everything with a cursor, slowly.
const SLOW: usize = 2;

/// Events that are told at once, at most.
const TELL_MAX: usize = 64;

/// For how many looks a watch that is dropped on purpose is kept, at most.
const LOOKS_MAX: u64 = 30;

/// How many writes nobody listens to are made at once, so that a watcher who is slow loses events: more than wait for one.
const BURST: u64 = 1_200;
pub(crate) const BURST_AT: &str = "/burst";
const BURST_FILES: u64 = 8;

/// How long a watcher that sees nothing may be behind what was acknowledged.
const BEHIND_MAX: Duration = Duration::from_secs(10);

/// Whether a watcher watches the home of a client.
pub(crate) fn is_watched(watcher: usize, client: usize) -> bool {
    match watcher {
        0 => client == 0,
        1 => (1..=3).contains(&client),
        _ => true,
    }
}

/// What a change is told as.
pub(crate) fn made(home: &Home, client: usize, change: Change) -> Made {
    let after = home.after(change);
    let what = match change {
        Change::Write(file) => {
            let mark = Mark { client, file, version: home.next_version(file) };
            let (path, is_new) = (home.path(client, file), home.version(file).is_none());
            words(EventKind::FileWritten, &path, None, mark.length(), is_new)
        }
        Change::Rename(file) => {
            words(EventKind::Renamed, &home.path(client, file), Some(&after.path(client, file)), 0, false)
        }
        Change::Remove(file) => words(EventKind::FileDeleted, &home.path(client, file), None, 0, false),
        Change::Turn => {
            words(EventKind::Renamed, &home.folder(client), Some(&after.folder(client)), 0, false)
        }
    };
    Made { client, what }
}

fn words(kind: EventKind, path: &str, other: Option<&str>, size: u64, is_new: bool) -> String {
    match (kind, other) {
        (EventKind::FileWritten, _) => format!("{kind} {path}, {size} bytes, new: {is_new}"),
        (_, Some(other)) => format!("{kind} {path} {other}"),
        (_, None) => format!("{kind} {path}"),
    }
}

/// What is told to the oracle of an event; none when nobody's home is concerned.
fn told(event: &Event) -> Option<Told> {
    let is_in = |client: usize| {
        let home = base(client);
        event.path.as_str().strip_prefix(&*home).is_some_and(|rest| rest.starts_with('/'))
    };
    if !(0..CLIENTS).any(is_in) {
        return None;
    }
    let other = event.other.as_ref().map(VPath::as_str);
    let what = words(event.kind, event.path.as_str(), other, event.size, event.is_new);
    Some(Told { lsn: event.lsn.0, op_id: event.op_id, what })
}

fn mask() -> EventMask {
    EventKind::FileWritten | EventKind::FileDeleted | EventKind::Renamed
}

fn builder(nx: &Nexus, watcher: usize) -> nexus::WatchBuilder {
    let watch = match watcher {
        0 => nx.watch(base(0)),
        1 => nx.watch_glob("/c[1-3]/**"),
        _ => nx.watch("/"),
    };
    watch.mask(mask())
}

struct Watcher {
    scene: Arc<Scene>,
    number: usize,
    dice: Dice,
    cursor: Lsn,
}

/// Watches with a cursor until the scene ends; it goes on where it was left off in an earlier life.
pub(crate) async fn resume(scene: Arc<Scene>, number: usize) {
    let dice = Dice::new(scene.life.seed ^ (number as u64 + 1) << 36);
    let cursor = Lsn(scene.ledger.watches[number].cursor);
    let mut watcher = Watcher { scene: scene.clone(), number, dice, cursor };
    // Of the simulated runs only some: each takes its time.
    let mut bursts =
        u64::from(number == SLOW && (!scene.env.is_simulated() || scene.life.seed.is_multiple_of(4)));
    while scene.goes_on().await {
        if scene.is_dying() {
            scene.env.sleep(MOMENT * 20).await;
        } else if watcher.dice.below(4) == 0 {
            watcher.batch().await;
        } else {
            watcher.stream(&mut bursts).await;
        }
        scene.env.sleep(MOMENT).await;
    }
}

/// Watches without a cursor until the scene ends, and is told all that is committed from when it began; anew when a watch is over because of what is done to the kernel.
pub(crate) async fn live(scene: Arc<Scene>) {
    while scene.goes_on().await && !scene.is_dying() {
        match scene.call("watch", "/", SYSCALL_MAX, builder(&scene.nx, LIVE).stream()).await {
            Some(Ok(events)) => follow(&scene, events).await,
            Some(Err(error)) => failed(&scene, &error),
            None => {}
        }
        scene.env.sleep(MOMENT).await;
    }
    while scene.goes_on().await {
        scene.env.sleep(MOMENT * 20).await;
    }
}

/// Takes what one watch tells until it, or the scene, is over.
async fn follow(scene: &Scene, mut events: EventStream) {
    scene.tell(Record::Watching { from: events.cursor().0 });
    let mut behind_since = None;
    while scene.goes_on().await {
        let newest = scene.newest();
        let Some(seen) = take(scene, LIVE, &mut events, scene.setting.wait * 4).await else { return };
        // What was acknowledged before it looked is to be told soon.
        if seen > 0 || events.cursor() >= newest {
            behind_since = None;
        } else if scene.age().saturating_sub(*behind_since.get_or_insert(scene.age())) > BEHIND_MAX {
            scene.broken(format_args!(
                "a watcher at {} is told nothing, and {newest} was acknowledged",
                events.cursor()
            ));
            behind_since = None;
        }
    }
}

fn failed(scene: &Scene, error: &nexus::Error) {
    // An actor that was killed while it took the watch up.
    if error.executed() != Executed::Unknown && error.kind() != ErrorKind::Crashed {
        scene.failed("a watch failed", error);
    }
}

/// Takes what there is within `wait`, and tells it; how many events that were. None when the watch is over.
async fn take(scene: &Scene, number: usize, events: &mut EventStream, wait: Duration) -> Option<usize> {
    let mut taken = Vec::new();
    let mut seen = 0;
    let mut is_over = false;
    while seen < TELL_MAX {
        match events.next_for(if seen == 0 { wait } else { Duration::ZERO }).await {
            None => break,
            Some(Ok(WatchItem::Event(event))) => taken.extend(told(&event)),
            Some(Ok(WatchItem::Overflow(_))) => scene.count(|counts| counts.overflows += 1),
            Some(Err(error)) => {
                failed(scene, &error);
                is_over = true;
                break;
            }
        }
        seen += 1;
    }
    if seen > 0 && !is_over {
        tell(scene, number, taken, events.cursor());
    }
    (!is_over).then_some(seen)
}

fn tell(scene: &Scene, watcher: usize, events: Vec<Told>, cursor: Lsn) {
    scene.count(|counts| counts.events += events.len() as u64);
    scene.tell(Record::Watched { watcher, events, cursor: cursor.0 });
}

impl Watcher {
    /// One call from where the last one ended.
    async fn batch(&mut self) {
        let scene = self.scene.clone();
        let wait = self.dice.around(scene.setting.wait);
        let batch = builder(&scene.nx, self.number).since(self.cursor).batch(wait);
        match scene.call("watch", "/", SYSCALL_MAX + wait, batch).await {
            Some(Ok(watched)) => {
                self.cursor = watched.next;
                scene.count(|counts| counts.resumed += 1);
                tell(&scene, self.number, watched.events.iter().filter_map(told).collect(), self.cursor);
            }
            Some(Err(error)) => failed(&scene, &error),
            None => {}
        }
    }

    /// A watch that is dropped after a while, in the middle of what it waits for.
    async fn stream(&mut self, bursts: &mut u64) {
        let scene = self.scene.clone();
        let opening = builder(&scene.nx, self.number).since(self.cursor).stream();
        let mut events = match scene.call("watch", "/", SYSCALL_MAX, opening).await {
            Some(Ok(events)) => events,
            Some(Err(error)) => return failed(&scene, &error),
            None => return,
        };
        scene.count(|counts| counts.resumed += 1);
        // Looks after which there was nothing more: behind two of them all that comes is queued.
        let mut caught_up = 0;
        for _ in 0..self.dice.below(LOOKS_MAX) {
            if !scene.goes_on().await || scene.is_dying() {
                return;
            }
            let wait = self.dice.around(scene.setting.wait);
            match take(&scene, self.number, &mut events, wait).await {
                Some(TELL_MAX) => caught_up = 0,
                Some(_) => caught_up += 1,
                None => return,
            }
            self.cursor = events.cursor();
            if self.dice.below(3) == 0 {
                // Given up while it waits: nothing is passed over.
                let after = self.dice.around(scene.setting.wait);
                if let Some(Some(Ok(item))) = scene.give_up(after, events.next()).await {
                    match item {
                        WatchItem::Event(event) => {
                            self.cursor = events.cursor();
                            tell(&scene, self.number, told(&event).into_iter().collect(), self.cursor);
                        }
                        _ => scene.count(|counts| counts.overflows += 1),
                    }
                }
            }
            if *bursts > 0 && caught_up > 1 {
                *bursts -= 1;
                burst(&scene).await;
            }
        }
    }
}

/// Writes so much at once that who watches without looking loses some of it.
async fn burst(scene: &Scene) {
    for number in 0..BURST {
        if scene.is_dying() || scene.is_stopped() {
            return;
        }
        let Ok(at) = VPath::parse(&format!("{BURST_AT}/{}", number % BURST_FILES)) else { return };
        let write = SysWrite::at(at, number.to_string()).create().consistency(Consistency::Eventual);
        match scene.call("write", BURST_AT, SYSCALL_MAX, scene.nx.send(write)).await {
            Some(Err(error)) if error.executed() != Executed::Unknown => {
                scene.failed("a change failed", &error);
            }
            _ => {}
        }
    }
}

/// Has all watchers with cursors told up to the end of the log, and holds what each was told against what was committed. Says what is wrong.
pub(crate) async fn check(nx: &Nexus, ledger: &mut Ledger) -> Vec<String> {
    let mut wrong = Vec::new();
    for number in 0..CURSORS {
        loop {
            let before = ledger.watches[number].cursor;
            match builder(nx, number).since(Lsn(before)).batch(Duration::ZERO).await {
                Ok(watched) => {
                    let events: Vec<_> = watched.events.iter().filter_map(told).collect();
                    let is_end = watched.events.is_empty() && watched.next.0 == before;
                    ledger.watches[number].hear(&events, watched.next.0);
                    if is_end {
                        break;
                    }
                }
                Err(error) => {
                    wrong.push(format!("watcher {number} cannot go on after {before}: {error}"));
                    break;
                }
            }
        }
    }
    wrong.extend(ledger.check_watches());
    wrong
}

/// What each change was to be told as, by its identity.
pub(crate) type AllMade = BTreeMap<OpId, Made>;
