//! A damaged log of a store with several zones: what is given up is named for each, and what is told of before is told truthfully after.

use std::fs;
use std::path::Path;

use nexus::hal::TreeId;
use nexus::offline::{self, GiveUpAfter, StreamsPlace};
use nexus::{
    ErrorKind, GroupSettings, Lsn, MountSpec, Receipt, StreamSpec, StreamStart, SysReceipt, blocking,
};

/// The data folder as a loss of power would leave it, of a kernel that is at rest.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("there is room");
    for entry in fs::read_dir(from).expect("it is listed") {
        let entry = entry.expect("it is listed");
        let kind = entry.file_type().expect("it is one");
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("there is room");
        }
    }
}

/// Changes a byte of the log where it has these bytes.
fn damage(folder: &Path, part: &[u8]) {
    let files = fs::read_dir(folder.join("wal")).expect("there is a log");
    let hit = files.filter_map(|file| {
        let file = file.expect("it is listed").path();
        let content = fs::read(&file).expect("it can be read");
        let at = content.windows(part.len()).position(|here| here == part)?;
        Some((file, content, at))
    });
    let (file, mut content, at) = hit.last().expect("it is in the log");
    content[at] ^= 1;
    fs::write(file, content).expect("it is written");
}

#[test]
fn what_is_given_up_is_named_for_each_zone_and_its_receipts_are_told_as_lost() {
    let folder = tempfile::tempdir().expect("there is room");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let receipt = |written: nexus::Result<nexus::Written>| written.expect("it is written").receipt;
    let nx = blocking::connect(&whole).expect("it boots");
    let zone = nx.zone("lab").expect("it is a zone");
    zone.mount("/own", MountSpec::new("cas-local")).expect("it mounts");
    let kept: Vec<Receipt> = vec![
        receipt(nx.write("/a", "one")),
        receipt(zone.write("/own/a", "one")),
        receipt(nx.write("/b", "two")),
    ];
    let broken_at = receipt(zone.write("/own/broken-here", "three"));
    let lost = vec![broken_at, receipt(nx.write("/c", "four")), receipt(zone.write("/own/c", "five"))];
    copy(&whole, &broken);
    nx.shutdown().expect("it ends");
    damage(&broken, b"/own/broken-here");

    let refused = blocking::connect(&broken).expect_err("it is damaged");
    assert!(refused.to_string().contains("fsck tells what can be kept"), "{refused}");
    let told = offline::damage(&broken).expect("it is read").expect("it is damaged");
    let tree = *told.kept.keys().last().expect("two zones");
    assert_ne!(tree, TreeId::ROOT);
    let after = GiveUpAfter::from(kept[2].lsn).and(tree, kept[1].lsn);
    assert_eq!(GiveUpAfter::of(&told), after, "{told}");
    assert_eq!(after.to_string(), format!("{},{}:{}", kept[2].lsn, tree.0, kept[1].lsn));
    assert_eq!((told.lost.operations, told.lost.unreadable), (2, 1), "{told}");
    assert!(told.to_string().contains(&format!("kept: all up to LSN {} of tree {}", kept[1].lsn, tree.0)));
    for wrong in [
        GiveUpAfter::from(kept[2].lsn),
        after.clone().and(tree, broken_at.lsn),
        after.clone().and(TreeId::ROOT, Lsn(kept[2].lsn.0 - 1)),
    ] {
        let refused = offline::repair(&broken, &wrong).expect_err("it is another place");
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    }
    let cut = offline::repair(&broken, &after).expect("it is cut");
    assert_eq!((cut.damage, cut.aside.len()), (told, 1));

    let nx = blocking::connect(&broken).expect("it opens");
    let zone = nx.zone("lab").expect("it is a zone");
    // Of each zone in turn, as they were written. A receipt is asked for in its zone.
    let told = |receipts: &[Receipt], zones: [&blocking::Nexus; 3]| -> Vec<String> {
        let told = |(receipt, zone): (&Receipt, &blocking::Nexus)| {
            zone.send(SysReceipt::of(*receipt)).expect("it is told").to_string()
        };
        receipts.iter().zip(zones).map(told).collect()
    };
    // Before their places are given anew, and after.
    for _ in 0..2 {
        assert_eq!(told(&kept, [&nx, &zone, &nx]), ["on disk"; 3]);
        assert_eq!(told(&lost, [&zone, &nx, &zone]), ["lost"; 3]);
        receipt(nx.write("/new", "new"));
        receipt(zone.write("/own/new", "new"));
        receipt(zone.write("/own/new", "newer"));
    }
    assert_eq!(nx.read("/b").expect("it is there"), "two");
    assert_eq!(zone.read("/own/a").expect("it is there"), "one");
    for gone in ["/own/broken-here", "/own/c"] {
        assert_eq!(zone.read(gone).expect_err("it was given up").kind(), ErrorKind::NotFound, "{gone}");
    }
    assert!(!nx.exists("/c").expect("it is looked at"));
    nx.shutdown().expect("it ends");
}

#[test]
fn a_streams_log_that_is_damaged_at_its_end_is_told_cut_where_it_was_told_and_opens() {
    let folder = tempfile::tempdir().expect("there is room");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let nx = blocking::connect(&whole).expect("it boots");
    assert_eq!(offline::streams_damage(&whole).expect_err("it is open").kind(), ErrorKind::Busy);
    nx.make_stream("/s", StreamSpec::new()).expect("it is made");
    let group = nx.consumer("/s", "g", StreamStart::Oldest, GroupSettings::default()).expect("it is made");
    for record in ["one", "two", "broken-here", "four", "five"] {
        nx.append_record("/s", record).expect("it is appended");
    }
    assert_eq!(group.take(1, None).expect("there is one").len(), 1);
    nx.shutdown().expect("it ends");
    assert_eq!(offline::streams_damage(&whole).expect("it is read"), None);
    copy(&whole, &broken);
    let segment = fs::read_dir(broken.join("streams")).expect("it is there");
    let segment = segment
        .map(|entry| entry.expect("it is read").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "wal"));
    let segment = segment.expect("there is a log");
    let mut content = fs::read(&segment).expect("it is read");
    let at = content.windows(11).position(|text| text == b"broken-here").expect("it is there");
    content[at] ^= 1;
    fs::write(&segment, content).expect("it is written");

    let refused = blocking::connect(&broken).expect_err("it is damaged");
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert_eq!(offline::damage(&broken).expect("it is read"), None, "the other log is whole");
    let told = offline::streams_damage(&broken).expect("it is read").expect("it is damaged");
    assert!(told.to_string().contains("lost: 3 records that can be read"), "{told}");
    let wrong = StreamsPlace { segment: told.place.segment + 1, ..told.place };
    let refused = offline::repair_streams(&broken, wrong).expect_err("it is another place");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    let place = told.place.to_string().parse().expect("it is a place");
    let cut = offline::repair_streams(&broken, place).expect("it is cut");
    assert_eq!(cut.damage, told);
    assert!(cut.aside.iter().all(|name| broken.join("streams").join(name).exists()), "{cut:?}");

    let nx = blocking::connect(&broken).expect("it opens");
    let group = nx.consumer("/s", "g", StreamStart::Oldest, GroupSettings::default()).expect("it is there");
    let taken = group.take(9, None).expect("there are some");
    let texts: Vec<_> = taken.iter().map(|given| (&given.record.data[..], given.deliveries)).collect();
    assert_eq!(texts, [(&b"one"[..], 1), (b"two", 1)], "what was taken later is lost, too");
    assert_eq!(nx.append_record("/s", "new").expect("it is appended"), 2);
    nx.shutdown().expect("it ends");
}
