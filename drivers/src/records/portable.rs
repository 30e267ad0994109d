//! What every store takes: statements are looked at before any of them sees one, so that what passes on one passes on the other.
//!
//! It knows words, strings and comments, not grammar: what is no SQL at all, the store itself refuses.

use nexus_kernel::hal::{PLACEHOLDERS_MAX, RecordError, RecordValue, SQL_MAX, Statement};

/// With what a statement may begin.
const VERBS: &[&str] = &["select", "with", "values", "insert", "update", "delete", "create", "alter", "drop"];

/// Whether a statement and its values are what every store takes.
pub(super) fn check(statement: &Statement) -> Result<(), RecordError> {
    let placeholders = placeholders(statement.sql())?;
    let values = statement.values();
    if placeholders != values.len() {
        return Err(wrong(format!("it has {placeholders} placeholders, and {} values", values.len())));
    }
    values.iter().enumerate().try_for_each(|(at, value)| check_value(at + 1, value))
}

fn check_value(number: usize, value: &RecordValue) -> Result<(), RecordError> {
    let bad = |why: &str| Err(RecordError::BadValue { why: format!("the value of ${number} {why}") });
    match value {
        RecordValue::Float(float) if float.is_nan() => {
            bad("is not a number, which is not kept by every store")
        }
        RecordValue::Text(text) if text.contains('\0') => bad("has the character NUL in it"),
        _ => Ok(()),
    }
}

fn wrong(cause: impl Into<String>) -> RecordError {
    RecordError::Syntax { cause: cause.into() }
}

/// The highest number of a placeholder.
fn placeholders(sql: &str) -> Result<usize, RecordError> {
    if sql.len() > SQL_MAX {
        return Err(RecordError::TooLarge { what: "the statement's length", max: SQL_MAX });
    }
    let mut rest = sql;
    let (mut words, mut highest, mut ended) = (Words::default(), 0, false);
    while let Some(first) = rest.chars().next() {
        let token = token(rest)?;
        let text = &rest[..token];
        rest = &rest[token..];
        if first.is_whitespace() || text.starts_with("--") || text.starts_with("/*") {
            continue;
        }
        if ended {
            return Err(wrong("there is something after its end: one statement at a time"));
        }
        match first {
            ';' => ended = true,
            '$' => highest = highest.max(number(&text[1..])?),
            _ => words.take(text, sql)?,
        }
    }
    if words.count == 0 { Err(wrong("it is empty")) } else { Ok(highest) }
}

/// The words of a statement that were seen, and what stands between them.
#[derive(Default)]
struct Words {
    count: usize,
    last: String,
    /// Whether what is created is being named.
    names: bool,
}

impl Words {
    /// The first two words tell what kind of statement it is; those before the name of what is created, where it will be.
    fn take(&mut self, word: &str, sql: &str) -> Result<(), RecordError> {
        let word = word.to_ascii_lowercase();
        self.count += 1;
        match (self.count, word.as_str()) {
            (1, verb) if !VERBS.contains(&verb) => {
                let shown: String = sql.trim_start().chars().take(20).collect();
                return Err(wrong(format!("{shown:?} begins none of {}", VERBS.join(", "))));
            }
            (1, verb) => self.names = verb == "create",
            (2, "temp" | "temporary" | "local" | "global") if self.names => return Err(wrong(TEMPORARY)),
            (2, "or") => {
                return Err(wrong(
                    "OR is not portable here: ON CONFLICT says what becomes of a key that is there",
                ));
            }
            (_, ".") if self.names && is_temporary(self.last.trim_matches('"')) => {
                return Err(wrong(TEMPORARY));
            }
            (_, "(" | "as" | "on") => self.names = false,
            (_, "into") if self.last != "insert" => {
                return Err(wrong("SELECT INTO is not portable: CREATE TABLE t AS SELECT makes a table"));
            }
            _ => {}
        }
        self.last = word;
        Ok(())
    }
}

const TEMPORARY: &str = "what is temporary would stay with a connection that others use next";

/// Whether a schema of this name is that of a connection.
fn is_temporary(schema: &str) -> bool {
    schema == "temp" || schema == "pg_temp" || schema.starts_with("pg_temp_")
}

fn number(digits: &str) -> Result<usize, RecordError> {
    match digits.parse() {
        Ok(0) | Err(_) => Err(wrong(format!("${digits} is no placeholder: they begin at $1"))),
        Ok(number) if number > PLACEHOLDERS_MAX => {
            Err(RecordError::TooLarge { what: "the number of placeholders", max: PLACEHOLDERS_MAX })
        }
        Ok(number) => Ok(number),
    }
}

/// The length of the token at the beginning of `sql`, which is not empty.
fn token(sql: &str) -> Result<usize, RecordError> {
    let first = sql.chars().next().unwrap_or_default();
    let span = |of: fn(char) -> bool| sql.find(|c| !of(c)).unwrap_or(sql.len());
    match first {
        '\'' | '"' => quoted(sql, first),
        '$' => Ok(1 + sql[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(sql.len() - 1)),
        '-' if sql.starts_with("--") => Ok(sql.find('\n').unwrap_or(sql.len())),
        '/' if sql.starts_with("/*") => {
            let within = &sql[2..];
            let end = within.find("*/").ok_or_else(|| wrong("a comment has no end"))?;
            if within[..end].contains("/*") { Err(wrong("a comment is in a comment")) } else { Ok(end + 4) }
        }
        '?' | ':' | '@' | '`' | '[' | '#' | '\\' | '\0' => {
            Err(wrong(format!("{first:?} is not portable: placeholders are $1, and casts CAST(x AS type)")))
        }
        _ if first.is_whitespace() => Ok(span(char::is_whitespace)),
        _ if is_of_word(first) => {
            let length = span(is_of_word);
            let next = sql[length..].chars().next();
            match next {
                Some('\'') => Err(wrong(format!("{:?} before a string is not portable", &sql[..length]))),
                _ => Ok(length),
            }
        }
        _ => Ok(first.len_utf8()),
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of what stands in quotes; a doubled quote stands for one.
fn quoted(sql: &str, quote: char) -> Result<usize, RecordError> {
    let mut at = 1;
    loop {
        let end = at + 1 + sql[at..].find(quote).ok_or_else(|| wrong(format!("{quote} is never closed")))?;
        if !sql[end..].starts_with(quote) {
            return Ok(end);
        }
        at = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(sql: &'static str, want: usize) {
        assert_eq!(placeholders(sql), Ok(want), "{sql}");
    }

    fn refuses(sql: &'static str) {
        assert!(placeholders(sql).is_err(), "{sql}");
    }

    #[test]
    fn placeholders_are_counted_where_they_stand() {
        takes("SELECT 1", 0);
        takes("select $2, $1, $2", 2);
        takes("SELECT '$3', \"$4\", 'it''s $5' -- $6\n, $1 /* $7 ; */;  -- the end", 1);
        takes("\n WITH a AS (SELECT $1) SELECT * FROM a", 1);
        takes("INSERT INTO t VALUES ($1) ON CONFLICT (a) DO UPDATE SET b = t.b - $2 RETURNING b", 2);
        takes("SELECT 'ä', $1", 1);
        takes("SELECT /**/ 1", 0);
        // Its star ends no comment that its slash begins.
        takes("SELECT 1 /*/ x */", 0);
    }

    #[test]
    fn only_what_is_named_so_is_temporary() {
        takes("CREATE TABLE weather (temp BIGINT, temporary BIGINT)", 0);
        takes("CREATE TABLE temp (a BIGINT)", 0);
        takes("CREATE INDEX i ON temp (a)", 0);
        takes("CREATE VIEW v AS SELECT temp.a FROM weather temp", 0);
        takes("INSERT INTO temp (a) SELECT temp.a FROM temp", 0);
        takes("SELECT temp . a FROM temp", 0);
    }

    #[test]
    fn what_one_store_alone_takes_is_refused() {
        for sql in [
            "",
            "  ;",
            "-- nothing",
            "BEGIN",
            "COMMIT",
            "PRAGMA foreign_keys = 0",
            "SET x = 1",
            "SELECT ?",
            "SELECT :a",
            "SELECT 1::bigint",
            "SELECT @a",
            "SELECT $0",
            "SELECT $a$x$a$",
            "SELECT 1; SELECT 2",
            "SELECT E'\\''",
            "SELECT X'00'",
            "SELECT 'open",
            "SELECT \"open",
            "SELECT /* open",
            "SELECT /* /* */ */ 1",
            "SELECT 1 /*/ x",
            "CREATE TEMP TABLE t (a BIGINT)",
            "CREATE LOCAL TEMP TABLE t (a BIGINT)",
            "CREATE GLOBAL TEMPORARY TABLE t (a BIGINT)",
            "CREATE TABLE temp.t (a BIGINT)",
            "CREATE TABLE IF NOT EXISTS \"Temp\" /* */ . t (a BIGINT)",
            "CREATE UNIQUE INDEX temp.i ON t (a)",
            "CREATE VIEW pg_temp.v AS SELECT 1",
            "CREATE TABLE pg_temp_3.t (a BIGINT)",
            "SELECT 1 AS a INTO TEMP t",
            "WITH a AS (SELECT 1) SELECT * INTO t FROM a",
            "SELECT [a] FROM t",
            "INSERT OR REPLACE INTO t VALUES (1)",
            "SELECT `a`",
            "SELECT $99999",
            "SELECT $99999999999999999999",
        ] {
            refuses(sql);
        }
    }

    #[test]
    fn values_that_a_store_cannot_keep_are_refused_before_it_sees_them() {
        let of = |value: RecordValue| check(&Statement::new("SELECT $1").bind(value));
        assert!(matches!(of(f64::NAN.into()), Err(RecordError::BadValue { .. })));
        assert!(matches!(of("a\0b".into()), Err(RecordError::BadValue { .. })));
        assert_eq!(of(f64::INFINITY.into()), Ok(()));
        assert!(matches!(check(&Statement::new("SELECT $1")), Err(RecordError::Syntax { .. })));
        assert!(matches!(check(&Statement::new("SELECT 1").bind(1_i64)), Err(RecordError::Syntax { .. })));
    }
}
