//! The keys of `[sink.NAME]` with `type = "sqlite"`.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::SinkTable,
    config::{Duration, nearest, one_path},
    sink::Sink,
};

use super::{schema, sink::Sqlite};

/// Stores rows in an SQLite file, with the position in the same transaction: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file.
    pub path: PathBuf,
    /// Makes what is missing: the file, tables, columns, indexes, and `tidegate_position`, which holds the position. Without
    /// it nothing is made: the sink stops and shows the statements to run.
    #[serde(default = "create")]
    pub create: bool,
    /// For each table named here, the columns of a unique index: `key = { trades = ["symbol", "seq"] }`. A row that it
    /// forbids becomes a dead letter. No row is ever stored twice without it. Taken out or changed, the index goes or
    /// changes at the next start.
    #[serde(default)]
    pub key: BTreeMap<String, Vec<String>>,
    /// How long to wait for another program that is writing to the file, before the write is tried again later.
    #[serde(default = "lock_timeout")]
    pub lock_timeout: Duration,
}

impl Component for SqliteConfig {
    const TYPE: &'static str = "sqlite";
    const EXAMPLE: &'static str = "path = \"data.sqlite\"";
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("`path` is empty"));
        }
        if let Some((table, _)) = self.key.iter().find(|(_, columns)| columns.is_empty()) {
            return Err(Error::config(format!("`key` names no column for table `{table}`")));
        }
        Ok(Box::new(Sqlite::new(self.clone())))
    }

    fn store(&self) -> Option<String> {
        Some(format!("sqlite {}", one_path(&self.path).display()))
    }

    fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        for (n, table) in tables.iter().enumerate() {
            schema::check_name(&table.name)?;
            if let Some(other) = tables[..n].iter().find(|other| other.name.eq_ignore_ascii_case(&table.name)) {
                let (one, other) = (&other.name, &table.name);
                return Err(Error::config(format!("tables `{other}` and `{one}` are one for SQLite")));
            }
        }
        for (of, key) in &self.key {
            let mut keyed = tables.iter().filter(|table| *table.table.name == **of).peekable();
            if keyed.peek().is_none() {
                let hint = hint(of, tables.iter().map(|table| &*table.table.name));
                return Err(Error::config(format!("`key.{of}` is for a table that the sink does not take{hint}")));
            }
            for table in keyed {
                let schema = table.table.schema();
                let known = || schema.fields().iter().map(|field| field.name().as_str());
                let Some(column) = key.iter().find(|column| !known().any(|k| k.eq_ignore_ascii_case(column))) else {
                    continue;
                };
                let hint = hint(column, known());
                let name = &table.name;
                return Err(Error::config(format!(
                    "`key.{of}` names column `{column}`, which table `{name}` does not have{hint}"
                )));
            }
        }
        Ok(())
    }
}

/// Answers a wrong name with the right one, or with all.
fn hint<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(wrong, known.clone()) {
        Some(near) => format!(": did you mean {near}?"),
        None => format!(", known are: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

fn create() -> bool {
    true
}

fn lock_timeout() -> Duration {
    Duration::from_secs(5)
}
