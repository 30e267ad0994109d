//! What crosses a boundary in Nexus: paths, metadata, one struct for each syscall, events, hook contexts and errors.
//!
//! Everything here is data: it can be compared, printed and sent. The only behaviour is validation. Structs are made by their
//! constructors and builders, so that a new field breaks nobody.

mod child;
mod conflict;
mod content;
mod effect;
mod error;
mod event;
mod hook;
mod ident;
mod message;
mod metadata;
mod path;
mod receipt;
pub mod syscall;
mod time;

pub use child::{
    CHILD_PIPE_CAPACITY, ChildEntry, ChildExit, ChildId, ChildOutput, ChildSignal, ChildSpec, ChildState,
    Framing, GRACE_DEFAULT, GRACE_MAX, LINE_MAX, LINE_MAX_DEFAULT, LongLines, UnknownSignal,
};
pub use conflict::{Conflict, Found};
pub use content::ContentId;
pub use effect::{Effect, Holding, Weighed};
pub use error::{Errno, Error, ErrorKind, Executed, Op, Result};
pub use event::{
    CONFLICT_BITS, EVENT_BITS, Event, EventKind, EventMask, SYNC_BITS, UnknownEvent, VectorClock,
};
pub use hook::{HookContext, MountContext, Outcome, Resolved, Verdict};
pub use ident::{Caller, FileId, LifeId, LockId, Lsn, OpId, ZoneError, ZoneId};
pub use message::Message;
pub use metadata::{Attributes, EntryType, FileMetadata};
pub use path::{IntoPath, NAME_MAX, PATH_MAX, PathError, VPath, hash_of};
pub use receipt::{Consistency, Durability, Receipt};
pub use time::Timestamp;
