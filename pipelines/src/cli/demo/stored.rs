//! What the database holds, read as any other program would read it: while it grows, so that little is left to read at the end.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::TryStreamExt;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tidegate_sources::deribit::simulator::comparison::{Stored, StoredTrade};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// All rows that were read so far.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SoFar {
    pub(super) stored: Stored,
    trades: Read,
    tickers: Read,
}

/// How much of a table was read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Read {
    rows: i64,
    /// The last one's number: rows are only ever added behind it.
    last: i64,
}

/// Reads the database while it is written.
#[derive(Debug)]
pub(super) struct Reading {
    path: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<SoFar>,
}

/// Where the database stands before a child is started, or after the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Standing {
    pub(super) rows: u64,
    /// Trades that came by REST.
    pub(super) backfilled: u64,
    /// When the newest row was received, in milliseconds since 1970.
    pub(super) newest_ms: Option<i64>,
}

impl SoFar {
    /// Reads what has come since the last time. A database or table that is not there is empty.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) async fn read(&mut self, path: &Path) -> sqlx::Result<()> {
        let Some(mut database) = open(path).await? else { return Ok(()) };
        if has_table(&mut database, "trades").await? {
            self.read_trades(&mut database).await?;
        }
        if has_table(&mut database, "tickers").await? {
            self.read_tickers(&mut database).await?;
        }
        database.close().await
    }

    async fn read_trades(&mut self, database: &mut SqliteConnection) -> sqlx::Result<()> {
        let columns = "rowid, symbol, id, price, size, side, ts_event / 1000000, origin = 'backfill'";
        let query = format!("SELECT {columns} FROM trades WHERE rowid > ? ORDER BY rowid");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(self.trades.last);
        let mut rows = query.fetch(database);
        while let Some(row) = rows.try_next().await? {
            let trade = StoredTrade {
                id: row.try_get::<Option<_>, _>(2)?.unwrap_or_default(),
                price: row.try_get(3)?,
                size: row.try_get(4)?,
                side: row.try_get::<Option<_>, _>(5)?.unwrap_or_default(),
                ts_event_ms: row.try_get(6)?,
                backfilled: row.try_get(7)?,
            };
            add(&mut self.stored.trades, row.try_get(1)?, trade);
            self.trades.note(row.try_get(0)?);
        }
        Ok(())
    }

    async fn read_tickers(&mut self, database: &mut SqliteConnection) -> sqlx::Result<()> {
        let query = "SELECT rowid, symbol, volume_24h FROM tickers WHERE rowid > ? ORDER BY rowid";
        let mut rows = sqlx::query(query).bind(self.tickers.last).fetch(database);
        while let Some(row) = rows.try_next().await? {
            match row.try_get(2)? {
                Some(volume) => add(&mut self.stored.tickers, row.try_get(1)?, volume),
                None => self.stored.unknown_tickers += 1,
            }
            self.tickers.note(row.try_get(0)?);
        }
        Ok(())
    }

    /// Returns whether the database holds as many rows as were read: nobody has taken any away behind the reader's back.
    async fn is_whole(&self, path: &Path) -> sqlx::Result<bool> {
        let Some(mut database) = open(path).await? else { return Ok(*self == Self::default()) };
        let mut is_whole = true;
        for (table, read) in [("trades", self.trades), ("tickers", self.tickers)] {
            let count = if has_table(&mut database, table).await? {
                let query = format!("SELECT count(*) FROM {table}");
                sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&mut database).await?
            } else {
                0_i64
            };
            is_whole &= count == read.rows;
        }
        database.close().await?;
        Ok(is_whole)
    }
}

impl Read {
    fn note(&mut self, rowid: i64) {
        self.rows += 1;
        self.last = rowid;
    }
}

impl Reading {
    /// Begins with what is there.
    pub(super) fn begin(path: PathBuf) -> Self {
        let stop = CancellationToken::new();
        let (stopped, database) = (stop.clone(), path.clone());
        let task = tokio::spawn(async move {
            let mut so_far = SoFar::default();
            while !stopped.is_cancelled() {
                // What goes wrong here goes wrong again at the end, and is said then.
                if so_far.read(&database).await.is_err() {
                    so_far = SoFar::default();
                }
                stopped.run_until_cancelled(tokio::time::sleep(EVERY)).await;
            }
            so_far
        });
        Self { path, stop, task }
    }

    /// Reads the rest, and returns all. The one who writes must have ended.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) async fn finish(&mut self) -> sqlx::Result<Stored> {
        self.stop.cancel();
        let mut so_far = (&mut self.task).await.unwrap_or_default();
        if so_far.read(&self.path).await.is_err() || !so_far.is_whole(&self.path).await? {
            so_far = SoFar::default();
            so_far.read(&self.path).await?;
        }
        Ok(so_far.stored)
    }
}

impl Standing {
    /// Reads where a database stands, without fetching all of it: rows are only ever added.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) async fn read(path: &Path) -> sqlx::Result<Self> {
        let mut standing = Self::default();
        let Some(mut database) = open(path).await? else { return Ok(standing) };
        for table in ["trades", "tickers"] {
            if !has_table(&mut database, table).await? {
                continue;
            }
            let last = format!("SELECT rowid, ts_recv / 1000000 FROM {table} ORDER BY rowid DESC LIMIT 1");
            let last = sqlx::query_as::<_, (i64, i64)>(sqlx::AssertSqlSafe(last));
            if let Some((rows, newest_ms)) = last.fetch_optional(&mut database).await? {
                standing.rows += rows.unsigned_abs();
                standing.newest_ms = standing.newest_ms.max(Some(newest_ms));
            }
        }
        if has_table(&mut database, "trades").await? {
            let backfilled = "SELECT count(*) FROM trades WHERE origin = 'backfill'";
            let backfilled: i64 = sqlx::query_scalar(backfilled).fetch_one(&mut database).await?;
            standing.backfilled = backfilled.unsigned_abs();
        }
        database.close().await?;
        Ok(standing)
    }
}

/// Opens a database if there is one.
async fn open(path: &Path) -> sqlx::Result<Option<SqliteConnection>> {
    if !path.exists() {
        return Ok(None);
    }
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false).busy_timeout(BUSY);
    SqliteConnection::connect_with(&options.pragma("query_only", "on")).await.map(Some)
}

async fn has_table(database: &mut SqliteConnection, name: &str) -> sqlx::Result<bool> {
    let query = sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?").bind(name);
    query.fetch_optional(database).await.map(|found| found.is_some())
}

fn add<T>(lists: &mut HashMap<String, Vec<T>>, symbol: &str, value: T) {
    match lists.get_mut(symbol) {
        Some(list) => list.push(value),
        None => {
            lists.insert(symbol.to_owned(), vec![value]);
        }
    }
}

const BUSY: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_is_not_there_or_has_no_tables_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.sqlite");
        let mut so_far = SoFar::default();
        so_far.read(&path).await.unwrap();
        assert!(!path.exists(), "reading makes no file");
        std::fs::write(&path, "").unwrap();
        so_far.read(&path).await.unwrap();
        assert_eq!(so_far, SoFar::default());
        assert_eq!(Standing::read(&path).await.unwrap(), Standing::default());
    }

    #[tokio::test]
    async fn every_row_is_read_with_what_tells_it_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.sqlite");
        do_to(&path, SCRIPT).await;

        let mut so_far = SoFar::default();
        so_far.read(&path).await.unwrap();
        let trade = |id: &str, price, size, side: &str, ts_event_ms, backfilled| StoredTrade {
            id: id.into(),
            price,
            size,
            side: side.into(),
            ts_event_ms,
            backfilled,
        };
        let expected = [trade("ETH-1", 0.5, 2.0, "buy", 1001, false), trade("ETH-2", 0.6, 3.0, "", 1002, true)];
        assert_eq!(so_far.stored.trades["A"], expected);
        assert_eq!((&so_far.stored.tickers["B"][..], so_far.stored.unknown_tickers), (&[12.5][..], 1));
        assert_eq!(Standing::read(&path).await.unwrap(), Standing { rows: 4, backfilled: 1, newest_ms: Some(9) });
    }
    #[tokio::test]
    async fn what_was_read_is_not_read_again_unless_rows_were_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.sqlite");
        do_to(&path, SCRIPT).await;
        let mut reading = Reading { stop: CancellationToken::new(), ..Reading::begin(path.clone()) };
        reading.task.abort();
        let mut so_far = SoFar::default();
        so_far.read(&path).await.unwrap();
        let more = "INSERT INTO tickers VALUES (9000000, 'B', 13.5);
                    INSERT INTO trades VALUES (1003000000, 9500000, 'A', 'live', 'ETH-3', 0.7, 4, 'sell');";
        do_to(&path, more).await;
        so_far.read(&path).await.unwrap();
        assert_eq!(
            (so_far.stored.trades["A"].len(), &so_far.stored.tickers["B"][..]),
            (3, &[12.5, 13.5][..]),
            "each row once"
        );
        assert!(so_far.is_whole(&path).await.unwrap());

        do_to(&path, "DELETE FROM trades WHERE id = 'ETH-1'").await;
        assert!(!so_far.is_whole(&path).await.unwrap());
        reading.task = tokio::spawn(async { so_far });
        assert_eq!(reading.finish().await.unwrap().trades["A"].len(), 2, "it looks again");
    }

    async fn do_to(path: &Path, script: &'static str) {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(script).execute(&mut database).await.unwrap();
        database.close().await.unwrap();
    }

    const SCRIPT: &str = "
        CREATE TABLE trades (ts_event INTEGER, ts_recv INTEGER, symbol TEXT, origin TEXT, id TEXT, price REAL, size REAL,
                             side TEXT);
        CREATE TABLE tickers (ts_recv INTEGER, symbol TEXT, volume_24h REAL);
        INSERT INTO trades VALUES (1001000000, 5000000, 'A', 'live', 'ETH-1', 0.5, 2, 'buy');
        INSERT INTO trades VALUES (1002000000, 9000000, 'A', 'backfill', 'ETH-2', 0.6, 3, NULL);
        INSERT INTO tickers VALUES (7000000, 'B', 12.5), (8000000, 'B', NULL);";
}
