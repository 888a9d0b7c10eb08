//! The driver against a scripted venue in paused time, and against real sockets.

mod channels;
mod history;
mod lines;
mod outage;
mod recordings;
mod sockets;
mod toy;
mod world;

use std::time::Duration;

use toy::Toy;
use world::World;

const SECOND: Duration = Duration::from_secs(1);
