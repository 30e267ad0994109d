//! The process is killed while files move: the same order goes on, or an abort removes what was copied, and nothing is lost.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nexus::{Config, MountSpec, blocking};

use crate::bench::{AT, content, count, read_host, read_tree};

/// Files of the mount.
const FILES: u64 = 300;

/// Kills; each at another moment.
const KILLS: u32 = 4;

/// What is copied before the last of them.
const COPIED_MIN: usize = 20;

fn log(folder: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("there is room")
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
    command.env_remove("NEXUS_DATA_DIR").arg("--data").arg(folder.join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log(folder));
    command
}

fn migrate(folder: &Path, to: &Path) -> Child {
    migrate_to(folder, &["path-local"], to)
}

fn migrate_to(folder: &Path, driver: &[&str], to: &Path) -> Child {
    let mut command = command(folder);
    command.args(["--json", "migrate", AT, "--to"]).args(driver).arg("--opt");
    command.arg(format!("folder={}", to.display())).spawn().expect("it starts")
}

fn spec(folder: &Path) -> MountSpec {
    MountSpec::new("path-local").option("folder", folder.display().to_string())
}

struct Place {
    folder: tempfile::TempDir,
    old: PathBuf,
    new: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        for folder in [&old, &new] {
            fs::create_dir(folder).expect("there is room");
        }
        for number in 0..FILES {
            let below = old.join(format!("d{}", number % 9));
            fs::create_dir_all(&below).expect("there is room");
            // Some are so large that they go piece by piece.
            let times = if number % 100 == 0 { 7_500 } else { 1 };
            fs::write(below.join(number.to_string()), content(number, 700).repeat(times))
                .expect("there is room");
        }
        let nx = blocking::connect(Config::new(folder.path().join("data"))).expect("it boots");
        nx.mount(AT, spec(&old)).expect("it mounts");
        nx.shutdown().expect("it stops");
        Self { folder, old, new }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

#[test]
fn a_killed_migration_goes_on_where_it_was() {
    let place = Place::new();
    let before = read_host(&place.old);
    let mut kept = 0;
    for kill in 0..KILLS {
        let began = Instant::now();
        let mut child = migrate(place.path(), &place.new);
        // By the clock of the host: how far it came by then is the chance that is tested. On a slow one the last comes late enough to leave something behind.
        let is_too_soon = |elapsed: Duration| {
            elapsed < Duration::from_millis(120 + 160 * u64::from(kill))
                || kill + 1 == KILLS && count(&place.new) < COPIED_MIN
        };
        while is_too_soon(began.elapsed()) {
            if child.try_wait().expect("it can be asked").is_some() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        // It may have ended.
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    assert_eq!(read_host(&place.old), before, "the old store is as it was");
    let mut child = migrate(place.path(), &place.new);
    let said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    for line in said.map_while(Result::ok) {
        let status: serde_json::Value = serde_json::from_str(&line).expect("it is an object");
        kept += status["kept"].as_u64().expect("a number");
    }
    let ended = child.wait().expect("it ends").success();
    // One that was not killed in time is done already, and so the same order is refused.
    assert!(
        ended || read_host(&place.new) == before,
        "{}",
        fs::read_to_string(place.path().join("log")).unwrap_or_default()
    );
    assert!(read_host(&place.new) == before);
    assert!(!ended || kept > 0, "something was copied before");
    let nx = blocking::connect(Config::new(place.path().join("data"))).expect("it boots");
    let mounts = nx.mounts().expect("it answers");
    let mount = mounts.iter().find(|mount| mount.point.as_str() == AT).expect("it is mounted");
    assert_eq!(mount.options["folder"], place.new.display().to_string());
    assert!(read_tree(&nx, AT) == before);
    nx.shutdown().expect("it stops");
}

/// Kills one that goes to `driver` again and again; it goes on, and all is there in the end.
#[track_caller]
fn killed_again_and_again(place: &Place, driver: &[&str], before: &BTreeMap<String, Vec<u8>>) {
    let run = |until: Option<Duration>| {
        let began = Instant::now();
        let mut child = migrate_to(place.path(), driver, &place.new);
        while until.is_some_and(|until| began.elapsed() < until) {
            if child.try_wait().expect("it can be asked").is_some() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if until.is_some() {
            // It may have ended.
            let _ = child.kill();
        }
        let out = child.wait_with_output().expect("it ends");
        let lines = String::from_utf8_lossy(&out.stdout).into_owned();
        let kept = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        (out.status.success(), kept.filter_map(|status| status["kept"].as_u64()).sum::<u64>())
    };
    // By the clock of the host: how far it came by then is the chance that is tested.
    for kill in 0..KILLS {
        run(Some(Duration::from_millis(150 + 250 * u64::from(kill))));
    }
    let (ended, kept) = run(None);
    assert!(!ended || kept > 0, "something was copied before");
    let nx = blocking::connect(Config::new(place.path().join("data"))).expect("it boots");
    let mounts = nx.mounts().expect("it answers");
    let mount = mounts.iter().find(|mount| mount.point.as_str() == AT).expect("it is mounted");
    assert_eq!((&*mount.driver, &*mount.options["folder"]), (driver[0], &*place.new.display().to_string()));
    assert!(read_tree(&nx, AT) == *before);
    nx.shutdown().expect("it stops");
}

#[test]
fn so_it_is_when_names_become_rows_and_cease_to_be() {
    let place = Place::new();
    let before = read_host(&place.old);
    killed_again_and_again(&place, &["cas-local"], &before);
    assert_eq!(read_host(&place.old), before, "the old store is as it was");
    let back = Place { new: place.path().join("back"), ..place };
    fs::create_dir(&back.new).expect("there is room");
    killed_again_and_again(&back, &["path-local", "--opt", "history_count=0"], &before);
    assert!(read_host(&back.new) == before);
}

#[test]
fn a_killed_migration_can_be_undone() {
    let place = Place::new();
    let mut child = migrate(place.path(), &place.new);
    let began = Instant::now();
    while count(&place.new) < 2 * COPIED_MIN && began.elapsed() < Duration::from_secs(20) {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let aborted = command(place.path()).args(["migrate", AT, "--abort"]).status().expect("it starts");
    assert!(aborted.success());
    assert!(crate::bench::is_empty(&place.new), "what was copied is gone");
    let nx = blocking::connect(Config::new(place.path().join("data"))).expect("it boots");
    assert!(read_tree(&nx, AT) == read_host(&place.old));
    nx.shutdown().expect("it stops");
}

/// `--to` the new folder, interrupted once something was copied; how it ended, and what it said.
fn interrupted(place: &Place) -> (Option<i32>, String) {
    let before = fs::read_to_string(place.path().join("log")).expect("it is text").len();
    let mut child = migrate(place.path(), &place.new);
    let began = Instant::now();
    while count(&place.new) < 5 && began.elapsed() < Duration::from_secs(20) {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("it starts").success(), "it runs");
    let status = child.wait().expect("it ends").code();
    let said = fs::read_to_string(place.path().join("log")).expect("it is text");
    (status, said[before..].to_owned())
}

#[test]
fn who_interrupts_a_migration_is_told_where_it_stands_and_how_it_goes_on_or_ends() {
    let place = Place::new();
    let before = read_host(&place.old);
    fs::write(place.path().join("log"), "").expect("there is room");
    let (status, said) = interrupted(&place);
    assert_eq!(status, Some(130), "{said}");
    let line = said.lines().find(|line| line.contains("migrate: interrupted; ")).expect(&said);
    assert!(line.contains(&format!("{AT} from path-local to path-local is being copied; ")), "{line}");
    assert!(line.ends_with(&format!(
        "the same command goes on with it, and `nexus migrate {AT} --abort` takes it back"
    )));
    // And so it is.
    let ended = migrate(place.path(), &place.new).wait().expect("it ends");
    assert!(ended.success(), "{}", fs::read_to_string(place.path().join("log")).expect("it is text"));
    assert!(read_host(&place.new) == before);
}

#[test]
fn a_served_migration_goes_on_when_the_command_that_asked_for_it_is_interrupted() {
    let place = Place::new();
    fs::write(place.path().join("log"), "").expect("there is room");
    let mut serving = command(place.path()).arg("serve").spawn().expect("it starts");
    let mut ready = String::new();
    let out = serving.stdout.take().expect("it is piped");
    BufReader::new(out).read_line(&mut ready).expect("it says so");
    let (status, said) = interrupted(&place);
    assert_eq!(status, Some(130), "{said}");
    let line = said.lines().find(|line| line.contains("migrate: interrupted; ")).expect(&said);
    assert!(line.contains("it goes on in the process that serves the folder"), "{line}");
    let began = Instant::now();
    let state = loop {
        let told =
            command(place.path()).args(["--json", "migrate", AT, "--status"]).output().expect("it starts");
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("it is an object");
        if told["state"] == "done" || began.elapsed() > Duration::from_secs(60) {
            break told["state"].clone();
        }
    };
    assert_eq!(state, "done");
    assert!(read_host(&place.new) == read_host(&place.old));
    serving.kill().expect("it runs");
    serving.wait().expect("it ends");
}

#[test]
fn one_that_goes_to_a_folder_that_is_gone_is_given_up_by_a_command() {
    let place = Place::new();
    let before = read_host(&place.old);
    let mut child = migrate(place.path(), &place.new);
    let began = Instant::now();
    while count(&place.new) < COPIED_MIN {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is copied");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    fs::rename(&place.new, place.path().join("elsewhere")).expect("it is there");
    let run = |args: &[&str]| {
        let out = command(place.path()).args(["migrate", AT]).args(args).stderr(Stdio::piped()).output();
        let out = out.expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let store = format!("path-local (folder={})", place.new.display());
    let (status, _, said) = run(&["--abort"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&store) && said.contains("--abort --leave-copies"), "{said}");
    let (status, told, said) = run(&["--abort", "--leave-copies"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(told.contains("is given up, and path-local serves") && told.contains(&store), "{told}");
    assert_eq!(run(&["--leave-copies"]).0, Some(2));
    assert_eq!(run(&["--abort", "--leave-copies"]).0, Some(1), "there is none any more");
    fs::create_dir(&place.new).expect("there is room");
    let mut child = migrate(place.path(), &place.new);
    assert!(child.wait().expect("it ends").success());
    assert!(read_host(&place.new) == before);
}
