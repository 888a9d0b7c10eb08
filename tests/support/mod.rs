//! A venue and the real program side by side: what every test over sockets needs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses a part of it; tests may fail")]

pub mod chosen;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tidegate_sources::deribit::simulator::{Fault, Oracle, Session, Simulator, SimulatorConfig, Ticker};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// How long a condition may take to come true before a test gives up. Generous: a test machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A simulated venue, and a folder with a pipeline that reads it.
pub struct Bench {
    pub venue: Simulator,
    folder: TempDir,
    database: PathBuf,
}

impl Bench {
    /// Starts a venue and writes a pipeline of trades and tickers into SQLite. `source` is put into the source's table,
    /// `rest` behind everything.
    pub async fn start(config: SimulatorConfig, source: &str, rest: &str) -> Self {
        let venue = Simulator::start(config).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            let comparison = self.compare().await;
            let is_complete = comparison.missing.is_empty() && comparison.holes.is_empty();
            if is_complete || Instant::now() > deadline {
                return comparison;
            }
            program.next_report().await;
        }
    }

    /// Stops the venue for good, and returns the folder.
    pub async fn leave(self) -> TempDir {
        self.venue.stop().await.unwrap();
        self.folder
    }

    /// Compares the store with what the venue made.
    pub async fn compare(&self) -> Comparison {
        let stored = Stored::read(&self.database()).await;
        self.venue.read(|oracle| Comparison::of(oracle, &stored))
    }
}

/// Says that a test cannot run here; `scripts/test` counts these lines, for the runner shows nothing of a test that passes.
pub fn skipped(why: &str) {
    let line = format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test"));
    eprintln!("{line}");
    if let Some(file) = std::env::var_os("SKIPPED_TESTS") {
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A disk that can be full: a file system in memory.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts it. `None`, with a word on standard error, where mounting is not allowed.
    pub fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self { folder });
        }
        skipped(&format!("no file system can be mounted here ({mounted:?})"));
        None
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        assert!(std::process::Command::new("mount").args(["-o", &size]).arg(self.path()).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A running `tidegate`.
pub struct Program {
    child: Child,
    /// Held open: the program ends when it closes.
    stdin: Option<ChildStdin>,
    reports: watch::Receiver<Value>,
    printed: std::sync::Arc<std::sync::Mutex<String>>,
    log: std::sync::Arc<std::sync::Mutex<String>>,
    /// Ends when all that was logged is in `log`.
    logging: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts the program in a folder.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_as(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder, args)
    }

    /// Starts a program that is `tidegate` with components of its own.
    pub fn start_as(program: &Path, folder: &Path, args: &[&str]) -> Self {
        Self::start_with(program, folder, args, &[])
    }

    /// Starts a program with variables.
    pub fn start_with(program: &Path, folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .current_dir(folder)
            .env_remove("LOG_LEVEL")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (tell, reports) = watch::channel(Value::Null);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let printed = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let kept = printed.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
                tell.send_replace(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let log = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let kept = log.clone();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let logging = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { stdin: child.stdin.take(), child, reports, printed, log, logging: Some(logging) }
    }

    /// Returns what was printed so far.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// Returns what was logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for the next report, and returns it; `Null` when the program has ended.
    pub async fn next_report(&mut self) -> Value {
        match timeout(PATIENCE, self.reports.changed()).await {
            Ok(Ok(())) => self.reports.borrow_and_update().clone(),
            Ok(Err(_)) => Value::Null,
            Err(_) => panic!("no report for {PATIENCE:?}; the log:\n{}", self.log()),
        }
    }

    /// Waits until a report satisfies `wanted`, and returns it.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.next_report().await;
            if wanted(&report) {
                return report;
            }
            let ended = report.is_null();
            assert!(!ended && Instant::now() < deadline, "never: {what}; last {report:#}; the log:\n{}", self.log());
        }
    }

    /// Waits until the log says something.
    pub async fn until_logged(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "never logged: {text}; the log:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many rows are committed.
    pub async fn until_committed(&mut self, rows: u64) {
        self.until(&format!("{rows} rows committed"), |report| {
            report["checks"]["eth/sink.sqlite"]["rows_committed"].as_u64().is_some_and(|committed| committed >= rows)
        })
        .await;
    }

    /// Returns the process's id.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Returns where the program's own HTTP listens.
    pub async fn address(&mut self) -> String {
        self.until_logged("http://127.0.0.1:").await;
        let log = self.log();
        let (_, port) = log.split_once("http://127.0.0.1:").unwrap();
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        format!("127.0.0.1:{port}")
    }

    /// Asks the program over its own HTTP, and returns status and body.
    pub async fn get(&mut self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.address().await).await.unwrap();
        socket.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Returns the sum of a metric over its labels.
    pub async fn metric(&mut self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Kills the program with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal by its name, as `kill` does.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Asks the program to end by closing its standard input, and returns its exit code.
    pub async fn stop(mut self) -> (i32, String) {
        drop(self.stdin.take());
        self.ended().await
    }

    /// Waits for the program's end, and returns its exit code and log.
    pub async fn ended(&mut self) -> (i32, String) {
        let status = timeout(PATIENCE, self.child.wait()).await;
        // The last lines may still be in the pipe. A grandchild that outlives the program would hold it open.
        if let Some(logging) = self.logging.take() {
            _ = timeout(PATIENCE, logging).await;
        }
        let log = self.log();
        (status.unwrap_or_else(|_| panic!("does not end; the log:\n{log}")).unwrap().code().unwrap_or(-1), log)
    }
}

/// What the store holds: trades by (instrument, id) and tickers by (instrument, volume), with how often.
#[derive(Debug, Default)]
pub struct Stored {
    pub trades: BTreeMap<(String, String), u64>,
    pub tickers: BTreeMap<(String, u64), u64>,
    pub backfilled: u64,
}

impl Stored {
    /// Reads the store; nothing where there is none yet.
    pub async fn read(database: &Path) -> Self {
        let mut stored = Self::default();
        let options = SqliteConnectOptions::new().filename(database).read_only(true).busy_timeout(PATIENCE);
        let Ok(mut db) = SqliteConnection::connect_with(&options).await else { return stored };
        let trades = "SELECT symbol, id, origin = 'backfill' AS late, count(*) AS n FROM trades GROUP BY 1, 2, 3";
        for row in sqlx::query(trades).fetch_all(&mut db).await.unwrap_or_default() {
            let n = row.get::<i64, _>("n") as u64;
            *stored.trades.entry((row.get("symbol"), row.get("id"))).or_default() += n;
            stored.backfilled += if row.get::<bool, _>("late") { n } else { 0 };
        }
        let tickers = "SELECT symbol, volume_24h, count(*) AS n FROM tickers GROUP BY 1, 2";
        for row in sqlx::query(tickers).fetch_all(&mut db).await.unwrap_or_default() {
            let volume = row.get::<f64, _>("volume_24h").to_bits();
            stored.tickers.insert((row.get("symbol"), volume), row.get::<i64, _>("n") as u64);
        }
        stored
    }
}

/// The store beside what the venue made.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Trades that are owed.
    pub owed: u64,
    /// Owed, and not there.
    pub missing: Vec<(String, String)>,
    /// There more often than the venue made them.
    pub twice: Vec<String>,
    /// There, and never made.
    pub invented: Vec<String>,
    /// Tickers that were sent and are not there, unless they may have been on their way when the line was cut or the
    /// process killed.
    pub holes: Vec<(String, f64)>,
}

impl Comparison {
    /// Compares.
    pub fn of(oracle: &Oracle, stored: &Stored) -> Self {
        let mut comparison = Self::default();
        // A program that was killed between a confirmation and its own first write claims nothing for that session.
        let knows = |session: &Session| {
            let mut sent = session.tickers.iter().flat_map(|(symbol, keys)| keys.iter().map(move |key| (symbol, key)));
            sent.any(|(symbol, key)| stored.tickers.contains_key(&(symbol.clone(), key.volume.to_bits())))
        };
        let first = oracle.sessions.iter().position(knows);
        for (symbol, trades) in first.map_or_else(BTreeMap::new, |first| oracle.owed_since(first + 1)) {
            for trade in trades {
                comparison.owed += 1;
                let key = (symbol.to_owned(), trade.trade_id());
                if !stored.trades.contains_key(&key) {
                    comparison.missing.push(key);
                }
            }
        }
        for ((symbol, id), n) in &stored.trades {
            let made = oracle.trades.get(symbol).into_iter().flatten().any(|trade| trade.trade_id() == *id);
            if !made {
                comparison.invented.push(format!("{symbol} {id}"));
            }
            if *n > 1 {
                comparison.twice.push(format!("{symbol} {id} × {n}"));
            }
        }
        // A replay sends tickers of one volume more than once: how many were sent, and how many of them have to be there.
        let mut sent: BTreeMap<(String, u64), (u64, u64)> = BTreeMap::new();
        for session in &oracle.sessions {
            for (symbol, tickers) in &session.tickers {
                let key = |ticker: &Ticker| (symbol.clone(), ticker.volume.to_bits());
                let is_stored = |ticker: &Ticker| stored.tickers.contains_key(&key(ticker));
                let last = tickers.iter().rposition(is_stored).map_or(0, |at| at + 1);
                for (at, ticker) in tickers.iter().enumerate() {
                    // Behind the last one that is there, the last moments before the line was cut or the process killed.
                    let in_flight = session.may_be_in_flight(symbol, ticker.at_ms);
                    let repeats = || tickers.iter().filter(|other| other.volume == ticker.volume).count() > 1;
                    let may_miss = in_flight && (at >= last || repeats());
                    let (all, owed) = sent.entry(key(ticker)).or_default();
                    *all += 1;
                    *owed += u64::from(!may_miss);
                }
            }
        }
        for ((symbol, volume), (_, owed)) in &sent {
            let n = stored.tickers.get(&(symbol.clone(), *volume)).copied().unwrap_or(0);
            let missing = owed.saturating_sub(n);
            comparison.holes.extend((0..missing).map(|_| (symbol.clone(), f64::from_bits(*volume))));
        }
        for ((symbol, volume), n) in &stored.tickers {
            let all = sent.get(&(symbol.clone(), *volume)).map_or(0, |(all, _)| *all);
            if *n > all {
                let list = if all == 0 { &mut comparison.invented } else { &mut comparison.twice };
                list.push(format!("ticker of {symbol} × {n}, sent {all}"));
            }
        }
        comparison
    }

    /// Asserts that nothing is lost, doubled, invented or holed, and that there was something to compare.
    pub fn assert_exact(&self, log: &str) {
        assert!(self.owed > 0, "the venue made nothing; the log:\n{log}");
        let bad = self.missing.len() + self.twice.len() + self.invented.len() + self.holes.len();
        let shown = |list: &[String]| list.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let missing: Vec<_> = self.missing.iter().map(|(symbol, id)| format!("{symbol} {id}")).collect();
        let holes: Vec<_> = self.holes.iter().map(|(symbol, volume)| format!("{symbol} {volume}")).collect();
        assert!(
            bad == 0,
            "of {} trades owed: {} missing ({}), {} twice ({}), {} invented ({}), {} holes ({}); the log:\n{log}",
            self.owed,
            missing.len(),
            shown(&missing),
            self.twice.len(),
            shown(&self.twice),
            self.invented.len(),
            shown(&self.invented),
            holes.len(),
            shown(&holes),
        );
    }
}
