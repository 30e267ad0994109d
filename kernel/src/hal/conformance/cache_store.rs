//! The suite of [`CacheStore`].

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::block_on;

use super::{Claim, Report, Verdict, check_claims, claims, done, ensure, same};
use crate::hal::{CacheStore, Heard, Missed, StoreFuture, Subscription};

/// A store to be checked.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Subject {
    /// A new, empty store.
    pub store: Box<dyn CacheStore>,
    /// Whether it keeps anything at all: the null cache does not, and is held to the other claims only.
    pub keeps: bool,
    /// Lets time pass for the store.
    pub pass: Box<dyn Fn(Duration)>,
    /// How long a message is on its way to its listeners, at most; and how long it takes until the store knows that a listener is gone. Zero for a store
    /// in this process, which also knows who of them is full.
    pub arrives_within: Duration,
    /// Cuts all listeners off from the store for a moment, where that can be.
    pub sever: Option<Box<dyn Fn()>>,
}

impl Subject {
    /// A store that keeps what it is given, while there is room; `pass` lets time pass for it.
    pub fn new(store: impl CacheStore, pass: impl Fn(Duration) + 'static) -> Self {
        Self {
            store: Box::new(store),
            keeps: true,
            pass: Box::new(pass),
            arrives_within: Duration::ZERO,
            sever: None,
        }
    }

    /// The store is elsewhere: messages arrive `within` this time.
    #[must_use]
    pub fn arriving(mut self, within: Duration) -> Self {
        self.arrives_within = within;
        self
    }

    /// With `sever`, which cuts all listeners off from the store for a moment.
    #[must_use]
    pub fn severed_by(mut self, sever: impl Fn() + 'static) -> Self {
        self.sever = Some(Box::new(sever));
        self
    }

    fn settle(&self) {
        if !self.arrives_within.is_zero() {
            (self.pass)(self.arrives_within);
        }
    }

    /// What comes within the time that messages take, if something does.
    fn heard(&self, listener: &mut dyn Subscription) -> Result<Option<Heard>, String> {
        for _ in 0..STEPS {
            if let Some(heard) = now(listener)? {
                return Ok(Some(heard));
            }
            if self.arrives_within.is_zero() {
                return Ok(None);
            }
            (self.pass)(self.arrives_within / STEPS);
        }
        now(listener)
    }

    /// A store that keeps nothing.
    pub fn keeping_nothing(store: impl CacheStore) -> Self {
        Self { keeps: false, ..Self::new(store, |_| ()) }
    }
}

/// Checks every claim on a store of its own.
pub fn check(make: &dyn Fn() -> Subject) -> Report {
    check_claims("cache store", CLAIMS, make)
}

const CLAIMS: &[Claim<Subject>] = claims![
    what_was_put_is_got,
    a_put_replaces_value_and_time,
    a_deleted_key_is_gone,
    what_was_never_put_is_not_there,
    a_value_is_gone_when_its_time_is_over,
    a_value_without_time_stays,
    listeners_hear_in_order,
    a_publication_tells_how_many_heard,
    a_listener_hears_only_its_topic_and_from_then_on,
    a_full_listener_loses_and_is_told,
    a_listener_that_was_cut_off_is_told_and_hears_on,
    giving_up_waiting_loses_nothing,
    a_waiting_listener_is_woken,
    a_listener_hears_the_end,
];

/// In so many steps a message is waited for.
const STEPS: u32 = 20;

const SECOND: Duration = Duration::from_secs(1);

fn wait<T>(what: &str, call: StoreFuture<'_, T>) -> Result<T, String> {
    done(what, block_on(call))
}

fn get(store: &dyn CacheStore, key: &str) -> Result<Option<Bytes>, String> {
    wait("get", store.get(key))
}

fn put(store: &dyn CacheStore, key: &str, value: &'static str, ttl: Option<Duration>) -> Verdict {
    wait("put", store.put(key, text(value), ttl))
}

fn text(value: &'static str) -> Bytes {
    Bytes::from_static(value.as_bytes())
}

fn publish(store: &dyn CacheStore, topic: &str, message: &'static str) -> Result<usize, String> {
    wait("publish", store.publish(topic, text(message)))
}

fn listen(store: &dyn CacheStore, topic: &str, bound: usize) -> Result<Box<dyn Subscription>, String> {
    wait("subscribe", store.subscribe(topic, bound))
}

/// What is there now, if something is.
fn now(listener: &mut dyn Subscription) -> Result<Option<Heard>, String> {
    let mut next = listener.next();
    match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(heard) => done("next", heard),
        Poll::Pending => Ok(None),
    }
}

fn message(text: &'static str) -> Option<Heard> {
    Some(Heard::Message(self::text(text)))
}

fn what_was_put_is_got(Subject { store, keeps, .. }: Subject) -> Verdict {
    for (key, value) in [("a", "1"), ("", ""), ("a/b", "\0")] {
        put(&*store, key, value, None)?;
        same(key, get(&*store, key)?, keeps.then(|| text(value)))?;
    }
    Ok(())
}

fn a_put_replaces_value_and_time(Subject { store, keeps, pass, .. }: Subject) -> Verdict {
    put(&*store, "a", "1", Some(SECOND))?;
    put(&*store, "a", "2", None)?;
    pass(2 * SECOND);
    same("a value that got more time", get(&*store, "a")?, keeps.then(|| text("2")))?;
    put(&*store, "a", "3", Some(SECOND))?;
    pass(2 * SECOND);
    same("a value that got less time", get(&*store, "a")?, None)
}

fn a_deleted_key_is_gone(Subject { store, keeps, pass, .. }: Subject) -> Verdict {
    put(&*store, "a", "1", None)?;
    same("delete", wait("delete", store.delete("a"))?, keeps)?;
    same("get", get(&*store, "a")?, None)?;
    same("delete again", wait("delete", store.delete("a"))?, false)?;
    put(&*store, "b", "1", Some(SECOND))?;
    pass(2 * SECOND);
    same("delete of what is over", wait("delete", store.delete("b"))?, false)
}

fn what_was_never_put_is_not_there(Subject { store, .. }: Subject) -> Verdict {
    put(&*store, "a", "1", None)?;
    same("get", get(&*store, "b")?, None)?;
    same("delete", wait("delete", store.delete("b"))?, false)
}

fn a_value_is_gone_when_its_time_is_over(Subject { store, keeps, pass, .. }: Subject) -> Verdict {
    put(&*store, "a", "1", Some(SECOND))?;
    pass(SECOND / 2);
    same("in time", get(&*store, "a")?, keeps.then(|| text("1")))?;
    pass(SECOND / 2);
    same("at its end", get(&*store, "a")?, None)?;
    put(&*store, "b", "1", Some(Duration::ZERO))?;
    same("no time at all", get(&*store, "b")?, None)?;
    put(&*store, "c", "1", Some(Duration::MAX))?;
    pass(SECOND);
    same("all the time", get(&*store, "c")?, keeps.then(|| text("1")))
}

fn a_value_without_time_stays(Subject { store, keeps, pass, .. }: Subject) -> Verdict {
    put(&*store, "a", "1", None)?;
    pass(SECOND * 1_000_000);
    same("get", get(&*store, "a")?, keeps.then(|| text("1")))
}

fn listeners_hear_in_order(it: Subject) -> Verdict {
    if !it.keeps {
        return Ok(());
    }
    let mut listeners = [listen(&*it.store, "t", 9)?, listen(&*it.store, "t", 9)?];
    for message in ["1", "2", "3"] {
        publish(&*it.store, "t", message)?;
    }
    for listener in &mut listeners {
        for text in ["1", "2", "3"] {
            same("next", it.heard(&mut **listener)?, message(text))?;
        }
        same("after the last", it.heard(&mut **listener)?, None)?;
    }
    Ok(())
}

fn a_publication_tells_how_many_heard(it: Subject) -> Verdict {
    let (store, keeps) = (&*it.store, it.keeps);
    same("nobody", publish(store, "t", "0")?, 0)?;
    let (first, second) = (listen(store, "t", 1)?, listen(store, "t", 9)?);
    same("two", publish(store, "t", "1")?, if keeps { 2 } else { 0 })?;
    let full = usize::from(keeps && !it.arrives_within.is_zero());
    same("one is full", publish(store, "t", "2")?, usize::from(keeps) + full)?;
    drop(second);
    it.settle();
    same("the other is gone", publish(store, "t", "3")?, full)?;
    drop(first);
    it.settle();
    same("both are gone", publish(store, "t", "4")?, 0)
}

fn a_listener_hears_only_its_topic_and_from_then_on(it: Subject) -> Verdict {
    if !it.keeps {
        return Ok(());
    }
    publish(&*it.store, "t", "before")?;
    let mut listener = listen(&*it.store, "t", 9)?;
    publish(&*it.store, "t2", "elsewhere")?;
    publish(&*it.store, "", "nowhere")?;
    publish(&*it.store, "t", "here")?;
    same("next", it.heard(&mut *listener)?, message("here"))?;
    same("after it", it.heard(&mut *listener)?, None)
}

fn a_full_listener_loses_and_is_told(it: Subject) -> Verdict {
    if !it.keeps {
        return Ok(());
    }
    let mut listener = listen(&*it.store, "t", 2)?;
    for message in ["1", "2", "3", "4", "5"] {
        publish(&*it.store, "t", message)?;
    }
    it.settle();
    same("the first", now(&mut *listener)?, message("1"))?;
    publish(&*it.store, "t", "6")?;
    it.settle();
    same("the second", now(&mut *listener)?, message("2"))?;
    same("lost", now(&mut *listener)?, Some(Heard::Missed(Missed::Counted(3))))?;
    same("the sixth", now(&mut *listener)?, message("6"))?;
    same("in the end", now(&mut *listener)?, None)
}

fn a_listener_that_was_cut_off_is_told_and_hears_on(it: Subject) -> Verdict {
    let Some(sever) = it.sever.as_ref().filter(|_| it.keeps) else { return Ok(()) };
    let mut listener = listen(&*it.store, "t", 9)?;
    publish(&*it.store, "t", "1")?;
    same("before", it.heard(&mut *listener)?, message("1"))?;
    sever();
    it.settle();
    publish(&*it.store, "t", "2")?;
    let mut heard = Vec::new();
    while let Some(next) = it.heard(&mut *listener)? {
        heard.push(next);
    }
    // The gap may be told when it begins, and when it ends.
    let last = heard.pop();
    same("the gap", heard.first(), Some(&Heard::Missed(Missed::Unknown)))?;
    same("after it", last, message("2"))
}

fn giving_up_waiting_loses_nothing(it: Subject) -> Verdict {
    if !it.keeps {
        return Ok(());
    }
    let mut listener = listen(&*it.store, "t", 9)?;
    same("too early", now(&mut *listener)?, None)?;
    publish(&*it.store, "t", "1")?;
    it.settle();
    drop(listener.next());
    same("next", now(&mut *listener)?, message("1"))
}

fn a_waiting_listener_is_woken(it: Subject) -> Verdict {
    if !it.keeps {
        return Ok(());
    }
    let mut listener = listen(&*it.store, "t", 9)?;
    let woken = std::sync::Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut next = pin!(listener.next());
    let waiting = next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
    ensure(waiting, || "it did not wait".into())?;
    publish(&*it.store, "t", "1")?;
    it.settle();
    ensure(woken.0.load(std::sync::atomic::Ordering::SeqCst), || "nobody woke it".into())?;
    same("next", done("next", block_on(next))?, message("1"))
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

fn a_listener_hears_the_end(it: Subject) -> Verdict {
    let mut listener = listen(&*it.store, "t", 9)?;
    publish(&*it.store, "t", "last")?;
    it.settle();
    let Subject { store, keeps, .. } = it;
    drop(store);
    if keeps {
        same("the last one", wait("next", listener.next())?, message("last"))?;
    }
    same("the end", wait("next", listener.next())?, None)?;
    same("the end again", wait("next", listener.next())?, None)
}
