//! `ps`: the supervision tree.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use nexus::sys::ActorEntry;

use crate::args::PsArgs;
use crate::failure::Outcome;
use crate::output::{Output, one_line};
use crate::session::Session;
use crate::sys;

/// How often a watched tree is drawn.
const EVERY: Duration = Duration::from_secs(1);

/// Moves to the upper left corner; the rest of a line; the rest of the screen. As every terminal understands it.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

pub(crate) async fn ps(session: &Session, args: PsArgs) -> Outcome {
    let on_screen = args.watch && !session.out.is_json() && std::io::stdout().is_terminal();
    let mut first = true;
    loop {
        let tree = sys::actors(session).await?;
        if session.out.is_json() {
            session.out.json(&tree)?;
        } else if on_screen {
            // Drawn over the last one, and not after clearing it: nothing flickers.
            let lines = table(&tree).replace('\n', &format!("{REST_OF_LINE}\n"));
            session.out.bytes(format!("{HOME}{lines}{REST_OF_SCREEN}").as_bytes())?;
        } else {
            if !first {
                session.out.line("")?;
            }
            draw(&session.out, &tree)?;
        }
        if !args.watch {
            return Ok(());
        }
        session.out.flush()?;
        first = false;
        session.env().sleep(EVERY).await;
    }
}

/// Draws the tree, one actor a line.
pub(crate) fn draw(out: &Output, tree: &ActorEntry) -> Outcome {
    out.bytes(table(tree).as_bytes())
}

fn table(tree: &ActorEntry) -> String {
    let lines = lines(tree);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let head = "";
    let mut table = format!("{head:width$}  STATE      GENERATION  RESTARTS  QUEUED  SERVED  LAST EXIT\n");
    for (name, actor) in lines {
        let state = format!("{:?}", actor.state).to_lowercase();
        let last = actor.last_exit.as_ref().map_or_else(String::new, |exit| one_line(&exit.told));
        let row = format!(
            "{name:width$}  {state:<9}  {:>10}  {:>8}  {:>6}  {:>6}  {last}",
            actor.generation, actor.restarts, actor.queued, actor.served
        );
        // A text takes whatever is written to it.
        let _ = writeln!(table, "{}", row.trim_end());
    }
    table
}

/// The actors of a tree from top to bottom, each with its name as it hangs in the tree.
pub(crate) fn lines(tree: &ActorEntry) -> Vec<(String, &ActorEntry)> {
    fn below<'t>(tree: &'t ActorEntry, indent: &str, lines: &mut Vec<(String, &'t ActorEntry)>) {
        let mut children = tree.children.iter().peekable();
        while let Some(child) = children.next() {
            let (branch, deeper) =
                if children.peek().is_some() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
            lines.push((format!("{indent}{branch}{}", child.id), child));
            below(child, &format!("{indent}{deeper}"), lines);
        }
    }
    let mut lines = vec![(tree.id.to_string(), tree)];
    below(tree, "", &mut lines);
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_actor_is_one_line_whatever_it_panicked_with() {
        let told = "panicked: left: 1\nright: 2\u{1b}[2J";
        let tree = serde_json::from_value(json!({
            "path": "nexus", "id": "nexus", "kind": "actor", "restart": "permanent", "state": "running", "generation": 2,
            "restarts": 1, "queued": 0, "bound": 64, "callers_waiting": 0, "in_flight": 0, "served": 0, "running": null,
            "armed": null, "last_exit": { "kind": "panic", "told": told, "place": null, "handling": null },
            "up_ms": 1, "children": [],
        }));
        let table = table(&tree.expect("it is an actor"));
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.contains("left: 1\\nright: 2\\u{1b}[2J") && !table.contains('\u{1b}'), "{table}");
    }
}
