//! Memory that is a file, mapped by each process that uses it.

use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;

use super::lock::{PID_BITS, pid_of};
use super::memory::Memory;

/// Looks after which who waits gives its turn away, and no longer only a few instructions.
const LOOKS_AT_FULL_SPEED: u32 = 100;

/// A mapped file.
#[derive(Debug)]
pub(super) struct Mapped {
    map: MmapRaw,
    me: u64,
}

/// The mapping is touched here alone.
#[expect(unsafe_code, reason = "a mapping is a pointer and a length")]
mod words {
    #[cfg(target_os = "linux")]
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::AtomicU64;

    use memmap2::MmapRaw;

    /// All words of the mapping.
    #[inline]
    pub(super) fn all(map: &MmapRaw) -> &[AtomicU64] {
        // SAFETY: the mapping is readable and writable, as long as `map` and so the result, begins at a page and so is aligned for words, and has at least this
        // many bytes. Any bits are a word. It is touched as atomics alone, in this process, so what others change meanwhile is no data race. Who makes the
        // file shorter has the system end this process with a signal, as who may write to the file could in other ways.
        unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<AtomicU64>(), map.len() / 8) }
    }

    /// The lower half of a word, for the system, which looks there whether it has changed.
    #[cfg(target_os = "linux")]
    #[inline]
    pub(super) fn lower(word: &AtomicU64) -> &AtomicU32 {
        let half = usize::from(cfg!(target_endian = "big"));
        // SAFETY: both halves are within the word, which lives as long as the result, and are aligned; no code of this process reads or writes it.
        unsafe { &*word.as_ptr().cast::<AtomicU32>().add(half) }
    }
}

impl Mapped {
    /// Maps the first `words` of the file, which has as many: a file that is shorter is refused.
    pub(super) fn new(file: &File, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it says"));
        }
        Ok(Self { map: MmapOptions::new().len(bytes).map_raw(file)?, me: myself()? })
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        &words::all(&self.map)[at]
    }
}

impl Memory for Mapped {
    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::SeqCst)
    }

    #[inline]
    fn store(&self, at: usize, value: u64) {
        self.word(at).swap(value, Ordering::SeqCst);
    }

    #[inline]
    fn exchange(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        self.word(at).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    #[inline]
    fn peek(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    #[inline]
    fn poke(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Relaxed);
    }

    #[inline]
    fn fence(&self) {
        fence(Ordering::AcqRel);
    }

    fn me(&self) -> u64 {
        self.me
    }

    fn is_dead(&self, process: u64) -> bool {
        process != self.me && is_dead(process)
    }

    #[cfg(target_os = "linux")]
    fn sleep(&self, at: usize, expected: u32, most: Duration) {
        use rustix::thread::futex;
        let most = rustix::fs::Timespec {
            tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: most.subsec_nanos().into(),
        };
        // It has changed, or somebody woke, or it took too long: whoever sleeps looks by itself.
        let _ = futex::wait(words::lower(self.word(at)), futex::Flags::empty(), expected, Some(&most));
    }

    #[cfg(target_os = "linux")]
    fn wake(&self, at: usize) {
        use rustix::thread::futex;
        // Nobody sleeps at an address that is mapped and yet cannot be waked: there is no other error.
        let _ = futex::wake(words::lower(self.word(at)), futex::Flags::empty(), i32::MAX.unsigned_abs());
    }

    // Elsewhere there is no identity of a process, and so no mapping.
    #[cfg(not(target_os = "linux"))]
    fn sleep(&self, _: usize, _: u32, _: Duration) {}

    #[cfg(not(target_os = "linux"))]
    fn wake(&self, _: usize) {}

    fn pause(&self, looks: u32) {
        if looks < LOOKS_AT_FULL_SPEED { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

/// This process.
pub(super) fn myself() -> io::Result<u64> {
    static MYSELF: OnceLock<u64> = OnceLock::new();
    if let Some(me) = MYSELF.get() {
        return Ok(*me);
    }
    let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    match began(pid) {
        Some(Some(began)) if pid < 1 << PID_BITS => {
            Ok(*MYSELF.get_or_init(|| began << PID_BITS | u64::from(pid)))
        }
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "/proc does not tell when this process began")),
    }
}

/// Whether the process that this is, or was, is gone, with all of its threads.
pub(super) fn is_dead(process: u64) -> bool {
    began(pid_of(process)).is_some_and(|began| began != Some(process >> PID_BITS))
}

/// When the process with this number began, in ticks since the system did; nothing when there is none that runs. None when that cannot be told.
#[expect(clippy::option_option, reason = "three answers")]
pub(super) fn began(pid: u32) -> Option<Option<u64>> {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => Some(running_since(&String::from_utf8_lossy(&stat))),
        // One that ends while it is looked at is told so.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
        {
            Some(None)
        }
        Err(_) => None,
    }
}

/// When a process began, by its line in `/proc`; nothing for one of which no thread runs.
fn running_since(stat: &str) -> Option<u64> {
    // The name of a program may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    let began: u64 = fields.nth(1)?.parse().ok()?;
    // A first thread that has ended is a zombie as long as others run.
    let is_over = matches!(state, "Z" | "X" | "x") && threads <= 1;
    (!is_over).then_some(began)
}

/// What tells whether another process that told this sees the same processes and the same files. After a start of the machine it is another.
pub(super) fn view() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::metadata("/proc/self/ns/mnt")?.ino();
    Ok(namespace()? ^ files.rotate_left(32))
}

/// Where processes are known by the numbers that this process knows them by: this run of the system, and the namespace in it.
pub(super) fn namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let run = std::fs::read("/proc/sys/kernel/random/boot_id")?;
    // FNV-1a.
    let run = run.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    std::fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino() ^ run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_since_it_began_until_its_last_thread_ends() {
        let line = |state: &str, threads: u32| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 {threads} 0 9876 1 2 3")
        };
        assert_eq!(running_since(&line("S", 3)), Some(9_876));
        assert_eq!(running_since(&line("Z", 1)), None);
        assert_eq!(running_since(&line("Z", 2)), Some(9_876), "only the first thread has ended");
        assert_eq!(running_since("nonsense"), None);
        let me = myself().unwrap();
        assert_eq!(pid_of(me), std::process::id());
        assert_eq!(began(pid_of(me)), Some(Some(me >> PID_BITS)));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let there = began(child.id()).unwrap().unwrap();
        child.kill().unwrap();
        // It is a zombie at the latest when its parent could bury it.
        let _ = rustix::process::waitid(
            rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        );
        assert!(there > 0 && began(child.id()) == Some(None), "a zombie is dead");
        child.wait().unwrap();
        assert_eq!(began(child.id()), Some(None));
    }
}
