//! What has to hold in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    engine::letters_of,
    machine,
    store::{Kind, Store},
    venue::STREAMS,
    world::{World, locked},
};
use crate::{
    deadletter::{DeadLetter, DeadLetters},
    row::Numbering,
    spool::Cause,
};

/// I1, I2, I12: all that was made is in the log once, and all that is in the log is in each store once, or has another fate.
pub(super) fn all_is_there(world: &mut World) -> Result<(), String> {
    if world.log_went_back {
        return nothing_is_wrong(world);
    }
    the_log_has_all(world)?;
    each_session_is_a_prefix(world)?;
    for sink in 0..world.stores.len() {
        let store = locked(&world.stores[sink]);
        the_store_has_all(world, &store, sink)?;
        world.summary.stored += store.rows().len();
    }
    Ok(())
}

/// What holds also where somebody has restored something, and it was noticed: nothing is doubled, nothing made up.
pub(super) fn nothing_is_wrong(world: &World) -> Result<(), String> {
    for store in &world.stores {
        once(world, &locked(store))?;
    }
    Ok(())
}

/// Returns whether the log says that a record cannot be had, or believes that it is not.
pub(super) fn is_excused(world: &World, record: usize) -> bool {
    world.recorder.lost.contains(&record) || world.recorder.trusted.contains(&record)
}

fn the_log_has_all(world: &World) -> Result<(), String> {
    let mut there: BTreeMap<usize, u64> = BTreeMap::new();
    for (offset, row) in &world.recorder.rows {
        let Some(made) = world.venue.market.made.get(row.record) else {
            return Err(format!("offset {offset} holds record {}, which nobody made", row.record));
        };
        // With an entry a flipped bit takes along what intake knew by it (I8), such as that the venue numbers anew. And a
        // stream that was left, and whose rows are all gone, begins with a first numbering when it comes again.
        let is_known = !world.has_flipped && !world.recorder.begins_anew[made.stream];
        if STREAMS[made.stream].1 == Numbering::Sequence && row.epoch != made.epoch && is_known {
            return Err(format!("offset {offset}: {made:?} is in numbering {}", row.epoch));
        }
        // What a bit has taken along is not known any more, and is asked for again (I8).
        if let Some(first) = there.insert(row.record, *offset)
            && !world.has_flipped
        {
            return Err(format!("I1: record {} {made:?} is in the log twice: {first} and {offset}", row.record));
        }
    }
    let mut lacking = Vec::new();
    for (record, made) in world.venue.market.made.iter().enumerate() {
        let owed = world.recorder.owed_from[made.stream];
        let is_owed = owed.is_some_and(|(first, at)| record >= first && made.ts > at);
        let is_repeatable = STREAMS[made.stream].1 != Numbering::Unnumbered;
        if is_owed && is_repeatable && !there.contains_key(&record) && !is_excused(world, record) {
            lacking.push((record, made));
        }
    }
    // What a bit has taken along the ledger has to say.
    if !lacking.is_empty() && !world.has_flipped {
        return Err(format!("I1: not in the log, and nobody says why: {lacking:?}"));
    }
    Ok(())
}

/// Of what nobody repeats the log has, of each session, all that came up to some place and nothing behind it.
fn each_session_is_a_prefix(world: &World) -> Result<(), String> {
    let there: BTreeSet<usize> = world.recorder.rows.values().map(|row| row.record).collect();
    let is_repeatable = |record: &usize| STREAMS[world.venue.market.made[*record].stream].1 != Numbering::Unnumbered;
    for (session, records) in &world.venue.delivered {
        let mut unrepeatable = records.iter().filter(|record| !is_repeatable(record));
        let lacking = unrepeatable.by_ref().find(|record| !there.contains(record));
        let later = unrepeatable.find(|record| there.contains(record));
        if let (Some(lacking), Some(later), true) = (lacking, later, world.recorder.missing.is_empty()) {
            return Err(format!("I1: of session {session} the log has record {later}, and lacks {lacking} before it"));
        }
    }
    Ok(())
}

/// Every row of a store is one of the log, and no row is there twice.
fn once(world: &World, store: &Store) -> Result<BTreeSet<u64>, String> {
    let mut records: BTreeMap<u64, Cause> = BTreeMap::new();
    let mut offsets = BTreeSet::new();
    for (_, cause, record) in store.rows() {
        if let Some(first) = records.insert(record, cause)
            && !world.has_flipped
        {
            let made = world.venue.market.made.get(record as usize);
            return Err(format!("I1: {} has record {record} {made:?} twice: {first:?}, {cause:?}", store.name));
        }
        if let Some(row) = world.recorder.rows.get(&cause.offset)
            && !world.has_restored
            && (row.boot, row.record as u64) != (cause.boot, record)
        {
            return Err(format!("{} has record {record} of {cause:?}, the log has {row:?}", store.name));
        }
        offsets.insert(cause.offset);
    }
    Ok(offsets)
}

fn the_store_has_all(world: &World, store: &Store, sink: usize) -> Result<(), String> {
    let offsets = once(world, store)?;
    let letters = letters(sink);
    let keys: BTreeSet<Cause> = letters.iter().map(DeadLetter::cause).collect();
    let dropped = world.recorder.dropped.iter().filter(|(name, _, _)| *name == store.name);
    let dropped: Vec<(u64, u64)> = dropped.map(|(_, first, last)| (*first, *last)).collect();
    let is_in =
        |ranges: &[(u64, u64)], offset: u64| ranges.iter().any(|(first, last)| (*first..=*last).contains(&offset));
    let mut lacking = Vec::new();
    for (offset, row) in &world.recorder.rows {
        let cause = Cause { boot: row.boot, offset: *offset, sub: 0 };
        let (is_stored, is_letter) = (offsets.contains(offset), keys.contains(&cause));
        let record = row.record as u64;
        // What a bit has made unreadable a store that keeps no position may have got before.
        let may_be_both = world.has_flipped && store.kind == Kind::Keyed && !store.has_refused.contains(&record);
        if is_stored && is_letter && !may_be_both {
            return Err(format!("I2: {} has {cause:?}, and it is a dead letter", store.name));
        }
        // What a bit has taken along may be what the number of a stream stands for: a row that nobody can read any more is kept
        // as a dead letter, which is a fate (I2).
        if is_letter && !store.has_refused.contains(&record) && !world.has_flipped {
            return Err(format!("I2: {cause:?} is a dead letter of {}, which never refused it", store.name));
        }
        if !is_stored && !is_letter && !is_in(&dropped, *offset) {
            lacking.push((cause, row.record));
        }
        if is_stored && is_in(&dropped, *offset) {
            return Err(format!("I2: {} has {cause:?}, which is said to be dropped for it", store.name));
        }
    }
    if !lacking.is_empty() && !world.has_flipped {
        return Err(format!("I1: {} ({:?}) lacks {lacking:?}", store.name, store.kind));
    }
    let is_behind = store.kind != Kind::Keyed && store.durable() != world.recorder.position;
    if is_behind && !world.has_restored {
        let (at, end) = (store.durable(), world.recorder.position);
        return Err(format!("{} stands at {at:?}, the log ends at {end:?}", store.name));
    }
    Ok(())
}

/// Returns the dead letters of a sink.
fn letters(sink: usize) -> Vec<DeadLetter> {
    let disk = machine::disk_with(&letters_of(sink)).unwrap_or_default();
    let bytes = disk.bytes(DeadLetters::FILE_NAME);
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}
