//! What an author of a source or a sink tests with, a disk that can fail in every way, and intake on its caller's thread.

mod disk;
mod log;
mod pages;
mod script;

pub use disk::{Failure, SimDisk};
pub use log::MemoryLog;
pub use script::{Script, Stored, gap};

pub use crate::{intake::inline::InlineIntake, row::Value};
