//! One kernel's life: clients at work, faults, swaps, pauses at which claims are checked, and the end.

use std::sync::Arc;
use std::time::Duration;

use nexus::{ActorState, Kill, Nexus, TreeStatus};

use crate::cleaning::Pass;
use crate::locks::{self, LOCKERS};
use crate::model::{BAD, CLIENTS, PLAIN, THRIFT, TIGHT, base};
use crate::pipes::{self, READERS, WRITERS};
use crate::plan::{End, Which};
use crate::record::Record;
use crate::scene::{MOMENT, Scene, Setting};
use crate::services::{COUNTER, Counter1, Sum};
use crate::streams::{self, APPENDERS, FOLLOWERS};
use crate::watches::{self, CURSORS};
use crate::{auditing, cleaning, clients, hurting, limits, swaps};

/// How long restarts may take that are under way when all pause; a driver waits five seconds at most.
const RESTARTS_MAX: Duration = Duration::from_secs(30);

/// How long what the kernel finishes by itself may take.
const FINISH_MAX: Duration = Duration::from_secs(10);

/// Within what a kernel whose root was killed has ended.
const END_MAX: Duration = Duration::from_secs(60);

/// How often what was counted is told.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// Makes the mounts and the clients' homes, once for all lives.
pub(crate) async fn prepare(nx: &Nexus, setting: &Setting) -> nexus::Result<()> {
    nx.mount(PLAIN, setting.plain.clone()).await?;
    nx.mount(BAD, setting.bad.clone()).await?;
    for place in
        [TIGHT, THRIFT, locks::GUARDED, locks::KEPT, pipes::PIPES, streams::STREAMS, watches::BURST_AT]
    {
        nx.mkdir(place).await?;
    }
    for client in 0..CLIENTS {
        nx.mkdir(base(client)).await?;
        nx.mkdir(format!("{}/d", base(client))).await?;
    }
    Ok(())
}

/// Makes what each life begins with.
pub(crate) async fn begin(nx: &Nexus) -> nexus::Result<()> {
    pipes::prepare(nx).await?;
    streams::prepare(nx).await
}

/// Lives through `scene`; `looking` is done when all tasks have ended, before the kernel does. A kernel whose process is to be killed works until then.
pub(crate) async fn run(scene: &Arc<Scene>, looking: impl AsyncFnOnce()) {
    for client in 0..CLIENTS {
        scene.task("client", |scene| clients::run(scene, client));
    }
    for which in [Which::Counter, Which::Policy, Which::Audit, Which::Quota] {
        scene.task("swapping", move |scene| swaps::services(scene, which));
    }
    for locker in 0..LOCKERS {
        scene.task("locking", move |scene| locks::run(scene, locker));
    }
    for writer in 0..WRITERS {
        scene.task("writing to pipes", move |scene| pipes::write(scene, writer));
    }
    for reader in 0..READERS {
        scene.task("reading pipes", move |scene| pipes::read(scene, reader));
    }
    for appender in 0..APPENDERS {
        scene.task("appending", move |scene| streams::append(scene, appender));
    }
    for number in 0..FOLLOWERS {
        scene.task("following a stream", move |scene| streams::follow(scene, streams::MEMORY, number));
        scene.task("following a stream", move |scene| streams::follow(scene, streams::DURABLE, number));
    }
    for watcher in 0..CURSORS {
        scene.task("watching", move |scene| watches::resume(scene, watcher));
    }
    scene.task("watching", watches::live);
    scene.task("swapping drivers", swaps::driver);
    scene.task("mounting", swaps::mounts_and_hooks);
    for pass in Pass::ALL {
        scene.task("cleaning", move |scene| cleaning::always(scene, pass));
    }
    scene.task("verifying", auditing::verify_always);
    scene.task("hurting actors", hurting::actors);
    scene.task("hurting a driver", hurting::driver);

    let mut quiet_at = scene.setting.quiet_every;
    while scene.age() < scene.life.lasts || scene.life.end == End::Killed {
        scene.env.sleep(COUNT_EVERY).await;
        scene.tell(Record::Did(Box::new(scene.take_counts())));
        if scene.age() >= quiet_at {
            quiet(scene, false).await;
            quiet_at = scene.age() + scene.setting.quiet_every;
        }
    }
    quiet(scene, true).await;
    if scene.life.end == End::RootDies {
        scene.die();
        if !matches!(scene.nx.kill("nexus", Kill::Panic).await, Ok(true)) {
            scene.broken("the root cannot be killed");
        }
        // Some calls meet the end.
        scene.env.sleep(COUNT_EVERY).await;
    }
    if !scene.stop().await {
        scene.broken("a task of the run does not end: a call hangs");
    }
    scene.tell(Record::Did(Box::new(scene.take_counts())));
    looking().await;
    match scene.env.timeout(END_MAX, scene.nx.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => scene.broken(format_args!("the kernel does not end in order: {error}")),
        Err(_) => scene.broken(format_args!("the kernel has not ended after {END_MAX:?}")),
    }
    scene.tell(Record::Over);
}

/// Has all clients pause, and looks at what must be so then; at all that is stored, too, when it is the last time.
async fn quiet(scene: &Arc<Scene>, is_last: bool) {
    if !scene.pause().await {
        scene.broken("not all clients came to a pause: a call hangs");
    }
    if !all_run(scene).await {
        let mut down = Vec::new();
        if let Some(tree) = scene.tree() {
            find_down(&tree, &tree.id, &mut down);
        }
        scene.broken(format_args!("not all actors came back: {}", down.join("; ")));
    }
    if let Ok(kernel) = scene.nx.kernel() {
        let held = || kernel.path_locks().held(8, |_| true);
        if !scene.comes_about(FINISH_MAX, || held().is_empty()).await {
            scene.broken(format_args!("locks are held although nobody calls: {:?}", held()));
        }
    }
    count(scene).await;
    locks::check(scene).await;
    pipes::check(scene).await;
    streams::check(scene).await;
    for wrong in limits::check(&scene.nx, &scene.env, true).await {
        scene.broken(wrong);
    }
    if is_last {
        for wrong in cleaning::check(&scene.nx, &scene.env).await {
            scene.broken(wrong);
        }
        scene.count(|counts| counts.checks += 1);
    }
    scene.tell(Record::Quiet);
    scene.go_on();
}

async fn all_run(scene: &Scene) -> bool {
    let began = scene.env.now();
    while scene.env.now().saturating_duration_since(began) < RESTARTS_MAX {
        match scene.tree() {
            Some(tree) if runs(&tree) => return true,
            Some(_) => scene.env.sleep(MOMENT * 4).await,
            None => return false,
        }
    }
    false
}

fn runs(tree: &TreeStatus) -> bool {
    tree.actor.state == ActorState::Running && tree.children.iter().all(runs)
}

/// Those that do not serve.
fn find_down(tree: &TreeStatus, path: &str, down: &mut Vec<String>) {
    let actor = &tree.actor;
    if actor.state != ActorState::Running {
        down.push(format!(
            "{path} is {:?}, in incarnation {}, busy with {:?}, and ended last by {:?}",
            actor.state, actor.generation, actor.running, actor.last_exit
        ));
    }
    for child in &tree.children {
        find_down(child, &format!("{path}/{}", child.id), down);
    }
}

/// The counter has counted each call once that was answered, and each at most once that may have been executed.
async fn count(scene: &Scene) {
    let Ok(counter) = scene.nx.service::<Counter1>(COUNTER) else { return };
    let mut sum = None;
    // A fault that waits for a message strikes this one.
    for _ in 0..20 {
        match counter.call(Sum, FINISH_MAX).await {
            Ok(counted) => {
                sum = Some(counted);
                break;
            }
            Err(_) => scene.env.sleep(MOMENT).await,
        }
    }
    let Some(sum) = sum else { return scene.broken("the counter does not answer, and nobody else calls it") };
    let mut counted = scene.counter.lock();
    let least = counted.base + counted.answered;
    let most = least + counted.unknown;
    if sum < least || sum > most {
        scene.broken(format_args!("the counter says {sum}, and should say {least} to {most}"));
    }
    *counted = crate::scene::Counted { base: sum, ..Default::default() };
}
