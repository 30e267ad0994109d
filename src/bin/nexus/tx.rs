//! `tx`: several changes as one, described in a JSON file.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nexus::syscall::{
    Expect, Parents, Precondition, SysRename, SysSetattr, SysTx, SysUnlink, SysWrite, Transacted, TxCheck,
    TxDone, TxOp,
};
use nexus::{
    Attributes, Bytes, Conflict, ContentId, Error, ErrorKind, FileId, FileMetadata, Found, IntoPath, Op,
    OpId, VPath,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::args::TxArgs;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// The whole file. The operations are looked at one by one, so that what is wrong can be told with its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan<'a> {
    op_id: Option<String>,
    #[serde(borrow)]
    ops: Vec<&'a RawValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Write,
    Create,
    Append,
    Edit,
    Mkdir,
    Link,
    Setattr,
    Rename,
    Unlink,
    Check,
}

/// One operation, with all that any of them takes.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Item {
    op: Option<Kind>,
    path: Option<String>,
    from: Option<String>,
    to: Option<String>,
    text: Option<String>,
    base64: Option<String>,
    file: Option<PathBuf>,
    offset: Option<u64>,
    old: Option<String>,
    new: Option<String>,
    all: Option<bool>,
    target: Option<String>,
    mode: Option<String>,
    owner: Option<String>,
    mime: Option<String>,
    replace: Option<bool>,
    recursive: Option<bool>,
    if_absent: Option<bool>,
    if_version: Option<u64>,
    if_file_id: Option<u64>,
    if_generation: Option<u64>,
    if_content: Option<String>,
}

pub(crate) async fn tx(session: &Session, args: TxArgs) -> Outcome {
    let name =
        if args.file == Path::new("-") { "standard input".into() } else { args.file.display().to_string() };
    let text = read(&args.file)?;
    let call = match plan(&text) {
        Ok(call) => call,
        Err(wrong) => {
            session.out.quiet(&json!({ "error": wrong.described() }))?;
            return Err(Failure::Usage(format!("tx {name}: {wrong}")));
        }
    };
    let about: Vec<_> = call.ops.iter().map(|op| (op.op(), op.path().clone())).collect();
    match session.nx.send(call).await {
        Ok(done) => {
            let results: Vec<_> =
                about.iter().zip(&done.results).map(|(op, done)| result(op, done)).collect();
            session.out.either(&report(&done, results), told(&done))
        }
        Err(error) => {
            session.out.quiet(&json!({ "error": described(&error) }))?;
            Err(error.into())
        }
    }
}

fn read(file: &Path) -> Outcome<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file).map_err(|error| Failure::host("tx", file, error));
    }
    let mut text = String::new();
    let read = io::stdin().lock().read_to_string(&mut text);
    read.map_err(|error| Failure::host("tx", Path::new("standard input"), error))?;
    Ok(text)
}

/// Why a description makes no sense.
#[derive(Debug)]
struct Wrong {
    /// The operation that it is about; none when it is about all of it.
    item: Option<usize>,
    why: String,
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self { item: None, why }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Wrong {
    /// For programs: as an error of the kernel is.
    fn described(&self) -> Value {
        let errno = ErrorKind::InvalidArgument.errno().name();
        json!({ "item": self.item, "op": Op::Tx.name(), "path": null, "errno": errno, "cause": self.why })
    }
}

/// The transaction that the text describes. Reads host files that it names.
fn plan(text: &str) -> Result<SysTx, Wrong> {
    let plan: Plan<'_> = serde_json::from_str(text).map_err(|why| why.to_string())?;
    let mut call = SysTx::new();
    if let Some(op_id) = plan.op_id {
        let number = u128::from_str_radix(&op_id, 16);
        call = call.op_id(OpId(number.map_err(|_| format!("op_id: {op_id:?} is no hexadecimal number"))?));
    }
    for (index, raw) in plan.ops.iter().enumerate() {
        // The text of the operation is a part of the whole text.
        let offset = (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        let line = 1 + text.get(..offset).map_or(0, |before| before.matches('\n').count());
        let at = |line: usize, why: &dyn fmt::Display| Wrong {
            item: Some(index),
            why: format!("ops[{index}], line {line}: {why}"),
        };
        let item: Item = serde_json::from_str(raw.get()).map_err(|why| {
            let words = why.to_string();
            // Its own count of lines begins with the operation.
            let words = words.split(" at line ").next().unwrap_or_default();
            at(line + why.line().saturating_sub(1), &words)
        })?;
        call = call.with(item.into_op().map_err(|why| at(line, &why))?);
    }
    call.validate().map_err(|error| error.to_string())?;
    Ok(call)
}

/// Takes what an operation needs, and says so when it is not there.
fn need<T>(field: &mut Option<T>, name: &str) -> Result<T, String> {
    field.take().ok_or_else(|| format!("{name:?} is missing"))
}

fn parsed(text: &str) -> Result<VPath, String> {
    text.into_path().map_err(|(text, why)| format!("{text:?} is not a path: {why}"))
}

impl Item {
    fn into_op(mut self) -> Result<TxOp, String> {
        let kind = need(&mut self.op, "op")?;
        let expected = self.precondition()?;
        let op: TxOp = match kind {
            Kind::Write => {
                let (path, data) = (self.path()?, self.data()?);
                let call = SysWrite::at(path, data).create().attributes(self.attributes()?);
                match self.offset.take() {
                    Some(offset) => call.offset(offset).into(),
                    None => call.into(),
                }
            }
            Kind::Create => {
                let (path, data) = (self.path()?, self.data()?);
                SysWrite::at(path, data).create_exclusive().attributes(self.attributes()?).into()
            }
            Kind::Append => SysWrite::at(self.path()?, self.data()?).append().create().into(),
            Kind::Edit => {
                let call =
                    SysWrite::edit(self.path()?, need(&mut self.old, "old")?, need(&mut self.new, "new")?);
                if self.all.take() == Some(true) { call.all().into() } else { call.into() }
            }
            Kind::Mkdir => {
                let call = SysSetattr::directory(self.path()?).parents(Parents::Made);
                call.attributes(self.attributes()?).into()
            }
            Kind::Link => SysSetattr::link(self.path()?, need(&mut self.target, "target")?).into(),
            Kind::Setattr => SysSetattr::at(self.path()?).attributes(self.attributes()?).into(),
            Kind::Rename => {
                let (from, to) = (need(&mut self.from, "from")?, need(&mut self.to, "to")?);
                let mut call = SysRename::new(parsed(&from)?, parsed(&to)?);
                call.replace = self.replace.take().unwrap_or(true);
                call.into()
            }
            Kind::Unlink => {
                let call = SysUnlink::at(self.path()?);
                if self.recursive.take() == Some(true) {
                    call.recursive().into()
                } else {
                    call.expect(Expect::Any).into()
                }
            }
            Kind::Check => {
                if expected == Precondition::None {
                    return Err("a check needs a condition, such as \"if_version\"".into());
                }
                TxCheck::at(self.path()?).into()
            }
        };
        match self.left() {
            Some(field) => Err(format!("{field:?} means nothing to this operation")),
            None => Ok(op.when(expected)),
        }
    }

    fn path(&mut self) -> Result<VPath, String> {
        parsed(&need(&mut self.path, "path")?)
    }

    /// The content, given in one of three ways.
    fn data(&mut self) -> Result<Bytes, String> {
        match (self.text.take(), self.base64.take(), self.file.take()) {
            (Some(text), None, None) => Ok(text.into()),
            (None, Some(text), None) => {
                STANDARD.decode(&text).map(Bytes::from).map_err(|why| format!("base64: {why}"))
            }
            (None, None, Some(file)) => fs::read(&file)
                .map(Bytes::from)
                .map_err(|error| Failure::host("read", &file, error).to_string()),
            (None, None, None) => Err("the content is missing: \"text\", \"base64\" or \"file\"".into()),
            _ => Err("the content is given more than once".into()),
        }
    }

    fn attributes(&mut self) -> Result<Attributes, String> {
        let mut attributes = Attributes::none();
        if let Some(mode) = self.mode.take() {
            let bits =
                u32::from_str_radix(&mode, 8).map_err(|_| format!("mode: {mode:?} is no octal number"))?;
            attributes.mode = Some(bits);
        }
        attributes.owner = self.owner.take().map(Into::into);
        attributes.mime_type = self.mime.take().map(Into::into);
        Ok(attributes)
    }

    fn precondition(&mut self) -> Result<Precondition, String> {
        let absent = self.if_absent.take().filter(|absent| *absent).map(|_| Precondition::Absent);
        let content = match self.if_content.take() {
            Some(text) => {
                let id = ContentId::parse_hex(&text);
                let id =
                    id.ok_or_else(|| format!("if_content: {text:?} is no content as `stat` prints it"))?;
                Some(Precondition::Content(id))
            }
            None => None,
        };
        let version = match (self.if_version.take(), self.if_file_id.take()) {
            (Some(version), Some(id)) => Some(Precondition::Unchanged { file_id: FileId(id), version }),
            (Some(version), None) => Some(Precondition::Version(version)),
            (None, Some(_)) => return Err("if_file_id goes with if_version".into()),
            (None, None) => None,
        };
        let generation = self.if_generation.take().map(Precondition::Generation);
        let mut given = [absent, version, generation, content].into_iter().flatten();
        let first = given.next().unwrap_or_default();
        if given.next().is_some() {
            return Err("one operation has one condition".into());
        }
        Ok(first)
    }

    /// A field that was given and not taken.
    fn left(&self) -> Option<&'static str> {
        let given = [
            ("path", self.path.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
            ("text", self.text.is_some()),
            ("base64", self.base64.is_some()),
            ("file", self.file.is_some()),
            ("offset", self.offset.is_some()),
            ("old", self.old.is_some()),
            ("new", self.new.is_some()),
            ("all", self.all.is_some()),
            ("target", self.target.is_some()),
            ("mode", self.mode.is_some()),
            ("owner", self.owner.is_some()),
            ("mime", self.mime.is_some()),
            ("replace", self.replace.is_some()),
            ("recursive", self.recursive.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

#[derive(Serialize)]
struct ResultJson<'a> {
    op: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<u64>,
}

fn result<'a>((op, path): &'a (Op, VPath), done: &'a TxDone) -> ResultJson<'a> {
    let mut result = ResultJson {
        op: op.name(),
        path: path.as_str(),
        to: None,
        created: None,
        size: None,
        version: None,
        removed: None,
    };
    let mut there = |metadata: &FileMetadata, created| {
        (result.size, result.version) = (Some(metadata.size), Some(metadata.version));
        result.created = created;
    };
    match done {
        TxDone::Write(done) => there(&done.metadata, Some(done.created)),
        TxDone::Setattr(done) => there(&done.metadata, Some(done.created)),
        TxDone::Rename(done) => {
            there(&done.metadata, None);
            result.to = Some(done.metadata.path.as_str());
        }
        TxDone::Unlink(done) => result.removed = Some(done.removed),
        TxDone::Check(done) => {
            if let Some(metadata) = &done.metadata {
                there(metadata, None);
            }
            result.op = "check";
        }
        _ => {}
    }
    result
}

fn report(done: &Transacted, results: Vec<ResultJson<'_>>) -> Value {
    json!({
        "lsn": done.receipt.lsn.0,
        "durability": done.receipt.durability.name(),
        "op_id": done.receipt.op_id.to_string(),
        "repeated": done.repeated,
        "results": results,
    })
}

fn told(done: &Transacted) -> String {
    let lsn = done.receipt.lsn;
    match done.results.len() {
        _ if done.repeated => format!("committed before, as {lsn}"),
        1 => format!("1 operation committed as {lsn}"),
        many => format!("{many} operations committed as {lsn}"),
    }
}

/// The error for programs: which operation, and of a condition what was there.
fn described(error: &Error) -> Value {
    let mut described = json!({
        "item": error.item(),
        "op": error.op().name(),
        "path": error.path(),
        "errno": error.errno().name(),
        "cause": error.cause(),
    });
    if let Some(Conflict { expected, found, .. }) = error.conflict() {
        described["expected"] = match expected {
            Precondition::Absent => Value::Null,
            Precondition::Version(version) => json!({ "version": version }),
            Precondition::Generation(generation) => json!({ "generation": generation }),
            Precondition::Content(id) => json!({ "content": id.to_string() }),
            Precondition::Unchanged { file_id, version } => {
                json!({ "file_id": file_id.0, "version": version })
            }
            other => json!(other.to_string()),
        };
        described["found"] = match found {
            Found::Entry { file_id, version, generation, content_id } => json!({
                "file_id": file_id.0,
                "version": version,
                "generation": generation,
                "content": content_id.as_ref().map(ToString::to_string),
            }),
            _ => Value::Null,
        };
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(text: &str) -> Vec<TxOp> {
        plan(text).unwrap_or_else(|why| panic!("{why}")).ops
    }

    #[test]
    fn each_operation_of_the_manual_is_understood() {
        let path = |text: &str| VPath::parse(text).unwrap();
        let text = r#"{"op_id": "ff", "ops": [
            {"op": "write", "path": "/a", "text": "x", "mode": "600", "if_absent": true},
            {"op": "create", "path": "/b", "base64": "AP8="},
            {"op": "append", "path": "/a", "text": "y", "if_version": 1},
            {"op": "edit", "path": "/a", "old": "x", "new": "z", "all": true},
            {"op": "mkdir", "path": "/d"},
            {"op": "link", "path": "/l", "target": "a"},
            {"op": "setattr", "path": "/a", "owner": "me"},
            {"op": "rename", "from": "/a", "to": "/d/a", "replace": false},
            {"op": "unlink", "path": "/d", "recursive": true, "if_generation": 7},
            {"op": "check", "path": "/b", "if_version": 1}
        ]}"#;
        let call = plan(text).unwrap();
        assert_eq!((call.op_id, call.ops.len()), (Some(OpId(255)), 10));
        let write =
            SysWrite::at(path("/a"), "x").create().attributes(Attributes::none().mode(0o600)).if_absent();
        assert_eq!(call.ops[0], write.into());
        assert_eq!(call.ops[1], SysWrite::at(path("/b"), vec![0, 255]).create_exclusive().into());
        assert_eq!(call.ops[3], SysWrite::edit(path("/a"), "x", "z").all().into());
        assert_eq!(call.ops[7], SysRename::new(path("/a"), path("/d/a")).no_replace().into());
        assert_eq!(call.ops[9], TxCheck::at(path("/b")).when(Precondition::Version(1)).into());
        assert_eq!(ops(r#"{"ops":[{"op":"write","path":"/a","text":"x","offset":3}]}"#).len(), 1);
    }

    fn wrong(text: &str, why: &str) {
        let told = plan(text).map(drop).unwrap_err().to_string();
        assert!(told.contains(why), "{told:?} does not say {why:?}");
    }

    #[test]
    fn what_is_wrong_is_told_with_the_operation_and_its_line() {
        let second =
            |op: &str| format!("{{\"ops\": [\n  {{\"op\": \"unlink\", \"path\": \"/a\"}},\n  {op}\n]}}");
        wrong("", "EOF while parsing");
        wrong("{\"ops\": [\n{]}", "at line 2");
        wrong("[]", "invalid");
        wrong("{\"ops\": [], \"what\": 1}", "unknown field `what`");
        wrong("{\"ops\": []}", "0 operations");
        wrong("{\"op_id\": \"x\", \"ops\": []}", "no hexadecimal number");
        wrong(&second("{\"path\": \"/b\"}"), "ops[1], line 3: \"op\" is missing");
        wrong(&second("{\"op\": \"paint\", \"path\": \"/b\"}"), "ops[1], line 3: unknown variant `paint`");
        wrong(&second("{\"op\": \"write\",\n \"pth\": \"/b\"}"), "ops[1], line 4: unknown field `pth`");
        wrong(
            &second("{\"op\": \"write\", \"path\": \"b\", \"text\": \"\"}"),
            "ops[1], line 3: \"b\" is not a path",
        );
        wrong(&second("{\"op\": \"write\", \"path\": \"/b\"}"), "the content is missing");
        wrong(
            &second("{\"op\": \"write\", \"path\": \"/b\", \"text\": \"\", \"base64\": \"\"}"),
            "more than once",
        );
        wrong(&second("{\"op\": \"write\", \"path\": \"/b\", \"base64\": \"?\"}"), "base64");
        wrong(&second("{\"op\": \"write\", \"path\": \"/b\", \"file\": \"/no/such\"}"), "(ENOENT)");
        wrong(&second("{\"op\": \"rename\", \"from\": \"/b\"}"), "\"to\" is missing");
        wrong(&second("{\"op\": \"unlink\", \"path\": \"/b\", \"text\": \"\"}"), "\"text\" means nothing");
        wrong(&second("{\"op\": \"mkdir\", \"path\": \"/b\", \"mode\": \"9\"}"), "no octal number");
        wrong(&second("{\"op\": \"check\", \"path\": \"/b\"}"), "needs a condition");
        wrong(&second("{\"op\": \"check\", \"path\": \"/b\", \"if_content\": \"12\"}"), "no content");
        wrong(
            &second("{\"op\": \"check\", \"path\": \"/b\", \"if_version\": 1, \"if_absent\": true}"),
            "one condition",
        );
    }
}
