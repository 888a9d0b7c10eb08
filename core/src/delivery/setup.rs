//! What goes into a delivery, and what comes of it.

use std::path::PathBuf;

use tokio::{sync::watch, time::Instant};

use super::{balance::Balance, event::Settings, neighbours::Others};
use crate::{
    catalog::Factory,
    chunk::Part,
    config::{Commands, DeliveryConfig, TableChoice, WhenFull},
    health::Registry,
    sink::Sink,
    spool::{SourceInfo, SpoolPosition},
    table::Derived,
};

/// What a delivery needs.
pub struct Setup<L> {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's name.
    pub sink: String,
    /// Makes the sink, again after a panic.
    pub factory: Factory<Box<dyn Sink>>,
    /// What the user configured.
    pub config: DeliveryConfig,
    /// Which tables the sink takes.
    pub tables: TableChoice,
    /// The tables that are made of these.
    pub derived: Derived,
    /// What the sources declare.
    pub sources: Vec<SourceInfo>,
    /// The spool's id, or that of another log.
    pub spool: u64,
    /// The host's name.
    pub host: String,
    /// Where the pipeline's sinks keep what they know: `<data>/<pipeline>/sinks`.
    pub directory: PathBuf,
    /// What becomes of rows when the log is full.
    pub when_full: WhenFull,
    /// The log, read by this sink only.
    pub log: L,
    /// Up to where the log is fsynced.
    pub synced: watch::Receiver<SpoolPosition>,
    /// Set once the pipeline stops and `synced` has its last value: the time at which to give up.
    pub stop: watch::Receiver<Option<Instant>>,
    /// The other pipelines of the data directory.
    pub others: Others,
    /// Where its health is shown.
    pub health: Registry,
    /// What a person may have to say on the command line.
    pub commands: Commands,
}

/// Up to where the log is no longer needed by a sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    /// What the store has; `None` while nobody knows, and then the sink may need everything.
    pub committed: Option<SpoolPosition>,
    /// Where reading would begin after a restart: the position that is known beside the log.
    pub replay_from: Option<SpoolPosition>,
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the store has, and the fate of every offset; `None` if it was never opened.
    pub balance: Option<Balance>,
    /// Rows that it stored, also those that it stored again in a store that had gone back.
    pub rows_stored: u64,
    /// Rows that the sink takes and that stay in the spool.
    pub rows_left: u64,
    /// Whether there are more than were counted.
    pub more_left: bool,
    /// Why a person is needed.
    pub failure: Option<String>,
}

impl<L> Setup<L> {
    /// Returns the folder that what is known of the store lies in, and the name there.
    pub(super) fn place(&self, part: &Part) -> (PathBuf, String) {
        match part.file_name() {
            None => (self.directory.clone(), self.sink.clone()),
            Some(name) => (self.directory.join(&self.sink), name),
        }
    }
}

/// Returns the name of the stage that writes a part to a sink: the sink's, and the part's where there are several.
pub(crate) fn stage_of(sink: &str, part: &Part) -> String {
    if part.is_spool() { sink.to_owned() } else { format!("{sink}/{}", part.0) }
}

pub(super) fn settings(config: &DeliveryConfig, pipeline: &str, sink: &str) -> Settings {
    let seed = pipeline.bytes().chain(sink.bytes()).fold(u64::from(crate::outside::process_id()), |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    Settings {
        batch_rows: config.batch.rows.get(),
        linger: config.batch.linger.0,
        retry_first: config.retry.first.0,
        retry_longest: config.retry.longest.0,
        breaker_failures: config.breaker.failures,
        breaker_open_for: config.breaker.open_for.0,
        breaker_successes: config.breaker.successes,
        probe_every: config.probe.every.0,
        seed,
    }
}
