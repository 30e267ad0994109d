//! What a client knows of its files: plain bookkeeping, which shares nothing with the kernel.

use std::collections::BTreeMap;
use std::fmt;

use nexus::Bytes;

/// An entry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Dir,
    File(Bytes),
    Link(String),
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir => f.write_str("a directory"),
            Self::Link(target) => write!(f, "a link to {target}"),
            Self::File(content) => {
                write!(f, "{} bytes from {:02x?} on", content.len(), &content[..content.len().min(8)])
            }
        }
    }
}

/// All entries by their paths.
pub(crate) type Tree = BTreeMap<String, Node>;

/// What one call does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Makes the entry, or replaces the content of the file.
    Put(String, Node),
    /// Adds to the end of the file, which is made when it is missing.
    Append(String, Bytes),
    /// Writes into the file.
    At(String, usize, Bytes),
    /// Removes the entry and all below it.
    Remove(String),
    /// Moves the entry and all below it, over a file that is there.
    Move(String, String),
    /// Copies the file, over one that is there.
    Copy(String, String),
    /// All of them, or none.
    Together(Vec<Self>),
}

impl Effect {
    /// Has the effect on `tree`, in which it is possible.
    pub(crate) fn apply(&self, tree: &mut Tree) {
        match self {
            Self::Put(path, node) => drop(tree.insert(path.clone(), node.clone())),
            Self::Append(path, data) => {
                let old = content(tree, path);
                tree.insert(path.clone(), Node::File([old, data.to_vec()].concat().into()));
            }
            Self::At(path, at, data) => {
                let mut content = content(tree, path);
                content.resize(content.len().max(at + data.len()), 0);
                content[*at..at + data.len()].copy_from_slice(data);
                tree.insert(path.clone(), Node::File(content.into()));
            }
            Self::Remove(path) => tree.retain(|other, _| !is_within(other, path)),
            Self::Move(from, to) => {
                let moved: Vec<_> = tree.extract_if(.., |path, _| is_within(path, from)).collect();
                tree.extend(
                    moved.into_iter().map(|(path, node)| (format!("{to}{}", &path[from.len()..]), node)),
                );
            }
            Self::Copy(from, to) => {
                let node = tree[from].clone();
                tree.insert(to.clone(), node);
            }
            Self::Together(effects) => effects.iter().for_each(|effect| effect.apply(tree)),
        }
    }
}

/// Makes the directories on the way from `base` to all that is in the tree.
pub(crate) fn complete(tree: &mut Tree, base: &str) {
    let above = |path: &str| -> Vec<String> {
        let on_the_way = path.match_indices('/').map(|(end, _)| path[..end].to_owned());
        on_the_way.filter(|above| is_within(above, base)).collect()
    };
    let all: Vec<String> = tree.keys().flat_map(|path| above(path)).collect();
    for path in all {
        tree.entry(path).or_insert(Node::Dir);
    }
}

fn content(tree: &Tree, path: &str) -> Vec<u8> {
    match tree.get(path) {
        Some(Node::File(content)) => content.to_vec(),
        _ => Vec::new(),
    }
}

pub(crate) fn is_within(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Which of the effects, of which none concerns what another one does, led from `before` to `found`; what is wrong when none of them can have.
pub(crate) fn explain(before: &Tree, effects: &[&Effect], found: &Tree) -> Result<Vec<bool>, String> {
    for chosen in 0..1_u32 << effects.len() {
        let chosen: Vec<bool> = (0..effects.len()).map(|at| chosen >> at & 1 == 1).collect();
        let mut tree = before.clone();
        effects
            .iter()
            .zip(&chosen)
            .filter(|(_, chosen)| **chosen)
            .for_each(|(effect, _)| effect.apply(&mut tree));
        if tree == *found {
            return Ok(chosen);
        }
    }
    let paths = before.keys().chain(found.keys());
    let other: Vec<String> = paths
        .filter(|path| before.get(*path) != found.get(*path))
        .map(|path| format!("{path}: acknowledged {:?}, found {:?}", before.get(path), found.get(path)))
        .collect();
    Err(format!("{}\nof which is under way: {effects:?}", other.join("\n")))
}

/// What was acknowledged, as far as it is sure to be there.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// All that is on disk.
    pub(crate) sure: Tree,
    /// What was acknowledged before it was on disk, in the order in which it was sent; what stands together was sent at once.
    pub(crate) soon: Vec<Vec<Effect>>,
}

impl Books {
    /// Of what was sent at once this is on disk, and this is to be so soon. What was acknowledged before it was sent is on disk with the first of it.
    pub(crate) fn enter(&mut self, on_disk: Vec<Effect>, soon: Vec<Effect>) {
        if !on_disk.is_empty() {
            let before = self.soon.drain(..).flatten();
            before.chain(on_disk).for_each(|effect| effect.apply(&mut self.sure));
        }
        self.soon.push(soon);
    }

    /// How many are to be on disk soon.
    pub(crate) fn put_off(&self) -> usize {
        self.soon.iter().map(Vec::len).sum()
    }

    /// Which of `under_way`, which was sent with the last that was entered, was done, and how much of what was put off is lost: that is all after one of the changes.
    pub(crate) fn explain(&self, under_way: &[&Effect], found: &Tree) -> Result<(Vec<bool>, usize), String> {
        let mut base = self.sure.clone();
        let mut bases = Vec::new();
        for together in &self.soon {
            bases.push((base.clone(), together));
            together.iter().for_each(|effect| effect.apply(&mut base));
        }
        let mut after = 0;
        let mut wrong = None;
        for (n, (base, together)) in bases.iter().enumerate().rev() {
            let is_last = n + 1 == bases.len();
            let with = if is_last { under_way } else { &[] };
            let effects: Vec<&Effect> = together.iter().chain(with.iter().copied()).collect();
            match explain(base, &effects, found) {
                Ok(chosen) => {
                    let (kept, done) = chosen.split_at(together.len());
                    let lost = after + kept.iter().filter(|kept| !**kept).count();
                    let mut done = done.to_vec();
                    done.resize(under_way.len(), false);
                    return Ok((done, lost));
                }
                Err(what) => wrong = wrong.or(Some(what)),
            }
            after += together.len();
        }
        match wrong {
            Some(wrong) => Err(wrong),
            None => explain(&base, under_way, found).map(|done| (done, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &'static str)]) -> Tree {
        files.iter().map(|(path, text)| ((*path).to_owned(), Node::File(Bytes::from(*text)))).collect()
    }

    fn put(path: &str, text: &'static str) -> Effect {
        Effect::Put(path.into(), Node::File(Bytes::from(text)))
    }

    #[test]
    fn what_is_under_way_is_whole_or_not_at_all() {
        let before = tree(&[("/a", "one"), ("/b", "two")]);
        let both = Effect::Together(vec![put("/a", "ONE"), put("/b", "TWO")]);
        let check = |found: &[(&str, &'static str)], effects: &[&Effect]| {
            explain(&before, effects, &tree(found)).ok()
        };
        assert_eq!(check(&[("/a", "one"), ("/b", "two")], &[&both]), Some(vec![false]));
        assert_eq!(check(&[("/a", "ONE"), ("/b", "TWO")], &[&both]), Some(vec![true]));
        // Half of it, torn, lost, or what nobody asked for.
        assert_eq!(check(&[("/a", "ONE"), ("/b", "two")], &[&both]), None);
        assert_eq!(check(&[("/a", "ONe"), ("/b", "TWO")], &[&both]), None);
        assert_eq!(check(&[("/a", "one")], &[&both]), None);
        assert_eq!(check(&[("/a", "one"), ("/b", "two"), ("/c", "")], &[&both]), None);
        // Of several calls each is by itself.
        let each = [&put("/a", "ONE"), &put("/b", "TWO")];
        assert_eq!(check(&[("/a", "one"), ("/b", "TWO")], &each), Some(vec![false, true]));
    }

    #[test]
    fn what_is_made_again_has_the_directories_on_its_way() {
        let mut made = tree(&[("/c/a/b/f", "one"), ("/c/g", "two")]);
        complete(&mut made, "/c");
        let names: Vec<_> = made.keys().map(String::as_str).collect();
        assert_eq!(names, ["/c", "/c/a", "/c/a/b", "/c/a/b/f", "/c/g"]);
        assert!(made["/c/a"] == Node::Dir && made["/c/g"] == Node::File("two".into()));
    }

    #[test]
    fn of_what_was_put_off_the_last_may_be_lost_and_nothing_before_what_is_there() {
        let mut books = Books::default();
        books.enter(vec![put("/a", "1")], vec![put("/b", "1")]);
        books.enter(vec![], vec![put("/b", "2"), put("/c", "2")]);
        books.enter(vec![], vec![put("/d", "3")]);
        let last = put("/e", "4");
        let explain = |found: &[(&str, &'static str)]| books.explain(&[&last], &tree(found)).ok();
        assert_eq!(
            explain(&[("/a", "1"), ("/b", "2"), ("/c", "2"), ("/d", "3"), ("/e", "4")]),
            Some((vec![true], 0))
        );
        assert_eq!(explain(&[("/a", "1"), ("/b", "2"), ("/c", "2"), ("/e", "4")]), Some((vec![true], 1)));
        assert_eq!(explain(&[("/a", "1"), ("/b", "1"), ("/c", "2")]), Some((vec![false], 2)));
        assert_eq!(explain(&[("/a", "1")]), Some((vec![false], 4)));
        // What is on disk is lost, or something is there that came after what is not.
        assert_eq!(explain(&[("/b", "1")]), None);
        assert_eq!(explain(&[("/a", "1"), ("/b", "1"), ("/d", "3")]), None);
        assert_eq!(explain(&[("/a", "1"), ("/b", "1"), ("/e", "4")]), None);
        books.enter(vec![put("/f", "5")], vec![]);
        assert_eq!(books.explain(&[], &tree(&[("/a", "1"), ("/f", "5")])).ok(), None);
        assert_eq!(books.put_off(), 0);
    }

    #[test]
    fn a_move_takes_all_along_and_an_append_is_one() {
        let mut books = tree(&[("/d/x", "1"), ("/d/y/z", "2"), ("/dd", "3")]);
        Effect::Move("/d".into(), "/e".into()).apply(&mut books);
        Effect::Append("/dd".into(), "4".into()).apply(&mut books);
        Effect::At("/dd".into(), 3, "5".into()).apply(&mut books);
        assert_eq!(books, tree(&[("/dd", "34\x005"), ("/e/x", "1"), ("/e/y/z", "2")]));
    }
}
