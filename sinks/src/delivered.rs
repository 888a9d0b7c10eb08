//! Derived tables through the delivery driver, the same for every store: each row once, whatever is killed.
#![allow(clippy::unwrap_used, reason = "tests may fail")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tidegate_core::{
    Result,
    config::{Commands, DeliveryConfig, NameTemplate, Start, TableChoice, TableConfig, WhenFull},
    delivery::{Delivery, Others, Outcome, Setup},
    health::Registry,
    policy::Random,
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::Sink,
    table::Derived,
    testkit::{self, MemoryLog},
};
use tokio::{sync::watch, time::Instant};

/// A store, and what it holds.
#[async_trait]
pub(crate) trait Store: Sync {
    /// Returns what makes sinks on it.
    fn factory(&self) -> Arc<dyn Fn() -> Result<Box<dyn Sink>> + Send + Sync>;

    /// Returns what a table is called in it.
    fn name(&self, table: &str) -> String {
        table.to_owned()
    }

    /// Reads a column of unsigned integers without the sink, in any order: each row's. None where there is no such table.
    async fn numbers(&self, table: &str, column: &str) -> Vec<u64>;
}

/// The tables, and the column that has each row's number.
const TABLES: [(&str, &str); 3] = [("trades", "seq"), ("worth", "number"), ("large", "number")];

/// How many trades come in a round.
const ROUND: u64 = 60;

/// What lives through the deaths of processes.
struct World<'a> {
    store: &'a dyn Store,
    log: MemoryLog,
    directory: tempfile::TempDir,
    random: Random,
    made: u64,
    /// What has to be there of each table.
    wanted: BTreeMap<&'static str, Vec<u64>>,
}

/// Kills the process again and again while rows come, then lets it come to its end; then again, by another definition.
pub(crate) async fn derived_rows_are_there_once(store: &dyn Store) {
    let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]);
    let directory = tempfile::tempdir().unwrap();
    let mut world = World { store, log, directory, random: Random::new(7), made: 0, wanted: BTreeMap::new() };
    for round in 0..6 {
        world.feed(40.0);
        // Somewhere on the way, and where some of it is stored.
        let part = if round % 2 == 0 { 0 } else { ROUND / 2 };
        world.killed(&derived(40.0), part).await;
    }
    assert_eq!(world.changed(), None, "the definitions are those of the first start");
    world.to_the_end(&derived(40.0)).await;
    let border = world.log.synced().borrow().offset;
    for part in [0, ROUND / 2] {
        world.feed(60.0);
        world.killed(&derived(60.0), part).await;
    }
    world.to_the_end(&derived(60.0)).await;
    assert!(world.changed().is_some_and(|at| at >= border), "another `where` from {border} on: {:?}", world.changed());
}

/// Returns trades that are worth at least so much, under other names, and the large ones of these.
fn derived(least: f64) -> Derived {
    // With what Kafka makes a message's key, headers and time of.
    let worth = "ts_event as at, ts_recv, venue, symbol, origin, price * size as value, seq as number";
    testkit::derived(&[
        ["large", "worth", "value >= 70", ""],
        ["worth", "trades", &format!("price * size >= {least}"), worth],
    ])
}

impl World<'_> {
    /// Appends a round of trades.
    fn feed(&mut self, least: f64) {
        for _ in 0..ROUND {
            self.made += 1;
            let n = self.made;
            let (price, size) = ((n * 7 % 12) as f64, (n * 5 % 11) as f64);
            let ts_event = Timestamp(BEGIN + n.cast_signed() * 1_000_000);
            let mark = Mark { symbol: "ETH", position: Position::Sequence(n), ts_event };
            self.log.emit(mark, &Trade { price, size, ..Trade::default() });
            let is_worth = price * size >= least;
            for (table, is_there) in
                [("trades", true), ("worth", is_worth), ("large", is_worth && price * size >= 70.0)]
            {
                self.wanted.entry(table).or_default().extend(is_there.then_some(n));
            }
        }
    }

    /// Runs a process until so many more rows are stored, and a moment longer, and ends it wherever it stands.
    async fn killed(&mut self, derived: &Derived, more: u64) {
        // What a process left in doubt the next one settles, so nothing is read before it runs.
        let goal = self.made - ROUND + more;
        let health = Registry::new();
        let (_stop, running) = self.start(derived, &health);
        let running = tokio::spawn(running);
        let deadline = Instant::now() + PATIENCE;
        while more > 0 && (self.stored("trades").await.len() as u64) < goal {
            if running.is_finished() {
                panic!("it ended by itself: {:?}", running.await.map(|outcome| outcome.failure));
            }
            assert!(Instant::now() < deadline, "of {goal} trades too few are stored: {:?}", health.report());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_micros(self.random.draw() % 60_000)).await;
        running.abort();
        drop(running.await);
    }

    async fn to_the_end(&self, derived: &Derived) {
        let (stop, running) = self.start(derived, &Registry::new());
        stop.send_replace(Some(Instant::now() + PATIENCE));
        let outcome = running.await;
        assert_eq!((outcome.failure, outcome.rows_left), (None, 0));
        assert!(outcome.balance.unwrap().is_even());
        for (table, _) in TABLES {
            let mut stored = self.stored(table).await;
            stored.sort_unstable();
            assert_eq!(stored, self.wanted[table], "{table}");
        }
    }

    async fn stored(&self, table: &str) -> Vec<u64> {
        let (_, column) = TABLES.into_iter().find(|(name, _)| *name == table).unwrap();
        self.store.numbers(&self.store.name(table), column).await
    }

    /// Reads from the note beside the spool from where on the definitions are others than before.
    fn changed(&self) -> Option<u64> {
        let note = std::fs::read(self.directory.path().join("sinks/derived.json")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&note).unwrap()["changed"].as_u64()
    }

    fn start(
        &self,
        derived: &Derived,
        health: &Registry,
    ) -> (watch::Sender<Option<Instant>>, impl Future<Output = Outcome> + Send + 'static) {
        let (stop, stopping) = watch::channel(None);
        let directory: &Path = self.directory.path();
        let mut config = DeliveryConfig { start: Start::Earliest, ..DeliveryConfig::default() };
        config.batch.rows = std::num::NonZeroUsize::new(25).unwrap();
        config.retry.first = tidegate_core::config::Duration::from_millis(1);
        let named = TABLES.map(|(table, _)| {
            let name = NameTemplate::parse(&self.store.name(table));
            (table.to_owned(), TableConfig { name, ..TableConfig::default() })
        });
        let setup = Setup {
            pipeline: self.store.name("derived"),
            sink: "derived".to_owned(),
            factory: self.store.factory(),
            config,
            tables: TableChoice::Only(named.into()),
            derived: derived.clone(),
            sources: vec![self.log.source()],
            spool: 1,
            host: "here".to_owned(),
            directory: directory.join("sinks"),
            log: self.log.clone(),
            synced: self.log.synced(),
            stop: stopping,
            when_full: WhenFull::Block,
            others: Others::default(),
            health: health.clone(),
            commands: Commands::default(),
        };
        (stop, Delivery::new(setup).unwrap().0.run())
    }
}

/// The time of the first row.
const BEGIN: i64 = 1_795_513_263_000_000_000;

/// How long a store may take.
const PATIENCE: Duration = Duration::from_secs(60);
