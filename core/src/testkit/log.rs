//! A log in memory, for tests of what stands behind the spool: delivery and sinks.

use std::{
    collections::HashSet,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    Result,
    chunk::{Chunk, ChunkBuilder, Part, Plan, RowSource},
    delivery::{Extent, Log, Seen},
    protocol::Outbox,
    row::{Head, Mark, Origin, Row, StreamKey, Table, Timestamp},
    sink::{Owner, SinkContext},
    spool::{Boot, Cause, Control, Item, RowHead, SourceInfo, SpoolPosition, Standing},
};

/// A log of one source's rows. Clones read the same log, each at its own place.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
    at: u64,
    /// The segment that was read last since the claim.
    entered: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    synced: watch::Sender<SpoolPosition>,
}

#[derive(Debug)]
struct State {
    source: SourceInfo,
    outbox: Outbox,
    streams: Vec<StreamKey>,
    items: Vec<Entry>,
    boot: Boot,
    segment: u64,
    last: u64,
    /// Everything up to this offset was truncated.
    forgotten: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    position: SpoolPosition,
    segment: u64,
    item: Kept,
}

#[derive(Debug, Clone)]
enum Kept {
    Row(RowHead, Vec<u8>),
    Control(Control),
}

impl Kept {
    /// Returns the row, also one that is sent to one sink again.
    fn row(&self) -> Option<&RowHead> {
        match self {
            Self::Row(head, _) | Self::Control(Control::Redrive { head, .. }) => Some(head),
            Self::Control(_) => None,
        }
    }
}

impl MemoryLog {
    /// Returns an empty log of a source that is called like its venue.
    pub fn new(venue: &str, tables: Vec<Table>) -> Self {
        let source = SourceInfo {
            name: venue.into(),
            venue: venue.into(),
            tables: tables.iter().cloned().map(Arc::new).collect(),
        };
        let outbox = Outbox::new(tables);
        let (boot, items, streams) = (Boot(1), Vec::new(), Vec::new());
        let state = State { source, outbox, streams, items, boot, segment: 1, last: 0, forgotten: 0 };
        let (synced, _) = watch::channel(SpoolPosition::START);
        Self { shared: Arc::new(Shared { state: Mutex::new(state), synced }), at: 0, entered: 0 }
    }

    /// Returns what the source declares.
    pub fn source(&self) -> SourceInfo {
        self.state().source.clone()
    }

    /// Returns how far readers may go.
    pub fn synced(&self) -> watch::Receiver<SpoolPosition> {
        self.shared.synced.subscribe()
    }

    /// Appends a row, received at once, and returns its offset.
    pub fn emit<R: Row>(&self, mark: Mark<'_>, row: &R) -> u64 {
        let mut state = self.state();
        state.outbox.begin(mark.ts_event, Origin::Live);
        state.outbox.emit(mark, row);
        let records = state.outbox.records();
        let (head, bytes) =
            records.from(records.len() - 1).last().map(|(head, row)| (head, row.to_vec())).expect("emitted");
        let new: Vec<StreamKey> = state.outbox.records().new_streams()[state.streams.len()..].to_vec();
        state.streams.extend(new);
        self.push(&mut state, Kept::Row(row_head(head), bytes))
    }

    /// Appends a row of an existing stream whose bytes may be anything.
    pub fn emit_raw(&self, stream: u32, bytes: &[u8]) -> u64 {
        let head = Head {
            stream,
            position: crate::row::Position::Unnumbered,
            ts_event: Timestamp(0),
            ts_recv: Timestamp(0),
            origin: Origin::Live,
        };
        self.push(&mut self.state(), Kept::Row(row_head(head), bytes.to_vec()))
    }

    /// Appends a control item.
    pub fn control(&self) -> u64 {
        self.push(&mut self.state(), Kept::Control(Control::Alive { session: 1, at: Timestamp(0) }))
    }

    /// Sends the row that a dead letter's key names to a sink again.
    ///
    /// # Panics
    ///
    /// If the log has no such row.
    pub fn redrive(&self, sink: &str, cause: Cause) -> u64 {
        let mut state = self.state();
        let made = state.items.iter().find(|entry| entry.position.offset == cause.offset).map(|entry| &entry.item);
        let (head, row) = match made {
            Some(Kept::Row(head, row) | Kept::Control(Control::Redrive { head, row, .. })) => (*head, row.clone()),
            _ => panic!("no row has made {cause}"),
        };
        let head = RowHead { head: Head { origin: Origin::Redrive, ..head.head }, ..head };
        self.push(&mut state, Kept::Control(Control::Redrive { sink: sink.to_owned(), cause, head, row }))
    }

    /// Leaves out so many offsets, as a torn tail does.
    pub fn skip(&self, offsets: u64) {
        self.state().last += offsets;
    }

    /// Begins a segment.
    pub fn roll(&self) {
        self.state().segment += 1;
    }

    /// Opens the log anew.
    pub fn reboot(&self) {
        let mut state = self.state();
        state.boot.0 += 1;
        state.segment += 1;
    }

    /// Opens the log anew under a boot of the test's choice. A real one is any number but 0.
    pub fn reboot_as(&self, boot: Boot) {
        let mut state = self.state();
        state.boot = boot;
        state.segment += 1;
    }

    /// Gives the log another history from here on back: every offset gets another boot.
    pub fn forge(&self) {
        let mut state = self.state();
        for entry in &mut state.items {
            entry.position.boot.0 += 1_000_000;
        }
        state.boot.0 += 1_000_000;
    }

    /// Takes back everything behind `offset`, as restoring an older copy does.
    pub fn restore(&self, offset: u64) {
        let mut state = self.state();
        state.items.retain(|entry| entry.position.offset <= offset);
        state.last = offset;
        let position = state.position(offset);
        self.shared.synced.send_replace(position);
    }

    /// Truncates everything up to `offset`.
    pub fn forget(&self, offset: u64) {
        let mut state = self.state();
        state.items.retain(|entry| entry.position.offset > offset);
        state.forgotten = offset;
    }

    /// Returns the offsets of the rows of a table that are retained.
    pub fn rows(&self, table: &str) -> Vec<u64> {
        let state = self.state();
        let of_table = state.items.iter().filter(|entry| {
            let Kept::Row(head, _) = &entry.item else { return false };
            let stream = Some(head.head.stream as usize);
            stream.and_then(|stream| state.streams.get(stream)).is_some_and(|key| *key.table == *table)
        });
        of_table.map(|entry| entry.position.offset).collect()
    }

    /// Returns the rows behind the offset `from`, up to `to`, as the chunk of a sink that takes all tables.
    ///
    /// # Panics
    ///
    /// If a row is none of the log's tables.
    pub fn chunk(&self, from: u64, to: u64) -> Chunk {
        self.chunk_without(from, to, &HashSet::new())
    }

    /// Returns the same chunk without some of its rows, as the driver does with those that were refused.
    ///
    /// # Panics
    ///
    /// If a row is none of the log's tables.
    pub fn chunk_without(&self, from: u64, to: u64, refused: &HashSet<Cause>) -> Chunk {
        let plan = Plan::new("test", vec![self.source()], crate::config::TableChoice::All).expect("one source fits");
        let mut builder = ChunkBuilder::new(Arc::new(plan));
        let position = |offset| self.state().position(offset);
        let (from, to) = (position(from), position(to));
        let mut log = self.clone();
        log.at = from.offset;
        let mut taken = 0;
        let read = log.read(to.offset, &mut |seen| {
            taken += seen.bytes();
            if let Seen::Item { position, item: Item::Row(head, bytes), source: Some(source), .. } = seen {
                let cause = Cause { boot: position.boot, offset: position.offset, sub: 0 };
                builder.push(cause, &head, bytes, source, refused);
            }
            ControlFlow::Continue(())
        });
        read.expect("memory can be read");
        Chunk { part: Part::spool(), from, to, bytes: taken, tables: builder.finish() }
    }

    /// Returns what a sink of all tables is opened with.
    ///
    /// # Panics
    ///
    /// If the log's tables do not fit under their names.
    pub fn context(&self, directory: &Path) -> SinkContext {
        let plan = Plan::new("test", vec![self.source()], crate::config::TableChoice::All).expect("one source fits");
        let (pipeline, sink, host) = ("test".to_owned(), "sink".to_owned(), "here".to_owned());
        let owner = Owner { pipeline, sink, part: Part::spool(), spool: 1, host, chain: plan.chain() };
        SinkContext { owner, tables: plan.tables().to_vec(), directory: directory.to_owned(), known: None }
    }

    fn push(&self, state: &mut State, item: Kept) -> u64 {
        state.last += 1;
        let position = SpoolPosition { boot: state.boot, offset: state.last };
        let segment = state.segment;
        state.items.push(Entry { position, segment, item });
        self.shared.synced.send_replace(position);
        position.offset
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn position(&self, offset: u64) -> SpoolPosition {
        let before = self.items.partition_point(|entry| entry.position.offset <= offset);
        match before.checked_sub(1).and_then(|index| self.items.get(index)) {
            Some(entry) => SpoolPosition { boot: entry.position.boot, offset },
            None if offset == 0 => SpoolPosition::START,
            None => SpoolPosition { boot: self.boot, offset },
        }
    }
}

impl Log for MemoryLog {
    fn extent(&self) -> Extent {
        let state = self.state();
        Extent { first: state.position(state.forgotten), last: *self.shared.synced.borrow() }
    }

    fn standing(&self, position: SpoolPosition) -> Standing {
        let state = self.state();
        if position.offset > state.last {
            Standing::Ahead
        } else if position.offset < state.forgotten {
            Standing::Gone
        } else if position == SpoolPosition::START || state.position(position.offset) == position {
            Standing::Retained
        } else {
            Standing::OtherBoot
        }
    }

    fn seek(&mut self, position: SpoolPosition) -> Result<()> {
        self.at = position.offset;
        Ok(())
    }

    fn read(&mut self, upto: u64, visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()> {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.items.partition_point(|entry| entry.position.offset <= self.at);
        for entry in state.items[first..].iter().take_while(|entry| entry.position.offset <= upto) {
            let key = entry.item.row().and_then(|head| state.streams.get(head.head.stream as usize));
            let table = key.and_then(|key| state.source.tables.iter().find(|table| table.name == key.table));
            let source = key.zip(table).map(|(key, table)| RowSource {
                source: &state.source.name,
                venue: &state.source.venue,
                key,
                table,
            });
            let item = match &entry.item {
                Kept::Row(head, bytes) => Item::Row(*head, bytes),
                Kept::Control(control) => Item::Control(control.clone()),
            };
            self.entered = entry.segment;
            if visit(Seen::Item { position: entry.position, segment: entry.segment, item, source }).is_break() {
                return Ok(());
            }
            self.at = entry.position.offset;
        }
        Ok(())
    }

    fn claim(&mut self, _: &str, _: u64, entered: u64) {
        self.entered = entered;
    }

    /// It drops nothing.
    fn passed(&mut self, _: u64) {}

    fn entered(&self) -> u64 {
        self.entered
    }
}

fn row_head(head: Head) -> RowHead {
    RowHead { head, session: 1, line: 0, epoch: 0 }
}
