//! Lines by regular expression, with ripgrep's own libraries.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};
use globset::GlobSet;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use nexus_messages::syscall::SysRead;
use nexus_messages::{EntryType, Error, ErrorKind, IntoPath, Op, PathError, Result, VPath};

use super::glob::matcher;
use super::walk::Walk;
use crate::handle::Nexus;

/// What to search for, and where; see [`Nexus::grep`].
#[derive(Debug, Clone)]
pub struct Grep {
    pattern: String,
    path: std::result::Result<VPath, (String, PathError)>,
    globs: Vec<String>,
    ignore_case: bool,
    fixed: bool,
    keep: Keep,
}

/// How much of a file's matches is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Lines,
    Count,
    First,
}

/// A file with at least one line that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileMatches {
    /// The file.
    pub path: VPath,
    /// How many lines match; 1 with [`Grep::files_only`].
    pub count: u64,
    /// The lines that match, in order; none with [`Grep::count_only`] and [`Grep::files_only`].
    pub lines: Vec<Line>,
}

/// A line that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Its number; the first line is 1.
    pub number: u64,
    /// Its bytes, without the line feed.
    pub text: Bytes,
}

/// How much was searched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrepStats {
    /// Files that were searched, binary ones among them.
    pub files: u64,
    /// Files that were passed over because they are binary.
    pub binary: u64,
    /// Bytes in the files that were searched.
    pub bytes: u64,
}

/// What [`Nexus::grep`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GrepReport {
    /// The files that match, in the order of the walk: by the components of their paths.
    pub matches: Vec<FileMatches>,
    /// The files that could not be read, and why.
    pub errors: Vec<Error>,
    /// How much was searched.
    pub stats: GrepStats,
}

impl Grep {
    /// Lines in which `pattern` matches somewhere, in all files of the namespace. The syntax is that of the `regex` crate.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self {
            pattern: pattern.into(),
            path: Ok(VPath::root()),
            globs: Vec::new(),
            ignore_case: false,
            fixed: false,
            keep: Keep::Lines,
        }
    }

    /// Only below this directory, or only in this file.
    #[must_use]
    pub fn path(mut self, path: impl IntoPath) -> Self {
        self.path = path.into_path();
        self
    }

    /// Only in files that match this pattern; said more than once, one of them. A pattern without `/` is matched against the name, another against the path below
    /// the directory that is searched; one that begins with `!` leaves out what matches.
    #[must_use]
    pub fn glob(mut self, pattern: impl Into<String>) -> Self {
        self.globs.push(pattern.into());
        self
    }

    /// Upper and lower case are the same.
    #[must_use]
    pub fn ignore_case(mut self) -> Self {
        self.ignore_case = true;
        self
    }

    /// The pattern is a text, not a regular expression.
    #[must_use]
    pub fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// Counts lines without keeping them.
    #[must_use]
    pub fn count_only(mut self) -> Self {
        self.keep = Keep::Count;
        self
    }

    /// Only tells files: each is searched up to its first match.
    #[must_use]
    pub fn files_only(mut self) -> Self {
        self.keep = Keep::First;
        self
    }
}

impl Nexus {
    /// Searches files for lines that match. Several are searched at once, on threads of the kernel. Links are not followed, and binary files, those with a NUL in them,
    /// are passed over. A file that cannot be read is told in the report, and the others are searched.
    ///
    /// # Errors
    /// `EINVAL` for what is no regular expression or no glob; `ENOENT` when the path is not there.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::Grep;
    ///
    /// nx.write("/src/main.rs", "fn main() {\n    todo();\n}\n").await?;
    /// nx.write("/src/notes.md", "todo: more").await?;
    /// let report = nx.grep(Grep::new(r"\btodo\b").path("/src").glob("*.rs")).await?;
    /// assert_eq!(report.matches.len(), 1);
    /// assert_eq!((report.matches[0].lines[0].number, report.stats.files), (2, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn grep(&self, grep: Grep) -> Result<GrepReport> {
        let mut stream = self.grep_stream(grep).await?;
        let mut report = GrepReport::default();
        while let Some(found) = stream.next().await {
            match found {
                Ok(matches) => report.matches.push(matches),
                Err(error) => report.errors.push(error),
            }
        }
        report.stats = stream.stats();
        Ok(report)
    }

    /// As [`grep`](Self::grep), one file with matches at a time.
    ///
    /// # Errors
    /// As [`grep`](Self::grep).
    pub async fn grep_stream(&self, grep: Grep) -> Result<GrepStream> {
        let base = grep.path.clone().map_err(|(text, why)| Error::bad_path(Op::Grep, &text, &why))?;
        let search = Search::of(&grep)?;
        let found = self.stat(&base).await.map_err(|error| error.during(Op::Grep))?;
        let (walk, single) = match found.is_directory() {
            true => (Some(self.walk(&found.path)), None),
            false => (None, Some(base.clone())),
        };
        Ok(GrepStream {
            nx: self.clone(),
            search: Arc::new(search),
            real: found.path.clone(),
            base,
            walk,
            single,
            running: FuturesOrdered::new(),
            stats: GrepStats::default(),
        })
    }
}

/// Files with matches, one after the other; see [`Nexus::grep_stream`]. Holds as many files as are searched at once.
pub struct GrepStream {
    nx: Nexus,
    search: Arc<Search>,
    /// Where the search was asked for, and where that really is.
    base: VPath,
    real: VPath,
    walk: Option<Walk>,
    single: Option<VPath>,
    running: FuturesOrdered<Pin<Box<dyn Future<Output = Result<Searched>> + Send>>>,
    stats: GrepStats,
}

impl std::fmt::Debug for GrepStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrepStream")
            .field("base", &self.base)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl GrepStream {
    /// The next file with matches, or the next that could not be read; none at the end.
    pub async fn next(&mut self) -> Option<Result<FileMatches>> {
        loop {
            while self.running.len() < self.nx.search().1 {
                match self.file().await {
                    Ok(Some(path)) => {
                        self.running.push_back(Box::pin(file(self.nx.clone(), self.search.clone(), path)));
                    }
                    Ok(None) => break,
                    Err(error) => return Some(Err(error.during(Op::Grep))),
                }
            }
            match self.running.next().await? {
                Ok(Searched { matches, bytes, binary }) => {
                    self.stats.files += 1;
                    self.stats.bytes += bytes;
                    self.stats.binary += u64::from(binary);
                    if let Some(matches) = matches {
                        return Some(Ok(matches));
                    }
                }
                // It was removed after it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound && self.walk.is_some() => {}
                Err(error) => return Some(Err(error.during(Op::Grep))),
            }
        }
    }

    /// How much was searched so far.
    pub fn stats(&self) -> GrepStats {
        self.stats
    }

    /// The next file to search.
    async fn file(&mut self) -> Result<Option<VPath>> {
        if let Some(single) = self.single.take() {
            return Ok(Some(single));
        }
        let Some(walk) = &mut self.walk else { return Ok(None) };
        while let Some(entry) = walk.next().await {
            let entry = entry?;
            let Some(relative) = entry.path.relative_to(&self.real) else { continue };
            if entry.entry_type == EntryType::Reg && self.search.wants(relative) {
                return Ok(Some(self.base.join_relative(relative).unwrap_or(entry.path)));
            }
        }
        Ok(None)
    }
}

struct Searched {
    matches: Option<FileMatches>,
    bytes: u64,
    binary: bool,
}

/// Reads a file on the caller's task, and searches it on one of the kernel's threads.
async fn file(nx: Nexus, search: Arc<Search>, path: VPath) -> Result<Searched> {
    let content = nx.send(SysRead::at(&path)).await?.data;
    let bytes = content.len() as u64;
    let scanned = nx.search().0.run(move || search.scan(&content)).await;
    let failed = |why: &dyn std::fmt::Display| Error::new(Op::Grep, &path, ErrorKind::Io).because(why);
    let scanned = scanned.map_err(|why| failed(&why))?;
    let Some(Scanned { count, lines }) = scanned.map_err(|why| failed(&why))? else {
        return Ok(Searched { matches: None, bytes, binary: true });
    };
    let matches = (count > 0).then(|| FileMatches { path, count, lines });
    Ok(Searched { matches, bytes, binary: false })
}

/// A search that is ready to run.
struct Search {
    regex: RegexMatcher,
    wanted: Vec<GlobSet>,
    unwanted: Vec<GlobSet>,
    keep: Keep,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Scanned {
    count: u64,
    lines: Vec<Line>,
}

impl Search {
    fn of(grep: &Grep) -> Result<Self> {
        let invalid =
            |why: &dyn std::fmt::Display| Error::global(Op::Grep, ErrorKind::InvalidArgument).because(why);
        let mut builder = RegexMatcherBuilder::new();
        builder.case_insensitive(grep.ignore_case).fixed_strings(grep.fixed).line_terminator(Some(b'\n'));
        let regex = builder.build(&grep.pattern).map_err(|why| invalid(&why))?;
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for glob in &grep.globs {
            let (list, pattern) = match glob.strip_prefix('!') {
                Some(pattern) => (&mut unwanted, pattern),
                None => (&mut wanted, glob.as_str()),
            };
            let pattern = match pattern.strip_prefix('/') {
                Some(anchored) => anchored.to_owned(),
                None if pattern.contains('/') => pattern.to_owned(),
                None => format!("**/{pattern}"),
            };
            list.push(matcher(&pattern).map_err(|why| invalid(&why))?);
        }
        Ok(Self { regex, wanted, unwanted, keep: grep.keep })
    }

    fn wants(&self, relative: &str) -> bool {
        let any = |globs: &[GlobSet]| globs.iter().any(|glob| glob.is_match(relative));
        (self.wanted.is_empty() || any(&self.wanted)) && !any(&self.unwanted)
    }

    /// The lines of `content` that match; none when it is binary.
    fn scan(&self, content: &[u8]) -> io::Result<Option<Scanned>> {
        // ripgrep looks for NULs as far as it happens to read. Here the answer does not depend on where the matches are. Text in UTF-16 is
        // told by its mark, and decoded by the searcher.
        let utf16 = content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff");
        if !utf16 && content.contains(&0) {
            return Ok(None);
        }
        let numbers = self.keep == Keep::Lines;
        let mut searcher =
            SearcherBuilder::new().line_number(numbers).binary_detection(BinaryDetection::none()).build();
        let mut found = Collect { keep: self.keep, found: Scanned::default() };
        searcher.search_slice(&self.regex, content, &mut found)?;
        Ok(Some(found.found))
    }
}

struct Collect {
    keep: Keep,
    found: Scanned,
}

impl Sink for Collect {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, line: &SinkMatch<'_>) -> io::Result<bool> {
        self.found.count += 1;
        if self.keep == Keep::Lines {
            let text = line.bytes();
            let text = Bytes::copy_from_slice(text.strip_suffix(b"\n").unwrap_or(text));
            self.found.lines.push(Line { number: line.line_number().unwrap_or_default(), text });
        }
        Ok(self.keep != Keep::First)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(grep: &Grep, content: &[u8]) -> Option<Vec<(u64, String)>> {
        let found = Search::of(grep).unwrap().scan(content).unwrap()?;
        let text = |line: &Line| (line.number, String::from_utf8_lossy(&line.text).into_owned());
        Some(found.lines.iter().map(text).collect())
    }

    #[test]
    fn lines_are_numbered_from_one_and_told_without_their_end() {
        let found = lines(&Grep::new("a"), b"xa\nb\n\na");
        assert_eq!(found, Some(vec![(1, "xa".into()), (4, "a".into())]));
        assert_eq!(lines(&Grep::new("A").ignore_case(), b"a\n").unwrap().len(), 1);
        assert_eq!(lines(&Grep::new("a.b").fixed(), b"axb\na.b\n"), Some(vec![(2, "a.b".into())]));
    }

    #[test]
    fn a_nul_makes_a_file_binary_wherever_it_is() {
        let late = [b"match\n".repeat(100_000), b"\0".to_vec()].concat();
        for grep in [Grep::new("match"), Grep::new("match").files_only(), Grep::new("match").count_only()] {
            assert_eq!(Search::of(&grep).unwrap().scan(&late).unwrap(), None);
        }
    }

    #[test]
    fn text_in_utf_16_is_text() {
        let mut content = vec![0xff, 0xfe];
        content.extend("one\ntwo\n".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(lines(&Grep::new("two"), &content), Some(vec![(2, "two".into())]));
    }

    fn check(globs: &[&str], path: &str, wanted: bool) {
        let grep = globs.iter().fold(Grep::new("x"), |grep, glob| grep.glob(*glob));
        assert_eq!(Search::of(&grep).unwrap().wants(path), wanted, "{globs:?} {path}");
    }

    #[test]
    fn a_glob_without_a_slash_is_matched_against_the_name() {
        check(&[], "a/b.rs", true);
        check(&["*.rs"], "b.rs", true);
        check(&["*.rs"], "a/b.rs", true);
        check(&["*.rs"], "a/b.md", false);
        check(&["a/*.rs"], "a/b.rs", true);
        check(&["a/*.rs"], "c/a/b.rs", false);
        check(&["/b.rs"], "a/b.rs", false);
        check(&["*.rs", "*.md"], "b.md", true);
        check(&["*.rs", "!b.*"], "b.rs", false);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for bad in [Grep::new("("), Grep::new("a\nb"), Grep::new("a").glob("[")] {
            assert_eq!(Search::of(&bad).err().unwrap().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
    }
}
