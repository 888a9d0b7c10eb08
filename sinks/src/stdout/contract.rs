//! The contract of sinks, as far as it speaks to a printer.

use std::sync::Arc;

use async_trait::async_trait;
use tidegate_core::{
    chunk::SinkTable,
    sink::Sink,
    testkit::contract::{self, SinkBench, StoredRow, row_of_json},
};

use super::{
    Format,
    sink::{Stdout, tests::Shared},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_of_sinks() {
    let report = contract::assert_kept(async || Printed::default()).await;
    let kept = [
        "new store",
        "chunks in order",
        "same chunk twice",
        "empty chunk",
        "huge chunk",
        "shutdown",
        "column types",
        "names",
        "write given up at every await",
        "open given up at every await",
        "look without a trace",
    ];
    assert_eq!(report.kept(), kept, "the rest is for stores that keep a position, refuse rows or can be reached");
}

/// What was printed.
#[derive(Default)]
struct Printed(Shared);

#[async_trait]
impl SinkBench for Printed {
    fn sink(&self) -> Box<dyn Sink> {
        let shared = self.0.clone();
        Box::new(Stdout::new(Format::Json, || false, Box::new(move || shared.clone())))
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let text = String::from_utf8(Arc::clone(&self.0.0).lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["table"] == *table.name).map(|line| row_of_json(table, &line)).collect()
    }
}
