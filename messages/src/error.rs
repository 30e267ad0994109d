//! What can go wrong, in a form that a caller can branch on without reading text.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::conflict::Conflict;
use crate::ident::{Lsn, OpId};
use crate::path::{PathError, VPath};

/// The operation that a caller asked for. Stored by its number in the log: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named after its operation")]
pub enum Op {
    Stat,
    Setattr,
    Rename,
    Unlink,
    Readdir,
    Read,
    Write,
    Copy,
    Lock,
    Unlock,
    Watch,
    Append,
    Edit,
    Mkdir,
    Rmdir,
    Link,
    Access,
    Glob,
    Grep,
    Mount,
    Unmount,
    Sync,
    Connect,
    Import,
    Export,
    Kill,
    Shutdown,
    Hook,
    Service,
    Tx,
    Collect,
    Versions,
    Receipt,
    Check,
    Repair,
    Restore,
    Outcome,
    Take,
    Group,
    Spawn,
}

impl Op {
    /// The name that users see, such as `readdir`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Setattr => "setattr",
            Self::Rename => "rename",
            Self::Unlink => "unlink",
            Self::Readdir => "readdir",
            Self::Read => "read",
            Self::Write => "write",
            Self::Copy => "copy",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
            Self::Watch => "watch",
            Self::Append => "append",
            Self::Edit => "edit",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
            Self::Link => "link",
            Self::Access => "access",
            Self::Glob => "glob",
            Self::Grep => "grep",
            Self::Mount => "mount",
            Self::Unmount => "unmount",
            Self::Sync => "sync",
            Self::Hook => "hook",
            Self::Service => "service",
            Self::Tx => "tx",
            Self::Collect => "gc",
            Self::Versions => "versions",
            Self::Receipt => "receipt",
            Self::Check => "fsck",
            Self::Repair => "repair",
            Self::Restore => "restore",
            Self::Outcome => "outcome",
            Self::Take => "take",
            Self::Group => "group",
            Self::Spawn => "spawn",
            Self::Connect => "connect",
            Self::Import => "import",
            Self::Export => "export",
            Self::Kill => "kill",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What went wrong. Each kind has one [`Errno`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text given is not a path.
    InvalidPath,
    /// The path, or a component of it, is too long.
    NameTooLong,
    /// An argument makes no sense, or not together with the others.
    InvalidArgument,
    /// There is no such entry.
    NotFound,
    /// Something on the way, or the entry itself, is not a directory.
    NotADirectory,
    /// The entry is a directory, and the operation needs a file.
    IsADirectory,
    /// The directory has children.
    NotEmpty,
    /// There is an entry already.
    AlreadyExists,
    /// The two paths are on different mounts.
    CrossMount,
    /// The chain of links is too long.
    TooManyLinks,
    /// No mount serves the path.
    NoMount,
    /// The mount, or the whole store, cannot be written to.
    ReadOnly,
    /// The caller may not do this.
    PermissionDenied,
    /// A hook refused the call.
    Refused,
    /// What the caller expected to find is not what is there.
    PreconditionFailed,
    /// The entry is in use: a mount point with open calls, a folder owned by another process.
    Busy,
    /// The deadline passed. Whether anything was done by then, [`Error::executed`] says.
    TimedOut,
    /// The driver or the entry cannot do this.
    NotSupported,
    /// The content would be larger than the limit.
    TooLarge,
    /// The store is full.
    StoreFull,
    /// The caller has used up what it may use.
    QuotaExceeded,
    /// The stored content is not what was written.
    Corrupt,
    /// The backend failed.
    Io,
    /// The backend failed again and again, and is left alone for a while. The cause says when it is tried again.
    Unavailable,
    /// The kernel is stopping, or a part of it is gone for good.
    Down,
    /// A part of the kernel or a driver broke while it served the call.
    Crashed,
    /// What there was that far back is not kept, or not any more.
    NotKept,
    /// It would have to be waited for, and the call does not wait.
    WouldBlock,
    /// Those who wait, the caller among them, wait for each other.
    Deadlock,
    /// The caller does not hold what it names, or not any more.
    NotHeld,
    /// The lock under which the caller writes is not its own any more.
    Fenced,
    /// As many are held as may be.
    NoLocks,
    /// Nobody is there any more to read what is written.
    BrokenPipe,
    /// The message is larger than what it is written to can ever hold.
    MessageTooLarge,
}

impl ErrorKind {
    /// The POSIX error that fits.
    pub fn errno(self) -> Errno {
        match self {
            Self::InvalidPath | Self::InvalidArgument => Errno::EINVAL,
            Self::NameTooLong => Errno::ENAMETOOLONG,
            Self::NotFound => Errno::ENOENT,
            Self::NotADirectory => Errno::ENOTDIR,
            Self::IsADirectory => Errno::EISDIR,
            Self::NotEmpty => Errno::ENOTEMPTY,
            Self::AlreadyExists => Errno::EEXIST,
            Self::CrossMount => Errno::EXDEV,
            Self::TooManyLinks => Errno::ELOOP,
            Self::NoMount => Errno::ENODEV,
            Self::ReadOnly => Errno::EROFS,
            Self::PermissionDenied | Self::Refused => Errno::EACCES,
            Self::PreconditionFailed => Errno::ECANCELED,
            Self::Busy => Errno::EBUSY,
            Self::TimedOut => Errno::ETIMEDOUT,
            Self::NotSupported => Errno::EOPNOTSUPP,
            Self::TooLarge => Errno::EFBIG,
            Self::StoreFull => Errno::ENOSPC,
            Self::QuotaExceeded => Errno::EDQUOT,
            Self::Corrupt | Self::Io | Self::Crashed => Errno::EIO,
            Self::Unavailable => Errno::EAGAIN,
            Self::Down => Errno::ESHUTDOWN,
            Self::NotKept => Errno::ENODATA,
            Self::WouldBlock => Errno::EAGAIN,
            Self::Deadlock => Errno::EDEADLK,
            Self::NotHeld => Errno::EPERM,
            Self::NoLocks => Errno::ENOLCK,
            Self::Fenced => Errno::EFENCED,
            Self::BrokenPipe => Errno::EPIPE,
            Self::MessageTooLarge => Errno::EMSGSIZE,
        }
    }

    /// What happened, in a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::InvalidPath => "not a valid path",
            Self::NameTooLong => "name too long",
            Self::InvalidArgument => "invalid argument",
            Self::NotFound => "no such file or directory",
            Self::NotADirectory => "not a directory",
            Self::IsADirectory => "is a directory",
            Self::NotEmpty => "directory not empty",
            Self::AlreadyExists => "already exists",
            Self::CrossMount => "on another mount",
            Self::TooManyLinks => "too many links on the way",
            Self::NoMount => "no mount serves it",
            Self::ReadOnly => "read-only",
            Self::PermissionDenied => "permission denied",
            Self::Refused => "refused by a hook",
            Self::PreconditionFailed => "not in the state expected",
            Self::Busy => "busy",
            Self::TimedOut => "timed out",
            Self::NotSupported => "not supported",
            Self::TooLarge => "too large",
            Self::StoreFull => "store is full",
            Self::QuotaExceeded => "quota exceeded",
            Self::Corrupt => "stored content is corrupt",
            Self::Io => "input/output error",
            Self::Unavailable => "not available for now",
            Self::Down => "the kernel is stopping",
            Self::Crashed => "crashed while serving the call",
            Self::NotKept => "not kept",
            Self::WouldBlock => "would have to wait",
            Self::Deadlock => "would wait for itself",
            Self::NotHeld => "not held",
            Self::Fenced => "the lock is lost",
            Self::NoLocks => "no locks available",
            Self::BrokenPipe => "nobody reads it any more",
            Self::MessageTooLarge => "message too large",
        }
    }
}

macro_rules! errnos {
    ($($name:ident = $number:literal),* $(,)?) => {
        /// A POSIX error: its Linux name and number. `EFENCED` is ours, and above those of Linux.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the names are POSIX's")]
        pub enum Errno { $($name = $number),* }

        impl Errno {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The number on Linux.
            pub fn number(self) -> i32 {
                self as i32
            }

            /// The name, such as `ENOENT`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

errnos! {
    EPERM = 1, ENOENT = 2, EIO = 5, EAGAIN = 11, EACCES = 13, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20, EISDIR = 21,
    EINVAL = 22, EFBIG = 27, ENOSPC = 28, EROFS = 30, EPIPE = 32, EDEADLK = 35, ENAMETOOLONG = 36, ENOLCK = 37, ENOTEMPTY = 39, ELOOP = 40, ENODATA = 61, EMSGSIZE = 90, EOPNOTSUPP = 95,
    ESHUTDOWN = 108, ETIMEDOUT = 110, EDQUOT = 122, ECANCELED = 125, EFENCED = 200,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a call that failed was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Executed {
    /// Nothing was changed; sending it again is safe.
    No,
    /// It may have been executed. Ask for the outcome of its [operation id](Error::op_id), or look.
    Unknown,
}

/// Why a call failed: the operation, the path, the kind, the cause, and whether anything was done.
///
/// Shows as `OPERATION PATH: what happened (ERRNO)`, after `tx ops[N]: ` when it was the operation `N` of a transaction.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error(Box<Detail>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Detail {
    op: Op,
    path: Option<Arc<str>>,
    kind: ErrorKind,
    executed: Executed,
    cause: Option<Arc<str>>,
    item: Option<u32>,
    conflict: Option<Conflict>,
    op_id: Option<OpId>,
    oldest: Option<Lsn>,
}

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of `op` on `path` in which nothing was changed.
    pub fn new(op: Op, path: &VPath, kind: ErrorKind) -> Self {
        Self::of(op, Some(path.shared()), kind)
    }

    /// A failure of `op` that concerns no single path.
    pub fn global(op: Op, kind: ErrorKind) -> Self {
        Self::of(op, None, kind)
    }

    /// A failure of `op` that concerns `path` of the machine that the kernel runs on.
    pub fn on_host(op: Op, path: impl AsRef<std::path::Path>, kind: ErrorKind) -> Self {
        Self::of(op, Some(path.as_ref().to_string_lossy().into()), kind)
    }

    /// `text` was given as a path to `op`, and is none.
    pub fn bad_path(op: Op, text: &str, why: &PathError) -> Self {
        let kind = match why {
            PathError::NameTooLong { .. } | PathError::PathTooLong { .. } => ErrorKind::NameTooLong,
            _ => ErrorKind::InvalidPath,
        };
        Self::of(op, Some(Arc::from(text)), kind).because(why)
    }

    fn of(op: Op, path: Option<Arc<str>>, kind: ErrorKind) -> Self {
        Self(Box::new(Detail {
            op,
            path,
            kind,
            executed: Executed::No,
            cause: None,
            item: None,
            conflict: None,
            op_id: None,
            oldest: None,
        }))
    }

    /// Adds what was behind it.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string().into());
        self
    }

    /// Says that a precondition did not hold, and what was found.
    #[must_use]
    pub fn with_conflict(mut self, conflict: Conflict) -> Self {
        self.0.cause = Some(conflict.to_string().into());
        self.0.conflict = Some(conflict);
        self
    }

    /// Says at which operation of a transaction it failed, counted from 0.
    #[must_use]
    pub fn at_item(mut self, index: usize) -> Self {
        self.0.item = u32::try_from(index).ok();
        self
    }

    /// Says that the call may have been executed.
    #[must_use]
    pub fn outcome_unknown(mut self) -> Self {
        self.0.executed = Executed::Unknown;
        self
    }

    /// Adds the oldest place in the log that can be told from.
    #[must_use]
    pub fn since_oldest(mut self, oldest: Lsn) -> Self {
        self.0.oldest = Some(oldest);
        self
    }

    /// Says which operation it was, for who asks what became of it.
    #[must_use]
    pub fn of_operation(mut self, op_id: OpId) -> Self {
        self.0.op_id = Some(op_id);
        self
    }

    /// The same failure, told of another operation: the one that the caller knows of.
    #[must_use]
    pub fn during(mut self, op: Op) -> Self {
        self.0.op = op;
        self
    }

    /// The same failure, told of `path`.
    #[must_use]
    pub fn at(mut self, path: &VPath) -> Self {
        self.0.path = Some(path.shared());
        self
    }

    /// The operation.
    pub fn op(&self) -> Op {
        self.0.op
    }

    /// The path concerned, as it was given.
    pub fn path(&self) -> Option<&str> {
        self.0.path.as_deref()
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The POSIX error that fits.
    pub fn errno(&self) -> Errno {
        self.0.kind.errno()
    }

    /// Whether anything may have been done.
    pub fn executed(&self) -> Executed {
        self.0.executed
    }

    /// The identity of the operation, when it may have been executed: [`SysOutcome`](crate::syscall::SysOutcome) tells what became of it. None where it
    /// has none, as when something is mounted.
    pub fn op_id(&self) -> Option<OpId> {
        self.0.op_id
    }

    /// The oldest place in the log that can be told from, when what was asked for is older.
    pub fn oldest(&self) -> Option<Lsn> {
        self.0.oldest
    }

    /// The operation of a transaction at which it failed, counted from 0; none when it is that of the whole.
    pub fn item(&self) -> Option<usize> {
        self.0.item.map(|item| item as usize)
    }

    /// The precondition that did not hold, and what was found; none for an error of another kind.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.0.conflict.as_ref()
    }

    /// What was behind it, in words.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail { op, path, kind, executed, cause, item, conflict: _, op_id, oldest: _ } = &*self.0;
        if let Some(item) = item {
            write!(f, "tx ops[{item}]: ")?;
        }
        write!(f, "{op}")?;
        if let Some(path) = path {
            write!(f, " {}", path.escape_debug())?;
        }
        write!(f, ": {}", kind.describe())?;
        if let Some(cause) = cause {
            write!(f, ": {cause}")?;
        }
        if *executed == Executed::Unknown {
            write!(f, "; it may have been executed")?;
            if let Some(op_id) = op_id {
                write!(f, ", as operation {op_id}")?;
            }
        }
        write!(f, " ({})", kind.errno())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.0.kind)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_path_cause_and_errno() {
        let path = VPath::parse("/a/b").unwrap();
        let error = Error::new(Op::Read, &path, ErrorKind::NotFound);
        assert_eq!(error.to_string(), "read /a/b: no such file or directory (ENOENT)");
        let error = Error::new(Op::Write, &path, ErrorKind::Io).because("disk on fire").outcome_unknown();
        assert_eq!(
            error.to_string(),
            "write /a/b: input/output error: disk on fire; it may have been executed (EIO)"
        );
        assert_eq!((error.errno().number(), error.executed()), (5, Executed::Unknown));
        let error = Error::new(Op::Write, &path, ErrorKind::Io).outcome_unknown().of_operation(OpId(255));
        let told = "write /a/b: input/output error; it may have been executed, as operation 000000000000000000000000000000ff (EIO)";
        assert_eq!((error.to_string().as_str(), error.op_id()), (told, Some(OpId(255))));
    }

    #[test]
    fn a_bad_path_is_shown_as_it_was_given() {
        let why = VPath::parse("a\n").unwrap_err();
        let error = Error::bad_path(Op::Stat, "a\n", &why);
        assert_eq!(error.to_string(), "stat a\\n: not a valid path: a path starts with / (EINVAL)");
        let long = "x".repeat(300);
        let why = VPath::parse(&format!("/{long}")).unwrap_err();
        assert_eq!(Error::bad_path(Op::Stat, &long, &why).errno(), Errno::ENAMETOOLONG);
    }

    #[test]
    fn an_error_of_a_transaction_names_the_item_and_what_was_found() {
        use crate::FileId;
        use crate::conflict::Found;
        use crate::syscall::Precondition;
        let path = VPath::parse("/a").unwrap();
        let found = Found::Entry { file_id: FileId(8), version: 5, generation: 6, content_id: None };
        let check = |expected, found: Found, text: &str| {
            let error = Error::new(Op::Write, &path, ErrorKind::PreconditionFailed);
            let error = error.with_conflict(Conflict::new(expected, found)).at_item(3);
            assert_eq!(
                error.to_string(),
                format!("tx ops[3]: write /a: not in the state expected: {text} (ECANCELED)")
            );
            assert_eq!((error.item(), error.conflict().is_some()), (Some(3), true));
        };
        check(Precondition::Version(4), found.clone(), "expected version 4, found version 5");
        check(Precondition::Generation(4), found.clone(), "expected generation 4, found generation 6");
        let unchanged = Precondition::Unchanged { file_id: FileId(7), version: 5 };
        check(unchanged, found.clone(), "expected version 5 of entry 7, found version 5 of entry 8");
        check(Precondition::Absent, found, "expected nothing, found version 5");
        check(Precondition::Version(4), Found::Nothing, "expected version 4, found nothing");
    }

    #[test]
    fn a_result_stays_small() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
