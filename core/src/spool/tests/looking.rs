//! A real directory: the lock, and what `inspect`, `verify` and `dump` show of it.

use super::*;
use crate::{
    Kind,
    row::{Label, Table, kinds::Trade},
    spool::{
        disk::{Disk, RealDisk},
        inspect::{DumpFormat, dump, inspect, verify},
    },
};

fn open_real(dir: &std::path::Path) -> Result<SpoolWriter> {
    let trades = Arc::new(Table::of::<Trade<'_>>());
    let source = SourceInfo { name: "deribit".into(), venue: "deribit".into(), tables: vec![trades] };
    let options = SpoolOptions { sources: vec![source], ..options() };
    let recovery = Recovery::open(Arc::new(RealDisk::create(dir)?), options)?;
    Ok(recovery.begin(snapshot(0), Timestamp(0), "0.0.0")?.writer)
}

/// Writes a trade as a link would.
fn trade(writer: &mut SpoolWriter) {
    let mut outbox = crate::protocol::Outbox::new(vec![Table::of::<Trade<'_>>()]);
    let position = Position::Sequence(41);
    let mark = crate::row::Mark { symbol: "ETH-PERPETUAL", position, ts_event: Timestamp(5) };
    outbox.emit(mark, &Trade { price: 2_050.5, size: 3.0, side: Some(Label("buy")), ..Trade::default() });
    let mut items = ItemBuffer::default();
    items.push_control(&stream(1, "ETH-PERPETUAL"));
    let (_, bytes) = outbox.records().iter().next().unwrap();
    items.push_row(&row(1, 41), bytes);
    append(writer, &items);
    sync(writer).unwrap();
}

#[test]
fn a_second_process_is_refused_with_the_name_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open_real(dir.path()).unwrap();
    let error = open_real(dir.path()).unwrap_err();
    let wanted = format!("is already in use by pid {}, started 20", std::process::id());
    assert!(error.to_string().contains(&wanted), "{error}");
    assert_eq!(error.kind(), Kind::Config);
    assert!(inspect(dir.path()).unwrap_err().to_string().contains(&wanted));

    drop(writer);
    drop(open_real(dir.path()).expect("the lock ends with its holder"));
}

#[test]
fn what_is_written_to_a_directory_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_real(&dir.path().join("data/eth")).unwrap();
    for _ in 0..3 {
        for n in 0..40_u8 {
            append(&mut writer, &rows(1, &[n; 700]));
            if writer.wants_roll() {
                writer.roll(snapshot(0)).unwrap();
            }
        }
        sync(&mut writer).unwrap();
        drop(writer);
        writer = open_real(&dir.path().join("data/eth")).unwrap();
    }
    let (seen, missing) = read(&writer.reader(), SpoolPosition::START);
    let rows = seen.iter().filter(|(_, _, items)| items[0].len() == 700).count();
    assert_eq!((rows, missing), (120, vec![]));
}

#[test]
fn verify_tells_a_sound_spool_from_a_damaged_one_and_from_a_torn_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_real(dir.path()).unwrap();
    trade(&mut writer);
    append(&mut writer, &rows(1, &[7; 300]));
    sync(&mut writer).unwrap();
    append(&mut writer, &rows(1, b"says that all before is durable"));
    drop(writer);
    let sound = verify(dir.path()).unwrap();
    assert!(sound.sound && sound.torn_bytes == 0, "{sound}");
    assert_eq!((sound.first, sound.last, sound.entries, sound.mark), (1, 5, 4, 4));

    let file = dir.path().join("00000000000000000001.seg");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let torn = verify(dir.path()).unwrap();
    assert!(torn.sound && torn.torn_bytes > 0, "{torn}");

    let mut rotten = whole;
    let at = rotten.windows(300).position(|window| window == [7; 300]).unwrap();
    rotten[at] ^= 1;
    std::fs::write(&file, rotten).unwrap();
    let damaged = verify(dir.path()).unwrap();
    assert!(!damaged.sound);
    assert!(damaged.to_string().contains("lost to corruption: offsets 4 to 4"), "{damaged}");
    let mut out = Vec::new();
    dump(dir.path(), DumpFormat::Json, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(r#"{"missing":{"first":4,"last":4}}"#), "{text}");
}

#[test]
fn inspect_shows_whose_spool_it_is_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_real(dir.path()).unwrap();
    trade(&mut writer);
    let boot = writer.boot();
    drop(writer);
    let before = std::fs::read(dir.path().join("00000000000000000001.seg")).unwrap();
    let inspection = inspect(dir.path()).unwrap();
    assert_eq!((&*inspection.pipeline, inspection.segments.len()), ("eth", 1));
    assert_eq!(inspection.sources[0].tables, ["trades"]);
    assert_eq!(inspection.boots[0].boot, format!("{:016x}", boot.0));
    assert!(inspection.to_string().contains("source    deribit (deribit): trades"), "{inspection}");
    assert!(inspection.to_string().contains(" bytes in 1 segment; 0 streams were known"), "{inspection}");
    serde_json::to_string(&inspection).unwrap();
    assert_eq!(std::fs::read(dir.path().join("00000000000000000001.seg")).unwrap(), before);
}

#[test]
fn dump_shows_rows_with_their_columns() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_real(dir.path()).unwrap();
    trade(&mut writer);
    drop(writer);
    let mut json = Vec::new();
    dump(dir.path(), DumpFormat::Json, &mut json).unwrap();
    let lines: Vec<serde_json::Value> = json
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "the boot, the stream, the trade");
    let row = &lines[2];
    assert_eq!((&row["table"], &row["symbol"], &row["seq"]), (&"trades".into(), &"ETH-PERPETUAL".into(), &41.into()));
    assert_eq!(row["row"], serde_json::json!({ "price": 2050.5, "size": 3.0, "side": "buy" }));

    let mut text = Vec::new();
    dump(dir.path(), DumpFormat::Text, &mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("symbol=ETH-PERPETUAL"));
}

#[test]
fn a_directory_without_a_spool_is_said_to_have_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(inspect(dir.path()).unwrap_err().to_string().starts_with("there is no spool in"));
    assert!(verify(&dir.path().join("nowhere")).unwrap_err().to_string().starts_with("cannot read the directory"));
}

#[test]
fn a_file_in_place_of_the_directory_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spool");
    std::fs::write(&file, b"not a directory").unwrap();
    let error = open_real(&file).unwrap_err();
    assert!(error.to_string().contains("spool"), "{error}");
    let disk = RealDisk::create(dir.path()).unwrap();
    assert!(disk.list().unwrap().contains(&"spool".to_owned()));
}

#[test]
fn no_segment_keeps_a_file_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_real(dir.path()).unwrap();
    let mut cursor = writer.reader().cursor(SpoolPosition::START);
    for _ in 0..30 {
        append(&mut writer, &rows(2, b"row"));
        sync(&mut writer).unwrap();
        writer.roll(snapshot(writer.next_offset() - 1)).unwrap();
        while cursor.next(u64::MAX).unwrap().is_some() {}
    }
    sync(&mut writer).unwrap();
    assert!(writer.segments() > 30);
    let dir = dir.path().canonicalize().unwrap();
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let segments =
        open.filter(|path| path.starts_with(&dir) && path.extension().is_some_and(|end| end == "seg")).count();
    assert!(segments <= 2, "{segments} segments are open: the one that is written and the one that is read are enough");
}

#[test]
fn a_start_while_somebody_looks_says_so_and_names_no_process_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_real(dir.path()).unwrap());
    let (_, looking) = RealDisk::stopped(dir.path()).unwrap();
    let error = open_real(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is being looked at by `tidegate spool`") && !error.contains("pid"), "{error}");
    drop(looking);
    open_real(dir.path()).unwrap();
}
