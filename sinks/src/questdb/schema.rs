//! What a table is in QuestDB: its columns' types, the statements that make it, and whether one that is there fits. Pure.

use arrow_schema::DataType;
use tidegate_core::{Error, Result, chunk::SinkTable, config::OnConflict};

use super::{QuestDbConfig, Timestamps, Unsigned, config::ttl_of};

/// The columns that say what caused a row: part of the key of each table that the sink makes.
pub(super) const TG_COLUMNS: [&str; 3] = ["tg_boot", "tg_pos", "tg_sub"];

/// A column of a chunk, and how it goes to QuestDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// Its number in the chunk.
    pub(super) column: usize,
    pub(super) name: String,
    pub(super) form: Form,
}

/// How a value goes over the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Symbol,
    Text,
    Bool,
    Long,
    Decimal,
    Double,
    Time,
    Array,
}

/// A column of a table that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    /// As QuestDB writes it: `TIMESTAMP_NS`, `DOUBLE[][]`.
    pub(super) column_type: String,
    pub(super) is_key: bool,
    pub(super) is_designated: bool,
}

/// What has to be done to a table that is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    pub(super) fields: Vec<Field>,
    /// Whether it has the `tg_` columns: the sink has made it, or a person by its statement.
    pub(super) is_ours: bool,
    /// Names of columns to be added, with their types.
    pub(super) lacking: Vec<(String, &'static str)>,
}

/// Returns the key that the sink gives a table.
pub(super) fn key(table: &SinkTable) -> Vec<String> {
    let time = [table.time_column.clone()];
    match table.on_conflict {
        OnConflict::Replace if !table.key.is_empty() => {
            let rest = table.key.iter().filter(|column| !column.eq_ignore_ascii_case(&table.time_column));
            time.into_iter().chain(rest.cloned()).collect()
        }
        OnConflict::Append | OnConflict::Replace | OnConflict::Ignore | OnConflict::Refuse => {
            time.into_iter().chain(TG_COLUMNS.map(str::to_owned)).collect()
        }
    }
}

/// Returns the statement that makes a table, and how its columns are sent.
pub(super) fn made(config: &QuestDbConfig, table: &SinkTable) -> (String, Fitted) {
    let schema = table.table.schema();
    let mut columns = Vec::new();
    let mut fields = Vec::new();
    for (column, field) in schema.fields().iter().enumerate() {
        let (form, column_type) = type_of(config, field.data_type(), field.is_nullable());
        columns.push(format!("{} {column_type}", quoted(field.name())));
        if !field.name().eq_ignore_ascii_case(&table.time_column) {
            fields.push(Field { column, name: field.name().clone(), form });
        }
    }
    columns.extend([("tg_boot", "LONG"), ("tg_pos", "LONG"), ("tg_sub", "INT")].map(|(name, t)| format!("{name} {t}")));
    let (partition, ttl) = config.layout_of(table);
    let (word, _) = partition.word();
    let ttl = ttl.and_then(|ttl| ttl_of(partition, ttl)).map_or(String::new(), |n| format!(" TTL {n} {word}S"));
    let statement = format!(
        "CREATE TABLE IF NOT EXISTS {} ({}) TIMESTAMP({}) PARTITION BY {word}{ttl} WAL DEDUP UPSERT KEYS({})",
        quoted(&table.name),
        columns.join(", "),
        quoted(&table.time_column),
        list(&key(table))
    );
    (statement, Fitted { fields, is_ours: true, lacking: Vec::new() })
}

/// Holds a table that is there against what is to be written.
///
/// # Errors
///
/// `Permanent`, naming the column that cannot hold its values.
pub(super) fn fit(config: &QuestDbConfig, table: &SinkTable, found: &[Found]) -> Result<Fitted> {
    let name = &table.name;
    let there = |column: &str| found.iter().find(|found| found.name.eq_ignore_ascii_case(column));
    let designated = found.iter().find(|found| found.is_designated).map(|found| found.name.as_str());
    let (mut fields, mut lacking) = (Vec::new(), Vec::new());
    for (column, field) in table.table.schema().fields().iter().enumerate() {
        let is_time = field.name().eq_ignore_ascii_case(&table.time_column);
        let (form, column_type) = type_of(config, field.data_type(), field.is_nullable());
        let Some(found) = there(field.name()) else {
            // The time column may have another name in a table of the user's: the designated timestamp is the only one.
            if !is_time {
                fields.push(Field { column, name: field.name().clone(), form });
                lacking.push((field.name().clone(), column_type));
            }
            continue;
        };
        if designated == Some(&found.name) {
            if !is_time {
                let time = &table.time_column;
                return Err(Error::permanent(format!(
                    "the designated timestamp of table `{name}` is `{}`, and has to be `{time}`",
                    found.name
                )));
            }
            continue;
        }
        let Some(form) = held(field.data_type(), field.is_nullable(), &found.column_type) else {
            let (column, has) = (&found.name, &found.column_type);
            return Err(Error::permanent(format!(
                "column `{column}` of table `{name}` is {has} and would change its values: it has to be {column_type}. \
                 To be run, where its rows may be changed: ALTER TABLE {} ALTER COLUMN {} TYPE {column_type}",
                quoted(name),
                quoted(column)
            )));
        };
        fields.push(Field { column, name: found.name.clone(), form });
    }
    let is_ours = TG_COLUMNS.iter().all(|column| there(column).is_some());
    Ok(Fitted { fields, is_ours, lacking })
}

/// Returns the statements that add columns, one each: `IF NOT EXISTS` is of one column only.
pub(super) fn add<'a>(table: &'a str, lacking: &'a [(String, &'static str)]) -> impl Iterator<Item = String> + 'a {
    lacking.iter().map(move |(name, column_type)| {
        format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {column_type}", quoted(table), quoted(name))
    })
}

/// Returns the statement that gives a table its key back.
pub(super) fn dedup(table: &SinkTable) -> String {
    format!("ALTER TABLE {} DEDUP ENABLE UPSERT KEYS({})", quoted(&table.name), list(&key(table)))
}

/// Returns what a new column is.
#[allow(clippy::wildcard_enum_match_arm, reason = "a chunk has columns of nine types, Arrow has many more")]
fn type_of(config: &QuestDbConfig, data_type: &DataType, is_nullable: bool) -> (Form, &'static str) {
    match data_type {
        DataType::Boolean if is_nullable => (Form::Symbol, "SYMBOL"),
        DataType::Boolean => (Form::Bool, "BOOLEAN"),
        DataType::Int64 => (Form::Long, "LONG"),
        DataType::UInt64 => match config.unsigned {
            Unsigned::Long => (Form::Long, "LONG"),
            Unsigned::Decimal => (Form::Decimal, "DECIMAL(20,0)"),
        },
        DataType::Float64 => (Form::Double, "DOUBLE"),
        DataType::Timestamp(..) => match config.timestamps {
            Timestamps::Nanoseconds => (Form::Time, "TIMESTAMP_NS"),
            Timestamps::Microseconds => (Form::Time, "TIMESTAMP"),
        },
        DataType::Dictionary(..) => (Form::Symbol, "SYMBOL"),
        DataType::List(item) if *item.data_type() != DataType::Int64 => (Form::Array, "DOUBLE[][]"),
        // Texts, and lists of integers as JSON.
        _ => (Form::Text, "VARCHAR"),
    }
}

/// Returns how values go into a column of this type, if each comes back as it was.
#[allow(clippy::wildcard_enum_match_arm, reason = "a chunk has columns of nine types, Arrow has many more")]
fn held(data_type: &DataType, is_nullable: bool, found: &str) -> Option<Form> {
    let is_decimal = found.strip_prefix("DECIMAL(").and_then(|rest| rest.strip_suffix(')')).is_some_and(|rest| {
        let digits =
            rest.split_once(',').and_then(|(digits, scale)| Some((digits.trim(), scale.trim().parse::<u8>().ok()?)));
        digits.is_some_and(|(digits, scale)| digits.parse::<u8>().is_ok_and(|digits| digits - digits.min(scale) >= 20))
    });
    match (data_type, found) {
        (DataType::Boolean, "BOOLEAN") if !is_nullable => Some(Form::Bool),
        (DataType::Boolean, "SYMBOL") => Some(Form::Symbol),
        (DataType::Int64 | DataType::UInt64, "LONG") => Some(Form::Long),
        (DataType::UInt64, _) if is_decimal => Some(Form::Decimal),
        (DataType::Float64, "DOUBLE") => Some(Form::Double),
        // One in microseconds is the user's choice.
        (DataType::Timestamp(..), "TIMESTAMP_NS" | "TIMESTAMP") => Some(Form::Time),
        (DataType::Utf8 | DataType::Dictionary(..), "SYMBOL") => Some(Form::Symbol),
        (DataType::Utf8 | DataType::Dictionary(..) | DataType::List(_), "VARCHAR" | "STRING") => Some(Form::Text),
        (DataType::List(item), "DOUBLE[][]") if *item.data_type() != DataType::Int64 => Some(Form::Array),
        _ => None,
    }
}

/// Returns a name as it stands in a statement. None of QuestDB's names holds a quote.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', ""))
}

/// Returns a text as it stands in a statement.
pub(super) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn list(columns: &[String]) -> String {
    columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
}
