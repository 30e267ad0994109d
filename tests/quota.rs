//! Quotas as their users rely on them: never exceeded, never drifting, whatever writes at once or is swapped.

#![expect(clippy::disallowed_methods, reason = "users spawn their own tasks")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexus::actors::{Handle, Message};
use nexus::service::ServiceRef;
use nexus::services::quota::{
    Drift, GetUsage, Limits, ListUsage, Quota, QuotaConfig, Recount, SetLimits, Subject, Usage,
};
use nexus::{Config, Errno, ErrorKind, Kill, MountSpec, Nexus, SwapOptions};
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;

const SOON: Duration = Duration::from_secs(60);
const WRITERS: usize = 8;

fn below(path: &str) -> Subject {
    Subject::Below(path.parse().expect("it is a path"))
}

fn agent(name: &str) -> Subject {
    Subject::Agent(name.into())
}

fn bytes(bytes: u64) -> Limits {
    Limits { bytes: Some(bytes), ..Limits::default() }
}

fn files(files: u64) -> Limits {
    Limits { files: Some(files), ..Limits::default() }
}

/// Counts by itself only when it has to, so that what it corrects is seen.
fn config() -> QuotaConfig {
    QuotaConfig { recount_s: 0, ..QuotaConfig::default() }
}

/// Keeps what the quota service warns of.
#[derive(Clone, Default)]
struct Warned(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warned {
    fn enabled(
        &self,
        metadata: &tracing::Metadata<'_>,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().starts_with("nexus_services::quota")
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut told = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            told.push_str(&format!("{}={value:?} ", field.name()));
        });
        self.0.lock().push(told);
    }
}

#[tokio::test]
async fn a_quota_that_would_count_nothing_is_warned_of_with_its_mount() {
    let warned = Warned::default();
    let listening = tracing_subscriber::registry().with(warned.clone());
    tracing::subscriber::set_global_default(listening).expect("the only one in these tests");
    let told = |what: &str| {
        let warned = warned.0.lock();
        warned.iter().filter(|told| told.contains(what)).cloned().collect::<Vec<_>>()
    };

    let (nx, folder) = (boot().await, tempfile::tempdir().unwrap());
    let plain = MountSpec::new("path-local").option("folder", folder.path().display().to_string());
    nx.mount("/plain", plain).await.unwrap();
    let configured =
        config().limit(below("/plain/configured"), bytes(10)).limit(below("/counted"), bytes(10));
    let quota = nx.register::<Quota>("quota", configured).await.unwrap();
    assert_eq!(told("base=/plain/configured mount=/plain ").len(), 1, "{:?}", told(""));
    for subject in [below("/plain/set"), below("/counted/too"), agent("/plain/agent")] {
        ask(&quota, SetLimits { subject, limits: Some(bytes(1)) }).await.unwrap();
    }
    assert_eq!(told("base=/plain/set mount=/plain ").len(), 1, "{:?}", told(""));
    assert!(told("counted/").is_empty() && told("agent").is_empty(), "{:?}", told(""));
    nx.write("/plain/set/f", "more than a byte").await.expect("as was said, it holds nobody up");
    nx.shutdown().await.unwrap();
}

async fn boot() -> Nexus {
    nexus::connect(Config::in_memory().restarts(10_000, Duration::from_secs(1))).await.expect("it boots")
}

/// What the service answers. A kill may strike the very question, which is then asked again.
async fn ask<M: Message + Clone>(quota: &ServiceRef<Quota>, message: M) -> M::Reply
where
    Quota: Handle<M>,
{
    loop {
        match quota.call(message.clone(), SOON).await {
            Ok(reply) => return reply,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Crashed, "{error}"),
        }
    }
}

async fn used(quota: &ServiceRef<Quota>, subject: Subject) -> Usage {
    ask(quota, GetUsage(subject)).await.expect("it is limited").used
}

/// What this count and all before it corrected: nothing, when the accounts were always right.
async fn off(quota: &ServiceRef<Quota>) -> (u64, u64) {
    let Drift { bytes, files, .. } = ask(quota, Recount).await.expect("it counts");
    (bytes, files)
}

/// Writers of all kinds of changes below `/q`, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Load {
    fn on(nx: &Nexus) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..WRITERS).map(|writer| {
            let agent = nx.agent(format!("writer-{writer}")).expect("it is a name");
            let (stop, done) = (stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut refused = 0;
                let mut n = writer * 7;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    // Few names, so that the writers meet.
                    let (one, other) = (format!("/q/d{}/{}", n % 2, n % 5), format!("/q/d0/{}", (n + 2) % 7));
                    let text = "x".repeat(n * 37 % 120);
                    let result = match n % 10 {
                        0 => agent.append(&one, text).await.map(drop),
                        1 => agent.copy(&one, &other).await.map(drop),
                        2 => agent.rename(&one, &other).await.map(drop),
                        3 => agent.unlink(&one).await.map(drop),
                        4 => agent.rename(&one, &format!("/out-{writer}")).await.map(drop),
                        5 => agent.remove_all("/q/d1").await.map(drop),
                        6 => agent
                            .tx()
                            .write(&one, text)
                            .append(&other, "12345")
                            .unlink(&one)
                            .commit()
                            .await
                            .map(drop),
                        7 => agent.tx().write(&one, text).rename(&one, &other).commit().await.map(drop),
                        _ => agent.write(&one, text).await.map(drop),
                    };
                    if let Err(error) = result {
                        match error.kind() {
                            ErrorKind::QuotaExceeded => refused += 1,
                            ErrorKind::NotFound => {}
                            kind => panic!("{kind:?}: {error}"),
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                refused
            })
        });
        Self { tasks: tasks.collect(), stop, done }
    }

    async fn more(&self, calls: u64) {
        let goal = self.done.load(Ordering::Relaxed) + calls;
        while self.done.load(Ordering::Relaxed) < goal {
            assert!(!self.tasks.iter().any(tokio::task::JoinHandle::is_finished), "a writer failed");
            tokio::task::yield_now().await;
        }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut refused = 0;
        for task in self.tasks {
            refused += task.await.expect("no writer failed");
        }
        refused
    }
}

#[tokio::test]
async fn what_would_exceed_a_limit_changes_nothing() {
    let nx = boot().await;
    nx.write("/q/old", "12345").await.unwrap();
    let config = config().limit(below("/q"), bytes(20)).limit(agent("coder"), files(2));
    let quota = nx.register::<Quota>("quota", config).await.unwrap();
    assert_eq!(used(&quota, below("/q")).await, Usage { bytes: 5, files: 1 }, "what was there before");
    let coder = nx.agent("coder").unwrap();
    coder.write("/q/new", "1234567890").await.unwrap();
    let before = nx.stat("/q/new").await.unwrap();

    let refused = coder.append("/q/new", "123456").await.unwrap_err();
    assert_eq!((refused.kind(), refused.errno()), (ErrorKind::QuotaExceeded, Errno::EDQUOT));
    assert_eq!(nx.stat("/q/new").await.unwrap(), before);
    let refused = nx.copy("/q/new", "/q/copy").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded, "{refused}");
    assert!(!nx.exists("/q/copy").await.unwrap());
    // In the place of what is there it costs nothing more.
    coder.write("/q/new", "123456789012345").await.unwrap();

    coder.write("/elsewhere", "x".repeat(1_000)).await.unwrap();
    let refused = coder.write("/third", "").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded, "an agent's files count wherever they are");
    nx.mkdir("/dir").await.unwrap();
    assert_eq!(nx.rename("/elsewhere", "/q/e").await.unwrap_err().kind(), ErrorKind::QuotaExceeded);
    nx.unlink("/elsewhere").await.unwrap();
    coder.write("/third", "").await.unwrap();
    assert_eq!(off(&quota).await, (0, 0));
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn of_a_transaction_the_sum_is_weighed_and_booked_once() {
    let nx = boot().await;
    let limits = Limits { bytes: Some(100), files: Some(3), ..Limits::default() };
    let quota = nx.register::<Quota>("quota", config().limit(below("/q"), limits)).await.unwrap();
    let sixty = || "x".repeat(60);
    let both =
        nx.tx().write("/q/a", sixty()).write("/out", "x").write("/q/b", sixty()).commit().await.unwrap_err();
    assert_eq!((both.kind(), both.item()), (ErrorKind::QuotaExceeded, None), "{both}");
    assert!(!nx.exists("/out").await.unwrap() && !nx.exists("/q/a").await.unwrap());
    assert_eq!(used(&quota, below("/q")).await, Usage::default());
    // What is gone in the end costs nothing, and what is in between neither.
    let tx = nx.tx().write("/q/a", sixty()).unlink("/q/a").write("/q/b", sixty()).rename("/q/b", "/q/c");
    tx.append("/q/c", "x".repeat(20)).mkdir("/q/d").rename("/q/c", "/q/d/c").commit().await.unwrap();
    assert_eq!(used(&quota, below("/q")).await, Usage { bytes: 80, files: 1 });
    nx.tx().remove_all("/q/d").write("/q/e", "x".repeat(100)).commit().await.unwrap();
    assert_eq!(used(&quota, below("/q")).await, Usage { bytes: 100, files: 1 });
    let four = (0..4).fold(nx.tx().unlink("/q/e"), |tx, n| tx.write(format!("/q/{n}"), ""));
    assert_eq!(four.commit().await.unwrap_err().kind(), ErrorKind::QuotaExceeded);
    // What failed after it was weighed has nothing reserved.
    nx.tx().unlink("/q/e").write("/q/f", "x").if_version(9).commit().await.unwrap_err();
    nx.tx().unlink("/q/e").write("/q/f", "x".repeat(100)).commit().await.unwrap();
    let crosses = nx.tx().mkdir("/q/g").write("/q/f", "").rename("/q/g", "/g").commit().await.unwrap_err();
    assert_eq!(crosses.kind(), ErrorKind::CrossMount);
    assert_eq!(used(&quota, below("/q")).await, Usage { bytes: 100, files: 1 });
    assert_eq!(off(&quota).await, (0, 0));
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn directories_do_not_cross_a_border_uncounted() {
    let nx = boot().await;
    let quota = nx.register::<Quota>("quota", config().limit(below("/q"), bytes(1_000))).await.unwrap();
    nx.write("/q/d/a", "12345").await.unwrap();
    nx.write("/out/d/b", "12345678").await.unwrap();
    assert_eq!(nx.rename("/q/d", "/d").await.unwrap_err().kind(), ErrorKind::CrossMount);
    assert_eq!(nx.rename("/out", "/q/out").await.unwrap_err().kind(), ErrorKind::CrossMount);
    nx.rename("/q/d", "/q/e").await.unwrap();
    nx.rename("/out", "/other").await.unwrap();
    nx.rename("/q/e/a", "/other/a").await.unwrap();
    assert_eq!(used(&quota, below("/q")).await, Usage::default());
    nx.rename("/other/a", "/q/a").await.unwrap();
    nx.link("/q/link", "/anywhere").await.unwrap();
    nx.write("/q/deep/er/x", "123").await.unwrap();
    // A link is an entry; what it leads to is where it leads.
    nx.link("/way", "/q").await.unwrap();
    nx.write("/way/y", "12").await.unwrap();
    assert_eq!(used(&quota, below("/q")).await, Usage { bytes: 10, files: 4 });
    nx.mount("/q/m", MountSpec::new("memory")).await.unwrap();
    nx.write("/q/m/z", "1").await.unwrap();
    assert_eq!(used(&quota, below("/q")).await, Usage { bytes: 11, files: 5 });
    nx.remove_all("/q/deep").await.unwrap();
    assert_eq!(used(&quota, below("/q")).await, Usage { bytes: 8, files: 4 });
    assert_eq!(off(&quota).await, (0, 0));
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_never_exceed_a_limit_that_changes_under_them() {
    let nx = boot().await;
    let limits = Limits { bytes: Some(500), files: Some(8), ..Limits::default() };
    let quota = nx.register::<Quota>("quota", config().limit(below("/q"), limits)).await.unwrap();
    let load = Load::on(&nx);
    // Those that began before the hooks stood were not weighed, and are counted now.
    load.more(100).await;
    ask(&quota, Recount).await.unwrap();
    for round in 0..20_u64 {
        load.more(50).await;
        let limit = 300 + round % 3 * 100;
        let before = used(&quota, below("/q")).await.bytes;
        let limits = Limits { bytes: Some(limit), files: Some(8), ..Limits::default() };
        ask(&quota, SetLimits { subject: below("/q"), limits: Some(limits) }).await.unwrap();
        for _ in 0..10 {
            load.more(5).await;
            let now = used(&quota, below("/q")).await;
            assert!(now.bytes <= limit.max(before).max(500), "{now:?} of {limit}");
            assert!(now.files <= 8, "{now:?}");
        }
    }
    assert!(load.end().await > 0, "some were refused");
    assert_eq!(off(&quota).await, (0, 0), "what was booked is what is there");
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_swaps_and_kills_under_load_keep_usage_exact() {
    let nx = boot().await;
    let mut all = config().limit(below("/q"), bytes(600));
    for writer in 0..WRITERS {
        all = all.limit(agent(&format!("writer-{writer}")), bytes(400));
    }
    let quota = nx.register::<Quota>("quota", all.clone()).await.unwrap();
    let load = Load::on(&nx);
    let mut swaps = 0;
    for _ in 0..20 {
        load.more(30).await;
        let options = SwapOptions::new().probation(Duration::ZERO);
        match nx.swap_with::<Quota>("quota", all.clone(), options).await {
            Ok(_) => swaps += 1,
            // The kill of the round before struck the swap: the old version serves on.
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Crashed | ErrorKind::Busy), "{error}"),
        }
        load.more(10).await;
        ask(&quota, Recount).await.unwrap();
        let serving = nx.services().unwrap()[0].serving.clone().unwrap().number;
        nx.kill(&format!("nexus/services/quota@{serving}"), Kill::Panic).await.unwrap();
    }
    load.end().await;
    assert!(swaps >= 10, "only {swaps} swaps came about");
    assert_eq!(off(&quota).await, (0, 0));
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn calls_a_second_are_limited_and_come_back() {
    let nx = boot().await;
    let limits = Limits { ops_per_s: Some(5), ..Limits::default() };
    let quota = nx.register::<Quota>("quota", config().limit(agent("coder"), limits)).await.unwrap();
    let coder = nx.agent("coder").unwrap();
    let refused = loop {
        match coder.write("/a", "x").await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded, "{refused}");
    nx.write("/a", "y").await.unwrap();
    assert_eq!(coder.read("/a").await.unwrap(), "y", "reads are not calls here");
    // However slow the machine is, it comes back.
    while let Err(error) = coder.write("/a", "x").await {
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
        tokio::task::yield_now().await;
    }
    ask(&quota, SetLimits { subject: agent("coder"), limits: None }).await.unwrap();
    for _ in 0..50 {
        coder.write("/a", "x").await.unwrap();
    }
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_set_outlasts_a_swap_unless_the_new_version_says_otherwise() {
    let nx = boot().await;
    let quota = nx.register::<Quota>("quota", config().limit(below("/q"), bytes(10))).await.unwrap();
    let set = |path: &str, limits| SetLimits { subject: below(path), limits };
    let limits = async || {
        let accounts = ask(&quota, ListUsage).await.into_iter();
        accounts.map(|account| (account.subject, account.limits)).collect::<Vec<_>>()
    };
    ask(&quota, set("/q", Some(bytes(20)))).await.unwrap();
    ask(&quota, set("/r", Some(files(1)))).await.unwrap();
    let expected = [(below("/q"), bytes(20)), (below("/r"), files(1))];
    let same = QuotaConfig { reads: true, ..config().limit(below("/q"), bytes(10)) };
    nx.swap::<Quota>("quota", same.clone()).await.unwrap();
    assert_eq!(limits().await, expected);
    nx.write("/q/a", "x".repeat(20)).await.unwrap();
    nx.write("/r/a", "").await.unwrap();
    assert_eq!(nx.write("/r/b", "").await.unwrap_err().kind(), ErrorKind::QuotaExceeded);

    nx.swap::<Quota>("quota", same.limit(below("/q"), bytes(30))).await.unwrap();
    assert_eq!(limits().await, [(below("/q"), bytes(30))], "what a configuration says anew wins");
    nx.write("/r/b", "").await.unwrap();
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn where_nothing_is_limited_any_more_directories_move() {
    let nx = boot().await;
    let quota = nx.register::<Quota>("quota", config().limit(below("/a/q"), bytes(100))).await.unwrap();
    nx.write("/a/q/d/x", "12345").await.unwrap();
    assert_eq!(nx.rename("/a/q/d", "/d").await.unwrap_err().kind(), ErrorKind::CrossMount);
    assert_eq!(nx.remove_all("/a").await.unwrap_err().kind(), ErrorKind::Busy);
    ask(&quota, SetLimits { subject: below("/a/q"), limits: None }).await.unwrap();
    nx.rename("/a/q/d", "/d").await.unwrap();
    nx.rename("/d", "/a/q/d").await.unwrap();
    ask(&quota, SetLimits { subject: below("/a/q"), limits: Some(bytes(100)) }).await.unwrap();
    assert_eq!(used(&quota, below("/a/q")).await, Usage { bytes: 5, files: 1 });
    ask(&quota, SetLimits { subject: below("/a/q"), limits: None }).await.unwrap();
    nx.remove_all("/a").await.unwrap();
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn calls_in_another_zone_cost_the_root_zone_nothing() {
    let nx = boot().await;
    let one = Limits { ops_per_s: Some(1), ..Limits::default() };
    let team = nx.zone("team").unwrap();
    team.mount("/q", MountSpec::new("memory")).await.unwrap();
    nx.register::<Quota>("quota", config().limit(below("/q"), one)).await.unwrap();
    for _ in 0..100 {
        team.write("/q/x", "theirs").await.unwrap();
    }
    nx.write("/q/x", "ours").await.unwrap();
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_version_on_trial_spends_nothing_of_what_callers_may() {
    const CALLS: u32 = 300;
    let nx = boot().await;
    let all = config().limit(agent("coder"), Limits { ops_per_s: Some(CALLS), ..Limits::default() });
    nx.register::<Quota>("quota", all.clone()).await.unwrap();
    let coder = nx.agent("coder").unwrap();
    let mut swap = std::pin::pin!(nx.swap_with::<Quota>("quota", all, SwapOptions::new().shadow(CALLS)));
    while nx.services().unwrap()[0].trial_agreed.is_none() {
        assert!(futures_util::poll!(swap.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    for _ in 0..CALLS {
        coder.write("/a", "x").await.expect("as many at once as a second brings");
    }
    let report = swap.await.unwrap();
    assert!(report.agreed.is_some_and(|agreed| agreed >= CALLS.into()), "{report:?}");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn at_boot_it_counts_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let nx = nexus::connect(Config::new(folder.path())).await.unwrap();
    nx.register::<Quota>("quota", config().limit(below("/q"), bytes(30_000))).await.unwrap();
    nx.write("/q/a", "x".repeat(20_000)).await.unwrap();
    nx.shutdown().await.unwrap();
    let nx = nexus::connect(Config::new(folder.path()).service::<Quota>()).await.unwrap();
    let quota = nx.service::<Quota>("quota").unwrap();
    assert_eq!(used(&quota, below("/q")).await, Usage { bytes: 20_000, files: 1 });
    let refused = nx.append("/q/a", "x".repeat(20_000)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
    nx.shutdown().await.unwrap();
}
