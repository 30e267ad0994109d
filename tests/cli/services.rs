//! `services`, `register`, `unregister`, `swap`: in a kernel of the command's own, and in one that another process serves.

use serde_json::Value;

use crate::fixture::Nexus;
use crate::watching::Server;

/// One file below `/q`, and no more.
const QUOTA: &str = r#"{"limits":[[{"below":"/q"},{"files":1}]]}"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

/// Whether the limit holds: `/q` has a file already.
fn is_limited(nexus: &Nexus) -> bool {
    let ended = nexus.feed("write /q/second", "x");
    assert!(ended.status == 0 || ended.err.ends_with("(EDQUOT)\n"), "{ended:?}");
    ended.status == 1
}

/// All of it, whoever owns the kernel.
fn services_are_registered_swapped_and_removed(nexus: &Nexus) {
    nexus.feed("write /q/first", "x");
    assert_eq!(nexus.good("services"), "");
    assert_eq!(nexus.good(&format!("register quota quota --config {QUOTA}")), "");
    let created = json(&nexus.good("--json register audit audit"));
    assert_eq!((&created["service"], &created["created"]), (&"audit".into(), &true.into()));
    let listed = nexus.good("services");
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines[0].starts_with("audit serving audit "), "{listed}");
    assert!(lines[1].starts_with("quota serving quota ") && lines[1].contains(" #1 "), "{listed}");
    let listed = nexus.good("--json services");
    let quota = json(listed.lines().nth(1).expect("two are registered"));
    assert_eq!((&quota["name"], &quota["state"]), (&"quota".into(), &"serving".into()));
    assert!(is_limited(nexus));

    // Who names no configuration keeps the one that serves; whether or not the factory is named.
    let told = nexus.good("swap quota --limit 1");
    assert!(told.contains(" #1 -> ") && told.contains(" #2, overlap: "), "{told}");
    assert!(is_limited(nexus), "a swap without a configuration drops no limit");
    let report = json(&nexus.good("--json swap quota quota --limit 1"));
    assert_eq!((&report["service"], &report["mode"]), (&"quota".into(), &"overlap".into()));
    assert!(is_limited(nexus), "nor does one that names the same factory");
    nexus.good("swap quota --limit 1 --config {}");
    assert!(!is_limited(nexus), "one that names another configuration has that");

    let gone = json(&nexus.good("--json unregister audit"));
    assert_eq!(gone["service"], "audit");
    assert_eq!(nexus.good("unregister quota"), "");
    assert_eq!(nexus.good("services"), "");
}

#[test]
fn services_are_managed_in_a_kernel_of_the_commands_own() {
    services_are_registered_swapped_and_removed(&Nexus::new());
}

#[test]
fn services_are_managed_in_the_kernel_of_another_process() {
    let nexus = Nexus::new();
    let server = Server::start(&nexus);
    services_are_registered_swapped_and_removed(&nexus);
    drop(server);
}

#[test]
fn what_cannot_be_done_to_a_service_is_told() {
    let nexus = Nexus::new();
    nexus.good("register quota quota");
    for (line, errno) in [
        ("unregister nope", "ENOENT"),
        ("swap nope", "ENOENT"),
        ("register x nope", "EINVAL"),
        ("register x quota --config {\"limit\":1}", "EINVAL"),
        ("swap quota nope", "EINVAL"),
        ("swap quota --config {\"limit\":1}", "EINVAL"),
        ("swap quota --exclusive", "EINVAL"),
        ("register quota quota --config {\"reads\":true}", "EEXIST"),
    ] {
        let ended = nexus.run(line);
        assert_eq!((ended.status, &*ended.out), (1, ""), "nexus {line}: {ended:?}");
        assert!(ended.err.ends_with(&format!("({errno})\n")), "nexus {line}: {}", ended.err);
    }
    for line in ["swap", "register quota", "unregister", "services x", "swap quota --overlap --exclusive"] {
        assert_eq!(nexus.run(line).status, 2, "nexus {line}");
    }
    assert!(nexus.good("services").starts_with("quota serving "), "all of that left it serving");
}

#[test]
fn a_swap_to_another_factory_says_so() {
    let nexus = Nexus::new();
    nexus.good("register audit audit");
    let same = nexus.good("swap audit");
    assert!(same.contains(" #1 -> ") && !same.contains("audit"), "{same}");
    let another = nexus.good("swap audit quota");
    assert!(another.starts_with("audit 1.0.0 #1 -> quota 1.0.0 #2, "), "{another}");
}
