//! What the file holds, for `tidegate verify`: read by another connection, in one transaction, by SQL that the sink's own
//! writing has no part in.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tidegate_core::{
    Error, Result,
    chunk::{Part, SinkTable},
    row::{Column, ColumnType, Timestamp},
    sink::{Neighbour, Owner},
    spool::SpoolPosition,
    verify::{Audit, Doubled, RowId, ShowValues, Stream, Sum, Values},
};

use super::{
    SqliteConfig,
    error::sorted,
    position,
    schema::{columns, exists, faithful, quoted},
};

/// A look at one file.
pub(super) struct SqliteAudit {
    config: SqliteConfig,
    connection: SqliteConnection,
    owner: Owner,
}

impl SqliteAudit {
    /// Begins to read; what other connections commit from now on is not seen.
    pub(super) async fn open(config: &SqliteConfig, owner: &Owner) -> Result<Self> {
        let path = &config.path;
        if !path.is_file() {
            return Err(Error::permanent(format!("`{}` does not exist", path.display())));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(config.lock_timeout.0)
            .disable_statement_logging();
        let opened = async {
            let mut connection = options.connect().await?;
            sqlx::query("BEGIN").execute(&mut connection).await?;
            Ok(connection)
        };
        let connection = opened.await.map_err(|error| sorted(path, error))?;
        Ok(Self { config: config.clone(), connection, owner: owner.clone() })
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        sorted(&self.config.path, error)
    }

    async fn fetch(&mut self, sql: String, values: &[&str], since: Timestamp) -> sqlx::Result<Vec<SqliteRow>> {
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(since.0);
        for value in values {
            query = query.bind(*value);
        }
        query.fetch_all(&mut self.connection).await
    }
}

#[async_trait]
impl Audit for SqliteAudit {
    async fn position(&mut self) -> Result<Option<(u64, SpoolPosition)>> {
        let there = exists(&mut self.connection, "tidegate_position").await.map_err(|error| self.failed(error))?;
        if !there {
            return Ok(None);
        }
        let held = position::read(&mut self.connection, &self.owner).await.map_err(|error| self.failed(error))??;
        let held = held.into_iter().find(|held| held.part == Part::spool());
        let held = held.filter(|held| held.position != SpoolPosition::START);
        Ok(held.map(|held| (held.spool, held.position)))
    }

    async fn neighbours(&mut self, tables: &[SinkTable]) -> Result<Vec<Neighbour>> {
        let read = position::neighbours(&mut self.connection, &self.owner, tables).await;
        read.map_err(|error| self.failed(error))
    }

    async fn sums(&mut self, table: &SinkTable, since: Timestamp) -> Result<Option<Vec<Sum>>> {
        if !exists(&mut self.connection, &table.name).await.map_err(|error| self.failed(error))? {
            return Ok(None);
        }
        let (name, divisor) = (quoted(&table.name), RowId::DIVISOR);
        let sql = format!(
            "SELECT venue, symbol, count(*), sum(origin = 'redrive'),
                 sum(ts_recv % {divisor} + 3 * (ts_event % {divisor}) + 7 * coalesce(seq % {divisor}, 0))
             FROM {name} WHERE ts_recv >= ?1 GROUP BY venue, symbol"
        );
        let sum = |row: &SqliteRow| {
            let stream = Stream { venue: row.try_get(0)?, symbol: row.try_get(1)? };
            let (rows, redriven): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            // A number beyond 2^63 is text, and makes no integer of the sum: then rows are compared one by one.
            let marks = row.try_get(4).unwrap_or(i64::MIN);
            Ok(Sum { stream, rows: rows.unsigned_abs(), redriven: redriven.unsigned_abs(), marks })
        };
        let rows = self.fetch(sql, &[], since).await.and_then(|rows| rows.iter().map(sum).collect());
        rows.map(Some).map_err(|error| self.failed(error))
    }

    async fn faithful(&mut self, table: &SinkTable) -> Result<Vec<usize>> {
        let found = faithful(&mut self.connection, table).await;
        found.map_err(|error| self.failed(error))
    }

    async fn show_values(
        &mut self,
        table: &SinkTable,
        wanted: &[usize],
        since: Timestamp,
        show: &mut ShowValues<'_>,
    ) -> Result<()> {
        if !exists(&mut self.connection, &table.name).await.map_err(|error| self.failed(error))? {
            return Ok(());
        }
        let all = columns(table);
        let wanted: Vec<&Column> = wanted.iter().filter_map(|at| all.get(*at)).collect();
        let read: Vec<String> = wanted.iter().map(|column| format!(", {}", as_read(column))).collect();
        let (name, read) = (quoted(&table.name), read.concat());
        let sql =
            format!("SELECT venue, symbol, CAST(seq AS TEXT), ts_event, ts_recv{read} FROM {name} WHERE ts_recv >= ?1");
        let path = self.config.path.clone();
        let mut rows = sqlx::query(AssertSqlSafe(sql)).bind(since.0).fetch(&mut self.connection);
        let (mut stream, mut values) = (Stream { venue: String::new(), symbol: String::new() }, Values::default());
        while let Some(row) = rows.try_next().await.map_err(|error| sorted(&path, error))? {
            let shown = (|| {
                let (venue, symbol): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
                if (&*stream.venue, &*stream.symbol) != (venue, symbol) {
                    stream = Stream { venue: venue.to_owned(), symbol: symbol.to_owned() };
                }
                values.clear();
                wanted.iter().zip(5..).for_each(|(column, at)| add(&row, at, column.column_type, &mut values));
                id(&row, 2)
            })();
            show(&stream, shown.map_err(|error| sorted(&path, error))?, &values);
        }
        Ok(())
    }

    async fn count(&mut self, table: &SinkTable) -> Result<Option<u64>> {
        if !exists(&mut self.connection, &table.name).await.map_err(|error| self.failed(error))? {
            return Ok(None);
        }
        let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {}", quoted(&table.name))));
        let count: i64 = count.fetch_one(&mut self.connection).await.map_err(|error| self.failed(error))?;
        Ok(Some(count.unsigned_abs()))
    }

    async fn rows(&mut self, table: &SinkTable, stream: &Stream, since: Timestamp) -> Result<Vec<RowId>> {
        if !exists(&mut self.connection, &table.name).await.map_err(|error| self.failed(error))? {
            return Ok(Vec::new());
        }
        let name = quoted(&table.name);
        let sql = format!(
            "SELECT CAST(seq AS TEXT), ts_event, ts_recv FROM {name} WHERE ts_recv >= ?1 AND venue = ?2 AND symbol = ?3"
        );
        let rows = self.fetch(sql, &[&stream.venue, &stream.symbol], since).await;
        rows.and_then(|rows| rows.iter().map(|row| id(row, 0)).collect()).map_err(|error| self.failed(error))
    }

    async fn doubled(&mut self, table: &SinkTable, before: Timestamp) -> Result<Vec<Doubled>> {
        let name = quoted(&table.name);
        let sql = format!(
            "SELECT venue, symbol, CAST(seq AS TEXT), ts_event, min(ts_recv), count(*), count(DISTINCT ts_recv) FROM {name}
             WHERE ts_recv < ?1 AND seq IS NOT NULL GROUP BY venue, symbol, seq, ts_event HAVING count(*) > 1"
        );
        let doubled = |row: &SqliteRow| {
            let stream = Stream { venue: row.try_get(0)?, symbol: row.try_get(1)? };
            let (rows, moments): (i64, i64) = (row.try_get(5)?, row.try_get(6)?);
            Ok(Doubled { stream, row: id(row, 2)?, rows: rows.unsigned_abs(), moments: moments.unsigned_abs() })
        };
        let rows = self.fetch(sql, &[], before).await.and_then(|rows| rows.iter().map(doubled).collect());
        rows.map_err(|error| self.failed(error))
    }
}

/// Returns how a column is read: as what was written, whatever SQLite has made of it to save room.
fn as_read(column: &Column) -> String {
    let name = quoted(&column.name);
    match column.column_type {
        ColumnType::F64 => format!("CASE WHEN typeof({name}) = 'integer' THEN CAST({name} AS REAL) ELSE {name} END"),
        ColumnType::U64 => format!("CASE WHEN typeof({name}) = 'integer' THEN CAST({name} AS TEXT) ELSE {name} END"),
        ColumnType::Bool
        | ColumnType::I64
        | ColumnType::Time
        | ColumnType::Text
        | ColumnType::Label
        | ColumnType::Levels
        | ColumnType::ListI64 => name,
    }
}

/// Adds a value of a row. One of another type than the column's was not written by this sink.
fn add(row: &SqliteRow, at: usize, column_type: ColumnType, values: &mut Values) {
    let added = match column_type {
        ColumnType::Bool | ColumnType::I64 | ColumnType::Time => {
            row.try_get(at).map(|value: Option<i64>| values.integer(value.map(i128::from)))
        }
        ColumnType::U64 => row.try_get(at).map(|value: Option<&str>| match value.map(str::parse).transpose() {
            Ok(value) => values.integer(value),
            Err(_) => values.unreadable(),
        }),
        ColumnType::F64 => row.try_get(at).map(|value| values.number(value)),
        ColumnType::Text | ColumnType::Label => row.try_get(at).map(|value| values.text(value)),
        ColumnType::Levels | ColumnType::ListI64 => row.try_get(at).map(|value| values.json(value)),
    };
    if added.is_err() {
        values.unreadable();
    }
}

/// Reads what tells a row from others, from a column on.
fn id(row: &SqliteRow, at: usize) -> sqlx::Result<RowId> {
    let seq: Option<String> = row.try_get(at)?;
    let seq = seq.map(|seq| seq.parse()).transpose().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(RowId { seq, ts_event: Timestamp(row.try_get(at + 1)?), ts_recv: Timestamp(row.try_get(at + 2)?) })
}
