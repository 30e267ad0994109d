//! The queue of an actor: bounded, first come first served, and its places come back when a message is withdrawn.
//!
//! Synchronous and without a clock; the cell holds the lock around it.

use std::collections::VecDeque;
use std::time::Instant;

/// Callers that may wait for room in one mailbox; one more is refused at once.
pub(crate) const CALLERS_WAITING_MAX: usize = 65_536;

/// How much a mailbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxBounds {
    /// Messages queued at once, and messages in progress at once. At least one.
    pub messages: usize,
}

impl Default for MailboxBounds {
    fn default() -> Self {
        MailboxBounds { messages: 1024 }
    }
}

/// What is queued, and by when it must have begun.
struct Entry<T> {
    seq: u64,
    deadline: Option<Instant>,
    item: T,
}

pub(crate) struct Mailbox<T> {
    bound: usize,
    /// Served first and not counted: exits and the like, whose senders bound them, and what was given back. With the time
    /// by which it must have begun.
    signals: VecDeque<(T, Option<Instant>)>,
    /// Invariant: at most `bound` long, ordered by `seq`, and shorter only while `waiting` is empty.
    queue: VecDeque<Entry<T>>,
    /// Messages of callers that wait for room. Invariant: ordered by `seq`, all later than those in `queue`.
    waiting: VecDeque<Entry<T>>,
    next_seq: u64,
}

/// No room; the message is given back.
pub(crate) struct Full<T>(pub(crate) T);

impl<T> Mailbox<T> {
    pub(crate) fn new(bounds: MailboxBounds) -> Self {
        Mailbox {
            bound: bounds.messages.max(1),
            signals: VecDeque::new(),
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            next_seq: 0,
        }
    }

    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn callers_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn signal(&mut self, item: T) {
        self.signals.push_back((item, None));
    }

    /// Takes back what `pop` gave, to be given again before all else. Its number is void.
    pub(crate) fn give_back(&mut self, item: T, deadline: Option<Instant>) {
        self.signals.push_front((item, deadline));
    }

    /// Queues `item`; its number is for `withdraw`. Without room a patient one waits for some.
    pub(crate) fn push(&mut self, item: T, deadline: Option<Instant>, patient: bool) -> Result<u64, Full<T>> {
        let lane = if self.queue.len() < self.bound {
            &mut self.queue
        } else if patient && self.waiting.len() < CALLERS_WAITING_MAX {
            &mut self.waiting
        } else {
            return Err(Full(item));
        };
        self.next_seq += 1;
        lane.push_back(Entry { seq: self.next_seq, deadline, item });
        Ok(self.next_seq)
    }

    /// The next message and its deadline. Who waited longest for room gets the place.
    #[inline(always)] // The warm path of serving.
    pub(crate) fn pop(&mut self) -> Option<(T, Option<Instant>)> {
        if let Some(signal) = self.signals.pop_front() {
            return Some(signal);
        }
        let Entry { item, deadline, .. } = self.queue.pop_front()?;
        if !self.waiting.is_empty() {
            self.admit();
        }
        Some((item, deadline))
    }

    /// Takes back the message with this number.
    pub(crate) fn withdraw(&mut self, seq: u64) -> Option<T> {
        let taken = [&mut self.queue, &mut self.waiting].into_iter().find_map(|lane| {
            let at = lane.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
            lane.remove(at)
        });
        self.admit();
        Some(taken?.item)
    }

    /// Takes out all whose deadline has passed, and says the earliest deadline of the others.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<T>, Option<Instant>) {
        let mut expired = Vec::new();
        let mut earliest: Option<Instant> = None;
        for (item, deadline) in std::mem::take(&mut self.signals) {
            if deadline.is_some_and(|d| d <= now) {
                expired.push(item);
            } else {
                earliest = deadline.into_iter().chain(earliest).min();
                self.signals.push_back((item, deadline));
            }
        }
        for lane in [&mut self.queue, &mut self.waiting] {
            let due = |entry: &Entry<T>| entry.deadline.is_some_and(|d| d <= now);
            if lane.iter().any(due) {
                let (out, kept) = std::mem::take(lane).into_iter().partition::<Vec<_>, _>(due);
                expired.extend(out.into_iter().map(|entry| entry.item));
                *lane = kept.into();
            }
            earliest = lane.iter().filter_map(|entry| entry.deadline).chain(earliest).min();
        }
        self.admit();
        (expired, earliest)
    }

    /// How many of those that are bounded, of which signals are none, are such as `is` says.
    pub(crate) fn count(&self, is: impl Fn(&T) -> bool) -> usize {
        self.queue.iter().chain(&self.waiting).filter(|entry| is(&entry.item)).count()
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) -> Vec<T> {
        let signals = std::mem::take(&mut self.signals).into_iter().map(|(item, _)| item);
        let entries = std::mem::take(&mut self.queue).into_iter().chain(std::mem::take(&mut self.waiting));
        signals.chain(entries.map(|entry| entry.item)).collect()
    }

    fn admit(&mut self) {
        while self.queue.len() < self.bound
            && let Some(entry) = self.waiting.pop_front()
        {
            self.queue.push_back(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Op {
        Push { patient: bool, deadline: Option<u64> },
        Pop,
        PopAndGiveBack,
        Withdraw(usize),
        Expire(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (any::<bool>(), prop::option::of(0_u64..50))
                .prop_map(|(patient, deadline)| Op::Push { patient, deadline }),
            2 => Just(Op::Pop),
            1 => Just(Op::PopAndGiveBack),
            1 => (0_usize..40).prop_map(Op::Withdraw),
            1 => (0_u64..50).prop_map(Op::Expire),
        ]
    }

    proptest! {
        /// The model is one list; what was given back goes before it, and the first `bound` of it are the queue.
        #[test]
        fn it_agrees_with_one_plain_list(bound in 1_usize..5, ops in prop::collection::vec(op(), 1..80)) {
            #[expect(clippy::disallowed_methods, reason = "any time will do")]
            let zero = Instant::now();
            let at = |ms: u64| zero + Duration::from_millis(ms);
            let mut mailbox = Mailbox::new(MailboxBounds { messages: bound });
            let mut model: Vec<(u64, Option<u64>)> = Vec::new();
            let mut given_back: Option<Option<u64>> = None;
            for (n, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Push { patient, deadline } => {
                        let pushed = mailbox.push(n, deadline.map(at), patient);
                        prop_assert_eq!(pushed.is_ok(), patient || model.len() < bound);
                        if let Ok(seq) = pushed {
                            model.push((seq, deadline));
                        }
                    }
                    Op::Pop | Op::PopAndGiveBack => {
                        let expected = match given_back.take() {
                            Some(deadline) => Some(deadline),
                            None if model.is_empty() => None,
                            None => Some(model.remove(0).1),
                        };
                        let popped = mailbox.pop();
                        prop_assert_eq!(popped.map(|(_, deadline)| deadline), expected.map(|d| d.map(at)));
                        if let (Op::PopAndGiveBack, Some((item, deadline))) = (op, popped) {
                            mailbox.give_back(item, deadline);
                            given_back = expected;
                        }
                    }
                    Op::Withdraw(which) => {
                        let seq = model.get(which).map_or(u64::MAX, |(seq, _)| *seq);
                        let known = model.iter().any(|(s, _)| *s == seq);
                        model.retain(|(s, _)| *s != seq);
                        prop_assert_eq!(mailbox.withdraw(seq).is_some(), known);
                    }
                    Op::Expire(now) => {
                        let kept = |deadline: &Option<u64>| deadline.is_none_or(|d| d > now);
                        let before = model.len() + usize::from(given_back.is_some());
                        model.retain(|(_, deadline)| kept(deadline));
                        given_back = given_back.filter(kept);
                        let after = model.len() + usize::from(given_back.is_some());
                        let (expired, earliest) = mailbox.expire(at(now));
                        prop_assert_eq!(expired.len(), before - after);
                        let all = model.iter().map(|(_, d)| *d).chain(given_back);
                        prop_assert_eq!(earliest, all.flatten().min().map(at));
                    }
                }
                prop_assert_eq!(mailbox.queued(), model.len().min(bound));
                prop_assert_eq!(mailbox.callers_waiting(), model.len().saturating_sub(bound));
            }
        }
    }
}
