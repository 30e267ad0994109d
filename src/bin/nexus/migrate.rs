//! `migrate`: the files of a mount move to another driver, while they are used.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nexus::{Error, ErrorKind, MigrationState, MigrationStatus, MountSpec, Op, VPath};

use crate::args::MigrateArgs;
use crate::failure::{Failure, Outcome};
use crate::mounts::settled;
use crate::output::one_line;
use crate::session::{Session, path};

/// How often the kernel is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn migrate(session: &Session, args: MigrateArgs) -> Outcome {
    let at = path(Op::Mount, &args.path)?;
    if args.status {
        let Some(status) = status(session, &at).await? else {
            let none = Error::new(Op::Mount, &at, ErrorKind::NotFound);
            return Err(none.because("no migration of it runs, ran or was begun").into());
        };
        return session.out.either(&status, told(&status));
    }
    if args.abort {
        session.nx.abort_migration(&at).await?;
    } else {
        let mut to = MountSpec::new(args.to.unwrap_or_default());
        for (key, value) in args.options {
            to = to.option(key, value);
        }
        session.nx.migrate(&at, settled(to), !args.without_modes).await?;
    }
    let status = until_over(session, &at).await?;
    session.out.either(&status, told(&status))?;
    match &status.state {
        MigrationState::Failed { cause, .. } => Err(Failure::claim("migrate", format_args!("{at}: {cause}"))),
        _ => Ok(()),
    }
}

async fn status(session: &Session, at: &VPath) -> Outcome<Option<MigrationStatus>> {
    let all = session.nx.migrations().await?;
    Ok(all.into_iter().find(|migration| migration.path == *at))
}

/// Waits until nobody works on it. Who is interrupted meanwhile interrupts it only if the kernel is this process's own.
async fn until_over(session: &Session, at: &VPath) -> Outcome<MigrationStatus> {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
    if io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        session.out.set_bar(Some(bar.clone()));
    }
    let done = loop {
        match status(session, at).await {
            Ok(Some(status)) if status.is_over() => break Ok(status),
            Ok(Some(status)) => {
                bar.set_length(status.found);
                bar.set_position((status.copied + status.kept).min(status.found));
                bar.set_message(step(&status));
                bar.tick();
            }
            Ok(None) => {
                break Err(Failure::claim("migrate", format_args!("{at}: the kernel knows nothing of it")));
            }
            Err(failure) => break Err(failure),
        }
        session.env().sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    session.out.set_bar(None);
    done
}

fn step(status: &MigrationStatus) -> String {
    match status.state {
        MigrationState::Checking => "checking".into(),
        MigrationState::Switching => "switching".into(),
        MigrationState::Aborting => "removing what was copied".into(),
        _ => format!("copying, {}, {} changed meanwhile", HumanBytes(status.bytes), status.noted),
    }
}

fn told(status: &MigrationStatus) -> String {
    let MigrationStatus { path, from, to, copied, kept, bytes, rounds, closed_us, .. } = status;
    let state: String = match &status.state {
        MigrationState::Checking => "is looked at".into(),
        MigrationState::Copying => "is copied".into(),
        MigrationState::Switching => "is switched".into(),
        MigrationState::Done => "is done".into(),
        MigrationState::Failed { cause, error } => format!("came to an end ({error}): {cause}"),
        MigrationState::Aborting => "is being undone".into(),
        MigrationState::Aborted => "is undone".into(),
        MigrationState::Interrupted => "was interrupted".into(),
        _ => "is in an unknown state".into(),
    };
    let state = one_line(&state);
    let counts = format!("{copied} copied, {kept} kept from before, {}", HumanBytes(*bytes));
    format!("{path} from {from} to {to} {state}; {counts}; {rounds} rounds, changes waited {closed_us} µs")
}
