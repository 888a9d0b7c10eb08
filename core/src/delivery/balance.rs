//! What became of every offset: each one up to the committed position has exactly one fate.

use tokio::time::Instant;

use crate::spool::SpoolPosition;

/// The fates of a range of offsets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fates {
    /// Rows that the store has: as they are, or what a derived table has made of them; each once, in however many tables.
    pub delivered: u64,
    /// Rows of tables that the sink does not take, or that no `where` lets through.
    pub filtered: u64,
    /// Rows that the store will never take, that cannot be read, or of which a derived table can make nothing: dead letters.
    pub refused: u64,
    /// Offsets of control items.
    pub control: u64,
    /// Offsets that the log does not have: dropped, corrupt, or cut off as a torn tail.
    pub missing: u64,
}

/// The fates of all offsets behind `since`, up to and including `upto`.
///
/// Begins anew where the store went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Where counting began.
    pub since: SpoolPosition,
    /// What is committed.
    pub upto: SpoolPosition,
    /// The fates.
    pub fates: Fates,
}

/// A range of offsets on its way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portion {
    pub(crate) from: SpoolPosition,
    pub(crate) to: SpoolPosition,
    pub(crate) fates: Fates,
    /// About what it takes in the log.
    pub(crate) bytes: u64,
}

/// A range that the store has accepted, and not yet made durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted {
    pub(crate) portion: Portion,
    /// When the oldest of it could be read first.
    pub(crate) since: Option<Instant>,
}

impl Fates {
    /// Returns how many offsets these are.
    pub fn offsets(&self) -> u64 {
        self.delivered + self.filtered + self.refused + self.control + self.missing
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.delivered += more.delivered;
        self.filtered += more.filtered;
        self.refused += more.refused;
        self.control += more.control;
        self.missing += more.missing;
    }
}

impl Balance {
    pub(crate) fn new(since: SpoolPosition) -> Self {
        Self { since, upto: since, fates: Fates::default() }
    }

    /// Returns whether every offset has exactly one fate.
    pub fn is_even(&self) -> bool {
        self.fates.offsets() == self.upto.offset - self.since.offset
    }

    pub(crate) fn commit(&mut self, portion: &Portion) {
        self.upto = portion.to;
        self.fates.add(&portion.fates);
    }
}

impl Portion {
    /// Returns a range that holds nothing yet.
    pub(crate) fn new(from: SpoolPosition) -> Self {
        Self { from, to: from, fates: Fates::default(), bytes: 0 }
    }

    /// Adds the range that follows.
    pub(crate) fn append(&mut self, next: &Self) {
        self.to = next.to;
        self.fates.add(&next.fates);
        self.bytes += next.bytes;
    }
}

impl Accepted {
    /// Adds the range that follows.
    pub(crate) fn append(&mut self, next: &Self) {
        self.portion.append(&next.portion);
        self.since = self.since.or(next.since);
    }
}
