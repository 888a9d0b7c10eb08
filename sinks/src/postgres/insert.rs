//! Rows → the server: by `COPY` where they are appended, by `INSERT … SELECT FROM unnest` where a key decides.

use std::{collections::HashSet, io::Cursor, ops::Range, pin::pin};

use arrow_array::Array;
use bytes::BytesMut;
use futures_util::SinkExt;
use tidegate_core::{
    Error,
    chunk::{ColumnView, SinkTable},
    config::OnConflict,
};
use tokio_postgres::{
    CopyInSink, Statement,
    types::{Format, IsNull, ToSql, Type, to_sql_checked},
};

use super::{
    decimal::Decimal,
    encode::{Rows, write_array_head, write_element, write_field},
    error::{is_equal, is_twice_in_a_statement},
    link::Link,
    schema::{Target, TargetColumn, key_columns},
    types::Form,
};

/// The statements of one table.
#[derive(Debug)]
pub(super) struct Inserter {
    pub(super) target: Target,
    copy: String,
    /// Where a key decides.
    upsert: Option<Upsert>,
    /// Rows whose time is older than this many nanoseconds are dropped by the store, soon after they are stored.
    oldest: Option<Retention>,
}

/// What writes rows within one transaction.
pub(super) enum Prepared<'a> {
    Copy(Statement),
    Upsert(&'a Upsert),
}

#[derive(Debug)]
pub(super) struct Upsert {
    sql: String,
    on_conflict: OnConflict,
    /// The columns of the key, by their numbers.
    key: Vec<usize>,
    /// Counts the rows whose key is in the table: what is left out has to be one of them.
    there: Option<String>,
}

#[derive(Debug, Clone)]
struct Retention {
    column: usize,
    keep: std::time::Duration,
}

impl Inserter {
    pub(super) fn new(target: Target, table: &SinkTable) -> Self {
        let names: Vec<&str> = target.columns.iter().map(|column| &*column.name).collect();
        let copy = format!("COPY {} ({}) FROM STDIN BINARY", target.name, names.join(", "));
        let upsert = Upsert::of(&target, table);
        Self { target, copy, upsert, oldest: None }
    }

    /// Refuses rows that the store would drop at once.
    pub(super) fn keeping(mut self, table: &SinkTable, keep: std::time::Duration) -> Self {
        let schema = table.table.schema();
        let column = schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(&table.time_column));
        self.oldest = column.map(|column| Retention { column, keep });
        self
    }

    /// Says why the table does not take a row.
    pub(super) fn refusal(&self, error: tokio_postgres::Error, table: &SinkTable) -> Error {
        let text = if table.on_conflict == OnConflict::Refuse && is_equal(&error) {
            format!("a row with the same key is there: {}", table.key.join(", "))
        } else {
            "the table does not take it".to_owned()
        };
        // Its detail quotes values of the row, which the dead letter holds anyway; its context would quote the whole row.
        let said = error.as_db_error().map(|said| match said.detail() {
            Some(detail) => format!("{} ({}; {detail})", said.message(), said.code().code()),
            None => format!("{} ({})", said.message(), said.code().code()),
        });
        Error::malformed(text).because(said.unwrap_or_else(|| error.to_string()))
    }

    /// Prepares what writes rows, anew for each transaction, and to be dropped before it ends: behind a PgBouncer the next one
    /// may have another connection.
    pub(super) async fn prepare(&self, link: &Link) -> Result<Prepared<'_>, tokio_postgres::Error> {
        match &self.upsert {
            None => link.client().prepare(&self.copy).await.map(Prepared::Copy),
            Some(upsert) => Ok(Prepared::Upsert(upsert)),
        }
    }

    /// Writes rows; returns how many of them the table holds now, itself or another of their key.
    pub(super) async fn insert(
        &self,
        link: &Link,
        prepared: Prepared<'_>,
        rows: &Rows<'_>,
        range: Range<usize>,
    ) -> Result<u64, tokio_postgres::Error> {
        match prepared {
            Prepared::Copy(statement) => self.copy(link, statement, rows, range).await,
            Prepared::Upsert(upsert) => self.upsert(link, upsert, rows, range).await,
        }
    }

    async fn copy(
        &self,
        link: &Link,
        statement: Statement,
        rows: &Rows<'_>,
        range: Range<usize>,
    ) -> Result<u64, tokio_postgres::Error> {
        let sink: CopyInSink<Cursor<Vec<u8>>> = link.client().copy_in(&statement).await?;
        let mut sink = pin!(sink);
        let mut buffer = Vec::with_capacity(SEND + SPARE);
        buffer.extend_from_slice(SIGNATURE);
        let count = (self.target.columns.len() as i16).to_be_bytes();
        for row in range {
            buffer.extend_from_slice(&count);
            for (view, column) in rows.columns().iter().zip(&self.target.columns) {
                write_field(view, column.form, row, &mut buffer);
            }
            if buffer.len() >= SEND {
                let full = std::mem::replace(&mut buffer, Vec::with_capacity(SEND + SPARE));
                sink.send(Cursor::new(full)).await?;
            }
        }
        buffer.extend_from_slice(&(-1_i16).to_be_bytes());
        sink.send(Cursor::new(buffer)).await?;
        sink.finish().await
    }

    async fn upsert(
        &self,
        link: &Link,
        upsert: &Upsert,
        rows: &Rows<'_>,
        range: Range<usize>,
    ) -> Result<u64, tokio_postgres::Error> {
        let total = range.len() as u64;
        // A statement changes no row twice: of rows with one key the last one is what is left.
        let last = match upsert.on_conflict {
            OnConflict::Replace => upsert.last_of_each(rows, range.clone(), &self.target.columns),
            OnConflict::Append | OnConflict::Ignore | OnConflict::Refuse => range.clone().collect(),
        };
        let left_out = total - last.len() as u64;
        let mut written = 0;
        // Keys that only the server takes for equal, by its collation say, are found by halves.
        let mut parts: Vec<&[usize]> = Vec::from([&*last]);
        while let Some(part) = parts.pop() {
            let may_split = part.len() > 1 && upsert.on_conflict == OnConflict::Replace;
            let mark = async { if may_split { link.run("SAVEPOINT tidegate_part").await } else { Ok(()) } };
            // Both go out at once: the server works on them in this order.
            let (marked, upserted) = tokio::join!(biased; mark, self.upsert_rows(link, upsert, rows, part));
            marked?;
            match upserted {
                Ok(count) => written += count,
                Err(error) if may_split && is_twice_in_a_statement(&error) => {
                    link.run("ROLLBACK TO tidegate_part").await?;
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.push(right);
                    parts.push(left);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(written + left_out)
    }

    async fn upsert_rows(
        &self,
        link: &Link,
        upsert: &Upsert,
        rows: &Rows<'_>,
        part: &[usize],
    ) -> Result<u64, tokio_postgres::Error> {
        let arrays: Vec<Elements> = rows
            .columns()
            .iter()
            .zip(&self.target.columns)
            .map(|(view, column)| Elements::of(view, column, part))
            .collect();
        let with: Vec<(&(dyn ToSql + Sync), Type)> = arrays
            .iter()
            .zip(&self.target.columns)
            .map(|(elements, column)| (elements as _, column.parameter.0.clone()))
            .collect();
        let written = link.client().execute_typed(&upsert.sql, &with).await?;
        let Some(there) = upsert.there.as_ref().filter(|_| written < part.len() as u64) else { return Ok(written) };
        // Left out for its key, or thrown away by a trigger, or by a compressed chunk of an older TimescaleDB?
        let answer = link.rows(there, &with).await?;
        let there: i64 = answer.first().map_or(Ok(0), |row| row.try_get(0))?;
        let keyless = part.iter().filter(|row| upsert.key.iter().any(|&n| rows.columns()[n].is_null(**row))).count();
        Ok(there.unsigned_abs() + keyless as u64)
    }

    /// Returns why a value of the row cannot be stored as it is, if one cannot.
    pub(super) fn unfit(&self, rows: &Rows<'_>, row: usize) -> Option<String> {
        let columns = rows.columns().iter().zip(&self.target.columns);
        columns.clone().find_map(|(view, column)| unfit(view, column, row)).or_else(|| self.too_old(rows, row))
    }

    /// Returns why a row of the range cannot be stored as it is, if one cannot.
    pub(super) fn unfit_in(&self, rows: &Rows<'_>, mut range: Range<usize>) -> Option<String> {
        range.find_map(|row| self.unfit(rows, row))
    }

    /// Returns whether rows have to be looked at one by one before they are stored.
    pub(super) fn may_be_unfit(&self, rows: &Rows<'_>) -> bool {
        rows.columns().iter().zip(&self.target.columns).any(|(view, column)| may_be_unfit(view, column, rows.count()))
            || self.oldest.is_some() && (0..rows.count()).any(|row| self.too_old(rows, row).is_some())
    }

    fn too_old(&self, rows: &Rows<'_>, row: usize) -> Option<String> {
        let Retention { column, keep } = self.oldest.as_ref()?;
        let ColumnView::Time(times) = rows.columns()[*column] else { return None };
        let oldest = tidegate_core::row::Timestamp::now().0.saturating_sub_unsigned(keep.as_nanos() as u64);
        let name = &self.target.columns[*column].name;
        (times.is_valid(row) && times.value(row) < oldest).then(|| {
            format!("column {name} is older than the table keeps rows: {}", tidegate_core::config::Duration(*keep))
        })
    }
}

impl Upsert {
    fn of(target: &Target, table: &SinkTable) -> Option<Self> {
        let key = key_columns(table);
        let names: Vec<&str> = target.columns.iter().map(|column| &*column.name).collect();
        let action = match table.on_conflict {
            OnConflict::Append | OnConflict::Refuse => return None,
            OnConflict::Ignore => "NOTHING".to_owned(),
            OnConflict::Replace => {
                let set: Vec<String> = names.iter().map(|column| format!("{column} = excluded.{column}")).collect();
                format!("UPDATE SET {}", set.join(", "))
            }
        };
        let select: Vec<String> =
            target.columns.iter().map(|column| format!("u.{}{}", column.name, column.parameter.1)).collect();
        let sql = format!(
            "INSERT INTO {} ({names}) SELECT {} FROM unnest({}) AS u({names}) ON CONFLICT ({}) DO {action}",
            target.name,
            select.join(", "),
            parameters(&target.columns),
            key.join(", "),
            names = names.join(", "),
        );
        let same: Vec<String> = key.iter().map(|column| format!("t.{column} = u.{column}")).collect();
        let there = (table.on_conflict == OnConflict::Ignore).then(|| {
            format!(
                "SELECT count(*) FROM unnest({}) AS u({}) WHERE EXISTS (SELECT 1 FROM {} AS t WHERE {})",
                parameters(&target.columns),
                names.join(", "),
                target.name,
                same.join(" AND ")
            )
        });
        let key = key.iter().filter_map(|name| target.columns.iter().position(|column| column.name == *name)).collect();
        Some(Self { sql, on_conflict: table.on_conflict, key, there })
    }

    /// Returns the rows of a range without those that a later one of the same key replaces. One that lacks a column of the key
    /// has none.
    fn last_of_each(&self, rows: &Rows<'_>, range: Range<usize>, columns: &[TargetColumn]) -> Vec<usize> {
        let mut seen: HashSet<Vec<u8>> = HashSet::with_capacity(range.len());
        let mut left: Vec<usize> = Vec::with_capacity(range.len());
        for row in range.rev() {
            let mut key = Vec::with_capacity(32);
            let mut is_whole = true;
            for &n in &self.key {
                is_whole &= !rows.columns()[n].is_null(row);
                write_field(&rows.columns()[n], columns[n].form, row, &mut key);
            }
            if !is_whole || seen.insert(key) {
                left.push(row);
            }
        }
        left.reverse();
        left
    }
}

fn parameters(columns: &[TargetColumn]) -> String {
    let all: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, column)| format!("${}::{}", n + 1, column.parameter.0.name().replace('_', "") + "[]"))
        .collect();
    all.join(", ")
}

/// The values of one column, as a parameter.
#[derive(Debug)]
struct Elements(Vec<u8>);

impl Elements {
    fn of(view: &ColumnView<'_>, column: &TargetColumn, rows: &[usize]) -> Self {
        let mut bytes = Vec::with_capacity(rows.len() * 12 + 20);
        let tokio_postgres::types::Kind::Array(element) = column.parameter.0.kind() else {
            unreachable!("parameters are arrays")
        };
        let element = element.oid();
        write_array_head(rows.len(), element, &mut bytes);
        rows.iter().for_each(|row| write_element(view, column.form, *row, &mut bytes));
        Self(bytes)
    }
}

impl ToSql for Elements {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}

fn unfit(view: &ColumnView<'_>, column: &TargetColumn, row: usize) -> Option<String> {
    let TargetColumn { name, form, declared, not_null, .. } = column;
    if view.is_null(row) {
        return not_null.then(|| format!("column {name} takes no NULL"));
    }
    let too_large = |number: i128| {
        (!whole_fits(number, *form)).then(|| format!("column {name} is `{declared}`, too small for {number}"))
    };
    match view {
        ColumnView::I64(values) => too_large(i128::from(values.value(row))),
        ColumnView::U64(values) => too_large(i128::from(values.value(row))),
        ColumnView::F64(values) => number_unfit(values.value(row), *form)
            .then(|| format!("column {name} is `{declared}`, and would change {}", values.value(row))),
        ColumnView::Text(values) => text_unfit(values.value(row), *form, name),
        ColumnView::Label(keys, texts) => text_unfit(texts.value(keys.value(row) as usize), *form, name),
        ColumnView::Bool(_) | ColumnView::Time(_) | ColumnView::Levels(_) | ColumnView::ListI64(_) => None,
    }
}

/// Looks at a column as a whole, fast where nothing can be wrong.
fn may_be_unfit(view: &ColumnView<'_>, column: &TargetColumn, rows: usize) -> bool {
    let is_tried = match view {
        ColumnView::I64(_) => column.form != Form::Int8,
        ColumnView::U64(values) => match column.form {
            Form::Int8 => values.values().iter().any(|value| *value > i64::MAX as u64),
            Form::Numeric(None) => false,
            Form::Numeric(Some((before, _))) => before < 20,
            Form::Int2 | Form::Int4 => true,
            // Nothing else was found to fit.
            Form::Bool
            | Form::Float4
            | Form::Float8
            | Form::RoundedNumeric(_)
            | Form::Timestamp
            | Form::Text(_)
            | Form::Json
            | Form::Jsonb
            | Form::Floats
            | Form::Integers => false,
        },
        ColumnView::F64(_) => !matches!(column.form, Form::Float8 | Form::Numeric(None)),
        ColumnView::Text(values) => column.form != Form::Text(None) || values.value_data().contains(&0),
        ColumnView::Label(_, texts) => (0..texts.len()).any(|n| text_unfit(texts.value(n), column.form, "").is_some()),
        ColumnView::Bool(_) | ColumnView::Time(_) | ColumnView::Levels(_) | ColumnView::ListI64(_) => false,
    };
    (is_tried || column.not_null) && (0..rows).any(|row| unfit(view, column, row).is_some())
}

#[allow(clippy::wildcard_enum_match_arm, reason = "only integers have limits here")]
fn whole_fits(number: i128, form: Form) -> bool {
    match form {
        Form::Int2 => i16::try_from(number).is_ok(),
        Form::Int4 => i32::try_from(number).is_ok(),
        Form::Int8 => i64::try_from(number).is_ok(),
        Form::Numeric(Some(limits)) => decimal_fits(&Decimal::whole(number), limits),
        _ => true,
    }
}

/// Returns whether a column would change a number, or cannot hold it.
#[allow(clippy::wildcard_enum_match_arm, reason = "only numbers have limits here")]
fn number_unfit(number: f64, form: Form) -> bool {
    match form {
        Form::Float4 => number.is_finite() && (number as f32).is_infinite(),
        Form::Numeric(Some(limits)) => !decimal_fits(&Decimal::of(number), limits),
        Form::RoundedNumeric(Some((before, _))) => !decimal_fits(&Decimal::of(number), (before, i32::MAX)),
        _ => false,
    }
}

fn decimal_fits(decimal: &Decimal, (before, behind): (i32, i32)) -> bool {
    match decimal.extent() {
        Some((whole, fraction)) => whole <= before && fraction <= behind,
        // A `numeric` with a limit holds no infinity.
        None => *decimal == Decimal::NaN,
    }
}

fn text_unfit(text: &str, form: Form, name: &str) -> Option<String> {
    if text.as_bytes().contains(&0) {
        return Some(format!("column {name} cannot hold a NUL in a text"));
    }
    let Form::Text(Some(most)) = form else { return None };
    let count = text.chars().count();
    (count > most).then(|| format!("column {name} holds {most} characters, too few for {count}"))
}

/// What is sent at once. One message of 4 MB is slower than these: 1.54 against 2.87 M rows/s, measured.
const SEND: usize = 64 << 10;
const SPARE: usize = 4 << 10;
/// Signature, flags, length of the extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
