//! Storage drivers for the Nexus kernel.
