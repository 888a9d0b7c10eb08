//! The keys of `[sink.NAME]` with `type = "sqlite"`.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Result,
    catalog::Component,
    config::{Duration, Faults},
    sink::Sink,
};

use super::sink::Sqlite;

/// Stores rows in an SQLite file, with the position in the same transaction: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file. Its directory is made if it is missing.
    pub path: PathBuf,
    /// Makes the file, tables and columns that are missing. Without it they have to be there.
    #[serde(default = "create")]
    pub create: bool,
    /// For each table named here, the columns of a unique index: `key = { trades = ["symbol", "seq"] }`. A row that it
    /// forbids becomes a dead letter. No row is ever stored twice without it.
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

    fn check(&self, faults: &mut Faults) {
        if self.path.as_os_str().is_empty() {
            faults.at("path", "`path` is empty");
        }
        faults.within("key", |faults| {
            for (table, _) in self.key.iter().filter(|(_, columns)| columns.is_empty()) {
                faults.at(table, format!("`key` names no column for table `{table}`"));
            }
        });
    }

    fn build(&self) -> Result<Self::Built> {
        Faults::of(self).into_result()?;
        Ok(Box::new(Sqlite::new(self.clone())))
    }

    fn store(&self) -> Option<String> {
        Some(format!("sqlite {}", self.path.display()))
    }
}

fn create() -> bool {
    true
}

fn lock_timeout() -> Duration {
    Duration::from_secs(5)
}
