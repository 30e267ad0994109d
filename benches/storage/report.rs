//! Figures as they are told: beside something, with their ratio and what was asked of it.

use std::time::{Duration, Instant};

/// The time that `job` takes.
pub(crate) fn time(job: impl FnOnce()) -> Duration {
    let began = Instant::now();
    job();
    began.elapsed()
}

/// The one in the middle.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A figure alone.
pub(crate) fn tell(what: &str, took: Duration) {
    println!("  {what:<52} {:>10}", show(took));
}

/// A figure beside another one, of which it may be at most so many times.
pub(crate) fn beside(what: &str, took: Duration, other: &str, others: Duration, times_max: f64) {
    let times = took.as_secs_f64() / others.as_secs_f64();
    let verdict = verdict(times <= times_max);
    println!(
        "  {what:<52} {:>10}   {times:.2} times {other}, {}; at most {times_max} asked: {verdict}",
        show(took),
        show(others)
    );
}

/// A figure that may be at most so long.
pub(crate) fn within(what: &str, took: Duration, max: Duration) {
    println!("  {what:<52} {:>10}   at most {} asked: {}", show(took), show(max), verdict(took <= max));
}

/// A figure that is only put into relation.
pub(crate) fn compare(what: &str, took: Duration, other: &str, others: Duration) {
    let times = took.as_secs_f64() / others.as_secs_f64();
    println!("  {what:<52} {:>10}   {times:.2} times {other}, {}", show(took), show(others));
}

pub(crate) fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "OVER" }
}

fn show(took: Duration) -> String {
    format!("{took:.1?}")
}
