//! What keeps a panic from ending more than the task's present try.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::FutureExt;

use crate::{Error, Result, policy::Backoff, row::Timestamp};

/// Runs `work`; a panic becomes an error that is worth another try.
pub(crate) async fn caught<T>(what: &str, work: impl Future<Output = T>) -> Result<T> {
    let panicked = |panic: Box<dyn Any + Send>| Error::transient(format!("{what} panicked: {}", text_of(&*panic)));
    catch_unwind(|| meet(what)).map_err(panicked)?;
    AssertUnwindSafe(work).catch_unwind().await.map_err(panicked)
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

/// A place at which a test may have the program panic; nothing in a release build.
#[inline]
pub(crate) fn meet(place: &str) {
    #[cfg(all(debug_assertions, any(test, feature = "testkit")))]
    planned::meet(place);
    #[cfg(not(all(debug_assertions, any(test, feature = "testkit"))))]
    let _ = place;
}

#[cfg(all(debug_assertions, any(test, feature = "testkit")))]
pub(crate) mod planned {
    //! Panics that a test has planned, for a whole process.

    use std::sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    };

    static IS_ANY: AtomicBool = AtomicBool::new(false);
    static PLANNED: Mutex<Vec<(String, u32)>> = Mutex::new(Vec::new());

    /// Lets the program panic the next so many times that it comes to a place.
    pub(crate) fn plan(place: &str, times: u32) {
        PLANNED.lock().unwrap_or_else(PoisonError::into_inner).push((place.to_owned(), times));
        IS_ANY.store(true, Ordering::Release);
    }

    pub(super) fn meet(place: &str) {
        if !IS_ANY.load(Ordering::Acquire) {
            return;
        }
        let mut planned = PLANNED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, left)) = planned.iter_mut().find(|(planned, left)| planned == place && *left > 0) else { return };
        *left -= 1;
        drop(planned);
        panic!("a fault of the program that was planned in {place}");
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest of [`pauses`].
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
