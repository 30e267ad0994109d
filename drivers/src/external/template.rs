//! Text with places for what a path says, and for parameters of the mount: `{id}`. `{{` and `}}` are braces.

use std::collections::{BTreeMap, BTreeSet};

use super::pattern::{Vars, is_variable};

/// A text with places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(String),
}

/// What stands in a place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Filling<'a> {
    /// What the description or the mount says.
    Given(&'a str),
    /// What a path says.
    Path(&'a [String]),
}

impl Template {
    /// `text`, in which parameters are filled in by what they are, and variables must be among `known`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(
        text: &str,
        parameters: &BTreeMap<String, String>,
        known: &BTreeSet<String>,
    ) -> Result<Self, String> {
        let mut template = Self { pieces: Vec::new() };
        let (mut literal, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let named = rest.split_once('}').filter(|_| brace == "{");
            let Some((name, after)) = named.filter(|(name, _)| is_variable(name)) else {
                return Err(format!(
                    "{text:?} has a brace that belongs to nothing: a brace itself is {brace}{brace}"
                ));
            };
            rest = after;
            if !known.contains(name) && !parameters.contains_key(name) {
                let all: Vec<&str> = known.iter().chain(parameters.keys()).map(String::as_str).collect();
                return Err(format!("{text:?} names {{{name}}}, and there is: {}", all.join(", ")));
            }
            template.text(std::mem::take(&mut literal));
            template.pieces.push(Piece::Variable(name.to_owned()));
        }
        literal.push_str(rest);
        template.text(literal);
        Ok(template)
    }

    fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text(text));
        }
    }

    /// Whether nothing certain stands at its beginning.
    pub(super) fn begins_with_a_place(&self) -> bool {
        matches!(self.pieces.first(), Some(Piece::Variable(_)))
    }

    /// Whether one of its places is for what a path says.
    pub(super) fn names_any(&self, vars: &Vars) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Variable(name) if vars.contains_key(name)))
    }

    /// The text. What stands in the places is put by `fill`; what stands between them is as it is.
    pub(super) fn filled(
        &self,
        vars: &Vars,
        parameters: &BTreeMap<String, String>,
        fill: impl Fn(Filling<'_>) -> String,
    ) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Variable(name) => match (vars.get(name), parameters.get(name)) {
                (Some(names), _) => fill(Filling::Path(names)),
                (None, Some(given)) => fill(Filling::Given(given)),
                // It was looked for when the text was read.
                (None, None) => String::new(),
            },
        };
        self.pieces.iter().map(piece).collect()
    }

    /// The text with all as it is: names of a path with slashes between them.
    pub(super) fn plain(&self, vars: &Vars, parameters: &BTreeMap<String, String>) -> String {
        self.filled(vars, parameters, |filling| match filling {
            Filling::Given(text) => text.to_owned(),
            Filling::Path(names) => names.join("/"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Template, String> {
        let parameters = BTreeMap::from([("repo".to_owned(), "/r".to_owned())]);
        Template::parse(text, &parameters, &BTreeSet::from(["path".to_owned()]))
    }

    #[test]
    fn places_are_filled_and_braces_stay() {
        let parameters = BTreeMap::from([("repo".to_owned(), "/r".to_owned())]);
        let vars = Vars::from([("path".to_owned(), vec!["{repo}".to_owned(), "b".to_owned()])]);
        let filled = |text: &str| parse(text).unwrap().plain(&vars, &parameters);
        assert_eq!(filled("{repo}:{path}"), "/r:{repo}/b", "what a path says is no template");
        assert_eq!(filled("{{path}} {path}"), "{path} {repo}/b");
        assert_eq!(filled(""), "");
    }

    #[test]
    fn what_nothing_fills_is_refused_by_name() {
        for bad in ["{no}", "{path", "path}", "{}", "{path...}", "{ path }"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("{no}").unwrap_err().contains("path, repo"));
    }
}
