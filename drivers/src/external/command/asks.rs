//! Routes as they are asked: what the description says, checked, with arguments that only need names.

use std::collections::BTreeMap;

use nexus_kernel::hal::StoreError;

use super::super::description::Reading;
use super::super::failure::bad;
use super::super::listing::{Field, Item, JsonFields, Naming, Records, records};
use super::super::pattern::{Pattern, Vars};
use super::super::routes::{Route, Routes};
use super::super::template::Template;
use super::super::tree::{Asks, Can};
use super::description::{self, Details, List, Run, Stat};

/// The most arguments of a program.
const ARGS_MAX: usize = 256;

/// What is run at one route.
#[derive(Debug)]
pub(super) struct CommandAsks {
    stat: Stat,
    pub(super) read: Option<Args>,
    pub(super) write: Option<Args>,
    pub(super) delete: Option<Args>,
    pub(super) list: Option<ListAsks>,
}

#[derive(Debug)]
pub(super) struct ListAsks {
    pub(super) args: Args,
    format: Format,
    names: Naming,
    details: Details,
}

#[derive(Debug)]
enum Format {
    Json(JsonFields),
    Records(Records),
}

/// The arguments of a program.
#[derive(Debug)]
pub(super) struct Args {
    templates: Vec<Template>,
    /// How many stand before what is no option any more.
    options: usize,
}

impl Asks for CommandAsks {
    fn can(&self) -> Can {
        Can {
            read: self.read.is_some(),
            write: self.write.is_some(),
            delete: self.delete.is_some(),
            list: self.list.is_some(),
            exclusive: false,
            told_by_listing: self.stat == Stat::Listing,
            told_apart_by_time: self.stat == Stat::Listing,
            looks_at_each: self.list.as_ref().is_none_or(|list| list.details == Details::Each),
        }
    }
}

/// All routes of a description.
pub(super) fn routes(
    reading: &Reading,
    described: Vec<description::Route>,
) -> Result<Routes<CommandAsks>, StoreError> {
    let routes = described.into_iter().map(|route| {
        let field = format!("route {:?}", route.path);
        let pattern = reading.pattern(&format!("{field}: path"), &route.path)?;
        if route.read.is_none() && route.list.is_none() {
            let why = "it needs read, which makes it a file, or list, which makes it a directory";
            return Err(reading.wrong(&field, why));
        }
        let run = |name: &str, run: Option<Run>| {
            run.map(|run| args(reading, &format!("{field}: {name}.args"), &pattern, &run.args)).transpose()
        };
        let list = route.list.map(|list| listing(reading, &format!("{field}: list"), &pattern, list));
        let asks = CommandAsks {
            stat: route.stat,
            read: run("read", route.read)?,
            write: run("write", route.write)?,
            delete: run("delete", route.delete)?,
            list: list.transpose()?,
        };
        Ok(Route { pattern, asks })
    });
    reading.routes(routes.collect::<Result<_, StoreError>>()?)
}

fn listing(reading: &Reading, field: &str, pattern: &Pattern, list: List) -> Result<ListAsks, StoreError> {
    let format = match (list.json, list.records) {
        (Some(json), None) => {
            let is_pointer = |pointer: &str| pointer.is_empty() || pointer.starts_with('/');
            if let Some((name, pointer)) = json.pointers().find(|(_, pointer)| !is_pointer(pointer)) {
                let why = format!("{pointer:?} is no JSON pointer: it begins with a slash");
                return Err(reading.wrong(&format!("{field}: json.{name}"), why));
            }
            Format::Json(json)
        }
        (None, Some(records)) => {
            let names = records.fields.iter().filter(|field| **field == Field::Name).count();
            if names != 1 {
                return Err(
                    reading.wrong(&format!("{field}: records.fields"), "one of them must be the name")
                );
            }
            Format::Records(records)
        }
        _ => return Err(reading.wrong(field, "it needs json or records, and not both")),
    };
    Ok(ListAsks {
        args: args(reading, &format!("{field}.args"), pattern, &list.args)?,
        format,
        names: list.names,
        details: list.details,
    })
}

fn args(reading: &Reading, field: &str, pattern: &Pattern, texts: &[String]) -> Result<Args, StoreError> {
    if texts.len() > ARGS_MAX {
        return Err(reading.wrong(field, format!("there are more than {ARGS_MAX}")));
    }
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(reading.wrong(field, "one of them contains NUL"));
    }
    let templates = texts.iter().map(|text| reading.template(field, text, pattern));
    let options = texts.iter().position(|text| text == "--").unwrap_or(texts.len());
    Ok(Args { templates: templates.collect::<Result<_, _>>()?, options })
}

impl Args {
    /// The arguments for a path. What stands in the places is never more than the one argument that it is in, and never an option.
    pub(super) fn filled(
        &self,
        vars: &Vars,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, StoreError> {
        let args = self.templates.iter().enumerate().map(|(nth, template)| {
            let arg = template.plain(vars, parameters);
            let is_option = nth < self.options && arg.starts_with('-');
            if is_option && template.begins_with_a_place() && template.names_any(vars) {
                return Err(bad(format!(
                    "{arg:?} begins with a dash: the program would take it for an option"
                )));
            }
            Ok(arg)
        });
        args.collect()
    }
}

impl ListAsks {
    /// The names in `output`, and how many no text can hold.
    ///
    /// # Errors
    /// What the output is instead.
    pub(super) fn items(&self, output: &[u8]) -> Result<(Vec<Item>, usize), String> {
        match &self.format {
            Format::Json(fields) => {
                let answer =
                    serde_json::from_slice(output).map_err(|_| "the output is no JSON".to_owned())?;
                fields.items(&answer, &self.names).map(|(items, _)| (items, 0))
            }
            Format::Records(of) => records(output, of, &self.names),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn filled(texts: &[&str], name: &str) -> Result<Vec<String>, StoreError> {
        let parameters =
            BTreeMap::from([("flag".to_owned(), "-C".to_owned()), ("none".to_owned(), String::new())]);
        let known = BTreeSet::from(["n".to_owned()]);
        let args = Args {
            templates: texts.iter().map(|text| Template::parse(text, &parameters, &known).unwrap()).collect(),
            options: texts.iter().position(|text| *text == "--").unwrap_or(texts.len()),
        };
        args.filled(&Vars::from([("n".to_owned(), vec![name.to_owned()])]), &parameters)
    }

    #[test]
    fn a_name_is_one_argument_whatever_it_is() {
        for name in ["a b", "a;rm -rf ~", "$(id)", "`id`", "a\nb", "*", "a'b\"c", "ä"] {
            assert_eq!(filled(&["show", "{n}"], name).unwrap(), ["show", name]);
            assert_eq!(filled(&["x:{n}:y"], name).unwrap(), [format!("x:{name}:y")]);
        }
    }

    #[test]
    fn no_name_is_an_option() {
        for name in ["-x", "--output=/etc/passwd", "-"] {
            let refused = |texts: &[&str]| matches!(filled(texts, name), Err(StoreError::BadOption { .. }));
            assert!(refused(&["{n}"]) && refused(&["{none}{n}"]), "{name}");
            assert!(refused(&["{n}", "--", "x"]), "{name}: before what ends the options");
            assert_eq!(filled(&["--", "{n}"], name).unwrap(), ["--", name]);
            assert_eq!(filled(&["./{n}"], name).unwrap(), [format!("./{name}")]);
        }
        assert_eq!(filled(&["{flag}", "-v"], "x").unwrap(), ["-C", "-v"], "the description may name options");
    }
}
