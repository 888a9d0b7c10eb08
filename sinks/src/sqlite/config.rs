//! The keys of `[sink.NAME]` with `type = "sqlite"`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::SinkTable,
    config::{Duration, Faults, one_path},
    sink::Sink,
};

use super::{schema, sink::Sqlite};

/// Stores rows in an SQLite file, with the position in the same transaction: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file.
    pub path: PathBuf,
    /// Makes what is missing: the file, tables, columns, the unique indexes of keys, and `tidegate_position`, which holds the
    /// position. Without it nothing is made: the sink stops and shows the statements to run. A table that somebody else has
    /// made gets columns only: the index of its key is for them to make.
    #[serde(default = "create")]
    pub create: bool,
    /// How long to wait for another program that is writing to the file, before the write is tried again later.
    #[serde(default = "lock_timeout")]
    pub lock_timeout: Duration,
}

impl Component for SqliteConfig {
    const TYPE: &'static str = "sqlite";
    const EXAMPLE: &'static str = "path = \"data.sqlite\"";
    const HAS_KEYS: bool = true;
    type Built = Box<dyn Sink>;

    fn check(&self, faults: &mut Faults) {
        if self.path.as_os_str().is_empty() {
            faults.at("path", "`path` is empty");
        }
        if self.path.as_os_str() == ":memory:" {
            let message =
                "`path` is `:memory:`, which ends with its connection: a store has to outlive it, name a file";
            faults.at("path", message);
        }
    }

    fn build(&self) -> Result<Self::Built> {
        Faults::of(self).into_result()?;
        Ok(Box::new(Sqlite::new(self.clone())))
    }

    fn path(&self, _: &str) -> Option<PathBuf> {
        Some(self.path.clone())
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
        for table in tables {
            if let Some(column) = table.key.iter().find(|column| !table.has_column(column)) {
                let name = &table.name;
                return Err(Error::config(format!(
                    "the key of table `{name}` names column `{column}`, which it lacks"
                )));
            }
        }
        Ok(())
    }
}

fn create() -> bool {
    true
}

fn lock_timeout() -> Duration {
    Duration::from_secs(5)
}
