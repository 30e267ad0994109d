//! Finds and starts programs.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nexus_actors::{Env, Worker, WorkerBounds};
use nexus_kernel::hal::{
    ProcessError, ProcessFuture, ProcessHost, ProcessInput, ProcessOutput, StartedProcess,
};
use nexus_messages::{ChildSpec, ErrorKind};
use parking_lot::Mutex;
use rustix::fs::{Access, access};
use tokio::sync::oneshot;

use super::birth;
use super::ends::{Input, Output};
use super::process::{Born, HostProcess};

/// Starts that may wait for the thread.
const QUEUE_MAX: usize = 64;

/// The variable that says where programs are.
const PATH: &str = "PATH";

/// Where programs are when nobody says.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

type Job = Box<dyn FnOnce() + Send>;

/// The processes of this host.
pub struct HostProcesses {
    env: Env,
    /// The thread that starts them, once there is one. The host kills them when it ends, so it is none that comes and goes.
    starter: Mutex<Option<Worker<Job>>>,
}

impl HostProcesses {
    /// The processes that are started from here: they end with this value at the latest.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), starter: Mutex::default() }
    }

    fn starter(&self) -> io::Result<Worker<Job>> {
        let mut starter = self.starter.lock();
        if let Some(starter) = &*starter {
            return Ok(starter.clone());
        }
        let bounds = WorkerBounds { queue: QUEUE_MAX, batch: 1 };
        let started =
            self.env.worker("processes", bounds, |jobs: Vec<Job>| jobs.into_iter().for_each(|job| job()))?;
        Ok(starter.insert(started).clone())
    }

    /// What `work` gives, on the thread that starts processes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ProcessError> + Send + 'static,
    ) -> Result<T, ProcessError> {
        let ended = |_| ProcessError::new(ErrorKind::Down, "the thread that starts processes has ended");
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // What nobody waits for any more is dropped, and a process killed with it.
            let _ = done.send(work());
        });
        let starter = self.starter().map_err(|error| ProcessError::new(ErrorKind::Busy, error))?;
        starter.submit(job).await.map_err(|_| ended(()))?;
        result.await.map_err(|_| ended(()))?
    }
}

impl ProcessHost for HostProcesses {
    fn find(&self, spec: Arc<ChildSpec>) -> ProcessFuture<'_, Result<PathBuf, ProcessError>> {
        Box::pin(self.run(move || find(&spec)))
    }

    fn start(
        &self,
        program: PathBuf,
        spec: Arc<ChildSpec>,
    ) -> ProcessFuture<'_, Result<StartedProcess, ProcessError>> {
        Box::pin(async move {
            let (child, both) = self
                .run(move || spawn(&program, &spec).map(|(child, both)| (Born::new(child), both)))
                .await?;
            let lost = |_| ProcessError::new(ErrorKind::Down, "the kernel's I/O has ended");
            let (done, watched) = oneshot::channel();
            // There descriptors can be waited for.
            self.env.spawn("processes.watch", async move {
                let _ = done.send(watch(child, both));
            });
            watched.await.map_err(lost)?
        })
    }
}

/// The folder that the child works in, if one is named.
fn folder_of(spec: &ChildSpec) -> Option<&Path> {
    spec.folder.as_deref().map(Path::new)
}

/// Where programs are looked for.
fn path_of(spec: &ChildSpec) -> OsString {
    let own = || env::var_os(PATH).filter(|path| !path.is_empty());
    spec.env.get(PATH).map(OsString::from).or_else(own).unwrap_or_else(|| PATH_DEFAULT.into())
}

fn find(spec: &ChildSpec) -> Result<PathBuf, ProcessError> {
    if let Some(folder) = folder_of(spec)
        && !folder.is_dir()
    {
        let why = format!("it is to work in {}, which is no folder", folder.display());
        return Err(ProcessError::new(ErrorKind::NotFound, why));
    }
    let mut denied = None;
    let mut is_it = |program: &Path| {
        let is_file = program.is_file();
        let may = is_file && access(program, Access::EXEC_OK).is_ok();
        if is_file && !may {
            denied.get_or_insert_with(|| program.to_owned());
        }
        may
    };
    let named = Path::new(&spec.program);
    let found = if spec.program.contains('/') {
        let program = folder_of(spec).map_or_else(|| named.to_owned(), |folder| folder.join(named));
        is_it(&program).then_some(program)
    } else {
        env::split_paths(&path_of(spec)).map(|folder| folder.join(named)).find(|program| is_it(program))
    };
    if let Some(program) = &found
        && !says_what_runs_it(program)
    {
        let why = format!("{} is neither a program nor a script that begins with #!", program.display());
        return Err(ProcessError::new(ErrorKind::InvalidArgument, why));
    }
    let found = found.map(|program| std::path::absolute(&program).unwrap_or(program));
    found.ok_or_else(|| match denied {
        Some(program) => {
            let why = format!("{} may not be executed", program.display());
            ProcessError::new(ErrorKind::PermissionDenied, why)
        }
        None if spec.program.contains('/') => {
            ProcessError::new(ErrorKind::NotFound, format!("there is no program {:?}", spec.program))
        }
        None => {
            let why = format!("there is no program {:?} in {PATH}", spec.program);
            ProcessError::new(ErrorKind::NotFound, why)
        }
    })
}

/// Whether the host can run it: it would hand anything else to a shell. What cannot be read it may know better.
fn says_what_runs_it(program: &Path) -> bool {
    let mut begin = [0; 4];
    match File::open(program).and_then(|mut file| file.read(&mut begin)) {
        Ok(_) => begin.starts_with(b"#!") || begin == *b"\x7fELF",
        Err(_) => true,
    }
}

/// Starts it. With it comes what both outputs are read from, when they are one.
fn spawn(program: &Path, spec: &ChildSpec) -> Result<(Child, Option<PipeReader>), ProcessError> {
    let to = |is_null: bool| if is_null { Stdio::null() } else { Stdio::piped() };
    let mut command = Command::new(program);
    command
        .arg0(&spec.program)
        .args(&spec.args)
        .env_clear()
        .env(PATH, path_of(spec))
        .envs(&spec.env)
        .stdin(to(spec.stdin.is_none()))
        .stdout(to(spec.stdout.is_null()))
        .stderr(to(spec.stderr.is_null()));
    if let Some(folder) = folder_of(spec) {
        command.current_dir(folder);
    }
    let failed = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::ArgumentListTooLong => ErrorKind::InvalidArgument,
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => ErrorKind::Busy,
            _ => ErrorKind::Io,
        };
        ProcessError::new(kind, format!("{}: {error}", program.display()))
    };
    let mut both = None;
    if spec.is_merged() {
        let (reader, writer) = io::pipe().map_err(failed)?;
        command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        both = Some(reader);
    }
    birth::apart_and_dies_with_this_thread(&mut command);
    // This process's copies of what the child writes to are closed with the command.
    command.spawn().map(|child| (child, both)).map_err(failed)
}

/// To be called on the I/O runtime. On an error the process is killed.
fn watch(mut born: Born, both: Option<PipeReader>) -> Result<StartedProcess, ProcessError> {
    let failed = |error: io::Error| ProcessError::new(ErrorKind::Io, error);
    let ends = |child: &mut Child| (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (stdin, stdout, stderr) = born.child().map(ends).unwrap_or_default();
    let input = stdin.map(|end| Input::new(end.into())).transpose().map_err(failed)?;
    let output = |end: io::Result<Output>| end.map(|end| Box::new(end) as Box<dyn ProcessOutput>);
    let stdout = both.map(OwnedFd::from).or_else(|| stdout.map(OwnedFd::from));
    let stdout = stdout.map(|end| output(Output::new(end))).transpose().map_err(failed)?;
    let stderr = stderr.map(|end| output(Output::new(end.into()))).transpose().map_err(failed)?;
    let process = HostProcess::new(born).map_err(failed)?;
    let stdin = input.map(|end| Box::new(end) as Box<dyn ProcessInput>);
    Ok(StartedProcess { process: Box::new(process), stdin, stdout, stderr })
}

impl fmt::Debug for HostProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostProcesses").finish_non_exhaustive()
    }
}
