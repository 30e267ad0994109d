//! Owners that start, end and start again.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::thread;

use nexus::blocking::{self, attach, connect_or_attach};
use nexus::{Config, ErrorKind, Executed, Serving, SysLock, VPath};
use nexus_actors::block_on;

use crate::bench::{Bench, PATIENCE, own, until};

#[test]
fn a_handle_outlives_the_restart_of_the_owner() {
    let Bench { owner, folder } = &Bench::new(Serving::administrator());
    let nx = attach(folder.path()).expect("it is served");
    nx.write("/f", "one").expect("it writes");
    owner.shutdown().expect("it stops");
    assert!(!folder.path().join("nexus.sock").exists());
    let gone = nx.read("/f").expect_err("nobody is there");
    assert_eq!((gone.kind(), gone.executed()), (ErrorKind::Down, Executed::No));
    assert!(gone.to_string().starts_with("read /f: "), "{gone}");
    let gone = nx.write("/f", "late").expect_err("nobody is there");
    assert_eq!((gone.kind(), gone.executed()), (ErrorKind::Down, Executed::No), "{gone}");

    let again = own(folder.path(), Serving::administrator());
    assert_eq!(nx.read("/f").expect("it attaches anew"), "one");
    nx.append("/f", " two").expect("it writes");
    assert_eq!(again.read("/f").expect("it is there"), "one two");
    again.shutdown().expect("it stops");
    // The grant may have become less meanwhile; the owner has the last word.
    let less = own(folder.path(), Serving::agent("a"));
    assert_eq!(
        nx.write("/f", "late").expect_err("it is no administrator's").kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(less.read("/f").expect("it is there"), "one two");
}

#[test]
fn who_attaches_again_and_is_not_polled_any_more_holds_up_nobody() {
    let folder = tempfile::tempdir().expect("there is room");
    let owner = own(folder.path(), Serving::administrator());
    let nx = attach(folder.path()).expect("it is served");
    nx.write("/f", "one").expect("it writes");
    owner.shutdown().expect("it stops");
    nx.read("/f").expect_err("nobody is there");
    let again = own(folder.path(), Serving::administrator());
    let there = nx.as_async();
    let mut left = pin!(there.read("/f"));
    assert!(left.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it attaches");
    let read = block_on(nx.env().timeout(PATIENCE, there.read("/f")));
    assert_eq!(read.expect("it is not held up").expect("it is there"), "one");
    again.shutdown().expect("it stops");
}

#[test]
fn a_lock_that_ended_with_its_kernel_is_told_to_be_lost_as_soon_as_another_one_is_there() {
    let folder = tempfile::tempdir().expect("there is room");
    let owner = own(folder.path(), Serving::administrator());
    let nx = attach(folder.path()).expect("it is served");
    let call = SysLock::exclusive(VPath::parse("/l").expect("it is one")).ttl(SysLock::TTL_MAX);
    let guard = block_on(nx.as_async().locked_with(call, SysLock::TTL_MAX)).expect("it is free");
    owner.shutdown().expect("it stops");
    let again = own(folder.path(), Serving::administrator());
    block_on(nx.env().timeout(PATIENCE, guard.lost())).expect("long before its time is over");
    assert!(guard.is_lost());
    again.shutdown().expect("it stops");
}

#[test]
fn the_end_of_an_attached_handle_is_not_the_kernels() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let other = nx.agent("a").expect("it may");
    nx.shutdown().expect("it lets go");
    nx.shutdown().expect("it has let go");
    for late in [nx.read("/f").map(drop), other.write("/f", "x").map(drop)] {
        assert_eq!(late.expect_err("it has let go").kind(), ErrorKind::Down);
    }
    bench.owner.write("/f", "x").expect("the kernel goes on");
    until(&bench.owner, "its end", || bench.owner.serving().unwrap().unwrap().connections == 0);
    drop(bench.attach());
    until(&bench.owner, "its end", || bench.owner.serving().unwrap().unwrap().connections == 0);
}

#[test]
fn a_kernel_whose_last_handle_is_dropped_ends_whoever_is_attached() {
    let folder = tempfile::tempdir().expect("there is room");
    let owner = own(folder.path(), Serving::administrator());
    let nx = attach(folder.path()).expect("it is served");
    nx.write("/f", "x").expect("it writes");
    drop(owner);
    until(&nx, "its end", || nx.read("/f").is_err_and(|error| error.kind() == ErrorKind::Down));
    let next = connect_or_attach(folder.path()).expect("the folder comes free");
    assert!(next.kernel().is_ok(), "it owns it");
    assert_eq!(next.read("/f").expect("it is there"), "x");
}

#[test]
fn who_does_not_serve_is_named() {
    let folder = tempfile::tempdir().expect("there is room");
    assert_eq!(attach(folder.path()).map(drop).expect_err("there is nobody").kind(), ErrorKind::Down);
    let _owner = blocking::connect(folder.path()).expect("it boots");
    let refused = connect_or_attach(folder.path()).map(drop).expect_err("it is not served");
    let expected = format!(
        "connect {}: busy: the data folder is in use by this process, which does not serve nexus.sock (EBUSY)",
        folder.path().display()
    );
    assert_eq!(refused.to_string(), expected);
}

#[test]
fn a_second_owner_is_refused_and_told_of_the_socket() {
    let bench = Bench::new(Serving::administrator());
    let refused = blocking::connect(bench.folder.path()).map(drop).expect_err("it is held");
    assert!(
        refused.to_string().ends_with("in use by this process, which serves nexus.sock (EBUSY)"),
        "{refused}"
    );
    bench.attach().write("/f", "x").expect("who was refused has broken nothing");
}

#[test]
fn a_folder_with_a_long_path_is_served() {
    let top = tempfile::tempdir().expect("there is room");
    let folder = top.path().join("long/".repeat(50)).join("x".repeat(200));
    let owner = own(&folder, Serving::administrator());
    let nx = attach(&folder).expect("it is served");
    nx.write("/f", "x").expect("it writes");
    assert_eq!(owner.read("/f").expect("it is there"), "x");
}

#[test]
fn owners_and_clients_come_and_go_and_nothing_is_lost() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 12;
    let folder = tempfile::tempdir().expect("there is room");
    let (owned, attached) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (folder, owned, attached) = (folder.path(), &owned, &attached);
            let run = move || {
                for round in 0..ROUNDS {
                    // Whoever comes first owns it, and ends while others are just about to attach, or call.
                    let config = Config::new(folder).serve(Serving::administrator());
                    let nx = connect_or_attach(config).expect("it is owned, or served");
                    let is_owner = nx.kernel().is_ok();
                    (if is_owner { owned } else { attached }).fetch_add(1, Ordering::Relaxed);
                    let file = format!("/{thread}/{round}");
                    let written = loop {
                        match nx.write(&file, "x") {
                            // The owner may be gone; what was not executed, and what may be repeated, is repeated.
                            Err(error) if error.kind() == ErrorKind::Down => {
                                let again = Config::new(folder).serve(Serving::administrator());
                                let nx = connect_or_attach(again).expect("it is owned, or served");
                                if nx.write(&file, "x").is_ok() {
                                    break true;
                                }
                            }
                            done => break done.is_ok(),
                        }
                    };
                    assert!(written);
                    if is_owner {
                        // Else each of them may be gone before another one comes, and nobody ever attaches.
                        until(&nx, "a client", || attached.load(Ordering::Relaxed) > 0);
                    }
                    nx.shutdown().expect("it ends");
                }
            };
            thread::Builder::new().spawn_scoped(scope, run).expect("it starts");
        }
    });
    assert!(owned.load(Ordering::Relaxed) > 0, "{owned:?} {attached:?}");
    let last = blocking::connect(folder.path()).expect("it is free");
    assert_eq!(last.walk("/").count(), THREADS + THREADS * ROUNDS);
}

#[test]
fn calls_under_way_at_an_orderly_end_are_answered_or_say_that_they_were_not_executed() {
    let Bench { owner, folder } = &Bench::new(Serving::administrator());
    let stopped = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (folder, stopped) = (folder.path(), &stopped);
                let run = move || {
                    let nx = attach(folder).expect("it is served");
                    let mut acknowledged = Vec::new();
                    for n in 0.. {
                        match nx.append(format!("/log{writer}"), format!("{n}\n")) {
                            Ok(_) => acknowledged.push(n),
                            Err(error) => {
                                assert!(stopped.load(Ordering::Acquire), "{error}");
                                assert_eq!(
                                    (error.kind(), error.executed()),
                                    (ErrorKind::Down, Executed::No),
                                    "{error}"
                                );
                                break;
                            }
                        }
                    }
                    acknowledged
                };
                thread::Builder::new().spawn_scoped(scope, run).expect("it starts")
            })
            .collect();
        until(owner, "some writes", || owner.serving().unwrap().unwrap().served > 100);
        stopped.store(true, Ordering::Release);
        owner.shutdown().expect("it stops");
        writers.into_iter().map(|writer| writer.join().expect("it ends")).collect::<Vec<Vec<i32>>>()
    });
    let again = blocking::connect(folder.path()).expect("it is free");
    for (writer, acknowledged) in acknowledged.into_iter().enumerate() {
        let log = again.read(format!("/log{writer}")).expect("it is there");
        let kept: Vec<i32> =
            String::from_utf8_lossy(&log).lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(kept, acknowledged, "all that was acknowledged, and nothing else");
    }
}
