//! One after the other: what is appended is read, survives, and is not seen too early.

use super::*;

#[test]
fn what_was_synced_is_read_in_order_over_segments_and_boots() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let mut expected = Vec::new();
    for boot in 0..3 {
        for n in 0..50_u32 {
            let payload = vec![n as u8; 100 + n as usize];
            let (first, _) = append(&mut writer, &rows(1 + n % 3, &payload));
            expected.push((writer.boot(), first, vec![payload; 1 + n as usize % 3]));
            if writer.wants_roll() {
                writer.roll(snapshot(writer.next_offset() - 1)).unwrap();
            }
        }
        sync(&mut writer).unwrap();
        assert!(writer.segments() > 2, "the test rolls");
        if boot < 2 {
            drop(writer);
            writer = open(&disk);
        }
    }

    let (seen, missing) = read(&writer.reader(), SpoolPosition::START);
    let rows: Vec<_> = seen.into_iter().filter(|(_, _, items)| !items[0].starts_with(b"Boot")).collect();
    assert_eq!(rows, expected);
    assert_eq!(missing, []);
}

#[test]
fn a_reader_sees_nothing_before_it_is_fsynced() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let reader = writer.reader();
    let mut cursor = reader.cursor(SpoolPosition::START);
    append(&mut writer, &rows(1, b"row"));
    assert!(cursor.next(u64::MAX).unwrap().is_none());

    let job = writer.sync_job().unwrap();
    let (_, late) = append(&mut writer, &rows(1, b"late"));
    writer.synced(job.run()).unwrap();
    assert_eq!(writer.synced_position().offset, late - 1, "what came after the fsync began is not durable");
    let mut count = 0;
    while cursor.next(u64::MAX).unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 2, "the boot's entry and the first row");

    sync(&mut writer).unwrap();
    assert!(matches!(cursor.next(u64::MAX).unwrap(), Some(Step::Entry(entry)) if entry.first == late));
}

#[test]
fn a_cursor_begins_in_the_middle_of_an_entry() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let (first, last) = append(&mut writer, &rows(5, b"row"));
    sync(&mut writer).unwrap();

    let from = SpoolPosition { boot: writer.boot(), offset: first + 1 };
    let mut cursor = writer.reader().cursor(from);
    let Some(Step::Entry(entry)) = cursor.next(u64::MAX).unwrap() else { panic!("there is an entry") };
    let offsets: Vec<_> = entry.items().map(|(offset, _)| offset).collect();
    assert_eq!((entry.first, entry.last), (first + 2, last));
    assert_eq!(offsets, [first + 2, first + 3, first + 4]);
}

#[test]
fn a_restart_replays_from_the_last_snapshot_only() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(3, b"before"));
    sync(&mut writer).unwrap();
    writer.roll(b"state".to_vec()).unwrap();
    let (first, last) = append(&mut writer, &rows(2, b"after"));
    disk.kill();

    let recovery = recover(&disk).unwrap();
    assert_eq!(recovery.snapshot(), Some(&b"state"[..]));
    assert_eq!(recovery.report().end, last);
    let mut replayed = Vec::new();
    recovery
        .replay(|step| {
            let Step::Entry(entry) = step else { panic!("nothing is missing") };
            replayed.push((entry.first, entry.last));
        })
        .unwrap();
    assert_eq!(replayed, [(first, last)]);
}

#[test]
fn streams_are_known_after_a_restart_from_the_head_and_from_the_items() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let mut items = ItemBuffer::default();
    items.push_control(&stream(7, "ETH-PERPETUAL"));
    append(&mut writer, &items);
    writer.roll(Vec::new()).unwrap();
    items.clear();
    items.push_control(&stream(8, "BTC-PERPETUAL"));
    append(&mut writer, &items);
    assert_eq!(&*writer.reader().stream(8).unwrap().key.symbol, "BTC-PERPETUAL");
    disk.kill();

    let reader = open(&disk).reader();
    assert_eq!(&*reader.stream(7).unwrap().key.symbol, "ETH-PERPETUAL");
    assert_eq!(&*reader.stream(8).unwrap().source, "deribit");
    assert!(reader.stream(9).is_none());
}

#[test]
fn a_spool_of_another_pipeline_is_refused_by_name() {
    let disk = SimDisk::default();
    drop(open(&disk));
    let other = SpoolOptions { pipeline: "btc".into(), ..options() };
    let error = Recovery::open(Arc::new(disk), other).unwrap_err();
    assert_eq!(error.to_string(), "the spool `simulated` is that of the pipeline `eth`, not of `btc`");
}

#[test]
fn a_source_that_is_named_no_more_is_known_as_long_as_it_has_streams() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let mut items = ItemBuffer::default();
    items.push_control(&stream(1, "ETH"));
    append(&mut writer, &items);
    sync(&mut writer).unwrap();
    drop(writer);

    let open = |name: &str| {
        let source = SourceInfo { name: name.into(), venue: "deribit".into(), tables: Vec::new() };
        let options = SpoolOptions { sources: vec![source], ..options() };
        let recovery = Recovery::open(Arc::new(disk.clone()), options).unwrap().replay(|_| {}).unwrap();
        let known: Vec<String> = recovery.sources().iter().map(|source| source.name.to_string()).collect();
        (known, recovery.begin(snapshot(0), Timestamp(0), "0.0.0").unwrap().writer)
    };
    // However often: the newest head is by then one of a process that did not name it.
    for _ in 0..3 {
        let (known, mut writer) = open("venue");
        assert_eq!(known, ["deribit"]);
        append(&mut writer, &rows(1, b"row"));
        sync(&mut writer).unwrap();
    }
    let (known, mut writer) = open("deribit");
    assert_eq!(known, ["deribit"], "named again");
    let mut items = ItemBuffer::default();
    items.push_control(&Control::Retired { stream: 1 });
    append(&mut writer, &items);
    sync(&mut writer).unwrap();
    drop(writer);
    assert!(open("venue").0.is_empty(), "nothing is left of it");
}
