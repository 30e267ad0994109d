//! Completion of command names and paths.

use nexus::syscall::SysReaddir;
use nexus::{Nexus, VPath};
use nexus_actors::block_on;
use rustyline::completion::{Completer, Pair, Quote, escape, extract_word, unescape};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::commands;
use crate::listing::Pages;

/// How many paths are offered at most.
const OFFERS_MAX: usize = 1_000;

const ESCAPE: Option<char> = Some('\\');

/// Completes the word before the cursor: the first one to a command, others to a path.
pub(super) struct PathCompletion {
    nx: Nexus,
    commands: Vec<String>,
}

impl PathCompletion {
    pub(super) fn new(nx: Nexus) -> Self {
        Self { nx, commands: commands() }
    }
}

/// What ends a word when it is not escaped.
fn ends_word(letter: char) -> bool {
    matches!(
        letter,
        ' ' | '\t'
            | '\''
            | '"'
            | '\\'
            | '#'
            | '&'
            | '('
            | ')'
            | '*'
            | ';'
            | '<'
            | '>'
            | '?'
            | '|'
            | '$'
            | '`'
    )
}

impl Completer for PathCompletion {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, word) = extract_word(line, at, ESCAPE, ends_word);
        if line[..start].trim().is_empty() {
            let fitting = self.commands.iter().filter(|name| name.starts_with(word));
            let pairs = fitting.map(|name| Pair { display: name.clone(), replacement: format!("{name} ") });
            return Ok((start, pairs.collect()));
        }
        let typed = unescape(word, ESCAPE);
        let offers = block_on(offers(&self.nx, &typed));
        let pairs = offers.into_iter().map(|path| Pair {
            display: path.trim_end_matches('/').rsplit('/').next().unwrap_or(&path).to_owned(),
            replacement: escape(path, ESCAPE, ends_word, Quote::None),
        });
        Ok((start, pairs.collect()))
    }
}

/// The paths that begin with what was typed, directories with a slash at the end. None when they cannot be listed.
async fn offers(nx: &Nexus, typed: &str) -> Vec<String> {
    let Some((folder, prefix)) = typed.rsplit_once('/') else { return Vec::new() };
    let Ok(at) = VPath::parse(if folder.is_empty() { "/" } else { folder }) else { return Vec::new() };
    let mut pages = Pages::new(nx, SysReaddir::at(&at));
    let mut offers = Vec::new();
    while let Ok(Some(entries)) = pages.next().await {
        for entry in entries {
            let name = entry.name();
            if name.starts_with(prefix) && offers.len() < OFFERS_MAX {
                let slash = if entry.entry_type.is_directory() { "/" } else { "" };
                offers.push(format!("{folder}/{name}{slash}"));
            } else if name > prefix {
                // Names are ordered, so all that fit have been seen.
                return offers;
            }
        }
    }
    offers
}

impl Hinter for PathCompletion {
    type Hint = String;
}

impl Highlighter for PathCompletion {}

impl Validator for PathCompletion {}

impl Helper for PathCompletion {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_completed_from_the_kernel() {
        let done = block_on(Box::pin(async {
            let nx = nexus::connect(nexus::Config::in_memory()).await?;
            for path in ["/src/main.rs", "/src/map.rs", "/src/main/x", "/srv", "/odd name"] {
                nx.write(path, "").await?;
            }
            let check = async |typed: &str, expected: &[&str]| {
                assert_eq!(offers(&nx, typed).await, expected, "{typed:?}");
            };
            check("/src/ma", &["/src/main/", "/src/main.rs", "/src/map.rs"]).await;
            check("/src/main.", &["/src/main.rs"]).await;
            check("/s", &["/src/", "/srv"]).await;
            check("/o", &["/odd name"]).await;
            check("/nowhere/x", &[]).await;
            check("src", &[]).await;
            nx.shutdown().await
        }));
        done.unwrap();
    }

    #[test]
    fn odd_names_are_escaped() {
        let escaped = escape("/odd name".into(), ESCAPE, ends_word, Quote::None);
        assert_eq!(escaped, "/odd\\ name");
        assert_eq!(extract_word("cat /odd\\ na", 12, ESCAPE, ends_word), (4, "/odd\\ na"));
        assert_eq!(shlex::split(&format!("cat {escaped}")).unwrap()[1], "/odd name");
    }
}
