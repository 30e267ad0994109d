//! `SysTake` and `SysGroup`: the records of a stream, shared among the members of a group.
//!
//! As a read of a stream, these take neither the path lock, nor a commit, nor observers.

use std::sync::Arc;

use nexus_messages::syscall::{
    Chosen, Delivered, GROUP_NAME_MAX, GroupAction, GroupDetail, GroupDone, GroupInfo, GroupSettings,
    HeldRecord, LooseRecord, StreamStart, SysGroup, SysTake, Taken,
};
use nexus_messages::{Caller, Error, ErrorKind, Op, Result, Timestamp, VPath};

use super::Serve;
use super::admit::{Admissible, Admitted, Which, admit, one_path};
use super::records::{self, refused};
use crate::gate::Right;
use crate::hal::StreamState;
use crate::kernel::Kernel;
use crate::streams::groups::{Ask, Deciding, Desk, GROUPS_MAX, Given, Group, Loose, Member, TAKE_MAX, Wish};
use crate::streams::groups::{GroupRecord, Held};
use crate::streams::{Refusal, Stream};

impl Admissible for SysTake {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        Right::Read
    }

    fn validate(&self) -> Result<()> {
        check_name(Self::OP, &self.path, &self.group)?;
        let deadline = self.hold.unwrap_or(GroupSettings::DEADLINE_MIN);
        check_time(Self::OP, &self.path, GroupSettings::is_deadline(deadline))
    }
}

impl Admissible for SysGroup {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        match self.action {
            GroupAction::Configure(_) | GroupAction::Remove => Right::Write,
            _ => Right::Read,
        }
    }

    fn validate(&self) -> Result<()> {
        if self.action != GroupAction::List {
            check_name(Self::OP, &self.path, &self.group)?;
        }
        let invalid =
            |why: String| Err(Error::new(Self::OP, &self.path, ErrorKind::InvalidArgument).because(why));
        let named = match &self.action {
            GroupAction::Acknowledge(Chosen::Records(offsets))
            | GroupAction::GiveBack { which: Chosen::Records(offsets), .. }
            | GroupAction::Extend { which: Chosen::Records(offsets), .. }
            | GroupAction::Bury(offsets)
            | GroupAction::Revive(offsets) => offsets.len(),
            _ => 0,
        };
        if named > TAKE_MAX {
            return invalid(format!("{named} records at once, of which there may be {TAKE_MAX}"));
        }
        match &self.action {
            GroupAction::Join { settings, .. } | GroupAction::Configure(settings) => {
                if settings.deliveries_max == 0 {
                    return invalid("no record would ever be given".into());
                }
                check_time(Self::OP, &self.path, GroupSettings::is_deadline(settings.deadline))
            }
            GroupAction::Extend { hold: Some(hold), .. } => {
                check_time(Self::OP, &self.path, GroupSettings::is_deadline(*hold))
            }
            GroupAction::GiveBack { delay, .. } => {
                check_time(Self::OP, &self.path, *delay <= GroupSettings::DEADLINE_MAX)
            }
            _ => Ok(()),
        }
    }
}

/// A group is named as a zone is, with a bound of its own: the name may stand in a path.
fn check_name(op: Op, path: &VPath, name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is_good = (1..=GROUP_NAME_MAX).contains(&name.len()) && !name.starts_with('.');
    if is_good && name.bytes().all(allowed) {
        return Ok(());
    }
    let shown: String = name.chars().take(GROUP_NAME_MAX).collect();
    Err(Error::new(op, path, ErrorKind::InvalidArgument).because(format!(
        "{shown:?} names no group: 1 to {GROUP_NAME_MAX} bytes of letters, digits, '-', '_' or '.', no '.' first"
    )))
}

fn check_time(op: Op, path: &VPath, is_good: bool) -> Result<()> {
    if is_good {
        return Ok(());
    }
    let (least, most) = (GroupSettings::DEADLINE_MIN, GroupSettings::DEADLINE_MAX);
    let why = format!("a record is somebody's for {least:?} to {most:?}, and kept back for no longer");
    Err(Error::new(op, path, ErrorKind::InvalidArgument).because(why))
}

impl Serve for SysTake {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Taken> {
        Box::pin(take(kernel, caller, self)).await
    }
}

impl Serve for SysGroup {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<GroupDone> {
        Box::pin(group(kernel, caller, self)).await
    }
}

/// The stream that a call is about, and where its groups are asked.
async fn desk<S: Admissible>(kernel: &Kernel, admitted: &Admitted<S>) -> Result<(Arc<Stream>, Arc<Desk>)> {
    let path = &admitted.first.site.path;
    if !records::is_there(&admitted.first) {
        let (site, node) = admitted.first.clone().existing(S::OP)?;
        let error = Error::new(S::OP, &site.path, ErrorKind::NotSupported);
        return Err(
            error.because(format!("it is a {}, and only a stream has groups", node.metadata.entry_type))
        );
    }
    let stream = records::ready(kernel, S::OP, &admitted.first).await?.into_stream();
    let desk = kernel.streams().desk(kernel.env(), &stream);
    Ok((stream, desk.map_err(|refusal| refused(S::OP, path, &refusal))?))
}

async fn take(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysTake) -> Result<Taken> {
    call.validate()?;
    let mut admitted = admit(kernel, caller, call, None).await?;
    let (done, given) = match fetch(kernel, caller, &mut admitted).await {
        Ok((records, lost, given)) => (Ok(Taken::new(records, lost)), given),
        Err(error) => (Err(error), None),
    };
    admitted.after(&done).await;
    // Whoever goes away before this has heard of nothing, and gives them back.
    if let Some(given) = given {
        given.keep();
    }
    done
}

async fn fetch(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    admitted: &mut Admitted<SysTake>,
) -> Result<(Vec<Delivered>, u64, Option<Given>)> {
    let (stream, desk) = desk(kernel, admitted).await?;
    let call = &admitted.call;
    let life = call.tied.then_some(caller.life);
    if let Some(life) = life {
        // Before they are given: whoever ends the life then finds them.
        kernel.streams().note_holder(life, stream.id());
        if !kernel.lives().goes_on(life) {
            kernel.streams().end_life(life);
            return Err(ended(&admitted.first.site.path));
        }
    }
    let wish = Wish {
        member: Member::new(caller.agent.clone(), life),
        take: if call.number == 0 { kernel.env().random() } else { call.number },
        most: usize::try_from(call.records_max).unwrap_or(usize::MAX),
        hold: call.hold,
    };
    let ask = Ask { group: call.group.clone(), wish, bytes_max: call.bytes_max, wait: call.wait };
    let waits = call.wait.is_some();
    if waits {
        // Whoever swaps a service that saw the call must not wait for as long as the call does.
        admitted.step_aside();
    }
    let taken = desk.take(&stream, &ask).await;
    if waits {
        admitted.step_back();
    }
    let path = &admitted.first.site.path;
    let taken = taken.map_err(|refusal| refused(SysTake::OP, path, &refusal))?;
    if let Some(life) = life.filter(|life| !kernel.lives().goes_on(*life)) {
        // Its end may have come while this waited, and have found nothing yet.
        drop(taken);
        kernel.streams().end_life(life);
        return Err(ended(path));
    }
    Ok(taken)
}

fn ended(path: &VPath) -> Error {
    Error::new(SysTake::OP, path, ErrorKind::NotHeld).because("its owner's life has ended")
}

async fn group(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysGroup) -> Result<GroupDone> {
    call.validate()?;
    let admitted = admit(kernel, caller, call, None).await?;
    let done = act(kernel, caller, &admitted).await;
    admitted.after(&done).await;
    done
}

async fn act(kernel: &Arc<Kernel>, caller: &Arc<Caller>, admitted: &Admitted<SysGroup>) -> Result<GroupDone> {
    let (stream, desk) = desk(kernel, admitted).await?;
    let path = &admitted.first.site.path;
    let (name, now) = (&admitted.call.group, Timestamp(kernel.env().wall()));
    let member = Member::new(caller.agent.clone(), Some(caller.life));
    let there = stream.state_now().await.map_err(|refusal| refused(SysGroup::OP, path, &refusal))?;
    let done = match &admitted.call.action {
        GroupAction::Join { start, settings } => {
            let next = match start {
                StreamStart::At(offset) if *offset > there.tail => {
                    let why = format!("the stream ends at offset {}, before {offset}", there.tail);
                    return Err(Error::new(SysGroup::OP, path, ErrorKind::InvalidArgument).because(why));
                }
                StreamStart::At(offset) => *offset,
                StreamStart::Tail => there.tail,
                _ => there.head,
            };
            let new = GroupRecord::Snapshot(Group::new(*settings, next).state());
            let join = |deciding: &mut Deciding<'_>| join(deciding, name, new.clone());
            desk.change(join).await.map(GroupDone::Joined)
        }
        GroupAction::Inspect => desk
            .look(|deciding| {
                deciding.freshen(name, there.head, now)?;
                deciding.group(name).map(|group| detail(name, group, &there))
            })
            .await
            .map(GroupDone::Inspected),
        GroupAction::List => {
            let infos = |deciding: &mut Deciding<'_>| {
                let names: Vec<Arc<str>> = deciding.groups.keys().cloned().collect();
                names.iter().try_for_each(|name| deciding.freshen(name, there.head, now))?;
                Ok(deciding.groups.iter().map(|(name, group)| info(name, group, &there)).collect())
            };
            desk.look(infos).await.map(GroupDone::Listed)
        }
        action => {
            let settle = |deciding: &mut Deciding<'_>| {
                let records = decide(deciding, name, &member, action, now)?;
                let count = records.iter().map(count).sum();
                deciding.put(name, records);
                Ok(count)
            };
            desk.change(settle).await.map(GroupDone::Settled)
        }
    };
    done.map_err(|refusal| refused(SysGroup::OP, path, &refusal))
}

fn join(deciding: &mut Deciding<'_>, name: &Arc<str>, new: GroupRecord) -> Result<bool, Refusal> {
    if deciding.groups.contains_key(name) {
        return Ok(false);
    }
    if deciding.groups.len() >= GROUPS_MAX {
        return Err(Refusal::TooManyGroups);
    }
    deciding.put(name, [new]);
    Ok(true)
}

/// What an action makes of a group.
fn decide(
    deciding: &Deciding<'_>,
    name: &Arc<str>,
    member: &Member,
    action: &GroupAction,
    now: Timestamp,
) -> Result<Vec<GroupRecord>, Refusal> {
    let group = match action {
        GroupAction::Remove if !deciding.groups.contains_key(name) => return Ok(Vec::new()),
        _ => deciding.group(name)?,
    };
    Ok(match action {
        GroupAction::Configure(settings) => vec![GroupRecord::Settings(*settings)],
        GroupAction::Acknowledge(which) => group.done(member, which)?,
        GroupAction::GiveBack { which, delay } => {
            let from = if delay.is_zero() { Timestamp::default() } else { now.after(*delay) };
            group.give_back(member, which, from)?
        }
        GroupAction::Untake(take) => group.untake(member, *take, &[]),
        GroupAction::Extend { which, hold } => group.extend(member, which, *hold, now)?,
        GroupAction::Bury(offsets) => Vec::from_iter(group.bury(offsets)),
        GroupAction::Revive(offsets) => Vec::from_iter(group.revive(offsets)),
        GroupAction::Remove => vec![GroupRecord::Removed],
        _ => Vec::new(),
    })
}

/// How many records, or groups, a change is about.
fn count(record: &GroupRecord) -> u64 {
    let offsets = match record {
        GroupRecord::Done { offsets }
        | GroupRecord::Freed { offsets, .. }
        | GroupRecord::Untaken { offsets }
        | GroupRecord::Died { offsets }
        | GroupRecord::Extended { offsets, .. }
        | GroupRecord::Buried { offsets }
        | GroupRecord::Revived { offsets } => offsets.len(),
        _ => 1,
    };
    offsets as u64
}

/// How far the group is, of a stream in this state.
pub(crate) fn info(name: &Arc<str>, group: &Group, there: &StreamState) -> GroupInfo {
    let (held, waiting, dead) = group.counts();
    let (held, waiting) = (held as u64, waiting as u64);
    let mut info = GroupInfo::default();
    info.name = name.clone();
    info.settings = group.settings();
    (info.next, info.finished, info.lost) = (group.next(), group.finished(), group.lost());
    info.lag = there.tail.saturating_sub(group.next()) + held + waiting;
    (info.held, info.waiting, info.dead) = (held, waiting, dead);
    info
}

fn detail(name: &Arc<str>, group: &Group, there: &StreamState) -> GroupDetail {
    let state = group.state();
    let loose = |loose: &Loose| LooseRecord::new(loose.offset, loose.deliveries);
    let held =
        |held: Held| HeldRecord::new(held.offset, held.member.agent, held.since, held.until, held.deliveries);
    let mut detail = GroupDetail::new(info(name, group, there));
    detail.held = state.held.into_iter().map(held).collect();
    detail.waiting = state.waiting.iter().map(loose).collect();
    detail.dead = state.dead.iter().map(loose).collect();
    detail
}
