//! Entries as commands print them: one line of `ls -l`, the lines of `stat`, one JSON object.

use std::fmt;

use nexus::syscall::DirEntry;
use nexus::{EntryType, Error, FileMetadata};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::output::Output;
use crate::when::When;

/// The JSON of an entry. The fields are part of the interface.
#[derive(Serialize)]
pub(crate) struct EntryJson<'a> {
    path: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    mode: String,
    owner: &'a str,
    modified: Option<When>,
    created: Option<When>,
    changed: Option<When>,
    mime: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    version: u64,
    generation: u64,
    file_id: u64,
    zone: &'a str,
    implicit: bool,
}

impl<'a> From<&'a FileMetadata> for EntryJson<'a> {
    fn from(entry: &'a FileMetadata) -> Self {
        let time = |time| (!is_timeless(entry)).then_some(When(time));
        Self {
            path: entry.path.as_str(),
            kind: kind(entry.entry_type),
            size: entry.size,
            mode: format!("{:04o}", entry.mode),
            owner: &entry.owner,
            modified: time(entry.modified),
            created: time(entry.created),
            changed: time(entry.changed),
            mime: entry.mime(),
            target: entry.link_target.as_deref(),
            content: entry.content_id.as_ref().map(ToString::to_string),
            version: entry.version,
            generation: entry.generation,
            file_id: entry.file_id.0,
            zone: entry.zone.as_str(),
            implicit: entry.implicit,
        }
    }
}

/// What an entry is, in a word.
pub(crate) fn kind(entry_type: EntryType) -> &'static str {
    match entry_type {
        EntryType::Reg => "file",
        EntryType::Dir => "directory",
        EntryType::Mount => "mount",
        EntryType::Pipe => "pipe",
        EntryType::Stream => "stream",
        EntryType::Link => "link",
        _ => "external",
    }
}

/// What an entry is, in a letter.
fn letter(entry_type: EntryType) -> &'static str {
    match entry_type {
        EntryType::Reg => "-",
        EntryType::Dir => "d",
        EntryType::Mount => "m",
        EntryType::Pipe => "p",
        EntryType::Stream => "s",
        EntryType::Link => "l",
        _ => "x",
    }
}

/// One line of `ls -l`: `-rw-r--r-- OWNER SIZE DATE TIME NAME`, with the target of a link.
pub(crate) struct Long<'a> {
    pub(crate) entry: &'a FileMetadata,
    pub(crate) name: &'a str,
}

impl fmt::Display for Long<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, name } = self;
        let owner = if entry.owner.is_empty() { "-" } else { &entry.owner };
        let (letters, size) = (Letters(entry), entry.size);
        write!(f, "{letters} {owner:<8} {size:>10} ")?;
        if is_timeless(entry) {
            write!(f, "{:<16}", "-")?;
        } else {
            write!(f, "{:#}", When(entry.modified))?;
        }
        write!(f, " {name}")?;
        entry.link_target.as_ref().map_or(Ok(()), |target| write!(f, " -> {target}"))
    }
}

/// Whether nobody keeps a time of it: a folder of a bucket is only a part of the names of what lies in it.
fn is_timeless(entry: &FileMetadata) -> bool {
    [entry.modified, entry.created, entry.changed].iter().all(|time| time.nanos() == 0)
}

/// One line of `ls -l` for an entry of which there is only the name, and what that says.
pub(crate) struct Unknown<'a> {
    pub(crate) entry: &'a DirEntry,
    pub(crate) name: &'a str,
}

impl Unknown<'_> {
    /// The same for programs, with why it is so.
    pub(crate) fn json(&self, error: &Error) -> Value {
        json!({
            "path": self.entry.path,
            "type": kind(self.entry.entry_type),
            "file_id": self.entry.file_id.0,
            "error": { "errno": error.errno().name(), "cause": error.cause() },
        })
    }
}

impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, name) = (letter(self.entry.entry_type), self.name);
        write!(f, "{letter}????????? {:<8} {:>10} {:<16} {name}", "?", "?", "?")
    }
}

/// Type and permission bits as `ls` writes them.
struct Letters<'a>(&'a FileMetadata);

impl fmt::Display for Letters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(letter(self.0.entry_type))?;
        let mode = self.0.mode;
        // The special bits stand in the place of the x: s and t with it, S and T without.
        for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
            let bits = mode >> shift;
            let read = if bits & 4 == 0 { '-' } else { 'r' };
            let write = if bits & 2 == 0 { '-' } else { 'w' };
            let execute = match (bits & 1 != 0, mode & special != 0) {
                (false, false) => '-',
                (true, false) => 'x',
                (true, true) => letter,
                (false, true) => letter.to_ascii_uppercase(),
            };
            write!(f, "{read}{write}{execute}")?;
        }
        Ok(())
    }
}

/// Prints all that is known of an entry.
pub(crate) fn describe(out: &Output, entry: &FileMetadata) -> Outcome {
    let json = EntryJson::from(entry);
    if out.is_json() {
        return out.json(&json);
    }
    out.line(format_args!("path        {}", entry.path))?;
    if let Some(target) = json.target {
        out.line(format_args!("target      {target}"))?;
    }
    let implied = if entry.implicit { ", implied by what lies below it" } else { "" };
    out.line(format_args!("type        {} ({}){implied}", json.kind, entry.entry_type))?;
    out.line(format_args!("size        {}", entry.size))?;
    out.line(format_args!("mode        {} {}", json.mode, Letters(entry)))?;
    out.line(format_args!("owner       {}", json.owner))?;
    for (name, time) in [("modified", &json.modified), ("created", &json.created), ("changed", &json.changed)]
    {
        let time = time.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        out.line(format_args!("{name:<12}{time}"))?;
    }
    out.line(format_args!("mime        {}", json.mime))?;
    if let Some(content) = &json.content {
        out.line(format_args!("content     {content}"))?;
        out.line(format_args!("version     {} (generation {})", entry.version, entry.generation))?;
    }
    out.line(format_args!("file id     {} in zone {}", entry.file_id, entry.zone))
}

#[cfg(test)]
mod tests {
    use nexus::{FileId, Timestamp, VPath, ZoneId};

    use super::*;

    #[test]
    fn a_long_line_reads_like_ls() {
        let path = VPath::parse("/a").unwrap();
        let line = |entry_type, mode, at| {
            let mut entry = FileMetadata::new(path.clone(), ZoneId::root(), FileId(1), entry_type, at);
            entry.mode = mode;
            Long { entry: &entry, name: "a" }.to_string()
        };
        let check = |entry_type, mode, expected| {
            let line = line(entry_type, mode, Timestamp(1));
            assert_eq!(line, format!("{expected} -                 0 1970-01-01 00:00 a"));
        };
        check(EntryType::Reg, 0o644, "-rw-r--r--");
        check(EntryType::Dir, 0o1777, "drwxrwxrwt");
        check(EntryType::Reg, 0o6711, "-rws--s--x");
        check(EntryType::Reg, 0o4600, "-rwS------");
        check(EntryType::Link, 0o777, "lrwxrwxrwx");
        let timeless = line(EntryType::Dir, 0o755, Timestamp(0));
        assert_eq!(timeless, "drwxr-xr-x -                 0 -                a");
    }
}
