//! Two agents commit to the same five files at once: one wins, and the other is told what it found.

use futures_util::future::join;
use nexus::syscall::{SysRead, Transacted};
use nexus::{Error, Found, Nexus, VPath};
use serde_json::json;

use super::Tour;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// The files that both want.
const FILES: usize = 5;

/// How often they try.
const ROUNDS: u64 = 20;

const AGENTS: [&str; 2] = ["ada", "grace"];

impl Tour<'_> {
    pub(super) async fn commit_together(&self, session: &Session) -> Outcome {
        let begun = self.env.now();
        let files: Vec<VPath> =
            (0..FILES).map(|number| self.below(&format!("shared/{number}.md"))).collect::<Result<_, _>>()?;
        let start = files.iter().fold(session.nx.tx(), |tx, file| tx.create(file, "nobody's\n"));
        start.commit().await?;
        let agents = [session.nx.agent(AGENTS[0])?, session.nx.agent(AGENTS[1])?];
        let mut won = [0_u64; 2];
        let mut told = String::new();
        for version in 1..=ROUNDS {
            let [first, second] = [0, 1].map(|agent| commit(&agents[agent], &files, version));
            let (winner, loser) = match join(first, second).await {
                (Ok(_), Err(loser)) => (0, loser),
                (Err(loser), Ok(_)) => (1, loser),
                (Ok(_), Ok(_)) => return Err(Failure::claim("tour", "two agents changed the same version")),
                (Err(error), Err(_)) => return Err(error.into()),
            };
            won[winner] += 1;
            let found = loser.conflict().map(|conflict| &conflict.found);
            if !matches!(found, Some(Found::Entry { version: found, .. }) if *found == version + 1) {
                return Err(Failure::claim("tour", format!("the other agent was told {loser}")));
            }
            self.holds_all_of(session, &files, AGENTS[winner]).await?;
            told = loser.to_string();
        }
        let [first, second] = won;
        let says = format!(
            "{ROUNDS} times two agents committed to the same {FILES} files at once, each file in the version that both had read: {} won {first} \
             times, {} {second} times, all {FILES} files or none; the other was told: {told}",
            AGENTS[0], AGENTS[1]
        );
        self.step("tx", begun, says, json!({ "rounds": ROUNDS, "files": FILES, "won": won, "told": told }))
    }

    /// Checks that the winner's content is in all of the files.
    async fn holds_all_of(&self, session: &Session, files: &[VPath], winner: &str) -> Outcome {
        for file in files {
            let read = session.nx.send(SysRead::at(file)).await?;
            if !read.data.starts_with(winner.as_bytes()) {
                let found = format!("{file} is not what {winner} committed, and the others are");
                return Err(Failure::claim("tour", found));
            }
        }
        Ok(())
    }
}

async fn commit(agent: &Nexus, files: &[VPath], version: u64) -> Result<Transacted, Error> {
    let content = format!("{}'s, after version {version}\n", agent.caller().agent);
    let tx = files.iter().fold(agent.tx(), |tx, file| tx.write(file, content.clone()).if_version(version));
    tx.commit().await
}
