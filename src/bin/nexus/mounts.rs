//! `mount`, `umount`, `mounts`.

use nexus::{MountSpec, MountState, MountStatus, Op};
use serde_json::json;

use crate::args::{MountArgs, UmountArgs};
use crate::failure::Outcome;
use crate::output::{Output, one_line};
use crate::session::{Session, path};
use crate::sys;

pub(crate) async fn mount(session: &Session, args: MountArgs) -> Outcome {
    let at = path(Op::Mount, &args.path)?;
    let mut spec = MountSpec::new(&*args.driver);
    for (key, value) in args.options {
        spec = spec.option(key, value);
    }
    if args.read_only {
        spec = spec.read_only();
    }
    if args.replace {
        let swapped = session.nx.swap_driver(&at, spec).await?;
        return session.out.quiet(&json!({ "path": at, "driver": args.driver, "swapped": swapped }));
    }
    let done = session.nx.mount(&at, spec).await?;
    session.out.quiet(&json!({ "path": at, "driver": args.driver, "created": done.created }))
}

pub(crate) async fn umount(session: &Session, args: UmountArgs) -> Outcome {
    let at = path(Op::Unmount, &args.path)?;
    session.nx.unmount(&at).await?;
    session.out.quiet(&json!({ "path": at }))
}

pub(crate) async fn mounts(session: &Session) -> Outcome {
    let mounts = sys::mounts(session).await?;
    if !session.out.is_json() {
        return list(&session.out, &mounts);
    }
    mounts.iter().try_for_each(|mount| session.out.json(mount))
}

/// Prints the mounts, one a line.
pub(crate) fn list(out: &Output, mounts: &[MountStatus]) -> Outcome {
    for mount in mounts {
        let state: String = match &mount.state {
            MountState::Serving => "serving".into(),
            MountState::Degraded { cause, .. } => format!("degraded: {cause}"),
            MountState::Restarting { cause } => format!("restarting: {cause}"),
            MountState::Failed { cause, .. } => format!("failed: {cause}"),
            _ => "unknown".into(),
        };
        let access = if mount.read_only { "read-only" } else { "read-write" };
        let options: String = mount.options.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        let kind = mount.connector.map_or_else(String::new, |category| format!(" ({})", category.name()));
        let (point, driver) = (&mount.point, &mount.driver);
        out.line(format_args!("{point} {driver}{kind} {access} {}{options}", one_line(&state)))?;
    }
    Ok(())
}
