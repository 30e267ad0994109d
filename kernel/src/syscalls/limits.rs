//! What bounds a call for its caller: how long it waits, how much it is given, when it is acknowledged, under which lock it is made.
//!
//! A hook may make each of these narrower, and none of them wider: it would spend what the caller did not grant, or promise less than it asked for. Who calls
//! is nothing that a hook can change at all.

use std::num::NonZeroU32;
use std::time::Duration;

use nexus_messages::Consistency;
use nexus_messages::syscall::{Extent, Fence, GroupAction, GroupSettings, SysRead, Syscall, WhichPipe};

/// What `after`, which a hook made of `before`, bounds less than that; none when there is nothing.
pub(super) fn widened(before: &Syscall, after: &Syscall) -> Option<&'static str> {
    let (was, is) = (Limits::of(before), Limits::of(after));
    [
        (is.wait > was.wait, "wait"),
        (is.lasts > was.lasts, "ttl"),
        (is.bytes > was.bytes, "bytes"),
        (is.entries > was.entries, "limit"),
        (is.consistency < was.consistency, "consistency"),
        (was.fence.is_some() && is.fence != was.fence, "fence"),
        (was.pipe.is_some() && is.pipe != was.pipe, "pipe"),
    ]
    .into_iter()
    .find_map(|(wider, what)| wider.then_some(what))
}

struct Limits<'a> {
    wait: Duration,
    lasts: Duration,
    bytes: u64,
    entries: u64,
    consistency: Acknowledged,
    fence: Option<&'a Fence>,
    /// Which pipe is meant, and no other.
    pipe: Option<&'a WhichPipe>,
}

/// From what promises least to what promises most. What a mount does by itself is either.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Acknowledged {
    Eventual,
    AsTheMountDoes,
    Strong,
}

impl From<Option<Consistency>> for Acknowledged {
    fn from(asked: Option<Consistency>) -> Self {
        match asked {
            Some(Consistency::Strong) => Self::Strong,
            Some(_) => Self::Eventual,
            None => Self::AsTheMountDoes,
        }
    }
}

impl<'a> Limits<'a> {
    fn change(self, consistency: Option<Consistency>, fence: Option<&'a Fence>) -> Self {
        Self { consistency: consistency.into(), fence, ..self }
    }

    fn of(call: &'a Syscall) -> Self {
        let none = Self {
            wait: Duration::ZERO,
            lasts: Duration::ZERO,
            bytes: 0,
            entries: 0,
            consistency: Acknowledged::AsTheMountDoes,
            fence: None,
            pipe: None,
        };
        match call {
            Syscall::Read(call) => {
                let (bytes, entries) = amount(call);
                Self { wait: call.wait.unwrap_or_default(), bytes, entries, pipe: call.pipe.as_ref(), ..none }
            }
            Syscall::Write(call) => Self {
                wait: call.wait.unwrap_or_default(),
                consistency: call.consistency.into(),
                fence: call.fence.as_ref(),
                pipe: call.pipe.as_ref(),
                ..none
            },
            Syscall::Lock(call) => Self { wait: call.wait.unwrap_or_default(), lasts: call.ttl, ..none },
            Syscall::Watch(call) => Self { wait: call.wait, entries: page(call.limit), ..none },
            Syscall::Readdir(call) => Self { entries: page(call.limit), ..none },
            Syscall::Versions(call) => Self { entries: page(call.limit), ..none },
            Syscall::Copy(call) => none.change(call.consistency, call.fence.as_ref()),
            Syscall::Rename(call) => none.change(call.consistency, call.fence.as_ref()),
            Syscall::Setattr(call) => none.change(call.consistency, call.fence.as_ref()),
            Syscall::Unlink(call) => none.change(call.consistency, call.fence.as_ref()),
            Syscall::Take(call) => Self {
                wait: call.wait.unwrap_or_default(),
                lasts: call.hold.unwrap_or(GroupSettings::DEADLINE_MAX),
                bytes: call.bytes_max,
                entries: call.records_max.max(1).into(),
                ..none
            },
            Syscall::Group(call) => match &call.action {
                GroupAction::Extend { hold, .. } => {
                    Self { lasts: hold.unwrap_or(GroupSettings::DEADLINE_MAX), ..none }
                }
                _ => none,
            },
            _ => none,
        }
    }
}

fn page(limit: Option<NonZeroU32>) -> u64 {
    limit.map_or(u64::MAX, |limit| limit.get().into())
}

/// How many bytes a read may give, and how many records.
fn amount(call: &SysRead) -> (u64, u64) {
    match &call.extent {
        Extent::One(range) => (range.count.unwrap_or(u64::MAX), 0),
        Extent::Vector(ranges) => {
            let bytes = ranges.iter().map(|range| range.count.unwrap_or(u64::MAX));
            (bytes.fold(0, u64::saturating_add), 0)
        }
        Extent::Records(range) => (range.bytes_max, range.records_max),
        _ => (u64::MAX, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::syscall::{Chosen, SysGroup, SysLock, SysReaddir, SysTake, SysUnlink, SysWrite};
    use nexus_messages::{FileId, VPath};

    use super::*;

    fn path() -> VPath {
        VPath::parse("/a").unwrap()
    }

    #[track_caller]
    fn check(before: impl Into<Syscall>, after: impl Into<Syscall>, expected: Option<&str>) {
        assert_eq!(widened(&before.into(), &after.into()), expected);
    }

    #[test]
    fn a_limit_may_become_narrower_and_not_wider() {
        let second = Duration::from_secs(1);
        let waits = |wait| SysRead::at(path()).wait(wait);
        check(waits(second * 2), waits(second), None);
        check(waits(second), waits(second * 2), Some("wait"));
        let page = |limit| SysReaddir::at(path()).limit(limit);
        check(SysReaddir::at(path()), page(3), None);
        check(page(3), SysReaddir::at(path()), Some("limit"));
        let reads = |count| {
            let mut call = SysRead::at(path());
            call.extent = Extent::One(nexus_messages::syscall::ByteRange { offset: 0, count });
            call
        };
        check(reads(None), reads(Some(10)), None);
        check(reads(Some(10)), reads(Some(11)), Some("bytes"));
        check(reads(Some(10)), reads(None), Some("bytes"));
        let acknowledged = |how| SysWrite::at(path(), "x").consistency(how);
        check(acknowledged(Consistency::Eventual), acknowledged(Consistency::Strong), None);
        check(acknowledged(Consistency::Strong), acknowledged(Consistency::Eventual), Some("consistency"));
        check(acknowledged(Consistency::Strong), SysWrite::at(path(), "x"), Some("consistency"));
        let fenced = || SysUnlink::at(path()).fence(Fence::new(path(), 1));
        check(SysUnlink::at(path()), fenced(), None);
        check(fenced(), SysUnlink::at(path()), Some("fence"));
        let of_pipe = |pipe| SysRead::at(path()).of_pipe(pipe);
        check(of_pipe(WhichPipe::Any), of_pipe(WhichPipe::Any), None);
        check(of_pipe(WhichPipe::Any), SysRead::at(path()), Some("pipe"));
        let to_pipe = |number| SysWrite::at(path(), "x").to_pipe(WhichPipe::One(FileId(number)));
        check(to_pipe(1), to_pipe(2), Some("pipe"));
        check(to_pipe(1), SysWrite::at(path(), "y"), Some("pipe"));
        check(SysWrite::at(path(), "x"), to_pipe(1), None);
        let lasts = |ttl| SysLock::exclusive(path()).ttl(ttl);
        check(lasts(second * 2), lasts(second), None);
        check(lasts(second), lasts(second * 2), Some("ttl"));
        let holds = |hold| SysTake::new(path(), "group").hold(hold);
        check(SysTake::new(path(), "group"), holds(second), None);
        check(holds(second), SysTake::new(path(), "group"), Some("ttl"));
        let extends = |hold| SysGroup::new(path(), "group", GroupAction::Extend { which: Chosen::All, hold });
        check(extends(Some(second)), extends(None), Some("ttl"));
        let takes = |most| SysTake::new(path(), "group").records_max(most);
        check(takes(2), takes(1), None);
        check(takes(1), takes(2), Some("limit"));
    }
}
