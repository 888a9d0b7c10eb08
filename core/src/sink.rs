//! What a store's author implements: [`Sink`], which writes chunks, each as often as it is asked to.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::{
    Error, Result,
    chunk::{Chunk, Part, SinkTable},
    spool::{Cause, SpoolPosition},
    verify::Audit,
};

/// A store.
///
/// The delivery driver owns chunking, timeout, retry, breaker, dead letters, order, health and metrics. It calls one
/// method at a time, and always `open` first: at the start, and again after every error and after every call that it
/// gave up waiting for.
#[async_trait]
pub trait Sink: Send + 'static {
    /// Connects, creates or checks the tables, takes ownership (fencing an older owner), settles what is in doubt, and
    /// says where the store is: one position for each part that it knows. None for a store that was never written to.
    ///
    /// Called again on a sink that is open, it starts from nothing: the connection may be in any state.
    ///
    /// What it says is final: nothing of an earlier `write`, of this process or an older one, may land once it has returned.
    /// The driver goes by that: what lies behind the position is free from then on, and a full spool that drops its oldest
    /// rows may say of it that this sink did not get it. A store that guards its position but cannot tell whether a late
    /// commit is still on its way (no lock, no fence, no transaction that ends with the connection) would give such a row two
    /// fates: let it promise [`Guarantee::AtLeastOnce`] or [`Guarantee::DedupKeys`], for which nothing in doubt is dropped.
    ///
    /// # Errors
    ///
    /// `Permanent` when a table does not fit and cannot be mended, naming table and column; when another spool or
    /// newer owner holds the position. `Transient` when the store cannot be reached.
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>>;

    /// Commits all tables of `chunk` and the position `chunk.to` if the store is at `chunk.from`, else nothing. With
    /// refusals, commits nothing and returns all of them together: the sink finds them itself.
    ///
    /// Called again with the same chunk after any error, always after `open`, so writing a chunk twice must leave the
    /// store as it was after the first time.
    ///
    /// # Errors
    ///
    /// `Transient`: the store may take it later; a missed guard counts here, `open` decides. `Permanent`: the store
    /// needs a person; no row is blamed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: whether a dropped call has committed is unknown until the next `open`.
    async fn write(&mut self, chunk: &Chunk) -> Result<Written>;

    /// Returns up to where `Accepted` writes are durable now; `None` as long as there is nothing new. A sink that answers a
    /// write with `Accepted` implements it.
    ///
    /// Asked again and again while something accepted is not known to be durable, at least each second, so this is also
    /// where a sink looks whether its time has come to make it so.
    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        Ok(None)
    }

    /// Asks the store whether it lives and is still ours: table ids, keys, ownership. Called when there is nothing to
    /// write and nothing accepted, and by `tidegate check --connect`.
    async fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// Looks whether the store can be reached, without taking ownership or changing anything, and says in a few words what
    /// it found. Asked by `tidegate check --connect` instead of `open`, beside a host that may be running.
    ///
    /// # Errors
    ///
    /// As those of `open`, for what can be seen without it: that a table lacks what a person has to make, with the statement.
    async fn reach(&mut self, tables: &[SinkTable]) -> Result<String> {
        _ = tables;
        Ok("this sink has nothing to dial".to_owned())
    }

    /// Opens a look at what the store holds, without taking ownership or changing anything, beside a host that may be running;
    /// `None` for a store that cannot be asked. Used by `tidegate verify`, instead of `open`.
    ///
    /// # Errors
    ///
    /// Any, when the store cannot be reached.
    async fn audit(&mut self, cx: &SinkContext) -> Result<Option<Box<dyn Audit>>> {
        _ = cx;
        Ok(None)
    }

    /// Makes durable what was accepted, and ends the connection in good order. Everything was written before; `Ok` says
    /// that all of it is durable. After an error, or a call that was given up, the next start asks `open` how far it came.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }

    /// Returns about how many bytes of rows it accepts before it makes them durable: so much waits in the spool, which has
    /// to have room for it. None for a sink that commits each write or soon after. Asked before `open`, too.
    fn holds_back(&self) -> u64 {
        0
    }

    /// Returns the other pipelines that have written to the tables of the last `open`, where it found no position: this
    /// pipeline may be one of them under another name. None for a store that cannot tell.
    fn neighbours(&self) -> Vec<Neighbour> {
        Vec::new()
    }

    /// Returns the newest position of this spool of which the last `open` found rows, for a store that keeps no position: one
    /// that the spool never had shows that the spool was restored from an older copy. Rows are sent again from where the note
    /// beside the spool says, never from here. None where nothing was found.
    fn newest(&self) -> Option<SpoolPosition> {
        None
    }

    /// Returns what the store promises, whatever is in it: asked before the first `open`, to be said once at the start, and
    /// after each.
    fn guarantee(&self) -> Guarantee;

    /// Returns where the store promises less than [`guarantee`](Self::guarantee) says, by what is in it: a table of the user's
    /// without what the promise rests on, a setting. Asked after each `open`; said once, and shown in health.
    fn weaker(&self) -> Vec<Weaker> {
        Vec::new()
    }

    /// Returns the unique keys that tables in the store have, whoever made them, as the last `open` or `reach` found them: what
    /// they would refuse or merge is measured as it is for a key that is declared. None for a store that has no such thing.
    fn unique_keys(&self) -> Vec<UniqueKey> {
        Vec::new()
    }

    /// Reads who has the position that goes by the owner's pipeline and sink, whichever spool it belongs to. Makes nothing,
    /// takes nothing. None where there is no such position, and for a store that keeps none.
    ///
    /// # Errors
    ///
    /// `Transient` when the store cannot be reached, `Permanent` when what it holds cannot be read.
    async fn claim(&mut self, owner: &Owner) -> Result<Option<Claim>> {
        let _ = owner;
        Ok(None)
    }

    /// Gives the position to the owner's spool and puts it at `at`, whoever had it and wherever it was: a person has decided
    /// so, and nobody runs the pipeline. Rows are left as they are; tables that are gone may be made anew. Twice is once.
    /// Asked instead of `open`, of a store that keeps a position, or has a [`Claim`].
    ///
    /// # Errors
    ///
    /// `Permanent` where that cannot be, saying what is in the way; `Transient` when the store cannot be reached.
    async fn adopt(&mut self, owner: &Owner, at: SpoolPosition) -> Result<()> {
        let _ = at;
        Err(unadoptable(owner))
    }

    /// Gives the position that goes by the names of `old` those of `owner`. Twice is once; nothing where there is none.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Self::adopt); `Permanent` where something was written under the new names, too.
    async fn rename(&mut self, old: &Owner, owner: &Owner) -> Result<()> {
        let _ = old;
        Err(unadoptable(owner))
    }
}

fn unadoptable(owner: &Owner) -> Error {
    let sink = &owner.sink;
    Error::permanent(format!(
        "the store of `{sink}` does not let its position be changed: a sink of its type cannot do that"
    ))
}

/// Who has a position in a store, and what became of the tables that it was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where the store is; [`SpoolPosition::START`] if nothing was written.
    pub position: SpoolPosition,
    /// The id of the spool that it was fed from.
    pub spool: u64,
    /// The host that wrote last.
    pub host: String,
    /// Tables that were there, by their names in the store, and are gone.
    pub gone: Vec<String>,
}

/// What a sink gets to know when it is opened.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// Who writes.
    pub owner: Owner,
    /// What is written, with resolved names. `TableRows::table` counts in here.
    pub tables: Vec<SinkTable>,
    /// A directory of the sink's own beside the spool; exists.
    pub directory: PathBuf,
    /// What is known of the store's position beside the spool. Where there is one, a store without is not a new one: it was
    /// moved away, emptied or replaced. Then nothing is made in it, and `open` returns no position.
    pub known: Option<SpoolPosition>,
}

/// Who owns a position in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's name.
    pub sink: String,
    /// The part whose position it is.
    pub part: Part,
    /// The spool's id. Of a part of another log: that of the log, whoever reads it.
    pub spool: u64,
    /// The host's name.
    pub host: String,
    /// A hash of what stands between the spool and the store: tables, columns, names.
    pub chain: u64,
}

/// Another pipeline that has written to the same tables, as its position in the store tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's name.
    pub sink: String,
    /// The id of its spool.
    pub spool: u64,
    /// The host that wrote last.
    pub host: String,
    /// The tables that both write to.
    pub tables: Vec<String>,
}

/// The outcome of a write.
#[derive(Debug)]
pub enum Written {
    /// Rows and position are durable, and so is everything that was accepted before.
    Committed,
    /// The store took them and will make them durable: [`Sink::applied`] says when. They stay in the spool until then.
    Accepted,
    /// Nothing was written, since the store will never take these rows.
    Refused(Vec<Refusal>),
}

/// A row that the store will never take.
#[derive(Debug)]
pub struct Refusal {
    /// Which row.
    pub cause: Cause,
    /// Its table's number in `SinkContext::tables`.
    pub table: usize,
    /// Why.
    pub error: Error,
}

/// A table for which a store promises less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weaker {
    /// The table, as it is called in the store.
    pub table: String,
    /// What is promised for it.
    pub guarantee: Guarantee,
    /// Why, and what a person may do about it.
    pub why: String,
}

impl std::fmt::Display for Weaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, guarantee, why } = self;
        write!(f, "table `{table}` is {guarantee}: {why}")
    }
}

/// Columns of a table in a store of which no two rows may have the same values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueKey {
    /// The table, as it is called in the store.
    pub table: String,
    /// The columns, as they are called there.
    pub columns: Vec<String>,
}

/// How often a row ends up in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarantee {
    /// Exactly once: rows and position are one transaction.
    Transaction,
    /// Exactly once for readers that see committed messages only: rows and position are one transaction.
    ReadCommitted,
    /// Exactly once: what lies behind the recorded length after a restart is cut off before the first write.
    Truncation,
    /// Exactly once: rows count from the moment at which their finished file gets its name.
    Rename,
    /// Exactly once: the store keeps one row for each of these keys.
    DedupKeys(Vec<String>),
    /// At least once: a crash at the wrong moment doubles rows.
    AtLeastOnce,
}

impl Guarantee {
    /// Returns whether the store keeps its position itself; if not, the one beside the spool counts.
    pub(crate) fn keeps_position(&self) -> bool {
        !matches!(self, Self::AtLeastOnce | Self::DedupKeys(_))
    }
}

impl std::fmt::Display for Guarantee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transaction => f.write_str("exactly-once (transaction)"),
            Self::ReadCommitted => f.write_str("exactly-once (read_committed readers)"),
            Self::Truncation => f.write_str("exactly-once (truncation)"),
            Self::Rename => f.write_str("exactly-once (rename)"),
            Self::DedupKeys(keys) => write!(f, "exactly-once (dedup keys {})", keys.join(", ")),
            Self::AtLeastOnce => f.write_str("at-least-once"),
        }
    }
}
