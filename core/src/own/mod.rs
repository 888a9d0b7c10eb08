//! The pipeline's own tables: `coverage`, what its ledger says, and `status`, how its stages are. A sink gets one of them
//! only where its `tables` name it.

mod rows;

pub use rows::{Coverage, Status};

use crate::row::{Row as _, Table};

/// Tells whether a table has a key that nobody has to name: its rows take each other's places.
pub(crate) fn has_key(name: &str) -> bool {
    name == Coverage::TABLE
}

/// Returns the columns of that key.
pub(crate) fn key(table: &Table) -> Vec<String> {
    table.identity.iter().map(ToString::to_string).chain(["symbol".to_owned()]).collect()
}
