//! What the ledger says of random histories, beside what the venue made.

use super::{
    super::{
        host::Logged,
        ledger::{ledger_of, show},
    },
    *,
};
use crate::{
    intake::continuity::Continuity,
    ledger::{Fold, Mark, State},
    row::Timestamp,
};

/// The venue's times are whole seconds, and may go back by one: at a border both sides may be meant.
const NEAR: i64 = SECOND;

/// Returns what is said of the times about a record.
fn said_near(marks: &[Mark], made: &Made) -> Vec<State> {
    let (first, last) = (Timestamp(made.ts * SECOND - NEAR), Timestamp(made.ts * SECOND + NEAR));
    let ends = marks.iter().skip(1).map(|mark| mark.from).chain([Timestamp(i64::MAX)]);
    let near = marks.iter().zip(ends).filter(|(mark, end)| mark.from <= last && first <= *end);
    near.map(|(mark, _)| mark.known.state).collect()
}

/// Returns how many records are lost.
fn assert_true(world: &World, ledger: &Fold, seed: u64) -> usize {
    let mut all_lost = 0;
    let is_row = |item: &Logged| match item {
        Logged::Row(_, record) => Some(*record as usize),
        Logged::Control(_) => None,
    };
    let stored: BTreeSet<usize> = world.host.log.iter().filter_map(is_row).collect();
    for (record, made) in world.market.made.iter().enumerate() {
        let Some((first, at)) = world.owed_from[made.stream] else { continue };
        // The ledger says what the log says.
        let is_there = stored.contains(&record) || world.trusted.contains(&record);
        if record < first || made.ts <= at || is_there {
            continue;
        }
        let marks = ledger.marks(made.stream as u32);
        let near = said_near(marks, made);
        let is_claimed = near.iter().all(|state| matches!(state, State::Received | State::Backfilled | State::Absent));
        assert!(!is_claimed, "seed {seed}: {made:?} is not there, and the ledger says {near:?} of {marks:#?}");
        // What was made while it was not subscribed to was promised to nobody.
        if near.contains(&State::NotSubscribed) {
            continue;
        }
        all_lost += 1;
        assert!(
            near.contains(&State::Lost),
            "seed {seed}: {made:?} was given up, the ledger says {near:?} of {marks:#?}"
        );
    }
    for stream in 0..STREAMS.len() {
        let marks = ledger.marks(stream as u32);
        assert!(marks.is_sorted_by(|one, other| one.from < other.from), "seed {seed}: {marks:?}");
        assert!(marks.windows(2).all(|pair| pair[0].known != pair[1].known), "seed {seed}: {marks:?}");
        let lost = marks.iter().filter(|mark| mark.known.state == State::Lost).count();
        let given_up = world.given_up.iter().filter(|given_up| **given_up == stream).count();
        assert!(
            lost == 0 || given_up > 0,
            "seed {seed}: {lost} stretches are lost of stream {stream}, without a reason"
        );
        let is_absent = marks.iter().any(|mark| mark.known.state == State::Absent);
        let skipped = !world.market.books[stream].skipped.is_empty();
        assert!(!is_absent || skipped, "seed {seed}: the venue gave all numbers of stream {stream}");
        let is_open = marks.iter().any(|mark| mark.known.state == State::Open);
        assert!(!is_open, "seed {seed}: all gaps are closed, and {marks:#?}");
    }
    all_lost
}

/// Cuts a log in two: a ledger is killed there, and goes on from the last head and what it has stored.
fn resumed(world: &World, snapshot: &(Vec<u8>, usize), place: usize) -> Fold {
    let log = &world.host.log;
    let mut before = ledger_of(&log[..place]);
    let stored = before.stored();
    before.saved();
    let mut after = Fold::restoring(Continuity::restore(&snapshot.0).unwrap());
    show(&mut after, &log[snapshot.1..place]);
    after.resume(stored);
    show(&mut after, &log[place..]);
    after
}

#[test]
fn the_ledger_of_any_history_says_lost_where_the_venue_made_what_is_not_there_and_nowhere_claims_it() {
    let mut lost = 0;
    for seed in 0..400 {
        let mut world = World::new(seed);
        world.host.checked = false;
        // One that soon forgets, so that something is lost.
        world.memory = [MEMORY, 60, 20, 8][seed as usize % 4];
        world.connect(0);
        let mut heads = Vec::new();
        for step in 0..300 {
            world.step();
            if step % 50 == 20 {
                heads.push((world.host.continuity.snapshot(), world.host.log.len()));
            }
        }
        world.heal();
        let ledger = ledger_of(&world.host.log);
        lost += assert_true(&world, &ledger, seed);
        let head = &heads[world.roll(heads.len() as u64)];
        let place = head.1 + world.roll((world.host.log.len() - head.1) as u64 + 1);
        let resumed = resumed(&world, head, place);
        for stream in 0..STREAMS.len() as u32 {
            assert_eq!(resumed.marks(stream), ledger.marks(stream), "seed {seed}: killed behind item {place}");
        }
    }
    assert!(lost > 100, "only {lost} records were lost: nothing was tried");
}
