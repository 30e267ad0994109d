//! What crosses a boundary in Nexus: paths, metadata, one struct for each syscall, events, hook contexts and errors.
//!
//! Everything here is data: it can be compared, printed and sent. The only behaviour is validation.

mod message;

pub use message::Message;
