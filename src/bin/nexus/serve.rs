//! `serve`: own the data folder, and let other processes attach.

use std::path::{Path, PathBuf};

use futures_util::future::{Either, select};
use nexus::{ChildSignal, Nexus, Serving};
use nexus_actors::ExitReason;
use serde_json::json;

use crate::args::ServeArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::run::{config, data_folder};
use crate::signals::Signals;

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
    let mut signals =
        Signals::listen(nx.env(), "serve", &[ChildSignal::Interrupt, ChildSignal::Terminate]).await?;
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
    let ended = match select(Box::pin(signals.next()), Box::pin(nx.ended())).await {
        Either::Left((Some(_), _)) => return Ok(()),
        // Who listens for signals has ended with the kernel.
        Either::Left((None, ended)) => ended.await,
        Either::Right((ended, _)) => ended,
    };
    match ended? {
        ExitReason::Shutdown | ExitReason::Normal => Ok(()),
        why => Err(Failure::claim("serve", format!("the kernel ended by itself: {why}"))),
    }
}
