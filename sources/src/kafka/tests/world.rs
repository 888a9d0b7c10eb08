//! A partition and a store in memory, and deliveries between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tempfile::TempDir;
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, ColumnView, JsonRows, Part},
    config::{Commands, DeliveryConfig, Start, TableChoice, WhenFull},
    delivery::{Delivery, Others, Outcome, Setup},
    health::{Registry, StageId, Status},
    row::{Mark, Position, Row, Table, Timestamp, kinds::Trade},
    sink::{Guarantee, Refusal, Sink, SinkContext, Written},
    spool::{Boot, SourceInfo, SpoolPosition},
    table::Derived,
    testkit::MemoryLog,
};
use tokio::{sync::watch, task::JoinHandle};

use super::super::{
    decode::{Decoder, Incoming},
    window::{Found, Order, PartitionLog, Window},
};

/// How long a condition may take to come true before a test gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A broker's partition.
#[derive(Debug, Clone)]
pub(super) struct Broker(Arc<Mutex<Topic>>);

#[derive(Debug, Clone)]
struct Topic {
    boot: Boot,
    low: i64,
    high: i64,
    /// Values and their header, by offset.
    messages: BTreeMap<i64, (Vec<u8>, String)>,
    reads: u64,
}

/// A store that outlives its sinks.
#[derive(Debug, Clone, Default)]
pub(super) struct Store(pub(super) Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Venue, symbol and number of each row, in the order in which they were stored.
    pub(super) rows: Vec<(String, String, u64)>,
    pub(super) position: Option<SpoolPosition>,
    pub(super) epoch: u64,
    /// Numbers of rows that it refuses.
    pub(super) refuses: BTreeSet<u64>,
    pub(super) opened: u64,
}

/// A running delivery.
pub(super) struct Run {
    task: JoinHandle<Outcome>,
    stop: watch::Sender<Option<tokio::time::Instant>>,
    window: Arc<Window>,
    health: Registry,
    pub(super) directory: TempDir,
}

impl Broker {
    pub(super) fn new() -> Self {
        let topic = Topic { boot: Boot(7), low: 0, high: 0, messages: BTreeMap::new(), reads: 0 };
        Self(Arc::new(Mutex::new(topic)))
    }

    /// Adds a message, and returns its offset.
    pub(super) fn add(&self, value: Vec<u8>, header: &str) -> i64 {
        let mut topic = self.topic();
        let offset = topic.high;
        topic.messages.insert(offset, (value, header.to_owned()));
        topic.high += 1;
        offset
    }

    /// Adds trades of these numbers, a message each.
    pub(super) fn trades(&self, numbers: impl IntoIterator<Item = u64>) {
        for (value, header) in trades(numbers) {
            self.add(value, &header);
        }
    }

    /// Leaves out offsets: an aborted transaction, the end of one, compacted messages.
    pub(super) fn skip(&self, offsets: i64) {
        self.topic().high += offsets;
    }

    /// Deletes what lies before an offset, as retention does.
    pub(super) fn delete_before(&self, low: i64) {
        let mut topic = self.topic();
        topic.low = low;
        topic.messages.retain(|offset, _| *offset >= low);
    }

    /// Deletes the topic, and makes it again.
    pub(super) fn make_again(&self) {
        let mut topic = self.topic();
        (topic.boot.0, topic.low, topic.high) = (topic.boot.0 + 1, 0, 0);
        topic.messages.clear();
    }

    /// Does so, and has these trades in it before anybody looks.
    pub(super) fn make_again_with(&self, numbers: impl IntoIterator<Item = u64>) {
        let again = Self::new();
        again.trades(numbers);
        let mut topic = self.topic();
        let Topic { high, messages, .. } = again.topic().clone();
        *topic = Topic { boot: Boot(topic.boot.0 + 1), high, messages, ..*topic };
    }

    /// Loses its newest messages, as an election of a broker that lags behind does.
    pub(super) fn cut(&self, high: i64) {
        let mut topic = self.topic();
        topic.high = high;
        topic.messages.retain(|offset, _| *offset < high);
    }

    /// Returns how often a message was read.
    pub(super) fn reads(&self) -> u64 {
        self.topic().reads
    }

    pub(super) fn window(&self) -> (Arc<Window>, PartitionLog) {
        let broker = self.clone();
        let ask = Box::new(move || {
            let Topic { boot, low, high, .. } = *broker.topic();
            Ok(Found { boot, low, high })
        });
        let decoder = Decoder::new("collectors", vec![Table::of::<Trade<'_>>()]);
        Window::open("partition 0 of topic `t`", decoder, Arc::default(), ask).unwrap()
    }

    /// Reads into a window, as the reader does.
    fn serve(&self, window: &Window) {
        let mut next = None;
        loop {
            if let Some(unconfirmed) = window.unconfirmed() {
                window.confirm(unconfirmed, self.topic().boot);
            }
            match window.order() {
                Order::End => return,
                Order::Wait => {}
                Order::Begin(at) => {
                    let low = self.topic().low;
                    next = Some(at.max(low));
                    window.begun(at, low);
                }
                Order::Read => {
                    let Some(at) = next else { continue };
                    let found = self.topic().messages.range(at..).next().map(|(at, found)| (*at, found.clone()));
                    match found {
                        None => {
                            window.at_end(Some(1_000_000));
                            std::thread::park_timeout(Duration::from_millis(1));
                        }
                        Some((offset, (value, header))) => {
                            self.topic().reads += 1;
                            next = Some(offset + 1);
                            let (schema, time) = (Some(header.as_bytes()), Some(5));
                            let place = ("t", 0, offset);
                            window.push(1, Incoming { place, key: Some(b"k"), value: Some(&value), schema, time });
                        }
                    }
                }
            }
        }
    }

    fn topic(&self) -> MutexGuard<'_, Topic> {
        self.0.lock().unwrap()
    }
}

impl Store {
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    /// Returns the numbers of the rows, as they were stored.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.kept().rows.iter().map(|(_, _, number)| *number).collect()
    }

    /// Starts a delivery of the partition.
    pub(super) fn run(&self, broker: &Broker, batch_rows: usize) -> Run {
        let directory = tempfile::tempdir().unwrap();
        let (window, log) = broker.window();
        let (serving, broker) = (window.clone(), broker.clone());
        std::thread::spawn(move || broker.serve(&serving));
        let mut config = DeliveryConfig { start: Start::Earliest, ..DeliveryConfig::default() };
        config.batch.rows = batch_rows.try_into().unwrap();
        config.retry.first = tidegate_core::config::Duration::from_millis(5);
        config.retry.longest = tidegate_core::config::Duration::from_millis(50);
        config.breaker.open_for = tidegate_core::config::Duration::from_millis(20);
        let (stop, told) = watch::channel(None);
        let (store, health) = (self.clone(), Registry::new());
        let setup = Setup {
            pipeline: "load".to_owned(),
            sink: "memory".to_owned(),
            factory: Arc::new(move || Ok(Box::new(Memory { store: store.clone(), epoch: 0 }) as Box<dyn Sink>)),
            config,
            tables: TableChoice::All,
            derived: Derived::default(),
            sources: vec![declared()],
            spool: 1,
            host: "here".to_owned(),
            directory: directory.path().to_owned(),
            when_full: WhenFull::Block,
            synced: window.readable(),
            log,
            stop: told,
            others: Others::default(),
            health: health.clone(),
            commands: Commands::new(std::path::Path::new("load.toml"), None),
        };
        let (delivery, _) = Delivery::of_part(setup, Part("t/0".into())).unwrap();
        Run { task: tokio::spawn(delivery.run_to_the_stop()), stop, window, health, directory }
    }

    /// Waits until it holds so many rows.
    pub(super) async fn until(&self, rows: usize) {
        until(&format!("{rows} rows"), || self.kept().rows.len() >= rows).await;
    }
}

impl Run {
    /// Returns what the reader is in trouble with.
    pub(super) fn trouble(&self) -> Option<String> {
        self.window.trouble_now()
    }

    /// Waits until it needs a person.
    pub(super) async fn until_failed(&self) {
        let stage = self.health.stage(StageId::sink("load", "memory/t/0"));
        until("it fails", || stage.status() == Status::Failed).await;
    }

    /// Gives the partition back, and returns what became of it.
    pub(super) async fn end(self) -> (Outcome, TempDir) {
        self.window.freeze();
        self.stop.send_replace(Some(tokio::time::Instant::now() + PATIENCE));
        (self.task.await.unwrap(), self.directory)
    }

    /// Dies.
    pub(super) async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

/// A sink that guards its part as Postgres does.
struct Memory {
    store: Store,
    epoch: u64,
}

#[async_trait]
impl Sink for Memory {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        assert_eq!(cx.owner.part, Part("t/0".into()));
        let mut kept = self.store.kept();
        kept.opened += 1;
        kept.epoch += 1;
        self.epoch = kept.epoch;
        Ok(kept.position.map(|position| (cx.owner.part.clone(), position)).into_iter().collect())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let mut kept = self.store.kept();
        if kept.epoch != self.epoch || kept.position.unwrap_or(SpoolPosition::START) != chunk.from {
            return Err(Error::transient("the position is not where it was left"));
        }
        let (mut rows, mut refused) = (Vec::new(), Vec::new());
        for part in &chunk.tables {
            for number in 0..part.rows.num_rows() {
                let text = |column: &str| {
                    let ColumnView::Label(keys, texts) = ColumnView::of(part.rows.column_by_name(column).unwrap())
                    else {
                        panic!("{column}")
                    };
                    texts.value(keys.value(number) as usize).to_owned()
                };
                let ColumnView::U64(seq) = ColumnView::of(part.rows.column_by_name("seq").unwrap()) else { panic!() };
                let row = (text("venue"), text("symbol"), seq.value(number));
                if kept.refuses.contains(&row.2) {
                    let error = Error::malformed("the store does not like it");
                    refused.push(Refusal { cause: part.causes[number], table: part.table, error });
                }
                rows.push(row);
            }
        }
        if !refused.is_empty() {
            return Ok(Written::Refused(refused));
        }
        kept.rows.extend(rows);
        kept.position = Some(chunk.to);
        Ok(Written::Committed)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Transaction
    }
}

/// Waits until something is so.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the source declares.
pub(super) fn declared() -> SourceInfo {
    let tables = vec![Arc::new(Table::of::<Trade<'_>>())];
    SourceInfo { name: "collectors".into(), venue: "kafka".into(), tables }
}

/// The header of a table's messages.
pub(super) fn header(table: &Table) -> String {
    format!("{}/{:016x}", table.name, table.columns_hash())
}

/// Returns trades as a collector's sink writes them: values and headers.
pub(super) fn trades(numbers: impl IntoIterator<Item = u64>) -> Vec<(Vec<u8>, String)> {
    let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
    for number in numbers {
        emit(&log, number, &Trade { price: 0.1, size: 2.0, id: Some("ETH-7"), ..Trade::default() });
    }
    let chunk = log.chunk(0, log.synced().borrow().offset);
    let header = header(&Table::of::<Trade<'_>>());
    let json = |rows: &arrow_array::RecordBatch, number| {
        let mut value = Vec::new();
        JsonRows::new(rows).write(number, &mut value);
        value
    };
    let of_part = |rows: &arrow_array::RecordBatch| {
        (0..rows.num_rows()).map(|number| (json(rows, number), header.clone())).collect::<Vec<_>>()
    };
    chunk.tables.iter().flat_map(|part| of_part(&part.rows)).collect()
}

/// Appends a row that has this number.
pub(super) fn emit<R: Row>(log: &MemoryLog, number: u64, row: &R) {
    let symbol = format!("S{}", number % 3);
    let (position, ts_event) = (Position::Sequence(number), Timestamp(number.cast_signed()));
    log.emit(Mark { symbol: &symbol, position, ts_event }, row);
}
