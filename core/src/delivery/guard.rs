//! What calls go through: they may take too long, panic, wait for a disk, or be in the way of the stop.

use std::{
    future::{Future, pending},
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{Error, Result, caught::caught};

/// What a call of a sink goes through: it may take too long, panic, or be in the way of the stop.
pub(super) struct Guard<'a> {
    pub(super) what: &'static str,
    pub(super) limit: Duration,
    pub(super) stop: &'a mut watch::Receiver<Option<Instant>>,
    /// Set when the sink panicked: its state may be anything.
    pub(super) is_broken: &'a mut bool,
}

impl Guard<'_> {
    pub(super) async fn call<T>(&mut self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let Self { what, limit, .. } = *self;
        let ended = tokio::select! {
            biased;
            ended = tokio::time::timeout(limit, caught(what, call)) => ended,
            () = given_up(self.stop) => return Err(Error::transient(format!("{what} was cut off at the stop"))),
        };
        match ended {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                *self.is_broken = true;
                Err(panic)
            }
            Err(_) => Err(Error::transient(format!("{what} took longer than {limit:?}"))),
        }
    }
}

/// Runs what waits for a disk where it holds up nobody. A panic of it is one of the caller.
pub(super) async fn blocking<T: Send + 'static, R: Send + 'static>(
    owned: &Arc<Mutex<T>>,
    work: impl FnOnce(&mut T) -> R + Send + 'static,
) -> R {
    let owned = owned.clone();
    match crate::outside::spawn_blocking(move || work(&mut locked(&owned))).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime goes down, and the caller with it.
            Err(_) => pending().await,
        },
    }
}

/// Takes what only one task uses. Whoever panicked while holding it has it opened anew.
pub(super) fn locked<T>(owned: &Mutex<T>) -> MutexGuard<'_, T> {
    owned.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the pipeline gives up on what is not delivered.
pub(super) async fn given_up(stop: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let deadline = *stop.borrow_and_update();
        match deadline {
            Some(deadline) => return tokio::time::sleep_until(deadline).await,
            None if stop.changed().await.is_err() => return,
            None => {}
        }
    }
}
