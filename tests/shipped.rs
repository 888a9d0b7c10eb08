//! The pipeline that the README sends a newcomer to, as it is shipped: only the venue's address is the simulator's.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{fs, path::Path};

use support::{Bench, PATIENCE, Program, busy, tidegate};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_pipeline_stores_each_table_of_fifty_options_as_the_venue_made_it() {
    let bench = Bench::start(busy(2_000.0), "", "").await.at("eth-options.sqlite");
    fs::remove_file(bench.path("eth.toml")).unwrap();
    bench.write(FILE, &shipped_but_for_the_address(&bench));
    let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let words = ["run", FILE, "--supervised", "50ms"];
    let mut program = Program::start_with(program, bench.folder(), &words, &VARIABLES);
    let deadline = Instant::now() + PATIENCE;
    for table in ["trades", "tickers"] {
        while symbols(&bench, table).await < 50 {
            let log = program.log();
            assert!(Instant::now() < deadline, "{table} of {} options; {log}", symbols(&bench, table).await);
            program.next_report().await;
        }
    }
    bench.settle(&mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");

    let tables = bench.texts("SELECT name FROM sqlite_master WHERE type = 'table'").await;
    let tables: Vec<&String> = tables.iter().filter(|name| !name.starts_with("tidegate_")).collect();
    assert_eq!(tables, ["tickers", "trades"], "a table for each channel of the file");
    for table in tables {
        assert_eq!(symbols(&bench, table).await, 50, "{table}: those with the most open interest and no other");
        let strangers = format!("SELECT count(*) FROM {table} WHERE symbol NOT LIKE 'ETH-%-_'");
        assert_eq!(bench.number(&strangers).await, 0, "{table}: options of ETH");
    }
    let verified = tidegate(bench.folder(), &["verify", FILE]);
    assert_eq!(verified.code, 0, "{verified:?}");
}

/// Returns the shipped text with the simulator's line in the place of its address.
fn shipped_but_for_the_address(bench: &Bench) -> String {
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(FILE)).unwrap();
    let of_venue = bench.pipeline("", "");
    let address = |text: &str| text.lines().find(|line| line.starts_with("endpoint = ")).unwrap().to_owned();
    let text = shipped.replace(&address(&shipped), &address(&of_venue));
    let changed = shipped.lines().zip(text.lines()).filter(|(shipped, here)| shipped != here).count();
    assert_eq!((changed, text.lines().count()), (1, shipped.lines().count()), "nothing else is changed");
    text
}

async fn symbols(bench: &Bench, table: &str) -> i64 {
    bench.number(&format!("SELECT count(DISTINCT symbol) FROM {table}")).await
}

const FILE: &str = "deribit-eth-options.toml";

/// `DATABASE` empty is as if it were not set: the file has the name that the pipeline gives it.
const VARIABLES: [(&str, &str); 1] = [("DATABASE", "")];
