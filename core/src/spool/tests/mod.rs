//! Tests of the spool as a whole, on a disk that fails on demand.

mod basics;
mod damage;
mod faults;
mod formats;
mod history;
mod looking;
mod retention;

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    Result,
    row::{Head, Origin, Position, StreamKey, Timestamp},
    testkit::SimDisk,
};

/// Small segments, so that every test rolls.
const LIMITS: SpoolLimits = SpoolLimits { segment_bytes: 8 << 10, max_bytes: 1 << 30, keep: Duration::ZERO };

fn options() -> SpoolOptions {
    let source = SourceInfo { name: "deribit".into(), venue: "deribit".into(), tables: Vec::new() };
    SpoolOptions { pipeline: "eth".into(), sources: vec![source], limits: LIMITS }
}

fn recover(disk: &SimDisk) -> Result<Recovery> {
    Recovery::open(Arc::new(disk.clone()), options())
}

/// Opens a spool whose snapshots are the last offset before them.
fn open(disk: &SimDisk) -> SpoolWriter {
    let recovery = recover(disk).unwrap();
    let end = recovery.report().end;
    recovery.begin(snapshot(end), Timestamp(0), "0.0.0").unwrap().writer
}

fn snapshot(end: u64) -> Vec<u8> {
    end.to_le_bytes().to_vec()
}

/// Returns an entry of so many rows, each of `bytes`.
fn rows(count: u32, bytes: &[u8]) -> ItemBuffer {
    let mut items = ItemBuffer::default();
    for n in 0..count {
        items.push_row(&row(1, u64::from(n)), bytes);
    }
    items
}

fn row(stream: u32, n: u64) -> RowHead {
    let position = Position::Sequence(n);
    let head = Head { stream, position, ts_event: Timestamp(1), ts_recv: Timestamp(2), origin: Origin::Live };
    RowHead { head, session: 1, line: 0, epoch: 0 }
}

fn stream(id: u32, symbol: &str) -> Control {
    Control::Stream { id, source: "deribit".to_owned(), key: StreamKey::new("trades", symbol) }
}

/// Appends, and returns the first and last offset.
fn append(writer: &mut SpoolWriter, items: &ItemBuffer) -> (u64, u64) {
    match writer.append(items, Duration::ZERO).unwrap() {
        Append::Written { first, last } => (first, last),
        refused @ (Append::Full | Append::Behind) => panic!("an append was refused: {refused:?}"),
    }
}

/// Fsyncs all that waits, and mends what has to be mended.
fn sync(writer: &mut SpoolWriter) -> Result<()> {
    while let Some(job) = writer.sync_job() {
        writer.synced(job.run())?;
    }
    Ok(())
}

/// An entry as a reader saw it: boot, first offset, and the rows' bytes.
type Seen = (Boot, u64, Vec<Vec<u8>>);

/// Reads everything behind `from`; missing ranges are returned beside.
fn read(reader: &SpoolReader, from: SpoolPosition) -> (Vec<Seen>, Vec<(u64, u64)>) {
    let (mut seen, mut missing) = (Vec::new(), Vec::new());
    let mut cursor = reader.cursor(from);
    while let Some(step) = cursor.next(u64::MAX).unwrap() {
        match step {
            Step::Entry(entry) => seen.push(see(&entry)),
            Step::Missing { first, last } => missing.push((first, last)),
        }
    }
    (seen, missing)
}

fn see(entry: &EntryView<'_>) -> Seen {
    let mut items = entry.items();
    let bytes = items.by_ref().map(|(_, item)| match item {
        Item::Row(_, bytes) => bytes.to_vec(),
        Item::Control(control) => format!("{control:?}").into_bytes(),
    });
    let bytes = bytes.collect();
    assert_eq!(items.left(), 0, "every item can be read");
    (entry.boot, entry.first, bytes)
}
