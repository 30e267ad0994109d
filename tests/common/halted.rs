//! Processes that were sent a STOP.

/// Waits until each thread of the process is halted. The system halts one after the other, and the others go on meanwhile.
pub(crate) fn until_halted(process: u32) {
    while !is_halted(process) {
        std::thread::yield_now();
    }
}

fn is_halted(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    threads.into_iter().all(|thread| {
        // One that has just ended is none that is halted.
        let Ok(stat) = std::fs::read_to_string(thread.expect("it is listed").path().join("stat")) else {
            return false;
        };
        // Behind the name, which stands in parentheses and may hold others.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        assert_ne!(state, Some('Z'), "it has ended: {stat}");
        state == Some('T')
    })
}
