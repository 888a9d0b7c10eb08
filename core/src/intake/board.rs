//! The open gaps of a source, as intake shows them to its driver.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use crate::protocol::Gap;

/// An open gap that may be asked for.
///
/// A gap with an open right end is shown only while its stream is confirmed by a session that is up.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The gap, as it is now: what was filled meanwhile is no longer in it.
    pub gap: Gap,
    /// Changes whenever an earlier answer would no longer count: goes back with `Step::Answered`.
    pub number: u64,
    /// When it may be asked for first: after the confirmation and the history's lag, or for the second look at what
    /// seems absent.
    pub not_before: Option<Instant>,
}

/// Open gaps of one source, those that the venue forgets first in front. Published on change, at most each 20 ms.
pub type Asks = watch::Receiver<Arc<[Ask]>>;
