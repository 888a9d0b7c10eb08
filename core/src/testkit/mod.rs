//! What an author of a source or a sink tests with.

mod log;
mod script;

pub use log::MemoryLog;
pub use script::{Script, Stored, Value, gap};
