//! The engine of Tidegate: connection driver, intake, spool, delivery driver. Names no venue and no store.

pub mod error;
pub mod health;
pub mod policy;

pub use error::{Error, Kind, Result};
