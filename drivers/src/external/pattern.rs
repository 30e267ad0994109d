//! Patterns of paths: which paths a route serves, and what their names mean.
//!
//! Names with a slash between them. `{id}` is any one name, `{id}.json` one that ends so, `{path...}` at the end any number of names, and none of them too.

use std::collections::BTreeMap;

/// The most names that a pattern has.
const PARTS_MAX: usize = 32;

/// What a variable stands for: names of a path.
pub(super) type Vars = BTreeMap<String, Vec<String>>;

/// A pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// One name, less what stands before and after.
    Name {
        before: String,
        variable: String,
        after: String,
    },
    /// All names from here on.
    Rest(String),
}

impl Pattern {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self { parts: Vec::new() });
        }
        let names: Vec<&str> = text.split('/').collect();
        if names.len() > PARTS_MAX {
            return Err(format!("it has more than {PARTS_MAX} names"));
        }
        let mut pattern = Self { parts: Vec::new() };
        for (nth, name) in names.iter().enumerate() {
            let part = Part::parse(name)?;
            if matches!(part, Part::Rest(_)) && nth + 1 < names.len() {
                return Err(format!("{name} stands before others"));
            }
            if let Some(variable) = part.variable()
                && pattern.variables().any(|there| there == variable)
            {
                return Err(format!("{{{variable}}} stands for two things"));
            }
            pattern.parts.push(part);
        }
        Ok(pattern)
    }

    /// The names of its variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(Part::variable)
    }

    /// The names of a path that it fits, and that nothing else fits by what is written there.
    pub(super) fn sample(&self) -> Vec<String> {
        let name = |part: &Part| match part {
            Part::Literal(name) => name.clone(),
            Part::Name { before, after, .. } => format!("{before}\u{1}{after}"),
            Part::Rest(_) => "\u{1}".to_owned(),
        };
        self.parts.iter().map(name).collect()
    }

    /// Whether the path of these names, which it fits, is that of its end that is any number of names, with none of them: the top of what lies there.
    pub(super) fn is_top(&self, names: &[&str]) -> bool {
        matches!(self.parts.last(), Some(Part::Rest(_))) && names.len() + 1 == self.parts.len()
    }

    /// Which of two patterns comes first that both fit: the one that says more.
    pub(super) fn rank(&self) -> Vec<u8> {
        let rank = |part: &Part| match part {
            Part::Literal(_) => 0,
            Part::Name { before, after, .. } if !before.is_empty() || !after.is_empty() => 1,
            Part::Name { .. } => 2,
            Part::Rest(_) => 3,
        };
        self.parts.iter().map(rank).collect()
    }

    /// What its variables stand for, when it fits the path of these names.
    pub(super) fn matched(&self, names: &[&str]) -> Option<Vars> {
        let mut vars = Vars::new();
        for (nth, part) in self.parts.iter().enumerate() {
            if let Part::Rest(variable) = part {
                let rest = names.get(nth..)?;
                vars.insert(variable.clone(), rest.iter().map(|name| (*name).to_owned()).collect());
                return Some(vars);
            }
            let found = part.fits(names.get(nth)?)?;
            if let (Some(variable), Some(found)) = (part.variable(), found) {
                vars.insert(variable.to_owned(), vec![found.to_owned()]);
            }
        }
        (names.len() == self.parts.len()).then_some(vars)
    }

    /// Whether it names something below the path of these names; and the name of that, when it is certain.
    pub(super) fn below(&self, names: &[&str]) -> Option<Option<&str>> {
        let next = self.parts.get(names.len())?;
        let fits = names.iter().zip(&self.parts).all(|(name, part)| part.fits(name).is_some());
        match next {
            _ if !fits => None,
            // It may be that path itself: what lies below is what its own listing tells.
            Part::Rest(_) => None,
            Part::Literal(name) => Some(Some(name)),
            Part::Name { .. } => Some(None),
        }
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, String> {
        let plain = |text: &str| !text.contains(['{', '}']);
        let Some((before, rest)) = name.split_once('{') else {
            return match name {
                "" | "." | ".." => Err(format!("{name:?} is no name")),
                _ if !plain(name) => Err(format!("{name:?} has a brace too many")),
                _ => Ok(Self::Literal(name.to_owned())),
            };
        };
        let Some((variable, after)) = rest.split_once('}') else {
            return Err(format!("{name:?} has a brace too few"));
        };
        if !plain(before) || !plain(after) {
            return Err(format!("{name:?} has more than one variable"));
        }
        let (variable, is_rest) = match variable.strip_suffix("...") {
            Some(variable) => (variable, true),
            None => (variable, false),
        };
        if !is_variable(variable) {
            return Err(format!("{variable:?} is no name of a variable: letters, digits and _ are"));
        }
        match is_rest {
            true if before.is_empty() && after.is_empty() => Ok(Self::Rest(variable.to_owned())),
            true => Err(format!("{name:?}: nothing stands beside what is any number of names")),
            false => Ok(Self::Name {
                before: before.to_owned(),
                variable: variable.to_owned(),
                after: after.to_owned(),
            }),
        }
    }

    fn variable(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Name { variable, .. } | Self::Rest(variable) => Some(variable),
        }
    }

    /// Whether it fits `name`, and what the variable stands for.
    fn fits<'n>(&self, name: &'n str) -> Option<Option<&'n str>> {
        match self {
            Self::Literal(literal) => (literal == name).then_some(None),
            Self::Name { before, after, .. } => {
                let found = name.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
                (!found.is_empty()).then_some(Some(found))
            }
            Self::Rest(_) => Some(None),
        }
    }
}

/// Whether it may be the name of a variable or a parameter.
pub(super) fn is_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, path: &str, expected: Option<&[(&str, &str)]>) {
        let pattern = Pattern::parse(pattern).unwrap();
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let found = pattern
            .matched(&names)
            .map(|vars| vars.into_iter().map(|(name, values)| (name, values.join("/"))).collect::<Vec<_>>());
        let expected = expected
            .map(|vars| vars.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>());
        assert_eq!(found, expected, "{pattern:?} {path}");
    }

    #[test]
    fn a_variable_is_one_name_and_the_last_one_may_be_any_number() {
        check("", "", Some(&[]));
        check("", "a", None);
        check("notes", "notes", Some(&[]));
        check("notes/{id}.json", "notes/7.json", Some(&[("id", "7")]));
        check("notes/{id}.json", "notes/.json", None);
        check("notes/{id}.json", "notes/7.txt", None);
        check("notes/{id}.json", "notes/7.json/x", None);
        check("{rev}/{path...}", "HEAD/a/b", Some(&[("path", "a/b"), ("rev", "HEAD")]));
        check("{rev}/{path...}", "HEAD", Some(&[("path", ""), ("rev", "HEAD")]));
        check("{rev}/{path...}", "", None);
    }

    #[test]
    fn what_makes_no_pattern_is_refused() {
        for bad in
            ["/a", "a//b", "a/..", "{a", "a}", "{a}{b}", "{a}/{a}", "{a...}/b", "x{a...}", "{}", "{a-b}"]
        {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_names_what_lies_on_its_way() {
        let below = |pattern: &str, names: &[&str]| {
            Pattern::parse(pattern).unwrap().below(names).map(|name| name.map(str::to_owned))
        };
        assert_eq!(below("a/{x}/c", &[]), Some(Some("a".into())));
        assert_eq!(below("a/{x}/c", &["a"]), Some(None));
        assert_eq!(below("a/{x}/c", &["a", "1"]), Some(Some("c".into())));
        assert_eq!(below("a/{x}/c", &["b"]), None);
        assert_eq!(below("a/{x}/c", &["a", "1", "c"]), None);
        assert_eq!(below("{p...}", &["b"]), None);
        let is_top = |names: &[&str]| Pattern::parse("a/{p...}").unwrap().is_top(names);
        assert!(is_top(&["a"]) && !is_top(&[]) && !is_top(&["a", "b"]));
    }
}
