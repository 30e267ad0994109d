//! What the commands do and print.

use serde_json::{Value, json};

use crate::fixture::Nexus;

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn content_is_written_appended_edited_and_read_in_parts() {
    let nexus = Nexus::new();
    let feed = |line: &str, input: &str| assert_eq!(nexus.feed(line, input).status, 0, "{line}");
    feed("write /a/b.txt", "hello world\n");
    feed("append /a/b.txt -", "hello moon\n");
    assert_eq!(nexus.good("cat /a/b.txt"), "hello world\nhello moon\n");
    assert_eq!(nexus.good("cat --offset 6 --count 5 /a/b.txt"), "world");
    assert_eq!(nexus.good("cat --offset 100 /a/b.txt"), "");
    nexus.good("edit /a/b.txt --old moon --new mars");
    assert_eq!(nexus.run("edit /a/b.txt --old hello --new bye").status, 1);
    nexus.good("edit /a/b.txt --old hello --new bye --all");
    assert_eq!(nexus.good("cat /a/b.txt"), "bye world\nbye mars\n");
    std::fs::write(nexus.host("file"), b"\xff\0").expect("there is room");
    nexus.run_args(["write".as_ref(), "/a/b.txt".as_ref(), nexus.host("file").as_os_str()]);
    let read = json_lines(&nexus.good("--json cat /a/b.txt"));
    assert_eq!(read, [json!({ "path": "/a/b.txt", "size": 2, "offset": 0, "count": 2, "base64": "/wA=" })]);
}

#[test]
fn entries_are_made_moved_copied_and_removed() {
    let nexus = Nexus::new();
    nexus.good("mkdir -p /a/b/c");
    nexus.good("mkdir -p /a/b/c");
    nexus.good("mkdir /a/d");
    nexus.feed("write /a/b/f", "x");
    nexus.good("ln -s ../b/f /a/d/l");
    assert_eq!(nexus.good("cat /a/d/l"), "x");
    nexus.good("mv /a/b /a/e");
    assert_eq!(nexus.run("cat /a/d/l").status, 1);
    nexus.good("cp /a/e/f /a/b/f");
    assert_eq!(nexus.good("cat /a/d/l"), "x");
    assert_eq!(nexus.good("ls -R /a"), "/a/b\n/a/b/f\n/a/d\n/a/d/l\n/a/e\n/a/e/c\n/a/e/f\n");
    assert_eq!(nexus.good("ls /a"), "b\nd\ne\n");
    assert_eq!(
        nexus.good("tree /a"),
        "/a\n├── b\n│   └── f\n├── d\n│   └── l -> ../b/f\n└── e\n    ├── c\n    └── f\n\n4 directories, 3 other entries\n"
    );
    let removed = json_lines(&nexus.good("--json rm -r /a/e"));
    assert_eq!(removed, [json!({ "path": "/a/e", "removed": 3 })]);
    nexus.good("rm /a/d/l");
    assert_eq!(nexus.good("cat /a/b/f"), "x");
}

#[test]
fn every_result_comes_as_json() {
    let nexus = Nexus::new();
    let made = nexus.feed("--json write /d/f", "fn main\n").out;
    let made = &json_lines(&made)[0];
    assert_eq!(
        (&made["written"], &made["created"], &made["version"], &made["durability"]),
        (&json!(8), &json!(true), &json!(1), &json!("strong"))
    );
    let check = |line: &str, fields: &[&str]| {
        let printed = json_lines(&nexus.good(line));
        assert!(!printed.is_empty(), "{line}");
        for value in &printed {
            for field in fields {
                assert!(value.get(field).is_some(), "{line}: no {field} in {value}");
            }
        }
    };
    let entry =
        ["path", "type", "size", "mode", "owner", "modified", "created", "changed", "mime", "file_id"];
    check("ls --json /d", &entry);
    check("--json ls -R /", &entry);
    check("tree --json", &entry);
    check("stat --json /d /d/f", &entry);
    check("mkdir --json /m /n", &["path", "created"]);
    check("ln --json -s /d/f /l", &["path", "target", "created"]);
    check("glob --json /d/*", &["path"]);
    check("grep --json main /d", &["path", "line", "text"]);
    check("grep --json -l main /d", &["path"]);
    check("grep --json -c main /d", &["path", "count"]);
    check("append --json /d/f", &["path", "written", "size", "lsn"]);
    check("edit --json /d/f --old main --new other", &["path", "places"]);
    check("cp --json -r /d /c", &["from", "to", "files", "bytes"]);
    check("mv --json /c /c2", &["from", "to", "replaced"]);
    check("mount --json /memory --driver memory", &["path", "driver", "created"]);
    check(
        "mounts --json",
        &["zone", "point", "driver", "options", "read_only", "state", "actor", "calls", "errors", "times"],
    );
    check("mounts --json", &["bytes_read", "bytes_written", "cache", "last_failure"]);
    check(
        "mount --json / --driver cas-local --opt deadline_ms=5000 --replace",
        &["path", "driver", "swapped"],
    );
    check("umount --json /memory", &["path"]);
    check("ps --json", &["id", "state", "generation", "restarts", "bound", "last_exit", "children"]);
    check("top --json", &["actors", "syscalls", "mounts", "committer", "caches"]);
    check("kill --json nexus/kernel/router", &["actor", "how", "last_exit", "generation"]);
    check("kill --json --handling after nexus/kernel/router", &["actor", "how", "armed"]);
    let stat = &json_lines(&nexus.good("--json stat /l"))[0];
    assert_eq!((&stat["type"], &stat["target"]), (&json!("link"), &json!("/d/f")));
    let stat = &json_lines(&nexus.good("--json stat -L /l"))[0];
    assert_eq!(
        (&stat["type"], &stat["path"], &stat["mode"]),
        (&json!("file"), &json!("/d/f"), &json!("0644"))
    );
}

#[test]
fn a_mount_is_remembered_and_copied_across() {
    let nexus = Nexus::new();
    let folder = nexus.host("plain");
    std::fs::create_dir(&folder).expect("there is room");
    std::fs::write(folder.join("f"), "plain").expect("there is room");
    nexus.good(&format!("mount /plain --driver path-local --opt folder={}", folder.display()));
    assert_eq!(nexus.good("cat /plain/f"), "plain");
    assert_eq!(nexus.good("ls /"), "plain\n");
    let mounts = nexus.good("mounts");
    let plain = mounts.lines().find(|line| line.starts_with("/plain ")).expect("it is listed");
    let words: Vec<_> = plain.split_whitespace().take(4).collect();
    assert_eq!(words, ["/plain", "path-local", "read-write", "serving"], "{mounts}");
    assert!(plain.contains(&format!("folder={}", folder.display())), "{mounts}");
    let across = nexus.run("mv /plain/f /f");
    assert_eq!(across.status, 1);
    assert!(across.err.ends_with("(EXDEV)\n"), "{}", across.err);
    nexus.good("cp /plain/f /f");
    nexus.feed("write /plain/g", "ours");
    assert_eq!(std::fs::read(folder.join("g")).expect("it is there"), b"ours");
    nexus.good("umount /plain");
    assert_eq!(nexus.run("cat /plain/f").status, 1);
    assert_eq!(nexus.good("cat /f"), "plain");
    nexus.good(&format!("mount /plain --driver path-local --read-only --opt folder={}", folder.display()));
    let refused = nexus.feed("write /plain/g", "x");
    assert!(refused.status == 1 && refused.err.ends_with("(EROFS)\n"), "{refused:?}");
}

#[test]
fn the_tree_of_actors_is_shown() {
    let nexus = Nexus::new();
    let tree = nexus.good("ps");
    for actor in ["committer", "router", "locks", "dispatch", "watcher", "lifecycle", "drivers", "services"] {
        assert!(tree.contains(actor), "no {actor} in\n{tree}");
    }
}

#[test]
fn a_bad_command_does_not_end_the_shell() {
    let nexus = Nexus::new();
    let script = "mkdir /a\nno-such-command\nstat /nope\nls 'unclosed\n\n# nothing\nln -s 'a b' \"/a/l m\"\nls /a\n\
                  --json stat /a/l\\ m\nhelp\nexit\nmkdir /never\n";
    let ended = nexus.feed("shell", script);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.out.starts_with("l m\n{"), "{}", ended.out);
    assert!(ended.out.contains("\"target\":\"a b\""), "{}", ended.out);
    assert!(ended.err.contains("no-such-command") && ended.err.contains("stat /nope"), "{}", ended.err);
    assert_eq!(nexus.good("ls /"), "a\n");
    assert_eq!(nexus.feed("shell", "ls /\nstat /nope\n").status, 1, "the status is that of the last command");
}

#[test]
fn what_is_written_to_be_seen_is_brought_to_the_disk_when_asked_for() {
    let nexus = Nexus::new();
    let written = nexus.feed("--json write --eventual /a", "soon").out;
    let written = &json_lines(&written)[0];
    assert_eq!(written["durability"], "eventual");
    let synced = json_lines(&nexus.good("--json sync /a"));
    assert!(synced[0]["lsn"].as_u64() >= written["lsn"].as_u64(), "{synced:?}");
    assert_eq!(nexus.good("sync"), "");
    assert_eq!(nexus.good("cat /a"), "soon");
    let missing = nexus.run("sync /nothing");
    assert_eq!(missing.status, 1);
    assert!(missing.err.contains("sync /nothing"), "{}", missing.err);
    nexus.good("mount /s --driver cas-local --opt class=scratch");
    nexus.feed("write /s/x", "x");
    assert_eq!(nexus.good("ls /s"), "", "each command is a process of its own");
}

#[test]
fn an_error_is_one_line_whatever_is_in_it() {
    let nexus = Nexus::new();
    let told = nexus.run_args(["mount", "/m", "--driver", "local", "--opt", "folder=/no\nsuch\u{1b}[2J"]);
    assert_eq!((told.status, told.err.lines().count()), (1, 1), "{told:?}");
    assert!(told.err.contains("/no\\nsuch\\u{1b}[2J") && told.err.ends_with("(EINVAL)\n"), "{told:?}");
}

#[test]
fn drivers_and_their_options_are_listed() {
    let nexus = Nexus::new();
    let listed = nexus.good("drivers");
    for name in ["cas-local", "local", "memory"] {
        assert!(listed.lines().any(|line| line.split_whitespace().next() == Some(name)), "{listed}");
    }
    let told = json_lines(&nexus.good("--json drivers"));
    assert_eq!(told.len(), listed.lines().count());
    let memory = told.iter().find(|driver| driver["name"] == "memory").expect("it is there");
    assert_eq!((&memory["volatile"], &memory["elsewhere"]), (&json!(true), &json!(false)));
    let local = nexus.good("drivers local");
    assert!(local.starts_with("folder (needed): "), "{local}");
    let local = &json_lines(&nexus.good("--json drivers local"))[0];
    assert_eq!(
        (&local["options"][0]["key"], &local["options"][0]["required"]),
        (&json!("folder"), &json!(true))
    );
    let unknown = nexus.run("drivers floppy");
    assert_eq!(unknown.status, 2);
    assert!(unknown.err.contains("\"floppy\"") && unknown.err.contains("cas-local"), "{}", unknown.err);
    // No kernel is needed for that.
    assert!(!nexus.data().exists(), "nothing was made");
}
