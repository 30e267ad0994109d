//! Mounts and routing, as callers see them.

use nexus::{ErrorKind, MountSpec, Right, SysUnlink, VPath, blocking};

use crate::script::{Bench, Root, check, refused};

#[test]
fn the_longest_prefix_serves() {
    check(
        "mount /w memory
         mount /w/deep memory
         write /w/f one
         write /w/deep/f two
         write /wide/f three
         unmount /w/deep = 1
         stat /w/deep/f ! ENOENT
         read /w/f = one
         read /wide/f = three
         unmount /w = 1
         stat /w/f ! ENOENT
         read /wide/f = three",
    );
}

#[test]
fn a_mount_is_seen_in_its_parents() {
    check(
        "mount /a/b/m memory = created
         stat /a/b/m = mount
         ls /a/b = m
         ls / = a
         write /a/b/m/f x
         walk / = /a /a/b /a/b/m /a/b/m/f",
    );
}

#[test]
fn a_mount_is_made_once() {
    check(
        "mount /m memory = created
         mount /m memory = there
         mount /m memory-path ! EEXIST
         mount /m/sub memory = created
         unmount /m ! EBUSY
         unmount /m/sub
         unmount /m
         unmount /m ! ENOENT
         mount /x no-such-driver ! EINVAL
         write /f x
         mount /f memory ! ENOTDIR
         unmount /f ! EINVAL
         mkdir /d
         unmount /d ! EINVAL
         read /f = x",
    );
}

#[test]
fn only_who_means_a_mount_detaches_it() {
    check(
        "mount /d/m memory
         write /d/m/f x
         unlink /d/m ! EISDIR
         rmdir /d/m ! EBUSY
         remove_all /d/m ! EBUSY
         remove_all /d ! EBUSY
         rmdir /d ! EBUSY
         rename /d /e ! EBUSY
         read /d/m/f = x",
    );
    let Bench { nx, .. } = &Bench::new(Root::Memory);
    nx.mount("/m", MountSpec::new("memory")).unwrap();
    let gone = nx.send(SysUnlink::at(VPath::parse("/m").unwrap())).unwrap();
    assert_eq!(gone.entry_type, nexus::EntryType::Mount);
    assert_eq!(nx.mounts().unwrap().len(), 1);
}

#[test]
fn a_read_only_mount_refuses_changes() {
    check(
        "mount_read_only /r memory
         ls /r = \"\"
         write /r/f x ! EROFS
         mkdir /r/d ! EROFS
         touch /r/f ! EROFS
         link /r/l /f ! EROFS
         write /f x
         copy /f /r/f ! EROFS
         rename /f /r/f ! EROFS
         chmod /r 700 ! EROFS",
    );
}

#[test]
fn where_nothing_is_mounted_nothing_is_served() {
    check(
        "mount /m memory
         write /m/f x
         unmount /m
         unmount / = 1
         write /f x ! ENODEV
         stat /f ! ENODEV
         ls / ! ENODEV
         mount / memory = created
         write /f x",
    );
}

#[test]
fn what_a_detached_mount_stored_is_there_when_it_comes_back() {
    let Bench { nx, .. } = &Bench::new(Root::CasLocal);
    let files = tempfile::tempdir().unwrap();
    let blobs = tempfile::tempdir().unwrap();
    let plain = MountSpec::new("path-local").option("folder", files.path().display().to_string());
    let content = MountSpec::new("cas-local").option("folder", blobs.path().display().to_string());
    for (at, spec) in [("/plain", plain), ("/content", content)] {
        nx.mount(at, spec.clone()).unwrap();
        nx.write(format!("{at}/d/f"), "kept").unwrap();
        nx.unmount(at).unwrap();
        assert!(!nx.exists(format!("{at}/d/f")).unwrap());
        nx.mount(at, spec).unwrap();
        assert_eq!(nx.read(format!("{at}/d/f")).unwrap(), "kept");
    }
}

#[test]
fn a_bad_option_is_named() {
    let Bench { nx, .. } = &Bench::new(Root::Memory);
    let unknown = MountSpec::new("memory").option("colour", "blue");
    refused(nx.mount("/m", unknown), ErrorKind::InvalidArgument, "colour");
    refused(nx.mount("/m", MountSpec::new("path-local")), ErrorKind::InvalidArgument, "folder");
    let nowhere = MountSpec::new("path-local").option("folder", "/no/such/folder");
    assert!(nx.mount("/m", nowhere).is_err());
    assert_eq!(nx.mounts().unwrap().len(), 1);
}

#[test]
fn only_the_administrator_mounts() {
    let Bench { nx, .. } = &Bench::new(Root::Memory);
    let agent = nx.agent("coder-7").unwrap();
    refused(agent.mount("/m", MountSpec::new("memory")), ErrorKind::PermissionDenied, "mount /m");
    refused(agent.unmount("/"), ErrorKind::PermissionDenied, "unmount /");
    refused(agent.shutdown(), ErrorKind::PermissionDenied, "shutdown");
    assert!(agent.kill("nexus/kernel/router", nexus::Kill::Panic).is_err());
    assert!(agent.kernel().is_err() && agent.zone("team").is_err());
    agent.write("/f", "x").unwrap();
    assert_eq!(&*agent.stat("/f").unwrap().owner, "coder-7");
}

#[test]
fn access_is_answered_without_doing_anything() {
    let Bench { nx, .. } = &Bench::new(Root::Memory);
    nx.write("/f", "x").unwrap();
    nx.mount("/r", MountSpec::new("memory").read_only()).unwrap();
    let check =
        |path: &str, right, allowed| assert_eq!(nx.access(path, right).unwrap(), allowed, "{path} {right:?}");
    check("/f", Right::Read, true);
    check("/f", Right::Write, true);
    check("/missing", Right::Read, false);
    check("/f/below", Right::Read, false);
    check("/r", Right::List, true);
    check("/r", Right::Write, false);
}

#[test]
fn a_zone_has_its_own_mounts_before_those_of_the_root_zone() {
    let Bench { nx, .. } = &Bench::new(Root::Memory);
    nx.write("/shared/f", "all").unwrap();
    let team = nx.zone("team").unwrap();
    assert_eq!(team.read("/shared/f").unwrap(), "all");
    team.mount("/own", MountSpec::new("memory")).unwrap();
    team.write("/own/f", "ours").unwrap();
    assert_eq!(team.read("/own/f").unwrap(), "ours");
    assert!(!nx.exists("/own/f").unwrap(), "the root zone does not see the mounts of others");
    let other = nx.zone("other").unwrap();
    assert!(!other.exists("/own/f").unwrap());
    refused(nx.zone("a b"), ErrorKind::InvalidArgument, "zone");
}

#[test]
fn a_zone_sees_its_own_mounts_below_folders_of_the_root_zone() {
    let Bench { nx, .. } = &Bench::new(Root::Memory);
    nx.write("/shared/f", "all").unwrap();
    let team = nx.zone("team").unwrap();
    let names = |nx: &blocking::Nexus, path: &str| -> Vec<String> {
        nx.readdir(path).unwrap().iter().map(|entry| entry.path.as_str().to_owned()).collect()
    };
    team.mount("/shared/own", MountSpec::new("memory")).unwrap();
    team.mount("/deep/own", MountSpec::new("memory")).unwrap();
    assert_eq!(names(&team, "/shared"), ["/shared/f", "/shared/own"]);
    assert!(team.stat("/deep").unwrap().is_directory());
    refused(team.rmdir("/shared"), ErrorKind::Busy, "a mount lies below it");
    refused(team.rename("/shared", "/elsewhere"), ErrorKind::Busy, "mount");
    refused(team.write("/deep", "a file"), ErrorKind::IsADirectory, "/deep");
    // Those of another zone are nothing to the root zone.
    assert_eq!(names(nx, "/shared"), ["/shared/f"]);
    assert!(!nx.exists("/deep").unwrap());
    nx.write("/deep", "a file").unwrap();

    // What a zone has hides what the root zone has there and below.
    nx.mount("/both/below", MountSpec::new("memory")).unwrap();
    team.mount("/both", MountSpec::new("memory")).unwrap();
    assert!(names(&team, "/both").is_empty());
    assert_eq!(names(nx, "/both"), ["/both/below"]);
    team.write("/both/below", "a file").unwrap();
    team.unmount("/both").unwrap();
    assert_eq!(names(&team, "/both"), ["/both/below"]);
}
