//! What an error of SQLite means for the driver.

use std::path::Path;

use tidegate_core::Error;

/// Sorts an error by what should happen next. One that blames a row does not come here.
pub(super) fn sorted(path: &Path, error: sqlx::Error) -> Error {
    let shown = path.display();
    let Some(code) = code(&error) else {
        return Error::transient(format!("SQLite file `{shown}`")).because(error);
    };
    let (is_permanent, what) = match code & 0xff {
        BUSY | LOCKED => (false, "is locked by another program"),
        FULL => (false, "cannot grow: the disk is full"),
        READONLY => (false, "can only be read"),
        IOERR => (false, "cannot be read or written"),
        CANTOPEN => (false, "cannot be opened"),
        PERM | AUTH => (true, "may not be written"),
        CORRUPT => (true, "is damaged: bring it back from a backup, without the `-wal` and `-shm` of this one,"),
        NOTADB => (true, "is no SQLite database"),
        CONSTRAINT => (true, "has a rule that no single row can be blamed for"),
        _ => (false, "does not take the statement"),
    };
    let text = format!("SQLite file `{shown}` {what}");
    let sorted = if is_permanent { Error::permanent(text) } else { Error::transient(text) };
    sorted.because(error)
}

/// Returns whether what is in the file makes no sense.
pub(super) fn is_damaged(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code & 0xff, CORRUPT | NOTADB))
}

/// Returns whether the store says that a row of the statement can never be stored.
pub(super) fn blames_a_row(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code & 0xff, CONSTRAINT | MISMATCH | TOOBIG))
}

/// Returns whether the store says that another row is equal in these columns.
pub(super) fn is_equal_in_a_key(error: &sqlx::Error, key: &[String]) -> bool {
    // `UNIQUE constraint failed: trades.symbol, trades.seq`: there may be other indexes, of the user's own.
    let message = error.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
    let named = message.strip_prefix("UNIQUE constraint failed: ").unwrap_or_default();
    let mut named: Vec<String> =
        named.split(", ").filter_map(|name| Some(name.rsplit_once('.')?.1.to_ascii_lowercase())).collect();
    let mut key: Vec<String> = key.iter().map(|column| column.to_ascii_lowercase()).collect();
    named.sort_unstable();
    key.sort_unstable();
    named == key
}

/// Returns whether there was no transaction to roll back: the error before, a trigger's `RAISE(ROLLBACK)` say, has
/// ended it. For these statements SQLite has no other reason for this code.
pub(super) fn is_without_transaction(error: &sqlx::Error) -> bool {
    is_wrong(error)
}

/// Returns whether the statement does not fit what there is.
pub(super) fn is_wrong(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code & 0xff == ERROR)
}

/// Returns the extended result code.
fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

const ERROR: i32 = 1;
const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const TOOBIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const AUTH: i32 = 23;
const NOTADB: i32 = 26;
