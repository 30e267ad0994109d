//! What callers rely on, claim by claim, on every kind of mount.
//!
//! A claim is a script; its language is in `front_door/script.rs`.

#[path = "front_door/script.rs"]
mod script;

#[path = "front_door/content.rs"]
mod content;
#[path = "front_door/directories.rs"]
mod directories;
#[path = "front_door/failures.rs"]
mod failures;
#[path = "front_door/links.rs"]
mod links;
#[path = "front_door/mounts.rs"]
mod mounts;
#[path = "front_door/moves.rs"]
mod moves;
#[path = "front_door/paths.rs"]
mod paths;
#[path = "front_door/search.rs"]
mod search;
