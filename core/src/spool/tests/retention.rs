//! What goes, what stays, and where a position stands.

use super::*;
use crate::testkit::Failure;

/// A spool of full segments, all durable, of which the last but one has a snapshot too.
fn long(disk: &SimDisk, limits: SpoolLimits) -> SpoolWriter {
    let recovery = Recovery::open(Arc::new(disk.clone()), SpoolOptions { limits, ..options() }).unwrap();
    let mut writer = recovery.begin(snapshot(0), Timestamp(0), "0.0.0").unwrap().writer;
    fill(&mut writer, 6);
    writer
}

fn fill(writer: &mut SpoolWriter, segments: usize) {
    let wanted = writer.segments() + segments;
    while writer.segments() < wanted {
        append(writer, &rows(2, &[1; 500]));
        if writer.wants_roll() {
            writer.roll(snapshot(writer.next_offset() - 1)).unwrap();
        }
    }
    sync(writer).unwrap();
}

fn segment_files(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.ends_with(".seg")).collect()
}

fn at(offset: u64) -> Floor {
    Floor { offset, now: Duration::ZERO }
}

#[test]
fn only_whole_segments_below_the_floor_go_and_never_the_one_that_a_restart_needs() {
    let disk = SimDisk::default();
    let mut writer = long(&disk, LIMITS);
    let before = segment_files(&disk);
    let third: u64 = before[2][..20].parse().unwrap();
    writer.retain(at(third)).unwrap().run().unwrap();
    assert_eq!(segment_files(&disk), before[2..], "the floor lies in the third segment");

    let everything = writer.synced_position().offset;
    append(&mut writer, &rows(1, b"row"));
    writer.retain(at(everything)).unwrap().run().unwrap();
    assert_eq!(segment_files(&disk), before[before.len() - 1..], "the active one stays");
    disk.kill();
    let recovery = recover(&disk).unwrap();
    assert_eq!(recovery.snapshot(), Some(&snapshot(everything)[..]));
}

#[test]
fn without_a_later_head_that_is_durable_nothing_goes() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"row"));
    sync(&mut writer).unwrap();
    let everything = writer.synced_position().offset;
    writer.roll(snapshot(everything)).unwrap();
    assert!(writer.retain(at(everything)).is_none());
    sync(&mut writer).unwrap();
    assert!(writer.retain(at(everything)).is_some());
}

#[test]
fn a_segment_that_nobody_needs_stays_for_a_while_but_not_for_more_than_a_tenth() {
    let disk = SimDisk::default();
    let keep = Duration::from_secs(60);
    let mut writer = long(&disk, SpoolLimits { keep, max_bytes: 10 << 20, ..LIMITS });
    let everything = writer.synced_position().offset;
    let before = segment_files(&disk).len();
    assert!(writer.retain(at(everything)).is_none());
    assert!(writer.retain(Floor { offset: everything, now: keep - Duration::from_nanos(1) }).is_none());
    writer.retain(Floor { offset: everything, now: keep }).unwrap().run().unwrap();
    assert!(before > 5 && segment_files(&disk).len() == 1);

    let disk = SimDisk::default();
    let mut writer = long(&disk, SpoolLimits { keep, max_bytes: 200_000, ..LIMITS });
    let floor = at(writer.synced_position().offset);
    writer.retain(floor).unwrap().run().unwrap();
    let passed = segment_files(&disk).len() - 1;
    let bytes: usize = segment_files(&disk)[..passed].iter().map(|name| disk.bytes(name).len()).sum();
    assert!(passed > 0 && bytes <= 20_000, "{passed} segments of {bytes} bytes");
}

#[test]
fn a_cursor_reads_on_in_a_segment_that_goes_away_under_it() {
    let disk = SimDisk::default();
    let mut writer = long(&disk, LIMITS);
    let mut cursor = writer.reader().cursor(SpoolPosition::START);
    cursor.next(u64::MAX).unwrap();
    let last = writer.reader().cursor(SpoolPosition::START);
    let everything = writer.synced_position().offset;
    writer.retain(at(everything)).unwrap().run().unwrap();

    let mut expected = cursor.position().offset + 1;
    let mut missing = 0;
    while let Some(step) = cursor.next(u64::MAX).unwrap() {
        match step {
            Step::Entry(entry) => {
                assert_eq!(entry.first, expected);
                expected = entry.last + 1;
            }
            Step::Missing { first, last } => {
                assert_eq!(first, expected, "what it cannot have it is told");
                expected = last + 1;
                missing += 1;
            }
        }
    }
    assert_eq!((expected, missing), (everything + 1, 1));
    assert_eq!(writer.reader().check(last.position()), Standing::Gone);
}

#[test]
fn the_oldest_segment_is_counted_dropped_and_remembered_as_dropped() {
    let disk = SimDisk::default();
    let mut writer = long(&disk, LIMITS);
    let claim = writer.reader().claim("store", 3, 0);
    let behind = SpoolPosition { boot: writer.boot(), offset: 3 };
    assert_eq!(writer.reader().check(behind), Standing::Retained);
    // A reader is in the middle of it.
    let mut cursor = writer.reader().cursor(SpoolPosition::START);
    assert!(matches!(cursor.next(u64::MAX).unwrap(), Some(Step::Entry(_))));
    let read = cursor.position().offset;
    let old = writer.take_oldest().unwrap();
    let (first, last) = old.offsets();
    let losses = old.losses().unwrap();
    let rows = [(1, last - 3)].into();
    assert_eq!(losses, [Loss { sink: "store".to_owned(), offsets: (4, last), rows }], "those behind its place");
    assert_eq!(writer.reader().check(behind), Standing::Dropped);
    assert!(
        matches!(cursor.next(u64::MAX).unwrap(), Some(Step::Missing { first: f, last: l }) if (f, l) == (read + 1, last)),
        "what is dropped is not read any more"
    );
    writer.put_back(&old);
    assert_eq!(writer.reader().check(behind), Standing::Retained, "nobody could write down that it goes");
    assert_eq!(segment_files(&disk).len(), writer.segments());

    let old = writer.take_oldest().unwrap();
    append(&mut writer, &dropped(&old));
    sync(&mut writer).unwrap();
    writer.remove(&old).run().unwrap();
    claim.passed(last);
    let mut cursor = writer.reader().cursor(behind);
    assert!(matches!(cursor.next(u64::MAX).unwrap(), Some(Step::Missing { first: 4, last: l }) if l == last));
    assert!(!segment_files(&disk).iter().any(|name| name.starts_with(&format!("{first:020}"))));
    disk.kill();
    assert_eq!(open(&disk).reader().check(behind), Standing::Dropped, "the item says so after a restart");
}

#[test]
fn a_segment_in_the_hands_of_a_sink_stays_and_those_behind_it_go() {
    let disk = SimDisk::default();
    let mut writer = long(&disk, LIMITS);
    let claim = writer.reader().claim("store", 0, 0);
    let mut reading = writer.reader().claiming_cursor(SpoolPosition::START, &claim);
    assert!(matches!(reading.next(u64::MAX).unwrap(), Some(Step::Entry(_))));
    let (held, names) = (reading.position(), segment_files(&disk));
    let mut gone = Vec::new();
    while let Some(old) = writer.take_oldest() {
        append(&mut writer, &dropped(&old));
        sync(&mut writer).unwrap();
        writer.remove(&old).run().unwrap();
        gone.push(old.offsets());
    }
    let newest = names.len() - 1;
    assert_eq!(segment_files(&disk), [&names[0][..], &names[newest]], "in hand, and the one that a restart needs");
    let (first, last) = (gone[0].0, gone[gone.len() - 1].1);

    let expect = |writer: &SpoolWriter, when: &str| {
        let reader = writer.reader();
        assert_eq!((reader.oldest(), reader.check(held)), (SpoolPosition::START, Standing::Retained), "{when}");
        assert_eq!(reader.check(SpoolPosition { offset: first, ..held }), Standing::Dropped, "{when}");
        let mut cursor = reader.cursor(SpoolPosition::START);
        let (mut next, mut missing) = (1, Vec::new());
        while let Some(step) = cursor.next(last + 1).unwrap() {
            let (from, to) = match step {
                Step::Entry(entry) => (entry.first, entry.last),
                Step::Missing { first, last } => {
                    missing.push((first, last));
                    (first, last)
                }
            };
            assert_eq!(from, next, "{when}");
            next = to + 1;
        }
        assert_eq!((missing, reader.lost()), (vec![(first, last)], 0), "{when}: dropped is not corrupt");
    };
    expect(&writer, "at once");
    disk.kill();
    let verified = inspect::verify_disk(Arc::new(disk.copy())).unwrap();
    assert!(verified.sound, "{verified}");
    let mut writer = open(&disk);
    expect(&writer, "after a kill");
    fill(&mut writer, 2);
    disk.kill();
    assert!(inspect::verify_disk(Arc::new(disk.copy())).unwrap().sound);
    expect(&open(&disk), "when only the heads remember it");
}

#[test]
fn a_drop_that_a_kill_cuts_short_has_happened_once_its_word_is_written_and_not_before() {
    for is_written in [false, true] {
        let disk = SimDisk::default();
        let mut writer = long(&disk, LIMITS);
        let _claim = writer.reader().claim("store", 0, 0);
        let old = writer.take_oldest().unwrap();
        if is_written {
            append(&mut writer, &dropped(&old));
        }
        let first = segment_files(&disk)[0].clone();
        disk.kill();
        drop(writer);
        let mut writer = open(&disk);
        let standing = if is_written { Standing::Dropped } else { Standing::Retained };
        assert_eq!(writer.reader().check(SpoolPosition::START), standing);
        if let Some(job) = writer.retain(at(0)) {
            job.run().unwrap();
        }
        assert_eq!(segment_files(&disk).contains(&first), !is_written, "the next start ends what was begun");
    }
}

#[test]
fn a_restart_does_not_begin_before_a_hole_since_later_segments_say_what_was_durable() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let claim = writer.reader().claim("store", 0, 0);
    sync(&mut writer).unwrap();
    assert!(writer.reader().claiming_cursor(SpoolPosition::START, &claim).next(u64::MAX).unwrap().is_some());
    for _ in 0..3 {
        // As in a running pipeline: entries come, and a segment is full, while an fsync is under way.
        append(&mut writer, &rows(3, b"row"));
        let job = writer.sync_job().unwrap();
        append(&mut writer, &rows(1, b"row"));
        writer.roll(snapshot(writer.next_offset() - 1)).unwrap();
        writer.synced(job.run()).unwrap();
    }
    let old = writer.take_oldest().unwrap();
    append(&mut writer, &dropped(&old));
    sync(&mut writer).unwrap();
    writer.remove(&old).run().unwrap();
    assert_eq!((writer.reader().oldest().offset, segment_files(&disk).len()), (0, 3), "a hole behind the first one");
    let third: u64 = segment_files(&disk)[1][..20].parse().unwrap();
    disk.kill();
    let recovery = recover(&disk).unwrap();
    assert_eq!(recovery.snapshot(), Some(&snapshot(third - 1)[..]));
    assert_eq!(recovery.report().corrupt, []);
}

#[test]
fn a_restart_does_without_the_snapshot_of_a_segment_that_went_before_one_that_has_none() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"first"));
    sync(&mut writer).unwrap();
    // The next segment is begun in the middle of an append, without continuity.
    disk.fail(Failure::OneWrite);
    let (second, _) = append(&mut writer, &rows(1, b"second"));
    writer.roll(snapshot(second)).unwrap();
    let synced = writer.sync_job().unwrap().run();
    let (third, _) = append(&mut writer, &rows(1, b"third"));
    writer.roll(snapshot(third)).unwrap();
    writer.synced(synced).unwrap();
    writer.retain(at(second - 1)).unwrap().run().unwrap();
    let left = [second, third, third + 1].map(|first| format!("{first:020}.seg"));
    assert_eq!(segment_files(&disk), left, "the second of them is durable, and has a snapshot");

    // No word of that is. Of what is not durable the last head stays, without the entry before it.
    disk.cut_power(|most| if (2..4_000).contains(&most) { 0 } else { most });
    assert_eq!(segment_files(&disk), left);
    let recovery = recover(&disk).unwrap();
    assert_eq!(recovery.snapshot(), Some(&snapshot(second)[..]), "no later one, since what it knows is not there");
    assert_eq!((recovery.report().end, &recovery.report().corrupt[..]), (second, &[][..]));
    let writer = recovery.begin(snapshot(second), Timestamp(0), "0.0.0").unwrap().writer;
    let (seen, missing) = read(&writer.reader(), writer.reader().oldest());
    assert_eq!((&seen[0].2, missing), (&vec![b"second".to_vec()], vec![]), "it is read as before");
}

/// What is written down of a segment that goes.
fn dropped(old: &OldSegment) -> ItemBuffer {
    let (first, last) = old.offsets();
    let mut items = ItemBuffer::default();
    for Loss { sink, offsets, rows } in old.losses().unwrap() {
        let rows = rows.into_iter().collect();
        items.push_control(&Control::Dropped { sinks: vec![sink], rows, offsets: Some(offsets), at: Timestamp(1) });
    }
    items.push_control(&Control::SegmentDropped { first, last });
    items
}

#[test]
fn the_last_segment_is_never_dropped() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(1, b"row"));
    sync(&mut writer).unwrap();
    assert!(writer.take_oldest().is_none());
}

#[test]
fn a_position_is_known_by_boot_and_offset() {
    let disk = SimDisk::default();
    let mut writer = long(&disk, LIMITS);
    let (boot, end) = (writer.boot(), writer.synced_position());
    let at = |boot: Boot, offset: u64| SpoolPosition { boot, offset };
    let reader = writer.reader();
    assert_eq!(reader.check(SpoolPosition::START), Standing::Retained);
    assert_eq!(reader.check(end), Standing::Retained);
    append(&mut writer, &rows(1, b"not durable"));
    assert_eq!(reader.check(at(boot, end.offset + 1)), Standing::Ahead);
    assert_eq!(reader.check(at(Boot(7), 5)), Standing::OtherBoot);

    let backup = disk.copy();
    backup.kill();
    sync(&mut writer).unwrap();
    append(&mut writer, &rows(5, b"after the backup"));
    sync(&mut writer).unwrap();
    let ahead = writer.synced_position();
    let mut restored = open(&backup);
    append(&mut restored, &rows(20, b"another history"));
    sync(&mut restored).unwrap();
    assert_eq!(restored.reader().check(end), Standing::Retained);
    assert_eq!(restored.reader().check(ahead), Standing::Ahead, "the boot is known, the offset was never its own");

    disk.kill();
    let mut writer = open(&disk);
    let second = at(writer.boot(), writer.next_offset() - 1);
    assert_eq!(writer.reader().check(ahead), Standing::Retained);
    sync(&mut writer).unwrap();
    assert_eq!(writer.reader().check(second), Standing::Retained);
    assert_eq!(writer.reader().check(at(writer.boot(), 3)), Standing::OtherBoot, "offset 3 is of the first boot");
    fill(&mut writer, 2);
    writer.retain(Floor { offset: writer.synced_position().offset, now: Duration::ZERO }).unwrap().run().unwrap();
    assert_eq!(writer.reader().check(at(boot, 3)), Standing::Gone);
    assert_eq!(writer.reader().check(SpoolPosition::START), Standing::Gone);
    assert_eq!(writer.reader().check(writer.reader().oldest()), Standing::Retained);
}

#[test]
fn many_restarts_keep_their_boots_apart_and_the_head_short() {
    let disk = SimDisk::default();
    let mut ends = Vec::new();
    for _ in 0..100 {
        let mut writer = open(&disk);
        append(&mut writer, &rows(1, b"row"));
        sync(&mut writer).unwrap();
        ends.push(writer.synced_position());
        disk.kill();
    }
    let mut writer = open(&disk);
    sync(&mut writer).unwrap();
    let reader = writer.reader();
    assert!(ends.iter().all(|&end| reader.check(end) == Standing::Retained));
    let end = writer.synced_position().offset;
    writer.retain(Floor { offset: end, now: Duration::ZERO }).unwrap().run().unwrap();
    writer.roll(snapshot(end)).unwrap();
    sync(&mut writer).unwrap();
    assert_eq!(reader.check(ends[0]), Standing::Gone);
    let heads = inspect::inspect_disk(&disk).unwrap();
    assert_eq!(heads.boots.len(), 65, "64 that are gone and the one that runs");
}

#[test]
fn a_job_that_began_before_a_segment_did_does_not_make_its_head_durable() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(3, b"row"));
    let job = writer.sync_job().unwrap();
    let end = writer.next_offset() - 1;
    writer.roll(snapshot(end)).unwrap();
    writer.synced(job.run()).unwrap();
    assert!(writer.retain(at(end)).is_none(), "the new head is not on the disk yet");
    sync(&mut writer).unwrap();
    writer.retain(at(end)).unwrap().run().unwrap();
    disk.cut_power(|_| 0);
    assert_eq!(recover(&disk).unwrap().snapshot(), Some(&snapshot(end)[..]));
}

#[test]
fn a_power_cut_between_a_roll_and_its_fsync_leaves_the_segment_before_it() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    append(&mut writer, &rows(3, b"row"));
    sync(&mut writer).unwrap();
    let end = writer.synced_position().offset;
    writer.roll(snapshot(end)).unwrap();
    drop(writer.retain(at(end)));
    append(&mut writer, &rows(3, b"lost"));
    disk.cut_power(|_| 0);
    let recovery = recover(&disk).unwrap();
    assert_eq!((recovery.report().end, recovery.snapshot()), (end, Some(&snapshot(0)[..])));
}

#[test]
fn a_segment_is_where_a_restart_begins_once_its_own_entries_say_that_all_before_it_is_durable() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    for n in 0..4_u64 {
        append(&mut writer, &rows(3, b"row"));
        // As in a running pipeline: an append that is not durable, then the roll.
        writer.roll(snapshot(writer.next_offset() - 1)).unwrap();
        sync(&mut writer).unwrap();
        append(&mut writer, &rows(1, &n.to_le_bytes()));
    }
    let newest: u64 = segment_files(&disk).pop().unwrap()[..20].parse().unwrap();
    disk.kill();
    assert_eq!(recover(&disk).unwrap().snapshot(), Some(&snapshot(newest - 1)[..]));
}
