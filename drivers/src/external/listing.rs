//! What names a listing gives, of whatever was answered.

use nexus_messages::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::failure::shortened;
use crate::times;

/// One name of a listing, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: String,
    /// Whether it says that it is a directory.
    pub(super) is_directory: bool,
    pub(super) size: Option<u64>,
    pub(super) modified: Option<Timestamp>,
    pub(super) tag: Option<String>,
}

/// How the names in an answer are found, whatever it is written in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Naming {
    /// The values of the type that are directories. A name that ends with a slash is one, too.
    pub(super) directory: Vec<String>,
    /// The values of the type that are left out.
    pub(super) ignore: Vec<String>,
    /// Whether of a name with slashes only what follows the last one counts.
    pub(super) last: bool,
    /// What stands before each file's name in its path, and not in the answer.
    pub(super) before: String,
    /// What stands behind it.
    pub(super) after: String,
}

/// Where in JSON an answer has what: pointers (RFC 6901), to the items from the whole, and to all else from an item.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonFields {
    /// The array of items; the whole answer when not given. Of an object each value is an item.
    #[serde(default)]
    pub(super) items: String,
    /// The name; the item itself when it is empty.
    pub(super) name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub(super) entry_type: Option<String>,
    /// How many bytes it has.
    pub(super) size: Option<String>,
    /// When it last changed: a date of RFC 3339 or HTTP, or seconds since 1970.
    pub(super) modified: Option<String>,
    /// What changes with its content: a hash, a revision, the ETag that a read of it has.
    pub(super) tag: Option<String>,
}

/// What each record of a text has, in this order, with a separator between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Field {
    Name,
    Type,
    Size,
    Modified,
    Tag,
    /// What is of no interest.
    Skip,
}

impl JsonFields {
    /// The pointers, with their names, to be checked.
    pub(super) fn pointers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let optional = [
            ("type", &self.entry_type),
            ("size", &self.size),
            ("modified", &self.modified),
            ("tag", &self.tag),
        ];
        let given = optional.into_iter().filter_map(|(name, pointer)| Some((name, pointer.as_deref()?)));
        [("items", self.items.as_str()), ("name", self.name.as_str())].into_iter().chain(given)
    }

    /// The items of `answer`, and how many there are, those that are left out among them.
    ///
    /// # Errors
    /// What the answer is instead.
    pub(super) fn items(&self, answer: &Value, naming: &Naming) -> Result<(Vec<Item>, usize), String> {
        let all: Vec<&Value> = match answer.pointer(&self.items) {
            Some(Value::Array(items)) => items.iter().collect(),
            Some(Value::Object(items)) => items.values().collect(),
            // Some leave it out when there are none.
            Some(Value::Null) => Vec::new(),
            Some(_) => return Err(format!("what is at {:?} is no array", self.items)),
            None => return Err(format!("there is nothing at {:?}", self.items)),
        };
        let mut items = Vec::with_capacity(all.len());
        for item in &all {
            let at = |pointer: &Option<String>| item.pointer(pointer.as_deref()?);
            let Some(name) = item.pointer(&self.name).and_then(text) else {
                return Err(format!("an item has no name at {:?}", self.name));
            };
            let size = match at(&self.size) {
                Some(Value::String(size)) => size.parse().ok(),
                Some(size) => size.as_u64(),
                None => None,
            };
            let modified = at(&self.modified).and_then(times::of_json);
            let item = Item { name, is_directory: false, size, modified, tag: at(&self.tag).and_then(text) };
            items.extend(naming.named(item, at(&self.entry_type).and_then(text).as_deref()));
        }
        Ok((items, all.len()))
    }
}

/// What stands for itself.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

/// How the fields of a text stand in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Records {
    /// What each record has, in order. The last field may have in it what stands between fields.
    pub(super) fields: Vec<Field>,
    /// What ends a record; a newline when not given.
    #[serde(default = "newline")]
    pub(super) end: char,
    /// What stands between two fields; a tab when not given.
    #[serde(default = "tab")]
    pub(super) separator: char,
    /// What stands before the last field, when it is something else. Then the others are columns: any number of separators stand between them.
    pub(super) last: Option<char>,
}

fn newline() -> char {
    '\n'
}

fn tab() -> char {
    '\t'
}

impl Records {
    /// The fields of one record.
    fn split<'a>(&self, one: &'a str) -> Vec<&'a str> {
        let Some(last) = self.last else { return one.splitn(self.fields.len(), self.separator).collect() };
        let Some((columns, rest)) = one.split_once(last) else { return Vec::new() };
        let columns = columns.split(self.separator).filter(|column| !column.is_empty());
        columns.take(self.fields.len().saturating_sub(1)).chain([rest]).collect()
    }
}

/// The items of a text, and how many names in it no text can hold.
///
/// # Errors
/// What it is instead.
pub(super) fn records(answer: &[u8], of: &Records, naming: &Naming) -> Result<(Vec<Item>, usize), String> {
    let (mut items, mut unreadable) = (Vec::new(), 0);
    let mut end = [0; 4];
    let end = of.end.encode_utf8(&mut end).as_bytes();
    for one in split(answer, end).filter(|one| !one.is_empty()) {
        let Ok(one) = std::str::from_utf8(one) else {
            unreadable += 1;
            continue;
        };
        let mut item =
            Item { name: String::new(), is_directory: false, size: None, modified: None, tag: None };
        let (mut entry_type, parts) = (None, of.split(one));
        if parts.len() < of.fields.len() {
            return Err(format!("{:?} has less than {} fields", shortened(one), of.fields.len()));
        }
        for (field, part) in of.fields.iter().zip(parts) {
            match field {
                Field::Name => item.name = part.to_owned(),
                Field::Type => entry_type = Some(part.trim()),
                // Of what has none there stands something else, such as a dash.
                Field::Size => item.size = part.trim().parse().ok(),
                Field::Modified => item.modified = times::parsed(part),
                Field::Tag => item.tag = Some(part.trim().to_owned()),
                Field::Skip => {}
            }
        }
        items.extend(naming.named(item, entry_type));
    }
    Ok((items, unreadable))
}

fn split<'a>(text: &'a [u8], end: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let left = rest?;
        let at = left.windows(end.len()).position(|window| window == end);
        rest = at.map(|at| &left[at + end.len()..]);
        Some(at.map_or(left, |at| &left[..at]))
    })
}

impl Naming {
    /// The item under the name that it has in a path; none when it is left out.
    fn named(&self, mut item: Item, entry_type: Option<&str>) -> Option<Item> {
        if entry_type.is_some_and(|it| self.ignore.iter().any(|ignored| ignored == it)) {
            return None;
        }
        item.is_directory = entry_type.is_some_and(|it| self.directory.iter().any(|named| named == it));
        if let Some(name) = item.name.strip_suffix('/') {
            item.name.truncate(name.len());
            item.is_directory = true;
        }
        if self.last
            && let Some((_, name)) = item.name.rsplit_once('/')
        {
            item.name = name.to_owned();
        }
        if !item.is_directory {
            item.name = [&self.before, &item.name, &self.after].map(String::as_str).concat();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, is_directory: bool, size: Option<u64>, tag: Option<&str>) -> Item {
        Item { name: name.into(), is_directory, size, modified: None, tag: tag.map(Into::into) }
    }

    #[test]
    fn names_are_found_in_json() {
        let fields = JsonFields {
            items: "/found".into(),
            name: "/id".into(),
            entry_type: Some("/kind".into()),
            size: Some("/bytes".into()),
            modified: None,
            tag: Some("/rev".into()),
        };
        let naming = Naming {
            directory: vec!["folder".into()],
            ignore: vec!["gone".into()],
            after: ".json".into(),
            ..Naming::default()
        };
        let answer = serde_json::json!({"found": [
            {"id": 7, "kind": "note", "bytes": "12", "rev": "a"},
            {"id": "sub", "kind": "folder"},
            {"id": "old", "kind": "gone"},
        ]});
        let expected = vec![item("7.json", false, Some(12), Some("a")), item("sub", true, None, None)];
        assert_eq!(fields.items(&answer, &naming), Ok((expected, 3)));
        for bad in ["[]", r#"{"found": 1}"#, r#"{"found": [{}]}"#, r#"{"found": [{"id": null}]}"#] {
            let answer = serde_json::from_str(bad).unwrap();
            assert!(fields.items(&answer, &naming).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_found_in_records_and_may_hold_anything_else() {
        let mut of = Records {
            fields: vec![Field::Type, Field::Size, Field::Tag, Field::Name],
            end: '\0',
            separator: '\t',
            last: None,
        };
        let naming =
            Naming { directory: vec!["tree".into()], ignore: vec!["commit".into()], ..Naming::default() };
        let answer = b"blob\t3\tabc\ta\tb\nc\0tree\t-\tdef\td\0commit\t-\te\tmodule\0blob\t1\tx\t\xff\0";
        let expected = vec![item("a\tb\nc", false, Some(3), Some("abc")), item("d", true, None, Some("def"))];
        assert_eq!(records(answer, &of, &naming), Ok((expected, 1)));
        assert!(records(b"blob\t3\0", &of, &naming).is_err());
        assert_eq!(records(b"", &of, &naming), Ok((vec![], 0)));
        (of.separator, of.last) = (' ', Some('\t'));
        let columns = vec![item(" a\tb ", false, Some(3), Some("abc"))];
        assert_eq!(records(b"blob     3 abc\t a\tb \0", &of, &naming), Ok((columns, 0)));
        assert!(records(b"blob 3\tname\0", &of, &naming).is_err());
        assert!(records(b"blob 3 abc name\0", &of, &naming).is_err());
    }
}
