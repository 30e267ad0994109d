//! What is on the screen, and what keys do to it. Pure.

use nexus::Kill;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::look::Look;
use crate::ps;

/// The ways to hurt an actor: the key, the way, and what happens.
pub(super) const WAYS: [(char, Kill, &str); 4] = [
    ('p', Kill::Panic, "panic: it panics on its thread"),
    ('e', Kill::Error, "error: it exits with an error"),
    ('b', Kill::Brutal, "brutal: it is killed without a word"),
    ('w', Kill::Wedge, "wedge: it blocks its thread"),
];

/// The screen.
#[derive(Debug)]
pub(super) struct Screen {
    /// Which data folder the kernel owns.
    pub(super) data: String,
    pub(super) before: Look,
    pub(super) now: Look,
    /// The line of the tree that is chosen, the first that is drawn, and how many are.
    pub(super) selected: usize,
    pub(super) offset: usize,
    pub(super) page: usize,
    pub(super) prompt: Option<Prompt>,
    /// What came of the last order, and whether that is good.
    pub(super) told: Option<(String, bool)>,
}

/// A question that waits for its answer: how?
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) actor: String,
    pub(super) chosen: usize,
}

/// What is to be done for a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Draw again.
    Draw,
    /// Hurt this actor in this way.
    Kill(String, Kill),
    /// End.
    Quit,
}

impl Screen {
    pub(super) fn new(data: String, before: Look, now: Look) -> Self {
        Self { data, before, now, selected: 0, offset: 0, page: 1, prompt: None, told: None }
    }

    /// The newest look.
    pub(super) fn update(&mut self, now: Look) {
        self.before = std::mem::replace(&mut self.now, now);
        self.choose(0);
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Order {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Order::Quit;
        }
        match self.prompt.take() {
            Some(prompt) => self.answer(prompt, key.code),
            None => self.command(key.code),
        }
    }

    /// Moves the choice by so many lines.
    pub(super) fn choose(&mut self, by: isize) {
        let last = ps::lines(&self.now.actors).len() - 1;
        self.selected = self.selected.saturating_add_signed(by).min(last);
    }

    /// Asks how the chosen actor is to be hurt.
    pub(super) fn ask(&mut self) {
        let lines = ps::lines(&self.now.actors);
        let actor = lines.get(self.selected).map(|(_, actor)| actor.path.clone());
        self.prompt = actor.map(|actor| Prompt { actor, chosen: 0 });
    }

    fn command(&mut self, key: KeyCode) -> Order {
        let page = isize::try_from(self.page).unwrap_or(isize::MAX);
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Order::Quit,
            KeyCode::Up => self.choose(-1),
            KeyCode::Down => self.choose(1),
            KeyCode::PageUp => self.choose(-page),
            KeyCode::PageDown => self.choose(page),
            KeyCode::Home => self.choose(isize::MIN),
            KeyCode::End => self.choose(isize::MAX),
            KeyCode::Char('k') => self.ask(),
            _ => {}
        }
        Order::Draw
    }

    fn answer(&mut self, mut prompt: Prompt, key: KeyCode) -> Order {
        match key {
            KeyCode::Esc | KeyCode::Char('q') => return Order::Draw,
            KeyCode::Up => prompt.chosen = prompt.chosen.saturating_sub(1),
            KeyCode::Down => prompt.chosen = (prompt.chosen + 1).min(WAYS.len() - 1),
            KeyCode::Enter => return Order::Kill(prompt.actor, WAYS[prompt.chosen].1),
            KeyCode::Char(letter) => {
                if let Some((_, how, _)) = WAYS.iter().find(|(key, ..)| *key == letter) {
                    return Order::Kill(prompt.actor, *how);
                }
            }
            _ => {}
        }
        self.prompt = Some(prompt);
        Order::Draw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::look;

    fn press(screen: &mut Screen, keys: &[KeyCode]) -> Order {
        keys.iter().map(|key| screen.key(KeyEvent::from(*key))).last().unwrap()
    }

    fn screen() -> Screen {
        Screen::new("/data".into(), look(), look())
    }

    #[test]
    fn an_actor_is_killed_only_after_asking_how() {
        use KeyCode::{Char, Down, Enter, Esc, Up};
        let check =
            |keys: &[KeyCode], expected: Order| assert_eq!(press(&mut screen(), keys), expected, "{keys:?}");
        let router = || "nexus/router".to_owned();
        check(&[Down, Char('k')], Order::Draw);
        check(&[Down, Char('k'), Char('b')], Order::Kill(router(), Kill::Brutal));
        check(&[Down, Char('k'), Enter], Order::Kill(router(), Kill::Panic));
        check(&[Down, Down, Down, Char('k'), Down, Down, Up, Enter], Order::Kill(router(), Kill::Error));
        check(&[Char('k'), Char('x'), Char('w')], Order::Kill("nexus".into(), Kill::Wedge));
        // Without the question these letters mean nothing, and q answers it with no.
        check(&[Char('b')], Order::Draw);
        check(&[Char('k'), Esc, Char('b')], Order::Draw);
        check(&[Char('k'), Char('q')], Order::Draw);
        check(&[Char('k'), Char('q'), Char('q')], Order::Quit);
        check(&[Esc], Order::Quit);
    }

    #[test]
    fn interrupting_ends_also_where_something_is_asked() {
        let mut screen = screen();
        press(&mut screen, &[KeyCode::Char('k')]);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.key(interrupt), Order::Quit);
    }

    #[test]
    fn the_choice_stays_within_a_tree_that_shrinks() {
        let mut screen = screen();
        press(&mut screen, &[KeyCode::End]);
        assert_eq!(screen.selected, 1);
        let mut alone = look();
        alone.actors.children.clear();
        screen.update(alone);
        assert_eq!(screen.selected, 0);
    }
}
