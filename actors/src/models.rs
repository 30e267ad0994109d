//! How far loom looks.

use loom::model::Builder;

/// Checks a model with so many preemptions at most, and fewer when fewer are asked for: without a bound the larger ones are a matter of hours.
pub(crate) fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(preemptions).min(preemptions));
    builder.check(model);
}

/// As [`bounded`], of a model that takes minutes: with one fewer than what is asked for.
pub(crate) fn large(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    let asked = builder.preemption_bound.map_or(preemptions, |asked| asked.saturating_sub(1));
    builder.preemption_bound = Some(asked.min(preemptions));
    builder.check(model);
}
