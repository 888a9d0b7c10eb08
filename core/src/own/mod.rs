//! The pipeline's own tables: `coverage`, what its ledger says, and `status`, how its stages are.
//!
//! ```text
//! ledger ──coverage──┐
//!                    ├─ links ─→ intake ──→ spool ──→ sinks whose `tables` name them
//! health ──status────┘
//! ```
//!
//! They are rows like all others: intake alone writes them, so they have offsets, and each sink gives them fates and gets the
//! same ones again. They come of a source that no file can name. A sink gets one of them only where its `tables` name it.

mod rows;
mod status;

pub use rows::{Coverage, Status};

pub(crate) use status::tell as tell_status;

use std::sync::Arc;

use crate::{
    config::SinkStage,
    row::{Row as _, Table},
    spool::SourceInfo,
    table::Derived,
};

/// Returns the source of the own tables that one of the sinks takes, or what is derived of them; `None` where none does.
pub(crate) fn source(sinks: &[SinkStage], derived: &Derived) -> Option<SourceInfo> {
    let is_taken = |name: &str| sinks.iter().any(|sink| sink.tables.takes(name));
    let is_made_of = |name: &str, of: &str| derived.root(of).is_some_and(|root| *root == *name);
    let derives =
        |name: &str| derived.definitions().iter().any(|of| is_taken(of.name()) && is_made_of(name, of.name()));
    let is_wanted = |name: &&str| is_taken(name) || derives(name);
    let tables: Vec<_> = NAMES.iter().copied().filter(is_wanted).filter_map(table).map(Arc::new).collect();
    (!tables.is_empty()).then(|| SourceInfo { name: SOURCE.into(), venue: VENUE.into(), tables })
}

/// Returns the source with all of them.
pub(crate) fn whole_source() -> SourceInfo {
    let tables = NAMES.into_iter().filter_map(table).map(Arc::new).collect();
    SourceInfo { name: SOURCE.into(), venue: VENUE.into(), tables }
}

/// Returns the table of this name, if it is one of the pipeline's own.
pub(crate) fn table(name: &str) -> Option<Table> {
    match name {
        Coverage::TABLE => Some(Table::of::<Coverage<'_>>().unique_by(&Coverage::KEY)),
        Status::TABLE => Some(Table::of::<Status<'_>>()),
        _ => None,
    }
}

/// Tells whether a table of this name is one of the pipeline's own.
pub(crate) fn is_own(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Tells whether a table has a key that nobody has to name: its rows take each other's places.
pub(crate) fn has_key(name: &str) -> bool {
    name == Coverage::TABLE
}

/// Returns the columns of that key.
pub(crate) fn key(table: &Table) -> Vec<String> {
    table.identity.iter().map(ToString::to_string).chain(["symbol".to_owned()]).collect()
}

/// No source of a file can be called this.
pub(crate) const SOURCE: &str = "(pipeline)";
/// The `venue` of their rows.
pub(crate) const VENUE: &str = "tidegate";
/// Their names.
pub(crate) const NAMES: [&str; 2] = [Coverage::TABLE, Status::TABLE];
