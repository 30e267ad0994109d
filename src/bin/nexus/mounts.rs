//! `mount`, `umount`, `mounts`.

use std::time::Duration;

use nexus::hal::{CacheFigures, HIDDEN, PendingFile, SECRET_PLACES};
use nexus::{CallTimes, MountSpec, MountState, MountStatus, Op};
use serde_json::json;

use crate::args::{MountArgs, UmountArgs};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, one_line};
use crate::session::{Session, path};
use crate::sys;
use crate::top::words::{bytes, count, percent, time};
use crate::when::When;

pub(crate) async fn mount(session: &Session, args: MountArgs) -> Outcome {
    let at = path(Op::Mount, &args.path)?;
    let given = args.options.clone();
    let mut spec = asked_for(args.driver.clone(), args.options, "mount")?;
    if args.read_only {
        spec = spec.read_only();
    }
    let spec = settled(spec);
    if args.replace {
        let swapped = session.nx.swap_driver(&at, spec).await?;
        warn_of_secrets(session, at.as_str(), &given).await;
        return session.out.quiet(&json!({ "path": at, "driver": args.driver, "swapped": swapped }));
    }
    let done = session.nx.mount(&at, spec).await?;
    warn_of_secrets(session, at.as_str(), &given).await;
    session.out.quiet(&json!({ "path": at, "driver": args.driver, "created": done.created }))
}

/// The driver with its options, each of which is given once.
pub(crate) fn asked_for(driver: String, options: Vec<(String, String)>, verb: &str) -> Outcome<MountSpec> {
    options.into_iter().try_fold(MountSpec::new(driver), |spec, (key, value)| {
        if spec.options.contains_key(&key) {
            return Err(Failure::Usage(format!("{verb}: --opt {key} is given twice: once is meant")));
        }
        Ok(spec.option(key, value))
    })
}

/// `spec` with what depends on where this command works: the kernel may work elsewhere.
pub(crate) fn settled(spec: MountSpec) -> MountSpec {
    nexus_drivers::catalogue().settled(spec)
}

/// Says which of the options of the mount at `point` are secrets that are remembered as they were given. The kernel knows which are secret.
async fn warn_of_secrets(session: &Session, point: &str, given: &[(String, String)]) {
    let is_place = |text: &str| SECRET_PLACES.iter().any(|place| text.starts_with(place));
    let given: Vec<_> = given.iter().filter(|(_, text)| !is_place(text)).map(|(key, _)| key).collect();
    if given.is_empty() {
        return;
    }
    // Who may mount and not look is told nothing.
    let Ok(mounts) = sys::mounts(session).await else { return };
    let Some(mount) = mounts.iter().find(|mount| mount.point.as_str() == point) else { return };
    for key in given.into_iter().filter(|key| mount.options.get(*key).is_some_and(|shown| shown == HIDDEN)) {
        session.out.warn(format_args!(
            "mount: {key} is kept in the data folder as it was given; {key}=env:NAME or {key}=file:PATH keeps it out"
        ));
    }
}

pub(crate) async fn umount(session: &Session, args: UmountArgs) -> Outcome {
    let at = path(Op::Unmount, &args.path)?;
    // Who may unmount and not look is told nothing.
    let before = sys::mounts(session).await.unwrap_or_default();
    session.nx.unmount(&at).await?;
    if let Some(cache) = before.iter().find(|mount| mount.point == at).and_then(|mount| mount.cache.as_ref())
    {
        left_here(cache).iter().for_each(|line| session.out.warn(format_args!("umount: {line}")));
    }
    session.out.quiet(&json!({ "path": at }))
}

/// What is said of files that did not get to their store before it was unmounted.
fn left_here(cache: &CacheFigures) -> Vec<String> {
    let mut lines: Vec<_> = cache.stuck.iter().map(stuck).collect();
    if !lines.is_empty() {
        lines.push("what of this is not at its store stays in the data folder, and goes there when the store is mounted again".into());
    }
    lines
}

/// A file that does not get to its store, since when, and why.
fn stuck(file: &PendingFile) -> String {
    let how = if file.refused { "refused" } else { "pending" };
    let (since, tries) = (When(file.since), count(file.attempts));
    format!("{} {how} since {since:#}, tried {tries} times: {}", one_line(&file.path), one_line(&file.error))
}

pub(crate) async fn mounts(session: &Session) -> Outcome {
    let mounts = sys::mounts(session).await?;
    if !session.out.is_json() {
        return list(&session.out, &mounts);
    }
    mounts.iter().try_for_each(|mount| session.out.json(mount))
}

/// The titles of the columns; what comes after them has no bound: why a mount does not serve, and its options.
const TITLES: [&str; COLUMNS] = [
    "MOUNT", "DRIVER", "ACCESS", "STATE", "CALLS", "FAILED", "LOOK", "READ", "WRITE", "LIST", "IN", "OUT",
    "CACHE",
];

const COLUMNS: usize = 13;

/// The title of what has no bound.
const REST: &str = "WHY, OPTIONS";

/// How many files of one mount are named in the list that do not get to their store; JSON has some more.
const STUCK_MAX: usize = 3;

/// Prints the mounts, one a line.
pub(crate) fn list(out: &Output, mounts: &[MountStatus]) -> Outcome {
    let rows: Vec<_> = mounts.iter().map(cells).collect();
    let titles = TITLES.map(String::from);
    let width = |column: usize| {
        let cells = rows.iter().map(|(cells, _)| &cells[column]).chain([&titles[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |cells: &[String; COLUMNS], rest: &str| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = padded.chain([rest.to_owned()]).collect::<Vec<_>>().join("  ");
        out.line(line.trim_end())
    };
    line(&titles, REST)?;
    rows.iter().try_for_each(|(cells, rest)| line(cells, rest))
}

/// What is told of one mount, and what has no bound.
fn cells(mount: &MountStatus) -> ([String; COLUMNS], String) {
    let (state, why) = match &mount.state {
        MountState::Serving => ("serving", None),
        MountState::Limited { cause } => ("limited", Some(cause.as_str())),
        MountState::Degraded { cause, .. } => ("degraded", Some(cause.as_str())),
        MountState::Restarting { cause } => ("restarting", Some(cause.as_str())),
        MountState::Failed { cause, .. } => ("failed", Some(cause.as_str())),
        _ => ("unknown", None),
    };
    let zone = if mount.zone.is_root() { String::new() } else { format!("{}:", mount.zone) };
    let kind = mount.connector.map_or_else(String::new, |category| format!(" ({})", category.name()));
    let times = &mount.times;
    let cells = [
        format!("{zone}{}", mount.point),
        format!("{}{kind}", mount.driver),
        access(mount).into(),
        state.into(),
        count(mount.calls.made),
        count(mount.calls.failed),
        took(times.looks),
        took(times.reads),
        took(times.writes),
        took(times.listings),
        bytes(mount.bytes_written),
        bytes(mount.bytes_read),
        mount.cache.as_ref().map_or_else(|| "-".into(), cached),
    ];
    let options = mount.options.iter().map(|(key, value)| format!("{key}={}", one_line(value)));
    let files = mount.cache.iter().flat_map(|cache| cache.stuck.iter().take(STUCK_MAX));
    let stuck = files.map(|file| format!("[{}]", stuck(file)));
    let rest: Vec<_> = why.map(one_line).into_iter().chain(stuck).chain(options).collect();
    (cells, rest.join(" "))
}

/// What can be done there. A driver that is not open has not said whether it changes anything.
fn access(mount: &MountStatus) -> &'static str {
    let is_open = !matches!(mount.state, MountState::Failed { .. } | MountState::Restarting { .. });
    match (mount.read_only, is_open || mount.capabilities.is_some()) {
        (true, _) => "read-only",
        (false, true) => "read-write",
        (false, false) => "-",
    }
}

/// How long half of the calls took at most, and 99 of 100.
fn took(times: CallTimes) -> String {
    match (times.median_ns, times.p99_ns) {
        (Some(median), Some(most)) => {
            [median, most].map(|nanos| time(Some(Duration::from_nanos(nanos)))).join("/")
        }
        _ => "-".into(),
    }
}

/// How often what is kept here helped, how much that is, and what is yet to be written to the backend.
fn cached(cache: &CacheFigures) -> String {
    let kept = format!("{} {}/{}", percent(cache.hit_rate()), bytes(cache.bytes), bytes(cache.bytes_max));
    let pending = (cache.pending_files > 0)
        .then(|| format!(" +{} pending {}", count(cache.pending_files), bytes(cache.pending_bytes)));
    let refused = (cache.refused_files > 0).then(|| format!(" {} refused", count(cache.refused_files)));
    let failed = (cache.failed > 0).then(|| format!(" {} failed", count(cache.failed)));
    [Some(kept), pending, refused, failed].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn status(change: impl FnOnce(&mut Value)) -> MountStatus {
        let mut status = json!({
            "zone": "root", "point": "/home", "driver": "s3", "options": { "bucket": "b" }, "read_only": false,
            "state": "serving", "generation": 0, "actor": "nexus/drivers/mount-2", "in_flight": 1,
            "calls": { "made": 7, "in_flight": 1, "failed": 2, "timed_out": 0, "panicked": 0, "refused": 0 },
            "last_failure": null,
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn what_an_older_kernel_does_not_tell_is_not_made_up() {
        let (cells, rest) = cells(&status(|_| {}));
        assert_eq!(
            cells.map(|cell| cell.replace(' ', "_")).join(" "),
            "/home s3 read-write serving 7 2 - - - - 0B 0B -"
        );
        assert_eq!(rest, "bucket=b");
    }

    #[test]
    fn all_that_was_asked_for_is_in_the_line() {
        let (cells, rest) = cells(&status(|status| {
            status["state"] = json!({ "failed": { "cause": "nobody\nis there", "retry_at": 5 } });
            let none =
                json!({ "calls": 0, "total_ns": 0, "median_ns": null, "p99_ns": null, "longest_ns": 0 });
            let some = json!({
                "calls": 9, "total_ns": 9, "median_ns": 250_000, "p99_ns": 1_000_000_000, "longest_ns": 9,
            });
            status["times"] = json!({ "looks": none, "reads": some, "writes": none, "listings": none });
            status["bytes_read"] = json!(5 << 20);
            status["cache"] = json!({
                "hits": 3, "misses": 1, "bytes": 1 << 20, "bytes_max": 1 << 30, "pending_files": 2,
                "pending_bytes": 2_048, "failed": 1, "last_failure": null, "refused_files": 1,
                "stuck": [{ "path": "d/f", "since": 0, "attempts": 4, "refused": true, "error": "403\nno" }],
            });
        }));
        assert_eq!(&*cells[2], "-", "what was never opened has not said");
        assert_eq!((&*cells[3], &*cells[7], &*cells[11]), ("failed", "250µs/1.0s", "5.0MiB"));
        assert_eq!(cells[12], "75.0% 1.0MiB/1.0GiB +2 pending 2.0KiB 1 refused 1 failed");
        let stuck = "[d/f refused since 1970-01-01 00:00, tried 4 times: 403\\nno]";
        assert_eq!(rest, format!("nobody\\nis there {stuck} bucket=b"));
    }
}
