//! The stream stores against their suite, and against what each promises alone.

#[cfg(test)]
#[path = "streams/broken.rs"]
mod broken;
#[cfg(test)]
#[path = "streams/conforms.rs"]
mod conforms;
#[cfg(all(feature = "local", feature = "faults", unix))]
#[cfg(test)]
#[path = "streams/disk.rs"]
mod disk;
#[cfg(all(feature = "local", feature = "faults", unix))]
#[cfg(test)]
#[path = "streams/groups.rs"]
mod groups;
