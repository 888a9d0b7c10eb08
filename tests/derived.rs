//! Derived tables through the real program over SQLite: what a `where` lets through and a `select` renames is stored once,
//! whatever is killed; what has no value is a dead letter, and goes to its table alone when the expression is mended.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{Bench, busy};

const WORTH: f64 = 0.5;

/// Trades worth something, and tickers under other names, beside the tables that they are made of.
const TABLES: &str = r#"
tables = { trades = {}, tickers = {}, option_trades = "my_trades", eth_option_quotes = {}, sells = {} }
batch = { rows = 200 }

[table.option_trades]
from = "trades"
where = "price * size >= ${WORTH} and symbol like 'ETH-%'"
select = """
  ts_event as timestamp, symbol as instrument, split_part(symbol, '-', 4) as kind,
  price, size as amount, side as direction, seq as "trade number" """

[table.sells]                                 # of a derived table, all columns as they are
from = "big"
where = "side = 'sell'"

[table.big]
from = "trades"
where = "price * size >= ${WORTH}"

[table.eth_option_quotes]
from = "tickers"
select = """
  ts_event as timestamp, symbol as instrument, bid_price as best_bid_price, bid_size as best_bid_amount,
  ask_price as best_ask_price, ask_size as best_ask_amount, underlying_price, mark_price, delta, gamma, theta, vega, rho,
  mark_iv as implied_volatility, bid_iv, ask_iv, mark_iv, open_interest, last_price"""
"#;

#[tokio::test(flavor = "multi_thread")]
async fn option_trades_worth_enough_and_renamed_columns_are_stored_once_through_kills() {
    let bench = Bench::start(busy(800.0), "", TABLES).await;
    let worth = WORTH.to_string();
    let run = || bench.run_with(&[("WORTH", &worth)]);
    let mut program = run();
    for round in 1..=4 {
        bench.until_number(&mut program, "SELECT count(*) FROM my_trades", round * 40).await;
        program.kill().await;
        program = run();
    }
    bench.until_number(&mut program, "SELECT count(*) FROM my_trades", 200).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");

    let is_worth = format!("price * size >= {WORTH}");
    let made = "timestamp, instrument, price, amount, direction, \"trade number\"";
    let from = "ts_event, symbol, price, size, side, seq";
    same_rows(&bench, (made, "my_trades"), (from, &format!("trades WHERE {is_worth} AND symbol LIKE 'ETH-%'"))).await;
    same_rows(&bench, ("*", "sells"), ("*", &format!("trades WHERE {is_worth} AND side = 'sell'"))).await;
    let quotes = ("timestamp, instrument, best_bid_price, implied_volatility, delta", "eth_option_quotes");
    same_rows(&bench, quotes, ("ts_event, symbol, bid_price, mark_iv, delta", "tickers")).await;
    let kinds = "SELECT count(*) FROM my_trades WHERE kind NOT IN ('C', 'P')";
    assert_eq!(bench.number(kinds).await, 0);
    let left_out = bench.number(&format!("SELECT count(*) FROM trades WHERE NOT {is_worth}")).await;
    assert!(left_out > 50 && bench.number("SELECT count(*) FROM sells").await > 20, "{left_out}");

    // Spool, ledger and store agree; a row that goes missing is seen, also where nothing tells it from others.
    let (code, page) = verify(&bench, &worth);
    assert_eq!(code, 0, "{page}");
    assert!(
        page.contains("my_trades: its `select` leaves out columns that tell rows apart, so they are counted"),
        "{page}"
    );
    let mut db = bench.connection().await;
    sqlx::query("DELETE FROM my_trades WHERE rowid = 7").execute(&mut db).await.unwrap();
    sqlx::query("DELETE FROM sells WHERE rowid = 7").execute(&mut db).await.unwrap();
    let (code, page) = verify(&bench, &worth);
    assert_eq!(code, 1, "{page}");
    assert!(page.contains("  my_trades: 1 row missing") && page.contains("  sells: "), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_definition_is_said_and_holds_from_there_on() {
    let tables = |worth: &str| {
        let big = format!("[table.big]\nfrom = \"trades\"\nwhere = \"price * size >= {worth}\"\n");
        format!("tables = [\"trades\", \"tickers\", \"big\"]\n{big}")
    };
    let bench = Bench::start(busy(500.0), "", &tables("0.2")).await;
    let mut program = bench.run();
    bench.until_number(&mut program, "SELECT count(*) FROM big", 60).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let border = bench.number("SELECT max(ts_recv) FROM trades").await;
    bench.write("eth.toml", &bench.pipeline("", &tables("2")));
    let mut program = bench.run();
    let counted = format!("SELECT count(*) FROM big WHERE ts_recv > {border}");
    bench.until_number(&mut program, &counted, 20).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("the tables are not those of the last start"), "{log}");
    let below = format!("SELECT count(*) FROM big WHERE price * size < 2 AND ts_recv > {border}");
    assert_eq!(bench.number(&below).await, 0);
    assert!(bench.number("SELECT count(*) FROM big WHERE price * size < 2").await > 0, "what was stored stays");
    let (code, page) = verify(&bench, "");
    assert_eq!(code, 0, "what an earlier definition has made is not held against this one: {page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_value_is_a_dead_letter_and_arrives_in_its_table_alone_once_the_expression_is_mended() {
    let tables = |ratio: &str| {
        format!(
            "tables = [\"trades\", \"tickers\", \"ratios\"]\n[table.ratios]\nfrom = \"trades\"\n\
             select = \"ts_event, symbol, seq, {ratio} as ratio\"\n"
        )
    };
    let bench = Bench::start(busy(500.0), "", &tables("100 / (seq % 4)")).await;
    let mut program = bench.run();
    bench.until_number(&mut program, "SELECT count(*) FROM ratios", 100).await;
    program.kill().await;
    let mut program = bench.run();
    bench.until_number(&mut program, "SELECT count(*) FROM ratios", 200).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let odd = bench.number("SELECT count(*) FROM trades WHERE CAST(seq AS INTEGER) % 4 = 0").await;
    let listed = letters(&bench);
    assert_eq!(listed.len() as i64, odd, "{log}");
    let letter = &listed[0];
    assert_eq!((letter["table"].as_str(), letter["from"].as_str()), (Some("ratios"), Some("trades")), "{letter:#}");
    let error = letter["error"].as_str().unwrap();
    assert_eq!(error, "[table.ratios] `100 / (seq % 4)`: division by zero");
    let all = "SELECT count(*) FROM trades";
    assert_eq!(bench.number("SELECT count(*) FROM ratios").await, bench.number(all).await - odd);
    let (code, page) = verify(&bench, "");
    assert_eq!(code, 0, "{page}");
    let shown = said(&deadletter(&bench, &["show", "eth.toml", "--table", "ratios"]));
    assert!(shown.contains("division by zero") && shown.contains("\"price\":"), "{shown}");

    bench.write("eth.toml", &bench.pipeline("", &tables("100 / nullif(seq % 4, 0)")));
    let asked = said(&deadletter(&bench, &["redrive", "eth.toml", "--all"]));
    assert!(asked.contains(&format!("{odd} dead letters of eth asked for")), "{asked}");
    let before = bench.number(all).await;
    let mut program = bench.run();
    bench.until_number(&mut program, "SELECT count(*) FROM ratios WHERE ratio IS NULL", odd).await;
    program.kill().await;
    let mut program = bench.run();
    bench.settle(&mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(bench.number("SELECT count(*) FROM trades WHERE origin = 'redrive'").await, 0, "of {before}");
    assert_eq!(bench.number("SELECT count(*) - count(DISTINCT symbol || seq) FROM ratios").await, 0);
    let upto = bench.number("SELECT count(*) FROM ratios").await;
    assert_eq!(upto, bench.number(all).await, "each trade has its row");
    let (code, page) = verify(&bench, "");
    assert_eq!(code, 0, "{page}");
}

/// Both hold the same rows, each as often.
async fn same_rows(bench: &Bench, (columns, table): (&str, &str), (of, source): (&str, &str)) {
    let (one, other) = (format!("SELECT {columns} FROM {table}"), format!("SELECT {of} FROM {source}"));
    let count = async |sql: &str| bench.number(&format!("SELECT count(*) FROM ({sql})")).await;
    assert_eq!(count(&one).await, count(&other).await, "{one} beside {other}");
    assert!(count(&one).await > 0, "{one}");
    assert_eq!(count(&format!("{one} EXCEPT {other}")).await, 0, "{one} beside {other}");
    assert_eq!(count(&format!("{other} EXCEPT {one}")).await, 0, "{one} beside {other}");
}

fn tidegate(bench: &Bench, arguments: &[&str], worth: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(bench.folder()).args(arguments);
    if !worth.is_empty() {
        command.env("WORTH", worth);
    }
    command.output().unwrap()
}

fn verify(bench: &Bench, worth: &str) -> (i32, String) {
    let output = tidegate(bench, &["verify", "eth.toml"], worth);
    (output.status.code().unwrap(), said(&output))
}

fn deadletter(bench: &Bench, arguments: &[&str]) -> Output {
    tidegate(bench, &[&["deadletter"], arguments].concat(), "")
}

fn letters(bench: &Bench) -> Vec<Value> {
    let output = deadletter(bench, &["show", "eth.toml", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
