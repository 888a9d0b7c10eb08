//! The venues of Tidegate, a folder and a feature each.

#[cfg(feature = "deribit")]
pub mod deribit;
#[cfg(feature = "deribit")]
mod json;
#[cfg(feature = "kafka")]
pub mod kafka;

use tidegate_core::catalog::Catalog;

/// Adds the sources that this build has.
pub fn register(catalog: &mut Catalog) {
    #[cfg(feature = "deribit")]
    catalog.protocol::<deribit::DeribitConfig>();
    #[cfg(feature = "kafka")]
    catalog.log::<kafka::KafkaConfig>();
    // Without any feature there is nothing to add.
    let _: &mut Catalog = catalog;
}
