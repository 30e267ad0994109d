//! What a call through a controlled `Ref` costs, against a bare actix `send`; both on one thread, in one run.
//!
//!     cargo run --release -p nexus-actors --example call_cost

#![expect(clippy::print_stdout, reason = "it prints its result")]

use std::time::Duration;

use actix::prelude::{Actor, Context, Handler, MessageResult};
use nexus_actors::{
    Behaviour, Cx, Env, ExitReason, Handle, HostConfig, LocalBoxFuture, MailboxBounds, Message, Place, Ref,
    Reply, Start, block_on, child,
};

const CALLS: u32 = 200_000;
const ROUNDS: usize = 9;
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
        Box::pin(async { Ok(Ours(0)) })
    }
}

impl Handle<Add> for Ours {
    fn handle(&mut self, Add(n): Add, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        self.0 += n;
        Reply::Now(self.0)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = Env::host(HostConfig::default())?;
    let actor = Ref::<Ours>::new(&env, "ours", MailboxBounds { messages: 64 });
    let hold = child(&actor, ());
    block_on(hold.start(Place::Kernel, true, std::sync::Arc::new(|_| {})))?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(round(&env, None)?);
        ours.push(round(&env, Some(actor.clone()))?);
    }
    bare.sort_unstable();
    ours.sort_unstable();
    let (bare, ours) = (bare[ROUNDS / 2], ours[ROUNDS / 2]);
    println!(
        "bare actix {bare:?}, supervised call {ours:?}, ratio {:.2} (medians of {ROUNDS} rounds of {CALLS} calls)",
        ours.as_secs_f64() / bare.as_secs_f64()
    );
    env.stop();
    Ok(())
}

/// The cost of one call, made on the kernel's one thread, where the actor lives.
fn round(env: &Env, ours: Option<Ref<Ours>>) -> Result<Duration, std::sync::mpsc::RecvError> {
    let (done, took) = std::sync::mpsc::channel();
    let clock = env.clone();
    env.spawn_at(Place::Kernel, "caller", move || {
        Box::pin(async move {
            let bare = ours.is_none().then(|| Bare(0).start());
            let before = match &ours {
                Some(actor) => actor.call(Add(0), DEADLINE).await.unwrap_or(0),
                None => 0,
            };
            let mut last = 0;
            let began = clock.now();
            match (&ours, &bare) {
                (Some(actor), _) => {
                    for _ in 0..CALLS {
                        last = actor.call(Add(1), DEADLINE).await.unwrap_or(0);
                    }
                }
                (None, Some(bare)) => {
                    for _ in 0..CALLS {
                        last = bare.send(Add(1)).await.unwrap_or(0);
                    }
                }
                (None, None) => {}
            }
            let took = clock.now() - began;
            assert_eq!(last - before, u64::from(CALLS), "every call was served");
            let _ = done.send(took / CALLS);
        })
    });
    took.recv()
}
