//! What stands on streams, whatever keeps their records.

pub mod groups;
