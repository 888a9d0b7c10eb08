//! What the author of another kind of source implements: [`Source`], for everything that is no stream of frames.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Result,
    health::StageHealth,
    http::HttpClient,
    intake::{Asks, Handover, Link, LinkId, Step},
    metrics::SourceMetrics,
    protocol::Outbox,
    row::{Mark, Origin, Row, Table, Timestamp},
};

/// Something that records come from: a polled address, a file, another process.
///
/// The connection driver is the `Source` of every [`Protocol`](crate::protocol::Protocol).
#[async_trait]
pub trait Source: Send + 'static {
    /// Returns the tables of the rows that it emits. Asked once, before `run`.
    fn tables(&self) -> Vec<Table>;

    /// Emits records until `cx.stop` is cancelled, then returns.
    ///
    /// # Errors
    ///
    /// `Transient`: called again, on a new instance with a new context, after the back-off. `Permanent` and `Config`:
    /// waits for a person. Returning `Ok` before it was asked to stop says that there is nothing more to come.
    async fn run(self: Box<Self>, cx: SourceContext) -> Result<()>;
}

/// A source's way to the log, and what it needs to know of the world.
///
/// # Links
///
/// The streams of a link are numbered from its beginning, so a source that is run again has new ones: every
/// [`link`](Self::link) has a number of its own.
#[derive(Debug)]
pub struct SourceContext {
    /// The source's name.
    pub name: Arc<str>,
    /// Where it may keep files of its own.
    pub folder: PathBuf,
    /// The open gaps of its streams.
    pub asks: Asks,
    /// Cancelled when it should end.
    pub stop: CancellationToken,
    /// The health of its stage.
    pub health: StageHealth,
    /// The metrics of its stage.
    pub metrics: SourceMetrics,
    /// Calls over HTTP.
    pub http: HttpClient,
    /// Whether the spool takes rows of a feed that cannot wait.
    pub(crate) room: watch::Receiver<bool>,
    lines: Lines,
    synced: watch::Receiver<u64>,
    /// Made at the first [`emit`](Self::emit).
    link: Option<Link>,
}

/// Makes the links of one source. Kept by whoever runs it, so that no number is given twice.
#[derive(Debug, Clone)]
pub struct Lines {
    /// The source's number in the pipeline.
    pub source: u16,
    /// The tables of its rows.
    pub tables: Vec<Table>,
    /// The queue to intake.
    pub queue: mpsc::Sender<Handover>,
    next: Arc<AtomicU16>,
    /// The links below this number are known to have ended.
    ended: Arc<AtomicU16>,
}

/// What [`SourceContext::new`] is made of.
#[derive(Debug)]
pub struct SourceParts {
    /// The source's name.
    pub name: Arc<str>,
    /// Where it may keep files of its own.
    pub folder: PathBuf,
    /// Its links.
    pub lines: Lines,
    /// The open gaps of its streams.
    pub asks: Asks,
    /// The highest offset that is fsynced.
    pub synced: watch::Receiver<u64>,
    /// Whether the spool takes rows of a feed that cannot wait.
    pub room: watch::Receiver<bool>,
    /// Cancelled when it should end.
    pub stop: CancellationToken,
    /// The health of its stage.
    pub health: StageHealth,
    /// Calls over HTTP.
    pub http: HttpClient,
}

impl Lines {
    /// Returns the maker of the links of a source, whose rows are of these tables.
    pub fn new(source: u16, tables: Vec<Table>, queue: mpsc::Sender<Handover>) -> Self {
        Self { source, tables, queue, next: Arc::default(), ended: Arc::default() }
    }

    /// Ends, in the log, the sessions that the links made so far may have left open: a source that panicked or was
    /// dropped cannot say it itself. Harmless for those that did.
    pub(crate) async fn end_all(&self, why: &str) {
        let next = self.next.load(Ordering::Relaxed);
        for line in self.ended.swap(next, Ordering::Relaxed)..next {
            // A pipeline that has ended has no sessions.
            drop(self.queue.send(Handover::gone(LinkId { source: self.source, line }, why)).await);
        }
    }

    /// Returns a new link that collects at most `limit` bytes while intake is busy.
    pub(crate) fn link(&self, limit: usize) -> Link {
        let line = self.next.fetch_add(1, Ordering::Relaxed);
        Link::new(LinkId { source: self.source, line }, self.tables.clone(), self.queue.clone(), limit)
    }
}

impl SourceContext {
    /// Returns the context of one run of a source.
    pub fn new(parts: SourceParts) -> Self {
        let metrics = SourceMetrics::new(parts.health.id());
        let SourceParts { name, folder, lines, asks, synced, room, stop, health, http } = parts;
        Self { name, folder, asks, stop, health, metrics, http, room, lines, synced, link: None }
    }

    /// Returns a new link that collects at most `limit` bytes while intake is busy, or the spool is full.
    pub fn link(&self, limit: usize) -> Link {
        self.lines.link(limit)
    }

    /// Adds a row that came at `received` to what the next [`flush`](Self::flush) hands over.
    pub fn emit<R: Row>(&mut self, received: Timestamp, mark: Mark<'_>, row: &R) {
        let outbox = self.outbox();
        outbox.begin(received, Origin::Live);
        outbox.emit(mark, row);
    }

    /// Waits until the log is on disk up to an offset.
    pub(crate) async fn synced(&mut self, offset: u64) -> Result<()> {
        let synced = self.synced.wait_for(|synced| *synced >= offset).await;
        synced.map(drop).map_err(|_| Error::permanent("the pipeline has ended"))
    }

    /// Hands the rows to the log, and returns when they are on disk: now the source may acknowledge what it read.
    ///
    /// A full spool is waited for, unless `when_full` says that what comes is dropped.
    ///
    /// # Errors
    ///
    /// `Permanent` when the pipeline has ended. `Transient` when it is told to stop before there is room for the rows.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the rows of a dropped call may or may not be stored.
    pub async fn flush(&mut self) -> Result<()> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let rows = link.outbox().records().len();
        self.health.received(tokio::time::Instant::now(), rows as u64);
        self.metrics.records.increment(rows as u64);
        let logged = link.logged().await?;
        if link.was_refused() {
            if self.stop.is_cancelled() {
                return Err(Error::transient("the spool is full, and the pipeline stops"));
            }
            // What comes from now on is of another session.
            link.step(Step::Opened);
        }
        self.synced(logged).await
    }

    /// Ends what [`emit`](Self::emit) began, in the log. A source calls it last.
    ///
    /// # Errors
    ///
    /// `Permanent` when the pipeline has ended.
    pub async fn finish(&mut self, why: &str) -> Result<()> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.step(Step::Ended { why: why.to_owned() });
        link.handed_over().await
    }

    fn outbox(&mut self) -> &mut Outbox {
        let lines = &self.lines;
        let link = self.link.get_or_insert_with(|| {
            let mut link = lines.link(SIMPLE_LIMIT);
            link.step(Step::Opened);
            link
        });
        link.outbox()
    }
}

/// What a simple source may collect between two flushes, in bytes. It waits at each flush, so this is never reached.
const SIMPLE_LIMIT: usize = 64 << 20;
