//! What may still come of a call that has ended.
//!
//! Nobody calls a request back. One that broke off may have reached its server; repeated, it comes through, and the first one may be carried out behind what goes there
//! since. Who sees the requests notes it here, in the task of its caller; who must order what goes behind them asks.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

/// For how long a request may be carried out that was given up.
pub(crate) const LATE_MAX: Duration = Duration::from_secs(10);

tokio::task_local! {
    /// Whether something may come behind the call that the task makes.
    static MAY_COME: Cell<bool>;
}

/// What a call gave, and whether something of it may be carried out behind that.
pub(crate) struct Ended<T> {
    pub(crate) answer: T,
    pub(crate) may_come: bool,
}

/// Makes `call`, all of which must be awaited in this task.
pub(crate) async fn watched<T>(call: impl Future<Output = T>) -> Ended<T> {
    let watching = async {
        let answer = call.await;
        Ended { answer, may_come: MAY_COME.with(Cell::get) }
    };
    MAY_COME.scope(Cell::new(false), watching).await
}

/// Notes that something of the call that this task makes may be carried out behind its end.
pub(crate) fn note() {
    // Where nobody asks, nobody orders.
    let _ = MAY_COME.try_with(|may_come| may_come.set(true));
}

#[cfg(test)]
mod tests {
    use nexus_actors::block_on;

    use super::*;

    #[test]
    fn what_is_noted_is_told_of_the_call_that_was_made_and_of_no_other() {
        note();
        let (inner, outer) = block_on(async {
            let outer = watched(async {
                let inner = watched(async { note() }).await;
                inner.may_come
            });
            let outer = outer.await;
            (outer.answer, outer.may_come)
        });
        assert!(inner && !outer);
    }
}
