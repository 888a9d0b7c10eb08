//! Three stores fed by one pipeline, the shipped one: whichever is away, the others do not notice, and it gets all of it when
//! it is back, in order, once. The real program against the simulator, into real servers.
//!
//! An hour at 2,000 events a second is 7.2 million: `TIDEGATE_FAN_OUT_ROWS=7200000 cargo test --release --all-features --test
//! fan_out -- --nocapture`, with `TIDEGATE_FAN_OUT_RATE` as fast as the machine goes. CI takes 60,000 at 2,000 a second: more
//! than all queues and chunks hold, and several segments of the spool, so that what grows with rows would be seen.
#![cfg(all(feature = "postgres", feature = "questdb", feature = "sqlite"))]
#![allow(clippy::unwrap_used, reason = "helpers are in no test function")]

mod support;

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use sqlx::Connection;
use support::{
    Bench, PATIENCE, Program, busy, compare,
    servers::{postgres, questdb, server, stored_in_postgres, stored_in_questdb, with_server},
    stored, tidegate,
};
use tidegate::testkit::Server;
use tidegate_sources::deribit::simulator::comparison::Stored;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_nearly_all_the_time_holds_up_no_other_and_gets_everything_once_and_in_order() {
    let rows = number("TIDEGATE_FAN_OUT_ROWS", 60_000);
    let rate = number("TIDEGATE_FAN_OUT_RATE", 2_000);
    let mut fan = Fan::start(rate as f64).await;
    fan.until_all("each store has rows", |_, lags| lags.iter().all(|lag| lag.committed > 500)).await;
    // So that the order of its pages stays that of its writes.
    let client = postgres(fan.postgres_url()).await;
    for table in ["trades", "tickers"] {
        let still = format!("ALTER TABLE deribit.{table} SET (autovacuum_enabled = false)");
        client.execute(&still, &[]).await.unwrap();
    }
    drop(client);

    fan.with_postgres(Server::kill).await;
    let before = fan.until_degraded("postgres").await;
    fan.away("postgres", rows * 9 / 10).await;
    let held = fan.lags().await[0].committed;
    assert_eq!(held, before, "nobody was there to take any");
    fan.with_postgres(Server::restart).await;
    fan.caught_up("postgres").await;

    // The others have their turn, for a shorter while.
    fan.with_questdb(Server::kill).await;
    fan.until_degraded("questdb").await;
    fan.away("questdb", rows / 20).await;
    fan.with_questdb(Server::restart).await;
    fan.caught_up("questdb").await;

    let mut lock = fan.bench.another_database().await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut lock).await.unwrap();
    fan.until_degraded("sqlite").await;
    fan.away("sqlite", rows / 20).await;
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    lock.close().await.unwrap();
    fan.caught_up("sqlite").await;

    fan.bench.venue.freeze();
    let Fan { bench, program, .. } = &mut fan;
    bench.until_complete(program).await;
    fan.until_all("all is stored", |_, lags| lags.iter().all(|lag| lag.behind == 0)).await;
    fan.in_order().await;
    fan.count().await;
    let (code, log) = fan.program.stop().await;
    assert_eq!(code, 0, "{log}");
    let verified = tidegate(fan.bench.folder(), &["verify", "eth.toml"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    println!("{}", verified.printed);
}

struct Fan {
    bench: Bench,
    postgres: Option<Server>,
    questdb: Option<Server>,
    program: Program,
    began: Instant,
    most_memory: u64,
    /// Rows that came by the venue's history, which is not the order of their numbers.
    backfilled: u64,
    /// The same, when a sink was last seen to be degraded.
    before: u64,
}

/// How far a sink is.
#[derive(Debug, Clone, Copy)]
struct Lag {
    committed: u64,
    /// Rows that the spool has and the store has not.
    behind: u64,
    is_degraded: bool,
}

impl Fan {
    async fn start(rate: f64) -> Self {
        let (postgres, questdb) = tokio::join!(server("postgres"), server("questdb"));
        let bench = Bench::start(busy(rate), "", "").await;
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/deribit-eth-options-fan-out.toml");
        let shipped = fs::read_to_string(shipped).unwrap();
        let of_venue = bench.pipeline("", "");
        let line = |text: &str| text.lines().find(|line| line.starts_with("endpoint = ")).unwrap().to_owned();
        let text = shipped.replace(&line(&shipped), &line(&of_venue));
        bench.write("eth.toml", &text.replace("[spool]\n", "[spool]\nsegment_bytes = \"4MiB\"\n"));
        let database = bench.database().display().to_string();
        let variables =
            [("DATABASE_URL", postgres.url()), ("QUESTDB_URL", questdb.url()), ("SQLITE_PATH", database.as_str())];
        // For `verify`, which is another process.
        let with = |text: String, (name, value): &(&str, &str)| {
            let begin = text.find(&format!("${{{name}:-")).unwrap();
            let end = begin + text[begin..].find('}').unwrap() + 1;
            text.replace(&text[begin..end], value)
        };
        let text = fs::read_to_string(bench.path("eth.toml")).unwrap();
        bench.write("eth.toml", &variables.iter().fold(text, with));
        let program = bench.run();
        let (postgres, questdb) = (Some(postgres), Some(questdb));
        Self { bench, postgres, questdb, program, began: Instant::now(), most_memory: 0, backfilled: 0, before: 0 }
    }

    fn postgres_url(&self) -> &str {
        self.postgres.as_ref().unwrap().url()
    }

    fn questdb_url(&self) -> &str {
        self.questdb.as_ref().unwrap().url()
    }

    async fn with_postgres(&mut self, act: fn(&mut Server)) {
        self.postgres = Some(with_server(self.postgres.take().unwrap(), act).await);
    }

    async fn with_questdb(&mut self, act: fn(&mut Server)) {
        self.questdb = Some(with_server(self.questdb.take().unwrap(), act).await);
    }

    async fn lags(&mut self) -> [Lag; 3] {
        let report = self.program.next_report().await;
        assert!(!report.is_null(), "it has ended: {}", self.program.log());
        self.read(&report).1
    }

    /// Returns how many rows the spool has, and how far each sink is.
    fn read(&mut self, report: &Value) -> (u64, [Lag; 3]) {
        let memory = fs::read_to_string(format!("/proc/{}/status", self.program.id())).unwrap();
        let memory = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
        self.most_memory = self.most_memory.max(kilobytes / 1024);
        assert!(self.most_memory < MOST_MEMORY, "{} MiB", self.most_memory);
        let check = |name: &str| report["checks"][format!("{PIPELINE}/{name}")].clone();
        let appended = check("spool")["rows_appended"].as_u64().unwrap_or_default();
        let source = check("source.deribit");
        self.backfilled = source["rows_backfilled"].as_u64().unwrap_or_default()
            + source["gaps"]["open"].as_u64().unwrap_or_default();
        assert_eq!(source["gaps"]["lost"].as_u64().unwrap_or_default(), 0, "{report:#}");
        let lags = SINKS.map(|name| {
            let sink = check(&format!("sink.{name}"));
            assert_ne!(sink["status"], "failed", "{report:#}");
            let committed = sink["rows_committed"].as_u64().unwrap_or_default();
            Lag { committed, behind: appended.saturating_sub(committed), is_degraded: sink["status"] == "degraded" }
        });
        (appended, lags)
    }

    async fn until_all(&mut self, what: &str, wanted: impl Fn(u64, &[Lag; 3]) -> bool) {
        let mut deadline = Instant::now() + 2 * PATIENCE;
        let mut best = 0;
        loop {
            let report = self.program.next_report().await;
            let (appended, lags) = self.read(&report);
            if wanted(appended, &lags) {
                return;
            }
            // As long as rows come anywhere, it goes on.
            let stored = appended + lags.iter().map(|lag| lag.committed).sum::<u64>();
            if stored > best {
                (best, deadline) = (stored, Instant::now() + 2 * PATIENCE);
            }
            assert!(Instant::now() < deadline, "never: {what}: {lags:?}\n{}", self.program.log());
        }
    }

    /// Waits until a sink says that its store is away, and returns how many rows that has.
    async fn until_degraded(&mut self, name: &str) -> u64 {
        let sink = place(name);
        self.before = self.backfilled;
        self.until_all(&format!("{name} is degraded"), |_, lags| lags[sink].is_degraded).await;
        self.lags().await[sink].committed
    }

    /// Waits until so many rows more have come while one store is away: the others stay close behind, and are even with the
    /// feed at the end.
    async fn away(&mut self, name: &str, rows: u64) {
        let gone = place(name);
        let (mut furthest, mut oldest, mut first) = (0, 0.0_f64, None);
        let mut deadline = None;
        loop {
            let report = self.program.next_report().await;
            let (appended, lags) = self.read(&report);
            let wanted = *first.get_or_insert(appended) + rows;
            for other in (0..SINKS.len()).filter(|other| *other != gone) {
                furthest = furthest.max(lags[other].behind);
                let check = &report["checks"][format!("{PIPELINE}/sink.{}", SINKS[other])];
                oldest = oldest.max(check["oldest_uncommitted_seconds"].as_f64().unwrap_or_default());
                assert!(lags[other].behind < FAR, "{} is held up by {name}: {lags:?}", SINKS[other]);
            }
            assert!(lags[gone].is_degraded, "{name} is away: {lags:?}");
            if appended < wanted {
                continue;
            }
            let are_even = lags.iter().enumerate().all(|(other, lag)| other == gone || lag.behind < EVEN);
            if are_even {
                println!(
                    "{:.0} s: {name} away for {} rows and {} behind; the others at most {furthest} rows and {oldest:.1} s; \
                     {} MiB of memory at most",
                    self.began.elapsed().as_secs_f64(),
                    appended - first.unwrap_or_default(),
                    lags[gone].behind,
                    self.most_memory
                );
                return;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + 2 * PATIENCE);
            assert!(Instant::now() < deadline, "held up by {name}: {lags:?}\n{}", self.program.log());
        }
    }

    /// Waits until a store has what it had missed; looks on the way whether it has it in order.
    async fn caught_up(&mut self, name: &str) {
        let sink = place(name);
        let from = self.lags().await[sink].committed;
        let (began, backfilled) = (Instant::now(), self.before);
        let (mut looks, mut looked) = (0, began);
        loop {
            let lags = self.lags().await;
            if lags[sink].behind < EVEN {
                let rows = lags[sink].committed - from;
                let rate = rows as f64 / began.elapsed().as_secs_f64();
                println!(
                    "{name} back: {rows} rows at {rate:.0}/s, looked at {looks} times; {} MiB at most",
                    self.most_memory
                );
                return;
            }
            // A machine that is too busy for the line has gaps, which are filled behind what came later.
            if looked.elapsed() > BETWEEN_LOOKS && self.backfilled == backfilled {
                self.is_whole_so_far(name).await;
                (looks, looked) = (looks + 1, Instant::now());
            }
            assert!(began.elapsed() < 20 * PATIENCE, "{name} does not catch up: {lags:?}\n{}", self.program.log());
        }
    }

    /// A store has of each stream what comes first: nothing is there before what precedes it.
    async fn is_whole_so_far(&self, name: &str) {
        let holes = "SELECT symbol FROM trades GROUP BY symbol HAVING count(*) < max(seq) - min(seq) + 1";
        let found = match name {
            "postgres" => {
                let client = postgres(self.postgres_url()).await;
                client.query(&holes.replace("trades", "deribit.trades"), &[]).await.unwrap().len()
            }
            "questdb" => {
                let holes =
                    "SELECT * FROM (SELECT symbol, count() n, max(seq) - min(seq) + 1 m FROM trades) WHERE n < m";
                questdb(self.questdb_url(), holes).await.len()
            }
            _ => self.bench.number(&format!("SELECT count(*) FROM ({holes})")).await as usize,
        };
        assert_eq!(found, 0, "{name} has later rows and lacks earlier ones\n{}", self.program.log());
    }

    /// Rows stand in each store in the order in which the venue numbered them.
    async fn in_order(&self) {
        let disorder = |table: &str, by: &str| {
            format!(
                "SELECT count(*) FROM (SELECT seq, lag(seq) OVER (PARTITION BY symbol ORDER BY {by}) AS before
                 FROM {table} WHERE origin = 'live') AS pairs WHERE seq <= before"
            )
        };
        assert_eq!(self.bench.number(&disorder("trades", "rowid")).await, 0, "SQLite");
        let client = postgres(self.postgres_url()).await;
        let found: i64 = client.query_one(&disorder("deribit.trades", "ctid"), &[]).await.unwrap().get(0);
        assert_eq!(found, 0, "Postgres");
        let found = &questdb(self.questdb_url(), &disorder("trades", "tg_pos, tg_sub")).await[0][0];
        assert_eq!(found.as_i64(), Some(0), "QuestDB");
    }

    /// Each store has what the venue made, once.
    async fn count(&mut self) {
        let of = |stored: &Stored| {
            let trades: usize = stored.trades.values().map(Vec::len).sum();
            (trades, stored.tickers.values().map(Vec::len).sum::<usize>())
        };
        let mut counts = Vec::new();
        for name in SINKS {
            let stored = match name {
                "postgres" => stored_in_postgres(self.postgres_url(), "deribit").await,
                "questdb" => stored_in_questdb(self.questdb_url(), "").await,
                _ => stored(&self.bench.database()).await,
            };
            let comparison = self.bench.venue.read(|oracle| compare(oracle, &stored));
            comparison.assert_exact(&self.program.log());
            let (trades, tickers) = of(&stored);
            println!(
                "{name}: {trades} trades, {tickers} tickers; {} made, {} sent",
                comparison.trades.made, comparison.tickers.sent
            );
            counts.push(of(&stored));
        }
        assert!(counts.iter().all(|count| *count == counts[0] && count.0 > 1_000), "{counts:?}");
    }
}

fn place(name: &str) -> usize {
    SINKS.iter().position(|sink| *sink == name).unwrap()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.replace('_', "").parse().unwrap())
}

const PIPELINE: &str = "deribit-eth-options-fan-out";
const SINKS: [&str; 3] = ["postgres", "questdb", "sqlite"];

/// In rows: what a store is behind that has nothing to wait for but its own commits.
const EVEN: u64 = 4_000;

/// In rows: what a store may be behind for a moment, on a machine that has better things to do.
const FAR: u64 = 50_000;

/// A look costs the server something.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// In MiB. A debug build of the program alone has 60.
const MOST_MEMORY: u64 = 512;
