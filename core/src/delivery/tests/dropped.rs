//! A full spool that drops its oldest segments, two sinks that stand at different places, kills and power cuts at every
//! moment between: every row has exactly one fate for each sink (I2).

use std::{collections::BTreeMap, fs, sync::Arc};

use tokio::sync::watch;

use super::{
    super::{
        Delivery, Others, Setup, SpoolLog,
        feeder::{Bounds, Feeder, Read},
        log::Log,
    },
    spool::{append, open, source, streams, sync, trades},
};
use crate::{
    Error,
    config::{Commands, DeliveryConfig, TableChoice, WhenFull},
    health::Registry,
    row::{Table, Timestamp, kinds::Trade},
    spool::{Control, Item, ItemBuffer, SpoolPosition, SpoolWriter, Standing, Step},
    testkit::SimDisk,
};

const SEEDS: u64 = 150;

#[test]
fn each_row_is_stored_once_or_said_to_be_dropped_once_for_each_sink_in_any_history() {
    let (mut kills, mut dropped, mut held) = (0, 0, 0);
    for seed in 0..SEEDS {
        let world = World::new(seed).run();
        kills += world.kills;
        dropped += world.sinks.iter().map(|sink| sink.dropped.len()).sum::<usize>();
        held += world.held;
    }
    assert!(kills > 3 * SEEDS && held > SEEDS, "the histories were too quiet: {kills} kills, {held} segments in hand");
    assert!(dropped as u64 > 100 * SEEDS, "the histories were too quiet: {dropped} rows dropped");
}

#[test]
fn of_a_sink_whose_note_cannot_be_read_nothing_is_dropped_that_it_may_have() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), SimDisk::default());
    fs::write(directory.path().join("a.json"), "").unwrap();
    let mut writer = open(&disk, vec![source("deribit", Table::of::<Trade<'_>>())]);
    append(&mut writer, &streams());
    fill(&mut writer);
    let past = writer.synced_position().offset;
    let (_stop, stop) = watch::channel(None);
    let (_synced, synced) = watch::channel(writer.synced_position());
    let delivery = Delivery::new(Setup {
        pipeline: "test".to_owned(),
        sink: "a".to_owned(),
        factory: Arc::new(|| Err(Error::permanent("it is not opened"))),
        config: DeliveryConfig::default(),
        tables: TableChoice::All,
        derived: Default::default(),
        sources: vec![source("deribit", Table::of::<Trade<'_>>())],
        spool: 1,
        host: "here".to_owned(),
        directory: directory.path().to_owned(),
        when_full: WhenFull::DropOldest,
        log: SpoolLog::new(writer.reader()),
        synced,
        stop,
        others: Others::default(),
        health: Registry::new(),
        commands: Commands::default(),
    });
    let _delivery = delivery.unwrap();
    assert!(writer.take_oldest().is_none(), "it may have anything of what there is");

    fill(&mut writer);
    let old = writer.take_oldest().expect("what came since it cannot have");
    let (first, last) = old.offsets();
    assert!(first > past);
    let losses: Vec<_> = old.losses().unwrap().into_iter().map(|loss| (loss.sink, loss.offsets)).collect();
    assert_eq!(losses, [("a".to_owned(), (first, last))], "and it is said that it does not get it");
}

/// Fills some segments, durably.
fn fill(writer: &mut SpoolWriter) {
    for _ in 0..30 {
        if writer.wants_roll() {
            writer.roll(Vec::new()).unwrap();
        }
        append(writer, &trades(10, 0));
        sync(writer);
    }
}

/// One process after the other, on one disk, with two stores.
struct World {
    seed: u64,
    random: u64,
    disk: SimDisk,
    writer: SpoolWriter,
    sinks: [Sink; 2],
    /// Whoever reads all that is durable, as the ledger does, and all rows that it has seen.
    ledger: SpoolPosition,
    rows: Vec<u64>,
    kills: u64,
    held: u64,
}

struct Sink {
    name: &'static str,
    feeder: Feeder<SpoolLog>,
    /// Where the delivery stands; `None` where the store has to be opened first.
    at: Option<SpoolPosition>,
    /// What the store has.
    store: SpoolPosition,
    /// How often the store got each row.
    stored: BTreeMap<u64, u32>,
    /// A write of which nobody knows what has become.
    in_doubt: Option<(SpoolPosition, Vec<u64>)>,
    /// The file beside the spool.
    noted: (u64, u64),
    /// How often each row is said to be dropped for it.
    dropped: BTreeMap<u64, u32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::default();
        let mut writer = open(&disk, vec![source("deribit", Table::of::<Trade<'_>>())]);
        append(&mut writer, &streams());
        sync(&mut writer);
        let sinks = ["a", "b"].map(|name| Sink {
            name,
            feeder: feeder(&writer, name),
            at: None,
            store: SpoolPosition::START,
            stored: BTreeMap::new(),
            in_doubt: None,
            noted: (0, 0),
            dropped: BTreeMap::new(),
        });
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { seed, random, disk, writer, sinks, ledger: SpoolPosition::START, rows: Vec::new(), kills: 0, held: 0 }
    }

    fn run(mut self) -> Self {
        for _ in 0..150 {
            match self.up_to(16) {
                0..=6 => self.venue(),
                7..=8 => self.drop_oldest(),
                9 => self.kill(),
                n => self.deliver((n % 2) as usize),
            }
            self.look();
        }
        sync(&mut self.writer);
        self.look();
        for sink in 0..2 {
            self.finish(sink);
        }
        self.check();
        self
    }

    fn venue(&mut self) {
        if self.writer.wants_roll() {
            self.writer.roll(Vec::new()).unwrap();
        }
        let count = self.up_to(12) + 1;
        append(&mut self.writer, &trades(count, 0));
        if self.up_to(3) > 0 {
            sync(&mut self.writer);
        }
    }

    /// What intake does when the spool is full; a kill may come between any two steps.
    fn drop_oldest(&mut self) {
        let oldest = self.writer.reader().oldest();
        let Some(old) = self.writer.take_oldest() else { return };
        self.held += u64::from(self.writer.reader().oldest() == oldest);
        if self.is_unlucky() {
            return self.kill();
        }
        let mut items = ItemBuffer::default();
        for loss in old.losses().unwrap() {
            let (sinks, rows) = (vec![loss.sink], loss.rows.into_iter().collect());
            items.push_control(&Control::Dropped { sinks, rows, offsets: Some(loss.offsets), at: Timestamp(0) });
        }
        let (first, last) = old.offsets();
        items.push_control(&Control::SegmentDropped { first, last });
        append(&mut self.writer, &items);
        if self.is_unlucky() {
            return self.kill();
        }
        sync(&mut self.writer);
        if self.is_unlucky() {
            return self.kill();
        }
        let job = self.writer.remove(&old);
        if self.is_unlucky() {
            return self.kill();
        }
        job.run().unwrap();
    }

    fn is_unlucky(&mut self) -> bool {
        self.up_to(8) == 0
    }

    fn kill(&mut self) {
        self.kills += 1;
        if self.up_to(2) == 0 {
            self.disk.kill();
        } else {
            let luck = self.random;
            self.disk.cut_power(|pages| luck % (pages + 1));
        }
        self.writer = open(&self.disk, vec![source("deribit", Table::of::<Trade<'_>>())]);
        for sink in &mut self.sinks {
            (sink.feeder, sink.at) = (feeder(&self.writer, sink.name), None);
            sink.feeder.claim(sink.noted.0, sink.noted.1);
        }
    }

    /// Reads what is durable and new.
    fn look(&mut self) {
        let mut cursor = self.writer.reader().cursor(self.ledger);
        while let Some(step) = cursor.next(u64::MAX).unwrap() {
            let Step::Entry(entry) = step else { continue };
            for (offset, item) in entry.items() {
                match item {
                    Item::Row(..) => self.rows.push(offset),
                    Item::Control(Control::Dropped { sinks, rows, offsets: Some((first, last)), .. }) => {
                        let sink = self.sinks.iter_mut().find(|sink| sink.name == sinks[0]).unwrap();
                        let gone: Vec<_> = self.rows.iter().filter(|row| (first..=last).contains(*row)).collect();
                        let counted: u64 = rows.iter().map(|(_, rows)| rows).sum();
                        assert_eq!(counted, gone.len() as u64, "seed {}: {first} to {last}", self.seed);
                        gone.into_iter().for_each(|row| *sink.dropped.entry(*row).or_default() += 1);
                    }
                    Item::Control(_) => {}
                }
            }
        }
        self.ledger = cursor.position();
    }

    /// A step of a delivery.
    fn deliver(&mut self, sink: usize) {
        let fault = self.up_to(6);
        let lands = self.up_to(2) == 0;
        let is_noted = self.up_to(4) == 0;
        let synced = self.writer.synced_position().offset;
        let Sink { feeder, at, store, noted, in_doubt, .. } = &mut self.sinks[sink];
        let Some(from) = *at else {
            if fault != 0 {
                self.open(sink, lands);
            }
            return;
        };
        if from.offset >= synced {
            return;
        }
        let (to, rows) = read(feeder, from, synced);
        let entered = feeder.log().entered();
        if entered > noted.1 {
            *noted = (store.offset, entered);
        }
        match fault {
            0 | 1 => {
                *in_doubt = Some((to, rows));
                *at = None;
            }
            _ => {
                self.stored(sink, to, rows);
                let Sink { feeder, noted, at, .. } = &mut self.sinks[sink];
                feeder.committed(to);
                *at = Some(to);
                if is_noted {
                    *noted = (to.offset, feeder.log().entered());
                }
            }
        }
    }

    fn open(&mut self, sink: usize, lands: bool) {
        if let Some((to, rows)) = self.sinks[sink].in_doubt.take()
            && lands
        {
            self.stored(sink, to, rows);
        }
        let Sink { name, feeder, at, store, .. } = &mut self.sinks[sink];
        let standing = feeder.log().standing(*store);
        let fits = matches!(standing, Standing::Retained | Standing::Dropped);
        assert!(fits, "seed {}: {name} at {store}: {standing:?}", self.seed);
        feeder.opened(*store, 0);
        *at = Some(*store);
    }

    fn stored(&mut self, sink: usize, to: SpoolPosition, rows: Vec<u64>) {
        let sink = &mut self.sinks[sink];
        rows.into_iter().for_each(|row| *sink.stored.entry(row).or_default() += 1);
        sink.store = to;
    }

    fn finish(&mut self, sink: usize) {
        self.open(sink, true);
        let synced = self.writer.synced_position().offset;
        while let Some(from) = self.sinks[sink].at.filter(|at| at.offset < synced) {
            let (to, rows) = read(&mut self.sinks[sink].feeder, from, synced);
            self.stored(sink, to, rows);
            self.sinks[sink].feeder.committed(to);
            self.sinks[sink].at = Some(to);
        }
    }

    fn check(&self) {
        for Sink { name, stored, dropped, .. } in &self.sinks {
            for row in &self.rows {
                let fates = (stored.get(row).copied().unwrap_or(0), dropped.get(row).copied().unwrap_or(0));
                assert!(
                    matches!(fates, (1, 0) | (0, 1)),
                    "seed {}: the row at offset {row} is stored {} times and dropped {} times for {name}",
                    self.seed,
                    fates.0,
                    fates.1
                );
            }
        }
        assert_eq!(self.writer.reader().lost(), 0, "seed {}: what was dropped is not corrupt", self.seed);
    }

    fn up_to(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }
}

/// Reads a chunk: up to where it goes, and the offsets of its rows.
fn read(feeder: &mut Feeder<SpoolLog>, from: SpoolPosition, synced: u64) -> (SpoolPosition, Vec<u64>) {
    let Ok(Read::Range { portion, rows, .. }) = feeder.read(from, synced) else { panic!("everything can be read") };
    (portion.to, rows.iter().flat_map(|part| part.causes.iter().map(|cause| cause.offset)).collect())
}

fn feeder(writer: &SpoolWriter, sink: &str) -> Feeder<SpoolLog> {
    let sources = vec![source("deribit", Table::of::<Trade<'_>>())];
    let bounds = Bounds { rows: 40, bytes: usize::MAX };
    let mut feeder =
        Feeder::new(SpoolLog::new(writer.reader()), sink, "test", sources, TableChoice::All, bounds).unwrap();
    feeder.claim(0, 0);
    feeder
}
