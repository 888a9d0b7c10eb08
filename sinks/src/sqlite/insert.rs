//! Rows → multi-row INSERT statements.

use std::{ops::Range, sync::Arc};

use arrow_array::{Array, RecordBatch};
use sqlx::Arguments as _;
use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteArguments};
use tidegate_core::{
    Error,
    chunk::{ColumnView, SinkTable, integers, levels, write_number},
    config::OnConflict,
};

use super::{
    error::is_equal_in_a_key,
    schema::{Target, quoted},
};

/// The statements of one table.
#[derive(Debug)]
pub(super) struct Inserter {
    target: Target,
    prefix: String,
    /// The placeholders of one row.
    row: String,
    /// What becomes of a row whose key is there.
    suffix: String,
    key: Key,
    /// How many rows the largest statement holds.
    most: usize,
    /// Statements by the number of their rows.
    statements: Vec<(usize, Arc<str>)>,
}

/// Which rows are one thing.
#[derive(Debug)]
struct Key {
    columns: Vec<String>,
    on_conflict: OnConflict,
}

/// The columns of one batch, ready to be bound.
pub(super) struct Rows<'a>(Vec<Values<'a>>);

enum Values<'a> {
    /// With the different texts, which are bound without a copy.
    Label(ColumnView<'a>, Vec<Arc<str>>),
    Other(ColumnView<'a>),
}

impl Inserter {
    pub(super) fn new(target: Target, table: &SinkTable) -> Self {
        let columns = target.columns.join(", ");
        // Spelt out, since a table of the user's may say what to do about a conflict, and could drop rows silently.
        let prefix = format!("INSERT OR ABORT INTO {} ({columns}) VALUES ", target.name);
        let row = format!("({})", vec!["?"; target.columns.len()].join(","));
        let most = (MOST_BINDS / target.columns.len()).clamp(1, MOST_ROWS);
        let key = Key { columns: table.key.clone(), on_conflict: table.on_conflict };
        let suffix = key.clause(&target.columns);
        Self { target, prefix, row, suffix, key, most, statements: Vec::new() }
    }

    /// Returns whether rows may be left out without a word, since others with their keys are there.
    pub(super) fn leaves_out(&self) -> bool {
        self.key.on_conflict == OnConflict::Ignore
    }

    /// Says why the table does not take a row.
    pub(super) fn refusal(&self, error: sqlx::Error) -> Error {
        let Key { columns, on_conflict } = &self.key;
        let text = if *on_conflict == OnConflict::Refuse && is_equal_in_a_key(&error, columns) {
            format!("a row with the same key is there: {}", columns.join(", "))
        } else {
            "the table does not take it".to_owned()
        };
        Error::malformed(text).because(error)
    }

    /// Inserts rows; returns how many SQLite says it has inserted.
    pub(super) async fn insert(
        &mut self,
        connection: &mut SqliteConnection,
        rows: &Rows<'_>,
        mut range: Range<usize>,
    ) -> sqlx::Result<u64> {
        let mut inserted = 0;
        let mut next = self.bind(rows, range.clone())?;
        while let Some((count, arguments)) = next {
            range.start += count;
            let statement = self.statement(count);
            let execute = sqlx::query_with(AssertSqlSafe(statement), arguments).execute(&mut *connection);
            // SQLite works on a thread of its own: the values of the next statement are bound meanwhile.
            let (done, bound) = tokio::join!(biased; execute, async { self.bind(rows, range.clone()) });
            inserted += done?.rows_affected();
            next = bound?;
        }
        Ok(inserted)
    }

    /// Binds the values of the first rows of a range, as many as one statement takes.
    fn bind(&self, rows: &Rows<'_>, range: Range<usize>) -> sqlx::Result<Option<(usize, SqliteArguments)>> {
        if range.is_empty() {
            return Ok(None);
        }
        // Few different statements, so that all stay prepared: the largest, and powers of two for the rest.
        let count = if range.len() >= self.most { self.most } else { 1 << range.len().ilog2() };
        let mut arguments = SqliteArguments::default();
        arguments.reserve(count * self.target.columns.len(), 0);
        for row in range.start..range.start + count {
            rows.bind(row, &mut arguments).map_err(sqlx::Error::Encode)?;
        }
        Ok(Some((count, arguments)))
    }

    /// Returns why a value of the row cannot be stored as it is, if one cannot.
    fn unfit(&self, rows: &Rows<'_>, row: usize) -> Option<String> {
        rows.0.iter().zip(&self.target.columns).zip(&self.target.is_wide).find_map(|((values, name), is_wide)| {
            match values {
                Values::Other(ColumnView::F64(column)) if column.is_valid(row) && column.value(row).is_nan() => {
                    Some(format!("column {name} would turn NaN into NULL"))
                }
                Values::Other(ColumnView::U64(column)) if !is_wide && column.is_valid(row) => {
                    let value = column.value(row);
                    i64::try_from(value).is_err().then(|| format!("column {name} is too small for {value}"))
                }
                Values::Other(_) | Values::Label(..) => None,
            }
        })
    }

    /// Returns why a row of the range cannot be stored as it is, if one cannot.
    pub(super) fn unfit_in(&self, rows: &Rows<'_>, mut range: Range<usize>) -> Option<String> {
        range.find_map(|row| self.unfit(rows, row))
    }

    /// Returns whether rows have to be looked at one by one before they are stored.
    pub(super) fn may_be_unfit(&self, rows: &Rows<'_>) -> bool {
        rows.0.iter().zip(&self.target.is_wide).any(|(values, is_wide)| match values {
            Values::Other(ColumnView::F64(column)) => column.values().iter().any(|value| value.is_nan()),
            Values::Other(ColumnView::U64(column)) => {
                !is_wide && column.values().iter().any(|value| i64::try_from(*value).is_err())
            }
            Values::Other(_) | Values::Label(..) => false,
        })
    }

    fn statement(&mut self, rows: usize) -> Arc<str> {
        if let Some((_, statement)) = self.statements.iter().find(|(count, _)| *count == rows) {
            return statement.clone();
        }
        let length = self.prefix.len() + rows * (self.row.len() + 1) + self.suffix.len();
        let mut statement = String::with_capacity(length);
        statement.push_str(&self.prefix);
        for row in 0..rows {
            if row > 0 {
                statement.push(',');
            }
            statement.push_str(&self.row);
        }
        statement.push_str(&self.suffix);
        let statement: Arc<str> = statement.into();
        self.statements.push((rows, statement.clone()));
        statement
    }
}

impl Key {
    /// Returns what stands behind the values, where the quoted `columns` are those of the table.
    fn clause(&self, columns: &[String]) -> String {
        let key: Vec<String> = self.columns.iter().map(|column| quoted(column)).collect();
        let target = key.join(", ");
        match self.on_conflict {
            OnConflict::Append | OnConflict::Refuse => String::new(),
            OnConflict::Ignore => format!(" ON CONFLICT ({target}) DO NOTHING"),
            OnConflict::Replace => {
                let set: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
                format!(" ON CONFLICT ({target}) DO UPDATE SET {}", set.join(", "))
            }
        }
    }
}

impl<'a> Rows<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Self {
        let columns = batch.columns().iter().map(|column| {
            let view = ColumnView::of(column);
            let ColumnView::Label(_, texts) = view else { return Values::Other(view) };
            Values::Label(view, (0..texts.len()).map(|n| Arc::from(texts.value(n))).collect())
        });
        Self(columns.collect())
    }

    fn bind(&self, row: usize, arguments: &mut SqliteArguments) -> Result<(), sqlx::error::BoxDynError> {
        for values in &self.0 {
            values.bind(row, arguments)?;
        }
        Ok(())
    }
}

impl Values<'_> {
    fn bind(&self, row: usize, arguments: &mut SqliteArguments) -> Result<(), sqlx::error::BoxDynError> {
        let view = match self {
            Self::Label(view, _) | Self::Other(view) => view,
        };
        if view.is_null(row) {
            return arguments.add(None::<i64>);
        }
        match (self, view) {
            (Self::Label(_, texts), ColumnView::Label(keys, _)) => {
                arguments.add(texts[keys.value(row) as usize].clone())
            }
            (_, ColumnView::Bool(column)) => arguments.add(i64::from(column.value(row))),
            (_, ColumnView::I64(column)) => arguments.add(column.value(row)),
            (_, ColumnView::U64(column)) => match i64::try_from(column.value(row)) {
                Ok(value) => arguments.add(value),
                Err(_) => arguments.add(column.value(row).to_string()),
            },
            (_, ColumnView::F64(column)) => arguments.add(column.value(row)),
            (_, ColumnView::Time(column)) => arguments.add(column.value(row)),
            (_, ColumnView::Text(column)) => arguments.add(Arc::<str>::from(column.value(row))),
            (_, ColumnView::Label(keys, texts)) => {
                arguments.add(Arc::<str>::from(texts.value(keys.value(row) as usize)))
            }
            (_, ColumnView::Levels(column)) => {
                let mut text = vec![b'['];
                for level in levels(column, row) {
                    text.extend_from_slice(if text.len() > 1 { b",[" } else { b"[" });
                    write_number(level.price, &mut text);
                    text.push(b',');
                    write_number(level.size, &mut text);
                    text.push(b']');
                }
                text.push(b']');
                arguments.add(String::from_utf8(text)?)
            }
            (_, ColumnView::ListI64(column)) => arguments.add(serde_json::to_string(&integers(column, row))?),
        }
    }
}

/// SQLite's limit of values in a statement.
const MOST_BINDS: usize = 32_766;

/// More rows in a statement make it no faster, and each statement stays prepared: about 80 bytes for each of its values.
const MOST_ROWS: usize = 128;
