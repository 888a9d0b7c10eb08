//! The rows of the pipeline's own tables.

use crate::{
    row,
    row::{Label, Timestamp},
};

/// What the ledger says of a stretch of a stream's time, which is the row's `symbol`. Table `coverage`.
///
/// The newest row counts of those that agree in `pipeline`, `source`, `channel`, `symbol`, `listing` and `ts_from`: what is
/// found out later takes its place, and of the rows that count none overlap, and none leave a hole. `ts_event` is `ts_from`,
/// `ts_recv` the moment at which it was said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage<'a> {
    /// Grows with each row: of two about one stretch the greater one is the newer.
    pub revision: u64,
    /// The pipeline's name.
    pub pipeline: Label<'a>,
    /// The source's name.
    pub source: Label<'a>,
    /// The stream's table.
    pub channel: Label<'a>,
    /// Tells apart two instruments of one name; mostly empty.
    pub listing: Label<'a>,
    /// `received`, `backfilled`, `open`, `absent`, `lost`, `unknown`, …: as `tidegate coverage` says it.
    pub state: Label<'a>,
    /// Why, where there is more to say.
    pub reason: Option<Label<'a>>,
    /// Its first moment, by the venue's clock.
    pub ts_from: Timestamp,
    /// The moment behind its last one; absent as long as it goes on.
    pub ts_to: Option<Timestamp>,
    /// How many rows of the stream had come live by then, since the ledger began.
    pub rows_received: u64,
    /// How many by the venue's history.
    pub rows_backfilled: u64,
    /// What shows that nothing is missing: `dense_sequence`, `linked`, `history` or `none`.
    pub proof: Label<'a>,
}

row!(Coverage<'_> => "coverage", [
    revision, pipeline, source, channel, listing, state, reason, ts_from, ts_to, rows_received, rows_backfilled, proof,
]);

impl Coverage<'_> {
    /// The columns that, beside `symbol`, say which stretch a row is about.
    pub const KEY: [&'static str; 5] = ["pipeline", "source", "channel", "listing", "ts_from"];
}

/// How a stage of the pipeline is, once a minute; its name is the row's `symbol`. Table `status`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Status<'a> {
    /// The pipeline's name.
    pub pipeline: Label<'a>,
    /// `starting`, `healthy`, `degraded`, `failed` or `stopped`.
    pub status: Label<'a>,
    /// Why, in words.
    pub reason: Option<&'a str>,
    /// Since when it is so.
    pub since: Timestamp,
    /// All that `/health` says of the stage, as JSON.
    pub detail: &'a str,
}

row!(Status<'_> => "status", [pipeline, status, reason, since, detail]);
