//! Work that blocks, one piece at a time.

use tidegate_core::{Error, Result};
use tokio::{sync::oneshot, task::JoinHandle};

/// Owns what the work is done with, and lends it to a thread that may block.
///
/// A call that was given up goes on all the same: the next one waits for its end, so that two never meet.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    state: Option<T>,
    running: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    pub(crate) fn new() -> Self {
        Self { state: None, running: None }
    }

    /// Waits for work that was given up, and forgets what it was done with.
    pub(crate) async fn reset(&mut self) {
        self.settle().await;
        self.state = None;
    }

    /// Sets what work is done with.
    pub(crate) fn set(&mut self, state: T) {
        self.state = Some(state);
    }

    /// Sets what work is done with where there is nothing: at first, and after a panic. Waits for work that was given up.
    #[cfg(feature = "kafka")]
    pub(crate) async fn set_if_missing(&mut self, make: impl FnOnce() -> T) {
        self.settle().await;
        if self.state.is_none() {
            self.state = Some(make());
        }
    }

    /// Does a piece of work.
    ///
    /// # Errors
    ///
    /// What the work returns; `Transient` when there is nothing to work with, or the work panicked.
    pub(crate) async fn run<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.settle().await;
        let Some(mut state) = self.state.take() else { return Err(Error::transient("the sink is not open")) };
        let (answer, answered) = oneshot::channel();
        self.running = Some(tokio::task::spawn_blocking(move || {
            // Nobody waits any more where the call was given up: what `open` finds is the answer then.
            drop(answer.send(work(&mut state)));
            state
        }));
        let result = answered.await;
        self.settle().await;
        result.unwrap_or_else(|_| Err(Error::transient("the work panicked")))
    }

    async fn settle(&mut self) {
        let Some(running) = &mut self.running else { return };
        let ended = running.await;
        self.running = None;
        // A panic has taken it along: only opening gives a new one.
        self.state = ended.ok();
    }
}
