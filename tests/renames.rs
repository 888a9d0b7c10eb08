//! Pipelines and sinks that get other names, go, and come: nothing is sent again or left out silently.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Bench, Program, busy, tidegate};

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_was_renamed_goes_on_under_the_new_name_with_its_dead_letters() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    // Killed: rows wait for the store.
    program.kill().await;
    let letter = r#"{"sink":"sqlite","boot":"0000000000000007","offset":3,"sub":0,"source":"deribit","table":"trades","symbol":"X","ts_event":1,"row":{},"error":"x","when":2}"#;
    bench.write("data/eth/sinks/sqlite/dead-letters.jsonl", &format!("{letter}\nno letter\n"));
    bench.write("eth.toml", &renamed(&bench, "archive"));
    let mut program = bench.run();
    let why = program.until_failed("eth/sink.archive").await;
    program.stop().await;

    // While the store is away nobody can say that it has got its new name.
    let files = ["eth.sqlite", "eth.sqlite-wal", "eth.sqlite-shm"];
    let there: Vec<_> = files.into_iter().filter(|file| bench.path(file).exists()).collect();
    fs::create_dir(bench.path("away")).unwrap();
    let away = |file: &&str| fs::rename(bench.path(file), bench.path("away").join(file)).unwrap();
    there.iter().for_each(away);
    let ran = tidegate(bench.folder(), &["sink", "rename", "eth.toml", "sqlite", "archive", "--yes"]);
    assert!(ran.code != 0 && ran.said.contains("the store of `archive` has no position of `eth/sqlite`"), "{ran:?}");
    let back = |file: &&str| fs::rename(bench.path("away").join(file), bench.path(file)).unwrap();
    there.iter().for_each(back);

    bench.paste(&why, "sink rename eth.toml sqlite archive");
    let mut program = bench.run();
    until_stored(&mut program, "archive", 300).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    assert_eq!(program.stop().await.0, 0, "nobody has to look any more");
    assert!(!bench.path("data/eth/sinks/sqlite").exists() && !bench.path("data/eth/sinks/sqlite.json").exists());
    let letters = fs::read_to_string(bench.path("data/eth/sinks/archive/dead-letters.jsonl")).unwrap();
    // As it is written today, with its format.
    let renamed = letter.replace("\"sqlite\"", "\"archive\"").replacen('{', "{\"format\":2,", 1);
    assert_eq!(letters, format!("{renamed}\nno letter\n"));
    assert_eq!(bench.texts("SELECT sink FROM tidegate_position").await, ["archive"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_open_of_a_source_that_was_taken_out_is_said_and_asked_for_once_it_is_back() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let (ws, http) = (bench.venue.ws_url(), bench.venue.http_url());
    let other = format!(
        "[source.other]\ntype = \"deribit\"\nendpoint = {{ ws = \"{ws}\", http = \"{http}\" }}\nchannels = [\"trades\"]\n\
         instruments = [{{ currency = \"ETH\", kind = \"option\", top = 3 }}]\n"
    );
    let alone = fs::read_to_string(bench.path("eth.toml")).unwrap();
    bench.write("eth.toml", &format!("{alone}{other}"));
    let both = |report: &Value| {
        let rows = |name: &str| report["checks"][format!("eth/source.{name}")]["rows_received"].as_u64();
        rows("other") > Some(20) && rows("deribit") > Some(20)
    };
    let mut program = bench.run();
    program.until("both have rows", both).await;
    program.kill().await;

    bench.write("eth.toml", &alone);
    let mut program = bench.run();
    program
        .until_logged("`[source.other]` is not in the file any more: nobody listens to 3 of its streams, and ")
        .await;
    program.until_logged("asked for once it is there again, under this name").await;
    program.until_committed(100).await;
    program.stop().await;
    let page = tidegate(bench.folder(), &["coverage", "eth.toml", "--json"]).printed;
    let coverage: Value = serde_json::from_str(&page).unwrap();
    let kinds = coverage["coverage"]["kinds"].as_array().unwrap();
    let kind = kinds.iter().find(|kind| kind["source"] == "other").unwrap();
    assert!(kind["away"].as_u64() > Some(0) && kind["complete_since"].is_null(), "{kind:#}");

    bench.write("eth.toml", &format!("{alone}{other}"));
    let mut program = bench.run();
    let filled = |report: &Value| report["checks"]["eth/source.other"]["gaps"]["filled"].as_u64() > Some(0);
    program.until("its gaps are filled", filled).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_a_sink_that_was_killed_at_any_step_is_gone_on_with() {
    // What a crash between two steps leaves: the store has the new name already, or the folder too.
    for steps in 1..=2 {
        let bench = Bench::start(busy(500.0), "", "").await;
        let mut program = bench.run();
        program.until_committed(300).await;
        bench.rest(program).await;
        bench.write("eth.toml", &renamed(&bench, "archive"));
        let mut other = bench.connection().await;
        let moved = "UPDATE tidegate_position SET sink = 'archive'";
        sqlx::query(moved).execute(&mut other).await.unwrap();
        drop(other);
        if steps > 1 {
            fs::rename(bench.path("data/eth/sinks/sqlite"), bench.path("data/eth/sinks/archive")).unwrap();
        }
        bench.paste("`tidegate sink rename eth.toml sqlite archive`", "rename");
        bench.venue.resume();
        let mut program = bench.run();
        until_stored(&mut program, "archive", 200).await;
        bench.settle(&mut program).await.assert_exact(&program.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_had_not_got_is_counted_when_it_is_forgotten_and_the_spool_lets_go_of_it() {
    let spool = "[spool]\nsegment_bytes = \"64KiB\"\nmax_bytes = \"8MiB\"\nkeep = \"0s\"\n";
    let bench = Bench::start(busy(1_000.0), "", &format!("{}{spool}", down(""))).await;
    bench.write("store", "in the way");
    let mut program = bench.run();
    program.until_committed(500).await;
    bench.rest(program).await;
    let rows = bench.number(TRADES).await + bench.number(TICKERS).await;
    bench.write("eth.toml", &bench.pipeline("", spool));
    let mut program = bench.run();
    let why = program.until_failed("eth/sink.down").await;
    program.stop().await;

    let done = bench.paste(&why, "sink forget eth.toml down");
    assert!(done.printed.contains("; the ledger says so, lost at down"), "{done:?}");
    bench.venue.resume();
    let mut program = bench.run();
    let first = || fs::metadata(bench.path("data/eth/spool/00000000000000000001.seg"));
    program.until("the spool lets go of it", |_| first().is_err()).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    assert_eq!(program.stop().await.0, 0, "nobody has to look any more");
    let coverage = bench.coverage();
    let skipped = coverage["skipped"].as_array().unwrap();
    assert!(skipped.iter().all(|one| one["sink"] == "down"), "{coverage:#}");
    let lost: i64 = skipped.iter().map(|one| one["rows"].as_i64().unwrap()).sum();
    // With the tickers with which the last session began.
    assert!((rows..=rows + 20).contains(&lost), "{lost} of {rows}: {coverage:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_still_there_or_was_never_there_is_refused_with_the_right_ones() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(100).await;
    bench.rest(program).await;
    let refused = |words: &[&str]| {
        let ran = tidegate(bench.folder(), words);
        assert_eq!(ran.code, 2, "{ran:?}");
        ran.said
    };
    let said = refused(&["sink", "forget", "eth.toml", "sqlite", "--yes"]);
    assert!(said.contains("`[sink.sqlite]` stands in `eth.toml`: take it out first"), "{said}");
    let said = refused(&["sink", "rename", "eth.toml", "sqlite", "archive", "--yes"]);
    assert!(said.contains("there is no `[sink.archive]` in `eth.toml`, there are: sqlite"), "{said}");
    let said = refused(&["adopt", "eth.toml", "store", "--from-log", "--yes"]);
    assert!(said.contains("there is no `[sink.store]` in `eth.toml`, there are: sqlite"), "{said}");
    let said = refused(&["spool", "rename", "eth.toml", "eth", "--yes"]);
    assert!(said.contains("the pipeline is called `eth` already: give the old name"), "{said}");
    // Another pipeline's file, which stands beside it, has its spool.
    let other = bench.pipeline("", "").replace("name = \"eth\"", "name = \"ether\"");
    bench.write("ether.toml", &other);
    let said = refused(&["spool", "rename", "ether.toml", "eth", "--yes"]);
    assert!(said.contains("eth.toml` names the pipeline `eth`, beside `ether.toml`: the spool is its own"), "{said}");
    assert!(bench.path("data/eth/spool").is_dir());
    fs::rename(bench.path("eth.toml"), bench.path("eth.off")).unwrap();
    let said = refused(&["spool", "rename", "ether.toml", "etj", "--yes"]);
    assert!(said.contains("did you mean `eth`?; spools that no file names: eth"), "{said}");
    let said = refused(&["spool", "rename", "ether.toml", "something", "--yes"]);
    assert!(said.contains("something/spool`; spools that no file names: eth"), "{said}");
    fs::rename(bench.path("eth.off"), bench.path("eth.toml")).unwrap();
    fs::remove_file(bench.path("ether.toml")).unwrap();
    bench.write("eth.toml", &renamed(&bench, "archive"));
    let said = refused(&["sink", "rename", "eth.toml", "sqlit", "archive", "--yes"]);
    assert!(said.contains("nothing is known of a sink `sqlit`; known are: sqlite"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_was_renamed_goes_on_with_its_spool_and_in_its_stores() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    program.kill().await;
    let text = bench.pipeline("", "").replace("name = \"eth\"", "name = \"ether\"");
    bench.write("eth.toml", &text);
    let mut program = bench.run();
    let why = program.until_failed("ether/sink.sqlite").await;
    program.until_logged("`tidegate spool rename eth.toml eth`").await;
    let spooled = |report: &Value| report["checks"]["ether/spool"]["rows_appended"].as_u64() > Some(100);
    program.until("the new name spools", spooled).await;
    program.stop().await;

    let done = bench.paste(&why, "spool rename eth.toml eth");
    assert!(done.printed.contains("aside    the spool begun under the new name, "), "{done:?}");
    assert!(!bench.path("data/eth").exists());
    let kept = fs::read_dir(bench.path("data/ether")).unwrap().map(|file| file.unwrap().file_name());
    assert!(kept.filter(|name| name.to_str().unwrap().starts_with("replaced-")).count() == 1, "what was aside is kept");
    let mut program = bench.run();
    until_stored_of(&mut program, "ether/sink.sqlite", 300).await;
    bench.venue.freeze();
    let idle = |report: &Value| {
        report["checks"]["ether/sink.sqlite"]["oldest_uncommitted_seconds"].is_null()
            && report["checks"]["ether/source.deribit"]["gaps"]["open"] == 0
    };
    program.until("all is filled and stored", idle).await;
    let comparison = bench.until_no_trade_is_missing(&mut program).await;
    // The tickers that the new name had spooled are in no store, as was said.
    let trades = &comparison.trades;
    assert!(trades.made > 0 && trades.missing + trades.twice + comparison.tickers.twice == 0, "{comparison:?}");
    assert_eq!(program.stop().await.0, 0);
    assert_eq!(bench.texts("SELECT DISTINCT pipeline FROM tidegate_position").await, ["ether"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_added_begins_with_what_comes_then_or_with_all_that_the_spool_has() {
    for (start, begins_anew) in [("", true), ("start = \"latest\"\n", true), ("start = \"earliest\"\n", false)] {
        let bench = Bench::start(busy(500.0), "", "").await;
        let mut program = bench.run();
        program.until_committed(300).await;
        bench.rest(program).await;
        let before = bench.number(TRADES).await + bench.number(TICKERS).await;
        let added =
            format!("[sink.added]\ntype = \"sqlite\"\npath = \"{}\"\n{start}", bench.path("b.sqlite").display());
        bench.write("eth.toml", &bench.pipeline("", &added));
        let mut program = bench.run();
        // A kill does not move where it begins.
        program.until("it is there", |report| report["checks"]["eth/sink.added"].is_object()).await;
        program.kill().await;
        bench.venue.resume();
        let mut program = bench.run();
        until_stored(&mut program, "added", 100).await;
        bench.settle(&mut program).await.assert_exact(&program.log());
        program.stop().await;
        let all = bench.number(TRADES).await + bench.number(TICKERS).await;
        let added = bench.at("b.sqlite");
        let rows = added.number(TRADES).await + added.number(TICKERS).await;
        assert!(before > 0 && all > before);
        assert_eq!(rows, if begins_anew { all - before } else { all }, "{start}: {before} rows were there before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_added_sink_begins_is_said_in_one_line() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.rest(program).await;
    let end = bench.number("SELECT \"offset\" FROM tidegate_position").await;
    let added = format!("[sink.added]\ntype = \"sqlite\"\npath = \"{}\"\n", bench.path("b.sqlite").display());
    bench.write("eth.toml", &bench.pipeline("", &added));
    let mut program = bench.run();
    program.until_logged("a new sink: the first offset that it gets is ").await;
    let (_, log) = program.stop().await;
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a new sink")).collect();
    let [line] = lines[..] else { panic!("{log}") };
    let (_, rest) = line.split_once("that it gets is ").unwrap();
    let first: i64 = rest.split(';').next().unwrap().parse().unwrap();
    assert!((end..end + 10).contains(&first), "{line}");
    assert!(line.contains("start = \"earliest\" would give it the"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_sections_and_a_restart_change_no_row() {
    let file = "[sink.files]\ntype = \"file\"\npath = \"rows\"\n";
    let bench = Bench::start(busy(500.0), "", file).await;
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.rest(program).await;
    let before = everything(&bench).await;
    let text = bench.pipeline("", file);
    let mut sections: Vec<&str> = text.split("\n[").collect();
    assert!(sections.len() > 3, "{text}");
    sections[0] = sections[0].trim_start_matches('[');
    sections.reverse();
    let text: String = sections.iter().map(|section| format!("[{section}\n")).collect();
    bench.write("eth.toml", &text);
    let mut program = bench.run();
    let idle = |report: &Value| {
        ["sqlite", "files"].iter().all(|sink| report["checks"][format!("eth/sink.{sink}")]["status"] == "healthy")
    };
    program.until("it is well", idle).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("the tables are not those") && !log.contains("went back"), "{log}");
    let after = everything(&bench).await;
    assert_eq!(after[..before.len()], before, "no row is changed, and none goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_and_tables_that_change_with_rows_under_way_cost_no_row() {
    let bench = Bench::start(busy(500.0), "", "").await.at("store/eth.sqlite");
    bench.write("eth.toml", &bench.pipeline("", ""));
    let mut program = bench.run();
    program.until_committed(300).await;
    program.kill().await;
    // Rows wait while the store is away, and come to a table that lacks a column, under another name.
    fs::rename(bench.path("store"), bench.path("away")).unwrap();
    bench.write("store", "in the way");
    let mut program = bench.run();
    let waits = |report: &Value| report["checks"]["eth/spool"]["rows_appended"].as_u64() > Some(300);
    program.until("rows wait", waits).await;
    program.kill().await;
    fs::remove_file(bench.path("store")).unwrap();
    fs::rename(bench.path("away"), bench.path("store")).unwrap();
    let mut other = bench.connection().await;
    for sql in ["ALTER TABLE trades DROP COLUMN iv", "ALTER TABLE tickers DROP COLUMN mark_price"] {
        sqlx::query(sql).execute(&mut other).await.unwrap();
    }
    drop(other);
    let mut program = bench.run();
    program.until_committed(600).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    assert!(bench.number("SELECT count(iv) FROM trades").await > 0, "it is there again");
}

const TRADES: &str = "SELECT count(*) FROM trades";
const TICKERS: &str = "SELECT count(*) FROM tickers";

/// Returns the pipeline's text with another name for its sink.
fn renamed(bench: &Bench, name: &str) -> String {
    bench.pipeline("", "").replace("[sink.sqlite]", &format!("[sink.{name}]\ntype = \"sqlite\""))
}

/// Returns a sink whose store cannot be made.
fn down(rest: &str) -> String {
    format!("[sink.down]\ntype = \"sqlite\"\npath = \"store/down.sqlite\"\n{rest}")
}

async fn until_stored(program: &mut Program, sink: &str, rows: u64) {
    until_stored_of(program, &format!("eth/sink.{sink}"), rows).await;
}

async fn until_stored_of(program: &mut Program, stage: &str, rows: u64) {
    let stored = |report: &Value| report["checks"][stage]["rows_committed"].as_u64() >= Some(rows);
    program.until(&format!("{stage} has stored {rows} rows"), stored).await;
}

/// Returns every row of the store, in the order in which they were stored.
async fn everything(bench: &Bench) -> Vec<String> {
    let mut other = bench.connection().await;
    let mut rows = Vec::new();
    for table in ["trades", "tickers"] {
        let sql = format!(
            "SELECT json_object('t', '{table}', 'id', rowid, 's', symbol, 'at', ts_event, 'recv', ts_recv) FROM {table} ORDER BY rowid"
        );
        let found: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut other).await.unwrap();
        rows.push(found);
    }
    // Tickers come with each session, behind the others.
    rows.concat()
}
