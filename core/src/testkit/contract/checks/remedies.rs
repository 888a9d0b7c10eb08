//! What commands ask of a store: to look at it without a trace, to count, to give its position to somebody.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    super::{
        Verdict, broken,
        case::{Case, EVERYTHING, shown},
        left_out,
        stored::{StoredRow, rows_of},
    },
    owners::permanent,
    position::with,
};
use crate::{
    Error, Kind,
    chunk::{SinkTable, TableRows},
    row::{Timestamp, Value},
    sink::Owner,
    spool::{Boot, SpoolPosition},
    verify::{Audit, Printer, RowId, Stream, Values},
};

/// `reach`, `claim` and `audit` make nothing in a new store, and take nothing from one that is written to.
pub(super) async fn look_without_a_trace(case: &mut Case) -> Verdict {
    look(case).await?;
    let mut sink = case.bench.sink();
    if let Some((_, at)) = sink.open(&case.cx).await?.first() {
        return broken(format!("a look has left a position in a new store: {at}"));
    }
    for _ in 0..2 {
        case.feed(4);
        let chunk = case.chunk();
        case.commit(&mut *sink, &chunk).await?;
        look(case).await?;
    }
    sink.check().await?;
    case.open(&mut *sink).await?;
    case.holds().await
}

async fn look(case: &mut Case) -> Verdict {
    let mut sink = case.bench.sink();
    let found =
        sink.reach(&case.cx.tables).await.map_err(|error| Error::permanent(format!("`reach`: {}", error.chain())))?;
    if found.is_empty() {
        return broken("`reach` says nothing of what it found");
    }
    let claim = case.bench.sink().claim(&case.cx.owner).await?;
    let is_new = case.at == SpoolPosition::START;
    if let (true, Some(claim)) = (is_new, &claim)
        && claim.position != SpoolPosition::START
    {
        return broken(format!("`claim` finds a position in a new store: {claim:?}"));
    }
    // A store that was never written to may have nothing to look at.
    match case.bench.sink().audit(&case.cx).await {
        Ok(_) => Ok(()),
        Err(_) if is_new => Ok(()),
        Err(error) => broken(format!("`audit` fails beside an open sink: {}", error.chain())),
    }
}

/// What an audit counts is what was written: stream by stream, row by row, since any time.
pub(super) async fn audit(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    case.feed(50);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    let Some(mut audit) = case.bench.sink().audit(&case.cx).await? else {
        return left_out("the store cannot be asked");
    };
    let told = audit.position().await?;
    let expected = (case.cx.owner.spool, case.at);
    if case.keeps_position() && told != Some(expected) {
        return broken(format!("`position` is {told:?} and has to be {expected:?}"));
    }
    for part in &chunk.tables {
        let table = case.cx.tables[part.table].clone();
        let rows = rows_of(&part.rows);
        let middle = rows.get(rows.len() / 2).map_or(Timestamp(0), |row| row_id(row).ts_recv);
        for since in [Timestamp(0), middle, Timestamp(middle.0 + 1)] {
            let mut streams: BTreeMap<Stream, Vec<RowId>> = BTreeMap::new();
            for row in rows.iter().filter(|row| row_id(row).ts_recv >= since) {
                streams.entry(stream(row)).or_default().push(row_id(row));
            }
            counts(&mut *audit, &table, since, &streams).await.map_err(|stop| with(&stop, &table.name))?;
        }
        values(&mut *audit, &table, part, &rows).await.map_err(|stop| with(&stop, &table.name))?;
        let counted = audit.count(&table).await?;
        if counted != Some(rows.len() as u64) {
            return broken(format!("`count` of `{}` is {counted:?} and has to be {}", table.name, rows.len()));
        }
        let doubled = audit.doubled(&table, Timestamp(i64::MAX)).await?;
        if case.guarantee != crate::sink::Guarantee::AtLeastOnce && !doubled.is_empty() {
            return broken(format!("`doubled` finds rows twice that are there once: {doubled:?}"));
        }
    }
    let mut gone = case.cx.tables[EVERYTHING].clone();
    gone.name = case.bench.table_name("never_made");
    if audit.sums(&gone, Timestamp(0)).await?.is_some() || audit.count(&gone).await?.is_some() {
        return broken("`sums` or `count` of a table that was never made are not none");
    }
    drop(audit);
    case.feed(1);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await
}

async fn counts(
    audit: &mut dyn Audit,
    table: &SinkTable,
    since: Timestamp,
    streams: &BTreeMap<Stream, Vec<RowId>>,
) -> Verdict {
    let Some(sums) = audit.sums(table, since).await? else { return broken("`sums` finds no table") };
    let told: BTreeMap<Stream, (u64, u64, i64)> =
        sums.into_iter().map(|sum| (sum.stream, (sum.rows, sum.redriven, sum.marks))).collect();
    let sums = streams.iter().map(|(stream, rows)| {
        let marks = rows.iter().map(RowId::mark).sum();
        (stream.clone(), (rows.len() as u64, 0, marks))
    });
    let sums: BTreeMap<_, _> = sums.collect();
    if told != sums {
        return broken(format!(
            "`sums` since {} are {told:?} (rows, redriven, marks) and have to be {sums:?}",
            since.0
        ));
    }
    for (stream, rows) in streams {
        let told = audit.rows(table, stream, since).await?;
        let set = |rows: &[RowId]| rows.iter().copied().collect::<HashSet<_>>();
        if told.len() != rows.len() || set(&told) != set(rows) {
            return broken(format!("`rows` since {} are {told:?} and have to be {rows:?}", since.0));
        }
    }
    Ok(())
}

/// The values that the store says to give back as they were are those of the chunk, for each row.
async fn values(audit: &mut dyn Audit, table: &SinkTable, part: &TableRows, rows: &[StoredRow]) -> Verdict {
    let columns = audit.faithful(table).await?;
    if columns.is_empty() {
        return Ok(());
    }
    let printer = Printer::new(&part.rows, &columns, audit.time_unit());
    let written = rows.iter().enumerate().map(|(at, row)| ((stream(row), row_id(row)), printer.values(at)));
    let written: HashMap<(Stream, RowId), Values> = written.collect();
    let (mut found, mut other) = (0, None);
    let mut show = |stream: &Stream, row: RowId, values: &Values| {
        found += 1;
        match written.get(&(stream.clone(), row)) {
            Some(wanted) if wanted == values => {}
            wanted => other = Some((row, wanted.map(|wanted| wanted.differing(values)))),
        }
    };
    audit.show_values(table, &columns, Timestamp(0), &mut show).await?;
    if let Some((row, differing)) = other {
        let names = |places: Vec<usize>| -> Vec<String> {
            let schema = table.table.schema();
            places.into_iter().map(|at| schema.field(columns[at]).name().clone()).collect()
        };
        return broken(format!("`show_values` shows others than were written, in {row:?}: {:?}", differing.map(names)));
    }
    if found != rows.len() { broken(format!("`show_values` shows {found} of {} rows", rows.len())) } else { Ok(()) }
}

fn row_id(row: &StoredRow) -> RowId {
    let time = |name: &str| match row.get(name) {
        Some(Value::Time(time)) => *time,
        _ => Timestamp(0),
    };
    let seq = match row.get("seq") {
        Some(Value::U64(seq)) => Some(*seq),
        _ => None,
    };
    RowId { seq, ts_event: time("ts_event"), ts_recv: time("ts_recv") }
}

fn stream(row: &StoredRow) -> Stream {
    let text = |name: &str| match row.get(name) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    Stream { venue: text("venue"), symbol: text("symbol") }
}

/// `adopt` gives the position to another spool and puts it elsewhere, twice as once; rows stay.
pub(super) async fn adopt(case: &mut Case) -> Verdict {
    case.needs_position()?;
    let ours = case.cx.owner.clone();
    claims(case, &ours, None).await?;
    let mut sink = case.opened().await?;
    case.feed(8);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    sink.close().await?;
    drop(sink);
    // A sink that cannot do the one need not tell the other.
    let found = claims(case, &ours, Some(case.at)).await;
    let theirs = Owner { spool: ours.spool ^ 0xffff, host: "there".to_owned(), ..ours.clone() };
    let at = SpoolPosition { boot: Boot(0x9999_0000_9999_0000), ..case.at };
    for _ in 0..2 {
        match case.bench.sink().adopt(&theirs, at).await {
            Err(error) if is_unable(&error) => return left_out("the sink does not let its position be changed"),
            adopted => adopted?,
        }
    }
    found?;
    claims(case, &theirs, Some(at)).await?;
    let mut old = case.bench.sink();
    case.cx.known = None;
    if permanent(case, &mut *old).await?.is_none() {
        return broken("`open` gives the old owner what another has adopted");
    }
    drop(old);
    case.cx.owner = theirs;
    case.at = at;
    case.cx.known = Some(at);
    let mut sink = case.opened().await?;
    case.feed(3);
    let mut chunk = case.chunk();
    chunk.from = at;
    case.commit(&mut *sink, &chunk).await?;
    case.holds().await
}

/// `rename` gives the position another name, twice as once; not over one that was written under that name.
pub(super) async fn rename(case: &mut Case) -> Verdict {
    case.needs_position()?;
    let first = case.cx.owner.clone();
    let other_sink = Owner { sink: "renamed".to_owned(), ..first.clone() };
    let other_pipeline = Owner { pipeline: format!("{}-renamed", first.pipeline), ..other_sink.clone() };
    match case.bench.sink().rename(&first, &other_sink).await {
        Err(error) if is_unable(&error) => return left_out("the sink does not let its position be changed"),
        renamed => renamed.map_err(|error| Error::permanent(format!("of a store that has none: {}", error.chain())))?,
    }
    let mut sink = case.opened().await?;
    case.feed(8);
    let chunk = case.chunk();
    case.commit(&mut *sink, &chunk).await?;
    sink.close().await?;
    drop(sink);
    for (old, owner) in [(first.clone(), other_sink.clone()), (other_sink, other_pipeline)] {
        for _ in 0..2 {
            case.bench.sink().rename(&old, &owner).await?;
        }
        claims(case, &old, None).await?;
        claims(case, &owner, Some(case.at)).await?;
        case.cx.owner = owner;
        let mut sink = case.opened().await?;
        case.feed(3);
        let chunk = case.chunk();
        case.commit(&mut *sink, &chunk).await?;
        sink.close().await?;
        drop(sink);
        case.holds().await?;
    }
    Ok(())
}

async fn claims(case: &mut Case, owner: &Owner, at: Option<SpoolPosition>) -> Verdict {
    let claim = case.bench.sink().claim(owner).await?;
    let told = claim.as_ref().map(|claim| claim.position).filter(|at| *at != SpoolPosition::START);
    if told != at {
        let (name, told, at) = (&owner.sink, shown(told), shown(at));
        return broken(format!("`claim` of `{name}` finds {told} and has to find {at}"));
    }
    match claim {
        Some(claim) if at.is_some() && claim.spool != owner.spool => {
            broken(format!("`claim` names spool {:016x}, and it is {:016x}", claim.spool, owner.spool))
        }
        Some(claim) if at.is_some() && claim.host != owner.host => {
            broken(format!("`claim` names host `{}`, and it is `{}`", claim.host, owner.host))
        }
        Some(_) | None => Ok(()),
    }
}

/// Returns whether the sink has left this to the trait.
fn is_unable(error: &Error) -> bool {
    error.kind() == Kind::Permanent && error.to_string().ends_with("a sink of its type cannot do that")
}
