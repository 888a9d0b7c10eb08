//! How much is measured.

use crate::frames::Kind;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// How often each side of a comparison runs.
    pub(crate) rounds: usize,
    /// Frames of one run that stays in memory.
    pub(crate) frames: usize,
    /// Frames of one run that ends on the disk.
    pub(crate) durable: usize,
    /// Rows that are sent to a store; to one with a server they come while it is away.
    pub(crate) stored: usize,
    /// Rows that are sent to a store with a server.
    pub(crate) sent: usize,
    /// For how many seconds latencies are collected.
    pub(crate) seconds: u64,
    /// For how many seconds memory is watched under load.
    pub(crate) soak_seconds: u64,
    /// How large the spool is behind which the program starts.
    pub(crate) spool_bytes: u64,
    /// How large the backlog of a store is that was away.
    pub(crate) backlog_bytes: u64,
    /// Trades that the venue made while nobody listened.
    pub(crate) missed: usize,
    /// The one kind of frame that is measured; `None`: each.
    pub(crate) kind: Option<Kind>,
}

impl Effort {
    /// Returns the kinds of frames that are measured.
    pub(crate) fn kinds(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.kind.is_none_or(|asked| asked == *kind))
    }

    /// Enough for figures that can be told.
    pub(crate) const FULL: Self = Self {
        rounds: 9,
        frames: 100_000,
        durable: 400_000,
        stored: 200_000,
        sent: 400_000,
        seconds: 30,
        soak_seconds: 600,
        spool_bytes: 10 << 30,
        backlog_bytes: 256 << 20,
        missed: 1_000_000,
        kind: None,
    };
    /// Enough to see what a change does.
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        frames: 50_000,
        durable: 200_000,
        stored: 60_000,
        sent: 200_000,
        seconds: 5,
        soak_seconds: 30,
        spool_bytes: 256 << 20,
        backlog_bytes: 64 << 20,
        missed: 100_000,
        kind: None,
    };
    /// Enough to see that it runs.
    pub(crate) const SMOKE: Self = Self {
        rounds: 1,
        frames: 200,
        durable: 200,
        stored: 500,
        sent: 500,
        seconds: 1,
        soak_seconds: 2,
        spool_bytes: 1 << 20,
        backlog_bytes: 256 << 10,
        missed: 2_000,
        kind: None,
    };
}
