//! The feeder over a real spool: entries that do not fit a chunk, segments, boots, tables that change.

use std::{sync::Arc, time::Duration};

use super::super::{
    Balance, SpoolLog,
    feeder::{Bounds, Feeder, Read},
    log::Log,
};
use crate::{
    chunk::{ColumnView, TableRows},
    config::TableChoice,
    protocol::Outbox,
    row::{
        Head, Origin, Position, StreamKey, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    spool::{
        Append, Control, ItemBuffer, Recovery, RowHead, SourceInfo, SpoolLimits, SpoolOptions, SpoolPosition,
        SpoolWriter, Standing,
    },
    testkit::SimDisk,
};

#[test]
fn rows_come_in_order_whatever_the_bounds_of_a_chunk() {
    let disk = SimDisk::default();
    let mut offsets = Vec::new();
    for boot in 0..3 {
        let mut writer = open(&disk, vec![source("deribit", Table::of::<Trade<'_>>())]);
        writer.append(&streams(), Duration::ZERO).unwrap();
        for entry in 0..30 {
            if writer.wants_roll() {
                writer.roll(Vec::new()).unwrap();
            }
            offsets.extend(append(&mut writer, &trades(entry * 7 % 11 + 1, boot)));
        }
        sync(&mut writer);
        assert!(writer.segments() > 1, "the entries fill more than a segment");
    }
    let writer = open(&disk, vec![source("deribit", Table::of::<Trade<'_>>())]);
    for bound in [1, 2, 7, 50, 10_000] {
        let mut feeder = feeder(&writer, bound);
        let extent = feeder.log().extent();
        let (mut at, mut seen, mut balance) = (extent.first, Vec::new(), Balance::new(extent.first));
        while at.offset < extent.last.offset {
            let Read::Range { portion, rows, .. } = feeder.read(at, extent.last.offset).unwrap() else {
                panic!("everything can be read")
            };
            assert_eq!(feeder.log().standing(portion.to), Standing::Retained, "a store may stand at {}", portion.to);
            assert!(rows.iter().map(|part| part.causes.len()).sum::<usize>() <= bound);
            seen.extend(rows.iter().flat_map(|part| part.causes.iter().map(|cause| cause.offset)));
            balance.commit(&portion);
            at = portion.to;
        }
        assert_eq!(seen, offsets, "in chunks of {bound}");
        assert!(balance.is_even(), "{balance:?}");
    }
}

#[test]
fn rows_of_an_older_table_and_of_a_source_that_is_gone_are_delivered_all_the_same() {
    let disk = SimDisk::default();
    let mut older = Table::of::<Trade<'_>>();
    older.columns.truncate(2);
    let mut writer = open(&disk, vec![source("deribit", older), source("gone", Table::of::<Quote>())]);
    writer.append(&streams(), Duration::ZERO).unwrap();
    let mut items = ItemBuffer::default();
    items.push_row(&head(1), &short_trade());
    items.push_row(&head(2), &quote());
    append(&mut writer, &items);
    sync(&mut writer);
    drop(writer);

    let mut writer = open(&disk, vec![source("deribit", Table::of::<Trade<'_>>())]);
    append(&mut writer, &trades(1, 0));
    sync(&mut writer);
    let mut feeder = feeder(&writer, 100);
    let extent = feeder.log().extent();
    let mut replanned = 0;
    let rows = loop {
        match feeder.read(extent.first, extent.last.offset).unwrap() {
            Read::Range { rows, .. } => break rows,
            Read::Replanned => replanned += 1,
            Read::Redrives(rows) => panic!("{rows:?}"),
            Read::Unreadable(letters) | Read::Unfit(letters) => panic!("{letters:?}"),
        }
    };
    assert!(replanned > 0, "a table that nobody declares any more has to be planned for");
    let count = |table: usize| rows.iter().find(|part| part.table == table).map_or(0, |part| part.causes.len());
    assert_eq!((count(0), count(1)), (2, 1), "both trades, and the quote of the source that is gone");
    assert_eq!(venue(&rows[1]), "gone");
}

#[test]
fn old_rows_whose_column_has_another_type_today_need_a_person_and_are_not_tried_for_ever() {
    let disk = SimDisk::default();
    let mut older = Table::of::<Trade<'_>>();
    older.columns[1].column_type = crate::row::ColumnType::U64;
    let mut writer = open(&disk, vec![source("deribit", older)]);
    writer.append(&streams(), Duration::ZERO).unwrap();
    let mut items = ItemBuffer::default();
    items.push_row(&head(1), &short_trade());
    append(&mut writer, &items);
    sync(&mut writer);
    let mut feeder = feeder(&writer, 100);
    let extent = feeder.log().extent();
    let Err(error) = feeder.read(extent.first, extent.last.offset) else { panic!("a number is no count") };
    assert_eq!(error.kind(), crate::Kind::Permanent);
    assert!(error.chain().contains("does not fit the one of today"), "{}", error.chain());
    let mut machine = super::super::machine::Machine::new(super::super::setup::settings(&Default::default(), "p", "s"));
    machine.on(tokio::time::Instant::now(), super::super::event::Event::Again(Some(error)));
    assert!(machine.failure().is_some_and(|why| why.contains("does not fit")), "said, and not tried again");
}

#[test]
fn the_middle_of_an_entry_is_a_place_to_go_on_from() {
    let disk = SimDisk::default();
    let mut writer = open(&disk, vec![source("deribit", Table::of::<Trade<'_>>())]);
    writer.append(&streams(), Duration::ZERO).unwrap();
    let offsets = append(&mut writer, &trades(10, 0));
    sync(&mut writer);
    let middle = SpoolPosition { boot: writer.boot(), offset: offsets[4] };
    let mut feeder = feeder(&writer, 100);
    let Read::Range { rows, portion, .. } = feeder.read(middle, writer.synced_position().offset).unwrap() else {
        panic!("everything can be read")
    };
    assert_eq!(rows[0].causes.iter().map(|cause| cause.offset).collect::<Vec<_>>(), offsets[5..]);
    assert_eq!(portion.fates.delivered, 5);
}

pub(super) fn open(disk: &SimDisk, sources: Vec<SourceInfo>) -> SpoolWriter {
    let limits = SpoolLimits { segment_bytes: 8 << 10, max_bytes: 1 << 30, keep: Duration::ZERO };
    let options = SpoolOptions { pipeline: "test".into(), sources, limits };
    let recovery = Recovery::open(Arc::new(disk.clone()), options).unwrap();
    let mut writer = recovery.begin(Vec::new(), Timestamp(0), "0").unwrap().writer;
    sync(&mut writer);
    writer
}

fn feeder(writer: &SpoolWriter, rows: usize) -> Feeder<SpoolLog> {
    let sources = vec![source("deribit", Table::of::<Trade<'_>>())];
    let bounds = Bounds { rows, bytes: usize::MAX };
    Feeder::new(SpoolLog::new(writer.reader()), "sink", "test", sources, TableChoice::All, bounds).unwrap()
}

pub(super) fn source(name: &str, table: Table) -> SourceInfo {
    SourceInfo { name: name.into(), venue: name.into(), tables: vec![Arc::new(table)] }
}

pub(super) fn streams() -> ItemBuffer {
    let mut items = ItemBuffer::default();
    let stream =
        |id, source: &str, table| Control::Stream { id, source: source.to_owned(), key: StreamKey::new(table, "X") };
    items.push_control(&stream(1, "deribit", "trades"));
    items.push_control(&stream(2, "gone", "quotes"));
    items
}

pub(super) fn trades(count: u64, n: u64) -> ItemBuffer {
    let mut outbox = Outbox::new(vec![Table::of::<Trade<'_>>()]);
    let mark = crate::row::Mark { symbol: "X", position: Position::Unnumbered, ts_event: Timestamp(0) };
    outbox.emit(mark, &Trade { price: n as f64, id: Some("an id that fills the segments"), ..Trade::default() });
    let mut items = ItemBuffer::default();
    for _ in 0..count {
        let (_, row) = outbox.records().iter().next().unwrap();
        items.push_row(&head(1), row);
    }
    items
}

/// A trade with its first two columns only.
fn short_trade() -> Vec<u8> {
    let mut row = 0b11_u64.to_le_bytes().to_vec();
    row.extend_from_slice(&1.0_f64.to_le_bytes());
    row.extend_from_slice(&2.0_f64.to_le_bytes());
    row
}

/// A quote with nothing in it.
fn quote() -> Vec<u8> {
    0_u64.to_le_bytes().to_vec()
}

fn head(stream: u32) -> RowHead {
    let (ts_event, ts_recv) = (Timestamp(0), Timestamp(0));
    let head = Head { stream, position: Position::Unnumbered, ts_event, ts_recv, origin: Origin::Live };
    RowHead { head, session: 1, line: 0, epoch: 0 }
}

pub(super) fn append(writer: &mut SpoolWriter, items: &ItemBuffer) -> Vec<u64> {
    match writer.append(items, Duration::ZERO).unwrap() {
        Append::Written { first, last } => (first..=last).collect(),
        refused @ (Append::Full | Append::Behind) => panic!("an append was refused: {refused:?}"),
    }
}

pub(super) fn sync(writer: &mut SpoolWriter) {
    while let Some(job) = writer.sync_job() {
        writer.synced(job.run()).unwrap();
    }
}

fn venue(part: &TableRows) -> String {
    let ColumnView::Label(keys, texts) = ColumnView::of(part.rows.column(2)) else { panic!("venue is a label") };
    texts.value(keys.value(0) as usize).to_owned()
}
