//! The sink on real files.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    task::Poll,
};

use tempfile::TempDir;
use tidegate_core::{
    Kind, Result,
    config::{ByteSize, Duration},
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::{Sink, Written},
    testkit::MemoryLog,
};

use super::{FileConfig, sink::FileSink};

#[tokio::test]
async fn every_table_has_its_lines_and_the_position_is_there_after_a_restart() {
    let bench = Bench::new();
    bench.trades(5);
    bench.log.emit(mark(6), &Quote { bid_price: Some(1.0), ..Quote::default() });
    let mut sink = bench.sink();
    assert_eq!(bench.open(&mut sink).await.unwrap(), None);
    bench.write(&mut sink, 0, 6).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(bench.lines("trades").len(), 5);
    assert_eq!(bench.lines("quotes")[0]["bid_price"], 1.0);
    assert_eq!(bench.open(&mut bench.sink()).await.unwrap(), Some(6));
    assert_eq!(sink.guarantee().to_string(), "exactly-once (truncation)");
}

#[tokio::test]
async fn what_was_written_and_not_recorded_is_cut_off() {
    let bench = Bench::new();
    bench.trades(6);
    let mut sink = bench.opened().await;
    bench.write(&mut sink, 0, 3).await.unwrap();
    sink.close().await.unwrap();
    // Killed between the write and the record: half a chunk in the file in work, and a file of a table that had none.
    let in_work = bench.files("trades")[0].clone();
    let mut text = fs::read(&in_work).unwrap();
    text.extend_from_slice(b"{\"ts_event\":\"1970-");
    fs::write(&in_work, text).unwrap();
    fs::write(bench.path().join("quotes-00000000000000000004.jsonl"), "{}\n").unwrap();

    let mut sink = bench.sink();
    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(3));
    assert_eq!(bench.files("quotes").len(), 1, "nothing goes before the position was held against the spool");
    bench.write(&mut sink, 3, 6).await.unwrap();
    assert_eq!(bench.sequence(), (1..=6).collect::<Vec<_>>());
    assert_eq!(bench.files("quotes").len(), 0);
}

#[tokio::test]
async fn a_write_that_is_dropped_at_any_point_has_committed_all_or_nothing() {
    let bench = Bench::new().rotate(ByteSize(400));
    let mut sink = bench.opened().await;
    let mut at = 0;
    for polls in (0..4).cycle().take(120) {
        let to = bench.trades(3);
        let chunk = bench.log.chunk(at, to);
        let ended = {
            let mut write = sink.write(&chunk);
            let mut left = polls;
            std::future::poll_fn(|cx| {
                if left == 0 {
                    return Poll::Ready(None);
                }
                left -= 1;
                if left == 0 {
                    cx.waker().wake_by_ref();
                }
                write.as_mut().poll(cx).map(Some)
            })
            .await
        };
        let stands = bench.open(&mut sink).await.unwrap().unwrap_or(0);
        assert!(stands == at || stands == to, "at {stands}, neither before nor behind the chunk {at}..{to}");
        assert!(ended.is_none() || stands == to, "a commit that was answered is not there");
        at = stands;
        if ended.is_some() {
            assert_eq!(bench.sequence(), (1..=at).collect::<Vec<_>>(), "rows and position are one");
        }
    }
    let to = bench.trades(1);
    bench.write(&mut sink, at, to).await.unwrap();
    assert_eq!(bench.sequence(), (1..=to).collect::<Vec<_>>(), "what did not count went with the next write");
    assert!(at > 0 && bench.files("trades").len() > 2, "the test wrote and rotated");
}

#[tokio::test]
async fn files_are_rotated_by_size_and_by_time() {
    let bench = Bench::new().rotate(ByteSize(500));
    let mut sink = bench.opened().await;
    let mut at = 0;
    for _ in 0..10 {
        let to = bench.trades(2);
        bench.write(&mut sink, at, to).await.unwrap();
        at = to;
    }
    let files = bench.files("trades");
    assert!(files.len() > 2, "{files:?}");
    assert!(files[..files.len() - 1].iter().all(|file| (500..1_200).contains(&fs::metadata(file).unwrap().len())));
    assert_eq!(bench.sequence(), (1..=20).collect::<Vec<_>>());

    let mut old = Bench::new();
    old.config.rotate.every = Duration(std::time::Duration::from_nanos(1));
    let mut sink = old.opened().await;
    for n in 0..3 {
        old.trades(1);
        old.write(&mut sink, n, n + 1).await.unwrap();
    }
    assert_eq!(old.files("trades").len(), 3);
}

#[tokio::test]
async fn a_disk_that_is_full_is_transient_with_the_path_and_heals() {
    let bench = Bench::new().rotate(ByteSize(1));
    bench.trades(2);
    let mut sink = bench.opened().await;
    bench.write(&mut sink, 0, 1).await.unwrap();
    symlink("/dev/full", bench.path().join("trades-00000000000000000002.jsonl")).unwrap();
    let error = bench.write(&mut sink, 1, 2).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    let text = error.chain();
    assert!(text.contains("trades-00000000000000000002.jsonl") && text.contains("No space left"), "{text}");

    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(1));
    bench.write(&mut sink, 1, 2).await.unwrap();
    assert_eq!(bench.sequence(), [1, 2]);
}

#[tokio::test]
async fn files_that_are_gone_or_too_short_or_without_a_record_need_a_person() {
    let bench = written().await;
    let file = bench.files("trades")[0].clone();
    fs::write(&file, "").unwrap();
    let error = bench.open(&mut bench.sink()).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("rows are missing"), "{error}");
    fs::remove_file(&file).unwrap();
    let error = bench.open(&mut bench.sink()).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("is gone"), "{error}");

    let bench = written().await;
    fs::remove_file(bench.record()).unwrap();
    let error = bench.open(&mut bench.sink()).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("no record"), "{error}");

    let bench = written().await;
    fs::write(bench.record(), "{").unwrap();
    assert!(bench.open(&mut bench.sink()).await.unwrap_err().to_string().contains("is damaged"));
}

#[tokio::test]
async fn a_file_that_is_removed_while_it_is_open_is_found_out() {
    let bench = Bench::new();
    bench.trades(2);
    let mut sink = bench.opened().await;
    bench.write(&mut sink, 0, 1).await.unwrap();
    fs::remove_file(&bench.files("trades")[0]).unwrap();
    assert!(sink.check().await.is_err());
    let error = bench.write(&mut sink, 1, 2).await.unwrap_err();
    assert!(error.to_string().contains("was removed or replaced"), "{error}");
}

#[tokio::test]
async fn two_programs_on_one_directory_and_another_spool_are_refused() {
    let bench = Bench::new();
    let mut first = bench.opened().await;
    let error = bench.open(&mut bench.sink()).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("another sink or program"), "{error}");
    first.close().await.unwrap();

    let mut context = bench.log.context(bench.directory.path());
    context.owner.spool = 2;
    let error = bench.sink().open(&context).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("0000000000000002"), "{error}");
}

#[tokio::test]
async fn a_folder_with_the_files_of_another_sink_is_refused_and_left_as_it_is() {
    let bench = written().await;
    let mut context = bench.log.context(bench.directory.path());
    context.owner.sink = "other".into();
    let error = bench.sink().open(&context).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("a folder of its own"), "{error}");
    assert_eq!(bench.sequence(), [1, 2]);
}

#[tokio::test]
async fn a_record_that_went_back_costs_nothing_until_the_spool_has_said_that_it_can_send_again() {
    let bench = written().await;
    let before = fs::read(bench.record()).unwrap();
    bench.trades(2);
    let mut sink = bench.opened().await;
    bench.write(&mut sink, 2, 4).await.unwrap();
    sink.close().await.unwrap();
    fs::write(bench.record(), before).unwrap();
    let mut sink = bench.sink();
    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(2));
    sink.close().await.unwrap();
    assert_eq!(bench.sequence(), [1, 2, 3, 4], "opened and not written to: nothing is gone");
}

#[tokio::test]
async fn the_same_chunk_twice_is_stored_once() {
    let bench = Bench::new();
    bench.trades(2);
    let mut sink = bench.opened().await;
    bench.write(&mut sink, 0, 2).await.unwrap();
    assert!(bench.write(&mut sink, 0, 2).await.is_err());
    assert_eq!(bench.sequence(), [1, 2]);
}

#[test]
fn a_directory_per_row_and_a_rotation_without_end_are_refused() {
    for name in ["", "x/{symbol}", "x/{table}", "x/{pipeline"] {
        let wrong = serde_json::from_value::<FileConfig>(serde_json::json!({ "path": name })).unwrap_err();
        assert!(wrong.to_string().contains("in which {pipeline} may stand"), "{wrong}");
    }
    let endless = serde_json::from_str::<FileConfig>(r#"{"path":"x","rotate":{"bytes":"0MiB"}}"#).unwrap_err();
    assert!(endless.to_string().contains("a size above 0"), "{endless}");
}

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

fn mark(n: u64) -> Mark<'static> {
    Mark { symbol: "X", position: Position::Sequence(n), ts_event: Timestamp(n.cast_signed()) }
}
