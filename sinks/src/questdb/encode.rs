//! Rows → the line protocol, and why a row has no line.

use std::ops::Range;

use arrow_array::{ListArray, RecordBatch, cast::AsArray, types::Float64Type};
use questdb::ingress::{Buffer, ColumnName, NdArrayView, ProtocolVersion, TableName, TimestampNanos};
use tidegate_core::{
    Error, Result,
    chunk::{ColumnView, TableRows, write_value},
    row::Timestamp,
    spool::Cause,
};

use super::schema::{Field, Form, TG_COLUMNS};

/// Writes the rows of one table.
#[derive(Debug)]
pub(super) struct Encoder {
    /// The table's name in QuestDB.
    pub(super) name: String,
    /// Symbols first, as the protocol has it.
    fields: Vec<Field>,
    /// The number of the designated timestamp's column.
    time: usize,
    time_name: String,
    has_tg: bool,
    /// How long the table keeps rows, in nanoseconds.
    ttl: Option<i64>,
}

/// The columns of one batch.
pub(super) struct Columns<'a> {
    views: Vec<ColumnView<'a>>,
    causes: &'a [Cause],
}

/// Prices, then sizes.
struct Levels(Vec<f64>);

impl Encoder {
    pub(super) fn new(name: &str, mut fields: Vec<Field>, time: (usize, &str), has_tg: bool, ttl: Option<i64>) -> Self {
        fields.sort_by_key(|field| (field.form != Form::Symbol, field.column));
        let (time, time_name) = (time.0, time.1.to_owned());
        Self { name: name.to_owned(), fields, time, time_name, has_tg, ttl }
    }

    /// Returns the columns that values are sent to, without the designated timestamp.
    pub(super) fn sent(&self) -> impl Iterator<Item = &str> {
        let tg = TG_COLUMNS.iter().filter(|_| self.has_tg);
        self.fields.iter().map(|field| field.name.as_str()).chain(tg.copied())
    }

    /// Returns whether the table drops rows by their age.
    pub(super) fn has_ttl(&self) -> bool {
        self.ttl.is_some()
    }

    /// Returns the newest designated timestamp.
    pub(super) fn latest(&self, columns: &Columns<'_>) -> Option<i64> {
        let ColumnView::Time(times) = columns.views[self.time] else { unreachable!("a time column holds times") };
        times.iter().flatten().max()
    }

    pub(super) fn columns<'a>(&self, part: &'a TableRows) -> Columns<'a> {
        Columns { views: views(&part.rows), causes: &part.causes }
    }

    /// Appends lines for the rows of a range until they have this many bytes, at least one, and returns the first row without.
    ///
    /// # Errors
    ///
    /// `Permanent`, for what is a fault of the program: every row was looked at before.
    pub(super) fn encode(
        &self,
        columns: &Columns<'_>,
        range: Range<usize>,
        bytes: u64,
        buffer: &mut Buffer,
    ) -> Result<usize> {
        for row in range.clone() {
            if row > range.start && buffer.len() as u64 >= bytes {
                return Ok(row);
            }
            self.line(columns, row, buffer).map_err(|error| {
                Error::permanent(format!("a row of table `{}` has no line: {}", self.name, error.msg()))
            })?;
        }
        Ok(range.end)
    }

    fn line(&self, columns: &Columns<'_>, row: usize, buffer: &mut Buffer) -> questdb::Result<()> {
        buffer.table(TableName::new_unchecked(&self.name))?;
        for field in &self.fields {
            let view = &columns.views[field.column];
            if !view.is_null(row) {
                put(field, view, row, buffer)?;
            }
        }
        if self.has_tg {
            let Cause { boot, offset, sub } = columns.causes[row];
            buffer.column_i64(ColumnName::new_unchecked("tg_boot"), boot.0.cast_signed())?;
            buffer.column_i64(ColumnName::new_unchecked("tg_pos"), offset.cast_signed())?;
            buffer.column_i64(ColumnName::new_unchecked("tg_sub"), i64::from(sub))?;
        }
        let ColumnView::Time(time) = columns.views[self.time] else { unreachable!("a time column holds times") };
        buffer.at(TimestampNanos::new(time.value(row)))
    }

    /// Returns the rows that the table never takes, with the reason. `latest` is the newest time that the table has.
    pub(super) fn unfit(&self, columns: &Columns<'_>, latest: Option<i64>, now: Timestamp) -> Vec<(usize, String)> {
        let suspects: Vec<_> =
            self.fields.iter().filter(|field| may_be_unfit(field.form, &columns.views[field.column])).collect();
        let ColumnView::Time(times) = columns.views[self.time] else { unreachable!("a time column holds times") };
        let mut unfit = Vec::new();
        let mut newest = latest;
        for (row, time) in times.iter().enumerate() {
            // QuestDB measures age by the newest row, and by its clock where that row lies ahead of it.
            let oldest = self.ttl.zip(newest).map(|(ttl, newest)| newest.min(now.0).saturating_sub(ttl));
            let why = self.unfit_time(time, oldest).or_else(|| {
                let views = suspects.iter().map(|field| (field, &columns.views[field.column]));
                views.filter(|(_, view)| !view.is_null(row)).find_map(|(field, view)| {
                    Some(format!("column `{}` {}", field.name, unfit_value(field.form, view, row)?))
                })
            });
            match why {
                Some(why) => unfit.push((row, why)),
                None => newest = newest.max(time),
            }
        }
        unfit
    }

    fn unfit_time(&self, time: Option<i64>, oldest: Option<i64>) -> Option<String> {
        let name = &self.time_name;
        match time {
            None => Some(format!("column `{name}` has to have a time: it is the designated timestamp")),
            Some(time) if time < 0 => Some(format!("column `{name}` cannot hold a time before 1970")),
            Some(time) if time > LAST_TIME => Some(format!("column `{name}` cannot hold a time behind 2261-12-31")),
            Some(time) if oldest.is_some_and(|oldest| time < oldest) => {
                Some(format!("the table keeps rows for a time that is over for this one: its TTL, by column `{name}`"))
            }
            Some(_) => None,
        }
    }
}

/// Returns an empty buffer. The third version of the protocol is the second one, with decimals.
pub(super) fn buffer() -> Buffer {
    Buffer::new(ProtocolVersion::V3)
}

fn put(field: &Field, view: &ColumnView<'_>, row: usize, buffer: &mut Buffer) -> questdb::Result<()> {
    let name = ColumnName::new_unchecked(&field.name);
    match (field.form, view) {
        (Form::Symbol, ColumnView::Label(keys, texts)) => {
            buffer.symbol(name, texts.value(keys.value(row) as usize))?;
        }
        (Form::Symbol, ColumnView::Text(column)) => _ = buffer.symbol(name, column.value(row))?,
        (Form::Symbol, ColumnView::Bool(column)) => {
            buffer.symbol(name, if column.value(row) { "true" } else { "false" })?;
        }
        (Form::Text, ColumnView::Text(column)) => _ = buffer.column_str(name, column.value(row))?,
        (Form::Text, ColumnView::Label(keys, texts)) => {
            buffer.column_str(name, texts.value(keys.value(row) as usize))?;
        }
        (Form::Bool, ColumnView::Bool(column)) => _ = buffer.column_bool(name, column.value(row))?,
        (Form::Long, ColumnView::I64(column)) => _ = buffer.column_i64(name, column.value(row))?,
        // Looked at before: none is beyond 2^63 − 1.
        (Form::Long, ColumnView::U64(column)) => _ = buffer.column_i64(name, column.value(row).cast_signed())?,
        (Form::Decimal, ColumnView::U64(column)) => {
            buffer.column_dec(name, column.value(row).to_string().as_str())?;
        }
        (Form::Double, ColumnView::F64(column)) => _ = buffer.column_f64(name, column.value(row))?,
        (Form::Time, ColumnView::Time(column)) => {
            buffer.column_ts(name, TimestampNanos::new(column.value(row)))?;
        }
        (Form::Array, ColumnView::Levels(column)) => _ = buffer.column_arr(name, &Levels::of(column, row))?,
        (_, view) => {
            let mut json = Vec::new();
            write_value(view, row, &mut json);
            buffer.column_str(name, String::from_utf8_lossy(&json))?;
        }
    }
    Ok(())
}

/// Returns whether values of a column have to be looked at one by one.
fn may_be_unfit(form: Form, view: &ColumnView<'_>) -> bool {
    match (form, view) {
        (Form::Double, ColumnView::F64(column)) => column.values().iter().any(|value| !value.is_finite()),
        (Form::Long, ColumnView::I64(column)) => column.values().contains(&i64::MIN),
        (Form::Time, ColumnView::Time(column)) => column.values().contains(&i64::MIN),
        (Form::Long, ColumnView::U64(column)) => column.values().iter().any(|value| i64::try_from(*value).is_err()),
        (Form::Symbol, ColumnView::Label(_, texts)) => texts.value_data().contains(&0),
        (Form::Symbol, ColumnView::Text(texts)) => texts.value_data().contains(&0),
        (Form::Array, ColumnView::Levels(column)) => {
            let levels = column.values().as_struct();
            levels.columns().iter().any(|n| n.as_primitive::<Float64Type>().values().iter().any(|v| !v.is_finite()))
        }
        (_, _) => false,
    }
}

/// Returns what the column would make of a value, if that is another one.
fn unfit_value(form: Form, view: &ColumnView<'_>, row: usize) -> Option<String> {
    match (form, view) {
        (Form::Double, ColumnView::F64(column)) => {
            let value = column.value(row);
            (!value.is_finite()).then(|| format!("would turn {value} into NULL"))
        }
        (Form::Long, ColumnView::I64(column)) => {
            (column.value(row) == i64::MIN).then(|| format!("would turn {} into NULL", i64::MIN))
        }
        (Form::Time, ColumnView::Time(column)) => {
            (column.value(row) == i64::MIN).then(|| "would turn its smallest time into NULL".to_owned())
        }
        (Form::Long, ColumnView::U64(column)) => {
            let value = column.value(row);
            i64::try_from(value).is_err().then(|| format!("is too small for {value}: `unsigned = \"decimal\"`"))
        }
        (Form::Symbol, ColumnView::Label(keys, texts)) => {
            texts.value(keys.value(row) as usize).contains('\0').then(|| "takes no NUL".to_owned())
        }
        (Form::Symbol, ColumnView::Text(texts)) => texts.value(row).contains('\0').then(|| "takes no NUL".to_owned()),
        (Form::Array, ColumnView::Levels(column)) => {
            let is_unfit = Levels::of(column, row).0.iter().any(|number| !number.is_finite());
            is_unfit.then(|| "holds levels of numbers only, no NaN and no infinity".to_owned())
        }
        (_, _) => None,
    }
}

fn views(batch: &RecordBatch) -> Vec<ColumnView<'_>> {
    batch.columns().iter().map(ColumnView::of).collect()
}

impl Levels {
    fn of(column: &ListArray, row: usize) -> Self {
        let levels = column.value(row);
        let levels = levels.as_struct();
        let numbers = |n: usize| levels.column(n).as_primitive::<Float64Type>().values().to_vec();
        Self([numbers(0), numbers(1)].concat())
    }
}

impl NdArrayView<f64> for Levels {
    type Iter<'a> = std::slice::Iter<'a, f64>;

    fn ndim(&self) -> usize {
        2
    }

    fn dim(&self, index: usize) -> questdb::Result<usize> {
        Ok(if index == 0 { 2 } else { self.0.len() / 2 })
    }

    fn as_slice(&self) -> Option<&[f64]> {
        Some(&self.0)
    }

    fn iter(&self) -> Self::Iter<'_> {
        self.0.iter()
    }
}

/// The last designated timestamp that QuestDB takes, in nanoseconds: `designated timestamp overflow` behind it.
const LAST_TIME: i64 = 9_214_646_399_999_999_999;
