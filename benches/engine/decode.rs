//! Frame → log bytes, beside serde_json alone.

use std::{hint::black_box, path::Path, sync::Arc};

use tidegate_core::testkit::InlineIntake;

use crate::{
    clock::{Spent, Stopwatch, race},
    effort::Effort,
    feeder::{self, Feeder},
    frames::Feed,
    memory::Memory,
    table::{Table, at_least},
};

/// As many frames as a socket that is not empty gives at once become one entry.
const BURST: usize = 16;

/// After so many entries what is written is taken for durable.
const SYNC_EVERY: usize = 64;

pub(crate) fn run(effort: Effort) {
    let mut table = Table::new(&[
        "ns a frame, on one thread",
        "serde_json alone",
        "to rows",
        "ratio",
        "to log bytes",
        "ratio",
        "to log bytes, each frame an entry",
        "ratio",
    ]);
    for kind in effort.kinds() {
        for feed in [Some(Feed::own(kind, effort.frames)), Feed::recorded(kind, effort.frames)].into_iter().flatten() {
            let bare = || to_nothing(&feed);
            let rows = race(effort.rounds, || to_rows(&feed), bare);
            let log = race(effort.rounds, || to_log(&feed, BURST), bare);
            let single = race(effort.rounds, || to_log(&feed, 1), bare);
            let each = |spent: Spent| spent.cpu.as_nanos() as f64 / feed.frames.len() as f64;
            let ratio = |(ours, bare): (Spent, Spent)| bare.cpu.as_secs_f64() / ours.cpu.as_secs_f64();
            table.line([
                feed.name.clone(),
                format!("{:.0}", each(rows.1.best(log.1).best(single.1))),
                format!("{:.0}", each(rows.0)),
                format!("{:.2}", ratio(rows)),
                format!("{:.0}", each(log.0)),
                at_least(ratio(log), 0.8),
                format!("{:.0}", each(single.0)),
                format!("{:.2}", ratio(single)),
            ]);
        }
    }
    table.print(&format!(
        "1. frame → log bytes in memory, {BURST} frames an entry; thread CPU time, best of {}",
        effort.rounds
    ));
}

/// Reads frames into rows, which are then forgotten.
fn to_rows(feed: &Feed) -> Spent {
    let intake = InlineIntake::open(Arc::new(Memory), feeder::setup(Path::new(""))).expect("memory does not fail");
    let mut feeder = Feeder::begin(intake.link(0, feeder::tables()), feed);
    let watch = Stopwatch::of_this_thread();
    for burst in feed.frames.chunks(BURST) {
        burst.iter().for_each(|frame| feeder.read(frame));
        black_box(feeder.link().outbox().records());
        feeder.link().outbox().forget_records(0);
    }
    watch.read()
}

/// Reads frames as a program without an engine does.
fn to_nothing(feed: &Feed) -> Spent {
    let watch = Stopwatch::of_this_thread();
    for frame in &feed.frames {
        black_box(feed.kind.rows_of(frame));
    }
    watch.read()
}

/// Reads frames, and enters them in a log.
fn to_log(feed: &Feed, burst: usize) -> Spent {
    let mut intake = InlineIntake::open(Arc::new(Memory), feeder::setup(Path::new(""))).expect("memory does not fail");
    let mut feeder = Feeder::begin(intake.link(0, feeder::tables()), feed);
    // The session and its channels are no part of what a frame costs.
    feeder.link().hand_over().expect("intake is there");
    intake.enter().expect("memory does not fail");
    let mut rows = 0;
    let watch = Stopwatch::of_this_thread();
    for (number, burst) in feed.frames.chunks(burst).enumerate() {
        burst.iter().for_each(|frame| feeder.read(frame));
        feeder.link().hand_over().expect("intake is there");
        rows += intake.enter().expect("memory does not fail");
        if number % SYNC_EVERY == 0 {
            intake.sync().expect("memory does not fail");
        }
    }
    let spent = watch.read();
    assert_eq!(rows as usize, feed.rows, "{}: rows are lost, or doubled", feed.name);
    spent
}
