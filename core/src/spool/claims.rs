//! What each sink has passed for sure, and what it has in hand: rows that are read, being written, accepted or in doubt.
//!
//! A segment of which a sink has something in hand is never dropped: nobody could say what became of it. So what a drop
//! writes down for a sink is what that sink does not get, no row more and no row less.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::shared::Shared;

/// The claims of all sinks. Looked at and changed under the lock of the segments, so that none is dropped that somebody is
/// about to read.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Vec<Held>>);

#[derive(Debug)]
struct Held {
    sink: String,
    /// Up to here everything has its fate.
    passed: u64,
    /// The first offset of the newest segment that was read since the store said where it is; 0 for none.
    entered: u64,
}

/// One sink's claim on the spool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Claim {
    shared: Arc<Shared>,
    index: usize,
}

impl Claim {
    pub(super) fn new(shared: Arc<Shared>, sink: &str, passed: u64, entered: u64) -> Self {
        let mut held = shared.claims.held();
        let index = held.iter().position(|held| held.sink == sink).unwrap_or(held.len());
        let new = Held { sink: sink.to_owned(), passed, entered };
        match held.get_mut(index) {
            Some(known) => *known = new,
            None => held.push(new),
        }
        drop(held);
        Self { shared, index }
    }

    /// Everything up to an offset has its fate.
    pub fn passed(&self, upto: u64) {
        self.change(|held| held.passed = upto);
    }

    /// A segment is read from here on.
    pub(super) fn enter(&self, first: u64) {
        self.change(|held| held.entered = held.entered.max(first));
    }

    /// Returns the first offset of the newest segment that was read.
    pub fn entered(&self) -> u64 {
        self.shared.claims.held()[self.index].entered
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.shared.claims.held()[self.index]);
    }
}

impl Claims {
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a sink has something of a segment in hand.
    pub(super) fn hold(&self, first: u64, end: u64) -> bool {
        self.held().iter().any(|held| held.passed < end && first <= held.entered)
    }

    /// Returns the sinks that have not passed an offset, with how far each has got.
    pub(super) fn behind(&self, end: u64) -> Vec<(String, u64)> {
        let held = self.held();
        held.iter().filter(|held| held.passed < end).map(|held| (held.sink.clone(), held.passed)).collect()
    }
}
