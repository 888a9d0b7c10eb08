//! The ledger's way to the table `coverage`: its statements go to intake over a link, as the rows of any source do.
//!
//! What was said is what the ledger reads in the log. So a statement is made again until it is found there, and no more: while
//! some are on their way nothing is said, and after a crash all that is durable is read before the first word.

use tokio_util::sync::CancellationToken;

use super::{Proof, store::Store, told::Statement};
use crate::{
    Result,
    chunk::RowSource,
    intake::{Link, Step},
    own::{self, Coverage},
    row::{Label, Mark, Origin, Position, Reader, Row as _, Timestamp},
    source::Lines,
    spool::Item,
};

/// What a ledger needs to tell the table.
pub(crate) struct Telling {
    /// The links of the pipeline's own source.
    pub(crate) lines: Lines,
    /// Cancelled when no source says anything any more: then comes the last word.
    pub(crate) done: CancellationToken,
}

/// Tells the table.
pub(super) struct Teller {
    pipeline: String,
    link: Link,
    pub(super) done: CancellationToken,
    /// The end of what is on its way: nothing is said until the ledger has read so far.
    said_upto: u64,
}

impl Teller {
    pub(super) fn new(pipeline: &str, telling: &Telling) -> Self {
        let (pipeline, done) = (pipeline.to_owned(), telling.done.clone());
        Self { pipeline, link: telling.lines.link(LIMIT), done, said_upto: 0 }
    }

    /// Says what the log lacks, if nothing is on its way; never waits. `read` is how far the ledger has got.
    pub(super) async fn tell(&mut self, store: &mut Store, read: u64) -> Result<()> {
        if !self.link.is_logged() {
            return Ok(());
        }
        self.said_upto = self.link.logged_upto();
        if self.link.was_refused() {
            // There was no room: what is missing is said again, in another session.
            self.link.step(Step::Opened);
        }
        if read >= self.said_upto && self.emit(store, 0).await?.is_some() {
            // What is thrown away, or comes too late, is not in the log, and said again.
            drop(self.link.hand_over());
        }
        Ok(())
    }

    /// Waits until intake has taken all that anybody has handed over so far; returns the end of it.
    pub(super) async fn end(&mut self) -> Result<u64> {
        self.link.step(Step::Ended { why: "the pipeline stops".to_owned() });
        self.link.logged().await
    }

    /// Says all that the log lacks.
    pub(super) async fn last_word(&mut self, store: &mut Store) -> Result<()> {
        let mut said = 0;
        while let Some(revision) = self.emit(store, said).await? {
            if self.link.logged().await.is_err() {
                return Ok(());
            }
            said = revision;
        }
        Ok(())
    }

    /// Puts the next statements behind a revision into the link, as far as they are not in the log; returns the last one's.
    async fn emit(&mut self, store: &mut Store, behind: u64) -> Result<Option<u64>> {
        let statements = store.unsaid(behind, AT_ONCE).await?;
        self.link.outbox().begin(Timestamp::now(), Origin::Live);
        for Statement { revision, source, channel, symbol, listing, state, reason, from, to, rows, proof } in
            &statements
        {
            let row = Coverage {
                revision: *revision,
                pipeline: Label(&self.pipeline),
                source: Label(source),
                channel: Label(channel),
                listing: Label(listing),
                state: Label(state),
                reason: reason.as_deref().map(Label),
                ts_from: *from,
                ts_to: *to,
                rows_received: rows.0,
                rows_backfilled: rows.1,
                proof: Label(proof.name()),
            };
            self.link.outbox().emit(Mark { symbol, position: Position::Unnumbered, ts_event: *from }, &row);
        }
        Ok(statements.last().map(|last| last.revision))
    }
}

/// Reads a statement of the ledger's own that is in the log; `None` for anything else.
pub(super) fn said(item: &Item<'_>, from: Option<&RowSource<'_>>) -> Option<Statement> {
    let (Item::Row(_, bytes), Some(from)) = (item, from) else { return None };
    if *from.table.name != *Coverage::TABLE || **from.source != *own::SOURCE {
        return None;
    }
    let mut reader = Reader::new(bytes);
    let present = reader.u64()?;
    let has = |column: &str| {
        let number = from.table.columns.iter().position(|known| *known.name == *column);
        number.is_some_and(|number| present >> number & 1 == 1)
    };
    let revision = reader.u64()?;
    let _pipeline = reader.text()?;
    let mut text = || reader.text().map(str::to_owned);
    let (source, channel, listing, state) = (text()?, text()?, text()?, text()?);
    let reason = if has("reason") { Some(text()?) } else { None };
    let symbol = from.key.symbol.to_string();
    let from = Timestamp(reader.i64()?);
    let to = if has("ts_to") { Some(Timestamp(reader.i64()?)) } else { None };
    let rows = (reader.u64()?, reader.u64()?);
    let proof = reader.text()?;
    let proof = Proof::ALL.into_iter().find(|known| known.name() == proof)?;
    Some(Statement { revision, source, channel, symbol, listing, state, reason, from, to, rows, proof })
}

/// So many statements are on their way at once.
const AT_ONCE: usize = 2_000;
/// More than they take.
const LIMIT: usize = 64 << 20;
