//! `stream groups`, `stream take`, `stream ack`, `stream giveback`, `stream rmgroup`.

use std::ffi::OsString;
use std::process;
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus::syscall::{
    Chosen, Delivered, GroupAction, GroupDone, GroupInfo, GroupSettings, StreamStart, SysGroup, SysTake,
};
use nexus::{Error, ErrorKind, Op, VPath};
use serde_json::json;

use crate::args::{
    StreamAckArgs, StreamGiveBackArgs, StreamGroupsArgs, StreamRemoveGroupArgs, StreamTakeArgs,
};
use crate::failure::{Outcome, Status};
use crate::session::{Session, path};
use crate::signals::{PASSED_ON, Signals, attended_with};
use crate::stream::show_with;

/// After which part of its time a record is extended while its command runs.
const EXTEND_AFTER: u32 = 3;

pub(crate) async fn groups(session: &Session, args: StreamGroupsArgs) -> Outcome {
    let at = path(Op::Group, &args.path)?;
    let Some(group) = args.group else {
        for info in session.nx.groups(&at).await? {
            if session.out.is_json() {
                session.out.json(&json!(info))?;
            } else {
                session.out.line(line(&info))?;
            }
        }
        return Ok(());
    };
    let group = session.nx.group(&at, group).await?;
    if session.out.is_json() {
        return session.out.json(&json!(group));
    }
    for held in group.held {
        let (offset, deliveries, agent, until) = (held.offset, held.deliveries, held.agent, held.until);
        session.out.line(format_args!("held {offset} {deliveries} {agent} {until}"))?;
    }
    for waiting in group.waiting {
        session.out.line(format_args!("waiting {} {}", waiting.offset, waiting.deliveries))?;
    }
    for dead in group.dead {
        session.out.line(format_args!("dead {} {}", dead.offset, dead.deliveries))?;
    }
    Ok(())
}

fn line(info: &GroupInfo) -> String {
    let GroupInfo { name, next, lag, held, waiting, dead, lost, .. } = info;
    format!("{name} next {next} lag {lag} held {held} waiting {waiting} dead {dead} lost {lost}")
}

pub(crate) async fn take(session: &Session, args: StreamTakeArgs) -> Outcome {
    let at = path(Op::Take, &args.path)?;
    if args.number == 0 {
        return Ok(());
    }
    let hold: Option<Duration> = args.hold.map(Into::into);
    // The group is made first, and is not to be made for a call that makes no sense.
    if let Some(hold) = hold.filter(|hold| !GroupSettings::is_deadline(*hold)) {
        let (least, most) = (GroupSettings::DEADLINE_MIN, GroupSettings::DEADLINE_MAX);
        let why = format!("a record is held for {least:?} to {most:?}, and not for {hold:?}");
        return Err(Error::new(Op::Take, &at, ErrorKind::InvalidArgument).because(why).into());
    }
    let start = args.from.map_or(StreamStart::Oldest, StreamStart::At);
    let settings = GroupSettings::default().deadline(args.deadline.into()).deliveries_max(args.deliveries);
    session.nx.send(SysGroup::join(&at, &*args.group, start, settings)).await?;
    let mut call = SysTake::new(&at, &*args.group).records_max(args.number);
    if args.command.is_empty() {
        // It ends before they are worked on, and they are to stay the agent's.
        call = call.untied();
    }
    (call.wait, call.hold) = (args.wait.map(Into::into), hold);
    let next = async |call: &SysTake| match session.nx.send(call.clone()).await {
        Err(error) if args.wait.is_some() && error.kind() == ErrorKind::TimedOut => Ok(Vec::new()),
        taken => taken.map(|taken| taken.records),
    };
    let mut taken = Vec::new();
    match args.command.split_first() {
        None => taken = next(&call).await?,
        // One at a time: the time of those that wait for their turn would pass.
        Some((program, arguments)) => {
            // As long as it was said when the group was made, which may have been by somebody else.
            let hold = match call.hold {
                Some(hold) => hold,
                None => session.nx.group(&at, &*args.group).await?.info.settings.deadline,
            };
            call = call.records_max(1);
            call.hold = Some(hold);
            // Each of them once: what failed is another's, or for later.
            let mut failed: Vec<u64> = Vec::new();
            let mut signals = Signals::listen(session.env(), "take", PASSED_ON).await?;
            let mut is_ended = false;
            for _ in 0..args.number {
                let Some(given) = signals.unless_one(&session.out, next(&call)).await? else {
                    is_ended = true;
                    break;
                };
                let Some(given) = given?.pop() else { break };
                // The first one alone is waited for: what failed is to go back.
                call.wait = None;
                let offset = given.record.offset;
                // Its time went by meanwhile, and it was given anew.
                if failed.contains(&offset) {
                    break;
                }
                let command = (program, arguments);
                let done = work(session, &at, &args, hold, &given, command, &mut signals).await?;
                if !done.is_success {
                    failed.push(offset);
                }
                taken.push(given);
                // What ends its command ends it, too.
                if done.is_to_end {
                    break;
                }
            }
            if !failed.is_empty() {
                if !is_ended {
                    session.out.ends_with(Status::Failed);
                }
                let back = GroupAction::GiveBack { which: failed.into(), delay: Duration::ZERO };
                session.nx.send(SysGroup::new(&at, &*args.group, back)).await?;
            }
            if is_ended {
                return Ok(());
            }
        }
    }
    for given in taken.iter().filter(|_| args.command.is_empty()) {
        let (record, deliveries) = (&given.record, given.deliveries);
        let at_ms = record.at.0 / 1_000_000;
        show_with(
            session,
            record,
            json!({ "offset": record.offset, "deliveries": deliveries, "at_ms": at_ms }),
        )?;
    }
    if taken.is_empty() {
        session.out.ends_with(Status::Failed);
    } else if args.ack {
        let offsets: Vec<u64> = taken.iter().map(|given| given.record.offset).collect();
        let done = GroupAction::Acknowledge(offsets.into());
        session.nx.send(SysGroup::new(&at, &*args.group, done)).await?;
    }
    Ok(())
}

/// How the command of a record ended.
struct Worked {
    is_success: bool,
    /// Whether a signal came that was to end it.
    is_to_end: bool,
}

/// Runs the command for a record, and acknowledges it when that succeeds. Otherwise it stays held, and this says so.
async fn work(
    session: &Session,
    at: &VPath,
    args: &StreamTakeArgs,
    hold: Duration,
    given: &Delivered,
    (program, arguments): (&OsString, &[OsString]),
    signals: &mut Signals,
) -> Outcome<Worked> {
    let offset = given.record.offset;
    let settle = |action| session.nx.send(SysGroup::new(at, &*args.group, action));
    let mut command = process::Command::new(program);
    command
        .args(arguments)
        .envs(session.told())
        .env("NEXUS_RECORD_OFFSET", offset.to_string())
        .env("NEXUS_RECORD_DELIVERIES", given.deliveries.to_string());
    session.out.flush()?;
    // When it cannot be run, the record goes back with this process.
    let input = Some(given.record.data.clone());
    let ended = Box::pin(attended_with(signals, session.env(), "take", command, input));
    let extending = Box::pin(async {
        let mut is_told = false;
        loop {
            session.env().sleep(hold / EXTEND_AFTER).await;
            let extended = settle(GroupAction::Extend { which: offset.into(), hold: Some(hold) }).await;
            // It may be so the next time. Whose the record is by its end, the group says then.
            if let Err(error) = extended
                && !std::mem::replace(&mut is_told, true)
            {
                let what = "is not extended, the command goes on";
                session.out.warn(format_args!("take {at}: record {offset} {what}: {error}"));
            }
        }
    });
    let (status, is_to_end) = match select(ended, extending).await {
        Either::Left((ended, _)) => ended?,
        Either::Right((never, _)) => never,
    };
    if status.success() {
        settle(GroupAction::Acknowledge(offset.into())).await?;
    }
    Ok(Worked { is_success: status.success(), is_to_end })
}

pub(crate) async fn ack(session: &Session, args: StreamAckArgs) -> Outcome {
    let done = GroupAction::Acknowledge(chosen(args.offsets));
    settle(session, &args.path, &args.group, done).await
}

pub(crate) async fn give_back(session: &Session, args: StreamGiveBackArgs) -> Outcome {
    let delay = args.delay.map_or(Duration::ZERO, Into::into);
    let back = GroupAction::GiveBack { which: chosen(args.offsets), delay };
    settle(session, &args.path, &args.group, back).await
}

fn chosen(mut offsets: Vec<u64>) -> Chosen {
    // Each counts once.
    offsets.sort_unstable();
    offsets.dedup();
    if offsets.is_empty() { Chosen::All } else { offsets.into() }
}

async fn settle(session: &Session, at: &str, group: &str, action: GroupAction) -> Outcome {
    let at = path(Op::Group, at)?;
    let count = match session.nx.send(SysGroup::new(&at, group, action)).await? {
        GroupDone::Settled(count) => count,
        _ => 0,
    };
    session.out.quiet(&json!({ "path": at, "group": group, "count": count }))
}

pub(crate) async fn remove(session: &Session, args: StreamRemoveGroupArgs) -> Outcome {
    let at = path(Op::Group, &args.path)?;
    let removed = session.nx.remove_group(&at, &args.group).await?;
    session.out.quiet(&json!({ "path": at, "group": args.group, "removed": removed }))
}
