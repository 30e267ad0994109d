//! What goes up and down, and how that is looked at and measured: the same for all who do it.

use std::time::Instant;

use bytes::Bytes;

pub(crate) const MIB: u64 = 1 << 20;

/// How much goes up and down, unless something else is asked for.
pub(crate) const SIZE_MIB: u64 = 1_024;

/// The pieces in which content is made and looked at.
pub(crate) const PIECE: u64 = MIB;

/// What all do: the size of a part, and how many are under way at once.
pub(crate) const PART: u64 = 8 * MIB;
pub(crate) const AT_ONCE: usize = 4;

/// Keys of one folder.
pub(crate) const KEYS: u64 = 10_000;

/// Small files, and how large each is.
pub(crate) const SMALL: usize = 1_000;
pub(crate) const SMALL_BYTES: usize = 4 << 10;

pub(crate) fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("it is a number"))
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("it starts")
}

/// Content that says where it is.
pub(crate) fn piece(number: u64) -> Bytes {
    let mut bytes = vec![number.to_le_bytes()[0]; usize::try_from(PIECE).expect("it is small")];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

/// Content of so many bytes that says whose it is.
pub(crate) fn numbered(number: usize, size: usize) -> Bytes {
    let mut content = vec![number.to_le_bytes()[0]; size];
    content[..8].copy_from_slice(&number.to_le_bytes());
    content.into()
}

/// Looks at what came from `offset` on, and gives where it ends.
pub(crate) fn looked_at(mut offset: u64, mut bytes: &[u8]) -> u64 {
    while !bytes.is_empty() {
        let index = |at: u64| usize::try_from(at).expect("it is small");
        let within = index(offset % PIECE);
        let expected = piece(offset / PIECE);
        let (now, rest) = bytes.split_at(bytes.len().min(expected.len() - within));
        assert!(*now == expected[within..within + now.len()], "what comes down is what went up");
        (offset, bytes) = (offset + now.len() as u64, rest);
    }
    offset
}

/// Has content moved: `up` takes so many pieces, `down` gives where the last of so many bytes ends. Tells how long each way took in seconds, and how many MiB of memory both.
pub(crate) fn in_and_out(up: impl FnOnce(u64), down: impl FnOnce(u64) -> u64) {
    let size = asked("MIB", SIZE_MIB) * MIB;
    let idle = resident_mib("VmRSS:");
    // From here on the highest is counted.
    std::fs::write("/proc/self/clear_refs", "5").expect("the system counts the memory of a process");
    let began = Instant::now();
    up(size / PIECE);
    let up = began.elapsed();
    let began = Instant::now();
    assert_eq!(down(size), size, "all of it");
    let down = began.elapsed();
    let above = resident_mib("VmHWM:") - idle;
    println!("{} {} {above}", up.as_secs_f64(), down.as_secs_f64());
}

/// A line of what Linux tells of this process's memory, in MiB.
fn resident_mib(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the system tells");
    let value = status.lines().find_map(|told| told.strip_prefix(line)).expect("it tells this, too");
    let kib: f64 = value.trim().trim_end_matches("kB").trim().parse().expect("it is a number");
    kib / 1_024.0
}
