//! Values: each comes back exactly or is refused, and what becomes of a row whose key is there.

use super::{
    super::{
        Verdict, broken,
        case::{Case, EVERYTHING},
        left_out, rows,
        stored::{Contents, rows_of},
    },
    names::begin_anew,
    position::with,
    refusals::refuse,
};
use crate::{
    config::OnConflict,
    sink::{Sink, Written},
};

/// Every type with its extremes, and with no value; those that the sink refuses are exactly those that the bench names.
pub(super) async fn column_types(case: &mut Case) -> Verdict {
    let mut sink = case.opened().await?;
    let all = rows::extremes(case.number());
    // One by one first: a failure names one value.
    for extreme in &all {
        case.feed_row(EVERYTHING, extreme.mark, extreme.row);
        refuse(case, &mut *sink).await?;
    }
    for extreme in &all {
        case.feed_row(EVERYTHING, extreme.mark, extreme.row);
        case.feed_row(1, extreme.mark, extreme.row);
    }
    refuse(case, &mut *sink).await.map_err(|stop| with(&stop, "all in one chunk"))?;
    case.note(format!("{} values", all.len()));
    if !case.bench.keeps_sign_of_zero() {
        case.note("-0.0 comes back as 0.0, the bench says");
    }
    Ok(())
}

/// What `on_conflict` says about a row whose key is there, in an earlier chunk and in its own.
pub(super) async fn keys(case: &mut Case) -> Verdict {
    let ways = [OnConflict::Append, OnConflict::Replace, OnConflict::Ignore, OnConflict::Refuse];
    let known: Vec<OnConflict> = ways.into_iter().filter(|way| case.bench.knows(*way)).collect();
    if known.is_empty() {
        return left_out("the sink has no keys, the bench says");
    }
    for way in known {
        begin_anew(case, &format!("keyed_{way:?}").to_lowercase());
        let table = &mut case.cx.tables[EVERYTHING];
        table.on_conflict = way;
        if way != OnConflict::Append {
            table.key = ["ts_event", "symbol", "seq"].map(str::to_owned).to_vec();
        }
        conflict(case, way).await.map_err(|stop| with(&stop, &format!("{way:?}")))?;
        case.note(format!("{way:?}"));
    }
    Ok(())
}

async fn conflict(case: &mut Case, way: OnConflict) -> Verdict {
    let mut sink = case.opened().await?;
    let mark = rows::at(case.number());
    // Two in one chunk, two more in the next: all with one key.
    for _ in 0..2 {
        for _ in 0..2 {
            let row = rows::plain(case.number());
            case.feed_row(EVERYTHING, mark, row);
        }
        write(case, &mut *sink, way).await?;
        case.holds_rows().await?;
    }
    case.open(&mut *sink).await
}

/// Writes what was fed, and notes which of it has to be there.
async fn write(case: &mut Case, sink: &mut dyn Sink, way: OnConflict) -> Verdict {
    let mut chunk = case.chunk();
    let had_one = case.contents(EVERYTHING).len() > 0;
    if way == OnConflict::Refuse {
        let Written::Refused(refused) = sink.write(&chunk).await? else {
            return broken("a row whose key is there is not refused");
        };
        let causes = refused.iter().map(|row| row.cause).collect();
        chunk = case.log.chunk_without(chunk.from.offset, chunk.to.offset, &causes);
        let left = chunk.rows();
        if left != usize::from(!had_one) {
            return broken(format!("{} rows are refused, and {left} of two are left", refused.len()));
        }
    }
    let form = case.form(EVERYTHING);
    let before = case.contents(EVERYTHING).clone();
    case.commit(sink, &chunk).await?;
    let rows: Vec<String> =
        chunk.tables.iter().flat_map(|part| rows_of(&part.rows)).map(|row| form.text(&row)).collect();
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let only = |row: &String| {
        let mut contents = Contents::default();
        contents.add(row.clone());
        contents
    };
    match way {
        OnConflict::Append | OnConflict::Refuse => {}
        OnConflict::Replace => *case.contents(EVERYTHING) = only(last),
        OnConflict::Ignore => *case.contents(EVERYTHING) = if had_one { before } else { only(first) },
    }
    Ok(())
}
