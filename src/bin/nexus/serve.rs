//! `serve`: own the data folder, and let other processes attach.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::future::{Either, select};
use nexus::{Nexus, Serving};
use nexus_actors::ExitReason;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::args::ServeArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::run::{config, data_folder};

/// The socket's name in the data folder.
const SOCKET: &str = "nexus.sock";

pub(crate) async fn serve(
    out: &Output,
    args: ServeArgs,
    data: Option<PathBuf>,
    profile: Option<&str>,
) -> Outcome {
    let data = data.unwrap_or_else(data_folder);
    let serving = match &args.agent {
        Some(name) => Serving::agent(name),
        None => Serving::administrator(),
    };
    let serving = serving.connections_max(args.clients as usize);
    let nx = nexus::connect(config(&data, profile)?.serve(serving)).await?;
    let served = wait(out, &nx, &args, &data).await;
    nx.shutdown().await?;
    served
}

async fn wait(out: &Output, nx: &Nexus, args: &ServeArgs, data: &Path) -> Outcome {
    // Before it is said that it serves: who hears that may end it at once.
    let interrupted =
        interrupted(nx).await.map_err(|error| Failure::host("serve", Path::new("signals"), error))?;
    let socket = data.join(SOCKET);
    let process = std::process::id();
    let whom =
        args.agent.as_ref().map_or_else(|| "administrators".into(), |name| format!("the agent {name}"));
    let told = json!({ "data": data, "socket": socket, "process": process, "agent": args.agent });
    out.either(
        &told,
        format_args!("serving {} to {whom} at {}, process {process}", data.display(), socket.display()),
    )?;
    out.flush()?;
    let ended = match select(interrupted, Box::pin(nx.ended())).await {
        Either::Left((Ok(()), _)) => return Ok(()),
        // Who listens for signals has ended with the kernel.
        Either::Left((Err(_), ended)) => ended.await,
        Either::Right((ended, _)) => ended,
    };
    match ended? {
        ExitReason::Shutdown | ExitReason::Normal => Ok(()),
        why => Err(Failure::claim("serve", format!("the kernel ended by itself: {why}"))),
    }
}

/// Waits for SIGINT or SIGTERM, once it has been seen to it that they are heard.
async fn interrupted(nx: &Nexus) -> io::Result<oneshot::Receiver<()>> {
    let (listening, listens) = oneshot::channel();
    let (interrupt, interrupted) = oneshot::channel();
    nx.env().spawn("signals", async move {
        let both =
            signal(SignalKind::interrupt()).and_then(|one| Ok((one, signal(SignalKind::terminate())?)));
        let (mut int, mut term) = match both {
            Ok(both) => both,
            Err(error) => {
                // Who asked waits for it.
                let _ = listening.send(Err(error));
                return;
            }
        };
        let _ = listening.send(Ok(()));
        select(Box::pin(int.recv()), Box::pin(term.recv())).await;
        let _ = interrupt.send(());
    });
    listens.await.unwrap_or_else(|_| Err(io::Error::other("the kernel ended")))?;
    Ok(interrupted)
}
