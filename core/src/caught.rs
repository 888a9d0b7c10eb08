//! What keeps a panic from ending more than the task's present try.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

use crate::{Error, Result, policy::Backoff, row::Timestamp};

/// Runs `work`; a panic becomes an error that is worth another try.
pub(crate) async fn caught<T>(what: &str, work: impl Future<Output = T>) -> Result<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.map_err(|panic| Error::transient(format!("{what} panicked: {}", text_of(&*panic))))
}

/// Returns the pauses between the runs of a task that begins again and again.
pub(crate) fn pauses() -> Backoff {
    // Those that fail at the same moment, in one process or in many, must not come back at the same one.
    let seed = Timestamp::now().0.cast_unsigned() ^ u64::from(crate::outside::process_id()).rotate_left(32);
    Backoff::new(FIRST_PAUSE, LONGEST_PAUSE).seeded(seed)
}

/// Returns what a panic said.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest of [`pauses`].
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
