//! The object stores against their suites, and against what each promises alone.

#[cfg(test)]
#[path = "object_store/broken_contents.rs"]
mod broken_contents;
#[cfg(test)]
#[path = "object_store/broken_paths.rs"]
mod broken_paths;
#[cfg(test)]
#[path = "object_store/cas.rs"]
mod cas;
#[cfg(test)]
#[path = "object_store/conforms.rs"]
mod conforms;
#[cfg(test)]
#[path = "object_store/copies.rs"]
mod copies;
#[cfg(test)]
#[path = "object_store/disk.rs"]
mod disk;
#[cfg(test)]
#[path = "object_store/links.rs"]
mod links;
#[cfg(test)]
#[path = "object_store/packs.rs"]
mod packs;
#[cfg(test)]
#[path = "object_store/subjects.rs"]
mod subjects;
