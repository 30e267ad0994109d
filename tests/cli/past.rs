//! `versions`, `restore` and `--as-of`: what was there before, in a kernel of the command's own and in one that is served.

use serde_json::{Value, json};

use crate::fixture::Nexus;
use crate::serving::Serving;

/// Calls `check` once for each kernel that a command can be in.
fn in_both(check: fn(&Nexus)) {
    check(&Nexus::new());
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    check(&nexus);
}

/// Writes the file, and gives what the command printed of it.
fn write(nexus: &Nexus, at: &str, text: &str) -> Value {
    let ended = nexus.feed(&format!("--json write {at}"), text);
    assert_eq!((ended.status, &*ended.err), (0, ""), "write {at}");
    serde_json::from_str(&ended.out).expect("it is JSON")
}

fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

/// The command fails with just this.
fn refused(nexus: &Nexus, line: &str, told: &str) {
    let ended = nexus.run(line);
    assert_eq!((ended.status, &*ended.out, &*ended.err), (1, "", told), "nexus {line}");
}

#[test]
fn each_version_of_a_file_is_listed_read_and_restored() {
    in_both(|nexus| {
        let places = ["one", "two!", "three"].map(|text| write(nexus, "/f", text)["lsn"].clone());
        let told = lines(&nexus.good("--json versions /f"));
        let expected = [
            (json!(1), &places[0], places[1].clone(), json!(3)),
            (json!(2), &places[1], places[2].clone(), json!(4)),
            (json!(3), &places[2], Value::Null, json!(5)),
        ];
        for (version, (number, lsn, until, size)) in told.iter().rev().zip(&expected) {
            assert_eq!((&version["path"], &version["version"]), (&json!("/f"), number));
            assert_eq!((&version["lsn"], &version["until"], &version["size"]), (*lsn, until, size));
            assert_eq!((&version["op"], &version["by"]), (&json!("write"), &json!("nexus")));
            assert_eq!((&version["from"], &version["present"]), (*lsn, &json!(until.is_null())));
            assert_eq!((&version["type"], &version["id"]), (&json!("file"), &told[0]["id"]));
            assert!(version["from_at"].is_string() && version["until_at"].is_string() != until.is_null());
        }
        assert_eq!(told.len(), 3);
        let of_the_file = lines(&nexus.good("--json versions --file /f"));
        assert_eq!(of_the_file, told.iter().rev().cloned().collect::<Vec<_>>(), "it was nowhere else");
        let text = nexus.good("versions /f");
        let second = text.lines().nth(1).expect("there are three");
        assert!(
            second.trim_start().starts_with("2 ")
                && second.ends_with(&format!(" write nexus {}", told[0]["id"])),
            "{text}"
        );
        assert!(second.contains(&format!(" {}..{} ", places[1], places[2])), "{text}");

        let modified = told[1]["modified"].as_str().expect("it is a time").to_owned();
        assert_eq!(nexus.good("cat --as-of v:1 /f"), "one");
        assert_eq!(nexus.good(&format!("cat --as-of lsn:{} /f", places[1])), "two!");
        assert_eq!(nexus.good(&format!("cat --as-of {modified} /f")), "two!");
        assert_eq!(lines(&nexus.good("--json cat --as-of v:1 --offset 1 /f"))[0]["text"], "ne");
        assert_eq!(lines(&nexus.good("--json stat --as-of v:2 /f"))[0]["size"], 4);
        nexus.good(&format!("cp --as-of lsn:{} /f /copy", places[0]));
        assert_eq!(nexus.good("cat /copy"), "one");

        let done = lines(&nexus.good("--json restore /f --version 1"));
        assert_eq!((&done[0]["created"], &done[0]["version"]), (&json!(false), &json!(4)));
        assert_eq!(nexus.good("cat /f"), "one");
        assert_eq!(nexus.good(&format!("restore /f --lsn {}", places[1])), "", "silent when all is well");
        assert_eq!(nexus.good("cat /f"), "two!");
        nexus.good(&format!("restore /f --time {modified} --to /g"));
        assert_eq!(nexus.good("cat /g"), "two!");
        nexus.good("rm /f");
        assert_eq!(lines(&nexus.good("--json versions /f")).len(), 5, "those of a file that is gone");
        nexus.good("restore /f --version 3");
        assert_eq!(nexus.good("cat /f"), "three");
    });
}

#[test]
fn all_that_was_at_a_path_is_listed_and_each_of_it_can_be_read_and_brought_back() {
    in_both(|nexus| {
        write(nexus, "/f", "a");
        write(nexus, "/f", "bb");
        nexus.good("rm /f");
        write(nexus, "/f", "ccc");
        write(nexus, "/g", "dddd");
        nexus.good("mv /g /f");
        let told = lines(&nexus.good("--json versions /f"));
        let sizes: Vec<_> = told.iter().map(|version| version["size"].as_u64()).collect();
        assert_eq!(sizes, [4, 3, 2, 1].map(Some), "the latest first");
        assert_eq!(told[0]["op"], "rename");
        assert_eq!(told[0]["id"], lines(&nexus.good("--json stat /f"))[0]["file_id"]);
        for (version, text) in told.iter().zip(["dddd", "ccc", "bb", "a"]) {
            assert_eq!(nexus.good(&format!("cat --as-of lsn:{} /f", version["from"])), text);
        }
        nexus.good("rm /f");
        nexus.good(&format!("restore /f --lsn {}", told[2]["from"]));
        assert_eq!(nexus.good("cat /f"), "bb");
        assert_eq!(lines(&nexus.good("--json versions /f")).len(), 5);
    });
}

#[test]
fn a_directory_is_listed_and_brought_back_as_it_was() {
    in_both(|nexus| {
        write(nexus, "/d/a", "a");
        write(nexus, "/d/deep/b", "b");
        let then = &write(nexus, "/d/c", "c")["lsn"];
        nexus.good("mv /d /moved");
        nexus.good("rm /moved/a");
        write(nexus, "/moved/c", "other");
        let listed = format!("ls -R --as-of lsn:{then} /d");
        assert_eq!(nexus.good(&listed), "/d/a\n/d/c\n/d/deep\n/d/deep/b\n");
        let described = lines(&nexus.good(&format!("--json {listed}")));
        assert_eq!((&described[1]["path"], &described[1]["size"]), (&json!("/d/c"), &json!(1)));
        assert_eq!(nexus.good(&format!("ls -l --as-of lsn:{then} /d")).lines().count(), 3);
        assert_eq!(nexus.good("ls -R /moved"), "/moved/c\n/moved/deep\n/moved/deep/b\n");

        let counts = lines(&nexus.good(&format!("--json cp -r --as-of lsn:{then} /d /d")));
        assert_eq!((&counts[0]["files"], &counts[0]["failed"]), (&json!(3), &json!(0)));
        assert_eq!(nexus.good("ls -R /d"), "/d/a\n/d/c\n/d/deep\n/d/deep/b\n");
        assert_eq!(nexus.good("cat /d/c"), "c");
    });
}

#[test]
fn what_cannot_be_shown_is_told_with_operation_path_and_cause() {
    in_both(|nexus| {
        let lsn = write(nexus, "/f", "one")["lsn"].as_u64().expect("it is a place");
        refused(
            nexus,
            "cat --as-of v:9 /f",
            "nexus: read /f: not kept: version 9 of /f is not kept (ENODATA)\n",
        );
        refused(
            nexus,
            "restore /f --version 9",
            "nexus: restore /f: not kept: version 9 of /f is not kept (ENODATA)\n",
        );
        refused(
            nexus,
            &format!("cat --as-of lsn:{} /f", lsn - 1),
            "nexus: read /f: no such file or directory (ENOENT)\n",
        );
        refused(
            nexus,
            "restore /nope --version 1",
            "nexus: restore /nope: no such file or directory (ENOENT)\n",
        );
        let directory =
            "invalid argument: a directory has no versions: give a place in the log, or a time (EINVAL)\n";
        for (line, op) in
            [("ls --as-of v:1", "readdir"), ("stat --as-of v:1", "stat"), ("versions --file", "versions")]
        {
            refused(nexus, &format!("{line} /"), &format!("nexus: {op} /: {directory}"));
        }
        nexus.good("mkdir -p /directory");
        let file = "versions --file /directory";
        refused(nexus, file, &format!("nexus: versions /directory: {directory}"));
        let nope = "nexus: versions /nope: no such file or directory (ENOENT)\n";
        refused(nexus, "versions --file /nope", nope);
        let told = |line: &str, parts: &[&str]| {
            let ended = nexus.run(line);
            assert!(ended.status == 1 && parts.iter().all(|part| ended.err.contains(part)), "{ended:?}");
        };
        let never =
            ["versions /nope: ", "nothing was there since LSN ", "the history of / begins", "(ENOENT)"];
        told("versions /nope", &never);
        told("stat --as-of 2999-01-01T00:00:00Z /f", &["stat /f: ", "yet to come", "(EINVAL)"]);
        told("ls --as-of 1999-01-01T00:00:00Z /", &["readdir /: ", "oldest time of /", "(ENODATA)"]);
        told("ls --as-of 10000days /", &["readdir /: ", "(ENODATA)"]);
        for wrong in ["cat --as-of yesterday /f", "restore /f", "restore /f --version 1 --lsn 1"] {
            assert_eq!(nexus.run(wrong).status, 2, "{wrong}");
        }
    });
}

#[test]
fn what_is_kept_outlives_a_kernel_that_is_killed() {
    let nexus = Nexus::new();
    let serving = Serving::start(&nexus, &["serve"]);
    let then = &["one", "two", "three"].map(|text| write(&nexus, "/d/f", text)["lsn"].clone())[1];
    nexus.good("mv /d /e");
    let before = nexus.good("versions --file /e/f");
    // With SIGKILL.
    drop(serving);
    assert_eq!(nexus.good("versions --file /e/f"), before);
    let sizes = |at: &str| {
        let told = lines(&nexus.good(&format!("--json versions {at}")));
        told.iter().map(|version| version["size"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!(sizes("/e/f"), [Some(5)], "what was there under this name");
    assert_eq!(sizes("/d/f"), [5, 3, 3].map(Some), "and under that, in a directory that is gone");
    assert_eq!(nexus.good("cat --as-of v:1 /e/f"), "one");
    assert_eq!(nexus.good(&format!("cat --as-of lsn:{then} /d/f")), "two", "under its name of then");
    assert_eq!(nexus.good(&format!("ls -R --as-of lsn:{then} /d")), "/d/f\n");
    nexus.good("restore /e/f --version 2");
    assert_eq!(nexus.good("cat /e/f"), "two");
}
