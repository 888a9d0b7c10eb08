//! Nothing is lost or doubled between the venue and a real QuestDB, whichever of the two programs dies, freezes or is lied to:
//! the real program against the simulator over real sockets.
#![cfg(feature = "questdb")]
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{fs, time::Duration};

use serde_json::Value;
use support::{
    Bench, PATIENCE, Program, Random, busy,
    servers::{questdb, stored_in_questdb, with_server},
    tidegate,
};
use tidegate::testkit::Server;
use tidegate_sources::deribit::simulator::comparison::Comparison;
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_both_at_any_moment_and_a_frozen_server_lose_nothing_and_double_nothing_and_verify_agrees() {
    let quest = Quest::start(1_000.0, "").await;
    let Quest { bench, mut server } = quest;
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    // Killed while it makes a table, QuestDB may leave one that takes no row.
    let mut program = bench.run();
    program.until_committed(300).await;
    program.kill().await;
    for life in 0..9 {
        let program = bench.run();
        sleep(Duration::from_millis(300 + random.below(2_000))).await;
        // The server's trouble, in the middle of the program's life.
        match life % 3 {
            0 => server = with_server(server, Server::restart).await,
            1 => {
                server.freeze();
                sleep(Duration::from_millis(random.below(1_500))).await;
                server.thaw();
            }
            _ => {}
        }
        sleep(Duration::from_millis(random.below(1_500))).await;
        program.kill().await;
    }
    let mut program = bench.run();
    program.until_committed(1_000).await;
    settle(&bench, server.url(), &mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("exactly-once (dedup keys ts_event, tg_boot, tg_pos, tg_sub)"), "{log}");
    let verified = tidegate(bench.folder(), &["verify", "eth.toml"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert!(verified.printed.contains("sqlite: agrees; "), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_spooled_for_and_a_suspended_table_is_said_with_what_resumes_it() {
    let Quest { bench, mut server } = Quest::start(500.0, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    server.kill();
    let report = until_sink(&mut program, "degraded").await;
    assert!(why(&report).contains("does not answer"), "{}", why(&report));
    let mut server = with_server(server, Server::restart).await;
    until_sink(&mut program, "healthy").await;
    program.until_logged("the store takes rows again").await;

    // Whoever applies rows at that moment may take it back.
    let is_suspended = "SELECT count() FROM wal_tables() WHERE name = 'trades' AND suspended";
    while number(server.url(), is_suspended).await == 0 {
        questdb(server.url(), "ALTER TABLE trades SUSPEND WAL WITH 24, 'disk full'").await;
    }
    let report = until_sink(&mut program, "degraded").await;
    assert!(
        why(&report).contains("disk full") && why(&report).contains("ALTER TABLE \"trades\" RESUME WAL"),
        "{report:#}"
    );
    questdb(server.url(), "ALTER TABLE trades RESUME WAL").await;
    until_sink(&mut program, "healthy").await;
    settle(&bench, server.url(), &mut program).await.assert_exact(&program.log());
    server.freeze();
    server.thaw();
    assert_eq!(program.stop().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_under_way_stops_the_sink_and_nothing_else_and_adopting_goes_on() {
    let Quest { bench, server } = Quest::start(500.0, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    questdb(server.url(), "DROP TABLE trades").await;
    let why = program.until_failed("eth/sink.sqlite").await;
    assert!(why.contains("`trades`") && why.contains("`tidegate adopt eth.toml sqlite --from-log`"), "{why}");
    let rows = |report: &Value| report["checks"]["eth/spool"]["rows_appended"].as_u64().unwrap_or_default();
    let before = rows(&program.next_report().await);
    program.until("the feed goes on", |report| rows(report) > before + 200).await;
    assert_eq!(program.stop().await.0, 1, "somebody is told");
    // QuestDB may have made it again by itself, without a key.
    questdb(server.url(), "DROP TABLE IF EXISTS trades").await;
    let mut program = bench.run();
    let why = program.until_failed("eth/sink.sqlite").await;
    drop(program.stop().await);
    bench.paste(&why, "--from-store");
    let mut program = bench.run();
    program.until_committed(300).await;
    assert_eq!(program.stop().await.0, 0);
    assert!(number(server.url(), "SELECT count() FROM trades").await > 0, "what came since is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_spool_writes_nothing_into_a_store_until_a_person_says_so() {
    let Quest { bench, server } = Quest::start(500.0, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    assert_eq!(program.stop().await.0, 0);
    let before = number(server.url(), "SELECT count() FROM trades").await;
    fs::rename(bench.path("data"), bench.path("data-of-another")).unwrap();
    let mut program = bench.run();
    let why = program.until_failed("eth/sink.sqlite").await;
    assert!(why.contains("belongs to spool") && why.contains("`tidegate adopt eth.toml sqlite --from-log`"), "{why}");
    drop(program.stop().await);
    assert_eq!(number(server.url(), "SELECT count() FROM trades").await, before);
    bench.paste(&why, "--from-log");
    let mut program = bench.run();
    program.until_committed(300).await;
    assert_eq!(program.stop().await.0, 0);
    assert!(number(server.url(), "SELECT count() FROM trades").await > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connect_says_what_is_there_and_what_is_in_the_way_and_no_secret() {
    let Quest { bench, server } =
        Quest::start(500.0, "user = \"admin\"\npassword = \"${QUESTDB_PASSWORD:-quest}\"\n").await;
    let checked = tidegate(bench.folder(), &["check", "eth.toml", "--connect"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.printed.contains("answers and has 0 of 2 tables; what is missing will be made"), "{checked:?}");
    questdb(
        server.url(),
        "CREATE TABLE trades (ts_event TIMESTAMP_NS, price FLOAT) TIMESTAMP(ts_event) PARTITION BY DAY WAL",
    )
    .await;
    let checked = tidegate(bench.folder(), &["check", "eth.toml", "--connect"]);
    assert_ne!(checked.code, 0, "{checked:?}");
    let all = format!("{}{}", checked.printed, checked.said);
    assert!(all.contains("column `price` of table `trades` is FLOAT") && !all.contains("quest\""), "{all}");
}

/// A venue, a pipeline into a QuestDB, and that.
struct Quest {
    bench: Bench,
    server: Server,
}

impl Quest {
    async fn start(rate: f64, keys: &str) -> Self {
        let server = tokio::task::spawn_blocking(|| Server::start("questdb")).await.unwrap();
        let bench = Bench::start(busy(rate), "", "").await;
        let pipeline = bench.pipeline("", "");
        let (source, _) = pipeline.split_once("[sink.sqlite]").unwrap();
        // A sink of this name is what the helpers look at.
        let sink = format!(
            "[sink.sqlite]\ntype = \"questdb\"\nurl = \"{}\"\nretry = {{ first = \"20ms\", longest = \"300ms\" }}\n\
             breaker = {{ failures = 5, open_for = \"200ms\" }}\ntimeout = \"5s\"\nprobe = {{ every = \"200ms\", timeout = \"5s\" }}\n{keys}",
            server.url()
        );
        bench.write("eth.toml", &format!("{source}{sink}"));
        Self { bench, server }
    }
}

async fn until_sink(program: &mut Program, status: &str) -> Value {
    program.until(status, |report| report["checks"]["eth/sink.sqlite"]["status"] == status).await
}

fn why(report: &Value) -> String {
    report["checks"]["eth/sink.sqlite"]["reason"].as_str().unwrap_or_default().to_owned()
}

/// Stops the venue from making anything more, waits until all that is owed is stored, and compares.
async fn settle(bench: &Bench, url: &str, program: &mut Program) -> Comparison {
    bench.venue.mend();
    bench.venue.freeze();
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let comparison = bench.compare_with(&stored_in_questdb(url, "").await);
        let holes: u64 = comparison.unrepeated().map(|kind| kind.holes).sum();
        if comparison.trades.missing + holes == 0 || Instant::now() > deadline {
            return comparison;
        }
        program.next_report().await;
    }
}

async fn number(url: &str, query: &str) -> i64 {
    questdb(url, query).await[0][0].as_i64().unwrap()
}
