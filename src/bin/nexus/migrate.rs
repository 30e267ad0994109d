//! `migrate`: the files of a mount move to another driver, while they are used.

use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use nexus::{ChildSignal, Error, ErrorKind, MigrationState, MigrationStatus, Op, VPath};

use crate::args::MigrateArgs;
use crate::failure::{Failure, Outcome, Status};
use crate::mounts::{asked_for, settled};
use crate::output::one_line;
use crate::session::{Session, path};
use crate::signals::Signals;

/// How often the kernel is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the kernel may take to say where it is, when somebody wants this process to end.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// `migrate` of a command line of its own: who interrupts it is told where it stands, and how it goes on or ends.
pub(crate) async fn migrate_alone(session: &Session, args: MigrateArgs) -> Outcome {
    const ENDING: [ChildSignal; 2] = [ChildSignal::Interrupt, ChildSignal::Terminate];
    let mut signals = Signals::listen(session.env(), "migrate", &ENDING).await?;
    let at = args.path.clone();
    let signal = {
        let (migrating, next) = (pin!(migrate(session, args)), pin!(signals.next()));
        match select(migrating, next).await {
            Either::Left((done, _)) => return done,
            Either::Right((Some(signal), _)) => signal,
            Either::Right((None, migrating)) => return migrating.await,
        }
    };
    session.out.set_bar(None);
    let standing = async { status(session, &path(Op::Mount, &at)?).await };
    let standing = session.env().timeout(ANSWER_MAX, standing).await;
    let standing = match &standing {
        Ok(Ok(Some(status))) => told(status),
        Ok(Ok(None)) => format!("{at}: nothing of it was begun"),
        Ok(Err(failure)) => format!("{at}: where it stands is not known: {failure}"),
        Err(_) => format!("{at}: where it stands is not told within {ANSWER_MAX:?}"),
    };
    let next = match session.nx.kernel() {
        Ok(_) => format!("the same command goes on with it, and `nexus migrate {at} --abort` takes it back"),
        Err(_) => format!(
            "it goes on in the process that serves the folder: `nexus migrate {at} --status` tells how far it is, and --abort takes it back"
        ),
    };
    session.out.warn(format_args!("migrate: interrupted; {standing}; {next}"));
    session.out.ends_with(Status::Command(Signals::ended_by(signal)?.status()));
    Ok(())
}

pub(crate) async fn migrate(session: &Session, args: MigrateArgs) -> Outcome {
    ordered(session, args).await.map_err(|failure| failure.known_as("migrate"))
}

async fn ordered(session: &Session, args: MigrateArgs) -> Outcome {
    let at = path(Op::Mount, &args.path)?;
    if args.status {
        let Some(status) = status(session, &at).await? else {
            let none = Error::new(Op::Mount, &at, ErrorKind::NotFound);
            return Err(none
                .because("no migration of it was begun that is not over, and this kernel has seen none")
                .into());
        };
        return session.out.either(&status, told(&status));
    }
    if args.leave_copies {
        session.nx.give_up_migration(&at).await?;
    } else if args.abort {
        session.nx.abort_migration(&at).await?;
    } else {
        let to = asked_for(args.to.unwrap_or_default(), args.options, "migrate")?;
        session.nx.migrate(&at, settled(to), !args.without_modes).await?;
    }
    let status = until_over(session, &at).await?;
    session.out.either(&status, told(&status))?;
    match &status.state {
        MigrationState::Failed { cause, .. } => Err(Failure::claim("migrate", format_args!("{at}: {cause}"))),
        MigrationState::Aborted | MigrationState::GivenUp if !args.abort => {
            Err(Failure::claim("migrate", format_args!("{at}: it was aborted, and the old driver serves")))
        }
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
    let bar = bar.with_finish(ProgressFinish::AndClear);
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
    let MigrationStatus { path, from, to, found, copied, kept, bytes, rounds, closed_us, .. } = status;
    let state: String = match &status.state {
        MigrationState::Checking => "is being looked at".into(),
        MigrationState::Copying => "is being copied".into(),
        MigrationState::Switching => "is being switched".into(),
        MigrationState::Done => "is done".into(),
        MigrationState::Failed { cause, error } => format!("came to an end ({error}): {cause}"),
        MigrationState::Aborting => "is being undone".into(),
        MigrationState::Aborted => "is undone".into(),
        // How much it copied says less than what may be left of it.
        MigrationState::GivenUp => {
            let (left, store) = (status.left, status.new_store());
            return format!(
                "{path} from {from} to {to} is given up, and {from} serves; up to {left} copies are left in {store}"
            );
        }
        MigrationState::Interrupted => "was interrupted".into(),
        _ => "is in an unknown state".into(),
    };
    let state = one_line(&state);
    // All is found before the first is copied.
    let total = match status.state {
        MigrationState::Copying => format!(" of {found} found at first,"),
        _ => String::new(),
    };
    let counts = format!("{copied} copied, {kept} kept from before,{total} {}", HumanBytes(*bytes));
    format!("{path} from {from} to {to} {state}; {counts}; {rounds} rounds, changes waited {closed_us} µs")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_under_way_is_told_with_how_much_there_is() {
        let told_of = |state: &str| {
            let status = json!({
                "zone": "root", "path": "/m", "from": "local", "to": "s3", "options": { "bucket": "b", "deadline_ms": "9" }, "state": state,
                "began": 0, "ended": null, "found": 12, "copied": 3, "kept": 1, "removed": 0, "bytes": 2_048,
                "left": 2, "noted": 0, "rounds": 0, "closings": 0, "closed_us": 0,
            });
            told(&serde_json::from_value(status).unwrap())
        };
        assert_eq!(
            told_of("copying"),
            "/m from local to s3 is being copied; 3 copied, 1 kept from before, of 12 found at first, 2.00 KiB; 0 rounds, changes waited 0 µs"
        );
        assert_eq!(
            told_of("given_up"),
            "/m from local to s3 is given up, and local serves; up to 2 copies are left in s3 (bucket=b)"
        );
        assert!(told_of("done").contains(" is done; 3 copied, 1 kept from before, 2.00 KiB;"));
    }
}
