//! Whether somebody still waits for work on another thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidegate_core::{Error, Result};

/// Held by whoever waits. Once it is dropped, the work is to end soon: Kafka's client has no other way to be told.
#[derive(Debug, Default)]
pub(super) struct Waiting(Arc<AtomicBool>);

/// Held by the work.
#[derive(Debug, Clone)]
pub(super) struct Waited(Arc<AtomicBool>);

impl Waiting {
    /// Returns what the work looks at.
    pub(super) fn waited(&self) -> Waited {
        Waited(self.0.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Waited {
    /// Fails once nobody waits any more. What is under way is in doubt then, and the next opening settles it.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::transient("was given up")) } else { Ok(()) }
    }

    /// Pauses, on a thread that may block, and then does the same: where the client has nothing that could be waited on.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    #[allow(clippy::disallowed_methods, reason = "all of this is done on a thread that may block")]
    pub(super) fn pause(&self, pause: Duration) -> Result<()> {
        std::thread::sleep(pause);
        self.check()
    }
}
