//! Work of the kernel that takes its time, as a command waits for it: with progress on a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Outcome;
use crate::session::Session;

/// How often the kernel is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One run through what is stored, as the kernel tells of it.
pub(crate) trait Pass {
    /// Its number; later ones have higher ones.
    fn number(&self) -> u64;

    /// Whether it has ended.
    fn is_over(&self) -> bool;

    /// What it is doing.
    fn step(&self) -> String;
}

/// The first pass after the one with the number `before`, once it is over. `latest` asks for the last one that was begun.
pub(crate) async fn until_over<P: Pass>(
    session: &Session,
    before: u64,
    latest: impl AsyncFn() -> Outcome<Option<P>>,
) -> Outcome<P> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        session.out.set_bar(Some(bar.clone()));
    }
    let done = loop {
        match latest().await {
            Ok(Some(latest)) if latest.number() > before => {
                if latest.is_over() {
                    break Ok(latest);
                }
                bar.set_message(latest.step());
                bar.tick();
            }
            Ok(_) => {}
            Err(failure) => break Err(failure),
        }
        session.env().sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    session.out.set_bar(None);
    done
}
