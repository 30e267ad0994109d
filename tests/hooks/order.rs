//! The order in which observers hear of changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_util::future::{BoxFuture, poll_fn};
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration};
use nexus::{
    Config, Consistency, Event, EventKind, EventMask, HookContext, Lsn, MountSpec, Outcome, SysTx, SysWrite,
    VPath, Verdict, blocking,
};
use parking_lot::{Condvar, Mutex};

use crate::path;

/// Longer than anything here takes; only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it heard.
#[derive(Default)]
struct Hears {
    heard: Mutex<Vec<(VPath, Lsn)>>,
    told: Condvar,
}

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        EventKind::FileWritten.into()
    }

    fn observe(&self, event: &Event) {
        self.heard.lock().push((event.path.clone(), event.lsn));
        self.told.notify_all();
    }
}

impl Hears {
    /// Waits until it has heard so much.
    #[track_caller]
    fn heard(&self, count: usize) -> Vec<(VPath, Lsn)> {
        let mut heard = self.heard.lock();
        while heard.len() < count {
            let late = self.told.wait_for(&mut heard, PATIENCE).timed_out();
            assert!(!late, "waited in vain for {count} events, and heard {heard:?}");
        }
        heard.clone()
    }
}

/// Is done with some calls late.
struct Late {
    held: AtomicUsize,
    is_open: AtomicBool,
    /// Whether it holds up the first call for `/a` until it is let go, or each a little.
    holds: bool,
}

impl Interceptor for Late {
    fn ops(&self) -> OpSet {
        OpSet::MUTATIONS
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::ready(Verdict::Continue))
    }

    fn after<'a>(&'a self, cx: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
        let mut looks = 0;
        let holds = self.holds && cx.call.path() == "/a" && self.held.fetch_add(1, Ordering::Relaxed) == 0;
        let turn = self.held.fetch_add(usize::from(!self.holds), Ordering::Relaxed);
        Box::pin(poll_fn(move |task| {
            looks += 1;
            let waits =
                if self.holds { holds && !self.is_open.load(Ordering::Relaxed) } else { looks <= turn % 7 };
            if !waits {
                return Poll::Ready(());
            }
            thread::yield_now();
            task.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

fn strong(mut call: SysWrite) -> SysWrite {
    call.consistency = Some(Consistency::Strong);
    call
}

fn late(holds: bool) -> Arc<Late> {
    Arc::new(Late { held: AtomicUsize::new(0), is_open: AtomicBool::new(false), holds })
}

#[track_caller]
fn in_order(heard: &[(VPath, Lsn)]) {
    let mut last: HashMap<&VPath, Lsn> = HashMap::new();
    for (path, lsn) in heard {
        let before = last.insert(path, *lsn);
        assert!(before < Some(*lsn), "{path}: {lsn} after {before:?}, in {heard:?}");
    }
}

fn observed(config: Config, inline: bool, late: &Arc<Late>) -> (blocking::Nexus, Arc<Hears>) {
    let nx = blocking::connect(config).expect("it boots");
    let hears = Arc::new(Hears::default());
    let observer = Registration::observer("hears", hears.clone()).queue(65_536);
    nx.register_hook(if inline { observer.inline() } else { observer }).expect("there is room");
    nx.register_hook(Registration::interceptor("late", late.clone())).expect("there is room");
    (nx, hears)
}

#[test]
fn a_change_whose_call_ends_late_is_told_before_the_next_one_of_its_path() {
    for inline in [false, true] {
        let (folder, late) = (tempfile::tempdir().expect("there is room"), late(true));
        let (nx, hears) = observed(Config::new(folder.path()), inline, &late);
        nx.mount("/scratch", MountSpec::new("cas-local").option("class", "scratch")).expect("it mounts");
        thread::scope(|scope| {
            let first = scope.spawn(|| nx.write("/a", "1").expect("it writes").receipt.lsn);
            while late.held.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            let other = nx.write("/b", "x").expect("it waits for no other path").receipt.lsn;
            assert_eq!(hears.heard(1), [(path("/b"), other)]);
            let second = nx.write("/a", "2").expect("it waits for nobody").receipt.lsn;
            // What ends with the process waits for nothing that does not: when that was told, all was that is told before the first.
            let beside = nx.write("/scratch/c", "x").expect("it waits for nobody").receipt.lsn;
            assert_eq!(hears.heard(2)[1..], [(path("/scratch/c"), beside)], "the first comes first");
            late.is_open.store(true, Ordering::Relaxed);
            let first = first.join().expect("it writes");
            assert_eq!(hears.heard(4)[2..], [(path("/a"), first), (path("/a"), second)]);
        });
    }
}

/// Nothing is flushed here but by who asks for it.
fn unflushed(folder: &tempfile::TempDir) -> Config {
    Config::new(folder.path()).flush(PATIENCE, 1 << 30)
}

/// A change that is acknowledged before it is on disk.
fn put_off(at: &str) -> SysWrite {
    SysWrite::at(path(at), "x").create().consistency(Consistency::Eventual)
}

#[test]
fn what_waits_for_the_disk_is_told_before_what_does_not_and_changed_the_same_path_later() {
    for inline in [false, true] {
        let folder = tempfile::tempdir().expect("there is room");
        let (nx, hears) = observed(unflushed(&folder), inline, &late(false));
        let scratch = MountSpec::new("cas-local").option("class", "scratch");
        nx.mount("/scratch", scratch).expect("it mounts");
        let lsn = |write: SysWrite| nx.send(write).expect("it writes").receipt.lsn;
        let both = ["/scratch/a", "/d"].map(|at| SysWrite::at(path(at), "x").create());
        let both = both.into_iter().fold(SysTx::new(), SysTx::with);
        nx.send(both.consistency(Consistency::Eventual)).expect("both");
        let other = lsn(put_off("/scratch/b"));
        assert_eq!(hears.heard(1), [(path("/scratch/b"), other)], "it waits for no disk");
        let second = lsn(put_off("/scratch/a"));
        let last = lsn(strong(SysWrite::at(path("/e"), "x").create()));
        let heard = hears.heard(5);
        in_order(&heard);
        let second_at = heard.iter().position(|heard| *heard == (path("/scratch/a"), second));
        assert!(second_at.is_some() && heard.contains(&(path("/e"), last)), "{heard:?}");
    }
}

#[test]
fn what_was_acknowledged_before_it_was_on_disk_is_told_before_the_kernel_has_ended() {
    for inline in [false, true] {
        let folder = tempfile::tempdir().expect("there is room");
        let (nx, hears) = observed(unflushed(&folder), inline, &late(false));
        let written: Vec<_> = ["/a", "/b", "/a"]
            .into_iter()
            .map(|at| (path(at), nx.send(put_off(at)).expect("it writes").receipt.lsn))
            .collect();
        assert_eq!(hears.heard(0), [], "it is not on disk");
        nx.shutdown().expect("it ends");
        assert_eq!(hears.heard(0), written);
    }
}

#[test]
fn under_load_those_of_each_path_are_told_in_the_order_of_their_commits_and_none_is_missing() {
    const WRITES: usize = 150;
    let folder = tempfile::tempdir().expect("there is room");
    for (config, inline) in [
        (Config::in_memory(), false),
        (Config::in_memory(), true),
        (Config::new(folder.path().join("a")), false),
        (Config::new(folder.path().join("b")), true),
    ] {
        let late = late(false);
        let (nx, hears) = observed(config, inline, &late);
        let can_be_strong = nx.send(strong(SysWrite::at(path("/probe"), "x").create())).is_ok();
        thread::scope(|scope| {
            for writer in 0..4 {
                let nx = &nx;
                scope.spawn(move || {
                    for n in 0..WRITES {
                        let write = |at: usize| SysWrite::at(path(&format!("/{}", at % 3)), "x").create();
                        match (n + writer) % 3 {
                            0 if can_be_strong => {
                                nx.send(strong(write(n))).map(drop).expect("it writes");
                            }
                            1 => nx
                                .send(SysTx::new().with(write(n)).with(write(n + 1)))
                                .map(drop)
                                .expect("both"),
                            _ => nx.send(write(n)).map(drop).expect("it writes"),
                        }
                    }
                });
            }
        });
        let two = (0..4).map(|writer| (0..WRITES).filter(|n| (n + writer) % 3 == 1).count()).sum::<usize>();
        let all = 4 * WRITES + two + usize::from(can_be_strong);
        let heard = hears.heard(all);
        assert_eq!(heard.len(), all, "each once");
        in_order(&heard);
    }
}
