//! Kills a writing process and looks at what it left.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nexus::syscall::SysRead;
use nexus::{ErrorKind, Nexus, VPath};
use nexus_actors::Env;
use serde::Serialize;

use super::writer::content;
use crate::failure::{Failure, Outcome};
use crate::listing::Pages;

/// How long the writer may take to be acknowledged as much as is waited for.
const WRITER_MAX: Duration = Duration::from_secs(30);

/// What a killed writer left.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Left {
    /// Writes that the writer was told are done.
    pub(super) acknowledged: usize,
    /// Files that are there.
    pub(super) present: usize,
    /// Acknowledged ones that are not there.
    pub(super) missing: usize,
    /// Files that are not what was written, byte for byte.
    pub(super) torn: usize,
}

/// Starts a writer on the data folder, kills it (SIGKILL) once `enough` writes were acknowledged, and gives all that were.
pub(super) async fn kill_writer(
    env: &Env,
    data: &Path,
    profile: Option<&str>,
    below: &VPath,
    round: u32,
    enough: usize,
) -> Outcome<BTreeSet<String>> {
    let told = |error| Failure::host("tour", data, error);
    let own = std::env::current_exe().map_err(told)?;
    let mut command = Command::new(own);
    command.arg("--data").arg(data).args(profile.map(|name| ["--profile", name]).into_iter().flatten());
    command.args(["tour-writer", below.as_str(), "--round", &round.to_string()]);
    let mut writer = Writer(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(told)?);
    let acknowledged = listen(env, &mut writer.0, enough).await;
    // It may have ended by itself, which is told below.
    let _ = writer.0.kill();
    let exit = writer.0.wait().map_err(told)?;
    let acknowledged = acknowledged?;
    if acknowledged.len() < enough {
        let why =
            format!("the writer ended by itself ({exit}) after {} acknowledged writes", acknowledged.len());
        return Err(Failure::claim("tour", why));
    }
    Ok(acknowledged)
}

/// A writer, which goes with the tour, also when that is given up.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads names until there are enough, has the writer killed, and reads what is left in the pipe: that was acknowledged too.
async fn listen(env: &Env, writer: &mut Child, enough: usize) -> Outcome<BTreeSet<String>> {
    let Some(said) = writer.stdout.take() else {
        return Err(Failure::claim("tour", "the writer has no output"));
    };
    let (reached, reaching) = flume::bounded(1);
    let pool = env.pool("tour-listen", 1, 1);
    let reading = pool.run(move || {
        let mut names = BTreeSet::new();
        // A line without an end was cut off by the kill, and says nothing.
        let mut said = BufReader::new(said);
        let mut line = String::new();
        while said.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
            names.insert(line.trim_end().to_owned());
            line.clear();
            if names.len() == enough {
                // Who waits may have given up.
                let _ = reached.send(());
            }
        }
        names
    });
    let killing = async {
        let waited = env.timeout(WRITER_MAX, reaching.recv_async()).await;
        // It may have ended by itself.
        let _ = writer.kill();
        waited
    };
    let (names, waited) = futures_util::future::join(reading, killing).await;
    let names = names.map_err(|error| Failure::claim("tour", error))?;
    match waited {
        Ok(_) => Ok(names),
        Err(_) => {
            Err(Failure::claim("tour", format!("{} of {enough} writes in {WRITER_MAX:?}", names.len())))
        }
    }
}

/// Holds what is there against what was acknowledged.
pub(super) async fn inspect(nx: &Nexus, below: &VPath, acknowledged: &BTreeSet<String>) -> Outcome<Left> {
    let mut present = BTreeSet::new();
    let mut left = Left { acknowledged: acknowledged.len(), ..Left::default() };
    let mut pages = Pages::new(nx, nexus::syscall::SysReaddir::at(below));
    while let Some(entries) = pages.next().await? {
        for entry in entries {
            let name = entry.name();
            match nx.send(SysRead::at(&entry.path)).await {
                Ok(read) if *read.data == *content(name) => {}
                Ok(_) => left.torn += 1,
                Err(error) if error.kind() == ErrorKind::Corrupt => left.torn += 1,
                Err(error) => return Err(error.into()),
            }
            present.insert(name.to_owned());
        }
    }
    left.present = present.len();
    left.missing = acknowledged.difference(&present).count();
    Ok(left)
}
