//! Nexus: an operating-system kernel for AI agents.
