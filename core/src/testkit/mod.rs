//! What an author of a source or a sink tests with: a disk that can fail in every way, intake on its caller's thread, real servers.

pub mod certificates;
pub mod contract;
mod disk;
mod log;
mod pages;
mod proxy;
mod script;
mod server;

pub use disk::{Failure, SimDisk};
pub use log::MemoryLog;
pub use proxy::{Proxy, Way};
pub use script::{Script, Stored, gap};
pub use server::Server;

pub use crate::{intake::inline::InlineIntake, row::Value};

/// Lets this process panic the next so many times that it comes to a place which catches panics, or to something within: `the
/// protocol`, `a table`, `the ledger, under way`… In a release build it does nothing.
pub fn plan_panics(place: &str, times: u32) {
    #[cfg(debug_assertions)]
    crate::caught::planned::plan(place, times);
    #[cfg(not(debug_assertions))]
    let _ = (place, times);
}

/// Reads what is noted of a sink beside its spool, as every start does.
///
/// # Errors
///
/// Where that is no note.
pub fn read_note(bytes: &[u8]) -> crate::Result<()> {
    let disk = SimDisk::default();
    disk.put(&crate::delivery::file_name("sink"), bytes);
    crate::delivery::Known::open(std::sync::Arc::new(disk), "sink").map(drop)
}

/// Returns derived tables as a pipeline's file defines them: name, `from`, `where` and `select` of each; an empty text is none.
///
/// # Panics
///
/// If a text is no expression.
pub fn derived(tables: &[[&str; 4]]) -> crate::table::Derived {
    crate::table::Derived::new(
        tables
            .iter()
            .map(|[name, from, condition, selection]| crate::table::Definition::of(name, from, condition, selection))
            .collect(),
    )
}
