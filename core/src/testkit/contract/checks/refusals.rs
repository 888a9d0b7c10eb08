//! Rows that a store will never take: all of them are named, nothing of their chunk is written, and the rest is.

use std::collections::HashSet;

use super::super::{
    Verdict, broken,
    case::{Case, EVERYTHING},
    left_out,
    rows::{self, Extreme},
    stored::{StoredRow, columns, rows_of},
};
use super::position::with;
use crate::{
    chunk::Chunk,
    sink::{Sink, Written},
    spool::Cause,
};

/// Which of ten rows are refused.
type Pattern = fn(u64) -> bool;

/// Refused rows first, last, in between, and everywhere.
pub(super) async fn refused_rows(case: &mut Case) -> Verdict {
    let kinds = unfit(case)?;
    let mut sink = case.opened().await?;
    let patterns: [(&str, Pattern); 6] = [
        ("the first row", |n| n == 0),
        ("the last row", |n| n == 9),
        ("a row in between", |n| n == 4),
        ("the first and the last row", |n| n == 0 || n == 9),
        ("every second row", |n| n.is_multiple_of(2)),
        ("all rows", |_| true),
    ];
    for kind in kinds.iter().take(3) {
        for (what, is_unfit) in patterns {
            for n in 0..10 {
                if is_unfit(n) { case.feed_row(EVERYTHING, kind.mark, kind.row) } else { case.feed(1) }
            }
            refuse(case, &mut *sink).await.map_err(|stop| with(&stop, what))?;
        }
    }
    case.open(&mut *sink).await?;
    case.holds().await
}

/// Refused rows in both tables of a chunk.
pub(super) async fn in_several_tables(case: &mut Case) -> Verdict {
    let kinds = unfit(case)?;
    let mut sink = case.opened().await?;
    for kind in kinds {
        case.feed(2);
        case.feed_row(1, kind.mark, kind.row);
        case.feed(3);
        case.feed_row(EVERYTHING, kind.mark, kind.row);
        case.feed_row(1, kind.mark, kind.row);
        case.feed(2);
        refuse(case, &mut *sink).await?;
    }
    case.open(&mut *sink).await?;
    case.holds().await
}

/// Writes a chunk of which some rows have to be refused, then what is left of it.
pub(super) async fn refuse(case: &mut Case, sink: &mut dyn Sink) -> Verdict {
    let chunk = case.chunk();
    let unfit = unfit_in(case, &chunk);
    let refused: HashSet<Cause> = unfit.iter().map(|(cause, _)| *cause).collect();
    match sink.write(&chunk).await {
        Ok(Written::Refused(rows)) => {
            let told: HashSet<Cause> = rows.iter().map(|row| row.cause).collect();
            for row in &rows {
                if !refused.contains(&row.cause) {
                    let (why, row) = (row.error.chain(), described(case, &chunk, row.cause));
                    return broken(format!("a row is refused that has to be stored: {why}; {row}"));
                }
                let has_row =
                    |part: &crate::chunk::TableRows| part.table == row.table && part.causes.contains(&row.cause);
                if !chunk.tables.iter().any(has_row) {
                    return broken(format!("a refusal names table {}, and its row is of another", row.table));
                }
            }
            if rows.len() > told.len() {
                return broken("a row is refused twice in one answer");
            }
            if let Some((_, row)) = unfit.iter().find(|(cause, _)| !told.contains(cause)) {
                return broken(format!("a row is not among the refused ones: {row}"));
            }
        }
        Ok(written) => {
            if let Written::Accepted = written {
                case.wait_applied(sink, chunk.to).await?;
            }
            if let Some((_, row)) = unfit.first() {
                return broken(format!("a row is taken that the bench says is refused: {row}"));
            }
            case.counts(&chunk);
            return case.holds().await;
        }
        Err(error) => return broken(format!("`write` fails over a row instead of refusing it: {}", error.chain())),
    }
    case.holds().await.map_err(|stop| with(&stop, "after a chunk that was refused"))?;
    let rest = case.log.chunk_without(chunk.from.offset, chunk.to.offset, &refused);
    case.commit(sink, &rest).await.map_err(|stop| with(&stop, "the chunk without its refused rows"))?;
    case.holds().await
}

/// Returns the rows of a chunk that the bench says are refused, as a failure shows them.
fn unfit_in(case: &Case, chunk: &Chunk) -> Vec<(Cause, String)> {
    let mut unfit = Vec::new();
    for part in &chunk.tables {
        let columns = columns(&case.cx.tables[part.table]);
        for (row, cause) in rows_of(&part.rows).iter().zip(&part.causes) {
            let mut refused = columns.iter().filter(|column| case.bench.refuses(column, row.get(&*column.name)));
            if let Some(column) = refused.next() {
                unfit.push((*cause, shown(&column.name, row)));
            }
        }
    }
    unfit
}

fn shown(column: &str, row: &StoredRow) -> String {
    let mut value = row.get(column).map_or_else(|| "no value".to_owned(), |value| format!("{value:?}"));
    if let Some((end, _)) = value.char_indices().nth(80) {
        value.truncate(end);
        value.push('…');
    }
    format!("`{column}` is {value}")
}

/// Shows what is unusual about a row.
fn described(case: &Case, chunk: &Chunk, cause: Cause) -> String {
    for part in &chunk.tables {
        let Some(at) = part.causes.iter().position(|known| *known == cause) else { continue };
        let rows = rows_of(&part.rows);
        let columns = columns(&case.cx.tables[part.table]);
        let values: Vec<String> = columns.iter().map(|column| shown(&column.name, &rows[at])).collect();
        return values.join(", ");
    }
    format!("the chunk has no row of cause {cause}")
}

/// Returns a row of each kind that the bench says is refused.
fn unfit(case: &mut Case) -> Verdict<Vec<Extreme>> {
    let columns = columns(&case.cx.tables[EVERYTHING]);
    let mut kinds: Vec<(String, Extreme)> = Vec::new();
    for extreme in rows::extremes(case.number()) {
        let log = crate::testkit::MemoryLog::new("contract", rows::tables());
        log.emit(extreme.mark, &extreme.row);
        let Some(row) = log.chunk(0, 1).tables.first().and_then(|part| rows_of(&part.rows).pop()) else { continue };
        let Some(column) = columns.iter().find(|column| case.bench.refuses(column, row.get(&*column.name))) else {
            continue;
        };
        if !kinds.iter().any(|(known, _)| *known == *column.name) {
            kinds.push((column.name.to_string(), extreme));
        }
    }
    if kinds.is_empty() {
        return left_out("the sink refuses nothing, the bench says");
    }
    Ok(kinds.into_iter().map(|(_, extreme)| extreme).collect())
}
