//! What the process tells of itself: logs, and panics of threads that are not ours.

use std::io;
use std::panic;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::Failure;

/// Where the wish for logs is looked for, first to last.
const VARIABLES: [&str; 2] = ["NEXUS_LOG", "RUST_LOG"];

/// Sends logs to standard error when the environment asks for them, and nowhere otherwise.
///
/// # Errors
/// When what the environment asks for cannot be understood.
pub(crate) fn start() -> Result<(), Failure> {
    let wish = VARIABLES.iter().find_map(|name| {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
        Some((name, text))
    });
    if let Some((name, text)) = wish {
        let targets: Targets = text
            .parse()
            .map_err(|error| Failure::Usage(format!("${name} is not a filter for logs: {error}")))?;
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
        // A span is told when it ends, with how long it took: that is when it is known what came of it.
        let lines = lines.with_span_events(FmtSpan::CLOSE);
        tracing_subscriber::registry().with(targets).with(lines).init();
    }
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| match std::thread::current().name() {
        Some("main") | None => usual(info),
        // A supervisor, or who waits for the task, is told of it, and restarts or reports it: that is no news for the terminal.
        Some(thread) => tracing::error!(thread, "{info}"),
    }));
    Ok(())
}
