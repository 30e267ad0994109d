//! The suite rejects stores that are wrong in one way each.

use std::sync::Arc;
use std::time::Duration;

use nexus_drivers::records::sqlite::SqliteRecords;
use nexus_kernel::hal::conformance::record_store::check;
use nexus_kernel::hal::{
    Migrated, Migration, ReadFrom, ReadSession, RecordError, RecordFuture, RecordStore, RecordValue, Row,
    Statement, WriteSession,
};
use nexus_messages::Timestamp;

use crate::sqlite::subject;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A commit is acknowledged and not made.
    ForgetsCommits,
    /// Each statement is committed by itself.
    CommitsEach,
    /// A statement that was given up leaves its session as it was.
    GoesOnAfterGivingUp,
    /// Times are whole seconds.
    CutsTimes,
    /// Values stand where they stood.
    TurnsValuesAround,
    /// No statement changes any row.
    CountsNothing,
    /// A row whose key is there takes the place of the one that has it.
    Overwrites,
    /// What comes after a semicolon is left out.
    TakesTheFirst,
    /// Each query of a read session sees what is there then.
    ReadsMove,
    /// A read session is one that writes.
    ReadsWrite,
    /// Errors have no kind.
    AllErrorsAlike,
    /// An error is forgotten, and what was done before it is kept.
    GoesOnAfterErrors,
    /// A value that was read may be another by the time of the commit.
    LosesUpdates,
    /// Statements take as long as they take.
    DeafToDeadlines,
    /// A result ends at its bound, and nobody is told.
    CutsResults,
    /// Migrations are not written down.
    MigratesAgain,
    /// What was carried out is not compared.
    DeafToHistory,
    /// All migrations are one session, and what fails is left as it is.
    MigratesByHalves,
    /// A closed store goes on.
    NeverCloses,
}

#[derive(Debug, Clone)]
struct Broken {
    store: Arc<SqliteRecords>,
    fault: Fault,
}

#[derive(Debug)]
struct Session {
    fault: Fault,
    store: Arc<SqliteRecords>,
    inner: Inner,
    /// Carried out at the commit, for what sees nothing of itself until then.
    later: Vec<Statement>,
}

#[derive(Debug)]
enum Inner {
    Reads(Box<dyn ReadSession>),
    Writes(Box<dyn WriteSession>),
    /// Each statement has a session of its own.
    None,
}

fn reject(fault: Fault, claims: &[&str]) {
    let wait = Duration::from_secs(5);
    let report = check(&|| subject(wait, move |store| Broken { store: Arc::new(store), fault }));
    claims.iter().for_each(|claim| report.assert_rejected_by(claim));
}

macro_rules! rejected {
    ($($name:ident: $fault:ident, $($claim:literal),+;)*) => {
        $(#[test] fn $name() { reject(Fault::$fault, &[$($claim),+]); })*
    };
}

rejected! {
    a_store_that_forgets_commits: ForgetsCommits, "what_is_committed_is_there_for_all";
    a_store_that_commits_each_statement: CommitsEach,
        "a_dropped_session_takes_back_what_it_did",
        "what_is_rolled_back_is_not",
        "a_session_sees_its_own_writes_and_others_do_not";
    a_store_that_goes_on_after_giving_up: GoesOnAfterGivingUp, "a_dropped_statement_ends_its_session";
    a_store_that_cuts_times: CutsTimes, "values_come_back_as_they_were";
    a_store_that_turns_values_around: TurnsValuesAround, "placeholders_go_by_their_numbers";
    a_store_that_counts_nothing: CountsNothing, "a_statement_tells_how_many_rows_it_changed";
    a_store_that_overwrites: Overwrites,
        "a_second_row_with_a_key_is_refused",
        "of_two_that_write_one_key_one_wins",
        "what_is_there_already_can_be_updated_instead";
    a_store_whose_reads_move: ReadsMove, "a_read_session_sees_one_state";
    a_store_whose_read_sessions_write: ReadsWrite, "a_read_session_does_not_write";
    a_store_whose_errors_are_all_alike: AllErrorsAlike,
        "a_second_row_with_a_key_is_refused",
        "a_row_that_names_nothing_is_refused",
        "a_row_that_the_check_forbids_is_refused",
        "a_missing_value_is_refused",
        "a_missing_table_is_told",
        "what_is_no_sql_is_told";
    a_store_that_takes_the_first_of_two_statements: TakesTheFirst, "what_is_not_portable_is_refused";
    a_store_that_goes_on_after_errors: GoesOnAfterErrors, "after_an_error_the_session_is_over";
    a_store_that_loses_updates: LosesUpdates,
        "sessions_that_collide_are_repeated_and_lose_nothing",
        "what_two_sessions_read_still_holds_when_both_commit";
    a_store_that_is_deaf_to_deadlines: DeafToDeadlines, "a_statement_ends_by_its_deadline";
    a_store_that_cuts_results: CutsResults, "a_result_has_a_bound";
    a_store_that_migrates_again: MigratesAgain,
        "migrations_are_carried_out_once_and_in_order",
        "two_that_migrate_at_once_do_it_once";
    a_store_that_is_deaf_to_history: DeafToHistory, "a_changed_history_is_refused";
    a_store_that_migrates_by_halves: MigratesByHalves, "a_failed_migration_leaves_nothing_of_itself";
    a_store_that_never_closes: NeverCloses, "a_closed_store_begins_nothing";
}

impl Session {
    async fn statement(&mut self, statement: &Statement) -> Result<(Vec<Row>, u64), RecordError> {
        let sql = match (statement.sql(), self.fault) {
            (sql, Fault::TakesTheFirst) => sql.split(';').next().unwrap_or_default().to_owned(),
            (sql, Fault::Overwrites) if sql.starts_with("INSERT INTO items") => {
                let bare = sql.split(" ON CONFLICT").next().unwrap_or_default();
                format!("{bare} ON CONFLICT (name) DO UPDATE SET amount = excluded.amount RETURNING amount")
            }
            (sql, _) => sql.to_owned(),
        };
        let values = statement.values().to_vec();
        let mut own = Statement::new(sql);
        if let (Some(limit), false) = (statement.deadline(), self.fault == Fault::DeafToDeadlines) {
            own = own.within(limit);
        }
        let turned = self.fault == Fault::TurnsValuesAround;
        let values: Vec<RecordValue> = if turned { values.into_iter().rev().collect() } else { values };
        for value in values {
            own = own.bind(match value {
                RecordValue::Timestamp(time) if self.fault == Fault::CutsTimes => {
                    RecordValue::Timestamp(Timestamp(time.secs() * 1_000_000_000))
                }
                value => value,
            });
        }
        let done = self.carry_out(&own).await;
        done.map_err(|error| match self.fault {
            Fault::AllErrorsAlike => RecordError::Backend { cause: error.to_string(), unknown: false },
            _ => error,
        })
    }

    async fn carry_out(&mut self, statement: &Statement) -> Result<(Vec<Row>, u64), RecordError> {
        let is_read = statement.sql().starts_with("SELECT") || statement.sql().starts_with("WITH");
        match self.fault {
            Fault::LosesUpdates if !is_read => {
                self.later.push(statement.clone());
                return Ok((Vec::new(), 1));
            }
            Fault::ReadsMove | Fault::LosesUpdates if is_read => {
                return Ok((self.store.read(ReadFrom::Latest).await?.query(statement).await?, 0));
            }
            Fault::CommitsEach if !is_read => {
                let mut session = self.store.write().await?;
                let count = session.execute(statement).await?;
                session.commit().await?;
                return Ok((Vec::new(), count));
            }
            _ => {}
        }
        match &mut self.inner {
            Inner::Reads(session) => Ok((session.query(statement).await?, 0)),
            Inner::Writes(session) if is_read || statement.sql().contains("RETURNING") => {
                Ok((session.query(statement).await?, 0))
            }
            Inner::Writes(session) => Ok((Vec::new(), session.execute(statement).await?)),
            Inner::None => Ok((self.store.read(ReadFrom::Latest).await?.query(statement).await?, 0)),
        }
    }

    /// Has a session go on as if nothing had been.
    async fn renew(&mut self) -> Result<(), RecordError> {
        if let Inner::Writes(_) = self.inner {
            self.inner = Inner::None;
            self.inner = Inner::Writes(self.store.write().await?);
        }
        Ok(())
    }
}

impl ReadSession for Session {
    fn query<'a>(&'a mut self, statement: &'a Statement) -> RecordFuture<'a, Vec<Row>> {
        Box::pin(async move {
            match self.statement(statement).await {
                Err(RecordError::TooLarge { .. }) if self.fault == Fault::CutsResults => Ok(Vec::new()),
                done => Ok(done?.0),
            }
        })
    }
}

impl WriteSession for Session {
    fn execute<'a>(&'a mut self, statement: &'a Statement) -> RecordFuture<'a, u64> {
        Box::pin(async move {
            let done = match (self.statement(statement).await, self.fault) {
                (Err(RecordError::Aborted), Fault::GoesOnAfterErrors | Fault::GoesOnAfterGivingUp) => {
                    self.renew().await?;
                    self.statement(statement).await
                }
                (done, _) => done,
            };
            let (rows, count) = done?;
            let returned = u64::try_from(rows.len()).unwrap_or(u64::MAX);
            Ok(if self.fault == Fault::CountsNothing { 0 } else { count.max(returned) })
        })
    }

    fn commit(self: Box<Self>) -> RecordFuture<'static, ()> {
        Box::pin(async move {
            match (self.inner, self.fault) {
                (Inner::Writes(session), Fault::ForgetsCommits) => session.rollback().await,
                (Inner::Writes(session), _) => session.commit().await,
                _ => {
                    let mut session = self.store.write().await?;
                    for statement in &self.later {
                        session.execute(statement).await?;
                    }
                    session.commit().await
                }
            }
        })
    }

    fn rollback(self: Box<Self>) -> RecordFuture<'static, ()> {
        Box::pin(async move {
            match self.inner {
                Inner::Writes(session) => session.rollback().await,
                _ => Ok(()),
            }
        })
    }
}

impl Broken {
    async fn session(&self, writes: bool) -> Result<Box<Session>, RecordError> {
        let inner = match self.fault {
            Fault::CommitsEach | Fault::LosesUpdates if writes => Inner::None,
            Fault::ReadsWrite => Inner::Writes(self.store.write().await?),
            _ if writes => Inner::Writes(self.store.write().await?),
            _ => Inner::Reads(self.store.read(ReadFrom::Latest).await?),
        };
        Ok(Box::new(Session { fault: self.fault, store: self.store.clone(), inner, later: Vec::new() }))
    }

    /// Carries out the statements of all steps, each in a session of its own.
    async fn by_halves(&self, migrations: &[Migration]) -> Result<Migrated, RecordError> {
        for step in migrations {
            for sql in step.statements() {
                let mut session = self.store.write().await?;
                let done = session.execute(&Statement::new(sql.clone())).await;
                done.map_err(|cause| RecordError::Migration {
                    id: step.id(),
                    name: step.name().to_owned(),
                    cause: Box::new(cause),
                })?;
                session.commit().await?;
            }
        }
        Ok(Migrated { applied: migrations.iter().map(Migration::id).collect() })
    }
}

impl RecordStore for Broken {
    fn kind(&self) -> &'static str {
        "broken"
    }

    fn write(&self) -> RecordFuture<'_, Box<dyn WriteSession>> {
        Box::pin(async move { Ok(self.session(true).await? as Box<dyn WriteSession>) })
    }

    fn read(&self, _: ReadFrom) -> RecordFuture<'_, Box<dyn ReadSession>> {
        Box::pin(async move { Ok(self.session(false).await? as Box<dyn ReadSession>) })
    }

    fn migrate<'a>(&'a self, migrations: &'a [Migration]) -> RecordFuture<'a, Migrated> {
        Box::pin(async move {
            match self.fault {
                Fault::MigratesAgain | Fault::MigratesByHalves => self.by_halves(migrations).await,
                Fault::DeafToHistory => match self.store.migrate(migrations).await {
                    Err(RecordError::History { .. }) => Ok(Migrated::default()),
                    done => done,
                },
                _ => self.store.migrate(migrations).await,
            }
        })
    }

    fn close(&self) -> RecordFuture<'_, ()> {
        Box::pin(async move {
            match self.fault {
                Fault::NeverCloses => Ok(()),
                _ => self.store.close().await,
            }
        })
    }
}
