//! Paths by pattern.

use globset::{GlobBuilder, GlobSet};
use nexus_messages::syscall::SysReaddir;
use nexus_messages::{Error, ErrorKind, Op, Result, VPath};

use crate::handle::Nexus;

impl Nexus {
    /// The paths that match `pattern`, ordered by their bytes. Files, directories and links alike; links are not followed.
    ///
    /// `?` and `*` stand for one and for any number of characters of a name, also for a leading dot, and never for `/`; `**` stands for any number of directories;
    /// `[a-z]`, `[!a]`, `{one,two}` and `\` are as in a shell. A pattern is absolute; one that does not begin with `/` is taken from the root. Only
    /// what can match is looked at: `/logs/*.txt` costs the children of `/logs`.
    ///
    /// # Errors
    /// `EINVAL` for what is no pattern.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// nx.write("/src/main.rs", "").await?;
    /// nx.write("/src/io/file.rs", "").await?;
    /// assert_eq!(nx.glob("/src/*.rs").await?, ["/src/main.rs"]);
    /// assert_eq!(nx.glob("/src/**/*.rs").await?, ["/src/io/file.rs", "/src/main.rs"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn glob(&self, pattern: impl AsRef<str>) -> Result<Vec<VPath>> {
        let pattern = pattern.as_ref();
        let plan = Plan::of(pattern)?;
        let mut found = vec![VPath::root()];
        for step in &plan.steps {
            found = self.step(found, step).await?;
        }
        if let Some(rest) = &plan.rest {
            let mut matching = Vec::new();
            for base in found {
                self.below(&base, rest, &mut matching).await?;
            }
            found = matching;
        } else if matches!(plan.steps.last(), None | Some(Step::Name(_))) {
            found = self.present(found).await?;
        }
        found.sort_unstable();
        Ok(found)
    }

    /// One component further.
    async fn step(&self, bases: Vec<VPath>, step: &Step) -> Result<Vec<VPath>> {
        let mut found = Vec::new();
        for base in bases {
            match step {
                // Whether it is there shows when something below it is looked for, or at the end.
                Step::Name(name) => found.extend(base.join(name).ok()),
                Step::Match(matcher) => {
                    let listed = match self.readdir(&base).await {
                        Err(error) if is_gone(&error) => continue,
                        listed => listed.map_err(|error| error.during(Op::Glob))?,
                    };
                    let names = listed.iter().map(|entry| entry.name()).filter(|name| matcher.is_match(name));
                    found.extend(names.filter_map(|name| base.join(name).ok()));
                }
            }
        }
        Ok(found)
    }

    /// Everything below `base` that matches from there on.
    async fn below(&self, base: &VPath, rest: &GlobSet, found: &mut Vec<VPath>) -> Result<()> {
        let mut call = SysReaddir::at(base).recursive();
        // Entries are told by where they really are, which is elsewhere when `base` leads through a link.
        let real = match self.stat(base).await {
            Err(error) if is_gone(&error) => return Ok(()),
            real => real.map_err(|error| error.during(Op::Glob))?.path.clone(),
        };
        loop {
            let page = match self.send(call.clone()).await {
                Err(error) if is_gone(&error) => return Ok(()),
                page => page.map_err(|error| error.during(Op::Glob))?,
            };
            for entry in &page.entries {
                let Some(relative) = entry.path.relative_to(&real) else { continue };
                if rest.is_match(relative) {
                    found.extend(base.join_relative(relative).ok());
                }
            }
            let Some(cursor) = page.next else { return Ok(()) };
            call = call.after(cursor);
        }
    }

    async fn present(&self, paths: Vec<VPath>) -> Result<Vec<VPath>> {
        let mut found = Vec::new();
        for path in paths {
            match self.lstat(&path).await {
                Ok(_) => found.push(path),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error.during(Op::Glob)),
            }
        }
        Ok(found)
    }
}

/// Whether it was just not there, or not a directory, which a pattern passes over.
fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::NoMount)
}

/// How a pattern is looked for: component by component as far as that goes, and from there on by walking.
struct Plan {
    steps: Vec<Step>,
    rest: Option<GlobSet>,
}

enum Step {
    Name(String),
    Match(GlobSet),
}

impl Plan {
    fn of(pattern: &str) -> Result<Self> {
        let (components, rest) = split(pattern);
        let mut steps = Vec::with_capacity(components.len());
        for component in components {
            steps.push(match literal(component) {
                Some(name) if matches!(name.as_str(), "." | "..") => {
                    return Err(refuse(pattern, "\".\" and \"..\" match nothing"));
                }
                Some(name) => Step::Name(name),
                None => Step::Match(matcher(component).map_err(|why| refuse(pattern, why))?),
            });
        }
        let rest = rest.map(|rest| matcher(rest).map_err(|why| refuse(pattern, why))).transpose()?;
        Ok(Self { steps, rest })
    }
}

/// A matcher in which only `**` crosses `/`.
pub(super) fn matcher(pattern: &str) -> Result<GlobSet, globset::Error> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()?;
    // A set of one: a glob by itself panics when it is too deep to be compiled.
    GlobSet::builder().add(glob).build()
}

fn refuse(pattern: &str, why: impl std::fmt::Display) -> Error {
    Error::global(Op::Glob, ErrorKind::InvalidArgument).because(format!("{pattern:?}: {why}"))
}

/// The components of a pattern, up to the first that may stand for several; and what is left.
fn split(pattern: &str) -> (Vec<&str>, Option<&str>) {
    let mut components = Vec::new();
    let mut rest = pattern;
    loop {
        rest = rest.trim_start_matches('/');
        if rest.is_empty() {
            return (components, None);
        }
        let (component, after) = rest.split_once('/').unwrap_or((rest, ""));
        // A brace or a bracket that is closed beyond the next `/` belongs to no single component.
        let deep = component.contains("**") || (component.contains(['{', '[', '\\']) && !is_whole(component));
        if deep {
            return (components, Some(rest));
        }
        components.push(component);
        rest = after;
    }
}

/// Whether what `component` opens it also closes.
fn is_whole(component: &str) -> bool {
    let (mut braces, mut in_class, mut chars) = (0usize, false, component.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return false,
            '[' if !in_class => in_class = true,
            ']' => in_class = false,
            '{' if !in_class => braces += 1,
            '}' if !in_class => braces = braces.saturating_sub(1),
            _ => {}
        }
    }
    braces == 0 && !in_class
}

/// The name that a component stands for, when it can only stand for one.
fn literal(component: &str) -> Option<String> {
    let (mut name, mut chars) = (String::with_capacity(component.len()), component.chars());
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' | ']' | '{' | '}' => return None,
            '\\' => name.push(chars.next()?),
            _ => name.push(c),
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, components: &[&str], rest: Option<&str>) {
        assert_eq!(split(pattern), (components.to_vec(), rest), "{pattern:?}");
    }

    #[test]
    fn a_pattern_is_taken_component_by_component_up_to_the_first_that_may_be_several() {
        check("/", &[], None);
        check("/a/b", &["a", "b"], None);
        check("a//b/", &["a", "b"], None);
        check("/a/*.rs", &["a", "*.rs"], None);
        check("/a/**/b", &["a"], Some("**/b"));
        check("/a/{b,c}/d", &["a", "{b,c}", "d"], None);
        check("/a/{b/c,d}/e", &["a"], Some("{b/c,d}/e"));
        check("/a/[b/c", &["a"], Some("[b/c"));
    }

    #[test]
    fn a_literal_component_names_one_entry() {
        assert_eq!(literal("a.b").as_deref(), Some("a.b"));
        assert_eq!(literal("a\\*").as_deref(), Some("a*"));
        assert_eq!(literal("a*"), None);
    }
}
