//! The stores of Tidegate: a folder and a feature each.

#[cfg(feature = "sqlite")]
pub mod sqlite;

use tidegate_core::catalog::Catalog;

/// Adds every store of this build.
pub fn register(catalog: &mut Catalog) {
    #[cfg(feature = "sqlite")]
    catalog.sink::<sqlite::SqliteConfig>();
}
