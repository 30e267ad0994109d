//! Other processes: how they are started and killed, and what they do.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nexus::{Config, IoProfile, Nexus, PipeSpec, RecordRange, Serving, StreamSpec};
use nexus_actors::block_on;

use crate::cleaning::{files, regions};

/// Longer than anything takes here.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The pipe, and the stream, that are used.
pub(crate) const PIPE: &str = "/shared/pipe";
pub(crate) const STREAM: &str = "/shared/stream";

/// A child process in a role. It is killed with this value at the latest.
pub(crate) struct Role {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Role {
    /// Starts a child that does this in the kernel of `folder`, and waits until it says that it is ready.
    pub(crate) fn start(role: &str, folder: &Path) -> Self {
        let mut role = Self::begin(Command::new(std::env::current_exe().expect("it is known")), role, folder);
        assert_eq!(role.line().as_deref(), Some("ready"));
        role
    }

    /// As [`start`](Self::start), where processes have other numbers; none where this is not allowed.
    pub(crate) fn start_elsewhere(role: &str, folder: &Path) -> Option<Self> {
        let mut elsewhere = Command::new("unshare");
        elsewhere
            .args(["--pid", "--fork", "--kill-child"])
            .arg(std::env::current_exe().expect("it is known"));
        let mut role = Self::begin(elsewhere, role, folder);
        (role.line()? == "ready").then_some(role)
    }

    fn begin(mut command: Command, role: &str, folder: &Path) -> Self {
        command.args(["child", role]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let says = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, says }
    }

    /// Whether it has not ended.
    pub(crate) fn is_there(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }

    /// The next whole line that it says.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("it can be read");
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// The next number that it says.
    pub(crate) fn number(&mut self) -> Option<u64> {
        self.line().map(|line| line.parse().expect("it says numbers"))
    }

    /// Runs `test` while all that it says from now on is read and forgotten, and then kills it.
    pub(crate) fn unheard<T>(mut self, test: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let says = &mut self.says;
            scope.spawn(move || std::io::copy(says, &mut std::io::sink()).expect("it can be read"));
            let done = test();
            self.child.kill().expect("it can be killed");
            done
        })
    }

    /// `kill -9`. Gives the numbers that it said and nobody has heard.
    pub(crate) fn kill(mut self) -> Vec<u64> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        std::iter::from_fn(|| self.number()).collect()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The content of the `n`th message: its number, and bytes that follow from it.
pub(crate) fn message(n: u64) -> Vec<u8> {
    let length = 8 + usize::try_from(n * 37 % 300).expect("it is small");
    let mut message = n.to_le_bytes().to_vec();
    message.resize(length, u8::try_from(n % 251).expect("it is small"));
    message
}

/// The number of a message, which is whole.
pub(crate) fn number_of(found: &[u8]) -> u64 {
    let n = u64::from_le_bytes(found[..8].try_into().expect("it is long enough"));
    assert_eq!(found, message(n), "it is torn");
    n
}

/// A kernel on the folder, which serves others.
pub(crate) fn own(folder: &Path) -> Nexus {
    block_on(nexus::connect(Config::new(folder).serve(Serving::administrator()))).expect("it boots")
}

/// Makes what is used.
pub(crate) fn furnish(nx: &Nexus) {
    block_on(nx.make_pipe_with(PIPE, PipeSpec::shared(8_192))).expect("it is made");
    let spec = StreamSpec::new().io_profile(IoProfile::Shared).bytes_max(4 << 20);
    block_on(nx.make_stream(STREAM, spec)).expect("it is made");
}

/// The place of the word in a pipe's file that says who writes.
const WRITER_AT: u64 = 16 * 8;

/// Holds the lock of those who write to the pipe, and does not go on.
fn hold(nx: &Nexus, folder: &Path) {
    let end = block_on(nx.pipe_writer(PIPE)).expect("it is there");
    assert!(end.is_mapped());
    let file = files(&regions(folder), "pipe").pop().expect("it is there");
    let file = std::fs::File::options().read(true).write(true).open(file).expect("it is ours");
    let (mut word, is_seen) = ([0; 8], AtomicBool::new(false));
    // Who it is stands there while it writes.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_seen.load(Ordering::SeqCst) {
                // The pipe is full soon.
                let _ = block_on(end.write(message(0), None));
            }
        });
        while word == [0; 8] {
            file.read_exact_at(&mut word, WRITER_AT).expect("it is ours");
        }
        is_seen.store(true, Ordering::SeqCst);
    });
    file.write_all_at(&word, WRITER_AT).expect("it is ours");
    // It is never dropped: its process does not go on.
    std::mem::forget(end);
}

/// What a child does.
pub(crate) fn run(role: &[String]) {
    let [role, folder, ..] = role else { panic!("a role, and a folder") };
    let folder = Path::new(folder);
    let say = |what: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{what}").and_then(|()| out.flush()).expect("somebody listens");
    };
    let attached = || block_on(nexus::attach(folder)).expect("it is served");
    match role.as_str() {
        "owner" => {
            let nx = own(folder);
            furnish(&nx);
            say("ready");
            // Until it is killed, or its parent is gone.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            drop(nx);
        }
        "memory" => {
            let nx = block_on(nexus::connect(Config::in_memory())).expect("it boots");
            furnish(&nx);
            block_on(nx.append_record(STREAM, "x")).expect("it is there");
            say("ready");
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
        "writer" => {
            let nx = attached();
            let end = block_on(nx.pipe_writer(PIPE)).expect("it is there");
            assert!(end.is_mapped());
            say("ready");
            for n in 0.. {
                end.write_here(message(n), LONG).expect("there is room in the end");
                say(&n.to_string());
            }
        }
        "reader" => {
            let nx = attached();
            let end = block_on(nx.pipe_reader(PIPE)).expect("it is there");
            assert!(end.is_mapped());
            say("ready");
            while let Some(message) = end.read_here(LONG).expect("something comes") {
                say(&number_of(&message).to_string());
            }
            say("18446744073709551615");
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
        "waiter" => {
            let nx = attached();
            let end = block_on(nx.pipe_reader(PIPE)).expect("it is there");
            say("ready");
            let gone = end.read_here(LONG).expect_err("nothing comes");
            assert_eq!(gone.kind(), nexus::ErrorKind::NotFound);
            say("gone");
        }
        "appender" => {
            let nx = attached();
            let stream = block_on(nx.map_stream(STREAM)).expect("it is there");
            say("ready");
            // Pairs, so that half of one would be seen.
            let mut n = block_on(stream.read(RecordRange::from(nexus::StreamStart::Tail), None))
                .expect("it can")
                .tail;
            loop {
                let first = stream.append(vec![message(n).into(), message(n + 1).into()]).expect("it can");
                assert_eq!(first, n);
                n += 2;
                say(&n.to_string());
            }
        }
        "holder" => {
            let nx = attached();
            hold(&nx, folder);
            say("ready");
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
        "changer" => {
            let nx = attached();
            hold(&nx, folder);
            say("ready");
            // The same process, with the same number and the same beginning.
            let failed = Command::new("sh").args(["-c", "echo changed; exec cat"]).exec();
            panic!("it is no other program: {failed}");
        }
        other => panic!("no role {other}"),
    }
}
