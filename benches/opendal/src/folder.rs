//! In the place of Nexus in the benchmark `local`.

use opendal::Operator;
use opendal::services::Fs;

use crate::folder_content::{READ, round};
use crate::{each_line, runtime};

/// For each line, `whole` or `part`: reads files, or parts of a large one, and tells how long a read took.
pub(crate) fn run(folder: &str) {
    opendal::install_default();
    let (runtime, store) = (runtime(), Operator::new(Fs::default().root(folder)).expect("it is there"));
    let whole = async |number: usize| store.read(&number.to_string()).await.expect("it is there").to_bytes();
    let part = async |number: usize| {
        let from = (number * READ) as u64;
        let read = store.read_with("large").range(from..from + READ as u64).await;
        read.expect("it is as long").to_bytes()
    };
    each_line(|line| match line {
        "whole" => runtime.block_on(round(whole)),
        "part" => runtime.block_on(round(part)),
        _ => panic!("whole, or part"),
    });
}
