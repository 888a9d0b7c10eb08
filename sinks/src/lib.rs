//! The stores of Tidegate: a folder and a feature each.

#[cfg(all(test, any(feature = "kafka", feature = "postgres", feature = "questdb")))]
mod delivered;
pub mod file;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod held;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "questdb")]
pub mod questdb;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod stdout;
mod worker;

use tidegate_core::catalog::Catalog;

/// Adds every store of this build.
pub fn register(catalog: &mut Catalog) {
    catalog.sink::<file::FileConfig>().sink::<stdout::StdoutConfig>();
    #[cfg(feature = "kafka")]
    catalog.sink::<kafka::KafkaConfig>();
    #[cfg(feature = "postgres")]
    catalog.sink::<postgres::PostgresConfig>();
    #[cfg(feature = "questdb")]
    catalog.sink::<questdb::QuestDbConfig>();
    #[cfg(feature = "sqlite")]
    catalog.sink::<sqlite::SqliteConfig>();
    #[cfg(feature = "timescale")]
    catalog.sink::<postgres::TimescaleConfig>();
}
