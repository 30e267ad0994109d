//! The simulated disk does what a disk may do.

use super::*;

fn whole(disk: &SimDisk, path: &str) -> String {
    String::from_utf8(disk.content(path).unwrap_or_default()).unwrap()
}

#[test]
fn what_was_flushed_survives_every_crash_and_what_was_not_can_be_lost_kept_and_torn() {
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let file = folder.open("f", true).unwrap();
    file.write_at(0, &[1; 2_000]).unwrap();
    file.sync().unwrap();
    folder.sync().unwrap();
    file.write_at(1_000, &[2; 2_000]).unwrap();
    let mut outcomes = BTreeSet::new();
    for seed in 0..50 {
        let copy = disk.copy();
        copy.crash_by(seed);
        let content = copy.content("f").unwrap();
        assert!(content[..1_000].iter().all(|byte| *byte == 1), "seed {seed}");
        outcomes.insert(content);
    }
    assert!(outcomes.contains(&vec![1; 2_000]), "lost");
    assert!(outcomes.contains(&[vec![1; 1_000], vec![2; 2_000]].concat()), "kept");
    assert!(outcomes.contains(&[vec![1; 2_000], vec![0; 1_000]].concat()), "the length alone");
    assert!(outcomes.len() > 10, "torn");
}

#[test]
fn names_are_durable_after_a_flush_of_their_folder_alone() {
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let file = folder.open("new", true).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync().unwrap();
    let lost = disk.copy();
    lost.crash_by(0);
    assert_eq!(lost.paths(), [""; 0]);
    folder.sync().unwrap();
    folder.rename("new", "moved").unwrap();
    for (seed, name) in [(0, "new"), (1, "moved")] {
        let copy = disk.copy();
        copy.crash_by(seed);
        assert_eq!(copy.paths(), [name]);
        assert_eq!(whole(&copy, name), "x");
    }
    folder.remove("moved").unwrap();
    file.write_at(0, b"y").unwrap();
    let mut read = [0];
    file.read_at(0, &mut read).unwrap();
    assert_eq!(read, *b"y", "who has it open goes on");
    assert_eq!(disk.unsynced(), 3);
}

#[test]
fn a_flush_that_failed_is_not_made_good_by_a_second_one() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let folder = disk.folder();
        let file = folder.open("f", true).unwrap();
        folder.sync().unwrap();
        disk.fail_from(0, Fault::Sync, 1);
        file.write_at(0, b"one").unwrap();
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        file.sync().unwrap();
        assert_eq!((whole(&disk, "f").as_str(), disk.counts().faults), ("one", 1), "readers see it");
        disk.crash_by(1);
        lost += usize::from(whole(&disk, "f") != "one");
    }
    assert!(lost > 5);
}

#[test]
fn the_power_goes_off_within_a_change_and_an_earlier_life_changes_nothing() {
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let file = folder.open("f", true).unwrap();
    folder.sync().unwrap();
    disk.power_off_at(disk.counts().changes + 2);
    file.write_at(0, b"a").unwrap();
    assert!(file.write_at(1, b"b").is_err() && file.len().is_err() && folder.list().is_err());
    assert!(disk.is_off());
    disk.crash_by(1);
    assert_eq!(whole(&disk, "f"), "ab", "what was being done may be done");
    assert!(file.write_at(0, b"c").is_err() && folder.open("g", true).is_err());
    assert_eq!(disk.folder().list().unwrap(), ["f"]);
}

#[test]
fn a_full_disk_refuses_what_takes_room() {
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let file = folder.open("f", true).unwrap();
    disk.fail_from(0, Fault::Full, u64::MAX);
    assert_eq!(file.write_at(0, b"ab").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(folder.open("g", true).is_err() && file.sync().is_err());
    assert_eq!(file.len().unwrap(), 1, "a part was done");
    folder.sync().unwrap();
    folder.remove("f").unwrap();
    disk.heal();
    folder.open("g", true).unwrap();
}

#[test]
fn a_disk_without_room_is_written_over_and_does_not_grow() {
    let disk = SimDisk::new(1);
    let folder = disk.folder();
    let file = folder.open("f", true).unwrap();
    file.write_at(0, b"abcd").unwrap();
    disk.fail_from(0, Fault::Growth, u64::MAX);
    file.write_at(2, b"xy").unwrap();
    file.sync().unwrap();
    assert_eq!(file.write_at(2, b"xyz").unwrap_err().kind(), io::ErrorKind::StorageFull);
    let made = folder.open("g", true).unwrap();
    assert!(made.write_at(0, b"a").is_err() && file.set_len(9).is_err() && folder.folder("h").is_err());
    folder.rename("f", "g").unwrap();
    file.set_len(1).unwrap();
}

#[test]
fn a_driver_that_leaves_flushes_out_loses_what_it_promised() {
    let kept = |omission| {
        let disk = SimDisk::new(1);
        disk.leave_out(omission);
        let folder = disk.folder();
        let file = folder.open("f", true).unwrap();
        file.write_at(0, b"one").unwrap();
        file.sync().unwrap();
        folder.sync().unwrap();
        let second = disk.folder().open("g", true).unwrap();
        second.write_at(0, b"two").unwrap();
        second.sync().unwrap();
        disk.crash_by(0);
        (whole(&disk, "f"), disk.paths().len())
    };
    assert_eq!(kept(Omission::FileSyncs), (String::new(), 1));
    assert_eq!(kept(Omission::FolderSyncs), (String::new(), 0));
    assert_eq!(kept(Omission::PromptFileSyncs), ("one".into(), 1));
}

#[test]
fn who_watches_sees_each_point_at_which_the_power_can_go_off() {
    let work = |disk: &SimDisk| -> io::Result<()> {
        let folder = disk.folder();
        let file = folder.open("f", true)?;
        file.write_at(0, &[1; 700])?;
        file.sync()?;
        folder.sync()?;
        file.write_at(600, &[2; 700])?;
        folder.rename("f", "g")?;
        file.set_len(900)?;
        folder.remove("g")
    };
    let crashed = |disk: SimDisk| {
        (0..6).map(move |seed| {
            let disk = disk.copy();
            disk.crash_by(seed);
            disk.fingerprint()
        })
    };
    let watched = SimDisk::new(1);
    let seen: Arc<Mutex<Vec<SimDisk>>> = Arc::default();
    let seeing = seen.clone();
    watched.watch(move |disk| seeing.lock().push(disk.copy()));
    work(&watched).unwrap();
    watched.unwatch();
    seen.lock().push(watched);
    let by_watching: BTreeSet<_> = seen.lock().drain(..).flat_map(crashed).collect();
    let mut by_power = BTreeSet::new();
    for change in 1.. {
        let disk = SimDisk::new(1);
        disk.power_off_at(change);
        let done = work(&disk);
        by_power.extend(crashed(disk));
        if done.is_ok() {
            break;
        }
    }
    assert!(by_power.is_subset(&by_watching), "{} by watching alone", by_watching.len());
    assert!(
        by_power.len() > 10,
        "the workload leaves so few states that this says little: {}",
        by_power.len()
    );
}

#[test]
fn damage_is_seen_and_stays() {
    let disk = SimDisk::new(1);
    let file = disk.folder().folder("sub").unwrap().open("f", true).unwrap();
    file.write_at(0, b"abc").unwrap();
    file.sync().unwrap();
    disk.folder().folder("sub").unwrap().sync().unwrap();
    assert!(disk.damage("sub/f", 1, |byte| byte ^ 1, 1));
    assert!(!disk.damage("sub/f", 3, |byte| byte, 1) && !disk.damage("f", 0, |byte| byte, 1));
    disk.crash_by(0);
    assert_eq!(whole(&disk, "sub/f"), "acc");
}
