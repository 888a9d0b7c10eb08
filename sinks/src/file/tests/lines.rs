//! JSON lines.

use std::{fs, os::unix::fs::symlink};

use tidegate_core::{
    Kind,
    catalog::Component,
    config::{ByteSize, Duration},
    row::kinds::Quote,
    sink::Sink,
};

use super::{super::FileConfig, Bench, dropped_after, mark, written};

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
        let ended = dropped_after(polls, sink.write(&chunk)).await;
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
async fn where_rows_are_known_nothing_is_made_in_the_place_of_a_folder_that_was_moved_away() {
    let bench = written().await;
    let moved = bench.directory.path().join("moved");
    let mut context = bench.log.context(bench.directory.path());
    context.known = bench.sink().open(&context).await.unwrap().first().map(|(_, position)| *position);
    fs::rename(bench.path(), &moved).unwrap();
    assert!(bench.sink().open(&context).await.unwrap().is_empty(), "the driver compares, and stops");
    assert!(!bench.path().exists());

    fs::rename(&moved, bench.path()).unwrap();
    fs::remove_file(bench.record()).unwrap();
    bench.files("trades").iter().for_each(|file| fs::remove_file(file).unwrap());
    assert!(bench.sink().open(&context).await.unwrap().is_empty());
    assert!(!bench.record().exists(), "no record of nothing");
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
async fn a_host_that_was_renamed_goes_on() {
    let bench = written().await;
    let mut context = bench.log.context(bench.directory.path());
    context.owner.host = "renamed".into();
    let positions = bench.sink().open(&context).await.unwrap();
    assert_eq!(positions[0].1.offset, 2);
}

#[test]
fn a_table_that_no_file_can_be_called_like_is_refused_by_the_configuration() {
    let bench = Bench::new();
    let mut tables = bench.log.context(bench.directory.path()).tables;
    assert!(bench.config.check_tables(&tables).is_ok());
    for name in ["a/b", ".hidden"] {
        tables[0].name = name.to_owned();
        let error = bench.config.check_tables(&tables).unwrap_err();
        assert!(error.kind() == Kind::Config && error.to_string().contains(name), "{error}");
    }
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
fn two_spellings_of_a_folder_are_one_store() {
    let store = |path: &str| {
        let config: FileConfig = serde_json::from_value(serde_json::json!({ "path": path })).unwrap();
        config.store()
    };
    assert_eq!(store("./rows/{pipeline}"), store("other/../rows/{pipeline}/"));
    assert_ne!(store("rows"), store("rows2"));
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

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_in_a_build_without_it_is_answered_with_how_to_get_it() {
    let config: FileConfig = serde_json::from_str(r#"{"path":"x","format":"parquet"}"#).unwrap();
    let error = config.build().err().unwrap();
    assert!(error.kind() == Kind::Config && error.to_string().contains("--features parquet"), "{error}");
}
