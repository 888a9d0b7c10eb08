//! The contract of sinks, on real folders.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tempfile::TempDir;
use tidegate_core::{
    chunk::SinkTable,
    sink::{Owner, Sink},
    spool::{Boot, SpoolPosition},
    testkit::contract::{self, CannotTell, SinkBench, StoredRow, row_of_json},
};

use super::super::{FileConfig, sink::FileSink};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_lines_keep_the_contract_of_sinks() {
    let report = contract::assert_kept(async || Folder::new("json")).await;
    let mut left_out = vec!["back-pressure", "refused rows", "refused row in several tables"];
    left_out.extend(NO_SERVER);
    left_out.extend(["column dropped", "audit", "keys"]);
    assert_eq!(report.left_out(), left_out);
}

#[cfg(feature = "parquet")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_keeps_the_contract_of_sinks() {
    let report = contract::assert_kept(async || Folder::new("parquet")).await;
    let mut left_out = vec!["refused rows", "refused row in several tables"];
    left_out.extend(NO_SERVER);
    left_out.extend(["table dropped", "column dropped", "audit", "keys"]);
    assert_eq!(report.left_out(), left_out);
}

/// There is no server, and no way to it that could be cut.
const NO_SERVER: [&str; 5] =
    ["connection cut anywhere", "slow store", "frozen store", "store that is down", "restarted store"];

/// A folder that does not exist yet.
struct Folder {
    directory: TempDir,
    format: &'static str,
}

impl Folder {
    fn new(format: &'static str) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), format }
    }

    /// Returns the files that count of a table, of whichever pipeline.
    fn files(&self, table: &str) -> Vec<PathBuf> {
        let end = if self.format == "json" { "jsonl" } else { "parquet" };
        let mut files = Vec::new();
        for folder in fs::read_dir(self.directory.path()).unwrap().map(|folder| folder.unwrap().path()) {
            let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
            files.extend(names.filter(|file| {
                let name = file.file_name().unwrap().to_str().unwrap();
                let rest = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('-')?.split_once('.'));
                rest.is_some_and(|(number, rest)| rest == end && number.bytes().all(|digit| digit.is_ascii_digit()))
            }));
        }
        files
    }
}

#[async_trait]
impl SinkBench for Folder {
    fn sink(&self) -> Box<dyn Sink> {
        let path = self.directory.path().join("{pipeline}");
        // So that some chunks are committed, and most are accepted, with files of several chunks.
        let rotate = serde_json::json!({ "bytes": "16KiB", "every": "50ms" });
        let config = serde_json::json!({ "path": path, "format": self.format, "rotate": rotate });
        let config: FileConfig = serde_json::from_value(config).unwrap();
        Box::new(FileSink::new(config))
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let files = self.files(&table.name);
        if self.format != "json" {
            return files.iter().flat_map(|file| parquet_rows(file)).collect();
        }
        let texts = files.into_iter().map(|file| fs::read_to_string(file).unwrap());
        let rows = texts.flat_map(|text| {
            let lines = text.lines().map(|line| row_of_json(table, &serde_json::from_str(line).unwrap()));
            lines.collect::<Vec<_>>()
        });
        rows.collect()
    }

    async fn position(&mut self, owner: &Owner) -> Result<Option<SpoolPosition>, CannotTell> {
        let name = format!(".tidegate-{}-{}.json", owner.pipeline, owner.sink);
        let Ok(record) = fs::read(self.directory.path().join(&owner.pipeline).join(name)) else { return Ok(None) };
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let boot = Boot(u64::from_str_radix(record["boot"].as_str().unwrap(), 16).unwrap());
        Ok(Some(SpoolPosition { boot, offset: record["offset"].as_u64().unwrap() }))
    }

    async fn drop_table(&mut self, table: &SinkTable) -> bool {
        // A finished file of Parquet is nobody's any more: it may have been moved to where it is read.
        let files = if self.format == "json" { self.files(&table.name) } else { Vec::new() };
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
        !files.is_empty()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

#[cfg(feature = "parquet")]
fn parquet_rows(file: &Path) -> Vec<StoredRow> {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use tidegate_core::testkit::contract::rows_of;

    let file = fs::File::open(file).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.flat_map(|batch| rows_of(&batch.unwrap())).collect()
}

#[cfg(not(feature = "parquet"))]
fn parquet_rows(_: &Path) -> Vec<StoredRow> {
    Vec::new()
}
