//! A bucket mounted in a kernel, with a server that the test starts; and that nobody sees a credential of any kind of store.

#[cfg(all(
    test,
    feature = "azure",
    feature = "gcs",
    feature = "http",
    feature = "redis",
    feature = "postgres"
))]
#[path = "elsewhere/secrets.rs"]
mod secrets;
#[path = "../drivers/tests/servers/mod.rs"]
#[cfg(test)]
#[allow(dead_code, reason = "each target uses a part of it")]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nexus::blocking::{self, Nexus};
use nexus::{Bytes, Config, EntryType, ErrorKind, Executed, MigrationState, MountSpec, MountState, SysWrite};

use servers::proxy::{Fault, Proxy};
use servers::s3::{BUCKET, moto};
use servers::small::Small;
use tracing_subscriber::fmt::MakeWriter;

const ACCESS: &str = "HUNTER22ACCESS";
const SECRET: &str = "hunter22-secret";

fn bucket(port: u16, secret: &str) -> MountSpec {
    MountSpec::new("s3")
        .option("bucket", BUCKET)
        .option("endpoint", format!("http://127.0.0.1:{port}"))
        .option("allow_http", "true")
        .option("access_key", ACCESS)
        .option("secret_key", secret)
}

/// All that is logged, of whatever kind, also by libraries.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// What is logged from the first call of this on: there is one log of the process.
    fn begin() -> Self {
        static LOGGED: OnceLock<Logged> = OnceLock::new();
        let begun = LOGGED.get_or_init(|| {
            let logged = Self::default();
            let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
            log.with_writer(logged.clone()).init();
            logged
        });
        begun.clone()
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// All that can be listed of mounts.
fn listed(nx: &Nexus) -> String {
    let mounts = format!("{:?}", nx.mounts().expect("they are listed"));
    let names = nx.readdir("/__sys__/mounts").expect("they are listed");
    names.iter().fold(mounts, |all, entry| {
        let file = nx.read(format!("/__sys__/mounts/{}", entry.name())).map(|file| file.to_vec());
        all + &String::from_utf8_lossy(&file.unwrap_or_default())
    })
}

fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).expect("it is there").map_while(Result::ok).any(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => holds(&path, text),
            Ok(kind) if kind.is_file() => fs::read(&path)
                .is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())),
            _ => false,
        }
    })
}

#[test]
fn a_bucket_is_worked_with_as_with_any_folder() {
    let logged = Logged::begin();
    let server = moto();
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/b", bucket(server.port(), SECRET)).expect("it mounts");
    nx.write("/b/d/f.txt", "hello").expect("it is written");
    nx.append("/b/d/f.txt", " world").expect("it is appended");
    assert_eq!(&nx.read("/b/d/f.txt").expect("it is read")[..], b"hello world");
    nx.copy("/b/d/f.txt", "/b/d/g.txt").expect("it is copied");
    let names: Vec<_> =
        nx.readdir("/b/d").expect("it is listed").into_iter().map(|e| e.name().to_string()).collect();
    assert_eq!(names, ["f.txt", "g.txt"]);
    let refused = nx.rename("/b/d", "/b/e").expect_err("it is refused");
    assert_eq!(refused.kind(), ErrorKind::NotSupported, "{refused}");
    nx.write("/b/d/e/f/h.txt", "deep").expect("it is written");
    nx.remove_all("/b/d").expect("it is removed");
    assert!(nx.read("/b/d/f.txt").is_err_and(|error| error.kind() == ErrorKind::NotFound));
    let all = listed(&nx);
    assert!(all.contains(BUCKET) && all.contains("(hidden)"), "{all}");
    assert!(!all.contains(SECRET) && !all.contains(ACCESS), "{all}");
    let wrong = nx.mount("/w", bucket(1, SECRET).option("open_ms", "2000")).expect_err("nobody is there");
    assert!(!format!("{wrong} {wrong:?}").contains(SECRET), "{wrong:?}");
    nx.shutdown().expect("it ends");
    let said = logged.said();
    assert!(
        !said.is_empty() && !said.contains(SECRET) && !said.contains(ACCESS),
        "a credential is in the log"
    );
}

#[test]
fn a_start_of_the_kernel_writes_nothing_to_a_bucket_and_asks_little() {
    let (server, folder) = (Small::start(Duration::ZERO), tempfile::tempdir().expect("a folder"));
    let boot = || blocking::connect(Config::new(folder.path())).expect("it boots");
    let nx = boot();
    nx.mount("/b", bucket(server.port(), SECRET)).expect("it mounts");
    nx.write("/b/f", "1").expect("it is written");
    nx.shutdown().expect("it stops");
    for _ in 0..2 {
        let before = server.requests();
        let nx = boot();
        let names = nx.readdir("/b").expect("it is listed").len();
        nx.shutdown().expect("it stops");
        // The look whether it answers, and the listing.
        assert_eq!((names, server.requests() - before), (1, 2));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it is the time of whoever sits before it")]
fn nobody_waits_in_the_next_process_for_what_the_last_one_was_told_the_end_of() {
    let (server, folder) = (Small::start(Duration::ZERO), tempfile::tempdir().expect("a folder"));
    let boot = || blocking::connect(Config::new(folder.path())).expect("it boots");
    let nx = boot();
    nx.mount("/b", bucket(server.port(), SECRET).option("write_back", "yes")).expect("it mounts");
    nx.shutdown().expect("it stops");
    let in_time = |what: &str, command: &dyn Fn(&Nexus)| {
        let began = Instant::now();
        let nx = boot();
        command(&nx);
        nx.shutdown().expect("it stops");
        assert!(began.elapsed() < Duration::from_secs(8), "{what}: {:?}", began.elapsed());
    };
    // As commands do it, one after the other.
    for round in 0..4 {
        in_time(&format!("write {round}"), &|nx| {
            nx.write("/b/f", "1").expect("it is written");
        });
        in_time(&format!("remove {round}"), &|nx| {
            nx.unlink("/b/f").expect("it is removed");
        });
    }
}

#[test]
fn a_mount_whose_credential_lies_in_a_file_is_back_after_a_restart_and_the_credential_is_stored_nowhere() {
    let mut server = moto();
    let (data, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let file = elsewhere.path().join("secret");
    fs::write(&file, SECRET).expect("it is written");
    let nx = blocking::connect(data.path()).expect("it boots");
    nx.mount("/b", bucket(server.port(), &format!("file:{}", file.display()))).expect("it mounts");
    nx.write("/b/f", "1").expect("it is written");
    nx.shutdown().expect("it ends");
    assert!(!holds(data.path(), SECRET), "it is in the data folder");
    let nx = blocking::connect(data.path()).expect("it boots");
    assert_eq!(&nx.read("/b/f").expect("it is read")[..], b"1");
    nx.shutdown().expect("it ends");
    // A server that is not there hinders no other mount, and is told.
    server.kill();
    let nx = blocking::connect(data.path()).expect("it boots");
    nx.write("/other", "2").expect("it is written");
    let mounts = nx.mounts().expect("they are listed");
    let there = mounts.iter().find(|mount| mount.point.as_str() == "/b").expect("it is there");
    assert!(!matches!(there.state, MountState::Serving), "{:?}", there.state);
    assert!(!listed(&nx).contains(SECRET));
    nx.shutdown().expect("it ends");
}

/// Waits until the migration of what is mounted at `at` is over, for a minute at most.
fn waits_for(nx: &Nexus, at: &str) -> nexus::MigrationStatus {
    for _ in 0..6_000 {
        let all = nx.migrations().expect("they are told");
        let status = all.into_iter().find(|migration| migration.path.as_str() == at).expect("it is told");
        if status.is_over() {
            return status;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    panic!("it goes on: {:?}", nx.migrations());
}

#[test]
fn a_folder_moves_into_a_bucket_and_back_while_it_is_used_and_is_synchronised_with_another() {
    let server = moto();
    let folder = tempfile::tempdir().expect("a folder");
    let local = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(&path).expect("there is room");
        MountSpec::new("local").option("folder", path.display().to_string())
    };
    let nx = blocking::connect(folder.path().join("data")).expect("it boots");
    nx.mount("/m", local("old")).expect("it mounts");
    for number in 0..40 {
        nx.write(format!("/m/d{}/{number}", number % 4), format!("content of {number}")).expect("it writes");
    }
    nx.write("/m/d0/large", vec![7; 6 << 20]).expect("it writes");
    let in_bucket = bucket(server.port(), SECRET).option("prefix", "moved");
    nx.migrate("/m", in_bucket, true).expect("it begins");
    for number in 40..60 {
        nx.write(format!("/m/d{}/{number}", number % 4), format!("content of {number}")).expect("it writes");
        nx.unlink(format!("/m/d{}/{}", number % 4, number - 40)).expect("it is removed");
    }
    let status = waits_for(&nx, "/m");
    assert_eq!(status.state, MigrationState::Done, "{status:?}");
    let shown = format!("{status:?} {}", listed(&nx));
    assert!(!shown.contains(SECRET) && !shown.contains(ACCESS), "{shown}");
    let check = |nx: &Nexus| {
        assert_eq!(nx.glob("/m/*/*").expect("it is listed").len(), 41);
        assert_eq!(nx.read("/m/d3/59").expect("it is there"), "content of 59");
        assert!(nx.read("/m/d0/large").expect("it is there") == vec![7; 6 << 20]);
        assert!(nx.read("/m/d0/0").is_err_and(|error| error.kind() == ErrorKind::NotFound));
    };
    check(&nx);
    nx.migrate("/m", local("back"), true).expect("it begins");
    let status = waits_for(&nx, "/m");
    assert_eq!(status.state, MigrationState::Done, "{status:?}");
    check(&nx);
    assert_eq!(fs::read_to_string(folder.path().join("back/d3/59")).expect("it is there"), "content of 59");

    // And content by its hash.
    let blobs = |name: &str| {
        MountSpec::new("cas-local").option("folder", folder.path().join(name).display().to_string())
    };
    nx.mount("/c", blobs("blobs")).expect("it mounts");
    nx.write("/c/large", vec![9; 3 << 20]).expect("it writes");
    let in_bucket = bucket(server.port(), SECRET).option("prefix", "blobs").option("addressing", "content");
    nx.migrate("/c", in_bucket, true).expect("it begins");
    let status = waits_for(&nx, "/c");
    assert_eq!(status.state, MigrationState::Done, "{status:?}");
    fs::remove_dir_all(folder.path().join("blobs")).expect("nobody needs it");
    assert!(nx.read("/c/large").expect("it is there") == vec![9; 3 << 20]);

    nx.mount("/b", bucket(server.port(), SECRET).option("prefix", "synchronised")).expect("it mounts");
    nx.shutdown().expect("it ends");
    fs::create_dir(folder.path().join("back/empty")).expect("there is room");
    let synced = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nexus"));
        command.arg("--data").arg(folder.path().join("data")).args(["--json", "sync", "--delete"]);
        let output = command.args(args).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let sync = || {
        let (told, said) = synced(&["/m", "/b"]);
        assert!(said.lines().count() == 1 && said.contains("/m/empty"), "{said}");
        serde_json::from_str::<serde_json::Value>(&told).expect("it is an object")
    };
    assert_eq!(sync()["copied"], 41);
    fs::write(folder.path().join("back/d3/59"), "CONTENT of 59").expect("there is room");
    fs::remove_file(folder.path().join("back/d3/55")).expect("it is there");
    let again = sync();
    assert_eq!((&again["copied"], &again["deleted"]), (&1.into(), &1.into()), "{again}");
    // Objects keep no time: nothing is told that would not be done.
    let (again, (dry, said)) = (sync(), synced(&["--dry-run", "/m", "/b"]));
    assert!(said.contains("/m/empty"), "{said}");
    assert_eq!((&again["unchanged"], &again["described"]), (&40.into(), &0.into()), "{again}");
    assert!(dry.contains("\"unchanged\":40") && dry.lines().count() == 1, "{dry}");
}

/// Runs the command on the data folder `data`: its exit status, and what it prints and says.
fn command(data: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nexus"));
    let output = command.arg("--data").arg(data).args(arguments).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_tree_comes_into_a_bucket_but_for_its_empty_folders_which_are_told() {
    let server = Small::start(Duration::ZERO);
    let folder = tempfile::tempdir().expect("a folder");
    let (data, tree) = (folder.path().join("data"), folder.path().join("tree"));
    for at in ["a/b", "empty"] {
        fs::create_dir_all(tree.join(at)).expect("there is room");
    }
    fs::write(tree.join("a/b/f"), "content").expect("there is room");
    let nx = blocking::connect(&data).expect("it boots");
    let local = MountSpec::new("local").option("folder", tree.display().to_string());
    nx.mount("/lf", local).expect("it mounts");
    nx.mount("/s3", bucket(server.port(), SECRET)).expect("it mounts");
    nx.shutdown().expect("it ends");
    let host = tree.display().to_string();
    for (arguments, verb, from, to) in [
        (["--json", "cp", "-r", "/lf", "/s3/copied"].as_slice(), "copy", "/lf", "/s3/copied"),
        (&["--json", "import", &host, "/s3/imported"], "import", &host, "/s3/imported"),
    ] {
        // Again it is the same: a folder that is implied by now is none to be told.
        for _ in 0..2 {
            let (status, out, said) = command(&data, arguments);
            let skipped = format!("{verb} {from}/empty: skipped: no empty folder can be at {to}/empty");
            assert!(status == Some(0) && said.trim_end().ends_with(&skipped), "{status:?} {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            let counts = serde_json::from_str::<serde_json::Value>(&out).expect("it is an object");
            let count = |key: &str| counts[key].as_u64();
            assert_eq!(["files", "skipped", "failed"].map(count), [1, 1, 0].map(Some), "{counts}");
        }
    }
    std::os::unix::fs::symlink("f", tree.join("a/b/link")).expect("there is room");
    let (status, _, said) = command(&data, &["import", &host, "/s3/imported"]);
    assert!(status == Some(1) && said.contains("import /s3/imported/a/b/link: "), "{said}");
    let nx = blocking::connect(&data).expect("it boots");
    for at in ["/s3/copied/a/b/f", "/s3/imported/a/b/f"] {
        assert_eq!(&nx.read(at).expect("it is there")[..], b"content", "{at}");
    }
    nx.shutdown().expect("it ends");
}

/// The smallest parts that there are.
const PART: usize = 5 << 20;

/// Content of three parts, in pieces of a MiB and a bit.
fn pieces() -> Vec<Bytes> {
    let numbers: Vec<u8> = (0..=250).collect();
    let bytes = Bytes::from(numbers.repeat(5_000));
    vec![bytes; 2 * PART / (251 * 5_000) + 2]
}

fn in_small_parts(port: u16) -> MountSpec {
    bucket(port, SECRET).option("part_bytes", PART.to_string())
}

#[test]
fn large_content_goes_up_and_comes_down_as_a_stream() {
    let server = Small::start(Duration::ZERO);
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/b", in_small_parts(server.port())).expect("it mounts");
    let all = pieces().concat();
    let written = nx.write_stream("/b/d/f", pieces().into_iter().map(Ok)).expect("it goes up");
    assert_eq!(written.metadata.size, all.len() as u64);
    assert!(written.metadata.content_id.as_ref().is_some_and(|tag| tag.to_string().ends_with("-3")));
    let down: Vec<Bytes> =
        nx.stream("/b/d/f").expect("it is there").map(|piece| piece.expect("it comes")).collect();
    assert!(down.concat() == all, "another content");
    let range = nx.stream_range("/b/d/f", 7..PART as u64 + 9).expect("it is there");
    let range: Vec<Bytes> = range.map(|piece| piece.expect("it comes")).collect();
    assert!(range.concat() == all[7..PART + 9], "another part");

    // One that breaks off, and one that expects what is there no more, change nothing.
    let broken = Err(nexus::Error::new(nexus::Op::Write, &nexus::VPath::root(), ErrorKind::Io));
    nx.write_stream("/b/d/f", pieces().into_iter().map(Ok).chain([broken])).expect_err("it breaks off");
    let before = nx.stat("/b/d/f").expect("it is there").content_id.clone().expect("it has a tag");
    nx.write("/b/d/f", "another").expect("it is written");
    let call = SysWrite::vectored(nexus::VPath::parse("/b/d/f").expect("it is a path"), Vec::new());
    let refused = nx.send_stream(call.if_match(before.clone()), pieces().into_iter().map(Ok));
    assert_eq!(refused.expect_err("it is another one").kind(), ErrorKind::PreconditionFailed);
    assert_eq!(&nx.read("/b/d/f").expect("it is read")[..], b"another");
    nx.shutdown().expect("it ends");
}

/// Two kernels know nothing of each other's locks: the server decides.
#[test]
fn what_two_kernels_append_to_one_file_is_all_there_and_of_two_that_replace_one_state_one_wins() {
    const LINES: usize = 25;
    let server = Small::start(Duration::ZERO);
    let kernels = [0, 1].map(|_| {
        let nx = blocking::connect(Config::in_memory()).expect("it boots");
        nx.mount("/b", in_small_parts(server.port())).expect("it mounts");
        nx
    });
    thread::scope(|scope| {
        for (number, nx) in kernels.iter().enumerate() {
            scope.spawn(move || {
                for line in 0..LINES {
                    nx.append("/b/log", format!("{number} {line}\n")).expect("it is appended");
                }
            });
        }
    });
    let log = kernels[0].read("/b/log").expect("it is read");
    let mut lines: Vec<String> = String::from_utf8_lossy(&log).lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected: Vec<String> =
        (0..2 * LINES).map(|line| format!("{} {}", line / LINES, line % LINES)).collect();
    expected.sort();
    assert_eq!(lines, expected);

    let at = nexus::VPath::parse("/b/log").expect("it is a path");
    for round in 0..LINES {
        let tag = kernels[0].stat("/b/log").expect("it is there").content_id.clone().expect("it has a tag");
        let won = thread::scope(|scope| {
            let writing = kernels.iter().enumerate().map(|(number, nx)| {
                let call = SysWrite::at(at.clone(), format!("{number} of {round}")).if_match(tag.clone());
                scope.spawn(move || match nx.send(call) {
                    Ok(_) => true,
                    Err(error) if error.kind() == ErrorKind::PreconditionFailed => false,
                    Err(error) => panic!("{error}"),
                })
            });
            let writing: Vec<_> = writing.collect();
            writing.into_iter().map(|writing| writing.join().expect("it does not panic")).collect::<Vec<_>>()
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "round {round}: {won:?}");
        let content = kernels[0].read("/b/log").expect("it is read");
        let winner = won.iter().position(|won| *won).expect("there is one");
        assert_eq!(&content[..], format!("{winner} of {round}").as_bytes());
    }
    for nx in kernels {
        nx.shutdown().expect("it ends");
    }
}

#[test]
fn content_in_a_bucket_is_cached_and_written_back_by_its_hash_and_needs_no_server_here() {
    let server = moto();
    let data = tempfile::tempdir().expect("a folder");
    let by_hash = |options: &[(&str, &str)]| {
        let spec = bucket(server.port(), SECRET).option("addressing", "content");
        options.iter().fold(spec, |spec, (key, value)| spec.option(*key, *value))
    };
    let nx = blocking::connect(data.path()).expect("it boots");
    let refused = nx.mount("/b", by_hash(&[("cache_age_ms", "1000")])).expect_err("content never changes");
    assert!(refused.to_string().contains("cache_age_ms"), "{refused}");
    let both = by_hash(&[("write_back", "yes"), ("cache_bytes", "100000000")]);
    nx.mount("/b", both).expect("it mounts");
    let content = |n: u8| Bytes::from(vec![n; 20_000 + usize::from(n)]);
    for n in 0..20 {
        nx.write(format!("/b/d/{n}"), content(n)).expect("it is written");
    }
    // The end waits for what is pending.
    nx.shutdown().expect("it ends");
    let nx = blocking::connect(data.path()).expect("it boots");
    let mounts = nx.mounts().expect("they are listed");
    let mount = mounts.iter().find(|mount| mount.point.as_str() == "/b").expect("it is there");
    let cache = mount.cache.clone().expect("it has one");
    assert_eq!((cache.pending_files, cache.pending_bytes), (0, 0), "{cache:?}");
    server.pause();
    for n in 0..20 {
        assert_eq!(nx.read(format!("/b/d/{n}")).expect("it is here"), content(n));
    }
    nx.write("/b/d/new", content(99)).expect("it is on the local disk");
    assert_eq!(nx.read("/b/d/new").expect("it is here"), content(99));
    server.resume();
    nx.shutdown().expect("it ends");
}

#[test]
fn a_state_of_the_same_second_is_told_from_the_one_before_it() {
    let server = Small::start(Duration::ZERO);
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/b", bucket(server.port(), SECRET)).expect("it mounts");
    let mounts = nx.mounts().expect("they are listed");
    let there = mounts.iter().find(|mount| mount.point.as_str() == "/b").expect("it is there");
    assert!(there.capabilities.is_some_and(|can| can.if_match && can.exclusive && !can.rename));
    nx.write("/b/f", "1").expect("it is written");
    let one = nx.stat("/b/f").expect("it is there");
    nx.write("/b/f", "2").expect("it is written");
    let two = nx.stat("/b/f").expect("it is there");
    assert_eq!(one.modified, two.modified, "the server tells no finer times");
    let at = nexus::VPath::parse("/b/f").expect("it is a path");
    let stale = nx.send(SysWrite::at(at.clone(), "3").if_version(one.version)).expect_err("it is stale");
    assert_eq!(stale.kind(), ErrorKind::PreconditionFailed, "{stale}");
    nx.send(SysWrite::at(at, "3").if_version(two.version)).expect("it is the state");
    nx.shutdown().expect("it ends");
}

/// What such a store is given is the whole file: it comes and goes piece by piece.
#[test]
fn a_large_file_of_a_bucket_is_changed_in_its_middle_and_at_its_end() {
    let (server, other) = (Small::start(Duration::ZERO), Small::start(Duration::ZERO));
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/plain", bucket(server.port(), SECRET)).expect("it mounts");
    let near =
        bucket(other.port(), SECRET).option("cache_bytes", "100000000").option("cache_age_ms", "60000");
    nx.mount("/near", near).expect("it mounts");
    for point in ["/plain", "/near"] {
        let path = format!("{point}/f");
        let at = nexus::VPath::parse(&path).expect("it is a path");
        let mut whole: Vec<u8> =
            (0_u32..5 << 20).flat_map(|nth| nth.wrapping_mul(0x9E37_79B1).to_le_bytes()).collect();
        nx.write(&path, whole.clone()).expect("it is written");
        nx.append(&path, "end").expect("it is appended to");
        whole.extend_from_slice(b"end");
        nx.send(SysWrite::at(at.clone(), "in the middle").offset(9 << 20)).expect("it is written to");
        whole[9 << 20..][..13].copy_from_slice(b"in the middle");
        // Beyond its end, too: what is between is zeros.
        let end = whole.len() + (9 << 20);
        nx.send(SysWrite::at(at.clone(), "far").offset(end as u64)).expect("it is written to");
        whole.resize(end, 0);
        whole.extend_from_slice(b"far");
        let edited = nx.edit(&path, "in the middle", "where it was, longer").expect("it is edited");
        assert_eq!(edited.places, 1);
        whole.splice(9 << 20..(9 << 20) + 13, *b"where it was, longer");
        assert!(nx.read(&path).expect("it is read") == whole, "{point}");
        let missed = nx.edit(&path, "in the middle", "gone").expect_err("it is not there");
        assert_eq!(missed.kind(), ErrorKind::InvalidArgument, "{missed}");
        let version = nx.stat(&path).expect("it is there").version;
        nx.append(&path, "!").expect("it is appended to");
        let stale = nx.send(SysWrite::at(at, "?").append().if_version(version)).expect_err("it is stale");
        assert_eq!(stale.kind(), ErrorKind::PreconditionFailed, "{stale}");
    }
    nx.shutdown().expect("it ends");
}

#[test]
fn a_mount_with_something_on_its_way_is_not_given_another_store() {
    let server = Small::start(Duration::ZERO);
    let proxy = Proxy::start(server.port());
    let folder = tempfile::tempdir().expect("a folder");
    let nx = blocking::connect(folder.path().join("data")).expect("it boots");
    let written_back = bucket(proxy.port(), SECRET).option("write_back", "yes");
    nx.mount("/b", written_back.option("cache_age_ms", "60000").option("retries", "0")).expect("it mounts");
    nx.write("/b/one", "1").expect("it is acknowledged");
    let pending = || {
        nx.mounts()
            .expect("they are listed")
            .iter()
            .filter_map(|mount| mount.cache.as_ref())
            .map(|cache| cache.pending_files)
            .sum::<u64>()
    };
    while pending() > 0 {
        thread::park_timeout(Duration::from_millis(5));
    }
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("there is room");
    let other = MountSpec::new("local").option("folder", other.display().to_string());
    proxy.set(Fault::Denied);
    nx.write("/b/two", "2").expect("it is acknowledged");
    let refused = nx.swap_driver("/b", other.clone()).expect_err("it is here alone").to_string();
    assert!(
        refused.contains("1 files, 1 bytes, 1 of them refused") && refused.contains("two: "),
        "{refused}"
    );
    assert_eq!(nx.read("/b/two").expect("it is here"), "2");
    let mounts = nx.mounts().expect("they are listed");
    let there = mounts.iter().find(|mount| mount.point.as_str() == "/b").expect("it is there");
    let stuck = &there.cache.as_ref().expect("it has one").stuck;
    assert!(stuck.len() == 1 && stuck[0].refused && stuck[0].path == "two", "{stuck:?}");
    // Whoever deletes it gives it up.
    nx.unlink("/b/two").expect("it is given up");
    nx.swap_driver("/b", other).expect("all is at its store");
    proxy.set(Fault::None);
    let own = MountSpec::new("local").option("folder", folder.path().join("data").display().to_string());
    let refused = nx.mount("/own", own).expect_err("it is the kernel's").to_string();
    assert!(refused.contains("keeps its own data"), "{refused}");
    nx.shutdown().expect("it ends");
}

#[test]
fn a_folder_of_a_bucket_is_removed_with_a_request_for_each_thousand_keys() {
    for cached in [&[][..], &[("cache_age_ms", "60000"), ("write_back", "yes")]] {
        let server = Small::start(Duration::ZERO);
        servers::s3::request(server.port(), "POST /bkt?fill=3000 HTTP/1.1");
        let data = tempfile::tempdir().expect("a folder");
        let nx = blocking::connect(data.path()).expect("it boots");
        let spec =
            cached.iter().fold(bucket(server.port(), SECRET), |spec, (key, value)| spec.option(*key, *value));
        nx.mount("/b", spec).expect("it mounts");
        nx.write("/b/listed/sub/one", "1").expect("it is written");
        nx.write("/b/beside", "2").expect("it is written");
        // What is known of the folder is known no more afterwards.
        assert_eq!(nx.readdir("/b/listed").expect("it is listed").len(), 3_001);
        let before = server.requests();
        let removed = nx.remove_all("/b/listed").expect("it is removed");
        let requests = server.requests() - before;
        assert_eq!(removed.removed, 3_003);
        assert!(requests < 40, "{requests}");
        println!("{requests} requests for 3,000 keys, with {cached:?}");
        assert!(nx.readdir("/b/listed").is_err_and(|error| error.kind() == ErrorKind::NotFound));
        let gone = nx.read("/b/listed/f-000007.txt");
        assert!(gone.is_err_and(|error| error.kind() == ErrorKind::NotFound));
        assert_eq!(&nx.read("/b/beside").expect("it is there")[..], b"2");
        nx.shutdown().expect("it ends");
    }
}

#[test]
fn a_key_that_cannot_be_removed_is_named_and_the_others_are_gone() {
    let server = Small::start(Duration::ZERO);
    servers::s3::request(server.port(), "POST /bkt?fill=20 HTTP/1.1");
    servers::s3::put(server.port(), "listed/locked", "1");
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/b", bucket(server.port(), SECRET)).expect("it mounts");
    let error = nx.remove_all("/b/listed").expect_err("one of them is kept");
    assert_eq!((error.kind(), error.executed()), (ErrorKind::PermissionDenied, Executed::Unknown));
    let told = error.to_string();
    assert!(told.contains("/b/listed") && told.contains("listed/locked"), "{told}");
    let left = nx.readdir("/b/listed").expect("it is there");
    assert_eq!(left.iter().map(|entry| entry.name()).collect::<Vec<_>>(), ["locked"]);
    nx.shutdown().expect("it ends");
}

/// From the one driver to the other, while somebody writes.
fn migrates(nx: &Nexus, to: MountSpec, files: &mut BTreeMap<String, Bytes>) {
    let round = files.len();
    nx.migrate("/m", to, false).expect("it begins");
    for number in 0..10 {
        let (name, content) = (format!("/m/meanwhile/{round}/{number}"), Bytes::from(format!("{number}")));
        nx.write(&name, content.clone()).expect("it is written");
        files.insert(name, content);
    }
    let status = waits_for(nx, "/m");
    assert_eq!(status.state, MigrationState::Done, "{status:?}");
    holds_all(nx, files);
}

fn holds_all(nx: &Nexus, files: &BTreeMap<String, Bytes>) {
    let there = nx.walk("/m").map(|entry| entry.expect("it is listed"));
    let there: BTreeSet<_> = there
        .filter(|entry| entry.entry_type != EntryType::Dir)
        .map(|entry| entry.path.to_string())
        .collect();
    assert!(there.iter().eq(files.keys()), "{there:?}");
    for (name, content) in files {
        assert!(nx.read(name.as_str()).expect("it is read") == *content, "{name}");
    }
}

#[test]
fn files_go_to_a_bucket_to_contents_in_it_and_back_while_they_are_used() {
    let (server, data, host) =
        (moto(), tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let folder = |name: &str| {
        let folder = host.path().join(name);
        fs::create_dir(&folder).expect("there is room");
        MountSpec::new("local").option("folder", folder.display().to_string())
    };
    let within = |prefix: &str| bucket(server.port(), SECRET).option("prefix", prefix);
    let nx = blocking::connect(data.path()).expect("it boots");
    nx.mount("/m", folder("one")).expect("it mounts");
    let mut files = BTreeMap::new();
    for number in 0..12_usize {
        let name = format!("/m/d{}/e/{number}", number % 3);
        let length = [10, 70_000, 9 << 20][if number == 5 { 2 } else { number % 2 }];
        let content: Bytes =
            (0..length).map(|at| u8::try_from(at * (number + 7) % 251).expect("it is below 251")).collect();
        nx.write(&name, content.clone()).expect("it is written");
        files.insert(name, content);
    }
    migrates(&nx, within("paths"), &mut files);
    migrates(&nx, within("contents").option("addressing", "content"), &mut files);
    nx.shutdown().expect("it ends");
    let nx = blocking::connect(data.path()).expect("it boots");
    holds_all(&nx, &files);
    // Content by its hash keeps what was superseded, and files by their paths do not.
    migrates(&nx, within("again").option("history_count", "0"), &mut files);
    migrates(&nx, folder("two"), &mut files);
    let two = host.path().join("two");
    assert!(
        files.iter().all(|(name, content)| fs::read(two.join(&name[3..])).expect("it is there") == *content)
    );
    nx.shutdown().expect("it ends");
}
