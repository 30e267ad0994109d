//! Large content: kept in chunks, read and changed where it is wanted, streamed.

#![expect(clippy::disallowed_methods, reason = "the callers are threads of a program around the kernel")]

mod bench;
mod changes;
mod damage;
mod older;
#[path = "../common/only.rs"]
mod only;
mod ranges;
mod streams;
