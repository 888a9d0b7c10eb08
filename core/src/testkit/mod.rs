//! What an author of a source or a sink tests with: a disk that can fail in every way, intake on its caller's thread, real servers.

mod disk;
mod log;
mod script;
mod server;

pub use disk::{Failure, SimDisk};
pub use log::MemoryLog;
pub use script::{Script, Stored, gap};
pub use server::Server;

pub use crate::{intake::inline::InlineIntake, row::Value};
