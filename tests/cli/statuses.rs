//! Exit statuses and error texts.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::fixture::{Nexus, command, end};

/// What users know: these lines, in a tree with `/f` (a file), `/d/x` (another), `/e` (an empty directory), `/l -> /f`, `/loop -> /loop2 -> /loop`.
const SCRIPT: &[&str] =
    &["write /f", "write /d/x", "mkdir /e", "ln -s /f /l", "ln -s /loop2 /loop", "ln -s loop /loop2"];

fn prepared() -> Nexus {
    let nexus = Nexus::new();
    for line in SCRIPT {
        let ended = nexus.feed(line, "one\ntwo\n");
        assert_eq!((ended.status, &*ended.err), (0, ""), "{line}");
    }
    nexus
}

#[test]
fn failures_are_told_with_operation_path_and_errno() {
    let nexus = prepared();
    let long = format!("stat /{}", "x".repeat(256));
    let check = |line: &str, told: &str| {
        let ended = nexus.run(line);
        let expected = format!("nexus: {told}\n");
        assert_eq!((ended.status, &*ended.err, &*ended.out), (1, &*expected, ""), "nexus {line}");
    };
    check("cat /nope", "read /nope: no such file or directory (ENOENT)");
    check("stat /nope", "stat /nope: no such file or directory (ENOENT)");
    check("ls /nope", "readdir /nope: no such file or directory (ENOENT)");
    check("edit /nope --old a --new b", "edit /nope: no such file or directory (ENOENT)");
    check("rm /nope", "unlink /nope: no such file or directory (ENOENT)");
    check("mv /nope /x", "rename /nope: no such file or directory (ENOENT)");
    check("cp /nope /x", "copy /nope: no such file or directory (ENOENT)");
    check("cat /d", "read /d: is a directory (EISDIR)");
    check("write /d", "write /d: is a directory (EISDIR)");
    check("rm /d", "unlink /d: is a directory (EISDIR)");
    check("cp /d /x", "copy /d: is a directory: -r copies directories (EISDIR)");
    check("cp -r /d /d/y", "copy /d: invalid argument: a directory cannot be copied into itself (EINVAL)");
    check("mkdir /e", "mkdir /e: already exists (EEXIST)");
    check("mkdir /new/er", "mkdir /new/er: no such file or directory (ENOENT)");
    check("ln -s /f /e", "link /e: already exists (EEXIST)");
    check("mv /e /d", "rename /d: directory not empty (ENOTEMPTY)");
    check("mv -n /f /d/x", "rename /d/x: already exists (EEXIST)");
    check("stat relative", "stat relative: not a valid path: a path starts with / (EINVAL)");
    check(
        "stat /a/../b",
        "stat /a/../b: not a valid path: a path cannot contain the component \"..\" (EINVAL)",
    );
    check(
        &long,
        &format!(
            "stat /{}: name too long: a component of 256 bytes is longer than 255 (ENAMETOOLONG)",
            "x".repeat(256)
        ),
    );
    check("stream append /nope x", "append /nope: no such file or directory (ENOENT)");
    check("stream append / x", "append /: not supported: it is no stream (EOPNOTSUPP)");
    check("rm /", "unlink /: busy: a mount point, which umount detaches (EBUSY)");
    check("import /no/such /x", "import /no/such: no such file or directory (ENOENT)");
    // Who meant it as the content learns how it was understood.
    let taken = "hello is taken for a file of the host: no such file or directory (ENOENT)";
    check("write /f hello", &format!("write /f: {taken}"));
    check("append /f hello", &format!("append /f: {taken}"));
    check(
        "write /f /no/such",
        "write /f: /no/such is taken for a file of the host: no such file or directory (ENOENT)",
    );
}

#[test]
fn failures_carry_the_errno_whatever_else_they_say() {
    let nexus = prepared();
    let check = |line: &str, told: &str, errno: &str| {
        let ended = nexus.run(line);
        assert_eq!(ended.status, 1, "nexus {line}: {ended:?}");
        assert!(ended.err.starts_with(&format!("nexus: {told}")), "{}", ended.err);
        assert!(ended.err.ends_with(&format!("({errno})\n")), "{}", ended.err);
    };
    check("cat /f/x", "read /f/x: not a directory", "ENOTDIR");
    check("export /f /dev/null/x", "export /dev/null/x: not a directory", "ENOTDIR");
    check("mv /d /d/y/z", "rename /d", "EINVAL");
    check("cat /loop", "read /loop", "ELOOP");
    check("edit /f --old none --new b", "edit /f", "EINVAL");
    check("edit /d/x --old o --new b", "edit /d/x", "EINVAL");
    check("grep ( /", "grep", "EINVAL");
    check("glob [", "glob", "EINVAL");
    check("mount /m --driver no-such-driver", "mount /m", "EINVAL");
    check("umount /d", "unmount /d", "EINVAL");
    check("--profile cluster ls", "connect", "EOPNOTSUPP");
}

#[test]
fn wrong_usage_ends_with_two() {
    let nexus = Nexus::new();
    for line in [
        "",
        "frobnicate",
        "cat",
        "ln /a /b",
        "grep",
        "mount /m",
        "ls --frob",
        "--profile fat ls",
        "cat --count x /f",
    ] {
        let ended = nexus.run(line);
        assert_eq!((ended.status, &*ended.out), (2, ""), "nexus {line}");
        assert!(!ended.err.is_empty(), "nexus {line}");
    }
    assert_eq!((nexus.run("--help").status, nexus.run("ls --help").status), (0, 0));
    assert!(!nexus.data().exists(), "wrong usage makes no data folder");
}

#[test]
fn grep_that_finds_nothing_ends_with_one_and_says_nothing() {
    let nexus = prepared();
    let ended = nexus.run("grep three /");
    assert_eq!((ended.status, &*ended.out, &*ended.err), (1, "", ""));
    assert_eq!(nexus.good("grep two /f"), "two\n");
    assert_eq!(nexus.run("grep -c three /f").out, "0\n");
}

#[test]
fn the_others_are_done_when_one_fails() {
    let nexus = prepared();
    let ended = nexus.run("cat /f /nope /d/x");
    assert_eq!((ended.status, &*ended.out), (1, "one\ntwo\none\ntwo\n"));
    let ended = nexus.run("rm /nope /f /d/x");
    assert_eq!((ended.status, ended.err.lines().count()), (1, 1));
    assert_eq!(nexus.run("stat /f").status, 1);
}

#[test]
fn the_data_folder_is_told_by_option_environment_or_default() {
    let nexus = Nexus::new();
    let run = |configure: &dyn Fn(&mut std::process::Command)| {
        let mut writing = command();
        writing.current_dir(nexus.host("")).args(["write", "/f"]);
        configure(&mut writing);
        let ended = end(writing, "x");
        assert_eq!((ended.status, &*ended.err), (0, ""));
    };
    run(&|_| {});
    assert!(nexus.host("nexus-data").is_dir());
    run(&|command| {
        command.env("NEXUS_DATA_DIR", nexus.host("by-environment"));
    });
    assert!(nexus.host("by-environment").is_dir());
    run(&|command| {
        command.env("NEXUS_DATA_DIR", nexus.host("not-this")).arg("--data").arg(nexus.host("by-option"));
    });
    assert!(nexus.host("by-option").is_dir() && !nexus.host("not-this").exists());
}

#[test]
fn the_settings_say_the_data_folder_to_commands_as_to_programs() {
    let nexus = Nexus::new();
    let elsewhere = nexus.host("elsewhere");
    fs::write(nexus.host("my.toml"), format!("data_folder = {elsewhere:?}\n")).expect("there is room");
    let made = |name: &str, value: &Path, path: &str| {
        let mut mkdir = command();
        mkdir.args(["mkdir", path]).env(name, value).current_dir(nexus.host("."));
        assert_eq!(end(mkdir, "").status, 0);
    };
    made("NEXUS_CONFIG", &nexus.host("my.toml"), "/by-the-file");
    made("NEXUS_DATA_FOLDER", &elsewhere, "/by-the-environment");
    made("NEXUS_DATA_DIR", &elsewhere, "/by-its-other-name");
    let mut ls = command();
    ls.arg("--data").arg(&elsewhere).arg("ls");
    assert_eq!(end(ls, "").out.lines().count(), 3);
    assert!(!nexus.host("nexus-data").exists());
}

#[test]
fn logs_are_off_until_they_are_asked_for() {
    let nexus = prepared();
    let mut logging = nexus.command(["ls"]);
    logging.env("NEXUS_LOG", "trace");
    let ended = end(logging, "");
    assert_eq!(ended.status, 0);
    let mut wrong = nexus.command(["ls"]);
    wrong.env("NEXUS_LOG", "loud=very=much");
    assert_eq!(end(wrong, "").status, 2);
    assert_eq!(nexus.run("ls").err, "");
}

#[test]
fn a_broken_file_of_settings_is_told() {
    let nexus = Nexus::new();
    fs::create_dir(nexus.data()).expect("there is room");
    fs::write(nexus.data().join("nexus.toml"), "no_such_key = 1\n").expect("there is room");
    let ended = nexus.run("ls");
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("no_such_key") && ended.err.contains("EINVAL"), "{}", ended.err);
}

/// Lines of two processes that share it do not tear each other.
#[test]
fn a_failure_is_told_with_one_write() {
    let nexus = Nexus::new();
    // Each write is a message.
    let (ours, theirs) = UnixDatagram::pair().expect("there is room");
    let mut command = nexus.command(["cat", "/nope"]);
    let status = command.stderr(OwnedFd::from(theirs)).status().expect("it starts");
    drop(command);
    let mut told = [0; 1_024];
    let count = ours.recv(&mut told).expect("it was told");
    assert_eq!(&told[..count], b"nexus: read /nope: no such file or directory (ENOENT)\n");
    assert_eq!(status.code(), Some(1));
}
