//! What an author of a source or a sink tests with.

mod script;

pub use script::{Script, Stored, Value, gap};
