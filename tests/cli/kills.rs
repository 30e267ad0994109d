//! `kill`: what is told of what does not come back as it was.

use serde_json::Value;

use crate::fixture::Nexus;
use crate::watching::Server;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

#[test]
fn of_a_version_on_probation_that_is_killed_the_one_is_told_that_serves() {
    let nexus = Nexus::new();
    nexus.good("register audit audit");
    let server = Server::start(&nexus);
    let swap = || {
        nexus.good("swap audit --probation 600");
        json(&nexus.good("--json services"))["path"].as_str().expect("it has an actor").to_owned()
    };
    let told = nexus.good(&format!("kill {}", swap()));
    assert!(told.ends_with(": ended, and version 1.0.0 #1 serves\n"), "{told}");
    let told = json(&nexus.good(&format!("--json kill --how brutal {}", swap())));
    assert_eq!((&told["outcome"], &told["serves"]["number"]), (&"swapped_back".into(), &1.into()), "{told}");
    let status = json(&nexus.good("--json services"));
    assert_eq!((&status["swap_backs"], &status["serving"]), (&2.into(), &told["serves"]));
    // What is not on probation comes back itself.
    let told = json(&nexus.good("--json kill nexus/services/audit@1"));
    assert_eq!((&told["outcome"], &told["serves"]), (&"restarted".into(), &Value::Null), "{told}");
    drop(server);
}

#[test]
fn a_kernel_ends_with_its_root() {
    let nexus = Nexus::new();
    nexus.feed("write /f", "kept");
    assert_eq!(nexus.good("kill nexus"), "nexus: gone with its kernel\n");
    let told = json(&nexus.good("--json kill nexus --how brutal"));
    assert_eq!((&told["actor"], &told["outcome"]), (&"nexus".into(), &"kernel_ended".into()));
    let server = Server::start(&nexus);
    let told = json(&nexus.good("--json kill nexus"));
    assert_eq!(told["outcome"], "kernel_ended");
    assert_eq!(server.ended(), Some(1), "the kernel ended by itself");
    assert_eq!(nexus.good("cat /f"), "kept");
    let nobody = nexus.run("kill nobody");
    assert_eq!((nobody.status, &*nobody.out), (1, ""), "{nobody:?}");
}
