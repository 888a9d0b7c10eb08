//! A log in a spool, and its way into a store, as a pipeline has them.

use std::{collections::HashSet, ops::ControlFlow, path::Path, sync::Arc, time::Duration};

use tidegate_core::{
    Result,
    catalog::{Component, Factory},
    chunk::{ChunkBuilder, Plan, TableRows},
    config::{Batch, DeliveryConfig, Start, TableChoice, WhenFull},
    delivery::{Delivery, Log, Seen, Setup, SpoolLog},
    health::Registry,
    sink::Sink,
    spool::{Cause, Item, SpoolPosition, SpoolReader, disk::RealDisk},
    testkit::InlineIntake,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    feeder::{self, Feeder},
    frames::Feed,
};

/// Rows of a transaction: what a sink has by default.
pub(crate) const CHUNK: usize = 5_000;

/// How long sending a log may take at most.
const LONGEST: Duration = Duration::from_secs(600);

/// Returns a new spool.
pub(crate) fn spool(folder: &Path) -> InlineIntake {
    let disk = RealDisk::create(folder).expect("a folder for the spool");
    InlineIntake::open(Arc::new(disk), feeder::setup(folder)).expect("a new spool")
}

/// Writes the rows of a feed into a new spool.
pub(crate) fn filled(feed: &Feed, folder: &Path) -> InlineIntake {
    let mut intake = spool(folder);
    let mut feeder = Feeder::begin(intake.link(0, feeder::tables()), feed);
    for burst in feed.frames.chunks(16) {
        burst.iter().for_each(|frame| feeder.read(frame));
        feeder.link().hand_over().expect("intake is there");
        intake.enter().expect("the disk works");
    }
    intake.sync().expect("the disk works");
    intake
}

/// Reads a log into chunks of so many rows, and the rest.
pub(crate) fn chunks(reader: &SpoolReader, most: usize, mut take: impl FnMut(Vec<TableRows>)) {
    let mut log = SpoolLog::new(reader.clone());
    let plan = Plan::new("bench", vec![feeder::source()], TableChoice::All).expect("one source fits itself");
    let mut builder = ChunkBuilder::new(Arc::new(plan));
    let (nobody, upto) = (HashSet::new(), reader.end().offset);
    loop {
        // What is looked at when the chunk is full is looked at again.
        let visit = &mut |seen: Seen<'_>| {
            if builder.rows() >= most {
                return ControlFlow::Break(());
            }
            if let Seen::Item { position, item: Item::Row(head, bytes), source: Some(source), .. } = seen {
                let cause = Cause { boot: position.boot, offset: position.offset, sub: 0 };
                builder.push(cause, &head, bytes, source, &nobody);
            }
            ControlFlow::Continue(())
        };
        log.read(upto, visit).expect("the disk works");
        let chunk = builder.finish();
        if chunk.is_empty() {
            return;
        }
        take(chunk);
    }
}

/// A sink, with tables and a position that no other run has.
pub(crate) struct Target {
    /// The sink's name.
    pub(crate) sink: String,
    pub(crate) factory: Factory<Box<dyn Sink>>,
    pub(crate) tables: TableChoice,
}

impl Target {
    /// Returns a sink of all tables, by its configuration as a pipeline's file has it.
    pub(crate) fn of<C>(sink: &str, config: serde_json::Value) -> Self
    where
        C: Component<Built = Box<dyn Sink>>,
    {
        let config: C = serde_json::from_value(config).expect("a configuration that is sound");
        let factory: Factory<Box<dyn Sink>> = Arc::new(move || -> Result<Box<dyn Sink>> { config.build() });
        Self { sink: sink.to_owned(), factory, tables: TableChoice::All }
    }
}

/// What is sent, and how.
pub(crate) struct Sending<'a> {
    /// Where the delivery keeps what it knows.
    pub(crate) folder: &'a Path,
    pub(crate) reader: &'a SpoolReader,
    pub(crate) batch: Batch,
}

impl Sending<'_> {
    /// Sends all that the log has, which is so many rows, to a store that has nothing of it.
    pub(crate) async fn all(&self, target: &Target, rows: usize) {
        let known = tempfile::tempdir_in(self.folder).expect("a folder for what the delivery knows");
        let (_synced, synced) = watch::channel(self.reader.end());
        let (_stop, stop) = watch::channel(Some(Instant::now() + LONGEST));
        let delivery = self.delivery(target, known.path(), synced, stop);
        let outcome = tokio::spawn(delivery.run()).await.expect("no panic");
        let delivered = outcome.balance.map_or(0, |balance| balance.fates.delivered);
        assert_eq!((delivered as usize, outcome.failure), (rows, None), "rows are lost, or doubled");
    }

    /// Returns a pipeline's delivery, which ends when it is told to.
    pub(crate) fn delivery(
        &self,
        target: &Target,
        known: &Path,
        synced: watch::Receiver<SpoolPosition>,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Delivery<SpoolLog> {
        let batch = self.batch.clone();
        let setup = Setup {
            pipeline: "bench".to_owned(),
            sink: target.sink.clone(),
            factory: target.factory.clone(),
            config: DeliveryConfig { start: Start::Earliest, batch, ..DeliveryConfig::default() },
            tables: target.tables.clone(),
            derived: tidegate_core::table::Derived::default(),
            sources: vec![feeder::source()],
            spool: self.reader.spool_id(),
            host: "bench".to_owned(),
            directory: known.to_owned(),
            log: SpoolLog::new(self.reader.clone()),
            synced,
            stop,
            when_full: WhenFull::Block,
            others: Default::default(),
            health: Registry::new(),
            commands: tidegate::config::Commands::default(),
        };
        Delivery::new(setup).expect("one source fits itself").0
    }
}
