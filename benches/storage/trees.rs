//! Ten thousand small files in, beside `cp -r` and `sync`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::report::{beside, median, time};

/// Files, in folders of so many.
const FILES: usize = 10_000;
const IN_A_FOLDER: usize = 100;

const TURNS: usize = 5;

/// The budget, beside `cp -r` and `sync`.
const TIMES_MAX: f64 = 2.0;

pub(crate) fn run(folder: &Path) {
    let source = folder.join("source");
    for number in 0..FILES {
        let folder = source.join(format!("folder-{}", number / IN_A_FOLDER));
        std::fs::create_dir_all(&folder).expect("the folder can be written");
        // Sizes of sources: from some hundred bytes to some thousand.
        let line = format!("line of file {number}\n");
        std::fs::write(folder.join(format!("file-{number}")), line.repeat(10 + number % 200))
            .expect("the folder can be written");
    }
    let (mut imports, mut copies) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let (data, copied) = (folder.join(format!("data-{turn}")), folder.join(format!("copied-{turn}")));
        sync();
        copies.push(time(|| {
            run_command(Command::new("cp").arg("-r").args([&source, &copied]));
            sync();
        }));
        imports.push(import(&source, &data));
        if turn == 0 {
            let exported = folder.join("exported");
            run_command(
                Command::new(NEXUS).arg("--data").arg(&data).args(["export", "/source"]).arg(&exported),
            );
            run_command(Command::new("diff").arg("-r").args([&source, &exported]));
        }
    }
    beside("import of 10,000 small files", median(imports), "cp -r and sync", median(copies), TIMES_MAX);
}

const NEXUS: &str = env!("CARGO_BIN_EXE_nexus");

fn import(source: &Path, data: &Path) -> Duration {
    time(|| {
        run_command(Command::new(NEXUS).arg("--data").arg(data).arg("import").arg(source).arg("/source"));
    })
}

fn sync() {
    run_command(&mut Command::new("sync"));
}

fn run_command(command: &mut Command) {
    let done = command.output().expect("the command is there");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
