//! Who waits for whom, in circles.
//!
//! The nodes are those who ask: an agent in one of its lives, with one of its activities. Whoever waits has an edge to each who holds what it waits for, and to who waits before it. In
//! a circle of such edges nobody is ever served; the youngest wait of it is refused, and the search goes on without it, until there is no circle any more. Who
//! waits for itself is left alone: another task of it may be about to release what it holds.

use std::collections::HashMap;
use std::sync::Arc;

use nexus_messages::LifeId;

use crate::semaphore::places::Owner;
use crate::semaphore::table::Wait;

type Node = (LifeId, Arc<str>, u64);

fn node(owner: &Owner) -> Node {
    (owner.life, owner.agent.clone(), owner.session)
}

/// The waits that are to be refused, by their numbers, each with its circle: who waits, for whom, and so on; the last waits for the first.
pub(super) fn circles<K>(waits: &[Wait<K>]) -> Vec<(u64, Vec<Owner>)> {
    let mut refused: Vec<(u64, Vec<Owner>)> = Vec::new();
    loop {
        let mut left: HashMap<Node, Vec<&Wait<K>>> = HashMap::new();
        for wait in waits.iter().filter(|wait| refused.iter().all(|(number, _)| *number != wait.number)) {
            left.entry(node(&wait.owner)).or_default().push(wait);
        }
        let Some(circle) = one_circle(waits, &left) else { return refused };
        let Some(youngest) = circle.iter().map(|wait| wait.number).max() else { return refused };
        let at = circle.iter().position(|wait| wait.number == youngest).unwrap_or_default();
        let told = circle[at..].iter().chain(&circle[..at]).map(|wait| wait.owner.clone()).collect();
        refused.push((youngest, told));
    }
}

/// The waits of one circle, each for the owner of the next.
fn one_circle<'w, K>(
    waits: &'w [Wait<K>],
    left: &HashMap<Node, Vec<&'w Wait<K>>>,
) -> Option<Vec<&'w Wait<K>>> {
    // The waits of a node, and how far each was followed: those behind are done with, those on the stack are the way.
    let mut done: HashMap<Node, bool> = HashMap::new();
    for start in waits.iter().map(|wait| node(&wait.owner)) {
        if done.contains_key(&start) || !left.contains_key(&start) {
            continue;
        }
        let mut way: Vec<Step<'w, K>> = vec![Step::new(start.clone())];
        done.insert(start, false);
        while let Some(step) = way.last_mut() {
            let Some((wait, next)) = step.next(left) else {
                done.insert(step.node.clone(), true);
                way.pop();
                continue;
            };
            if next == step.node || !left.contains_key(&next) {
                continue;
            }
            match done.get(&next) {
                Some(true) => {}
                Some(false) => {
                    step.by = Some(wait);
                    let from = way.iter().position(|step| step.node == next)?;
                    return way[from..].iter().map(|step| step.by).collect();
                }
                None => {
                    step.by = Some(wait);
                    done.insert(next.clone(), false);
                    way.push(Step::new(next));
                }
            }
        }
    }
    None
}

/// A node on the way, and how far it was looked at.
struct Step<'w, K> {
    node: Node,
    wait: usize,
    blocker: usize,
    /// The wait by which the way goes on.
    by: Option<&'w Wait<K>>,
}

impl<'w, K> Step<'w, K> {
    fn new(node: Node) -> Self {
        Self { node, wait: 0, blocker: 0, by: None }
    }

    /// The next edge.
    fn next(&mut self, left: &HashMap<Node, Vec<&'w Wait<K>>>) -> Option<(&'w Wait<K>, Node)> {
        let waits = left.get(&self.node)?;
        while let Some(wait) = waits.get(self.wait) {
            if let Some(blocker) = wait.blockers.get(self.blocker) {
                self.blocker += 1;
                return Some((wait, node(blocker)));
            }
            (self.wait, self.blocker) = (self.wait + 1, 0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(life: u64) -> Owner {
        Owner { agent: format!("agent-{life}").into(), life: LifeId(life), session: 0 }
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
            })
            .collect();
        let found = circles(&waits);
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
            .map(|at| Wait { key: (), number: at, owner: owner(at), blockers: vec![owner(at - 1)] })
            .collect();
        assert!(circles(&waits).is_empty());
    }
}
