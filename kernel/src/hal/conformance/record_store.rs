//! The suite of `RecordStore`.
