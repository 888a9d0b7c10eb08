//! Tidegate as a library, and as a program that knows the components you give it.
//!
//! Everything of the engine is here under one name; [`main_with`] is the whole program with components of your own beside
//! the built-in ones, [`catalog`] the built-in ones alone.

mod cli;
mod host;
mod page;

use std::process::ExitCode;

use tidegate_core::catalog::{Role, Unavailable};
pub use tidegate_core::*;

use crate::catalog::Catalog;

/// Runs the program `tidegate` with the built-in components and yours.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     tidegate::main_with(|_catalog| {})
/// }
/// ```
pub fn main_with(register: impl FnOnce(&mut Catalog)) -> ExitCode {
    let mut catalog = built_in();
    register(&mut catalog);
    cli::main(&catalog)
}

/// Returns the components that this build has, and the names of those that it has not, with the reason.
pub fn built_in() -> Catalog {
    let mut catalog = Catalog::default();
    tidegate_sources::register(&mut catalog);
    tidegate_sinks::register(&mut catalog);
    for source in ["bitpin", "eodhd", "http_poll", "polygon", "wallex"] {
        catalog.unavailable(Role::Source, source, Unavailable::Version);
    }
    for source in ["deribit", "kafka"] {
        catalog.unavailable(Role::Source, source, Unavailable::Feature(source));
    }
    for sink in ["kafka", "postgres", "questdb", "sqlite", "timescale"] {
        catalog.unavailable(Role::Sink, sink, Unavailable::Feature(sink));
    }
    catalog
}
