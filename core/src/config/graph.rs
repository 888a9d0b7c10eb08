//! `graph`: which table goes from which source to which sink, and under which name.

use std::fmt::Write;

use super::{
    load::{Loaded, Pipeline, SinkStage},
    names::NameParts,
};
use crate::own;

/// Returns, for each pipeline, the way of every table.
pub fn graph(loaded: &Loaded) -> String {
    let mut text = String::new();
    for pipeline in &loaded.pipelines {
        // Writing to a text never fails.
        _ = writeln!(text, "{} ({})", pipeline.name, pipeline.file.display());
        for source in &pipeline.sources {
            _ = writeln!(text, "  source {}", named(&source.name, &source.component));
            let width = source.tables.iter().map(|table| table.name.len()).max().unwrap_or(0);
            for table in &source.tables {
                let ways = ways_of(pipeline, &source.component, &table.name);
                let ways: Vec<_> = ways.into_iter().chain(made_of(pipeline, &table.name)).collect();
                let ways = if ways.is_empty() { "nowhere".into() } else { ways.join(", ") };
                _ = writeln!(text, "    {:width$}  →  {ways}", table.name);
            }
        }
        let own: Vec<(_, Vec<_>)> = own::NAMES
            .iter()
            .map(|name| {
                (*name, ways_of(pipeline, own::VENUE, name).into_iter().chain(made_of(pipeline, name)).collect())
            })
            .collect();
        if own.iter().any(|(_, ways)| !ways.is_empty()) {
            _ = writeln!(text, "  pipeline");
            for (name, ways) in own.into_iter().filter(|(_, ways)| !ways.is_empty()) {
                _ = writeln!(text, "    {name:8}  →  {}", ways.join(", "));
            }
        }
        let derived = pipeline.derived.definitions();
        let width = derived.iter().map(|of| of.name().len()).max().unwrap_or(0);
        for (number, definition) in derived.iter().enumerate() {
            if number == 0 {
                _ = writeln!(text, "  derived");
            }
            let name = definition.name();
            let ways = derived_ways(pipeline, name);
            let ways = if ways.is_empty() { "nowhere".into() } else { ways.join(", ") };
            _ = writeln!(text, "    {name:width$}  →  {ways}");
        }
        for sink in &pipeline.sinks {
            _ = writeln!(text, "  sink {}", named(&sink.name, &sink.component));
        }
    }
    text
}

/// Returns the derived tables that are made of one.
fn made_of(pipeline: &Pipeline, table: &str) -> Vec<String> {
    let made = pipeline.derived.definitions().iter().filter(|of| of.from() == table);
    made.map(|of| format!("table.{}", of.name())).collect()
}

/// Returns where the rows of a derived table go. Its name may have the venue in it, where they are of one.
fn derived_ways(pipeline: &Pipeline, name: &str) -> Vec<String> {
    let root = pipeline.derived.root(name);
    let is_root = |table: &str| root.as_ref().is_some_and(|root| **root == *table);
    let source = pipeline.sources.iter().find(|source| source.tables.iter().any(|table| is_root(&table.name)));
    let venue = source.map_or(own::VENUE, |source| &source.component);
    ways_of(pipeline, venue, name).into_iter().chain(made_of(pipeline, name)).collect()
}

fn ways_of(pipeline: &Pipeline, venue: &str, table: &str) -> Vec<String> {
    let ways = pipeline.sinks.iter().filter(|sink| sink.tables.takes(table));
    ways.map(|sink| way(pipeline, venue, table, sink)).collect()
}

fn way(pipeline: &Pipeline, venue: &str, table: &str, sink: &SinkStage) -> String {
    // The name is a row's own where it has the symbol in it.
    let row = NameParts { pipeline: &pipeline.name, venue, table, symbol: "{symbol}" };
    let name = sink.tables.name(table).map_or_else(|| table.to_owned(), |name| name.fill(row));
    format!("{}.{name}", sink.name)
}

fn named(name: &str, component: &str) -> String {
    if name == component { name.to_owned() } else { format!("{name} ({component})") }
}
