//! `lock`, `unlock` and `locks`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::fixture::{Nexus, command, end};
use crate::serving::Serving;

/// The command under test, as a word of a shell.
const NEXUS: &str = env!("CARGO_BIN_EXE_nexus");

#[test]
fn a_lock_without_a_command_stays_until_it_is_released() {
    let nexus = Nexus::new();
    let id = nexus.good("lock /a --ttl 10m").trim().to_owned();
    let refused = nexus.run("lock -n /a/b");
    assert_eq!((refused.status, &*refused.out), (1, ""));
    assert!(
        refused.err.starts_with("nexus: lock /a/b: would have to wait: nexus holds /a for"),
        "{refused:?}"
    );
    assert!(refused.err.ends_with("(EAGAIN)\n"), "{refused:?}");
    assert!(nexus.good("locks").starts_with("/a\texclusive\tnexus\theld for "));
    let listed: Value = serde_json::from_str(&nexus.good("--json locks /a")).expect("it is one object");
    assert_eq!((&listed["path"], &listed["holders"][0]["agent"]), (&"/a".into(), &"nexus".into()));
    assert_eq!(nexus.good("locks /b"), "");
    let extended: Value =
        serde_json::from_str(&nexus.good(&format!("--json lock /a --extend {id} --ttl 1h"))).expect("one");
    assert_eq!((&extended["id"], &extended["ttl_ms"]), (&id.as_str().into(), &3_600_000.into()));
    for wrong in [format!("unlock /b {id}"), format!("lock /b --extend {id}")] {
        let refused = nexus.run(&wrong);
        assert_eq!((refused.status, &*refused.out), (1, ""), "{refused:?}");
        assert!(refused.err.contains(" /b: ") && refused.err.contains(" is one on /a, "), "{refused:?}");
        assert!(nexus.good("locks").starts_with("/a\t"));
    }
    nexus.good(&format!("unlock /a {id}"));
    let again = nexus.run(&format!("unlock /a {id}"));
    assert_eq!(again.status, 1);
    assert!(again.err.ends_with("is not held, or not any more (EPERM)\n"), "{again:?}");
    nexus.good("lock /a");
    assert!(nexus.good("--json unlock --force /a").contains("\"released\":1"));
    assert_eq!(nexus.good("locks"), "");
    assert_eq!(nexus.run("unlock /a").status, 2);
    assert_eq!(nexus.run("unlock /a x").status, 2);
    assert_eq!(nexus.run("lock /a --ttl soon").status, 2);
    assert_eq!(nexus.run("lock /a --places 0").status, 1);
}

#[test]
fn a_lock_may_be_shared_or_have_so_many_places() {
    let nexus = Nexus::new();
    for call in
        ["lock -n /a --shared", "lock -n /a --shared", "lock -n /b --places 2", "lock -n /b --places 2"]
    {
        nexus.good(call);
    }
    for call in ["lock -n /a", "lock -n /b --places 2", "lock -n /b --places 3", "lock -n /b --shared"] {
        let refused = nexus.run(call);
        assert!(refused.status == 1 && refused.err.contains("would have to wait"), "{call}: {refused:?}");
    }
    let listed = nexus.good("locks");
    for (kind, held) in [("/a\tshared\t", 2), ("/b\tone of 2\t", 2)] {
        assert_eq!(listed.matches(kind).count(), held, "{listed}");
    }
    assert!(nexus.good("--json unlock --force /a").contains("\"released\":2"));
    nexus.good("lock -n /a");
    assert!(nexus.good("locks /a").contains("\texclusive\t"));
}

#[test]
fn a_lock_is_held_while_a_command_runs_which_is_told_of_it_and_gives_the_exit_status() {
    let nexus = Nexus::new();
    let ran =
        nexus.run_args(["lock", "/a", "--", "sh", "-c", "echo $NEXUS_LOCK_PATH $NEXUS_LOCK_TOKEN; exit 7"]);
    assert_eq!((ran.status, &*ran.err), (7, ""), "{ran:?}");
    assert!(ran.out.starts_with("/a ") && ran.out.trim().len() > 3, "{ran:?}");
    assert_eq!(nexus.good("locks"), "");
    // The command reaches the kernel of who holds the lock, and finds it held.
    let inner = format!(
        "{NEXUS} lock -n /a/b; echo $?; {NEXUS} lock -n /b -- echo free; {NEXUS} write /f </dev/null"
    );
    let ran = nexus.run_args(["lock", "/a", "--", "sh", "-c", &inner]);
    assert_eq!((ran.status, &*ran.out), (0, "1\nfree\n"), "{ran:?}");
    assert!(ran.err.contains("nexus holds /a"), "{ran:?}");
    assert_eq!(nexus.good("ls /"), "f\n");
    let ran = nexus.run_args(["lock", "/a", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(ran.status, 128 + 15);
    let ran = nexus.run_args(["lock", "/a", "--", "no-such-program"]);
    assert_eq!(
        (ran.status, &*ran.err),
        (1, "nexus: lock no-such-program: no such file or directory (ENOENT)\n")
    );
    let lost = format!("{NEXUS} unlock --force /a; sleep 0.5; exit 0");
    let ran = nexus.run_args(["lock", "/a", "--ttl", "300ms", "--", "sh", "-c", &lost]);
    assert_eq!(ran.status, 1, "{ran:?}");
    let told = "nexus: lock /a: not held: it was lost while the command ran (EPERM)\n";
    assert!(ran.err.ends_with(told), "{ran:?}");
}

/// A command that says when it runs, and how it is ended.
const CLEANS_UP: &str =
    "trap 'echo told; exit 9' TERM INT HUP USR1 USR2; echo runs; while :; do sleep 0.05; done";

#[test]
fn a_signal_is_the_commands_and_the_lock_is_held_until_that_has_ended() {
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    for signal in ["TERM", "INT", "HUP", "USR1", "USR2"] {
        let mut locks = nexus.command(["lock", "/a", "--", "sh", "-c", CLEANS_UP]);
        let mut locks = locks.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(locks.stdout.take().expect("it is piped")).lines();
        assert_eq!(lines.next().expect("it runs").expect("it is text"), "runs");
        assert_eq!(nexus.run("lock -n /a").status, 1, "it is held");
        let kill = format!("kill -{signal} {}", locks.id());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().expect("it runs").success());
        assert_eq!(lines.next().expect("it is told").expect("it is text"), "told", "{signal}");
        assert_eq!(locks.wait().expect("it ends").code(), Some(9), "{signal}");
    }
    assert_eq!(nexus.good("locks"), "");
    let odd = nexus.run_args(["lock", "/a\nb", "--", "sh", "-c", &format!("{NEXUS} locks")]);
    assert!(odd.out.starts_with("/a\\nb\texclusive\t"), "one line: {odd:?}");
}

#[test]
fn what_a_command_runs_elsewhere_works_on_the_same_folder() {
    let nexus = Nexus::new();
    let (elsewhere, there) = (nexus.host("elsewhere"), nexus.host("there"));
    fs::create_dir(&elsewhere).expect("there is room");
    let inner = format!("cd {} && {NEXUS} lock -n /a -- echo also", elsewhere.display());
    let mut command = command();
    command.args(["--data", "there", "lock", "/a", "--", "sh", "-c", &inner]).current_dir(nexus.host("."));
    let ran = end(command, "");
    assert_eq!((ran.status, &*ran.out), (1, ""), "{ran:?}");
    assert!(ran.err.contains("nexus holds it"), "{ran:?}");
    assert!(there.exists() && fs::read_dir(&elsewhere).expect("it is there").next().is_none());
}

#[test]
fn what_is_fenced_is_changed_while_the_lock_is_held_and_not_after() {
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    nexus.good("pipe make /p");
    nexus.good("stream make /s");
    let inner = format!(
        "{NEXUS} pipe write /p kept --fenced && {NEXUS} stream append /s kept --fenced
         echo 1 | {NEXUS} write /f --fenced && echo 2 | {NEXUS} append /f --fenced && {NEXUS} edit /f --old 1 --new 3 --fenced
         {NEXUS} unlock --force /a
         for late in 'write /f' 'append /f' 'edit /f --old 3 --new 4' 'mkdir /late' 'rm /f' 'mv /f /late'; do
             echo late | {NEXUS} $late --fenced && echo \"$late was not refused\"
         done
         {NEXUS} pipe write /p late --fenced; {NEXUS} stream append /s late --fenced"
    );
    let ran = nexus.run_args(["lock", "/a", "--", "sh", "-c", &inner]);
    assert_eq!((&*ran.out, ran.err.matches("(EFENCED)").count()), ("", 8), "{ran:?}");
    assert_eq!((&*nexus.good("cat /f"), &*nexus.good("ls /")), ("3\n2\n", "f\np\ns\n"));
    assert_eq!((&*nexus.good("pipe read /p"), &*nexus.good("stream read /s")), ("kept\n", "kept\n"));
    assert_eq!(nexus.run("pipe read /p").status, 1);
    let no_stream =
        nexus.run_args(["lock", "/a", "--", "sh", "-c", &format!("{NEXUS} stream append /f x --fenced")]);
    assert!(no_stream.err.contains("it is no stream"), "{no_stream:?}");
    let refused = nexus.feed("write /f --fenced", "x");
    assert!(refused.status == 1 && refused.err.contains("do not name a lock (EINVAL)"), "{refused:?}");
}

#[test]
fn commands_under_one_lock_take_turns() {
    const EACH: usize = 8;
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    let count = nexus.host("count");
    fs::write(&count, "0").expect("there is room");
    let raise = format!("n=$(cat {0}); echo $((n + 1)) > {0}", count.display());
    let running: Vec<_> = (0..EACH)
        .map(|_| {
            let mut command = nexus.command(["lock", "/count", "--", "sh", "-c", &raise]);
            command.stdin(Stdio::null()).spawn().expect("it starts")
        })
        .collect();
    for mut running in running {
        assert!(running.wait().expect("it ends").success());
    }
    assert_eq!(fs::read_to_string(&count).expect("it is there").trim(), EACH.to_string());
}

#[test]
fn a_lock_goes_with_the_process_that_holds_it() {
    let nexus = Nexus::new();
    let _serving = Serving::start(&nexus, &["serve"]);
    let mut command = nexus.command(["lock", "/a", "--ttl", "1h", "--", "sh", "-c", "echo held; exec cat"]);
    // What it runs is left behind, and ends with the end of its input.
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    let mut out = BufReader::new(holder.stdout.take().expect("it is piped"));
    out.read_line(&mut said).expect("it can be read");
    assert_eq!(said, "held\n");
    assert_eq!(nexus.run("lock -n /a").status, 1);
    let waiting = nexus.command(["lock", "-w", "60s", "/a", "--", "echo", "mine"]);
    let ended = std::thread::scope(|scope| {
        let waiting = scope.spawn(move || end(waiting, ""));
        holder.kill().expect("it runs");
        holder.wait().expect("it ends");
        waiting.join().expect("it does not panic")
    });
    assert_eq!((ended.status, &*ended.out), (0, "mine\n"), "{ended:?}");
}

/// What `holder` tells on standard error first, and how it ended.
fn tells(holder: Child) -> (String, Option<i32>) {
    let mut holder = holder;
    let mut told = String::new();
    let mut err = BufReader::new(holder.stderr.take().expect("it is piped"));
    err.read_line(&mut told).expect("it can be read");
    // What it runs ends with the end of its input.
    drop(holder.stdin.take());
    (told, holder.wait().expect("it ends").code())
}

/// A command that holds `/a` for as long as its input lasts, and is not to extend the lock before that is over.
fn holder(nexus: &Nexus) -> Child {
    let mut command = nexus.command(["lock", "/a", "--ttl", "2h", "--", "sh", "-c", "echo held; exec cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut holder = command.spawn().expect("it starts");
    let mut said = String::new();
    let mut out = BufReader::new(holder.stdout.take().expect("it is piped"));
    out.read_line(&mut said).expect("it can be read");
    assert_eq!(said, "held\n");
    holder
}

#[test]
fn a_lock_that_is_taken_back_or_ends_with_its_kernel_is_told_to_its_holder_at_once() {
    const LOST: &str = "nexus: lock /a: the lock is lost, the command goes on\n";
    let nexus = Nexus::new();
    let serving = Serving::start(&nexus, &["serve"]);
    let taken_back = holder(&nexus);
    // One at the same path that is none of its business.
    assert_eq!(nexus.run("lock -n /a").status, 1);
    nexus.good("unlock --force /a");
    assert_eq!(tells(taken_back), (LOST.into(), Some(1)));
    let orphan = holder(&nexus);
    assert_eq!(serving.signal("TERM").0, Some(0));
    assert_eq!(tells(orphan), (LOST.into(), Some(1)));
}

#[test]
fn a_lock_whose_identity_nobody_has_seen_is_not_held() {
    let nexus = Nexus::new();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
    let mut command = nexus.command(["lock", "/a"]);
    let ran = command.stdout(full()).stderr(Stdio::piped()).output().expect("it starts");
    let told = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(&*told, "nexus: write standard output: no space left on device (ENOSPC)\n");
    assert_eq!((ran.status.code(), &*nexus.good("locks")), (Some(1), ""));
}

#[test]
fn a_command_that_is_announced_and_is_not_there_is_wrong_usage() {
    let nexus = Nexus::new();
    nexus.good("stream make /s");
    for (line, told) in [
        ("lock /a --", "nexus: lock: no command follows --\n"),
        ("stream take /s g --", "nexus: stream take: no command follows --\n"),
    ] {
        let ran = nexus.run(line);
        assert_eq!((ran.status, &*ran.out, &*ran.err), (2, "", told), "{line}");
        assert!(nexus.feed("shell", line).err.ends_with(told), "{line}");
    }
    assert_eq!(nexus.good("locks"), "");
}
