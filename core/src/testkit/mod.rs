//! What an author of a source or a sink tests with: a disk that can fail in every way, intake on its caller's thread, real servers.

pub mod contract;
mod disk;
mod log;
mod pages;
mod proxy;
mod script;
mod server;

pub use disk::{Failure, SimDisk};
pub use log::MemoryLog;
pub use proxy::{Proxy, Way};
pub use script::{Script, Stored, gap};
pub use server::Server;

pub use crate::{intake::inline::InlineIntake, row::Value};
