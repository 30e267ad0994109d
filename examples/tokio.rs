//! The kernel in a plain tokio program: `cargo run --example tokio`.
//!
//! The kernel brings its own threads, so it works the same on both flavours of the runtime, and its handle is used from any task.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use nexus::{Config, ErrorKind};

#[tokio::main]
async fn main() -> nexus::Result<()> {
    let nx = nexus::connect(Config::in_memory()).await?;

    let mut agents = tokio::task::JoinSet::new();
    for number in 1..=4 {
        let agent = nx.agent(format!("agent-{number}"))?;
        agents.spawn(async move {
            for line in 1..=25 {
                agent.append("/log", format!("agent {number}, line {line}\n")).await?;
            }
            nexus::Result::Ok(())
        });
    }
    for agent in agents.join_all().await {
        agent?;
    }
    let log = nx.read("/log").await?;
    let lines = log.iter().filter(|byte| **byte == b'\n').count();
    println!("4 agents appended {lines} lines to one file");
    assert_eq!(lines, 100);

    nx.shutdown().await?;
    let late = nx.read("/log").await;
    assert!(late.is_err_and(|error| error.kind() == ErrorKind::Down));
    println!("tokio: done");
    Ok(())
}
