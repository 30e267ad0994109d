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
    fn a_move_takes_all_along_and_an_append_is_one() {
        let mut books = tree(&[("/d/x", "1"), ("/d/y/z", "2"), ("/dd", "3")]);
        Effect::Move("/d".into(), "/e".into()).apply(&mut books);
        Effect::Append("/dd".into(), "4".into()).apply(&mut books);
        Effect::At("/dd".into(), 3, "5".into()).apply(&mut books);
        assert_eq!(books, tree(&[("/dd", "34\x005"), ("/e/x", "1"), ("/e/y/z", "2")]));
    }
}
