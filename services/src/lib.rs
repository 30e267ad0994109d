//! Services that register with a Nexus kernel at run time.
