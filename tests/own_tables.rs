//! The pipeline's own tables: what the ledger says and how the stages are, as rows that any sink can take.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Output},
};

use serde_json::Value;
use sqlx::Row;
use support::{Bench, Program, busy};
use tidegate_sources::deribit::simulator::Fault;

/// One sink keeps what counts, the other all that was ever said.
const BOTH: &str = "tables = [\"trades\", \"tickers\", \"coverage\", \"status\"]\n\
    [sink.all]\ntype = \"sqlite\"\npath = \"all.sqlite\"\n\
    tables = { coverage = { name = \"said\", on_conflict = \"append\" } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_table_coverage_says_what_the_ledger_says_after_cuts_and_kills_and_each_statement_is_made_once() {
    let bench = Bench::start(busy(1_000.0), "", BOTH).await;
    let mut program = bench.run();
    bench.until_number(&mut program, RECEIVED, 20).await;
    for _ in 0..3 {
        let ended = bench.number(ENDED).await;
        bench.until_it_hits(&mut program, &Fault::Cut).await;
        bench.until_number(&mut program, ENDED, ended + 20).await;
        let rows = bench.number(TRADES).await;
        bench.until_number(&mut program, TRADES, rows + 50).await;
        program.kill().await;
        program = bench.run();
        bench.until_number(&mut program, TRADES, rows + 100).await;
    }
    bench.settle(&mut program).await.assert_exact(&program.log());
    stop(program).await;
    assert_agrees(&bench).await;
    assert!(bench.number(BACKFILLED).await > 0, "something was filled");
    assert_eq!(bench.number("SELECT count(*) FROM coverage WHERE ts_event <> ts_from").await, 0);
    let told = bench.number("SELECT count(*) FROM coverage WHERE pipeline <> 'eth' OR source <> 'deribit'").await;
    assert_eq!(told, 0, "the ledger says nothing of its own tables");

    // Of a ledger that is built again everything is said anew, with greater revisions.
    let before = bench.number("SELECT max(revision) FROM coverage").await;
    std::fs::remove_file(bench.path("data/eth/ledger.sqlite")).unwrap();
    let mut program = bench.run();
    bench.until_number(&mut program, "SELECT max(revision) FROM coverage", before + 40).await;
    stop(program).await;
    assert_agrees(&bench).await;
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_status_has_a_row_for_each_stage_at_the_start_and_at_the_stop() {
    let bench = Bench::start(busy(500.0), "", BOTH).await;
    let mut program = bench.run();
    program.until_committed(200).await;
    stop(program).await;
    let stages = ["ledger", "sink.all", "sink.sqlite", "source.deribit", "spool"];
    let said =
        bench.texts("SELECT symbol || ' ' || count(*) FROM status WHERE symbol NOT LIKE 'dead%' GROUP BY symbol").await;
    assert_eq!(said, stages.map(|stage| format!("{stage} 2")));
    let last = "SELECT status FROM status WHERE symbol = 'source.deribit' ORDER BY ts_event DESC LIMIT 1";
    assert_eq!(bench.texts(last).await, ["stopped"]);
    let rows = "SELECT json_extract(detail, '$.rows_received') FROM status WHERE status = 'stopped'";
    assert!(bench.number(rows).await > 0, "health's own words are in it");
    assert_eq!(bench.number("SELECT count(*) FROM status WHERE since > ts_event").await, 0);
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_name_them_gets_none_and_another_name_is_checked_like_any() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(200).await;
    stop(program).await;
    let own = "SELECT count(*) FROM sqlite_schema WHERE name IN ('coverage', 'status')";
    assert_eq!(bench.number(own).await, 0);
    assert!(!bench.dump().iter().any(|item| item.to_string().contains("(pipeline)")), "nothing is said to nobody");

    let sinks = "tables = { trades = {}, tickers = {}, coverage = \"data_gaps\" }\n\
        [sink.again]\ntype = \"sqlite\"\npath = \"eth.sqlite\"\ntables = { coverage = \"data_gaps\" }\n\
        [sink.slip]\ntype = \"sqlite\"\npath = \"x.sqlite\"\ntables = [\"coverge\"]\n";
    bench.write("eth.toml", &bench.pipeline("", &sinks.replace("eth.sqlite", &bench.database().display().to_string())));
    let said = said(&tidegate(&bench, &["check", "eth.toml"]));
    assert!(said.contains("write table `data_gaps` to one store"), "{said}");
    assert!(said.contains("no source has the table `coverge`") && said.contains("did you mean `coverage`?"), "{said}");
    let graph = bench.pipeline("", "tables = { trades = {}, coverage = \"data_gaps\" }\n");
    bench.write("eth.toml", &graph);
    let said = String::from_utf8(tidegate(&bench, &["graph", "eth.toml"]).stdout).unwrap();
    assert!(said.contains("  pipeline\n    coverage  →  sqlite.data_gaps\n"), "{said}");
    bench.leave().await;
}

async fn stop(program: Program) {
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
}

type Interval = (i64, Option<i64>, String);

/// Holds the table against the ledger, and what counts against all that was said.
async fn assert_agrees(bench: &Bench) {
    let mut told: BTreeMap<(String, String), Vec<Interval>> = BTreeMap::new();
    let mut db = bench.connection().await;
    let rows = "SELECT channel, symbol, ts_from, ts_to, state FROM coverage ORDER BY ts_from";
    for row in sqlx::query(rows).fetch_all(&mut db).await.unwrap() {
        told.entry((row.get(0), row.get(1))).or_default().push((row.get(2), row.get(3), row.get(4)));
    }
    let output = tidegate(bench, &["coverage", "eth.toml", "--by", "stream", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let streams = document["coverage"]["streams"].as_array().unwrap();
    assert_eq!(told.len(), streams.len());
    for stream in streams {
        let text = |key: &str| stream[key].as_str().unwrap().to_owned();
        let told = &told[&(text("table"), text("symbol"))];
        assert!(told.windows(2).all(|pair| pair[0].1 == Some(pair[1].0)), "no overlap and no hole: {told:?}");
        assert_eq!(told.last().unwrap().1, None, "the last one goes on");
        let intervals = stream["intervals"].as_array().unwrap();
        assert_eq!(intervals[0]["from"].as_i64(), Some(told[0].0), "{stream:#} {told:?}");
        for (from, to, state) in told {
            let holds = |interval: &&Value| {
                let behind = to.unwrap_or(i64::MAX) <= interval["to"].as_i64().unwrap_or(i64::MAX);
                interval["from"].as_i64().unwrap() <= *from && behind
            };
            let holding = intervals.iter().find(holds).unwrap_or_else(|| panic!("{from} {to:?}: {stream:#} {told:?}"));
            assert_eq!(holding["state"], state.as_str(), "{from} {to:?}: {stream:#}");
        }
    }
    let all = bench.path("all.sqlite");
    sqlx::query(sqlx::AssertSqlSafe(format!("ATTACH '{}' AS a", all.display()))).execute(&mut db).await.unwrap();
    let twice: i64 =
        sqlx::query_scalar("SELECT count(*) - count(DISTINCT revision) FROM a.said").fetch_one(&mut db).await.unwrap();
    assert_eq!(twice, 0, "a statement was made twice");
    let newest =
        "SELECT revision FROM (SELECT revision, max(revision) OVER (PARTITION BY channel, symbol, ts_from) AS newest
                  FROM a.said) WHERE revision = newest";
    let newest: Vec<i64> = sqlx::query_scalar(newest).fetch_all(&mut db).await.unwrap();
    let kept: Vec<i64> = sqlx::query_scalar("SELECT revision FROM coverage").fetch_all(&mut db).await.unwrap();
    assert_eq!(BTreeSet::from_iter(kept), BTreeSet::from_iter(newest), "the newest count");
}

fn tidegate(bench: &Bench, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).current_dir(bench.folder()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const TRADES: &str = "SELECT count(*) FROM trades";
const RECEIVED: &str = "SELECT count(*) FROM coverage WHERE state = 'received' AND ts_to IS NULL";
const ENDED: &str = "SELECT count(*) FROM coverage WHERE ts_to IS NOT NULL";
const BACKFILLED: &str = "SELECT count(*) FROM coverage WHERE state = 'backfilled'";
