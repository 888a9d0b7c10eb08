//! The values of the rows that are in both, spool and store.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    super::{
        audit::{Audit, RowId, Stream},
        expected::{self, SpoolSum, Wanted},
        report::{Kind, SinkVerified},
        values::Values,
    },
    stretches,
};
use crate::{Result, chunk::SinkTable, spool::SpoolReader};

/// The rows of some streams that the spool has, with their offsets.
type Rows = HashMap<Stream, HashMap<RowId, Vec<(u64, Values)>>>;

/// Reads all rows of a table that are compared, and names those whose values are not those of the spool. Rows that the spool can
/// no longer show with the columns of today, and columns that do not give their values back, are counted and said.
pub(super) async fn compare(
    audit: &mut dyn Audit,
    wanted: &mut Wanted,
    (number, table): (usize, &SinkTable),
    reader: &SpoolReader,
    verified: &mut SinkVerified,
) -> Result<()> {
    let columns = wanted.columns.get(&number).cloned().unwrap_or_default();
    say_what_is_not_compared(table, &columns, verified);
    if columns.is_empty() {
        return Ok(());
    }
    let since = wanted.since(number);
    let mut sums: HashMap<Stream, u64> = HashMap::new();
    let mut add = |stream: &Stream, row: RowId, values: &Values| {
        let sum = match sums.get_mut(stream) {
            Some(sum) => sum,
            None => sums.entry(stream.clone()).or_default(),
        };
        *sum = sum.wrapping_add(values.of_row(&row));
    };
    audit.show_values(table, &columns, since, &mut add).await?;
    let mut differing = BTreeSet::new();
    let mut without = 0;
    for ((_, stream), SpoolSum { rows, values, with_values, .. }) in
        wanted.sums.iter().filter(|((of, _), _)| *of == number)
    {
        without += rows - with_values;
        verified.values += with_values;
        if *rows == *with_values && sums.get(stream) != Some(values) || rows != with_values && *with_values > 0 {
            differing.insert(stream.clone());
        }
    }
    if without > 0 {
        let name = &table.name;
        verified
            .notes
            .push(format!("{name}: {without} rows had other columns when they came: their values are not compared"));
    }
    if differing.is_empty() {
        return Ok(());
    }
    let spool = rows(wanted, reader, number, &differing)?;
    let mut found = Found { spool, others: Vec::new() };
    audit.show_values(table, &columns, since, &mut |stream, row, values| found.take(stream, row, values)).await?;
    found.tell(table, &columns, verified);
    Ok(())
}

fn say_what_is_not_compared(table: &SinkTable, columns: &[usize], verified: &mut SinkVerified) {
    let name = &table.name;
    let schema = table.table.schema();
    let left_out = expected::beyond_identity(table, (0..schema.fields().len()).collect());
    let left_out: Vec<String> = left_out
        .into_iter()
        .filter(|at| !columns.contains(at))
        .map(|at| format!("`{}`", schema.field(at).name()))
        .collect();
    if columns.is_empty() {
        verified.notes.push(format!("{name}: only what tells rows apart is compared, their other values are not"));
    } else if !left_out.is_empty() {
        verified.notes.push(format!(
            "{name}: the values of {} are not compared: the column is not there, or changes them",
            left_out.join(", ")
        ));
    }
}

/// Reads the rows of some streams from the spool, with their values.
fn rows(wanted: &mut Wanted, reader: &SpoolReader, number: usize, streams: &BTreeSet<Stream>) -> Result<Rows> {
    let mut found = Rows::new();
    expected::rows_of(reader, wanted, &mut |row| {
        if let Some(values) = &row.values
            && row.table == number
            && streams.contains(row.stream)
        {
            let rows = found.entry(row.stream.clone()).or_default();
            rows.entry(row.id).or_default().push((row.offset, values.clone()));
        }
    })?;
    Ok(found)
}

/// What is left of both when equal rows are taken away.
struct Found {
    spool: Rows,
    others: Vec<(Stream, RowId, Values)>,
}

impl Found {
    /// Takes a row of the store's.
    fn take(&mut self, stream: &Stream, row: RowId, values: &Values) {
        let Some(rows) = self.spool.get_mut(stream).and_then(|rows| rows.get_mut(&row)) else { return };
        match rows.iter().position(|(_, spool)| spool == values) {
            Some(at) => drop(rows.swap_remove(at)),
            None => self.others.push((stream.clone(), row, values.clone())),
        }
    }

    /// Names the rows that are in both, and are not equal.
    fn tell(mut self, table: &SinkTable, columns: &[usize], verified: &mut SinkVerified) {
        let schema = table.table.schema();
        let mut named: BTreeMap<(Stream, String), Vec<_>> = BTreeMap::new();
        for (stream, row, values) in self.others {
            let rows = self.spool.get_mut(&stream).and_then(|rows| rows.get_mut(&row));
            // One that is not in the spool, or once more than there, was named as such.
            let Some((offset, spool)) = rows.and_then(Vec::pop) else { continue };
            let names: Vec<String> = values
                .differing(&spool)
                .into_iter()
                .filter_map(|at| columns.get(at))
                .map(|at| format!("`{}`", schema.field(*at).name()))
                .collect();
            named.entry((stream, names.join(", "))).or_default().push((row, Some(offset)));
        }
        for ((stream, names), rows) in named {
            let differences = stretches(Kind::Values, &table.name, &stream, rows);
            verified.differences.extend(differences.into_iter().map(|one| one.because(&names)));
        }
    }
}
