//! Searching, held against a search that knows nothing of regular expressions, indexes or threads.

use std::collections::BTreeMap;

use nexus::{Grep, VPath};
use serde_json::json;

use super::Tour;
use super::reads::Imported;
use super::source::Source;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// Words of which one is in almost any tree, the telling ones first.
const WORDS: [&str; 6] = ["TODO", "error", "import", "the", "e", " "];

impl Tour<'_> {
    pub(super) async fn grep(
        &self,
        session: &Session,
        source: &Source,
        tree: &VPath,
        files: &[Imported],
    ) -> Outcome {
        let mut texts = Vec::new();
        for file in files {
            let host = source.folder.join(&file.relative);
            let content = std::fs::read(&host).map_err(|error| Failure::host("tour", &host, error))?;
            // What has a NUL in it is binary, and passed over; so is what says that it is UTF-16, which the naive search cannot read.
            if !content.contains(&0) && !content.starts_with(b"\xff\xfe") && !content.starts_with(b"\xfe\xff")
            {
                texts.push((file, content));
            }
        }
        for word in WORDS {
            let naive: BTreeMap<&VPath, u64> = texts
                .iter()
                .map(|(file, content)| (&file.path, naive(content, word.as_bytes())))
                .filter(|(_, count)| *count > 0)
                .collect();
            if naive.is_empty() {
                continue;
            }
            let begun = self.env.now();
            let found = session.nx.grep(Grep::new(word).fixed().path(tree).count_only()).await?;
            let took = self.env.now().duration_since(begun);
            if let Some(error) = found.errors.into_iter().next() {
                return Err(error.into());
            }
            let ours: BTreeMap<&VPath, u64> =
                found.matches.iter().map(|file| (&file.path, file.count)).collect();
            if ours != naive {
                let differs = ours
                    .iter()
                    .chain(&naive)
                    .find(|(path, count)| ours.get(*path) != Some(count) || naive.get(*path) != Some(count));
                let at = differs.map(|(path, _)| path.as_str()).unwrap_or_default();
                return Err(Failure::claim(
                    "tour",
                    format!("grep {word:?} disagrees with a naive search at {at}"),
                ));
            }
            let lines: u64 = ours.values().sum();
            let says = format!(
                "{word:?} is on {lines} lines of {} files, as a naive search of the originals says; {} files and {:.1} MB searched \
                 in {:.0} ms, {} binary ones passed over",
                ours.len(),
                found.stats.files,
                found.stats.bytes as f64 / 1e6,
                took.as_secs_f64() * 1e3,
                found.stats.binary,
            );
            let measured =
                json!({ "word": word, "lines": lines, "files": ours.len(), "searched": found.stats.files });
            return self.step("grep", begun, says, measured);
        }
        self.step("grep", self.env.now(), "there is no text to search".into(), json!({}))
    }
}

/// On how many lines of `content` the word is.
fn naive(content: &[u8], word: &[u8]) -> u64 {
    let lines = content.split(|byte| *byte == b'\n');
    lines.filter(|line| line.windows(word.len()).any(|window| window == word)).count() as u64
}
