//! The spool as a delivery driver reads it.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    log::{Log, Seen},
    opening::Extent,
};
use crate::{
    Result,
    chunk::RowSource,
    row::{StreamKey, Table},
    spool::{Boot, Cursor, Item, Items, SourceInfo, SpoolPosition, SpoolReader, Standing, Step},
};

/// One sink's view of a spool.
#[derive(Debug)]
pub struct SpoolLog {
    reader: SpoolReader,
    cursor: Cursor,
    /// What is left of an entry at which a reading broke off.
    held: Held,
    origins: Origins,
}

/// Items of an entry that are still to be shown.
#[derive(Debug, Default)]
struct Held {
    boot: Option<Boot>,
    segment: u64,
    first: u64,
    left: u32,
    bytes: Vec<u8>,
}

/// Where the rows of each stream come from, looked up once for each.
#[derive(Debug)]
struct Origins {
    sources: Arc<[SourceInfo]>,
    streams: Vec<Option<Origin>>,
}

#[derive(Debug)]
struct Origin {
    source: Arc<str>,
    venue: Arc<str>,
    key: StreamKey,
    table: Arc<Table>,
}

impl SpoolLog {
    /// Returns a view of a spool, which begins at its oldest entry.
    pub fn new(reader: SpoolReader) -> Self {
        let cursor = reader.cursor(reader.oldest());
        let origins = Origins { sources: cursor.sources().clone(), streams: Vec::new() };
        Self { reader, cursor, held: Held::default(), origins }
    }
}

impl Log for SpoolLog {
    fn extent(&self) -> Extent {
        Extent { first: self.reader.oldest(), last: self.reader.end() }
    }

    fn standing(&self, position: SpoolPosition) -> Standing {
        self.reader.check(position)
    }

    fn seek(&mut self, position: SpoolPosition) -> Result<()> {
        self.held.left = 0;
        self.cursor = self.reader.cursor(position);
        Ok(())
    }

    fn read(&mut self, upto: u64, visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()> {
        let Self { reader, cursor, held, origins } = self;
        if let Some(boot) = held.boot.filter(|_| held.left > 0) {
            let items = Items::resume(held.first, held.left, &held.bytes);
            if let Some((first, left)) = show(items, (boot, held.segment, upto), (reader, origins), visit) {
                let shown = held.bytes.len() - left.bytes.len();
                (held.first, held.left) = (first, left.count);
                held.bytes.drain(..shown);
                return Ok(());
            }
            held.left = 0;
        }
        loop {
            match cursor.next(upto)? {
                None => return Ok(()),
                Some(Step::Missing { last, .. }) => {
                    let position = cursor.position();
                    debug_assert_eq!(position.offset, last);
                    if visit(Seen::Missing { position }).is_break() {
                        // They are missing still when they are looked for again.
                        return Ok(());
                    }
                }
                Some(Step::Entry(entry)) => {
                    let (boot, segment, items) = (entry.boot, entry.segment, entry.items());
                    origins.follow(entry.sources);
                    if let Some((first, left)) = show(items, (boot, segment, upto), (reader, origins), visit) {
                        held.bytes.clear();
                        held.bytes.extend_from_slice(left.bytes);
                        (held.boot, held.segment, held.first, held.left) = (Some(boot), segment, first, left.count);
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// What was not shown of an entry.
struct Left<'a> {
    bytes: &'a [u8],
    count: u32,
}

/// Shows items until there are none, `visit` breaks, or they lie behind what may be seen; returns what is left then.
fn show<'a>(
    mut items: Items<'a>,
    (boot, segment, upto): (Boot, u64, u64),
    (reader, origins): (&SpoolReader, &mut Origins),
    visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Option<(u64, Left<'a>)> {
    loop {
        let (first, bytes) = items.rest();
        let left = Left { bytes, count: items.left() };
        let (offset, item) = items.next()?;
        if offset > upto {
            return Some((first, left));
        }
        let source = match &item {
            Item::Row(row, _) => origins.of(reader, row.head.stream).map(Origin::shown),
            Item::Control(_) => None,
        };
        let position = SpoolPosition { boot, offset };
        if visit(Seen::Item { position, segment, item, source }).is_break() {
            return Some((first, left));
        }
    }
}

impl Origins {
    /// Forgets what belongs to other sources than those of the entry that comes next.
    fn follow(&mut self, sources: &Arc<[SourceInfo]>) {
        if !Arc::ptr_eq(&self.sources, sources) {
            self.sources = sources.clone();
            self.streams.clear();
        }
    }

    fn of(&mut self, reader: &SpoolReader, id: u32) -> Option<&Origin> {
        let at = id as usize;
        if self.streams.len() <= at {
            // Numbers are given one after the other; a larger one was written by a faulty program.
            reader.stream(id)?;
            self.streams.resize_with(at + 1, || None);
        }
        if self.streams[at].is_none() {
            self.streams[at] = Origin::find(reader, &self.sources, id);
        }
        self.streams[at].as_ref()
    }
}

impl Origin {
    fn find(reader: &SpoolReader, sources: &[SourceInfo], id: u32) -> Option<Self> {
        let stream = reader.stream(id)?;
        let source = sources.iter().find(|source| source.name == stream.source)?;
        let table = source.tables.iter().find(|table| table.name == stream.key.table)?;
        let (name, venue) = (source.name.clone(), source.venue.clone());
        Some(Self { source: name, venue, key: stream.key.clone(), table: table.clone() })
    }

    fn shown(&self) -> RowSource<'_> {
        RowSource { source: &self.source, venue: &self.venue, key: &self.key, table: &self.table }
    }
}
