//! Whatever can be sent arrives as it was sent, as text and as bytes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::syscall::*;
use nexus_messages::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sends `sent` as JSON and as postcard, and compares what arrives.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(sent: &T) {
    let text = serde_json::to_string(sent).expect("it can be written as text");
    assert_eq!(serde_json::from_str::<T>(&text).expect("it can be read from text"), *sent, "{text}");
    let bytes = postcard::to_allocvec(sent).expect("it can be written as bytes");
    assert_eq!(postcard::from_bytes::<T>(&bytes).expect("it can be read from bytes"), *sent);
}

fn path() -> impl Strategy<Value = VPath> {
    vec("[^/\0]{1,20}", 0..5)
        .prop_filter_map("no dots", |names| VPath::parse(&format!("/{}", names.join("/"))).ok())
}

fn zone() -> impl Strategy<Value = ZoneId> {
    "[a-z0-9][a-z0-9._-]{0,10}".prop_map(|name| ZoneId::parse(&name).expect("made to be one"))
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,20}".prop_map(Arc::from)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn content_id() -> impl Strategy<Value = ContentId> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(ContentId::Blake3),
        text().prop_map(ContentId::Tag),
        any::<[u8; 32]>().prop_map(ContentId::Chunks),
    ]
}

fn entry_type() -> impl Strategy<Value = EntryType> {
    (0u8..7).prop_map(|number| EntryType::from_number(number).expect("there are seven"))
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn op_id() -> impl Strategy<Value = Option<OpId>> {
    option::of(any::<u128>().prop_map(OpId))
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        Just(Precondition::None),
        Just(Precondition::Absent),
        any::<u64>().prop_map(Precondition::Version),
        any::<u64>().prop_map(Precondition::Generation),
        content_id().prop_map(Precondition::Content),
        (any::<u64>(), any::<u64>())
            .prop_map(|(file_id, version)| Precondition::Unchanged { file_id: FileId(file_id), version }),
    ]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (option::of(any::<u32>()), option::of(text()), option::of(text()), option::of(time()), option::of(time()))
        .prop_map(|(mode, owner, mime_type, modified, created)| {
            let mut attributes = Attributes::none();
            attributes.mode = mode;
            attributes.owner = owner;
            attributes.mime_type = mime_type;
            attributes.modified = modified;
            attributes.created = created;
            attributes
        })
}

fn create() -> impl Strategy<Value = Create> {
    prop_oneof![Just(Create::Never), Just(Create::IfMissing), Just(Create::Exclusive)]
}

fn mount_spec() -> impl Strategy<Value = MountSpec> {
    (".{0,10}", btree_map(".{0,5}", ".{0,5}", 0..3), any::<bool>()).prop_map(
        |(driver, options, read_only)| {
            let mut spec = MountSpec::new(driver);
            spec.options = BTreeMap::from_iter(options);
            spec.read_only = read_only;
            spec
        },
    )
}

fn pipe() -> impl Strategy<Value = Option<PipeSpec>> {
    option::of(any::<u32>().prop_map(PipeSpec::new))
}

fn wait() -> impl Strategy<Value = Option<Duration>> {
    option::of(any::<u32>().prop_map(|ms| Duration::from_millis(ms.into())))
}

fn metadata() -> impl Strategy<Value = FileMetadata> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    let names = (option::of(content_id()), text(), option::of(text()), option::of(text()));
    (path(), zone(), entry_type(), numbers, names, (time(), time(), time()), any::<bool>()).prop_map(
        |(
            path,
            zone,
            entry_type,
            (id, size, version, generation, mode),
            (content, owner, mime, link),
            times,
            implicit,
        )| {
            let mut metadata = FileMetadata::new(path, zone, FileId(id), entry_type, times.0);
            metadata.size = size;
            metadata.version = version;
            metadata.generation = generation;
            metadata.mode = mode;
            metadata.content_id = content;
            metadata.owner = owner;
            metadata.mime_type = mime;
            metadata.link_target = link;
            metadata.modified = times.1;
            metadata.changed = times.2;
            metadata.implicit = implicit;
            metadata
        },
    )
}

fn receipt() -> impl Strategy<Value = Receipt> {
    let durability = prop_oneof![Just(Durability::Strong), Just(Durability::Volatile)];
    (any::<u128>(), any::<u64>(), durability)
        .prop_map(|(op, lsn, kept)| Receipt::new(OpId(op), Lsn(lsn), kept))
}

fn caller() -> impl Strategy<Value = Arc<Caller>> {
    (text(), zone(), any::<bool>(), option::of(text())).prop_map(|(agent, zone, admin, user)| {
        Arc::new(Caller { admin, ..Caller::agent(agent, zone) }.acting_for(user))
    })
}

fn kind() -> impl Strategy<Value = EventKind> {
    prop::sample::select(EventKind::ALL)
}

fn range() -> impl Strategy<Value = ByteRange> {
    (any::<u64>(), option::of(any::<u64>())).prop_map(|(offset, count)| ByteRange { offset, count })
}

fn stat() -> impl Strategy<Value = Syscall> {
    (path(), any::<bool>()).prop_map(|(path, follow)| {
        let call = SysStat::at(path);
        if follow { call.into() } else { call.no_follow().into() }
    })
}

fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    let mode = prop_oneof![Just(SwapMode::Overlap), Just(SwapMode::Exclusive)];
    let limits = option::of((0_u64..100_000).prop_map(Duration::from_millis));
    ("[a-z]{1,9}", ".{0,20}", option::of(mode), limits.clone(), limits, option::of(any::<u32>())).prop_map(
        |(factory, config, mode, limit, probation, shadow)| {
            let mut swap = SwapOptions::new();
            (swap.mode, swap.limit, swap.probation, swap.shadow) = (mode, limit, probation, shadow);
            ServiceSpec::new(factory, config).swap(swap)
        },
    )
}

fn setattr() -> impl Strategy<Value = Syscall> {
    let parents = prop_oneof![Just(Parents::Implied), Just(Parents::Made), Just(Parents::Required)];
    let what = (option::of(entry_type()), create(), parents, option::of(text()), option::of(mount_spec()));
    let what = (what, any::<bool>(), pipe());
    (path(), what, option::of(service_spec()), attributes(), precondition(), op_id()).prop_map(
        |(path, (what, replace, pipe), service, attributes, expected, op_id)| {
            let mut call = SysSetattr::at(path).attributes(attributes).when(expected);
            (call.entry_type, call.create, call.parents, call.link_target, call.mount) = what;
            (call.replace, call.pipe) = (replace, pipe);
            (call.service, call.op_id) = (service, op_id);
            call.into()
        },
    )
}

fn two_paths() -> impl Strategy<Value = Syscall> {
    (path(), path(), any::<bool>(), any::<bool>(), precondition(), op_id()).prop_map(
        |(from, to, copy, replace, expected, op_id)| {
            if copy {
                let mut call = SysCopy::new(from, to).when(expected);
                (call.replace, call.op_id) = (replace, op_id);
                call.into()
            } else {
                let mut call = SysRename::new(from, to).when(expected);
                (call.replace, call.op_id) = (replace, op_id);
                call.into()
            }
        },
    )
}

fn unlink() -> impl Strategy<Value = Syscall> {
    let expect = prop_oneof![Just(Expect::Any), Just(Expect::File), Just(Expect::Directory)];
    (path(), any::<bool>(), expect, precondition(), op_id()).prop_map(
        |(path, recursive, expect, expected, op_id)| {
            let mut call = SysUnlink::at(path).expect(expect).when(expected);
            (call.recursive, call.op_id) = (recursive, op_id);
            call.into()
        },
    )
}

fn readdir() -> impl Strategy<Value = Syscall> {
    (path(), any::<bool>(), any::<u32>(), option::of(path()), any::<bool>()).prop_map(
        |(path, recursive, limit, cursor, metadata)| {
            let mut call = SysReaddir::at(path).limit(limit);
            (call.recursive, call.metadata) = (recursive, metadata);
            call.cursor = cursor.map(Cursor);
            call.into()
        },
    )
}

fn read() -> impl Strategy<Value = Syscall> {
    let extent = prop_oneof![range().prop_map(Extent::One), vec(range(), 0..4).prop_map(Extent::Vector)];
    (path(), extent, wait()).prop_map(|(path, extent, wait)| {
        let mut call = SysRead::at(path);
        (call.extent, call.wait) = (extent, wait);
        call.into()
    })
}

fn write() -> impl Strategy<Value = Syscall> {
    let place = prop_oneof![
        Just(Place::Whole),
        Just(Place::End),
        any::<u64>().prop_map(Place::At),
        (data(), any::<bool>()).prop_map(|(of, all)| Place::Instead { of, all }),
    ];
    let place = (place, wait());
    (path(), vec(data(), 0..3), place, any::<bool>(), create(), attributes(), precondition(), op_id())
        .prop_map(|(path, data, (place, wait), truncate, create, attributes, expected, op_id)| {
            let mut call = SysWrite::vectored(path, data).attributes(attributes).when(expected);
            (call.place, call.truncate, call.create, call.op_id) = (place, truncate, create, op_id);
            call.wait = wait;
            call.into()
        })
}

fn lock() -> impl Strategy<Value = Syscall> {
    let wait = option::of(any::<u32>().prop_map(|ms| Duration::from_millis(ms.into())));
    (path(), option::of(any::<u128>()), any::<u32>(), wait).prop_map(|(path, id, holders, wait)| match id {
        Some(id) if holders % 2 == 0 => SysUnlock::new(path, LockId(id)).into(),
        Some(id) => SysLock::extend(path, LockId(id)).into(),
        None => {
            let mut call = SysLock::semaphore(path, holders).ttl(Duration::from_secs(holders.into()));
            call.wait = wait;
            call.into()
        }
    })
}

fn watch() -> impl Strategy<Value = Syscall> {
    (path(), any::<u32>(), option::of(any::<u64>())).prop_map(|(path, bits, since)| {
        let mut call = SysWatch::at(path).mask(EventMask::from_bits(bits));
        call.since = since.map(Lsn);
        call.glob = since.map(|since| format!("{since}/*").into());
        call.limit = std::num::NonZeroU32::new(bits);
        call.into()
    })
}

fn tx_op() -> BoxedStrategy<Option<TxOp>> {
    prop_oneof![setattr(), two_paths(), unlink(), write()]
        .prop_map(|call| match call {
            Syscall::Setattr(call) => Some(call.into()),
            Syscall::Rename(call) => Some(call.into()),
            Syscall::Unlink(call) => Some(call.into()),
            Syscall::Write(call) => Some(call.into()),
            _ => None,
        })
        .boxed()
}

fn tx() -> BoxedStrategy<Syscall> {
    (vec(tx_op(), 0..5), op_id())
        .prop_map(|(ops, op_id)| {
            let mut call = ops.into_iter().flatten().fold(SysTx::new(), SysTx::with);
            call.op_id = op_id;
            call.into()
        })
        .boxed()
}

fn conflict() -> impl Strategy<Value = Conflict> {
    let there = (any::<u64>(), any::<u64>(), any::<u64>(), option::of(content_id())).prop_map(
        |(file_id, version, generation, content_id)| Found::Entry {
            file_id: FileId(file_id),
            version,
            generation,
            content_id,
        },
    );
    (precondition(), prop_oneof![Just(Found::Nothing), there])
        .prop_map(|(expected, found)| Conflict::new(expected, found))
}

fn outcome() -> impl Strategy<Value = Syscall> {
    (any::<u128>(), option::of(any::<u64>())).prop_map(|(op_id, since)| {
        let call = SysOutcome::of(OpId(op_id));
        since.map_or(call.clone(), |since| call.since(Lsn(since))).into()
    })
}

fn chosen() -> impl Strategy<Value = Chosen> {
    prop_oneof![
        vec(any::<u64>(), 0..4).prop_map(Chosen::Records),
        any::<u64>().prop_map(Chosen::UpTo),
        Just(Chosen::All),
    ]
}

fn take() -> impl Strategy<Value = Syscall> {
    let bounds = (any::<u32>(), any::<u64>(), option::of(any::<Duration>()), option::of(any::<Duration>()));
    (path(), bounds, any::<bool>(), any::<u64>()).prop_map(
        |(path, (records, bytes, wait, hold), tied, number)| {
            let mut call = SysTake::new(path, "g").records_max(records).bytes_max(bytes);
            (call.wait, call.hold, call.tied, call.number) = (wait, hold, tied, number);
            call.into()
        },
    )
}

fn group() -> impl Strategy<Value = Syscall> {
    let settings = (any::<Duration>(), any::<u32>())
        .prop_map(|(time, count)| GroupSettings::default().deadline(time).deliveries_max(count));
    let start = prop_oneof![Just(StreamStart::Tail), any::<u64>().prop_map(StreamStart::At)];
    let offsets = vec(any::<u64>(), 0..4);
    let action = prop_oneof![
        (start, settings).prop_map(|(start, settings)| GroupAction::Join { start, settings }),
        chosen().prop_map(GroupAction::Acknowledge),
        (chosen(), any::<Duration>()).prop_map(|(which, delay)| GroupAction::GiveBack { which, delay }),
        (chosen(), option::of(any::<Duration>()))
            .prop_map(|(which, hold)| GroupAction::Extend { which, hold }),
        offsets.prop_map(GroupAction::Bury),
        any::<u64>().prop_map(GroupAction::Untake),
        prop_oneof![Just(GroupAction::Inspect), Just(GroupAction::List), Just(GroupAction::Remove)],
    ];
    (path(), action).prop_map(|(path, action)| SysGroup::new(path, "g", action).into())
}

fn op_outcome() -> impl Strategy<Value = OpOutcome> {
    let committed = (receipt(), path(), option::of(path()), time());
    let committed = committed.prop_map(|(receipt, path, other, at)| {
        OpOutcome::Committed(CommittedOp::new(receipt, Op::Rename, path, other, at))
    });
    prop_oneof![
        committed,
        path().prop_map(|path| OpOutcome::UnderWay { op: Op::Write, path }),
        Just(OpOutcome::NotExecuted),
        Just(OpOutcome::InDoubt),
        any::<u64>().prop_map(|through| OpOutcome::Forgotten { through: Lsn(through) }),
    ]
}

fn syscall() -> BoxedStrategy<Syscall> {
    let others = prop_oneof![stat(), readdir(), read(), lock(), watch(), outcome()].boxed();
    // Boxed, so that they take no room on the stack.
    let others = prop_oneof![others, take().boxed(), group().boxed()].boxed();
    let changes = prop_oneof![setattr(), two_paths(), unlink(), write(), tx()].boxed();
    prop_oneof![others, changes].boxed()
}

fn event() -> impl Strategy<Value = Event> {
    let after = (any::<u64>(), option::of(content_id()), any::<u64>(), any::<bool>());
    (kind(), path(), option::of(path()), entry_type(), caller(), after, time()).prop_map(
        |(kind, path, other, entry_type, caller, (size, content_id, version, is_new), at)| {
            let mut event = Event::new(kind, path, entry_type, caller, OpId(version.into()));
            (event.other, event.size, event.content_id) = (other, size, content_id);
            (event.version, event.generation, event.is_new, event.at) = (version, version, is_new, at);
            event.clock = is_new.then(|| Box::new(VectorClock([("a".into(), version)].into())));
            event.lock = (!is_new).then_some(LockKind::Semaphore(3));
            event
        },
    )
}

fn error() -> impl Strategy<Value = Error> {
    let kinds = prop::sample::select(vec![
        ErrorKind::NotFound,
        ErrorKind::InvalidPath,
        ErrorKind::CrossMount,
        ErrorKind::StoreFull,
        ErrorKind::Crashed,
    ]);
    let within = (option::of(0_usize..2_000), option::of(conflict()));
    (path(), kinds, option::of(".{0,20}"), any::<bool>(), within).prop_map(
        |(path, kind, cause, unknown, within)| {
            let error = Error::new(Op::Rename, &path, kind);
            let error = within.0.map_or(error.clone(), |item| error.at_item(item));
            let error = within.1.map_or(error.clone(), |conflict| error.with_conflict(conflict));
            let error = cause.map_or(error.clone(), |cause| error.because(cause));
            if unknown { error.outcome_unknown().of_operation(OpId(1 << 100)) } else { error }
        },
    )
}

proptest! {
    #[test]
    fn paths_and_metadata_arrive(path in path(), metadata in metadata()) {
        check(&path);
        check(&metadata);
    }

    #[test]
    fn outcomes_of_operations_arrive(outcome in op_outcome()) {
        check(&outcome);
        check(&Answer::from(outcome.clone()));
        prop_assert_eq!(SysOutcome::from_answer(outcome.clone().into()), Some(outcome));
    }

    #[test]
    fn what_groups_tell_arrives(offset in any::<u64>(), deliveries in any::<u32>(), at in time(), data in data()) {
        let taken = Taken::new(vec![Delivered::new(Record::new(offset, at, data), deliveries)], offset);
        check(&taken);
        prop_assert_eq!(SysTake::from_answer(taken.clone().into()), Some(taken));
        let mut detail = GroupDetail::new(GroupInfo::default());
        detail.held = vec![HeldRecord::new(offset, "a".into(), at, at, deliveries)];
        detail.dead = vec![LooseRecord::new(offset, deliveries)];
        for done in [GroupDone::Inspected(detail), GroupDone::Settled(offset), GroupDone::Joined(true)] {
            check(&done);
            prop_assert_eq!(SysGroup::from_answer(done.clone().into()), Some(done));
        }
    }

    #[test]
    fn syscalls_arrive(call in syscall()) {
        check(&call);
    }

    #[test]
    fn replies_arrive(
        metadata in metadata(), receipt in receipt(), data in data(), numbers in any::<(u64, bool)>(),
    ) {
        let metadata = Arc::new(metadata);
        let written = Written::new(numbers.0, numbers.1.then_some(7), metadata.clone(), receipt);
        check(&written);
        check(&Answer::from(written.clone()));
        prop_assert_eq!(SysWrite::from_answer(written.clone().into()), Some(written.clone()));
        prop_assert_eq!(SysRead::from_answer(written.clone().into()), None);
        let mut set = SetattrDone::new(numbers.1, vec![Attribute::Mode, Attribute::Owner], metadata.clone(), receipt);
        check(&set);
        set.swapped = Some(DriverSwapped::new(1, 2));
        check(&set);
        check(&Renamed::new(numbers.1, metadata.clone(), receipt));
        check(&Copied::new(numbers.1, metadata.clone(), receipt));
        check(&Unlinked::new(metadata.entry_type, numbers.0, receipt));
        check(&ReadData::new(data, metadata.clone()));
        let results = vec![
            written.into(),
            Unlinked::new(metadata.entry_type, numbers.0, receipt).into(),
            Renamed::new(numbers.1, metadata.clone(), receipt).into(),
            SetattrDone::new(numbers.1, vec![Attribute::Mode], metadata.clone(), receipt).into(),
        ];
        check(&Answer::from(Transacted::new(results, receipt)));
        check(&Transacted::before(receipt));
        let mut entry = DirEntry::new(metadata.path.clone(), metadata.entry_type, metadata.file_id);
        entry.metadata = Some(metadata.clone());
        check(&Listing::new(vec![entry], Some(Cursor(metadata.path.clone()))));
    }

    #[test]
    fn events_and_hook_contexts_arrive(event in event(), caller in caller(), call in syscall(), error in error()) {
        check(&event);
        check(&error);
        check(&HookContext::new(caller.clone(), Some(OpId(1)), call));
        check(&MountContext::new(event.path.clone(), "memory", Some(caller)));
        check(&Outcome::of::<()>(&Err(error)));
        check(&Verdict::refuse("no"));
        check(&Verdict::refuse_as(ErrorKind::QuotaExceeded, "no"));
    }

    #[test]
    fn a_text_that_is_no_path_does_not_arrive(text in ".{0,30}") {
        let sent = serde_json::to_string(&text).expect("a text can be written");
        let arrived = serde_json::from_str::<VPath>(&sent);
        prop_assert_eq!(arrived.is_ok(), VPath::parse(&text).is_ok());
        if let Ok(path) = arrived {
            prop_assert_eq!(VPath::parse(path.as_str()).expect("it stays one"), path);
        }
    }
}
