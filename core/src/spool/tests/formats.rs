//! Spools of every format that there ever was, as programs of their time have written them: `formats/vN/*.seg`.

use std::{fs, path::PathBuf};

use super::{
    super::{disk::RealDisk, head::VERSION},
    *,
};
use crate::{
    intake::{self, Continuity},
    protocol::{Edge, GapId},
    row::{Numbering, Table, kinds::Trade},
    spool::{Cause, LeftBy},
};

#[test]
fn a_spool_of_every_format_is_read_as_it_was_written_and_gone_on_with() {
    for version in 1..=VERSION {
        let folder = tempfile::tempdir().unwrap();
        for file in fs::read_dir(stored(version)).expect("each format has its folder").map(Result::unwrap) {
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let open = || {
            let recovery = Recovery::open(Arc::new(RealDisk::at(folder.path())), sources()).unwrap();
            assert_eq!(*recovery.report(), RecoveryReport { end: recovery.report().end, ..RecoveryReport::default() });
            intake::restore(recovery).unwrap()
        };
        let (recovery, continuity, _) = open();
        let streams: Vec<_> = recovery.streams().into_iter().map(|(id, info)| (id, info.key.clone())).collect();
        assert_eq!(
            streams,
            [(1, StreamKey::new("trades", "A")), (2, StreamKey::new("books", "B"))],
            "format {version}"
        );
        let expected = items(version);
        assert_eq!(items_in(&recovery.reader()), expected, "format {version}");
        // The head's snapshot and what follows are all that there is.
        let mut all = Continuity::default();
        all.apply(&boot());
        let mut known: Vec<Stored> = expected;
        known.insert(SECOND, Stored::Control(boot()));
        for item in &known {
            match item {
                Stored::Row(row, bytes) => all.apply_row(row, intake::row_hash(&row.head, bytes)),
                Stored::Control(control) => all.apply(control),
            }
        }
        // The first format told by our clock until when somebody listened, the others tell it by the venue's.
        if version > 1 {
            assert_eq!(continuity.snapshot(), all.snapshot(), "format {version}");
        }

        let mut writer = recovery.begin(continuity.snapshot(), Timestamp(9), "0.0.0").unwrap().writer;
        append(&mut writer, &rows(1, b"more"));
        sync(&mut writer).unwrap();
        drop(writer);
        let (recovery, ..) = open();
        assert_eq!(items_in(&recovery.reader()).len(), items(version).len() + 1, "format {version}, then {VERSION}");
    }
}

#[test]
fn a_format_that_is_newer_than_the_program_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(stored(VERSION)).unwrap().map(Result::unwrap) {
        let mut bytes = fs::read(file.path()).unwrap();
        // Both copies of the head, each with a checksum over the version.
        let at: Vec<usize> = (0..bytes.len() - 20).filter(|at| bytes[*at..].starts_with(b"TIDESPL1")).collect();
        for at in at {
            bytes[at + 8..at + 12].copy_from_slice(&(VERSION + 7).to_le_bytes());
            let len = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[at + 8..at + 16]), &bytes[at + 20..at + 20 + len]);
            bytes[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(folder.path().join(file.file_name()), bytes).unwrap();
    }
    let before: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    let error = Recovery::open(Arc::new(RealDisk::at(folder.path())), sources()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("has format {}, this program knows up to {VERSION}", VERSION + 7)), "{text}");
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(before.iter().all(|name| names.contains(name)), "nothing is removed");
}

/// Writes the spool of the present format, to be kept: see CONTRIBUTING.
#[test]
#[ignore = "writes the files that the others read; to be run once, when the format has changed"]
fn writes_the_spool_of_the_present_format() {
    let folder = stored(VERSION);
    fs::create_dir_all(&folder).unwrap();
    let items = items(VERSION);
    let (first, second) = items.split_at(SECOND);
    for part in [first, second] {
        let recovery = Recovery::open(Arc::new(RealDisk::at(&folder)), sources()).unwrap();
        let (recovery, continuity, _) = intake::restore(recovery).unwrap();
        let mut writer = recovery.begin(continuity.snapshot(), Timestamp(1), "0.0.0").unwrap().writer;
        for item in part {
            let mut entry = ItemBuffer::default();
            match item {
                Stored::Row(row, bytes) => entry.push_row(row, bytes),
                Stored::Control(control) => assert!(entry.push_control(control)),
            }
            append(&mut writer, &entry);
        }
        sync(&mut writer).unwrap();
    }
    for file in fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "seg") {
            fs::remove_file(file).unwrap();
        }
    }
}

/// An item, as a format can hold it.
#[derive(Debug, Clone, PartialEq)]
enum Stored {
    Row(RowHead, Vec<u8>),
    Control(Control),
}

/// So many items were written by the first boot.
const SECOND: usize = 8;

/// Returns the items of a format but for those that say that the spool was opened. What a format has more than the one
/// before stands at the end.
fn items(version: u32) -> Vec<Stored> {
    let at = Timestamp;
    let why = || "why".to_owned();
    let source = || "deribit".to_owned();
    let row = |stream: u32, position: Position, origin: Origin, epoch: u32| {
        let head = Head { stream, position, ts_event: at(20), ts_recv: at(30), origin };
        Stored::Row(RowHead { head, session: 1, line: 2, epoch }, b"columns".to_vec())
    };
    let edge = |n: u64| Edge { position: Position::Sequence(n), ts_event: at(20) };
    let controls = |controls: Vec<Control>| controls.into_iter().map(Stored::Control);
    let mut items: Vec<Stored> = controls(vec![
        Control::Stream { id: 1, source: source(), key: StreamKey::new("trades", "A") },
        Control::Stream { id: 2, source: source(), key: StreamKey::new("books", "B") },
        Control::Confirmed {
            session: 1,
            source: source(),
            line: 2,
            streams: vec![(1, Numbering::Sequence), (2, Numbering::Linked)],
            venue_at: at(10),
            at: at(11),
        },
    ])
    .collect();
    items.push(row(1, Position::Sequence(5), Origin::Live, 0));
    items.push(row(2, Position::Linked { id: 7, prev: None }, Origin::Live, 0));
    items.push(row(2, Position::Linked { id: 9, prev: Some(7) }, Origin::Live, 0));
    items.extend(controls(vec![
        Control::Alive { session: 1, at: at(40) },
        Control::GapOpened { gap: GapId(3), stream: 1, after: Some(edge(5)), before: None, since: at(20), at: at(41) },
    ]));
    assert_eq!(items.len(), SECOND);
    items.push(row(1, Position::Sequence(6), Origin::Backfill, 0));
    items.push(row(1, Position::Unnumbered, Origin::Live, 0));
    items.push(row(1, Position::Ordered(8), Origin::Live, 3));
    items.extend(controls(vec![
        Control::GapEmpty { gap: GapId(3), stream: 1, at: at(50) },
        Control::GapClosed { gap: GapId(3), stream: 1, outcome: GapOutcome::Lost(why()), filled: 1, at: at(51) },
        Control::Unsubscribed { session: 1, streams: vec![2], at: at(52) },
        Control::Ended { session: 1, why: why(), at: at(53) },
        Control::Restart { stream: 1, epoch: 4 },
        Control::Malformed { source: source(), session: 1, raw: b"raw".to_vec(), error: why(), at: at(54) },
        Control::Dropped { sinks: vec!["sqlite".to_owned()], rows: vec![(1, 2)], offsets: None, at: at(55) },
        Control::ClockStep { at: at(56), step: -5 },
    ]));
    if version >= 2 {
        let (sink, rows) = ("sqlite".to_owned(), vec![(1, 2)]);
        let head = Head {
            stream: 1,
            position: Position::Sequence(5),
            ts_event: at(20),
            ts_recv: at(30),
            origin: Origin::Redrive,
        };
        let head = RowHead { head, session: 1, line: 2, epoch: 0 };
        let cause = Cause { boot: Boot(1), offset: 5, sub: 0 };
        items.extend(controls(vec![
            Control::Skipped { sink: sink.clone(), offsets: (3, 4), rows, why: why(), at: at(57) },
            Control::Redrive { sink, cause, head, row: b"columns".to_vec() },
        ]));
    }
    if version >= 3 {
        let left = Control::Left { session: 1, streams: vec![1], by: LeftBy::Venue, at: at(58) };
        items.extend(controls(vec![left]));
    }
    if version >= 4 {
        items.extend(controls(vec![Control::Baseline { gap: GapId(3), stream: 1, edge: edge(4) }]));
    }
    items
}

fn items_in(reader: &SpoolReader) -> Vec<Stored> {
    let mut items = Vec::new();
    let mut cursor = reader.cursor(reader.oldest());
    while let Some(step) = cursor.next(u64::MAX).unwrap() {
        let Step::Entry(entry) = step else { panic!("all of it can be read") };
        for (_, item) in entry.items() {
            match item {
                Item::Row(row, bytes) => items.push(Stored::Row(row, bytes.to_vec())),
                Item::Control(Control::Boot { .. }) => {}
                Item::Control(control) => items.push(Stored::Control(control)),
            }
        }
    }
    items
}

fn sources() -> SpoolOptions {
    let tables = vec![Arc::new(Table::of::<Trade<'_>>())];
    let source = SourceInfo { name: "deribit".into(), venue: "deribit".into(), tables };
    SpoolOptions { sources: vec![source], ..options() }
}

fn boot() -> Control {
    Control::Boot { boot: Boot(1), at: Timestamp(1), version: "0.0.0".to_owned() }
}

/// Returns the folder of a format's spool.
fn stored(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/spool/tests/formats/v{version}"))
}
