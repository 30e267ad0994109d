//! What runs in a process of its own: what is to be killed, and what memory is counted of.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::{growth, large};

/// The first argument of such a process.
pub(crate) const ARGUMENT: &str = "--child";

/// Does what the arguments say, and tells the parent when it is done.
pub(crate) fn main(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["fill", folder, from, to] => {
            let number = |text: &str| text.parse().expect("the parent gives a number");
            growth::fill(Path::new(folder), number(from), number(to));
        }
        ["stream", folder] => large::stream_in_and_out(Path::new(folder)),
        _ => panic!("the parent asks for something else: {arguments:?}"),
    }
}

/// Tells the parent `what`, and goes on when it says so.
pub(crate) fn told(what: &str) {
    println!("{what}");
    std::io::stdout().flush().expect("the parent listens");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent speaks");
}

/// A child at work.
pub(crate) struct Working {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    input: ChildStdin,
}

impl Working {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let me = std::env::current_exe().expect("it runs");
        let mut command = Command::new(me);
        command.arg(ARGUMENT).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let input = child.stdin.take().expect("it is piped");
        Self { child, lines, input }
    }

    /// What it tells next.
    pub(crate) fn hear(&mut self) -> String {
        self.lines.next().expect("the child did not end").expect("it tells text")
    }

    pub(crate) fn go_on(&mut self) {
        self.input.write_all(b"\n").expect("the child listens");
    }

    /// Ends it with `kill -9`, whatever it does.
    pub(crate) fn kill(mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it is there");
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn end(mut self) {
        assert!(self.child.wait().expect("it is there").success());
    }
}
