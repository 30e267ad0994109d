//! Who waits for whom, in circles.
//!
//! The nodes are those who ask: an agent in one of its lives, with one of its activities. Whoever waits has an edge to each who holds what it waits for, and to who waits before it. In
//! a circle of such edges nobody is ever served; the youngest wait of it is refused, and the search goes on without it, until there is no circle any more. Who
//! waits for itself is left alone: another task of it may be about to release what it holds.
//!
//! Who waits for one of several places is served by whoever gives one back first. So its edges count only while all who hold one are caught. Nobody is who has no edge to somebody
//! that is: those are let go of first, one after the other, and from each who is left edges lead on among those, and so into a circle. The circle that is broken is one from which no
//! edge leads to where it could not be come from: nothing that becomes free elsewhere would have broken it.

use std::collections::HashMap;
use std::sync::Arc;

use nexus_messages::LifeId;

use crate::semaphore::places::Owner;
use crate::semaphore::table::Wait;

/// How many circles one look finds: what is locked while they are told apart is not locked for long. The next look finds the others.
pub(super) const CIRCLES_MAX: usize = 64;

type Node = (LifeId, Arc<str>, u64);

fn node(owner: &Owner) -> Node {
    (owner.life, owner.agent.clone(), owner.session)
}

/// The waits that are to be refused, by their numbers, each with its circle: who waits, for whom, and so on; the last waits for the first. At most [`CIRCLES_MAX`].
pub(super) fn circles<K>(waits: &[Wait<K>]) -> Vec<(u64, Vec<Owner>)> {
    let mut graph = Graph::new(waits);
    let mut refused = Vec::new();
    while refused.len() < CIRCLES_MAX
        && let Some(circle) = graph.circle()
        && let Some(youngest) = (0..circle.len()).max_by_key(|at| waits[circle[*at]].number)
    {
        let told = circle[youngest..].iter().chain(&circle[..youngest]);
        let told = told.map(|wait| waits[*wait].owner.clone()).collect();
        refused.push((waits[circle[youngest]].number, told));
        graph.leave(circle[youngest]);
    }
    refused
}

/// Those who wait, as far as they are caught.
struct Graph {
    askers: Vec<Asker>,
    /// In the order of the waits.
    edges: Vec<Edges>,
}

struct Asker {
    waits: Vec<usize>,
    /// The edges to it: of which waits, and whether as one of several.
    awaited: Vec<(usize, bool)>,
    /// How many of its edges lead to somebody who is caught; those to one of several count as one. It is caught while there is any.
    caught_by: usize,
}

/// The edges of a wait, but for those to who does not wait, and to itself.
struct Edges {
    asker: usize,
    /// Each of these is in the way.
    all: Vec<usize>,
    /// These are in the way together; none once one of them is not caught.
    one_of: Vec<usize>,
    has_left: bool,
}

impl Graph {
    fn new<K>(waits: &[Wait<K>]) -> Self {
        let mut numbers: HashMap<Node, usize> = HashMap::new();
        let mut askers: Vec<Asker> = Vec::new();
        let mut of_waits = Vec::with_capacity(waits.len());
        for (at, wait) in waits.iter().enumerate() {
            let number = *numbers.entry(node(&wait.owner)).or_insert_with(|| {
                askers.push(Asker { waits: Vec::new(), awaited: Vec::new(), caught_by: 0 });
                askers.len() - 1
            });
            askers[number].waits.push(at);
            of_waits.push(number);
        }
        let mut edges = Vec::with_capacity(waits.len());
        for (at, wait) in waits.iter().enumerate() {
            let asker = of_waits[at];
            let caught = |owner: &Owner| numbers.get(&node(owner)).copied().filter(|other| *other != asker);
            let all: Vec<usize> = wait.blockers.iter().filter_map(caught).collect();
            let one_of: Option<Vec<usize>> = wait.one_of.iter().map(caught).collect();
            let one_of = one_of.unwrap_or_default();
            askers[asker].caught_by += all.len() + usize::from(!one_of.is_empty());
            all.iter().for_each(|other| askers[*other].awaited.push((at, false)));
            one_of.iter().for_each(|other| askers[*other].awaited.push((at, true)));
            edges.push(Edges { asker, all, one_of, has_left: false });
        }
        let mut graph = Self { askers, edges };
        let free = (0..graph.askers.len()).filter(|asker| !graph.is_caught(*asker)).collect();
        graph.let_go(free);
        graph
    }

    fn is_caught(&self, asker: usize) -> bool {
        self.askers[asker].caught_by > 0
    }

    /// Takes back what those who are not caught any more stood in the way of.
    fn let_go(&mut self, mut free: Vec<usize>) {
        while let Some(gone) = free.pop() {
            for (at, is_one_of_several) in std::mem::take(&mut self.askers[gone].awaited) {
                let edges = &mut self.edges[at];
                let counts = match is_one_of_several {
                    // The first who may give a place back is enough.
                    true => !std::mem::take(&mut edges.one_of).is_empty(),
                    false => !edges.has_left,
                };
                let asker = edges.asker;
                if counts && self.lose(asker, 1) {
                    free.push(asker);
                }
            }
        }
    }

    /// Takes so many edges from `asker`; says whether it is let go of by that.
    fn lose(&mut self, asker: usize, edges: usize) -> bool {
        let asker = &mut self.askers[asker];
        let was_caught = asker.caught_by > 0;
        asker.caught_by -= edges;
        was_caught && asker.caught_by == 0
    }

    /// Goes on without a wait.
    fn leave(&mut self, wait: usize) {
        let edges = &mut self.edges[wait];
        edges.has_left = true;
        let (asker, all) = (edges.asker, std::mem::take(&mut edges.all));
        let together = usize::from(!std::mem::take(&mut edges.one_of).is_empty());
        let caught = all.iter().filter(|other| self.is_caught(**other)).count();
        if self.lose(asker, caught + together) {
            self.let_go(vec![asker]);
        }
    }

    /// The waits of one circle, each for the owner of the next.
    fn circle(&self) -> Option<Vec<usize>> {
        let (mut way, mut places) = (Vec::new(), HashMap::new());
        let mut asker = self.last_root()?;
        loop {
            if let Some(from) = places.insert(asker, way.len()) {
                return Some(way.split_off(from));
            }
            let (wait, next) = self.next(asker)?;
            way.push(wait);
            asker = next;
        }
    }

    /// Somebody who is caught, and can be come from wherever edges lead from there. When all are looked at from whom somebody is come to, one after the other but for those who were looked
    /// at before, that is the one with whom it begins for the last time: an edge away from there leads to somebody who was looked at then, or with whom it would have begun later.
    fn last_root(&self) -> Option<usize> {
        let mut seen = vec![false; self.askers.len()];
        let mut last = None;
        // From behind: of circles that are apart the first is found.
        for root in (0..self.askers.len()).rev().filter(|asker| self.is_caught(*asker)) {
            if seen[root] {
                continue;
            }
            last = Some(root);
            seen[root] = true;
            let mut left = vec![root];
            while let Some(asker) = left.pop() {
                for (at, is_one_of_several) in &self.askers[asker].awaited {
                    let edges = &self.edges[*at];
                    let counts = !(edges.has_left || *is_one_of_several && edges.one_of.is_empty());
                    if counts && self.is_caught(edges.asker) && !seen[edges.asker] {
                        seen[edges.asker] = true;
                        left.push(edges.asker);
                    }
                }
            }
        }
        last
    }

    /// Somebody who is caught and stands in the way of one who is, and by which wait.
    fn next(&self, asker: usize) -> Option<(usize, usize)> {
        self.askers[asker].waits.iter().find_map(|wait| {
            let edges = &self.edges[*wait];
            let caught = edges.all.iter().find(|other| self.is_caught(**other));
            caught.or(edges.one_of.first()).map(|other| (*wait, *other))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(life: u64) -> Owner {
        Owner::new(format!("agent-{life}").into(), LifeId(life), 0)
    }

    /// Waits as (number, who, for whom); what is refused, and the circles.
    fn check(waits: &[(u64, u64, &[u64])], expected: &[(u64, &[u64])]) {
        let waits: Vec<Wait<()>> = waits
            .iter()
            .map(|(number, who, whom)| Wait {
                key: (),
                number: *number,
                owner: owner(*who),
                blockers: whom.iter().copied().map(owner).collect(),
                one_of: Vec::new(),
            })
            .collect();
        check_waits(&waits, expected);
    }

    /// As [`check`], of waits as (number, who, for whom, for one of whom).
    fn check_places(waits: &[(u64, u64, &[u64], &[u64])], expected: &[(u64, &[u64])]) {
        let owners = |whom: &[u64]| whom.iter().copied().map(owner).collect();
        let waits: Vec<Wait<()>> = waits
            .iter()
            .map(|(number, who, whom, one_of)| Wait {
                key: (),
                number: *number,
                owner: owner(*who),
                blockers: owners(whom),
                one_of: owners(one_of),
            })
            .collect();
        check_waits(&waits, expected);
    }

    fn check_waits(waits: &[Wait<()>], expected: &[(u64, &[u64])]) {
        let found = circles(waits);
        let found: Vec<(u64, Vec<u64>)> = found
            .into_iter()
            .map(|(number, circle)| (number, circle.iter().map(|owner| owner.life.0).collect()))
            .collect();
        let expected: Vec<(u64, Vec<u64>)> =
            expected.iter().map(|(number, circle)| (*number, circle.to_vec())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_youngest_wait_of_each_circle_is_refused() {
        check(&[(1, 1, &[2]), (2, 2, &[1])], &[(2, &[2, 1])]);
        check(&[(7, 1, &[2]), (3, 2, &[3]), (5, 3, &[1])], &[(7, &[1, 2, 3])]);
        check(
            &[(1, 1, &[2]), (2, 2, &[1]), (3, 3, &[4]), (4, 4, &[3]), (5, 5, &[1])],
            &[(2, &[2, 1]), (4, &[4, 3])],
        );
    }

    #[test]
    fn chains_lines_and_who_waits_for_itself_are_left_alone() {
        check(&[], &[]);
        check(&[(1, 1, &[2]), (2, 2, &[3])], &[]);
        check(&[(1, 1, &[1])], &[]);
        check(&[(1, 1, &[1]), (2, 1, &[1])], &[]);
        check(&[(1, 2, &[1]), (2, 3, &[2, 1]), (3, 4, &[3, 1])], &[]);
    }

    #[test]
    fn a_circle_through_one_of_several_waits_and_blockers_is_found() {
        check(&[(1, 1, &[9]), (2, 1, &[8, 2]), (3, 2, &[7, 1])], &[(3, &[2, 1])]);
        // Two circles through one wait: without it there is none.
        check(&[(1, 1, &[3]), (2, 2, &[3]), (3, 3, &[1, 2])], &[(3, &[3, 1])]);
    }

    #[test]
    fn a_thousand_in_a_line_are_no_circle() {
        let waits: Vec<Wait<()>> = (1..=1_000)
            .map(|at| Wait {
                key: (),
                number: at,
                owner: owner(at),
                blockers: vec![owner(at - 1)],
                one_of: Vec::new(),
            })
            .collect();
        assert!(circles(&waits).is_empty());
    }

    #[test]
    fn who_waits_for_one_of_several_is_in_a_circle_when_all_of_them_are_caught() {
        // 1 and 3 hold a place each, and 3 waits for nothing.
        check_places(&[(1, 1, &[2], &[]), (2, 2, &[], &[1, 3])], &[]);
        check_places(&[(1, 1, &[2], &[]), (2, 2, &[], &[1, 3]), (3, 3, &[2], &[])], &[(2, &[2, 1])]);
        // 3 waits for somebody who will go on.
        check_places(&[(1, 1, &[2], &[]), (2, 2, &[], &[1, 3]), (3, 3, &[4], &[])], &[]);
        // 3 is in a circle of its own: when that is broken, 2 will have its place.
        let own = [(1, 1, &[2][..], &[][..]), (2, 2, &[], &[1, 3]), (3, 3, &[4], &[]), (4, 4, &[3], &[])];
        check_places(&own, &[(4, &[4, 3])]);
        // Also when it is in one by waiting for one of several.
        let several = [
            (1, 1, &[2][..], &[][..]),
            (2, 2, &[], &[1, 3]),
            (3, 3, &[], &[4, 5]),
            (4, 4, &[3], &[]),
            (5, 5, &[3], &[]),
        ];
        check_places(&several, &[(4, &[4, 3])]);
        // The circle that is broken is the one that all of them end in, whichever was met first.
        let behind = [(1, 3, &[4][..], &[][..]), (2, 4, &[3], &[]), (3, 1, &[2], &[]), (4, 2, &[], &[1, 3])];
        check_places(&behind, &[(2, &[4, 3])]);
        // One who has a place itself may give that back.
        check_places(&[(1, 1, &[2], &[]), (2, 2, &[], &[1, 2])], &[]);
        // The same as often as it has places.
        check_places(&[(1, 1, &[2], &[]), (2, 2, &[], &[1, 1])], &[(2, &[2, 1])]);
        // Who stands behind it in its line waits for it.
        check_places(&[(1, 1, &[5], &[]), (2, 2, &[], &[1, 3]), (5, 5, &[2], &[])], &[]);
        check_places(&[(1, 1, &[5], &[1]), (2, 2, &[], &[1]), (5, 5, &[2], &[])], &[(5, &[5, 2, 1])]);
    }

    #[test]
    fn one_look_finds_so_many_circles_and_the_next_one_the_others() {
        let pair = |at: u64| {
            let wait = |number, who, whom| Wait {
                key: (),
                number,
                owner: owner(who),
                blockers: vec![owner(whom), owner(whom)],
                one_of: Vec::new(),
            };
            [wait(2 * at, 2 * at, 2 * at + 1), wait(2 * at + 1, 2 * at + 1, 2 * at)]
        };
        let mut waits: Vec<Wait<()>> = (0..CIRCLES_MAX as u64 + 3).flat_map(pair).collect();
        let found = circles(&waits);
        assert_eq!(found.len(), CIRCLES_MAX);
        waits.retain(|wait| found.iter().all(|(number, _)| *number != wait.number));
        assert_eq!(circles(&waits).len(), 3);
    }
}
