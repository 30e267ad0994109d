use nexus_messages::{Caller, ZoneId};

use super::*;

fn path(text: &str) -> VPath {
    VPath::parse(text).unwrap()
}

#[test]
fn the_name_ends_at_a_separator() {
    let check = |text: &str, own: bool| assert_eq!(serves(&path(text)), own, "{text}");
    check("/__sys__", true);
    check("/__sys__/actors/x", true);
    check("/__sys__x", false);
    check("/a/__sys__", false);
    check("/", false);
}

#[test]
fn others_than_the_administrator_see_the_version_alone() {
    let agent = Caller::agent("coder-7", ZoneId::root());
    // The name of the kernel gives no rights: the handle does.
    let namesake = Caller::agent(Caller::KERNEL, ZoneId::root());
    let check = |right, text: &str, may: bool| {
        assert!(permits(&Caller::administrator(), right, &path(text)), "{right:?} {text}");
        assert_eq!(permits(&agent, right, &path(text)), may, "{right:?} {text}");
        assert_eq!(permits(&namesake, right, &path(text)), may, "{right:?} {text}");
    };
    check(Right::Read, "/__sys__", true);
    check(Right::List, "/__sys__", true);
    check(Right::Read, "/__sys__/version", true);
    check(Right::Write, "/__sys__/version", false);
    check(Right::Read, "/__sys__/versions", false);
    check(Right::Read, "/__sys__/version/x", false);
    check(Right::Read, "/__sys__/actors", false);
    check(Right::List, "/__sys__/actors", false);
    check(Right::Create, "/__sys__/x", false);
    check(Right::Write, "/other", true);
}

#[test]
fn providers_stand_in_the_order_of_their_names() {
    assert!(PROVIDERS.is_sorted_by_key(|provider| provider.name()));
    assert!(path(VERSION).is_within(&path(ROOT)));
}

#[test]
fn an_entry_is_an_indented_object_and_a_line_end() {
    let Entry::File { content, mime } = Entry::json(&serde_json::json!({ "a": [1] })) else {
        panic!("it is a file");
    };
    assert_eq!((&*content, mime), (&b"{\n  \"a\": [\n    1\n  ]\n}\n"[..], "application/json"));
}
