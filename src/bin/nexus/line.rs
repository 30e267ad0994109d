//! The line of those who wait for a data folder that one after the other has for itself, and the wait for a place among the clients of who serves it.
//!
//! The line is the lock of a file: the system hands it over in the order of coming, and gives it up with the process that has it. Who has it is the first in line, and alone in looking
//! whether the folder is free; it gives the lock up when it has the folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nexus::Error;
use nexus_actors::Env;

use crate::owner::environment;

/// The file whose lock is the line.
const LINE: &str = "nexus.turn";

/// The file that says who has the folder: written by each one that takes it.
const HOLDER: &str = "nexus.lock";

/// How long one and the same holder of the folder is waited for that serves nobody.
pub(crate) const TURN_WITHIN: Duration = Duration::from_secs(5);

/// How long anybody waits in line.
const LINE_WITHIN: Duration = Duration::from_secs(60);

/// How long the first in line waits between two looks at the folder.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How often who is not the first yet looks whether the folder changes hands.
const HOLDER_EVERY: Duration = Duration::from_millis(250);

/// How long to wait between two looks for a place among clients.
const PLACE_EVERY: Duration = Duration::from_millis(50);

/// A place in the line before a data folder. It is left when this is dropped.
pub(crate) struct Line {
    wait: Wait,
    // Held, and given up with it. Where there can be no such file, there is no line.
    _first: Option<File>,
}

impl Line {
    /// Waits to be the first; for no longer than it is worth it.
    pub(crate) async fn join(data: &Path) -> Self {
        let mut wait = Wait { holder: data.join(HOLDER), waiting: None, is_over: false };
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(data.join(LINE));
        let first = match opened.map(|file| (file.try_lock(), file)) {
            Ok((Ok(()), file)) => Some(file),
            Ok((Err(TryLockError::WouldBlock), file)) => wait.stand(file).await,
            Ok((Err(TryLockError::Error(_)), _)) | Err(_) => None,
        };
        Self { wait, _first: first }
    }

    /// Whether the folder changes hands, and this has not taken too long.
    pub(crate) fn is_worth_waiting_in(&mut self) -> bool {
        self.wait.is_worth_it()
    }

    /// Waits until it is worth another look at the folder.
    pub(crate) async fn wait(&mut self) {
        match self.wait.waiting() {
            Some(waiting) => waiting.env.clone().sleep(LOOK_EVERY).await,
            None => self.wait.is_over = true,
        }
    }
}

/// The wait for a folder that others have.
struct Wait {
    holder: PathBuf,
    waiting: Option<Waiting>,
    /// Whether this process has no time to wait.
    is_over: bool,
}

/// How long it has been.
struct Waiting {
    env: Env,
    since: Instant,
    /// When the folder was taken, and since when that is known.
    taken: Option<SystemTime>,
    held: Instant,
}

impl Wait {
    async fn stand(&mut self, file: File) -> Option<File> {
        let env = self.waiting()?.env.clone();
        let pool = env.pool("line", 1, 1);
        let mut first = Box::pin(pool.run(move || file.lock().map(|()| file)));
        loop {
            match env.timeout(HOLDER_EVERY, &mut first).await {
                Ok(first) => return first.ok()?.ok(),
                // Who gives up leaves a thread in line, which ends with this process.
                Err(_) if !self.is_worth_it() => return None,
                Err(_) => {}
            }
        }
    }

    fn is_worth_it(&mut self) -> bool {
        let taken = self.taken();
        let Some(waiting) = &mut self.waiting else { return !self.is_over };
        let now = waiting.env.now();
        if waiting.taken != taken {
            (waiting.taken, waiting.held) = (taken, now);
        }
        now.duration_since(waiting.held) <= TURN_WITHIN && now.duration_since(waiting.since) <= LINE_WITHIN
    }

    fn waiting(&mut self) -> Option<&Waiting> {
        if self.waiting.is_none() {
            let env = environment().ok()?;
            let now = env.now();
            self.waiting = Some(Waiting { env, since: now, taken: self.taken(), held: now });
        }
        self.waiting.as_ref()
    }

    fn taken(&self) -> Option<SystemTime> {
        modified(&self.holder)
    }
}

/// When the folder was taken last.
pub(crate) fn taken(data: &Path) -> Option<SystemTime> {
    modified(&data.join(HOLDER))
}

fn modified(holder: &Path) -> Option<SystemTime> {
    fs::metadata(holder).and_then(|holder| holder.modified()).ok()
}

/// The wait for a place among the clients of who serves the folder.
pub(crate) struct Place {
    within: Duration,
    waiting: Option<(Env, Instant)>,
}

impl Place {
    pub(crate) fn within(within: Duration) -> Self {
        Self { within, waiting: None }
    }

    /// Waits until it is worth another try; gives back why there was none when that took too long.
    pub(crate) async fn wait(&mut self, full: Error) -> nexus::Result<()> {
        let (env, since) = match &self.waiting {
            Some(waiting) => waiting,
            None => {
                let Ok(env) = environment() else { return Err(full) };
                let now = env.now();
                self.waiting.insert((env, now))
            }
        };
        let left = self.within.saturating_sub(env.now().duration_since(*since));
        if left.is_zero() {
            return Err(full);
        }
        env.sleep(PLACE_EVERY.min(left)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Mutex;

    use nexus_actors::block_on;

    use super::*;

    /// How many stand in line behind the first one, as the system tells.
    fn standing(data: &Path) -> usize {
        let inode = format!(":{} ", fs::metadata(data.join(LINE)).unwrap().ino());
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().filter(|line| line.contains("->") && line.contains(&inode)).count()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn who_waits_longest_is_the_next() {
        const WAITING: usize = 6;
        let data = tempfile::tempdir().unwrap();
        let first = block_on(Line::join(data.path()));
        let came = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for number in 0..WAITING {
                let (data, came) = (data.path(), &came);
                scope.spawn(move || {
                    let _first = block_on(Line::join(data));
                    came.lock().unwrap().push(number);
                });
                while standing(data) <= number {
                    std::thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(*came.lock().unwrap(), (0..WAITING).collect::<Vec<_>>());
    }

    #[test]
    fn a_line_that_does_not_move_is_left() {
        let data = tempfile::tempdir().unwrap();
        let mut line = block_on(Line::join(data.path()));
        assert!(line.is_worth_waiting_in(), "nobody has it yet");
        let env = line.wait.waiting().unwrap().env.clone();
        let long_ago = env.now().checked_sub(TURN_WITHIN + HOLDER_EVERY).unwrap();
        line.wait.waiting.as_mut().unwrap().held = long_ago;
        assert!(!line.is_worth_waiting_in(), "one has it for too long");
        fs::write(data.path().join(HOLDER), "").unwrap();
        assert!(line.is_worth_waiting_in(), "another one has it now");
        line.wait.waiting.as_mut().unwrap().since =
            env.now().checked_sub(LINE_WITHIN + HOLDER_EVERY).unwrap();
        assert!(!line.is_worth_waiting_in(), "there is an end to it");
    }
}
