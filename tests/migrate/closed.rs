//! Folders whose modes keep their owner from changing what is in them. Root is an owner like any other here.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nexus::MigrationState;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::bench::{AT, Bench, ODD_FILES, content, is_empty, read_host, until};

/// Modes do not count for who has these.
const ABOVE_MODES: CapabilitySet =
    CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH).union(CapabilitySet::FOWNER);

/// While it is there, modes count for this thread, and for those that it starts.
struct Heeding(CapabilitySets);

impl Heeding {
    fn modes() -> Self {
        let before = capabilities(None).expect("it can be asked");
        let mut without = before;
        without.effective.remove(ABOVE_MODES);
        set_capabilities(None, without).expect("who has less may always");
        Self(before)
    }
}

impl Drop for Heeding {
    fn drop(&mut self) {
        set_capabilities(None, self.0).expect("it is permitted");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).map_or(0, |there| there.mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// Files of the mount that are copied slowly, after those in closed folders: `z`, and `z/in`.
const FILES: u64 = 60;

/// A migration that has copied closed folders, and has far to go.
fn slowly() -> Bench {
    let bench = Bench::of_files();
    let old = bench.host("old");
    fs::create_dir_all(old.join("z/in")).expect("there is room");
    for name in ["z/gone", "z/old", "z/in/gone", "z/in/old"] {
        fs::write(old.join(name), "old").expect("there is room");
    }
    for number in 0..FILES {
        bench.nx.write(format!("{AT}/d/{number}"), content(number, 100)).expect("it writes");
    }
    close(&old);
    bench.odd.slow(Duration::from_millis(40));
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it begins");
    let new = bench.host("new");
    until("closed", || is_closed(&new).then_some(()));
    assert!(!new.join("d/1").exists(), "closed folders come first");
    bench
}

fn close(top: &Path) {
    set_mode(&top.join("z/in"), 0o500);
    set_mode(&top.join("z"), 0o555);
}

/// Lets them be removed with the bench.
fn open(bench: &Bench) {
    for top in ["old", "new"] {
        for name in ["z", "z/in"] {
            // It may be gone.
            let _ = fs::set_permissions(bench.host(top).join(name), fs::Permissions::from_mode(0o755));
        }
    }
}

fn is_closed(top: &Path) -> bool {
    (mode(&top.join("z")), mode(&top.join("z/in"))) == (0o555, 0o500)
}

/// Changes what is in the closed folders of the mount.
fn change(bench: &Bench) {
    let old = bench.host("old");
    set_mode(&old.join("z"), 0o755);
    set_mode(&old.join("z/in"), 0o700);
    for below in ["z", "z/in"] {
        bench.nx.write(format!("{AT}/{below}/old"), "changed").expect("it writes");
        bench.nx.write(format!("{AT}/{below}/new"), "new").expect("it writes");
        bench.nx.mkdir(format!("{AT}/{below}/folder")).expect("it makes one");
        bench.nx.unlink(format!("{AT}/{below}/gone")).expect("it is removed");
    }
    close(&old);
}

fn check_done(bench: &Bench) {
    bench.odd.slow(Duration::ZERO);
    bench.done();
    let (new, expected) = (bench.host("new"), read_host(&bench.host("old")));
    assert_eq!(expected["/z/in/old"], b"changed");
    assert!(read_host(&new) == expected);
    assert!(is_closed(&new) && new.join("z/in/folder").is_dir());
}

#[test]
fn what_changes_in_them_is_copied_while_it_goes_on() {
    let _heeding = Heeding::modes();
    let bench = slowly();
    change(&bench);
    check_done(&bench);
    open(&bench);
}

#[test]
fn a_migration_that_was_cut_short_goes_on_in_them() {
    let _heeding = Heeding::modes();
    let bench = slowly().again();
    change(&bench);
    bench.begin(bench.spec(ODD_FILES, "new")).expect("it goes on");
    check_done(&bench);
    open(&bench);
}

#[test]
fn an_abort_removes_what_was_copied_into_them() {
    let _heeding = Heeding::modes();
    let bench = slowly();
    bench.nx.abort_migration(AT).expect("it is told");
    bench.odd.slow(Duration::ZERO);
    assert_eq!(bench.over().state, MigrationState::Aborted);
    assert!(is_empty(&bench.host("new")));
    assert!(is_closed(&bench.host("old")), "the old store is as it was");
    open(&bench);
}
