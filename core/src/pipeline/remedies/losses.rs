//! What a sink never gets, counted row by row, and written down once.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use super::{Rows, course::Loss, log_of};
use crate::{
    Result,
    delivery::{Log, Seen},
    row::Timestamp,
    spool::{Control, Item, SpoolReader},
};

/// Rows in the spool, as one sink would get them.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Those of each loss, by table.
    pub(super) lost: Vec<Rows>,
    /// What has to be written down of the losses; those that have been are not in it.
    pub(super) entries: Vec<Control>,
    /// Those that are sent, and had been sent once.
    pub(super) again: Rows,
    /// Those that are sent for the first time.
    pub(super) first: Rows,
}

/// What is counted.
pub(super) struct Count<'a> {
    pub(super) sink: &'a str,
    /// Behind this offset rows are sent; none where nothing is.
    pub(super) sent_behind: Option<u64>,
    /// Up to here they had been sent.
    pub(super) had: u64,
    pub(super) losses: &'a [Loss],
    pub(super) names_of: &'a NamesOf<'a>,
}

/// Returns the names in the store of what is made of a source's table; none where the sink does not take it.
pub(super) type NamesOf<'a> = dyn Fn(&Arc<str>, &Arc<str>) -> Vec<String> + 'a;

impl Count<'_> {
    /// Reads all that the spool has.
    pub(super) fn take(&self, reader: &SpoolReader) -> Result<Counted> {
        let known = self.written_down(reader)?;
        let is_known = |offset: u64| known.iter().any(|&(first, last)| (first..=last).contains(&offset));
        let mut counted = Counted { lost: vec![Rows::default(); self.losses.len()], ..Counted::default() };
        let mut streams: Vec<BTreeMap<u32, u64>> = vec![BTreeMap::new(); self.losses.len()];
        each(reader, |offset, item, table| {
            let (Item::Row(row, _), Some((source, table))) = (item, table) else { return };
            let names = (self.names_of)(source, table);
            if names.is_empty() {
                return;
            }
            for (n, loss) in self.losses.iter().enumerate() {
                let is_gone = |name: &String| loss.tables.iter().any(|gone| gone.eq_ignore_ascii_case(name));
                let is_meant = loss.tables.is_empty() || names.iter().any(is_gone);
                if is_meant && (loss.first..=loss.last).contains(&offset) && !is_known(offset) {
                    counted.lost[n].add(table);
                    *streams[n].entry(row.head.stream).or_insert(0) += 1;
                }
            }
            if self.sent_behind.is_some_and(|behind| offset > behind) {
                if offset <= self.had { &mut counted.again } else { &mut counted.first }.add(table);
            }
        })?;
        let at = Timestamp::now();
        for (loss, rows) in self.losses.iter().zip(streams) {
            let is_written = known.iter().any(|&(first, last)| first <= loss.first && loss.last <= last);
            let is_in_spool = loss.last > reader.oldest().offset;
            if is_written || (is_in_spool && rows.is_empty()) {
                continue;
            }
            counted.entries.push(Control::Skipped {
                sink: self.sink.to_owned(),
                offsets: (loss.first, loss.last),
                rows: rows.into_iter().collect(),
                why: loss.why.clone(),
                at,
            });
        }
        Ok(counted)
    }

    /// Returns the offsets of which the spool says already that the sink never gets them.
    fn written_down(&self, reader: &SpoolReader) -> Result<Vec<(u64, u64)>> {
        let mut known = Vec::new();
        each(reader, |_, item, _| match item {
            Item::Control(Control::Skipped { sink, offsets, .. }) if sink == self.sink => known.push(*offsets),
            Item::Control(Control::Dropped { sinks, offsets: Some(offsets), .. })
                if sinks.iter().any(|sink| sink == self.sink) =>
            {
                known.push(*offsets);
            }
            Item::Control(_) | Item::Row(..) => {}
        })?;
        Ok(known)
    }
}

/// Returns how many dead letters are on their way to a sink again, behind an offset.
pub(super) fn redriven_behind(reader: &SpoolReader, sink: &str, had: u64) -> Result<u64> {
    let mut waiting = 0;
    each(reader, |offset, item, _| {
        let is_meant = matches!(item, Item::Control(Control::Redrive { sink: to, .. }) if to == sink);
        waiting += u64::from(is_meant && offset > had);
    })?;
    Ok(waiting)
}

/// Shows every item that there is, a row with the names of its source and its table.
fn each(reader: &SpoolReader, mut visit: impl FnMut(u64, &Item<'_>, Option<(&Arc<str>, &Arc<str>)>)) -> Result<()> {
    let mut log = log_of(reader);
    let (mut position, end) = (reader.oldest(), reader.end().offset);
    while position.offset < end {
        log.seek(position)?;
        let before = position;
        log.read(end, &mut |seen| {
            match seen {
                Seen::Item { position: at, item, source, .. } => {
                    let table = source.as_ref().map(|source| (source.source, &source.table.name));
                    visit(at.offset, &item, table);
                    position = at;
                }
                Seen::Missing { position: at }
                | Seen::Void { position: at, .. }
                | Seen::Poison { position: at, .. } => {
                    position = at;
                }
            }
            ControlFlow::Continue(())
        })?;
        if position == before {
            break;
        }
    }
    Ok(())
}
