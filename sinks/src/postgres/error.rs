//! What an error of Postgres means for the driver. The classes are those of its manual, appendix A:
//! <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::error::Error as _;

use tidegate_core::Error;
use tokio_postgres::error::SqlState;

/// Sorts an error by what should happen next. One that blames a row does not come here.
pub(super) fn sorted(error: tokio_postgres::Error) -> Error {
    let Some(code) = error.code() else { return of_the_connection(error) };
    let (kind, what): (fn(String) -> Error, _) = match (class(code), code) {
        (_, &SqlState::TOO_MANY_CONNECTIONS) => (Error::transient, "has no connection left"),
        (_, &SqlState::CANNOT_CONNECT_NOW) => (Error::transient, "is starting, or shutting down"),
        (_, &SqlState::READ_ONLY_SQL_TRANSACTION) => {
            (Error::transient, "can only be read: it is a standby, or was told so")
        }
        (_, &SqlState::LOCK_NOT_AVAILABLE) => (Error::transient, "is locked by another session"),
        (_, &SqlState::QUERY_CANCELED) => (Error::transient, "took longer than it may, or was cancelled"),
        (_, &SqlState::DISK_FULL) => (Error::transient, "cannot grow: the disk is full"),
        (_, &SqlState::INVALID_CATALOG_NAME) => (Error::config, "is not there"),
        (_, &SqlState::INSUFFICIENT_PRIVILEGE) => (Error::permanent, "does not let this user do it"),
        (_, &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED) => (Error::permanent, "is damaged"),
        // The table may have been changed under way: the next opening looks, and says which column.
        (_, &SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN) => (Error::transient, "lacks what was there"),
        // A schema or an object of ours that two sessions made at once.
        (_, &SqlState::DUPLICATE_TABLE | &SqlState::DUPLICATE_SCHEMA | &SqlState::DUPLICATE_OBJECT) => {
            (Error::transient, "has it already")
        }
        ("28", _) => (Error::config, "does not let us in"),
        ("42" | "0A" | "3F", _) => (Error::permanent, "does not take the statement"),
        // A rule that no single row can be blamed for.
        ("22" | "23" | "44", _) => (Error::transient, "did not take what was written"),
        _ => (Error::transient, "failed"),
    };
    kind(format!("the database {what} ({})", code.code())).because(error)
}

/// Returns whether the store says that a row of the statement can never be stored: its data (22), a constraint (23), a
/// trigger's own refusal (P0001), a view's check (44), a value too long for an index (54).
pub(super) fn blames_a_row(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| match class(code) {
        // A faulty encoding would be ours.
        "22" => !matches!(code, &SqlState::BAD_COPY_FILE_FORMAT | &SqlState::INVALID_BINARY_REPRESENTATION),
        "23" | "44" => true,
        "54" => *code == SqlState::PROGRAM_LIMIT_EXCEEDED,
        _ => *code == SqlState::RAISE_EXCEPTION,
    })
}

/// Returns whether a statement would have changed a row that it had written itself.
pub(super) fn is_twice_in_a_statement(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::CARDINALITY_VIOLATION)
}

/// Returns whether another row is equal in the columns of an index.
pub(super) fn is_equal(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
}

/// Returns whether a lock was waited for in vain.
pub(super) fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Says what became of a connection. A certificate that is not trusted stays so until a person has looked, and so does a
/// server that speaks no TLS where the address asks for it.
fn of_the_connection(error: tokio_postgres::Error) -> Error {
    let mut cause = error.source();
    if cause.is_some_and(|cause| cause.to_string() == NO_TLS) {
        return Error::config(
            "the server speaks no TLS, and `sslmode` of `url` asks for it: turn it on there (`ssl = on` in \
             postgresql.conf), or write `sslmode=prefer`, which goes without where it has to",
        );
    }
    while let Some(inner) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = innermost(inner) {
            return Error::config(
                "the server's certificate is not trusted: name its authority in `tls.ca`, or the host as the certificate does",
            )
            .because(error);
        }
        cause = inner.source();
    }
    Error::transient("the connection to the database").because(error)
}

/// What tokio-postgres 0.7 says then, which has no kind of its own that could be asked for: `connect_tls.rs`.
const NO_TLS: &str = "server does not support TLS";

fn innermost<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.downcast_ref().or_else(|| wrapped?.downcast_ref())
}

fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or_default()
}
