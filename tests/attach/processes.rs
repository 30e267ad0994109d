//! Owners in another process: killed, restarted, and of another user.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nexus::blocking::attach;
use nexus::services::quota::{Quota, QuotaConfig};
use nexus::{ErrorKind, Executed, OpOutcome, Serving, VPath};
use nexus_actors::block_on;

use crate::bench::{Bench, until};

/// `nexus serve` on a folder.
struct Served(Child);

impl Served {
    fn start(folder: &Path) -> Self {
        let mut command = nexus(folder);
        let mut child = command.arg("serve").stdout(Stdio::piped()).spawn().expect("it starts");
        let mut said = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut said).expect("it can be read");
        assert!(said.starts_with("serving "), "{said}");
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nexus(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NEXUS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.arg("--data").arg(folder);
    command
}

#[test]
fn a_swap_whose_attached_client_is_killed_before_it_is_published_is_given_up() {
    let Bench { owner, folder } = &Bench::new(Serving::administrator());
    let nx = owner.as_async();
    block_on(nx.register::<Quota>("quota", QuotaConfig::default())).expect("it starts");
    let status = || nx.services().expect("it is the administrator's").remove(0);
    let mut swap = nexus(folder.path());
    let mut swap = swap.args(["swap", "quota", "--shadow", "1000000"]).spawn().expect("it starts");
    until(owner, "the trial", || status().trial_agreed.is_some());
    swap.kill().expect("it runs");
    swap.wait().expect("it ends");
    until(owner, "the end of the swap", || status().failed_swaps == 1);
    let left = status();
    assert_eq!((left.serving.expect("one serves").number, left.trial_agreed), (1, None));
    // Nothing is held, and the next one is told of what it did itself.
    let next = nexus(folder.path()).args(["swap", "quota"]).output().expect("it runs");
    assert!(next.status.success(), "{next:?}");
    let told = String::from_utf8_lossy(&next.stdout).into_owned();
    let number = status().serving.expect("one serves").number;
    assert!(told.contains(" #1 -> ") && told.contains(&format!(" #{number}, ")), "{told}");
}

#[test]
fn an_owner_that_is_killed_loses_nothing_that_was_acknowledged_and_each_call_says_what_became_of_it() {
    const WRITERS: usize = 8;
    const KILLS: u64 = 3;
    let folder = tempfile::tempdir().expect("there is room");
    let folder = folder.path();
    let mut owner = Served::start(folder);
    let written = AtomicU64::new(0);
    let (mut unknown, mut refused) = (0, 0);
    let logs = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let written = &written;
                let run = move || {
                    let nx = attach(folder).expect("it is served");
                    let file = VPath::parse(&format!("/log{writer}")).expect("written as one");
                    // What was done, what may have been done, and what was not.
                    let (mut done, mut maybe, mut not) = (Vec::new(), Vec::new(), Vec::new());
                    for n in 0u64.. {
                        // Reads change nothing, whatever becomes of them.
                        if let Err(error) = nx.stat(&file)
                            && error.kind() != ErrorKind::NotFound
                        {
                            assert_eq!(
                                (error.kind(), error.executed()),
                                (ErrorKind::Down, Executed::No),
                                "{error}"
                            );
                        }
                        match nx.append(&file, format!("{n}\n")) {
                            Ok(_) => done.push(n),
                            Err(error) if error.executed() == Executed::Unknown => {
                                maybe.push((n, error.op_id().expect("it has one")));
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Down, "{error}");
                                not.push(n);
                            }
                        }
                        if written.fetch_add(1, Ordering::Relaxed) > KILLS * 1_000 + 1_000 {
                            break;
                        }
                        if not.last() == Some(&n) {
                            // Nobody is there: as long as that is so, calls end at once.
                            thread::yield_now();
                        }
                    }
                    (done, maybe, not)
                };
                thread::Builder::new().spawn_scoped(scope, run).expect("it starts")
            })
            .collect();
        for kill in 1..=KILLS {
            while written.load(Ordering::Relaxed) < kill * 1_000 {
                thread::yield_now();
            }
            std::mem::replace(&mut owner, Served(sleeper())).kill();
            owner = Served::start(folder);
        }
        writers.into_iter().map(|writer| writer.join().expect("it ends")).collect::<Vec<_>>()
    });
    let nx = attach(folder).expect("it is served");
    for (writer, (done, maybe, not)) in logs.into_iter().enumerate() {
        let log = nx.read(format!("/log{writer}")).expect("it is there");
        let kept: Vec<u64> =
            String::from_utf8_lossy(&log).lines().map(|line| line.parse().expect("a number")).collect();
        assert!(kept.is_sorted() && done.iter().all(|n| kept.contains(n)), "an acknowledged write is lost");
        for (n, op_id) in &maybe {
            let told = nx.outcome(*op_id).expect("it can be told");
            match kept.contains(n) {
                true => assert!(told.receipt().is_some_and(|receipt| receipt.op_id == *op_id), "{told}"),
                false => assert_eq!(told, OpOutcome::NotExecuted),
            }
        }
        let maybe: Vec<u64> = maybe.into_iter().map(|(n, _)| n).collect();
        assert!(kept.iter().all(|n| done.contains(n) || maybe.contains(n)), "what was not executed is there");
        assert!(!not.iter().any(|n| kept.contains(n)));
        unknown += maybe.len();
        refused += not.len();
    }
    println!("{unknown} calls unknown, {refused} not executed");
    assert!(unknown + refused > 0, "somebody was in a call");
    until(&nx, "the socket", || folder.join("nexus.sock").exists());
}

/// A process that does nothing, in the place of one that was killed.
fn sleeper() -> Child {
    Command::new("sleep").arg("600").spawn().expect("it starts")
}

#[test]
fn a_handle_whose_owner_was_killed_attaches_to_the_next_one() {
    let folder = tempfile::tempdir().expect("there is room");
    let owner = Served::start(folder.path());
    let nx = attach(folder.path()).expect("it is served");
    nx.write("/f", "kept").expect("it writes");
    owner.kill();
    assert!(folder.path().join("nexus.sock").exists(), "the dead clean up nothing");
    assert_eq!(nx.read("/f").expect_err("nobody is there").kind(), ErrorKind::Down);
    let _next = Served::start(folder.path());
    assert_eq!(nx.read("/f").expect("it attaches anew"), "kept");
}

/// Runs `nexus --data FOLDER cat /f` as `nobody`.
fn as_nobody(folder: &Path, binary: &Path) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary);
    command.arg("--data").arg(folder).args(["cat", "/f"]).env_clear().stdin(Stdio::null());
    command.output().expect("setpriv is there")
}

#[test]
fn another_user_is_refused_by_the_mode_and_by_the_server() {
    let parent = tempfile::tempdir().expect("there is room");
    let folder = parent.path().join("data");
    let _owner = Served::start(&folder);
    let nx = attach(&folder).expect("it is served");
    nx.write("/f", "secret").expect("it writes");
    let socket = folder.join("nexus.sock");
    assert_eq!(fs::metadata(&socket).expect("it is there").mode() & 0o7777, 0o600);

    if fs::metadata("/proc/self").expect("it is Linux").uid() != 0 {
        // Only root can be somebody else: here the mode is all that can be looked at, and that was done above.
        println!("not root: the refusal of another user was not tried");
        return;
    }
    // A binary, and a folder, that others can reach.
    let binary = parent.path().join("nexus");
    fs::copy(env!("CARGO_BIN_EXE_nexus"), &binary).expect("there is room");
    for path in [parent.path(), &folder, &binary] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
    }
    // The lock is not theirs to take, so the folder is held as far as they can see.
    fs::set_permissions(folder.join("nexus.lock"), Permissions::from_mode(0o666)).expect("it is ours");
    let told = |output: Output| {
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let refused = told(as_nobody(&folder, &binary));
    assert!(refused.contains("the socket belongs to another user (EACCES)"), "by the mode: {refused}");
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("it is ours");
    let refused = told(as_nobody(&folder, &binary));
    assert!(
        refused.contains("user 65534 does not own the kernel, user 0 does (EACCES)"),
        "by the server: {refused}"
    );
    assert_eq!(nx.read("/f").expect("others are served on"), "secret");
}
