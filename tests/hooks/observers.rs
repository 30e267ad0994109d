//! Observers with queues of their own: what one of them does is nobody else's, and it knows what it missed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nexus::dispatch::{HookId, Missed, Observer, Registration};
use nexus::{Config, Event, EventKind, EventMask, Kill, blocking};
use parking_lot::Mutex;

use crate::boot;

/// Longer than anything here takes; only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells on a channel what it hears; hangs over `/hangs` until it is let go, and panics over `/breaks`.
struct Hears {
    told: Mutex<Sender<String>>,
    go_on: Mutex<Receiver<()>>,
}

/// The other ends.
struct Ends {
    told: Receiver<String>,
    go_on: Sender<()>,
}

fn hears() -> (Arc<Hears>, Ends) {
    let ((told, hear), (go, go_on)) = (channel(), channel());
    (Arc::new(Hears { told: Mutex::new(told), go_on: Mutex::new(go_on) }), Ends { told: hear, go_on: go })
}

impl Hears {
    fn tell(&self, what: String) {
        // Nobody may listen any more.
        let _ = self.told.lock().send(what);
    }
}

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        EventKind::FileWritten.into()
    }

    fn observe(&self, event: &Event) {
        self.tell(event.path.to_string());
        match event.path.as_str() {
            "/hangs" => {
                let _ = self.go_on.lock().recv_timeout(PATIENCE);
            }
            "/breaks" => panic!("an observer that panics"),
            _ => {}
        }
    }

    fn overflowed(&self, missed: &Missed) {
        self.tell(format!("missed {} from {}", missed.events, missed.first.path));
    }
}

impl Ends {
    #[track_caller]
    fn expect(&self, expected: impl AsRef<str>) {
        let told = self.told.recv_timeout(PATIENCE);
        assert_eq!(told.as_deref(), Ok(expected.as_ref()));
    }
}

fn count(nx: &blocking::Nexus, id: HookId, what: &str) -> u64 {
    let shown = nx.read(format!("/__sys__/hooks/{}", id.0)).expect("it is shown");
    let shown: serde_json::Value = serde_json::from_slice(&shown).expect("it is JSON");
    shown[what].as_u64().expect("it is a number")
}

#[test]
fn one_that_hangs_holds_up_nobody_and_is_told_what_it_missed() {
    let nx = boot();
    let ((slow, hangs), (quick, hears)) = (hears(), hears());
    hears.go_on.send(()).expect("it listens, and does not hang");
    let slow = nx.register_hook(Registration::observer("slow", slow).queue(4)).expect("there is room");
    nx.register_hook(Registration::observer("quick", quick)).expect("there is room");
    nx.write("/hangs", "x").expect("it writes");
    hangs.expect("/hangs");
    for number in 0..10 {
        nx.write(format!("/{number}"), "x").expect("it waits for no observer");
    }
    hears.expect("/hangs");
    (0..10).for_each(|number| hears.expect(format!("/{number}")));
    assert_eq!((count(&nx, slow, "queued"), count(&nx, slow, "overflow")), (4, 6));
    hangs.go_on.send(()).expect("it listens");
    (0..4).for_each(|number| hangs.expect(format!("/{number}")));
    hangs.expect("missed 6 from /4");
    nx.write("/later", "x").expect("it writes");
    hangs.expect("/later");
}

#[test]
fn nothing_is_queued_behind_what_was_missed_before_that_was_told() {
    let nx = boot();
    let (observer, ends) = hears();
    nx.register_hook(Registration::observer("hears", observer).queue(2)).expect("there is room");
    nx.write("/hangs", "x").expect("it writes");
    ends.expect("/hangs");
    for at in ["/hangs", "/a", "/missed"] {
        nx.write(at, "x").expect("it writes");
    }
    ends.go_on.send(()).expect("it listens");
    ends.expect("/hangs");
    // There is room, and the marker comes first.
    nx.write("/missed-too", "x").expect("it writes");
    ends.go_on.send(()).expect("it listens");
    ends.expect("/a");
    ends.expect("missed 2 from /missed");
}

#[test]
fn one_that_panics_is_started_anew_and_hears_the_next() {
    let nx = boot();
    let (observer, ends) = hears();
    let id = nx.register_hook(Registration::observer("breaks", observer)).expect("there is room");
    for at in ["/a", "/breaks", "/b", "/breaks", "/c"] {
        nx.write(at, "x").expect("it writes");
    }
    ["/a", "/breaks", "/b", "/breaks", "/c"].into_iter().for_each(|at| ends.expect(at));
    assert_eq!(count(&nx, id, "errors"), 2);
}

#[test]
fn one_that_hangs_for_too_long_is_written_off_and_hears_the_next() {
    let config = Config::in_memory().watchdog(Duration::from_millis(250));
    let nx = blocking::connect(config).expect("it boots");
    let (observer, ends) = hears();
    let id = nx.register_hook(Registration::observer("hangs", observer)).expect("there is room");
    nx.write("/hangs", "x").expect("it writes");
    nx.write("/next", "x").expect("it writes");
    ends.expect("/hangs");
    // Nobody lets it go.
    ends.expect("/next");
    assert!(count(&nx, id, "timeouts") >= 1);
    ends.go_on.send(()).expect("it listens");
}

/// The observer hangs, and has twenty more to be told of.
fn queues(nx: &blocking::Nexus, ends: &Ends) {
    nx.write("/hangs", "x").expect("it writes");
    ends.expect("/hangs");
    (0..20).for_each(|number| nx.write(format!("/{number}"), "x").map(drop).expect("it writes"));
}

#[test]
fn what_was_queued_is_told_before_an_observer_ends() {
    let nx = boot();
    let (observer, ends) = hears();
    let id = nx.register_hook(Registration::observer("hears", observer)).expect("there is room");
    queues(&nx, &ends);
    nx.unregister_hook(id).expect("it is there");
    nx.write("/not", "told").expect("it writes");
    ends.go_on.send(()).expect("it listens");
    (0..20).for_each(|number| ends.expect(format!("/{number}")));
    nx.shutdown().expect("it ends");
    assert!(ends.told.try_recv().is_err(), "it was removed before");
}

#[test]
fn what_was_queued_is_told_before_the_kernel_has_ended() {
    let nx = boot();
    let (observer, ends) = hears();
    nx.register_hook(Registration::observer("hears", observer)).expect("there is room");
    queues(&nx, &ends);
    thread::scope(|scope| {
        let ended = scope.spawn(|| nx.shutdown());
        ends.go_on.send(()).expect("it listens");
        (0..20).for_each(|number| ends.expect(format!("/{number}")));
        ended.join().expect("it ends").expect("in order");
    });
    assert!(ends.told.try_recv().is_err(), "there was no more");
}

#[test]
fn one_that_is_killed_with_a_queue_goes_on_with_it() {
    let nx = boot();
    let (observer, ends) = hears();
    let id = nx.register_hook(Registration::observer("hears", observer)).expect("there is room");
    queues(&nx, &ends);
    let child = format!("nexus/kernel/observers/hears@{}", id.0);
    assert!(nx.kill(&child, Kill::Error).expect("it is the administrator's handle"), "there is no {child}");
    ends.go_on.send(()).expect("it listens");
    (0..20).for_each(|number| ends.expect(format!("/{number}")));
    nx.write("/later", "x").expect("it writes");
    ends.expect("/later");
}
