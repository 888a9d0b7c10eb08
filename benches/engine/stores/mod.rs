//! Log → a real store, exactly once, beside a bare client of that store which writes the same: columns (`tg_…` too), keys,
//! transactions of the same size, and the position within each (but for QuestDB, where ours is a row beside them). The client has its rows in memory; what it encodes, it encodes
//! within the time.

mod far;
#[cfg(feature = "kafka")]
mod kafka;
mod live;
mod postgres;
mod questdb;

use std::{net::SocketAddr, num::NonZeroUsize, path::Path, time::Duration};

use tempfile::TempDir;
use tidegate_core::{
    config::{Batch, ByteSize, NameTemplate, TableChoice, TableConfig},
    spool::SpoolReader,
    testkit::{InlineIntake, Server},
};
use tokio::runtime::Runtime;

use crate::{
    clock::{Spent, Stopwatch, cpu_of},
    delivered::{CHUNK, Sending, Target, filled},
    effort::Effort,
    frames::{Feed, Kind},
    table::{Table, at_least, thousands},
    watched::Shared,
};

pub(crate) fn postgres(effort: Effort, folder: &Path) {
    let runtime = runtime();
    Bench::new(&runtime, effort, folder, postgres::Postgres::start(&runtime)).run("12");
}

pub(crate) fn timescale(effort: Effort, folder: &Path) {
    let runtime = runtime();
    Bench::new(&runtime, effort, folder, postgres::Postgres::start_timescale(&runtime)).run("13");
}

pub(crate) fn questdb(effort: Effort, folder: &Path) {
    let runtime = runtime();
    Bench::new(&runtime, effort, folder, questdb::QuestDb::start(&runtime)).run("14");
}

#[cfg(feature = "kafka")]
pub(crate) fn kafka(effort: Effort, folder: &Path) {
    let runtime = runtime();
    Bench::new(&runtime, effort, folder, kafka::Kafka::start(&runtime)).run("15");
}

/// What differs between stores: a server, our sink for it, and a client.
trait Store {
    /// Rows as a program without an engine has them.
    type Rows;

    /// Its name, and what the client is.
    const CLIENT: &'static str;

    fn name(&self) -> &'static str;

    fn server(&mut self) -> &mut Server;

    /// Returns the sink for a run: with tables and a position of its own, by `way` where something stands in between.
    fn target(&self, run: &str, kind: Kind, way: Option<SocketAddr>) -> Target;

    /// Returns the rows of a log that the sink has stored in `run`.
    fn rows(&self, run: &str, log: &Filled) -> Self::Rows;

    /// Writes the rows as the client does, into tables of the run's own like those that the sink has made in `model`.
    fn write(&self, run: &str, model: &str, kind: Kind, rows: &Self::Rows) -> Measured;

    /// Removes the tables of a run.
    fn clear(&self, run: &str, kind: Kind);

    /// Takes note that what stands at this address passes everything on.
    fn stands_behind(&mut self, way: SocketAddr) {
        _ = way;
    }
}

/// A log.
struct Filled {
    kind: Kind,
    name: String,
    rows: usize,
    intake: InlineIntake,
    _folder: TempDir,
}

/// What writing took, from when everything was open.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Until the store had taken the last row.
    taken: Duration,
    /// Until all was durable, and counted.
    stored: Spent,
    /// What the server's processes used.
    server: Duration,
}

/// Measures a client of ours.
struct Meter {
    server: u32,
    before: Duration,
    watch: Stopwatch,
}

struct Bench<'a, S> {
    runtime: &'a Runtime,
    effort: Effort,
    folder: &'a Path,
    store: S,
    runs: usize,
}

impl<'a, S: Store> Bench<'a, S> {
    fn new(runtime: &'a Runtime, effort: Effort, folder: &'a Path, store: S) -> Self {
        Self { runtime, effort, folder, store, runs: 0 }
    }

    fn run(mut self, number: &str) {
        let logs: Vec<Filled> = self.effort.kinds().map(|kind| self.filled(kind)).collect();
        self.beside_the_client(number, &logs);
        self.live(number);
        // Last: clients may have to come by another way afterwards.
        self.far(number, &logs);
    }

    fn filled(&self, kind: Kind) -> Filled {
        let feed = Feed::own(kind, self.effort.sent);
        let folder = tempfile::tempdir_in(self.folder).expect("a folder for files");
        let intake = filled(&feed, &folder.path().join("spool"));
        Filled { kind, name: feed.name, rows: feed.rows, intake, _folder: folder }
    }

    fn beside_the_client(&mut self, number: &str, logs: &[Filled]) {
        let name = self.store.name();
        let ours = format!("log → {name}");
        let mut table =
            Table::new(&["rows", &ours, "our CPU", "the server's", S::CLIENT, "its CPU", "the server's", "ratio"]);
        for log in logs {
            // Of the first run the client's rows and tables are made.
            let (model, _) = self.send(log, CHUNK, None);
            let rows = self.store.rows(&model, log);
            let mut best: Option<(Measured, Measured)> = None;
            for _ in 0..self.effort.rounds.div_ceil(2) {
                let ours = self.send_and_clear(log, CHUNK, None);
                let run = self.next();
                let bare = self.store.write(&run, &model, log.kind, &rows);
                self.store.clear(&run, log.kind);
                best = Some(best.map_or((ours, bare), |best| (best.0.best(ours), best.1.best(bare))));
            }
            self.store.clear(&model, log.kind);
            let Some((ours, bare)) = best else { continue };
            let is_later = ours.stored.wall > ours.taken + ours.taken / 20;
            let of = |measured: Measured, wall: Duration| {
                let cpu = |time: Duration| format!("{:.2} s", time.as_secs_f64());
                [thousands(log.rows, wall.as_secs_f64()), cpu(measured.stored.cpu), cpu(measured.server)]
            };
            let mut line = |what: &str, wall: fn(&Measured) -> Duration| {
                let ratio = wall(&bare).as_secs_f64() / wall(&ours).as_secs_f64();
                let cells = [format!("{}{what}", log.name)].into_iter().chain(of(ours, wall(&ours)));
                table.line(cells.chain(of(bare, wall(&bare))).chain([at_least(ratio, 0.8)]));
            };
            if is_later {
                line("; accepted", |measured| measured.taken);
                line("; applied", |measured| measured.stored.wall);
            } else {
                line("", |measured| measured.stored.wall);
            }
        }
        table.print(&format!(
            "{number}a. log → {name}, {CHUNK} rows a transaction, exactly once, from when everything is open to the last commit"
        ));
    }

    fn next(&mut self) -> String {
        self.runs += 1;
        format!("run_{}", self.runs)
    }

    /// Sends a log as a pipeline does, and returns the run's name, too.
    fn send(&mut self, log: &Filled, chunk: usize, way: Option<SocketAddr>) -> (String, Measured) {
        let run = self.next();
        let mut target = self.store.target(&run, log.kind, way);
        let pid = self.store.server().pid();
        let seen = Shared::beside(pid);
        target.factory = seen.watch(target.factory);
        let rows = NonZeroUsize::new(chunk).unwrap_or(NonZeroUsize::MIN);
        let batch = Batch { rows, bytes: ByteSize::from_mib(1_024), ..Batch::default() };
        let sending = Sending { folder: self.folder, reader: &log.reader(), batch };
        self.runtime.block_on(sending.all(&target, log.rows));
        let seen = seen.lock();
        assert_eq!(seen.rows, log.rows, "all is committed");
        let (taken, stored) = seen.taken.zip(seen.stored).expect("there were rows");
        let server = cpu_of(pid).saturating_sub(seen.server_before);
        (run, Measured { taken: taken.wall, stored, server })
    }

    fn send_and_clear(&mut self, log: &Filled, chunk: usize, way: Option<SocketAddr>) -> Measured {
        let (run, measured) = self.send(log, chunk, way);
        self.store.clear(&run, log.kind);
        measured
    }
}

impl Filled {
    fn reader(&self) -> SpoolReader {
        self.intake.reader()
    }
}

impl Measured {
    /// Returns the faster one: what belongs to one run stays together.
    fn best(self, other: Self) -> Self {
        if other.stored.wall < self.stored.wall { other } else { self }
    }
}

impl Meter {
    fn begin(server: &Server) -> Self {
        let server = server.pid();
        Self { server, before: cpu_of(server), watch: Stopwatch::of_all_threads() }
    }

    /// Returns what was measured, where the store had taken everything at `taken`; `None`: just now.
    fn end(self, taken: Option<Duration>) -> Measured {
        let stored = self.watch.read();
        let server = cpu_of(self.server).saturating_sub(self.before);
        Measured { taken: taken.unwrap_or(stored.wall), stored, server }
    }

    fn elapsed(&self) -> Duration {
        self.watch.read().wall
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Returns the choice of one table, under a name of the run's own.
fn named(run: &str, kind: Kind) -> TableChoice {
    let name = NameTemplate::parse(&table(run, kind)).expect("a name without words");
    let config = TableConfig { name: Some(name), ..TableConfig::default() };
    TableChoice::Only([(kind.table().to_owned(), config)].into())
}

fn table(run: &str, kind: Kind) -> String {
    format!("{run}_{}", kind.table())
}
