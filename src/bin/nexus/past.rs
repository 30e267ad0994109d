//! `versions` and `restore`; and the times of the past as they are written on a command line.

use std::str::FromStr;
use std::time::Duration;

use nexus::syscall::{SysCopy, SysVersions, Version};
use nexus::{AsOf, Durability, Lsn, Op, Timestamp, VPath};
use nexus_actors::Env;
use serde::Serialize;
use serde_json::json;

use crate::args::{RestoreArgs, VersionsArgs};
use crate::entry::kind;
use crate::failure::Outcome;
use crate::session::{Session, path};
use crate::when::When;

/// As of when a command looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// As of this version, place or time.
    Fixed(AsOf),
    /// As of so long before the command begins.
    Ago(Duration),
}

impl Then {
    /// The same for the kernel, from the clock of `env`.
    pub(crate) fn as_of(self, env: &Env) -> AsOf {
        match self {
            Self::Fixed(as_of) => as_of,
            Self::Ago(ago) => {
                let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
                AsOf::Time(Timestamp(env.wall().saturating_sub(ago)))
            }
        }
    }
}

impl FromStr for Then {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |number: &str| number.parse().map_err(|_| format!("{number:?} is no number"));
        if let Some(version) = text.strip_prefix("v:") {
            return Ok(Self::Fixed(AsOf::Version(number(version)?)));
        }
        if let Some(lsn) = text.strip_prefix("lsn:") {
            return Ok(Self::Fixed(AsOf::Lsn(Lsn(number(lsn)?))));
        }
        moment(text).map_err(|why| format!("{why}; or v:N for a version, or lsn:N for a place in the log"))
    }
}

/// A time, or how long ago.
pub(crate) fn moment(text: &str) -> Result<Then, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(Then::Fixed(AsOf::Time(time.into())));
    }
    let long = text.strip_suffix("ago").unwrap_or(text).trim();
    humantime::parse_duration(long).map(Then::Ago).map_err(|_| {
        "expected a time in UTC such as 2026-11-03T12:00:00Z, or how long ago such as '2h ago'".into()
    })
}

/// One version. The fields are part of the interface.
#[derive(Serialize)]
struct VersionJson<'a> {
    path: &'a str,
    id: u64,
    #[serde(rename = "type")]
    entry_type: &'static str,
    present: bool,
    version: u64,
    lsn: Option<u64>,
    from: Option<u64>,
    from_at: Option<When>,
    until: Option<u64>,
    until_at: Option<When>,
    size: u64,
    content: Option<String>,
    modified: When,
    by: Option<&'a str>,
    op: Option<&'static str>,
}

impl<'a> VersionJson<'a> {
    fn new(path: &'a str, version: &'a Version) -> Self {
        let place = |lsn: Option<Lsn>| lsn.map(|Lsn(lsn)| lsn);
        Self {
            path,
            id: version.file_id.0,
            entry_type: kind(version.entry_type),
            present: version.is_present(),
            version: version.version,
            lsn: place(version.lsn),
            from: place(version.from),
            from_at: version.from_at.map(When),
            until: place(version.until),
            until_at: version.until_at.map(When),
            size: version.size,
            content: version.content_id.as_ref().map(ToString::to_string),
            modified: When(version.modified),
            by: version.by.as_deref(),
            op: version.op.map(Op::name),
        }
    }
}

pub(crate) async fn versions(session: &Session, args: VersionsArgs) -> Outcome {
    let at = path(Op::Versions, &args.path)?;
    let mut call = SysVersions::at(&at);
    (call.of_file, call.follow) = (args.file, !args.no_follow);
    let mut page = session.nx.send(call.clone()).await?;
    loop {
        print(session, &at, &page.versions)?;
        match page.next {
            Some(cursor) => page = session.nx.send(call.clone().after(cursor)).await?,
            None => return Ok(()),
        }
    }
}

fn print(session: &Session, at: &VPath, versions: &[Version]) -> Outcome {
    for version in versions {
        let told = VersionJson::new(at.as_str(), version);
        let place = |lsn: Option<u64>| lsn.map_or_else(String::new, |lsn| lsn.to_string());
        let places = format!("{}..{}", place(told.from), place(told.until));
        let (op, by) = (told.op.unwrap_or("-"), told.by.unwrap_or("-"));
        let came = When(version.from_at.unwrap_or(version.modified));
        session.out.either(
            &told,
            format_args!("{:>4} {places:>12} {:>10} {came:#} {op} {by} {}", told.version, told.size, told.id),
        )?;
    }
    Ok(())
}

pub(crate) async fn restore(session: &Session, args: RestoreArgs) -> Outcome {
    let then = args.version.map(AsOf::Version).or(args.lsn.map(|lsn| AsOf::Lsn(Lsn(lsn)))).map(Then::Fixed);
    // One of the three is there: the grammar says so.
    let Some(then) = then.or(args.time) else { return Ok(()) };
    let from = path(Op::Restore, &args.path)?;
    let to = args.to.as_deref().map_or_else(|| Ok(from.clone()), |to| path(Op::Restore, to))?;
    let done = session.nx.send(SysCopy::new(&from, &to).as_of(then.as_of(session.env()))).await;
    let done = done.map_err(|error| error.during(Op::Restore))?;
    session.out.quiet(&json!({
        "path": from,
        "to": to,
        "created": done.created,
        "size": done.size,
        "version": done.metadata.version,
        "lsn": done.receipt.lsn.0,
        "durability": match done.receipt.durability {
            Durability::Strong => "strong",
            _ => "volatile",
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_named_by_version_place_time_and_how_long_ago() {
        let check = |text: &str, expected| assert_eq!(text.parse(), Ok(expected), "{text}");
        check("v:3", Then::Fixed(AsOf::Version(3)));
        check("lsn:17", Then::Fixed(AsOf::Lsn(Lsn(17))));
        let time = Then::Fixed(AsOf::Time(Timestamp(1_000_000_007)));
        check("1970-01-01T00:00:01.000000007Z", time);
        check("1970-01-01 00:00:01.000000007", time);
        let minutes = |minutes: u64| Then::Ago(Duration::from_secs(60 * minutes));
        check("2h ago", minutes(120));
        check("1h 30m ago", minutes(90));
        check("90m", minutes(90));
        let wrong = |text: &str, named: &str| {
            let why = text.parse::<Then>().expect_err(text);
            assert!(why.contains(named), "{why}");
        };
        wrong("v:x", "\"x\" is no number");
        wrong("lsn:-1", "\"-1\" is no number");
        wrong("yesterday", "such as '2h ago'; or v:N");
        wrong("", "expected a time");
        wrong("1969-12-31T23:59:59Z", "expected a time");
    }
}
