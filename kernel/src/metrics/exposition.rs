//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use super::histogram::Measured;

/// The media type of the format.
pub(crate) const MIME: &str = "text/plain; version=0.0.4";

/// A text that is being written, one family after the other.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

/// What a family of samples is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The labels of a sample.
pub(crate) type Labels<'l> = &'l [(&'static str, &'l str)];

impl Exposition {
    /// A family of samples. One without samples is left out.
    pub(crate) fn family<'l, V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
        for (labels, value) in samples {
            self.sample(name, &labels, None, value);
        }
    }

    /// A family with one sample, without labels.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help, [(Vec::new(), value)]);
    }

    /// A family of histograms. `unit` is how many of what was measured are one of what is shown: 1e9 for nanoseconds shown as seconds.
    pub(crate) fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        unit: f64,
        histograms: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, Measured)>,
    ) {
        self.head(name, "histogram", help);
        let (bucket, sum, count) = (format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count"));
        for (labels, measured) in histograms {
            for range in &measured.buckets {
                self.sample(&bucket, &labels, Some(&in_units(range.upto, unit).to_string()), range.count);
            }
            self.sample(&bucket, &labels, Some("+Inf"), measured.count);
            self.sample(&sum, &labels, None, in_units(measured.sum, unit));
            self.sample(&count, &labels, None, measured.count);
        }
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {}\n", help.replace('\\', "\\\\").replace('\n', "\\n")));
        self.put(format_args!("# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, upto: Option<&str>, value: impl Display) {
        self.0.push_str(name);
        let labels = labels.iter().copied().chain(upto.map(|upto| ("le", upto)));
        let mut before = '{';
        for (label, value) in labels {
            self.put(format_args!("{before}{label}=\"{}\"", escaped(value)));
            before = ',';
        }
        if before == ',' {
            self.0.push('}');
        }
        self.put(format_args!(" {value}\n"));
    }

    fn put(&mut self, what: std::fmt::Arguments<'_>) {
        // A string takes whatever is written to it.
        let _ = self.0.write_fmt(what);
    }
}

#[expect(clippy::cast_precision_loss, reason = "what is shown has no more than the digits of a float")]
fn in_units(value: u64, unit: f64) -> f64 {
    value as f64 / unit
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Histogram;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut text = Exposition::default();
        text.single("a_total", Kind::Counter, "What a is.", 3);
        let odd = "/a\"b\\c\nd";
        text.family("b", Kind::Gauge, "Two\nlines.", [(vec![("x", odd), ("y", "2")], 0.5)]);
        text.family("c", Kind::Gauge, "Nothing.", std::iter::empty::<(Vec<_>, u64)>());
        let histogram = Histogram::new(&[1_000, 1_000_000]);
        histogram.add(500_000);
        histogram.add(2_000_000_000);
        text.histograms("d_seconds", "How long.", 1e9, [(vec![("op", "read")], histogram.measured())]);
        assert_eq!(
            text.finish(),
            r#"# HELP a_total What a is.
# TYPE a_total counter
a_total 3
# HELP b Two\nlines.
# TYPE b gauge
b{x="/a\"b\\c\nd",y="2"} 0.5
# HELP d_seconds How long.
# TYPE d_seconds histogram
d_seconds_bucket{op="read",le="0.000001"} 0
d_seconds_bucket{op="read",le="0.001"} 1
d_seconds_bucket{op="read",le="+Inf"} 2
d_seconds_sum{op="read"} 2.0005
d_seconds_count{op="read"} 2
"#
        );
    }
}
