//! Where turns are hosted. The only place that knows an engine; the rest of the crate polls.

mod actix;

use crate::behaviour::Behaviour;
use crate::turn::Turn;

/// Polls `turn` to its end: in an actix context on a host, bare in a simulation.
pub(crate) async fn host<B: Behaviour>(turn: Turn<B>) {
    if turn.is_simulated() { turn.await } else { actix::host(turn).await }
}
