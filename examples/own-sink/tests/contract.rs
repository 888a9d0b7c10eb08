//! The contract of sinks, run on the example's sink: the first test of any sink, and the only one that this one needs.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

use std::{fs, path::Path};

use own_sink::PagesConfig;
use serde_json::Value;
use tidegate::{
    catalog::Component,
    chunk::SinkTable,
    sink::Sink,
    testkit::contract::{self, SinkBench, StoredRow, row_of_json},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_keeps_the_contract_of_sinks() {
    let report = contract::assert_kept(async || Pages { folder: tempfile::tempdir().unwrap() }).await;
    let left_out = [
        "back-pressure",
        "refused rows",
        "refused row in several tables",
        "connection cut anywhere",
        "slow store",
        "frozen store",
        "store that is down",
        "restarted store",
        "table dropped",
        "column dropped",
        "audit",
        "adopt",
        "rename",
        "keys",
    ];
    assert_eq!(report.left_out(), left_out, "there is no server, and it refuses nothing");
}

/// The bench of the example's sink: all that an author has to write.
struct Pages {
    folder: tempfile::TempDir,
}

#[async_trait::async_trait]
impl SinkBench for Pages {
    fn sink(&self) -> Box<dyn Sink> {
        PagesConfig { folder: self.folder.path().to_owned() }.build().unwrap()
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let lines = lines_of(self.folder.path()).into_iter();
        lines.filter(|line| line["table"] == *table.name).map(|line| row_of_json(table, &line["row"])).collect()
    }
}

/// Returns the lines of all pages below a folder.
fn lines_of(folder: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            lines.extend(lines_of(&path));
        } else if path.extension().is_some_and(|end| end == "jsonl") {
            let text = fs::read_to_string(path).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    lines
}
