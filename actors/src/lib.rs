//! The actor runtime of Nexus and its concurrency parts.
