//! The venues of Tidegate, a folder and a feature each.

#[cfg(feature = "deribit")]
pub mod deribit;
