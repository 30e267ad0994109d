//! A mounted folder that other programs of the machine work in, too.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nexus::{Attributes, Config, MountSpec, SysSetattr, VPath, blocking};

/// How many lines are appended by the kernel.
const LINES: usize = 300;

fn mounted(folder: &Path) -> blocking::Nexus {
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    let spec = MountSpec::new("path-local").option("folder", folder.display().to_string());
    nx.mount("/m", spec).expect("it mounts");
    nx
}

#[test]
fn what_others_append_meanwhile_is_kept() {
    let folder = tempfile::tempdir().expect("there is room");
    let (nx, log) = (mounted(folder.path()), folder.path().join("log"));
    fs::write(&log, "").expect("it is ours");
    let is_over = AtomicBool::new(false);
    let others = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut file = OpenOptions::new().append(true).open(&log).expect("it is there");
            let mut lines = 0;
            while !is_over.load(Ordering::Relaxed) {
                file.write_all(b"theirs\n").expect("there is room");
                lines += 1;
            }
            lines
        });
        let done: Vec<_> = (0..LINES).map(|_| nx.append("/m/log", "ours\n")).collect();
        is_over.store(true, Ordering::Relaxed);
        for written in done {
            written.expect("it is appended");
        }
        other.join().expect("it does not panic")
    });
    let content = fs::read_to_string(&log).expect("it is text");
    let count = |line| content.lines().filter(|there| *there == line).count();
    assert_eq!((count("ours"), count("theirs")), (LINES, others));
    assert_eq!(content.len(), LINES * 5 + others * 7);
}

#[test]
fn what_is_written_anew_runs_as_nobody_else() {
    let folder = tempfile::tempdir().expect("there is room");
    let (nx, there) = (mounted(folder.path()), |name: &str| folder.path().join(name));
    let mode = |name: &str| fs::metadata(there(name)).expect("it is there").permissions().mode() & 0o7777;
    let large = vec![7; 5 << 20];
    for (name, content) in [("small", &b"theirs"[..]), ("large", &large)] {
        fs::write(there(name), content).expect("it is ours");
        fs::set_permissions(there(name), Permissions::from_mode(0o6751)).expect("it is ours");
        let copy = format!("copy of {name}");
        nx.copy(format!("/m/{name}"), format!("/m/{copy}")).expect("it is copied");
        assert_eq!((mode(name), mode(&copy)), (0o6751, 0o751));
        // Where nobody runs it, it is as it was.
        nx.copy(format!("/m/{name}"), format!("/{name}")).expect("it is copied");
        assert_eq!(nx.stat(format!("/{name}")).expect("it is there").mode, 0o6751);
        nx.copy(format!("/{name}"), format!("/m/{copy} again")).expect("it is copied");
        assert_eq!(mode(&format!("{copy} again")), 0o751);
        nx.write(format!("/m/{name}"), content.to_vec()).expect("it is written");
        assert_eq!(mode(name), 0o751);
    }
    // Whoever asks for them gets them.
    nx.send(
        SysSetattr::at(VPath::parse("/m/small").expect("it is one"))
            .attributes(Attributes::none().mode(0o4755)),
    )
    .expect("it is set");
    assert_eq!(mode("small"), 0o4755);
}
