//! `shell`: commands typed one after the other into one kernel.

mod complete;

use std::sync::Arc;

use clap::{CommandFactory, Parser};
use nexus::hal::SECRET_PLACES;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use self::complete::PathCompletion;
use crate::args::{Command, ShellLine};
use crate::failure::{Failure, Outcome, Status};
use crate::output::{Output, tell};
use crate::run::execute;
use crate::session::Session;

/// Where the lines typed so far are kept, in the data folder.
const HISTORY: &str = "shell-history";

/// How many of them.
const HISTORY_MAX: usize = 1_000;

const PROMPT: &str = "nexus> ";

pub(crate) async fn shell(session: &Arc<Session>) -> Outcome {
    let mut editor = editor(session).map_err(|error| Failure::claim("shell", error))?;
    let history = session.data.join(HISTORY);
    // There is none before the first line.
    let _ = editor.load_history(&history);
    let mut last = Status::Done;
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::claim("shell", error)),
        };
        if line.trim().is_empty() {
            continue;
        }
        if !has_secret(&line) {
            // A line that cannot be remembered can be executed all the same.
            let _ = editor.add_history_entry(&line).and_then(|_| editor.append_history(&history));
        }
        match Box::pin(one(session, &line)).await {
            Some(status) => last = status,
            None => break,
        }
    }
    session.out.ends_with(last);
    Ok(())
}

/// Whether an option is given in the line that some driver calls secret, and not only where it is. Such a line is not kept.
fn has_secret(line: &str) -> bool {
    let Some(words) = shlex::split(line) else { return line.contains('=') };
    let catalogue = nexus_drivers::catalogue();
    let is_secret = |key: &str| {
        let factories = catalogue.names().filter_map(|name| catalogue.get(name));
        factories
            .flat_map(|factory| factory.options().to_vec())
            .any(|option| option.secret && option.key == key)
    };
    words.iter().map(|word| word.strip_prefix("--opt=").unwrap_or(word)).any(|word| {
        word.split_once('=').is_some_and(|(key, text)| {
            is_secret(key) && !SECRET_PLACES.iter().any(|place| text.starts_with(place))
        })
    })
}

fn editor(session: &Session) -> rustyline::Result<Editor<PathCompletion, FileHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .build();
    let history = FileHistory::with_config(&config);
    let mut editor = Editor::with_history(config, history)?;
    editor.set_helper(Some(PathCompletion::new(session.nx.clone())));
    Ok(editor)
}

/// Executes a line; none when it ends the shell.
async fn one(session: &Arc<Session>, line: &str) -> Option<Status> {
    let Some(words) = shlex::split(line) else {
        tell("shell: a quote is not closed");
        return Some(Status::Usage);
    };
    let words = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => return Some(Status::Done),
        ["exit" | "quit"] => return None,
        ["help"] => vec!["--help".into()],
        ["help", command] => vec![command.into(), "--help".into()],
        _ => words,
    };
    let last = words.last().cloned().unwrap_or_default();
    let parsed = match ShellLine::try_parse_from(words) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help goes to the output, everything else to where errors go; when that is closed, nobody listens.
            let _ = error.print();
            return Some(if error.use_stderr() { Status::Usage } else { Status::Done });
        }
    };
    if let Some(fault) = parsed.command.fault(last.as_ref()) {
        tell(fault);
        return Some(Status::Usage);
    }
    if matches!(parsed.command, Command::Shell(_)) {
        tell("shell: this is one");
        return Some(Status::Usage);
    }
    let out = Output::new(parsed.json || session.out.is_json());
    let inner = Arc::new(session.printing_to(out));
    let done = Box::pin(execute(&inner, parsed.command)).await.and_then(|()| inner.out.flush());
    if let Err(failure) = done {
        let _ = inner.out.flush();
        if matches!(failure, Failure::OutputClosed) {
            return None;
        }
        inner.out.failed(&failure);
    }
    Some(inner.out.take_status())
}

/// The names of all commands, for completion.
fn commands() -> Vec<String> {
    let grammar = ShellLine::command();
    let shown = grammar.get_subcommands().filter(|command| !command.is_hide_set());
    let names = shown.map(|command| command.get_name().to_owned());
    names.chain(["help".into(), "exit".into()]).filter(|name| name != "shell").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_secret_is_not_kept() {
        for line in ["ls /a", "cat 'a=b'", "mount /b --driver local --opt folder=/a"] {
            assert!(!has_secret(line), "{line}");
        }
        assert!(has_secret("mount /b --opt 'folder=/a"), "its quote is not closed");
        #[cfg(feature = "cloud")]
        {
            let given = |text: &str| has_secret(&format!("mount /b --driver s3 --opt {text}"));
            assert!(given("secret_key=x") && given("'secret_key=a b'"));
            assert!(!given("secret_key=env:KEY") && !given("bucket=b"));
        }
    }
}
