//! Where a fold begins: at a place in the log, with what the store has by then.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::timeline::{Known, State, Timeline},
    Fold, Line, StoredLine, UNREADABLE,
    spans::{EVER, lies_in, pieces, union},
};
use crate::{intake::Continuity, row::Timestamp};

impl Fold {
    /// Returns a fold that goes on where the store is, once [`control`](Self::control) and [`row`](Self::row) were shown
    /// all between `continuity` and there, and [`resume`](Self::resume) was called.
    pub(crate) fn restoring(continuity: Continuity) -> Self {
        Self { continuity, is_quiet: true, ..Self::default() }
    }

    /// Ends, and leaves continuity as it is.
    pub(crate) fn into_continuity(self) -> Continuity {
        self.continuity
    }

    /// Goes on with what the store has.
    pub(crate) fn resume(&mut self, stored: Vec<StoredLine>) {
        self.is_quiet = false;
        let mut stored: HashMap<_, _> =
            stored.into_iter().map(|line| ((line.source.clone(), line.key.clone()), line)).collect();
        for id in self.continuity.stream_ids().collect::<Vec<_>>() {
            let Some((source, key)) = self.continuity.name(id) else { continue };
            let Some(line) = stored.remove(&(source.into(), key.clone())) else { continue };
            let StoredLine { row, source, key, time, heard } = line;
            self.add(id, Line::new(Some(row), source, key, time));
            let covering = self.continuity.standing(id).and_then(|standing| standing.covered_by.first());
            if let (Some(session), Some(heard)) = (covering, heard) {
                // The last sign of life may stand before the head.
                self.heard.entry(*session).and_modify(|known| *known = heard.max(*known)).or_insert(heard);
            }
        }
        self.gone.extend(stored.into_values().filter_map(forgotten));
    }

    /// A part of the log cannot be read any more, which may have been read when this was stored: what the store has is held
    /// against what the log says now.
    pub(crate) fn doubt(&mut self) {
        for id in self.continuity.stream_ids().collect::<Vec<_>>() {
            self.compare(id);
        }
    }

    /// What no gap asks for any more is lost, and what is not vouched for any more is not claimed.
    fn compare(&mut self, id: u32) {
        let Some(standing) = self.continuity.standing(id) else { return };
        let asked = self.continuity.gaps_of(id).filter_map(|gap| self.continuity.asked_in(id, gap));
        let asked = union(&asked.collect::<Vec<_>>());
        let Some(line) = self.lines.get_mut(&id) else { return };
        for stretch in line.time.stretches(State::Open) {
            for piece in pieces(stretch, asked.iter()).into_iter().filter(|piece| !lies_in(*piece, &asked)) {
                line.time.paint(piece, |_| Some(Known::because(State::Lost, UNREADABLE)));
            }
        }
        let is_received = line.time.last().known.state == State::Received;
        match standing.covered_by {
            [] if is_received => self.look(id, standing.owed_since),
            [] => {}
            covered_by if !is_received => self.unheard.extend(covered_by),
            _ => {}
        }
    }

    /// Begins with a place in the log before which nothing can be read, `why`. What the store has is kept; of the time
    /// between nothing is known.
    pub(crate) fn begin(continuity: Continuity, stored: Vec<StoredLine>, why: &str) -> Self {
        let mut fold = Self { continuity, ..Self::default() };
        let unknown = Known::because(State::Unknown, why);
        let mut kept = HashMap::new();
        for StoredLine { row, source, key, mut time, heard } in stored {
            time.paint(EVER, |known| (known.state == State::Open).then(|| unknown.clone()));
            if time.last().known.state == State::Received {
                time.turn(heard.unwrap_or_else(|| time.last().from), unknown.clone());
            }
            kept.insert((source.clone(), key.clone()), Line::new(Some(row), source, key, time));
        }
        for id in fold.continuity.stream_ids().collect::<Vec<_>>() {
            let (Some((source, key)), Some(standing)) = (fold.continuity.name(id), fold.continuity.standing(id)) else {
                continue;
            };
            let (source, key): (Arc<str>, _) = (source.into(), key.clone());
            let began = standing.numbering.is_some() && standing.since > Timestamp::default();
            let line = match kept.remove(&(source.clone(), key.clone())) {
                // Whatever session the store has is over.
                Some(line) => Line { is_news: true, ..line },
                None if began => Line::new(None, source, key, Timeline::new(standing.since, unknown.clone())),
                None => continue,
            };
            fold.unheard.extend(standing.covered_by);
            let owed_since = standing.owed_since;
            let is_covered = !standing.covered_by.is_empty();
            fold.add(id, line);
            if !is_covered {
                fold.look(id, owed_since);
            }
            for gap in fold.continuity.gaps_of(id).collect::<Vec<_>>() {
                fold.ask(id, &fold.continuity.missing_in(id, gap));
            }
        }
        fold.gone.extend(kept.into_values());
        fold
    }

    pub(super) fn add(&mut self, id: u32, mut line: Line) {
        let standing = self.continuity.standing(id);
        line.numbering = standing.and_then(|standing| standing.numbering);
        line.session = standing.and_then(|standing| standing.covered_by.first().copied());
        self.lines.insert(id, line);
    }
}

/// Returns a stream that the store has and the log does not know, if that is news: the entry that named it cannot be read any
/// more.
fn forgotten(stored: StoredLine) -> Option<Line> {
    let StoredLine { row, source, key, mut time, heard: _ } = stored;
    let lost = Known::because(State::Lost, UNREADABLE);
    time.paint(EVER, |known| (known.state == State::Open).then(|| lost.clone()));
    if time.last().known.state == State::Received {
        // How far its records came before the last sign of life nobody can tell.
        time.turn(time.last().from, lost);
    }
    time.changes().is_some().then(|| Line::new(Some(row), source, key, time))
}
