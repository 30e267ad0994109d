//! `serve`: own the data folder, and let other processes attach.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus::{ChildSignal, Config, Nexus, Serving};
use nexus_actors::ExitReason;
use serde_json::json;

use crate::args::ServeArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::owner::{self, SOCKET};
use crate::run::{config, data_folder};
use crate::signals::Signals;

/// The variable that says how many clients are taken.
const CLIENTS: &str = "NEXUS_CLIENTS";

/// How many are taken when nobody says.
const CLIENTS_DEFAULT: u32 = 64;

/// How often it is looked whether who serves the folder has ended.
const LOOKS_MAX: usize = 4;

/// How long to wait between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Within which time somebody is to attach to a kernel that serves while it is used.
const USED_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn serve(
    out: &Output,
    args: ServeArgs,
    data: Option<PathBuf>,
    profile: Option<&str>,
) -> Outcome {
    let data = data.map_or_else(data_folder, Ok)?;
    let serving = match &args.agent {
        Some(name) => Serving::agent(name),
        None => Serving::administrator(),
    };
    let serving = serving.connections_max(clients(args.clients)? as usize);
    if args.apart {
        // It fails for the leader of a process group, as in a shell with job control: that has what it needs.
        let _ = rustix::process::setsid();
    }
    let config = config(&data, profile)?.serve(serving);
    let nx = if args.apart { owner::own(config, &data).await? } else { own(config, &data).await? };
    let served = wait(out, &nx, &args, &data).await;
    nx.shutdown().await?;
    served
}

/// How many clients are taken: also from the environment, for the one that commands start in the background.
pub(crate) fn clients(said: Option<u32>) -> Outcome<u32> {
    let Some(clients) = said.map_or_else(|| std::env::var_os(CLIENTS), |_| None) else {
        return Ok(said.unwrap_or(CLIENTS_DEFAULT));
    };
    let number = clients.to_str().and_then(|clients| clients.parse().ok()).filter(|clients| *clients > 0);
    number.ok_or_else(|| Failure::Usage(format!("${CLIENTS} is {clients:?}, and no number of clients")))
}

/// Boots the kernel, when it is the turn of this process. An owner that is ending is waited for, and so is one whose last client has just gone.
async fn own(config: Config, data: &Path) -> nexus::Result<Nexus> {
    for _ in 0..LOOKS_MAX {
        let nx = owner::connect(config.clone(), data).await?;
        if nx.kernel().is_ok() {
            return Ok(nx);
        }
        let env = nx.env().clone();
        nx.shutdown().await?;
        env.sleep(LOOK_EVERY).await;
    }
    // It says who serves the folder.
    nexus::connect(config).await
}

async fn wait(out: &Output, nx: &Nexus, args: &ServeArgs, data: &Path) -> Outcome {
    // Before it is said that it serves: who hears that may end it at once.
    let mut signals =
        Signals::listen(nx.env(), "serve", &[ChildSignal::Interrupt, ChildSignal::Terminate]).await?;
    let socket = data.join(SOCKET);
    let process = std::process::id();
    let whom =
        args.agent.as_ref().map_or_else(|| "administrators".into(), |name| format!("the agent {name}"));
    let mut unused = Box::pin(async {
        match args.while_used {
            true => nx.unused(USED_WITHIN).await,
            false => pending().await,
        }
    });
    // Who comes from now on is told that it ends with its last client.
    let _ = futures_util::poll!(&mut unused);
    let told = json!({ "data": data, "socket": socket, "process": process, "agent": args.agent });
    out.either(
        &told,
        format_args!("serving {} to {whom} at {}, process {process}", data.display(), socket.display()),
    )?;
    out.flush()?;
    let asked = select(Box::pin(signals.next()), unused);
    let ended = match select(asked, Box::pin(nx.ended())).await {
        Either::Left((Either::Left((Some(_), _)), _)) => return Ok(()),
        // Who listens for signals has ended with the kernel.
        Either::Left((Either::Left((None, _)), ended)) => ended.await,
        Either::Left((Either::Right((unused, _)), _)) => {
            unused?;
            return Ok(());
        }
        Either::Right((ended, _)) => ended,
    };
    match ended? {
        ExitReason::Shutdown | ExitReason::Normal => Ok(()),
        why => Err(Failure::claim("serve", format!("the kernel ended by itself: {why}"))),
    }
}
