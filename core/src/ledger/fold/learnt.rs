//! What the store learns of a fold.

use super::{super::timeline::State, Drops, Fold, Line, Skip};
#[cfg(test)]
use super::{super::timeline::Timeline, StoredLine};
use crate::row::Timestamp;

impl Fold {
    /// Returns the lines of streams that were given up: they may have come back since, and so are to be written first.
    pub(crate) fn gone_mut(&mut self) -> &mut [Line] {
        &mut self.gone
    }

    /// Returns all other lines.
    pub(crate) fn lines_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        self.lines.values_mut()
    }

    /// Returns all lines, those that were given up first.
    pub(crate) fn all_lines(&self) -> impl Iterator<Item = &Line> {
        self.gone.iter().chain(self.lines.values())
    }

    /// Returns the store's number of a stream.
    pub(crate) fn row_of(&self, stream: u32) -> Option<i64> {
        self.lines.get(&stream).and_then(|line| line.row)
    }

    /// Returns up to when frames of each session came.
    pub(crate) fn heard(&self) -> impl Iterator<Item = (u32, Timestamp)> {
        self.heard.iter().map(|(session, heard)| (*session, *heard))
    }

    /// Returns what was thrown away.
    pub(crate) fn drops(&self) -> &[Drops] {
        &self.drops
    }

    /// Returns what sinks never get.
    pub(crate) fn skips(&self) -> &[Skip] {
        &self.skips
    }

    /// Returns of how many streams something is asked for.
    pub(crate) fn open(&self) -> usize {
        let is_open = |line: &&Line| !line.time.stretches(State::Open).is_empty();
        self.lines.values().filter(is_open).count()
    }

    /// The store has learnt all.
    pub(crate) fn saved(&mut self) {
        self.gone.clear();
        self.drops.clear();
        self.skips.clear();
        for line in self.lines.values_mut() {
            line.time.saved();
            (line.is_news, line.received, line.backfilled) = (false, 0, 0);
        }
    }
}

#[cfg(test)]
impl Fold {
    /// Returns what is known of a stream, none where that is nothing.
    pub(crate) fn marks(&self, stream: u32) -> &[crate::ledger::Mark] {
        self.lines.get(&stream).map_or(&[], |line| line.time.marks())
    }

    /// Returns the lines as a store would give them back.
    pub(crate) fn stored(&self) -> Vec<StoredLine> {
        let stored = |line: &Line| StoredLine {
            row: 1,
            source: line.source.clone(),
            key: line.key.clone(),
            time: Timeline::stored(line.time.marks().to_vec()).expect("it has a mark"),
            heard: line.session.and_then(|session| self.heard.get(&session).copied()),
        };
        self.lines.values().map(stored).collect()
    }
}
