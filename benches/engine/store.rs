//! Log → chunks, and log → SQLite beside a bare loop of multi-row inserts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sqlx::{
    Arguments as _, AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection, TypeInfo, ValueRef,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tidegate_core::{config::Batch, spool::SpoolReader};
use tidegate_sinks::sqlite::SqliteConfig;
use tokio::runtime::Runtime;

use crate::{
    clock::{Spent, Stopwatch, race},
    delivered::{CHUNK, Sending, Target, chunks, filled},
    effort::Effort,
    frames::Feed,
    table::{Table, at_least, thousands},
};

pub(crate) fn run(effort: Effort, folder: &Path) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut chunks = Table::new(&["rows", "ns a row", "a second"]);
    let mut stores =
        Table::new(&["rows", "log → sqlite", "CPU", "bare loop, 1 statement", "CPU", "ratio", "ratio of CPU"]);
    for kind in effort.kinds() {
        let feed = Feed::own(kind, effort.stored);
        let folder = tempfile::tempdir_in(folder).expect("a folder for files");
        let intake = filled(&feed, &folder.path().join("spool"));
        let reader = intake.reader();
        let spent = (0..effort.rounds).map(|_| to_chunks(&reader, feed.rows)).reduce(Spent::best).expect("one round");
        chunks.line([
            feed.name.clone(),
            format!("{:.0}", spent.cpu.as_nanos() as f64 / feed.rows as f64),
            thousands(feed.rows, spent.cpu.as_secs_f64()),
        ]);
        let bench = StoreBench { runtime: &runtime, folder: folder.path(), table: kind.table(), rows: feed.rows };
        bench.deliver(&reader);
        let copy = runtime.block_on(Copy::read(&bench.path("ours.sqlite"), bench.table));
        assert_eq!(copy.rows.len(), feed.rows, "{}: rows are lost, or doubled", feed.name);
        let rounds = effort.rounds.div_ceil(2);
        let (ours, bare) = race(rounds, || bench.deliver(&reader), || bench.insert(&copy));
        stores.line([
            feed.name.clone(),
            thousands(feed.rows, ours.wall.as_secs_f64()),
            format!("{:.2} s", ours.cpu.as_secs_f64()),
            thousands(feed.rows, bare.wall.as_secs_f64()),
            format!("{:.2} s", bare.cpu.as_secs_f64()),
            at_least(bare.wall.as_secs_f64() / ours.wall.as_secs_f64(), 0.8),
            format!("{:.2}", bare.cpu.as_secs_f64() / ours.cpu.as_secs_f64()),
        ]);
    }
    chunks
        .print("3a. log → chunks of 5,000 rows (Arrow): read, checked, taken apart, put into columns; thread CPU time");
    stores.print("3b. log → SQLite, 5,000 rows a transaction, synchronous = FULL, the same table, from opening to the last commit");
}

fn to_chunks(reader: &SpoolReader, rows: usize) -> Spent {
    let mut built = 0;
    let watch = Stopwatch::of_this_thread();
    chunks(reader, CHUNK, |chunk| {
        built += std::hint::black_box(chunk).iter().map(|part| part.rows.num_rows()).sum::<usize>();
    });
    let spent = watch.read();
    assert_eq!(built, rows, "rows are lost");
    spent
}

/// What both sides of the comparison share.
struct StoreBench<'a> {
    runtime: &'a Runtime,
    folder: &'a Path,
    table: &'static str,
    rows: usize,
}

impl StoreBench<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Sends the log to a new file, as a pipeline does.
    fn deliver(&self, reader: &SpoolReader) -> Spent {
        self.clear("ours.sqlite");
        let target = Target::of::<SqliteConfig>("sqlite", serde_json::json!({ "path": self.path("ours.sqlite") }));
        let sending = Sending { folder: self.folder, reader, batch: Batch::default() };
        let watch = Stopwatch::of_all_threads();
        self.runtime.block_on(sending.all(&target, self.rows));
        watch.read()
    }

    /// Inserts the same rows into a new file, in transactions of the same size.
    fn insert(&self, copy: &Copy) -> Spent {
        self.clear("bare.sqlite");
        let path = self.path("bare.sqlite");
        let watch = Stopwatch::of_all_threads();
        self.runtime.block_on(copy.write(&path)).expect("the file can be written");
        watch.read()
    }

    fn clear(&self, name: &str) {
        for end in ["", "-wal", "-shm"] {
            // What is not there need not be removed.
            drop(std::fs::remove_file(self.path(&format!("{name}{end}"))));
        }
    }
}

/// The rows of a table in memory, as a program without an engine has them.
struct Copy {
    create: String,
    columns: usize,
    insert: String,
    rows: Vec<Vec<Value>>,
}

#[derive(Debug)]
enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(Arc<str>),
}

impl Copy {
    async fn read(path: &Path, table: &str) -> Self {
        let mut db = SqliteConnectOptions::new().filename(path).connect().await.expect("the file is there");
        let create = sqlx::query_scalar("SELECT sql FROM sqlite_master WHERE name = ?").bind(table);
        let create = create.fetch_one(&mut db).await.expect("the table is there");
        let select = AssertSqlSafe(format!("SELECT * FROM {table}"));
        let stored = sqlx::query(select).fetch_all(&mut db).await.expect("rows");
        db.close().await.expect("nothing is open");
        let rows: Vec<Vec<Value>> =
            stored.iter().map(|row| (0..row.len()).map(|at| Value::of(row, at)).collect()).collect();
        let columns = rows.first().map_or(1, Vec::len);
        Self { create, columns, insert: format!("INSERT INTO {table} VALUES "), rows }
    }

    async fn write(&self, path: &Path) -> sqlx::Result<()> {
        let mut db = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging()
            .connect()
            .await?;
        sqlx::query(AssertSqlSafe(self.create.clone())).execute(&mut db).await?;
        let most = (MOST_BINDS / self.columns).min(1_000);
        let values = format!("({})", vec!["?"; self.columns].join(","));
        let statement = |rows: usize| -> Arc<str> { (self.insert.clone() + &vec![&*values; rows].join(",")).into() };
        let (full, last) = (statement(most), statement(CHUNK % most));
        for rows in self.rows.chunks(CHUNK) {
            sqlx::query("BEGIN").execute(&mut db).await?;
            for rows in rows.chunks(most) {
                let sql = match rows.len() {
                    len if len == most => full.clone(),
                    len if len == CHUNK % most => last.clone(),
                    len => statement(len),
                };
                insert(&mut db, sql, rows).await?;
            }
            sqlx::query("COMMIT").execute(&mut db).await?;
        }
        db.close().await
    }
}

async fn insert(db: &mut SqliteConnection, sql: Arc<str>, rows: &[Vec<Value>]) -> sqlx::Result<()> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(rows.iter().map(Vec::len).sum(), 0);
    for value in rows.iter().flatten() {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Integer(number) => arguments.add(*number),
            Value::Real(number) => arguments.add(*number),
            Value::Text(text) => arguments.add(text.clone()),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    sqlx::query_with(AssertSqlSafe(sql), arguments).execute(db).await.map(drop)
}

impl Value {
    fn of(row: &sqlx::sqlite::SqliteRow, at: usize) -> Self {
        let raw = row.try_get_raw(at).expect("a column");
        if raw.is_null() {
            return Self::Null;
        }
        match raw.type_info().name() {
            "INTEGER" => Self::Integer(row.get(at)),
            "REAL" => Self::Real(row.get(at)),
            _ => Self::Text(row.get::<String, _>(at).into()),
        }
    }
}

/// SQLite's limit of values in a statement.
const MOST_BINDS: usize = 32_766;
