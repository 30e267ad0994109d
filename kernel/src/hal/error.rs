//! What can go wrong in a driver.

use std::io;
use std::sync::Arc;

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
    /// The backend has no room.
    #[error("the store is full")]
    Full,
    /// The store refuses changes, because it was opened so or because an earlier failure made it.
    #[error("the store is read-only: {cause}")]
    ReadOnly {
        /// Why.
        cause: String,
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
            Self::NotADirectory { .. } => ErrorKind::NotADirectory,
            Self::IsADirectory { .. } => ErrorKind::IsADirectory,
            Self::NotEmpty { .. } => ErrorKind::NotEmpty,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Escapes { .. } => ErrorKind::PermissionDenied,
            Self::Full => ErrorKind::StoreFull,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::Locked { .. } => ErrorKind::Busy,
            Self::Closed => ErrorKind::Down,
            Self::NotSupported { .. } => ErrorKind::NotSupported,
            Self::BadOption { .. } => ErrorKind::InvalidArgument,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            Self::Io { .. } | Self::Backend { .. } | Self::Unknown { .. } => ErrorKind::Io,
        }
    }
}
