//! The formats of the ledger's file, oldest first.

use std::path::Path;

use crate::{Error, Result};

/// Refuses a file that a newer program has written.
pub(in crate::ledger) fn refuse_newer(path: &Path, version: i64) -> Result<()> {
    if version <= VERSION {
        return Ok(());
    }
    let shown = path.display();
    Err(Error::permanent(format!("the ledger `{shown}` has format {version}, this program knows up to {VERSION}")))
}

/// A file of an older format is brought up to this one when it is opened for writing.
pub(super) const VERSION: i64 = FORMATS.len() as i64;

/// What makes each format of the one before, the first one of nothing: a new format is a step behind the others.
pub(super) const FORMATS: [&str; 4] = [FORMAT_1, FORMAT_2, FORMAT_3, FORMAT_4];

/// A mark holds until the next one of its stream, so that intervals have neither overlaps nor holes.
const FORMAT_1: &str = "
BEGIN IMMEDIATE;
CREATE TABLE position (
    id INTEGER PRIMARY KEY CHECK (id = 1), spool TEXT NOT NULL, boot TEXT NOT NULL, \"offset\" INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE TABLE streams (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, tbl TEXT NOT NULL, symbol TEXT NOT NULL, listing TEXT NOT NULL,
    numbering TEXT, session INTEGER, received INTEGER NOT NULL, backfilled INTEGER NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0, UNIQUE (source, tbl, symbol, listing)
) STRICT;
CREATE TABLE marks (
    stream INTEGER NOT NULL, start INTEGER NOT NULL, state TEXT NOT NULL, why TEXT, PRIMARY KEY (stream, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX open_marks ON marks (stream, start) WHERE state = 'open';
CREATE TABLE sessions (session INTEGER PRIMARY KEY, heard INTEGER NOT NULL) STRICT;
CREATE TABLE dropped (
    stream INTEGER NOT NULL, sink TEXT NOT NULL, rows INTEGER NOT NULL, first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL, PRIMARY KEY (stream, sink)
) STRICT, WITHOUT ROWID;
CREATE TABLE unreadable (
    boot TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (boot, first)
) STRICT, WITHOUT ROWID;
CREATE VIEW intervals AS
    SELECT source, tbl AS \"table\", symbol, listing, start,
        lead(start) OVER (PARTITION BY stream ORDER BY start) AS until, state, why
    FROM marks JOIN streams ON streams.id = marks.stream;
PRAGMA user_version = 1;
COMMIT;
";

/// Whose it is, up to where each boot was read, what sinks never get.
const FORMAT_2: &str = "
BEGIN IMMEDIATE;
CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), pipeline TEXT NOT NULL) STRICT;
CREATE TABLE boots (boot TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
ALTER TABLE unreadable ADD COLUMN sinks TEXT NOT NULL DEFAULT '';
CREATE TABLE skipped (
    sink TEXT NOT NULL, boot TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, tbl TEXT NOT NULL,
    rows INTEGER, why TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (sink, boot, first, tbl)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
COMMIT;
";

/// What was joined, and whether every row was counted.
const FORMAT_3: &str = "
BEGIN IMMEDIATE;
ALTER TABLE streams ADD COLUMN filled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN absent INTEGER NOT NULL DEFAULT 0;
CREATE TABLE counted (id INTEGER PRIMARY KEY CHECK (id = 1), all_rows INTEGER NOT NULL) STRICT;
PRAGMA user_version = 3;
COMMIT;
";

/// Of how many stretches a lost or unknown one was joined, and for how many nanoseconds of it that is so; NULL where it is one.
const FORMAT_4: &str = "
BEGIN IMMEDIATE;
ALTER TABLE marks ADD COLUMN parts INTEGER;
ALTER TABLE marks ADD COLUMN lasted INTEGER;
DROP VIEW IF EXISTS intervals;
CREATE VIEW intervals AS
    SELECT source, tbl AS \"table\", symbol, listing, start,
        lead(start) OVER (PARTITION BY stream ORDER BY start) AS until, state, why, parts, lasted
    FROM marks JOIN streams ON streams.id = marks.stream;
PRAGMA user_version = 4;
COMMIT;
";
