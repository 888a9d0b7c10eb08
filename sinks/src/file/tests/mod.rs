//! The sink on real files.

mod adopt;
mod contract;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    task::Poll,
};

use tempfile::TempDir;
use tidegate_core::{
    Result,
    config::ByteSize,
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::{Sink, Written},
    testkit::MemoryLog,
};

use super::{FileConfig, sink::FileSink};

struct Bench {
    log: MemoryLog,
    directory: TempDir,
    config: FileConfig,
}

async fn written() -> Bench {
    let bench = Bench::new();
    bench.trades(2);
    let mut sink = bench.opened().await;
    bench.write(&mut sink, 0, 2).await.unwrap();
    sink.close().await.unwrap();
    bench
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("{pipeline}");
        let config = serde_json::from_value(serde_json::json!({ "path": path })).unwrap();
        Self { log: MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]), directory, config }
    }

    fn rotate(mut self, bytes: ByteSize) -> Self {
        self.config.rotate.bytes = bytes;
        self
    }

    fn sink(&self) -> FileSink {
        FileSink::new(self.config.clone())
    }

    async fn open(&self, sink: &mut FileSink) -> Result<Option<u64>> {
        let positions = sink.open(&self.log.context(self.directory.path())).await?;
        Ok(positions.first().map(|(_, position)| position.offset))
    }

    async fn opened(&self) -> FileSink {
        let mut sink = self.sink();
        self.open(&mut sink).await.unwrap();
        sink
    }

    async fn write(&self, sink: &mut FileSink, from: u64, to: u64) -> Result<()> {
        let written = sink.write(&self.log.chunk(from, to)).await?;
        assert!(matches!(written, Written::Committed));
        Ok(())
    }

    fn trades(&self, count: u64) -> u64 {
        let mut last = 0;
        for _ in 0..count {
            let n = self.log.synced().borrow().offset + 1;
            last = self.log.emit(mark(n), &Trade { price: 1.5, size: 2.0, ..Trade::default() });
        }
        last
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("test")
    }

    fn record(&self) -> PathBuf {
        self.path().join(".tidegate-test-sink.json")
    }

    fn files(&self, table: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<PathBuf> = all.filter(|path| name(path).starts_with(table)).collect();
        files.sort();
        files
    }

    fn lines(&self, table: &str) -> Vec<serde_json::Value> {
        let texts = self.files(table).into_iter().map(|path| fs::read_to_string(path).unwrap());
        texts
            .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
            .collect()
    }

    fn sequence(&self) -> Vec<u64> {
        let sequence: Vec<u64> = self.lines("trades").iter().map(|line| line["seq"].as_u64().unwrap()).collect();
        assert_eq!(sequence.iter().collect::<HashSet<_>>().len(), sequence.len(), "a row is there twice");
        sequence
    }
}

/// Polls a write so often, and then drops it; `None` if it had not ended.
async fn dropped_after(
    polls: u32,
    mut write: impl Future<Output = Result<Written>> + Unpin,
) -> Option<Result<Written>> {
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        if left == 0 {
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut write).poll(cx).map(Some)
    })
    .await
}

fn mark(n: u64) -> Mark<'static> {
    Mark { symbol: "X", position: Position::Sequence(n), ts_event: Timestamp(n.cast_signed()) }
}
