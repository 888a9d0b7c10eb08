//! A disk that is full, read-only or failing.

use super::{history::luck, *};
use crate::{Kind, testkit::Failure};

fn alive() -> ItemBuffer {
    let mut items = ItemBuffer::default();
    items.push_control(&Control::Alive { session: 1, at: Timestamp(3) });
    items
}

fn try_append(writer: &mut SpoolWriter, items: &ItemBuffer) -> Append {
    writer.append(items, Duration::ZERO).unwrap()
}

fn seen_rows(disk: &SimDisk) -> Vec<Vec<u8>> {
    let (seen, missing) = read(&open(disk).reader(), SpoolPosition::START);
    assert_eq!(missing, []);
    let rows = seen.into_iter().flat_map(|(_, _, items)| items);
    rows.filter(|item| !item.starts_with(b"Boot") && !item.starts_with(b"Alive")).collect()
}

#[test]
fn a_full_disk_refuses_rows_and_still_takes_what_says_so() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"before"));
    disk.fail(Failure::Full(50));

    assert_eq!(try_append(&mut writer, &rows(1, &[1; 100])), Append::Full);
    assert_eq!(try_append(&mut writer, &rows(1, &[1; 100])), Append::Full);
    assert!(matches!(try_append(&mut writer, &alive()), Append::Written { .. }), "the reserve makes way");
    sync(&mut writer).unwrap();

    disk.fail(Failure::None);
    append(&mut writer, &rows(1, b"after"));
    disk.kill();
    assert_eq!(seen_rows(&disk), [b"before".to_vec(), b"after".to_vec()]);
}

#[test]
fn a_disk_without_any_room_refuses_even_control_items_and_the_offsets_stay() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    disk.fail(Failure::Full(0));
    while try_append(&mut writer, &alive()) != Append::Full {}
    let next = writer.next_offset();
    assert_eq!(try_append(&mut writer, &rows(1, b"row")), Append::Full);
    assert_eq!(writer.next_offset(), next);

    disk.fail(Failure::None);
    assert_eq!(append(&mut writer, &rows(1, b"row")).0, next);
}

#[test]
fn the_reserve_comes_back_when_there_is_room() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    disk.fail(Failure::Full(10));
    try_append(&mut writer, &alive());
    assert!(!disk.names().contains(&"reserve".to_owned()));
    let floor = Floor { offset: 0, now: Duration::ZERO };
    writer.retain(floor).expect("there is something to do").run().unwrap();
    assert!(!disk.names().contains(&"reserve".to_owned()), "there is no room yet");

    disk.fail(Failure::None);
    writer.retain(floor).expect("there is something to do").run().unwrap();
    assert!(disk.names().contains(&"reserve".to_owned()));
    assert!(writer.retain(floor).is_none());
}

#[test]
fn a_spool_opens_on_a_disk_that_only_its_reserve_kept_from_being_full() {
    let disk = SimDisk::default();
    drop(open(&disk));
    disk.fail(Failure::Full(0));
    let mut writer = open(&disk);
    assert!(matches!(try_append(&mut writer, &alive()), Append::Written { .. }));
}

#[test]
fn over_max_bytes_only_control_items_fit() {
    let disk = SimDisk::default();
    let limits = SpoolLimits { max_bytes: 60_000, ..LIMITS };
    let recovery = Recovery::open(Arc::new(disk), SpoolOptions { limits, ..options() }).unwrap();
    let mut writer = recovery.begin(Vec::new(), Timestamp(0), "0.0.0").unwrap().writer;
    while try_append(&mut writer, &rows(1, &[1; 1_000])) != Append::Full {}
    assert!(writer.bytes() <= 60_000);
    assert!(matches!(try_append(&mut writer, &alive()), Append::Written { .. }));

    writer.roll(Vec::new()).unwrap();
    sync(&mut writer).unwrap();
    let floor = Floor { offset: writer.synced_position().offset, now: Duration::ZERO };
    writer.retain(floor).unwrap().run().unwrap();
    assert!(matches!(try_append(&mut writer, &rows(1, &[1; 1_000])), Append::Written { .. }), "there is room again");
}

#[test]
fn one_failed_write_costs_nothing_and_a_second_one_stops_the_spool() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"one"));
    // The write of the entry fails; those of the new segment's head and of the entry succeed.
    disk.fail(Failure::OneWrite);
    append(&mut writer, &rows(1, b"two"));
    assert_eq!(writer.segments(), 2, "the file that failed is left alone");

    disk.fail(Failure::Writes(0));
    let error = writer.append(&rows(1, b"three"), Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    disk.fail(Failure::None);
    let again = writer.append(&rows(1, b"four"), Duration::ZERO).unwrap_err();
    assert!(again.to_string().contains("has failed"), "{again}");
    assert!(writer.sync_job().is_none());

    disk.kill();
    assert_eq!(seen_rows(&disk), [b"one".to_vec(), b"two".to_vec()]);
}

#[test]
fn a_disk_that_became_read_only_stops_the_spool_and_it_does_not_open_there() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"row"));
    disk.fail(Failure::ReadOnly);
    let error = writer.append(&rows(1, b"row"), Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    disk.kill();
    let error = recover(&disk).and_then(|recovery| recovery.begin(Vec::new(), Timestamp(0), "0.0.0")).unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    disk.fail(Failure::None);
    assert_eq!(seen_rows(&disk), [b"row".to_vec()]);
}

#[test]
fn after_a_failed_fsync_everything_is_written_again_and_then_durable() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"durable"));
    sync(&mut writer).unwrap();
    let before = writer.synced_position();
    let reader = writer.reader();
    let mut cursor = reader.cursor(before);

    append(&mut writer, &rows(1, b"in flight"));
    disk.fail(Failure::OneSync(0));
    let job = writer.sync_job().unwrap();
    append(&mut writer, &rows(1, b"waiting"));
    writer.synced(job.run()).unwrap();
    assert_eq!(writer.synced_position(), before, "a failed fsync makes nothing durable");
    assert_eq!(try_append(&mut writer, &rows(1, b"refused")), Append::Behind);

    let job = writer.sync_job().unwrap();
    assert_eq!(try_append(&mut writer, &rows(1, b"refused")), Append::Behind);
    writer.synced(job.run()).unwrap();
    append(&mut writer, &rows(1, b"later"));
    sync(&mut writer).unwrap();
    let mut firsts = Vec::new();
    while let Some(Step::Entry(entry)) = cursor.next(u64::MAX).unwrap() {
        firsts.push(entry.first);
    }
    assert_eq!(
        firsts,
        [before.offset + 1, before.offset + 2, before.offset + 3],
        "a cursor goes on in the new segment"
    );

    // What was never synced is gone, and all pages of the failed fsync with it.
    disk.cut_power(|_| 0);
    let expected = [&b"durable"[..], b"in flight", b"waiting", b"later"];
    assert_eq!(seen_rows(&disk), expected);
}

#[test]
fn a_failed_first_fsync_of_a_full_segment_loses_no_snapshot() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    sync(&mut writer).unwrap();
    writer.roll(b"state".to_vec()).unwrap();
    append(&mut writer, &rows(1, b"row"));
    disk.fail(Failure::OneSync(0));
    sync(&mut writer).unwrap();
    disk.cut_power(luck(1));

    assert_eq!(recover(&disk).unwrap().snapshot(), Some(&b"state"[..]));
}

#[test]
fn an_fsync_that_fails_twice_stops_the_spool_and_keeps_what_was_durable() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"durable"));
    sync(&mut writer).unwrap();
    append(&mut writer, &rows(1, b"lost"));
    disk.fail(Failure::Syncs);
    let error = sync(&mut writer).unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(writer.append(&rows(1, b"refused"), Duration::ZERO).is_err());

    disk.cut_power(|_| 0);
    disk.fail(Failure::None);
    assert_eq!(seen_rows(&disk), [b"durable".to_vec()]);
}

#[test]
fn what_waits_for_an_fsync_is_bounded() {
    let disk = SimDisk::default();
    let recovery =
        Recovery::open(Arc::new(disk), SpoolOptions { limits: SpoolLimits::default(), ..options() }).unwrap();
    let mut writer = recovery.begin(Vec::new(), Timestamp(0), "0.0.0").unwrap().writer;
    let large = rows(1, &vec![7; 15 << 20]);
    let mut taken = 0;
    while try_append(&mut writer, &large) != Append::Behind {
        taken += 1;
    }
    assert_eq!(taken, 4, "64 MiB");
    sync(&mut writer).unwrap();
    assert!(matches!(try_append(&mut writer, &large), Append::Written { .. }));
}

#[test]
fn an_entry_over_the_limit_is_refused_and_the_next_one_is_not() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let error = writer.append(&rows(1, &vec![7; MAX_ENTRY]), Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), Kind::Malformed);
    append(&mut writer, &rows(1, b"row"));
}
