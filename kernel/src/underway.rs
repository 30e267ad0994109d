//! Operations whose calls are under way, those whose calls ended without knowing, and writes to pipes and streams, which are in no log: what the store cannot tell of an operation.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::{DashMap, Entry};
use foldhash::fast::RandomState;
use nexus_messages::syscall::CommittedOp;
use nexus_messages::{Caller, Executed, Op, OpId, Timestamp, VPath};
use parking_lot::Mutex;

/// Calls that are kept track of at once. While there are more, it is not told of an operation that it is not under way.
pub(crate) const UNDER_WAY_MAX: usize = 16_384;

/// Operations in doubt that are remembered, the last ones. Where the disk or a driver fails that often, more is known than that one of them is in doubt.
pub(crate) const IN_DOUBT_MAX: usize = 4_096;

/// Writes to pipes and streams that are remembered, the last ones that have an identity.
pub(crate) const ELSEWHERE_MAX: usize = 1 << 16;

/// A call that is under way.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) caller: Arc<Caller>,
    pub(crate) op: Op,
    pub(crate) path: VPath,
    /// How often: a client may send it again while the first one is under way.
    times: usize,
}

/// The operations of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Underway {
    calls: DashMap<OpId, Call, RandomState>,
    /// How many calls there are in all.
    count: AtomicUsize,
    /// How many of them are not in `calls`.
    untracked: AtomicUsize,
    doubtful: Mutex<VecDeque<(OpId, Arc<Caller>)>>,
    elsewhere: Mutex<Elsewhere>,
}

/// Operations that were executed, and are in no log.
#[derive(Debug, Default)]
struct Elsewhere {
    known: HashMap<OpId, (Arc<Caller>, CommittedOp), RandomState>,
    /// Their identities, the oldest first.
    order: VecDeque<OpId>,
    /// When the last of those was executed that are forgotten.
    forgotten: Option<Timestamp>,
}

/// What is known of an operation.
#[derive(Debug)]
pub(crate) enum Known {
    /// Its call is under way.
    UnderWay(Call),
    /// Its call ended without knowing. Whose it was.
    InDoubt(Arc<Caller>),
    /// Nothing: there is no call of it.
    Nothing,
    /// Nothing, but there are more calls than are kept track of.
    TooMany,
}

impl Underway {
    /// From here on the operation is under way, until what is given is dropped.
    pub(crate) fn begin(
        self: &Arc<Self>,
        op_id: OpId,
        caller: &Arc<Caller>,
        op: Op,
        path: &VPath,
    ) -> Passing {
        // Only counted; what is in the table is ordered by its locks.
        let tracked = self.count.fetch_add(1, Ordering::Relaxed) < UNDER_WAY_MAX;
        if tracked {
            let first = || Call { caller: caller.clone(), op, path: path.clone(), times: 0 };
            self.calls.entry(op_id).or_insert_with(first).times += 1;
        } else {
            self.untracked.fetch_add(1, Ordering::AcqRel);
        }
        Passing { underway: self.clone(), op_id, caller: caller.clone(), tracked }
    }

    /// What is known of the operation. To be asked before the store is: what ends in between is found there.
    pub(crate) fn look(&self, op_id: OpId) -> Known {
        if let Some(call) = self.calls.get(&op_id) {
            return Known::UnderWay(call.clone());
        }
        let doubtful = self.doubtful.lock();
        if let Some((_, caller)) = doubtful.iter().find(|(doubtful, _)| *doubtful == op_id) {
            return Known::InDoubt(caller.clone());
        }
        match self.untracked.load(Ordering::Acquire) {
            0 => Known::Nothing,
            _ => Known::TooMany,
        }
    }

    /// Notes a write that is in no log. Before its call is under way no longer.
    pub(crate) fn executed(&self, caller: &Arc<Caller>, op: CommittedOp) {
        let op_id = op.receipt.op_id;
        let mut elsewhere = self.elsewhere.lock();
        if elsewhere.known.insert(op_id, (caller.clone(), op)).is_some() {
            // It was repeated, and is as old as it was.
            return;
        }
        elsewhere.order.push_back(op_id);
        if elsewhere.order.len() > ELSEWHERE_MAX
            && let Some(oldest) = elsewhere.order.pop_front()
            && let Some((_, oldest)) = elsewhere.known.remove(&oldest)
        {
            elsewhere.forgotten = elsewhere.forgotten.max(Some(oldest.at));
        }
    }

    /// What is known of an operation that is in no log, and whose it was; if nothing, when the last of those was executed that are forgotten. To be asked after
    /// [`look`](Self::look).
    pub(crate) fn elsewhere(&self, op_id: OpId) -> Result<(Arc<Caller>, CommittedOp), Option<Timestamp>> {
        let elsewhere = self.elsewhere.lock();
        elsewhere.known.get(&op_id).cloned().ok_or(elsewhere.forgotten)
    }

    fn doubt(&self, op_id: OpId, caller: &Arc<Caller>) {
        let mut doubtful = self.doubtful.lock();
        if doubtful.len() == IN_DOUBT_MAX {
            doubtful.pop_front();
        }
        doubtful.push_back((op_id, caller.clone()));
    }
}

/// An operation that is under way for as long as this is there.
#[derive(Debug)]
pub(crate) struct Passing {
    underway: Arc<Underway>,
    op_id: OpId,
    caller: Arc<Caller>,
    tracked: bool,
}

impl Passing {
    pub(crate) fn op_id(&self) -> OpId {
        self.op_id
    }

    /// Whether another call of the operation is under way, of which `own` calls that began are this one. Not, when they are too many to be kept track of.
    pub(crate) fn is_again(&self, own: usize) -> bool {
        self.underway.calls.get(&self.op_id).is_some_and(|call| call.times > own)
    }

    /// The operation ended so. One that may have been executed is remembered as in doubt, and its error says which it was.
    pub(crate) fn ends<T>(self, done: nexus_messages::Result<T>) -> nexus_messages::Result<T> {
        done.map_err(|error| match error.executed() {
            Executed::No => error,
            Executed::Unknown => {
                self.underway.doubt(self.op_id, &self.caller);
                error.of_operation(self.op_id)
            }
        })
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if self.tracked {
            if let Entry::Occupied(mut call) = self.underway.calls.entry(self.op_id) {
                call.get_mut().times -= 1;
                if call.get().times == 0 {
                    call.remove();
                }
            }
        } else {
            self.underway.untracked.fetch_sub(1, Ordering::AcqRel);
        }
        self.underway.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::{Durability, Error, ErrorKind, Lsn, Receipt};

    use super::*;

    fn begin(underway: &Arc<Underway>, op_id: u128) -> Passing {
        underway.begin(OpId(op_id), &Arc::new(Caller::administrator()), Op::Write, &VPath::root())
    }

    #[test]
    fn an_operation_is_under_way_until_its_last_call_ends() {
        let underway = Arc::new(Underway::default());
        let (first, second) = (begin(&underway, 7), begin(&underway, 7));
        assert!(second.is_again(1) && !second.is_again(2));
        drop(first);
        assert!(!second.is_again(1));
        assert!(matches!(underway.look(OpId(7)), Known::UnderWay(_)));
        assert!(matches!(underway.look(OpId(8)), Known::Nothing));
        drop(second);
        assert!(matches!(underway.look(OpId(7)), Known::Nothing));
        assert!(underway.calls.is_empty());
    }

    #[test]
    fn what_may_have_been_executed_is_in_doubt_and_its_error_says_which_it_was() {
        let underway = Arc::new(Underway::default());
        let failed = Error::global(Op::Write, ErrorKind::Io);
        let told = begin(&underway, 1).ends::<()>(Err(failed.clone())).unwrap_err();
        assert_eq!(told.op_id(), None);
        assert!(matches!(underway.look(OpId(1)), Known::Nothing));
        let told = begin(&underway, 2).ends::<()>(Err(failed.clone().outcome_unknown())).unwrap_err();
        assert_eq!(told.op_id(), Some(OpId(2)));
        assert!(matches!(underway.look(OpId(2)), Known::InDoubt(_)));
        for op_id in 10..10 + IN_DOUBT_MAX as u128 {
            begin(&underway, op_id).ends::<()>(Err(failed.clone().outcome_unknown())).unwrap_err();
        }
        assert!(matches!(underway.look(OpId(2)), Known::Nothing));
        assert_eq!(underway.doubtful.lock().len(), IN_DOUBT_MAX);
    }

    #[test]
    fn so_many_writes_are_remembered_that_are_in_no_log() {
        let underway = Underway::default();
        let caller = Arc::new(Caller::administrator());
        let executed = |op_id: u128| {
            let receipt = Receipt::unchanged(OpId(op_id), Lsn(0), Durability::Volatile);
            let at = Timestamp(u64::try_from(op_id).expect("it is small"));
            underway.executed(&caller, CommittedOp::new(receipt, Op::Write, VPath::root(), None, at));
        };
        let known = |op_id| underway.elsewhere(OpId(op_id)).map(|(_, op)| op.at);
        let most = ELSEWHERE_MAX as u128;
        (1..=most).chain([1]).for_each(executed);
        assert_eq!((known(1), known(most + 1)), (Ok(Timestamp(1)), Err(None)));
        executed(most + 1);
        executed(most + 2);
        assert_eq!((known(2), known(3)), (Err(Some(Timestamp(2))), Ok(Timestamp(3))));
        assert_eq!(underway.elsewhere.lock().known.len(), ELSEWHERE_MAX);
    }

    #[test]
    fn with_more_calls_than_are_kept_track_of_nothing_is_said_not_to_be_under_way() {
        let underway = Arc::new(Underway::default());
        let most: Vec<_> = (0..UNDER_WAY_MAX as u128).map(|op_id| begin(&underway, op_id)).collect();
        assert!(matches!(underway.look(OpId(1 << 100)), Known::Nothing));
        let one_more = begin(&underway, 1 << 99);
        assert!(matches!(underway.look(OpId(1 << 100)), Known::TooMany));
        assert!(matches!(underway.look(OpId(3)), Known::UnderWay(_)));
        drop((most, one_more));
        assert!(matches!(underway.look(OpId(3)), Known::Nothing));
    }
}
