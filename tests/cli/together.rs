//! Commands that wait for one another while nobody serves the data folder.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nexus::{Config, blocking};

use crate::children::until;
use crate::fixture::{Nexus, end};
use crate::serving::Serving;
use crate::watches::Watch;

/// A lock that is held until it is said that it is enough.
struct Held {
    child: Child,
    begun: PathBuf,
    enough: PathBuf,
}

impl Held {
    /// Waits for the lock on `/NAME`, and then until it is enough.
    fn start(nexus: &Nexus, name: &str) -> Self {
        let (begun, enough) = (nexus.host(&format!("{name}.begun")), nexus.host(&format!("{name}.enough")));
        // It ends with its folder, too: a test that fails leaves nothing behind.
        let (there, over) = (begun.display(), enough.display());
        let script = format!("touch {there}; while [ -e {there} ] && [ ! -e {over} ]; do sleep 0.01; done");
        let mut command =
            nexus.command(["lock", "-w", "60s", &format!("/{name}"), "--", "sh", "-c", &script]);
        let child = command.stdin(Stdio::null()).spawn().expect("it starts");
        Self { child, begun, enough }
    }

    fn until_it_is_held(self) -> Self {
        until("it is held", || self.begun.exists());
        self
    }

    /// Ends it; its exit status.
    fn end(mut self) -> Option<i32> {
        fs::write(&self.enough, "").expect("there is room");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What it runs ends by that; it may have ended.
        let _ = fs::write(&self.enough, "");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn locks_are_those_of_who_holds_them_and_not_of_who_came_first() {
    let nexus = Nexus::new();
    let first = Held::start(&nexus, "l").until_it_is_held();
    let other = Held::start(&nexus, "m").until_it_is_held();
    let next = nexus.command(["lock", "-w", "60s", "/l", "--", "echo", "mine"]);
    let ended = std::thread::scope(|scope| {
        let next = scope.spawn(move || end(next, ""));
        until("the next one waits", || nexus.good("locks /l").contains("\twaits for "));
        assert_eq!(first.end(), Some(0));
        next.join().expect("it does not panic")
    });
    assert_eq!((ended.status, &*ended.out, &*ended.err), (0, "mine\n", ""));
    let third = nexus.run("lock -n /m");
    assert_eq!((third.status, third.err.contains("nexus holds it for")), (1, true), "{third:?}");
    assert_eq!(other.end(), Some(0));
    until("nobody owns the folder", || nexus.is_free());
    assert_eq!(nexus.good("locks"), "");
}

#[test]
fn what_another_process_changes_is_told_though_nobody_serves() {
    let nexus = Nexus::new();
    nexus.feed("write /w/0", "0");
    let mut watch = Watch::start(&nexus, &["/w", "--since", "1", "--count", "2", "--mask", "file_write"]);
    assert!(watch.line().ends_with("file_write nexus /w/0"));
    assert_eq!(nexus.feed("write /w/a", "1").status, 0);
    assert!(watch.line().ends_with("file_write nexus /w/a"));
    assert_eq!(watch.ended(), Some(0));
    until("nobody owns the folder", || nexus.is_free());
}

#[test]
fn messages_and_records_come_though_nobody_serves() {
    let nexus = Nexus::new();
    nexus.good("pipe make /p");
    nexus.good("stream make /s");
    nexus.good("stream make /t");
    let check = |waits: &str, gives: &str| {
        let mut waiting = nexus.command(waits.split(' '));
        let mut waiting = waiting.stdout(Stdio::piped()).spawn().expect("it starts");
        let socket = nexus.data().join("nexus.sock");
        // Again: what is given to a pipe before anybody waits there goes with the kernel that has it. And to who serves: with nobody there it is not taken.
        until("it comes", || {
            if socket.exists() {
                let given = nexus.run(gives);
                // Whoever waited may have it by now, and the owner that was there for him be gone.
                let is_late = given.err.contains("nobody serves the data folder");
                assert!(given.status == 0 || is_late, "{gives}: {given:?}");
            }
            waiting.try_wait().expect("it can be asked").is_some()
        });
        let ended = waiting.wait_with_output().expect("it ends");
        assert_eq!((ended.status.code(), &*ended.stdout), (Some(0), &b"x\n"[..]), "{waits}");
        until("nobody owns the folder", || nexus.is_free());
    };
    check("pipe read /p --wait 60s", "pipe write /p x");
    check("stream take /s g --wait 60s --ack", "stream append /s x");
    check("stream read /t --from 0 -n 1 --wait 60s", "stream append /t x");
}

#[test]
fn owners_that_are_started_at_once_are_one() {
    const EACH: usize = 8;
    let nexus = Nexus::new();
    let count = nexus.host("count");
    fs::write(&count, "0").expect("there is room");
    let raise = format!("n=$(cat {0}); echo $((n + 1)) > {0}", count.display());
    let running: Vec<_> = (0..EACH)
        .map(|_| {
            let mut command = nexus.command(["lock", "/count", "--", "sh", "-c", &raise]);
            command.stdin(Stdio::null()).spawn().expect("it starts")
        })
        .collect();
    for mut running in running {
        assert!(running.wait().expect("it ends").success());
    }
    assert_eq!(fs::read_to_string(&count).expect("it is there").trim(), EACH.to_string());
}

#[test]
fn short_commands_that_are_started_at_once_take_turns() {
    let nexus = Nexus::new();
    let started: Vec<_> = (0..8)
        .map(|number| {
            let mut command = nexus.command(["mkdir", &format!("/{number}")]);
            command.stdin(Stdio::null()).spawn().expect("it starts")
        })
        .collect();
    for mut one in started {
        assert!(one.wait().expect("it ends").success());
    }
    assert_eq!(nexus.good("ls /").lines().count(), 8);
}

#[test]
fn many_short_commands_get_their_turn_in_the_order_of_coming() {
    const WRITERS: usize = 16;
    const EACH: usize = 3;
    let nexus = Nexus::new();
    nexus.good("stream make /s");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let nexus = &nexus;
            scope.spawn(move || {
                for n in 0..EACH {
                    nexus.good(&format!("stream append /s {writer}-{n}"));
                }
            });
        }
    });
    assert_eq!(nexus.good("stream read /s").lines().count(), WRITERS * EACH);
}

#[test]
fn who_waits_for_others_waits_for_a_place_among_the_clients_too() {
    let nexus = Nexus::new();
    nexus.feed("write /w/0", "0");
    let _serving = Serving::start(&nexus, &["serve", "--clients", "1"]);
    let mut watch = Watch::start(&nexus, &["/w", "--since", "1", "--wait", "2s", "--mask", "file_write"]);
    assert!(watch.line().ends_with("file_write nexus /w/0"), "it has the place");
    let ended = nexus.run("lock /a -w 60s -- echo mine");
    assert_eq!((ended.status, &*ended.out, &*ended.err), (0, "mine\n", ""));
    assert_eq!(watch.ended(), Some(0));
}

#[test]
fn how_many_clients_an_owner_in_the_background_takes_is_said_by_the_environment() {
    let nexus = Nexus::new();
    let held = Held::start(&nexus, "l").until_it_is_held();
    let served = |clients: &str| {
        let mut serve = nexus.command(["serve"]);
        serve.env("NEXUS_CLIENTS", clients);
        end(serve, "")
    };
    let refused = served("none");
    assert_eq!(
        (refused.status, &*refused.err),
        (2, "nexus: $NEXUS_CLIENTS is \"none\", and no number of clients\n")
    );
    assert_eq!(served("0").status, 2);
    // Who would start one is told so, too, and does not become the owner itself.
    let mut waits = nexus.command(["lock", "/count", "--", "true"]);
    waits.env("NEXUS_CLIENTS", "64 ");
    let refused = end(waits, "");
    assert_eq!(
        (refused.status, &*refused.err),
        (2, "nexus: $NEXUS_CLIENTS is \"64 \", and no number of clients\n")
    );
    assert_eq!(held.end(), Some(0));
    until("nobody owns the folder", || nexus.is_free());
    // They are more than there are places.
    std::thread::scope(|scope| {
        for _ in 0..5 {
            let mut command = nexus.command(["lock", "/count", "--", "true"]);
            command.env("NEXUS_CLIENTS", "2");
            scope.spawn(move || {
                let ended = end(command, "");
                assert_eq!((ended.status, &*ended.err), (0, ""));
            });
        }
    });
}

#[test]
fn what_keeps_an_owner_from_starting_is_told() {
    let nexus = Nexus::new();
    let owner = blocking::connect(Config::new(nexus.data())).expect("it boots");
    let refused = nexus.run("lock /a -- true");
    assert_eq!(refused.status, 1);
    assert!(refused.err.ends_with("which does not serve nexus.sock (EBUSY)\n"), "{refused:?}");
    owner.shutdown().expect("it stops");
    fs::write(nexus.data().join("nexus.lock"), "format 7000\n").expect("there is room");
    let refused = nexus.run("lock /a -- true");
    assert_eq!(refused.status, 1);
    assert!(refused.err.contains("the data folder has format 7000"), "{refused:?}");
}

#[test]
fn who_cannot_start_an_owner_says_that_it_is_the_owner_itself() {
    let nexus = Nexus::new();
    let binary = nexus.host("nexus");
    // Not written to, where that can be: it could not be run while a process that begins just then has it open for that.
    let own = env!("CARGO_BIN_EXE_nexus");
    fs::hard_link(own, &binary).or_else(|_| fs::copy(own, &binary).map(drop)).expect("there is room");
    let open = fs::File::open(&binary).expect("it is there");
    // As after an upgrade.
    fs::remove_file(&binary).expect("it is ours");
    let mut gone = Command::new(format!("/proc/self/fd/{}", open.as_raw_fd()));
    gone.arg("--data").arg(nexus.data()).args(["lock", "/a", "--", "true"]);
    let ended = end(gone, "");
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.err.contains("no owner can be started in the background"), "{ended:?}");
}

#[test]
fn a_folder_can_be_served_once_nobody_waits_there_any_more() {
    let nexus = Nexus::new();
    nexus.good("lock /a --ttl 10m");
    let serving = Serving::start(&nexus, &["serve", "--while-used"]);
    assert!(serving.is_there(), "the owner that was there has ended");
    let refused = nexus.run("lock -n /a -- true");
    assert!(refused.err.contains("nexus holds it for"), "{refused:?}");
    // That was the last client.
    assert_eq!(serving.ended(), Some(0));
    nexus.good("unlock --force /a");
    nexus.good("lock /a -- true");
    assert!(Serving::start(&nexus, &["serve"]).is_there());
}
