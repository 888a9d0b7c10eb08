//! The words between the state machine and its shell.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::balance::Portion;
use crate::{Error, spool::SpoolPosition};

/// What the machine goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) batch_rows: usize,
    pub(crate) linger: Duration,
    pub(crate) retry_first: Duration,
    pub(crate) retry_longest: Duration,
    pub(crate) breaker_failures: NonZeroU32,
    pub(crate) breaker_open_for: Duration,
    pub(crate) breaker_successes: NonZeroU32,
    /// Zero for never.
    pub(crate) probe_every: Duration,
    pub(crate) seed: u64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Do {
    /// Open the sink and compare.
    Open,
    /// Throw away the dead letters of rows that come again.
    Discard,
    /// Read on in the log, behind `Machine::read_to`.
    Build,
    /// Write the chunk of `Machine::in_hand`.
    Write,
    /// Make the refused rows durable as dead letters.
    Bury,
    /// Ask up to where accepted chunks are durable.
    Applied,
    /// Ask an idle store whether it lives.
    Check,
    /// Count the rows that wait for a store that is not open.
    Count,
    /// Close the sink.
    Close,
    /// Nothing before this time, or before the log grows or the pipeline stops.
    Wait(Option<Instant>),
    /// Nothing any more.
    End,
}

/// How something ended, or what happened beside it.
#[derive(Debug)]
pub(crate) enum Event {
    /// Everything up to this offset may be read.
    Synced(u64),
    /// Deliver the rest until this time, then end.
    Stop(Instant),
    /// The store is here; `read_from` is where the log is read from, which differs for a sink that was never written to.
    Opened { at: SpoolPosition, read_from: SpoolPosition },
    /// The three positions do not fit.
    Mismatch(String),
    /// A call of the sink failed, was given up, or panicked.
    Failed(Error),
    /// The log could not be read, its segment not be noted, or the tables changed under way: begin again with `open`, unless
    /// a person is needed.
    Again(Option<Error>),
    /// What the log held behind `read_to`; `border` when it passed into another segment.
    Built { portion: Portion, border: bool },
    /// Rows and position are durable.
    Committed,
    /// The store has them and will make them durable.
    Accepted,
    /// The store will never take some rows.
    Refused,
    /// No dead letter is left of what is read now.
    Discarded,
    /// The dead letters are durable.
    Buried,
    /// Their file cannot be written, which is nobody's fault but the disk's.
    NotBuried(Error),
    /// Accepted chunks are durable up to here.
    Applied(Option<SpoolPosition>),
    /// The store lives.
    Checked,
    /// So many rows wait, or more.
    Counted(u64),
    /// The sink is closed, and all that it had accepted is durable.
    Closed,
    /// Closing failed: the next start asks what is durable.
    NotClosed,
}

impl Event {
    /// Returns what went wrong, if something did.
    pub(crate) fn error(&self) -> Option<&Error> {
        if let Self::Failed(error) | Self::Again(Some(error)) = self { Some(error) } else { None }
    }
}
