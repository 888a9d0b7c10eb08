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

use crate::table::{Definition, Derived};

/// Returns derived tables as a pipeline's file defines them: name, `from`, `where` and `select` of each; an empty text is none.
///
/// # Panics
///
/// If a text is no expression.
pub fn derived(tables: &[[&str; 4]]) -> Derived {
    Derived::new(
        tables
            .iter()
            .map(|[name, from, condition, selection]| Definition::of(name, from, condition, selection))
            .collect(),
    )
}
