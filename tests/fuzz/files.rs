//! The files beside the spool's: the ledger, what is noted of a sink, and what a folder may hold besides.

use std::{fs, path::Path, sync::Arc};

use tidegate::{
    ledger::{Coverage, Keeper},
    spool::SpoolPosition,
    testkit::{InlineIntake, SimDisk, read_note},
};

use crate::{
    feeder,
    spool::segment,
    support::{Bench, busy},
    tried,
};

#[test]
fn any_ledger_is_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ledger = runtime.block_on(async {
        let bench = Bench::start(busy(500.0), "", "").await;
        let mut program = bench.run();
        program.until_committed(100).await;
        let (code, log) = program.stop().await;
        assert_eq!(code, 0, "{log}");
        let ledger = fs::read(bench.path("data/eth/ledger.sqlite")).unwrap();
        bench.leave().await;
        ledger
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    tried("ledger", &[ledger], |bytes| {
        fs::write(&path, bytes).unwrap();
        // What the last one left beside it is no part of this one.
        for suffix in ["-wal", "-shm", "-journal"] {
            drop(fs::remove_file(format!("{}{suffix}", path.display())));
        }
        drop(runtime.block_on(Coverage::read(&path, None, Keeper::Recording)));
    });
}

#[test]
fn any_note_of_a_sink_is_answered() {
    let notes = [
        r#"{"boot":"00000000000000aa","offset":7}"#,
        r#"{"boot":"00000000000000aa","offset":7,"replay_from":{"boot":"00000000000000ab","offset":3},"entered":4,"changed":5}"#,
        r#"{"begins_at":{"boot":"00000000000000aa","offset":9}}"#,
    ];
    tried("note", &notes.map(|note| note.as_bytes().to_vec()), |bytes| drop(read_note(bytes)));
}

#[test]
fn any_name_of_a_file_in_the_spools_folder_is_answered() {
    let (name, segment) = segment();
    let names =
        [name.as_str(), "00000000000000000001.seg.new", "ledger.sqlite", "sqlite.json", "lock", ".seg", "-1.seg"];
    tried("name", &names.map(|name| name.as_bytes().to_vec()), |bytes| {
        let disk = SimDisk::default();
        disk.put(&name, &segment);
        disk.put(&String::from_utf8_lossy(bytes), &segment);
        let Ok(intake) = InlineIntake::open(Arc::new(disk), feeder::setup(Path::new(""))) else { return };
        let reader = intake.reader();
        let mut cursor = reader.cursor(SpoolPosition::START);
        while let Ok(Some(_)) = cursor.next(u64::MAX) {}
    });
}
