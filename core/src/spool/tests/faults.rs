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
fn a_head_that_is_too_long_to_be_written_again_stops_the_spool_and_says_so() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    for id in 1..=6 {
        let mut items = ItemBuffer::default();
        assert!(items.push_control(&stream(id, &"A".repeat(3 << 20))));
        append(&mut writer, &items);
    }
    disk.fail(Failure::OneSync(0));
    let error = sync(&mut writer).expect_err("whoever waits for the fsync would wait for ever");
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.chain().contains("head"), "{}", error.chain());
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

#[test]
fn a_segment_that_cannot_be_opened_at_a_start_is_not_taken_for_an_empty_one() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    for _ in 0..3 {
        append(&mut writer, &rows(3, b"row"));
        sync(&mut writer).unwrap();
        writer.roll(snapshot(writer.next_offset() - 1)).unwrap();
    }
    sync(&mut writer).unwrap();
    disk.kill();
    for left in 0..4 {
        disk.fail(Failure::Opens(left));
        let opened = recover(&disk).and_then(|recovery| recovery.begin(snapshot(0), Timestamp(0), "0.0.0"));
        let kind = opened.unwrap_err().kind();
        assert!(matches!(kind, Kind::Transient { .. }), "{left} files could be opened");
        disk.fail(Failure::None);
        disk.kill();
    }
    let (seen, missing) = read(&open(&disk).reader(), SpoolPosition::START);
    assert_eq!(seen.iter().filter(|entry| entry.2.len() == 3).count(), 3);
    assert_eq!(missing, []);
}

#[test]
fn a_spool_that_is_full_can_be_opened_as_often_as_one_likes() {
    let disk = SimDisk::default();
    let mut limits = SpoolLimits { max_bytes: 30_000, ..LIMITS };
    let open_full = |limits: SpoolLimits| {
        let recovery = Recovery::open(Arc::new(disk.clone()), SpoolOptions { limits, ..options() }).unwrap();
        let mut writer = recovery.begin(vec![7; 5_000], Timestamp(0), "0.0.0").unwrap().writer;
        assert!(matches!(try_append(&mut writer, &alive()), Append::Written { .. }), "what is to be said finds room");
        sync(&mut writer).unwrap();
        let is_full = try_append(&mut writer, &rows(1, &[1; 1_000])) == Append::Full;
        disk.kill();
        is_full
    };
    while !open_full(limits) {}
    // More than a reserve over the limit, as after many restarts.
    limits.max_bytes = 10;
    for _ in 0..200 {
        assert!(open_full(limits));
    }
}

#[test]
fn a_boot_that_wrote_nothing_leaves_its_segment_to_the_next_one() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(3, b"row"));
    sync(&mut writer).unwrap();
    disk.kill();
    let before = disk.names().len();
    for _ in 0..5 {
        let recovery = recover(&disk).unwrap();
        // The head is written, and no entry.
        disk.fail(Failure::Writes(1));
        recovery.begin(snapshot(0), Timestamp(0), "0.0.0").unwrap_err();
        disk.fail(Failure::None);
        disk.kill();
    }
    assert!(disk.names().len() <= before + 1, "{:?}", disk.names());
    let (seen, missing) = read(&open(&disk).reader(), SpoolPosition::START);
    assert_eq!(seen.iter().filter(|entry| entry.2.len() == 3).count(), 1);
    assert_eq!(missing, []);
}

#[test]
fn a_sector_that_cannot_be_read_costs_its_entries_and_no_other() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let mut all = Vec::new();
    for n in 0..60_u8 {
        all.push(append(&mut writer, &rows(1, &[n; 1_000])).0);
    }
    sync(&mut writer).unwrap();
    append(&mut writer, &rows(1, b"its mark"));
    sync(&mut writer).unwrap();
    let name = disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    disk.spoil(&name, 30_000);

    let reader = writer.reader();
    let mut cursor = reader.cursor(SpoolPosition::START);
    let (mut tries, mut kept, mut missing) = (0, 0, Vec::new());
    loop {
        match cursor.next(u64::MAX) {
            Ok(None) => break,
            Ok(Some(Step::Entry(_))) => kept += 1,
            Ok(Some(Step::Missing { first, last })) => missing.push((first, last)),
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
                tries += 1;
                assert!(tries < 100, "it stalls");
            }
        }
    }
    assert!(tries > 1, "it is tried again first");
    let lost: u64 = missing.iter().map(|(first, last)| last - first + 1).sum();
    assert!((4..=6).contains(&lost), "{missing:?}");
    assert_eq!((kept as u64, reader.lost()), (62 - lost, lost), "the boot, 60 rows and the last one");

    disk.kill();
    let recovery = recover(&disk).unwrap();
    assert_eq!(recovery.report().corrupt, missing, "so it is at a start");
    recovery.begin(snapshot(0), Timestamp(0), "0.0.0").unwrap();
}

#[test]
fn an_end_that_cannot_be_read_is_not_cut() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    (0..20).for_each(|_| _ = append(&mut writer, &rows(1, &[1; 1_000])));
    sync(&mut writer).unwrap();
    let name = disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    disk.kill();
    let len = disk.bytes(&name).len();
    disk.spoil(&name, len - 1);
    assert!(matches!(recover(&disk).unwrap_err().kind(), Kind::Transient { .. }));
    disk.heal(&name);
    assert_eq!(disk.bytes(&name).len(), len);
    assert_eq!(recover(&disk).unwrap().report().end, 21);
}

#[test]
fn a_first_copy_of_a_head_that_cannot_be_read_leaves_the_second() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"row"));
    sync(&mut writer).unwrap();
    let name = disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    disk.kill();
    disk.spoil(&name, 0);
    assert_eq!(recover(&disk).unwrap().report().end, 2);
}

#[test]
fn a_segment_that_a_power_cut_left_blank_is_a_torn_tail_and_no_corruption() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"row"));
    sync(&mut writer).unwrap();
    disk.kill();
    for blank in [&[][..], &[0; 9_000][..]] {
        disk.put("00000000000000000003.seg", blank);
        let report = recover(&disk).unwrap().report().clone();
        assert_eq!((report.unreadable, report.end), (Vec::new(), 2));
        assert!(!disk.names().iter().any(|name| name.ends_with("bad")), "{:?}", disk.names());
        disk.kill();
    }
}

#[test]
fn names_that_cannot_be_made_or_made_durable_lose_nothing() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"first"));
    disk.fail(Failure::Names);
    let kind = writer.roll(snapshot(2)).unwrap_err().kind();
    assert!(matches!(kind, Kind::Transient { .. }), "the present segment goes on");
    append(&mut writer, &rows(1, b"second"));
    disk.fail(Failure::None);
    writer.roll(snapshot(3)).unwrap();
    append(&mut writer, &rows(1, b"third"));
    disk.fail(Failure::OneDirSync);
    sync(&mut writer).unwrap();
    assert_eq!(writer.synced_position().offset, 4, "all was written again");
    disk.cut_power(|_| 0);
    assert_eq!(seen_rows(&disk), [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]);
}
