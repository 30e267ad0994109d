//! How the screen looks. Pure: the same looks give the same screen.

use std::time::Duration;

use nexus::hal::CacheFigures;
use nexus::sys::{ActorEntry, SyscallEntry};
use nexus::{ActorState, DriverTimes, MountState, MountStatus};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph, Row, Table, TableState};

use super::rates::Between;
use super::screen::{Prompt, Screen, WAYS};
use super::words::{age, count, latency, percent, rate, time};
use crate::output::one_line;
use crate::ps;

/// From this width on, syscalls and mounts stand side by side.
const WIDE: u16 = 132;

/// What a table takes beside its rows: its frame and its titles.
const FRAME: u16 = 3;

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const GOOD: Style = Style::new().fg(Color::Green);
const ODD: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const JUST_NOW: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// A column: its title, how wide it is, and whether it is of numbers, which stand to the right.
#[derive(Clone, Copy)]
struct Column(&'static str, Constraint, bool);

const fn text(title: &'static str, width: Constraint) -> Column {
    Column(title, width, false)
}

const fn number(title: &'static str, width: u16) -> Column {
    Column(title, Constraint::Length(width), true)
}

/// The columns after the actor's name, whose width is that of the tree.
const ACTORS: [Column; 7] = [
    text("STATE", Constraint::Length(9)),
    number("GEN", 4),
    number("RESTARTS", 8),
    number("MAILBOX", 9),
    number("SERVED/S", 8),
    number("UP", 7),
    text("NOW, OR LAST EXIT", Constraint::Fill(1)),
];

const SYSCALLS: [Column; 8] = [
    text("OP", Constraint::Length(8)),
    number("CALLS/S", 8),
    number("MEMORY", 7),
    number("FAILED/S", 8),
    number("MEAN", 7),
    number("P50", 7),
    number("P99", 7),
    number("NOW", 5),
];

const MOUNTS: [Column; 9] = [
    text("MOUNT", Constraint::Fill(2)),
    text("DRIVER", Constraint::Length(11)),
    text("STATE", Constraint::Length(10)),
    number("CALLS/S", 8),
    number("FAILED", 7),
    number("P99", 7),
    number("CACHE", 6),
    number("NOW", 5),
    text("WHY", Constraint::Fill(3)),
];

type Cells<'c> = Vec<Span<'c>>;

pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let between = Between::new(&screen.before, &screen.now);
    let tree = ps::lines(&screen.now.actors);
    let names = tree.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let names = text("ACTOR", Constraint::Length(u16::try_from(names).unwrap_or(u16::MAX)));
    let actors: Vec<_> = tree.iter().map(|(name, actor)| actor_cells(name, actor, &between)).collect();
    let used = screen.now.syscalls.iter().filter(|op| op.calls + op.in_flight > 0);
    let syscalls: Vec<_> = used.map(|op| syscall_cells(op, &between)).collect();
    let mounts: Vec<_> = screen.now.mounts.iter().map(|it| mount_cells(it, &between)).collect();
    let areas = areas(frame.area(), [actors.len(), syscalls.len(), mounts.len()]);

    frame.render_widget(Paragraph::new(summary(screen, &between)), areas.summary);
    let mut state = TableState::new().with_selected(screen.selected).with_offset(screen.offset);
    let columns: Vec<_> = [names].into_iter().chain(ACTORS).collect();
    frame.render_stateful_widget(
        table("actors", &columns, actors).row_highlight_style(CHOSEN),
        areas.actors,
        &mut state,
    );
    frame.render_widget(table("syscalls", &SYSCALLS, syscalls), areas.syscalls);
    frame.render_widget(table("mounts", &MOUNTS, mounts), areas.mounts);
    frame.render_widget(Paragraph::new(foot(screen)), areas.foot);
    if let Some(prompt) = &screen.prompt {
        ask(frame, prompt);
    }
    screen.offset = state.offset();
    screen.page = usize::from(areas.actors.height.saturating_sub(FRAME).max(1));
}

struct Areas {
    summary: Rect,
    actors: Rect,
    syscalls: Rect,
    mounts: Rect,
    foot: Rect,
}

/// Where things go, for so many actors, syscalls and mounts. When there is not enough room, the tree has half of it.
fn areas(whole: Rect, rows: [usize; 3]) -> Areas {
    let [summary, middle, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Fill(1), Constraint::Length(1)]).areas(whole);
    let [actors, syscalls, mounts] =
        rows.map(|rows| u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(FRAME));
    let wide = middle.width >= WIDE;
    let others = if wide { syscalls.max(mounts) } else { syscalls.saturating_add(mounts) };
    let above = actors.min(middle.height.saturating_sub(others).max(middle.height / 2));
    let [actors, others] = Layout::vertical([Constraint::Length(above), Constraint::Fill(1)]).areas(middle);
    let widths =
        SYSCALLS.iter().map(|column| if let Constraint::Length(width) = column.1 { width + 1 } else { 0 });
    let split = if wide {
        Layout::horizontal([Constraint::Length(widths.sum::<u16>() + 1), Constraint::Fill(1)])
    } else {
        let least = mounts.min((others.height / 3).max(FRAME + 1));
        Layout::vertical([Constraint::Max(syscalls), Constraint::Min(least)])
    };
    let [syscalls, mounts] = split.areas(others);
    Areas { summary, actors, syscalls, mounts, foot }
}

fn table<'t>(title: &'t str, columns: &[Column], rows: Vec<Cells<'t>>) -> Table<'t> {
    let aligned = |cells: Cells<'t>| {
        let cells = cells.into_iter().zip(columns).map(|(cell, Column(_, _, is_number))| {
            let side = if *is_number { Alignment::Right } else { Alignment::Left };
            Line::from(cell).alignment(side)
        });
        Row::new(cells.collect::<Vec<_>>())
    };
    let titles = aligned(columns.iter().map(|column| Span::styled(column.0, DIM)).collect());
    Table::new(rows.into_iter().map(aligned), columns.iter().map(|column| column.1)).header(titles).block(
        Block::bordered()
            .border_type(BorderType::Rounded)
            .border_style(DIM)
            .title(Span::styled(format!(" {title} "), BOLD)),
    )
}

fn actor_cells<'c>(name: &str, actor: &ActorEntry, between: &Between<'_>) -> Cells<'c> {
    let (state, style) = match actor.state {
        ActorState::Running => ("running", GOOD),
        ActorState::Starting => ("starting", ODD),
        ActorState::Suspended => ("suspended", ODD),
        ActorState::Waiting => ("waiting", BAD),
        ActorState::Stopped => ("stopped", DIM),
    };
    let restarts = match (between.was_restarted(actor), actor.restarts) {
        (true, _) => JUST_NOW,
        (false, 0) => DIM,
        (false, _) => ODD,
    };
    let mailbox = match actor.queued {
        0 => DIM,
        queued if queued * 10 >= actor.bound * 9 => BAD,
        _ => PLAIN,
    };
    let (doing, how) = match (&actor.running, &actor.armed, &actor.last_exit) {
        (Some(running), ..) if running.held_ms >= 1_000 => {
            (format!("in {} for {}", running.message, age(Some(running.held_ms))), BAD)
        }
        (_, Some(armed), _) => (format!("armed: {armed} its next message"), ODD),
        (_, _, Some(exit)) => (one_line(&exit.told), DIM),
        _ => (String::new(), DIM),
    };
    let served = between.served(actor);
    vec![
        Span::raw(name.to_owned()),
        Span::styled(state, style),
        Span::raw(actor.generation.to_string()),
        Span::styled(count(actor.restarts), restarts),
        Span::styled(format!("{}/{}", actor.queued, actor.bound), mailbox),
        Span::styled(rate(served), if served > 0.0 { PLAIN } else { DIM }),
        Span::styled(age(actor.up_ms), DIM),
        Span::styled(doing, how),
    ]
}

fn syscall_cells<'c>(op: &SyscallEntry, between: &Between<'_>) -> Cells<'c> {
    let calls = between.calls(op);
    let idle = |value: String, is_idle: bool| Span::styled(value, if is_idle { DIM } else { PLAIN });
    vec![
        Span::raw(op.op.clone()),
        idle(rate(calls.calls), calls.calls == 0.0),
        idle(percent(calls.warm), calls.warm.is_none()),
        Span::styled(rate(calls.failed), if calls.failed > 0.0 { BAD } else { DIM }),
        idle(time(calls.took.mean), calls.took.mean.is_none()),
        idle(latency(calls.took.half), calls.took.half.is_none()),
        idle(latency(calls.took.most), calls.took.most.is_none()),
        idle(count(op.in_flight), op.in_flight == 0),
    ]
}

fn mount_cells<'c>(mount: &MountStatus, between: &Between<'_>) -> Cells<'c> {
    let (state, style, why) = match &mount.state {
        MountState::Serving => ("serving", GOOD, None),
        MountState::Limited { cause } => ("limited", ODD, Some(cause.clone())),
        MountState::Degraded { cause, .. } => ("degraded", ODD, Some(cause.clone())),
        MountState::Restarting { cause } => ("restarting", ODD, Some(cause.clone())),
        MountState::Failed { cause, .. } => ("failed", BAD, Some(cause.clone())),
        _ => ("unknown", ODD, None),
    };
    let calls = between.driver_calls(mount);
    let DriverTimes { looks, reads, writes, listings, .. } = mount.times;
    let slowest = [looks, reads, writes, listings].into_iter().filter_map(|times| times.p99_ns).max();
    let slowest = slowest.map(Duration::from_nanos);
    let helped = mount.cache.as_ref().and_then(CacheFigures::hit_rate);
    let point = if mount.zone.is_root() { String::new() } else { format!("{}:", mount.zone) };
    let why = why.or_else(|| mount.last_failure.as_ref().map(|failure| failure.what.to_string()));
    vec![
        Span::raw(format!("{point}{}", mount.point)),
        Span::raw(mount.driver.clone()),
        Span::styled(state, style),
        Span::styled(rate(calls), if calls > 0.0 { PLAIN } else { DIM }),
        Span::styled(count(mount.calls.failed), if mount.calls.failed > 0 { ODD } else { DIM }),
        Span::styled(time(slowest), if slowest.is_some() { PLAIN } else { DIM }),
        Span::styled(percent(helped), if helped.is_some() { PLAIN } else { DIM }),
        Span::styled(count(mount.in_flight as u64), if mount.in_flight > 0 { PLAIN } else { DIM }),
        Span::styled(one_line(&why.unwrap_or_default()), DIM),
    ]
}

fn summary<'l>(screen: &Screen, between: &Between<'_>) -> Vec<Line<'l>> {
    let (calls, failed) = between.all_calls();
    let commits = between.commits();
    let [metadata, content] = between.found();
    let mut numbers = vec![Span::raw(" ")];
    let mut tell = |label: &'static str, value: String, style: Style| {
        numbers.extend([
            Span::styled(label, DIM),
            Span::raw(" "),
            Span::styled(value, style),
            Span::raw("  "),
        ]);
    };
    tell("calls", format!("{}/s", rate(calls)), BOLD);
    tell("failed", format!("{}/s", rate(failed)), if failed > 0.0 { JUST_NOW } else { BOLD });
    tell("commits", format!("{}/s", rate(commits.batches)), BOLD);
    if let Some(size) = commits.size {
        tell("of", format!("{size:.1}"), BOLD);
        tell("in", time(commits.took.mean), BOLD);
    }
    tell("in memory: metadata", percent(metadata), BOLD);
    tell("content", percent(content), BOLD);
    let name = vec![
        Span::styled(" nexus", BOLD),
        Span::raw(format!("  {}  ", screen.data)),
        Span::styled(format!("up {}", age(screen.now.actors.up_ms)), DIM),
    ];
    vec![Line::from(name), Line::from(numbers)]
}

fn foot<'l>(screen: &Screen) -> Line<'l> {
    let mut keys = Vec::new();
    for (key, does) in [(" q ", " quit  "), (" ↑↓ ", " choose  "), (" k ", " kill  ")] {
        keys.extend([Span::styled(key, CHOSEN), Span::raw(does)]);
    }
    if let Some((told, good)) = &screen.told {
        keys.push(Span::styled(told.clone(), if *good { BOLD } else { BAD }));
    }
    Line::from(keys)
}

/// Asks how the chosen actor is to be hurt, over everything else.
fn ask(frame: &mut Frame<'_>, prompt: &Prompt) {
    let title = format!(" kill {} ", prompt.actor);
    let width = title.chars().count().max(46) + 4;
    let (width, height) = (u16::try_from(width).unwrap_or(u16::MAX), 8);
    let whole = frame.area();
    let area = Rect {
        x: whole.width.saturating_sub(width) / 2,
        y: whole.height.saturating_sub(height) / 2,
        width: width.min(whole.width),
        height: height.min(whole.height),
    };
    let ways = WAYS.iter().enumerate().map(|(number, (key, _, what))| {
        let style = if number == prompt.chosen { CHOSEN } else { PLAIN };
        Line::from(vec![Span::styled(format!(" {key}  {what} "), style)])
    });
    let keys = Line::styled(" ↑↓ and ⏎, or the letter; esc leaves it alive", DIM);
    let lines: Vec<_> = ways.chain([Line::default(), keys]).collect();
    let block =
        Block::bordered().border_type(BorderType::Rounded).border_style(BAD).title(Span::styled(title, BOLD));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::top::fixture::{look, second_later};

    /// The screen of this size, line by line.
    fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        let cells = terminal.backend().buffer().content.chunks(width.into());
        let lines = cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
        lines.map(|line| line.trim_end().to_owned()).collect()
    }

    fn screen() -> Screen {
        let before = look();
        let mut now = second_later(&before);
        now.actors.children[0].served += 120;
        now.syscalls[0].calls += 10;
        now.syscalls[0].warm += 9;
        Screen::new("/data".into(), before, now)
    }

    fn line<'l>(lines: &'l [String], with: &str) -> &'l str {
        lines.iter().find(|line| line.contains(with)).unwrap_or_else(|| panic!("no {with}: {lines:#?}"))
    }

    #[test]
    fn all_that_was_asked_for_is_on_the_screen() {
        for (width, height) in [(100, 30), (160, 40)] {
            let lines = drawn(&mut screen(), width, height);
            assert!(line(&lines, "up 1h 02m").starts_with(" nexus  /data"), "{lines:#?}");
            assert!(line(&lines, "calls 10/s").contains("failed 0/s"), "{lines:#?}");
            let router = line(&lines, "└─ router");
            for part in ["running", "3/64", "120", "panicked: boom at a.rs:1"] {
                assert!(router.contains(part), "no {part} in {router}");
            }
            assert!(line(&lines, "read  ").contains("90.0%"), "{lines:#?}");
            assert!(!lines.iter().any(|line| line.contains("copy")), "nobody copied: {lines:#?}");
            assert!(line(&lines, "/home").contains("serving"), "{lines:#?}");
            assert!(line(&lines, "quit").contains("kill"), "{lines:#?}");
        }
        let wide = drawn(&mut screen(), 160, 40);
        assert!(line(&wide, "syscalls").contains("mounts"), "side by side: {wide:#?}");
    }

    #[test]
    fn a_small_terminal_is_no_reason_to_fail() {
        for (width, height) in [(1, 1), (20, 5), (40, 10), (79, 12)] {
            let mut screen = screen();
            screen.ask();
            drawn(&mut screen, width, height);
        }
    }

    #[test]
    fn the_chosen_actor_is_always_in_sight() {
        let mut screen = screen();
        for n in 0..50 {
            let mut actor = screen.now.actors.children[0].clone();
            actor.id = format!("n{n:02}").into();
            screen.now.actors.children.push(actor);
        }
        screen.choose(isize::MAX);
        let lines = drawn(&mut screen, 100, 24);
        line(&lines, "└─ n49");
        screen.choose(isize::MIN);
        line(&drawn(&mut screen, 100, 24), "router");
    }

    #[test]
    fn the_prompt_names_the_actor_and_the_ways() {
        let mut screen = screen();
        screen.choose(1);
        screen.ask();
        let lines = drawn(&mut screen, 100, 30);
        line(&lines, "kill nexus/router");
        for (_, _, what) in WAYS {
            line(&lines, what);
        }
    }
}
