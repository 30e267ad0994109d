//! Who passes the gate.

use nexus_actors::block_on;
use nexus_messages::ZoneId;

use super::*;

/// Answers by the last component of the path.
struct ByName;

impl Permission for ByName {
    fn check(&self, _: &Caller, right: Right, path: &VPath) -> Decision {
        match path.name().unwrap_or_default() {
            "open" => Decision::Allow,
            "slow" => Decision::Slow(Box::pin(async { Ok(()) })),
            "slow-no" => Decision::Slow(Box::pin(async { Err("thought about it".into()) })),
            "broken" => panic!("no idea"),
            "slow-broken" => Decision::Slow(Box::pin(async { panic!("lost it") })),
            _ => Decision::Deny(format!("no {right:?} here")),
        }
    }
}

fn caller(agent: &str) -> Caller {
    Caller::agent(agent, ZoneId::root())
}

fn guarded() -> PermissionGate {
    let gate = PermissionGate::new();
    gate.set_provider(1, Some(Arc::new(ByName))).unwrap();
    gate
}

fn check(gate: &PermissionGate, name: &str, owner: Option<Owner<'_>>, expected: Result<(), &str>) {
    let path = VPath::root().join(name).unwrap();
    let got = block_on(gate.pass(&caller("coder"), Right::Write, &path, owner));
    assert_eq!(
        got.as_ref().map_err(|denied| denied.reason.as_str()),
        expected.as_ref().map_err(|r| *r),
        "{name}"
    );
}

#[test]
fn without_a_provider_everything_passes() {
    check(&PermissionGate::new(), "x", None, Ok(()));
}

#[test]
fn the_provider_decides_now_or_later() {
    let gate = guarded();
    check(&gate, "open", None, Ok(()));
    check(&gate, "x", None, Err("no Write here"));
    check(&gate, "slow", None, Ok(()));
    check(&gate, "slow-no", None, Err("thought about it"));
}

#[test]
fn a_provider_that_breaks_denies() {
    let gate = guarded();
    check(&gate, "broken", None, Err("the permission provider panicked: no idea"));
    check(&gate, "slow-broken", None, Err("the permission provider panicked: lost it"));
    check(&gate, "open", None, Ok(()));
}

#[test]
fn the_owner_passes_unasked_and_nobody_else_with_its_name_does() {
    let gate = guarded();
    let (root, team) = (ZoneId::root(), ZoneId::parse("team").unwrap());
    check(&gate, "broken", Some(Owner { zone: &root, agent: "coder" }), Ok(()));
    check(&gate, "x", Some(Owner { zone: &root, agent: "other" }), Err("no Write here"));
    check(&gate, "x", Some(Owner { zone: &team, agent: "coder" }), Err("no Write here"));
    let nameless = block_on(gate.pass(
        &caller(""),
        Right::Read,
        &VPath::parse("/x").unwrap(),
        Some(Owner { zone: &root, agent: "" }),
    ));
    assert!(nameless.is_err(), "what belongs to nobody does not belong to the nameless");
}

#[test]
fn an_old_writer_cannot_take_the_provider_away() {
    let gate = guarded();
    gate.set_provider(3, Some(Arc::new(ByName))).unwrap();
    assert!(gate.set_provider(2, None).is_err());
    check(&gate, "x", None, Err("no Write here"));
    gate.set_provider(3, None).unwrap();
    check(&gate, "x", None, Ok(()));
}
