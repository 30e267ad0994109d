//! What every command runs in: the kernel, where to print, and the data folder.

use std::ffi::OsStr;
use std::path::PathBuf;

use nexus::{AsOf, Error, ErrorKind, Fence, IntoPath, Nexus, Op, VPath};
use nexus_actors::Env;

use crate::args::{AsOfArgs, FenceArgs};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::run::USER;

/// A running kernel and an output.
pub(crate) struct Session {
    pub(crate) nx: Nexus,
    pub(crate) out: Output,
    /// The data folder on the host, which an import leaves out.
    pub(crate) data: PathBuf,
}

impl Session {
    /// A session on the administrator's handle `nx`, whose kernel keeps its data in `data`.
    pub(crate) fn new(nx: Nexus, out: Output, data: PathBuf) -> Self {
        Self { nx, out, data }
    }

    /// What a command is told that this one runs: where the data is, and for whom it acts.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        let user = self.nx.caller().user.as_deref().map(|user| (USER, OsStr::new(user)));
        [("NEXUS_DATA_DIR", self.data.as_os_str())].into_iter().chain(user)
    }

    /// The kernel's clock, tasks and threads.
    pub(crate) fn env(&self) -> &Env {
        self.nx.env()
    }

    /// As of when a command with these arguments looks; none for now.
    pub(crate) fn as_of(&self, then: &AsOfArgs) -> Option<AsOf> {
        then.as_of.map(|then| then.as_of(self.env()))
    }

    /// The same kernel, printing elsewhere.
    pub(crate) fn printing_to(&self, out: Output) -> Self {
        Self { nx: self.nx.clone(), out, data: self.data.clone() }
    }

    /// The result of one of several paths: a failure is told, and the command goes on with the next.
    pub(crate) fn each(&self, done: Outcome) -> Outcome {
        match done {
            Err(failure @ Failure::OutputClosed) => Err(failure),
            Err(failure) => {
                // What was printed before comes before.
                self.out.flush()?;
                self.out.failed(&failure);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// The lock under which a command with these arguments changes what is at `at`.
pub(crate) fn fence(op: Op, at: &VPath, args: &FenceArgs) -> nexus::Result<Option<Fence>> {
    if !args.fenced {
        return Ok(None);
    }
    let told = |name: &str| std::env::var(name).ok();
    let named = told("NEXUS_LOCK_PATH").zip(told("NEXUS_LOCK_TOKEN"));
    let named = named.and_then(|(path, token)| Some((VPath::parse(&path).ok()?, token.parse().ok()?)));
    let (path, token) = named.ok_or_else(|| {
        let error = Error::new(op, at, ErrorKind::InvalidArgument);
        error.because("--fenced: $NEXUS_LOCK_PATH and $NEXUS_LOCK_TOKEN do not name a lock")
    })?;
    Ok(Some(Fence::new(path, token)))
}

/// The text as a path, for `op`.
pub(crate) fn path(op: Op, text: &str) -> nexus::Result<VPath> {
    text.into_path().map_err(|(text, why)| Error::bad_path(op, &text, &why))
}
