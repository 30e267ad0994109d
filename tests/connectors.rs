//! Connectors mounted in a kernel: an API and a repository of git, which run here.

#[path = "../drivers/tests/external/server.rs"]
#[cfg(test)]
#[allow(dead_code, reason = "each target uses a part of it")]
mod server;

#[path = "../drivers/tests/external/api.rs"]
#[cfg(test)]
#[allow(dead_code, reason = "each target uses a part of it")]
mod api;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nexus::blocking::{self, Nexus};
use nexus::{Config, EntryType, ErrorKind, MountSpec, MountState, SysSetattr};
use serde_json::json;
use server::{Answer, Server};
use tracing_subscriber::fmt::MakeWriter;

const TOKEN: &str = "hunter22-token";

fn example(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/connectors");
    folder.join(name).to_str().expect("it is text").to_owned()
}

/// A repository with one commit.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("src")).expect("it is made");
    fs::write(folder.path().join("README.md"), "# Hello\n").expect("it is written");
    fs::write(folder.path().join("src/lib.rs"), "pub fn f() {}\n").expect("it is written");
    for args in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "--all"],
        &["commit", "--quiet", "-m", "one"],
    ] {
        let mut git = Command::new("git");
        git.current_dir(folder.path()).args(["-c", "user.name=me", "-c", "user.email=me@example"]).args(args);
        let status = git.status().expect("git is there; when it is not installed: apt-get install git");
        assert!(status.success(), "git {args:?}");
    }
    folder
}

fn git(folder: &Path) -> MountSpec {
    MountSpec::new("command")
        .option("description", example("git.toml"))
        .option("parameters", format!("repo={}", folder.display()))
}

fn files(server: &Server, token: &str) -> MountSpec {
    MountSpec::new("rest")
        .option("description", example("files.toml"))
        .option("parameters", format!("base={}/v1", server.base()))
        .option("token", token)
}

/// Calendars, for who has the token that came last; each comes with another refresh token.
fn calendars() -> Server {
    let granted = AtomicUsize::new(0);
    Server::start(move |asked| match asked.path().as_str() {
        "/token" => {
            let nth = granted.fetch_add(1, Ordering::AcqRel);
            let token = json!({"access_token": format!("hunter22-access-{nth}"), "refresh_token": format!("hunter22-next-{nth}"), "token_type": "Bearer"});
            Answer::of(200, token.to_string())
        }
        "/users/me/calendarList" => Answer::of(200, r#"{"items": [{"id": "me"}]}"#),
        // What it repeats is what it was sent.
        _ => Answer::of(401, asked.header("authorization").unwrap_or_default()),
    })
}

fn calendar(server: &Server) -> MountSpec {
    let base = server.base();
    MountSpec::new("rest")
        .option("description", example("calendar.toml"))
        .option("parameters", format!("client=me,api={base},tokens={base}/token"))
        .option("refresh_token", "hunter22-refresh")
        .option("client_secret", "hunter22-client")
}

/// A program that says its secret whatever it is asked.
fn teller(folder: &Path) -> MountSpec {
    let description = folder.join("teller.toml");
    let text = r#"
connector = "command"
about = "It tells"
program = "sh"

[secrets]
SECRET = "option:token"

[[route]]
path = "{name}"
read = { args = ["-c", "echo it is $SECRET >&2; exit 3"] }
"#;
    fs::write(&description, text).expect("there is room");
    MountSpec::new("command")
        .option("description", description.display().to_string())
        .option("token", "hunter22-of-a-program")
}

/// One file, for who has the token.
fn one_file() -> Server {
    Server::start(|asked| match asked.path().as_str() {
        _ if asked.header("authorization") != Some(&format!("Bearer {TOKEN}")) => Answer::of(401, TOKEN),
        "/v1/files/f" => Answer::of(200, "content").header("ETag", "\"1\""),
        "/v1/list" if asked.query("folder").as_deref() == Some("") => {
            Answer::of(200, r#"{"entries": [{"name": "f", "kind": "file", "bytes": 7, "etag": "\"1\""}]}"#)
        }
        _ => Answer::of(404, ""),
    })
}

fn kind(nx: &Nexus, path: &str) -> EntryType {
    nx.stat(path).unwrap_or_else(|error| panic!("{path}: {error}")).entry_type
}

#[test]
fn a_mount_point_of_a_connector_is_external_storage_and_a_directory() {
    let repository = repository();
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    let done =
        nx.send(SysSetattr::mount(nexus::VPath::parse("/git").expect("a path"), git(repository.path())));
    assert_eq!(done.expect("it mounts").metadata.entry_type, EntryType::ExternalStorage);
    assert_eq!(
        (kind(&nx, "/git"), kind(&nx, "/git/main"), kind(&nx, "/")),
        (EntryType::ExternalStorage, EntryType::Dir, EntryType::Mount)
    );
    let root = nx.readdir("/").expect("it is listed");
    let there = root.iter().find(|entry| entry.name() == "git").expect("it is listed");
    assert_eq!(there.entry_type, EntryType::ExternalStorage);
    assert_eq!(&nx.read("/git/main/README.md").expect("it is read")[..], b"# Hello\n");
    let walked: Vec<_> = nx.walk("/").map(|entry| entry.expect("it is walked").path.to_string()).collect();
    assert!(walked.iter().any(|path| path == "/git/main/src/lib.rs"), "{walked:?}");
    let read = nx.read("/git").expect_err("it is a directory");
    assert_eq!(read.kind(), ErrorKind::IsADirectory, "{read}");
    let written = nx.write("/git/main/new", "x").expect_err("it is read-only");
    assert_eq!(written.kind(), ErrorKind::ReadOnly, "{written}");
    let mounts = nx.mounts().expect("they are listed");
    let mount = mounts.iter().find(|mount| mount.point.as_str() == "/git").expect("it is there");
    assert_eq!(mount.connector.map(|category| category.name()), Some("cli"));
    assert!(mount.read_only);
    nx.unmount("/git").expect("it is detached");
    nx.shutdown().expect("it ends");
}

#[test]
fn it_may_be_asked_for_by_its_type_and_no_other_driver_can() {
    let repository = repository();
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    let asked = |path: &str, spec: MountSpec| {
        let mut call = SysSetattr::mount(nexus::VPath::parse(path).expect("a path"), spec);
        call.entry_type = Some(EntryType::ExternalStorage);
        nx.send(call)
    };
    asked("/git", git(repository.path())).expect("it mounts");
    assert_eq!(kind(&nx, "/git"), EntryType::ExternalStorage);
    let refused = asked("/m", MountSpec::new("memory")).expect_err("it is no connector");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert!(refused.to_string().contains("no connector"), "{refused}");
    nx.shutdown().expect("it ends");
}

#[test]
fn it_is_back_after_a_restart_and_external_also_when_it_cannot_be_reached() {
    let (data, repository) = (tempfile::tempdir().expect("a folder"), repository());
    let nx = blocking::connect(data.path()).expect("it boots");
    nx.mount("/git", git(repository.path())).expect("it mounts");
    nx.shutdown().expect("it ends");
    let nx = blocking::connect(data.path()).expect("it boots");
    assert_eq!(kind(&nx, "/git"), EntryType::ExternalStorage);
    assert_eq!(&nx.read("/git/HEAD/README.md").expect("it is read")[..], b"# Hello\n");
    nx.shutdown().expect("it ends");
    drop(repository);
    let nx = blocking::connect(data.path()).expect("it boots without");
    let root = nx.readdir("/").expect("it is listed");
    let there = root.iter().find(|entry| entry.name() == "git").expect("it is listed all the same");
    assert_eq!(there.entry_type, EntryType::ExternalStorage);
    nx.write("/other", "1").expect("no other mount notices");
    nx.shutdown().expect("it ends");
}

#[test]
fn what_an_api_has_is_changed_as_files_are() {
    let (server, held) = api::start();
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/api", files(&server, api::TOKEN)).expect("it mounts");
    nx.write("/api/d/e/f.txt", "hello").expect("it is written");
    nx.append("/api/d/e/f.txt", " world").expect("it is appended");
    nx.write("/api/d/g", "2").expect("it is written");
    api::locked(&held).put("d/others", b"of somebody else");
    let names: Vec<_> = nx
        .readdir("/api/d")
        .expect("it is listed")
        .into_iter()
        .map(|entry| entry.name().to_owned())
        .collect();
    assert_eq!(names, ["e", "g", "others"]);
    assert_eq!(&nx.read("/api/d/e/f.txt").expect("it is read")[..], b"hello world");
    assert_eq!(&nx.read("/api/d/others").expect("it is read")[..], b"of somebody else");
    nx.copy("/api/d/others", "/api/copy").expect("it is copied");
    assert_eq!(&nx.read("/api/copy").expect("it is read")[..], b"of somebody else");
    let refused = nx.rename("/api/copy", "/api/other").expect_err("it is refused");
    assert_eq!(refused.kind(), ErrorKind::NotSupported, "{refused}");
    nx.remove_all("/api/d").expect("it is removed");
    assert!(nx.read("/api/d/g").is_err_and(|error| error.kind() == ErrorKind::NotFound));
    nx.shutdown().expect("it ends");
}

/// All that is logged, of whatever kind, also by libraries.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
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

#[test]
fn an_api_is_worked_with_and_its_credential_is_shown_nowhere() {
    let logged = Logged::default();
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    log.with_writer(logged.clone()).init();
    let server = one_file();
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/api", files(&server, TOKEN)).expect("it mounts");
    assert_eq!(&nx.read("/api/f").expect("it is read")[..], b"content");
    assert_eq!(nx.stat("/api/f").expect("it is there").size, 7);
    let missing = nx.read("/api/none").expect_err("it is not there");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    nx.mount("/wrong", files(&server, "hunter22-wrong")).expect("it mounts");
    let denied = nx.read("/wrong/f").expect_err("it is not allowed");
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied, "{denied}");
    let (calendars, folder) = (calendars(), tempfile::tempdir().expect("a folder"));
    nx.mount("/calendar", calendar(&calendars)).expect("it mounts");
    assert_eq!(nx.readdir("/calendar").expect("it is listed").len(), 1);
    let unheard = nx.read("/calendar/me/e").expect_err("no token helps");
    nx.mount("/teller", teller(folder.path())).expect("it mounts");
    let told = nx.read("/teller/f").expect_err("it fails");
    assert!(told.to_string().contains("it is (hidden)"), "{told}");
    let shown: String = nx
        .readdir("/__sys__/mounts")
        .expect("they are listed")
        .iter()
        .filter_map(|entry| nx.read(format!("/__sys__/mounts/{}", entry.name())).ok())
        .map(|file| String::from_utf8_lossy(&file).into_owned())
        .collect();
    assert!(shown.contains("\"connector\": \"api\"") && shown.contains("(hidden)"), "{shown}");
    let all = format!(
        "{shown} {missing} {missing:?} {denied} {denied:?} {unheard} {unheard:?} {told} {told:?} {:?}",
        nx.mounts()
    );
    nx.shutdown().expect("it ends");
    let said = logged.said();
    assert!(said.contains("hyper_util"), "libraries say nothing: little can have been looked at");
    assert!(!said.is_empty() && !all.contains("hunter22"), "{all}");
    assert!(!said.contains("hunter22"), "a credential is in the log");
}

/// How the mount at `/a` is.
fn state(nx: &Nexus) -> MountState {
    let mounts = nx.mounts().expect("they are listed");
    mounts.into_iter().find(|mount| mount.point.as_str() == "/a").expect("it is mounted").state
}

#[test]
fn a_mount_whose_token_is_wrong_says_so_from_the_first_call_on() {
    let server = one_file();
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.mount("/a", files(&server, "wr0ng-token")).expect("what it may ask for is not known yet");
    assert_eq!(state(&nx), MountState::Serving);
    let refused = nx.read("/a/f").expect_err("nobody has this token");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let MountState::Limited { cause } = state(&nx) else { panic!("{:?}", state(&nx)) };
    assert!(cause.contains("\"f\"") && cause.contains("401: it does not know who asks"), "{cause}");
    assert!(!cause.contains("wr0ng-token"), "{cause}");
    let listed = nx.readdir("/__sys__/mounts").expect("they are listed");
    let told = listed.iter().any(|entry| {
        let file = nx.read(format!("/__sys__/mounts/{}", entry.name())).expect("it is read");
        String::from_utf8_lossy(&file).contains("\"limited\"")
    });
    assert!(told, "/__sys__/mounts says nothing of it");
    nx.unmount("/a").expect("it is unmounted");
    nx.mount("/a", files(&server, TOKEN)).expect("it mounts");
    assert_eq!(nx.read("/a/f").expect("it has the token"), "content");
    assert_eq!(state(&nx), MountState::Serving);
    nx.shutdown().expect("it ends");
}

#[test]
fn where_a_description_names_a_probe_a_wrong_token_mounts_nothing() {
    let server = one_file();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("probed.toml");
    let mount = |probe: &str, token: &str| {
        let text = format!(
            "connector = \"rest\"\nbase = \"{}/v1\"\nprobe = {{ url = \"{probe}\" }}\nauth = {{ kind = \"bearer\", token = \"option:token\" }}\n\
             [[route]]\npath = \"{{name}}\"\nread = {{ url = \"/files/{{name}}\" }}\n",
            server.base()
        );
        fs::write(&file, text).expect("there is room");
        MountSpec::new("rest").option("description", file.display().to_string()).option("token", token)
    };
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    let refused = nx.mount("/a", mount("/files/f", "wr0ng-token")).expect_err("nobody has this token");
    let told = refused.to_string();
    assert!(told.contains("asking for \"/v1/files/f\": the server answers 401"), "{told}");
    assert!(nx.mounts().expect("they are listed").iter().all(|mount| mount.point.as_str() != "/a"));
    nx.mount("/a", mount("/files/none", TOKEN)).expect_err("there is nothing");
    nx.mount("/a", mount("/{name}", TOKEN)).expect_err("of which name is not said");
    nx.mount("/a", mount("/files/f", TOKEN)).expect("it mounts");
    assert_eq!(state(&nx), MountState::Serving);
    assert_eq!(nx.read("/a/f").expect("it has the token"), "content");
    nx.shutdown().expect("it ends");
}
