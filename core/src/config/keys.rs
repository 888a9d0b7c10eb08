//! Keys of tables: which columns tell a row from another one, and what becomes of a row whose key is there already.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    layers::path,
    load::Reader,
    problem::{Problem, Spot},
    stage::SinkDraft,
    tables::{TableChoice, TableConfig},
};
use crate::chunk::SinkTable;

/// What becomes of a row whose key is in the store already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// It is stored beside the other: there is no key.
    #[default]
    Append,
    /// It takes the other's place.
    Replace,
    /// The other stays, and it is left out.
    Ignore,
    /// The other stays, and it becomes a dead letter.
    Refuse,
}

impl Reader<'_> {
    /// Holds the keys that a sink is to have against its tables, as they are known by now.
    pub(super) fn check_keys(&mut self, sink: &SinkDraft<'_>, choice: &TableChoice, tables: &[SinkTable]) {
        let TableChoice::Only(chosen) = choice else { return };
        for name in chosen.iter().filter(|(_, config)| config.retention.is_some()).map(|(name, _)| name) {
            if !sink.has_retention {
                let title = format!("sink `{}` keeps every row: a store of its type drops none by itself", sink.name);
                let problem = Problem::error(title).at(sink.place(&path(["tables", name, "retention"])), "");
                self.report.add(problem.help("take it out"));
            }
        }
        for (name, config) in chosen.iter().filter(|(_, config)| config.has_key()) {
            if !sink.has_keys {
                let title = format!("sink `{}` stores every row: a store of its type has no keys", sink.name);
                let problem = Problem::error(title).at(sink.place(&key_of(name, config)), "");
                self.report.add(problem.help("take it out"));
                continue;
            }
            let has_key = tables.iter().any(|table| *table.table.name == **name && !table.key.is_empty());
            self.check_key(sink, name, config, has_key);
            for table in tables.iter().filter(|table| *table.table.name == **name) {
                self.check_columns_of_key(sink, name, table);
            }
        }
    }

    /// A key and what it is for come together.
    fn check_key(&mut self, sink: &SinkDraft<'_>, name: &str, config: &TableConfig, has_key: bool) {
        let is_misspelt = config.on_conflict.is_none() && sink.place(&path(["tables", name, "on_conflict"])).is_some();
        if is_misspelt {
            return;
        }
        let spot = sink.place(&key_of(name, config));
        let is_appended = config.on_conflict.unwrap_or_default() == OnConflict::Append;
        if !config.key.is_empty() && is_appended {
            let problem = Problem::error(format!("`key` of table `{name}` has no use: its rows are appended"));
            let help =
                "say what becomes of a row whose key is there: on_conflict = \"replace\", \"ignore\" or \"refuse\"";
            self.report.add(problem.at(spot, "").help(help));
        } else if config.key.is_empty() && !is_appended && !has_key {
            let problem = Problem::error(format!("table `{name}` has no key that two rows could have in common"));
            let help = "name its columns: key = [\"symbol\", \"id\"]";
            self.report.add(problem.at(spot, "").help(help));
        }
    }

    fn check_columns_of_key(&mut self, sink: &SinkDraft<'_>, name: &str, table: &SinkTable) {
        for (n, column) in table.key.iter().enumerate() {
            let number = n.to_string();
            let spot = || sink.place(&path(["tables", name, "key", &number])).map(Spot::inside_quotes);
            let is_same = |other: &String| other.eq_ignore_ascii_case(column);
            if table.key[..n].iter().any(is_same) {
                let problem = Problem::error(format!("the key of table `{name}` names column `{column}` twice"));
                self.report.add(problem.at(spot(), ""));
            } else if !table.has_column(column) {
                let problem = Problem::error(format!("table `{name}` has no column `{column}`"));
                let schema = table.table.schema();
                let known = schema.fields().iter().map(|field| field.name().as_str());
                self.report.add(problem.at_with_nearest(spot(), column, known));
            }
        }
    }
}

/// Returns where a table's key is written, or what it is for.
fn key_of(table: &str, config: &TableConfig) -> Vec<String> {
    let what = if config.key.is_empty() { "on_conflict" } else { "key" };
    path(["tables", table, what])
}
