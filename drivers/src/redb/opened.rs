//! A database that is open, and how it is closed.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use nexus_actors::guard;
use redb::Database;

/// A database that is open. Closing it writes what tells the next opening which pages are free. One that is damaged may panic over that, and in a way that
/// ends the process: it is left as it is, as after a crash, once the damage is known.
#[derive(Debug)]
pub(super) struct Opened {
    database: Option<Database>,
    is_left: AtomicBool,
}

impl Opened {
    /// One that is closed in order.
    pub(super) fn new(database: Database) -> Self {
        Self { database: Some(database), is_left: AtomicBool::new(false) }
    }

    /// One of which nothing is to be kept.
    pub(super) fn view(database: Database) -> Self {
        Self { database: Some(database), is_left: AtomicBool::new(true) }
    }

    /// Has it left as it is when it is closed.
    pub(super) fn leave(&self) {
        // Looked at by whoever drops it, which comes after all that was done with it.
        self.is_left.store(true, Ordering::Relaxed);
    }
}

impl Deref for Opened {
    type Target = Database;

    fn deref(&self) -> &Database {
        match &self.database {
            Some(database) => database,
            None => unreachable!("only its end takes it out"),
        }
    }
}

impl DerefMut for Opened {
    fn deref_mut(&mut self) -> &mut Database {
        match &mut self.database {
            Some(database) => database,
            None => unreachable!("only its end takes it out"),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let database = self.database.take();
        if *self.is_left.get_mut() {
            // The database writes nothing when it is dropped by a thread that unwinds. Nobody is told of this one.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let _database = database;
                resume_unwind(Box::new(()))
            }));
        } else if let Err(panicked) = guard(|| drop(database)) {
            tracing::error!(%panicked, "a database is damaged, and is left as it is");
        }
    }
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;

    use super::*;

    #[test]
    fn one_that_is_left_writes_nothing_more() {
        let closing_writes = |leave: bool| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("rows.redb");
            let opened = Opened::new(Database::create(&path).unwrap());
            let write = opened.begin_write().unwrap();
            write.open_table(TableDefinition::<u64, u64>::new("rows")).unwrap().insert(1, 2).unwrap();
            write.commit().unwrap();
            if leave {
                opened.leave();
            }
            let before = std::fs::read(&path).unwrap();
            drop(opened);
            std::fs::read(&path).unwrap() != before
        };
        assert_eq!((closing_writes(false), closing_writes(true)), (true, false));
    }
}
