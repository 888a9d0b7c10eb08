//! Whether spool, ledger and stores agree: of a pipeline that runs, or stands still. Nothing is changed.
//!
//! ```text
//! stores ──Audit: position, sums, rows──┐   asked first: what they have is in the spool, or was
//! ledger ──counts, up to an offset──────┼──→ differences, each with its stream and range
//! spool  ──every item that is retained──┘   each offset gets its fate anew, for each sink
//! ```
//!
//! Rows that the spool still has are held against the store one by one where the sums of their stream differ: what tells rows
//! apart is summed up by the store, their values here, from rows that are read in blocks. What the spool has let go of is
//! compared by the ledger's count alone.

mod audit;
mod compare;
mod expected;
mod report;
mod values;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

pub use audit::{Audit, Doubled, RowId, ShowValues, Stream, Sum};
pub use report::{Difference, Kind, SinkVerified, Verdict, Verified};
#[cfg(any(test, feature = "testkit"))]
pub(crate) use values::Printer;
pub use values::Values;

use compare::Compared;
use expected::{Deriving, Printing, Wanted};

use crate::{
    Error, Result,
    chunk::{Part, Plan, SinkTable},
    config::{Pipeline, SinkStage, SourceStage},
    deadletter,
    delivery::{self, Fates, Known, Noted},
    ledger::{Coverage, Keeper},
    own,
    pipeline::Folder,
    row::Timestamp,
    sink::{Owner, SinkContext},
    spool::{SourceInfo, SpoolPosition, SpoolReader, disk::RealDisk, inspect},
};

/// Compares a pipeline's spool, ledger and stores; rows that came before `since` are left out.
///
/// # Errors
///
/// Those of reading the spool: without it nothing can be told.
pub async fn verify(pipeline: &Pipeline, folder: &Folder, since: Option<Timestamp>) -> Result<Verified> {
    let mut tries = 0;
    loop {
        // A pipeline that runs may let go of a segment that is being read: then all is looked at once more.
        match look(pipeline, folder, since).await {
            Err(error) if tries < TRIES && (has_let_go(&error) || is_without_its_file(&error)) => tries += 1,
            looked => return looked,
        }
    }
}

async fn look(pipeline: &Pipeline, folder: &Folder, since: Option<Timestamp>) -> Result<Verified> {
    let mut sources: Vec<SourceInfo> = pipeline.sources.iter().map(SourceStage::info).collect();
    sources.push(own::whole_source());
    let mut looks = Vec::new();
    for stage in &pipeline.sinks {
        looks.push(Look::at(pipeline, folder, stage, &sources).await);
    }
    let ledger = Coverage::read(&folder.ledger(), None, Keeper::Recording).await;
    let reader = beside(folder).await?;
    let end = reader.end().offset;
    let mut verified = Verified::new(&pipeline.name, (reader.oldest().offset + 1, end));
    let ledger = verified.ledger(ledger);
    let upto = ledger.as_ref().map_or(0, |ledger| ledger.offset);
    let mut wanted = Vec::new();
    for look in &mut looks {
        if let Some(of_sink) = look.wanted(folder, &reader, since).await? {
            wanted.push(of_sink);
        }
    }
    let venues: HashMap<&str, &str> = sources.iter().map(|source| (&*source.name, &*source.venue)).collect();
    let (reading, sinks) = (reader.clone(), wanted);
    let read = move || {
        let mut sinks = sinks;
        expected::read(&reading, &mut sinks, upto).map(|seen| (seen, sinks))
    };
    let (seen, mut wanted) = blocking(read).await??;
    if !seen.missing.is_empty() {
        let oldest = beside(folder).await?.oldest().offset;
        if seen.missing.iter().any(|(first, _)| *first <= oldest && reader.oldest().offset < oldest) {
            return Err(let_go());
        }
        wanted.iter_mut().for_each(|wanted| wanted.missing.clone_from(&seen.missing));
    }
    verified.unreadable(&seen.missing);
    if let Some(ledger) = &ledger {
        verified.count_ledger(ledger, &seen.rows, reader.oldest().offset == 0);
    }
    for look in looks {
        let wanted = wanted.iter().position(|wanted| wanted.sink == look.name).map(|at| wanted.remove(at));
        let compared = Compared { reader: &reader, ledger: ledger.as_ref(), venues: &venues, since };
        verified.sinks.push(compare::sink(look, wanted, &compared).await?);
    }
    Ok(verified)
}

/// One sink's store.
struct Look {
    name: String,
    component: String,
    /// What can be asked, or why nothing can.
    audit: std::result::Result<Open, String>,
    /// Whether its type has no answers.
    is_mute: bool,
}

/// A store that answers.
struct Open {
    audit: Box<dyn Audit>,
    plan: Plan,
    /// The id of the spool that it was fed from.
    fed_from: Option<u64>,
    position: Option<SpoolPosition>,
    /// What was noted of it beside the spool.
    noted: Noted,
}

impl Look {
    async fn at(pipeline: &Pipeline, folder: &Folder, stage: &SinkStage, sources: &[SourceInfo]) -> Self {
        let (name, component) = (stage.name.clone(), stage.component.clone());
        let mut look = Self { name, component, audit: Err(String::new()), is_mute: false };
        look.audit = match look.open(pipeline, folder, stage, sources).await {
            Ok(Some(open)) => Ok(open),
            Ok(None) => {
                look.is_mute = true;
                Err(format!("a store of type {} cannot be asked what it holds", look.component))
            }
            Err(error) => Err(error.chain()),
        };
        look
    }

    async fn open(
        &self,
        pipeline: &Pipeline,
        folder: &Folder,
        stage: &SinkStage,
        sources: &[SourceInfo],
    ) -> Result<Option<Open>> {
        let (plan, audit) = ask(pipeline, folder, stage, sources).await?;
        let Some(mut audit) = audit else { return Ok(None) };
        // Asked before the store, which may have its first commit in between.
        let noted = Known::open(Arc::new(RealDisk::at(folder.sinks())), &self.name)?.noted();
        let (fed_from, position) = audit.position().await?.unzip();
        Ok(Some(Open { audit, plan, fed_from, position, noted }))
    }

    /// Returns what the store should hold, once the spool is known.
    async fn wanted(
        &mut self,
        folder: &Folder,
        reader: &SpoolReader,
        since: Option<Timestamp>,
    ) -> Result<Option<Wanted>> {
        let Ok(Open { audit, plan, position, noted, .. }) = &mut self.audit else { return Ok(None) };
        // Tables of sources that no file names any more were delivered as well.
        for source in reader.cursor(reader.oldest()).sources().iter() {
            if let Ok(whole) = plan.with(source.clone()) {
                *plan = whole;
            }
        }
        // A beginning in another history says nothing of this one: then nothing is left out.
        let begins_at = noted.begins_at.filter(|at| misfit(reader, *at).is_none()).map_or(0, |at| at.offset);
        let changed = noted.changed.unwrap_or(0);
        let letters = folder.dead_letters(&self.name);
        let letters = if letters.exists() { deadletter::list(&letters)?.letters } else { Vec::new() };
        let letters: HashMap<_, _> = letters.into_iter().map(|letter| (letter.cause(), letter)).collect();
        let mut columns = BTreeMap::new();
        for (number, table) in plan.tables().iter().enumerate() {
            // A table that cannot be looked at is said to be so where its rows are asked for.
            let faithful = audit.faithful(table).await.unwrap_or_default();
            columns.insert(number, expected::beyond_identity(table, faithful));
        }
        Ok(Some(Wanted {
            sink: self.name.clone(),
            printing: Printing::new(plan),
            columns,
            left_out: 0,
            asked_since: since,
            deriving: Deriving::new(plan, letters.keys().copied().collect()),
            plan: plan.clone(),
            begins_at,
            upto: position.map_or(0, |position| position.offset),
            since: border(reader, reader.oldest().offset)?.max(since.unwrap_or(Timestamp(i64::MIN))),
            changed,
            changed_at: border(reader, changed)?,
            time_unit: audit.time_unit(),
            letters,
            fates: Fates::default(),
            delivered: Default::default(),
            sums: Default::default(),
            found_letters: Default::default(),
            behind_ledger: Default::default(),
            missing: Vec::new(),
        }))
    }
}

/// Asks the store of a sink; returns what it can be asked, with the tables that the sink takes of today's sources. `None` where
/// a store of its type has no answers.
///
/// # Errors
///
/// Those of reaching the store.
pub async fn audit(
    pipeline: &Pipeline,
    folder: &Folder,
    stage: &SinkStage,
) -> Result<Option<(Box<dyn Audit>, Vec<SinkTable>)>> {
    let sources: Vec<_> = pipeline.sources.iter().map(SourceStage::info).collect();
    let (plan, audit) = ask(pipeline, folder, stage, &sources).await?;
    Ok(audit.map(|audit| (audit, plan.tables().to_vec())))
}

async fn ask(
    pipeline: &Pipeline,
    folder: &Folder,
    stage: &SinkStage,
    sources: &[SourceInfo],
) -> Result<(Plan, Option<Box<dyn Audit>>)> {
    let plan = Plan::deriving(&pipeline.name, sources.to_vec(), stage.tables.clone(), pipeline.derived.clone())?;
    let (pipeline, sink) = (pipeline.name.clone(), stage.name.clone());
    let owner = Owner { pipeline, sink, part: Part::spool(), spool: 0, host: String::new(), chain: plan.chain() };
    let directory = folder.sinks().join(&stage.name);
    let cx = SinkContext { owner, tables: plan.tables().to_vec(), directory, known: None };
    let audit = (stage.factory)()?.audit(&cx).await?;
    Ok((plan, audit))
}

/// Returns from when on all that came lies behind an offset: rows of several connections are not in the order of their times.
fn border(reader: &SpoolReader, behind: u64) -> Result<Timestamp> {
    if behind == 0 {
        return Ok(Timestamp(i64::MIN));
    }
    let first = expected::first_time(reader, behind)?;
    Ok(first.map_or(Timestamp(i64::MAX), |first| Timestamp(first.0.saturating_add(DISORDER.as_nanos() as i64))))
}

/// Opens the spool beside whoever has it. A segment that goes while it is opened makes that begin anew.
pub(crate) async fn beside(folder: &Folder) -> Result<SpoolReader> {
    let mut tries = 0;
    loop {
        let spool = folder.spool();
        match blocking(move || inspect::beside(&spool)).await? {
            Err(error) if tries < TRIES && error.kind() != crate::Kind::Config => tries += 1,
            opened => return opened,
        }
    }
}

/// What an error stands for that says that the spool was let go of while it was read.
#[derive(Debug)]
struct LetGo;

impl std::fmt::Display for LetGo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the pipeline goes on")
    }
}

impl std::error::Error for LetGo {}

fn let_go() -> Error {
    Error::transient("the spool has let go of what was being compared: try again").because(LetGo)
}

fn has_let_go(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<LetGo>())
}

/// Returns whether a segment was gone when it was to be opened.
fn is_without_its_file(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::NotFound)
}

/// Runs what reads files on a thread that may block.
pub(crate) async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::permanent("reading the spool has panicked").because(error))
}

/// Returns why a store's position does not fit the spool, if it does not.
fn misfit(reader: &SpoolReader, position: SpoolPosition) -> Option<&'static str> {
    delivery::misfit(reader.check(position))
}

/// By how much rows may come into the spool later than others that came after them.
const DISORDER: Duration = Duration::from_secs(10);
const TRIES: u32 = 5;
