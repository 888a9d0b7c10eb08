//! The ledger's file as the bench of histories has it: in memory, and written after each look at the log.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use foldhash::fast::FixedState;

use super::{
    Mark,
    fold::{Fold, Line, StoredLine},
    timeline::Timeline,
};
use crate::row::{StreamKey, Timestamp};

/// What would be in the file, of one source.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    streams: HashMap<StreamKey, Stored, FixedState>,
    heard: BTreeMap<u32, Timestamp>,
}

#[derive(Debug)]
struct Stored {
    source: Arc<str>,
    marks: Vec<Mark>,
    session: Option<u32>,
    is_gone: bool,
}

impl Shelf {
    /// Learns what is new, as `Store::save` does.
    pub(crate) fn save(&mut self, fold: &mut Fold) {
        self.heard = fold.heard().collect();
        for line in fold.gone_mut() {
            self.write(line, None).is_gone = true;
        }
        for line in fold.lines_mut() {
            self.write(line, line.session).is_gone = false;
        }
        fold.saved();
    }

    fn write(&mut self, line: &Line, session: Option<u32>) -> &mut Stored {
        let Line { source, key, time, .. } = line;
        let new = || Stored { source: source.clone(), marks: Vec::new(), session: None, is_gone: false };
        let stored = self.streams.entry(key.clone()).or_insert_with(new);
        stored.session = session;
        if let Some((from, marks)) = time.changes() {
            stored.marks.retain(|mark| mark.from < from);
            stored.marks.extend_from_slice(marks);
        }
        stored
    }

    /// Returns what `Store::lines` would.
    pub(crate) fn lines(&self) -> Vec<StoredLine> {
        let line = |(key, Stored { source, marks, session, .. }): (&StreamKey, &Stored)| {
            let heard = session.and_then(|session| self.heard.get(&session).copied());
            let time = Timeline::stored(marks.clone())?;
            Some(StoredLine { row: 1, source: source.clone(), key: key.clone(), time, heard })
        };
        self.streams.iter().filter(|(_, stored)| !stored.is_gone).filter_map(line).collect()
    }

    /// Returns what is known of a stream, none where that is nothing.
    pub(crate) fn marks(&self, key: &StreamKey) -> &[Mark] {
        self.streams.get(key).map_or(&[], |stored| &stored.marks)
    }
}
