//! The spool as a [`Log`].

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use super::{
    log::{Log, Seen},
    opening::Extent,
};
use crate::{
    Result,
    chunk::RowSource,
    row::{StreamKey, Table},
    spool::{
        Claim, Control, Cursor, EntryView, Item, SourceInfo, SpoolPosition, SpoolReader, Standing, Step, StreamInfo,
    },
};

/// Reads a spool for one sink.
#[derive(Debug)]
pub struct SpoolLog {
    reader: SpoolReader,
    cursor: Cursor,
    /// Of the sink that it reads for; the ledger has none.
    claim: Option<Claim>,
    /// The segment that is being read, and the sources as it knows them.
    segment: Option<u64>,
    sources: Arc<[SourceInfo]>,
    /// By number, as far as they were met with these sources.
    streams: Vec<Option<Stream>>,
    /// Names that the reader does not have: beside the process that writes, it knows what the heads say.
    named: HashMap<u32, Arc<StreamInfo>>,
}

/// What is known of a stream.
#[derive(Debug)]
struct Stream {
    info: Arc<StreamInfo>,
    venue: Arc<str>,
    table: Arc<Table>,
}

/// Why an entry was not read to its end.
enum Cut {
    /// The visitor broke behind this place.
    At(SpoolPosition),
    /// The entry is the first one of another segment, whose sources have to be looked at first.
    Border(u64),
}

impl SpoolLog {
    /// Returns a log that begins at the oldest row.
    pub fn new(reader: SpoolReader) -> Self {
        let cursor = reader.cursor(reader.oldest());
        let sources = cursor.sources().clone();
        Self { reader, cursor, claim: None, segment: None, sources, streams: Vec::new(), named: HashMap::new() }
    }

    /// Begins anew behind a place.
    fn place(&mut self, position: SpoolPosition) {
        self.cursor = match &self.claim {
            Some(claim) => self.reader.claiming_cursor(position, claim),
            None => self.reader.cursor(position),
        };
        self.segment = None;
    }

    fn border(&mut self, segment: u64) {
        self.segment = Some(segment);
        if !Arc::ptr_eq(&self.sources, self.cursor.sources()) {
            self.sources = self.cursor.sources().clone();
            self.streams.clear();
        }
    }
}

impl Log for SpoolLog {
    fn extent(&self) -> Extent {
        Extent { first: self.reader.oldest(), last: self.reader.end() }
    }

    fn standing(&self, position: SpoolPosition) -> Standing {
        self.reader.check(position)
    }

    fn has_dropped(&self, behind: u64, upto: u64) -> bool {
        self.reader.has_dropped(behind, upto)
    }

    fn seek(&mut self, position: SpoolPosition) -> Result<()> {
        if self.cursor.position() != position {
            self.place(position);
        }
        Ok(())
    }

    fn read(&mut self, upto: u64, visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()> {
        loop {
            let before = self.cursor.position();
            let Self { reader, cursor, segment, sources, streams, named, .. } = self;
            let cut = match cursor.next(upto)? {
                None => return Ok(()),
                Some(Step::Missing { .. }) => {
                    let position = cursor.position();
                    if visit(Seen::Missing { position }).is_break() {
                        self.place(before);
                        return Ok(());
                    }
                    continue;
                }
                Some(Step::Entry(entry)) if *segment != Some(entry.segment) => Some(Cut::Border(entry.segment)),
                Some(Step::Entry(entry)) => {
                    let mut directory = Directory { reader, sources, streams, named };
                    show(&entry, before, &mut directory, visit).map(Cut::At)
                }
            };
            match cut {
                None => {}
                Some(Cut::At(position)) => {
                    self.cursor.step_back(position);
                    return Ok(());
                }
                Some(Cut::Border(segment)) => {
                    self.border(segment);
                    self.cursor.step_back(before);
                }
            }
        }
    }

    fn claim(&mut self, sink: &str, passed: u64, entered: u64) {
        self.claim = Some(self.reader.claim(sink, passed, entered));
        // What it has entered so far is not in hand any more.
        self.place(self.cursor.position());
    }

    fn passed(&mut self, upto: u64) {
        self.claim.iter().for_each(|claim| claim.passed(upto));
    }

    fn entered(&self) -> u64 {
        self.claim.as_ref().map_or(0, Claim::entered)
    }
}

/// Shows the items of an entry; returns the place at which the visitor broke.
fn show(
    entry: &EntryView<'_>,
    before: SpoolPosition,
    directory: &mut Directory<'_>,
    visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Option<SpoolPosition> {
    let mut behind = before;
    let mut items = entry.items();
    for (offset, item) in items.by_ref() {
        let position = SpoolPosition { boot: entry.boot, offset };
        let stream = match &item {
            Item::Row(head, _) | Item::Control(Control::Redrive { head, .. }) => directory.find(head.head.stream),
            Item::Control(Control::Stream { id, source, key }) => {
                directory.learn(*id, source, key);
                None
            }
            Item::Control(_) => None,
        };
        let source = stream.map(|Stream { info, venue, table }| RowSource {
            source: &info.source,
            venue,
            key: &info.key,
            table,
        });
        if visit(Seen::Item { position, segment: entry.segment, item, source }).is_break() {
            return Some(behind);
        }
        behind = position;
    }
    if items.left() > 0 {
        // A faulty program wrote an entry that is whole and cannot be taken apart.
        let position = SpoolPosition { boot: entry.boot, offset: entry.last };
        if visit(Seen::Missing { position }).is_break() {
            return Some(behind);
        }
    }
    None
}

/// What stream numbers stand for.
struct Directory<'a> {
    reader: &'a SpoolReader,
    sources: &'a [SourceInfo],
    streams: &'a mut Vec<Option<Stream>>,
    named: &'a mut HashMap<u32, Arc<StreamInfo>>,
}

impl Directory<'_> {
    fn learn(&mut self, number: u32, source: &str, key: &StreamKey) {
        if self.reader.stream(number).is_none() {
            self.named.insert(number, Arc::new(StreamInfo { source: source.into(), key: key.clone() }));
        }
    }

    fn find(&mut self, number: u32) -> Option<&Stream> {
        let index = number as usize;
        if !matches!(self.streams.get(index), Some(Some(_))) {
            let info = self.reader.stream(number).or_else(|| self.named.get(&number).cloned())?;
            let source = self.sources.iter().find(|source| source.name == info.source)?;
            let table = source.tables.iter().find(|table| table.name == info.key.table)?.clone();
            if self.streams.len() <= index {
                self.streams.resize_with(index + 1, || None);
            }
            self.streams[index] = Some(Stream { info, venue: source.venue.clone(), table });
        }
        self.streams[index].as_ref()
    }
}
