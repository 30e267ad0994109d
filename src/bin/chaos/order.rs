//! What can be said of calls of which one knows only when they were sent and when they were answered. Pure.

use std::fmt::Display;

/// From before a call was sent until after its answer was there, as two numbers of a count that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) sent: u64,
    pub(crate) back: u64,
}

/// What is wrong with values that grow in the order of the calls that gave them: the first one that is not above that of a call which was over before it was
/// sent. Of calls at the same time nothing is known.
pub(crate) fn overtaken<T: Ord + Copy + Display>(seen: &[(Span, T)], may_repeat: bool) -> Option<String> {
    let mut by_sending: Vec<_> = seen.iter().collect();
    by_sending.sort_by_key(|(span, _)| span.sent);
    let mut by_answer: Vec<_> = seen.iter().collect();
    by_answer.sort_by_key(|(span, _)| span.back);
    let mut over = by_answer.into_iter().peekable();
    let mut newest: Option<T> = None;
    for (span, value) in by_sending {
        while let Some((_, before)) = over.next_if(|(before, _)| before.back < span.sent) {
            newest = newest.max(Some(*before));
        }
        if let Some(newest) = newest.filter(|newest| newest > value || (newest == value && !may_repeat)) {
            return Some(format!("{value} came after {newest} was there"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_over_before_another_was_sent_comes_before_it_and_nothing_else_is_known() {
        let check = |seen: &[(u64, u64, u64)], may_repeat, is_right| {
            let seen: Vec<_> =
                seen.iter().map(|(sent, back, value)| (Span { sent: *sent, back: *back }, *value)).collect();
            assert_eq!(overtaken(&seen, may_repeat).is_none(), is_right, "{seen:?}");
        };
        check(&[(1, 2, 10), (3, 4, 11), (5, 6, 12)], false, true);
        check(&[(1, 2, 10), (3, 4, 9)], false, false);
        check(&[(1, 2, 10), (3, 4, 10)], false, false);
        check(&[(1, 2, 10), (3, 4, 10)], true, true);
        // At the same time: either may have been first.
        check(&[(1, 4, 10), (3, 6, 9)], false, true);
        // The one in the middle says nothing of the others, which are in the wrong order.
        check(&[(1, 2, 10), (1, 9, 1), (8, 9, 3)], false, false);
    }
}
