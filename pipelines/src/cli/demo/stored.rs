//! What the database holds, read as any other program would read it.

use std::{collections::HashMap, path::Path, time::Duration};

use futures_util::TryStreamExt;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

/// All rows, by instrument.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stored {
    pub(super) trades: HashMap<String, Vec<Trade>>,
    /// 24-hour volumes: each tells one ticker from all others of its instrument.
    pub(super) tickers: HashMap<String, Vec<f64>>,
    /// Tickers without a volume, which no ticker of the simulator is.
    pub(super) unknown_tickers: u64,
}

/// A stored trade.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trade {
    pub(super) id: String,
    pub(super) price: f64,
    pub(super) size: f64,
    pub(super) side: String,
    /// Milliseconds since 1970.
    pub(super) ts_event_ms: i64,
    pub(super) backfilled: bool,
}

/// Where the database stands before a child is started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Standing {
    pub(super) rows: u64,
    /// When the newest row was received, in milliseconds since 1970.
    pub(super) newest_ms: Option<i64>,
}

impl Stored {
    /// Reads everything. A database or table that is not there is empty.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) async fn read(path: &Path) -> sqlx::Result<Self> {
        let mut stored = Self::default();
        let Some(mut database) = open(path).await? else { return Ok(stored) };
        if has_table(&mut database, "trades").await? {
            stored.read_trades(&mut database).await?;
        }
        if has_table(&mut database, "tickers").await? {
            stored.read_tickers(&mut database).await?;
        }
        database.close().await?;
        Ok(stored)
    }

    async fn read_trades(&mut self, database: &mut SqliteConnection) -> sqlx::Result<()> {
        let columns = "symbol, id, price, size, side, ts_event / 1000000, origin = 'backfill'";
        let query = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {columns} FROM trades")));
        let mut rows = query.fetch(database);
        while let Some(row) = rows.try_next().await? {
            let trade = Trade {
                id: row.try_get::<Option<_>, _>(1)?.unwrap_or_default(),
                price: row.try_get(2)?,
                size: row.try_get(3)?,
                side: row.try_get::<Option<_>, _>(4)?.unwrap_or_default(),
                ts_event_ms: row.try_get(5)?,
                backfilled: row.try_get(6)?,
            };
            add(&mut self.trades, row.try_get(0)?, trade);
        }
        Ok(())
    }

    async fn read_tickers(&mut self, database: &mut SqliteConnection) -> sqlx::Result<()> {
        let mut rows = sqlx::query("SELECT symbol, volume_24h FROM tickers").fetch(database);
        while let Some(row) = rows.try_next().await? {
            match row.try_get(1)? {
                Some(volume) => add(&mut self.tickers, row.try_get(0)?, volume),
                None => self.unknown_tickers += 1,
            }
        }
        Ok(())
    }
}

impl Standing {
    /// Reads where a database stands, without reading all of it: rows are only ever added.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_is_not_there_or_has_no_tables_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.sqlite");
        assert_eq!(Stored::read(&path).await.unwrap(), Stored::default());
        assert!(!path.exists(), "reading makes no file");
        std::fs::write(&path, "").unwrap();
        assert_eq!(Stored::read(&path).await.unwrap(), Stored::default());
        assert_eq!(Standing::read(&path).await.unwrap(), Standing::default());
    }

    #[tokio::test]
    async fn every_row_is_read_with_what_tells_it_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.sqlite");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        let script = "CREATE TABLE trades (ts_event INTEGER, ts_recv INTEGER, symbol TEXT, origin TEXT, id TEXT,
                          price REAL, size REAL, side TEXT);
                      CREATE TABLE tickers (ts_recv INTEGER, symbol TEXT, volume_24h REAL);
                      INSERT INTO trades VALUES (1001000000, 5000000, 'A', 'live', 'ETH-1', 0.5, 2, 'buy');
                      INSERT INTO trades VALUES (1002000000, 9000000, 'A', 'backfill', 'ETH-2', 0.6, 3, NULL);
                      INSERT INTO tickers VALUES (7000000, 'B', 12.5), (8000000, 'B', NULL);";
        sqlx::raw_sql(script).execute(&mut database).await.unwrap();
        database.close().await.unwrap();

        let stored = Stored::read(&path).await.unwrap();
        let trade = |id: &str, price, size, side: &str, ts_event_ms, backfilled| Trade {
            id: id.into(),
            price,
            size,
            side: side.into(),
            ts_event_ms,
            backfilled,
        };
        let expected = [trade("ETH-1", 0.5, 2.0, "buy", 1001, false), trade("ETH-2", 0.6, 3.0, "", 1002, true)];
        assert_eq!(stored.trades["A"], expected);
        assert_eq!((&stored.tickers["B"][..], stored.unknown_tickers), (&[12.5][..], 1));
        assert_eq!(Standing::read(&path).await.unwrap(), Standing { rows: 4, newest_ms: Some(9) });
    }
}
