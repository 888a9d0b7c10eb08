//! Dead letters: of rows that the store refuses, and of rows for which a derived table has no value.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
};

use super::{Feeder, Log, Seen, row_for};
use crate::{
    Result,
    chunk::{ChunkBuilder, ColumnView, JsonRows, RowOrigin, TableRows, Unfit},
    deadletter::DeadLetter,
    row::Timestamp,
    sink::Refusal,
    spool::{Cause, SpoolPosition},
};

impl<L: Log> Feeder<L> {
    /// Returns what these rows of derived tables were made of, by their offsets; all lie behind `from`.
    pub(crate) fn origins(&mut self, from: SpoolPosition, offsets: &HashSet<u64>) -> Result<BTreeMap<u64, RowOrigin>> {
        let Some(last) = offsets.iter().max().copied() else { return Ok(BTreeMap::new()) };
        self.position = None;
        let Self { log, plan, sink, .. } = self;
        log.seek(from)?;
        let (mut builder, none) = (ChunkBuilder::new(plan.clone()), HashSet::new());
        log.read(last, &mut |seen| {
            if let Seen::Item { position, item, source: Some(source), .. } = &seen
                && offsets.contains(&position.offset)
                && let Some((head, bytes)) = row_for(sink, item)
            {
                let cause = Cause { boot: position.boot, offset: position.offset, sub: 0 };
                builder.push(cause, head, bytes, *source, &none);
            }
            ControlFlow::Continue(())
        })?;
        Ok(builder.origins())
    }

    /// Returns the offsets of the refused rows that are of derived tables.
    pub(crate) fn derived_among(&self, refusals: &[Refusal]) -> HashSet<u64> {
        let derived = refusals
            .iter()
            .filter(|refusal| refusal.table < self.plan.tables().len() && self.plan.root(refusal.table).is_some());
        derived.map(|refusal| refusal.cause.offset).collect()
    }

    /// Makes the dead letters of refused rows. `None` when a refusal names no row of the chunk.
    ///
    /// `origins` are those of the rows of derived tables: a letter has the row of the source, so that it can be sent again
    /// by way of a `where` and a `select` that were mended.
    pub(crate) fn letters(
        &self,
        rows: &[TableRows],
        refusals: &[Refusal],
        at: Timestamp,
        origins: &BTreeMap<u64, RowOrigin>,
    ) -> Option<Vec<DeadLetter>> {
        refusals.iter().map(|refusal| self.refused(rows, refusal, at, origins)).collect()
    }

    fn refused(
        &self,
        rows: &[TableRows],
        refusal: &Refusal,
        at: Timestamp,
        origins: &BTreeMap<u64, RowOrigin>,
    ) -> Option<DeadLetter> {
        let part = rows.iter().find(|part| part.table == refusal.table)?;
        let number = part.causes.binary_search_by_key(&refusal.cause.offset, |cause| cause.offset).ok()?;
        let origin = match self.plan.root(refusal.table) {
            Some(_) => origins.get(&refusal.cause.offset)?.clone(),
            None => {
                let mut text = Vec::new();
                JsonRows::new(&part.rows.slice(number, 1)).write(0, &mut text);
                let row = serde_json::from_slice(&text).ok()?;
                RowOrigin { row, stream: *part.streams.get(number)?, ts_event: time_of(part, number)? }
            }
        };
        self.letter(refusal.cause, refusal.table, origin, refusal.error.chain(), at)
    }

    /// Makes the dead letter of a row for which a derived table has no value.
    pub(super) fn unfit(&self, unfit: Unfit) -> Option<DeadLetter> {
        let Unfit { cause, table, origin, why } = unfit;
        self.letter(cause, table, origin, why, Timestamp::now())
    }

    fn letter(
        &self,
        cause: Cause,
        table: usize,
        origin: RowOrigin,
        error: String,
        at: Timestamp,
    ) -> Option<DeadLetter> {
        let (source, stream) = self.builder.stream(origin.stream)?;
        let root = self.plan.root(table);
        let table = if root.is_some() { &self.plan.tables()[table].table.name } else { &stream.table };
        let redriven = self.redrives.get(&cause);
        Some(DeadLetter {
            sink: self.sink.clone(),
            boot: cause.boot,
            offset: cause.offset,
            sub: cause.sub,
            source: source.to_string(),
            table: table.to_string(),
            from: root.map_or_else(String::new, |root| root.to_string()),
            symbol: stream.symbol.to_string(),
            listing: stream.listing.to_string(),
            ts_event: origin.ts_event,
            row: origin.row,
            error,
            when: at,
            redrive_of: redriven.map(|redriven| redriven.letter),
            redriven: None,
        })
    }
}

fn time_of(part: &TableRows, row: usize) -> Option<Timestamp> {
    let ColumnView::Time(times) = ColumnView::of(part.rows.column(0)) else { return None };
    Some(Timestamp(times.value(row)))
}
