//! Listeners: each has a connection, a task that keeps it, and a bounded queue.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use nexus_actors::Latch;
use nexus_kernel::hal::{Heard, Missed, StoreError, StoreFuture, Subscription};
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::sync::OwnedSemaphorePermit;

use super::breaker::BackOff;
use super::failure::Failure;
use super::link::{Link, PING_EVERY};
use crate::cache::inbox::Inbox;

/// A subscription to a topic. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Listening {
    inbox: Arc<Inbox>,
    gone: Latch<()>,
}

impl Subscription for Listening {
    fn next(&mut self) -> StoreFuture<'_, Option<Heard>> {
        self.inbox.next()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.gone.set(());
    }
}

impl Listening {
    /// Listens from when this returns.
    pub(super) async fn start(
        link: &Arc<Link>,
        topic: String,
        bound: usize,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, StoreError> {
        let (inbox, gone, first) = (Arc::new(Inbox::new(bound)), Latch::new(), Latch::new());
        // Its drop ends the task when this is given up.
        let listening = Self { inbox: inbox.clone(), gone: gone.clone() };
        let task = Task { link: link.clone(), topic, inbox, first: first.clone(), _place: place };
        let ended = async move {
            let (closed, inbox) = (task.link.closed.clone(), task.inbox.clone());
            select(pin!(task.run()), select(pin!(gone.wait()), pin!(closed.wait()))).await;
            inbox.end();
        };
        link.env.spawn("cache.redis.listener", ended);
        let limit = link.config.connect_within;
        match link.env.timeout(limit, first.wait()).await {
            Ok(Ok(())) => Ok(listening),
            Ok(Err(why)) => Err(why.before(SUBSCRIBE, &link.config, std::time::Duration::ZERO)),
            Err(_) => Err(StoreError::TimedOut { what: SUBSCRIBE.into(), limit, changing: false }),
        }
    }
}

pub(super) const SUBSCRIBE: &str = "subscribing";

struct Task {
    link: Arc<Link>,
    topic: String,
    inbox: Arc<Inbox>,
    first: Latch<Result<(), Failure>>,
    _place: OwnedSemaphorePermit,
}

impl Task {
    async fn run(&self) {
        let (env, mut back_off) = (&self.link.env, BackOff::default());
        loop {
            match self.connect().await {
                Ok((sink, stream)) => {
                    if self.first.get().is_some() {
                        // What was published since the last connection is lost, and a message that comes now comes after it.
                        self.inbox.miss(Missed::Unknown);
                    }
                    self.first.set(Ok(()));
                    let connected = env.now();
                    self.pump(sink, stream).await;
                    // Told now, too: what is kept on the strength of these messages is stale from here on.
                    self.inbox.miss(Missed::Unknown);
                    back_off.served(env.now().saturating_duration_since(connected));
                }
                // Nobody has it yet.
                Err(why) if self.first.get().is_none() => return self.first.set(Err(why)),
                Err(_) => {}
            }
            env.sleep(back_off.next(env.random())).await;
        }
    }

    async fn connect(&self) -> Result<(PubSubSink, PubSubStream), Failure> {
        let connecting = async {
            let socket = self.link.socket().await?;
            let mut connection = PubSub::new(&self.link.config.login(), socket).await?;
            connection.subscribe(self.topic.as_str()).await?;
            Ok(connection.split())
        };
        self.link.in_time(connecting).await
    }

    /// Takes what comes until the connection ends or gives no sign of life.
    async fn pump(&self, mut sink: PubSubSink, stream: PubSubStream) {
        let messages = stream.for_each(|message| {
            // A value of its own, and no reader is waited for: what has no room is counted.
            self.inbox.hear(bytes::Bytes::copy_from_slice(message.get_payload_bytes()));
            std::future::ready(())
        });
        let signs = async {
            loop {
                self.link.env.sleep(PING_EVERY).await;
                if self.link.in_time(sink.ping::<redis::Value>()).await.is_err() {
                    break;
                }
            }
        };
        match select(pin!(messages), pin!(signs)).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }
}
