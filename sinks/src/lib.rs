//! The stores of Tidegate: a folder and a feature each.

pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod stdout;
mod worker;

use tidegate_core::catalog::Catalog;

/// Adds every store of this build.
pub fn register(catalog: &mut Catalog) {
    catalog.sink::<file::FileConfig>().sink::<stdout::StdoutConfig>();
    #[cfg(feature = "sqlite")]
    catalog.sink::<sqlite::SqliteConfig>();
    #[cfg(feature = "kafka")]
    catalog.sink::<kafka::KafkaConfig>();
}
