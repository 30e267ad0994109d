//! PostgreSQL, as another user when this one is root, as which it does not run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use tempfile::TempDir;

use crate::servers::{Recipe, Server, certificates};

/// The password of its user `nexus`: what must be seen nowhere.
pub(crate) const PASSWORD: &str = "s3cr3t-of-the-server";

/// The user that runs it when root may not.
const USER: &str = "postgres";

const RECIPE: Recipe = Recipe {
    program: "setpriv",
    install: "apt-get install postgresql",
    ready: "database system is ready to accept connections",
    arguments,
};

/// A server with the user `nexus`, and the database of that name.
pub(crate) struct Postgres(Server);

impl Postgres {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the server");
        init(&folder);
        Self(Server::start_in(RECIPE, folder))
    }

    /// As [`start`](Self::start), with a certificate for `localhost`, by an authority of its own whose certificate is in the file [`authority`](Self::authority).
    pub(crate) fn start_encrypted() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the server");
        init(&folder);
        certify(folder.path());
        Self(Server::start_in(RECIPE, folder))
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.0.folder().join(certificates::AUTHORITY)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    /// The address of a database of it, with the password.
    pub(crate) fn url(&self, database: &str) -> String {
        url(self.port(), database)
    }

    /// Kills all of it as the end of the machine would, and waits until none of it is left: a process that is would hinder the next start.
    pub(crate) fn kill(&mut self) {
        let parent = self.0.id();
        let children = parent.map(children_of).unwrap_or_default();
        self.0.kill();
        for child in &children {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-9", child]).stderr(Stdio::null()).status();
        }
        while children.iter().any(|child| is_alive(child)) {
            thread::yield_now();
        }
    }

    pub(crate) fn start_again(&mut self) {
        self.0.start_again();
    }
}

pub(crate) fn url(port: u16, database: &str) -> String {
    format!("postgres://nexus:{PASSWORD}@127.0.0.1:{port}/{database}")
}

/// The program of this name, on the path or where Debian puts it.
fn program(name: &str) -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = on_path.chain(versions.map(|version| version.path().join("bin")));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

fn is_root() -> bool {
    // The owner of one's own process is who one is.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// What `setpriv` is told so that it runs a program of PostgreSQL.
fn as_its_user(name: &str) -> Vec<String> {
    let user = [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()];
    let end = ["--pdeathsig", "KILL", "--"].map(str::to_owned);
    let program = program(name).to_string_lossy().into_owned();
    is_root().then_some(user).into_iter().flatten().chain(end).chain([program]).collect()
}

fn arguments(folder: &Path, port: u16) -> Vec<String> {
    let folder = folder.display();
    let own = [
        "-D".into(),
        format!("{folder}/data"),
        "-p".into(),
        port.to_string(),
        "-clisten_addresses=127.0.0.1".into(),
        format!("-cunix_socket_directories={folder}"),
        // The end of a process loses nothing that the system was given.
        "-cfsync=off".into(),
        "-cmax_connections=60".into(),
    ];
    as_its_user("postgres").into_iter().chain(own).collect()
}

fn init(folder: &TempDir) {
    let path = folder.path();
    let password = path.join("password");
    fs::write(&password, PASSWORD).expect("the folder is ours");
    if is_root() {
        let owned = Command::new("chown").args(["-R", USER]).arg(path).status();
        assert!(owned.is_ok_and(|status| status.success()), "there is no user {USER}: {}", RECIPE.install);
    }
    let mut command = Command::new("setpriv");
    command.args(as_its_user("initdb")).arg("-D").arg(path.join("data")).arg("--pwfile").arg(&password);
    command.args(["-U", "nexus", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C"]);
    let done =
        command.current_dir(path).stdin(Stdio::null()).output().expect("setpriv is a part of every Debian");
    assert!(
        done.status.success(),
        "initdb fails; when it is not installed: {}: {}",
        RECIPE.install,
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Makes an authority and a certificate, and has the server use it.
fn certify(folder: &Path) {
    certificates::certify(folder, "data/server.key", "data/server.crt");
    let settings = folder.join("data/postgresql.auto.conf");
    fs::write(&settings, "ssl = on\n").expect("the folder is there");
    if is_root() {
        let owned = Command::new("chown").args(["-R", USER]).arg(folder.join("data")).status();
        assert!(owned.is_ok_and(|status| status.success()), "its folder cannot be given to {USER}");
    }
}

/// The words after the name of a process: its state, its parent, and so on.
fn stat(process: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn children_of(parent: u32) -> Vec<String> {
    let parent = parent.to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = all.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| stat(name).is_some_and(|words| words.get(1) == Some(&parent))).collect()
}

fn is_alive(process: &str) -> bool {
    stat(process).is_some_and(|words| words.first().is_some_and(|state| state != "Z" && state != "X"))
}
