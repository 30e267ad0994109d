//! The same writes without Nexus: on the disk itself, in SQLite, in redb.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use redb::{Database, TableDefinition};
use rusqlite::{Connection, params};

use crate::writes::CONTENT;

/// Appends to one file and flushes it.
pub(crate) struct Raw(File);

impl Raw {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(File::create(folder.join("raw")).expect("the folder can be written"))
    }

    /// So many contents in one write and one flush.
    pub(crate) fn write(&mut self, count: usize) {
        let buffer = CONTENT.repeat(count);
        self.0.write_all(&buffer).and_then(|()| self.0.sync_data()).expect("the disk takes it");
    }
}

/// Files as rows of a table, in WAL mode with `synchronous=FULL`: what is committed is on disk.
pub(crate) struct Sqlite {
    db: Connection,
    next: i64,
}

impl Sqlite {
    pub(crate) fn new(folder: &Path) -> Self {
        let db = Connection::open(folder.join("sqlite.db")).expect("it opens");
        db.pragma_update(None, "journal_mode", "WAL").expect("it has a log");
        db.pragma_update(None, "synchronous", "FULL").expect("it flushes each commit");
        db.execute_batch("CREATE TABLE files (path TEXT PRIMARY KEY, version INTEGER, modified INTEGER, content BLOB) WITHOUT ROWID")
            .expect("the table is made");
        Self { db, next: 0 }
    }

    /// So many new files in one transaction.
    pub(crate) fn write(&mut self, count: usize) {
        let tx = self.db.transaction().expect("nobody else writes");
        {
            let mut insert =
                tx.prepare_cached("INSERT INTO files VALUES (?1, 1, ?2, ?3)").expect("the table is there");
            for _ in 0..count {
                self.next += 1;
                let path = format!("/writes/{}", self.next);
                insert.execute(params![path, self.next, &CONTENT[..]]).expect("the path is new");
            }
        }
        tx.commit().expect("the disk takes it");
    }

    pub(crate) fn check(&self) {
        let count: i64 =
            self.db.query_row("SELECT count(*) FROM files", [], |row| row.get(0)).expect("it counts");
        assert_eq!(count, self.next);
    }
}

/// Files as rows of a table of redb, flushed at each commit.
pub(crate) struct Redb {
    db: Database,
    next: u64,
}

const FILES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("files");

impl Redb {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { db: Database::create(folder.join("bare.redb")).expect("it opens"), next: 0 }
    }

    /// So many new files in one transaction.
    pub(crate) fn write(&mut self, count: usize) {
        let tx = self.db.begin_write().expect("nobody else writes");
        {
            let mut files = tx.open_table(FILES).expect("the table is there");
            for _ in 0..count {
                self.next += 1;
                files.insert(format!("/writes/{}", self.next).as_str(), &CONTENT[..]).expect("it is put");
            }
        }
        tx.commit().expect("the disk takes it");
    }
}
