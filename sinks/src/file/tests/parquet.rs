//! Parquet.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Instant,
};

use arrow_array::{RecordBatch, UInt64Array, cast::AsArray, types::UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidegate_core::{
    Kind, Result,
    config::{ByteSize, Duration},
    row::{Label, Level, Mark, Position, Table, Timestamp, kinds::Quote},
    sink::{Sink, Written},
    testkit::MemoryLog,
};

use super::{super::sink::FileSink, Bench, dropped_after, mark};

#[derive(Default)]
struct Everything<'a> {
    flag: Option<bool>,
    signed: Option<i64>,
    unsigned: Option<u64>,
    number: Option<f64>,
    text: Option<&'a str>,
    label: Option<Label<'a>>,
    time: Option<Timestamp>,
    levels: Option<&'a [Level]>,
    list: Option<&'a [i64]>,
}

tidegate_core::row!(Everything<'_> => "everything",
    [flag, signed, unsigned, number, text, label, time, levels, list]);

#[tokio::test]
async fn every_value_comes_back_exactly() {
    let mut bench = bench();
    bench.log = MemoryLog::new("deribit", vec![Table::of::<Everything<'_>>()]);
    let least = Everything {
        flag: Some(false),
        signed: Some(i64::MIN),
        unsigned: Some(0),
        number: Some(-0.0),
        text: Some(""),
        label: Some(Label("")),
        time: Some(Timestamp(i64::MIN)),
        levels: Some(&[]),
        list: Some(&[]),
    };
    let most = Everything {
        flag: Some(true),
        signed: Some(i64::MAX),
        unsigned: Some(u64::MAX),
        number: Some(f64::MIN_POSITIVE / 3.0),
        text: Some("naïve 'text'\u{0} behind"),
        label: Some(Label("buy")),
        time: Some(Timestamp(i64::MAX)),
        levels: Some(&[Level { price: 0.1 + 0.2, size: f64::MAX }, Level { price: -1.25, size: 0.0 }]),
        list: Some(&[-1, i64::MAX, i64::MIN]),
    };
    let not_numbers = Everything {
        number: Some(f64::NAN),
        label: Some(Label("a label of the second chunk")),
        ..Everything::default()
    };
    let rows = [least, most, Everything::default(), not_numbers];
    let mut sink = bench.opened().await;
    let mut chunks = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let at = at as u64;
        let position = Position::Sequence(u64::MAX - at);
        bench.log.emit(Mark { symbol: "a \"quoted\" one", position, ts_event: Timestamp(-7) }, row);
        accepted(&bench, &mut sink, at, at + 1).await;
        chunks.push(bench.log.chunk(at, at + 1).tables.remove(0).rows);
    }
    sink.close().await.unwrap();
    let [file] = &bench.files("everything")[..] else { panic!("{:?}", bench.files("everything")) };
    let read = read(file);
    assert_eq!(read.schema().fields(), chunks[0].schema().fields(), "the types are those of the chunk");
    for (at, chunk) in chunks.iter().enumerate() {
        for (column, field) in chunk.columns().iter().zip(chunk.schema().fields()) {
            let found = read.column_by_name(field.name()).unwrap().slice(at, 1);
            assert_eq!(&found, column, "row {at}, column {}", field.name());
        }
    }
}

#[tokio::test]
async fn chunks_are_accepted_until_the_files_of_all_tables_end_at_one_position() {
    let bench = bench().rotate(ByteSize(20_000));
    let mut sink = bench.opened().await;
    let (mut at, mut taken) = (0, 0);
    loop {
        bench.trades(2);
        let to = bench.log.emit(mark(at + 3), &Quote { bid_price: Some(1.0), ..Quote::default() });
        let written = sink.write(&bench.log.chunk(at, to)).await.unwrap();
        at = to;
        taken += 1;
        match written {
            Written::Committed => break,
            Written::Accepted => assert_eq!(sink.applied().await.unwrap().unwrap().offset, 0, "nothing counts yet"),
            Written::Refused(_) => panic!("refused"),
        }
        assert!(names(&bench).iter().all(|name| name.ends_with(".part")), "{:?}", names(&bench));
    }
    assert!(taken > 17, "{taken} chunks were taken before the rotation");
    assert_eq!(names(&bench), ["quotes-00000000000000000003.parquet", "trades-00000000000000000001.parquet"]);
    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(at));
    assert_eq!(read(&bench.files("quotes")[0]).num_rows() as u64, at / 3);
    assert_eq!(read(&bench.files("trades")[0]).num_rows() as u64, at / 3 * 2);
    assert_eq!(sink.guarantee().to_string(), "exactly-once (rename)");

    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&bench.files("trades")[0]).unwrap()).unwrap();
    let about = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let about = |key: &str| about.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.clone());
    let (spool, boot) = (about("tidegate.spool").unwrap(), about("tidegate.boot").unwrap());
    assert_eq!((&*spool, &*boot), ("0000000000000001", "0000000000000001"));
    assert_eq!((about("tidegate.from"), about("tidegate.to")), (Some("0".into()), Some(at.to_string())));
}

#[tokio::test]
async fn a_write_that_is_dropped_at_any_point_counts_whole_or_not_at_all() {
    let bench = bench().rotate(ByteSize(1_500));
    let mut sink = bench.opened().await;
    let (mut at, mut counts) = (0, 0);
    for polls in (0..4).cycle().take(120) {
        let to = bench.trades(3);
        let chunk = bench.log.chunk(at, to);
        let ended = dropped_after(polls, sink.write(&chunk)).await;
        match ended.transpose().unwrap() {
            Some(Written::Accepted) => at = to,
            Some(Written::Committed) => (at, counts) = (to, to),
            Some(Written::Refused(_)) => panic!("refused"),
            None => {
                let stands = bench.open(&mut sink).await.unwrap().unwrap_or(0);
                assert!(
                    stands == counts || stands == to,
                    "at {stands}, neither at {counts} nor behind the chunk to {to}"
                );
                (at, counts) = (stands, stands);
            }
        }
        assert_eq!(sequence(&bench), (1..=counts).collect::<Vec<_>>(), "rows and position are one");
    }
    let to = bench.trades(1);
    sink.write(&bench.log.chunk(at, to)).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(sequence(&bench), (1..=to).collect::<Vec<_>>());
    assert!(counts > 0 && names(&bench).len() > 2, "the test wrote and rotated");
}

#[tokio::test]
async fn killed_before_the_record_everything_since_the_last_rotation_comes_again() {
    for finished in 0..=2 {
        let bench = rotated().await;
        let before = fs::read(bench.record()).unwrap();
        let mut sink = bench.opened().await;
        grow(&bench, &mut sink, 3, 6).await;
        sink.close().await.unwrap();
        // So many files had their footers; the others have anything.
        fs::write(bench.record(), before).unwrap();
        for (n, path) in new_files(&bench).iter().enumerate() {
            let part = path.with_extension("parquet.part");
            fs::rename(path, &part).unwrap();
            if n >= finished {
                fs::write(&part, "PAR1 and half a page").unwrap();
            }
        }
        let left = names(&bench);
        let mut sink = bench.sink();
        assert_eq!(bench.open(&mut sink).await.unwrap(), Some(3));
        assert_eq!(names(&bench), left, "nothing goes before the position was held against the spool");
        accepted(&bench, &mut sink, 3, 6).await;
        sink.close().await.unwrap();
        assert_eq!(bench.open(&mut bench.sink()).await.unwrap(), Some(6));
        assert_eq!((sequence(&bench), quotes(&bench)), (vec![1, 2, 4, 5], 2), "{finished} files were finished");
    }
}

#[tokio::test]
async fn killed_behind_the_record_the_next_opening_finishes_the_renames() {
    for renamed in 0..=2 {
        let bench = rotated().await;
        let mut sink = bench.opened().await;
        grow(&bench, &mut sink, 3, 6).await;
        sink.close().await.unwrap();
        let new = new_files(&bench);
        note_renames(&bench, &new);
        for path in &new[renamed..] {
            fs::rename(path, path.with_extension("parquet.part")).unwrap();
        }
        let mut sink = bench.sink();
        assert_eq!(bench.open(&mut sink).await.unwrap(), Some(6), "the record is the point from which they count");
        assert_eq!((sequence(&bench), quotes(&bench)), (vec![1, 2, 4, 5], 2), "{renamed} of them were renamed");
        let record = fs::read_to_string(bench.record()).unwrap();
        assert!(!record.contains("renames"), "{record}");
        grow(&bench, &mut sink, 6, 9).await;
        sink.close().await.unwrap();
        assert_eq!((sequence(&bench), quotes(&bench)), (vec![1, 2, 4, 5, 7, 8], 3));
    }
}

#[tokio::test]
async fn a_file_that_counts_and_is_nowhere_or_whose_name_is_taken_needs_a_person() {
    let bench = rotated().await;
    let new = bench.files("trades");
    note_renames(&bench, &new);
    fs::rename(&new[0], bench.directory.path().join("away")).unwrap();
    let error = bench.open(&mut bench.sink()).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("trades-0"), "{error}");
    assert!(error.to_string().contains("is gone"), "{error}");

    fs::copy(bench.directory.path().join("away"), new[0].with_extension("parquet.part")).unwrap();
    fs::write(&new[0], "another one's").unwrap();
    let error = bench.open(&mut bench.sink()).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("is there already"), "{error}");
    fs::remove_file(&new[0]).unwrap();
    assert_eq!(bench.open(&mut bench.sink()).await.unwrap(), Some(3), "and heals when the person has acted");
    assert_eq!(sequence(&bench), [1, 2]);
}

#[tokio::test]
async fn files_that_count_may_be_taken_away() {
    let bench = rotated().await;
    for path in new_files(&bench).into_iter().chain(bench.files("trades")).chain(bench.files("quotes")) {
        drop(fs::remove_file(path));
    }
    let mut sink = bench.sink();
    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(3));
    grow(&bench, &mut sink, 3, 6).await;
    sink.close().await.unwrap();
    assert_eq!(sequence(&bench), [4, 5]);
}

#[tokio::test]
async fn a_quiet_feed_is_rotated_by_time() {
    let mut bench = bench();
    bench.config.rotate.every = Duration(std::time::Duration::from_secs(1));
    bench.trades(2);
    let mut sink = bench.opened().await;
    accepted(&bench, &mut sink, 0, 2).await;
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    while sink.applied().await.unwrap().unwrap().offset != 2 {
        assert!(Instant::now() < deadline, "never rotated");
        tokio::task::yield_now().await;
    }
    assert_eq!(sequence(&bench), [1, 2]);
}

#[tokio::test]
async fn rows_of_others_count_for_the_rotation_since_they_wait_in_the_spool_too() {
    let bench = bench().rotate(ByteSize(100 * 64));
    let mut sink = bench.opened().await;
    let mut at = bench.trades(1);
    accepted(&bench, &mut sink, 0, at).await;
    loop {
        bench.log.control();
        let to = bench.log.control();
        let written = sink.write(&bench.log.chunk(at, to)).await.unwrap();
        at = to;
        if matches!(written, Written::Committed) {
            break;
        }
    }
    assert!((90..=101).contains(&at), "rotated at {at}");
    assert_eq!(sequence(&bench), [1]);
}

#[tokio::test]
async fn an_empty_chunk_counts_at_once_where_nothing_waits_and_with_the_rest_where_something_does() {
    let bench = rotated().await;
    bench.log.control();
    let mut sink = bench.opened().await;
    assert!(matches!(sink.write(&bench.log.chunk(3, 4)).await.unwrap(), Written::Committed));
    bench.trades(1);
    accepted(&bench, &mut sink, 4, 5).await;
    bench.log.control();
    accepted(&bench, &mut sink, 5, 6).await;
    assert_eq!(sink.applied().await.unwrap().unwrap().offset, 4);
    sink.close().await.unwrap();
    assert_eq!(bench.open(&mut bench.sink()).await.unwrap(), Some(6));
}

#[tokio::test]
async fn closing_leaves_nothing_unfinished() {
    let bench = rotated().await;
    let mut sink = bench.opened().await;
    grow(&bench, &mut sink, 3, 6).await;
    sink.close().await.unwrap();
    assert!(names(&bench).iter().all(|name| name.ends_with(".parquet")), "{:?}", names(&bench));
    assert_eq!(bench.open(&mut bench.sink()).await.unwrap(), Some(6));
}

#[tokio::test]
async fn a_disk_that_is_full_is_transient_with_the_path_and_heals() {
    let bench = rotated().await;
    let mut sink = bench.opened().await;
    bench.log.control();
    sink.write(&bench.log.chunk(3, 4)).await.unwrap();
    symlink("/dev/full", bench.path().join("trades-00000000000000000005.parquet.part")).unwrap();
    bench.trades(2);
    accepted(&bench, &mut sink, 4, 6).await;
    let error = sink.close().await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    let text = error.chain();
    assert!(text.contains("trades-00000000000000000005.parquet.part") && text.contains("No space left"), "{text}");

    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(4));
    accepted(&bench, &mut sink, 4, 6).await;
    sink.close().await.unwrap();
    assert_eq!(sequence(&bench), [1, 2, 5, 6]);
}

#[tokio::test]
async fn a_file_in_work_or_a_record_that_is_removed_is_found_out_and_comes_again() {
    let bench = rotated().await;
    let mut sink = bench.opened().await;
    grow(&bench, &mut sink, 3, 6).await;
    fs::remove_file(bench.path().join("trades-00000000000000000004.parquet.part")).unwrap();
    assert!(sink.check().await.is_err());
    let error = sink.applied().await.unwrap_err();
    assert!(error.to_string().contains("was removed or replaced"), "{error}");
    assert!(sink.close().await.is_err());
    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(3));
    accepted(&bench, &mut sink, 3, 6).await;
    sink.applied().await.unwrap();

    let record = fs::read(bench.record()).unwrap();
    fs::write(bench.record().with_extension("other"), record).unwrap();
    fs::rename(bench.record().with_extension("other"), bench.record()).unwrap();
    assert!(sink.applied().await.unwrap_err().to_string().contains(".tidegate-test-sink.json"));
    bench.open(&mut sink).await.unwrap();
    accepted(&bench, &mut sink, 3, 6).await;
    sink.close().await.unwrap();
    assert_eq!((sequence(&bench), quotes(&bench)), (vec![1, 2, 4, 5], 2));
}

#[tokio::test]
async fn after_an_error_nothing_is_taken_until_it_was_opened_again() {
    let bench = rotated().await;
    let mut sink = bench.opened().await;
    grow(&bench, &mut sink, 3, 6).await;
    assert!(sink.write(&bench.log.chunk(3, 6)).await.is_err(), "it stands at 6");
    bench.trades(1);
    assert!(sink.write(&bench.log.chunk(6, 7)).await.is_err(), "the guard was missed: `open` comes first");
    assert!(sink.close().await.is_err(), "nothing may count that is in doubt");
    assert_eq!(bench.open(&mut sink).await.unwrap(), Some(3));
    accepted(&bench, &mut sink, 3, 7).await;
    sink.close().await.unwrap();
    assert_eq!(sequence(&bench), [1, 2, 4, 5, 7]);
}

#[tokio::test]
async fn two_sinks_in_one_folder_and_two_formats_of_one_sink_are_refused() {
    let bench = rotated().await;
    let mut first = bench.opened().await;
    let error = bench.open(&mut bench.sink()).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("another sink or program"), "{error}");
    first.close().await.unwrap();

    let mut context = bench.log.context(bench.directory.path());
    context.owner.sink = "other".into();
    let error = bench.sink().open(&context).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("a folder of its own"), "{error}");

    let mut json = Bench::new();
    json.log = bench.log.clone();
    json.directory = bench.directory;
    json.config.path = bench.config.path.clone();
    let error = json.open(&mut json.sink()).await.unwrap_err();
    assert!(error.kind() == Kind::Permanent && error.to_string().contains("parquet"), "{error}");
}

#[tokio::test]
async fn rows_beyond_what_may_be_in_memory_go_into_their_file_before_it_ends() {
    let mut bench = bench();
    bench.log = MemoryLog::new("deribit", vec![Table::of::<Everything<'_>>()]);
    let mut sink = bench.opened().await;
    let mut random = 1_u64;
    let mut at = 0;
    let part = bench.path().join("everything-00000000000000000001.parquet.part");
    while fs::metadata(&part).map_or(0, |found| found.len()) < 1 << 20 {
        assert!(at < 40, "nothing was written out");
        let numbers: Vec<i64> = (0..1 << 19)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.cast_signed()
            })
            .collect();
        bench.log.emit(mark(at + 1), &Everything { list: Some(&numbers), ..Everything::default() });
        sink.write(&bench.log.chunk(at, at + 1)).await.unwrap();
        at += 1;
    }
    assert!(at >= 8, "{at} rows of 4 MiB");
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.config.format = super::super::Format::Parquet;
    bench
}

/// Two trades and a quote that count.
async fn rotated() -> Bench {
    let bench = bench();
    let mut sink = bench.opened().await;
    grow(&bench, &mut sink, 0, 3).await;
    sink.close().await.unwrap();
    assert_eq!(sequence(&bench), [1, 2]);
    bench
}

/// Takes two trades and a quote more, which are the offsets behind `from` up to `to`.
async fn grow(bench: &Bench, sink: &mut FileSink, from: u64, to: u64) {
    bench.trades(2);
    assert_eq!(bench.log.emit(mark(to), &Quote { bid_price: Some(1.0), ..Quote::default() }), to);
    accepted(bench, sink, from, to).await;
}

async fn accepted(bench: &Bench, sink: &mut FileSink, from: u64, to: u64) {
    let written: Result<Written> = sink.write(&bench.log.chunk(from, to)).await;
    assert!(matches!(written, Ok(Written::Accepted)), "{written:?}");
}

/// Writes into the record that these files may not have their names yet.
fn note_renames(bench: &Bench, files: &[PathBuf]) {
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(bench.record()).unwrap()).unwrap();
    let names = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().into());
    record["renames"] = serde_json::Value::Array(names.collect());
    fs::write(bench.record(), record.to_string()).unwrap();
}

/// Returns the files of the second rotation, whose first rows are behind offset 3.
fn new_files(bench: &Bench) -> Vec<PathBuf> {
    let first = |path: &PathBuf| path.to_str().unwrap().rsplit_once('-').unwrap().1.get(..20).unwrap().parse::<u64>();
    let all = bench.files("quotes").into_iter().chain(bench.files("trades"));
    all.filter(|path| first(path).unwrap() > 3).collect()
}

fn names(bench: &Bench) -> Vec<String> {
    let all = bench.files("quotes").into_iter().chain(bench.files("trades"));
    all.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Returns the numbers of the trades that count.
fn sequence(bench: &Bench) -> Vec<u64> {
    let mut sequence = Vec::new();
    for path in bench.files("trades").iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")) {
        let rows = read(path);
        let numbers: &UInt64Array = rows.column_by_name("seq").unwrap().as_primitive::<UInt64Type>();
        sequence.extend(numbers.values());
    }
    sequence
}

fn quotes(bench: &Bench) -> usize {
    let files = bench.files("quotes");
    files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "parquet"))
        .map(|path| read(path).num_rows())
        .sum()
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mut batches: Vec<RecordBatch> =
        reader.with_batch_size(1 << 20).build().unwrap().map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.len(), 1, "{} has one row group", path.display());
    batches.remove(0)
}
