//! `/__sys__/`, through the front door: what it shows, to whom, and what it refuses.

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration};
use nexus::gate::{Decision, Permission};
use nexus::sys::ActorEntry;
use nexus::{
    ActorState, ByteRange, Caller, Config, EntryType, Errno, Error, Event, EventMask, Grep, HookContext,
    MountSpec, MountStatus, Precondition, Right, SysRead, SysReaddir, SysWrite, TreeStatus, VPath, Verdict,
    blocking,
};
use parking_lot::Mutex;
use serde_json::Value;

fn boot() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn json(nx: &blocking::Nexus, at: &str) -> Value {
    let read = nx.read(at).expect("it can be read");
    serde_json::from_slice(&read).expect("it is JSON")
}

fn actor(nx: &blocking::Nexus, at: &str) -> ActorEntry {
    let read = nx.read(format!("/__sys__/actors/{at}")).expect("it can be read");
    serde_json::from_slice(&read).expect("it describes an actor")
}

fn names(nx: &blocking::Nexus, at: &str) -> Vec<String> {
    let listed = nx.readdir(at).expect("it can be listed");
    listed.iter().map(|entry| entry.name().to_owned()).collect()
}

/// All files below `/__sys__/`.
fn files(nx: &blocking::Nexus) -> Vec<VPath> {
    let all = nx.send(SysReaddir::at(path("/__sys__")).recursive()).expect("it can be listed");
    let files = all.entries.into_iter().filter(|entry| entry.entry_type == EntryType::Reg);
    files.map(|entry| entry.path).collect()
}

/// The call was refused with this errno, and says where.
fn refused<T: std::fmt::Debug>(done: Result<T, Error>, errno: Errno, at: &str) {
    let error = done.expect_err("it is refused");
    assert_eq!(error.errno(), errno, "{error}");
    assert_eq!(error.path(), Some(at), "{error}");
    assert!(error.to_string().contains(&format!(" {at}: ")), "{error}");
}

#[test]
fn it_is_reached_by_name_and_listed_nowhere() {
    let nx = boot();
    nx.write("/a/f", "version").expect("it writes");
    assert_eq!(names(&nx, "/"), ["a"]);
    let walked: Vec<_> = nx.walk("/").map(|entry| entry.expect("it walks").path).collect();
    assert_eq!(walked, ["/a", "/a/f"]);
    assert_eq!(nx.glob("/**").expect("it globs"), ["/a", "/a/f"]);
    assert_eq!(nx.grep(Grep::new("version")).expect("it greps").matches.len(), 1);

    for zone in ["root", "other"] {
        let nx = nx.zone(zone).expect("it is the administrator's");
        let top = nx.stat("/__sys__").expect("it is there");
        assert_eq!((top.entry_type, top.zone.as_str(), &*top.owner), (EntryType::Dir, zone, "nexus"));
        assert!(names(&nx, "/__sys__").contains(&"actors".into()));
        assert!(!nx.read("/__sys__/version").expect("it can be read").is_empty());
    }
    // What is asked for by name is searched and walked as any other folder.
    assert!(nx.walk("/__sys__").count() > 10);
    assert_eq!(nx.glob("/__sys__/ver*").expect("it globs"), ["/__sys__/version"]);
    let found = nx.grep(Grep::new("\"id\": \"router\"").path("/__sys__/actors/nexus/kernel"));
    assert_eq!(found.expect("it greps").matches.len(), 1);
}

#[test]
fn each_file_is_indented_json_of_the_size_that_is_told() {
    let nx = boot();
    nx.mount("/m", MountSpec::new("memory")).expect("it mounts");
    nx.register_hook(Registration::observer("o", Arc::new(Hears::default())).inline())
        .expect("there is room");
    let files = files(&nx);
    assert!(files.len() > 15, "{files:?}");
    for file in files {
        let read = nx.send(SysRead::at(&file)).expect("it can be read");
        assert_eq!((read.metadata.size, &read.metadata.path), (read.data.len() as u64, &file));
        assert!(read.data.ends_with(b"\n"), "{file}");
        if read.metadata.mime() == "application/json" {
            serde_json::from_slice::<Value>(&read.data).expect("it is JSON");
            assert!(read.data.starts_with(b"{\n  \"") || read.data.starts_with(b"["), "{file}");
        }
        // Nothing is below a file.
        refused(nx.read(format!("{file}/x")), Errno::ENOTDIR, &format!("{file}/x"));
    }
}

#[test]
fn listings_come_in_pages_with_metadata() {
    let nx = boot();
    let top = SysReaddir::at(path("/__sys__")).recursive().with_metadata();
    let whole = nx.send(top.clone()).expect("it can be listed").entries;
    assert!(whole.iter().all(|entry| entry.metadata.as_ref().is_some_and(|it| it.path == entry.path)));
    for limit in [1, 2, 7] {
        let mut paged = Vec::new();
        let mut call = SysReaddir::at(path("/__sys__")).recursive();
        call.limit = NonZeroU32::new(limit);
        loop {
            let page = nx.send(call.clone()).expect("it can be listed");
            paged.extend(page.entries.into_iter().map(|entry| entry.path));
            let Some(next) = page.next else { break };
            call = call.after(next);
        }
        let expected: Vec<_> = whole.iter().map(|entry| entry.path.clone()).collect();
        assert_eq!(paged, expected, "in pages of {limit}");
    }
}

#[test]
fn a_part_of_a_file_can_be_read() {
    let nx = boot();
    let whole = nx.read("/__sys__/version").expect("it can be read");
    assert_eq!(nx.read_range("/__sys__/version", 2, 5).expect("it can be read"), whole[2..7]);
    assert_eq!(nx.read_range("/__sys__/version", 1_000_000, 5).expect("it can be read"), "");
    let two =
        SysRead::at(path("/__sys__/version")).vectored(vec![ByteRange::new(0, 1), ByteRange::new(3, 2)]);
    let read = nx.send(two).expect("it can be read");
    assert_eq!((&read.data[..], &read.more[0][..]), (&whole[..1], &whole[3..5]));
}

#[test]
fn the_tree_is_shown_as_it_is() {
    fn check(nx: &blocking::Nexus, status: &ActorEntry, entry: &ActorEntry, above: &str) {
        let at = format!("{above}{}", status.id);
        assert_eq!((&*entry.path, &entry.id, &entry.kind), (&*at, &status.id, &status.kind));
        assert_eq!((entry.state, entry.bound), (status.state, status.bound));
        assert_eq!(entry.children.len(), status.children.len());
        let dir = format!("/__sys__/actors/{at}");
        let file = match &*status.kind {
            "supervisor" => {
                let mut expected: Vec<_> = status.children.iter().map(|child| child.id.to_string()).collect();
                expected.push(".self".into());
                expected.sort();
                assert_eq!(names(nx, &dir), expected);
                format!("{at}/.self")
            }
            _ => at.clone(),
        };
        assert_eq!(actor(nx, &file).path, at);
        for (status, entry) in status.children.iter().zip(&entry.children) {
            check(nx, status, entry, &format!("{at}/"));
        }
    }
    let nx = boot();
    nx.mount("/m", MountSpec::new("memory")).expect("it mounts");
    let all = actor(&nx, ".all");
    check(&nx, &nx.tree().expect("it is here"), &all, "");
    for missing in ["nexus/nothing", "nexus/kernel/router/.self", "other", "nexus/.all"] {
        let at = format!("/__sys__/actors/{missing}");
        assert!(
            matches!(nx.read(&at).expect_err("there is none").errno(), Errno::ENOENT | Errno::ENOTDIR),
            "{at}"
        );
    }
}

#[test]
fn a_written_word_hurts_an_actor_and_its_file_tells_of_it() {
    let nx = boot();
    let router = "nexus/kernel/router";
    for (word, kind) in [("panic\n", "panic"), ("error", "error"), (" brutal ", "killed")] {
        let before = actor(&nx, router);
        nx.write(format!("/__sys__/actors/{router}"), word).expect("it is told");
        let after = loop {
            let now = actor(&nx, router);
            if now.generation > before.generation && now.state == ActorState::Running {
                break now;
            }
            std::thread::yield_now();
        };
        assert_eq!((after.generation, after.restarts), (before.generation + 1, before.restarts + 1));
        let exit = after.last_exit.expect("it has ended once");
        assert_eq!(&*exit.kind, kind, "{exit:?}");
        if kind == "panic" {
            let place = exit.place.expect("a panic has a place");
            assert!(place.contains(".rs:") && exit.told.contains(&*place), "{} {place}", exit.told);
        }
    }
    // A supervisor by its own file; its children come back with it.
    let before = actor(&nx, "nexus/kernel/.self");
    nx.append("/__sys__/actors/nexus/kernel/.self", "error\n").expect("it is told");
    while actor(&nx, "nexus/kernel/.self").generation == before.generation
        || actor(&nx, router).state != ActorState::Running
    {
        std::thread::yield_now();
    }
    nx.mount("/m", MountSpec::new("memory")).expect("the router serves");
    assert_eq!(nx.kernel().expect("it is the administrator's").mount_statuses().len(), 2);
}

#[test]
fn what_is_not_taken_hurts_nobody() {
    let nx = boot();
    let at = "/__sys__/actors/nexus/kernel/router";
    for word in ["", "panics", "panic error", "before", "PANIC", "\u{fffd}"] {
        refused(nx.write(at, word), Errno::EINVAL, at);
    }
    nx.write(at, "panic before").expect("it is told");
    assert_eq!(actor(&nx, "nexus/kernel/router").armed.as_deref(), Some("panic before"));
    refused(nx.write(at, "error after"), Errno::EBUSY, at);
    refused(nx.send(SysWrite::at(path(at), "panic").offset(3)), Errno::EINVAL, at);
    refused(nx.edit(at, "router", "panic"), Errno::EINVAL, at);
    let conditional = SysWrite::at(path(at), "panic").when(Precondition::Version(0));
    refused(nx.send(conditional), Errno::EOPNOTSUPP, at);
    refused(nx.send(SysWrite::at(path(at), "panic").create_exclusive()), Errno::EEXIST, at);
    refused(nx.write("/__sys__/actors/nexus/kernel", "panic"), Errno::EISDIR, "/__sys__/actors/nexus/kernel");
    refused(nx.write("/__sys__/actors/.all", "panic"), Errno::EROFS, "/__sys__/actors/.all");
    assert_eq!(actor(&nx, "nexus/kernel/router").generation, 1);
}

#[test]
fn nothing_is_made_moved_or_covered_there() {
    let nx = boot();
    nx.write("/f", "x").expect("it writes");
    nx.mkdir("/d/below").expect("it is made");
    nx.link("/in", "/__sys__").expect("links may lead anywhere");
    let top = "/__sys__";
    let version = "/__sys__/version";
    let new = "/__sys__/new";

    refused(nx.write(top, "x"), Errno::EISDIR, top);
    refused(nx.write(version, "x"), Errno::EROFS, version);
    refused(nx.write(new, "x"), Errno::EROFS, new);
    refused(nx.write("/in/new", "x"), Errno::EROFS, new);
    refused(nx.write("/__sys__/actors/new", "x"), Errno::EROFS, "/__sys__/actors/new");
    refused(nx.send(SysWrite::at(path(new), "x")), Errno::ENOENT, new);
    refused(nx.append(new, "x"), Errno::EROFS, new);
    refused(nx.mkdir(new), Errno::EROFS, new);
    refused(nx.mkdir_new(top), Errno::EEXIST, top);
    refused(nx.link(new, "/f"), Errno::EROFS, new);
    refused(nx.link(top, "/f"), Errno::EROFS, top);
    refused(nx.unlink(version), Errno::EROFS, version);
    refused(nx.unlink(new), Errno::ENOENT, new);
    refused(nx.rmdir("/__sys__/hooks"), Errno::EROFS, "/__sys__/hooks");
    refused(nx.rmdir(top), Errno::EBUSY, top);
    refused(nx.remove_all(top), Errno::EBUSY, top);
    refused(nx.unmount(top), Errno::EINVAL, top);
    refused(nx.rename("/f", new), Errno::EXDEV, "/f");
    refused(nx.rename("/d", top), Errno::EBUSY, top);
    refused(nx.rename(version, "/v"), Errno::EXDEV, version);
    refused(nx.rename(version, new), Errno::EROFS, version);
    refused(nx.copy("/f", new), Errno::EROFS, new);
    refused(nx.copy("/f", version), Errno::EROFS, version);
    for point in [top, new, "/__sys__/hooks"] {
        refused(nx.mount(point, MountSpec::new("memory")), Errno::EBUSY, point);
    }
    refused(nx.mount("/in/hooks", MountSpec::new("memory")), Errno::EBUSY, "/__sys__/hooks");

    // What is there already is no error, as with `mkdir -p`.
    assert!(!nx.mkdir("/__sys__/hooks").expect("it is there").created);
    assert_eq!(nx.read("/f").expect("it is unchanged"), "x");
    assert_eq!(names(&nx, "/"), ["d", "f", "in"]);
}

#[test]
fn links_lead_into_it_and_copies_out_of_it() {
    let nx = boot();
    nx.link("/now/kernel", "../__sys__/actors/nexus/kernel").expect("it is made");
    let read = nx.send(SysRead::at(path("/now/kernel/router"))).expect("it can be read");
    assert_eq!(read.metadata.path, "/__sys__/actors/nexus/kernel/router");
    nx.copy("/__sys__/version", "/kept/version").expect("it is copied");
    assert_eq!(
        nx.read("/kept/version").expect("it is there"),
        nx.read("/__sys__/version").expect("it is there")
    );
}

#[test]
fn an_agent_reads_the_version_and_nothing_else() {
    let nx = boot();
    let agent = nx.agent("coder-7").expect("it is a name");
    agent.read("/__sys__/version").expect("everybody may");
    assert!(agent.is_directory("/__sys__").expect("everybody may"));
    assert_eq!(names(&agent, "/__sys__"), ["version"]);
    assert_eq!(agent.walk("/__sys__").count(), 1);
    for file in files(&nx).into_iter().filter(|file| *file != "/__sys__/version") {
        refused(agent.read(&file), Errno::EACCES, file.as_str());
        refused(agent.stat(&file), Errno::EACCES, file.as_str());
        refused(agent.write(&file, "panic"), Errno::EACCES, file.as_str());
        assert!(!agent.access(&file, Right::Read).expect("it can be asked"));
        assert!(nx.access(&file, Right::Read).expect("it can be asked"));
    }
    refused(agent.readdir("/__sys__/actors"), Errno::EACCES, "/__sys__/actors");
    // Whether something is there is not told either.
    refused(agent.stat("/__sys__/nothing"), Errno::EACCES, "/__sys__/nothing");
    refused(agent.copy("/__sys__/actors/.all", "/mine"), Errno::EACCES, "/__sys__/actors/.all");
    agent.link("/mine", "/__sys__/actors/.all").expect("links may lead anywhere");
    refused(agent.read("/mine"), Errno::EACCES, "/__sys__/actors/.all");
    assert!(nx.access("/__sys__/actors/nexus/kernel/router", Right::Write).expect("it can be asked"));
    assert!(!nx.access("/__sys__/version", Right::Write).expect("it can be asked"));
}

/// Remembers what it is told of.
#[derive(Default)]
struct Hears(Mutex<Vec<String>>);

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, event: &Event) {
        self.0.lock().push(format!("{:?} {}", event.kind, event.path));
    }
}

/// Refuses whatever it is shown.
struct Refuses;

impl Interceptor for Refuses {
    fn ops(&self) -> OpSet {
        OpSet::ALL
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        std::future::ready(Verdict::refuse("not now")).boxed()
    }
}

/// Lets nobody do anything.
struct Nobody;

impl Permission for Nobody {
    fn check(&self, _: &Caller, _: Right, _: &VPath) -> Decision {
        Decision::Deny("nobody".into())
    }
}

#[test]
fn hooks_and_the_gate_stand_before_it_as_before_other_paths() {
    let nx = boot();
    let router = "/__sys__/actors/nexus/kernel/router";
    let hook = Registration::interceptor("refuses", Arc::new(Refuses)).below(path("/__sys__/actors"));
    let id = nx.register_hook(hook).expect("there is room");
    refused(nx.read(router), Errno::EACCES, router);
    refused(nx.write(router, "panic"), Errno::EACCES, router);
    let shown = json(&nx, &format!("/__sys__/hooks/{}", id.0));
    assert_eq!((&shown["name"], &shown["at"]), (&"refuses".into(), &"/__sys__/actors".into()));
    nx.unregister_hook(id).expect("it is there");
    refused(nx.read(format!("/__sys__/hooks/{}", id.0)), Errno::ENOENT, &format!("/__sys__/hooks/{}", id.0));

    nx.set_permission(Some(Arc::new(Nobody))).expect("it is the administrator's");
    let agent = nx.agent("coder-7").expect("it is a name");
    refused(agent.read("/__sys__/version"), Errno::EACCES, "/__sys__/version");
    // The kernel owns what it shows, and the administrator's handle has its name.
    nx.read(router).expect("the owner may");
    assert_eq!(actor(&nx, "nexus/kernel/router").generation, 1);
}

#[test]
fn observers_hear_only_of_what_is_committed() {
    let nx = boot();
    let hears = Arc::new(Hears::default());
    nx.register_hook(Registration::observer("hears", hears.clone()).inline()).expect("there is room");
    nx.write("/__sys__/actors/nexus/kernel/locks", "error").expect("it is told");
    nx.copy("/__sys__/version", "/v").expect("it is copied");
    assert_eq!(*hears.0.lock(), ["FileCopied /v"]);
}

#[test]
fn mounts_are_shown_where_they_are() {
    let nx = boot();
    nx.mount("/home/me", MountSpec::new("memory")).expect("it mounts");
    nx.zone("other")
        .expect("it is the administrator's")
        .mount("/", MountSpec::new("memory"))
        .expect("it mounts");
    let shown: Vec<_> =
        files(&nx).into_iter().filter(|file| file.is_within(&path("/__sys__/mounts"))).collect();
    let expected = [".all", "other/.self", "root/.self", "root/home/me/.self"];
    assert_eq!(shown, expected.map(|name| path(&format!("/__sys__/mounts/{name}"))));
    let read = nx.read("/__sys__/mounts/root/home/me/.self").expect("it is there");
    let mount: MountStatus = serde_json::from_slice(&read).expect("it describes a mount");
    assert_eq!(
        mount,
        nx.mounts()
            .expect("it is here")
            .into_iter()
            .find(|mount| mount.point == "/home/me")
            .expect("it is there")
    );
    let read = nx.read("/__sys__/mounts/.all").expect("it is there");
    assert_eq!(
        serde_json::from_slice::<Vec<MountStatus>>(&read).expect("it describes mounts"),
        nx.mounts().expect("it is here")
    );
    refused(nx.stat("/__sys__/mounts/root/hom"), Errno::ENOENT, "/__sys__/mounts/root/hom");
}

/// How many messages each actor has begun.
fn served(tree: &TreeStatus, above: &str, counts: &mut BTreeMap<String, (u64, usize)>) {
    let at = format!("{above}{}", tree.id);
    for child in &tree.children {
        served(child, &format!("{at}/"), counts);
    }
    counts.insert(at, (tree.actor.served, tree.actor.queued));
}

#[test]
fn it_is_read_while_every_actor_is_held_and_sends_no_mail() {
    let folder = tempfile::tempdir().expect("there is room");
    nexus_actors::block_on(async {
        let running = common::boot(folder.path()).await;
        let (kernel, admin, tree) = (&running.kernel, &running.admin, &running.tree);
        let mut before = BTreeMap::new();
        served(&tree.snapshot(), "", &mut before);
        let actors: Vec<_> = before.keys().filter_map(|at| tree.child(at)).collect();
        assert_eq!(actors.len(), before.len());
        for actor in &actors {
            actor.suspend();
        }
        while actors.iter().any(|actor| actor.status().state != ActorState::Suspended) {
            std::thread::yield_now();
        }
        let all = kernel.send(admin, SysReaddir::at(path("/__sys__")).recursive().with_metadata()).await;
        let all = all.expect("it can be listed").entries;
        let files: Vec<_> = all.iter().filter(|entry| entry.entry_type == EntryType::Reg).collect();
        assert!(files.len() > 15);
        for file in files {
            kernel.send(admin, SysRead::at(&file.path)).await.expect("it can be read");
        }
        let mut after = BTreeMap::new();
        served(&tree.snapshot(), "", &mut after);
        assert_eq!(before, after, "a message was sent");
        for actor in &actors {
            actor.resume();
        }
        running.stop().await;
    });
}
