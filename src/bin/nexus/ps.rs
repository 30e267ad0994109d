//! `ps`: the supervision tree.

use nexus::TreeStatus;

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
pub(crate) fn draw(out: &Output, tree: &TreeStatus) -> Outcome {
    let width = width(tree, 0);
    let head = "";
    out.line(format_args!("{head:width$}  STATE      GENERATION  RESTARTS  QUEUED  SERVED  LAST EXIT"))?;
    line(out, tree, "", "", width)?;
    below(out, tree, "", width)
}

/// How many columns the names take.
fn width(tree: &TreeStatus, depth: usize) -> usize {
    let below = tree.children.iter().map(|child| width(child, depth + 1));
    below.chain([depth * INDENT + tree.id.chars().count()]).max().unwrap_or_default()
}

/// Columns that each level is moved to the right.
const INDENT: usize = 3;

fn below(out: &Output, tree: &TreeStatus, indent: &str, width: usize) -> Outcome {
    let mut children = tree.children.iter().peekable();
    while let Some(child) = children.next() {
        let (branch, deeper) =
            if children.peek().is_some() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
        line(out, child, indent, branch, width)?;
        below(out, child, &format!("{indent}{deeper}"), width)?;
    }
    Ok(())
}

fn line(out: &Output, tree: &TreeStatus, indent: &str, branch: &str, width: usize) -> Outcome {
    let actor = &tree.actor;
    let name = format!("{indent}{branch}{}", tree.id);
    let state = format!("{:?}", actor.state).to_lowercase();
    let last = actor.last_exit.as_ref().map(ToString::to_string).unwrap_or_default();
    let row = format!(
        "{name:width$}  {state:<9}  {:>10}  {:>8}  {:>6}  {:>6}  {last}",
        actor.generation, actor.restarts, actor.queued, actor.served
    );
    out.line(row.trim_end())
}
