//! A span for each message, under the span of whoever sent it, on whatever thread.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use common::{Add, Boom, Counter, Faults, Hold, Later, SOON, exits, quiet_host};
use nexus_actors::{ActorState, Child, Env, MailboxBounds, Place, Ref, Reply, block_on, child};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// What a span was, when it ended.
#[derive(Debug, Clone, Default)]
struct Seen {
    target: &'static str,
    level: Option<tracing::Level>,
    fields: HashMap<&'static str, String>,
    parent: Option<u64>,
    follows: Option<u64>,
    entered_on: Vec<ThreadId>,
    ended: bool,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.into());
    }
}

impl Seen {
    fn is(&self, actor: &str, message: &str, generation: &str) -> bool {
        let field = |name| self.fields.get(name).map_or("", |value| value.as_str());
        (field("actor"), field("message"), field("generation")) == (actor, message, generation)
    }
}

/// Collects spans by number, and events with the number of the span that they are in.
#[derive(Clone, Default)]
struct Collects(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    spans: HashMap<u64, Seen>,
    events: Vec<(String, Option<u64>)>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collects {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let meta = attrs.metadata();
        let mut seen = Seen { target: meta.target(), level: Some(*meta.level()), ..Seen::default() };
        attrs.record(&mut seen);
        seen.parent = cx.span(id).unwrap().parent().map(|parent| parent.id().into_u64());
        // Numbers are used again once a span has ended.
        self.0.lock().unwrap().spans.insert(id.into_u64(), seen);
    }
    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            values.record(seen);
        }
    }
    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            seen.follows = Some(follows.into_u64());
        }
    }
    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            seen.entered_on.push(std::thread::current().id());
        }
    }
    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        let within = cx.event_span(event).map(|span| span.id().into_u64());
        self.0.lock().unwrap().events.push((seen.fields.remove("message").unwrap_or_default(), within));
    }
    fn on_close(&self, id: Id, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            seen.ended = true;
        }
    }
}

impl Collects {
    /// The one span of this message, once it has ended.
    async fn ended(&self, env: &Env, actor: &str, message: &str, generation: &str) -> (u64, Seen) {
        let looking = async {
            loop {
                let found: Vec<_> = {
                    let all = self.0.lock().unwrap();
                    let wanted = all.spans.iter().filter(|(_, seen)| seen.is(actor, message, generation));
                    wanted.map(|(id, seen)| (*id, seen.clone())).collect()
                };
                match &found[..] {
                    [(id, seen)] if seen.ended => return (*id, seen.clone()),
                    [] | [_] => env.sleep(Duration::from_millis(1)).await,
                    _ => panic!("more than one: {found:?}"),
                }
            }
        };
        env.timeout(SOON, looking).await.expect("the span ends")
    }

    fn within(&self, event: &str) -> Option<u64> {
        let all = self.0.lock().unwrap();
        let (_, within) = all.events.iter().find(|(text, _)| text == event).expect("the event was seen");
        *within
    }
}

fn start(env: &Env, name: &str, place: Place) -> (Ref<Counter>, Arc<dyn Child>) {
    let actor = Ref::new(env, name, MailboxBounds::default());
    let hold = child(&actor, Faults::default());
    block_on(hold.start(place, true, exits().0)).unwrap();
    (actor, hold)
}

/// All claims share the one subscriber that a process has.
#[test]
fn spans_of_messages_correlate_across_threads_and_are_not_made_for_nobody() {
    let collects = Collects::default();
    tracing::subscriber::set_global_default(Registry::default().with(collects.clone())).unwrap();
    let env = quiet_host();
    let (a, hold) = start(&env, "a", Place::Kernel);
    let (b, _hold) = start(&env, "b", Place::Own);
    block_on(async {
        each_kind_of_answer_is_a_child_of_its_call(&env, &collects, &a).await;
        a_call_from_within_a_message_is_a_child_of_it(&env, &collects, &a, &b).await;
        what_is_sent_and_forgotten_follows_from_its_sender(&env, &collects, &a, &b).await;
        what_does_not_come_to_an_end_has_a_span_that_does(&env, &collects, &a, &*hold).await;
        nobody_who_listens_gets_nothing(&collects, &a).await;
    });
    env.stop();
}

async fn each_kind_of_answer_is_a_child_of_its_call(env: &Env, collects: &Collects, a: &Ref<Counter>) {
    let short = Duration::from_millis(2);
    let caller = tracing::info_span!("caller");
    let id = caller.id().map(|id| id.into_u64());
    async {
        assert_eq!(a.call(Add(1), SOON).await, Ok(1));
        assert_eq!(a.call(Hold(short), SOON).await, Ok(1));
        assert_eq!(a.call(Later(short), SOON).await, Ok(2));
    }
    .instrument(caller.clone())
    .await;
    for (message, least) in [("counter.add", 1), ("counter.hold", 2), ("counter.later", 2)] {
        let (_, seen) = collects.ended(env, "a", message, "1").await;
        assert_eq!((seen.target, seen.level), ("nexus_actors", Some(tracing::Level::TRACE)));
        assert_eq!(seen.parent, id, "{message}");
        // Entered for the handler, for each poll of its future, and for its last step; on the actor's thread.
        assert!(seen.entered_on.len() >= least, "{message}: {seen:?}");
        assert!(seen.entered_on.iter().all(|thread| *thread != std::thread::current().id()));
    }
    collects.0.lock().unwrap().spans.clear();
}

async fn a_call_from_within_a_message_is_a_child_of_it(
    env: &Env,
    collects: &Collects,
    a: &Ref<Counter>,
    b: &Ref<Counter>,
) {
    let (asked, pause) = (b.clone(), env.clone());
    let visit = a.visit(
        move |_, _| {
            tracing::info!("in the handler");
            let work = async move {
                pause.sleep(Duration::from_millis(1)).await;
                tracing::info!("in the future");
                asked.call(Add(5), SOON).await
            };
            Reply::later_then(work, |_, _, reply| {
                tracing::info!("in the last step");
                reply
            })
        },
        SOON,
    );
    let caller = tracing::info_span!("outer");
    let top = caller.id().map(|id| id.into_u64());
    assert_eq!(visit.instrument(caller.clone()).await, Ok(Ok(5)));
    let (outer, seen) = collects.ended(env, "a", "actor.visit", "1").await;
    assert_eq!(seen.parent, top);
    let (_, inner) = collects.ended(env, "b", "counter.add", "1").await;
    assert_eq!(inner.parent, Some(outer));
    assert_ne!(inner.entered_on[0], seen.entered_on[0]);
    for event in ["in the handler", "in the future", "in the last step"] {
        assert_eq!(collects.within(event), Some(outer), "{event}");
    }
    collects.0.lock().unwrap().spans.clear();
}

async fn what_is_sent_and_forgotten_follows_from_its_sender(
    env: &Env,
    collects: &Collects,
    a: &Ref<Counter>,
    b: &Ref<Counter>,
) {
    let told = b.clone();
    let visit = a.visit(move |_, _| Reply::Now(told.tell(Add(0))), SOON);
    assert_eq!(visit.await, Ok(Ok(())));
    let (visit, _) = collects.ended(env, "a", "actor.visit", "1").await;
    let (_, seen) = collects.ended(env, "b", "counter.add", "1").await;
    assert_eq!((seen.parent, seen.follows), (None, Some(visit)));
    collects.0.lock().unwrap().spans.clear();
}

async fn what_does_not_come_to_an_end_has_a_span_that_does(
    env: &Env,
    collects: &Collects,
    a: &Ref<Counter>,
    hold: &dyn Child,
) {
    hold.suspend();
    assert!(a.call(Add(1), Duration::from_millis(1)).await.is_err());
    hold.resume();
    // It was never begun: no incarnation, and nobody entered it.
    let (_, withdrawn) = collects.ended(env, "a", "counter.add", "").await;
    assert_eq!((withdrawn.parent, withdrawn.entered_on.len()), (None, 0));
    assert!(a.call(Boom, SOON).await.is_err());
    let (_, boom) = collects.ended(env, "a", "counter.boom", "1").await;
    assert_eq!(boom.entered_on.len(), 1);
    let ended = async {
        while a.status().state != ActorState::Waiting {
            env.sleep(Duration::from_millis(1)).await;
        }
    };
    env.timeout(SOON, ended).await.unwrap();
    hold.start(Place::Kernel, true, exits().0).await.unwrap();
    assert_eq!(a.call(Add(1), SOON).await, Ok(1));
    collects.ended(env, "a", "counter.add", "2").await;
}

async fn nobody_who_listens_gets_nothing(everything: &Collects, a: &Ref<Counter>) {
    everything.0.lock().unwrap().spans.clear();
    let little = Collects::default();
    let listens = Registry::default().with(LevelFilter::DEBUG).with(little.clone());
    let guard = tracing::subscriber::set_default(listens);
    assert_eq!(a.call(Add(1), SOON).await, Ok(2));
    drop(guard);
    assert!(little.0.lock().unwrap().spans.is_empty());
    assert!(everything.0.lock().unwrap().spans.is_empty());
}
