//! From an entry of the log to what is told of it. What watchers hear live and what the log tells them later is made here, of the same fields. Pure.

use std::sync::Arc;

use nexus_messages::{Caller, EntryType, Event, EventKind, FileMetadata, LifeId, Lsn, Op, VPath, ZoneId};
use smallvec::SmallVec;

use super::scope::Facts;
use super::subscription::{Group, Heard};
use crate::hal::{Entry, LogRecord, Told, ToldEvent};

/// What is told of a change by `caller`, which left `metadata`, or removed what it describes.
pub(crate) fn told(caller: &Caller, event: ToldEvent) -> Arc<Told> {
    let events = smallvec::smallvec![Some(event)];
    told_by(caller, events)
}

/// As [`told`], of what became of several entries.
pub(crate) fn told_by(caller: &Caller, events: SmallVec<[Option<ToldEvent>; 1]>) -> Arc<Told> {
    Arc::new(Told { zone: caller.zone.clone(), admin: caller.admin, events, user: caller.user.clone() })
}

/// That nothing happened that anybody is to be told: the kernel's own business. What says not even that is taken for an entry from before the log kept what is told.
pub(crate) fn told_nobody() -> Arc<Told> {
    Arc::new(Told { zone: ZoneId::root(), admin: true, events: SmallVec::new(), user: None })
}

/// That `kind` happened to what `metadata` describes.
pub(crate) fn told_event(kind: EventKind, metadata: &FileMetadata, is_new: bool) -> ToldEvent {
    ToldEvent {
        kind,
        entry_type: metadata.entry_type,
        size: metadata.size,
        content_id: metadata.content_id.clone(),
        version: metadata.version,
        generation: metadata.generation,
        is_new,
        owner: metadata.owner.clone(),
    }
}

/// That `kind` happened to a mount.
pub(crate) fn told_mount(kind: EventKind) -> ToldEvent {
    ToldEvent {
        kind,
        entry_type: EntryType::Mount,
        size: 0,
        content_id: None,
        version: 0,
        generation: 0,
        is_new: false,
        owner: Arc::from(""),
    }
}

/// Where an operation on these paths happened, as an event says it: a copy at its destination.
fn placed<'a>(op: Op, path: &'a VPath, other: Option<&'a VPath>) -> (&'a VPath, Option<&'a VPath>) {
    match other {
        Some(to) if op == Op::Copy => (to, Some(path)),
        other => (path, other),
    }
}

/// What is to be known of the events of an entry to say whom they concern. Nothing of what nobody is told of.
pub(crate) fn facts(entry: &Entry) -> impl Iterator<Item = Facts<'_>> {
    let told = entry.told.as_deref().map_or(&[][..], |told| &told.events);
    let alone = entry.items.is_empty().then_some((entry.op, &entry.path, entry.other.as_ref()));
    let items = entry.items.iter().map(|item| (item.op, &item.path, item.other.as_ref()));
    alone.into_iter().chain(items).zip(told).filter_map(|((op, path, other), told)| {
        let (path, other) = placed(op, path, other);
        let ToldEvent { kind, entry_type, .. } = told.as_ref()?;
        Some(Facts { kind: *kind, path, other, entry_type: *entry_type })
    })
}

/// The events of a record of the log of `zone`, in the order of its operations. Of a record from before the log kept what is told, only what it says: what was
/// asked for, where, by whom and when.
pub(crate) fn heard(record: &LogRecord, zone: &ZoneId) -> Group {
    let (of, admin, user) = match &record.told {
        Some(told) => (&told.zone, told.admin, told.user.clone()),
        None => (zone, false, None),
    };
    let agent = record.caller.clone();
    // Whose life it was is nobody else's matter, and the log does not know it.
    let caller = Arc::new(Caller { agent, zone: of.clone(), admin, user, life: LifeId::KERNEL });
    let told = record.told.as_deref();
    record
        .operations()
        .enumerate()
        .filter_map(|(index, (op, path, other))| {
            let told = match told {
                Some(told) => told.events.get(index)?.clone()?,
                None => told_of_old(op)?,
            };
            Some(Arc::new(one(record, record.lsn, &caller, (op, path, other), told)))
        })
        .collect()
}

fn one(
    record: &LogRecord,
    lsn: Lsn,
    caller: &Arc<Caller>,
    (op, path, other): (Op, &VPath, Option<&VPath>),
    told: ToldEvent,
) -> Heard {
    let (path, other) = placed(op, path, other);
    let mut event = Event::new(told.kind, path.clone(), told.entry_type, caller.clone(), record.op_id);
    event.other = other.cloned();
    (event.size, event.content_id) = (told.size, told.content_id);
    (event.version, event.generation, event.is_new) = (told.version, told.generation, told.is_new);
    (event.lsn, event.at) = (lsn, record.at);
    Heard { event, owner: told.owner }
}

/// What can be told of an operation of which the log kept nothing more.
fn told_of_old(op: Op) -> Option<ToldEvent> {
    let kind = match op {
        Op::Write => EventKind::FileWritten,
        Op::Unlink => EventKind::FileDeleted,
        Op::Rename => EventKind::Renamed,
        Op::Copy => EventKind::FileCopied,
        Op::Setattr => EventKind::MetadataChanged,
        Op::Mount => return Some(told_mount(EventKind::Mounted)),
        Op::Unmount => return Some(told_mount(EventKind::Unmounted)),
        _ => return None,
    };
    Some(ToldEvent { entry_type: EntryType::Reg, ..told_mount(kind) })
}

#[cfg(test)]
mod tests {
    use nexus_messages::{OpId, Timestamp};

    use super::*;
    use crate::hal::LogItem;

    fn path(text: &str) -> VPath {
        VPath::parse(text).unwrap()
    }

    fn record(op: Op, other: Option<&str>, items: Vec<LogItem>, told: Option<Arc<Told>>) -> LogRecord {
        LogRecord {
            lsn: Lsn(7),
            op_id: OpId(1),
            caller: "coder-7".into(),
            op,
            path: path("/a"),
            other: other.map(path),
            at: Timestamp(5),
            items,
            told,
        }
    }

    #[test]
    fn a_record_from_before_events_were_kept_tells_what_it_says() {
        let zone = ZoneId::parse("team").unwrap();
        let told = heard(&record(Op::Copy, Some("/b"), vec![], None), &zone);
        let event = &told[0].event;
        assert_eq!((event.kind, event.path.as_str()), (EventKind::FileCopied, "/b"));
        assert_eq!(
            (event.other.as_ref().map(VPath::as_str), event.lsn, event.at),
            (Some("/a"), Lsn(7), Timestamp(5))
        );
        assert_eq!((&*event.caller.agent, event.caller.zone.as_str()), ("coder-7", "team"));
        let item = |op| LogItem { op, path: path("/x"), other: None };
        let tx = record(Op::Tx, None, vec![item(Op::Write), item(Op::Unlink)], None);
        let kinds: Vec<_> = heard(&tx, &zone).iter().map(|heard| heard.event.kind).collect();
        assert_eq!(kinds, [EventKind::FileWritten, EventKind::FileDeleted]);
    }

    #[test]
    fn what_is_the_kernels_own_business_is_told_to_nobody() {
        let zone = ZoneId::root();
        assert!(heard(&record(Op::Collect, None, vec![], None), &zone).is_empty());
        let nothing = Told { zone: zone.clone(), admin: true, events: SmallVec::new(), user: None };
        assert!(heard(&record(Op::Mount, None, vec![], Some(Arc::new(nothing))), &zone).is_empty());
    }

    #[test]
    fn of_a_transaction_only_what_changed_is_told() {
        let item = |at: &str| LogItem { op: Op::Setattr, path: path(at), other: None };
        let events = smallvec::smallvec![None, Some(told_mount(EventKind::MetadataChanged))];
        let told = Told { zone: ZoneId::root(), admin: false, events, user: None };
        let tx = record(Op::Tx, None, vec![item("/same"), item("/changed")], Some(Arc::new(told)));
        let heard = heard(&tx, &ZoneId::root());
        assert_eq!((heard.len(), heard[0].event.path.as_str()), (1, "/changed"));
    }
}
