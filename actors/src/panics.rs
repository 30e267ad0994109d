//! Catches panics and remembers where they happened.
//!
//! The place of a panic is known only to the panic hook, so a hook of ours stands in front of the process's own,
//! notes the place for the thread, and calls the one that was there before.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use crate::exit::ExitReason;

thread_local! {
    static PLACE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// A panic that was caught: what it said and where it happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {message}{}", .location.as_ref().map(|l| format!(" at {l}")).unwrap_or_default())]
pub struct Panicked {
    /// What the panic said.
    pub message: Arc<str>,
    /// `file:line`, when the hook saw it.
    pub location: Option<Arc<str>>,
}

impl Panicked {
    /// The same as an exit reason, with the message that was being handled.
    pub fn into_exit(self, handling: Option<&'static str>) -> ExitReason {
        ExitReason::Panic { message: self.message, location: self.location, handling }
    }
}

/// Puts our hook in front of the process's own, once.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|l| Arc::from(format!("{}:{}", l.file(), l.line())));
            // A panic while thread locals are torn down must not become an abort.
            let _ = PLACE.try_with(|p| p.try_borrow_mut().map(|mut p| *p = place));
            if !QUIET.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
}

/// Keeps panics of this thread out of the process's own hook: they are told by exit reasons alone.
pub(crate) fn set_quiet(quiet: bool) -> bool {
    QUIET.with(|q| q.replace(quiet))
}

/// Runs `work`; a panic in it becomes a value, with its place if there is an [`Env`](crate::Env) in this process.
/// Whatever `work` was changing may be left half changed: the caller throws it away, or knows better.
pub fn guard<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(caught)
}

/// Drops `value`; a panic in its destructor becomes a value.
pub(crate) fn guarded_drop<T>(value: T) -> Result<(), Panicked> {
    guard(move || drop(value))
}

fn caught(payload: Box<dyn Any + Send>) -> Panicked {
    let message: Arc<str> = if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).into()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.as_str().into()
    } else {
        "a panic without text".into()
    };
    // The payload is somebody's value, and its destructor may panic as well.
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(again);
    }
    Panicked { message, location: PLACE.with(|p| p.borrow_mut().take()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_tells_its_text_and_place() {
        install_hook();
        set_quiet(true);
        let panicked = guard(|| panic!("at {}", 7)).unwrap_err();
        assert_eq!(&*panicked.message, "at 7");
        assert!(panicked.location.unwrap().contains("panics.rs:"));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_survived() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        install_hook();
        set_quiet(true);
        let panicked = guard(|| std::panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(&*panicked.message, "a panic without text");
    }
}
