//! No link leads out of a mounted folder, whoever made it and whenever.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nexus_drivers::local::PathLocal;
use nexus_kernel::hal::{PathStore, PathWrite, StoreError};
use nexus_messages::Attributes;
use nexus_messages::syscall::ByteRange;

use super::subjects::{path_local, wait};

const HOWS: [PathWrite; 3] =
    [PathWrite::Whole, PathWrite::Exclusive, PathWrite::At { offset: 0, truncate: true }];

/// A folder to mount and one beside it that nobody may touch.
fn folders() -> tempfile::TempDir {
    let both = tempfile::tempdir().unwrap();
    fs::create_dir_all(both.path().join("mounted/sub")).unwrap();
    fs::create_dir(both.path().join("outside")).unwrap();
    fs::write(both.path().join("outside/secret"), "secret").unwrap();
    both
}

fn untouched(outside: &Path) -> bool {
    let names: Vec<_> = fs::read_dir(outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    names == ["secret"] && fs::read_to_string(outside.join("secret")).unwrap() == "secret"
}

/// Tries everything at `link/secret` and `link/new`, where `link` leads outside, and at `file`, which is the secret itself.
fn try_everything(paths: &PathLocal, link: &str, file: &str) -> Vec<Result<(), StoreError>> {
    let none = Attributes::none();
    let data = [Bytes::from_static(b"spoiled")];
    let (secret, new) = (format!("{link}/secret"), format!("{link}/new"));
    let mut results = vec![
        wait(paths.stat(&secret)).map(drop),
        wait(paths.list(link, None, 9)).map(drop),
        wait(paths.delete(&secret)),
        wait(paths.make_directory(&new, &none)).map(drop),
        wait(paths.make_link(&new, "x")).map(drop),
        wait(paths.rename(&secret, "stolen")).map(drop),
        wait(paths.set_attributes(&secret, &Attributes::none().mode(0o777))).map(drop),
    ];
    for path in [&*secret, file] {
        results.push(wait(paths.read(path, ByteRange::ALL)).map(drop));
        results.push(wait(paths.copy(path, "stolen")).map(drop));
    }
    for (path, how) in [&*secret, &*new, file].iter().flat_map(|path| HOWS.map(|how| (path, how))) {
        results.push(wait(paths.write(path, &data, how, &none)).map(drop));
    }
    results
}

#[test]
fn links_of_every_kind_lead_nowhere() {
    let both = folders();
    let (mounted, outside) = (both.path().join("mounted"), both.path().join("outside"));
    symlink(&outside, mounted.join("absolute")).unwrap();
    symlink("../outside", mounted.join("relative")).unwrap();
    symlink("../../outside", mounted.join("sub/deep")).unwrap();
    symlink("sub/deep", mounted.join("chained")).unwrap();
    symlink("..", mounted.join("up")).unwrap();
    symlink(outside.join("secret"), mounted.join("file")).unwrap();
    symlink(outside.join("new"), mounted.join("dangling")).unwrap();
    let paths = path_local(&mounted);
    for link in ["absolute", "relative", "sub/deep", "chained", "up/outside"] {
        for file in ["file", "dangling"] {
            for (index, result) in try_everything(&paths, link, file).into_iter().enumerate() {
                assert!(result.is_err(), "call {index} through {link}, {file}");
            }
            assert!(untouched(&outside), "{link}, {file}");
        }
    }
}

#[test]
fn a_link_is_moved_and_removed_itself() {
    let both = folders();
    let (mounted, outside) = (both.path().join("mounted"), both.path().join("outside"));
    symlink(&outside, mounted.join("link")).unwrap();
    let paths = path_local(&mounted);
    wait(paths.rename("link", "sub/moved")).unwrap();
    assert_eq!(fs::read_link(mounted.join("sub/moved")).unwrap(), outside);
    let old = nexus_messages::Timestamp(1_000_000_000);
    wait(paths.set_attributes("sub/moved", &Attributes::none().mode(0o777).modified(old))).unwrap();
    wait(paths.delete("sub/moved")).unwrap();
    assert!(untouched(&outside));
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_becomes_a_link_between_two_looks_leads_nowhere() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    const ROUNDS: usize = 300;
    let both = folders();
    let (mounted, outside) = (both.path().join("mounted"), both.path().join("outside"));
    let paths = path_local(&mounted);
    let (victim, link) = (mounted.join("victim"), mounted.join("link"));
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret"), "harmless").unwrap();
    symlink(&outside, &link).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // The folder and the link change places at one blow: there is always one of them.
                renameat_with(CWD, &victim, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let read_and_write = || {
            for _ in 0..ROUNDS {
                if let Ok((content, _)) = wait(paths.read("victim/secret", ByteRange::ALL)) {
                    assert_ne!(content, "secret");
                }
                let data = [Bytes::from_static(b"harmless")];
                let _ = wait(paths.write(
                    "victim/secret",
                    &data,
                    PathWrite::At { offset: 0, truncate: false },
                    &Attributes::none(),
                ));
            }
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read_and_write));
        over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    assert!(untouched(&outside));
}

#[test]
fn the_mounted_folder_itself_may_be_reached_through_a_link_but_stays_the_one_it_was() {
    let both = folders();
    let link = both.path().join("link");
    symlink(both.path().join("mounted"), &link).unwrap();
    let paths = path_local(&link);
    fs::remove_file(&link).unwrap();
    symlink(both.path().join("outside"), &link).unwrap();
    assert!(matches!(wait(paths.stat("secret")), Err(StoreError::NotFound { .. })));
    assert!(wait(paths.stat("sub")).is_ok());
}
