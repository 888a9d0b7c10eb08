//! What a store of somebody's own holds: read back as a whole, by the sink's own audit, whatever the store is.

use std::collections::HashMap;

use serde_json::Value;
use tidegate_core::{
    Error, Result,
    catalog::{Catalog, Role},
    chunk::SinkTable,
    config::{self, Environment, Files, Pipeline},
    pipeline::{Folder as Data, check_store},
    verify::{self, Audit},
};
use tidegate_sources::deribit::simulator::comparison::{Stored, StoredTrade};

use super::{folder::Folder, sink::Sink, stored::Standing};
use crate::cli::Failure;

/// A store that can be asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pipeline: Pipeline,
    data: Data,
}

impl Asked {
    /// Reads the pipeline as its process will, and dials its store.
    ///
    /// # Errors
    ///
    /// If the address is wrong, this build has no such store, or it does not answer: as `check --connect` says it.
    pub(super) async fn dial(catalog: &Catalog, folder: &Folder, sink: &Sink, text: &str) -> Result<Self, Failure> {
        let pipeline = load(catalog, sink, text)?;
        for stage in &pipeline.sinks {
            let reached = check_store(&pipeline, stage).await;
            reached.map_err(|error| Failure::failed(format!("--sink {}: {}", sink.shown, error.chain())))?;
        }
        let data = Data::of(&folder.root().join(super::folder::DATA), &pipeline);
        Ok(Self { pipeline, data })
    }

    /// Reads what it holds.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(super) async fn stored(&self) -> Result<Stored> {
        let (mut audit, tables) = self.audit().await?;
        let mut stored = Stored::default();
        for row in values(&mut *audit, &tables, "trades", TRADE).await? {
            let trade = StoredTrade {
                id: text(&row[1]).into(),
                price: row[2].as_f64().unwrap_or(f64::NAN),
                size: row[3].as_f64().unwrap_or(f64::NAN),
                side: text(&row[4]).into(),
                ts_event_ms: row[5].as_i64().unwrap_or_default().div_euclid(1_000_000),
                backfilled: row[6] == "backfill",
            };
            add(&mut stored.trades, &row[0], trade);
        }
        for row in values(&mut *audit, &tables, "tickers", &["symbol", "volume_24h"]).await? {
            match row[1].as_f64() {
                Some(volume) => add(&mut stored.tickers, &row[0], volume),
                None => stored.unknown_tickers += 1,
            }
        }
        Ok(stored)
    }

    /// Reads where it stands.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(super) async fn standing(&self) -> Result<Standing> {
        let (mut audit, tables) = self.audit().await?;
        let mut standing = Standing::default();
        for table in ["trades", "tickers"] {
            for row in values(&mut *audit, &tables, table, &["origin", "ts_recv"]).await? {
                standing.rows += 1;
                standing.backfilled += u64::from(table == "trades" && row[0] == "backfill");
                standing.newest_ms = standing.newest_ms.max(row[1].as_i64().map(|time| time / 1_000_000));
            }
        }
        Ok(standing)
    }

    async fn audit(&self) -> Result<(Box<dyn Audit>, Vec<SinkTable>)> {
        let cannot = || Error::permanent("this store cannot be asked what it holds");
        let stage = self.pipeline.sinks.first().ok_or_else(cannot)?;
        verify::audit(&self.pipeline, &self.data, stage).await?.ok_or_else(cannot)
    }
}

fn load(catalog: &Catalog, sink: &Sink, text: &str) -> Result<Pipeline, Failure> {
    if !catalog.names(Role::Sink).contains(&sink.name()) {
        let (shown, name) = (&sink.shown, sink.name());
        let text = format!("--sink {shown}: sink `{name}` is not in this build: build it with --features {name}");
        return Err(Failure::usage(text));
    }
    let variables = sink.variables.iter().map(|(name, value)| (*name, value.as_str()));
    let loaded = config::load(catalog, Files::of_text("demo.toml", text), &Environment::new(variables));
    if let Some(refused) = loaded.refused.into_iter().next() {
        // The line is one of a file that nobody has written.
        let why = refused.why.split_once(": ").filter(|(place, _)| place.starts_with("demo.toml:"));
        let why = why.map_or(refused.why.as_str(), |(_, why)| why);
        return Err(Failure::usage(format!("--sink {}: {why}", sink.shown)));
    }
    let pipeline = loaded.pipelines.into_iter().next();
    pipeline.ok_or_else(|| Failure::failed("the demo's own pipeline is none"))
}

async fn values(audit: &mut dyn Audit, tables: &[SinkTable], name: &str, columns: &[&str]) -> Result<Vec<Vec<Value>>> {
    let Some(table) = tables.iter().find(|table| &*table.table.name == name) else { return Ok(Vec::new()) };
    let mut rows = audit.values(table, columns).await?;
    rows.iter_mut().for_each(|row| row.resize(columns.len(), Value::Null));
    Ok(rows)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn add<T>(lists: &mut HashMap<String, Vec<T>>, symbol: &Value, value: T) {
    lists.entry(text(symbol).to_owned()).or_default().push(value);
}

/// What a trade is compared by.
const TRADE: &[&str] = &["symbol", "id", "price", "size", "side", "ts_event", "origin"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_this_build_has_not_is_answered_with_the_feature_that_brings_it() {
        let mut catalog = Catalog::default();
        tidegate_sources::register(&mut catalog);
        let sink = Sink::read("kafka://broker").unwrap();
        let text = super::super::folder::pipeline("endpoint = \"test\"", &sink, 7);
        let why = load(&catalog, &sink, &text).unwrap_err().text;
        assert!(why.starts_with("--sink kafka://broker:9092: ") && why.contains("--features kafka"), "{why}");
    }

    #[test]
    fn every_pipeline_that_the_demo_writes_can_be_read() {
        for address in ["postgres://me:p@db/x", "timescale://db/x", "questdb://me:p@quest", "http::addr=q;token=t;"] {
            let sink = Sink::read(address).unwrap();
            let text = super::super::folder::pipeline("endpoint = \"test\"", &sink, 7);
            let pipeline = load(&crate::built_in(), &sink, &text).unwrap();
            assert_eq!((pipeline.name.as_str(), pipeline.sinks.len()), ("tidegate_demo_7", 1), "{address}");
        }
    }
}
