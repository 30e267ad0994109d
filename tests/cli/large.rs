//! Files that are larger than what the command may hold in memory.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};

use crate::fixture::Nexus;

const MIB: usize = 1 << 20;

/// How large the file is.
const SIZE: usize = 160 * MIB;

/// What a command may hold at most, the caches and the program itself included, which without optimisation is a good part of that.
const HELD_MAX: usize = 120 * MIB;

/// The n-th mebibyte of a file that repeats nothing.
fn piece(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; MIB];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The most memory that the process has had so far.
fn most(child: &Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it is told");
    let kib: usize = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("it is a number");
    kib * 1_024
}

#[test]
fn a_large_file_goes_in_and_out_piece_by_piece() {
    let nexus = Nexus::new();
    let mut write = nexus.command(["write", "/f", "-"]).stdin(Stdio::piped()).spawn().expect("it starts");
    let mut input = write.stdin.take().expect("it is piped");
    for n in 0..SIZE / MIB {
        input.write_all(&piece(n)).expect("it reads");
    }
    let held = most(&write);
    drop(input);
    assert!(write.wait().expect("it ends").success());
    assert!(held < HELD_MAX, "{held} bytes held by a write");

    let mut cat = nexus.command(["cat", "/f"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut output = cat.stdout.take().expect("it is piped");
    let mut come = vec![0; MIB];
    for n in 0..SIZE / MIB {
        if n + 1 == SIZE / MIB {
            let held = most(&cat);
            assert!(held < HELD_MAX, "{held} bytes held by a cat");
        }
        output.read_exact(&mut come).expect("it is there");
        assert!(come == piece(n), "piece {n}");
    }
    assert_eq!(output.read(&mut come).expect("it ends"), 0);
    assert!(cat.wait().expect("it ends").success());

    nexus.export("/f", &nexus.host("out"));
    let mut out = File::open(nexus.host("out")).expect("it is there");
    for n in 0..SIZE / MIB {
        out.read_exact(&mut come).expect("it is there");
        assert!(come == piece(n), "piece {n}");
    }
    nexus.import(&nexus.host("out"), "/g");
    let id = |path: &str| {
        let told: serde_json::Value =
            serde_json::from_str(&nexus.good(&format!("--json stat {path}"))).expect("it is JSON");
        told["content"].clone()
    };
    assert_eq!(id("/g"), id("/f"));
    assert!(id("/f").as_str().is_some_and(|id| id.starts_with("chunks:")));
}
