//! What the database holds, for `tidegate verify`: read by another connection, in one snapshot, by SQL that the sink's own
//! writing has no part in.

use async_trait::async_trait;
use futures_util::{TryStreamExt, pin_mut};
use serde_json::Value;
use tidegate_core::{
    Error, Result,
    chunk::SinkTable,
    row::{ColumnType, Timestamp},
    sink::{Neighbour, Owner},
    spool::SpoolPosition,
    verify::{Audit, Doubled, RowId, ShowValues, Stream, Sum, Values},
};
use tokio_postgres::{Row, types::Type};

use super::{
    config::Settings,
    error::sorted,
    link::{Link, Parameter},
    open::server,
    position::Positions,
    schema::{columns, look, quoted},
    types::{Fit, Form},
};

type Failed = tokio_postgres::Error;

/// A look at one schema.
pub(super) struct PostgresAudit {
    link: Link,
    settings: Settings,
    schema: String,
    positions: Positions,
    owner: Owner,
}

impl PostgresAudit {
    /// Begins to read; what other connections commit from now on is not seen.
    pub(super) async fn open(settings: &Settings, owner: &Owner) -> Result<Self> {
        let link = Link::open(settings, None).await?;
        let begun = async {
            let schema = server(settings, &link).await?.schema;
            // Numbers come with all their digits, whatever the server is told to do else.
            link.run("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL extra_float_digits = 3").await?;
            Ok(schema)
        };
        let schema = begun.await.map_err(|error: Failed| link.at(sorted(error)))?;
        let settings = settings.clone();
        Ok(Self { link, settings, positions: Positions::of(&schema), schema, owner: owner.clone() })
    }

    fn failed(&self, error: Failed) -> Error {
        self.link.at(sorted(error))
    }

    /// Returns how a table is read: its name, and its times in nanoseconds, with the microseconds that all of them have.
    async fn source(&self, table: &SinkTable) -> Result<Option<Source>> {
        let Some(seen) = look(&self.link, &self.schema, &table.name).await.map_err(|error| self.failed(error))?? else {
            return Ok(None);
        };
        let time = |column: &str| {
            let name = quoted(column);
            let is_number = seen.columns.iter().any(|found| found.name == column && found.declared == "bigint");
            if is_number {
                // Towards the past, as the sink cuts off, whereas `/` goes towards zero.
                format!("(floor({name}::numeric / 1000) * 1000)::bigint")
            } else {
                format!("(extract(epoch FROM {name})::numeric * 1000000)::bigint * 1000")
            }
        };
        let name = format!("{}.{}", quoted(&self.schema), quoted(&table.name));
        Ok(Some(Source { name, event: time("ts_event"), received: time("ts_recv") }))
    }

    /// Returns how each column of a table is read whose values come back as they were written, in the order of the chunk's.
    async fn readers(&self, table: &SinkTable) -> Result<Vec<Option<Reader>>> {
        let seen = look(&self.link, &self.schema, &table.name).await.map_err(|error| self.failed(error))??;
        let found = seen.map(|seen| seen.columns).unwrap_or_default();
        let reader = |column: tidegate_core::row::Column| {
            let there = found.iter().find(|found| found.name == *column.name)?;
            match there.fit(column.column_type, &self.settings) {
                Fit::Whole(form) | Fit::Narrow(form, _) => Reader::new(&there.name, column.column_type, form),
                Fit::Changes => None,
            }
        };
        Ok(columns(table).into_iter().map(reader).collect())
    }

    async fn fetch(&self, sql: &str, with: &[Parameter<'_>]) -> Result<Vec<Row>> {
        self.link.rows(sql, with).await.map_err(|error| self.failed(error))
    }
}

/// How the values of a column are read.
struct Reader {
    sql: String,
    column_type: ColumnType,
}

impl Reader {
    /// Returns `None` for a column that rounds.
    fn new(name: &str, column_type: ColumnType, form: Form) -> Option<Self> {
        let name = quoted(name);
        let sql = match (column_type, form) {
            (_, Form::Float4 | Form::RoundedNumeric(_)) => return None,
            (ColumnType::Bool, _) => name,
            (ColumnType::F64, Form::Float8) => name,
            (ColumnType::Time, Form::Timestamp) => format!("(extract(epoch FROM {name})::numeric * 1000000)::bigint"),
            (ColumnType::Time, _) => format!("floor({name}::numeric / 1000)::bigint"),
            (ColumnType::I64 | ColumnType::U64 | ColumnType::F64 | ColumnType::Text | ColumnType::Label, _) => {
                format!("{name}::text")
            }
            (ColumnType::Levels | ColumnType::ListI64, Form::Json) => format!("{name}::text"),
            (ColumnType::Levels | ColumnType::ListI64, _) => format!("to_json({name})::text"),
        };
        Some(Self { sql, column_type })
    }

    /// Adds the value at a place in a row.
    fn add(&self, row: &Row, at: usize, values: &mut Values) -> Result<(), Failed> {
        let is_float = row.columns()[at].type_() == &Type::FLOAT8;
        match self.column_type {
            ColumnType::Bool => values.integer(row.try_get::<_, Option<bool>>(at)?.map(i128::from)),
            ColumnType::Time => values.integer(row.try_get::<_, Option<i64>>(at)?.map(i128::from)),
            ColumnType::F64 if is_float => values.number(row.try_get(at)?),
            ColumnType::F64 => match row.try_get::<_, Option<&str>>(at)?.map(str::parse).transpose() {
                Ok(value) => values.number(value),
                Err(_) => values.unreadable(),
            },
            ColumnType::I64 | ColumnType::U64 => {
                match row.try_get::<_, Option<&str>>(at)?.map(str::parse).transpose() {
                    Ok(value) => values.integer(value),
                    Err(_) => values.unreadable(),
                }
            }
            ColumnType::Text | ColumnType::Label => values.text(row.try_get(at)?),
            ColumnType::Levels | ColumnType::ListI64 => values.json(row.try_get(at)?),
        }
        Ok(())
    }
}

struct Source {
    name: String,
    event: String,
    received: String,
}

#[async_trait]
impl Audit for PostgresAudit {
    fn time_unit(&self) -> i64 {
        MICROSECOND
    }

    async fn position(&mut self) -> Result<Option<(u64, SpoolPosition)>> {
        if self.positions.missing(&self.link).await.map_err(|error| self.failed(error))?.is_some() {
            return Ok(None);
        }
        let held = self.positions.read(&self.link, &self.owner, "").await.map_err(|error| self.failed(error))??;
        let held = held.into_iter().find(|held| held.part == self.owner.part);
        let held = held.filter(|held| held.position != SpoolPosition::START);
        Ok(held.map(|held| (held.spool, held.position)))
    }

    async fn neighbours(&mut self, tables: &[SinkTable]) -> Result<Vec<Neighbour>> {
        let read = self.positions.neighbours(&self.link, &self.owner, tables).await;
        read.map_err(|error| self.failed(error))
    }

    async fn sums(&mut self, table: &SinkTable, since: Timestamp) -> Result<Option<Vec<Sum>>> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(None) };
        let divisor = RowId::DIVISOR;
        let sql = format!(
            "SELECT venue::text, symbol::text, count(*), count(*) FILTER (WHERE origin::text = 'redrive'),
                 sum({received} % {divisor} + 3 * ({event} % {divisor}) + 7 * coalesce((seq % {divisor})::bigint, 0))::bigint
             FROM {name} WHERE {received} >= $1 GROUP BY venue, symbol"
        );
        let rows = self.fetch(&sql, &[(&since.0, Type::INT8)]).await?;
        let sum = |row: &Row| -> Result<Sum, Failed> {
            let stream = Stream { venue: row.try_get(0)?, symbol: row.try_get(1)? };
            let (rows, redriven): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            Ok(Sum { stream, rows: rows.unsigned_abs(), redriven: redriven.unsigned_abs(), marks: row.try_get(4)? })
        };
        let sums: Result<Vec<Sum>, Failed> = rows.iter().map(sum).collect();
        sums.map(Some).map_err(|error| self.failed(error))
    }

    async fn count(&mut self, table: &SinkTable) -> Result<Option<u64>> {
        let seen = look(&self.link, &self.schema, &table.name).await.map_err(|error| self.failed(error))??;
        if seen.is_none() {
            return Ok(None);
        }
        let sql = format!("SELECT count(*) FROM {}.{}", quoted(&self.schema), quoted(&table.name));
        let rows = self.fetch(&sql, &[]).await?;
        let count: i64 = rows.first().ok_or_else(unreadable)?.try_get(0).map_err(|error| self.failed(error))?;
        Ok(Some(count.unsigned_abs()))
    }

    async fn rows(&mut self, table: &SinkTable, stream: &Stream, since: Timestamp) -> Result<Vec<RowId>> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT seq::text, {event}, {received} FROM {name} WHERE {received} >= $1 AND venue::text = $2 AND symbol::text = $3"
        );
        let with: [Parameter<'_>; 3] =
            [(&since.0, Type::INT8), (&stream.venue, Type::TEXT), (&stream.symbol, Type::TEXT)];
        self.fetch(&sql, &with).await?.iter().map(|row| id(row, 0).map_err(|error| self.failed(error))?).collect()
    }

    async fn faithful(&mut self, table: &SinkTable) -> Result<Vec<usize>> {
        let readers = self.readers(table).await?.into_iter().enumerate();
        Ok(readers.filter(|(_, reader)| reader.is_some()).map(|(at, _)| at).collect())
    }

    async fn show_values(
        &mut self,
        table: &SinkTable,
        wanted: &[usize],
        since: Timestamp,
        show: &mut ShowValues<'_>,
    ) -> Result<()> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(()) };
        let mut all = self.readers(table).await?;
        let readers: Vec<Reader> = wanted.iter().filter_map(|at| all.get_mut(*at)?.take()).collect();
        let read: String = readers.iter().map(|reader| format!(", {}", reader.sql)).collect();
        let sql = format!(
            "SELECT venue::text, symbol::text, seq::text, {event}, {received}{read} FROM {name} WHERE {received} >= $1"
        );
        let with = [(since.0, Type::INT8)];
        let rows = self.link.client().query_typed_raw(&sql, with).await.map_err(|error| self.failed(error))?;
        pin_mut!(rows);
        let (mut stream, mut values) = (Stream { venue: String::new(), symbol: String::new() }, Values::default());
        while let Some(row) = rows.try_next().await.map_err(|error| self.failed(error))? {
            let shown = (|| {
                let (venue, symbol): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
                if (&*stream.venue, &*stream.symbol) != (venue, symbol) {
                    stream = Stream { venue: venue.to_owned(), symbol: symbol.to_owned() };
                }
                values.clear();
                readers.iter().zip(5..).try_for_each(|(reader, at)| reader.add(&row, at, &mut values))?;
                id(&row, 2)
            })();
            show(&stream, shown.map_err(|error| self.failed(error))??, &values);
        }
        Ok(())
    }

    async fn values(&mut self, table: &SinkTable, columns: &[&str]) -> Result<Vec<Vec<Value>>> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(Vec::new()) };
        let parts = columns.iter().map(|column| match *column {
            "ts_event" => event.clone(),
            "ts_recv" => received.clone(),
            other => quoted(other),
        });
        let sql = format!("SELECT json_build_array({})::text FROM {name}", parts.collect::<Vec<_>>().join(", "));
        let values = |row: &Row| {
            let text: &str = row.try_get(0).map_err(|error| self.failed(error))?;
            serde_json::from_str(text).map_err(|error| unreadable().because(error))
        };
        self.fetch(&sql, &[]).await?.iter().map(values).collect()
    }

    async fn doubled(&mut self, table: &SinkTable, before: Timestamp) -> Result<Vec<Doubled>> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT venue::text, symbol::text, seq::text, {event}, min({received}), count(*), count(DISTINCT ts_recv)
             FROM {name} WHERE {received} < $1 AND seq IS NOT NULL
             GROUP BY venue, symbol, seq, ts_event HAVING count(*) > 1"
        );
        let doubled = |row: &Row| -> Result<Doubled> {
            let texts = (row.try_get(0), row.try_get(1), row.try_get::<_, i64>(5), row.try_get::<_, i64>(6));
            let (Ok(venue), Ok(symbol), Ok(rows), Ok(moments)) = texts else { return Err(unreadable()) };
            let row = id(row, 2).map_err(|error| self.failed(error))??;
            Ok(Doubled {
                stream: Stream { venue, symbol },
                row,
                rows: rows.unsigned_abs(),
                moments: moments.unsigned_abs(),
            })
        };
        self.fetch(&sql, &[(&before.0, Type::INT8)]).await?.iter().map(doubled).collect()
    }
}

/// Reads what tells a row from others, from a column on.
fn id(row: &Row, at: usize) -> Result<Result<RowId>, Failed> {
    let seq: Option<String> = row.try_get(at)?;
    let (event, received): (i64, i64) = (row.try_get(at + 1)?, row.try_get(at + 2)?);
    let Ok(seq) = seq.map(|seq| seq.parse()).transpose() else { return Ok(Err(unreadable())) };
    Ok(Ok(RowId { seq, ts_event: Timestamp(event), ts_recv: Timestamp(received) }))
}

fn unreadable() -> Error {
    Error::permanent("a row cannot be read as this sink writes it")
}

/// In nanoseconds: what Postgres's times tell apart.
const MICROSECOND: i64 = 1_000;
