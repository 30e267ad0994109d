//! Descriptions: where they come from, and what all of them have in common.
//!
//! A description is a file in TOML or JSON, or JSON itself in the option. It never holds a credential: it says where one is, `env:NAME`, `file:PATH`, or
//! `option:KEY` for an option of the mount, so that it may be shown to anybody, and lie with other files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use nexus_kernel::hal::{DriverContext, DriverOption, StoreError};
use nexus_messages::syscall::MountSpec;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::failure::bad;
use super::pattern::{Pattern, is_variable};
use super::routes::{ROUTES_MAX, Route, Routes};
use super::template::Template;
use super::tree::Asks;
use crate::path::with_absolute;
use crate::secret::Secret;

/// The most bytes that a description has.
const DESCRIPTION_MAX: u64 = 1 << 20;

const fn secret(key: &'static str, help: &'static str) -> DriverOption {
    DriverOption { key, required: false, secret: true, help }
}

/// The options of both connectors.
pub(super) const OPTIONS: &[DriverOption] = &[
    DriverOption {
        key: "description",
        required: true,
        secret: false,
        help: "the file that says how paths are asked for, from the working directory when it is no absolute path, in TOML, or in JSON when its name ends so; or JSON itself",
    },
    DriverOption {
        key: "parameters",
        required: false,
        secret: false,
        help: "what the description's parameters are: NAME=VALUE with commas between them, or a JSON object; no credentials. Paths among them are best absolute: others are of the folder that the process with the kernel works in",
    },
    secret(
        "token",
        "what the description names option:token; itself, or env:NAME or file:PATH for where it is",
    ),
    secret("client_secret", "what the description names option:client_secret, likewise"),
    secret("refresh_token", "what the description names option:refresh_token, likewise"),
];

/// A parameter that a mount gives.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameter {
    /// What it means, for who looks at the file.
    #[serde(default)]
    #[expect(dead_code, reason = "it is read by people")]
    pub(super) about: String,
    /// What it is when the mount does not say; one without must be given.
    pub(super) default: Option<String>,
}

/// A mount, while its description is read: what it says fills the places of parameters.
#[derive(Debug)]
pub(super) struct Reading {
    /// Where the description is, for errors.
    name: String,
    spec: MountSpec,
    pub(super) parameters: BTreeMap<String, String>,
}

/// Reads the description that `spec` names, and makes of it what `make` does, on a thread that may block: credentials may lie in files.
pub(super) async fn read<T, Made>(
    spec: &MountSpec,
    context: &DriverContext,
    make: fn(T, Reading) -> Result<Made, StoreError>,
) -> Result<Made, StoreError>
where
    T: Described,
    Made: Send + 'static,
{
    let spec = spec.clone();
    let made = context.pool.run(move || {
        let (name, text) = text(&spec)?;
        let described: T = parse(&name, &text)?;
        if described.connector() != spec.driver {
            let why = format!(
                "{name}: connector: it is {:?}, and the mount's driver {:?}",
                described.connector(),
                spec.driver
            );
            return Err(bad(why));
        }
        let reading = Reading::new(name, spec, described.parameters())?;
        make(described, reading)
    });
    made.await.map_err(|error| StoreError::Backend {
        what: "reading the description".into(),
        cause: error.to_string(),
    })?
}

/// What every description says.
pub(super) trait Described: DeserializeOwned + Send + 'static {
    /// The connector that it is for.
    fn connector(&self) -> &str;

    /// The parameters that it takes.
    fn parameters(&self) -> &BTreeMap<String, Parameter>;
}

/// `spec` with the description's file as an absolute path. What is a path among parameters only the description could say.
pub(super) fn settled(spec: MountSpec) -> MountSpec {
    match spec.options.get("description") {
        Some(given) if !is_itself(given) => with_absolute(spec, "description"),
        _ => spec,
    }
}

/// Whether the option is the description, and not the name of its file.
fn is_itself(given: &str) -> bool {
    given.trim_start().starts_with('{')
}

/// Where the description is, and what it says.
fn text(spec: &MountSpec) -> Result<(String, String), StoreError> {
    let given = spec.options.get("description").map_or("", String::as_str);
    if is_itself(given) {
        return Ok(("the description".into(), given.to_owned()));
    }
    let mut text = String::new();
    let read = File::open(given).and_then(|file| file.take(DESCRIPTION_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| bad(format!("description: the file {given:?} cannot be read: {error}")))?;
    if text.len() as u64 > DESCRIPTION_MAX {
        return Err(bad(format!("description: the file {given:?} has more than {DESCRIPTION_MAX} bytes")));
    }
    Ok((given.to_owned(), text))
}

fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, StoreError> {
    if name.ends_with(".json") || text.trim_start().starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|error| bad(format!("{name}: {}", without_values(&error.to_string()))));
    }
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        bad(format!("{name}, line {line}: {}", without_values(error.message())))
    })
}

/// What parsers name a value by that they quote in backticks.
const KINDS: [&str; 4] = ["integer `", "floating point `", "boolean `", "character `"];

/// What a parser says, without the values that it quotes: one that stands where it should not may be a credential.
fn without_values(said: &str) -> String {
    let mut said = said.to_owned();
    for kind in KINDS {
        if let Some((before, rest)) = said.split_once(kind)
            && let Some((_, after)) = rest.split_once('`')
        {
            said = format!("{before}{kind}..`{after}");
        }
    }
    let (mut told, mut is_quoted, mut is_escaped) = (String::new(), false, false);
    for c in said.chars() {
        let is_quote = c == '"' && !is_escaped;
        is_escaped = is_quoted && c == '\\' && !is_escaped;
        if is_quote {
            told.push_str(if is_quoted { "\"" } else { "\".." });
            is_quoted = !is_quoted;
        } else if !is_quoted {
            told.push(c);
        }
    }
    told
}

impl Reading {
    fn new(
        name: String,
        spec: MountSpec,
        declared: &BTreeMap<String, Parameter>,
    ) -> Result<Self, StoreError> {
        let mut given = given(spec.options.get("parameters").map_or("", String::as_str))?;
        if let Some(unknown) = given.keys().find(|key| !declared.contains_key(*key)) {
            let all: Vec<&str> = declared.keys().map(String::as_str).collect();
            let why = format!("parameters: {name} has no parameter {unknown:?}; it has: {}", all.join(", "));
            return Err(bad(why));
        }
        let mut parameters = BTreeMap::new();
        for (key, parameter) in declared {
            if !is_variable(key) {
                return Err(bad(format!(
                    "{name}: parameters: {key:?} is no name: letters, digits and _ are"
                )));
            }
            let Some(value) = given.remove(key).or_else(|| parameter.default.clone()) else {
                return Err(bad(format!("parameters: {name} needs the parameter {key:?}")));
            };
            if value.contains('\0') {
                return Err(bad(format!("parameters: {key} contains NUL")));
            }
            parameters.insert(key.clone(), value);
        }
        Ok(Self { name, spec, parameters })
    }

    /// That `field` is wrong.
    pub(super) fn wrong(&self, field: &str, why: impl std::fmt::Display) -> StoreError {
        bad(format!("{}: {field}: {why}", self.name))
    }

    pub(super) fn pattern(&self, field: &str, text: &str) -> Result<Pattern, StoreError> {
        let pattern = Pattern::parse(text).map_err(|why| self.wrong(field, why))?;
        if let Some(taken) = pattern.variables().find(|variable| self.parameters.contains_key(*variable)) {
            return Err(self.wrong(field, format!("{{{taken}}} is a parameter")));
        }
        Ok(pattern)
    }

    /// A text with places for the variables of `pattern` and for parameters.
    pub(super) fn template(
        &self,
        field: &str,
        text: &str,
        pattern: &Pattern,
    ) -> Result<Template, StoreError> {
        let known: BTreeSet<String> = pattern.variables().map(str::to_owned).collect();
        Template::parse(text, &self.parameters, &known).map_err(|why| self.wrong(field, why))
    }

    /// A text with places for parameters alone, filled.
    pub(super) fn plain(&self, field: &str, text: &str) -> Result<String, StoreError> {
        let nowhere = Pattern::parse("").map_err(|why| self.wrong(field, why))?;
        let template = self.template(field, text, &nowhere)?;
        Ok(template.plain(&super::pattern::Vars::new(), &self.parameters))
    }

    /// The credential that `field` says the place of.
    pub(super) fn secret(&self, field: &str, place: &str) -> Result<Secret, StoreError> {
        if let Some(key) = place.strip_prefix("option:") {
            if !OPTIONS.iter().any(|option| option.secret && option.key == key) {
                return Err(self.wrong(field, "option: is followed by token, client_secret or refresh_token"));
            }
            let Some(given) = self.spec.options.get(key) else {
                return Err(self.wrong(field, format!("the mount needs the option {key:?}")));
            };
            return Secret::given(key, given);
        }
        if !place.starts_with("env:") && !place.starts_with("file:") {
            // It is not repeated: it may be the credential.
            return Err(
                self.wrong(field, "a description holds no credential, but env:NAME, file:PATH or option:KEY")
            );
        }
        if place.strip_prefix("file:").is_some_and(|file| !Path::new(file).is_absolute()) {
            // The working directory of whoever opens the mount is not the description's to know.
            return Err(self.wrong(field, format!("{place:?} must be an absolute path: file:/PATH")));
        }
        Secret::given(field, place)
    }

    pub(super) fn number<T: Copy + PartialOrd + std::fmt::Display>(
        &self,
        field: &str,
        given: Option<T>,
        range: RangeInclusive<T>,
        unsaid: T,
    ) -> Result<T, StoreError> {
        match given {
            Some(number) if !range.contains(&number) => Err(self.wrong(
                field,
                format!("it is {number}, and must be from {} to {}", range.start(), range.end()),
            )),
            given => Ok(given.unwrap_or(unsaid)),
        }
    }

    /// The routes: not too many, and some, and none reads what is a directory, because another names something below it.
    pub(super) fn routes<T: Asks>(&self, routes: Vec<Route<T>>) -> Result<Routes<T>, StoreError> {
        let count = routes.len();
        if !(1..=ROUTES_MAX).contains(&count) {
            return Err(self.wrong("route", format!("there are {count}, and must be from 1 to {ROUTES_MAX}")));
        }
        let samples: Vec<_> =
            routes.iter().filter(|route| route.asks.can().read).map(|route| route.pattern.sample()).collect();
        let routes = Routes::new(routes);
        let leads_on = |names: &&Vec<String>| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            routes.leads_on(&names)
        };
        if let Some(hidden) = samples.iter().find(leads_on) {
            let path = hidden.join("/").replace('\u{1}', "{..}");
            let why = "it is a directory, because another route names something below it: what is read needs a name of its own";
            return Err(self.wrong(&format!("route {path:?}: read"), why));
        }
        Ok(routes)
    }
}

/// What the option `parameters` says.
fn given(text: &str) -> Result<BTreeMap<String, String>, StoreError> {
    if text.trim_start().starts_with('{') {
        let wrong = |error: serde_json::Error| without_values(&error.to_string());
        return serde_json::from_str(text).map_err(|error| bad(format!("parameters: {}", wrong(error))));
    }
    let mut given = BTreeMap::new();
    for one in text.split(',').filter(|one| !one.trim().is_empty()) {
        let Some((name, value)) = one.split_once('=') else {
            return Err(bad(format!("parameters: {one:?} is not NAME=VALUE")));
        };
        if given.insert(name.trim().to_owned(), value.to_owned()).is_some() {
            return Err(bad(format!("parameters: {:?} is given twice", name.trim())));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(declared: &[(&str, Option<&str>)], spec: MountSpec) -> Result<Reading, StoreError> {
        let declared = declared.iter().map(|(key, default)| {
            let default = default.map(str::to_owned);
            ((*key).to_owned(), Parameter { about: String::new(), default })
        });
        Reading::new("d.toml".into(), spec, &declared.collect())
    }

    #[test]
    fn no_value_of_a_description_is_told() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "it is read, and no more")]
        struct Login {
            token: String,
        }
        for (name, text) in [
            ("d.toml", "token = 123456789"),
            ("d.toml", "token = 123456789.5"),
            ("d.toml", "token = [\"123456789\"]"),
            ("d.json", r#"{"token": 123456789}"#),
        ] {
            let error = parse::<Login>(name, text).unwrap_err().to_string();
            assert!(!error.contains("123456789") && error.contains("expected a string"), "{error}");
        }
    }

    #[test]
    fn parameters_are_those_that_the_description_has() {
        let spec = |text: &str| MountSpec::new("rest").option("parameters", text);
        let declared = [("port", None), ("user", Some("me"))];
        let read = reading(&declared, spec("port=80")).unwrap();
        assert_eq!((read.parameters["port"].as_str(), read.parameters["user"].as_str()), ("80", "me"));
        let read = reading(&declared, spec(r#"{"port": "1,2=3"}"#)).unwrap();
        assert_eq!(read.parameters["port"], "1,2=3");
        for (text, saying) in [
            ("", "needs the parameter \"port\""),
            ("port=1,prot=2", "no parameter \"prot\"; it has: port, user"),
            ("port", "is not NAME=VALUE"),
            ("port=1,port=2", "twice"),
        ] {
            let error = reading(&declared, spec(text)).unwrap_err().to_string();
            assert!(error.starts_with("parameters: ") && error.contains(saying), "{error}");
        }
    }

    #[test]
    fn a_description_holds_no_credential() {
        let spec = MountSpec::new("rest").option("token", "hunter22");
        let read = reading(&[], spec).unwrap();
        assert_eq!(read.secret("auth.token", "option:token").unwrap().expose(), "hunter22");
        for place in ["hunter23", "option:password", "option:client_secret", "env:NEXUS_NO_SUCH_VARIABLE"] {
            let error = read.secret("auth.token", place).unwrap_err().to_string();
            assert!(error.contains("auth.token") && !error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn what_does_not_parse_is_told_with_its_file_and_line() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Small {
            #[expect(dead_code)]
            a: u8,
        }
        let error = parse::<Small>("x.toml", "a = 1\nb = 2\n").unwrap_err().to_string();
        assert!(error.starts_with("x.toml, line 2: unknown field `b`"), "{error}");
        let error = parse::<Small>("x.json", "{\"a\": \"x\"}").unwrap_err().to_string();
        assert!(error.starts_with("x.json: ") && error.contains("line 1"), "{error}");
        // What stands where it should not may be a credential.
        for text in ["a = \"Bearer \\\"hunter22\"", "{\"a\": \"Bearer \\\"hunter22\"}"] {
            let error = parse::<Small>("x", text).unwrap_err().to_string();
            assert!(error.contains("expected u8") && error.contains("line 1"), "{error}");
            assert!(!error.contains("hunter22"), "{error}");
        }
    }
}
