//! Tables and columns in Postgres: what is missing is made, what is there is checked, and nothing is coerced silently.

use tidegate_core::{
    Error, Result,
    chunk::SinkTable,
    row::{Column, ColumnType},
};
use tokio_postgres::types::Type;

use super::{
    config::Settings,
    link::Link,
    types::{Fit, Form, Found, column_type, declared},
};

/// A table that rows can be written into.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The quoted name, with the schema.
    pub(super) name: String,
    pub(super) oid: u32,
    /// Whether a sink of this program has made it.
    pub(super) is_ours: bool,
    /// In the order of the chunk's.
    pub(super) columns: Vec<TargetColumn>,
}

/// A column of a [`Target`].
#[derive(Debug, Clone)]
pub(super) struct TargetColumn {
    /// The quoted name.
    pub(super) name: String,
    pub(super) form: Form,
    /// The type as SQL writes it.
    pub(super) declared: String,
    pub(super) not_null: bool,
    /// The type of a parameter that carries values of many rows, and what turns one into the column's type.
    pub(super) parameter: (Type, String),
}

/// Makes what is missing, or says what that would take.
#[derive(Debug)]
pub(super) struct Maker {
    /// Whether it may make things, as `create` says.
    create: bool,
    /// Whether it makes them, or only looks.
    makes: bool,
    /// What has to be run by somebody who may, with the table if that is somebody else's.
    wanted: Vec<(Option<String>, String)>,
    /// The tables that lost an index.
    pub(super) dropped: Vec<String>,
    /// What a person should know: columns that are too narrow, tables that a crash empties.
    pub(super) notes: Vec<String>,
}

impl Maker {
    pub(super) fn new(create: bool) -> Self {
        Self { create, makes: create, wanted: Vec::new(), dropped: Vec::new(), notes: Vec::new() }
    }

    /// One that makes nothing now, whether it may or not.
    pub(super) fn looking(create: bool) -> Self {
        Self { makes: false, ..Self::new(create) }
    }

    /// Runs a statement, or keeps it.
    pub(super) async fn make(&mut self, link: &Link, sql: String) -> Result<(), tokio_postgres::Error> {
        if self.makes {
            return link.run(&sql).await;
        }
        if !self.create {
            self.wanted.push((None, sql));
        }
        Ok(())
    }

    /// Keeps a statement about a table that somebody else has made.
    pub(super) fn leave(&mut self, table: &str, sql: String) {
        self.wanted.push((Some(table.to_owned()), sql));
    }

    /// Returns what has to be run before this can go on, if anything has.
    pub(super) fn wants(&self) -> Option<Error> {
        if self.wanted.is_empty() {
            return None;
        }
        let foreign: Vec<&str> = self.wanted.iter().filter_map(|(table, _)| table.as_deref()).collect();
        let statements: Vec<&str> = self.wanted.iter().map(|(_, sql)| &**sql).collect();
        let why = if self.create {
            let tables = foreign.join("`, `");
            format!("somebody else has made the table `{tables}`, which lacks the unique index of its `key`")
        } else {
            "`create` is off, and the database lacks something".to_owned()
        };
        Some(Error::permanent(format!("{why}. To be run: {}", statements.join("; "))))
    }
}

/// A table as the catalog has it.
pub(super) struct Seen {
    pub(super) oid: u32,
    pub(super) is_ours: bool,
    pub(super) columns: Vec<Found>,
    is_unlogged: bool,
}

/// Makes or checks a table. One that `was_there` and is gone was dropped, and is not made again silently.
///
/// # Errors
///
/// The inner one `Permanent`, naming table and columns, when they do not fit; the outer one is the server's.
pub(super) async fn prepare(
    link: &Link,
    (settings, schema): (&Settings, &str),
    table: &SinkTable,
    was_there: bool,
    maker: &mut Maker,
) -> Result<Result<Option<Target>>, tokio_postgres::Error> {
    let wanted = columns(table);
    let qualified = format!("{}.{}", quoted(schema), quoted(&table.name));
    match look(link, schema, &table.name).await? {
        Err(error) => return Ok(Err(error)),
        Ok(None) => {
            let statements = create(&qualified, &wanted, settings);
            if was_there {
                return Ok(Err(vanished(&table.name, &statements)));
            }
            maker.make(link, statements).await?;
        }
        Ok(Some(seen)) => {
            if let Some(error) = unfit(&table.name, &wanted, &seen.columns, settings) {
                return Ok(Err(error));
            }
            let missing = wanted.iter().filter(|column| !seen.columns.iter().any(|found| *found.name == *column.name));
            for column in missing {
                let declared = declared(&column.name, column.column_type, settings);
                let name = quoted(&column.name);
                maker.make(link, format!("ALTER TABLE {qualified} ADD COLUMN {name} {declared}")).await?;
            }
        }
    }
    Ok(match look(link, schema, &table.name).await? {
        Err(error) => Err(error),
        Ok(None) => Ok(None),
        Ok(Some(seen)) => {
            notes(&table.name, &wanted, &seen, settings, &mut maker.notes);
            Ok(target(qualified, &wanted, seen, settings))
        }
    })
}

/// Returns why rows cannot be written to a table, if it is there and does not fit; makes nothing.
///
/// # Errors
///
/// The server's.
pub(super) async fn misfit(
    link: &Link,
    (settings, schema): (&Settings, &str),
    table: &SinkTable,
) -> Result<Option<Error>, tokio_postgres::Error> {
    Ok(match look(link, schema, &table.name).await? {
        Err(error) => Some(error),
        Ok(None) => None,
        Ok(Some(seen)) => unfit(&table.name, &columns(table), &seen.columns, settings),
    })
}

/// Looks a table up; `None` where there is none.
pub(super) async fn look(
    link: &Link,
    schema: &str,
    table: &str,
) -> Result<Result<Option<Seen>>, tokio_postgres::Error> {
    let class = "SELECT c.oid::int8, c.relkind::text, c.relpersistence::text,
            coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '')
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2";
    let rows = link.rows(class, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(Ok(None)) };
    let (oid, kind, persistence): (i64, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let comment: String = row.try_get(3)?;
    if !matches!(kind.as_str(), "r" | "p") {
        let kind = match kind.as_str() {
            "v" => "view",
            "m" => "materialized view",
            "f" => "foreign table",
            _ => "thing of another kind",
        };
        return Ok(Err(Error::permanent(format!("`{table}` is a {kind}, and rows need a table"))));
    }
    let columns = "SELECT a.attname::text, coalesce(b.oid, t.oid)::int8,
            CASE WHEN b.oid IS NULL THEN a.atttypmod ELSE t.typtypmod END,
            pg_catalog.format_type(a.atttypid, a.atttypmod), coalesce(b.typtype, t.typtype) = 'e',
            a.attnotnull OR t.typnotnull, a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
            a.attgenerated <> ''
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype AND t.typtype = 'd'
        WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let number = u32::try_from(oid).unwrap_or(0);
    let mut found = Vec::new();
    for row in link.rows(columns, &[(&number, Type::OID)]).await? {
        let oid: i64 = row.try_get(1)?;
        found.push(Found {
            name: row.try_get(0)?,
            oid: u32::try_from(oid).unwrap_or(0),
            modifier: row.try_get(2)?,
            declared: row.try_get(3)?,
            is_enum: row.try_get(4)?,
            not_null: row.try_get(5)?,
            has_default: row.try_get(6)?,
            is_generated: row.try_get(7)?,
        });
    }
    let is_ours = comment == OURS;
    Ok(Ok(Some(Seen { oid: number, is_ours, columns: found, is_unlogged: persistence == "u" })))
}

/// Returns a name as Postgres reads it literally.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns a text as Postgres reads it literally, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// Returns the columns of a table: those that every table has, then its own.
pub(super) fn columns(table: &SinkTable) -> Vec<Column> {
    let schema = table.table.schema();
    let column = |field: &arrow_schema::FieldRef| Column {
        name: field.name().as_str().into(),
        column_type: column_type(field.data_type()),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

/// Returns the key's columns as the table spells them, quoted.
pub(super) fn key_columns(table: &SinkTable) -> Vec<String> {
    let schema = table.table.schema();
    let spelt = |column: &String| {
        let field = schema.fields().iter().find(|field| field.name().eq_ignore_ascii_case(column));
        quoted(field.map_or(column, |field| field.name()))
    };
    table.key.iter().map(spelt).collect()
}

/// Checks that a table, its columns and its key can have these names.
pub(super) fn check_table(table: &SinkTable) -> Result<()> {
    let name = &table.name;
    check_identifier(name).map_err(|why| Error::config(format!("a table cannot be called `{name}`: {why}")))?;
    if name == "tidegate_position" {
        return Err(Error::config(format!("a table cannot be called `{name}`: the position is there")));
    }
    for column in table.table.schema().fields() {
        let column = column.name();
        check_identifier(column)
            .map_err(|why| Error::config(format!("table `{name}` cannot have a column `{column}`: {why}")))?;
    }
    if let Some(column) = table.key.iter().find(|column| !table.has_column(column)) {
        return Err(Error::config(format!("the key of table `{name}` names column `{column}`, which it lacks")));
    }
    Ok(())
}

/// Checks that Postgres takes a name as it is.
pub(super) fn check_identifier(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.contains('\0') {
        return Err("it has a NUL in it".to_owned());
    }
    if name.len() > LONGEST_NAME {
        return Err(format!("Postgres cuts names off after {LONGEST_NAME} bytes, and it has {}", name.len()));
    }
    Ok(())
}

/// Returns why rows cannot be written to a table that is there, of every column that is in the way.
fn unfit(table: &str, wanted: &[Column], found: &[Found], settings: &Settings) -> Option<Error> {
    let why = |there: &Found| why_unfit(wanted, there, settings);
    let wrong: Vec<_> = found.iter().filter_map(|there| Some((&*there.name, why(there)?))).collect();
    let each = |(column, why): &(&str, String)| format!("column `{column}` of table `{table}` {why}");
    (!wrong.is_empty()).then(|| Error::permanent(wrong.iter().map(each).collect::<Vec<_>>().join("; ")))
}

/// Returns why a column of a table is in the way of its rows.
fn why_unfit(wanted: &[Column], there: &Found, settings: &Settings) -> Option<String> {
    let name = &there.name;
    let Some(column) = wanted.iter().find(|column| *column.name == **name) else {
        let is_in_the_way = there.not_null && !there.has_default && !there.is_generated;
        return is_in_the_way.then(|| "takes no NULL and has no default, and no row has it".to_owned());
    };
    if there.is_generated {
        return Some("is generated, and takes no value".to_owned());
    }
    if !matches!(there.fit(column.column_type, settings), Fit::Changes) {
        return None;
    }
    let (is, wanted) = (&there.declared, declared(name, column.column_type, settings));
    let may_round = column.column_type == ColumnType::F64 && there.declared == "real";
    let or = if may_round { format!(", or its values may be rounded: `round = [\"{name}\"]`") } else { String::new() };
    Some(format!("is `{is}`, which would change its values: it has to be `{wanted}`{or}"))
}

/// Says which columns hold less than may come.
fn notes(table: &str, wanted: &[Column], seen: &Seen, settings: &Settings, notes: &mut Vec<String>) {
    if seen.is_unlogged {
        notes.push(format!(
            "table `{table}` is unlogged: a crash of the server empties it, and the rows are not sent again"
        ));
    }
    for column in wanted {
        let Some(there) = seen.columns.iter().find(|found| *found.name == *column.name) else { continue };
        if let Fit::Narrow(_, what) = there.fit(column.column_type, settings)
            && !(seen.is_ours && column.column_type == ColumnType::U64)
        {
            let (name, declared) = (&column.name, &there.declared);
            notes.push(format!("column `{name}` of table `{table}` is `{declared}`: {what}"));
        }
        if there.not_null && column.nullable {
            let name = &column.name;
            notes.push(format!("column `{name}` of table `{table}` takes no NULL: rows without it are refused"));
        }
    }
}

fn create(qualified: &str, columns: &[Column], settings: &Settings) -> String {
    let columns: Vec<String> = columns
        .iter()
        .map(|column| format!("{} {}", quoted(&column.name), declared(&column.name, column.column_type, settings)))
        .collect();
    format!("CREATE TABLE {qualified} ({}); COMMENT ON TABLE {qualified} IS {}", columns.join(", "), literal(OURS))
}

/// `None` where a column is missing: then `create` is off, and that was said.
fn target(name: String, wanted: &[Column], seen: Seen, settings: &Settings) -> Option<Target> {
    let mut columns = Vec::with_capacity(wanted.len());
    for column in wanted {
        let found = seen.columns.iter().find(|found| *found.name == *column.name)?;
        let (Fit::Whole(form) | Fit::Narrow(form, _)) = found.fit(column.column_type, settings) else { return None };
        columns.push(TargetColumn {
            name: quoted(&column.name),
            form,
            declared: found.declared.clone(),
            not_null: found.not_null,
            parameter: found.parameter(form),
        });
    }
    Some(Target { name, oid: seen.oid, is_ours: seen.is_ours, columns })
}

fn vanished(table: &str, statements: &str) -> Error {
    Error::permanent(format!(
        "table `{table}` is gone, and rows may have been stored in it, which are not sent again: bring it back from a \
         backup, or, if they are not missed, make it without rows: {statements}"
    ))
}

/// The comment of a table that a sink has made.
const OURS: &str = "made by tidegate";

/// `NAMEDATALEN` − 1.
pub(super) const LONGEST_NAME: usize = 63;
