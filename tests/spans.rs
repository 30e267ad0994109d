//! Spans of syscalls: what a listener is told, and what those pay that nobody listens to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nexus::{Config, MountSpec, Nexus, SysRename, SysStat, VPath, connect};
use nexus_actors::block_on;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A span as the listener saw it.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
    closed: bool,
}

/// Writes down the spans that it is shown, in the order in which they began.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<(u64, Seen)>>>);

struct Fields<'f>(&'f mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }
}

impl Listener {
    fn spans(&self, name: &str) -> Vec<(u64, Seen)> {
        self.0.lock().iter().filter(|(_, seen)| seen.name == name).cloned().collect()
    }

    /// An identity may be used again once its span has ended: the newest is meant.
    fn change(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.0.lock();
        if let Some((_, seen)) = seen.iter_mut().rev().find(|(seen, _)| *seen == id.into_u64()) {
            change(seen);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_span()
    }

    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent()).map(|parent| parent.id().into_u64());
        let mut seen = Seen { name: span.metadata().name(), parent, ..Seen::default() };
        span.record(&mut Fields(&mut seen.fields));
        self.0.lock().push((id.into_u64(), seen));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |seen| values.record(&mut Fields(&mut seen.fields)));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.change(&id, |seen| seen.closed = true);
    }
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// Held by who listens: `tracing` remembers for each place in the code who listens, for the whole process, and while one listener comes and another goes
/// a place that is met for the first time was seen to be taken for one that nobody listens to.
static ALONE: Mutex<()> = Mutex::new(());

/// What who listens for `level` hears of these calls.
fn listen(level: LevelFilter, calls: impl AsyncFnOnce(&Nexus)) -> Listener {
    let _alone = ALONE.lock();
    let listener = Listener::default();
    let subscriber = tracing_subscriber::registry().with(listener.clone()).with(level);
    let nx = block_on(connect(Config::in_memory())).expect("it boots");
    tracing::subscriber::with_default(subscriber, || block_on(calls(&nx)));
    block_on(nx.shutdown()).expect("it stops");
    listener
}

#[test]
fn each_syscall_has_a_span_with_what_came_of_it() {
    let listener = listen(LevelFilter::DEBUG, async |nx| {
        let agent = nx.zone("z").and_then(|nx| nx.agent("coder-7")).expect("they are names");
        nx.write("/a", "x").await.expect("it writes");
        nx.send(SysStat::at(path("/a"))).await.expect("it is there");
        nx.send(SysRename::new(path("/a"), path("/b\nc"))).await.expect("it is moved");
        agent.read("/nothing").await.expect_err("there is none");
    });
    let spans = listener.spans("syscall");
    let told: Vec<Vec<&str>> = spans
        .iter()
        .map(|(_, seen)| {
            assert!(seen.closed && seen.parent.is_none(), "{seen:?}");
            let field = |name: &str| seen.fields.get(name).map_or("", |value| &**value);
            ["op", "path", "to", "agent", "zone", "outcome"].map(field).to_vec()
        })
        .collect();
    assert_eq!(
        told,
        [
            ["write", "/a", "", "nexus", "root", "ok"],
            ["stat", "/a", "", "nexus", "root", "ok"],
            ["rename", "/a", "/b\nc", "nexus", "root", "ok"],
            ["read", "/nothing", "", "coder-7", "z", "ENOENT"],
        ]
    );
}

#[test]
fn the_messages_of_a_syscall_are_told_below_it() {
    let listener = listen(LevelFilter::TRACE, async |nx| {
        nx.mount("/m", MountSpec::new("memory")).await.expect("it mounts");
    });
    let (syscall, _) = listener.spans("syscall").into_iter().next().expect("there was one");
    let messages = listener.spans("message");
    let below: Vec<_> = messages.iter().filter(|(_, seen)| seen.parent == Some(syscall)).collect();
    assert_eq!(below.len(), 1, "a mount mails the lifecycle: {messages:?}");
    assert!(below[0].1.fields["message"].contains("attach"), "{below:?}");
}

#[test]
fn who_listens_for_less_is_not_asked() {
    let listener = listen(LevelFilter::INFO, async |nx| {
        nx.write("/a", "x").await.expect("it writes");
        nx.mount("/m", MountSpec::new("memory")).await.expect("it mounts");
    });
    assert!(listener.0.lock().is_empty(), "no span was made");
}
