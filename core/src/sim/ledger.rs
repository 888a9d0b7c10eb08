//! What the ledger says beside what the venue made (I14, I15, I16).

use super::{
    market::Made,
    venue::{self, SECOND, STREAMS},
    world::World,
};
use crate::{
    ledger::{Mark, State},
    row::{Numbering, Timestamp},
};

/// The venue's times are whole seconds, and may go back by one: at a border both sides may be meant.
const NEAR: i64 = SECOND;

/// What is not there is nowhere claimed, and what could have been had is lost in words; nothing overlaps.
pub(super) fn says_the_truth(world: &World) -> Result<(), String> {
    let recorder = &world.recorder;
    let there: std::collections::BTreeSet<usize> = recorder.rows.values().map(|row| row.record).collect();
    for (stream, (symbol, _)) in STREAMS.iter().enumerate() {
        let marks = recorder.shelf.marks(&venue::key(stream));
        is_a_timeline(marks).map_err(|error| format!("I16: stream {symbol}: {error}"))?;
        if marks.iter().any(|mark| mark.known.state == State::Open) {
            return Err(format!("I16: all gaps of stream {symbol} are closed, and the ledger says {}", shown(marks)));
        }
        let Some((first, at)) = recorder.owed_from[stream] else { continue };
        for (record, made) in world.venue.market.made.iter().enumerate().skip(first) {
            let is_there = there.contains(&record) || recorder.trusted.contains(&record);
            if made.stream == stream && made.ts > at && !is_there {
                is_not_claimed(world, record, made, marks)?;
            }
        }
    }
    Ok(())
}

fn is_not_claimed(world: &World, record: usize, made: &Made, marks: &[Mark]) -> Result<(), String> {
    let near = said_near(marks, made);
    let is_repeatable = STREAMS[made.stream].1 != Numbering::Unnumbered;
    // What nobody repeats, and was on its way when a line was cut, may lie before a time that is claimed.
    if is_repeatable && near.iter().all(|state| state.is_complete()) {
        return Err(format!(
            "I14: record {record} {made:?} is not there, and the ledger says {near:?} of {}",
            shown(marks)
        ));
    }
    // Where a bit has taken along what intake knew by an entry, nobody can tell.
    let is_unknown = world.has_flipped && near.contains(&State::Unknown);
    if is_repeatable && !near.contains(&State::NotSubscribed) && !near.contains(&State::Lost) && !is_unknown {
        return Err(format!(
            "I14: record {record} {made:?} was given up, and the ledger says {near:?} of {}",
            shown(marks)
        ));
    }
    Ok(())
}

/// Returns what is said of the times about a record.
fn said_near(marks: &[Mark], made: &Made) -> Vec<State> {
    let (first, last) = (Timestamp(made.ts * SECOND - NEAR), Timestamp(made.ts * SECOND + NEAR));
    let ends = marks.iter().skip(1).map(|mark| mark.from).chain([Timestamp(i64::MAX)]);
    let near = marks.iter().zip(ends).filter(|(mark, end)| mark.from <= last && first <= *end);
    near.map(|(mark, _)| mark.known.state).collect()
}

fn is_a_timeline(marks: &[Mark]) -> Result<(), String> {
    if !marks.is_sorted_by(|one, other| one.from < other.from) {
        return Err(format!("marks overlap: {}", shown(marks)));
    }
    if marks.windows(2).any(|pair| pair[0].known == pair[1].known) {
        return Err(format!("two neighbours say the same: {}", shown(marks)));
    }
    Ok(())
}

fn shown(marks: &[Mark]) -> String {
    let word = |mark: &Mark| format!("{:.1} {}", mark.from.0 as f64 / SECOND as f64, mark.known.state.name());
    marks.iter().map(word).collect::<Vec<_>>().join(", ")
}
