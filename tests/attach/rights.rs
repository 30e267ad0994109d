//! Who attaches has what the owner grants, never more.

use std::fmt::Debug;
use std::sync::Arc;

use nexus::gate::{Decision, Permission};
use nexus::{Caller, Config, ErrorKind, MountSpec, Result, Right, Serving, VPath, ZoneId, blocking};

use crate::bench::Bench;

#[track_caller]
fn refused<T: Debug>(done: Result<T>, kind: ErrorKind) {
    let error = done.expect_err("it is refused");
    assert_eq!(error.kind(), kind, "{error}");
}

/// Lets agents see nothing below `/secret`, and change nothing of others.
struct Secrets;

impl Permission for Secrets {
    fn check(&self, caller: &Caller, right: Right, path: &VPath) -> Decision {
        let secret = path.as_str().starts_with("/secret");
        match caller.admin || (!secret && matches!(right, Right::Read | Right::List | Right::Create)) {
            true => Decision::Allow,
            false => Decision::Deny("it is a secret".into()),
        }
    }
}

#[test]
fn an_agent_that_is_granted_is_that_agent_and_no_more() {
    let bench = Bench::new(Serving::agent("coder-7"));
    let owner = &bench.owner;
    owner.write("/secret/plan", "x").expect("it writes");
    owner.write("/open", "y").expect("it writes");
    owner.set_permission(Some(Arc::new(Secrets))).expect("it may");
    let nx = bench.attach();
    assert_eq!((&*nx.caller().agent, nx.is_admin()), ("coder-7", false));

    refused(nx.mount("/m", MountSpec::new("memory")), ErrorKind::PermissionDenied);
    refused(nx.unmount("/"), ErrorKind::PermissionDenied);
    refused(nx.kill("nexus/kernel/router", nexus::Kill::Panic), ErrorKind::PermissionDenied);
    refused(nx.tree(), ErrorKind::PermissionDenied);
    refused(nx.kernel().map(drop), ErrorKind::PermissionDenied);
    refused(nx.zone("team"), ErrorKind::PermissionDenied);
    refused(nx.agent("somebody-else"), ErrorKind::PermissionDenied);
    refused(nx.agent("nexus"), ErrorKind::InvalidArgument);
    refused(nx.write("/__sys__/actors/nexus/kernel/router", "panic"), ErrorKind::PermissionDenied);
    refused(nx.read("/secret/plan"), ErrorKind::PermissionDenied);
    refused(nx.write("/secret/plan", "z"), ErrorKind::PermissionDenied);
    refused(nx.write("/open", "z"), ErrorKind::PermissionDenied);
    assert!(!nx.access("/secret/plan", Right::Read).expect("it looks"));
    let names: Vec<_> = nx.walk("/").map(|entry| entry.expect("it walks").path.to_string()).collect();
    assert!(!names.contains(&"/secret/plan".to_owned()), "{names:?}");

    assert_eq!(nx.read("/open").expect("it may"), "y");
    nx.write("/own", "1").expect("it may");
    nx.append("/own", "2").expect("it is its own");
    assert_eq!(&*owner.stat("/own").expect("it is there").owner, "coder-7");
    assert_eq!(owner.mounts().expect("it looks").len(), 1);
    nx.agent("coder-7").expect("it is").read("/own").expect("it may");
}

#[test]
fn an_administrator_that_is_granted_may_be_less() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let agent = nx.agent("coder-7").expect("it may");
    agent.write("/plan", "x").expect("it may");
    assert_eq!(&*bench.owner.stat("/plan").expect("it is there").owner, "coder-7");
    refused(agent.mount("/m", MountSpec::new("memory")), ErrorKind::PermissionDenied);
    refused(agent.zone("team"), ErrorKind::PermissionDenied);
    refused(nx.agent("a/b"), ErrorKind::InvalidArgument);
    let team = nx.zone("team").expect("it may");
    team.mount("/m", MountSpec::new("memory")).expect("it may");
    team.agent("other").expect("it may").write("/m/f", "y").expect("it may");
    let there = bench.owner.zone("team").expect("it may");
    assert_eq!(
        (there.read("/m/f").expect("it is there"), bench.owner.exists("/m").unwrap()),
        ("y".into(), false)
    );
    // On one connection they are told apart call by call.
    assert_eq!(&*nx.stat("/plan").expect("it is there").owner, "coder-7");
    assert!(nx.is_admin() && team.is_admin() && !agent.is_admin());
}

#[test]
fn a_grant_can_be_in_a_zone() {
    let team = ZoneId::parse("team").expect("it names one");
    let bench = Bench::new(Serving::administrator().zone(team.clone()));
    let nx = bench.attach();
    assert_eq!(nx.caller().zone, team);
    nx.mount("/m", MountSpec::new("memory")).expect("it may");
    assert!(!bench.owner.exists("/m").expect("it looks"));
    let bench = Bench::new(Serving::agent("a").zone(team.clone()));
    assert_eq!((&*bench.attach().caller().agent, &bench.attach().caller().zone), ("a", &team));
}

#[test]
fn what_cannot_be_served_is_refused_at_the_boot() {
    let folder = tempfile::tempdir().expect("there is room");
    for name in ["", "a/b", "nexus", "service:audit"] {
        refused(
            blocking::connect(Config::new(folder.path()).serve(Serving::agent(name))).map(drop),
            ErrorKind::InvalidArgument,
        );
    }
    refused(
        blocking::connect(Config::in_memory().serve(Serving::administrator())).map(drop),
        ErrorKind::InvalidArgument,
    );
    // What was started for it is stopped, and the folder is free.
    blocking::connect(folder.path()).expect("it boots");
}
