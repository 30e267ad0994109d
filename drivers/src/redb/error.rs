//! What redb says, in the kernel's words.

use nexus_kernel::hal::StoreError;
use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

pub(super) fn storage(what: &str, error: StorageError) -> StoreError {
    match error {
        StorageError::Io(source) => StoreError::io(what, source),
        StorageError::Corrupted(found) => StoreError::Corrupt { what: what.into(), found },
        other => StoreError::Backend { what: what.into(), cause: other.to_string() },
    }
}

pub(super) fn table(what: &str, error: TableError) -> StoreError {
    match error {
        TableError::Storage(error) => storage(what, error),
        other => StoreError::Corrupt { what: what.into(), found: other.to_string() },
    }
}

pub(super) fn transaction(what: &str, error: TransactionError) -> StoreError {
    match error {
        TransactionError::Storage(error) => storage(what, error),
        other => StoreError::Backend { what: what.into(), cause: other.to_string() },
    }
}

pub(super) fn commit(what: &str, error: CommitError) -> StoreError {
    match error {
        CommitError::Storage(error) => storage(what, error),
        other => StoreError::Backend { what: what.into(), cause: other.to_string() },
    }
}

/// `name` is the database, as its users know it.
pub(super) fn database(name: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Locked { what: name.into() }
        }
        DatabaseError::UpgradeRequired(version) => StoreError::Backend {
            what: format!("opening {name}"),
            cause: format!("its file format {version} is not one that this version reads"),
        },
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() == std::io::ErrorKind::InvalidData =>
        {
            StoreError::Corrupt { what: name.into(), found: source.to_string() }
        }
        DatabaseError::Storage(error) => storage(&format!("opening {name}"), error),
        other => StoreError::Backend { what: format!("opening {name}"), cause: other.to_string() },
    }
}
