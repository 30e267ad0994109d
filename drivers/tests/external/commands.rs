//! Programs that do not do what they should.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nexus_actors::block_on;
use nexus_kernel::hal::{ObjectStore, PathWrite, StoreError};
use nexus_messages::ErrorKind;
use tempfile::TempDir;

use crate::subjects::{command, delete, env, list, names, open, paths, read, try_open, write};

/// A script that does what the name of a file says. It is started as a program: the description has no shell.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in
ok) printf content ;;
argument) printf '%s|' "$@" ;;
environment) env | sort ;;
forever) exec sleep 1000 ;;
flood) exec yes ;;
complaints) exec yes >&2 ;;
forks) sleep 1000 & echo $! > pid; wait ;;
leaves) sleep 1000 & echo $! > pid; exit 0 ;;
tells) printf '%s' "$SECRET" ;;
fails) echo "it is $SECRET that is wrong" >&2; exit 3 ;;
missing) echo "no such thing" >&2; exit 4 ;;
denied) exit 5 ;;
fine) printf fine; exit 6 ;;
killed) kill -9 $$ ;;
deaf) exit 0 ;;
reads) cat > read ;;
esac
"#;

fn program(more: &str) -> (TempDir, Arc<dyn ObjectStore>) {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    std::fs::write(&script, SCRIPT).expect("it is written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("it is ours");
    let text = described(folder.path(), more);
    let spec = command(folder.path(), &text).option("token", "s3cret-0f-a-program");
    let store = open(&spec);
    (folder, store)
}

fn described(folder: &Path, more: &str) -> String {
    format!(
        r#"
program = "{folder}/script"
folder = "{folder}"
environment = {{ GREETING = "hello" }}
secrets = {{ SECRET = "option:token" }}
{more}

[[exit]]
code = 4
stderr = "no such"
means = "not-found"

[[exit]]
code = 5
means = "denied"

[[exit]]
code = 6
means = "ok"

[[route]]
path = "{{name}}"
read = {{ args = ["{{name}}", "$(id)", "a b"] }}
write = {{ args = ["{{name}}"] }}
delete = {{ args = ["{{name}}"] }}

[[route]]
path = "into/{{name}}"
read = {{ args = ["ok"] }}
write = {{ args = ["reads"] }}

[[route]]
path = "list"
list = {{ args = ["ok"], json = {{ name = "" }} }}

[[route]]
path = "tells"
list = {{ args = ["tells"], records = {{ fields = ["size", "name"] }} }}
"#,
        folder = folder.display()
    )
}

const HASTY: &str =
    "limits = { timeout_ms = 2000, output_bytes = 1000, input_bytes = 100000, concurrency = 2 }";

/// Whether the process whose number is in `file` has ended: waits until it has.
fn has_ended(file: &Path) -> bool {
    let number = std::fs::read_to_string(file).expect("it was written");
    let begun = env().now();
    let is_there = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", number.trim())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
    };
    while is_there() {
        if env().now() - begun > Duration::from_secs(10) {
            return false;
        }
        thread::yield_now();
    }
    true
}

#[test]
fn it_is_run_with_its_arguments_and_its_environment_alone() {
    let (folder, store) = program("");
    assert_eq!(read(&*store, "argument").unwrap(), "argument|$(id)|a b|");
    let environment = read(&*store, "environment").unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let names: Vec<_> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // What a shell makes for itself it may have.
    let others: Vec<_> =
        names.iter().filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name)).collect();
    assert_eq!(others, [&"GREETING", &"PATH", &"SECRET"], "{environment}");
    write(&*store, "into/it", "what is written", PathWrite::Whole).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("read")).expect("it was made"), "what is written");
}

#[test]
fn its_end_has_a_kind_and_its_words_no_secret() {
    let (_folder, store) = program("");
    assert_eq!(read(&*store, "fine").unwrap(), "fine");
    assert!(matches!(read(&*store, "missing"), Err(StoreError::NotFound { .. })));
    assert_eq!(read(&*store, "denied").unwrap_err().kind(), ErrorKind::PermissionDenied);
    let error = read(&*store, "fails").unwrap_err();
    let all = format!("{error} {error:?} {store:?}");
    assert!(all.contains("ended with 3: it is (hidden) that is wrong") && !all.contains("s3cret"), "{all}");
    assert!(!error.is_backend_failure(), "who asks for the wrong thing takes the mount from nobody");
    let error = list(&*store, "tells").unwrap_err();
    let all = format!("{error} {error:?}");
    assert!(all.contains("(hidden)") && all.contains("fields") && !all.contains("s3cret"), "{all}");
    let error = read(&*store, "killed").unwrap_err();
    assert!(!error.is_backend_failure() && error.to_string().contains("signal 9"), "{error}");
    // What became of a change, only the description can tell; that is about the change, too.
    for name in ["fails", "killed"] {
        let error = write(&*store, name, "x", PathWrite::Whole).unwrap_err();
        assert!(error.is_unknown() && !error.is_backend_failure(), "{error:?}");
    }
    assert!(matches!(write(&*store, "missing", "x", PathWrite::Whole), Err(StoreError::NotFound { .. })));
    assert!(delete(&*store, "killed").is_err());
}

#[test]
fn what_it_does_not_want_to_read_holds_nobody() {
    let (_folder, store) = program("");
    write(&*store, "deaf", vec![0; 4 << 20], PathWrite::Whole).unwrap();
}

#[test]
fn one_that_never_ends_is_killed_with_its_children() {
    let (folder, store) = program(HASTY);
    let error = read(&*store, "forks").unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { changing: false, .. }), "{error:?}");
    assert!(has_ended(&folder.path().join("pid")));
    let error = write(&*store, "forever", "x", PathWrite::Whole).unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
}

#[test]
fn one_that_leaves_others_behind_does_not_keep_them() {
    let (folder, store) = program("");
    let error = read(&*store, "leaves").unwrap_err();
    assert!(error.to_string().contains("holds its outputs"), "{error}");
    assert!(has_ended(&folder.path().join("pid")));
}

#[test]
fn one_that_says_too_much_is_killed() {
    let (_folder, store) = program(HASTY);
    for name in ["flood", "complaints"] {
        let error = read(&*store, name).unwrap_err();
        assert!(error.to_string().contains("was killed") && !error.is_backend_failure(), "{error:?}");
    }
    let error = write(&*store, "into/it", vec![0; 100_001], PathWrite::Whole).unwrap_err();
    assert!(!error.is_unknown() && error.to_string().contains("100000"), "{error}");
    assert!(matches!(list(&*store, "list"), Err(StoreError::Backend { .. })), "it is no JSON");
}

#[test]
fn who_gives_up_ends_it() {
    let (folder, store) = program("");
    let pid = folder.path().join("pid");
    let env = env();
    let waited = env.timeout(Duration::from_secs(10), async {
        let reading = paths(&*store).stat("forks");
        let begun = async {
            while !std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')) {
                env.sleep(Duration::from_millis(5)).await;
            }
        };
        futures_util::future::select(reading, Box::pin(begun)).await;
    });
    block_on(waited).expect("it begins");
    assert!(has_ended(&pid));
}

#[test]
fn no_more_run_at_once_than_may() {
    let (_folder, store) = program(HASTY);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read(&*store, "forever").unwrap_err());
        }
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| read(&*store, "ok"))).collect();
        for one in asked {
            // Its turn comes, or it is told that it does not.
            match one.join().expect("it does not panic") {
                Ok(content) => assert_eq!(content, "content"),
                Err(error) => assert!(!error.is_unknown(), "{error:?}"),
            }
        }
    });
    assert_eq!(read(&*store, "ok").unwrap(), "content");
}

#[test]
fn a_program_that_is_not_there_is_told_when_it_is_mounted() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "program = \"nexus-no-such-program\"\n[[route]]\npath = \"a\"\nread = { args = [] }";
    let error = try_open(&command(folder.path(), text)).expect_err("refused");
    assert!(error.to_string().contains("nexus-no-such-program"), "{error}");
    let text =
        "program = \"cat\"\nsecrets = { A = \"s3cret\" }\n[[route]]\npath = \"a\"\nread = { args = [] }";
    let error = try_open(&command(folder.path(), text)).expect_err("refused").to_string();
    assert!(error.contains("secrets.A") && !error.contains("s3cret"), "{error}");
    let text = "program = \"cat\"\n[[route]]\npath = \"a\"\nlist = { args = [] }";
    let error = try_open(&command(folder.path(), text)).expect_err("refused").to_string();
    assert!(error.contains("list: it needs json or records"), "{error}");
}

/// What a folder lists need not be all that is in it, nor say how large that is.
#[test]
fn a_cached_connector_is_asked_for_each_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"
program = "/bin/echo"

[[route]]
path = "f/{name}"
read = { args = ["{name}"] }

[[route]]
path = "f"
list = { args = ["listed"], records = { fields = ["name"] } }
"#;
    let store = open(&command(folder.path(), text).option("cache_age_ms", "600000"));
    assert_eq!(names(&*store, "f"), ["listed"]);
    for (path, length) in [("f/listed", 7), ("f/another", 8)] {
        let info = block_on(paths(&*store).stat(path)).expect("it is there");
        assert_eq!(info.size, length, "{path}");
    }
}

#[test]
fn contents_of_one_size_and_second_are_not_told_apart_by_a_listing() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"
program = "/bin/echo"

[[route]]
path = "{name}"
stat = "listing"
read = { args = ["content"] }

[[route]]
path = ""
list = { args = ["8\t1700000000\tf"], records = { fields = ["size", "modified", "name"] } }
"#;
    let store = open(&command(folder.path(), text));
    let info = block_on(paths(&*store).stat("f")).expect("it is there");
    assert!(info.size == 8 && !info.told_apart, "{info:?}");
}
