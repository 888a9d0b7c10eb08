//! `graph`: which table goes from which source to which sink, and under which name.

use std::fmt::Write;

use super::{
    load::{Loaded, Pipeline, SinkStage},
    names::NameParts,
};

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
                let ways = pipeline.sinks.iter().filter(|sink| sink.tables.takes(&table.name));
                let ways: Vec<_> = ways.map(|sink| way(pipeline, &source.component, &table.name, sink)).collect();
                let ways = if ways.is_empty() { "nowhere".into() } else { ways.join(", ") };
                _ = writeln!(text, "    {:width$}  →  {ways}", table.name);
            }
        }
        for sink in &pipeline.sinks {
            _ = writeln!(text, "  sink {}", named(&sink.name, &sink.component));
        }
    }
    text
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
