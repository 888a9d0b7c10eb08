//! Tables and columns in SQLite: what is missing is made, what is there is checked, and nothing is coerced silently.

use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use tidegate_core::{
    Error, Result,
    chunk::SinkTable,
    row::{Column, ColumnType},
};

/// What values a column of SQLite turns into others. Decided by its declared type, by SQLite's own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Affinity {
    Integer,
    Real,
    Text,
    Numeric,
    /// Keeps every value as it is.
    None,
}

/// A column that is there.
#[derive(Debug)]
struct Found {
    name: String,
    affinity: Affinity,
    /// Takes no NULL, and has no value of its own.
    must_be_given: bool,
}

/// A table that rows can be inserted into.
#[derive(Debug)]
pub(super) struct Target {
    /// The quoted name.
    pub(super) name: String,
    /// The quoted names of the columns, in the order of the chunk's.
    pub(super) columns: Vec<String>,
    /// Whether the column holds an unsigned integer beyond 2^63 − 1, as text.
    pub(super) is_wide: Vec<bool>,
}

/// Makes what is missing, or says what that would take.
#[derive(Debug)]
pub(super) struct Maker {
    create: bool,
    makes: bool,
    /// What has to be run by somebody who may.
    wanted: Vec<String>,
    /// Tables of somebody else's, which lack something that is not ours to make.
    foreign: Vec<String>,
    /// The tables that lost an index.
    pub(super) dropped: Vec<String>,
}

impl Maker {
    pub(super) fn new(create: bool) -> Self {
        Self { create, makes: create, wanted: Vec::new(), foreign: Vec::new(), dropped: Vec::new() }
    }

    /// One that makes nothing now, whether it may or not.
    pub(super) fn looking(create: bool) -> Self {
        Self { makes: false, ..Self::new(create) }
    }

    /// Runs a statement, or keeps it.
    pub(super) async fn make(&mut self, connection: &mut SqliteConnection, sql: String) -> sqlx::Result<()> {
        if self.makes {
            return execute(connection, sql).await;
        }
        if !self.create {
            self.wanted.push(sql);
        }
        Ok(())
    }

    /// Keeps a statement about a table that somebody else has made.
    pub(super) fn leave(&mut self, table: &str, sql: String) {
        self.foreign.push(table.to_owned());
        self.wanted.push(sql);
    }

    /// Returns what has to be run before this can go on, if anything has.
    pub(super) fn wants(&self) -> Option<Error> {
        let statements = self.wanted.join("; ");
        let why = match self.foreign.as_slice() {
            _ if self.wanted.is_empty() => return None,
            _ if !self.create => "`create` is off, and the file lacks something".to_owned(),
            foreign => {
                let tables = foreign.join("`, `");
                format!("somebody else has made the table `{tables}`, which lacks the unique index of its `key`")
            }
        };
        Some(Error::permanent(format!("{why}. To be run: {statements}")))
    }
}

/// Makes or checks a table. One that `was_there` and is gone was dropped, and is not made again silently.
///
/// # Errors
///
/// The inner one `Permanent`, naming table and column, when they do not fit; the outer one is SQLite's.
pub(super) async fn prepare(
    connection: &mut SqliteConnection,
    table: &SinkTable,
    was_there: bool,
    maker: &mut Maker,
) -> sqlx::Result<Result<Target>> {
    let wanted = columns(table);
    let found = match found(connection, &table.name).await? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    if found.is_empty() {
        if was_there {
            // One column will do where the others are added.
            let columns = if maker.create { &wanted[..1] } else { &wanted };
            return Ok(Err(vanished(&table.name, columns)));
        }
        maker.make(connection, create(&table.name, &wanted)).await?;
    } else {
        if let Some(error) = unfit(&table.name, &wanted, &found) {
            return Ok(Err(error));
        }
        let missing = wanted.iter().filter(|column| !found.iter().any(|f| f.name.eq_ignore_ascii_case(&column.name)));
        for column in missing {
            let (table, name, declared) = (quoted(&table.name), quoted(&column.name), declared(column.column_type));
            maker.make(connection, format!("ALTER TABLE {table} ADD COLUMN {name} {declared}")).await?;
        }
    }
    let found = match self::found(connection, &table.name).await? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(target(&table.name, &wanted, &found)))
}

/// Returns a name as SQLite reads it literally.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the columns of a table, by their numbers, that are there and give back what was written into them.
pub(super) async fn faithful(connection: &mut SqliteConnection, table: &SinkTable) -> sqlx::Result<Vec<usize>> {
    let found = found(connection, &table.name).await?.unwrap_or_default();
    let is_faithful = |column: &Column| {
        let there = found.iter().find(|there| there.name.eq_ignore_ascii_case(&column.name));
        there.is_some_and(|there| holds(there.affinity, column.column_type))
    };
    let columns = columns(table).into_iter().enumerate();
    Ok(columns.filter(|(_, column)| is_faithful(column)).map(|(at, _)| at).collect())
}

/// Returns the columns of a table: those that every table has, then its own.
pub(super) fn columns(table: &SinkTable) -> Vec<Column> {
    let schema = table.table.schema();
    let common = schema.fields().len() - table.table.columns.len();
    let mut columns: Vec<Column> = schema.fields()[..common]
        .iter()
        .map(|field| Column {
            name: field.name().as_str().into(),
            column_type: match field.name().as_str() {
                "ts_event" | "ts_recv" => ColumnType::Time,
                "seq" | "prev_seq" | "chain" => ColumnType::U64,
                _ => ColumnType::Label,
            },
            nullable: field.is_nullable(),
        })
        .collect();
    columns.extend(table.table.columns.iter().cloned());
    columns
}

/// Checks that a table can have this name.
pub(super) fn check_name(name: &str) -> Result<()> {
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || name.contains('\0') || lower.starts_with("sqlite_") || lower == "tidegate_position" {
        return Err(Error::config(format!("a table cannot be called `{name}` in SQLite")));
    }
    Ok(())
}

/// Returns whether there is a table of this name.
pub(super) async fn exists(connection: &mut SqliteConnection, table: &str) -> sqlx::Result<bool> {
    let count =
        "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND lower(name) = lower(?)";
    let count: i64 = sqlx::query_scalar(count).bind(table).fetch_one(connection).await?;
    Ok(count > 0)
}

async fn found(connection: &mut SqliteConnection, table: &str) -> sqlx::Result<Result<Vec<Found>>> {
    let kind =
        sqlx::query("SELECT type, strict FROM pragma_table_list WHERE schema = 'main' AND lower(name) = lower(?)")
            .bind(table)
            .fetch_optional(&mut *connection)
            .await?;
    let Some(kind) = kind else { return Ok(Ok(Vec::new())) };
    let (kind, is_strict): (String, bool) = (kind.try_get(0)?, kind.try_get(1)?);
    if kind != "table" {
        return Ok(Err(Error::permanent(format!("`{table}` is a {kind}, and rows need a table"))));
    }
    let rows = sqlx::query(
        "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk FROM pragma_table_xinfo(?) WHERE hidden = 0",
    )
    .bind(table)
    .fetch_all(connection)
    .await?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in rows {
        let declared: String = row.try_get(1)?;
        let (not_null, has_default, key): (bool, bool, i64) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        let is_row_id = key == 1 && declared.eq_ignore_ascii_case("INTEGER");
        columns.push(Found {
            name: row.try_get(0)?,
            affinity: affinity(&declared, is_strict),
            must_be_given: not_null && !has_default && !is_row_id,
        });
    }
    Ok(Ok(columns))
}

/// Returns why rows cannot be inserted into a table that is there.
fn unfit(table: &str, wanted: &[Column], found: &[Found]) -> Option<Error> {
    for there in found {
        let Some(column) = wanted.iter().find(|column| column.name.eq_ignore_ascii_case(&there.name)) else {
            if there.must_be_given {
                let name = &there.name;
                return Some(Error::permanent(format!(
                    "column `{name}` of table `{table}` takes no NULL and has no default, and no row has it"
                )));
            }
            continue;
        };
        if !holds(there.affinity, column.column_type) {
            let (name, declared) = (&there.name, declared(column.column_type));
            return Some(Error::permanent(format!(
                "column `{name}` of table `{table}` would change its values: it has to be `{declared}`"
            )));
        }
    }
    None
}

/// Returns whether every value of the type comes back as it was.
fn holds(affinity: Affinity, column_type: ColumnType) -> bool {
    match column_type {
        ColumnType::Bool | ColumnType::I64 | ColumnType::U64 | ColumnType::Time => {
            matches!(affinity, Affinity::Integer | Affinity::Numeric | Affinity::None)
        }
        ColumnType::F64 => matches!(affinity, Affinity::Real | Affinity::Numeric | Affinity::None),
        ColumnType::Text | ColumnType::Label | ColumnType::Levels | ColumnType::ListI64 => {
            matches!(affinity, Affinity::Text | Affinity::None)
        }
    }
}

/// See <https://www.sqlite.org/datatype3.html>, section 3.1.
fn affinity(declared: &str, is_strict: bool) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if is_strict && declared == "ANY" {
        Affinity::None
    } else if has("INT") {
        Affinity::Integer
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Affinity::Text
    } else if has("BLOB") || declared.is_empty() {
        // A strict column `BLOB` takes neither numbers nor texts: there SQLite refuses each row, and says so.
        Affinity::None
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Affinity::Real
    } else {
        Affinity::Numeric
    }
}

fn declared(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool | ColumnType::I64 | ColumnType::Time => "INTEGER",
        ColumnType::U64 => "ANY",
        ColumnType::F64 => "REAL",
        ColumnType::Text | ColumnType::Label | ColumnType::Levels | ColumnType::ListI64 => "TEXT",
    }
}

fn create(table: &str, columns: &[Column]) -> String {
    let columns: Vec<String> =
        columns.iter().map(|column| format!("{} {}", quoted(&column.name), declared(column.column_type))).collect();
    format!("CREATE TABLE {} ({}) STRICT", quoted(table), columns.join(", "))
}

fn target(table: &str, wanted: &[Column], found: &[Found]) -> Target {
    let is_wide = wanted
        .iter()
        .map(|column| found.iter().any(|f| f.name.eq_ignore_ascii_case(&column.name) && f.affinity == Affinity::None));
    Target {
        name: quoted(table),
        columns: wanted.iter().map(|column| quoted(&column.name)).collect(),
        is_wide: is_wide.collect(),
    }
}

fn vanished(table: &str, columns: &[Column]) -> Error {
    Error::permanent(format!(
        "table `{table}` is gone, and rows may have been stored in it, which are not sent again: bring it back from a \
         backup, or, if they are not missed, make it without rows: {}",
        create(table, columns)
    ))
}

/// Runs a statement that was put together here: every name in it is quoted.
async fn execute(connection: &mut SqliteConnection, sql: String) -> sqlx::Result<()> {
    sqlx::query(AssertSqlSafe(sql)).persistent(false).execute(connection).await.map(drop)
}
