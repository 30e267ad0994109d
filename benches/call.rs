//! What a call through a supervised `Ref` costs beside a bare actix `send`, each on the thread of its actor.
//!
//!     cargo bench -p nexus-actors --bench call

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use actix::prelude::{Actor, Context, Handler, MessageResult};
use criterion::{Criterion, criterion_group, criterion_main};
use nexus_actors::{
    Behaviour, Cx, Env, ExitReason, Handle, HostConfig, LocalBoxFuture, MailboxBounds, Message, Place, Ref,
    Reply, Start, block_on, child,
};

const DEADLINE: Duration = Duration::from_secs(5);

struct Add(u64);

struct Bare(u64);

impl actix::Message for Add {
    type Result = u64;
}

impl Actor for Bare {
    type Context = Context<Self>;
}

impl Handler<Add> for Bare {
    type Result = MessageResult<Add>;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Self::Result {
        self.0 += n;
        MessageResult(self.0)
    }
}

struct Ours(u64);

impl Message for Add {
    type Reply = u64;
    const NAME: &'static str = "add";
}

impl Behaviour for Ours {
    type Args = ();
    const NAME: &'static str = "ours";

    fn init((): (), _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async { Ok(Self(0)) })
    }
}

impl Handle<Add> for Ours {
    fn handle(&mut self, Add(n): Add, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        self.0 += n;
        Reply::Now(self.0)
    }
}

/// Runs `make` on the thread that actors of the kernel live on, and gives what it took.
fn on_the_kernel_thread<F>(env: &Env, make: impl FnOnce() -> F + Send + 'static) -> Duration
where
    F: Future<Output = Duration> + 'static,
{
    let (done, took) = mpsc::channel();
    env.spawn_at(Place::Kernel, "bench", move || {
        Box::pin(async move {
            let _ = done.send(make().await);
        })
    });
    took.recv().expect("the task ends")
}

fn calls(c: &mut Criterion) {
    let env = Env::host(HostConfig::default()).expect("threads can be started");
    let actor = Ref::<Ours>::new(&env, "ours", MailboxBounds { messages: 64 });
    let hold = child(&actor, ());
    block_on(hold.start(Place::Kernel, true, Arc::new(|_| {}))).expect("it starts");

    let mut group = c.benchmark_group("call on one thread");
    group.bench_function("bare actix", |b| {
        b.iter_custom(|count| {
            on_the_kernel_thread(&env, move || async move {
                let bare = Bare(0).start();
                let began = Instant::now();
                for n in 1..=count {
                    assert_eq!(bare.send(Add(1)).await.ok(), Some(n), "each call counts");
                }
                began.elapsed()
            })
        });
    });
    group.bench_function("through a supervised Ref", |b| {
        b.iter_custom(|count| {
            let actor = actor.clone();
            on_the_kernel_thread(&env, move || async move {
                let first = actor.call(Add(0), DEADLINE).await.expect("it serves");
                let began = Instant::now();
                for n in 1..=count {
                    assert_eq!(actor.call(Add(1), DEADLINE).await, Ok(first + n), "each call counts");
                }
                began.elapsed()
            })
        });
    });
    group.finish();
    env.stop();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = calls
}
criterion_main!(benches);
