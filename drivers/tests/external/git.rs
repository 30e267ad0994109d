//! A real program: git, by the example.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nexus_kernel::hal::{ConnectorCategory, ObjectStore, PathWrite, StoreError};
use nexus_messages::EntryType;
use nexus_messages::syscall::MountSpec;

use crate::subjects::{example, list, names, open, read, stat, write};

fn git(folder: &Path, args: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(folder).args(["-c", "user.name=me", "-c", "user.email=me@example"]).args(args);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = git.output().expect("git is there; when it is not installed: apt-get install git");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Names that a program could misunderstand.
const NAMES: [&str; 9] = ["--help", "-n", "a b", "a;id", "$(id)", "*", "new\nline", "tab\tbed", "ü"];

fn repository() -> (tempfile::TempDir, Arc<dyn ObjectStore>) {
    let folder = tempfile::tempdir().expect("a folder");
    git(folder.path(), &["init", "--quiet", "--initial-branch=main"]);
    let write = |path: &str, content: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("it is made");
        std::fs::write(path, content).expect("it is written");
    };
    write("README.md", "first");
    write("src/deep/lib.rs", "pub fn f() {}\n");
    write("empty", "");
    for name in NAMES {
        write(&format!("odd/{name}"), name);
    }
    git(folder.path(), &["add", "--all"]);
    git(folder.path(), &["commit", "--quiet", "-m", "one"]);
    git(folder.path(), &["tag", "v1"]);
    write("README.md", "second, and longer");
    git(folder.path(), &["commit", "--quiet", "--all", "-m", "two"]);
    let spec = MountSpec::new("command")
        .option("description", example("git.toml"))
        .option("parameters", format!("repo={}", folder.path().display()));
    (folder, open(&spec))
}

#[test]
fn a_repository_is_paths() {
    let (_folder, store) = repository();
    assert_eq!(store.connector(), Some(ConnectorCategory::Cli));
    assert!(store.read_only());
    assert_eq!(names(&*store, ""), ["main", "v1"]);
    assert_eq!(names(&*store, "v1"), ["README.md", "empty", "odd", "src"]);
    assert_eq!(names(&*store, "v1/src"), ["deep"]);
    assert_eq!(read(&*store, "v1/README.md").unwrap(), "first");
    assert_eq!(read(&*store, "main/README.md").unwrap(), "second, and longer");
    assert_eq!(read(&*store, "HEAD~1/src/deep/lib.rs").unwrap(), "pub fn f() {}\n");
    assert_eq!(read(&*store, "main/empty").unwrap(), "");
    let info = stat(&*store, "main/README.md").unwrap();
    assert_eq!((info.entry_type, info.size), (EntryType::Reg, 18));
    assert_ne!(info.tag, stat(&*store, "v1/README.md").unwrap().tag);
    for folder in ["", "main", "HEAD~1", "main/src", "main/src/deep"] {
        assert_eq!(stat(&*store, folder).unwrap().entry_type, EntryType::Dir, "{folder}");
    }
    for (name, info) in list(&*store, "main").unwrap().entries {
        assert_eq!(stat(&*store, &format!("main/{name}")).unwrap(), info, "{name}");
    }
}

#[test]
fn what_is_not_there_is_told_as_such() {
    let (_folder, store) = repository();
    for path in ["main/none", "main/none/x", "none", "none/README.md", "main/src/none"] {
        for error in [stat(&*store, path).unwrap_err(), read(&*store, path).unwrap_err()] {
            assert!(matches!(error, StoreError::NotFound { .. }), "{path}: {error:?}");
        }
    }
    assert!(matches!(list(&*store, "main/none"), Err(StoreError::NotFound { .. })));
    assert!(matches!(list(&*store, "main/README.md"), Err(StoreError::NotADirectory { .. })));
    assert!(matches!(stat(&*store, "main/README.md/x"), Err(StoreError::NotADirectory { .. })));
    assert!(matches!(read(&*store, "main/src"), Err(StoreError::IsADirectory { .. })));
    let written = write(&*store, "main/new", "x", PathWrite::Whole);
    assert!(matches!(written, Err(StoreError::ReadOnly { .. })), "{written:?}");
}

#[test]
fn no_name_is_more_than_one_argument() {
    let (_folder, store) = repository();
    assert_eq!(names(&*store, "main/odd").len(), NAMES.len());
    for name in NAMES {
        assert_eq!(read(&*store, &format!("main/odd/{name}")).unwrap(), name, "{name:?}");
    }
    for revision in ["--help", "-p", "--output=x"] {
        let error = read(&*store, &format!("{revision}/README.md")).unwrap_err();
        assert!(matches!(error, StoreError::BadOption { .. } | StoreError::NotFound { .. }), "{error:?}");
        assert!(!error.is_backend_failure());
    }
    for escaping in ["..", "main/../x", "/etc"] {
        assert!(matches!(read(&*store, escaping), Err(StoreError::Escapes { .. })), "{escaping}");
    }
}
