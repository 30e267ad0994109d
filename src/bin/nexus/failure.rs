//! What can go wrong in a command, how it is told, and which exit status it gives.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nexus::{Error, ErrorKind, Executed, Op, VPath};

/// How a command ended. The worst of several is the status of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// All was done.
    #[default]
    Done,
    /// A command that it ran ended with this.
    Command(u8),
    /// Something failed, or grep found nothing.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Something may have been done, or not.
    Unknown,
}

impl Status {
    /// The exit status of the process.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Command(code) => code,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unknown => 3,
        }
    }
}

/// Why a command ended before its end. Shows as `OPERATION PATH: what happened (ERRNO)`.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel said so.
    Call(Error),
    /// The kernel said so of an operation that the user knows as another command.
    Known {
        /// The command.
        verb: &'static str,
        /// What the kernel said.
        error: Error,
    },
    /// The host's file system said so.
    Host {
        /// What was being done.
        op: &'static str,
        /// Where, on the host.
        path: PathBuf,
        /// What the host said.
        error: io::Error,
    },
    /// The host's file system said so of what an operation was to take from there: it may not have been meant to.
    Source {
        /// What was being done.
        op: Op,
        /// To which path.
        to: VPath,
        /// What was taken for a file of the host.
        file: PathBuf,
        /// What the host said.
        error: io::Error,
    },
    /// A claim of the tour does not hold, or something was found that is not as it was promised.
    Claim {
        /// What was being done.
        op: &'static str,
        /// Where, on the host, if it concerns one place.
        at: Option<PathBuf>,
        /// What was found instead.
        found: String,
    },
    /// The arguments make no sense together.
    Usage(String),
    /// Nobody reads our output any more, so there is nothing left to do.
    OutputClosed,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn host(op: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Host { op, path: path.to_owned(), error }
    }

    pub(crate) fn claim(op: &'static str, found: impl fmt::Display) -> Self {
        Self::Claim { op, at: None, found: found.to_string() }
    }

    pub(crate) fn claim_at(op: &'static str, at: &Path, found: impl fmt::Display) -> Self {
        Self::Claim { op, at: Some(at.to_owned()), found: found.to_string() }
    }

    /// Whether the kernel said this.
    pub(crate) fn is(&self, kind: ErrorKind) -> bool {
        matches!(self, Self::Call(error) if error.kind() == kind)
    }

    /// Whether it was not permitted.
    pub(crate) fn is_denied(&self) -> bool {
        match self {
            Self::Host { error, .. } => error.kind() == io::ErrorKind::PermissionDenied,
            failure => failure.is(ErrorKind::PermissionDenied),
        }
    }

    /// The same failure, told of another operation: the one that the user knows of.
    pub(crate) fn during(self, op: Op) -> Self {
        match self {
            Self::Call(error) => Self::Call(error.during(op)),
            other => other,
        }
    }

    /// The same failure, told of the command `verb`, for which the kernel has no operation of its own.
    pub(crate) fn known_as(self, verb: &'static str) -> Self {
        match self {
            Self::Call(error) => Self::Known { verb, error },
            other => other,
        }
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Call(error) | Self::Known { error, .. } if error.executed() == Executed::Unknown => {
                Status::Unknown
            }
            Self::Call(_)
            | Self::Known { .. }
            | Self::Host { .. }
            | Self::Source { .. }
            | Self::Claim { .. } => Status::Failed,
            Self::Usage(_) => Status::Usage,
            Self::OutputClosed => Status::Done,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Known { verb, error } => {
                let told = error.to_string();
                write!(f, "{verb}{}", told.strip_prefix(error.op().name()).unwrap_or(&told))
            }
            Self::Host { op, path, error } => {
                write!(f, "{op} {}: {}", shown(path), HostError(error))
            }
            Self::Source { op, to, file, error } => {
                let (op, file) = (op.name(), shown(file));
                write!(f, "{op} {to}: {file} is taken for a file of the host: {}", HostError(error))
            }
            Self::Claim { op, at: None, found } => write!(f, "{op}: {found}"),
            Self::Claim { op, at: Some(at), found } => write!(f, "{op} {}: {found}", shown(at)),
            Self::Usage(why) => f.write_str(why),
            Self::OutputClosed => f.write_str("the output is closed"),
        }
    }
}

/// A host path as one line of text: control characters and what is not UTF-8 are escaped.
pub(crate) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.extend(chunk.valid().escape_debug());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Shows an error of the host as the kernel shows its own: what happened, then the errno's name.
struct HostError<'a>(&'a io::Error);

impl fmt::Display for HostError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(number) = self.0.raw_os_error() else { return self.0.fmt(f) };
        let told = self.0.to_string();
        let what = told.split(" (os error").next().unwrap_or(&told);
        let mut letters = what.chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase());
        write!(f, "{}{}", first.map(String::from).unwrap_or_default(), letters.as_str())?;
        match NAMES.iter().find(|(errno, _)| *errno == number) {
            Some((_, name)) => write!(f, " ({name})"),
            None => write!(f, " (errno {number})"),
        }
    }
}

/// Linux's names for what file systems say.
const NAMES: &[(i32, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (9, "EBADF"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (18, "EXDEV"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (26, "ETXTBSY"),
    (27, "EFBIG"),
    (28, "ENOSPC"),
    (30, "EROFS"),
    (36, "ENAMETOOLONG"),
    (39, "ENOTEMPTY"),
    (40, "ELOOP"),
    (75, "EOVERFLOW"),
    (84, "EILSEQ"),
    (95, "EOPNOTSUPP"),
    (116, "ESTALE"),
    (122, "EDQUOT"),
];

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_host_error_reads_like_the_kernels_own() {
        let gone = Failure::host("import", Path::new("/a\n"), io::Error::from_raw_os_error(2));
        assert_eq!(gone.to_string(), "import /a\\n: no such file or directory (ENOENT)");
        let odd = Failure::host("import", Path::new("/a"), io::Error::from_raw_os_error(133));
        assert!(odd.to_string().ends_with("(errno 133)"), "{odd}");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_shown() {
        assert_eq!(shown(Path::new(OsStr::from_bytes(b"/\xffa\xe4"))), "/\\xffa\\xe4");
    }

    #[test]
    fn what_may_have_been_done_has_a_status_of_its_own() {
        let check = |error: Error, status: u8| assert_eq!(Failure::from(error).status().code(), status);
        let failed = Error::global(Op::Write, ErrorKind::Crashed);
        check(failed.clone(), 1);
        check(failed.outcome_unknown(), 3);
    }

    #[test]
    fn the_worst_status_wins() {
        assert_eq!(Status::Failed.max(Status::Unknown).code(), 3);
        assert_eq!(Failure::OutputClosed.status().code(), 0);
    }
}
