//! The history of a schema, the same in every store: a table of what was carried out, looked at anew before each step.

use nexus_kernel::hal::{Migrated, Migration, RecordError, RecordFuture, Statement, WriteSession};

/// Where what was carried out is written down.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS nexus_migrations \
    (id BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL)";
const RECORDED: &str = "SELECT id, name, checksum FROM nexus_migrations ORDER BY id";
const RECORD: &str = "INSERT INTO nexus_migrations (id, name, checksum) VALUES ($1, $2, $3)";

/// What was carried out once.
struct Recorded {
    id: i64,
    name: String,
    checksum: String,
}

/// Carries out what is not there yet. `begin` begins a session while which nobody else has one of `begin`'s, in any process, and that sees all that the others did.
pub(super) async fn migrate<'a>(
    begin: impl Fn() -> RecordFuture<'a, Box<dyn WriteSession>> + Send + Sync,
    migrations: &[Migration],
) -> Result<Migrated, RecordError> {
    if let Some([one, next]) = migrations.array_windows().find(|[one, next]| one.id() >= next.id()) {
        return Err(history(format!("{} stands before {}", one.id(), next.id())));
    }
    let mut session = begin().await?;
    session.execute(&CREATE.into()).await?;
    session.commit().await?;
    let mut migrated = Migrated::default();
    loop {
        let mut session = begin().await?;
        let recorded = recorded(&mut *session).await?;
        let Some(next) = next_of(&recorded, migrations)? else {
            session.rollback().await?;
            return Ok(migrated);
        };
        carry_out(session, next).await.map_err(|cause| RecordError::Migration {
            id: next.id(),
            name: next.name().to_owned(),
            cause: Box::new(cause),
        })?;
        tracing::info!(id = next.id(), name = next.name(), "migrated");
        migrated.applied.push(next.id());
    }
}

async fn recorded(session: &mut dyn WriteSession) -> Result<Vec<Recorded>, RecordError> {
    let rows = session.query(&RECORDED.into()).await?;
    rows.iter()
        .map(|row| Ok(Recorded { id: row.get(0)?, name: row.get(1)?, checksum: row.get(2)? }))
        .collect()
}

async fn carry_out(mut session: Box<dyn WriteSession>, next: &Migration) -> Result<(), RecordError> {
    for sql in next.statements() {
        session.execute(&Statement::new(sql.clone())).await?;
    }
    let record = Statement::new(RECORD).bind(i64::from(next.id())).bind(next.name()).bind(next.checksum());
    session.execute(&record).await?;
    session.commit().await
}

/// The first that is not recorded. What is recorded must be what the others are, in their order.
fn next_of<'a>(
    recorded: &[Recorded],
    migrations: &'a [Migration],
) -> Result<Option<&'a Migration>, RecordError> {
    for (at, was) in recorded.iter().enumerate() {
        let (id, name) = (was.id, &was.name);
        match migrations.get(at) {
            Some(is) if i64::from(is.id()) == id && is.checksum() == was.checksum => {}
            Some(is) if i64::from(is.id()) == id => {
                return Err(history(format!("{id} ({name}) was carried out, and is another one now")));
            }
            Some(is) if i64::from(is.id()) < id => {
                return Err(history(format!(
                    "{} is new, and {id} ({name}) after it was carried out",
                    is.id()
                )));
            }
            _ => return Err(history(format!("{id} ({name}) was carried out, and is not among them"))),
        }
    }
    Ok(migrations.get(recorded.len()))
}

fn history(why: String) -> RecordError {
    RecordError::History { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(recorded: &[u32], given: &[u32], want: Result<Option<u32>, ()>) {
        let of = |id: u32| Migration::new(id, "step").step("SELECT 1");
        let recorded: Vec<Recorded> = recorded
            .iter()
            .map(|id| Recorded { id: (*id).into(), name: "step".into(), checksum: of(*id).checksum() })
            .collect();
        let given: Vec<Migration> = given.iter().map(|id| of(*id)).collect();
        let next = next_of(&recorded, &given).map(|next| next.map(Migration::id)).map_err(drop);
        assert_eq!(next, want);
    }

    #[test]
    fn what_was_carried_out_begins_what_is_to_be() {
        check(&[], &[], Ok(None));
        check(&[], &[1, 2], Ok(Some(1)));
        check(&[1], &[1, 5], Ok(Some(5)));
        check(&[1, 5], &[1, 5], Ok(None));
        check(&[1, 5], &[1], Err(()));
        check(&[1, 5], &[1, 3, 5], Err(()));
        check(&[1, 5], &[5], Err(()));
    }

    #[test]
    fn the_checksum_knows_where_statements_end() {
        let one = Migration::new(1, "a").step("xy").step("z").checksum();
        assert_ne!(one, Migration::new(1, "a").step("x").step("yz").checksum());
        assert_ne!(one, Migration::new(1, "ax").step("y").step("z").checksum());
    }
}
