//! What calls go through: they may take too long, panic, wait for a disk, or be in the way of the stop.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::watch, time::Instant};

use crate::{Error, Result};

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
            ended = tokio::time::timeout(limit, AssertUnwindSafe(call).catch_unwind()) => ended,
            () = given_up(self.stop) => return Err(Error::transient(format!("{what} was cut off at the stop"))),
        };
        match ended {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                *self.is_broken = true;
                Err(Error::transient(format!("{what} panicked: {}", text_of(&*panic))))
            }
            Err(_) => Err(Error::transient(format!("{what} took longer than {limit:?}"))),
        }
    }
}

/// Runs what waits for a disk where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::transient("the work on the disk was cut off")),
    }
}

/// Waits until the pipeline gives up on what is not delivered.
async fn given_up(stop: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let deadline = *stop.borrow_and_update();
        match deadline {
            Some(deadline) => return tokio::time::sleep_until(deadline).await,
            None if stop.changed().await.is_err() => return,
            None => {}
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
