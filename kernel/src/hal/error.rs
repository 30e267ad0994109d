//! What can go wrong in a driver.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::Panicked;
use nexus_messages::ErrorKind;

/// Why a driver's operation failed. Nothing was changed, unless the variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such object.
    #[error("{what} is not there")]
    NotFound {
        /// The object, as the driver knows it.
        what: String,
    },
    /// There is an object already, and the call was to make a new one.
    #[error("{what} exists")]
    Exists {
        /// The object, as the driver knows it.
        what: String,
    },
    /// The object is not, or no longer, in the state that the call was to replace.
    #[error("{what} is not what it was")]
    Changed {
        /// The object, as the driver knows it.
        what: String,
    },
    /// Something on the way is not a directory.
    #[error("{what} is not a directory")]
    NotADirectory {
        /// The object, as the driver knows it.
        what: String,
    },
    /// The object is a directory.
    #[error("{what} is a directory")]
    IsADirectory {
        /// The object, as the driver knows it.
        what: String,
    },
    /// The directory has children.
    #[error("{what} is not empty")]
    NotEmpty {
        /// The object, as the driver knows it.
        what: String,
    },
    /// What is stored is not what was written.
    #[error("{what} is corrupt: {found}")]
    Corrupt {
        /// The object, as the driver knows it.
        what: String,
        /// What was found instead.
        found: String,
    },
    /// The path leads out of the folder that the driver serves.
    #[error("{what} leads out of the mounted folder")]
    Escapes {
        /// The object, as the driver knows it.
        what: String,
    },
    /// What there was that far back is not kept, or not any more.
    #[error("{what} is not kept")]
    NotKept {
        /// What was asked for.
        what: String,
    },
    /// The backend has no room.
    #[error("the store is full")]
    Full,
    /// The store refuses changes, because it was opened so or because an earlier failure made it.
    #[error("the store is read-only: {cause}")]
    ReadOnly {
        /// Why.
        cause: String,
    },
    /// The mount's files have moved to another store since the call began. What was given of it is not there, or what it read of: it may be made again.
    #[error("{what}: the files moved to another driver since the call began: make it again")]
    Moved {
        /// The object, as the driver knows it.
        what: String,
    },
    /// Another process, or another handle, has the store open.
    #[error("{what} is in use by another process")]
    Locked {
        /// The store, as the driver knows it.
        what: String,
    },
    /// The store was closed: the kernel has stopped.
    #[error("the store is closed")]
    Closed,
    /// The driver cannot do this at all.
    #[error("the driver does not support {what}")]
    NotSupported {
        /// The operation.
        what: &'static str,
    },
    /// The driver's options make no sense.
    #[error("{why}")]
    BadOption {
        /// Which, and why.
        why: String,
    },
    /// The backend failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the operating system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The backend failed in its own way.
    #[error("{what}: {cause}")]
    Backend {
        /// What was being done.
        what: String,
        /// What the backend said.
        cause: String,
    },
    /// The operation may have been carried out.
    #[error("{what}: outcome unknown: {cause}")]
    Unknown {
        /// What was being done.
        what: String,
        /// What the backend said.
        cause: String,
    },
    /// As [`Unknown`](Self::Unknown), for what this one call is: the backend is well.
    #[error("{what}: outcome unknown: {cause}")]
    Doubtful {
        /// What was being done.
        what: String,
        /// What the backend said.
        cause: String,
    },
    /// The driver panicked.
    #[error("the driver panicked while {what}: {}", said(.panicked))]
    Panicked {
        /// What was being done.
        what: String,
        /// What the panic said, and where.
        panicked: Panicked,
        /// Whether it was changing something, and may have done it.
        changing: bool,
    },
    /// The driver did not answer in time.
    #[error("the driver did not answer within {limit:?} while {what}")]
    TimedOut {
        /// What was being done.
        what: String,
        /// The limit.
        limit: Duration,
        /// Whether it was changing something, and may have done it, or may do it yet.
        changing: bool,
    },
    /// The mount has gone since the call began.
    #[error("{mount} is not mounted any more")]
    Unmounted {
        /// The mount point.
        mount: String,
    },
    /// The driver was not asked, because it failed again and again.
    #[error("{mount} is not served for now, and tried again {}: {cause}", in_words(.retry_in))]
    Unavailable {
        /// The mount point.
        mount: String,
        /// The latest failure.
        cause: String,
        /// When it is tried again, counted from now.
        retry_in: Duration,
    },
}

fn said(panicked: &Panicked) -> String {
    match &panicked.location {
        Some(place) => format!("{} at {place}", panicked.message),
        None => panicked.message.to_string(),
    }
}

fn in_words(retry_in: &Duration) -> String {
    match retry_in.as_millis() {
        0 => "at any moment".into(),
        millis => format!("in {millis} ms"),
    }
}

impl StoreError {
    /// A failure of the operating system while doing `what`.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::NotFound => Self::NotFound { what },
            io::ErrorKind::AlreadyExists => Self::Exists { what },
            io::ErrorKind::NotADirectory => Self::NotADirectory { what },
            io::ErrorKind::IsADirectory => Self::IsADirectory { what },
            io::ErrorKind::DirectoryNotEmpty => Self::NotEmpty { what },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { cause: source.to_string() },
            _ => Self::Io { what, source: Arc::new(source) },
        }
    }

    /// The kind that a caller sees.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::AlreadyExists,
            Self::Changed { .. } => ErrorKind::PreconditionFailed,
            Self::NotADirectory { .. } => ErrorKind::NotADirectory,
            Self::IsADirectory { .. } => ErrorKind::IsADirectory,
            Self::NotEmpty { .. } => ErrorKind::NotEmpty,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Escapes { .. } => ErrorKind::PermissionDenied,
            Self::NotKept { .. } => ErrorKind::NotKept,
            Self::Full => ErrorKind::StoreFull,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::Moved { .. } | Self::Locked { .. } => ErrorKind::Busy,
            Self::Closed => ErrorKind::Down,
            Self::NotSupported { .. } => ErrorKind::NotSupported,
            Self::BadOption { .. } => ErrorKind::InvalidArgument,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                io::ErrorKind::FileTooLarge => ErrorKind::TooLarge,
                io::ErrorKind::ResourceBusy => ErrorKind::Busy,
                io::ErrorKind::Unsupported => ErrorKind::NotSupported,
                _ => ErrorKind::Io,
            },
            Self::Backend { .. } | Self::Unknown { .. } | Self::Doubtful { .. } => ErrorKind::Io,
            Self::Panicked { .. } => ErrorKind::Crashed,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Unmounted { .. } => ErrorKind::NoMount,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
        }
    }

    /// Whether the operation may have been carried out all the same.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Doubtful { .. } => true,
            Self::Panicked { changing, .. } | Self::TimedOut { changing, .. } => *changing,
            _ => false,
        }
    }

    /// Whether it tells of a backend that does not do its work, rather than of what was asked of it.
    pub fn is_backend_failure(&self) -> bool {
        match self {
            Self::Backend { .. }
            | Self::Unknown { .. }
            | Self::Closed
            | Self::Panicked { .. }
            | Self::TimedOut { .. } => true,
            Self::Io { source, .. } => !is_about_the_call(source.kind()),
            _ => false,
        }
    }
}

/// Whether the operating system would refuse just this call, however well it is.
fn is_about_the_call(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::PermissionDenied
            | Kind::InvalidInput
            | Kind::InvalidFilename
            | Kind::FileTooLarge
            | Kind::TooManyLinks
            | Kind::CrossesDevices
            | Kind::ResourceBusy
            | Kind::ExecutableFileBusy
            | Kind::Unsupported
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What agents can bring about by what they ask for must not take a mount away from all others.
    #[test]
    fn what_is_wrong_with_the_call_does_not_count_against_the_backend() {
        for errno in [1, 13, 18, 22, 27, 36, 28, 2, 17, 20, 21, 39, 30, 16] {
            let error = StoreError::io("x", io::Error::from_raw_os_error(errno));
            assert!(!error.is_backend_failure(), "{error:?}");
        }
        for errno in [5, 6, 19, 110, 112, 116] {
            let error = StoreError::io("x", io::Error::from_raw_os_error(errno));
            assert!(error.is_backend_failure(), "{error:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_call_is_told_as_what_it_is() {
        let kinds = [(27, ErrorKind::TooLarge), (16, ErrorKind::Busy), (95, ErrorKind::NotSupported)];
        for (errno, kind) in kinds.into_iter().chain([(13, ErrorKind::PermissionDenied), (5, ErrorKind::Io)])
        {
            let error = StoreError::io("x", io::Error::from_raw_os_error(errno));
            assert_eq!(error.kind(), kind, "{error:?}");
        }
    }

    #[test]
    fn an_unavailable_mount_says_why_and_until_when() {
        let error = |millis| StoreError::Unavailable {
            mount: "/m".into(),
            cause: "disk on fire".into(),
            retry_in: Duration::from_millis(millis),
        };
        assert_eq!(
            error(1_500).to_string(),
            "/m is not served for now, and tried again in 1500 ms: disk on fire"
        );
        assert!(error(0).to_string().contains("tried again at any moment"));
        assert!(!error(0).is_backend_failure() && !error(0).is_unknown(), "it was not asked");
    }
}
