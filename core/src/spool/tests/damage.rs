//! Bytes that are not what was written: cut tails, flipped bits, files of anything.

use proptest::{collection::vec, prelude::*};

use super::{history::luck, *};
use crate::spool::{
    files::segment_name,
    inspect::{DumpFormat, dump_disk, verify_disk},
};

/// A spool whose last entries are not durable.
struct Written {
    disk: SimDisk,
    log: Vec<Seen>,
    /// All up to here is durable, and the entries behind it say so.
    durable: u64,
    /// The lengths of the files at that time.
    durable_files: Vec<(String, usize)>,
}

fn written(tail: usize) -> Written {
    let disk = SimDisk::default();
    let begun = recover(&disk).unwrap().begin(snapshot(0), Timestamp(0), "0.0.0").unwrap();
    let mut writer = begun.writer;
    let mut log = vec![(writer.boot(), begun.offset, vec![format!("{:?}", begun.boot).into_bytes()])];
    let mut put = |writer: &mut SpoolWriter, n: usize| {
        let payload = vec![n as u8; 90 + 37 * (n % 11)];
        let count = 1 + n as u32 % 3;
        let (first, _) = append(writer, &rows(count, &payload));
        log.push((writer.boot(), first, vec![payload; count as usize]));
        if writer.wants_roll() {
            writer.roll(snapshot(writer.next_offset() - 1)).unwrap();
        }
    };
    for n in 0..60 {
        put(&mut writer, n);
        if n % 2 == 0 {
            sync(&mut writer).unwrap();
        }
    }
    sync(&mut writer).unwrap();
    let durable = writer.synced_position().offset;
    let durable_files = disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name).len())).collect();
    for n in 60..60 + tail {
        put(&mut writer, n);
    }
    disk.kill();
    Written { disk, log, durable, durable_files }
}

/// Opens what is there, and returns what can be read and the ranges that cannot.
fn reopen(disk: &SimDisk) -> (Vec<Seen>, Vec<(u64, u64)>, RecoveryReport) {
    let recovery = recover(disk).unwrap();
    let report = recovery.report().clone();
    let writer = recovery.begin(snapshot(report.end), Timestamp(0), "0.0.0").unwrap().writer;
    let (seen, missing) = read(&writer.reader(), SpoolPosition::START);
    (seen, missing, report)
}

#[test]
fn a_tail_that_is_cut_at_any_byte_leaves_a_prefix_with_all_that_was_durable() {
    let written = written(40);
    let durable: usize = written.log.iter().filter(|entry| entry.1 <= written.durable).count();
    let mut checked = 0;
    for name in written.disk.names() {
        let bytes = written.disk.bytes(&name);
        let known = written.durable_files.iter().find(|(known, _)| *known == name).map_or(0, |(_, len)| *len);
        // Several files have a tail: behind the cut of one the next ones are whole, which a power cut may well do.
        for cut in (known..bytes.len()).step_by(13) {
            for zeros in [false, true] {
                let disk = written.disk.copy();
                let mut cut_bytes = bytes[..cut].to_vec();
                if zeros {
                    cut_bytes.resize(bytes.len(), 0);
                }
                disk.put(&name, &cut_bytes);
                let (seen, missing, report) = reopen(&disk);
                assert_eq!((&missing[..], &report.corrupt[..]), (&[][..], &[][..]), "{name} cut at {cut}");
                assert!(seen.len() >= durable, "{name} cut at {cut}: {} of {durable} entries", seen.len());
                assert_eq!(seen, written.log[..seen.len()], "{name} cut at {cut}");
                checked += 1;
            }
        }
    }
    assert!(checked > 1_000, "the tail is worth the test: {checked}");
}

#[test]
fn a_flipped_bit_below_the_mark_costs_one_entry_at_most_and_is_reported() {
    let written = written(2);
    let names: Vec<_> = written.disk.names().into_iter().filter(|name| name.ends_with(".seg")).collect();
    let mut luck = luck(7);
    let mut lost_entries = 0;
    for _ in 0..400 {
        let name = &names[luck(names.len() as u64 - 1) as usize];
        let len = written.disk.bytes(name).len();
        let (byte, bit) = (luck(len as u64 - 1) as usize, luck(7) as u8);
        let disk = written.disk.copy();
        disk.flip(name, byte, bit);

        let verified = verify_disk(Arc::new(disk.copy())).unwrap();
        let (seen, missing, report) = reopen(&disk);
        assert_eq!(report.unreadable, [""; 0], "{name} byte {byte}: a head is written twice");
        let lost: Vec<_> = written.log.iter().filter(|entry| !seen.contains(entry)).collect();
        let ranges: Vec<_> = lost.iter().map(|entry| (entry.1, entry.1 + entry.2.len() as u64 - 1)).collect();
        if ranges.iter().all(|(_, last)| *last <= written.durable) {
            assert!(lost.len() <= 1, "{name} byte {byte} costs {ranges:?}");
            assert_eq!(missing, ranges, "{name} byte {byte}: a reader is told");
            let verified: Vec<_> = verified.corrupt.iter().map(|missing| (missing.first, missing.last)).collect();
            assert_eq!(verified, ranges, "{name} byte {byte}: verify says so");
            lost_entries += lost.len();
        } else {
            // Above the mark nothing says that it was ever whole.
            assert_eq!(seen, written.log[..seen.len()]);
            assert_eq!(missing, []);
        }
    }
    assert!(lost_entries > 100, "the flips hit entries: {lost_entries}");
}

#[test]
fn corruption_where_a_restart_has_to_read_is_in_the_report() {
    let Written { disk, log, .. } = written(2);
    let newest = disk.names().into_iter().rfind(|name| name.ends_with(".seg")).unwrap();
    let bytes = disk.bytes(&newest);
    let last = log.iter().rfind(|entry| entry.2.len() == 2 && entry.2[0][0] < 58).unwrap();
    let at = bytes.windows(90).position(|window| window == &last.2[0][..90]).expect("the newest segment has it");
    disk.flip(&newest, at, 3);

    let (_, missing, report) = reopen(&disk);
    assert_eq!(report.corrupt, [(last.1, last.1 + 1)]);
    assert_eq!(missing, report.corrupt);
}

#[test]
fn offsets_of_a_cut_tail_are_not_used_again() {
    let Written { disk, log, .. } = written(30);
    let highest = log.last().unwrap().1 + 2;
    let newest = disk.names().into_iter().rfind(|name| name.ends_with(".seg")).unwrap();
    let bytes = disk.bytes(&newest);
    disk.put(&newest, &bytes[..bytes.len() - 1]);
    let begun = recover(&disk).unwrap().begin(Vec::new(), Timestamp(0), "0.0.0").unwrap();
    assert!(begun.offset > highest, "{} is not behind {highest}", begun.offset);
}

#[test]
fn an_entry_of_nonsense_with_a_good_checksum_ends_early_and_harms_nothing_else() {
    let disk = SimDisk::default();
    let mut writer = open(&disk);
    let nonsense = ItemBuffer::raw(&[0xff; 40], 3);
    append(&mut writer, &nonsense);
    let (good, _) = append(&mut writer, &rows(1, b"good"));
    disk.kill();

    let writer = open(&disk);
    let mut cursor = writer.reader().cursor(SpoolPosition::START);
    let mut firsts = Vec::new();
    while let Some(Step::Entry(entry)) = cursor.next(u64::MAX).unwrap() {
        let mut items = entry.items();
        firsts.push((entry.first, items.by_ref().count(), items.left()));
    }
    assert!(firsts.contains(&(2, 0, 3)), "three items that nobody can read: {firsts:?}");
    assert!(firsts.contains(&(good, 1, 0)));
}

fn survive(disk: &SimDisk) {
    drop(verify_disk(Arc::new(disk.copy())));
    drop(dump_disk(Arc::new(disk.copy()), DumpFormat::Json, &mut Vec::new()));
    if let Ok(recovery) = recover(disk) {
        let begun = recovery.begin(Vec::new(), Timestamp(0), "0.0.0").unwrap();
        read(&begun.writer.reader(), SpoolPosition::START);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_of_anything_are_survived(files in vec((1..40_u64, vec(any::<u8>(), 0..5_000)), 1..4)) {
        let disk = SimDisk::default();
        for (first, bytes) in &files {
            disk.put(&segment_name(*first), bytes);
        }
        survive(&disk);
    }

    #[test]
    fn segments_with_pieces_of_one_another_are_survived(
        pieces in vec((any::<u16>(), any::<u16>(), 0..3_000_usize, any::<(u8, u8)>()), 1..6),
    ) {
        let disk = written(5).disk;
        let names: Vec<_> = disk.names().into_iter().filter(|name| name.ends_with(".seg")).collect();
        for (from, to, len, (source, target)) in pieces {
            let source = disk.bytes(&names[source as usize % names.len()]);
            let target_name = &names[target as usize % names.len()];
            let mut target = disk.bytes(target_name);
            let from = from as usize % source.len();
            let piece = &source[from..source.len().min(from + len)];
            let to = to as usize % target.len();
            let end = target.len().min(to + piece.len());
            target.splice(to..end, piece.iter().copied());
            disk.put(target_name, &target);
        }
        survive(&disk);
    }
}

#[test]
fn lengths_of_four_gigabytes_are_not_believed() {
    let disk = written(1).disk;
    for name in disk.names().into_iter().filter(|name| name.ends_with(".seg")) {
        let mut bytes = disk.bytes(&name);
        let magics = [(&b"TIDESPL1"[..], 12), (&entry::MAGIC[..], 4)];
        for (magic, len_at) in magics {
            let places: Vec<_> = (0..bytes.len() - 20).filter(|&at| bytes[at..].starts_with(magic)).collect();
            for at in places {
                bytes[at + len_at..at + len_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            }
        }
        disk.put(&name, &bytes);
    }
    let error = recover(&disk).unwrap_err();
    assert!(error.to_string().contains("continuity"), "{error}");
}
