//! What calls see of hooks.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use nexus_actors::{Env, MailboxBounds, Ref, block_on};
use nexus_messages::syscall::{SysRename, Syscall};
use nexus_messages::{ErrorKind, EventKind, EventMask, MountContext, Op, Outcome};
use nexus_supervisors::{ChildSpec, Kill, Strategy, SupSpec, Tree};

use super::fixture::*;
use super::*;

const SOON: Duration = Duration::from_secs(5);

fn view(hooks: Vec<Registration>) -> DispatchView {
    let mut table = HookTable::new();
    for hook in hooks {
        table.register(hook).unwrap();
    }
    table.freeze()
}

fn passage(hooks: Vec<Registration>) -> Passage {
    Passage::of(view(hooks))
}

fn ok() -> Outcome {
    Outcome::of::<()>(&Ok(()))
}

#[test]
fn interceptors_run_by_order_then_by_registration_and_back_in_reverse() {
    let log = Recorder::new();
    let mut passage = passage(vec![
        log.interceptor("late").order(10),
        log.interceptor("first"),
        log.interceptor("second"),
        log.interceptor("early").order(-1),
    ]);
    let mut shown = [Shown::new(reading("a", "/x"))];
    block_on(passage.before(&mut shown[0])).unwrap();
    assert_eq!(log.take(), ["before early", "before first", "before second", "before late"]);
    block_on(passage.after(&shown, &ok(), &AtomicUsize::new(0)));
    assert_eq!(log.take(), ["after late", "after second", "after first", "after early"]);
}

#[test]
fn a_refusal_stops_the_call_and_names_the_hook() {
    let log = Recorder::new();
    let refuses = log.moody("guard", OpSet::ALL, Mood::Refuses);
    let mut passage = passage(vec![log.interceptor("one"), refuses, log.interceptor("three")]);
    let refused = block_on(passage.before(&mut Shown::new(reading("a", "/x")))).unwrap_err();
    assert_eq!(
        refused,
        HookRefusal::Refused { hook: "guard".into(), kind: ErrorKind::Refused, reason: "not today".into() }
    );
    assert_eq!(log.take(), ["before one", "before guard"]);
}

#[test]
fn a_panic_before_the_call_refuses_it_and_one_after_it_changes_nothing() {
    let log = Recorder::new();
    for mood in [Mood::Panics, Mood::PanicsLate] {
        let hooks = || vec![log.interceptor("one"), log.moody("broken", OpSet::ALL, mood)];
        let mut refusing = passage(hooks());
        let mut shown = [Shown::new(reading("a", "/x"))];
        let refused = block_on(refusing.before(&mut shown[0])).unwrap_err();
        assert!(matches!(&refused, HookRefusal::Panicked { hook, message }
            if &**hook == "broken" && message.starts_with("broken is broken")));
        log.take();
        block_on(refusing.after(&shown, &ok(), &AtomicUsize::new(0)));
        assert_eq!(log.take(), ["after one"], "those that let it pass hear of the refusal");
        let calm = vec![log.interceptor("one"), log.interceptor("broken")];
        block_on(passage(calm).before(&mut shown[0])).unwrap();
        log.take();
        block_on(passage(hooks()).after(&shown, &ok(), &AtomicUsize::new(0)));
        assert_eq!(log.take(), ["after broken", "after one"], "those behind it are told all the same");
    }
}

#[test]
fn a_later_interceptor_sees_the_call_as_the_one_before_left_it() {
    let log = Recorder::new();
    let rewrites = log.moody("mover", OpSet::from(Op::Read), Mood::Rewrites);
    let there = log.interceptor("there").below(path("/moved"));
    let here = log.interceptor("here").below(path("/x"));
    let mut passage = passage(vec![rewrites, there, here]);
    let mut shown = Shown::new(reading("a", "/x"));
    block_on(passage.before(&mut shown)).unwrap();
    assert_eq!(*shown.context.call.path(), "/moved");
    assert_eq!(log.take(), ["before mover", "before there"]);
}

#[test]
fn interceptors_see_their_operations_below_their_path_only() {
    let log = Recorder::new();
    let writes = log.moody("writes", OpSet::MUTATIONS, Mood::Calm);
    let below = log.interceptor("below").below(path("/a/b"));
    let mut passage = passage(vec![writes, below]);
    let mut ran = |cx: &mut nexus_messages::HookContext| {
        block_on(passage.before(&mut Shown::new(cx.clone()))).unwrap();
        log.take()
    };
    assert_eq!(ran(&mut reading("a", "/a/b/c")), ["before below"]);
    assert_eq!(ran(&mut reading("a", "/a/bc")), [""; 0]);
    let mut cx = reading("a", "/x");
    cx.call = Syscall::Rename(SysRename::new(path("/z"), path("/a/b/n")));
    assert_eq!(ran(&mut cx), ["before writes", "before below"], "the second path counts, too");
}

#[test]
fn hooks_are_passed_by_the_calls_of_their_owner() {
    let log = Recorder::new();
    let hooks = vec![
        log.interceptor("i").owned_by("svc"),
        log.observer("o").owned_by("svc"),
        log.mount_hook("m", Mood::Calm).owned_by("svc"),
        resolver("r", "/a", "/best").owned_by("svc"),
        resolver("all", "/**", "/rest"),
    ];
    let mounts = view(hooks.clone());
    let mut passage = passage(hooks);
    for (agent, seen) in [("svc", 0), ("other", 3)] {
        block_on(passage.before(&mut Shown::new(reading(agent, "/a")))).unwrap();
        passage.observe(&event(EventKind::FileWritten, agent));
        block_on(mounts.mounted(&MountContext::new(path("/m"), "memory", Some(caller(agent)))));
        assert_eq!(log.take().len(), seen, "{agent}");
    }
    let mut to = |agent| block_on(passage.resolve(&caller(agent), Op::Read, &path("/a"))).unwrap().unwrap();
    assert_eq!(to("other"), "/best");
    assert_eq!(to("svc"), "/rest", "the next best takes its place");
}

#[test]
fn observers_hear_what_their_mask_names_and_a_panic_stops_nobody() {
    let log = Recorder::new();
    let passage = passage(vec![
        log.moody_observer("broken", EventMask::ALL, Mood::Panics),
        log.moody_observer("writes", EventKind::FileWritten, Mood::Calm),
        log.observer("all"),
    ]);
    passage.observe(&event(EventKind::FileWritten, "a"));
    assert_eq!(log.take(), ["file_write broken", "file_write writes", "file_write all"]);
    passage.observe(&event(EventKind::Renamed, "a"));
    assert_eq!(log.take(), ["file_rename broken", "file_rename all"]);
}

#[test]
fn mount_hooks_hear_of_mounts_and_a_panic_stops_nobody() {
    let log = Recorder::new();
    let view = view(vec![log.mount_hook("broken", Mood::Panics), log.mount_hook("fine", Mood::PanicsLate)]);
    let cx = MountContext::new(path("/m"), "memory", None);
    block_on(view.mounted(&cx));
    block_on(view.unmounted(&cx));
    assert_eq!(log.take(), ["mounted /m broken", "mounted /m fine"]);
}

#[test]
fn a_resolver_rewrites_leaves_or_refuses() {
    let check = |resolution: Resolution, expected: Result<Option<&str>, &str>| {
        let mut passage = passage(vec![resolver_that("r", "/a/{}", resolution.clone())]);
        let got = block_on(passage.resolve(&caller("a"), Op::Read, &path("/a/b")));
        let got = got.map(|to| to.map(|to| to.to_string())).map_err(|refused| refused.to_string());
        let expected = expected.map(|to| to.map(str::to_owned)).map_err(str::to_owned);
        assert_eq!(got, expected, "{resolution:?}");
    };
    check(Resolution::Unchanged, Ok(None));
    check(Resolution::Rewrite(path("/b")), Ok(Some("/b")));
    check(Resolution::Rewrite(path("/a/b")), Ok(None));
    check(Resolution::Refuse("closed".into()), Err("r: closed"));
    check(Resolution::Refuse(String::new()), Err("the hook r panicked: the resolver is broken"));
    let mut none = passage(vec![]);
    assert_eq!(block_on(none.resolve(&caller("a"), Op::Read, &path("/a/b"))), Ok(None));
}

#[test]
fn the_summary_says_which_kinds_there_are() {
    let log = Recorder::new();
    let none = view(vec![]).summary();
    assert!(none.is_empty() && !none.has_resolvers() && !none.has_mount_hooks());
    let reads = view(vec![log.moody("r", OpSet::from(Op::Read), Mood::Calm)]).summary();
    assert!(reads.has_interceptors(Op::Read) && !reads.has_interceptors(Op::Write) && !reads.has_resolvers());
    for kind in EventKind::ALL {
        let one = view(vec![log.moody_observer("o", *kind, Mood::Calm)]).summary();
        for other in EventKind::ALL {
            assert_eq!(one.has_observers(*other), kind == other);
        }
        assert!(!one.has_interceptors(Op::Export) && !one.has_resolvers() && !one.has_mount_hooks());
    }
    let all = view(vec![log.interceptor("i"), log.observer("o")]).summary();
    assert!(!all.has_resolvers() && !all.has_mount_hooks());
    assert!(view(vec![resolver("r", "/a", "/b")]).summary().has_resolvers());
    assert!(view(vec![log.mount_hook("m", Mood::Calm)]).summary().has_mount_hooks());
}

#[test]
fn what_is_published_is_seen_and_an_old_writer_is_not() {
    let log = Recorder::new();
    let hooks = PublishedHooks::new();
    assert!(hooks.get().is_none());
    hooks.publish(2, view(vec![log.observer("new")])).unwrap();
    assert!(hooks.publish(1, view(vec![])).is_err());
    assert!(hooks.summary().has_observers(EventKind::Created));
    assert!(hooks.get().is_some());
    hooks.publish(2, view(vec![])).unwrap();
    assert!(hooks.get().is_none());
}

#[test]
fn hooks_survive_crashes_of_their_actor_and_are_never_absent_while_they_are_replaced() {
    let (env, simulation) = Env::seeded(3);
    let log = Recorder::new();
    let hooks = Arc::new(PublishedHooks::new());
    let dispatch: Ref<Dispatch> = Ref::new(&env, Dispatch::NAME, MailboxBounds { messages: MAILBOX_MAX });
    let observers = SupSpec::new("observers", Strategy::OneForOne);
    let child = ChildSpec::new("dispatch", dispatch.clone(), (hooks.clone(), observers.handle(&env), SOON));
    let spec =
        SupSpec::new("kernel", Strategy::OneForOne).restarts(5, SOON).child(child).supervisor(observers);
    simulation.block_on(async {
        let tree = Tree::start(&env, spec).await.unwrap();
        let pattern = |name: &str| resolver(name, "/a", "/b");
        let mut id = dispatch.call(Register(pattern("v1")), SOON).await.unwrap().unwrap();
        for how in [Kill::Panic, Kill::Panic, Kill::Brutal] {
            tree.kill("kernel/dispatch", how);
            assert!(hooks.summary().has_resolvers());
            let new = vec![pattern("next"), log.observer("o")];
            let replaced = dispatch.call(ReplaceHooks { old: vec![id], new }, SOON).await.unwrap().unwrap();
            assert!(replaced[0] > id);
            id = replaced[0];
        }
        assert_eq!(dispatch.generation(), 4);
        let listed = dispatch.call(ListHooks, SOON).await.unwrap();
        assert_eq!(listed.len(), 4, "one resolver, replaced, and an observer of each round");
        for hook in listed {
            dispatch.call(Unregister(hook.id), SOON).await.unwrap().unwrap();
        }
        assert!(hooks.get().is_none());
        assert_eq!(dispatch.call(Unregister(id), SOON).await.unwrap(), Err(HookError::Unknown { id }));
        tree.stop().await;
    });
}
