//! Standard output and standard error: results to the one, as text or JSON; failures to the other.

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use serde::Serialize;

use crate::failure::{Failure, Outcome, Status};

/// Where a command prints. Shared by its tasks; a line is never torn.
pub(crate) struct Output {
    sink: Mutex<BufWriter<Stdout>>,
    worst: Mutex<Status>,
    /// What is drawn on the terminal just now; lines are printed above it.
    bar: Mutex<Option<ProgressBar>>,
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            sink: Mutex::new(BufWriter::new(io::stdout())),
            worst: Mutex::default(),
            bar: Mutex::default(),
            json,
        }
    }

    /// From now on lines are printed above `bar`; none when there is no more.
    pub(crate) fn set_bar(&self, bar: Option<ProgressBar>) {
        *locked(&self.bar) = bar;
    }

    /// Whether results are to be JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Outcome {
        self.with(|sink| sink.write_all(bytes))
    }

    /// Prints one line.
    pub(crate) fn line(&self, text: impl fmt::Display) -> Outcome {
        self.with(|sink| writeln!(sink, "{text}"))
    }

    /// Prints one JSON value on one line.
    pub(crate) fn json(&self, value: &impl Serialize) -> Outcome {
        self.with(|sink| {
            serde_json::to_writer(&mut *sink, value)?;
            sink.write_all(b"\n")
        })
    }

    /// Prints `value` as JSON when that is wanted, else `text` as one line.
    pub(crate) fn either(&self, value: &impl Serialize, text: impl fmt::Display) -> Outcome {
        if self.json { self.json(value) } else { self.line(text) }
    }

    /// Prints `value` as JSON when that is wanted, else nothing: the command is one that is silent when all is well.
    pub(crate) fn quiet(&self, value: &impl Serialize) -> Outcome {
        if self.json { self.json(value) } else { Ok(()) }
    }

    /// Hands what was printed so far to whoever reads it.
    pub(crate) fn flush(&self) -> Outcome {
        self.with(BufWriter::flush)
    }

    fn with(&self, write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>) -> Outcome {
        write(&mut locked(&self.sink)).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::host("write", Path::new("standard output"), error),
        })
    }

    /// Tells a failure on standard error; the command goes on and ends with its status, or a worse one.
    pub(crate) fn failed(&self, failure: &Failure) {
        if !matches!(failure, Failure::OutputClosed) {
            self.warn(failure);
        }
        let mut worst = locked(&self.worst);
        *worst = worst.max(failure.status());
    }

    /// Tells something on standard error that is no failure.
    pub(crate) fn warn(&self, what: impl fmt::Display) {
        match &*locked(&self.bar) {
            Some(bar) => bar.suspend(|| tell(what)),
            None => tell(what),
        }
    }

    /// Ends with this status, or a worse one.
    pub(crate) fn ends_with(&self, status: Status) {
        let mut worst = locked(&self.worst);
        *worst = worst.max(status);
    }

    /// The worst status since the last call.
    pub(crate) fn take_status(&self) -> Status {
        std::mem::take(&mut *locked(&self.worst))
    }
}

/// `text` on one line that a terminal only shows: line ends, and what else controls one, are spelled out. A panic may say anything.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

/// Writes `nexus: WHAT` to standard error, on one line: what a server said is told as it is. When that cannot be written to, there is nobody to tell.
pub(crate) fn tell(what: impl fmt::Display) {
    // With one write: lines of two processes that share it do not tear each other.
    let line = format!("nexus: {}\n", one_line(&what.to_string()));
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// What a panicked task left is a status or a buffer of whole lines, good as it is.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn what_controls_a_terminal_is_spelled_out() {
        let check = |text: &str, line: &str| assert_eq!(one_line(text), line);
        check("panicked: boom, 50 µs late at \"C:\\a.rs\"", "panicked: boom, 50 µs late at \"C:\\a.rs\"");
        check("left: 1\n right: 2\r\n\tend", "left: 1\\n right: 2\\r\\n\\tend");
        check("\u{1b}[2J\u{7}\u{9b}31m", "\\u{1b}[2J\\u{7}\\u{9b}31m");
        check("two\u{2028}lines", "two\\u{2028}lines");
    }
}
