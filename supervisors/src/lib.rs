//! Supervision trees over Nexus actors.
