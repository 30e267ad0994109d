//! What clients do, chosen by a seed.

use nexus::Bytes;

use crate::books::{Effect, Node, Tree, is_within};

/// Directories of a client beside its own, at most.
const DIRS_MAX: usize = 8;

/// Names of files in a directory.
const FILES: u64 = 10;

/// Calls that are under way at once, at most. None concerns what another one does.
pub(crate) const TOGETHER_MAX: u64 = 5;

/// Files of a transaction that is made to fill the log, each of the most bytes that are kept with a row.
const HEAVY_FILES: u64 = 48;
const HEAVY_BYTES: u64 = 16 << 10;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(usize::try_from(self.below(of.len() as u64)).ok()?) }
    }

    /// Bytes of which no part is in any other content.
    pub(crate) fn content(&mut self, length: u64) -> Bytes {
        let mut words = Self(self.next());
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| words.next().to_le_bytes()).collect();
        bytes.truncate(usize::try_from(length).expect("it is in memory"));
        bytes.into()
    }
}

/// What the client whose directory is `base` does next. With `heavy` it fills the log.
pub(crate) fn next(random: &mut Random, tree: &Tree, base: &str, heavy: bool) -> Vec<Effect> {
    if !tree.contains_key(base) {
        return vec![Effect::Put(base.into(), Node::Dir)];
    }
    if heavy && random.below(3) > 0 {
        let files = (0..HEAVY_FILES).map(|n| {
            let length = HEAVY_BYTES - random.below(9);
            Effect::Put(format!("{base}/h{n}"), Node::File(random.content(length)))
        });
        return vec![Effect::Together(files.collect())];
    }
    if random.below(16) < 6 {
        let mut effects: Vec<Effect> = Vec::new();
        for _ in 0..=random.below(TOGETHER_MAX) {
            let effect = on_a_file(random, tree, base);
            if effects.iter().all(|other| path_of(other) != path_of(&effect)) {
                effects.push(effect);
            }
        }
        return effects;
    }
    vec![alone(random, tree, base)]
}

/// The one path of an effect on a file.
fn path_of(effect: &Effect) -> Option<&str> {
    match effect {
        Effect::Put(path, _) | Effect::Append(path, _) | Effect::At(path, ..) | Effect::Remove(path) => {
            Some(path)
        }
        Effect::Move(..) | Effect::Copy(..) | Effect::Together(_) => None,
    }
}

fn of_kind(tree: &Tree, is: impl Fn(&Node) -> bool) -> Vec<&str> {
    tree.iter().filter(|(_, node)| is(node)).map(|(path, _)| path.as_str()).collect()
}

fn files(tree: &Tree) -> Vec<&str> {
    of_kind(tree, |node| matches!(node, Node::File(_)))
}

/// A file that is there or not; what is named so is nothing else.
fn a_file(random: &mut Random, tree: &Tree, base: &str) -> String {
    let dirs = of_kind(tree, |node| *node == Node::Dir);
    let dir = random.pick(&dirs).copied().unwrap_or(base);
    format!("{dir}/f{}", random.below(FILES))
}

fn on_a_file(random: &mut Random, tree: &Tree, base: &str) -> Effect {
    let there = files(tree);
    match (random.below(10), random.pick(&there)) {
        (0, Some(path)) => Effect::Remove((*path).into()),
        (1..=3, Some(path)) => Effect::Append((*path).into(), small(random)),
        (4, Some(path)) => {
            let Some(Node::File(content)) = tree.get(*path) else { unreachable!("it is a file") };
            let at = random.below(content.len() as u64 + 9);
            Effect::At((*path).into(), usize::try_from(at).expect("it is in memory"), small(random))
        }
        _ => Effect::Put(a_file(random, tree, base), Node::File(small(random))),
    }
}

fn small(random: &mut Random) -> Bytes {
    let most = if random.below(4) == 0 { 12_000 } else { 900 };
    let length = 1 + random.below(most);
    random.content(length)
}

fn alone(random: &mut Random, tree: &Tree, base: &str) -> Effect {
    let there = files(tree);
    let dirs: Vec<&str> = of_kind(tree, |node| *node == Node::Dir);
    let own: Vec<&str> = dirs.iter().copied().filter(|dir| *dir != base).collect();
    let into = random.pick(&dirs).copied().unwrap_or(base).to_owned();
    let number = random.below(FILES);
    match random.below(14) {
        // In a segment file, and in chunks.
        0 | 1 => {
            let length = 17_000 + random.below(400_000);
            Effect::Put(a_file(random, tree, base), Node::File(random.content(length)))
        }
        2 => {
            let length = (1 << 20) + random.below(1_200_000);
            Effect::Put(a_file(random, tree, base), Node::File(random.content(length)))
        }
        3 | 4 if dirs.len() < DIRS_MAX && !tree.contains_key(&format!("{into}/d{number}")) => {
            Effect::Put(format!("{into}/d{number}"), Node::Dir)
        }
        5 if !tree.contains_key(&format!("{into}/l{number}")) => {
            Effect::Put(format!("{into}/l{number}"), Node::Link(format!("../{}", random.next())))
        }
        6 | 7 if !there.is_empty() => {
            let from = (*random.pick(&there).expect("there is one")).to_owned();
            let to = a_file(random, tree, base);
            if from == to { on_a_file(random, tree, base) } else { Effect::Move(from, to) }
        }
        8 if !own.is_empty() => {
            let from = (*random.pick(&own).expect("there is one")).to_owned();
            let to = format!("{into}/d{number}");
            if is_within(&to, &from) || tree.contains_key(&to) {
                return on_a_file(random, tree, base);
            }
            Effect::Move(from, to)
        }
        9 if !own.is_empty() && random.below(3) == 0 => {
            Effect::Remove((*random.pick(&own).expect("there is one")).to_owned())
        }
        10 if !there.is_empty() => {
            let from = (*random.pick(&there).expect("there is one")).to_owned();
            let to = a_file(random, tree, base);
            if from == to { on_a_file(random, tree, base) } else { Effect::Copy(from, to) }
        }
        11..=13 => {
            let (mut after, mut effects) = (tree.clone(), Vec::new());
            for _ in 0..2 + random.below(4) {
                let effect = match random.below(3) {
                    0 => alone(random, &after, base),
                    _ => on_a_file(random, &after, base),
                };
                // What a transaction can have in it.
                if !matches!(effect, Effect::Together(_) | Effect::Copy(..)) {
                    effect.apply(&mut after);
                    effects.push(effect);
                }
            }
            if effects.is_empty() { on_a_file(random, tree, base) } else { Effect::Together(effects) }
        }
        _ => on_a_file(random, tree, base),
    }
}
