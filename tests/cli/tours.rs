//! The tour.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fixture::{Nexus, command, end};

fn steps(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn the_tour_of_an_empty_folder_makes_a_tree_and_holds() {
    let nexus = Nexus::new();
    let empty = nexus.host("empty");
    std::fs::create_dir(&empty).expect("there is room");
    let mut tour = command();
    tour.args(["--json", "tour"]).current_dir(&empty);
    let ended = end(tour, "");
    assert_eq!((ended.status, &*ended.err), (0, ""), "{}", ended.out);
    let steps = steps(&ended.out);
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(names[..6], ["source", "boot", "import", "compare", "read", "grep"]);
    assert!(steps[0]["says"].as_str().is_some_and(|says| says.contains("empty")), "{}", steps[0]);
    assert_eq!(names.iter().filter(|name| **name == "kill").count(), 13);
    let kills = steps.iter().find(|step| step["step"] == "kills").expect("primitives are killed");
    assert_eq!(kills["failed"], 0);
    let together = steps.iter().find(|step| step["step"] == "tx").expect("two agents commit");
    let won: u64 = together["won"].as_array().expect("two counts").iter().filter_map(Value::as_u64).sum();
    assert_eq!(together["rounds"].as_u64(), Some(won));
    let told = together["told"].as_str().expect("it is a text");
    assert!(told.contains("expected version 20, found version 21"), "{told}");
    let handed = steps.iter().find(|step| step["step"] == "pipe").expect("work is handed over");
    assert_eq!((&handed["jobs"], &handed["lines"]), (&200.into(), &400.into()));
    let policy = steps.iter().find(|step| step["step"] == "policy").expect("policies are swapped");
    assert_eq!((&policy["tried"], &policy["passed"], &policy["failed"]), (&15.into(), &0.into(), &0.into()));
    for crash in steps.iter().filter(|step| step["step"] == "kill -9") {
        assert_eq!((&crash["left"]["missing"], &crash["left"]["torn"]), (&0.into(), &0.into()));
        assert!(crash["left"]["acknowledged"].as_u64() >= Some(150), "{crash}");
    }
    assert_eq!(names.last(), Some(&"done"));
    assert!(std::fs::read_dir(&empty).expect("it is there").next().is_none(), "the folder stays empty");
}

#[test]
fn the_tour_of_what_fits_in_no_cache_reads_all_the_same() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    std::fs::create_dir(&source).expect("there is room");
    std::fs::write(source.join("large"), vec![7; (16 << 20) + 1]).expect("there is room");
    let ended = nexus.run_args(["--json".as_ref(), "tour".as_ref(), source.as_os_str()]);
    assert_eq!((ended.status, &*ended.err), (0, ""), "{}", ended.out);
    let steps = steps(&ended.out);
    for name in ["read", "kills"] {
        let step = steps.iter().find(|step| step["step"] == name).expect("it is a step");
        assert!(step["reads"].as_u64() > Some(0), "{step}");
    }
}

#[test]
fn the_tour_leaves_out_what_git_ignores_and_keeps_to_a_directory_of_its_own() {
    let nexus = Nexus::new();
    let source = nexus.host("source");
    for (name, content) in [
        (".gitignore", "/target\n*.log\n"),
        ("kept.txt", "kept"),
        (".hidden", "kept"),
        ("noise.log", "ignored"),
        ("target/x", "ignored"),
        (".git/config", "ignored"),
        ("deep/.gitignore", "secret\n"),
        ("deep/secret", "ignored"),
        ("deep/open", "kept"),
    ] {
        let path = source.join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("there is room");
        std::fs::write(path, content).expect("there is room");
    }
    nexus.feed("write /tour/mine", "mine");
    let ended = nexus.run_args(["tour".as_ref(), source.as_os_str()]);
    assert_eq!((ended.status, &*ended.err), (0, ""), "{}", ended.out);
    assert_eq!(
        nexus.good("glob /tour-2/tree/**"),
        "/tour-2/tree/.gitignore\n/tour-2/tree/.hidden\n/tour-2/tree/deep\n/tour-2/tree/deep/.gitignore\n/tour-2/tree/deep/open\n/tour-2/tree/kept.txt\n"
    );
    assert_eq!(nexus.good("ls -R /tour"), "/tour/mine\n");
}

#[test]
fn a_tour_that_is_interrupted_leaves_nothing_behind() {
    // While it imports, and while a process of its own writes.
    for until_step in ["boot", "kill -9"] {
        let nexus = Nexus::new();
        let (empty, temporary) = (nexus.host("empty"), nexus.host("temporary"));
        std::fs::create_dir(&empty).expect("there is room");
        std::fs::create_dir(&temporary).expect("there is room");
        let mut tour = command();
        tour.args(["--json", "tour"]).current_dir(&empty).env("TMPDIR", &temporary).stdout(Stdio::piped());
        let mut tour = tour.spawn().expect("it starts");
        let mut lines = BufReader::new(tour.stdout.take().expect("it is piped")).lines();
        let step = format!("\"step\":\"{until_step}\"");
        while !lines.next().expect("it comes to that").expect("it can be read").contains(&step) {}
        let mut kill = Command::new("kill");
        assert!(kill.arg("-INT").arg(tour.id().to_string()).status().expect("kill is there").success());
        assert_eq!(tour.wait().expect("it ends").code(), Some(130));
        let left: Vec<_> = std::fs::read_dir(&temporary).expect("it is there").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
