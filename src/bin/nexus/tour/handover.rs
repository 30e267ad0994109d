//! Two agents hand work over: one puts jobs into a pipe, the other takes them out, and both write to one board under a lock.

use std::time::Duration;

use futures_util::future::try_join;
use nexus::{ErrorKind, Nexus, SysLock, SysWrite, VPath};
use serde_json::json;

use super::Tour;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// Jobs that are handed over.
const JOBS: usize = 200;

/// Bytes that the pipe holds: a few jobs, so that who is ahead waits.
const CAPACITY: u32 = 64;

/// How long each waits for the other at most.
const PATIENCE: Duration = Duration::from_secs(30);

const AGENTS: [&str; 2] = ["ada", "grace"];

impl Tour<'_> {
    pub(super) async fn hand_over(&self, session: &Session) -> Outcome {
        let begun = self.env.now();
        let (pipe, board) = (self.below("jobs")?, self.below("board.md")?);
        session.nx.make_pipe(&pipe, CAPACITY).await?;
        session.nx.write(&board, "").await?;
        let [ada, grace] = [session.nx.agent(AGENTS[0])?, session.nx.agent(AGENTS[1])?];
        let (waited, done) = try_join(give(&ada, &pipe, &board), take(&grace, &pipe, &board)).await?;
        if done != JOBS {
            return Err(Failure::claim("tour", format!("{done} of {JOBS} jobs came out of the pipe")));
        }
        // Whoever wrote while the other did has lost a line of it.
        let text = session.nx.read(&board).await?;
        let text = String::from_utf8_lossy(&text);
        for agent in AGENTS {
            let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(agent)).collect();
            let in_order = lines.iter().enumerate().all(|(job, line)| line.trim() == job.to_string());
            if lines.len() != JOBS || !in_order {
                let found =
                    format!("{} lines of {agent} on the board, and not {JOBS} in their order", lines.len());
                return Err(Failure::claim("tour", found));
            }
        }
        session.nx.unlink(&pipe).await?;
        let says = format!(
            "{} handed {JOBS} jobs to {} through a pipe of {CAPACITY} bytes, and waited {waited} times for room; both wrote to one board under one lock, each line by a \
             read and a write: no job and no line was lost or came twice",
            AGENTS[0], AGENTS[1]
        );
        self.step("pipe", begun, says, json!({ "jobs": JOBS, "lines": 2 * JOBS, "waited": waited }))
    }
}

/// Puts the jobs into the pipe, and notes each; how often it had to wait for room.
async fn give(agent: &Nexus, pipe: &VPath, board: &VPath) -> Outcome<usize> {
    let jobs = agent.pipe_writer(pipe).await?;
    let mut waited = 0;
    for job in 0..JOBS {
        let text = format!("job {job}");
        match jobs.write(text.clone(), None).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                waited += 1;
                jobs.write(text, Some(PATIENCE)).await?;
            }
            written => written?,
        }
        note(agent, board, job).await?;
    }
    Ok(waited)
}

/// Takes jobs out of the pipe until it ends, and notes each; how many came.
async fn take(agent: &Nexus, pipe: &VPath, board: &VPath) -> Outcome<usize> {
    let jobs = agent.pipe_reader(pipe).await?;
    let mut done = 0;
    while let Some(job) = jobs.read(Some(PATIENCE)).await? {
        if job != format!("job {done}") {
            let found = format!("{:?} came out of the pipe as job {done}", String::from_utf8_lossy(&job));
            return Err(Failure::claim("tour", found));
        }
        note(agent, board, done).await?;
        done += 1;
    }
    Ok(done)
}

/// Adds a line to the board, by a read and a write: right as long as nobody else does so meanwhile, which the lock is there for.
async fn note(agent: &Nexus, board: &VPath, job: usize) -> Outcome {
    let lock = agent.send(SysLock::exclusive(board).wait(PATIENCE)).await?;
    let mut text = agent.read(board).await?.to_vec();
    text.extend_from_slice(format!("{} {job}\n", agent.caller().agent).as_bytes());
    agent.send(SysWrite::at(board, text).eventual().fence(lock.fence())).await?;
    agent.unlock(board, lock.id).await?;
    Ok(())
}
