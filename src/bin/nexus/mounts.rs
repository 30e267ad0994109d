//! `mount`, `umount`, `mounts`.

use nexus::hal::{HIDDEN, SECRET_PLACES};
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
    let given = args.options.clone();
    for (key, value) in args.options {
        spec = spec.option(key, value);
    }
    if args.read_only {
        spec = spec.read_only();
    }
    if args.replace {
        let swapped = session.nx.swap_driver(&at, spec).await?;
        warn_of_secrets(session, at.as_str(), &given).await;
        return session.out.quiet(&json!({ "path": at, "driver": args.driver, "swapped": swapped }));
    }
    let done = session.nx.mount(&at, spec).await?;
    warn_of_secrets(session, at.as_str(), &given).await;
    session.out.quiet(&json!({ "path": at, "driver": args.driver, "created": done.created }))
}

/// Says which of the options of the mount at `point` are secrets that are remembered as they were given. The kernel knows which are secret.
async fn warn_of_secrets(session: &Session, point: &str, given: &[(String, String)]) {
    let is_place = |text: &str| SECRET_PLACES.iter().any(|place| text.starts_with(place));
    let given: Vec<_> = given.iter().filter(|(_, text)| !is_place(text)).map(|(key, _)| key).collect();
    if given.is_empty() {
        return;
    }
    // Who may mount and not look is told nothing.
    let Ok(mounts) = sys::mounts(session).await else { return };
    let Some(mount) = mounts.iter().find(|mount| mount.point.as_str() == point) else { return };
    for key in given.into_iter().filter(|key| mount.options.get(*key).is_some_and(|shown| shown == HIDDEN)) {
        session.out.warn(format_args!(
            "mount: {key} is kept in the data folder as it was given; {key}=env:NAME or {key}=file:PATH keeps it out"
        ));
    }
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
        let (point, driver) = (&mount.point, &mount.driver);
        out.line(format_args!("{point} {driver} {access} {}{options}", one_line(&state)))?;
    }
    Ok(())
}
