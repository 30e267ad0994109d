//! Hooks of services: inline and mailed, crashed, late, and swapped under the calls that meet them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use nexus::actors::{Behaviour, Latch, LocalBoxFuture, Start};
use nexus::dispatch::OpSet;
use nexus::service::{Declaration, Service, ServiceHook, Setup};
use nexus::{Bytes, Config, Env, ErrorKind, Executed, ExitReason, MountSpec, Nexus, SwapOptions, Verdict};
use nexus_drivers::faults::{Fault, Faults, FaultyFactory, Where};
use nexus_kernel::locks::{LockOwner, Mode, Scope};

use crate::counter::SOON;
use crate::policy::{Answer, BRIEF, Mailed, MailedConfig, Policy, Rule, Seen, view};

async fn booted() -> Nexus {
    let config = Config::in_memory().restarts(1_000, Duration::from_secs(1));
    nexus::connect(config).await.expect("it boots")
}

/// Agents that write what is allowed and try what is not, until they are told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    fn on(nx: &Nexus, agents: usize) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..agents).map(|number| {
            let (stop, calls) = (stop.clone(), calls.clone());
            let agent = nx.agent(format!("writer-{number}")).expect("a name");
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    agent.write(format!("/allowed/{number}"), "x").await.expect("what is allowed passes");
                    let refused = agent.write(format!("/forbidden/{number}"), "x").await;
                    let refused = refused.expect_err("what is forbidden does not");
                    assert_eq!(
                        (refused.kind(), refused.executed()),
                        (ErrorKind::Refused, Executed::No),
                        "{refused}"
                    );
                    calls.fetch_add(2, Ordering::Relaxed);
                }
            })
        });
        Self { tasks: tasks.collect(), stop, calls }
    }

    async fn more(&self, calls: u64) {
        let goal = self.calls.load(Ordering::Relaxed) + calls;
        while self.calls.load(Ordering::Relaxed) < goal {
            assert!(
                !self.tasks.iter().any(tokio::task::JoinHandle::is_finished),
                "a writer found a claim broken"
            );
            tokio::task::yield_now().await;
        }
    }

    async fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await.expect("no claim is broken");
        }
        self.calls.load(Ordering::Relaxed)
    }
}

/// A test that fails does not wait for them: they never do, and so hold up the end of its runtime.
impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn an_inline_hook_decides_over_the_view_and_its_service_passes_it_by() {
    let nx = booted().await;
    nx.register::<Policy>("policy", Rule::Forbid).await.unwrap();
    assert_eq!(nx.read("/forbidden/own").await.unwrap(), "mine", "the service's own call");
    let refused = nx.write("/forbidden/a", "x").await.unwrap_err();
    assert!(refused.to_string().contains("decide: it is forbidden"), "{refused}");
    nx.write("/a", "x").await.unwrap();
    nx.unlink("/missing").await.unwrap_err();
    assert_eq!(*view(&nx).await, (2, 2, 1), "told of what passed it, and what came of that");
    assert_eq!(nx.hooks().await.unwrap().iter().map(|hook| &*hook.name).collect::<Vec<_>>(), ["decide"]);
    nx.unregister("policy").await.unwrap();
    nx.write("/forbidden/a", "x").await.unwrap();
    assert!(nx.hooks().await.unwrap().is_empty());
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_call_that_ends_a_service_does_not_wait_for_itself_to_leave_its_hooks() {
    let nx = booted().await;
    nx.register::<Policy>("policy", Rule::Forbid).await.unwrap();
    let (now, env) = (nx.env().now(), nx.env().clone());
    let path = nexus::VPath::parse("/__sys__/services/policy").unwrap();
    let factory = nx.services().unwrap()[0].factory.clone();
    nx.send(nexus::SysSetattr::service(path, factory, "\"AllowAll\"")).await.unwrap();
    nx.write("/forbidden/a", "x").await.unwrap();
    nx.unregister("policy").await.unwrap();
    // A swap waits ten seconds for calls that do not leave.
    assert!(env.now() - now < Duration::from_secs(8), "{:?}", env.now() - now);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_hook_hears_of_a_call_whose_caller_went_away() {
    let nx = booted().await;
    nx.register::<Policy>("policy", Rule::Forbid).await.unwrap();
    let owner = LockOwner { agent: "test".into(), since: nexus::Timestamp(0) };
    let path = nexus::VPath::parse("/a").unwrap();
    let _held = nx.kernel().unwrap().path_locks().lock(&path, Mode::Write, Scope::Entry, owner).await;
    {
        let mut waiting = Box::pin(nx.write("/a", "x"));
        while view(&nx).await.0 == 0 {
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
    }
    assert_eq!(*view(&nx).await, (1, 1, 1), "what it set aside for the call is free again");
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_outlives_the_service() {
    let nx = booted().await;
    nx.register::<Policy>("policy", Rule::Forbid).await.unwrap();
    let writers = Writers::on(&nx, 4);
    for round in 0..60 {
        writers.more(2).await;
        let how = [nexus::Kill::Panic, nexus::Kill::Error, nexus::Kill::Brutal][round % 3];
        assert!(nx.kill("nexus/services/policy@1", how).await.unwrap());
        assert!(nx.kill("nexus/kernel/dispatch", how).await.unwrap());
    }
    writers.end().await;
    while nx.services().unwrap()[0].actor.as_ref().unwrap().restarts == 0 {
        tokio::task::yield_now().await;
    }
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_panic_of_an_inline_hook_refuses_the_call_and_is_its_services_own() {
    let nx = booted().await;
    nx.register::<Policy>("policy", Rule::Panics).await.unwrap();
    let refused = nx.write("/a", "x").await.unwrap_err();
    assert_eq!((refused.kind(), refused.executed()), (ErrorKind::Refused, Executed::No));
    assert!(refused.to_string().contains("the hook decide panicked: the policy is broken"), "{refused}");
    loop {
        let actor = nx.services().unwrap().remove(0).actor.unwrap();
        if actor.restarts == 1 {
            let exit = actor.last_exit.unwrap().to_string();
            assert!(exit.contains("the policy is broken at tests/services/policy.rs"), "{exit}");
            break;
        }
        tokio::task::yield_now().await;
    }
    let blank = nx.swap::<Policy>("policy", Rule::Blank).await.unwrap_err();
    assert!(blank.to_string().contains("published nothing"), "{blank}");
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_policy_is_swapped_back_under_load_and_no_call_fails_or_slips_through() {
    let nx = booted().await;
    nx.register::<Policy>("policy", Rule::Forbid).await.unwrap();
    let writers = Writers::on(&nx, 4);
    for round in 1..=20 {
        writers.more(4).await;
        while let Err(error) = nx.swap::<Policy>("policy", Rule::Panics).await {
            if error.kind() == ErrorKind::Crashed {
                // It broke before its swap had come to its end, which is said.
                break;
            }
            // The swap back of the round before is being tidied up.
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            tokio::task::yield_now().await;
        }
        loop {
            let status = nx.services().unwrap().remove(0);
            if status.swap_backs == round
                && status.serving.as_ref().is_some_and(|version| version.number == 1)
            {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    writers.end().await;
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailed_hook_decides_rewrites_and_hears() {
    let nx = booted().await;
    let config = |answer| MailedConfig { open: false, answer, on_demand: false };
    let mailed = nx.register::<Mailed>("mailed", config(Answer::Yes)).await.unwrap();
    nx.write("/a", "x").await.unwrap();
    assert_eq!(mailed.call(Seen, SOON).await.unwrap(), (1, 1));
    nx.swap::<Mailed>("mailed", config(Answer::No)).await.unwrap();
    let refused = nx.write("/a", "x").await.unwrap_err();
    assert!(refused.to_string().contains("the service says no"), "{refused}");
    nx.swap::<Mailed>("mailed", config(Answer::Elsewhere)).await.unwrap();
    nx.write("/b", "x").await.unwrap();
    assert!(nx.exists("/elsewhere").await.unwrap() && !nx.exists("/b").await.unwrap());
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_mailed_hook_that_is_late_or_down_fails_open_or_closed() {
    for (open, answer, kind) in [
        (false, Answer::Never, Some(ErrorKind::TimedOut)),
        (false, Answer::Panic, Some(ErrorKind::Down)),
        (true, Answer::Never, None),
        (true, Answer::Panic, None),
    ] {
        let nx = booted().await;
        nx.register::<Mailed>("mailed", MailedConfig { open, answer, on_demand: false }).await.unwrap();
        match (nx.write("/a", "x").await, kind) {
            (Ok(_), None) => assert_eq!(nx.services().unwrap()[0].missed, 1),
            (Err(error), Some(kind)) => {
                assert_eq!((error.kind(), error.executed()), (kind, Executed::No), "{error}");
                assert!(!nx.exists("/a").await.unwrap());
            }
            (got, _) => panic!("open {open}, {answer:?}: {got:?}"),
        }
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_a_mailed_hook_wait_for_an_exclusive_swap_and_none_fails() {
    let nx = booted().await;
    let config = MailedConfig { open: false, answer: Answer::Yes, on_demand: false };
    let mailed = nx.register::<Mailed>("mailed", config).await.unwrap();
    let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let (nx, stop, writes) = (nx.clone(), stop.clone(), writes.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    nx.write(format!("/{number}"), "x").await.expect("no call fails");
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..20 {
        let goal = writes.load(Ordering::Relaxed) + 8;
        while writes.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
        let config = MailedConfig { open: round % 2 == 0, ..config };
        let options = SwapOptions::new().probation(Duration::ZERO);
        nx.swap_with::<Mailed>("mailed", config, options).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(mailed.call(Seen, SOON).await.is_ok());
    nx.shutdown().await.unwrap();
}

/// What came of a call that met the hook of a service, while another call hung within its gate and a swap waited for that.
struct Held {
    took: Duration,
    call: nexus::Result<()>,
    missed: u64,
    /// The version that served when the call had ended.
    serving: u64,
    hung: nexus::Result<()>,
    swapped: nexus::Result<()>,
}

/// In a simulation: its time is virtual, and it is told exactly how long something took.
fn held_up(open: bool) -> Held {
    let faults = Faults::new();
    let memory = nexus_drivers::catalogue().get("memory").expect("built in");
    let faulty = Arc::new(FaultyFactory::new("faulty", memory, faults.clone()));
    let (env, simulation) = Env::seeded(1);
    let world = env.clone();
    simulation.block_on(async move {
        let nx =
            nexus::connect(Config::in_memory().env(world.clone()).driver(faulty)).await.expect("it boots");
        let bad = MountSpec::new("faulty").option("deadline_ms", "60000");
        nx.mount("/bad", bad).await.expect("it mounts");
        let config = MailedConfig { open, answer: Answer::Briefly, on_demand: false };
        let mailed = nx.register::<Mailed>("mailed", config).await.expect("it starts");

        faults.once(Where::Change, Fault::Hang);
        let (hung, writer) = (Arc::new(Latch::new()), nx.clone());
        let hangs = hung.clone();
        world.spawn("test.hangs", async move {
            hangs.set(writer.write("/bad/f", vec![1; 64 * 1024]).await.map(drop));
        });
        while faults.hits(Where::Change, Fault::Hang) == 0 {
            world.sleep(Duration::from_millis(1)).await;
        }
        let (swapped, swapper) = (Arc::new(Latch::new()), nx.clone());
        let swaps = swapped.clone();
        world.spawn("test.swaps", async move {
            let options = SwapOptions::new().limit(Duration::from_secs(600));
            swaps.set(swapper.swap_with::<Mailed>("mailed", config, options).await.map(drop));
        });
        while mailed.with(|()| ()).is_err_and(|error| error.kind() != ErrorKind::Busy) {
            world.sleep(Duration::from_millis(1)).await;
        }

        let began = world.now();
        let call = nx.write("/a", "x").await.map(drop);
        let took = world.now() - began;
        let status = nx.services().expect("it is the administrator's handle").remove(0);
        let (missed, serving) = (status.missed, status.serving.expect("one does").number);
        let (hung, swapped) = (hung.wait().await, swapped.wait().await);
        nx.write("/a", "x").await.expect("its hook answers again");
        nx.shutdown().await.expect("it stops");
        Held { took, call, missed, serving, hung, swapped }
    })
}

#[test]
fn a_call_that_hangs_in_a_driver_under_an_exclusive_swap_holds_up_other_calls_no_longer_than_the_hook_may() {
    for open in [true, false] {
        let held = held_up(open);
        assert!(held.took <= BRIEF + Duration::from_millis(20), "open {open}: {:?}", held.took);
        match held.call {
            // It was asked, and was to be told.
            Ok(()) if open => assert_eq!(held.missed, 2),
            Err(error) if !open => {
                assert_eq!((error.kind(), held.missed), (ErrorKind::TimedOut, 0), "{error}");
            }
            other => panic!("open {open}: {other:?}"),
        }
        assert_eq!(held.serving, 1, "the swap was still waiting");
        assert_eq!(held.hung.expect_err("its driver is late").kind(), ErrorKind::TimedOut);
        held.swapped.expect("when the one that hung had left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_takes_its_time_holds_up_no_exclusive_swap() {
    let nx = booted().await;
    let config = |open| MailedConfig { open, answer: Answer::Yes, on_demand: false };
    let mailed = nx.register::<Mailed>("mailed", config(false)).await.unwrap();
    let swapper = nx.clone();
    let data = stream::iter(0..3).then(move |piece| {
        let nx = swapper.clone();
        async move {
            if piece == 1 {
                let options = SwapOptions::new().probation(Duration::ZERO);
                nx.swap_with::<Mailed>("mailed", config(true), options).await?;
            }
            Ok(Bytes::from_static(b"x"))
        }
    });
    Box::pin(nx.write_stream("/f", data)).await.unwrap();
    assert_eq!(nx.read("/f").await.unwrap(), "xxx");
    assert_eq!(
        mailed.call(Seen, SOON).await.unwrap(),
        (1, 1),
        "by the version that serves when all has come"
    );
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_sends_a_stream_elsewhere_and_gives_it_no_bytes() {
    let nx = booted().await;
    let config = |answer| MailedConfig { open: false, answer, on_demand: false };
    nx.register::<Mailed>("mailed", config(Answer::Elsewhere)).await.unwrap();
    let data = || stream::iter(["one ", "two"].map(|piece| Ok(Bytes::from(piece))));
    let written = nx.write_stream("/b", data()).await.unwrap();
    assert_eq!(written.metadata.path.as_str(), "/elsewhere");
    assert!(nx.read("/elsewhere").await.unwrap() == "one two" && !nx.exists("/b").await.unwrap());
    nx.swap::<Mailed>("mailed", config(Answer::Bytes)).await.unwrap();
    let refused = nx.write_stream("/c", data()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert!(refused.to_string().contains("gave bytes to a write"), "{refused}");
    assert!(!nx.exists("/c").await.unwrap());
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn each_hook_is_read_where_it_is_listed() {
    let nx = booted().await;
    nx.register::<Policy>("policy", Rule::Forbid).await.unwrap();
    nx.register::<Three>("three", ()).await.unwrap();
    let all: Vec<serde_json::Value> =
        serde_json::from_slice(&nx.read("/__sys__/hooks/.all").await.unwrap()).unwrap();
    let mut read = Vec::new();
    for entry in nx.readdir("/__sys__/hooks").await.unwrap() {
        let name = entry.name().to_string();
        let text = nx.read(format!("/__sys__/hooks/{name}")).await.unwrap();
        if name != ".all" {
            read.push(serde_json::from_slice::<serde_json::Value>(&text).unwrap());
        }
    }
    let order = |hook: &serde_json::Value| hook["name"].as_str().map(str::to_owned);
    read.sort_by_key(order);
    let mut all = all;
    all.sort_by_key(order);
    assert_eq!(
        all.iter().filter_map(|hook| hook["name"].as_str()).collect::<Vec<_>>(),
        ["a", "b", "c", "decide"]
    );
    assert_eq!(read, all);
    nx.shutdown().await.unwrap();
}

/// A service with three hooks that do nothing.
struct Three;

impl Behaviour for Three {
    type Args = Setup<Self>;
    const NAME: &'static str = "three";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            setup.publish(start.generation(), ()).map_err(ExitReason::error)?;
            Ok(Self)
        })
    }
}

impl Service for Three {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = ();

    fn declare((): &()) -> Declaration<Self> {
        let hook = |name| ServiceHook::before(name, OpSet::MUTATIONS, |_, _| Verdict::Continue);
        Declaration::new().hook(hook("a")).hook(hook("b")).hook(hook("c"))
    }
}

#[tokio::test]
async fn the_hook_of_a_service_on_demand_is_a_use_that_starts_it() {
    for open in [false, true] {
        let nx = booted().await;
        let config = MailedConfig { open, answer: Answer::No, on_demand: true };
        nx.register::<Mailed>("mailed", config).await.unwrap();
        assert_eq!(nx.services().unwrap()[0].state, nexus::ServiceState::Dormant);
        let refused = nx.write("/a", "x").await.unwrap_err();
        assert!(refused.to_string().contains("the service says no"), "{refused}");
        let status = nx.services().unwrap().remove(0);
        assert_eq!((status.state, status.missed), (nexus::ServiceState::Serving, 0));
        nx.shutdown().await.unwrap();
    }
}
