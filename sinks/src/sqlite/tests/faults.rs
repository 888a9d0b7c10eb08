//! A file that is locked, full, removed, replaced, owned by another.

use std::{fs, task::Poll};

use sqlx::Connection;
use tidegate_core::{
    Kind,
    sink::{Neighbour, Sink, Written},
    spool::{Boot, SpoolPosition},
};

use super::{Bench, Sqlite, SqliteConfig, assert_committed, offset};

#[tokio::test]
async fn the_position_moves_with_the_rows_and_is_there_after_a_restart() {
    let bench = Bench::new();
    let last = bench.trades(10);
    let mut sink = bench.sink();
    assert!(sink.open(&bench.context()).await.unwrap().is_empty(), "a new file has no position");
    assert!(sink.open(&bench.context()).await.unwrap().is_empty(), "nor has one that was only opened");
    assert_committed(bench.write(&mut sink, 0, last).await);
    sink.close().await.unwrap();

    let positions = bench.sink().open(&bench.context()).await.unwrap();
    assert_eq!(positions[0].1, SpoolPosition { boot: Boot(1), offset: last });
}

#[tokio::test]
async fn the_same_chunk_twice_is_stored_once() {
    let bench = Bench::new();
    let last = bench.trades(10);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    let error = bench.write(&mut sink, 0, last).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "a missed guard: opening decides");
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 10);
}

#[tokio::test]
async fn an_empty_chunk_moves_the_position() {
    let bench = Bench::new();
    let last = bench.log.control();
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), Some(last));
}

#[tokio::test]
async fn a_lock_of_another_program_is_waited_for_and_then_transient() {
    let bench = Bench::new();
    let last = bench.trades(1);
    let mut sink = bench.opened().await;
    let mut other = bench.connection().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    for error in
        [bench.write(&mut sink, 0, last).await.unwrap_err(), bench.sink().open(&bench.context()).await.unwrap_err()]
    {
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
        assert!(error.to_string().contains("is locked by another program"), "{error}");
    }
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    sink.open(&bench.context()).await.unwrap();
    assert_committed(bench.write(&mut sink, 0, last).await);
}

#[tokio::test]
async fn a_full_disk_is_transient_and_stores_nothing_of_the_chunk() {
    let bench = Bench::new();
    let last = bench.trades(5_000);
    let mut sink = bench.opened().await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut sink.session().connection).await.unwrap();
    let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 5));
    sqlx::query(limit).execute(&mut sink.session().connection).await.unwrap();
    let error = bench.write(&mut sink, 0, last).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 0);

    // There is room again: opening begins with a new connection.
    assert!(sink.open(&bench.context()).await.unwrap().is_empty());
    assert_committed(bench.write(&mut sink, 0, last).await);
}

#[tokio::test]
async fn reaching_looks_at_the_file_and_leaves_everything_as_it_is() {
    let bench = Bench::new();
    let last = bench.trades(3);
    let found = bench.sink().reach(&[]).await.unwrap();
    assert!(found.ends_with("is not there yet; it will be made"), "{found}");
    assert!(!bench.path().exists() && !bench.path().parent().unwrap().exists(), "nothing was made");

    // Beside a host that has it open: neither the owner nor its epoch changes.
    let mut sink = bench.opened().await;
    let found = bench.sink().reach(&[]).await.unwrap();
    assert!(found.ends_with("can be read and has 3 tables"), "{found}");
    assert_committed(bench.write(&mut sink, 0, last).await);

    let lost = SqliteConfig { create: false, path: bench.directory.path().join("nowhere"), ..bench.config.clone() };
    let error = Sqlite::new(lost).reach(&[]).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    let folder = SqliteConfig { path: bench.directory.path().to_owned(), ..bench.config.clone() };
    let error = Sqlite::new(folder).reach(&[]).await.unwrap_err();
    assert!(error.to_string().contains("is a directory"), "{error}");
    let text = bench.directory.path().join("text");
    fs::write(&text, "x".repeat(2_000)).unwrap();
    let error = Sqlite::new(SqliteConfig { path: text, ..bench.config.clone() }).reach(&[]).await.unwrap_err();
    assert!(error.to_string().contains("is no SQLite database"), "{error}");
}

#[tokio::test]
async fn reaching_looks_at_tables_as_opening_does() {
    for (columns, words) in [
        ("ts_event TEXT", "column `ts_event` of table `trades` would change its values"),
        ("mine INTEGER NOT NULL", "column `mine` of table `trades`"),
    ] {
        let bench = Bench::new();
        bench.run(&format!("CREATE TABLE trades ({columns})")).await;
        let reached = bench.sink().reach(&bench.context().tables).await.unwrap_err();
        assert!(reached.to_string().contains(words), "{reached}");
        assert_eq!(bench.number("SELECT count(*) FROM sqlite_schema").await, 1, "nothing was made");
        let opened = bench.sink().open(&bench.context()).await.unwrap_err();
        assert_eq!(reached.to_string(), opened.to_string());
    }
}

#[tokio::test]
async fn a_file_that_was_removed_takes_no_commit_with_it_unnoticed() {
    let bench = Bench::new();
    bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 1).await);
    for name in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{name}", bench.path().display())).unwrap();
    }
    let error = bench.write(&mut sink, 1, 3).await.unwrap_err();
    assert!(error.to_string().contains("was removed or replaced"), "{error}");
    assert!(sink.check().await.is_err(), "the probe sees it, too");
    assert!(sink.open(&bench.context()).await.unwrap().is_empty(), "the driver compares, and stops");
}

#[tokio::test]
async fn where_a_position_is_known_nothing_is_made_in_the_place_of_a_file_that_is_gone_or_another() {
    let bench = Bench::new();
    bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 3).await);
    sink.close().await.unwrap();
    let mut context = bench.context();
    context.known = Some(SpoolPosition { boot: Boot(1), offset: 3 });
    assert_eq!(offset(&bench.sink().open(&context).await.unwrap()), Some(3), "it is the one that is known");

    let moved = bench.directory.path().join("moved");
    fs::rename(bench.path(), &moved).unwrap();
    let mut sink = bench.sink();
    assert!(sink.open(&context).await.unwrap().is_empty(), "the driver compares, and stops");
    assert!(!bench.path().exists(), "and the file can be moved back");
    assert!(bench.write(&mut sink, 3, 3).await.is_err(), "nothing is open");
    bench.run("CREATE TABLE somebody_elses (x)").await;
    assert!(bench.sink().open(&context).await.unwrap().is_empty());
    assert_eq!(bench.text("SELECT group_concat(name) FROM sqlite_schema").await, "somebody_elses");

    for name in ["", "-wal", "-shm"] {
        drop(fs::remove_file(format!("{}{name}", bench.path().display())));
    }
    fs::rename(&moved, bench.path()).unwrap();
    assert_eq!(offset(&bench.sink().open(&context).await.unwrap()), Some(3));
}

#[tokio::test]
async fn other_pipelines_that_have_written_to_the_same_tables_are_named_to_a_sink_that_has_not() {
    let bench = Bench::new();
    bench.trades(2);
    let mut old = bench.opened().await;
    assert_committed(bench.write(&mut old, 0, 2).await);
    assert_eq!(old.neighbours(), [], "itself is none");
    let mut context = bench.context();
    (context.owner.pipeline, context.owner.spool) = ("new".to_owned(), 2);
    let mut new = bench.sink();
    new.open(&context).await.unwrap();
    let neighbour = Neighbour {
        pipeline: "test".to_owned(),
        sink: "sink".to_owned(),
        spool: 1,
        host: "here".to_owned(),
        tables: vec!["quotes".to_owned(), "trades".to_owned()],
    };
    assert_eq!(new.neighbours(), [neighbour]);
    old.open(&bench.context()).await.unwrap();
    assert_eq!(old.neighbours(), [], "the new one has written nothing");

    // Once it has written, both are known to share the tables.
    assert_committed(bench.write(&mut new, 0, 1).await);
    new.open(&context).await.unwrap();
    assert_eq!(new.neighbours(), []);
    context.owner.pipeline = "apart".to_owned();
    context.tables.iter_mut().for_each(|table| table.name.push('2'));
    let mut apart = bench.sink();
    apart.open(&context).await.unwrap();
    assert_eq!(apart.neighbours(), [], "other tables");
}

#[tokio::test]
async fn a_file_that_is_removed_in_the_middle_of_a_write_has_not_committed_it() {
    let bench = Bench::new();
    let last = bench.trades(3_000);
    let mut sink = bench.opened().await;
    let chunk = bench.log.chunk(0, last);
    let mut write = sink.write(&chunk);
    let begun = std::future::poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
    assert!(begun.is_pending(), "the file was looked at, the transaction begins");
    fs::remove_file(bench.path()).unwrap();
    let error = write.await.unwrap_err();
    assert!(error.to_string().contains("was removed or replaced"), "{error}");
}

#[tokio::test]
async fn a_file_that_was_replaced_is_found_out() {
    let bench = Bench::new();
    bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 1).await);
    let copy = bench.directory.path().join("copy");
    fs::copy(bench.path(), &copy).unwrap();
    fs::rename(&copy, bench.path()).unwrap();
    let error = bench.write(&mut sink, 1, 3).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }) && error.to_string().contains("replaced"), "{error}");
}

#[tokio::test]
async fn a_write_ahead_log_that_was_removed_is_found_out() {
    let bench = Bench::new();
    bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 1).await);
    fs::remove_file(format!("{}-wal", bench.path().display())).unwrap();
    let error = bench.write(&mut sink, 1, 3).await.unwrap_err();
    assert!(error.to_string().contains("-wal` was removed"), "{error}");
}

#[tokio::test]
async fn a_file_that_was_put_back_beside_the_log_of_another_needs_a_person_before_it_is_damaged_further() {
    let bench = Bench::new();
    bench.trades(20_000);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 100).await);
    sink.close().await.unwrap();
    let backup = bench.directory.path().join("backup");
    fs::copy(bench.path(), &backup).unwrap();
    let mut sink = bench.opened().await;
    // The log is written into the file more than once on the way.
    for n in 2..400 {
        assert_committed(bench.write(&mut sink, n * 50, (n + 1) * 50).await);
    }
    // What a kill leaves: a file with its log, which belong together, and a backup beside that log, which do not.
    let log = |bench: &Bench| format!("{}-wal", bench.path().display());
    let (killed, mixed) = (Bench::new(), Bench::new());
    for (left, file) in [(&killed, bench.path()), (&mixed, backup)] {
        fs::create_dir_all(left.path().parent().unwrap()).unwrap();
        fs::copy(file, left.path()).unwrap();
        fs::copy(log(&bench), log(left)).unwrap();
    }
    drop(sink);
    let position = killed.sink().open(&bench.context()).await.unwrap();
    assert_eq!(offset(&position), Some(20_000));

    let error = mixed.sink().open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent, "{error}");
    assert!(error.to_string().contains("do not belong together"), "{error}");
    // The remedy that it names.
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", mixed.path().display())).ok();
    }
    let position = mixed.sink().open(&bench.context()).await.unwrap();
    assert_eq!(offset(&position), Some(100));
    assert_eq!(mixed.text("PRAGMA quick_check").await, "ok");
}

#[tokio::test]
async fn a_directory_or_another_file_in_its_place_needs_a_person() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path()).unwrap();
    let error = bench.sink().open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("is a directory"), "{error}");

    let bench = Bench::new();
    fs::create_dir_all(bench.path().parent().unwrap()).unwrap();
    fs::write(bench.path(), "price,size\n".repeat(1_000)).unwrap();
    let error = bench.sink().open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("is no SQLite database"), "{error}");
}

#[tokio::test]
async fn of_two_owners_only_the_newer_one_commits() {
    let bench = Bench::new();
    bench.trades(4);
    let (mut older, mut newer) = (bench.opened().await, bench.opened().await);
    assert!(matches!(bench.write(&mut older, 0, 2).await.unwrap_err().kind(), Kind::Transient { .. }));
    assert_committed(bench.write(&mut newer, 0, 2).await);
    assert!(older.check().await.is_err());

    let error = older.open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("another program has taken over"), "{error}");
    assert_committed(bench.write(&mut newer, 2, 4).await);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 4);
}

#[tokio::test]
async fn another_spool_is_refused_with_all_that_is_known_on_whatever_host() {
    let bench = Bench::new();
    bench.trades(1);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 1).await);
    let before = bench.text(POSITION).await;
    for host in ["here", "elsewhere"] {
        let mut context = bench.context();
        context.owner.spool = 0xabc;
        context.owner.host = host.to_owned();
        let error = bench.sink().open(&context).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent);
        let position = SpoolPosition { boot: Boot(1), offset: 1 }.to_string();
        for known in ["spool 0000000000000abc", "host `here`", &format!("host `{host}`"), &position, "Bring back"] {
            assert!(error.to_string().contains(known), "{error} lacks {known}");
        }
    }
    assert_eq!(bench.text(POSITION).await, before, "nothing is changed");
}

#[tokio::test]
async fn a_host_with_another_name_goes_on_with_its_spool() {
    let bench = Bench::new();
    bench.trades(4);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    let mut context = bench.context();
    context.owner.host = "renamed".to_owned();
    let mut renamed = bench.sink();
    assert_eq!(offset(&renamed.open(&context).await.unwrap()), Some(2));
    assert_eq!(bench.text("SELECT host FROM tidegate_position").await, "renamed");
    // The name is no fence, the epoch is one.
    assert!(bench.write(&mut sink, 2, 4).await.is_err());
    let error = sink.open(&bench.context()).await.unwrap_err();
    assert!(error.to_string().contains("another program has taken over"), "{error}");
    assert_committed(bench.write(&mut renamed, 2, 4).await);
}

#[tokio::test]
async fn a_file_that_can_only_be_read_is_transient() {
    let bench = Bench::new();
    bench.trades(2);
    let mut sink = bench.opened().await;
    sqlx::query("PRAGMA query_only = 1").execute(&mut sink.session().connection).await.unwrap();
    let error = bench.write(&mut sink, 0, 2).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    assert!(error.to_string().contains("can only be read"), "{error}");
    assert!(sink.open(&bench.context()).await.unwrap().is_empty());
    assert_committed(bench.write(&mut sink, 0, 2).await);
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_transient_and_what_it_lost_is_known() {
    let bench = Bench::new();
    bench.trades(3_000);
    let mut sink = bench.opened().await;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut sink.session().connection).await.unwrap();
    assert_committed(bench.write(&mut sink, 0, 2_000).await);
    // What the write-ahead log held cannot be read any more, and nothing of it is in memory.
    sqlx::query("PRAGMA shrink_memory").execute(&mut sink.session().connection).await.unwrap();
    fs::OpenOptions::new().write(true).open(format!("{}-wal", bench.path().display())).unwrap().set_len(32).unwrap();
    let error = bench.write(&mut sink, 2_000, 3_000).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    assert!(error.to_string().contains("cannot be read or written"), "{error}");
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), None, "the driver feeds it again");
    assert_committed(bench.write(&mut sink, 0, 3_000).await);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 3_000);
}

#[tokio::test]
async fn a_write_that_was_given_up_lets_go_of_the_file() {
    let mut bench = Bench::new();
    bench.config.lock_timeout = tidegate_core::config::Duration::from_secs(20);
    let last = bench.trades(1);
    let mut sink = bench.opened().await;
    bench
        .run(
            "CREATE TABLE slow AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 2000) SELECT n FROM c;
             CREATE TRIGGER hours BEFORE INSERT ON trades BEGIN SELECT count(*) FROM slow a, slow b, slow c, slow d; END",
        )
        .await;
    sink.open(&bench.context()).await.unwrap();
    tokio::select! {
        written = bench.write(&mut sink, 0, last) => panic!("{written:?}"),
        () = until_locked(&bench) => {}
    }
    bench.run("PRAGMA busy_timeout = 20000; DROP TRIGGER hours").await;
    assert!(sink.open(&bench.context()).await.unwrap().is_empty());
    assert_committed(bench.write(&mut sink, 0, last).await);
}

#[tokio::test]
async fn a_guard_of_another_boot_or_offset_writes_nothing() {
    let bench = Bench::new();
    bench.trades(6);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    let mut chunk = bench.log.chunk(2, 4);
    chunk.from.boot = Boot(99);
    assert!(sink.write(&chunk).await.is_err());
    sink.open(&bench.context()).await.unwrap();
    assert!(bench.write(&mut sink, 4, 6).await.is_err(), "not where the store is");
    sink.open(&bench.context()).await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 2);
    assert_committed(bench.write(&mut sink, 2, 4).await);
}

#[tokio::test]
async fn commits_are_as_durable_as_sqlite_can_make_them() {
    let bench = Bench::new();
    let mut sink = bench.opened().await;
    let connection = &mut sink.session().connection;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await.unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(connection).await.unwrap();
    assert_eq!((synchronous, journal.as_str()), (2, "wal"), "FULL");
}

#[tokio::test]
async fn a_reader_with_an_open_transaction_holds_up_nobody() {
    let bench = Bench::new();
    bench.trades(4);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    let mut reader = bench.connection().await;
    sqlx::query("BEGIN").execute(&mut reader).await.unwrap();
    let _: i64 = sqlx::query_scalar("SELECT count(*) FROM trades").fetch_one(&mut reader).await.unwrap();
    assert!(matches!(bench.write(&mut sink, 2, 4).await, Ok(Written::Committed)));
    reader.close().await.unwrap();
}

/// Waits until a transaction holds the file.
async fn until_locked(bench: &Bench) {
    let mut other = bench.connection().await;
    sqlx::query("PRAGMA busy_timeout = 0").execute(&mut other).await.unwrap();
    while sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.is_ok() {
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        tokio::task::yield_now().await;
    }
}

const POSITION: &str = "SELECT spool || host || epoch || boot || \"offset\" || updated FROM tidegate_position";
