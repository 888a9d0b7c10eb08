//! The spool's files: their heads, entries and items, also with checksums that are right.

use std::{fs, path::Path, sync::Arc};

use tidegate::{
    spool::{
        SegmentHead, SpoolPosition,
        inspect::{DumpFormat, dump, inspect, verify},
    },
    testkit::{InlineIntake, SimDisk},
};

use crate::{
    feeder::{self, Feeder},
    frames::{Feed, Kind},
    tried,
};

#[test]
fn any_segment_is_answered() {
    let (name, segment) = segment();
    tried("segment", &[segment], |bytes| open(&name, bytes));
}

#[test]
fn any_segment_whose_checksums_are_right_is_answered() {
    let (name, segment) = segment();
    let head = head(&segment).unwrap();
    tried("signed segment", &[segment], |bytes| {
        let mut bytes = bytes.to_vec();
        sign(&mut bytes, head.segment);
        open(&name, &bytes);
    });
}

/// Opens a spool of one file as a pipeline does, reads all of it, and now and then looks at it as the commands do, which takes
/// longer.
fn open(name: &str, bytes: &[u8]) {
    let disk = SimDisk::default();
    disk.put(name, bytes);
    let setup = feeder::setup(Path::new(""));
    if let Ok(intake) = InlineIntake::open(Arc::new(disk), setup) {
        let reader = intake.reader();
        let mut cursor = reader.cursor(SpoolPosition::START);
        while let Ok(Some(step)) = cursor.next(u64::MAX) {
            if let tidegate::spool::Step::Entry(entry) = step {
                entry.items().for_each(drop);
            }
        }
    }
    if !crc32c::crc32c(bytes).is_multiple_of(8) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(name), bytes).unwrap();
    drop(inspect(directory.path()));
    drop(verify(directory.path()));
    drop(dump(directory.path(), DumpFormat::Json, &mut std::io::sink()));
}

/// Returns a segment that a venue's frames have made.
pub(crate) fn segment() -> (String, Vec<u8>) {
    let disk = SimDisk::default();
    let mut intake = InlineIntake::open(Arc::new(disk.clone()), feeder::setup(Path::new(""))).unwrap();
    for (line, kind) in [Kind::Tickers, Kind::Trades].into_iter().enumerate() {
        let feed = Feed::own(kind, 40);
        let mut feeder = Feeder::begin(intake.link(line as u16, feeder::tables()), &feed);
        for frame in &feed.frames {
            feeder.read(frame);
            feeder.link().hand_over().unwrap();
            intake.enter().unwrap();
        }
    }
    intake.sync().unwrap();
    let name = disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let bytes = disk.bytes(&name);
    (name, bytes)
}

/// Reads the first head of a segment.
fn head(segment: &[u8]) -> Option<SegmentHead> {
    let length = u32::from_le_bytes(segment.get(12..16)?.try_into().ok()?) as usize;
    postcard::from_bytes(segment.get(PREFIX..PREFIX.checked_add(length)?)?).ok()
}

/// Makes the checksums of whatever looks like a head or an entry right.
fn sign(bytes: &mut [u8], segment: u64) {
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4).map(|four| u32::from_le_bytes(four.try_into().unwrap()));
    let seed = head(bytes).map_or(segment, |head| head.segment);
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(b"TIDESPL1") {
            let Some(end) = word(bytes, at + 12).and_then(|length| (at + PREFIX).checked_add(length as usize)) else {
                continue;
            };
            let Some(head) = bytes.get(at..end) else { continue };
            let crc = crc32c::crc32c_append(crc32c::crc32c(&head[8..16]), &head[PREFIX..]);
            bytes[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
        } else if bytes[at..].starts_with(b"TEn\xe7") {
            let Some(end) = word(bytes, at + 4).and_then(|length| at.checked_add(length as usize)) else { continue };
            let Some(entry) = bytes.get(at..end).filter(|entry| entry.len() >= 48) else { continue };
            let crc = crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), &entry[12..]);
            bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

const PREFIX: usize = 20;
