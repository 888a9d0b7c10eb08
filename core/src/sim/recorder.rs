//! What the log has said so far: every durable item, read as soon as it is, and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::{
    engine::SPOOL,
    machine,
    venue::{SECOND, STREAMS, Venue},
};
use crate::{
    intake::{Continuity, row_hash},
    ledger::{Fold, Shelf},
    protocol::GapId,
    row::Timestamp,
    spool::{
        Boot, Control, Cursor, GapOutcome, Item, ItemBuffer, Recovery, RowHead, SpoolOptions, SpoolPosition,
        SpoolReader, Standing, Step, whole::all_items,
    },
    testkit::{Failure, SimDisk},
};

/// A row of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) boot: Boot,
    pub(super) record: usize,
    pub(super) epoch: u32,
}

#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub(super) position: Option<SpoolPosition>,
    pub(super) rows: BTreeMap<u64, Row>,
    /// What each offset holds, by its boot and a checksum.
    items: BTreeMap<u64, (Boot, u32)>,
    pub(super) continuity: Continuity,
    /// The first record and the time from which on each stream is owed.
    pub(super) owed_from: [Option<(usize, i64)>; STREAMS.len()],
    /// Streams that were left and forgotten.
    pub(super) begins_anew: [bool; STREAMS.len()],
    /// Records that the log says are lost.
    pub(super) lost: BTreeSet<usize>,
    /// Records that were believed not to be, since the session that was the first one lasted.
    pub(super) trusted: BTreeSet<usize>,
    /// What is known of each stream's time: the ledger, and what is in its file.
    ledger: Fold,
    pub(super) shelf: Shelf,
    /// Offsets that could not be read.
    pub(super) missing: Vec<(u64, u64)>,
    /// The last of them, until the ledger has begun anew with what intake knew behind it.
    torn: Option<u64>,
    /// Offsets that were dropped, by sink.
    pub(super) dropped: Vec<(String, u64, u64)>,
    items_of_one: ItemBuffer,
    /// What the log says, in words, where somebody wants to read it.
    pub(super) told: Option<Vec<String>>,
}

/// Why a segment was not read to its end.
enum Broken {
    Rule(String),
    Disk,
}

impl From<crate::Error> for Broken {
    fn from(_: crate::Error) -> Self {
        Self::Disk
    }
}

impl Recorder {
    /// Returns a cursor that goes on where it has got to.
    pub(super) fn cursor(&self, reader: &SpoolReader) -> Cursor {
        reader.cursor(self.position.unwrap_or(SpoolPosition::START))
    }

    /// The ledger begins anew where it is, as it does at each start of a process.
    pub(super) fn resume_ledger(&mut self, reader: &SpoolReader) {
        let Some(position) = self.position.filter(|at| reader.check(*at) == Standing::Retained) else { return };
        let Ok(Some((at, snapshot))) = reader.snapshot(position.offset) else { return };
        let (Ok(restored), Ok(mut continuity)) = (Continuity::restore(&snapshot), Continuity::restore(&snapshot))
        else {
            return;
        };
        let mut ledger = Fold::restoring(restored);
        let mut cursor = reader.cursor(at);
        self.torn = None;
        while let Ok(Some(step)) = cursor.next(position.offset) {
            fold(&mut continuity, &step);
            match step {
                Step::Missing { last, .. } => self.torn = Some(last),
                Step::Entry(entry) => entry.items().for_each(|(_, item)| match item {
                    Item::Row(row, _) => ledger.row(&row),
                    Item::Control(control) => ledger.control(&control),
                }),
            }
        }
        ledger.resume(self.shelf.lines());
        if reader.lost() > 0 {
            ledger.doubt();
            // Intake knows no more than that, and gives names of gaps a second time.
            self.continuity = continuity;
        }
        self.shelf.save(&mut ledger);
        self.ledger = ledger;
    }

    /// It does so too behind a head that follows what cannot be read: there it stands what intake knew.
    pub(super) fn look_behind_loss(&mut self, reader: &SpoolReader) {
        let (Some(torn), Some(position)) = (self.torn, self.position) else { return };
        if reader.has_snapshot_between(torn, position.offset).unwrap_or(false) {
            self.resume_ledger(reader);
        }
    }

    /// Reads on, up to an offset at most.
    pub(super) fn read(&mut self, cursor: &mut Cursor, upto: u64, venue: &Venue) -> Result<(), String> {
        // What fails for a reader it reads later.
        while let Ok(Some(step)) = cursor.next(upto) {
            match step {
                Step::Missing { first, last } => self.dig(first, last, venue)?,
                Step::Entry(entry) => {
                    for (offset, item) in entry.items() {
                        self.item(offset, entry.boot, item, venue)?;
                    }
                }
            }
            self.position = Some(cursor.position());
        }
        self.shelf.save(&mut self.ledger);
        Ok(())
    }

    fn item(&mut self, offset: u64, boot: Boot, item: Item<'_>, venue: &Venue) -> Result<(), String> {
        self.items.insert(offset, (boot, checksum(&mut self.items_of_one, &item)));
        match item {
            Item::Row(row, bytes) => self.row(offset, boot, &row, bytes),
            Item::Control(control) => {
                if let Some(told) = &mut self.told {
                    told.push(format!("offset {offset}: {control:?}"));
                }
                self.control(&control, venue)?;
            }
        }
        Ok(())
    }

    /// Reads what was dropped before it was read: where the spool drops its oldest rows that is no fault, and what the log
    /// said all the same holds.
    fn dig(&mut self, first: u64, last: u64, venue: &Venue) -> Result<(), String> {
        // A file that is on its way out may still be there.
        let removed = machine::disk_with(Path::new(SPOOL)).unwrap_or_default().with_removed();
        let mut done = first - 1;
        let dug = all_items(&removed, (first, last), |behind, offset, boot, item| {
            if behind <= done && (done + 1..=last).contains(&offset) {
                done = offset;
                self.item(offset, boot, item, venue).map_err(Broken::Rule)?;
            }
            Ok(())
        });
        match dug {
            Err(Broken::Rule(error)) => return Err(error),
            // What cannot be read is missing.
            Err(Broken::Disk) | Ok(()) => {}
        }
        if done < last {
            self.missing.push((done + 1, last));
            self.torn = Some(last);
            self.ledger.unreadable();
        }
        Ok(())
    }

    /// I6, I7: what a restart finds on a disk is what was seen, and what follows from its last head is what follows from all.
    /// Reads on to the end that a restart will find.
    pub(super) fn compare_restart(
        &mut self,
        disk: SimDisk,
        options: SpoolOptions,
        venue: &Venue,
    ) -> Result<(), String> {
        let (continuity, end, reader) = self.recover(disk, options)?;
        let mut cursor = self.cursor(&reader);
        self.read(&mut cursor, end, venue)?;
        self.compare_continuity(&continuity)
    }

    /// The same of a disk whose power fails now, which goes on all the same.
    pub(super) fn compare_power_cut(&self, disk: SimDisk, options: SpoolOptions) -> Result<(), String> {
        let (continuity, end, _) = self.recover(disk, options)?;
        let is_known = self.position.is_some_and(|position| position.offset == end);
        if is_known { self.compare_continuity(&continuity) } else { Ok(()) }
    }

    fn recover(&self, disk: SimDisk, options: SpoolOptions) -> Result<(Continuity, u64, SpoolReader), String> {
        disk.fail(Failure::None);
        let failed = |error: crate::Error| format!("I7: a copy cannot be opened: {}", error.chain());
        let recovery = Recovery::open(Arc::new(disk), options).map_err(failed)?;
        let mut continuity = Continuity::restore(recovery.snapshot().unwrap_or_default()).map_err(failed)?;
        recovery.streams().into_iter().for_each(|(id, info)| continuity.add_stream(id, &info.source, &info.key));
        let recovery = recovery.replay(|step| fold(&mut continuity, &step)).map_err(failed)?;
        let end = recovery.report().end;
        let reader = recovery.begin(Vec::new(), Timestamp(0), "").map_err(failed)?.writer.reader();
        if let Some(position) = self.position {
            let standing = reader.check(position);
            if standing != Standing::Retained || end < position.offset {
                return Err(format!("I7: {position} was durable, and a restart ends at {end}: {standing:?}"));
            }
        }
        Ok((continuity, end, reader))
    }

    fn compare_continuity(&self, continuity: &Continuity) -> Result<(), String> {
        if self.missing.is_empty() && self.continuity != *continuity {
            return Err(format!("I6: a head and what follows say {continuity:#?}, all items {:#?}", self.continuity));
        }
        Ok(())
    }

    /// Reads all that is retained once more: nothing that was seen may have changed (I4).
    pub(super) fn compare(&mut self, reader: &SpoolReader) -> Result<(), String> {
        let mut cursor = reader.cursor(reader.oldest());
        while let Ok(Some(step)) = cursor.next(u64::MAX) {
            let Step::Entry(entry) = step else { continue };
            for (offset, item) in entry.items() {
                let now = (entry.boot, checksum(&mut self.items_of_one, &item));
                if let Some(before) = self.items.get(&offset)
                    && *before != now
                {
                    return Err(format!("I4: offset {offset} was {before:x?} and is {now:x?}: {item:?}"));
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, offset: u64, boot: Boot, row: &RowHead, bytes: &[u8]) {
        // Behind one word of presence bits.
        let record = bytes.get(8..16).and_then(|record| record.try_into().ok()).map_or(0, u64::from_le_bytes);
        if let Some(told) = &mut self.told {
            told.push(format!(
                "offset {offset}: record {record}, stream {}, {:?}, epoch {}",
                row.head.stream, row.head.position, row.epoch
            ));
        }
        self.rows.insert(offset, Row { boot, record: record as usize, epoch: row.epoch });
        self.continuity.apply_row(row, row_hash(&row.head, bytes));
        self.ledger.row(row);
    }

    fn control(&mut self, control: &Control, venue: &Venue) -> Result<(), String> {
        match control {
            Control::GapClosed { gap, stream, outcome, .. } => self.closed(*gap, *stream, outcome, venue)?,
            Control::Dropped { sinks, offsets: Some((first, last)), .. } => {
                self.dropped.extend(sinks.iter().map(|sink| (sink.clone(), *first, *last)));
            }
            // It was left, and has no row any more: should it come again it begins anew.
            Control::Retired { stream } => {
                if let Some(stream) = self.stream(*stream) {
                    self.owed_from[stream] = None;
                    self.begins_anew[stream] = true;
                }
            }
            _ => {}
        }
        self.continuity.apply(control);
        self.ledger.control(control);
        if let Control::Confirmed { streams, venue_at, .. } = control {
            for (stream, _) in streams {
                let Some(stream) = self.stream(*stream) else { continue };
                let at = venue_at.0 / SECOND;
                let first = venue.market.made.iter().position(|made| made.ts > at);
                self.owed_from[stream].get_or_insert_with(|| (first.unwrap_or(venue.market.made.len()), at));
            }
        }
        Ok(())
    }

    fn closed(&mut self, gap: GapId, number: u32, outcome: &GapOutcome, venue: &Venue) -> Result<(), String> {
        let Some(stream) = self.stream(number) else { return Ok(()) };
        let Venue { market, gave_up, .. } = venue;
        // A gap that is open at the right also has what was made since the venue has numbered anew and nobody heard of it.
        let known = self.continuity.epoch_of(number).unwrap_or_default();
        let is_open = self.continuity.missing_in(number, gap).iter().any(|(_, to)| *to == Timestamp(i64::MAX));
        // The venue may have numbered anew more than once while nobody heard it: the numberings of the log are fewer then.
        let here: BTreeSet<usize> = self.rows.values().map(|row| row.record).collect();
        let is_lacking = |record: &usize| {
            let made = &market.made[*record];
            if here.contains(record) {
                return false;
            }
            let is_unheard = is_open && made.epoch > known && !matches!(outcome, GapOutcome::Absent);
            made.stream == stream && (is_unheard || self.continuity.lacks(gap, made.epoch, made.n))
        };
        let lacking: Vec<usize> = (0..market.made.len()).filter(is_lacking).collect();
        let has_given_up = gave_up.contains(&gap);
        match outcome {
            GapOutcome::Absent if !lacking.is_empty() => {
                return Err(format!("I15: records {lacking:?} were made, and are said to be absent"));
            }
            GapOutcome::Lost(_) if has_given_up => self.lost.extend(lacking),
            GapOutcome::Lost(why) => {
                return Err(format!("a gap of stream {} is lost without a reason: {why}", STREAMS[stream].0));
            }
            GapOutcome::Live if has_given_up => self.trusted.extend(lacking),
            GapOutcome::Absent | GapOutcome::Live | GapOutcome::Backfilled | GapOutcome::Resynchronised => {}
        }
        Ok(())
    }

    /// Returns which stream of the venue a number stands for.
    pub(super) fn stream(&self, number: u32) -> Option<usize> {
        let (_, key) = self.continuity.name(number)?;
        STREAMS.iter().position(|(symbol, _)| **symbol == *key.symbol)
    }

    /// Returns whether the log knows a record of the present numbering of a stream of the venue.
    pub(super) fn knows_numbering(&self, stream: usize, epoch: u32) -> bool {
        let number = self.continuity.stream_ids().find(|number| self.stream(*number) == Some(stream));
        number.and_then(|number| self.continuity.epoch_of(number)) == Some(epoch)
    }

    /// The spool was restored from a copy that ends here: all behind it has not happened.
    pub(super) fn went_back(&mut self) {
        let (lost, trusted) = (std::mem::take(&mut self.lost), std::mem::take(&mut self.trusted));
        let (told, begins_anew) = (self.told.take(), self.begins_anew);
        *self = Self { lost, trusted, told, begins_anew, ..Self::default() };
    }
}

fn fold(continuity: &mut Continuity, step: &Step<'_>) {
    let Step::Entry(entry) = step else { return };
    for (_, item) in entry.items() {
        match item {
            Item::Row(row, bytes) => continuity.apply_row(&row, row_hash(&row.head, bytes)),
            Item::Control(control) => continuity.apply(&control),
        }
    }
}

fn checksum(buffer: &mut ItemBuffer, item: &Item<'_>) -> u32 {
    buffer.clear();
    match item {
        Item::Row(row, bytes) => buffer.push_row(row, bytes),
        Item::Control(control) => _ = buffer.push_control(control),
    }
    crc32c::crc32c(buffer.bytes())
}
