//! One store beside what it should hold.

mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Look, Open,
    audit::{Audit, Doubled, RowId, Stream, Sum},
    expected::{self, SpoolSum, Wanted},
    misfit,
    report::{Difference, Kind, SinkVerified, Verdict},
};
use crate::{
    Result,
    delivery::Fates,
    ledger::{Coverage, Proof},
    row::Timestamp,
    spool::SpoolReader,
};

/// What a store is compared with.
pub(super) struct Compared<'a> {
    pub(super) reader: &'a SpoolReader,
    pub(super) ledger: Option<&'a Coverage>,
    /// The type of each source.
    pub(super) venues: &'a HashMap<&'a str, &'a str>,
    pub(super) since: Option<Timestamp>,
}

/// The rows of a stream that the spool has, with their offsets.
type Rows = HashMap<RowId, Vec<u64>>;

/// Compares one sink's store.
pub(super) async fn sink(look: Look, wanted: Option<Wanted>, with: &Compared<'_>) -> Result<SinkVerified> {
    let mut verified = SinkVerified::new(&look.name, &look.component);
    let (open, mut wanted) = match (look.audit, wanted) {
        (Ok(open), Some(wanted)) => (open, wanted),
        (Err(why), _) => {
            verified.verdict = if look.is_mute { Verdict::Mute } else { Verdict::CannotTell };
            verified.notes.push(why);
            return Ok(verified);
        }
        (Ok(_), None) => return Ok(verified),
    };
    let Open { mut audit, position, fed_from, noted, .. } = open;
    verified.upto = position.map(|position| position.offset);
    verified.fates = Some(fates(&wanted, with.reader.oldest().offset));
    let Some(position) = position else {
        match noted.position {
            Some(known) => {
                verified.differences.push(Difference::no_position(known));
                verified.verdict = Verdict::Differs;
            }
            None => verified.notes.push("nothing was ever committed to it".to_owned()),
        }
        return Ok(verified);
    };
    let is_foreign = fed_from != Some(with.reader.spool_id());
    let foreign = is_foreign.then_some("the store was fed from another spool");
    if let Some(why) = foreign.or_else(|| misfit(with.reader, position)) {
        verified.differences.push(Difference::position(position, why));
    } else {
        let compared = tables(&mut *audit, &mut wanted, with, &mut verified).await;
        match compared {
            Ok(true) if is_all_left_out(&wanted, &mut verified) => verified.verdict = Verdict::CannotTell,
            Ok(true) => {}
            Ok(false) => verified.verdict = Verdict::CannotTell,
            Err(error) if super::has_let_go(&error) => return Err(error),
            Err(error) => {
                verified.verdict = Verdict::CannotTell;
                verified.notes.push(error.chain());
            }
        }
        letters(&wanted, with.reader.oldest().offset, &mut verified);
        lost(&wanted, with, &mut verified);
    }
    if !verified.differences.is_empty() {
        verified.verdict = Verdict::Differs;
    }
    Ok(verified)
}

/// Gives every offset up to the committed one its fate: what is nowhere is missing.
fn fates(wanted: &Wanted, oldest: u64) -> Fates {
    let offsets = wanted.upto.saturating_sub(oldest.max(wanted.begins_at));
    Fates { missing: offsets.saturating_sub(wanted.fates.offsets()), ..wanted.fates }
}

/// Returns whether no row was compared though some were to be; says how many were left out.
fn is_all_left_out(wanted: &Wanted, verified: &mut SinkVerified) -> bool {
    if wanted.left_out > 0 {
        let (rows, plural) = (wanted.left_out, if wanted.left_out == 1 { "row" } else { "rows" });
        verified.notes.push(format!(
            "{rows} {plural} at the beginning of what the spool still has, or of a table as it is defined today, not compared \
             one by one: others that came with them may be gone"
        ));
    } else if verified.rows == 0 && wanted.fates.delivered > 0 && wanted.asked_since.is_some() {
        verified.notes.push("no row came since then".to_owned());
    }
    verified.rows == 0 && wanted.left_out > 0
}

/// Compares table by table; returns whether that tells something of all that was delivered: nothing does of a table that
/// others write to, nor of a sink all of whose rows take each other's places.
async fn tables(
    audit: &mut dyn Audit,
    wanted: &mut Wanted,
    with: &Compared<'_>,
    verified: &mut SinkVerified,
) -> Result<bool> {
    let (mut is_any_compared, mut is_any_mixed) = (false, false);
    let tables = wanted.plan.tables().to_vec();
    let neighbours = audit.neighbours(&tables).await?;
    for (number, table) in tables.iter().enumerate() {
        let name = &table.name;
        let delivered = wanted.delivered.get(&number).copied().unwrap_or(0);
        if let Some(other) = neighbours.iter().find(|other| other.tables.iter().any(|n| n.eq_ignore_ascii_case(name))) {
            let pipeline = &other.pipeline;
            verified
                .notes
                .push(format!("{name}: pipeline `{pipeline}` writes to it too, so its rows cannot be told apart"));
            is_any_mixed |= delivered > 0;
            continue;
        }
        if wanted.is_stored_whole(number) && !wanted.is_compared(number) {
            is_any_compared |= count(audit, wanted, number, with, verified).await?;
            continue;
        }
        let since = wanted.since(number);
        let Some(sums) = audit.sums(table, since).await? else {
            verified.differences.push(Difference::gone(name));
            missing_all(wanted, with.reader, number, verified)?;
            is_any_compared = true;
            continue;
        };
        if !wanted.is_compared(number) {
            let sums = audit.sums(table, Timestamp(i64::MIN)).await?.unwrap_or_default();
            let stored = sums.iter().map(|sum| sum.rows).sum();
            by_key(wanted, number, (delivered, stored), with, verified);
            continue;
        }
        is_any_compared = true;
        verified.rows += sums.iter().map(|sum| sum.rows).sum::<u64>();
        let streams = differing(wanted, number, sums);
        let mut in_spool = rows(wanted, with.reader, number, &streams)?;
        for stream in streams {
            let spool = in_spool.remove(&stream).unwrap_or_default();
            let store = audit.rows(table, &stream, since).await?;
            differences(name, &stream, &spool, &store, verified);
        }
        values::compare(audit, wanted, (number, table), with.reader, verified).await?;
        older(audit, wanted, number, with, verified).await?;
    }
    Ok(!is_any_mixed && (is_any_compared || wanted.fates.delivered == 0))
}

/// Counts the rows of a table whose `select` leaves out what tells them apart; returns whether that tells something.
async fn count(
    audit: &mut dyn Audit,
    wanted: &Wanted,
    number: usize,
    with: &Compared<'_>,
    verified: &mut SinkVerified,
) -> Result<bool> {
    let table = &wanted.plan.tables()[number];
    let delivered = wanted.delivered.get(&number).copied().unwrap_or(0);
    let there = match audit.count(table).await {
        Ok(Some(there)) => there,
        Ok(None) => {
            verified.differences.push(Difference::gone(&table.name));
            return Ok(true);
        }
        Err(error) => {
            verified.notes.push(format!("{}: {}", table.name, error.chain()));
            return Ok(false);
        }
    };
    verified.rows += there;
    // What the spool has let go of is in the store, and nobody knows how much of it passed.
    let is_whole = with.reader.oldest().offset == 0 && with.since.is_none() && wanted.changed == 0;
    verified.notes.push(format!(
        "{}: its `select` leaves out columns that tell rows apart, so {} counted, and not compared one by one",
        table.name,
        if is_whole { "they are" } else { "those that the spool still has are" }
    ));
    if there < delivered || is_whole && wanted.begins_at == 0 && there > delivered {
        verified.differences.push(Difference::counted(&table.name, delivered, there));
    }
    Ok(true)
}

/// Counts, of a table whose rows take each other's places by their key, or are left out for it, how many are there of those
/// that were delivered: the others were swallowed by the key, which is a fate of its own.
fn by_key(
    wanted: &Wanted,
    number: usize,
    (delivered, stored): (u64, u64),
    with: &Compared<'_>,
    verified: &mut SinkVerified,
) {
    let name = &wanted.plan.tables()[number].name;
    let is_whole = with.reader.oldest().offset == 0 && wanted.begins_at == 0;
    let by_ledger = with.ledger.filter(|ledger| ledger.counts_all && wanted.begins_at == 0);
    let sent = match by_ledger {
        _ if is_whole => Some(delivered),
        // The spool has let go of some: the ledger has counted them.
        Some(ledger) => Some(counted(wanted, number, ledger, with).values().sum()),
        None => None,
    };
    let not_compared = "rows take each other's places by their key, and are not compared";
    if delivered > 0 && stored == 0 {
        verified.differences.push(Difference::empty(name, delivered));
    }
    match sent {
        Some(sent) if stored > sent => verified.differences.push(Difference::more(name, stored - sent)),
        Some(sent) if stored > 0 || sent == 0 => {
            let swallowed = sent - stored;
            verified.swallowed += swallowed;
            let counts = format!("{sent} delivered, {stored} there, {swallowed} swallowed by the key");
            verified.notes.push(format!("{name}: {not_compared} one by one: {counts}"));
        }
        Some(_) | None => verified.notes.push(format!("{name}: {not_compared}")),
    }
}

/// Returns the streams of a table whose sums are not those of the spool.
fn differing(wanted: &Wanted, number: usize, sums: Vec<Sum>) -> BTreeSet<Stream> {
    let of_table = wanted.sums.iter().filter(|((table, _), _)| *table == number);
    let mut expected: BTreeMap<&Stream, SpoolSum> = of_table.map(|((_, stream), sum)| (stream, *sum)).collect();
    let mut differing = BTreeSet::new();
    for sum in sums {
        if expected.remove(&sum.stream).map(|spool| (spool.rows, spool.marks)) != Some((sum.rows, sum.marks)) {
            differing.insert(sum.stream);
        }
    }
    differing.extend(expected.into_keys().cloned());
    differing
}

fn missing_all(wanted: &mut Wanted, reader: &SpoolReader, number: usize, verified: &mut SinkVerified) -> Result<()> {
    let name = wanted.plan.tables()[number].name.clone();
    let streams = differing(wanted, number, Vec::new());
    let mut in_spool = rows(wanted, reader, number, &streams)?;
    for stream in streams {
        let spool = in_spool.remove(&stream).unwrap_or_default();
        differences(&name, &stream, &spool, &[], verified);
    }
    Ok(())
}

/// Reads the rows of some streams from the spool.
fn rows(
    wanted: &mut Wanted,
    reader: &SpoolReader,
    number: usize,
    streams: &BTreeSet<Stream>,
) -> Result<BTreeMap<Stream, Rows>> {
    let mut found: BTreeMap<Stream, Rows> = BTreeMap::new();
    if streams.is_empty() {
        return Ok(found);
    }
    expected::rows_of(reader, wanted, &mut |row| {
        if row.table == number && streams.contains(row.stream) {
            let rows = found.entry(row.stream.clone()).or_default();
            rows.entry(row.id).or_default().push(row.offset);
        }
    })?;
    Ok(found)
}

/// Names what is missing, there twice, or known to the store alone, in stretches.
fn differences(table: &str, stream: &Stream, spool: &Rows, store: &[RowId], verified: &mut SinkVerified) {
    let mut stored: HashMap<RowId, u64> = HashMap::new();
    for row in store {
        *stored.entry(*row).or_default() += 1;
    }
    let (mut missing, mut twice, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for (row, offsets) in spool {
        let there = stored.remove(row).unwrap_or(0) as usize;
        missing.extend(offsets.iter().skip(there).map(|offset| (*row, Some(*offset))));
        twice.extend((offsets.len()..there).map(|_| (*row, offsets.first().copied())));
    }
    for (row, there) in stored {
        unknown.extend((0..there).map(|_| (row, None)));
    }
    for (kind, rows) in [(Kind::Missing, missing), (Kind::Twice, twice), (Kind::Unknown, unknown)] {
        verified.differences.extend(stretches(kind, table, stream, rows));
    }
}

/// Joins rows whose numbers, or offsets, follow on each other.
fn stretches(kind: Kind, table: &str, stream: &Stream, mut rows: Vec<(RowId, Option<u64>)>) -> Vec<Difference> {
    rows.sort_unstable();
    let mut joined: Vec<Difference> = Vec::new();
    for (row, offset) in rows {
        match joined.last_mut() {
            Some(last) if last.goes_on_with(&row) => last.add(&row, offset),
            _ => joined.push(Difference::of(kind, table, stream, &row, offset)),
        }
    }
    joined
}

/// Compares what the spool has let go of: by the ledger's count, and by rows that are there twice.
async fn older(
    audit: &mut dyn Audit,
    wanted: &Wanted,
    number: usize,
    with: &Compared<'_>,
    verified: &mut SinkVerified,
) -> Result<()> {
    let is_cut = with.reader.oldest().offset > 0;
    if with.since.is_some() || !is_cut {
        return Ok(());
    }
    let table = &wanted.plan.tables()[number];
    let dense = dense(wanted, number, with);
    for Doubled { stream, row, rows, moments } in audit.doubled(table, wanted.since(number)).await? {
        let wanted_rows = if dense.contains(&stream) { 1 } else { moments };
        for _ in wanted_rows..rows {
            verified.differences.push(Difference::of(Kind::Twice, &table.name, &stream, &row, None));
        }
    }
    let Some(ledger) = with.ledger else { return Ok(()) };
    if wanted.begins_at > 0 {
        verified
            .notes
            .push(format!("{}: the sink began later than the spool: not compared with the ledger", table.name));
        return Ok(());
    }
    let has_drops = ledger.dropped.iter().any(|dropped| dropped.sink.as_deref() == Some(&wanted.sink));
    let stored = audit.sums(table, Timestamp(i64::MIN)).await?.unwrap_or_default();
    let stored: BTreeMap<&Stream, u64> = stored.iter().map(|sum| (&sum.stream, sum.rows - sum.redriven)).collect();
    for (stream, counted) in counted(wanted, number, ledger, with) {
        let known = |kinds: &[Kind]| -> u64 {
            let is_known = |of: &&Difference| of.is_about(&table.name, &stream) && kinds.contains(&of.kind);
            verified.differences.iter().filter(is_known).map(|of| of.rows).sum()
        };
        let there = stored.get(&stream).copied().unwrap_or(0) + known(&[Kind::Missing]);
        let there = there.saturating_sub(known(&[Kind::Twice, Kind::Unknown]));
        if there < counted {
            verified.differences.push(Difference::older(&table.name, &stream, counted - there));
        }
        // What a full spool dropped is counted by symbol alone.
        if there > counted && ledger.counts_all && !has_drops {
            verified.differences.push(Difference::more_of(&table.name, &stream, there - counted));
        }
    }
    Ok(())
}

/// Returns the streams of a table that have each number once: the ledger knows them as dense, and one source alone reads
/// their venue.
fn dense(wanted: &Wanted, number: usize, with: &Compared<'_>) -> BTreeSet<Stream> {
    let streams = with.ledger.map_or(&[][..], |ledger| &ledger.streams);
    let of_table = streams.iter().filter(|of| of.proof == Proof::DenseSequence && of.listing.is_empty());
    let named = of_table.filter_map(|of| {
        let venue = *with.venues.get(of.source.as_str())?;
        let is_alone = with.venues.values().filter(|other| **other == venue).count() == 1;
        let is_table = wanted.plan.number(&of.source.as_str().into(), &of.table.as_str().into()) == Some(number);
        (is_alone && is_table).then(|| Stream { venue: venue.to_owned(), symbol: of.symbol.clone() })
    });
    named.collect()
}

/// Returns how many rows of each stream of a table the store has by the ledger's count.
fn counted(wanted: &Wanted, number: usize, ledger: &Coverage, with: &Compared<'_>) -> BTreeMap<Stream, u64> {
    let mut counted: BTreeMap<Stream, i64> = BTreeMap::new();
    let of = |source: &str, table: &str, symbol: &str| {
        let venue = with.venues.get(source)?;
        let is_table = wanted.plan.number(&source.into(), &table.into()) == Some(number);
        is_table.then(|| Stream { venue: (*venue).to_owned(), symbol: symbol.to_owned() })
    };
    for stream in &ledger.streams {
        if let Some(name) = of(&stream.source, &stream.table, &stream.symbol) {
            let rows = stream.rows_received.unwrap_or(0) + stream.rows_backfilled.unwrap_or(0);
            *counted.entry(name).or_default() += rows.cast_signed();
        }
    }
    for ((_, stream), more) in wanted.behind_ledger.iter().filter(|((table, _), _)| *table == number) {
        *counted.entry(stream.clone()).or_default() += more;
    }
    for letter in wanted.letters.values().filter(|letter| letter.redrive_of.is_none() && letter.offset <= wanted.upto) {
        if let Some(name) = of(&letter.source, &letter.table, &letter.symbol) {
            *counted.entry(name).or_default() -= 1;
        }
    }
    for dropped in ledger.dropped.iter().filter(|dropped| dropped.sink.as_deref() == Some(&wanted.sink)) {
        for (source, venue) in with.venues {
            if wanted.plan.number(&(*source).into(), &dropped.table.as_str().into()) == Some(number) {
                let name = Stream { venue: (*venue).to_owned(), symbol: dropped.symbol.clone() };
                counted.entry(name).and_modify(|rows| *rows -= dropped.rows.cast_signed());
            }
        }
    }
    counted.into_iter().map(|(stream, rows)| (stream, rows.max(0).cast_unsigned())).collect()
}

/// Says what the sink never got: what a full spool dropped, and what is not there any more.
fn lost(wanted: &Wanted, with: &Compared<'_>, verified: &mut SinkVerified) {
    let dropped = with.ledger.map_or(&[][..], |ledger| &ledger.dropped);
    let is_wanted = |last_at: Timestamp| with.since.is_none_or(|since| last_at >= since);
    for of in dropped.iter().filter(|of| of.sink.as_deref() == Some(&wanted.sink) && is_wanted(of.last_at)) {
        verified.differences.push(Difference::dropped(of));
    }
    match verified.fates {
        Some(Fates { missing, .. }) if missing > 0 => verified.differences.push(Difference::lost(missing)),
        _ => {}
    }
}

/// A dead letter names a row of the sink's; what it names is in the spool, or was.
fn letters(wanted: &Wanted, oldest: u64, verified: &mut SinkVerified) {
    for cause in wanted.letters.keys() {
        let is_retained = cause.offset > oldest.max(wanted.begins_at) && cause.offset <= wanted.upto;
        if is_retained && !wanted.found_letters.contains(cause) {
            verified.differences.push(Difference::letter(cause.offset));
        }
    }
}
