//! Content addressing over any transport: what the bytes of a blob mean, and whether they can be trusted.
//!
//! A blob's key is its BLAKE3 hash, so a blob is never overwritten by another content, and whoever reads it can tell whether it is whole.
//! The first read of each does: it hashes all of the blob in pieces, and keeps only the range it was asked for. Later ones read no more than that.

mod standing;
mod store;

pub use store::Cas;
