//! A session: a lent connection in a transaction.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use nexus_kernel::hal::{
    ROWS_BYTES_MAX, ROWS_MAX, ReadSession, RecordError, RecordFuture, RecordValue, Row, Statement,
    WriteSession,
};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::error::translate;
use super::pool::{Lease, State};
use super::value::{Bound, row_of};
use crate::records::idle::Seat;
use crate::records::portable;

/// A session that reads or writes.
pub(super) struct PostgresSession {
    seat: Seat<Lease>,
    /// How long a statement may take.
    limit: Duration,
    /// The deadline that the server has now.
    told: Duration,
}

impl PostgresSession {
    /// A session whose statements the server ends after `limit`.
    pub(super) fn new(seat: Seat<Lease>, limit: Duration) -> Self {
        Self { seat, limit, told: limit }
    }

    async fn statement(&mut self, statement: &Statement) -> Result<(Vec<Row>, u64), RecordError> {
        // It comes back when all went well.
        let mut lease = self.seat.take()?;
        portable::check(statement)?;
        let limit = statement.deadline().map_or(self.limit, |own| own.min(self.limit));
        if limit != self.told {
            let tell = format!("SET LOCAL statement_timeout = {}", millis(limit));
            lease.control(&tell, limit, State::Running, State::Begun).await?;
            self.told = limit;
        }
        let job = async |client: &Client| query(client, statement, limit).await;
        let done = lease.run(limit, State::Running, State::Begun, job).await?;
        self.seat.put(lease);
        Ok(done)
    }

    async fn end(self, sql: &'static str, meanwhile: State) -> Result<(), RecordError> {
        let mut lease = self.seat.take()?;
        lease.control(sql, self.limit, meanwhile, State::Clean).await
    }
}

/// A time as the server takes it: 0 would be for ever.
pub(super) fn millis(time: Duration) -> u128 {
    time.as_millis().clamp(1, i32::MAX as u128)
}

async fn query(
    client: &Client,
    statement: &Statement,
    limit: Duration,
) -> Result<(Vec<Row>, u64), RecordError> {
    let failed = |error: tokio_postgres::Error| translate(&error, limit, false);
    let values: Vec<(Bound<'_>, Type)> = statement
        .values()
        .iter()
        .map(|value| {
            let bound = Bound(value);
            let kind = bound.kind();
            (bound, kind)
        })
        .collect();
    let mut found = pin!(client.query_typed_raw(statement.sql(), values).await.map_err(failed)?);
    let (mut rows, mut cost) = (Vec::new(), 0_usize);
    let mut columns: Option<Arc<[String]>> = None;
    while let Some(row) = found.try_next().await.map_err(failed)? {
        let columns = columns
            .get_or_insert_with(|| row.columns().iter().map(|column| column.name().to_owned()).collect());
        let row = row_of(&row, columns)?;
        cost += row.values().iter().map(RecordValue::cost).sum::<usize>();
        if rows.len() == ROWS_MAX {
            return Err(RecordError::TooLarge { what: "the number of rows", max: ROWS_MAX });
        }
        if cost > ROWS_BYTES_MAX {
            return Err(RecordError::TooLarge { what: "the size of the rows", max: ROWS_BYTES_MAX });
        }
        rows.push(row);
    }
    Ok((rows, found.rows_affected().unwrap_or(0)))
}

impl fmt::Debug for PostgresSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSession").field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl ReadSession for PostgresSession {
    fn query<'a>(&'a mut self, statement: &'a Statement) -> RecordFuture<'a, Vec<Row>> {
        Box::pin(async move { Ok(self.statement(statement).await?.0) })
    }
}

impl WriteSession for PostgresSession {
    fn execute<'a>(&'a mut self, statement: &'a Statement) -> RecordFuture<'a, u64> {
        Box::pin(async move { Ok(self.statement(statement).await?.1) })
    }

    fn commit(self: Box<Self>) -> RecordFuture<'static, ()> {
        Box::pin(self.end("COMMIT", State::Committing))
    }

    fn rollback(self: Box<Self>) -> RecordFuture<'static, ()> {
        Box::pin(async move {
            match self.end("ROLLBACK", State::Running).await {
                // One that is over is being taken back already.
                Err(RecordError::Aborted) => Ok(()),
                ended => ended,
            }
        })
    }
}
