//! The keys of `[sink.NAME]` with `type = "sqlite"`.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::SinkTable,
    config::{Duration, one_path},
    sink::Sink,
};

use super::{schema, sink::Sqlite};

/// Stores rows in an SQLite file, with the position in the same transaction: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file.
    pub path: PathBuf,
    /// Makes the file with its directory, tables, columns and indexes that are missing, and `tidegate_position`, which
    /// holds the position. Without it nothing is made: the sink stops and shows the statements to run.
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
            let Some(key) = self.key.get(&*table.table.name) else { continue };
            let schema = table.table.schema();
            let has = |column: &String| schema.fields().iter().any(|field| field.name().eq_ignore_ascii_case(column));
            if let Some(column) = key.iter().find(|column| !has(column)) {
                let (of, name) = (&table.table.name, &table.name);
                let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(Error::config(format!(
                    "`key.{of}` names column `{column}`, which table `{name}` does not have, known are: {}",
                    known.join(", ")
                )));
            }
        }
        let is_taken = |name: &str| tables.iter().any(|table| *table.table.name == *name);
        match self.key.keys().find(|name| !is_taken(name)) {
            Some(name) => Err(Error::config(format!("`key.{name}` is for a table that the sink does not take"))),
            None => Ok(()),
        }
    }
}

fn create() -> bool {
    true
}

fn lock_timeout() -> Duration {
    Duration::from_secs(5)
}
