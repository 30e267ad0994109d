//! What a new process does between its birth and the program.
//!
//! What runs there runs in a copy of this process with one thread, in which any lock may be held for ever by a thread that is not there.
#![expect(unsafe_code, reason = "what a forked process does must be sound in one")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};

/// Has the process be the first of a session, and so of a group, of its own, and has the host kill it when the thread that starts it ends, and with it this whole process,
/// however that ends.
///
/// A session of its own has no terminal: who would ask there for a password is told so, and not halted in the background for ever; and no process leaves its group
/// for one of ours.
pub(super) fn apart_and_dies_with_this_thread(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: the closure makes three system calls, and builds errors from their numbers: it allocates nothing, takes no lock, and touches no memory but its own
    // copy of `parent`, so it is sound in a process that was forked from one with many threads.
    unsafe {
        command.pre_exec(move || bind(parent));
    }
}

fn bind(parent: Pid) -> io::Result<()> {
    setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Before the order was given it may have been too late: then somebody else is its parent by now.
    if getppid() == Some(parent) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()))
    }
}
