//! `fsck`: what it prints, and with which status it ends.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::fixture::Nexus;

/// Turns one bit of each file below `folder` that holds `marked`, in its middle. Gives how many those were.
fn damage(folder: &Path, marked: &[u8]) -> usize {
    let mut turned = 0;
    for entry in fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("it lists").path();
        if path.is_dir() {
            turned += damage(&path, marked);
        } else if path.is_file() {
            let mut bytes = fs::read(&path).expect("it reads");
            if let Some(at) = bytes.windows(marked.len()).position(|window| window == marked) {
                bytes[at + marked.len() / 2] ^= 1;
                fs::write(&path, bytes).expect("it is written");
                turned += 1;
            }
        }
    }
    turned
}

#[test]
fn a_check_ends_with_a_failure_as_long_as_something_is_wrong() {
    let nexus = Nexus::new();
    let content: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(nexus.host("f"), &content).unwrap();
    nexus.import(&nexus.host("f"), "/f");
    let well = nexus.good("fsck");
    assert!(well.ends_with("log records: all is well\n"), "{well}");

    assert_eq!(damage(&nexus.data(), &content), 1);
    for line in ["fsck", "fsck --repair"] {
        let wrong = nexus.run(line);
        assert_eq!(wrong.status, 1, "{wrong:?}");
        assert!(wrong.out.contains("/f: content ") && wrong.out.contains(" is damaged"), "{wrong:?}");
        assert!(wrong.err.contains("nexus: fsck: ") && wrong.err.contains("wrong and left so"), "{wrong:?}");
    }
    let told = nexus.run("--json fsck --repair");
    assert_eq!(told.status, 1);
    let told: Value = serde_json::from_str(&told.out).expect("it is one object");
    let findings = told["findings"].as_array().expect("it is a list");
    let of_the_file = findings.iter().find(|finding| finding["path"] == "/f").expect("it is told");
    assert_eq!(of_the_file["fault"]["kind"], "damaged_content");
    assert_eq!(of_the_file["remedy"]["state"], "left");
}
