//! What an author of a source or a sink tests with, and a disk that can fail in every way.

mod disk;
mod log;
mod script;

pub use disk::{Failure, SimDisk};
pub use log::MemoryLog;
pub use script::{Script, Stored, Value, gap};
