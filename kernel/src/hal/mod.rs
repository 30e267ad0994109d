//! What storage drivers implement.
//!
//! Three pillars, orthogonal: [`Metastore`] for rows (the only one that a kernel needs to boot), [`ObjectStore`] for content,
//! [`CacheStore`] for what may be lost. Beside them [`StreamStore`] for what is appended and read by many,
//! and [`RecordStore`] for services that want SQL. A driver is done when the conformance suite of its trait passes
//! (`conformance`, behind the feature of that name).

mod cache_figures;
mod cache_store;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod factory;
mod metastore;
mod object_store;
mod outside;
mod process;
mod record_store;
mod record_value;
mod stream_store;
mod transport;

pub use cache_figures::{CacheFigures, PendingFile};
pub use cache_store::{CacheState, CacheStore, Heard, Missed, NullCache, Subscription};
pub use error::StoreError;
pub(crate) use factory::is_of_every_mount;
pub use factory::{
    Catalogue, DriverContext, DriverFactory, DriverOption, HIDDEN, MOUNT_OPTIONS, SECRET_PLACES,
    SHARED_OPTIONS,
};
pub use metastore::{
    Applied, Batch, Change, DAMAGE_MAX, Damage, Entry, EntryOutcome, KEY_INLINE, LogItem, LogRecord,
    Metastore, Precondition, Reader, RowKey, Table, Told, ToldEvent, TreeId,
};
pub use object_store::{
    Addressing, ConnectorCategory, ContentStore, ListPage, ObjectInfo, ObjectStore, PathCapabilities,
    PathStore, PathUpload, PathWrite,
};
pub use outside::{OutsideChange, OutsideChanges};
pub use process::{
    Process, ProcessError, ProcessFuture, ProcessHost, ProcessInput, ProcessOutput, StartedProcess,
};
pub use record_store::{
    Migrated, Migration, PLACEHOLDERS_MAX, ROWS_BYTES_MAX, ROWS_MAX, ReadFrom, ReadSession, RecordError,
    RecordFuture, RecordStore, RetryPolicy, SQL_MAX, WriteSession, transact,
};
pub use record_value::{FromRecord, RecordValue, Row, Statement, micros_of, timestamp_of_micros};
pub use stream_store::{
    APPEND_BYTES_MAX, APPEND_RECORDS_MAX, Append, Appended, READ_BYTES_MAX, READ_RECORDS_MAX,
    RECORD_BYTES_MAX, RECORD_COST, ReadBounds, STREAM_OPS_KEPT, StreamError, StreamFuture, StreamLimits,
    StreamRead, StreamRecord, StreamState, StreamStore, WhenFull, cost_of,
};
pub use transport::{BlobInfo, Transport};

use std::future::Future;
use std::pin::Pin;

/// What a driver's operation gives. It may be polled by any executor.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;
