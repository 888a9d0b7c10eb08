//! A sink of your own, in a crate of your own: `cargo run --example own_sink -- run eth.toml`, with `[sink.totals]`.
//!
//! It keeps the number of rows per table and the position in one file, replaced as a whole: so what the file says is
//! always true of exactly the rows up to the position beside it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate::{
    Error, Result,
    catalog::Component,
    chunk::{Chunk, Part},
    sink::{Guarantee, Sink, SinkContext, Written},
    spool::SpoolPosition,
};

/// Counts rows per table.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TotalsConfig {
    /// The file with the counts.
    path: PathBuf,
}

impl Component for TotalsConfig {
    const TYPE: &'static str = "totals";
    const EXAMPLE: &'static str = "path = \"totals.json\"";
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(Totals { path: self.path.clone(), tables: Vec::new(), state: State::default() }))
    }
}

struct Totals {
    path: PathBuf,
    tables: Vec<String>,
    state: State,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
struct State {
    rows: BTreeMap<String, usize>,
    position: Option<SpoolPosition>,
}

#[async_trait::async_trait]
impl Sink for Totals {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.tables = cx.tables.iter().map(|table| table.name.clone()).collect();
        let damaged = |error: serde_json::Error| Error::permanent("the file of totals is damaged").because(error);
        self.state = match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(damaged)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(Error::transient("the file of totals cannot be read").because(error)),
        };
        Ok(self.state.position.map(|position| (Part::spool(), position)).into_iter().collect())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        // The guard: a chunk is written only where the last one ended. After an error the driver opens again.
        if self.state.position.unwrap_or(SpoolPosition::START) != chunk.from {
            return Err(Error::transient("the file stands elsewhere"));
        }
        let mut next = self.state.clone();
        for part in &chunk.tables {
            *next.rows.entry(self.tables[part.table].clone()).or_default() += part.rows.num_rows();
        }
        next.position = Some(chunk.to);
        let text = serde_json::to_vec(&next).map_err(|error| Error::permanent("totals have no JSON").because(error))?;
        let path = self.path.clone();
        // A disk may take its time, and other tasks run on this thread.
        let replaced = tokio::task::spawn_blocking(move || replace(&path, &text)).await;
        let unwritten = |error: io::Error| Error::transient("the file of totals cannot be written").because(error);
        replaced.unwrap_or_else(|cut_off| Err(io::Error::other(cut_off))).map_err(unwritten)?;
        self.state = next;
        Ok(Written::Committed)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Transaction
    }
}

/// Replaces a file as a whole. `Committed` promises that a power cut changes nothing any more, so the new name has to be
/// durable, too.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

fn main() -> std::process::ExitCode {
    tidegate::main_with(|catalog| _ = catalog.sink::<TotalsConfig>())
}
