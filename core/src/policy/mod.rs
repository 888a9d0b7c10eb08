//! When to try again, when to stop trying, and how fast to ask: the decisions that both drivers share.
//!
//! All of them are plain values. None reads a clock, sleeps or spawns: the caller says what time it is and how each call
//! ended, and is told whether to go on and how long to wait. So every history is a unit test.

mod backoff;
mod breaker;
mod random;
mod rate;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerSnapshot, BreakerState};
pub use random::Random;
pub use rate::RateLimit;
