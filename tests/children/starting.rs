//! What is started, and what is not.

use nexus::{ChildExit, ChildSpec, Errno, ErrorKind, Kill, SysWrite};

use crate::bench::{in_memory, path, refused, rest, script, until};

/// With a path for each of its inputs and outputs.
fn connected(spec: ChildSpec) -> ChildSpec {
    spec.stdin(path("/c/in"))
        .stdout(path("/c/out"))
        .stdout_stream(path("/c/log"))
        .stderr_stream(path("/c/err"))
}

#[test]
fn what_cannot_be_started_is_named_and_nothing_is_made() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let executable = |name: &str, content: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        file
    };
    let (noise, orphan) = (executable("noise", "echo no"), executable("orphan", "#!/no/such/interpreter\n"));
    let text = |path: &std::path::Path| path.to_str().expect("it is text").to_owned();
    let none: [&str; 0] = [];
    let check = |spec: ChildSpec, errno: Errno, says: &str| {
        let error = refused(nx.spawn(connected(spec)), errno).to_string();
        assert!(error.starts_with("spawn ") && error.contains(says), "{error}");
        assert!(!nx.exists("/c").unwrap(), "{error}: something was made");
        assert_eq!(nx.children().unwrap(), []);
    };
    check(ChildSpec::new("no-such-program-7", none), Errno::ENOENT, "no-such-program-7");
    check(ChildSpec::new("/no/such/program", none), Errno::ENOENT, "/no/such/program");
    check(ChildSpec::new(text(&plain), none), Errno::EACCES, "plain");
    check(ChildSpec::new("", none), Errno::EINVAL, "no program");
    check(ChildSpec::new("cat", ["a\0"]), Errno::EINVAL, "NUL");
    check(ChildSpec::new("cat", none).folder("/no/such/folder"), Errno::ENOENT, "/no/such/folder");
    check(ChildSpec::new("cat", none).env("PATH", "/no/such/folder"), Errno::ENOENT, "PATH");
    // The host would have a shell run it.
    check(ChildSpec::new(text(&noise), none), Errno::EINVAL, "#!");
    // Found, and refused by the host when all was made: that is taken back.
    check(ChildSpec::new(text(&orphan), none), Errno::ENOENT, "orphan");
}

#[test]
fn what_is_at_a_path_already_is_no_pipe_for_a_child() {
    let nx = in_memory();
    nx.write("/file", "x").unwrap();
    let spec = ChildSpec::new("cat", ["-"]).stdin(path("/new")).stdout(path("/file"));
    refused(nx.spawn(spec), Errno::EEXIST);
    assert!(!nx.exists("/new").unwrap(), "what was made is taken back");
    assert_eq!(nx.read("/file").unwrap(), "x");
}

#[test]
fn who_may_write_somewhere_can_run_nothing() {
    let nx = in_memory();
    let agent = nx.agent("coder-7").unwrap();
    refused(agent.spawn(connected(ChildSpec::new("cat", ["-"]))), Errno::EACCES);
    assert!(!nx.exists("/c").unwrap());
    let child = nx.spawn(connected(ChildSpec::new("cat", ["-"]))).expect("it starts");
    refused(agent.children(), Errno::EACCES);
    let file = format!("/__sys__/children/{}", child.id());
    refused(agent.read(&file), Errno::EACCES);
    refused(agent.send(SysWrite::at(path(&file), "KILL")), Errno::EACCES);
    // What agents may is to talk to it.
    agent.send(SysWrite::at(path("/c/in"), "hello")).unwrap();
    assert_eq!(crate::bench::next(&agent, "/c/out"), "hello");
}

#[test]
fn the_environment_is_what_is_named() {
    let nx = in_memory();
    let none: [&str; 0] = [];
    let spec = ChildSpec::new("env", none).env("ONE", "1").env("TWO", "a b").stdout(path("/o"));
    nx.spawn(spec).expect("it starts");
    let mut lines = rest(&nx, "/o");
    lines.sort();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0] == "ONE=1" && lines[1].starts_with(b"PATH=/") && lines[2] == "TWO=a b", "{lines:?}");
}

#[test]
fn a_child_works_in_its_folder_and_has_nothing_open_that_the_kernel_opened() {
    let data = tempfile::tempdir().unwrap();
    let nx = crate::bench::on_disk(data.path());
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().canonicalize().unwrap();
    let text = "pwd\ncd /proc/$$/fd\nreadlink 0 1 2 *\n";
    let spec = script(&here, text).folder(here.to_str().unwrap()).stdout(path("/o"));
    nx.spawn(spec).expect("it starts");
    let lines = rest(&nx, "/o");
    let lines: Vec<_> = lines.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
    assert_eq!((lines[0], lines[1], lines[3]), (here.to_str().unwrap(), "/dev/null", "/dev/null"));
    assert!(lines[2].starts_with("pipe:"), "{lines:?}");
    // What this process was itself started with goes on to its children.
    let data = data.path().to_str().unwrap();
    let ours = |line: &&str| line.contains(data) || line.starts_with("anon_inode:");
    assert!(!lines.iter().any(ours), "{lines:?}");
}

#[test]
fn a_child_is_the_first_of_a_session_and_of_a_group_of_its_own() {
    let nx = in_memory();
    let folder = tempfile::tempdir().unwrap();
    let text = "read -r pid name state parent group session rest < /proc/$$/stat\necho $$ $group $session\n";
    let child = nx.spawn(script(folder.path(), text).stdout(path("/o"))).expect("it starts");
    let pid = child.pid();
    // A terminal of this process would halt it when it asks there.
    assert_eq!(rest(&nx, "/o"), [format!("{pid} {pid} {pid}")]);
}

#[test]
fn a_child_that_is_tied_to_a_life_that_has_ended_is_killed() {
    let nx = in_memory();
    let kernel = nx.kernel().unwrap();
    let ended = kernel.begin_life().id();
    let caller = std::sync::Arc::new(nexus::Caller::administrator().living(ended));
    let spec = ChildSpec::new("sleep", ["1000"]);
    for (spec, is_killed) in [(spec.clone().tied(), true), (spec, false)] {
        let child = nx.env().blocking_wait(kernel.spawn_child(&caller, spec)).expect("it starts");
        let state = || kernel.children().iter().find(|there| there.id == child.id).map(|there| there.state);
        if is_killed {
            until(&nx, "the child is killed", || state().is_some_and(nexus::ChildState::is_done));
        } else {
            assert_eq!(state(), Some(nexus::ChildState::Running));
        }
    }
}

#[test]
fn as_many_run_as_may_and_their_actor_starts_no_more() {
    let nx = in_memory();
    // With the actor wedged nothing is started; what was is there.
    let child = nx.spawn(ChildSpec::new("sleep", ["1000"])).expect("it starts");
    assert!(nx.kill("nexus/kernel/children", Kill::Panic).unwrap());
    let second = nx.spawn(ChildSpec::new("true", [""; 0]));
    assert!(second.is_ok_and(|child| child.wait().is_ok_and(ChildExit::is_success)), "it is restarted");
    assert_eq!(child.status().unwrap().state, nexus::ChildState::Running);
}

#[test]
fn a_simulation_starts_no_programs() {
    let (env, _simulation) = nexus::Env::seeded(7);
    let nx = nexus::blocking::connect(nexus::Config::in_memory().env(env)).expect("it boots");
    let error = nx.spawn(ChildSpec::new("true", [""; 0])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");
}
