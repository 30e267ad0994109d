//! Numbers as they are shown: three digits tell enough.

use std::time::Duration;

use super::rates::Latency;

/// How often, each second.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        rate if rate < 0.05 => "0".into(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 9_999.5 => format!("{rate:.0}"),
        rate if rate < 999_500.0 => format!("{:.1}k", rate / 1e3),
        rate => format!("{:.1}M", rate / 1e6),
    }
}

/// How many.
pub(crate) fn count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}k", count / 1_000),
        1_000_000..10_000_000_000 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}

/// How many bytes.
pub(crate) fn bytes(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_024 => return format!("{bytes}B"),
        1_024..0x10_0000 => (1_024, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    let (whole, tenths) = (bytes / unit, bytes % unit * 10 / unit);
    if whole < 10 { format!("{whole}.{tenths}{name}") } else { format!("{whole}{name}") }
}

/// A part of a whole; nothing of nothing.
pub(crate) fn percent(part: Option<f64>) -> String {
    match part {
        None => "-".into(),
        // What is not all is never shown as all.
        Some(part) => format!("{:.1}%", (part * 1_000.0).floor() / 10.0),
    }
}

/// How long.
pub(crate) fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".into() };
    let (value, unit) = match time.as_nanos() {
        0..1_000 => return format!("{}ns", time.as_nanos()),
        1_000..1_000_000 => (time.as_secs_f64() * 1e6, "µs"),
        1_000_000..1_000_000_000 => (time.as_secs_f64() * 1e3, "ms"),
        _ => (time.as_secs_f64(), "s"),
    };
    match value {
        value if value < 9.95 => format!("{value:.1}{unit}"),
        value => format!("{value:.0}{unit}"),
    }
}

/// How long, as far as it is known.
pub(super) fn latency(latency: Option<Latency>) -> String {
    match latency {
        None => "-".into(),
        Some(Latency::Upto(bound)) => format!("≤{}", time(Some(bound))),
        Some(Latency::Above(bound)) => format!(">{}", time(Some(bound))),
    }
}

/// For how long something has been there.
pub(super) fn age(ms: Option<u64>) -> String {
    let Some(seconds) = ms.map(|ms| ms / 1_000) else { return "-".into() };
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_tell_enough() {
        let check = |value, expected: &str| assert_eq!(rate(value), expected, "{value}");
        check(0.0, "0");
        check(0.25, "0.2");
        check(9.94, "9.9");
        check(9.96, "10");
        check(1_234.0, "1234");
        check(12_345.0, "12.3k");
        check(1_234_567.0, "1.2M");
        assert_eq!([count(9_999), count(10_000), count(12_345_678)], ["9999", "10k", "12M"]);
        assert_eq!([percent(None), percent(Some(1.0)), percent(Some(0.999_99))], ["-", "100.0%", "99.9%"]);
        let ns = |ns| time(Some(Duration::from_nanos(ns)));
        assert_eq!([ns(999), ns(1_000), ns(25_400), ns(2_500_000)], ["999ns", "1.0µs", "25µs", "2.5ms"]);
        assert_eq!(
            [bytes(0), bytes(1_023), bytes(1_536), bytes(20 << 20)],
            ["0B", "1023B", "1.5KiB", "20MiB"]
        );
        assert_eq!([bytes(1 << 30), bytes(5_000 << 30)], ["1.0GiB", "5000GiB"]);
        let old = |seconds: u64| age(Some(seconds * 1_000));
        assert_eq!([old(59), old(61), old(3_720), old(90_000)], ["59s", "1m 01s", "1h 02m", "1d 01h"]);
    }
}
