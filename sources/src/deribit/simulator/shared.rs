//! What the simulator's tasks share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::venue::Venue;

/// The venue, and how its tasks are ended and awaited.
#[derive(Debug)]
pub(super) struct Shared {
    venue: Mutex<Venue>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Told whenever a session has handed something over, or is over.
    pub(super) settled: Notify,
    /// One permit for each connection that may be open.
    pub(super) connections: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(venue: Venue, connections: usize) -> Self {
        Self {
            venue: Mutex::new(venue),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            settled: Notify::new(),
            connections: Arc::new(Semaphore::new(connections)),
        }
    }

    /// Locks the venue, for a moment without `await`.
    pub(super) fn venue(&self) -> MutexGuard<'_, Venue> {
        // A panic in one session must not take the others' venue away: a test wants to see the first one.
        self.venue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
