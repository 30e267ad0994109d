//! Records on SQLite against their suite, which rejects stores that are wrong in one way each; and what the suite does not see.

#[path = "records/broken.rs"]
mod broken;
#[path = "records/sqlite.rs"]
mod sqlite;
