//! `top`: the kernel at work, live.

mod draw;
#[cfg(test)]
mod fixture;
mod look;
mod rates;
mod screen;
pub(crate) mod words;

use std::io::{self, IsTerminal, Stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};

use crate::args::TopArgs;
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::{ps, sys};
use look::Look;
use screen::{Order, Screen};

/// How often the kernel is looked at.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn top(session: &Session, _: TopArgs) -> Outcome {
    let first = Look::take(session).await?;
    if session.out.is_json() {
        return session.out.json(&first);
    }
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return print(session, &first);
    }
    session.out.flush()?;
    let mut taken = Taken::take().map_err(terminal)?;
    let mut screen = Screen::new(session.data.display().to_string(), first.clone(), first);
    Box::pin(run(session, &mut taken.terminal, &mut screen)).await
}

/// Draws, and does what the keys say, until one says to end. The keys are waited for on this thread, which has nothing else to do: the
/// kernel has its own.
async fn run(
    session: &Session,
    terminal: &mut Terminal<CrosstermBackend<Stdout>>,
    screen: &mut Screen,
) -> Outcome {
    let mut next: Instant = session.env().now() + EVERY;
    loop {
        terminal.draw(|frame| draw::draw(frame, screen)).map_err(self::terminal)?;
        let left = next.saturating_duration_since(session.env().now());
        if !left.is_zero() && event::poll(left).map_err(self::terminal)? {
            match event::read().map_err(self::terminal)? {
                // Some terminals tell of the release too.
                Event::Key(key) if key.kind != KeyEventKind::Release => match screen.key(key) {
                    Order::Draw => {}
                    Order::Kill(actor, how) => {
                        screen.told = Some(match sys::kill(session, &actor, how).await {
                            Ok(()) => (format!("{actor} was told: {how}"), true),
                            Err(failure) => (failure.to_string(), false),
                        });
                    }
                    Order::Quit => return Ok(()),
                },
                // A new size is drawn as anything else.
                _ => {}
            }
            continue;
        }
        screen.update(Look::take(session).await?);
        next = session.env().now() + EVERY;
    }
}

/// One look as text, with totals in the place of rates.
fn print(session: &Session, look: &Look) -> Outcome {
    ps::draw(&session.out, &look.actors)?;
    let out = &session.out;
    out.line("\nOP        CALLS     MEMORY  FAILED    MEAN      P50       P99       NOW")?;
    for op in look.syscalls.iter().filter(|op| op.calls + op.in_flight > 0) {
        let took = rates::took_since_start(op);
        out.line(format_args!(
            "{:<8}  {:<8}  {:<6}  {:<8}  {:<8}  {:<8}  {:<8}  {}",
            op.op,
            op.calls,
            op.warm,
            rates::failures(op),
            words::time(took.mean),
            words::latency(took.half),
            words::latency(took.most),
            op.in_flight,
        ))?;
    }
    out.line("")?;
    crate::mounts::list(out, &look.mounts)
}

fn terminal(error: io::Error) -> Failure {
    Failure::host("top", Path::new("the terminal"), error)
}

/// The terminal, taken over. It is given back however this ends.
///
/// `ratatui::init` is not used: it would give the terminal back at any panic of the process, and actors may well panic meanwhile.
struct Taken {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Taken {
    fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        // From here on it is given back, also when one of these fails.
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()));
        let taken = terminal.inspect_err(|_| give_back()).map(|terminal| Self { terminal })?;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // When the terminal is gone, there is nothing to give back.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}
