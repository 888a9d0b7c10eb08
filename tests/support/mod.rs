//! A venue and the real program side by side: what every test over sockets needs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses a part of it; tests may fail")]

pub mod faulty;
pub mod hang;
pub mod history;
pub mod ledger;
pub mod power;
mod program;
mod remedy;
pub mod servers;
mod small_disk;
mod store;

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
pub use tidegate_core::policy::Random;
use tidegate_sources::deribit::simulator::{
    Fault, Oracle, Simulator, SimulatorConfig,
    comparison::{self, Comparison, Stored},
};
use tokio::time::{Instant, sleep};

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use self::{
    history::History,
    power::Power,
    program::Program,
    remedy::{Ran, tidegate},
    small_disk::{SmallDisk, skipped},
    store::stored,
};

/// How long a condition may take to come true before a test gives up. Generous: a test machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a venue on which so many events a second happen.
pub fn busy(rate: f64) -> SimulatorConfig {
    SimulatorConfig { rate, ..SimulatorConfig::default() }
}

/// A simulated venue, and a folder with a pipeline that reads it.
pub struct Bench {
    pub venue: Simulator,
    folder: Folder,
    database: PathBuf,
}

/// A folder that goes with its test, but that of a failed one stays where the environment says `TIDEGATE_KEEP=1`.
pub struct Folder(TempDir);

impl Folder {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("TIDEGATE_KEEP").is_some() {
            self.0.disable_cleanup(true);
            println!("kept: {}", self.0.path().display());
        }
    }
}

impl Bench {
    /// Starts a venue and writes a pipeline of trades and tickers into SQLite. `source` is put into the source's table,
    /// `rest` behind everything.
    pub async fn start(config: SimulatorConfig, source: &str, rest: &str) -> Self {
        let venue = Simulator::start(config).await.unwrap();
        let folder = Folder(tempfile::tempdir().unwrap());
        let bench = Self { venue, database: folder.path().join("eth.sqlite"), folder };
        bench.write("tidegate.toml", "listen = \"127.0.0.1:0\"\n[log]\nformat = \"human\"\nstats = \"0s\"\n");
        bench.write("eth.toml", &bench.pipeline(source, rest));
        bench
    }

    /// Returns the text of the pipeline.
    pub fn pipeline(&self, source: &str, rest: &str) -> String {
        let (ws, http, history) = (self.venue.ws_url(), self.venue.http_url(), self.venue.history_url());
        let channels = if source.contains("channels =") { "" } else { "channels = [\"trades\", \"tickers\"]\n" };
        let instruments = if source.contains("instruments =") {
            ""
        } else {
            "instruments = [{ currency = \"ETH\", kind = \"option\", top = 20 }]\n"
        };
        let reconnect =
            if source.contains("reconnect =") { "" } else { "reconnect = { first = \"20ms\", longest = \"300ms\" }\n" };
        let endpoint = if source.contains("endpoint =") {
            String::new()
        } else {
            format!("endpoint = {{ ws = \"{ws}\", http = \"{http}\", history = \"{history}\" }}\n")
        };
        format!(
            "[pipeline]\nname = \"eth\"\n[source.deribit]\n\
             {endpoint}{channels}{instruments}{reconnect}{source}\n\
             [sink.sqlite]\npath = \"{}\"\nretry = {{ first = \"20ms\", longest = \"300ms\" }}\n{rest}\n",
            self.database().display()
        )
    }

    /// Returns the path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the path of the database.
    pub fn database(&self) -> PathBuf {
        self.database.clone()
    }

    /// Looks at another database from here on.
    #[must_use]
    pub fn at(mut self, database: impl AsRef<Path>) -> Self {
        self.database = self.folder.path().join(database);
        self
    }

    /// Makes a database where there is none, as another program would.
    pub async fn another_database(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.database()).create_if_missing(true);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the program on the pipeline.
    pub fn run(&self) -> Program {
        Program::start(self.folder.path(), &["run", "eth.toml", "--supervised", "50ms"])
    }

    /// Starts the program on the pipeline, with variables.
    pub fn run_with(&self, variables: &[(&str, &str)]) -> Program {
        let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        Program::start_with(program, self.folder.path(), &["run", "eth.toml", "--supervised", "50ms"], variables)
    }

    /// Starts the program on every pipeline of the folder.
    pub fn run_all(&self) -> Program {
        Program::start(self.folder.path(), &["run", ".", "--supervised", "50ms"])
    }

    /// Connects to the database as another program would.
    pub async fn connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.database()).busy_timeout(PATIENCE);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// Returns what a query for a single number finds, 0 where there is no such table yet.
    pub async fn number(&self, query: &str) -> i64 {
        let options = SqliteConnectOptions::new().filename(self.database()).read_only(true).busy_timeout(PATIENCE);
        let Ok(mut db) = SqliteConnection::connect_with(&options).await else { return 0 };
        sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&mut db).await.unwrap_or(0)
    }

    /// Returns what a query for texts finds, sorted.
    pub async fn texts(&self, query: &str) -> Vec<String> {
        let mut db = self.connection().await;
        let mut texts: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(&mut db).await.unwrap();
        texts.sort();
        texts
    }

    /// Waits until a query for a single number finds at least so much.
    pub async fn until_number(&self, program: &mut Program, query: &str, wanted: i64) {
        self.until_number_within(PATIENCE, program, query, wanted).await;
    }

    /// Waits until a query for a single number finds at least so much, with a patience of its own.
    pub async fn until_number_within(&self, patience: Duration, program: &mut Program, query: &str, wanted: i64) {
        let deadline = Instant::now() + patience;
        while self.number(query).await < wanted {
            let found = self.number(query).await;
            assert!(Instant::now() < deadline, "{query}: {found} < {wanted}; the log:\n{}", program.log());
            program.next_report().await;
        }
    }

    /// Waits until a query for a single number finds at least so much, where no program reports.
    pub async fn until_stored(&self, query: &str, wanted: i64) {
        let deadline = Instant::now() + PATIENCE;
        while self.number(query).await < wanted {
            assert!(Instant::now() < deadline, "{query}: {} < {wanted}", self.number(query).await);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns what lies in the spool of a stopped pipeline, item by item.
    pub fn dump(&self) -> Vec<Value> {
        let mut text = Vec::new();
        let directory = self.path("data/eth/spool");
        tidegate::spool::inspect::dump(&directory, tidegate::spool::inspect::DumpFormat::Json, &mut text).unwrap();
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Stops the venue from making anything more, waits until all that is owed is stored, and compares.
    pub async fn settle(&self, program: &mut Program) -> Comparison {
        self.venue.mend();
        self.venue.freeze();
        self.until_complete(program).await
    }

    /// Injects a fault again and again until there is somebody or something that it hits.
    pub async fn until_it_hits(&self, program: &mut Program, fault: &Fault) {
        let deadline = Instant::now() + PATIENCE;
        while self.venue.inject(fault.clone()) == 0 {
            assert!(Instant::now() < deadline, "{fault:?} hits nobody; the log:\n{}", program.log());
            program.next_report().await;
        }
    }

    /// Waits until the venue has been asked for something, as it remembers.
    pub async fn until_oracle(&self, program: &mut Program, what: &str, wanted: impl Fn(&Oracle) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.venue.read(&wanted) {
            assert!(Instant::now() < deadline, "never: {what}; the log:\n{}", program.log());
            program.next_report().await;
        }
    }

    /// Waits until all that is owed or was sent is stored, and compares.
    pub async fn until_complete(&self, program: &mut Program) -> Comparison {
        // What a first answer cannot prove is asked for again a minute later.
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let comparison = self.compare().await;
            let holes: u64 = comparison.unrepeated().map(|kind| kind.holes).sum();
            if comparison.trades.missing + holes == 0 || Instant::now() > deadline {
                return comparison;
            }
            program.next_report().await;
        }
    }

    /// Waits until every trade that is owed is stored, and compares: the last ones may be under way when gaps are filled.
    pub async fn until_no_trade_is_missing(&self, program: &mut Program) -> Comparison {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let comparison = self.compare().await;
            if comparison.trades.missing == 0 || Instant::now() > deadline {
                return comparison;
            }
            program.next_report().await;
        }
    }

    /// Stops the venue for good, and returns the folder.
    pub async fn leave(self) -> Folder {
        self.venue.stop().await.unwrap();
        self.folder
    }

    /// Compares the store with what the venue made.
    pub async fn compare(&self) -> Comparison {
        self.compare_with(&stored(&self.database()).await)
    }

    /// Compares what a store holds with what the venue made.
    pub fn compare_with(&self, stored: &Stored) -> Comparison {
        self.venue.read(|oracle| compare(oracle, stored))
    }
}

/// Compares what a store holds with what the venue made, up to now.
pub fn compare(oracle: &Oracle, stored: &Stored) -> Comparison {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    Comparison::of(oracle, stored, &comparison::History::default(), now_ms)
}
