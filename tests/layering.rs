//! The staircase of crates: what each may import, read from the manifests and the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates from the bottom up, each with those that it may import. Drivers and services stand beside each other.
const STAIRCASE: [(&str, &[&str]); 6] = [
    ("messages", &[]),
    ("actors", &["messages"]),
    ("supervisors", &["messages", "actors"]),
    ("kernel", &["messages", "actors", "supervisors"]),
    ("drivers", &["messages", "actors", "supervisors", "kernel"]),
    ("services", &["messages", "actors", "supervisors", "kernel"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The crates of this workspace that the manifest of `folder` names as dependencies, those of its tests left out.
fn imports(folder: &str) -> Vec<String> {
    let manifest = read(&root().join(folder).join("Cargo.toml"));
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if section.ends_with("dependencies")
            && !section.contains("dev-")
            && let Some(rest) = line.strip_prefix("nexus-")
        {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
        }
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn imports_run_down_the_staircase() {
    for (folder, allowed) in STAIRCASE {
        for import in imports(folder) {
            assert!(
                allowed.contains(&import.as_str()),
                "{folder} imports {import}, and may import {allowed:?}"
            );
        }
    }
}

#[test]
fn every_crate_is_on_the_staircase() {
    let manifest = read(&root().join("Cargo.toml"));
    let members =
        manifest.lines().find(|line| line.starts_with("members")).expect("the workspace has members");
    for (folder, _) in STAIRCASE {
        assert!(members.contains(&format!("{folder:?}")), "{folder} is not a member");
    }
    assert_eq!(
        members.matches('"').count(),
        STAIRCASE.len() * 2,
        "a member is not on the staircase: {members}"
    );
}

#[test]
fn actix_is_named_in_one_crate_only() {
    for folder in ["messages", "supervisors", "kernel", "drivers", "services", "src"] {
        for file in sources(&root().join(folder)) {
            let text = read(&file);
            let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let named = code.any(|line| line.contains("actix::") || line.contains("actix_rt::"));
            assert!(!named, "{} names actix", file.display());
        }
    }
}

#[test]
fn a_primitive_is_a_folder_of_one_shape() {
    for primitive in ["router", "locks", "dispatch", "watcher", "pipes", "children", "mounts", "registry"] {
        let folder = root().join("kernel/src").join(primitive);
        for file in ["messages.rs", "table.rs", "view.rs"] {
            assert!(folder.join(file).is_file(), "{primitive} has no {file}");
        }
        let contract = read(&folder.join("mod.rs"));
        for heading in ["Owns:", "Asks:", "On restart:", "Bounds:"] {
            assert!(contract.contains(heading), "{primitive} does not say {heading}");
        }
    }
}
