//! `ps`: the supervision tree.

use nexus::sys::ActorEntry;

use crate::failure::Outcome;
use crate::output::Output;
use crate::session::Session;

pub(crate) async fn ps(session: &Session) -> Outcome {
    let tree = session.nx.tree().await?;
    if session.out.is_json() {
        return session.out.json(&tree);
    }
    draw(&session.out, &tree)
}

/// Draws the tree, one actor a line.
pub(crate) fn draw(out: &Output, tree: &ActorEntry) -> Outcome {
    let width = width(tree, 0);
    let head = "";
    out.line(format_args!("{head:width$}  STATE      GENERATION  RESTARTS  QUEUED  SERVED  LAST EXIT"))?;
    line(out, tree, "", "", width)?;
    below(out, tree, "", width)
}

/// How many columns the names take.
fn width(tree: &ActorEntry, depth: usize) -> usize {
    let below = tree.children.iter().map(|child| width(child, depth + 1));
    below.chain([depth * INDENT + tree.id.chars().count()]).max().unwrap_or_default()
}

/// Columns that each level is moved to the right.
const INDENT: usize = 3;

fn below(out: &Output, tree: &ActorEntry, indent: &str, width: usize) -> Outcome {
    let mut children = tree.children.iter().peekable();
    while let Some(child) = children.next() {
        let (branch, deeper) =
            if children.peek().is_some() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
        line(out, child, indent, branch, width)?;
        below(out, child, &format!("{indent}{deeper}"), width)?;
    }
    Ok(())
}

fn line(out: &Output, tree: &ActorEntry, indent: &str, branch: &str, width: usize) -> Outcome {
    let name = format!("{indent}{branch}{}", tree.id);
    let state = format!("{:?}", tree.state).to_lowercase();
    let last = tree.last_exit.as_ref().map(|exit| exit.told.clone()).unwrap_or_default();
    let row = format!(
        "{name:width$}  {state:<9}  {:>10}  {:>8}  {:>6}  {:>6}  {last}",
        tree.generation, tree.restarts, tree.queued, tree.served
    );
    out.line(row.trim_end())
}
